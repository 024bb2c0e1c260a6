//! Rules of PeerAuthentications and AuthorizationPolicies.

use std::sync::Arc;

use super::{
    label::{check_attachment, check_selector},
    line::is_header_name,
    pattern::{
        check_account, check_authority, check_method, check_namespace, check_normal, check_path,
        check_principal, check_request_principal, check_scheme, check_server_name, check_target,
        check_text, check_trust_domain, check_value,
    },
};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{check_network, each},
        istio::{
            attribute::{claim_path, filter_key},
            security::{
                Action, AuthorizationPolicy, Condition, Operation, PeerAuthentication, Rule, Source,
            },
        },
        scalar::any_port,
    },
};

pub(in crate::dialect::istio) fn check_peer(policy: &PeerAuthentication, at: &mut Decoder) {
    check_selector("selector", policy.selector.as_ref(), at);
    let Some(ports) = &policy.port_level_mtls else { return };
    let selects = policy.selector.as_ref().is_some_and(|s| !s.match_labels.is_empty());
    at.within("portLevelMtls", |at| {
        if ports.is_empty() && !at.is_refused_here() {
            at.invalid("empty: it says nothing of any port", Some("take it out".to_owned()));
        } else if !ports.is_empty() && !selects {
            at.invalid("needs a `selector` with labels, since ports are those of a workload", None);
        }
    });
}

pub(in crate::dialect::istio) fn check_access(policy: &AuthorizationPolicy, at: &mut Decoder) {
    let targets = (policy.target_ref.as_ref(), &policy.target_refs[..]);
    check_attachment(policy.selector.as_ref(), targets.0, targets.1, at);
    check_provider(policy, at);
    check_effect(policy, at);
    check_count("rules", policy.rules.len(), MOST_RULES, at);
    each("rules", &policy.rules, at, |rule, at| {
        check_rule(rule, at);
        if policy.action == Action::Custom {
            check_custom(rule, at);
        }
    });
}

/// Most rules of a policy, and most sources of a rule (Istio).
const MOST_RULES: usize = 512;

/// Notes more elements of a list than are allowed.
fn check_count(field: &'static str, count: usize, most: usize, at: &mut Decoder) {
    if count > most {
        let message = format!("{count} of them; at most {most} are allowed");
        at.within(field, |at| at.invalid(message, None));
    }
}

fn check_provider(policy: &AuthorizationPolicy, at: &mut Decoder) {
    match (policy.action, policy.provider.as_ref().map(|p| &*p.name)) {
        (Action::Custom, None | Some("")) => at.missing(
            "provider",
            Some("`provider: {name: …}` of the mesh configuration".to_owned()),
        ),
        (Action::Custom, _) | (_, None) => {}
        (_, Some(_)) => {
            at.within("provider", |at| at.invalid("only action CUSTOM has a provider", None))
        }
    }
}

/// Notes a guard that never guards.
fn check_effect(policy: &AuthorizationPolicy, at: &mut Decoder) {
    if !policy.rules.is_empty() || policy.action == Action::Allow {
        return;
    }
    let message = format!("action {} without rules never takes effect", policy.action.as_str());
    let fix = "`rules: [{}]` to match everything";
    at.within("action", |at| match policy.action {
        Action::Audit => {
            at.remark(|path| Diagnostic::warning(Code::NoEffect, path, message).fix(fix))
        }
        _ => at.invalid(message, Some(fix.to_owned())),
    });
}

/// Notes conditions on who calls, where a provider is to decide: Istio has none of them there.
fn check_custom(rule: &Rule, at: &mut Decoder) {
    each("from", &rule.from, at, |from, at| {
        let Some(source) = &from.source else { return };
        let callers = [
            ("namespaces", &source.namespaces),
            ("notNamespaces", &source.not_namespaces),
            ("serviceAccounts", &source.service_accounts),
            ("notServiceAccounts", &source.not_service_accounts),
            ("trustDomains", &source.trust_domains),
            ("notTrustDomains", &source.not_trust_domains),
            ("principals", &source.principals),
            ("notPrincipals", &source.not_principals),
            ("requestPrincipals", &source.request_principals),
            ("notRequestPrincipals", &source.not_request_principals),
        ];
        at.within("source", |at| {
            for (field, _) in callers.into_iter().filter(|(_, list)| !list.is_empty()) {
                at.within(field, |at| at.invalid(OF_CALLERS, Some(TELL_PROVIDER.to_owned())));
            }
        });
    });
    each("when", &rule.when, at, |condition, at| {
        let key = &*condition.key;
        let of_caller = matches!(
            key,
            "source.namespace"
                | "source.serviceAccount"
                | "source.trustDomain"
                | "source.principal"
        );
        if of_caller || key.starts_with("request.auth.") {
            at.within("key", |at| at.invalid(OF_CALLERS, Some(TELL_PROVIDER.to_owned())));
        }
    });
}

const OF_CALLERS: &str = "action CUSTOM has no conditions on who calls";
const TELL_PROVIDER: &str = "a policy of action DENY beside it, or let the provider decide";

fn check_rule(rule: &Rule, at: &mut Decoder) {
    check_count("from", rule.from.len(), MOST_RULES, at);
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

/// Most service accounts of a source (Istio).
const MOST_ACCOUNTS: usize = 16;

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
    type Check = fn(&str, &mut Decoder);
    let texts: [(_, _, Check); 10] = [
        ("requestPrincipals", &source.request_principals, check_request_principal),
        ("notRequestPrincipals", &source.not_request_principals, check_request_principal),
        ("namespaces", &source.namespaces, check_namespace),
        ("notNamespaces", &source.not_namespaces, check_namespace),
        ("principals", &source.principals, check_principal),
        ("notPrincipals", &source.not_principals, check_principal),
        ("serviceAccounts", &source.service_accounts, check_account),
        ("notServiceAccounts", &source.not_service_accounts, check_account),
        ("trustDomains", &source.trust_domains, check_trust_domain),
        ("notTrustDomains", &source.not_trust_domains, check_trust_domain),
    ];
    for (field, list, check) in texts {
        each(field, list, at, |text, at| check(text, at));
    }
    let accounts = [&source.service_accounts, &source.not_service_accounts];
    let others =
        [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
    let given = |lists: &[&Vec<Arc<str>>]| lists.iter().any(|list| !list.is_empty());
    if given(&accounts) && given(&others) {
        at.invalid("`serviceAccounts` excludes `principals` and `namespaces`", None);
    }
    for (field, list) in ["serviceAccounts", "notServiceAccounts"].into_iter().zip(accounts) {
        check_count(field, list.len(), MOST_ACCOUNTS, at);
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
        each(field, list, at, |port, at| check_port(port, at));
    }
    for (field, list) in [("hosts", &operation.hosts), ("notHosts", &operation.not_hosts)] {
        each(field, list, at, |text, at| check_authority(text, at));
    }
    for (field, list) in [("methods", &operation.methods), ("notMethods", &operation.not_methods)] {
        each(field, list, at, |text, at| check_method(text, at));
    }
    for (field, list) in [("paths", &operation.paths), ("notPaths", &operation.not_paths)] {
        each(field, list, at, |path, at| check_path_or_template(path, at));
    }
}

/// `{*}` and `{**}` stand for whole segments; with one of them, a bare `*` has no meaning (Istio
/// `Operation.paths`).
fn check_path_or_template(path: &str, at: &mut Decoder) {
    if !path.contains(['{', '}']) {
        return check_path(path, at);
    }
    let segments: Vec<&str> = path.split('/').collect();
    let operators =
        segments.iter().all(|s| !s.contains(['{', '}', '*']) || matches!(*s, "{*}" | "{**}"));
    let any_depth = segments.iter().position(|s| *s == "{**}");
    if !operators {
        at.invalid(
            format!(
                "`{path}`: a template may hold only `{{*}}` and `{{**}}`, each as a whole segment"
            ),
            None,
        );
    } else if any_depth.is_some_and(|i| segments[i + 1..].iter().any(|s| s.starts_with('{'))) {
        at.invalid(format!("`{path}`: `{{**}}` must be the last operator"), None);
    } else if !path.starts_with('/') {
        at.invalid(
            format!("`{path}`: a template begins with `/`, as every path does"),
            Some(format!("`/{path}`")),
        );
    } else {
        check_normal(path, path, false, at);
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
    let known = |k: &&&str| {
        if k.ends_with(['[', '.']) {
            key.starts_with(**k) && key.len() > k.len()
        } else {
            key == **k
        }
    };
    // A missing key is noted already.
    if !key.is_empty() && !CONDITION_KEYS.iter().any(|k| known(&k)) {
        let words = CONDITION_KEYS.iter().map(|k| k.trim_end_matches('['));
        let finding =
            Diagnostic::error(Code::InvalidValue, at.path().field("key"), "not a known attribute");
        let all = words.clone().collect::<Vec<_>>().join(", ");
        let finding = finding.expected(format!("one of {all}"), format!("`{key}`"));
        at.note(crate::dialect::suggest::advise(finding, key, words));
    }
    if let Some(name) = key.strip_prefix("request.headers[") {
        at.within("key", |at| check_header_key(key, name, at));
    }
    let nameless = |prefix: &str, named: bool| key.starts_with(prefix) && !named;
    if nameless("request.auth.claims[", claim_path(key).is_some())
        || nameless("experimental.", filter_key(key).is_some())
    {
        at.within("key", |at| {
            at.invalid(format!("`{key}` does not name what is in brackets"), None)
        });
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        at.missing("values", Some("give `values` or `notValues`".to_owned()));
    }
    let in_one_case = key.to_ascii_lowercase();
    let header = in_one_case.strip_prefix("request.headers[");
    let check: fn(&str, &mut Decoder) = match key {
        "source.ip" | "remote.ip" | "destination.ip" => check_network,
        "destination.port" => check_port,
        "source.principal" => check_principal,
        "request.auth.principal" => check_request_principal,
        "source.serviceAccount" => check_account,
        "source.trustDomain" => check_trust_domain,
        "source.namespace" => check_namespace,
        "connection.sni" => check_server_name,
        _ => match header {
            Some(":method]") => check_method,
            Some(":authority]" | "host]") => check_authority,
            Some(":path]") => check_target,
            Some(":scheme]") => check_scheme,
            Some(_) => check_value,
            None => check_text,
        },
    };
    each("values", &condition.values, at, |text, at| check(text, at));
    each("notValues", &condition.not_values, at, |text, at| check(text, at));
}

/// Pseudo headers of requests (RFC 9113 section 8.3.1, RFC 8441), which conditions may look at.
const PSEUDO_HEADERS: &[&str] = &[":method", ":scheme", ":authority", ":path", ":protocol"];

fn check_header_key(key: &str, name: &str, at: &mut Decoder) {
    let Some(name) = name.strip_suffix(']') else {
        return at.invalid(format!("`{key}` does not name a header"), Some(format!("`{key}]`")));
    };
    if name.starts_with(':') && !PSEUDO_HEADERS.contains(&name) {
        let near = crate::dialect::suggest::nearest(name, PSEUDO_HEADERS.iter().copied());
        let message = format!("`{name}` is no pseudo header of requests");
        return at.invalid(message, near.map(|near| format!("`request.headers[{near}]`")));
    }
    if !name.starts_with(':') && !is_header_name(name) {
        at.invalid(format!("`{key}` does not name a header"), None);
    }
}

fn check_port(text: &str, at: &mut Decoder) {
    match any_port(text) {
        Some(0) => at.remark(|path| {
            Diagnostic::warning(Code::NoEffect, path, "no connection goes to port 0")
                .fix("a port of the workload, \"1\" to \"65535\"")
        }),
        Some(_) => {}
        None => {
            let finding = Diagnostic::error(Code::InvalidValue, at.path(), "not a port");
            at.note(finding.expected("\"1\" to \"65535\"", format!("`{text}`")));
        }
    }
}
