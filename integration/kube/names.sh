# Names, numbers and addresses of the clusters of tests. Sourced by its neighbours; starts nothing.

bridge=fmkube
host_address=10.97.0.1
marker=.ferromesh-kube
# One lock for the links of this machine, whatever clone the script runs from; a folder that is always there.
host_lock=/dev/shm

link() { echo "fmkube$1"; }
node() { echo "10.97.0.1$1"; }
pods() { echo "10.10$1.0.0/16"; }
services() { echo "10.11$1.0.0/16"; }
api_service() { echo "10.11$1.0.1"; }
dns_service() { echo "10.11$1.0.10"; }
folder_of() { cat "/sys/class/net/$(link "$1")/ifalias" 2> /dev/null || true; }

say() { echo "kube: $*" >&2; }
die() { say "$*"; exit 1; }
