//! Where something runs, as the labels that stand for it (`topology.kubernetes.io/zone`…).

use super::{Labels, Locality};

/// Label of the region.
pub const REGION: &str = "topology.kubernetes.io/region";
/// Label of the zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Label of the sub-zone.
pub const SUB_ZONE: &str = "topology.istio.io/subzone";
/// Label of the network.
pub const NETWORK: &str = "topology.istio.io/network";
/// Label of the Kubernetes cluster.
pub const CLUSTER: &str = "topology.istio.io/cluster";
/// Label of the node.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// Labels of a whole place, `REGION.ZONE.SUBZONE`; of several the first counts.
pub const LOCALITY: [&str; 2] = ["topology.istio.io/locality", "istio-locality"];
/// Every label of one thing.
pub const ALL: [&str; 6] = [REGION, ZONE, SUB_ZONE, NETWORK, CLUSTER, HOSTNAME];
/// Name of the one Kubernetes cluster that a mesh has (Istio's default `CLUSTER_ID`).
pub const CLUSTER_NAME: &str = "Kubernetes";

/// Where something runs; each part may be empty.
#[derive(Clone, Copy, Debug)]
pub struct Topology<'a> {
    /// Region, zone and sub-zone.
    pub locality: &'a Locality,
    /// Network.
    pub network: &'a str,
    /// Name of the node.
    pub node: &'a str,
}

impl<'a> Topology<'a> {
    /// The value of a label of something that runs here: what is known of the place comes before
    /// its own labels, but that its own label says best on which network it is (Istio's
    /// `AugmentLabels`).
    pub fn label(self, labels: &'a Labels, key: &str) -> Option<&'a str> {
        let own = labels.get(key).map(AsRef::as_ref);
        let known: &str = match key {
            REGION => &self.locality.region,
            ZONE => &self.locality.zone,
            SUB_ZONE => &self.locality.sub_zone,
            CLUSTER => CLUSTER_NAME,
            HOSTNAME => self.node,
            NETWORK => own.unwrap_or(self.network),
            _ => "",
        };
        Some(known).filter(|value| !value.is_empty()).or(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_comes_before_labels_but_for_the_network() {
        let locality = Locality { region: "eu".into(), zone: "a".into(), sub_zone: "".into() };
        let here = Topology { locality: &locality, network: "n1", node: "node-1" };
        let labels: Labels = [(ZONE, "b"), (SUB_ZONE, "rack"), (NETWORK, "n2"), ("app", "cart")]
            .map(|(key, value)| (key.into(), value.into()))
            .into();
        let table = [
            (REGION, Some("eu")),
            (ZONE, Some("a")),
            (SUB_ZONE, Some("rack")),
            (NETWORK, Some("n2")),
            (CLUSTER, Some(CLUSTER_NAME)),
            (HOSTNAME, Some("node-1")),
            ("app", Some("cart")),
            ("version", None),
        ];
        for (key, expected) in table {
            assert_eq!(here.label(&labels, key), expected, "{key}");
        }
        assert_eq!(here.label(&Labels::new(), NETWORK), Some("n1"));
    }
}
