//! Routes: one per rule and match, with every default filled in.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    ClientFacts, ForwardPlan, RedirectPlan, RetryPlan, RouteActionPlan, RoutePlan, RouteTimeout,
    WeightedCluster,
    client::{StaticMatch, resolve_alias},
    naming,
    order::{Reached, in_order},
    path::path_change,
    traffic::MergedPolicy,
};
use crate::{
    ir::{
        Balancing, Destination, DestinationPort, HashKey, HeaderChanges, HeaderOps, Hostname,
        HttpAction, HttpMatch, HttpRule, Labels, Mirror, PathMatch, PerMillion, Redirect,
        RedirectPort, Resolution, Retry, RetryCondition, RetryPolicy, Rewrite, RouteTable,
        RuleOrder, Service, ServicePort, SharedMatches, Timeouts, Unreachable, WeightedDestination,
    },
    snapshot::Reader,
};

const DEFAULT_RETRIES: u32 = 2;
const DEFAULT_RETRY_CONDITIONS: [RetryCondition; 5] = [
    RetryCondition::ConnectFailure,
    RetryCondition::RefusedStream,
    RetryCondition::GrpcUnavailable,
    RetryCondition::GrpcCancelled,
    RetryCondition::ListedStatus,
];

/// Where routes are planned for.
pub(crate) struct RouteScope<'a> {
    pub(crate) reader: &'a Reader<'a>,
    pub(crate) client: &'a ClientFacts,
    pub(crate) conditions: StaticMatch<'a>,
    /// The host that requests are for; `None`: any.
    pub(crate) host: Option<&'a Hostname>,
    /// Whether a destination with one port is meant by its host alone, although it lacks the
    /// listener's port.
    pub(crate) infer_port: bool,
}

impl RouteScope<'_> {
    /// The rules of a host's tables, which are oldest first, that requests can reach, in the
    /// order in which they are tried.
    pub(crate) fn reached<'t>(
        &'t self,
        tables: impl Iterator<Item = &'t Arc<RouteTable>>,
    ) -> Vec<Reached<'t>> {
        in_order(tables.flat_map(|table| self.held(table)).collect())
    }

    /// The rules of one table as written, with each of their matches that can hold; where they are
    /// tried as written, up to the first that matches everything.
    fn held<'t>(&'t self, table: &'t Arc<RouteTable>) -> Vec<Reached<'t>> {
        let mut held = Vec::new();
        for rule in table.http.iter().filter(|rule| self.is_for(table, rule)) {
            let shared = rule.shared_matches.iter().flat_map(|shared| self.shared(shared));
            let matches = rule.matches.iter().chain(shared).filter(|m| self.conditions.http(m));
            let every = rule.is_unconditional().then_some(None);
            for matched in every.into_iter().chain(matches.map(Some)) {
                let reached = Reached { table, rule, matched };
                held.push(reached);
                if table.order == RuleOrder::AsWritten && reached.takes_everything() {
                    return held;
                }
            }
        }
        held
    }

    fn is_for(&self, table: &RouteTable, rule: &HttpRule) -> bool {
        self.host.is_none_or(|host| table.serves(rule, host))
    }

    /// The conditions that a rule refers to; none while their object is not there.
    fn shared(&self, shared: &SharedMatches) -> impl Iterator<Item = &HttpMatch> {
        let set = self.reader.match_set(&shared.set);
        let names = shared.names.clone();
        let matches = set.into_iter().flat_map(|set| &set.matches);
        matches.filter(move |m| names.is_empty() || names.contains(&m.name))
    }

    /// The route of a service that no table speaks of.
    pub(crate) fn default_route(&self, service: &Service, port: u16) -> RoutePlan {
        let cluster = naming::outbound_cluster(port, "", service.key.host.as_str());
        let hash: Vec<HashKey> = self.hash_key(service, port, "").into_iter().collect();
        RoutePlan {
            name: "default".into(),
            matches: None,
            action: RouteActionPlan::Forward(Box::new(ForwardPlan {
                retry: self.retry(&Retry::MeshDefault, &Timeouts::default(), !hash.is_empty()),
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
    fn redirect(&self, redirect: &Redirect, m: Option<&HttpMatch>) -> RedirectPlan {
        RedirectPlan {
            path: redirect.path.as_ref().map(|path| path_change(path, m)),
            authority: redirect.authority.clone(),
            port: match redirect.port {
                Some(RedirectPort::Number(port)) => Some(port),
                Some(RedirectPort::Request) => Some(self.conditions.port),
                Some(RedirectPort::ProtocolDefault) | None => None,
            },
            scheme: redirect.scheme.clone(),
            code: redirect.code,
        }
    }

    /// The route of a rule with one of its matches.
    pub(crate) fn route(
        &self,
        table: &RouteTable,
        rule: &HttpRule,
        m: Option<&HttpMatch>,
    ) -> RoutePlan {
        let mut headers = rule.headers.clone();
        let (action, target) = match &rule.action {
            HttpAction::Redirect(redirect) => {
                (RouteActionPlan::Redirect(self.redirect(redirect, m)), None)
            }
            HttpAction::Direct { status, body } => {
                (RouteActionPlan::Direct { status: *status, body: body.clone() }, None)
            }
            // A reader has the rules of the part in its place.
            HttpAction::Continue { .. } => {
                (RouteActionPlan::Direct { status: 500, body: Arc::new([]) }, None)
            }
            HttpAction::Forward { destinations, rewrite } => {
                let change = rewrite.path.as_ref().map(|path| path_change(path, m));
                let (forward, target) = self.forward(rule, destinations, rewrite, &mut headers);
                let forward = ForwardPlan { path: change, ..forward };
                (RouteActionPlan::Forward(Box::new(forward)), target)
            }
        };
        take_authority(&mut headers.request);
        let target =
            target.unwrap_or_else(|| format!("{}:{}", table.origin.id.name, self.conditions.port));
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

    /// The forwarding action, and `HOST:PORT` when there is one destination. A lone destination's
    /// header changes and a new authority move to where Envoy takes them.
    fn forward(
        &self,
        rule: &HttpRule,
        destinations: &[WeightedDestination],
        rewrite: &Rewrite,
        headers: &mut HeaderOps,
    ) -> (ForwardPlan, Option<String>) {
        let weighted = effective(destinations, |d| self.target(d).is_there());
        let mut clusters: Vec<WeightedCluster> = Vec::with_capacity(weighted.len());
        let mut hash: Vec<HashKey> = Vec::new();
        for target in &weighted {
            let (name, key) = self.cluster(&target.destination);
            hash.extend(key.filter(|key| !hash.contains(key)));
            let headers = target.headers.clone();
            clusters.push(WeightedCluster {
                name,
                weight: target.weight,
                headers,
                host_rewrite: None,
            });
        }
        if let [only] = clusters.as_mut_slice() {
            merge_headers(headers, std::mem::take(&mut only.headers));
            only.weight = 1;
        }
        for cluster in &mut clusters {
            cluster.host_rewrite = take_authority(&mut cluster.headers.request);
        }
        let authority = take_authority(&mut headers.request);
        let retry = self.retry(&rule.retry, &rule.timeouts, !hash.is_empty());
        let target = match clusters.as_slice() {
            [only] => cluster_target(&only.name),
            _ => None,
        };
        let forward = ForwardPlan {
            clusters,
            path: None,
            host_rewrite: rewrite.authority.clone().or(authority),
            timeout: request_timeout(&rule.timeouts, retry.is_some()),
            idle_timeout: rule.timeouts.idle,
            retry,
            mirrors: rule.mirrors.iter().map(|m| self.mirror(m)).collect(),
            hash,
            missing_cluster_500: weighted
                .iter()
                .any(|d| d.unreachable == Unreachable::Misconfigured),
        };
        (forward, target)
    }

    fn mirror(&self, mirror: &Mirror) -> (Arc<str>, PerMillion) {
        (self.cluster(&mirror.destination).0, mirror.share)
    }

    /// The cluster of a destination, and what its policy hashes.
    fn cluster(&self, destination: &Destination) -> (Arc<str>, Option<HashKey>) {
        let target = self.target(destination);
        let hash = target
            .service
            .and_then(|service| self.hash_key(service, target.port, &destination.subset));
        (target.cluster(destination), hash)
    }

    /// What a destination comes to.
    pub(crate) fn target(&self, destination: &Destination) -> Target<'_> {
        let service = find_service(self.reader, &destination.host, &self.client.namespace);
        let port = match (&destination.port, service.map(|s| s.ports.as_slice())) {
            (DestinationPort::Number(number), _) => *number,
            (DestinationPort::Named(name), ports) => named_port(name, ports.unwrap_or_default()),
            (DestinationPort::Inferred, Some([only])) if self.infer_port => only.number,
            (DestinationPort::Inferred | DestinationPort::Requested, _) => self.conditions.port,
        };
        Target { service, port }
    }

    fn hash_key(&self, service: &Service, port: u16, subset: &str) -> Option<HashKey> {
        let facts = self.client;
        let policies = self.reader.backend_policies(
            &service.key.host,
            &service.key.namespace,
            &facts.namespace,
            &facts.labels,
        );
        match MergedPolicy::new(&policies)
            .traffic(self.reader.mesh(), port, subset)
            .load_balancer
            .algorithm
        {
            Balancing::ConsistentHash { key, .. } => Some(key),
            _ => None,
        }
    }

    fn retry(&self, retry: &Retry, timeouts: &Timeouts, hashed: bool) -> Option<RetryPlan> {
        let mesh = self.reader.mesh();
        let (policy, per_try) = match retry {
            Retry::MeshDefault => {
                (&mesh.default_retry, timeouts.per_try.or(mesh.default_try_timeout))
            }
            own => (own, timeouts.per_try),
        };
        let planned = match policy {
            Retry::Off => return None,
            Retry::Policy(policy) => written_retry(policy, hashed),
            Retry::MeshDefault => default_retry(hashed),
        };
        Some(RetryPlan { per_try_timeout: per_try, ..planned })
    }
}

/// The number of a service's port; 0, which is none, where it has no port of this name.
pub(crate) fn named_port(name: &str, ports: &[ServicePort]) -> u16 {
    ports.iter().find(|port| *port.name == *name).map_or(0, |port| port.number)
}

/// What a destination comes to for a client.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    /// `None`: the client sees no service with this host.
    pub(crate) service: Option<&'a Arc<Service>>,
    pub(crate) port: u16,
}

impl Target<'_> {
    /// The cluster's name. A host that nobody defines keeps its name: the request then fails with
    /// "no cluster", which says more than a wrong answer.
    pub(crate) fn cluster(&self, destination: &Destination) -> Arc<str> {
        let host = self.service.map_or(&destination.host, |service| &service.key.host);
        naming::outbound_cluster(self.port, &destination.subset, host.as_str())
    }

    /// Whether the proxy resolves the name that is asked for.
    pub(crate) fn is_named(&self) -> bool {
        self.service.is_some_and(|service| service.resolution == Resolution::Named)
    }

    /// Whether its service has its port.
    pub(crate) fn is_there(&self) -> bool {
        self.service.is_some_and(|service| service.port(self.port).is_some())
    }
}

/// The service that clients of a namespace reach by a host, other names of it followed.
pub(crate) fn find_service<'a>(
    reader: &Reader<'a>,
    host: &Hostname,
    namespace: &str,
) -> Option<&'a Arc<Service>> {
    let service = reader.service_by_host(host, namespace)?;
    Some(resolve_alias(reader, service, namespace).unwrap_or(service))
}

/// A consistent hash names one endpoint, so another try must be allowed to choose it again.
fn default_retry(hashed: bool) -> RetryPlan {
    RetryPlan {
        attempts: DEFAULT_RETRIES,
        conditions: DEFAULT_RETRY_CONDITIONS.to_vec(),
        statuses: Vec::new(),
        per_try_timeout: None,
        avoid_previous_hosts: !hashed,
        remote_localities: false,
        backoff: None,
    }
}

/// The retries of a policy.
pub(crate) fn written_retry(policy: &RetryPolicy, hashed: bool) -> RetryPlan {
    let written = policy.conditions.clone();
    let mut conditions = written.unwrap_or_else(|| DEFAULT_RETRY_CONDITIONS.to_vec());
    if !policy.statuses.is_empty() && !conditions.contains(&RetryCondition::ListedStatus) {
        conditions.push(RetryCondition::ListedStatus);
    }
    RetryPlan {
        attempts: policy.attempts,
        conditions,
        statuses: policy.statuses.clone(),
        per_try_timeout: None,
        avoid_previous_hosts: policy.ignore_previous_hosts.unwrap_or(!hashed),
        remote_localities: policy.remote_localities,
        backoff: policy.backoff,
    }
}

/// The limit of a whole request: where nothing is tried again, its one try's too.
fn request_timeout(timeouts: &Timeouts, retried: bool) -> RouteTimeout {
    let one_try = timeouts.per_try.filter(|_| !retried);
    let request = timeouts.request.filter(|limit| !limit.is_zero());
    let shortest = request.into_iter().chain(one_try).min();
    shortest.map_or(RouteTimeout::None, RouteTimeout::After)
}

/// Plain forwarding to one cluster: no limit, no retries.
pub(crate) fn forward_to(cluster: Arc<str>) -> ForwardPlan {
    ForwardPlan {
        clusters: vec![WeightedCluster {
            name: cluster,
            weight: 1,
            headers: HeaderOps::default(),
            host_rewrite: None,
        }],
        path: None,
        host_rewrite: None,
        timeout: RouteTimeout::None,
        idle_timeout: None,
        retry: None,
        mirrors: Vec::new(),
        hash: Vec::new(),
        missing_cluster_500: false,
    }
}

/// Destinations that get a share; when every weight is zero, the first gets everything.
///
/// `reaches` tells whether a destination is there: of those that are not, some leave their share to
/// the others ([`Unreachable::Skip`]), as long as there are any.
pub(crate) fn effective(
    destinations: &[WeightedDestination],
    reaches: impl Fn(&Destination) -> bool,
) -> Vec<&WeightedDestination> {
    let weighted: Vec<&WeightedDestination> =
        destinations.iter().filter(|d| d.weight > 0).collect();
    if weighted.is_empty() {
        return destinations.iter().take(1).collect();
    }
    let stays =
        |d: &&WeightedDestination| d.unreachable != Unreachable::Skip || reaches(&d.destination);
    let staying: Vec<_> = weighted.iter().copied().filter(stays).collect();
    if staying.is_empty() { weighted } else { staying }
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

/// Takes the new authority out of request header changes, and drops other pseudo headers, which
/// Envoy refuses.
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

fn operation_path(m: Option<&HttpMatch>) -> String {
    match m.and_then(|m| m.path.as_ref()) {
        None => "/*".to_owned(),
        Some(PathMatch::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathMatch::Segments(segments)) => format!("{segments}/*"),
        Some(PathMatch::Exact(path) | PathMatch::Regex(path)) => path.to_string(),
    }
}

/// `HOST:PORT` out of `outbound|PORT|SUBSET|HOST`.
fn cluster_target(name: &str) -> Option<String> {
    let mut parts = name.split('|').skip(1);
    let (port, _subset, host) = (parts.next()?, parts.next()?, parts.next()?);
    Some(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests;
