#!/usr/bin/env bash
# What takes longer than the test command may. Random tests print their seed; FERROMESH_SEED repeats a run.
#   integration/soak.sh            everything
#   integration/soak.sh NAME...    only the named steps:
#     properties    the unit tests with other random cases each time, ten times (FERROMESH_PROPERTY_ROUNDS); a seed that fails is
#                   repeated by PROPTEST_RNG_SEED
#     crash         200 kills of the control plane at random moments (FERROMESH_KILLS)
#     attack        floods, starvation, slow and broken peers beside good ones; what memory they cost is printed
#                   (FERROMESH_ATTACK_SECONDS each, FERROMESH_ATTACK_ROUNDS)
#     oracle        5,000 calls under random authorization policies, as documented and as Envoy judges (FERROMESH_ORACLE_CASES)
#     configurations  1,000 random configurations with objects of every kind that is served, one after the other to Envoys of a
#                   sidecar and a gateway, which must refuse nothing (FERROMESH_CONFIGURATIONS)
#     matrix        every case of the traffic matrix, of whose lonely ones the test command takes a fourth (FERROMESH_MATRIX)
#     fuzz          ten minutes of mutated input for each stage of the translator (FERROMESH_FUZZ_SECONDS)
#     memory        1,000 services, 1,000 clients that connect, see a change and leave, ten times (FERROMESH_MEMORY_ROUNDS)
#     differential  100,000 requests, byte by byte, to Envoy and to our proxy behind 200 configurations; it fails with the plainest
#                   request of every kind of difference (FERROMESH_REQUESTS, FERROMESH_CONFIGURATIONS)
#     explain       10,000 requests that `ferromesh explain` explains, beside what Envoy does with them, in 200 meshes
#                   (FERROMESH_REQUESTS, FERROMESH_CONFIGURATIONS)
# Leaves no process behind; binds to loopback and to namespaces it made.
set -euo pipefail
cd "$(dirname "$0")/.."

. integration/steps.sh

properties() {
  local round
  for ((round = 0; round < ${FERROMESH_PROPERTY_ROUNDS:-10}; round++)); do
    export PROPTEST_RNG_SEED=$RANDOM$RANDOM
    echo "-- PROPTEST_RNG_SEED=$PROPTEST_RNG_SEED"
    cargo test --workspace --quiet --features ferromesh-integration/e2e,ferromesh-integration/kube --lib
  done
}

crash() { FERROMESH_KILLS=${FERROMESH_KILLS:-200} target crash; }

attack() {
  FERROMESH_ATTACK_SECONDS=${FERROMESH_ATTACK_SECONDS:-10} FERROMESH_ATTACK_ROUNDS=${FERROMESH_ATTACK_ROUNDS:-3} target attack
}

# Without a seed the test would always judge the same calls.
oracle() {
  FERROMESH_ORACLE_CASES=${FERROMESH_ORACLE_CASES:-5000} FERROMESH_SEED=${FERROMESH_SEED:-$RANDOM$RANDOM} target access_oracle
}

configurations() {
  FERROMESH_CONFIGURATIONS=${FERROMESH_CONFIGURATIONS:-1000} FERROMESH_SEED=${FERROMESH_SEED:-$RANDOM$RANDOM} \
    target random_configurations
}

fuzz() { FERROMESH_FUZZ_SECONDS=${FERROMESH_FUZZ_SECONDS:-600} FERROMESH_SEED=${FERROMESH_SEED:-$RANDOM$RANDOM} target fuzz; }

matrix() { FERROMESH_MATRIX=${FERROMESH_MATRIX:-} target matrix; }

memory() {
  FERROMESH_MEMORY_SERVICES=1000 FERROMESH_MEMORY_PROXIES=1000 FERROMESH_MEMORY_ROUNDS=${FERROMESH_MEMORY_ROUNDS:-10} \
    target limits departures::
}

differential() {
  FERROMESH_REQUESTS=${FERROMESH_REQUESTS:-100000} FERROMESH_CONFIGURATIONS=${FERROMESH_CONFIGURATIONS:-200} target differential
}

explain() {
  FERROMESH_REQUESTS=${FERROMESH_REQUESTS:-10000} FERROMESH_CONFIGURATIONS=${FERROMESH_CONFIGURATIONS:-200} \
    FERROMESH_SEED=${FERROMESH_SEED:-$RANDOM$RANDOM} target explain
}

# Built with the features of the test command, so that nothing is compiled twice.
target() { # NAME [FILTER]: runs that end-to-end test target, and shows what it prints
  cargo test --workspace --features ferromesh-integration/e2e,ferromesh-integration/kube --test "$1" -- --nocapture "${@:2}"
}

steps=(properties crash attack oracle configurations matrix fuzz memory differential explain)
usage() { sed -n '2,/^set/{/^set/d;s/^# \?//;p}' integration/soak.sh; }
[ "${1:-}" != --help ] || { usage; exit; }
[ $# -gt 0 ] || set -- "${steps[@]}"
for name in "$@"; do
  [[ " ${steps[*]} " = *" $name "* ]] || { usage >&2; exit 2; }
done
. integration/peers.sh
FERROMESH_BIN=$(bash integration/build.sh dist)
export FERROMESH_BIN
for name in "$@"; do step "$name"; done
