//! AuthorizationPolicies. What cannot be expressed fails closed: it never allows, and it still denies.

use std::sync::Arc;

use ipnet::IpNet;

use super::{
    Lowering,
    names::{network, wildcard},
};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::istio::security::{self, Action, AuthorizationPolicy, Rule},
    ir::{
        AccessAction, AccessPolicy, AccessRule, Condition, ConditionKey, Operation, PathMatch, Selector, Source,
        StringMatch,
    },
    snapshot::Item,
};

/// Reports instead of enforcing.
const DRY_RUN: &str = "istio.io/dry-run";

impl Lowering<'_> {
    pub(super) fn authorization_policy(&mut self, spec: &AuthorizationPolicy) -> Option<Item> {
        if !spec.target_refs.is_empty() || spec.target_ref.is_some() {
            let message =
                "policies for gateways, services and waypoints by `targetRefs` are not served yet; use a selector";
            self.note(Diagnostic::error(Code::NotActedOn, FieldPath::of("spec.targetRefs"), message));
            return None;
        }
        let action = match spec.action {
            Action::Allow => AccessAction::Allow,
            Action::Deny => AccessAction::Deny,
            Action::Audit => AccessAction::Audit,
            Action::Custom => {
                let message = "external authorization is not served yet; what the policy matches is refused";
                self.note(Diagnostic::warning(Code::NotActedOn, FieldPath::of("spec.action"), message));
                AccessAction::Deny
            }
        };
        let rules = spec.rules.iter().enumerate();
        let rules = rules.filter_map(|(i, r)| self.access_rule(&FieldPath::of("spec.rules").index(i), r)).collect();
        let dry_run = self.object.meta.annotations.get(DRY_RUN).is_some_and(|v| v.eq_ignore_ascii_case("true"));
        Some(Item::Access(Arc::new(AccessPolicy {
            origin: self.object.origin(),
            selector: spec.selector.as_ref().map(|s| Selector(s.match_labels.clone())).unwrap_or_default(),
            action,
            rules,
            dry_run,
        })))
    }

    /// `None`: nobody can match the rule, which is not the same as a rule without conditions.
    fn access_rule(&mut self, at: &FieldPath, rule: &Rule) -> Option<AccessRule> {
        let sources = rule.from.iter().enumerate();
        let from: Vec<Source> = sources
            .filter_map(|(i, f)| self.source(&at.field("from").index(i).field("source"), f.source.as_ref()))
            .collect();
        if from.is_empty() && !rule.from.is_empty() {
            return None;
        }
        let operations = rule.to.iter().enumerate();
        let to =
            operations.map(|(i, t)| self.operation(&at.field("to").index(i).field("operation"), t.operation.as_ref()));
        let to = to.collect();
        let when = rule.when.iter().enumerate().map(|(i, c)| self.condition(&at.field("when").index(i), c)).collect();
        Some(AccessRule { from, to, when })
    }

    fn source(&mut self, at: &FieldPath, source: Option<&security::Source>) -> Option<Source> {
        let Some(source) = source else { return Some(Source::default()) };
        let by_end = |p: &StringMatch| matches!(p, StringMatch::Suffix(_));
        if !source.trust_domains.is_empty() && principals(&source.principals).iter().any(by_end) {
            let message = "`trustDomains` cannot be combined with principals that begin with `*`";
            self.note(Diagnostic::error(Code::InvalidValue, at.field("trustDomains"), message));
        }
        let trusted: Vec<StringMatch> = source.not_trust_domains.iter().map(|td| of_domain(td)).collect();
        Some(Source {
            principals: in_domains(principals(&source.principals), &source.trust_domains)?,
            not_principals: principals(&source.not_principals).into_iter().chain(trusted).collect(),
            namespaces: texts(&source.namespaces),
            not_namespaces: texts(&source.not_namespaces),
            service_accounts: self.accounts(&source.service_accounts),
            not_service_accounts: self.accounts(&source.not_service_accounts),
            ip_blocks: self.networks(&at.field("ipBlocks"), &source.ip_blocks),
            not_ip_blocks: self.networks(&at.field("notIpBlocks"), &source.not_ip_blocks),
            remote_ip_blocks: self.networks(&at.field("remoteIpBlocks"), &source.remote_ip_blocks),
            not_remote_ip_blocks: self.networks(&at.field("notRemoteIpBlocks"), &source.not_remote_ip_blocks),
            request_principals: texts(&source.request_principals),
            not_request_principals: texts(&source.not_request_principals),
        })
    }

    fn accounts(&self, texts: &[Arc<str>]) -> Vec<(Arc<str>, Arc<str>)> {
        let one = |text: &Arc<str>| match text.split_once('/') {
            Some((namespace, account)) => (namespace.into(), account.into()),
            None => (self.namespace().clone(), text.clone()),
        };
        texts.iter().map(one).collect()
    }

    fn networks(&mut self, at: &FieldPath, texts: &[Arc<str>]) -> Vec<IpNet> {
        let mut networks = Vec::with_capacity(texts.len());
        for (i, text) in texts.iter().enumerate() {
            match network(text) {
                Some(net) => networks.push(net),
                None => self.invalid(at.index(i), "an IP address or CIDR network", text),
            }
        }
        networks
    }

    fn operation(&mut self, at: &FieldPath, operation: Option<&security::Operation>) -> Operation {
        let Some(operation) = operation else { return Operation::default() };
        Operation {
            hosts: texts(&operation.hosts),
            not_hosts: texts(&operation.not_hosts),
            ports: self.ports(&at.field("ports"), &operation.ports),
            not_ports: self.ports(&at.field("notPorts"), &operation.not_ports),
            methods: texts(&operation.methods),
            not_methods: texts(&operation.not_methods),
            paths: operation.paths.iter().map(|p| path(p)).collect(),
            not_paths: operation.not_paths.iter().map(|p| path(p)).collect(),
        }
    }

    fn ports(&mut self, at: &FieldPath, texts: &[Arc<str>]) -> Vec<u16> {
        let mut ports = Vec::with_capacity(texts.len());
        for (i, text) in texts.iter().enumerate() {
            match text.parse() {
                Ok(port) => ports.push(port),
                Err(_) => self.invalid(at.index(i), "a port from 1 to 65535, as text", text),
            }
        }
        ports
    }

    fn condition(&mut self, at: &FieldPath, condition: &security::Condition) -> Condition {
        let (key, value) = condition_key(&condition.key);
        let addresses = matches!(key, ConditionKey::SourceIp | ConditionKey::RemoteIp | ConditionKey::DestinationIp);
        for (field, given) in [("values", &condition.values), ("notValues", &condition.not_values)] {
            for (i, text) in given.iter().enumerate().filter(|_| addresses) {
                if network(text).is_none() {
                    self.invalid(at.field(field).index(i), "an IP address or CIDR network", text);
                }
            }
            for (i, text) in given.iter().enumerate().filter(|_| key == ConditionKey::DestinationPort) {
                if text.parse::<u16>().is_err() {
                    self.invalid(at.field(field).index(i), "a port from 1 to 65535, as text", text);
                }
            }
        }
        let lower = |texts: &[Arc<str>]| texts.iter().map(|t| value(t)).collect();
        Condition { values: lower(&condition.values), not_values: lower(&condition.not_values), key }
    }
}

/// What a condition looks at, and how its values read.
fn condition_key(key: &str) -> (ConditionKey, fn(&str) -> StringMatch) {
    let exact: fn(&str) -> StringMatch = |t| StringMatch::Exact(t.into());
    let header = key.strip_prefix("request.headers[").and_then(|k| k.strip_suffix(']'));
    match (key, header) {
        (_, Some(name)) => (ConditionKey::Header(name.to_ascii_lowercase().into()), wildcard),
        ("source.ip", _) => (ConditionKey::SourceIp, exact),
        ("remote.ip", _) => (ConditionKey::RemoteIp, exact),
        ("source.namespace", _) => (ConditionKey::SourceNamespace, wildcard),
        ("source.principal", _) => (ConditionKey::SourcePrincipal, |t| wildcard(bare(t))),
        ("source.trustDomain", _) => (ConditionKey::SourcePrincipal, of_domain),
        ("source.serviceAccount", _) => (ConditionKey::SourcePrincipal, of_account),
        ("destination.ip", _) => (ConditionKey::DestinationIp, exact),
        ("destination.port", _) => (ConditionKey::DestinationPort, exact),
        ("connection.sni", _) => (ConditionKey::Sni, wildcard),
        _ => (ConditionKey::Unavailable(key.into()), wildcard),
    }
}

fn texts(given: &[Arc<str>]) -> Vec<StringMatch> {
    given.iter().map(|t| wildcard(t)).collect()
}

fn principals(given: &[Arc<str>]) -> Vec<StringMatch> {
    given.iter().map(|t| wildcard(bare(t))).collect()
}

/// Principals are written without scheme; one that has it means the same.
fn bare(principal: &str) -> &str {
    principal.strip_prefix("spiffe://").unwrap_or(principal)
}

/// Every identity of a trust domain.
fn of_domain(domain: &str) -> StringMatch {
    match wildcard(domain) {
        StringMatch::Exact(domain) => StringMatch::Prefix(format!("{domain}/").into()),
        other => other,
    }
}

/// An account as the end of an identity.
fn of_account(account: &str) -> StringMatch {
    let path = match account.split_once('/') {
        Some((namespace, account)) => format!("/ns/{namespace}/sa/{account}"),
        None => format!("/sa/{account}"),
    };
    StringMatch::Suffix(path.into())
}

/// Those principals that belong to one of the trust domains; `None` when nobody can be both.
fn in_domains(principals: Vec<StringMatch>, domains: &[Arc<str>]) -> Option<Vec<StringMatch>> {
    if domains.is_empty() {
        return Some(principals);
    }
    let domains: Vec<StringMatch> = domains.iter().map(|d| of_domain(d)).collect();
    if principals.is_empty() {
        return Some(domains);
    }
    let both = principals.iter().flat_map(|p| domains.iter().filter_map(move |d| narrower(p, d))).collect::<Vec<_>>();
    (!both.is_empty()).then_some(both)
}

/// What is matched by both a principal and a domain, where one text can say it.
fn narrower(principal: &StringMatch, domain: &StringMatch) -> Option<StringMatch> {
    let StringMatch::Prefix(domain_prefix) = domain else {
        return (*domain == StringMatch::Present).then(|| principal.clone());
    };
    match principal {
        StringMatch::Present => Some(domain.clone()),
        StringMatch::Exact(text) => text.starts_with(&**domain_prefix).then(|| principal.clone()),
        StringMatch::Prefix(text) if text.starts_with(&**domain_prefix) => Some(principal.clone()),
        StringMatch::Prefix(text) if domain_prefix.starts_with(&**text) => Some(domain.clone()),
        _ => None,
    }
}

fn path(text: &str) -> PathMatch {
    match text.contains("{*}") || text.contains("{**}") {
        true => PathMatch::Template(text.into()),
        false => PathMatch::Text(wildcard(text)),
    }
}
