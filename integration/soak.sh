#!/usr/bin/env bash
# The long version of the crash test: 200 kills at random moments. The seed is printed; FERROMESH_SEED repeats a run.
set -euo pipefail
cd "$(dirname "$0")/.."
. integration/peers.sh
FERROMESH_BIN=$(bash integration/build.sh)
export FERROMESH_BIN
FERROMESH_KILLS=${FERROMESH_KILLS:-200} \
  cargo test -p ferromesh-integration --features e2e --test crash -- --nocapture
