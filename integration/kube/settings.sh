# Keys, certificates and configuration files of one cluster. Sourced by kube.sh; writes into the cluster's folder only.

write_settings() { # DIR N
  local dir=$1 n=$2
  mkdir -p "$dir/pki" "$dir/cni" "$dir/run"
  echo "nameserver 127.0.0.1" > "$dir/resolv.conf"
  write_keys "$dir" "$n"
  write_kubeconfig "$dir" "$n"
  write_containerd "$dir" "$n"
  write_kubelet "$dir" "$n"
  write_dns "$dir" "$n"
}

# One authority for two days: API server, its client certificate for the kubelet, service account tokens, admin's token.
write_keys() { # DIR N
  (
    umask 077
    cd "$1/pki"
    openssl ecparam -genkey -name prime256v1 -noout -out ca.key
    openssl req -x509 -new -key ca.key -days 2 -subj "/CN=kube-test-$2" -out ca.crt
    certificate apiserver "/CN=kube-apiserver" serverAuth "IP:$(node "$2"),IP:$(api_service "$2"),IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
    certificate kubelet-client "/O=system:masters/CN=apiserver-kubelet-client" clientAuth "DNS:apiserver-kubelet-client"
    openssl genrsa -out tokens.key 2048
    openssl rsa -in tokens.key -pubout -out tokens.pub
    openssl rand -hex 16 > admin.token
    echo "$(cat admin.token),admin,1,\"system:masters\"" > tokens.csv
  ) 2> "$1/log/keys.log" || { cat "$1/log/keys.log" >&2; die "openssl failed"; }
}

certificate() { # NAME SUBJECT USAGE ALTERNATIVES
  openssl ecparam -genkey -name prime256v1 -noout -out "$1.key"
  openssl req -new -key "$1.key" -subj "$2" |
    openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out "$1.crt" \
      -extfile <(printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%s\nsubjectAltName=%s\n' "$3" "$4")
}

write_kubeconfig() { # DIR N
  (umask 077; cat > "$1/kubeconfig") << K
apiVersion: v1
kind: Config
clusters:
- name: kube-$2
  cluster: {server: "https://$(node "$2"):6443", certificate-authority-data: $(base64 -w 0 "$1/pki/ca.crt")}
users:
- name: admin
  user: {token: $(cat "$1/pki/admin.token")}
contexts:
- name: kube-$2
  context: {cluster: kube-$2, user: admin}
current-context: kube-$2
K
}

# A pod is a veth pair with routes, not a port of a bridge: answers then pass the node's rules on every kernel.
write_containerd() { # DIR N
  local snapshotter=overlayfs
  # An overlay cannot lie upon another one.
  [ "$(stat -f -c %T "$1")" != overlayfs ] || snapshotter=native
  cat > "$1/containerd.toml" << K
version = 2
root = "$1/containerd"
state = "$1/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.tracing", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "$1/run/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$1/opt"
[plugins."io.containerd.grpc.v1.cri"]
  # Without CAP_SYS_RESOURCE nobody may lower the score, and runc ends without a word when it tries.
  restrict_oom_score_adj = true
  sandbox_image = "docker.io/local/pause:1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "$snapshotter"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$1/cni"
K
  cat > "$1/cni/pods.conflist" << K
{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp", "ipMasq": false, "ipam":
  {"type": "host-local", "dataDir": "$1/run/addresses", "ranges": [[{"subnet": "$(pods "$2")"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
K
}

write_kubelet() { # DIR N
  cat > "$1/kubelet.yaml" << K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$1/pki/ca.crt"}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupsPerQOS: false
clusterDNS: ["$(dns_service "$2")"]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://$1/run/containerd.sock
enforceNodeAllocatable: []
evictionHard: {memory.available: 50Mi, nodefs.available: 1Gi}
failCgroupV1: false
failSwapOn: false
imageGCHighThresholdPercent: 100
maxPods: 250
podLogsDir: $1/log/pods
resolvConf: $1/resolv.conf
volumePluginDir: $1/volume-plugins
K
}

# CoreDNS runs beside the kubelet and knows the cluster's names only: the host's resolver must not leak into pods.
write_dns() { # DIR N
  cat > "$1/Corefile" << K
cluster.local in-addr.arpa {
  bind $(node "$2")
  errors
  ready 127.0.0.1:8181
  kubernetes {
    kubeconfig $1/kubeconfig
    ttl 5
  }
}
. {
  bind $(node "$2")
  template ANY ANY {
    rcode NXDOMAIN
  }
}
K
  cat > "$1/dns.yaml" << K
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  clusterIP: $(dns_service "$2")
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns-node, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
endpoints: [{addresses: ["$(node "$2")"], conditions: {ready: true}}]
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
K
}
