//! Rate limit policies of routes: what of a request makes up the descriptors by which it is
//! limited. Spec: Envoy `config.route.v3.RateLimit`.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use smallvec::SmallVec;

use super::{
    facts::RequestFacts,
    matcher::{HeaderMatcher, QueryMatcher, query_parameter},
    metadata::Value,
};

/// How a request becomes one descriptor.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// Only filters of this stage use it.
    pub stage: u32,
    /// Each adds an entry; one that cannot leaves the request without this descriptor.
    pub actions: Vec<DescriptorAction>,
    /// Whether responses tell of a limit that this descriptor has found.
    pub headers: LimitHeaders,
}

/// Whether responses tell of a limit (`x-ratelimit-…`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LimitHeaders {
    /// As the filter says.
    #[default]
    AsFilter,
    /// They do not.
    Off,
    /// They do.
    On,
}

/// Adds an entry to a descriptor.
#[derive(Clone, Debug)]
pub enum DescriptorAction {
    /// `destination_cluster`: the cluster that the request goes to.
    DestinationCluster,
    /// The first line of a header.
    RequestHeader {
        /// Its lower-case name.
        name: Arc<str>,
        /// The entry's key.
        key: Arc<str>,
        /// Where it is missing only this entry is left out.
        skip_if_absent: bool,
    },
    /// A query parameter.
    QueryParameter {
        /// Its name.
        name: Arc<str>,
        /// The entry's key.
        key: Arc<str>,
        /// Where it is missing only this entry is left out.
        skip_if_absent: bool,
    },
    /// `remote_address`: the client's address.
    RemoteAddress,
    /// `masked_remote_address`: the client's network.
    MaskedRemoteAddress {
        /// Length of an IPv4 prefix.
        v4: u8,
        /// Length of an IPv6 prefix.
        v6: u8,
    },
    /// A constant.
    Generic {
        /// The entry's key.
        key: Arc<str>,
        /// Its value.
        value: Arc<str>,
    },
    /// A constant, where a condition holds.
    Match {
        /// The entry's key.
        key: Arc<str>,
        /// Its value.
        value: Arc<str>,
        /// The condition.
        condition: MatchCondition,
        /// What the condition must come to.
        expected: bool,
    },
    /// A text of the dynamic metadata.
    Metadata {
        /// The entry's key.
        key: Arc<str>,
        /// The namespace.
        namespace: Arc<str>,
        /// Keys that lead to the text.
        path: Vec<Arc<str>>,
        /// Stands for a missing one; empty for none.
        default: Arc<str>,
        /// Where it is missing only this entry is left out.
        skip_if_absent: bool,
    },
}

/// When a constant is added.
#[derive(Clone, Debug)]
pub enum MatchCondition {
    /// All of these headers match.
    Headers(Vec<HeaderMatcher>),
    /// All of these query parameters match.
    Query(Vec<QueryMatcher>),
    /// The client's address is in one of these.
    Addresses(Vec<IpNet>),
}

/// What a route and its virtual host say of rate limits.
#[derive(Clone, Copy, Default, Debug)]
pub struct RouteLimits<'a> {
    /// The route's policies.
    pub of_route: &'a [RateLimit],
    /// The virtual host's policies.
    pub of_host: &'a [RateLimit],
    /// The route asks for the virtual host's beside its own.
    pub include_host: bool,
    /// The cluster that the request goes to.
    pub cluster: Option<&'a str>,
}

/// When the virtual host's policies are used beside the route's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostLimits {
    /// Where the route has none.
    Override,
    /// Always.
    Include,
    /// Never.
    Ignore,
}

/// Which policies a filter goes by.
#[derive(Clone, Debug)]
pub struct LimitPolicies {
    /// Policies that are used instead of the route's; empty for none.
    pub own: Vec<RateLimit>,
    /// When the virtual host's policies are used.
    pub host: HostLimits,
    /// Policies of this stage are used.
    pub stage: u32,
}

impl LimitPolicies {
    /// The descriptors of a request; `set` is what its route says instead of the first two.
    pub fn descriptors<'a>(
        &'a self,
        set: Option<(&'a [RateLimit], HostLimits)>,
        limits: RouteLimits<'a>,
        facts: &'a RequestFacts<'_>,
    ) -> SmallVec<[Descriptor<'a>; 4]> {
        let (own, host) = set.unwrap_or((&self.own, self.host));
        let own = if own.is_empty() { &self.own } else { own };
        descriptors((own, host, self.stage), limits, facts)
    }
}

/// The descriptors of a request by policies of a filter's own, or by those of its route and virtual
/// host that are of this stage.
pub fn descriptors<'a>(
    (own, host, stage): (&'a [RateLimit], HostLimits, u32),
    limits: RouteLimits<'a>,
    facts: &'a RequestFacts<'_>,
) -> SmallVec<[Descriptor<'a>; 4]> {
    let describe = |policy: &'a RateLimit| policy.descriptor(facts, limits.cluster);
    if !own.is_empty() {
        return own.iter().filter_map(describe).collect();
    }
    let with_host = limits.include_host
        || match host {
            HostLimits::Override => limits.of_route.is_empty(),
            HostLimits::Include => true,
            HostLimits::Ignore => false,
        };
    let of_host = if with_host { limits.of_host } else { &[] };
    let policies = limits.of_route.iter().chain(of_host);
    policies.filter(|policy| policy.stage == stage).filter_map(describe).collect()
}

/// What stands for a request where limits are looked up.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Descriptor<'a> {
    /// Keys and values in the order of the actions.
    pub entries: SmallVec<[(Cow<'a, str>, Cow<'a, str>); 4]>,
    /// Whether responses tell of the limit.
    pub headers: LimitHeaders,
}

impl RateLimit {
    /// The descriptor of a request; none where an action has nothing to add.
    pub fn descriptor<'a>(
        &'a self,
        request: &'a RequestFacts<'_>,
        cluster: Option<&'a str>,
    ) -> Option<Descriptor<'a>> {
        let mut descriptor = Descriptor { headers: self.headers, ..Descriptor::default() };
        for action in &self.actions {
            match action.entry(request, cluster) {
                Entry::Added(key, value) => descriptor.entries.push((key, value)),
                Entry::Skipped => {}
                Entry::Impossible => return None,
            }
        }
        Some(descriptor)
    }
}

enum Entry<'a> {
    Added(Cow<'a, str>, Cow<'a, str>),
    Skipped,
    Impossible,
}

impl<'a> Entry<'a> {
    fn of(key: &'a str, value: Option<Cow<'a, str>>, skip_if_absent: bool) -> Self {
        match value {
            Some(value) => Self::Added(Cow::Borrowed(key), value),
            None if skip_if_absent => Self::Skipped,
            None => Self::Impossible,
        }
    }
}

impl DescriptorAction {
    fn entry<'a>(&'a self, request: &'a RequestFacts<'_>, cluster: Option<&'a str>) -> Entry<'a> {
        match self {
            Self::DestinationCluster => {
                Entry::of("destination_cluster", cluster.map(Cow::Borrowed), false)
            }
            Self::RequestHeader { name, key, skip_if_absent } => {
                Entry::of(key, first_line(request, name).map(Cow::Owned), *skip_if_absent)
            }
            Self::QueryParameter { name, key, skip_if_absent } => {
                let value = request.query().and_then(|query| query_parameter(query, name));
                Entry::of(key, value.map(Cow::Borrowed), *skip_if_absent)
            }
            Self::RemoteAddress => {
                let address = request.remote_ip.to_string();
                Entry::of("remote_address", Some(Cow::Owned(address)), false)
            }
            Self::MaskedRemoteAddress { v4, v6 } => {
                let network = masked(request.remote_ip, *v4, *v6).map(Cow::Owned);
                Entry::of("masked_remote_address", network, false)
            }
            Self::Generic { key, value } => Entry::of(key, Some(Cow::Borrowed(value)), false),
            Self::Match { key, value, condition, expected } => {
                let holds = condition.holds(request) == *expected;
                Entry::of(key, holds.then_some(Cow::Borrowed(value)), false)
            }
            Self::Metadata { key, namespace, path, default, skip_if_absent } => {
                let found = request.metadata.and_then(|metadata| metadata.get(namespace, path));
                let text = match found {
                    Some(Value::Text(text)) if !text.is_empty() => &**text,
                    _ => default,
                };
                let text = Some(text).filter(|text| !text.is_empty()).map(Cow::Borrowed);
                Entry::of(key, text, *skip_if_absent)
            }
        }
    }
}

impl MatchCondition {
    fn holds(&self, request: &RequestFacts<'_>) -> bool {
        match self {
            Self::Headers(headers) => headers.iter().all(|header| header.matches(request)),
            Self::Query(parameters) => {
                let query = request.query();
                parameters.iter().all(|parameter| parameter.matches(query))
            }
            Self::Addresses(networks) => {
                networks.iter().any(|network| network.contains(&request.remote_ip))
            }
        }
    }
}

fn first_line(request: &RequestFacts<'_>, name: &str) -> Option<String> {
    let mut first = None;
    request.each_line(name, &mut |line| {
        if first.is_none() {
            first = Some(line.to_owned());
        }
    });
    first
}

/// `10.0.0.0/8`.
fn masked(address: IpAddr, v4: u8, v6: u8) -> Option<String> {
    let length = if address.is_ipv4() { v4 } else { v6 };
    let network = IpNet::new(address, length).ok()?.trunc();
    Some(network.to_string())
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::runtime::{
        facts::fixture,
        matcher::{StringMatcher, ValueMatcher},
        metadata::Metadata,
    };

    fn check(actions: Vec<DescriptorAction>, expected: Option<&[(&str, &str)]>) {
        let connection = fixture::loopback();
        let mut headers = HeaderMap::new();
        headers.append("x-user", "bob".parse().unwrap());
        headers.append("x-user", "eve".parse().unwrap());
        let mut metadata = Metadata::default();
        metadata.set("jwt", "sub", Value::Text("carol".into()));
        let facts = RequestFacts {
            path: "/x?q=1&r=2",
            remote_ip: [10, 1, 2, 3].into(),
            headers: &headers,
            metadata: Some(&metadata),
            ..fixture::get(&connection)
        };
        let limit = RateLimit { stage: 0, actions, headers: LimitHeaders::AsFilter };
        let descriptor = limit.descriptor(&facts, Some("c"));
        let entries = descriptor.as_ref().map(|descriptor| {
            let entries = descriptor.entries.iter();
            entries.map(|(key, value)| (&**key, &**value)).collect::<Vec<_>>()
        });
        assert_eq!(entries.as_deref(), expected, "{:?}", limit.actions);
    }

    fn header(name: &str, skip_if_absent: bool) -> DescriptorAction {
        DescriptorAction::RequestHeader { name: name.into(), key: "k".into(), skip_if_absent }
    }

    fn matching(condition: MatchCondition, expected: bool) -> DescriptorAction {
        let (key, value) = ("m".into(), "v".into());
        DescriptorAction::Match { key, value, condition, expected }
    }

    #[test]
    fn actions_make_up_a_descriptor_as_in_envoy() {
        use DescriptorAction::*;
        let generic = || Generic { key: "generic_key".into(), value: "g".into() };
        check(
            vec![DestinationCluster, RemoteAddress, generic()],
            Some(&[
                ("destination_cluster", "c"),
                ("remote_address", "10.1.2.3"),
                ("generic_key", "g"),
            ]),
        );
        check(
            vec![MaskedRemoteAddress { v4: 8, v6: 64 }],
            Some(&[("masked_remote_address", "10.0.0.0/8")]),
        );
        check(vec![header("x-user", false)], Some(&[("k", "bob")]));
        check(vec![header(":path", false)], Some(&[("k", "/x?q=1&r=2")]));
        check(vec![generic(), header("x-none", false)], None);
        check(vec![generic(), header("x-none", true)], Some(&[("generic_key", "g")]));
        let parameter = |name: &str| QueryParameter {
            name: name.into(),
            key: "q".into(),
            skip_if_absent: false,
        };
        check(vec![parameter("r")], Some(&[("q", "2")]));
        check(vec![parameter("s")], None);
    }

    #[test]
    fn constants_are_added_where_their_condition_comes_to_what_is_expected() {
        let of_header = |text: &str| {
            let value = ValueMatcher::Text(StringMatcher::Exact(text.into()));
            MatchCondition::Headers(vec![HeaderMatcher {
                name: ":method".into(),
                value,
                invert: false,
                missing_is_empty: false,
            }])
        };
        check(vec![matching(of_header("GET"), true)], Some(&[("m", "v")]));
        check(vec![matching(of_header("PUT"), true)], None);
        check(vec![matching(of_header("PUT"), false)], Some(&[("m", "v")]));
        let network = |text: &str| MatchCondition::Addresses(vec![text.parse().unwrap()]);
        check(vec![matching(network("10.0.0.0/8"), true)], Some(&[("m", "v")]));
        check(vec![matching(network("11.0.0.0/8"), true)], None);
    }

    #[test]
    fn metadata_stands_in_a_descriptor_or_its_default_does() {
        let of = |key: &str, default: &str, skip_if_absent| DescriptorAction::Metadata {
            key: "s".into(),
            namespace: "jwt".into(),
            path: vec![key.into()],
            default: default.into(),
            skip_if_absent,
        };
        check(vec![of("sub", "nobody", false)], Some(&[("s", "carol")]));
        check(vec![of("none", "nobody", false)], Some(&[("s", "nobody")]));
        check(vec![of("none", "", false)], None);
        check(vec![of("none", "", true)], Some(&[]));
    }
}
