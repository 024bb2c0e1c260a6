#!/usr/bin/env bash
# Process 1 of a cluster's namespaces: starts its parts in order, starts again what ended, and by its own end ends them all.
# kube.sh runs it with the cluster's folder; progress goes to DIR/progress, readiness is the file DIR/ready.
set -uo pipefail
dir=$1
. "$(dirname "$0")/names.sh"
n=$(cat "$dir/$marker")
export KUBECONFIG=$dir/kubeconfig

report() { echo "$*" >> "$dir/progress"; }
give_up() { echo "$1" > "$dir/blamed"; report "$2"; exit 1; }

# The host keeps its own of what Kubernetes writes to fixed places.
own_folders() {
  mount --make-rshared /
  local folder
  for folder in /run /var/lib /var/log; do mount -t tmpfs -o mode=755 own "$folder"; done
  mkdir -p /run/netns /run/lock /run/sysctl /run/etcd /var/lib/kubelet /var/log/containers
  [ -d /var/run ] || ln -s /run /var/run
}

# The kubelet wants settings of the whole machine. It reads them as it likes, and the machine keeps its own.
own_kernel_settings() {
  local pair path
  for pair in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    path=${pair%=*}
    [ -e "/proc/sys/$path" ] || continue
    echo "${pair#*=}" > "/run/sysctl/${path//\//.}"
    mount --bind "/run/sysctl/${path//\//.}" "/proc/sys/$path"
  done
}

own_network() {
  ip link set lo up
  until ip link show eth0 > /dev/null 2>&1; do sleep 0.02; done
  ip addr add "$(node "$n")/24" dev eth0
  ip link set eth0 up
  ip route add default via "$host_address"
  local other
  for other in 0 1 2 3 4 5 6 7 8 9; do
    [ "$other" = "$n" ] || ip route add "$(pods "$other")" via "$(node "$other")"
  done
  echo 1 > /proc/sys/net/ipv4/ip_forward
}

keep() { # PART COMMAND...: runs it for ever, its output in log/PART.log
  local part=$1; shift
  (
    while :; do
      "$@" >> "$dir/log/$part.log" 2>&1 < /dev/null &
      echo $! > "$dir/run/$part.pid"
      wait $!
      echo "-- ended with $?, starts again" >> "$dir/log/$part.log"
      sleep 0.2
    done
  ) &
}

within() { # SECONDS PART COMMAND...: waits until the command succeeds, or gives up and blames the part
  local end=$((SECONDS + $1)) part=$2; shift 2
  until "$@" > "$dir/log/wait.log" 2>&1; do
    [ $SECONDS -lt $end ] || give_up "$part" "gave up waiting for $part ($* said: $(tail -n 1 "$dir/log/wait.log"))"
    sleep 0.1
  done
}

api_ready() { curl -sSf --max-time 5 --cacert "$dir/pki/ca.crt" -H "Authorization: Bearer $(cat "$dir/pki/admin.token")" "https://$(node "$n"):6443/readyz"; }
containerd_ready() { ctr --address "$dir/run/containerd.sock" version; }
dns_ready() { curl -sSf --max-time 5 http://127.0.0.1:8181/ready; }
kubectl() { "$dir/bin/kubectl" "$@"; }

start_store() {
  # /run is memory: a slow disk makes the creation of large CRDs time out, and the data ends with the namespace.
  keep etcd etcd --data-dir /run/etcd --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --quota-backend-bytes 4294967296
}

start_api() {
  local pki=$dir/pki
  keep apiserver "$dir/bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
    --bind-address="$(node "$n")" --advertise-address="$(node "$n")" --secure-port=6443 \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" --cert-dir="$pki" \
    --token-auth-file="$pki/tokens.csv" --authorization-mode=Node,RBAC --allow-privileged \
    --service-account-key-file="$pki/tokens.pub" --service-account-signing-key-file="$pki/tokens.key" \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local --service-cluster-ip-range="$(services "$n")" \
    --kubelet-preferred-address-types=InternalIP --kubelet-client-certificate="$pki/kubelet-client.crt" --kubelet-client-key="$pki/kubelet-client.key"
}

start_controllers() {
  keep controller-manager "$dir/bin/kube-controller-manager" --kubeconfig="$KUBECONFIG" --leader-elect=false --use-service-account-credentials \
    --service-account-private-key-file="$dir/pki/tokens.key" --root-ca-file="$dir/pki/ca.crt" \
    --cluster-signing-cert-file="$dir/pki/ca.crt" --cluster-signing-key-file="$dir/pki/ca.key"
  keep scheduler "$dir/bin/kube-scheduler" --kubeconfig="$KUBECONFIG" --leader-elect=false
}

start_node() {
  keep kubelet "$dir/bin/kubelet" --config="$dir/kubelet.yaml" --kubeconfig="$KUBECONFIG" --root-dir="$dir/kubelet" --cert-dir="$dir/pki/kubelet" \
    --hostname-override="node-$n" --node-ip="$(node "$n")" --node-labels="topology.kubernetes.io/region=test,topology.kubernetes.io/zone=test-$n"
  keep proxy "$dir/bin/kube-proxy" --kubeconfig="$KUBECONFIG" --hostname-override="node-$n" --cluster-cidr="$(pods "$n")" --conntrack-max-per-core=0
}

own_folders && own_kernel_settings || give_up anchor "no folders of its own"
own_network || give_up anchor "no network of its own"
report "starting etcd, containerd and the API server"
start_store
keep containerd containerd --config "$dir/containerd.toml"
start_api
within 20 containerd containerd_ready
within 20 containerd ctr --address "$dir/run/containerd.sock" --namespace k8s.io images import "$dir/pause.tar"
within 60 apiserver api_ready
report "starting controllers, node and DNS"
start_controllers
start_node
keep coredns "$dir/bin/coredns" -conf "$dir/Corefile"
within 30 apiserver kubectl apply -f "$dir/dns.yaml"
within 60 kubelet kubectl wait --for=condition=Ready "node/node-$n" --timeout=2s
within 30 controller-manager kubectl get serviceaccount default
within 30 coredns dns_ready
report "ready"
touch "$dir/ready"
wait
