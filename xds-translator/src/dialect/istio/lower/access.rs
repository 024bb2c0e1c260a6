//! AuthorizationPolicies. What cannot be expressed fails closed: it never allows, and it still
//! denies.

use std::sync::Arc;

use ipnet::IpNet;

use crate::dialect::{
    lowering::Lowering,
    names::{network, wildcard},
    scalar::parse_port,
};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath, Severity},
    dialect::istio::dry_run,
    dialect::istio::security::{self, Action, AuthorizationPolicy, Rule},
    ir::{
        AccessAction, AccessPolicy, AccessRule, Account, CallMatch, CallerMatch, PolicyScope,
        PolicyTarget, Selector, StringMatch, Unmatched, Values,
    },
    snapshot::Item,
};

/// What a policy is worth that asks for something unserved, said to its author.
const REFUSED: &str =
    "the policy is refused; its last accepted version stays in force, and where there is none";

impl Lowering<'_> {
    pub(in crate::dialect) fn authorization_policy(
        &mut self,
        spec: &AuthorizationPolicy,
    ) -> Option<Item> {
        if !spec.target_refs.is_empty() || spec.target_ref.is_some() {
            let message = "policies for gateways, services and waypoints by `targetRefs` are not served yet; use a selector: the policy is refused; its last accepted version stays in force, and where there is none, what it selects is closed";
            self.note(Diagnostic::error(
                Code::NotActedOn,
                FieldPath::of("spec.targetRefs"),
                message,
            ));
            return None;
        }
        let action = self.action(spec.action);
        let rules = spec.rules.iter().enumerate();
        let rules = rules
            .map(|(i, r)| self.access_rule(&FieldPath::of("spec.rules").index(i), r))
            .collect();
        let selector = spec.selector.as_ref().map(|s| s.match_labels.clone().into());
        let policy = self.access_policy(selector.unwrap_or_default(), action, rules);
        // What is refused for nothing but what is not served yet closes no more than what it asks
        // for.
        let mut refusals = self.diagnostics.iter().filter(|d| d.severity == Severity::Error);
        if refusals.all(|d| d.code == Code::NotActedOn) {
            self.closed.push(policy.clone());
        }
        Some(policy)
    }

    /// Istio's policy: with one that allows, what none allows is refused.
    pub(super) fn access_policy(
        &mut self,
        selector: Selector,
        action: AccessAction,
        rules: Vec<AccessRule>,
    ) -> Item {
        let dry_run = self.is_dry_run();
        Item::Access(Arc::new(AccessPolicy {
            origin: self.origin(),
            scope: PolicyScope::of(self.namespace(), &self.mesh.root_namespace),
            selector,
            target: PolicyTarget::All,
            action,
            rules,
            unmatched: Unmatched::under(action),
            dry_run,
        }))
    }

    /// Whether the policy is only tried out; one that does not say so for certain is in force.
    fn is_dry_run(&mut self) -> bool {
        let Some(written) = self.meta.annotations.get(dry_run::ANNOTATION) else { return false };
        let meant = dry_run::means(written);
        if meant.is_none() {
            let field = FieldPath::of("metadata.annotations").field(dry_run::ANNOTATION);
            let message = "not a boolean: the policy is in force, not only tried out";
            let finding = Diagnostic::warning(Code::InvalidValue, field, message);
            self.note(finding.expected("true or false", written.to_string()).fix("`\"true\"`"));
        }
        meant.unwrap_or(false)
    }

    fn action(&mut self, action: Action) -> AccessAction {
        match action {
            Action::Allow => AccessAction::Allow,
            Action::Deny => AccessAction::Deny,
            Action::Audit => AccessAction::Audit,
            Action::Custom => {
                let message = format!(
                    "external authorization is not served: {REFUSED}, everything that it matches is denied"
                );
                let finding =
                    Diagnostic::error(Code::NotActedOn, FieldPath::of("spec.action"), message);
                self.note(finding.expected("ALLOW, DENY or AUDIT", "CUSTOM"));
                AccessAction::Deny
            }
        }
    }

    fn access_rule(&mut self, at: &FieldPath, rule: &Rule) -> AccessRule {
        let mut lowered = AccessRule::default();
        for (i, from) in rule.from.iter().enumerate() {
            let at = at.field("from").index(i).field("source");
            lowered
                .from
                .push(from.source.as_ref().map(|s| self.source(&at, s)).unwrap_or_default());
        }
        for (i, to) in rule.to.iter().enumerate() {
            let at = at.field("to").index(i).field("operation");
            lowered
                .to
                .push(to.operation.as_ref().map(|o| self.operation(&at, o)).unwrap_or_default());
        }
        for (i, condition) in rule.when.iter().enumerate() {
            self.condition(&at.field("when").index(i), condition, &mut lowered);
        }
        lowered
    }

    fn source(&mut self, at: &FieldPath, s: &security::Source) -> Vec<CallerMatch> {
        let mut all = Vec::new();
        push(&mut all, texts(&s.principals, &s.not_principals), CallerMatch::Principal);
        push(&mut all, texts(&s.trust_domains, &s.not_trust_domains), CallerMatch::TrustDomain);
        push(&mut all, texts(&s.namespaces, &s.not_namespaces), CallerMatch::Namespace);
        push(
            &mut all,
            self.accounts(&s.service_accounts, &s.not_service_accounts),
            CallerMatch::Account,
        );
        let direct =
            self.networks(at, ("ipBlocks", &s.ip_blocks), ("notIpBlocks", &s.not_ip_blocks));
        push(&mut all, direct, CallerMatch::DirectIp);
        let (remote, not_remote) = (&s.remote_ip_blocks, &s.not_remote_ip_blocks);
        let remote =
            self.networks(at, ("remoteIpBlocks", remote), ("notRemoteIpBlocks", not_remote));
        push(&mut all, remote, CallerMatch::RemoteIp);
        let tokens = [
            ("requestPrincipals", &s.request_principals),
            ("notRequestPrincipals", &s.not_request_principals),
        ];
        for (field, _) in tokens.into_iter().filter(|(_, given)| !given.is_empty()) {
            all.push(self.unserved_attribute(at.field(field), "request.auth.principal"));
        }
        all
    }

    fn operation(&mut self, at: &FieldPath, o: &security::Operation) -> Vec<CallMatch> {
        let mut all = Vec::new();
        push(&mut all, texts(&o.hosts, &o.not_hosts), CallMatch::Host);
        push(
            &mut all,
            self.ports(at, ("ports", &o.ports), ("notPorts", &o.not_ports)),
            CallMatch::Port,
        );
        push(&mut all, texts(&o.methods, &o.not_methods), CallMatch::Method);
        push(&mut all, values(&o.paths, &o.not_paths, path), CallMatch::Path);
        all
    }

    fn condition(
        &mut self,
        at: &FieldPath,
        condition: &security::Condition,
        rule: &mut AccessRule,
    ) {
        let (wanted, refused) = (&condition.values, &condition.not_values);
        let (given, not_given) = (("values", &wanted[..]), ("notValues", &refused[..]));
        let caller = match &*condition.key {
            "source.principal" => CallerMatch::Principal(texts(wanted, refused)),
            "source.trustDomain" => CallerMatch::TrustDomain(texts(wanted, refused)),
            "source.namespace" => CallerMatch::Namespace(texts(wanted, refused)),
            "source.serviceAccount" => CallerMatch::Account(self.accounts(wanted, refused)),
            "source.ip" => CallerMatch::DirectIp(self.networks(at, given, not_given)),
            "remote.ip" => CallerMatch::RemoteIp(self.networks(at, given, not_given)),
            "destination.ip" => {
                return rule.when_to.push(CallMatch::Ip(self.networks(at, given, not_given)));
            }
            "destination.port" => {
                return rule.when_to.push(CallMatch::Port(self.ports(at, given, not_given)));
            }
            // Proxies keep names of servers in lower case.
            "connection.sni" => {
                let name = |text: &str| wildcard(&text.to_ascii_lowercase());
                return rule.when_to.push(CallMatch::Sni(values(wanted, refused, name)));
            }
            key => match header(key).as_deref() {
                // Hosts are the same in any case.
                Some(":authority" | "host") => {
                    return rule.when_to.push(CallMatch::Host(texts(wanted, refused)));
                }
                Some(name) => CallerMatch::Header(name.into(), texts(wanted, refused)),
                None => self.unserved_attribute(at.field("key"), key),
            },
        };
        rule.when_from.push(caller);
    }

    /// An account without namespace is one of the policy's own namespace.
    fn accounts(&self, wanted: &[Arc<str>], refused: &[Arc<str>]) -> Values<Account> {
        values(wanted, refused, |text| match text.split_once('/') {
            Some((namespace, name)) => Account { namespace: namespace.into(), name: name.into() },
            None => Account { namespace: self.namespace().clone(), name: text.into() },
        })
    }

    fn networks(&mut self, at: &FieldPath, wanted: Given<'_>, refused: Given<'_>) -> Values<IpNet> {
        self.each_of(at, wanted, refused, network, "an IP address or CIDR network")
    }

    fn ports(&mut self, at: &FieldPath, wanted: Given<'_>, refused: Given<'_>) -> Values<u16> {
        self.each_of(at, wanted, refused, parse_port, "a port from 1 to 65535, as text")
    }

    fn each_of<T>(
        &mut self,
        at: &FieldPath,
        wanted: Given<'_>,
        refused: Given<'_>,
        read: impl Fn(&str) -> Option<T>,
        expected: &str,
    ) -> Values<T> {
        let mut list = |(field, texts): Given<'_>| {
            let mut list = Vec::with_capacity(texts.len());
            for (i, text) in texts.iter().enumerate() {
                match read(text) {
                    Some(value) => list.push(value),
                    // Refuses the object, so that what is missing here is never in force.
                    None => self.invalid(at.field(field).index(i), expected, text),
                }
            }
            list
        };
        Values { wanted: list(wanted), refused: list(refused) }
    }

    fn unserved_attribute(&mut self, at: FieldPath, key: &str) -> CallerMatch {
        let what = if key.starts_with("request.auth.") {
            "request tokens are not verified yet"
        } else {
            "metadata of Envoy's filters is not served"
        };
        let message = format!(
            "{what}: {REFUSED}, an ALLOW rule with this allows nobody and others hold without it"
        );
        self.note(Diagnostic::error(Code::NotActedOn, at, message));
        CallerMatch::Unserved(key.into())
    }
}

/// The header that a condition looks at, in lower case.
fn header(key: &str) -> Option<String> {
    let name = key.strip_prefix("request.headers[")?.strip_suffix(']')?;
    Some(name.to_ascii_lowercase())
}

/// A list in an object and the name of its field.
type Given<'a> = (&'static str, &'a [Arc<str>]);

fn push<T, M>(all: &mut Vec<M>, values: Values<T>, make: fn(Values<T>) -> M) {
    if !values.is_empty() {
        all.push(make(values));
    }
}

fn values<T>(wanted: &[Arc<str>], refused: &[Arc<str>], read: impl Fn(&str) -> T) -> Values<T> {
    let list = |texts: &[Arc<str>]| texts.iter().map(|t| read(t)).collect();
    Values { wanted: list(wanted), refused: list(refused) }
}

fn texts(wanted: &[Arc<str>], refused: &[Arc<str>]) -> Values<StringMatch> {
    values(wanted, refused, wildcard)
}

/// A path, or a template of Istio: `{*}` is one segment, `{**}` is any number of them, also none.
///
/// Not Envoy's `uri_template`: that matches no segment with `=`, `*` or letters beyond ASCII in it,
/// so that a DENY rule with one could be dodged.
fn path(text: &str) -> StringMatch {
    let Some((before, behind)) = text.split_once('{') else { return wildcard(text) };
    if behind == "**}" {
        return StringMatch::Prefix(before.into());
    }
    let segment = |segment: &str| match segment {
        "{*}" => "[^/]+".to_owned(),
        "{**}" => ".*".to_owned(),
        literal => regex::escape(literal),
    };
    StringMatch::Regex(text.split('/').map(segment).collect::<Vec<_>>().join("/").into())
}
