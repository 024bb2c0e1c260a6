//! Where traffic goes first when endpoints are in several localities.

use std::{collections::BTreeMap, sync::Arc};

use super::{LocalityEndpoints, Traffic};
use crate::ir::{Endpoint, Labels, Locality, LocalityPolicy, MeshDefaults};

/// How traffic is spread over localities, for one client's locality.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Spread {
    /// Fixed shares: (locality pattern, percent).
    Distribute(Vec<(Arc<str>, u32)>),
    /// Nearest first: (from region, to region) for the fourth step.
    Nearest(Vec<(Arc<str>, Arc<str>)>),
    /// By how many of these labels agree with the client's, in order.
    Labels(Vec<Arc<str>>),
}

impl Spread {
    /// What is active for a client; `None`: localities do not matter.
    ///
    /// Failover needs outlier detection: without it nothing would ever take traffic off the nearest
    /// endpoints.
    pub(crate) fn of(
        mesh: &MeshDefaults,
        traffic: &Traffic,
        locality: Option<&Locality>,
    ) -> Option<Self> {
        let client = locality?;
        let policy = traffic.load_balancer.locality.as_ref().unwrap_or(&mesh.locality);
        if policy.enabled == Some(false) {
            return None;
        }
        if let Some(shares) = distribution(policy, client) {
            return Some(Self::Distribute(shares));
        }
        if !policy.distribute.is_empty() || traffic.outlier.is_none() {
            return None;
        }
        if policy.failover_priority.is_empty() {
            Some(Self::Nearest(policy.failover.clone()))
        } else {
            Some(Self::Labels(policy.failover_priority.clone()))
        }
    }

    /// The labels of the client that it compares.
    pub(crate) fn compared_labels(&self, client: &Labels) -> Labels {
        let Self::Labels(priority) = self else { return Labels::new() };
        let compared = priority.iter().map(|label| split_priority(label).0);
        compared
            .filter_map(|key| client.get_key_value(key))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }

    /// Regroups endpoints, which come as one group per locality with priority 0.
    pub(crate) fn arrange(
        &self,
        client: &Locality,
        labels: &Labels,
        groups: BTreeMap<Locality, Vec<Endpoint>>,
    ) -> Vec<(Locality, u32, Option<u32>, Vec<Endpoint>)> {
        let mut arranged = match self {
            Self::Distribute(shares) => return distribute(shares, groups),
            Self::Nearest(failover) => groups
                .into_iter()
                .map(|(locality, endpoints)| {
                    let priority = distance(client, &locality, failover);
                    (locality, priority, None, endpoints)
                })
                .collect(),
            Self::Labels(priority) => by_labels(priority, client, labels, groups),
        };
        compact(&mut arranged);
        arranged.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        arranged
    }
}

type Group = (Locality, u32, Option<u32>, Vec<Endpoint>);

fn distribution(policy: &LocalityPolicy, client: &Locality) -> Option<Vec<(Arc<str>, u32)>> {
    policy.distribute.iter().find(|(from, _)| covers(from, client)).map(|(_, to)| to.clone())
}

/// Whether `region/zone/sub_zone`, possibly shorter or ending in `*`, covers a locality.
fn covers(pattern: &str, locality: &Locality) -> bool {
    let parts = [&locality.region, &locality.zone, &locality.sub_zone];
    pattern.split('/').zip(parts).all(|(wanted, part)| wanted == "*" || wanted == &**part)
}

/// Shares weigh localities; endpoints that no share covers get nothing.
fn distribute(shares: &[(Arc<str>, u32)], groups: BTreeMap<Locality, Vec<Endpoint>>) -> Vec<Group> {
    // Localities under one pattern split its share by the weight of their endpoints.
    let total = |pattern: &str| -> u64 {
        groups.iter().filter(|(l, _)| covers(pattern, l)).map(|(_, e)| weight_of(e)).sum()
    };
    let share = |locality: &Locality, endpoints: &[Endpoint]| {
        let (pattern, percent) = shares.iter().find(|(pattern, _)| covers(pattern, locality))?;
        // Scaled, so that small groups keep a share of their own.
        let scaled = u64::from(*percent) * 100 * weight_of(endpoints) / total(pattern).max(1);
        u32::try_from(scaled.max(1)).ok().filter(|_| *percent > 0)
    };
    let weights: Vec<Option<u32>> = groups.iter().map(|(l, e)| share(l, e)).collect();
    let weighed = groups.into_iter().zip(weights);
    weighed
        .filter_map(|((locality, e), weight)| weight.map(|w| (locality, 0, Some(w), e)))
        .collect()
}

fn weight_of(endpoints: &[Endpoint]) -> u64 {
    endpoints.iter().map(|e| u64::from(e.weight.max(1))).sum()
}

/// 0: same sub-zone, 1: same zone, 2: same region, 3: elsewhere (or the named region), 4: not the
/// named region.
fn distance(client: &Locality, other: &Locality, failover: &[(Arc<str>, Arc<str>)]) -> u32 {
    if client.region == other.region {
        return match (client.zone == other.zone, client.sub_zone == other.sub_zone) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        };
    }
    match failover.iter().find(|(from, _)| *from == client.region) {
        Some((_, to)) if *to != other.region => 4,
        _ => 3,
    }
}

/// A label, and the value that an override gives (`key=value`).
fn split_priority(label: &str) -> (&str, Option<&str>) {
    match label.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (label, None),
    }
}

fn by_labels(
    priority: &[Arc<str>],
    client: &Locality,
    labels: &Labels,
    groups: BTreeMap<Locality, Vec<Endpoint>>,
) -> Vec<Group> {
    let mut regrouped: BTreeMap<(u32, Locality), Vec<Endpoint>> = BTreeMap::new();
    for (locality, endpoints) in groups {
        for endpoint in endpoints {
            let agreeing = agreeing(priority, client, labels, &endpoint);
            let misses = u32::try_from(priority.len() - agreeing).unwrap_or(u32::MAX);
            regrouped.entry((misses, locality.clone())).or_default().push(endpoint);
        }
    }
    regrouped
        .into_iter()
        .map(|((misses, locality), endpoints)| (locality, misses, None, endpoints))
        .collect()
}

/// How many leading labels agree; the first disagreement ends the count.
fn agreeing(
    priority: &[Arc<str>],
    client: &Locality,
    labels: &Labels,
    endpoint: &Endpoint,
) -> usize {
    let agrees = |label: &str| {
        let (key, value) = split_priority(label);
        let of_client =
            value.or_else(|| labels.get(key).map(AsRef::as_ref)).or_else(|| topology(key, client));
        let of_endpoint = topology(key, &endpoint.locality)
            .or_else(|| endpoint.labels.get(key).map(AsRef::as_ref))
            .or_else(|| (key == "topology.istio.io/network").then_some(&*endpoint.network));
        of_client.unwrap_or_default() == of_endpoint.unwrap_or_default()
    };
    priority.iter().take_while(|label| agrees(label)).count()
}

fn topology<'a>(key: &str, locality: &'a Locality) -> Option<&'a str> {
    match key {
        "topology.kubernetes.io/region" => Some(&locality.region),
        "topology.kubernetes.io/zone" => Some(&locality.zone),
        "topology.istio.io/subzone" => Some(&locality.sub_zone),
        _ => None,
    }
}

/// Priorities must be gapless from 0, or Envoy refuses the assignment.
fn compact(groups: &mut [Group]) {
    let mut used: Vec<u32> = groups.iter().map(|g| g.1).collect();
    used.sort_unstable();
    used.dedup();
    for group in groups {
        let rank = used.iter().position(|&p| p == group.1).unwrap_or_default();
        group.1 = u32::try_from(rank).unwrap_or(u32::MAX);
    }
}

/// Spells an arranged group.
pub(crate) fn spell(
    group: Group,
    plan: impl Fn(Endpoint) -> super::EndpointPlan,
) -> LocalityEndpoints {
    let (locality, priority, weight, endpoints) = group;
    let sum = u32::try_from(weight_of(&endpoints)).unwrap_or(u32::MAX);
    LocalityEndpoints {
        locality,
        priority,
        weight: Some(weight.unwrap_or(sum)),
        endpoints: endpoints.into_iter().map(plan).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{EndpointAddress, Health, LoadBalancer, OutlierDetection};

    fn locality(text: &str) -> Locality {
        let mut parts = text.split('/').map(Arc::from);
        let mut next = || parts.next().unwrap_or_else(|| "".into());
        Locality { region: next(), zone: next(), sub_zone: next() }
    }

    fn groups(localities: &[&str]) -> BTreeMap<Locality, Vec<Endpoint>> {
        let endpoint = |at: &str| Endpoint {
            address: EndpointAddress::Pipe("".into()),
            workload: None,
            labels: Labels::new(),
            identity: None,
            mesh_tls: false,
            locality: locality(at),
            weight: 1,
            health: Health::Healthy,
            network: "".into(),
            workload_name: "".into(),
        };
        localities.iter().map(|at| (locality(at), vec![endpoint(at)])).collect()
    }

    fn traffic(policy: LocalityPolicy, outlier: bool) -> Traffic {
        Traffic {
            load_balancer: LoadBalancer { locality: Some(policy), ..LoadBalancer::default() },
            outlier: outlier.then(OutlierDetection::default),
            ..Traffic::default()
        }
    }

    /// Priority (or weight, for distribution) by region/zone.
    fn check(policy: LocalityPolicy, client: &str, at: &[&str]) -> Vec<(String, u32)> {
        let client = locality(client);
        let spread =
            Spread::of(&MeshDefaults::default(), &traffic(policy, true), Some(&client)).unwrap();
        let arranged = spread.arrange(&client, &Labels::new(), groups(at));
        arranged
            .into_iter()
            .map(|(l, p, w, _)| (format!("{}/{}", l.region, l.zone), w.unwrap_or(p)))
            .collect()
    }

    fn expect(pairs: &[(&str, u32)]) -> Vec<(String, u32)> {
        pairs.iter().map(|&(at, n)| (at.to_owned(), n)).collect()
    }

    #[test]
    fn the_nearest_come_first_and_priorities_have_no_gap() {
        let got = check(LocalityPolicy::default(), "eu/a", &["eu/a", "eu/b", "us/a"]);
        assert_eq!(got, expect(&[("eu/a", 0), ("eu/b", 1), ("us/a", 2)]));
        assert_eq!(
            check(LocalityPolicy::default(), "eu/a", &["us/a", "asia/a"]),
            expect(&[("asia/a", 0), ("us/a", 0)])
        );
    }

    #[test]
    fn a_named_region_takes_over_before_others() {
        let policy = LocalityPolicy {
            failover: vec![("eu".into(), "us".into())],
            ..LocalityPolicy::default()
        };
        let got = check(policy, "eu/a", &["asia/a", "eu/a", "us/a"]);
        assert_eq!(got, expect(&[("eu/a", 0), ("us/a", 1), ("asia/a", 2)]));
    }

    #[test]
    fn shares_weigh_localities_and_leave_out_the_rest() {
        let shares = vec![("eu/a/*".into(), 80), ("eu/b/*".into(), 20)];
        let policy = LocalityPolicy {
            distribute: vec![("eu/a/*".into(), shares)],
            ..LocalityPolicy::default()
        };
        let got = check(policy, "eu/a", &["eu/a", "eu/b", "us/a"]);
        assert_eq!(got, expect(&[("eu/a", 8000), ("eu/b", 2000)]));
    }

    #[test]
    fn failover_needs_outlier_detection_and_a_known_client() {
        let mesh = MeshDefaults::default();
        let client = locality("eu/a");
        assert_eq!(
            Spread::of(&mesh, &traffic(LocalityPolicy::default(), false), Some(&client)),
            None
        );
        assert_eq!(Spread::of(&mesh, &traffic(LocalityPolicy::default(), true), None), None);
        let off = LocalityPolicy { enabled: Some(false), ..LocalityPolicy::default() };
        assert_eq!(Spread::of(&mesh, &traffic(off, true), Some(&client)), None);
    }

    #[test]
    fn priority_labels_count_until_the_first_that_differs() {
        let priority: Vec<Arc<str>> =
            vec!["topology.kubernetes.io/region".into(), "topology.kubernetes.io/zone".into()];
        let policy = LocalityPolicy { failover_priority: priority, ..LocalityPolicy::default() };
        let got = check(policy, "eu/a", &["eu/a", "eu/b", "us/a"]);
        assert_eq!(got, expect(&[("eu/a", 0), ("eu/b", 1), ("us/a", 2)]));
    }
}
