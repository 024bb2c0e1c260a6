//! What rules become, by action and layer.

use std::net::IpAddr;

use super::*;
use crate::{
    dialect::Kind,
    ir::{
        AccessDefault, Account, Authorizer, AuthorizerProtocol, CallerSet, Discovery, Hostname,
        Locality, MeshTls, PortName, Protocol, Selector, SharedCallers, SharedPorts, WhichPorts,
        Workload, WorkloadId, WorkloadPort,
    },
    plan::fixture::{access, labels, mesh, mesh_with, origin, service, service_item},
    snapshot::{Dep, Item, MeshSnapshot},
};

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

fn wanted<T>(wanted: Vec<T>) -> Values<T> {
    Values { wanted, refused: Vec::new() }
}

fn from(source: Vec<CallerMatch>) -> AccessRule {
    AccessRule { from: vec![source], ..AccessRule::default() }
}

fn to(operation: Vec<CallMatch>) -> AccessRule {
    AccessRule { to: vec![operation], ..AccessRule::default() }
}

fn get() -> CallMatch {
    CallMatch::Method(wanted(vec![exact("GET")]))
}

fn filters(policies: &[Arc<AccessPolicy>], layer: Layer) -> Vec<AccessFilter> {
    let facts = Facts { mesh: &MeshDefaults::default(), callers: &BTreeMap::new() };
    access_filters(facts, policies, layer)
}

/// The one policy that a rule gives.
fn planned(action: AccessAction, rule: AccessRule, layer: Layer) -> Option<AccessPolicyPlan> {
    filters(&[access("p", action, vec![rule])], layer)
        .remove(0)
        .policies
        .unwrap()
        .into_values()
        .next()
}

/// The names of enforced policies, by action.
fn enforced(
    policies: &[Arc<AccessPolicy>],
    layer: Layer,
) -> Vec<(AccessAction, Option<Vec<String>>)> {
    let names =
        |f: &AccessFilter| f.policies.as_ref().map(|p| p.keys().map(ToString::to_string).collect());
    filters(policies, layer).iter().map(|f| (f.action, names(f))).collect()
}

fn anything() -> AccessPolicyPlan {
    AccessPolicyPlan {
        permissions: vec![Permission::And(vec![Permission::Any])],
        principals: vec![Principal::And(vec![Principal::Any])],
    }
}

#[test]
fn audit_comes_before_deny_before_allow() {
    let all = [AccessAction::Allow, AccessAction::Deny, AccessAction::Audit];
    let policies: Vec<_> =
        all.map(|action| access("p", action, vec![AccessRule::default()])).into();
    let order: Vec<AccessAction> =
        filters(&policies, Layer::Http).into_iter().map(|f| f.action).collect();
    assert_eq!(order, [AccessAction::Audit, AccessAction::Deny, AccessAction::Allow]);
}

#[test]
fn an_allow_policy_without_rules_is_written_out_as_one_that_never_matches() {
    let filter = filters(&[access("none", AccessAction::Allow, vec![])], Layer::Http).remove(0);
    let policies = filter.policies.unwrap();
    assert_eq!(
        policies.keys().map(AsRef::as_ref).collect::<Vec<&str>>(),
        ["ns[shop]-policy[none]-rule[0]"]
    );
    assert_eq!(policies.values().next(), Some(&never()));
}

#[test]
fn a_rule_without_conditions_matches_everything() {
    assert_eq!(planned(AccessAction::Deny, AccessRule::default(), Layer::Http), Some(anything()));
}

#[test]
fn http_attributes_remove_an_allow_rule_from_connections_but_only_widen_a_deny_rule() {
    let header = CallerMatch::Header("x".into(), wanted(vec![exact("y")]));
    let rule = || AccessRule {
        when_from: vec![header.clone()],
        ..to(vec![CallMatch::Port(wanted(vec![80])), get()])
    };
    let by_port = || to(vec![CallMatch::Port(wanted(vec![81]))]);
    let allow = access("allow", AccessAction::Allow, vec![rule(), by_port()]);
    let deny = access("deny", AccessAction::Deny, vec![rule()]);
    let names =
        |policy: &str, rule: u8| Some(vec![format!("ns[shop]-policy[{policy}]-rule[{rule}]")]);
    // The rule behind the one that is left out keeps its number.
    let expected =
        [(AccessAction::Deny, names("deny", 0)), (AccessAction::Allow, names("allow", 1))];
    assert_eq!(enforced(&[allow, deny], Layer::Tcp), expected);
    let only_http = access("allow", AccessAction::Allow, vec![rule()]);
    assert_eq!(enforced(&[only_http], Layer::Tcp), [(AccessAction::Allow, Some(vec![]))]);
    let widened = AccessPolicyPlan {
        permissions: vec![Permission::And(vec![Permission::Or(vec![Permission::Port(80)])])],
        ..anything()
    };
    for action in [AccessAction::Deny, AccessAction::Audit] {
        assert_eq!(planned(action, rule(), Layer::Tcp), Some(widened.clone()), "{action:?}");
    }
}

#[test]
fn a_condition_on_a_token_is_one_on_requests() {
    let claim = || CallerMatch::Claim(vec!["group".into()], wanted(vec![exact("staff")]));
    let anybody = RequestPrincipal { issuer: StringMatch::Present, subject: StringMatch::Present };
    let nobody =
        || CallerMatch::RequestPrincipal(Values { wanted: vec![], refused: vec![anybody.clone()] });
    let when = |caller| AccessRule { when_from: vec![caller], ..AccessRule::default() };
    for rule in [from(vec![claim()]), when(claim()), when(nobody())] {
        assert_eq!(planned(AccessAction::Allow, rule.clone(), Layer::Tcp), None);
        let denied = planned(AccessAction::Deny, rule.clone(), Layer::Tcp);
        assert_eq!(denied, Some(anything()), "wider, where there are no tokens");
    }
    let principals = |rule| planned(AccessAction::Deny, rule, Layer::Http).unwrap().principals;
    let in_token = MetadataMatch::any_claim(&["group".into()], &exact("staff"));
    let held = Principal::Or(vec![Principal::Metadata(in_token)]);
    assert_eq!(principals(when(claim())), [Principal::And(vec![held])]);
    let present = |name| Principal::Metadata(MetadataMatch::claim(name, &StringMatch::Present));
    let both = Principal::And(vec![present("iss"), present("sub")]);
    let without = Principal::Not(Box::new(Principal::Or(vec![both])));
    assert_eq!(principals(when(nobody())), [Principal::And(vec![without])]);
}

/// What is asked about for these policies, in a mesh whose only authorizer is at `cart:80`.
fn asked(policies: &[Arc<AccessPolicy>], layer: Layer) -> Option<AskFilter> {
    let authorizer = Authorizer {
        host: Hostname::new("cart.shop.svc.cluster.local"),
        namespace: Some("shop".into()),
        port: 80,
        timeout: std::time::Duration::from_secs(1),
        fail_open: false,
        status_on_error: None,
        reroutes: false,
        body: None,
        protocol: AuthorizerProtocol::Grpc,
    };
    let settings = MeshDefaults {
        authorizers: [("asked".into(), authorizer)].into(),
        ..MeshDefaults::default()
    };
    let cart = service("shop", "cart", "10.96.0.1", &[(80, Protocol::Grpc)]);
    let snapshot = mesh_with(settings, [service_item(cart)]);
    let reader = Reader::new(&snapshot);
    let callers = BTreeMap::new();
    ask_filter(&reader, Facts { mesh: reader.mesh(), callers: &callers }, policies, layer)
}

#[test]
fn what_is_asked_about_is_marked_and_where_nobody_can_be_asked_it_is_refused() {
    let token = CallerMatch::Claim(vec!["group".into()], wanted(vec![exact("staff")]));
    let rule = AccessRule { when_from: vec![token], ..to(vec![get()]) };
    let policy = access("ask", AccessAction::Ask, vec![rule]);
    let filter = asked(std::slice::from_ref(&policy), Layer::Http).unwrap();
    let names: Vec<&str> = filter.policies.keys().map(AsRef::as_ref).collect();
    assert_eq!(names, ["istio-ext-authz-asked-ns[shop]-policy[ask]-rule[0]"]);
    // Tokens are checked later, so that the rule asks whatever they say.
    let plan = filter.policies.values().next().unwrap();
    assert_eq!(plan.principals, anything().principals);
    assert_ne!(plan.permissions, anything().permissions);
    let who = filter.asked.unwrap();
    assert_eq!(
        (&*who.prefix, &*who.cluster),
        ("istio-ext-authz-asked-", "outbound|80||cart.shop.svc.cluster.local",)
    );
    let connections = asked(std::slice::from_ref(&policy), Layer::Tcp).unwrap();
    assert_eq!(connections.policies.into_values().next(), Some(anything()));
    let other = AccessPolicy { authorizer: Some("other".into()), ..AccessPolicy::clone(&policy) };
    let other = Arc::new(other);
    for policies in [vec![other.clone()], vec![policy.clone(), other]] {
        let filter = asked(&policies, Layer::Http).unwrap();
        assert_eq!((filter.policies.len(), filter.asked), (policies.len(), None));
    }
    let tried = Arc::new(AccessPolicy { dry_run: true, ..AccessPolicy::clone(&policy) });
    assert_eq!(asked(&[tried], Layer::Http), None);
    assert_eq!(asked(&[access("none", AccessAction::Ask, vec![])], Layer::Http), None);
}

#[test]
fn a_dry_run_enforces_nothing() {
    let mut policy = (*access("p", AccessAction::Allow, vec![to(vec![get()])])).clone();
    policy.dry_run = true;
    let policy = Arc::new(policy);
    for (layer, rules) in [(Layer::Http, 1), (Layer::Tcp, 0)] {
        let filter = filters(std::slice::from_ref(&policy), layer).remove(0);
        // Without a rule that can hold the report says that everything would be refused.
        assert_eq!(
            (filter.policies, filter.shadow.map(|s| s.len())),
            (None, Some(rules)),
            "{layer:?}"
        );
    }
}

#[test]
fn conditions_of_a_source_all_hold_for_one_peer() {
    let text = |text: &str| wanted(vec![exact(text)]);
    let source = vec![
        CallerMatch::Principal(text("evil.corp/ns/a/sa/b")),
        CallerMatch::TrustDomain(text("corp")),
    ];
    let peer = |m: StringMatch| Principal::Or(vec![Principal::Authenticated(m)]);
    let expected = Principal::And(vec![
        peer(exact("spiffe://evil.corp/ns/a/sa/b")),
        peer(StringMatch::Prefix("spiffe://corp/".into())),
    ]);
    // Nobody is both, which is for the proxy to find out: the rule stays, under its own number.
    assert_eq!(
        planned(AccessAction::Deny, from(source), Layer::Http).unwrap().principals,
        [expected]
    );
}

fn at(target: PolicyTarget, unmatched: Unmatched, policy: Arc<AccessPolicy>) -> Arc<AccessPolicy> {
    Arc::new(AccessPolicy { target, unmatched, ..AccessPolicy::clone(&policy) })
}

fn only(port: u16) -> Permission {
    Permission::And(vec![Permission::Port(port), Permission::And(vec![Permission::Any])])
}

#[test]
fn a_policy_of_a_port_refuses_there_and_nowhere_else() {
    let every = || vec![AccessRule::default()];
    let policy = |port, name| {
        let policy = access(name, AccessAction::Allow, every());
        at(PolicyTarget::port(port), Unmatched::Refuse, policy)
    };
    let planned = |policies: &[Arc<AccessPolicy>]| -> Vec<(String, Vec<Permission>)> {
        let policies = filters(policies, Layer::Tcp).remove(0).policies.unwrap();
        policies.into_iter().map(|(name, plan)| (name.to_string(), plan.permissions)).collect()
    };
    let rule = |name: &str, rule: &str| format!("ns[shop]-policy[{name}]-rule[{rule}]");
    let others = |ports: &[u16]| {
        let ports = ports.iter().map(|port| Permission::Port(*port)).collect();
        vec![Permission::Not(Box::new(Permission::Or(ports)))]
    };
    let alone = planned(&[policy(80, "a"), policy(81, "b")]);
    let expected = [
        (rule("a", "0"), vec![only(80)]),
        (rule("a", "other-ports"), others(&[80, 81])),
        (rule("b", "0"), vec![only(81)]),
    ];
    assert_eq!(alone, expected);
    // Where another policy guards every port, nothing passes elsewhere unless it says so.
    let beside = planned(&[policy(80, "a"), access("b", AccessAction::Allow, Vec::new())]);
    let names: Vec<String> = beside.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [rule("a", "0"), rule("b", "0")]);
    let denied =
        at(PolicyTarget::port(80), Unmatched::Pass, access("d", AccessAction::Deny, every()));
    assert_eq!(planned(&[denied]), [(rule("d", "0"), vec![only(80)])]);
}

#[test]
fn what_no_rule_matches_is_refused_only_where_a_policy_says_so() {
    let every = || vec![AccessRule::default()];
    let with = |unmatched, name, action, rules| {
        at(PolicyTarget::All, unmatched, access(name, action, rules))
    };
    let allow_more = || with(Unmatched::Pass, "more", AccessAction::Allow, every());
    assert_eq!(enforced(&[allow_more()], Layer::Http), []);
    let closed = || with(Unmatched::Refuse, "closed", AccessAction::Allow, Vec::new());
    let names = |names: &[&str]| {
        let names = names.iter().map(|name| format!("ns[shop]-policy[{name}]-rule[0]"));
        Some(names.collect::<Vec<_>>())
    };
    assert_eq!(
        enforced(&[allow_more(), closed()], Layer::Http),
        [(AccessAction::Allow, names(&["closed", "more"]))]
    );
    let guard = with(Unmatched::Refuse, "guard", AccessAction::Deny, every());
    assert_eq!(
        enforced(&[guard], Layer::Http),
        [(AccessAction::Deny, names(&["guard"])), (AccessAction::Allow, names(&["guard"]))]
    );
}

fn workload(name: &str, app: &str, address: &str, host_network: bool) -> Item {
    Item::Workload(Arc::new(Workload {
        id: WorkloadId { namespace: "shop".into(), name: name.into() },
        origin: origin(Kind::POD, "shop", name),
        addresses: vec![address.parse().unwrap()],
        host: None,
        labels: labels(&[("app", app)]),
        service_account: "default".into(),
        mesh_tls: if host_network { MeshTls::Never } else { MeshTls::Always },
        edge: None,
        locality: Locality::default(),
        discovery: Discovery::Slices,
        named_ports: BTreeMap::new(),
        container_ports: Vec::new(),
        weight: None,
        network: "".into(),
        node: "".into(),
        workload_name: name.into(),
        ready: true,
        registered: false,
        host_network,
    }))
}

fn set(app: &str) -> WorkloadSet {
    WorkloadSet {
        namespace: Some("shop".into()),
        selector: Selector::from(labels(&[("app", app)])),
    }
}

fn addresses(texts: &[&str]) -> Principal {
    let one = |text: &&str| Principal::DirectIp(IpNet::from(text.parse::<IpAddr>().unwrap()));
    Principal::Or(texts.iter().map(one).collect())
}

/// The principals of the one rule in force, for a caller condition, and what was read.
fn callers(mesh: &MeshSnapshot) -> (Vec<Principal>, Vec<Dep>) {
    let reader = Reader::new(mesh);
    let mut access = Access::of(&reader, "shop", &Labels::new());
    let plan = access.http.remove(0).policies.unwrap().into_values().next().unwrap();
    (plan.principals, reader.into_deps())
}

#[test]
fn callers_by_label_are_the_addresses_that_workloads_have_now() {
    let policy = |action, sets| {
        Item::Access(access("p", action, vec![from(vec![CallerMatch::Workload(sets)])]))
    };
    let pods = || {
        vec![
            workload("a", "web", "10.0.0.1", false),
            workload("b", "other", "10.0.0.2", false),
            // At the address of its node, as whatever else runs there.
            workload("c", "web", "10.1.0.1", true),
        ]
    };
    let planned = |action, sets, pods: Vec<Item>| {
        callers(&mesh(pods.into_iter().chain([policy(action, sets)]))).0
    };
    let web = || Values { wanted: vec![set("web")], refused: Vec::new() };
    let not_web = || Values { wanted: Vec::new(), refused: vec![set("web")] };
    let is = |principal| vec![Principal::And(vec![principal])];
    let is_not = |principal| is(Principal::Not(Box::new(principal)));
    let (own, all) = (|| addresses(&["10.0.0.1"]), || addresses(&["10.0.0.1", "10.1.0.1"]));
    assert_eq!(planned(AccessAction::Allow, web(), pods()), is(own()));
    assert_eq!(planned(AccessAction::Allow, not_web(), pods()), is_not(all()));
    assert_eq!(planned(AccessAction::Deny, web(), pods()), is(all()));
    assert_eq!(planned(AccessAction::Deny, not_web(), pods()), is_not(own()));
    assert_eq!(planned(AccessAction::Allow, web(), Vec::new()), is(addresses(&[])));
}

#[test]
fn a_set_of_callers_is_read_as_one_fact() {
    let sets = Values { wanted: vec![set("web")], refused: Vec::new() };
    let rule = from(vec![CallerMatch::Workload(sets)]);
    let policy = Item::Access(access("p", AccessAction::Allow, vec![rule]));
    let read = callers(&mesh([policy, workload("a", "web", "10.0.0.1", false)])).1;
    let [policies, tokens] = [Dep::Access("shop".into()), Dep::Tokens("shop".into())];
    assert_eq!(read, [Dep::Mesh, policies, tokens, Dep::Addresses(set("web"))]);
}

// -------------------------------------------------------------------------------------------------
// policies that refer to other objects

fn described(name: &str, port: PortName, selected: &str) -> Item {
    Item::Port(Arc::new(WorkloadPort {
        origin: origin(Kind::AUTHORIZATION_POLICY, "shop", name),
        labels: labels(&[("tier", name)]),
        selector: Selector::from(labels(&[("app", selected)])),
        port,
        protocol: None,
    }))
}

fn callers_of(name: &str, alternatives: Vec<Vec<CallerMatch>>) -> Item {
    let origin = origin(Kind::PEER_AUTHENTICATION, "shop", name);
    Item::Callers(Arc::new(CallerSet { origin, alternatives }))
}

/// A policy that lets these callers pass at the ports that an object describes.
fn referring(name: &str, which: WhichPorts, callers: &[&str]) -> Item {
    let policy =
        AccessPolicy::clone(&access(name, AccessAction::Allow, vec![AccessRule::default()]));
    let set = |name: &&str| SharedCallers {
        at: "".into(),
        set: origin(Kind::PEER_AUTHENTICATION, "shop", name).id,
    };
    Item::Access(Arc::new(AccessPolicy {
        ports: Some(SharedPorts { at: "".into(), which }),
        shared_callers: callers.iter().map(set).collect(),
        ..policy
    }))
}

fn of(name: &str) -> WhichPorts {
    WhichPorts::Of(origin(Kind::AUTHORIZATION_POLICY, "shop", name).id)
}

/// What is enforced at a workload of `web`, by name.
fn at_web(items: Vec<Item>) -> Vec<(String, AccessPolicyPlan)> {
    let mesh = mesh(items);
    let access = Access::of(&Reader::new(&mesh), "shop", &labels(&[("app", "web")]));
    let policies = access.http.into_iter().next().and_then(|filter| filter.policies);
    let named = policies.unwrap_or_default().into_iter();
    named.map(|(name, plan)| (name.to_string(), plan)).collect()
}

#[test]
fn ports_and_callers_of_other_objects_hold_while_these_are_there() {
    let by_account = |name: &str| {
        CallerMatch::Account(wanted(vec![Account { namespace: "shop".into(), name: name.into() }]))
    };
    let near = CallerMatch::DirectIp(wanted(vec!["10.0.0.0/8".parse().unwrap()]));
    let accounts = callers_of("accounts", vec![vec![by_account("a")], vec![by_account("b")]]);
    let networks = callers_of("networks", vec![vec![near]]);
    let port = || described("api", PortName::Number(8080), "web");
    let policy = || referring("p", of("api"), &["accounts", "networks"]);
    let names = |planned: &[(String, AccessPolicyPlan)]| -> Vec<String> {
        planned.iter().map(|(name, _)| name.clone()).collect()
    };
    let rule = |rule: &str| format!("ns[shop]-policy[p]-rule[{rule}]");

    let whole = at_web(vec![port(), accounts.clone(), networks, policy()]);
    assert_eq!(names(&whole), [rule("0"), rule("other-ports")]);
    assert_eq!(whole[0].1.permissions, [only(8080)]);
    // Both alternatives, each in the network.
    let [Principal::And(first), Principal::And(second)] = &whole[0].1.principals[..] else {
        panic!("{whole:#?}")
    };
    assert_eq!((first.len(), second.len()), (2, 2));

    // One of the two is missing: nobody passes, and the port stays guarded.
    let missing = at_web(vec![port(), accounts, policy()]);
    assert_eq!(names(&missing), [rule("0"), rule("other-ports")]);
    assert_eq!(missing[0].1, never());
    // Nothing is guarded where no port is described, or one of other workloads.
    assert_eq!(at_web(vec![policy()]), []);
    assert_eq!(at_web(vec![described("api", PortName::Number(1), "other"), policy()]), []);
}

#[test]
fn a_port_by_name_is_what_the_workload_calls_so() {
    let named = |port: u16| {
        let Item::Workload(workload) = workload("a", "web", "10.0.0.1", false) else { panic!() };
        let named_ports = [("http".into(), port)].into();
        Item::Workload(Arc::new(Workload { named_ports, ..Workload::clone(&workload) }))
    };
    let by_name = || described("api", PortName::Named("http".into()), "web");
    let labelled = || WhichPorts::Labelled(labels(&[("tier", "api")]).into());
    let planned = at_web(vec![named(9090), by_name(), referring("p", labelled(), &[])]);
    assert_eq!(planned[0].1.permissions, [only(9090)]);
    assert_eq!(at_web(vec![by_name(), referring("p", labelled(), &[])]), []);
    let other = WhichPorts::Labelled(labels(&[("tier", "other")]).into());
    assert_eq!(at_web(vec![named(9090), by_name(), referring("p", other, &[])]), []);
}

#[test]
fn a_default_holds_at_ports_that_no_object_describes() {
    let default = |name: &str, of: Option<Labels>, rules| {
        Item::AccessDefault(Arc::new(AccessDefault {
            origin: origin(Kind::NAMESPACE, "", name),
            namespace: "shop".into(),
            labels: of,
            rules,
        }))
    };
    let everybody = || vec![AccessRule::default()];
    let proven = || vec![from(vec![CallerMatch::Principal(wanted(vec![StringMatch::Present]))])];
    let port = || described("api", PortName::Number(8080), "web");
    let rule = |rule: &str| format!("ns[]-namespace[ns]-rule[{rule}]");

    let closed = at_web(vec![default("ns", None, Vec::new())]);
    assert_eq!(closed, [(rule("0"), never())]);
    let beside = at_web(vec![port(), default("ns", None, proven())]);
    let elsewhere = Permission::Not(Box::new(Permission::Port(8080)));
    let there = Permission::And(vec![elsewhere, Permission::And(vec![Permission::Any])]);
    assert_eq!(beside[0].1.permissions, [there]);
    // What is described and guarded by nobody stays open.
    let open = AccessPolicyPlan {
        permissions: vec![Permission::Port(8080)],
        principals: vec![Principal::Any],
    };
    assert_eq!(beside[1], (rule("other-ports"), open));
    // With a guard of its own at that port no call is unguarded.
    let both = at_web(vec![port(), referring("p", of("api"), &[]), default("ns", None, proven())]);
    assert_eq!(both.len(), 2, "{both:#?}");
    // What is said of the workload comes before what is said of its namespace.
    let own = |rules| default("own", Some(labels(&[("app", "web")])), rules);
    assert_eq!(at_web(vec![default("ns", None, Vec::new()), own(everybody())]), []);
    let other = default("own", Some(Labels::new()), everybody());
    assert_eq!(at_web(vec![default("ns", None, Vec::new()), other]), closed);
}
