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

step() { # NAME: runs the function of that name up to its first command that fails
  local name=$1 begin=$SECONDS code
  echo "== $name"
  # Behind `||`, or as a condition, the shell would go on after a failure.
  set +e
  (set -e; "$name")
  code=$?
  set -e
  [ $code = 0 ] || { echo "== $name FAILED after $((SECONDS - begin)) s" >&2; exit 1; }
  echo "== $name done in $((SECONDS - begin)) s"
}

peers() { bash integration/peers.sh; bash integration/peers.sh kube; }
fmt() { cargo fmt --all --check; }
lint() { cargo clippy --workspace --all-targets --all-features --quiet -- -D warnings; }
unit() { cargo test --workspace --quiet; }
build() { bash integration/build.sh; }

demo() {
  local ferromesh envoy=$PWD/.tools/bin/envoy
  ferromesh=$(bash integration/build.sh)/ferromesh
  echo "-- our proxies"; "$ferromesh" demo --once
  echo "-- Envoy"; "$ferromesh" demo --once --proxy envoy --envoy-path "$envoy"
  echo "-- Envoy calls our proxy"; "$ferromesh" demo --once --proxy ferromesh --client-proxy envoy --envoy-path "$envoy"
  echo "-- our proxy calls Envoy"; "$ferromesh" demo --once --proxy envoy --client-proxy ferromesh --envoy-path "$envoy"
}

# Tests behind a feature of integration/. They are built as a part of the whole workspace: by itself, the package would choose
# other features of its dependencies, and most of them would be compiled a second time.
behind() { # FEATURE
  [ "$(id -u)" = 0 ] || { echo "these tests make network namespaces: run as root" >&2; return 1; }
  local file tests=() programs
  programs=$(bash integration/build.sh)
  for file in $(grep -l "^#!\[cfg(feature = \"$1\")\]" integration/tests/*.rs integration/tests/*/main.rs); do
    file=${file%/main.rs}
    tests+=(--test "$(basename "$file" .rs)")
  done
  FERROMESH_BIN=$programs cargo test --quiet --workspace \
    --features ferromesh-integration/e2e,ferromesh-integration/kube "${tests[@]}" -- --test-threads=2
}

e2e() { behind e2e; }
images() { bash integration/images.sh; }

kube() { FERROMESH_BUILD_JOBS=$(nproc) bash integration/kube.sh build; behind kube; }

# Where Kubernetes was never built, that takes minutes: it begins early, and uses what the other steps leave of the processors.
kube_early() {
  FERROMESH_BUILD_JOBS=$(nproc) setsid nice -n 19 bash integration/kube.sh build > /dev/null 2>&1 &
  trap "kill -- -$! 2> /dev/null || true" EXIT
}

begin=$SECONDS
[ $# -gt 0 ] || set -- peers fmt lint unit build demo e2e images kube
for name in "$@"; do
  case $name in
    peers | fmt | lint | unit | build | demo | e2e | images | kube) step "$name" ;;
    *) sed -n '2,7p' integration/test.sh >&2; exit 2 ;;
  esac
  case " $* " in *" peers "*" kube "*) [ "$name" != peers ] || kube_early ;; esac
done
echo "== all done in $((SECONDS - begin)) s"
