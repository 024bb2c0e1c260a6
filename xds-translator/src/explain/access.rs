//! Access rules (RBAC) on a request, or on a connection.

use std::net::IpAddr;

use super::{
    connection::Connection,
    pb::rbac::{
        Permission, Policy, Principal, Rbac, permission::Rule, principal::Identifier, rbac::Action,
    },
    request::Request,
    truth::{Metadata, Truth, header, metadata, network, path, string},
};

/// What rules judge by.
pub(super) struct Caller<'a> {
    pub(super) connection: &'a Connection,
    /// Who the client proved to be, where the chain asked it.
    pub(super) identity: Option<&'a str>,
    /// `None`: only the connection is judged.
    pub(super) request: Option<&'a Request>,
    pub(super) metadata: &'a Metadata,
}

/// What rules say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It passes, by the policy of this name, or because none is met.
    Pass(Option<String>),
    /// It is refused: by the policy of this name, or because none is met.
    Refuse(Option<String>),
    /// It depends on what is not known.
    Unknown(String),
}

/// What rules make of a caller. Of several policies that suit, the first by name counts.
pub(super) fn judge(rules: &Rbac, caller: &Caller<'_>) -> Verdict {
    let mut policies: Vec<(&String, &Policy)> = rules.policies.iter().collect();
    policies.sort_by_key(|(name, _)| *name);
    let mut unknown = None;
    let mut met = None;
    for (name, policy) in policies {
        match suits(policy, caller) {
            Truth::Yes => {
                met = Some(name.clone());
                break;
            }
            Truth::No => {}
            Truth::Unknown(what) => unknown = unknown.or(Some(what)),
        }
    }
    let action = Action::try_from(rules.action).unwrap_or(Action::Deny);
    match (action, met, unknown) {
        (Action::Log, met, _) => Verdict::Pass(met),
        (Action::Allow, Some(name), _) => Verdict::Pass(Some(name)),
        (Action::Deny, Some(name), _) => Verdict::Refuse(Some(name)),
        (_, None, Some(what)) => Verdict::Unknown(what),
        (Action::Allow, None, None) => Verdict::Refuse(None),
        (Action::Deny, None, None) => Verdict::Pass(None),
    }
}

/// What every policy lacks to be met, as far as it is one condition on the caller or on what it
/// asks for.
pub(super) fn nearly(rules: &Rbac, caller: &Caller<'_>) -> Vec<(String, &'static str)> {
    let mut policies: Vec<(&String, &Policy)> = rules.policies.iter().collect();
    policies.sort_by_key(|(name, _)| *name);
    let near = policies.into_iter().filter_map(|(name, policy)| {
        let asked = Truth::any(policy.permissions.iter().map(|p| permission(p, caller)));
        let by = Truth::any(policy.principals.iter().map(|p| principal(p, caller)));
        match (asked, by) {
            (Truth::Yes, Truth::No) => Some((name.clone(), "the caller is another")),
            (Truth::No, Truth::Yes) => Some((name.clone(), "what is asked for is another")),
            _ => None,
        }
    });
    near.collect()
}

fn suits(policy: &Policy, caller: &Caller<'_>) -> Truth {
    let asked = Truth::any(policy.permissions.iter().map(|p| permission(p, caller)));
    let by = Truth::any(policy.principals.iter().map(|p| principal(p, caller)));
    let condition = match policy.condition.is_some() || policy.checked_condition.is_some() {
        true => Truth::unknown("an expression of the policy (CEL)"),
        false => Truth::Yes,
    };
    Truth::all([asked, by, condition])
}

fn permission(rule: &Permission, caller: &Caller<'_>) -> Truth {
    let Some(rule) = &rule.rule else { return Truth::No };
    let to = caller.connection.destination;
    match rule {
        Rule::AndRules(set) => Truth::all(set.rules.iter().map(|rule| permission(rule, caller))),
        Rule::OrRules(set) => Truth::any(set.rules.iter().map(|rule| permission(rule, caller))),
        Rule::NotRule(rule) => permission(rule, caller).not(),
        Rule::Any(any) => (*any).into(),
        Rule::Header(condition) => {
            caller.request.map_or(Truth::No, |request| header(condition, request))
        }
        Rule::UrlPath(condition) => {
            caller.request.map_or(Truth::No, |request| path(condition, request))
        }
        Rule::DestinationIp(range) => network(range, to, "where the connection goes"),
        Rule::DestinationPort(port) => (*port == u32::from(caller.connection.port)).into(),
        Rule::DestinationPortRange(range) => {
            (range.start..range.end).contains(&i32::from(caller.connection.port)).into()
        }
        Rule::RequestedServerName(name) => {
            let sni = caller.connection.tls.as_ref().map_or("", |tls| tls.sni.as_str());
            string(name, sni)
        }
        Rule::Metadata(condition) => metadata(condition, caller.metadata),
        Rule::SourcedMetadata(sourced) => match &sourced.metadata_matcher {
            Some(condition) if sourced.metadata_source == 0 => metadata(condition, caller.metadata),
            Some(_) => Truth::unknown("metadata of the route"),
            None => Truth::No,
        },
        Rule::Matcher(custom) | Rule::UriTemplate(custom) => {
            Truth::unknown(format!("the matcher {}", custom.name))
        }
    }
}

fn principal(rule: &Principal, caller: &Caller<'_>) -> Truth {
    let Some(identifier) = &rule.identifier else { return Truth::No };
    let source = caller.connection.source;
    match identifier {
        Identifier::AndIds(set) => Truth::all(set.ids.iter().map(|id| principal(id, caller))),
        Identifier::OrIds(set) => Truth::any(set.ids.iter().map(|id| principal(id, caller))),
        Identifier::NotId(id) => principal(id, caller).not(),
        Identifier::Any(any) => (*any).into(),
        Identifier::Authenticated(by) => match (&by.principal_name, caller.identity) {
            (_, None) => Truth::No,
            (None, Some(_)) => Truth::Yes,
            (Some(name), Some(identity)) => string(name, identity),
        },
        Identifier::SourceIp(range) | Identifier::DirectRemoteIp(range) => {
            network(range, source, "where the client is")
        }
        Identifier::RemoteIp(range) => network(range, remote(caller), "where the client is"),
        Identifier::Header(condition) => {
            caller.request.map_or(Truth::No, |request| header(condition, request))
        }
        Identifier::UrlPath(condition) => {
            caller.request.map_or(Truth::No, |request| path(condition, request))
        }
        Identifier::Metadata(condition) => metadata(condition, caller.metadata),
        Identifier::SourcedMetadata(sourced) => match &sourced.metadata_matcher {
            Some(condition) if sourced.metadata_source == 0 => metadata(condition, caller.metadata),
            Some(_) => Truth::unknown("metadata of the route"),
            None => Truth::No,
        },
        Identifier::FilterState(state) => Truth::unknown(format!("filter state {}", state.key)),
        Identifier::Custom(custom) => Truth::unknown(format!("the matcher {}", custom.name)),
    }
}

/// Where the client is that proxies before this one speak of; without their word, the one that
/// connects.
fn remote(caller: &Caller<'_>) -> Option<IpAddr> {
    let told = caller.request.and_then(|request| request.header("x-forwarded-for"));
    match told {
        Some(_) => None,
        None => caller.connection.source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::pb::{
        matcher::{StringMatcher, string_matcher::MatchPattern},
        rbac::{permission, principal},
    };

    fn policy(port: u32, identity: Option<&str>) -> Policy {
        let who = match identity {
            Some(text) => Identifier::Authenticated(principal::Authenticated {
                principal_name: Some(StringMatcher {
                    match_pattern: Some(MatchPattern::Exact(text.to_owned())),
                    ignore_case: false,
                }),
            }),
            None => Identifier::Any(true),
        };
        Policy {
            permissions: vec![Permission { rule: Some(permission::Rule::DestinationPort(port)) }],
            principals: vec![Principal { identifier: Some(who) }],
            ..Policy::default()
        }
    }

    fn rules(action: Action, policies: Vec<(&str, Policy)>) -> Rbac {
        let policies = policies.into_iter().map(|(name, policy)| (name.to_owned(), policy));
        Rbac { action: action as i32, policies: policies.collect(), ..Rbac::default() }
    }

    fn judged(rules: &Rbac, identity: Option<&str>) -> Verdict {
        let connection =
            Connection { destination: None, port: 80, source: None, tls: None, http: true };
        let metadata = Metadata::new();
        judge(
            rules,
            &Caller { connection: &connection, identity, request: None, metadata: &metadata },
        )
    }

    #[test]
    fn an_allow_refuses_whom_it_does_not_name_and_a_deny_whom_it_names() {
        let allow = rules(Action::Allow, vec![("a", policy(80, Some("x")))]);
        assert_eq!(judged(&allow, Some("x")), Verdict::Pass(Some("a".to_owned())));
        assert_eq!(judged(&allow, None), Verdict::Refuse(None));
        let deny = rules(Action::Deny, vec![("a", policy(81, None)), ("b", policy(80, None))]);
        assert_eq!(judged(&deny, None), Verdict::Refuse(Some("b".to_owned())));
        assert_eq!(judged(&rules(Action::Allow, Vec::new()), None), Verdict::Refuse(None));
        let log = rules(Action::Log, vec![("a", policy(80, None))]);
        assert_eq!(judged(&log, None), Verdict::Pass(Some("a".to_owned())));
    }

    #[test]
    fn an_address_that_nobody_knows_leaves_it_open_unless_something_else_decides() {
        let from = |address: &str| Policy {
            principals: vec![Principal {
                identifier: Some(Identifier::DirectRemoteIp(super::super::pb::core::CidrRange {
                    address_prefix: address.to_owned(),
                    prefix_len: Some(super::super::pb::protobuf::UInt32Value { value: 8 }),
                })),
            }],
            ..policy(80, None)
        };
        let open = rules(Action::Deny, vec![("a", from("10.0.0.0"))]);
        assert!(matches!(judged(&open, None), Verdict::Unknown(_)));
        let decided = rules(Action::Deny, vec![("a", from("10.0.0.0")), ("b", policy(80, None))]);
        assert_eq!(judged(&decided, None), Verdict::Refuse(Some("b".to_owned())));
        let near = rules(Action::Allow, vec![("a", policy(80, Some("x")))]);
        let connection =
            Connection { destination: None, port: 80, source: None, tls: None, http: true };
        let caller = Caller {
            connection: &connection,
            identity: Some("y"),
            request: None,
            metadata: &Metadata::new(),
        };
        assert_eq!(nearly(&near, &caller), [("a".to_owned(), "the caller is another")]);
    }
}
