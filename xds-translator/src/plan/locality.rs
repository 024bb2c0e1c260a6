//! Where traffic goes first when endpoints are in several localities.

use std::{collections::BTreeMap, sync::Arc};

use super::{LocalityEndpoints, OverLocalities, Traffic};
use crate::ir::{
    Endpoint, Labels, Locality, LocalityPolicy, MeshDefaults, Service, ZonePolicy, topology,
};

/// How traffic is spread over localities, for one client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Spread {
    /// Fixed shares: (locality pattern, percent).
    Distribute(Vec<(Arc<str>, u32)>),
    /// Nearest first: (from region, to region) for the fourth step.
    Nearest(Vec<(Arc<str>, Arc<str>)>),
    /// By how many of these labels agree with the client's, in order.
    Labels {
        /// `KEY`, or `KEY=VALUE` to compare with another value than the client's.
        priority: Vec<Arc<str>>,
        /// Among equals the nearest first, as in [`Self::Nearest`]; empty: they stay equals.
        failover: Vec<(Arc<str>, Arc<str>)>,
    },
    /// Zones of the client's region share by how its replicas lie over them; other regions only
    /// take over.
    Zones {
        /// As of [`Self::Labels`], before regions are compared.
        priority: Vec<Arc<str>>,
        /// As of [`Self::Nearest`].
        failover: Vec<(Arc<str>, Arc<str>)>,
        /// Least number of endpoints; `None`: Envoy's.
        min_endpoints: Option<u64>,
    },
    /// Zones shall not matter.
    Alike,
}

/// What of a client endpoints are compared with.
pub(crate) struct ClientPlace<'a> {
    pub(crate) locality: Option<&'a Locality>,
    pub(crate) labels: &'a Labels,
}

impl Spread {
    /// What is active for a client; `None`: localities do not matter. A policy comes before what
    /// the service asks for, and that before the mesh's.
    ///
    /// Failover needs outlier detection: without it nothing would ever take traffic off the nearest
    /// endpoints. What a service asks for goes by the readiness of its endpoints instead, and what
    /// balances over zones by that of their regions.
    pub(crate) fn of(
        mesh: &MeshDefaults,
        service: &Service,
        traffic: &Traffic,
        locality: Option<&Locality>,
    ) -> Option<Self> {
        let own = traffic.load_balancer.locality.as_ref();
        let own_zones = traffic.load_balancer.zones.as_ref();
        let said = own.is_some() || service.distribution.is_some();
        if let Some(zones) = own_zones.or(mesh.zones.as_ref().filter(|_| !said)) {
            return Some(over_zones(zones));
        }
        if let (None, Some(preference)) = (own, service.distribution) {
            let priority = preference.compared_labels().iter().map(|&key| key.into()).collect();
            return Some(Self::Labels { priority, failover: Vec::new() });
        }
        let policy = own.unwrap_or(&mesh.locality);
        if policy.enabled == Some(false) {
            return None;
        }
        if !policy.distribute.is_empty() {
            return distribution(policy, locality?).map(Self::Distribute);
        }
        traffic.outlier.as_ref()?;
        let failover = policy.failover.clone();
        match policy.failover_priority.is_empty() {
            true => locality.map(|_| Self::Nearest(failover)),
            false => Some(Self::Labels { priority: policy.failover_priority.clone(), failover }),
        }
    }

    /// What of the client's place matters by more than labels; `None`: nothing.
    pub(crate) fn compared_place(&self, client: &Locality) -> Option<Locality> {
        match self {
            Self::Labels { failover, .. } if failover.is_empty() => None,
            Self::Alike => None,
            Self::Zones { .. } => {
                Some(Locality { region: client.region.clone(), ..Locality::default() })
            }
            Self::Distribute(_) | Self::Nearest(_) | Self::Labels { .. } => Some(client.clone()),
        }
    }

    /// How localities of one priority share the load. A locality is chosen before an endpoint, by
    /// weight, where shares or failover are written down (Istio).
    pub(crate) fn over_localities(&self) -> OverLocalities {
        match self {
            Self::Distribute(_) | Self::Labels { .. } => OverLocalities::Weighted,
            Self::Nearest(failover) if !failover.is_empty() => OverLocalities::Weighted,
            Self::Nearest(_) => OverLocalities::Unsaid,
            Self::Zones { min_endpoints, .. } => {
                OverLocalities::Zones { min_endpoints: *min_endpoints }
            }
            Self::Alike => OverLocalities::Alike,
        }
    }

    /// The labels of the client that it compares.
    pub(crate) fn compared_labels(&self, client: &Labels) -> Labels {
        let (Self::Labels { priority, .. } | Self::Zones { priority, .. }) = self else {
            return Labels::new();
        };
        let compared = priority.iter().map(|label| split_priority(label).0);
        compared
            .filter_map(|key| client.get_key_value(key))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }

    /// Regroups endpoints, which come as one group per locality with priority 0.
    pub(crate) fn arrange(
        &self,
        client: &ClientPlace<'_>,
        groups: BTreeMap<Locality, Vec<Endpoint>>,
    ) -> Vec<(Locality, u32, Option<u32>, Vec<Endpoint>)> {
        let mut arranged = match self {
            Self::Distribute(shares) => return distribute(shares, groups),
            Self::Nearest(failover) => groups
                .into_iter()
                .map(|(locality, endpoints)| {
                    let priority = steps(client, &locality, failover);
                    (locality, priority, None, endpoints)
                })
                .collect(),
            Self::Labels { priority, failover } => {
                let near = |other: &Locality| match failover.is_empty() {
                    true => 0,
                    false => steps(client, other, failover),
                };
                by_labels(priority, client, groups, near)
            }
            Self::Zones { priority, failover, .. } => {
                by_labels(priority, client, groups, |other| beyond(client, other, failover))
            }
            Self::Alike => by_labels(&[], client, groups, |_| 0),
        };
        compact(&mut arranged);
        arranged.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        arranged
    }
}

/// From region, to region.
type Failover = [(Arc<str>, Arc<str>)];

type Group = (Locality, u32, Option<u32>, Vec<Endpoint>);

fn over_zones(policy: &ZonePolicy) -> Spread {
    match policy.is_on() {
        true => Spread::Zones {
            priority: policy.failover_priority.clone(),
            failover: policy.failover.clone(),
            min_endpoints: policy.min_endpoints,
        },
        false => Spread::Alike,
    }
}

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

/// Steps from the client to a locality, as [`distance`]; none where it is not known.
fn steps(client: &ClientPlace<'_>, other: &Locality, failover: &Failover) -> u32 {
    client.locality.map_or(0, |client| distance(client, other, failover))
}

/// 0: the client's region, 1: the named one, 2: another; 0 where the client's is not known.
fn beyond(client: &ClientPlace<'_>, other: &Locality, failover: &Failover) -> u32 {
    let Some(client) = client.locality.filter(|client| client.region != other.region) else {
        return 0;
    };
    let named = failover.iter().find(|(from, _)| *from == client.region);
    if named.is_some_and(|(_, to)| *to == other.region) { 1 } else { 2 }
}

/// One more than the largest [`distance`].
const DISTANCES: u32 = 5;

/// By how many labels do not agree, then by how far a locality is (below [`DISTANCES`]).
fn by_labels(
    priority: &[Arc<str>],
    client: &ClientPlace<'_>,
    groups: BTreeMap<Locality, Vec<Endpoint>>,
    distance: impl Fn(&Locality) -> u32,
) -> Vec<Group> {
    let mut regrouped: BTreeMap<(u32, Locality), Vec<Endpoint>> = BTreeMap::new();
    for (locality, endpoints) in groups {
        let near = distance(&locality);
        for endpoint in endpoints {
            let rank = misses(priority, client.labels, &endpoint) * DISTANCES + near;
            regrouped.entry((rank, locality.clone())).or_default().push(endpoint);
        }
    }
    regrouped
        .into_iter()
        .map(|((rank, locality), endpoints)| (locality, rank, None, endpoints))
        .collect()
}

/// How far an endpoint is from the client: how many labels are left when the first does not agree.
/// A network as the first label is told apart for itself, and the others still count.
fn misses(priority: &[Arc<str>], client: &Labels, endpoint: &Endpoint) -> u32 {
    let agrees = |label: &str| {
        let (key, value) = split_priority(label);
        let wanted = value.or_else(|| client.get(key).map(AsRef::as_ref));
        wanted.unwrap_or_default() == endpoint.label(key).unwrap_or_default()
    };
    let all = u32::try_from(priority.len()).unwrap_or(u32::MAX);
    let (rest, elsewhere) = match priority {
        [first, rest @ ..] if **first == *topology::NETWORK && !agrees(first) => (rest, all),
        _ => (priority, 0),
    };
    let agreeing = rest.iter().take_while(|label| agrees(label)).count();
    elsewhere + u32::try_from(rest.len() - agreeing).unwrap_or(u32::MAX)
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
    use crate::{
        ir::{Distribution, EndpointAddress, Health, LoadBalancer, MeshTls, OutlierDetection},
        plan::fixture::service,
    };

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
            mesh_tls: MeshTls::Never,
            locality: locality(at),
            weight: 1,
            health: Health::Healthy,
            network: "".into(),
            node: "".into(),
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

    fn cart() -> Service {
        service("shop", "cart", "10.96.0.1", &[])
    }

    /// Priority (or weight, for distribution) by region/zone.
    fn check(policy: LocalityPolicy, client: &str, at: &[&str]) -> Vec<(String, u32)> {
        let client = locality(client);
        let (mesh, traffic) = (MeshDefaults::default(), traffic(policy, true));
        let spread = Spread::of(&mesh, &cart(), &traffic, Some(&client)).expect("it matters");
        arranged(&spread, Some(&client), &Labels::new(), at)
    }

    fn arranged(
        spread: &Spread,
        locality: Option<&Locality>,
        labels: &Labels,
        at: &[&str],
    ) -> Vec<(String, u32)> {
        let arranged = spread.arrange(&ClientPlace { locality, labels }, groups(at)).into_iter();
        let at = |l: &Locality| format!("{}/{}", l.region, l.zone);
        arranged.map(|(l, p, w, _)| (at(&l), w.unwrap_or(p))).collect()
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
        let of = |policy: LocalityPolicy, outlier: bool, client: Option<&Locality>| {
            Spread::of(&mesh, &cart(), &traffic(policy, outlier), client)
        };
        assert_eq!(of(LocalityPolicy::default(), false, Some(&client)), None);
        assert_eq!(of(LocalityPolicy::default(), true, None), None);
        let off = LocalityPolicy { enabled: Some(false), ..LocalityPolicy::default() };
        assert_eq!(of(off, true, Some(&client)), None);
    }

    fn in_eu_a() -> Labels {
        [(topology::REGION, "eu"), (topology::ZONE, "a")].map(|(k, v)| (k.into(), v.into())).into()
    }

    #[test]
    fn priority_labels_count_until_the_first_that_differs() {
        let priority: Vec<Arc<str>> = vec![topology::REGION.into(), topology::ZONE.into()];
        let policy = LocalityPolicy { failover_priority: priority, ..LocalityPolicy::default() };
        let mesh = MeshDefaults::default();
        let spread = Spread::of(&mesh, &cart(), &traffic(policy.clone(), true), None);
        let spread = spread.expect("labels need no locality");
        assert_eq!(spread.compared_place(&locality("eu/a")), None);
        let at = ["eu/a", "eu/b", "us/a"];
        let got = arranged(&spread, None, &in_eu_a(), &at);
        assert_eq!(got, expect(&[("eu/a", 0), ("eu/b", 1), ("us/a", 2)]));
        let failover = vec![("eu".into(), "us".into())];
        let both = LocalityPolicy { failover, ..policy };
        let client = locality("eu/a");
        let spread = Spread::of(&mesh, &cart(), &traffic(both, true), Some(&client));
        let spread = spread.expect("it matters");
        let got = arranged(&spread, Some(&client), &in_eu_a(), &["eu/a", "asia/a", "us/a"]);
        assert_eq!(got, expect(&[("eu/a", 0), ("us/a", 1), ("asia/a", 2)]));
    }

    #[test]
    fn another_network_comes_after_every_endpoint_of_the_own() {
        let mesh = MeshDefaults::default();
        let service = Service { distribution: Some(Distribution::SameZone), ..cart() };
        let spread = Spread::of(&mesh, &service, &Traffic::default(), None).expect("it is asked");
        let mut groups = groups(&["eu/a", "us/a"]);
        for endpoint in groups.get_mut(&locality("eu/a")).into_iter().flatten() {
            endpoint.network = "other".into();
        }
        let labels = in_eu_a();
        let got = spread.arrange(&ClientPlace { locality: None, labels: &labels }, groups);
        let got: Vec<_> = got.iter().map(|(l, p, ..)| (&*l.region, *p)).collect();
        assert_eq!(got, [("us", 0), ("eu", 1)]);
    }

    #[test]
    fn a_policy_comes_before_what_the_service_prefers_and_that_before_the_mesh() {
        let mut mesh = MeshDefaults::default();
        mesh.locality.failover = vec![("eu".into(), "us".into())];
        let client = locality("eu/a");
        let preferring = Service { distribution: Some(Distribution::SameNode), ..cart() };
        let of = |service: &Service, traffic: &Traffic| {
            Spread::of(&mesh, service, traffic, Some(&client))
        };
        let outlier = Traffic { outlier: Some(OutlierDetection::default()), ..Traffic::default() };
        let spread = of(&preferring, &Traffic::default()).expect("without outlier detection");
        assert!(matches!(&spread, Spread::Labels { priority, .. } if priority.len() == 5));
        assert!(matches!(of(&cart(), &outlier), Some(Spread::Nearest(_))), "the mesh's");
        let policy = traffic(LocalityPolicy::default(), true);
        assert_eq!(of(&preferring, &policy), Some(Spread::Nearest(Vec::new())));
        let off = LocalityPolicy { enabled: Some(false), ..LocalityPolicy::default() };
        assert_eq!(of(&preferring, &traffic(off, true)), None);
    }
}
