#!/bin/sh
# Runs workloads of this mesh with interception, each in a network namespace of its own; as root:
#   sh interception.sh up                         makes the network: a bridge and the namespaces
#   sh interception.sh NAME... [--proxy envoy]    runs workloads until it is told to end
#   sh interception.sh down                       takes the network away again
# Applications call others by their addresses and know nothing of a proxy.
set -eu
cd "$(dirname "$0")"
uid=1337 # the user of proxies: what they send is not redirected to them

up() {
  ip link add fm0 type bridge
  ip address add 10.44.0.1/24 dev fm0
  ip link set fm0 up
  for place in hello:11 web:12 gateway:13; do
    name=${place%:*} last=${place#*:}
    ip netns add "fm-$name"
    ip link add "fm-$name" type veth peer name eth0 netns "fm-$name"
    ip link set "fm-$name" master fm0 up
    ip -n "fm-$name" address add "10.44.0.$last/24" dev eth0
    ip -n "fm-$name" link set lo up
    ip -n "fm-$name" link set eth0 up
    ip -n "fm-$name" route add default via 10.44.0.1
  done
  # A gateway is called as it is. What the applications beside the others send and get goes through
  # their proxies from now on.
  for name in hello web; do ip netns exec "fm-$name" ferromesh-proxy redirect; done
}

down() {
  for name in hello web gateway; do ip netns delete "fm-$name" 2>/dev/null || true; done
  ip link delete fm0 2>/dev/null || true
}

case ${1:-} in
  up) up; exit ;;
  down) down; exit ;;
esac
proxy=run names=
while [ $# -gt 0 ]; do
  case $1 in
    --proxy) proxy=$2; shift ;;
    *) names="$names $1" ;;
  esac
  shift
done

pids=
trap 'trap - EXIT; kill $pids 2>/dev/null || true; wait' EXIT
trap 'exit 0' INT TERM

start() { # NAME TYPE: a proxy in its namespace
  mkdir -p "run/$1"
  ( umask 077
    ferromesh token create --wait 30s --single-use -n default -s "$1" > "run/$1/token" )
  cp ferromesh-data/root-cert.pem "run/$1/"
  chown -R "$uid:$uid" "run/$1"
  ( cd "run/$1"
    exec ip netns exec "fm-$1" setpriv --reuid "$uid" --regid "$uid" --clear-groups \
      ferromesh-proxy "$proxy" --type "$2" --control-plane 10.44.0.1:15012 \
      --root-cert root-cert.pem --token-file token --work-dir . \
      --namespace default --service-account "$1" --name "$1-1" --drain-time 1s > log 2>&1 ) &
  pids="$pids $!"
}

application() { # NAMESPACE ARGUMENTS...
  namespace=$1
  shift
  ip netns exec "$namespace" setpriv --reuid 65534 --regid 65534 --clear-groups \
    ferromesh echo "$@" &
  pids="$pids $!"
}

for name in ${names:-hello web gateway}; do
  case $name in
    hello) application fm-hello --name hello --listen 10.44.0.11:8000; start hello sidecar ;;
    # The address is the Service's. By its name, your resolver or /etc/hosts would give it.
    web)
      application fm-web --name web --listen 10.44.0.12:8000 \
        --call http://10.96.0.11:8000/ --host hello
      start web sidecar ;;
    gateway) start gateway router ;;
    *) echo "$name: expected up, down, hello, web or gateway" >&2; exit 2 ;;
  esac
done
wait
