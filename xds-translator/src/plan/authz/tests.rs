//! What rules become, by action and layer.

use super::*;
use crate::plan::fixture::access;

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
    access_filters(&MeshDefaults::default(), policies, layer)
}

/// The one policy that a rule gives.
fn planned(action: AccessAction, rule: AccessRule, layer: Layer) -> Option<AccessPolicyPlan> {
    filters(&[access("p", action, vec![rule])], layer).remove(0).policies.unwrap().into_values().next()
}

/// The names of enforced policies, by action.
fn enforced(policies: &[Arc<AccessPolicy>], layer: Layer) -> Vec<(AccessAction, Option<Vec<String>>)> {
    let names = |f: &AccessFilter| f.policies.as_ref().map(|p| p.keys().map(ToString::to_string).collect());
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
    let policies: Vec<_> = all.map(|action| access("p", action, vec![AccessRule::default()])).into();
    let order: Vec<AccessAction> = filters(&policies, Layer::Http).into_iter().map(|f| f.action).collect();
    assert_eq!(order, [AccessAction::Audit, AccessAction::Deny, AccessAction::Allow]);
}

#[test]
fn an_allow_policy_without_rules_is_written_out_as_one_that_never_matches() {
    let filter = filters(&[access("none", AccessAction::Allow, vec![])], Layer::Http).remove(0);
    let policies = filter.policies.unwrap();
    assert_eq!(policies.keys().map(AsRef::as_ref).collect::<Vec<&str>>(), ["ns[shop]-policy[none]-rule[0]"]);
    assert_eq!(policies.values().next(), Some(&never()));
}

#[test]
fn a_rule_without_conditions_matches_everything() {
    assert_eq!(planned(AccessAction::Deny, AccessRule::default(), Layer::Http), Some(anything()));
}

#[test]
fn http_attributes_remove_an_allow_rule_from_connections_but_only_widen_a_deny_rule() {
    let header = CallerMatch::Header("x".into(), wanted(vec![exact("y")]));
    let rule = || AccessRule { when_from: vec![header.clone()], ..to(vec![CallMatch::Port(wanted(vec![80])), get()]) };
    let by_port = || to(vec![CallMatch::Port(wanted(vec![81]))]);
    let allow = access("allow", AccessAction::Allow, vec![rule(), by_port()]);
    let deny = access("deny", AccessAction::Deny, vec![rule()]);
    let names = |policy: &str, rule: u8| Some(vec![format!("ns[shop]-policy[{policy}]-rule[{rule}]")]);
    // The rule behind the one that is left out keeps its number.
    let expected = [(AccessAction::Deny, names("deny", 0)), (AccessAction::Allow, names("allow", 1))];
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
fn what_nothing_provides_narrows_an_allow_rule_to_nobody_and_widens_all_others() {
    let token = || CallerMatch::Unserved("request.auth.claims[group]".into());
    let when = AccessRule { when_from: vec![token()], ..AccessRule::default() };
    for rule in [from(vec![token()]), when] {
        assert_eq!(planned(AccessAction::Allow, rule.clone(), Layer::Http), Some(never()));
        assert_eq!(planned(AccessAction::Allow, rule.clone(), Layer::Tcp), None);
        for (action, layer) in [(AccessAction::Deny, Layer::Http), (AccessAction::Audit, Layer::Tcp)] {
            assert_eq!(planned(action, rule.clone(), layer), Some(anything()), "{action:?} {layer:?}");
        }
    }
}

#[test]
fn a_dry_run_enforces_nothing() {
    let mut policy = (*access("p", AccessAction::Allow, vec![to(vec![get()])])).clone();
    policy.dry_run = true;
    let policy = Arc::new(policy);
    for (layer, rules) in [(Layer::Http, 1), (Layer::Tcp, 0)] {
        let filter = filters(std::slice::from_ref(&policy), layer).remove(0);
        // Without a rule that can hold the report says that everything would be refused.
        assert_eq!((filter.policies, filter.shadow.map(|s| s.len())), (None, Some(rules)), "{layer:?}");
    }
}

#[test]
fn conditions_of_a_source_all_hold_for_one_peer() {
    let text = |text: &str| wanted(vec![exact(text)]);
    let source = vec![CallerMatch::Principal(text("evil.corp/ns/a/sa/b")), CallerMatch::TrustDomain(text("corp"))];
    let peer = |m: StringMatch| Principal::Or(vec![Principal::Authenticated(m)]);
    let expected = Principal::And(vec![
        peer(exact("spiffe://evil.corp/ns/a/sa/b")),
        peer(StringMatch::Prefix("spiffe://corp/".into())),
    ]);
    // Nobody is both, which is for the proxy to find out: the rule stays, under its own number.
    assert_eq!(planned(AccessAction::Deny, from(source), Layer::Http).unwrap().principals, [expected]);
}
