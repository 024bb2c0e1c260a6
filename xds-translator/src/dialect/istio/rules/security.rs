//! Rules of PeerAuthentications and AuthorizationPolicies.

use super::{each, line::is_header_name, text::check_network};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        istio::security::{Action, AuthorizationPolicy, Condition, Operation, PeerAuthentication, Rule, Source},
    },
};

pub(super) fn check_peer(policy: &PeerAuthentication, at: &mut Decoder) {
    let selects = policy.selector.as_ref().is_some_and(|s| !s.match_labels.is_empty());
    if !policy.port_level_mtls.is_empty() && !selects {
        at.within("portLevelMtls", |at| {
            at.invalid("needs a `selector` with labels, since ports are those of a workload", None)
        });
    }
}

pub(super) fn check_access(policy: &AuthorizationPolicy, at: &mut Decoder) {
    let targets = policy.target_ref.is_some() || !policy.target_refs.is_empty();
    if targets && policy.selector.as_ref().is_some_and(|s| !s.match_labels.is_empty()) {
        at.invalid("only one of `selector`, `targetRefs` may be given", None);
    }
    match (policy.action, policy.provider.as_ref().map(|p| &*p.name)) {
        (Action::Custom, None | Some("")) => {
            at.missing("provider", Some("`provider: {name: …}` of the mesh configuration".to_owned()))
        }
        (Action::Custom, _) | (_, None) => {}
        (_, Some(_)) => at.within("provider", |at| at.invalid("only action CUSTOM has a provider", None)),
    }
    if policy.rules.is_empty() && policy.action != Action::Allow {
        let message = format!("action {} without rules never takes effect", policy.action.as_str());
        at.remark(|path| {
            Diagnostic::warning(Code::NoEffect, path.field("action"), message).fix("`rules: [{}]` to match everything")
        });
    }
    each("rules", &policy.rules, at, check_rule);
}

fn check_rule(rule: &Rule, at: &mut Decoder) {
    each("from", &rule.from, at, |from, at| match &from.source {
        Some(source) => at.within("source", |at| check_source(source, at)),
        None => at.missing("source", None),
    });
    each("to", &rule.to, at, |to, at| match &to.operation {
        Some(operation) => at.within("operation", |at| check_operation(operation, at)),
        None => at.missing("operation", None),
    });
    each("when", &rule.when, at, check_condition);
}

fn check_source(source: &Source, at: &mut Decoder) {
    if *source == Source::default() {
        at.invalid(
            "empty: it would match nobody in particular",
            Some("give at least one field, or leave `from` out".to_owned()),
        );
    }
    let networks = [
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ];
    for (field, list) in networks {
        each(field, list, at, |net, at| check_network(net, at));
    }
    let texts = [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ];
    for (field, list) in texts {
        each(field, list, at, |text, at| check_filled(text, at));
    }
    for (field, list) in [("principals", &source.principals), ("notPrincipals", &source.not_principals)] {
        each(field, list, at, |text, at| {
            if let Some(id) = text.strip_prefix("spiffe://") {
                at.invalid(
                    "a principal is written without `spiffe://`, and would never match",
                    Some(format!("`{id}`")),
                );
            }
        });
    }
    for (field, list) in
        [("requestPrincipals", &source.request_principals), ("notRequestPrincipals", &source.not_request_principals)]
    {
        if !list.is_empty() {
            at.within(field, |at| at.remark(no_tokens));
        }
    }
    let accounts = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    if accounts && (!source.principals.is_empty() || !source.namespaces.is_empty()) {
        at.invalid("`serviceAccounts` excludes `principals` and `namespaces`", None);
    }
}

fn no_tokens(path: crate::diagnostic::FieldPath) -> Diagnostic {
    Diagnostic::info(Code::NotActedOn, path, "request tokens are not checked yet, so this never matches")
}

fn check_filled(text: &str, at: &mut Decoder) {
    if text.is_empty() {
        at.invalid("empty", None);
    } else if text.len() > 1 && text.trim_matches('*').contains('*') && !text.contains('{') {
        at.invalid(format!("`{text}`: `*` may only stand at one end"), None);
    }
}

fn check_operation(operation: &Operation, at: &mut Decoder) {
    if *operation == Operation::default() {
        at.invalid(
            "empty: it would match nothing in particular",
            Some("give at least one field, or leave `to` out".to_owned()),
        );
    }
    for (field, list) in [("ports", &operation.ports), ("notPorts", &operation.not_ports)] {
        each(field, list, at, |port, at| {
            if port.parse::<u16>().map_or(true, |p| p == 0) {
                let path = at.path();
                at.note(
                    Diagnostic::error(Code::InvalidValue, path, "not a port")
                        .expected("\"1\" to \"65535\"", format!("`{port}`")),
                );
            }
        });
    }
    let texts = [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
    ];
    for (field, list) in texts {
        each(field, list, at, |text, at| check_filled(text, at));
    }
    for (field, list) in [("paths", &operation.paths), ("notPaths", &operation.not_paths)] {
        each(field, list, at, |path, at| check_path(path, at));
    }
}

fn check_path(path: &str, at: &mut Decoder) {
    if !path.contains(['{', '}']) {
        return check_filled(path, at);
    }
    let segments: Vec<&str> = path.split('/').collect();
    let operators = segments.iter().all(|s| !s.contains(['{', '}']) || matches!(*s, "{*}" | "{**}"));
    let any_depth = segments.iter().filter(|s| **s == "{**}").count();
    if !operators {
        at.invalid(format!("`{path}`: a template may hold only `{{*}}` and `{{**}}`, each as a whole segment"), None);
    } else if any_depth > 1 {
        at.invalid(format!("`{path}`: `{{**}}` may stand only once"), None);
    }
}

/// Attributes of a condition, those that end in `[` with a name behind.
const CONDITION_KEYS: &[&str] = &[
    "request.headers[",
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims[",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "experimental.envoy.filters.",
];

fn check_condition(condition: &Condition, at: &mut Decoder) {
    let key = &*condition.key;
    let known =
        |k: &&&str| if k.ends_with(['[', '.']) { key.starts_with(**k) && key.len() > k.len() } else { key == **k };
    // A missing key is noted already.
    if !key.is_empty() && !CONDITION_KEYS.iter().any(|k| known(&k)) {
        let words = CONDITION_KEYS.iter().map(|k| k.trim_end_matches('['));
        let near = crate::dialect::suggest::nearest(key, words.clone());
        let finding = Diagnostic::error(Code::InvalidValue, at.path().field("key"), "not a known attribute");
        let mut finding =
            finding.expected(format!("one of {}", words.collect::<Vec<_>>().join(", ")), format!("`{key}`"));
        finding.fix = near.map(|n| format!("`{n}`"));
        at.note(finding);
    }
    if let Some(name) = key.strip_prefix("request.headers[")
        && !name.strip_suffix(']').is_some_and(is_header_name)
    {
        at.within("key", |at| at.invalid(format!("`{key}` does not name a header"), None));
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        at.missing("values", Some("give `values` or `notValues`".to_owned()));
    }
    if key.starts_with("request.auth.") {
        at.within("key", |at| at.remark(no_tokens));
    }
    if key.starts_with("experimental.") {
        at.within("key", |at| {
            at.remark(|path| Diagnostic::info(Code::NotActedOn, path, "accepted, but never matches yet"))
        });
    }
    if matches!(key, "source.ip" | "remote.ip" | "destination.ip") {
        each("values", &condition.values, at, |net, at| check_network(net, at));
        each("notValues", &condition.not_values, at, |net, at| check_network(net, at));
    }
    if key == "destination.port" {
        each("values", &condition.values, at, |port, at| {
            if port.parse::<u16>().is_err() {
                at.invalid(format!("`{port}` is not a port"), None);
            }
        });
    }
}
