//! Routes: one per rule and match, with every default filled in.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    ClientFacts, ForwardPlan, RetryPlan, RouteActionPlan, RoutePlan, RouteTimeout, WeightedCluster,
    client::{StaticMatch, resolve_alias},
    naming,
    traffic::MergedPolicy,
};
use crate::{
    ir::{
        Balancing, Destination, HashKey, HeaderChanges, HeaderOps, HttpAction, HttpMatch, HttpRule, Labels, Mirror,
        PerMillion, Redirect, RedirectPort, Retry, RetryPolicy, Rewrite, RouteTable, Service, StringMatch,
        WeightedDestination,
    },
    snapshot::Reader,
};

const DEFAULT_RETRIES: u32 = 2;
const DEFAULT_RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
const RETRIABLE_STATUSES: &str = "retriable-status-codes";

/// Where routes are planned for.
pub(crate) struct RouteScope<'a> {
    pub(crate) reader: &'a Reader<'a>,
    pub(crate) client: &'a ClientFacts,
    pub(crate) conditions: StaticMatch<'a>,
    /// Whether a destination with one port is meant by its host alone, although it lacks the listener's port.
    pub(crate) infer_port: bool,
}

impl RouteScope<'_> {
    /// The routes of one table, up to the first that matches everything.
    pub(crate) fn table_routes(&self, table: &RouteTable) -> Vec<RoutePlan> {
        let mut routes = Vec::new();
        for rule in &table.http {
            if rule.matches.is_empty() {
                routes.push(self.route(table, rule, None));
                return routes;
            }
            for m in rule.matches.iter().filter(|m| self.conditions.http(m)) {
                routes.push(self.route(table, rule, Some(m)));
                if matches_everything(m) {
                    return routes;
                }
            }
        }
        routes
    }

    /// The route of a service that no table speaks of.
    pub(crate) fn default_route(&self, service: &Service, port: u16) -> RoutePlan {
        let cluster = naming::outbound_cluster(port, "", service.key.host.as_str());
        let hash: Vec<HashKey> = self.hash_key(service, port, "").into_iter().collect();
        RoutePlan {
            name: "default".into(),
            matches: None,
            action: RouteActionPlan::Forward(Box::new(ForwardPlan {
                retry: self.retry(&Retry::MeshDefault, !hash.is_empty()),
                hash,
                ..forward_to(cluster)
            })),
            headers: HeaderOps::default(),
            fault: None,
            cors: None,
            config: None,
            operation: format!("{}:{port}/*", service.key.host).into(),
        }
    }

    /// Envoy cannot tell the port a request came to; a route configuration belongs to one.
    fn redirect(&self, redirect: &Redirect) -> Redirect {
        let port = match redirect.port {
            Some(RedirectPort::Request) => Some(RedirectPort::Number(self.conditions.port)),
            port => port,
        };
        Redirect { port, ..redirect.clone() }
    }

    fn route(&self, table: &RouteTable, rule: &HttpRule, m: Option<&HttpMatch>) -> RoutePlan {
        let mut headers = rule.headers.clone();
        let (action, target) = match &rule.action {
            HttpAction::Redirect(redirect) => (RouteActionPlan::Redirect(self.redirect(redirect)), None),
            HttpAction::Direct { status, body } => {
                (RouteActionPlan::Direct { status: *status, body: body.clone() }, None)
            }
            HttpAction::Forward { destinations, rewrite } => {
                let (forward, target) = self.forward(rule, destinations, rewrite, &mut headers);
                (RouteActionPlan::Forward(Box::new(forward)), target)
            }
        };
        take_authority(&mut headers.request);
        let target = target.unwrap_or_else(|| format!("{}:{}", table.origin.id.name, self.conditions.port));
        RoutePlan {
            name: route_name(rule, m),
            matches: m.map(runtime_conditions),
            action,
            headers,
            fault: rule.fault.clone(),
            cors: rule.cors.clone(),
            config: Some(table.origin.config_path().into()),
            operation: format!("{target}{}", operation_path(m)).into(),
        }
    }

    /// The forwarding action, and `HOST:PORT` when there is one destination. A lone destination's header changes and
    /// a new authority move to where Envoy takes them.
    fn forward(
        &self,
        rule: &HttpRule,
        destinations: &[WeightedDestination],
        rewrite: &Rewrite,
        headers: &mut HeaderOps,
    ) -> (ForwardPlan, Option<String>) {
        let weighted = effective(destinations);
        let mut clusters: Vec<WeightedCluster> = Vec::with_capacity(weighted.len());
        let mut hash: Vec<HashKey> = Vec::new();
        for target in &weighted {
            let (name, key) = self.cluster(&target.destination);
            hash.extend(key.filter(|key| !hash.contains(key)));
            let headers = target.headers.clone();
            clusters.push(WeightedCluster { name, weight: target.weight, headers, host_rewrite: None });
        }
        if let [only] = clusters.as_mut_slice() {
            merge_headers(headers, std::mem::take(&mut only.headers));
            only.weight = 1;
        }
        for cluster in &mut clusters {
            cluster.host_rewrite = take_authority(&mut cluster.headers.request);
        }
        let authority = take_authority(&mut headers.request);
        let target = match clusters.as_slice() {
            [only] => cluster_target(&only.name),
            _ => None,
        };
        let forward = ForwardPlan {
            clusters,
            path_rewrite: rewrite.path.clone(),
            host_rewrite: rewrite.authority.clone().or(authority),
            timeout: rule.timeout.map_or(RouteTimeout::None, RouteTimeout::After),
            retry: self.retry(&rule.retry, !hash.is_empty()),
            mirrors: rule.mirrors.iter().map(|m| self.mirror(m)).collect(),
            hash,
            missing_cluster_500: false,
        };
        (forward, target)
    }

    fn mirror(&self, mirror: &Mirror) -> (Arc<str>, PerMillion) {
        (self.cluster(&mirror.destination).0, mirror.share)
    }

    /// The cluster of a destination, and what its policy hashes. A host that nobody defines keeps its name: the
    /// request then fails with "no cluster", which says more than a wrong answer.
    fn cluster(&self, destination: &Destination) -> (Arc<str>, Option<HashKey>) {
        let namespace = &self.client.namespace;
        let found = self.reader.service_by_host(&destination.host, namespace);
        let service = found.map(|s| resolve_alias(self.reader, s, namespace).unwrap_or(s));
        let Some(service) = service else {
            let port = destination.port.unwrap_or(self.conditions.port);
            return (naming::outbound_cluster(port, &destination.subset, destination.host.as_str()), None);
        };
        let port = destination.port.unwrap_or_else(|| self.implied_port(service));
        let name = naming::outbound_cluster(port, &destination.subset, service.key.host.as_str());
        (name, self.hash_key(service, port, &destination.subset))
    }

    fn implied_port(&self, service: &Service) -> u16 {
        match service.ports.as_slice() {
            [only] if self.infer_port => only.number,
            _ => self.conditions.port,
        }
    }

    fn hash_key(&self, service: &Service, port: u16, subset: &str) -> Option<HashKey> {
        let facts = self.client;
        let policies =
            self.reader.backend_policies(&service.key.host, &service.key.namespace, &facts.namespace, &facts.labels);
        match MergedPolicy::new(&policies).traffic(self.reader.mesh(), port, subset).load_balancer.algorithm {
            Balancing::ConsistentHash { key, .. } => Some(key),
            _ => None,
        }
    }

    fn retry(&self, retry: &Retry, hashed: bool) -> Option<RetryPlan> {
        let policy = match retry {
            Retry::Off => return None,
            Retry::Policy(policy) => Some(policy),
            Retry::MeshDefault => match &self.reader.mesh().default_retry {
                Retry::Off => return None,
                Retry::Policy(policy) => Some(policy),
                Retry::MeshDefault => None,
            },
        };
        Some(policy.map_or_else(|| default_retry(hashed), |policy| written_retry(policy, hashed)))
    }
}

/// A consistent hash names one endpoint, so another try must be allowed to choose it again.
fn default_retry(hashed: bool) -> RetryPlan {
    RetryPlan {
        attempts: DEFAULT_RETRIES,
        retry_on: DEFAULT_RETRY_ON.into(),
        statuses: Vec::new(),
        per_try_timeout: None,
        avoid_previous_hosts: !hashed,
        remote_localities: false,
        backoff: None,
    }
}

fn written_retry(policy: &RetryPolicy, hashed: bool) -> RetryPlan {
    let mut conditions: Vec<&str> = match &policy.retry_on {
        Some(conditions) => conditions.iter().map(AsRef::as_ref).collect(),
        None => vec![DEFAULT_RETRY_ON],
    };
    if !policy.retriable_statuses.is_empty() && !conditions.iter().any(|c| c.contains(RETRIABLE_STATUSES)) {
        conditions.push(RETRIABLE_STATUSES);
    }
    RetryPlan {
        attempts: policy.attempts,
        retry_on: conditions.join(",").into(),
        statuses: policy.retriable_statuses.clone(),
        per_try_timeout: policy.per_try_timeout,
        avoid_previous_hosts: policy.ignore_previous_hosts.unwrap_or(!hashed),
        remote_localities: policy.remote_localities,
        backoff: policy.backoff,
    }
}

/// Plain forwarding to one cluster: no limit, no retries.
pub(crate) fn forward_to(cluster: Arc<str>) -> ForwardPlan {
    ForwardPlan {
        clusters: vec![WeightedCluster { name: cluster, weight: 1, headers: HeaderOps::default(), host_rewrite: None }],
        path_rewrite: None,
        host_rewrite: None,
        timeout: RouteTimeout::None,
        retry: None,
        mirrors: Vec::new(),
        hash: Vec::new(),
        missing_cluster_500: false,
    }
}

/// Destinations that get a share; when every weight is zero, the first gets everything.
pub(crate) fn effective(destinations: &[WeightedDestination]) -> Vec<&WeightedDestination> {
    let weighted: Vec<&WeightedDestination> = destinations.iter().filter(|d| d.weight > 0).collect();
    if weighted.is_empty() { destinations.iter().take(1).collect() } else { weighted }
}

fn merge_headers(into: &mut HeaderOps, from: HeaderOps) {
    let merge = |into: &mut HeaderChanges, from: HeaderChanges| {
        into.set.extend(from.set);
        into.add.extend(from.add);
        into.remove.extend(from.remove);
    };
    merge(&mut into.request, from.request);
    merge(&mut into.response, from.response);
}

/// Takes the new authority out of request header changes, and drops other pseudo headers, which Envoy refuses.
fn take_authority(changes: &mut HeaderChanges) -> Option<Arc<str>> {
    let is_authority = |name: &str| name == ":authority" || name == "host";
    let named = |map: &BTreeMap<Arc<str>, Arc<str>>| {
        map.iter().find(|(name, _)| is_authority(name)).map(|(_, value)| value.clone())
    };
    let authority = named(&changes.set);
    let keep = |name: &Arc<str>| !is_authority(name) && !name.starts_with(':');
    changes.set.retain(|name, _| keep(name));
    changes.add.retain(|name, _| keep(name));
    changes.remove.retain(keep);
    authority
}

fn route_name(rule: &HttpRule, m: Option<&HttpMatch>) -> Arc<str> {
    match m.filter(|m| !m.name.is_empty()) {
        Some(m) => format!("{}.{}", rule.name, m.name).into(),
        None => rule.name.clone(),
    }
}

/// The match without what planning has decided, so that equal routes are equal values.
fn runtime_conditions(m: &HttpMatch) -> HttpMatch {
    HttpMatch {
        name: "".into(),
        port: None,
        source_labels: Labels::new(),
        source_namespace: None,
        attachments: Vec::new(),
        ..m.clone()
    }
}

/// Whether no later route can ever be reached.
pub(crate) fn matches_everything(m: &HttpMatch) -> bool {
    let any_path = match &m.uri {
        None => true,
        Some(StringMatch::Prefix(prefix)) => &**prefix == "/",
        Some(StringMatch::Regex(regex)) => matches!(&**regex, ".*" | "*"),
        Some(_) => false,
    };
    any_path
        && m.headers.is_empty()
        && m.without_headers.is_empty()
        && m.query.is_empty()
        && m.method.is_none()
        && m.authority.is_none()
        && m.scheme.is_none()
}

fn operation_path(m: Option<&HttpMatch>) -> String {
    match m.and_then(|m| m.uri.as_ref()) {
        None | Some(StringMatch::Present | StringMatch::Suffix(_)) => "/*".to_owned(),
        Some(StringMatch::Prefix(prefix)) => format!("{prefix}*"),
        Some(StringMatch::Exact(path) | StringMatch::Regex(path)) => path.to_string(),
    }
}

/// `HOST:PORT` out of `outbound|PORT|SUBSET|HOST`.
fn cluster_target(name: &str) -> Option<String> {
    let mut parts = name.split('|').skip(1);
    let (port, _subset, host) = (parts.next()?, parts.next()?, parts.next()?);
    Some(format!("{host}:{port}"))
}
