#!/usr/bin/env bash
# Benchmarks, each against a peer; ratios are printed, nothing is asserted.
#   integration/bench.sh dataplane [ROUNDS]    Envoy and our proxy in the same run: CPU per request, requests/s, latency, memory
#   integration/bench.sh control-plane [--services S] [--proxies P] [--runs N] [--events NAME,...] [--json FILE]
#                                              a real API server, S (1000) services, P (1000) clients: CPU, latency, bytes and
#                                              memory of each kind of change, beside istiod's recorded figures (needs root)
#   for instance: integration/bench.sh control-plane --proxies 100 --runs 3 --events endpoint,service --json figures.json
set -euo pipefail
usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; }
case " $* " in
  *" --help "* | *" -h "*) usage; exit ;;
  " dataplane "* | " control-plane "*) ;;
  *) usage >&2; exit 2 ;;
esac
root=$(cd "$(dirname "$0")/.." && pwd)
FERROMESH_BIN=$("$root/integration/build.sh" dist)
export FERROMESH_BIN
case $1 in
  dataplane) cd "$root"; . integration/peers.sh; exec "$FERROMESH_BIN/fm-bench" "$@" ;;
  control-plane)
    shift
    bash "$root/integration/peers.sh" kube
    bash "$root/integration/kube.sh" build
    exec "$FERROMESH_BIN/fm-bench-control-plane" "$@" ;;
esac
