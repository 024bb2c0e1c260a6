# Builds the programs that a cluster consists of, into a cache outside the clone. Sourced by kube.sh.

kubernetes_version=1.36.3
cache=${FERROMESH_CACHE:-${HOME:?}/.cache/ferromesh}
kube_source=$kube_root/kube

# Charts ask the API server for its version, which a build from a module does not know.
version_flags="-X k8s.io/component-base/version.gitVersion=v$kubernetes_version -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36 -X k8s.io/client-go/pkg/version.gitVersion=v$kubernetes_version"

# Charts rendered without a cluster are for the version of ours.
helm_version=$(sed -n 's|.*helm.sh/helm/v3 v\([0-9.]*\).*|\1|p' "$kube_source/companions/go.mod")
helm_flags="-X helm.sh/helm/v3/internal/version.version=v$helm_version -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=36 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=36"

# What decides about a program's bytes: its sources and the pinned versions.
fingerprint() { cat "$@" | sha256sum | cut -c 1-8; }
kubernetes=$cache/kubernetes-$kubernetes_version-$(fingerprint "$kube_source"/{main.go,go.mod,go.sum} <(echo "$version_flags"))
# CoreDNS and Helm.
companions=$cache/kube-companions-$(fingerprint "$kube_source"/companions/{go.mod,go.sum,coredns/main.go} <(echo "$helm_flags"))
tools=$cache/kube-tools-$(fingerprint "$kube_source"/{pause,image,probe}/main.go)

go_program() {
  command -v go || { [ -x /usr/local/go/bin/go ] && echo /usr/local/go/bin/go; } || ls "$cache"/go/bin/go 2> /dev/null ||
    die "Go is not installed, and $1 has to be built; run integration/peers.sh kube"
}

# One at a time on this machine, complete or not at all: programs appear in the cache by a rename.
build_into() { # FOLDER WHAT FUNCTION
  [ ! -d "$1" ] || return 0
  mkdir -p "$cache"
  (
    flock 9
    [ ! -d "$1" ] || exit 0
    begin=$SECONDS
    say "building $2, once (minutes)"
    rm -rf "$1.part"; mkdir "$1.part"
    go=$(go_program "$2")
    (cd "$kube_source" && "$3" "$1.part") || { rm -rf "$1.part"; die "building $2 failed"; }
    mv "$1.part" "$1"
    say "built $2 in $((SECONDS - begin)) s"
  ) 9> "$cache/.lock"
}

static_go() { CGO_ENABLED=0 nice -n 19 "$go" "$1" -trimpath -ldflags "-s -w $version_flags" "${@:2}"; }
kubernetes_into() { static_go build -o "$1/kube" .; }
companions_into() { cd companions; version_flags=$helm_flags static_go build -o "$1/" ./coredns helm.sh/helm/v3/cmd/helm; }
tools_into() {
  static_go build -o "$1/" ./pause ./image ./probe
  "$1/image" "$1/pause.tar" local/pause:1 /pause "$1/pause=/pause"
  "$1/image" -user 1337 "$1/probe.tar" local/probe:1 /probe "$1/probe=/probe"
}

build_tools() { build_into "$tools" "tools for images" tools_into; }
build_companions() { build_into "$companions" "CoreDNS and Helm" companions_into; }

build() {
  build_tools
  build_into "$kubernetes" "Kubernetes $kubernetes_version" kubernetes_into
  build_companions
}
