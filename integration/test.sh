#!/usr/bin/env bash
# The project's test command: peers, formatting, lints, unit tests, then the whole mesh with real Envoys.
#   integration/test.sh            everything (needs root for network namespaces)
#   integration/test.sh NAME...    only the named steps: peers fmt lint unit build demo e2e, and kube, which is asked for by name:
#                                  real Kubernetes clusters (builds Kubernetes once per machine, minutes)
# Leaves no process behind; binds to loopback and to namespaces it made.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
export CARGO_INCREMENTAL=0

step() {
  local name=$1 begin=$SECONDS; shift
  echo "== $name"
  "$@" || { echo "== $name FAILED after $((SECONDS - begin)) s" >&2; exit 1; }
  echo "== $name done in $((SECONDS - begin)) s"
}

peers() { . integration/peers.sh; }
fmt() { cargo fmt --all --check; }
lint() { cargo clippy --workspace --all-targets --all-features --quiet -- -D warnings; }
unit() { cargo test --workspace --quiet; }
build() { cargo build --release --quiet -p ferromesh-control-plane -p ferromesh-dataplane -p ferromesh-integration; }

demo() {
  local ferromesh=target/release/ferromesh envoy=$PWD/.tools/bin/envoy
  echo "-- our proxies" && "$ferromesh" demo --once
  echo "-- Envoy" && "$ferromesh" demo --once --proxy envoy --envoy-path "$envoy"
  echo "-- Envoy calls our proxy" && "$ferromesh" demo --once --proxy ferromesh --client-proxy envoy --envoy-path "$envoy"
  echo "-- our proxy calls Envoy" && "$ferromesh" demo --once --proxy envoy --client-proxy ferromesh --envoy-path "$envoy"
}

e2e() {
  [ "$(id -u)" = 0 ] || { echo "end-to-end tests make network namespaces: run as root" >&2; return 1; }
  FERROMESH_BIN=$PWD/target/release cargo test --quiet -p ferromesh-integration --features e2e -- --test-threads=2
}

kube() {
  bash integration/peers.sh kube
  bash integration/kube.sh build
  FERROMESH_BIN=$PWD/target/release cargo test --quiet -p ferromesh-integration --features kube --test cluster --test 'kube*' -- --test-threads=2
}

begin=$SECONDS
[ $# -gt 0 ] || set -- peers fmt lint unit build demo e2e
for name in "$@"; do
  case $name in
    peers | fmt | lint | unit | build | demo | e2e | kube) step "$name" "$name" ;;
    *) sed -n '2,6p' integration/test.sh >&2; exit 2 ;;
  esac
done
echo "== all done in $((SECONDS - begin)) s"
