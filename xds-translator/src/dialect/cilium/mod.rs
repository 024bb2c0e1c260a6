//! Cilium's kinds. None is served yet.

use super::kind::{Serving, guards_nothing, kinds};

kinds! {
    500;
    /// Cilium's CiliumNetworkPolicy.
    CILIUM_NETWORK_POLICY: "cilium.io" ["v2"] "CiliumNetworkPolicy" "ciliumnetworkpolicies" "cilium-network-policy" Namespaced => Serving::Planned(guards_nothing);
    /// Cilium's CiliumClusterwideNetworkPolicy.
    CILIUM_CLUSTERWIDE_NETWORK_POLICY: "cilium.io" ["v2"] "CiliumClusterwideNetworkPolicy" "ciliumclusterwidenetworkpolicies" "cilium-clusterwide-network-policy" Cluster => Serving::Planned(guards_nothing);
}
