#!/usr/bin/env bash
# The one optimised build of the programs, static: end-to-end tests, demo, benchmarks and images all take it from here.
#   FERROMESH_BIN=$(integration/build.sh)        builds what changed, and prints the folder of the programs
#   FERROMESH_BIN=$(integration/build.sh dist)   the same with optimisation over all crates, which takes longer: what is
#                                                measured or shipped; the programs of the benchmarks too
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:-release}
target=$(rustc -vV | sed -n 's/^host: //p')
# With the target named, the flags are for our programs alone: macros and build scripts are loaded by the compiler.
# A static program relocates itself when it starts: a list of where, at eight bytes for 64 places instead of 24 for each.
export RUSTFLAGS="${RUSTFLAGS:+$RUSTFLAGS }-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs"
programs=(ferromesh ferromesh-proxy fm-peer)
case $profile in
  release) ;;
  dist) programs+=(fm-bench fm-bench-control-plane) ;;
  *) echo "build: unknown profile $profile; expected release or dist" >&2; exit 2 ;;
esac
cargo build --profile "$profile" --quiet --target "$target" -p ferromesh-control-plane -p ferromesh-dataplane -p ferromesh-integration \
  "${programs[@]/#/--bin=}" >&2

folder=${CARGO_TARGET_DIR:-$PWD/target}/$target/$profile
for program in "${programs[@]}"; do
  # An interpreter is what loads shared libraries: an image from scratch has none.
  headers=$(readelf --program-headers --wide "$folder/$program")
  [[ $headers != *INTERP* ]] || { echo "build: $folder/$program is not static" >&2; exit 1; }
done
echo "$folder"
