//! Warming, replacement, removal and refusal, with messages as a control plane sends them.

use bytes::Bytes;
use prost::Message;

use super::*;
use crate::compile::fixture;

fn cluster(name: &str, lb_policy: i32) -> Bytes {
    fixture::eds_cluster(name, lb_policy).into()
}

fn endpoints(name: &str) -> Bytes {
    fixture::endpoints(name).into()
}

fn routes(name: &str) -> Bytes {
    fixture::routes(name).into()
}

struct Proxy {
    accepted: Accepted,
    start: Instant,
}

impl Proxy {
    fn new() -> Self {
        Self { accepted: Accepted::new(Arc::default()), start: Instant::now() }
    }

    fn send(
        &mut self,
        kind: ResourceType,
        name: &str,
        version: &str,
        body: Bytes,
    ) -> Vec<Rejection> {
        let changed = vec![Changed { name: name.to_owned(), version: version.to_owned(), body }];
        self.accepted.apply(&Update { kind, changed, removed: vec![] }, self.start)
    }

    fn withdraw(&mut self, kind: ResourceType, name: &str) {
        let update = Update { kind, changed: vec![], removed: vec![name.to_owned()] };
        assert!(self.accepted.apply(&update, self.start).is_empty());
    }

    /// Serving and warming version of a resource.
    fn versions(&self, kind: ResourceType, name: &str) -> (Option<String>, Option<String>) {
        let found = self.accepted.summaries(kind).into_iter().find(|summary| summary.name == name);
        found.map_or((None, None), |summary| (summary.serving, summary.warming))
    }
}

fn versions(serving: &str, warming: &str) -> (Option<String>, Option<String>) {
    let version = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    (version(serving), version(warming))
}

#[test]
fn a_cluster_serves_once_its_endpoints_have_come() {
    let mut proxy = Proxy::new();
    assert!(proxy.send(ResourceType::Cluster, "c", "1", cluster("c", 0)).is_empty());
    assert_eq!(proxy.versions(ResourceType::Cluster, "c"), versions("", "1"));
    assert!(proxy.accepted.needs().endpoints.contains("c"));
    assert!(proxy.accepted.take_config().is_none());

    proxy.send(ResourceType::Endpoint, "c", "1", endpoints("c"));
    assert_eq!(proxy.versions(ResourceType::Cluster, "c"), versions("1", ""));
    let config = proxy.accepted.take_config().unwrap();
    assert_eq!(config.cluster("c").unwrap().state.endpoints().iter().count(), 1);
    assert!(proxy.accepted.take_config().is_none());
}

#[test]
fn endpoints_that_do_not_exist_count_as_come_and_later_ones_need_no_new_configuration() {
    let mut proxy = Proxy::new();
    proxy.send(ResourceType::Cluster, "c", "1", cluster("c", 0));
    proxy.withdraw(ResourceType::Endpoint, "c");
    let config = proxy.accepted.take_config().unwrap();
    let state = config.cluster("c").unwrap().state.clone();
    assert_eq!(state.endpoints().iter().count(), 0);

    proxy.send(ResourceType::Endpoint, "c", "1", endpoints("c"));
    assert_eq!(state.endpoints().iter().count(), 1);
    assert!(proxy.accepted.take_config().is_none());

    proxy.withdraw(ResourceType::Endpoint, "c");
    assert_eq!(state.endpoints().iter().count(), 1, "the last endpoints stay, as in Envoy");
}

#[test]
fn a_changed_cluster_keeps_its_state_and_a_refused_one_changes_nothing() {
    let mut proxy = Proxy::new();
    proxy.send(ResourceType::Cluster, "c", "1", cluster("c", 0));
    proxy.send(ResourceType::Endpoint, "c", "1", endpoints("c"));
    let first = proxy.accepted.take_config().unwrap().cluster("c").unwrap().clone();

    proxy.send(ResourceType::Cluster, "c", "2", cluster("c", 1));
    let second = proxy.accepted.take_config().unwrap().cluster("c").unwrap().clone();
    assert!(Arc::ptr_eq(&first.state, &second.state));
    assert_ne!(first.policy, second.policy);

    let refused = proxy.send(ResourceType::Cluster, "c", "3", cluster("c", 77));
    assert_eq!(refused[0].to_string(), "CDS c: lb_policy: unknown value");
    assert_eq!(proxy.versions(ResourceType::Cluster, "c"), versions("2", ""));
    assert_eq!(proxy.accepted.refusals().count(), 1);
    assert!(proxy.accepted.take_config().is_none());

    proxy.send(ResourceType::Cluster, "c", "4", cluster("c", 0));
    assert_eq!(proxy.accepted.refusals().count(), 0);

    proxy.withdraw(ResourceType::Cluster, "c");
    assert!(proxy.accepted.take_config().unwrap().cluster("c").is_none());
    assert!(proxy.accepted.needs().endpoints.is_empty());
    assert!(proxy.accepted.summaries(ResourceType::Endpoint).is_empty());
}

#[test]
fn a_listener_serves_once_its_routes_have_come_and_the_old_one_until_then() {
    let mut proxy = Proxy::new();
    let listener = |route: &str| Bytes::from(fixture::http_listener("l", route).encode_to_vec());
    proxy.send(ResourceType::Listener, "l", "1", listener("80"));
    assert_eq!(proxy.versions(ResourceType::Listener, "l"), versions("", "1"));
    proxy.send(ResourceType::Route, "80", "1", routes("80"));
    assert_eq!(proxy.versions(ResourceType::Listener, "l"), versions("1", ""));

    proxy.send(ResourceType::Listener, "l", "2", listener("81"));
    assert_eq!(proxy.versions(ResourceType::Listener, "l"), versions("1", "2"));
    assert!(proxy.accepted.is_warming());
    let needs = proxy.accepted.needs();
    assert!(needs.routes.contains("80") && needs.routes.contains("81"));

    proxy.send(ResourceType::Route, "81", "1", routes("81"));
    assert_eq!(proxy.versions(ResourceType::Listener, "l"), versions("2", ""));
    assert_eq!(proxy.versions(ResourceType::Route, "80"), (None, None));
    let config = proxy.accepted.take_config().unwrap();
    assert_eq!((config.listeners.len(), config.route_configs().count()), (1, 1));
}

#[test]
fn what_never_comes_does_not_keep_a_proxy_from_starting() {
    let mut proxy = Proxy::new();
    proxy.send(
        ResourceType::Listener,
        "l",
        "1",
        fixture::http_listener("l", "80").encode_to_vec().into(),
    );
    assert!(proxy.accepted.holds_start_up(proxy.start));
    let later = proxy.start + LONGEST_WAIT;
    proxy.accepted.settle(later);
    assert!(!proxy.accepted.holds_start_up(later) && proxy.accepted.is_warming());
}

#[test]
fn a_missing_secret_holds_a_listener_up_for_a_while_only() {
    let mut proxy = Proxy::new();
    let listener = fixture::tls_listener("l", "kubernetes://shop-cert");
    proxy.send(ResourceType::Listener, "l", "1", listener.encode_to_vec().into());
    assert!(proxy.accepted.needs().secrets.contains("kubernetes://shop-cert"));
    assert_eq!(proxy.versions(ResourceType::Listener, "l"), versions("", "1"));
    proxy.accepted.settle(proxy.start + LONGEST_WAIT);
    assert_eq!(proxy.versions(ResourceType::Listener, "l"), versions("1", ""));
}

#[test]
fn a_secret_fills_its_slot_and_leaves_it_when_withdrawn() {
    let mut proxy = Proxy::new();
    let name = "kubernetes://shop-cert";
    proxy.send(
        ResourceType::Listener,
        "l",
        "1",
        fixture::tls_listener("l", name).encode_to_vec().into(),
    );
    proxy.send(ResourceType::Secret, name, "1", fixture::certificate(name).encode_to_vec().into());
    assert_eq!(proxy.versions(ResourceType::Listener, "l"), versions("1", ""));
    let slot = proxy.accepted.context.secrets.existing(name).unwrap();
    assert!(matches!(slot.load().as_deref(), Some(SecretMaterial::Certificate { .. })));
    proxy.withdraw(ResourceType::Secret, name);
    assert!(slot.load().is_none());
}

#[test]
fn roots_of_which_a_newer_version_is_refused_are_trusted_no_more() {
    let mut proxy = Proxy::new();
    let name = "kubernetes://partner-cacert";
    let pem = rcgen::generate_simple_self_signed(vec!["root".to_owned()]).unwrap().cert.pem();
    proxy.send(ResourceType::Cluster, "c", "1", fixture::cluster_with_roots("c", name).into());
    proxy.send(ResourceType::Secret, name, "1", fixture::roots(name, &pem, false).into());
    let slot = proxy.accepted.context.secrets.existing(name).unwrap();
    assert!(matches!(slot.load().as_deref(), Some(SecretMaterial::Trust(_))));
    let refused =
        proxy.send(ResourceType::Secret, name, "2", fixture::roots(name, &pem, true).into());
    assert!(refused[0].closed, "{}", refused[0]);
    assert!(slot.load().is_none());
    proxy.send(ResourceType::Secret, name, "3", fixture::roots(name, &pem, false).into());
    assert!(slot.load().is_some());
}

#[test]
fn routes_that_were_never_accepted_are_closed_and_their_listener_is_not_passed_around() {
    let mut proxy = Proxy::new();
    proxy.send(
        ResourceType::Listener,
        "l",
        "1",
        fixture::http_listener("l", "80").encode_to_vec().into(),
    );
    let refused = proxy.send(
        ResourceType::Route,
        "80",
        "1",
        fixture::hosts("80", "c", &[("*", true, false)]).into(),
    );
    assert!(refused[0].closed, "{}", refused[0]);
    let config = proxy.accepted.take_config().unwrap();
    assert!(config.listener("l").is_some());
    let routes = config.route_configs().next().unwrap();
    let host = routes.virtual_host("anything").unwrap();
    assert!(format!("{:?}", host.routes).contains("503"), "{host:?}");
    proxy.send(
        ResourceType::Route,
        "80",
        "2",
        fixture::hosts("80", "c", &[("a", false, false)]).into(),
    );
    let config = proxy.accepted.take_config().unwrap();
    assert!(config.route_configs().next().unwrap().virtual_host("anything").is_none());
}
