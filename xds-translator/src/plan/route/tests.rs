//! What rules become: limits, retries, and destinations that are not there.

use std::time::Duration;

use super::*;
use crate::{
    ir::{Attachment, Labels, MeshDefaults, Protocol},
    plan::fixture::{mesh_with, rule, service, service_item, table},
    snapshot::MeshSnapshot,
};

const CART: &str = "cart.shop.svc.cluster.local";
const GONE: &str = "gone.shop.svc.cluster.local";

fn settings_with(retry: Retry, try_timeout: Option<Duration>) -> MeshSnapshot {
    let settings = MeshDefaults {
        default_retry: retry,
        default_try_timeout: try_timeout,
        ..MeshDefaults::default()
    };
    mesh_with(
        settings,
        [service_item(service("shop", "cart", "10.0.0.1", &[(80, Protocol::Http)]))],
    )
}

fn routes(mesh: &MeshSnapshot, tables: &[Arc<RouteTable>]) -> Vec<RoutePlan> {
    let reader = Reader::new(mesh);
    let client = ClientFacts { namespace: "shop".into(), ..ClientFacts::default() };
    let conditions = StaticMatch {
        port: 80,
        namespace: "shop",
        labels: &Labels::new(),
        attachments: &[Attachment::Mesh],
    };
    let scope =
        RouteScope { reader: &reader, client: &client, conditions, host: None, infer_port: true };
    let reached = scope.reached(tables.iter()).into_iter();
    reached.map(|r| scope.route(r.table, r.rule, r.matched)).collect()
}

fn forwarded(mesh: &MeshSnapshot, rule: HttpRule) -> ForwardPlan {
    let tables = [Arc::new(table("shop", "t", &[CART], vec![rule]))];
    match routes(mesh, &tables).remove(0).action {
        RouteActionPlan::Forward(forward) => *forward,
        other => panic!("the rule forwards, got {other:?}"),
    }
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

/// The limit of the request and of a try.
fn limits(
    mesh: &MeshSnapshot,
    timeouts: Timeouts,
    retry: Retry,
) -> (RouteTimeout, Option<Duration>) {
    let plan = forwarded(mesh, HttpRule { timeouts, retry, ..rule(Vec::new(), CART) });
    (plan.timeout, plan.retry.and_then(|retry| retry.per_try_timeout))
}

#[test]
fn a_try_is_limited_by_itself_where_there_are_others() {
    let mesh = settings_with(Retry::MeshDefault, None);
    let timeouts = |request, per_try| Timeouts { request, per_try, idle: None };
    let after = |s| RouteTimeout::After(Duration::from_secs(s));
    let both = || timeouts(seconds(5), seconds(2));
    assert_eq!(limits(&mesh, both(), Retry::MeshDefault), (after(5), seconds(2)));
    assert_eq!(limits(&mesh, both(), Retry::Off), (after(2), None));
    assert_eq!(limits(&mesh, timeouts(None, seconds(2)), Retry::Off), (after(2), None));
    assert_eq!(limits(&mesh, timeouts(seconds(1), seconds(2)), Retry::Off), (after(1), None));
    let none = limits(&mesh, Timeouts::default(), Retry::MeshDefault);
    assert_eq!(none, (RouteTimeout::None, None));
}

#[test]
fn the_meshs_limit_of_a_try_is_for_rules_that_say_nothing_of_retries() {
    let policy = || RetryPolicy {
        attempts: 3,
        conditions: None,
        statuses: Vec::new(),
        remote_localities: false,
        ignore_previous_hosts: None,
        backoff: None,
    };
    let mesh = settings_with(Retry::Policy(policy()), seconds(7));
    let per_try =
        |per_try, retry| limits(&mesh, Timeouts { per_try, ..Timeouts::default() }, retry).1;
    assert_eq!(per_try(None, Retry::MeshDefault), seconds(7));
    assert_eq!(per_try(seconds(2), Retry::MeshDefault), seconds(2));
    assert_eq!(per_try(None, Retry::Policy(policy())), None);
    assert_eq!(per_try(seconds(2), Retry::Policy(policy())), seconds(2));
}

#[test]
fn a_misconfigured_destination_keeps_its_share_and_answers_500() {
    let mesh = settings_with(Retry::MeshDefault, None);
    let to = |host: &str, weight, unreachable| WeightedDestination {
        destination: Destination {
            host: Hostname::new(host),
            port: DestinationPort::Inferred,
            subset: "".into(),
            at: "".into(),
            of: None,
        },
        weight,
        unreachable,
        headers: HeaderOps::default(),
    };
    let shares = |unreachable| {
        let destinations = vec![to(CART, 9, unreachable), to(GONE, 1, unreachable)];
        let action = HttpAction::Forward { destinations, rewrite: Rewrite::default() };
        let plan = forwarded(&mesh, HttpRule { action, ..rule(Vec::new(), CART) });
        let weights: Vec<u32> = plan.clusters.iter().map(|c| c.weight).collect();
        (weights, plan.missing_cluster_500)
    };
    assert_eq!(shares(Unreachable::Misconfigured), (vec![9, 1], true));
    assert_eq!(shares(Unreachable::Fail), (vec![9, 1], false));
    assert_eq!(shares(Unreachable::Skip), (vec![1], false));
}

#[test]
fn rules_by_specificity_hide_nothing_before_they_are_ranked() {
    let mesh = settings_with(Retry::MeshDefault, None);
    let on = |path: &str| {
        let path = Some(PathMatch::segments(path));
        rule(vec![HttpMatch { path, name: "m".into(), ..HttpMatch::default() }], CART)
    };
    let tabled = |name: &str, rules| {
        let order = RuleOrder::BySpecificity;
        Arc::new(RouteTable { order, ..table("shop", name, &[CART], rules) })
    };
    let tables =
        [tabled("a", vec![rule(Vec::new(), CART), on("/a")]), tabled("b", vec![on("/a/b")])];
    let operations: Vec<String> =
        routes(&mesh, &tables).iter().map(|route| route.operation.to_string()).collect();
    let expected = ["/a/b/*", "/a/*", "/*"].map(|path| format!("{CART}:80{path}"));
    assert_eq!(operations, expected);
}

#[test]
fn a_rule_for_some_hosts_is_for_requests_that_are_closest_to_them() {
    let rules = [&[][..], &["*.a.test"], &["b.a.test"], &["*"]].map(|hosts| {
        let hosts = hosts.iter().map(|host| Hostname::new(host)).collect();
        HttpRule { hosts, ..rule(Vec::new(), CART) }
    });
    let table = table("shop", "t", &["*", "*.a.test", "b.a.test"], rules.to_vec());
    for (host, expected) in [
        ("b.a.test", [true, false, true, false]),
        ("c.a.test", [true, true, false, false]),
        ("*.a.test", [true, true, false, false]),
        ("c.test", [true, false, false, true]),
    ] {
        let served = rules.each_ref().map(|rule| table.serves(rule, &Hostname::new(host)));
        assert_eq!(served, expected, "{host}");
    }
}
