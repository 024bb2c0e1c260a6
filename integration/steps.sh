#!/usr/bin/env bash
# Sourced by integration/test.sh and integration/soak.sh: how a named step runs, and what it says.

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
