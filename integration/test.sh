#!/usr/bin/env bash
# The project's test command: peers, formatting, lints, unit tests, then the whole mesh with real Envoys, on this machine and in
# real Kubernetes clusters.
#   integration/test.sh            everything (needs root for network namespaces and containers)
#   integration/test.sh NAME...    only the named steps: peers fmt lint unit build demo e2e images kube
# Leaves no process behind; binds to loopback and to namespaces it made.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
export CARGO_INCREMENTAL=0

. integration/steps.sh

peers() { bash integration/peers.sh; bash integration/peers.sh kube; }
fmt() { cargo fmt --all --check; }
lint() { cargo clippy --workspace --all-targets --all-features --quiet -- -D warnings; }
# Random tests take the same cases in every run: this command judges a change, `soak.sh properties` looks for what nobody met.
unit() { PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1} cargo test --workspace --quiet; }
build() { bash integration/build.sh; }

demo() {
  local ferromesh envoy=$PWD/.tools/bin/envoy
  ferromesh=$(bash integration/build.sh)/ferromesh
  echo "-- our proxies"; "$ferromesh" demo --once
  echo "-- Envoy"; "$ferromesh" demo --once --proxy envoy --envoy-path "$envoy"
  echo "-- Envoy calls our proxy"; "$ferromesh" demo --once --proxy ferromesh --client-proxy envoy --envoy-path "$envoy"
  echo "-- our proxy calls Envoy"; "$ferromesh" demo --once --proxy envoy --client-proxy ferromesh --envoy-path "$envoy"
}

# Tests behind a feature of integration/: its arguments for cargo. They are built as a part of the whole workspace: by itself, the
# package would choose other features of its dependencies, and most of them would be compiled a second time.
behind() { # FEATURE
  [ "$(id -u)" = 0 ] || { echo "these tests make network namespaces: run as root" >&2; return 1; }
  local file
  echo --quiet --workspace --features ferromesh-integration/e2e,ferromesh-integration/kube
  for file in $(grep -l "^#!\[cfg(feature = \"$1\")\]" integration/tests/*.rs integration/tests/*/main.rs); do
    file=${file%/main.rs}
    echo --test "$(basename "$file" .rs)"
  done
}

e2e() {
  local arguments
  arguments=$(behind e2e)
  FERROMESH_BIN=$(bash integration/build.sh)
  export FERROMESH_BIN
  # shellcheck disable=SC2086
  cargo test $arguments -- --test-threads=2
}

images() { bash integration/images.sh; }

# Tests in clusters wait more than they compute: two programs at a time. What one says is shown when it has ended.
kube() {
  local arguments
  arguments=$(behind kube)
  FERROMESH_BIN=$(bash integration/build.sh)
  export FERROMESH_BIN
  bash integration/kube.sh build
  # shellcheck disable=SC2086
  cargo test $arguments --no-run --message-format=json | sed -n '/"kind":\["test"\]/s/.*"executable":"\([^"]*\)".*/\1/p' |
    sort --reverse | (cd integration && xargs --max-procs=2 --replace bash -c 'one "$1"' one {})
}

one() { # PROGRAM: runs its tests
  local begin=$SECONDS said name=${1##*/}
  if said=$("$1" --test-threads=1 2>&1); then said=$(tail -n 2 <<< "$said"); else said=$said$'\n'FAILED; fi
  printf -- '-- %s, %s s\n%s\n' "${name%-*}" $((SECONDS - begin)) "$said"
  [[ $said != *FAILED ]]
}
export -f one

# The release build has long stretches for one processor, and where Kubernetes was never built, that takes minutes: both begin
# early. One after the other, since the end of the release build leaves a processor free.
early() {
  setsid bash -c 'bash integration/build.sh; bash integration/kube.sh build' > /dev/null 2>&1 &
  # shellcheck disable=SC2064
  trap "kill -- -$! 2> /dev/null || true" EXIT
}

begin=$SECONDS
[ $# -gt 0 ] || set -- peers fmt lint unit build demo e2e images kube
for name in "$@"; do
  case $name in
    peers | fmt | lint | unit | build | demo | e2e | images | kube) step "$name" ;;
    *) sed -n '2,7p' integration/test.sh >&2; exit 2 ;;
  esac
  case " $* " in *" peers "*" build "*" kube "*) [ "$name" != peers ] || early ;; esac
done
echo "== all done in $((SECONDS - begin)) s"
