#!/usr/bin/env bash
# Benchmarks, each against a peer in the same run; ratios are printed, nothing is asserted.
#   integration/bench.sh dataplane [ROUNDS]    Envoy and our proxy: CPU per request, requests/s, latency, memory
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
  dataplane) ;;
  *) sed -n '2,4p' "$0" >&2; exit 2 ;;
esac
. integration/peers.sh
cargo build --release --quiet -p ferromesh-control-plane -p ferromesh-dataplane -p ferromesh-integration
FERROMESH_BIN=$PWD/target/release exec target/release/fm-bench "$@"
