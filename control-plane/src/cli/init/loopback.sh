#!/bin/sh
# Runs workloads of this mesh without root, each an application with a proxy:
#   sh loopback.sh NAME... [--proxy envoy]
# What stands here for hello-1 is what a workload of your own needs.
set -eu
cd "$(dirname "$0")"
proxy=run names=
while [ $# -gt 0 ]; do
  case $1 in
    --proxy) proxy=$2; shift ;;
    *) names="$names $1" ;;
  esac
  shift
done

# Everything that was started ends with this script.
pids=
trap 'trap - EXIT; kill $pids 2>/dev/null || true; wait' EXIT
trap 'exit 0' INT TERM

start() { # NAME TYPE NETWORK: a proxy that has the addresses of a network
  mkdir -p "run/$1"
  # A join token proves once who the proxy is. The certificate that it gets for it, and renews, lies
  # in run/NAME: while it is valid the proxy comes back without a token.
  ( umask 077
    ferromesh token create --wait 30s --single-use -n default -s "$1" > "run/$1/token" )
  ferromesh-proxy "$proxy" --type "$2" --control-plane 127.0.0.1:15012 \
    --root-cert ferromesh-data/root-cert.pem --token-file "run/$1/token" --work-dir "run/$1" \
    --namespace default --service-account "$1" --name "$1-1" \
    --interception none --inbound-address "$3.2" --outbound-address "$3.3" --app-address "$3.4" \
    --admin-address "$3.5:15000" --status-address "$3.5:15021" --metrics-address "$3.5:15090" --drain-time 1s \
    > "run/$1/log" 2>&1 &
  pids="$pids $!"
}

application() { # ARGUMENTS...
  ferromesh echo "$@" &
  pids="$pids $!"
}

for name in ${names:-hello web gateway}; do
  case $name in
    # Others reach an application at its proxy (.2), which passes requests on to it (.4).
    hello) application --name hello --listen 127.20.1.4:8000; start hello sidecar 127.20.1 ;;
    # An application reaches others at its own proxy (.3), by their names.
    web)
      application --name web --listen 127.20.2.4:8000 --call http://127.20.2.3:8000/ --host hello
      start web sidecar 127.20.2 ;;
    gateway) start gateway router 127.20.3 ;;
    *) echo "$name: expected hello, web or gateway" >&2; exit 2 ;;
  esac
done
wait
