//! Virtual hosts: the names that lead to a service or a routed host, and its routes.

use std::{collections::BTreeMap, sync::Arc};

use rustc_hash::{FxBuildHasher, FxHashSet};

use super::{
    ClientFacts, DomainForm, FixedCluster, ForwardPlan, PlanItem, RouteActionPlan, RoutePlan,
    VirtualHostKey, VirtualHostPlan, VirtualHostTarget,
    client::{StaticMatch, resolve_alias},
    naming,
    order::Reached,
    route::{RouteScope, forward_to},
};
use crate::{
    ir::{Attachment, HeaderOps, Hostname, RouteTable, Service, ServiceAddress, ServiceKey},
    snapshot::Reader,
};

/// Plans a virtual host; `None` when what it stands for is gone, or when no domain is left to it.
pub(crate) fn plan_virtual_host(reader: &Reader<'_>, key: &VirtualHostKey) -> Option<PlanItem> {
    let plan = match &key.target {
        VirtualHostTarget::Service { service, local, allocated } => {
            let (local, allocated) = (*local, *allocated);
            let names = NameScope { domain: &reader.mesh().domain, local, allocated };
            service_host(reader, key, service, &names)?
        }
        VirtualHostTarget::Host { host, redirect } => routed_host(reader, key, host, *redirect),
        VirtualHostTarget::AllowAny => {
            let passthrough = pass_to(FixedCluster::Passthrough.resource_name().into());
            catch_all(reader, "allow_any", passthrough)
        }
        VirtualHostTarget::Through(cluster) => {
            catch_all(reader, "allow_any", pass_to(cluster.clone()))
        }
        VirtualHostTarget::BlockAll => catch_all(reader, "block_all", block_all()),
        VirtualHostTarget::Blackhole => VirtualHostPlan {
            name: naming::host_port("blackhole", key.port),
            domains: vec!["*".into()],
            routes: Vec::new(),
            require_tls: false,
            attempt_count: false,
        },
        VirtualHostTarget::Misdirected(host) => VirtualHostPlan {
            name: naming::host_port(host.as_str(), key.port),
            domains: vec![host.shared()],
            ..catch_all(reader, "misdirected", misdirected())
        },
    };
    (!plan.domains.is_empty()).then_some(PlanItem::VirtualHost(plan))
}

fn service_host(
    reader: &Reader<'_>,
    key: &VirtualHostKey,
    service: &ServiceKey,
    names: &NameScope<'_>,
) -> Option<VirtualHostPlan> {
    let service = reader.service(service)?;
    let target = resolve_alias(reader, service, &key.client.namespace).unwrap_or(service);
    let attachments = attachments(key);
    let scope = scope(reader, key, &attachments);
    let mut routes = routes(&scope, key, &tables(reader, key));
    if routes.is_empty() {
        routes.push(scope.default_route(target, key.port));
    }
    Some(VirtualHostPlan {
        name: naming::host_port(service.key.host.as_str(), key.port),
        domains: remaining(service_domains(service, names, key.domains, key.port), &key.taken),
        routes,
        require_tls: false,
        attempt_count: counts_attempts(reader),
    })
}

fn routed_host(
    reader: &Reader<'_>,
    key: &VirtualHostKey,
    host: &Hostname,
    redirect: bool,
) -> VirtualHostPlan {
    let attachments = attachments(key);
    let scope = scope(reader, key, &attachments);
    VirtualHostPlan {
        name: naming::host_port(host.as_str(), key.port),
        domains: remaining(host_domains(host, key.domains, key.port), &key.taken),
        routes: routes(&scope, key, &tables(reader, key)),
        require_tls: redirect,
        attempt_count: counts_attempts(reader),
    }
}

fn routes(
    scope: &RouteScope<'_>,
    key: &VirtualHostKey,
    tables: &[Arc<RouteTable>],
) -> Vec<RoutePlan> {
    let reached = reached(scope, key, tables).into_iter();
    reached.map(|r| scope.route(r.table, r.rule, r.matched)).collect()
}

/// The rules of a virtual host's tables, in the order of its routes.
pub(crate) fn reached<'t>(
    scope: &'t RouteScope<'_>,
    key: &VirtualHostKey,
    tables: &'t [Arc<RouteTable>],
) -> Vec<Reached<'t>> {
    let mut reached = scope.reached(tables.iter());
    if matches!(key.target, VirtualHostTarget::Host { .. }) {
        // Tables that share a host are merged in the order of age; what matches everything must
        // not hide the others.
        reached.sort_by_key(Reached::takes_everything);
    }
    reached
}

/// The tables of a virtual host, whole.
pub(crate) fn tables(reader: &Reader<'_>, key: &VirtualHostKey) -> Vec<Arc<RouteTable>> {
    key.tables.iter().filter_map(|id| reader.route_table(id)).collect()
}

/// What the routes of a virtual host are attached to.
pub(crate) fn attachments(key: &VirtualHostKey) -> Vec<Attachment> {
    match &key.client.gateways[..] {
        [] => vec![Attachment::Mesh],
        gateways => gateways.iter().cloned().map(Attachment::Gateway).collect(),
    }
}

/// How the routes of a virtual host are planned. `attachments`: its [`attachments`].
pub(crate) fn scope<'a>(
    reader: &'a Reader<'a>,
    key: &'a VirtualHostKey,
    attachments: &'a [Attachment],
) -> RouteScope<'a> {
    let client: &ClientFacts = &key.client;
    let service = matches!(key.target, VirtualHostTarget::Service { .. });
    let infer_port = service || !client.gateways.is_empty();
    let conditions = StaticMatch {
        port: key.port,
        namespace: &client.namespace,
        labels: &client.labels,
        attachments,
    };
    let host = match &key.target {
        VirtualHostTarget::Service { service, .. } => Some(&service.host),
        VirtualHostTarget::Host { host, .. } => Some(host),
        _ => None,
    };
    RouteScope { reader, client, conditions, host, infer_port }
}

fn catch_all(reader: &Reader<'_>, name: &str, route: RouteActionPlan) -> VirtualHostPlan {
    let route = RoutePlan {
        name: name.into(),
        matches: None,
        action: route,
        headers: HeaderOps::default(),
        fault: None,
        cors: None,
        config: None,
        operation: "".into(),
    };
    VirtualHostPlan {
        name: name.into(),
        domains: vec!["*".into()],
        routes: vec![route],
        require_tls: false,
        attempt_count: counts_attempts(reader),
    }
}

/// Whether requests say by how many attempts they came.
fn counts_attempts(reader: &Reader<'_>) -> bool {
    !reader.mesh().headers.omitted.attempt_count
}

fn pass_to(cluster: Arc<str>) -> RouteActionPlan {
    let forward: ForwardPlan = forward_to(cluster);
    RouteActionPlan::Forward(Box::new(forward))
}

fn block_all() -> RouteActionPlan {
    RouteActionPlan::Direct { status: 502, body: Arc::new([]) }
}

/// RFC 9110 section 15.5.20: the client may ask again over a connection for the host itself.
fn misdirected() -> RouteActionPlan {
    RouteActionPlan::Direct { status: 421, body: Arc::new([]) }
}

fn remaining(mut domains: Vec<Arc<str>>, taken: &[Arc<str>]) -> Vec<Arc<str>> {
    domains.retain(|domain| taken.binary_search(domain).is_err());
    domains
}

/// Which shorter names a client may use.
pub(crate) struct NameScope<'a> {
    /// Of the cluster (`cluster.local`).
    pub(crate) domain: &'a str,
    /// Whether the name alone will do: the client is in the namespace that the host names.
    pub(crate) local: bool,
    /// Whether the client's DNS answers with the service's allocated address.
    pub(crate) allocated: bool,
}

impl<'a> NameScope<'a> {
    /// For clients of a namespace that ask for a host.
    pub(crate) fn of(domain: &'a str, host: &Hostname, namespace: &str, allocated: bool) -> Self {
        let local = in_cluster(host, domain).is_some_and(|(_, own)| *own == *namespace);
        Self { domain, local, allocated }
    }
}

/// Name and namespace of a host in the cluster's domain, whoever defines it: the resolvers of pods
/// complete shorter names to it.
fn in_cluster<'h>(host: &'h Hostname, domain: &str) -> Option<(&'h str, &'h str)> {
    let services = host.as_str().strip_suffix(domain)?.strip_suffix(".svc.")?;
    services.split_once('.')
}

/// The domains a service claims: its full name (also absolute), for a host in the cluster's domain
/// the shorter names that resolve in the client's namespace, and its addresses. Unique; the full
/// name first.
pub(crate) fn service_domains(
    service: &Service,
    scope: &NameScope<'_>,
    form: DomainForm,
    port: u16,
) -> Vec<Arc<str>> {
    let names = match form {
        DomainForm::Any => return vec!["*".into()],
        DomainForm::Exact => return vec![service.key.host.shared()],
        DomainForm::Names => all_names(service, scope),
        DomainForm::NamesWithPort => with_port(&all_names(service, scope), port),
    };
    let mut domains: Vec<Arc<str>> = Vec::with_capacity(names.len());
    for name in names {
        if !domains.iter().any(|known| **known == *name) {
            domains.push(name.into());
        }
    }
    domains
}

/// The domains of a host that only route tables name: itself, since nothing else is known of it.
pub(crate) fn host_domains(host: &Hostname, form: DomainForm, port: u16) -> Vec<Arc<str>> {
    match form {
        DomainForm::NamesWithPort => {
            with_port(&[host.to_string()], port).into_iter().map(Arc::from).collect()
        }
        DomainForm::Any | DomainForm::Names | DomainForm::Exact => vec![host.shared()],
    }
}

fn with_port(names: &[String], port: u16) -> Vec<String> {
    let mut all: Vec<String> = Vec::with_capacity(names.len() * 2);
    for name in names {
        if port == 80 {
            all.push(name.clone());
        }
        all.push(format!("{name}:{port}"));
    }
    all
}

fn all_names(service: &Service, scope: &NameScope<'_>) -> Vec<String> {
    let host = &service.key.host;
    let mut names = vec![host.to_string()];
    if host.as_str().parse::<std::net::IpAddr>().is_err() {
        names.push(format!("{host}."));
    }
    names.extend(short_names(host, scope));
    if service.headless {
        // A pod of a headless service has a name of its own below the service's.
        let below: Vec<String> = names.iter().map(|name| format!("*.{name}")).collect();
        names.extend(below);
    }
    names.extend(service.addresses.iter().filter_map(address_domain));
    let allocated = service.allocated.filter(|_| scope.allocated);
    names.extend(allocated.map(|address| address.to_string()));
    names
}

fn short_names(host: &Hostname, scope: &NameScope<'_>) -> Vec<String> {
    let Some((name, namespace)) = in_cluster(host, scope.domain) else { return Vec::new() };
    let (within, absolute) = (format!("{name}.{namespace}"), format!("{name}.{namespace}.svc"));
    match scope.local {
        // `*` alone would be everybody's name.
        true if name == "*" => vec![absolute, within],
        true => vec![name.to_owned(), absolute, within],
        false => vec![within, absolute],
    }
}

fn address_domain(address: &ServiceAddress) -> Option<String> {
    match address {
        ServiceAddress::Ip(std::net::IpAddr::V4(v4)) => Some(v4.to_string()),
        ServiceAddress::Ip(std::net::IpAddr::V6(v6)) => Some(format!("[{v6}]")),
        ServiceAddress::Net(_) => None,
    }
}

/// A virtual host with the domains it would like, before a route configuration settles who gets
/// which.
pub(crate) struct Claim {
    pub(crate) key: VirtualHostKey,
    /// The virtual host's name, by which a route configuration is sorted.
    pub(crate) name: Arc<str>,
    /// The first is its real name; the others are shorter names and addresses.
    pub(crate) domains: Vec<Arc<str>>,
}

/// Settles who owns which domain of a route configuration, since Envoy refuses one with a domain
/// twice: a real name beats an expanded one, and the earlier virtual host beats the later. Sorted
/// by name; those left with nothing go.
pub(crate) fn settle(mut claims: Vec<Claim>) -> Vec<VirtualHostKey> {
    claims.sort_by(|a, b| a.name.cmp(&b.name));
    if disjoint(&claims) {
        return claims
            .into_iter()
            .filter(|claim| !claim.domains.is_empty())
            .map(|claim| claim.key)
            .collect();
    }
    let mut owners: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    for (index, claim) in claims.iter().enumerate() {
        if let Some(name) = claim.domains.first() {
            owners.entry(name.clone()).or_insert(index);
        }
    }
    for (index, claim) in claims.iter().enumerate() {
        for domain in &claim.domains {
            owners.entry(domain.clone()).or_insert(index);
        }
    }
    let settled = claims.into_iter().enumerate().filter_map(|(index, mut claim)| {
        let taken = claim.domains.iter().filter(|domain| owners.get(*domain) != Some(&index));
        claim.key.taken = taken.cloned().collect();
        claim.key.taken.sort();
        (claim.key.taken.len() < claim.domains.len()).then_some(claim.key)
    });
    settled.collect()
}

/// Whether no two virtual hosts want the same domain, as nearly always.
fn disjoint(claims: &[Claim]) -> bool {
    let domains = || claims.iter().flat_map(|claim| &claim.domains);
    let mut seen: FxHashSet<&str> =
        FxHashSet::with_capacity_and_hasher(domains().count(), FxBuildHasher);
    domains().all(|domain| seen.insert(domain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ir::Protocol,
        plan::fixture::{service, service_key},
    };

    const LOCAL: NameScope<'_> =
        NameScope { domain: "cluster.local", local: true, allocated: false };
    const REMOTE: NameScope<'_> =
        NameScope { domain: "cluster.local", local: false, allocated: false };

    fn texts(domains: &[Arc<str>]) -> Vec<&str> {
        domains.iter().map(AsRef::as_ref).collect()
    }

    fn claim(name: &str, domains: &[&str]) -> Claim {
        let key = VirtualHostKey {
            target: VirtualHostTarget::Service {
                service: service_key("shop", name),
                local: true,
                allocated: false,
            },
            port: 80,
            tables: Vec::new(),
            client: Arc::default(),
            domains: DomainForm::Names,
            taken: Vec::new(),
        };
        Claim { key, name: name.into(), domains: domains.iter().map(|&d| d.into()).collect() }
    }

    #[test]
    fn shorter_names_depend_on_the_clients_namespace() {
        let cart = service("shop", "cart", "10.96.0.1", &[(80, Protocol::Http)]);
        let full = ["cart.shop.svc.cluster.local", "cart.shop.svc.cluster.local."];
        let local = service_domains(&cart, &LOCAL, DomainForm::Names, 80);
        assert_eq!(
            texts(&local),
            [&full[..], &["cart", "cart.shop.svc", "cart.shop", "10.96.0.1"]].concat()
        );
        let remote = service_domains(&cart, &REMOTE, DomainForm::Names, 80);
        assert_eq!(
            texts(&remote),
            [&full[..], &["cart.shop", "cart.shop.svc", "10.96.0.1"]].concat()
        );
    }

    #[test]
    fn shorter_names_come_from_the_host_whoever_defines_it() {
        let names = |host: &str, namespace: &str| {
            let mut entry = service("other", "cart", "2001:db8::1", &[(80, Protocol::Http)]);
            entry.kubernetes = false;
            entry.key.host = Hostname::new(host);
            let scope = NameScope::of("cluster.local", &entry.key.host, namespace, false);
            texts(&service_domains(&entry, &scope, DomainForm::Names, 80)).join(" ")
        };
        let table = [
            (
                "cart.shop.svc.cluster.local",
                "shop",
                "cart.shop.svc.cluster.local cart.shop.svc.cluster.local. cart cart.shop.svc cart.shop",
            ),
            (
                "cart.shop.svc.cluster.local",
                "other",
                "cart.shop.svc.cluster.local cart.shop.svc.cluster.local. cart.shop cart.shop.svc",
            ),
            (
                "*.shop.svc.cluster.local",
                "shop",
                "*.shop.svc.cluster.local *.shop.svc.cluster.local. *.shop.svc *.shop",
            ),
            ("a.test", "shop", "a.test a.test."),
            ("*.a.test", "shop", "*.a.test *.a.test."),
            (
                "cart.shop.svc.other.domain",
                "shop",
                "cart.shop.svc.other.domain cart.shop.svc.other.domain.",
            ),
            ("1.2.3.4", "shop", "1.2.3.4"),
        ];
        for (host, namespace, expected) in table {
            assert_eq!(names(host, namespace), format!("{expected} [2001:db8::1]"), "{host}");
        }
    }

    #[test]
    fn pods_of_headless_services_have_names_below_it() {
        let mut peers = service("shop", "peers", "", &[(80, Protocol::Http)]);
        peers.headless = true;
        let domains = service_domains(&peers, &LOCAL, DomainForm::Names, 80);
        assert!(
            texts(&domains).contains(&"*.peers")
                && texts(&domains).contains(&"*.peers.shop.svc.cluster.local")
        );
    }

    #[test]
    fn the_http_proxy_tells_ports_apart() {
        let cart = service("shop", "cart", "", &[(8080, Protocol::Http)]);
        let domains = service_domains(&cart, &LOCAL, DomainForm::NamesWithPort, 8080);
        assert!(domains.iter().all(|d| d.ends_with(":8080")), "{domains:?}");
        let domains = service_domains(&cart, &LOCAL, DomainForm::NamesWithPort, 80);
        assert!(texts(&domains).contains(&"cart") && texts(&domains).contains(&"cart:80"));
    }

    #[test]
    fn a_real_name_beats_an_expanded_one_and_the_earlier_virtual_host_the_later() {
        let settled = settle(vec![
            claim("c", &["cart.shop", "10.0.0.1"]),
            claim("b", &["cart.shop.svc.cluster.local", "cart.shop", "10.0.0.1"]),
        ]);
        let taken: Vec<Vec<&str>> = settled.iter().map(|key| texts(&key.taken)).collect();
        assert_eq!(taken, [vec!["cart.shop"], vec!["10.0.0.1"]]);
    }

    #[test]
    fn a_virtual_host_without_any_domain_left_is_dropped() {
        let settled = settle(vec![claim("a", &["x.example"]), claim("b", &["x.example"])]);
        assert_eq!(settled.len(), 1);
    }
}
