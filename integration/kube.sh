#!/usr/bin/env bash
# A real one-node Kubernetes without Docker, for tests and for people who develop (Linux, root).
#   integration/kube.sh up DIR [N]         start cluster N (0..9, default: the first free one); kubeconfig in DIR/kubeconfig
#   integration/kube.sh down DIR           end it and leave nothing, not even DIR
#   integration/kube.sh load DIR TAR...    import image archives (OCI layout, or docker save)
#   integration/kube.sh image ARGUMENTS    write such an archive: [-user UID] [-env NAME=VALUE]... OUT.tar NAME:TAG
#                                          ENTRYPOINT[,ARGUMENT...] FILE=PATH_IN_IMAGE...
#   integration/kube.sh helm ARGUMENTS     run Helm, the same as DIR/bin/helm
#   integration/kube.sh restart DIR PART   end one of apiserver controller-manager coredns containerd etcd kubelet proxy
#                                          scheduler at once, without a farewell; it starts again by itself
#   integration/kube.sh compact DIR        forget all history: who resumes a watch is told 410 Gone once the apiserver restarts
#   integration/kube.sh list               running clusters: number, folder
#   integration/kube.sh build              only build what is missing in the cache
# DIR also has bin/kubectl of the same version, bin/helm, log/PART.log, and probe.tar, an image local/probe:1 that serves and asks HTTP.
# Programs are built once (minutes; needs Go) and kept by version in ${FERROMESH_CACHE:-~/.cache/ferromesh}; system programs come
# from `integration/peers.sh kube`.
# A cluster lives in its own process, mount and network namespaces: processes, mounts and rules end with it. The host
# gets one link per cluster on the bridge fmkube (host 10.97.0.1, node N 10.97.0.1N) and routes to pods 10.10N.0.0/16 and
# services 10.11N.0.0/16, so that pods, programs on the host and other clusters reach each other.
set -euo pipefail
kube_root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$kube_root/kube/names.sh"
. "$kube_root/kube/build.sh"
. "$kube_root/kube/settings.sh"

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$kube_root/kube.sh"; }
wrong() { echo "kube: $*; see integration/kube.sh --help" >&2; exit 2; }
locked() { flock "$host_lock" bash "$kube_root/kube.sh" "$@"; }

need_root_and_programs() {
  [ "$(id -u)" = 0 ] || die "needs root, for namespaces and containers"
  local missing=() program
  for program in etcd containerd ctr runc conntrack iptables ip nsenter unshare openssl curl; do
    command -v "$program" > /dev/null || missing+=("$program")
  done
  [ -x /usr/lib/cni/ptp ] || missing+=(/usr/lib/cni/ptp)
  [ ${#missing[@]} -eq 0 ] || die "not installed: ${missing[*]}; run integration/peers.sh kube"
}

# The process whose namespaces are the cluster's; nothing if it is not running.
anchor() { # DIR
  local pid
  pid=$(cat "$1/anchor.pid" 2> /dev/null) || return 0
  # A number may have been given to another process since; the cluster may have been started from another clone.
  case $({ tr '\0' ' ' < "/proc/$pid/cmdline"; } 2> /dev/null) in "bash "*"/kube/anchor.sh $1 ") echo "$pid" ;; esac
}

ours() { # DIR: its absolute path, if it is a cluster's
  [ -n "${1:-}" ] || wrong "which DIR?"
  [ -f "$1/$marker" ] || die "$1 is not the folder of a cluster"
  (cd "$1" && pwd)
}

free_number() {
  local n
  for n in 0 1 2 3 4 5 6 7 8 9; do [ -e "/sys/class/net/$(link "$n")" ] || { echo "$n"; return; }; done
  die "ten clusters are running: $(list | tr '\n' ' ')"
}

claim() { # DIR [N]: makes the folder and the host's end of the link, which is the proof that N is taken; prints N
  local dir=$1 n=${2:-$(free_number)}
  [ ! -e "/sys/class/net/$(link "$n")" ] || die "cluster number $n is running in $(folder_of "$n"); end it with: integration/kube.sh down $(folder_of "$n")"
  ip link show "$bridge" > /dev/null 2>&1 || make_bridge
  # The same hardware address for every cluster of this number: the host remembers that of the one before for half a minute.
  ip link add "$(link "$n")" type veth peer name "$(link "$n")p" address "02:00:0a:61:01:0$n"
  ip link set "$(link "$n")" master "$bridge" alias "$dir" up
  mkdir -p "$dir"; echo "$n" > "$dir/$marker"
  echo "$n"
}

make_bridge() {
  # Left to itself a bridge takes the lowest address of its links, and when that one ends, clusters lose the host for a while.
  ip link add "$bridge" address 02:00:0a:61:00:01 type bridge
  ip addr add "$host_address/24" dev "$bridge"
  ip link set "$bridge" up
}

release() { # N DIR: unless N belongs to another folder by now
  local owner
  owner=$(folder_of "$1")
  [ "${owner:-$2}" = "$2" ] || return 0
  # Packets of a namespace that ends can keep the link for a moment; deleting one end deletes both.
  ip link del "$(link "$1")" 2> /dev/null || true
  ip route del "$(pods "$1")" 2> /dev/null || true
  ip route del "$(services "$1")" 2> /dev/null || true
  [ -n "$(ip -o link show master "$bridge" 2> /dev/null)" ] || ip link del "$bridge" 2> /dev/null || true
}

up() { # DIR [N]
  [ $# -ge 1 ] && [ $# -le 2 ] || wrong "up DIR [N]"
  [[ ${2:-0} =~ ^[0-9]$ ]] || wrong "cluster number $2: expected 0 to 9"
  need_root_and_programs
  local dir
  dir=$(realpath -m "$1")
  case $dir/ in /run/* | /var/run/* | /var/lib/* | /var/log/* | /proc/* | /sys/*) die "$dir: the cluster has its own /run, /var/lib and /var/log; choose another folder" ;; esac
  [ ${#dir} -le 70 ] || die "$dir: the path is too long for the sockets inside; choose one of at most 70 characters"
  if [ -f "$dir/$marker" ]; then
    [ -z "$(anchor "$dir")" ] || die "$dir: cluster $(cat "$dir/$marker") is already running there"
    say "cleaning what an earlier cluster left in $dir"
    down "$dir"
  fi
  [ -z "$(ls -A "$dir" 2> /dev/null)" ] || die "$dir is not empty, and not the folder of a cluster"
  build

  local n begin=$SECONDS
  n=$(locked claim "$dir" ${2:-})
  trap 'abandon "$dir"' EXIT
  trap 'trap - EXIT; say "interrupted: ending cluster $n"; down "$dir"; exit 130' INT TERM
  say "starting cluster $n in $dir"
  lay_out "$dir"
  write_settings "$dir" "$n"
  run_anchor "$dir"
  ip link set "$(link "$n")p" netns "$(anchor "$dir")" name eth0
  ip route replace "$(pods "$n")" via "$(node "$n")"
  ip route replace "$(services "$n")" via "$(node "$n")"
  follow "$dir" || { blame "$dir"; exit 1; }
  trap - EXIT INT TERM
  say "cluster $n is up after $((SECONDS - begin)) s: export KUBECONFIG=$dir/kubeconfig"
}

lay_out() { # DIR: programs and images
  local part
  mkdir -p "$1/bin" "$1/log"
  for part in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do ln -s "$kubernetes/kube" "$1/bin/$part"; done
  for part in coredns helm; do ln -s "$companions/$part" "$1/bin/$part"; done
  cp "$tools/pause.tar" "$tools/probe.tar" "$1/"
  : > "$1/progress"
}

abandon() { # DIR: what has to happen when `up` fails
  trap - EXIT INT TERM
  unmake "$1"
  die "cluster $(cat "$1/$marker") did not start; its logs are in $1/log, and integration/kube.sh down $1 removes them"
}

# Starts process 1 of the new namespaces. It holds none of our descriptors, so that nobody waits for their end.
run_anchor() { # DIR
  setsid unshare --fork --kill-child=KILL --pid --mount-proc --mount --net --propagation private \
    bash "$kube_root/kube/anchor.sh" "$1" < /dev/null > "$1/log/anchor.log" 2>&1 &
  local outer=$! child
  until child=$(tr -d ' ' < "/proc/$outer/task/$outer/children") && [ -n "$child" ]; do
    kill -0 "$outer" 2> /dev/null || die "no namespaces: $(cat "$1/log/anchor.log")"
    sleep 0.02
  done
  echo "$child" > "$1/anchor.pid"
  until [ -n "$(anchor "$1")" ]; do
    kill -0 "$outer" 2> /dev/null || die "no namespaces: $(cat "$1/log/anchor.log")"
    sleep 0.02
  done
}

# Repeats what process 1 reports, until it says that the cluster is ready, or ends.
follow() { # DIR
  local shown=0 lines
  while [ -n "$(anchor "$1")" ]; do
    mapfile -t -s "$shown" lines < "$1/progress"
    local line
    for line in "${lines[@]}"; do say "$line"; done
    shown=$((shown + ${#lines[@]}))
    [ ! -e "$1/ready" ] || return 0
    sleep 0.1
  done
  return 1
}

blame() { # DIR: why it did not start
  tail -n 1 "$1/progress" 2> /dev/null | sed 's/^/kube: /' >&2
  local part
  part=$(cat "$1/blamed" 2> /dev/null || echo anchor)
  [ -f "$1/log/$part.log" ] || return 0
  echo "kube: last words of $part:" >&2
  tail -n 20 "$1/log/$part.log" | sed 's/^/  /' >&2
}

# Ends everything of a cluster but its folder.
unmake() { # DIR
  local pid n
  n=$(cat "$1/$marker")
  pid=$(anchor "$1")
  if [ -n "$pid" ]; then
    # The end of process 1 is the end of all others, and of mounts and rules: the kernel sees to it.
    kill -KILL "$pid"
    local end=$((SECONDS + 30))
    while [ -e "/proc/$pid" ]; do
      [ $SECONDS -lt $end ] || die "process $pid, the first of $1, does not end"
      sleep 0.05
    done
  fi
  rm -f "$1/anchor.pid"
  locked release "$n" "$1"
  remove_control_groups "$1"
}

# runc removes the control group of a container that it ends itself; here the kernel ended them all.
remove_control_groups() { # DIR
  local container group
  for container in "$1"/run/containerd/io.containerd.runtime.v2.task/k8s.io/*/; do
    container=$(basename "$container")
    for group in /sys/fs/cgroup/{,*/}k8s.io/"$container"; do
      [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + 2> /dev/null || true
    done
  done
  # Stays where another cluster still has containers.
  rmdir /sys/fs/cgroup/{,*/}k8s.io 2> /dev/null || true
}

down() { # DIR
  local dir
  dir=$(ours "${1:-}")
  unmake "$dir"
  rm -rf --one-file-system "$dir"
}

load() { # DIR TAR...
  local dir tar
  dir=$(ours "${1:-}"); shift
  [ $# -gt 0 ] || wrong "load DIR TAR..."
  [ -n "$(anchor "$dir")" ] || die "$dir: the cluster is not running"
  for tar in "$@"; do
    [ -f "$tar" ] || die "$tar: no such file"
    ctr --address "$dir/run/containerd.sock" --namespace k8s.io images import "$tar" > /dev/null || die "$tar: containerd does not take it"
    say "loaded $tar"
  done
}

restart() { # DIR PART
  local dir pid
  dir=$(ours "${1:-}")
  [ -f "$dir/run/${2:-}.pid" ] || wrong "restart DIR PART, PART one of: $(cd "$dir/run" && ls -- *.pid 2> /dev/null | sed 's/\.pid$//' | tr '\n' ' ')"
  pid=$(anchor "$dir")
  [ -n "$pid" ] || die "$dir: the cluster is not running"
  nsenter --target "$pid" --pid --mount bash -c "kill -KILL $(cat "$dir/run/$2.pid")"
}

compact() { # DIR
  local dir pid store=http://127.0.0.1:2379/v3/kv revision
  dir=$(ours "${1:-}")
  pid=$(anchor "$dir")
  [ -n "$pid" ] || die "$dir: the cluster is not running"
  revision=$(nsenter --target "$pid" --net curl -sSf "$store/range" -d '{"key": "AA=="}' | sed -n 's/.*"revision":"\([0-9]*\)".*/\1/p')
  [ -n "$revision" ] || die "$dir: etcd does not tell its revision"
  nsenter --target "$pid" --net curl -sSf "$store/compaction" -d "{\"revision\": $revision, \"physical\": true}" > /dev/null
}

list() {
  local n
  for n in 0 1 2 3 4 5 6 7 8 9; do [ ! -e "/sys/class/net/$(link "$n")" ] || echo "$n $(folder_of "$n")"; done
}

case "${1:-}" in
  up | down | load | list | build | restart | compact | claim | release) "$@" ;;
  image) shift; build_tools; "$tools/image" "$@" ;;
  helm) shift; build_companions; "$companions/helm" "$@" ;;
  -h | --help | help) usage ;;
  '') usage >&2; exit 2 ;;
  *) wrong "unknown command $1" ;;
esac; exit
