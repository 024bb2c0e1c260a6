//! AuthorizationPolicies. What cannot be expressed fails closed: it never allows, and it still
//! denies.

use std::sync::Arc;

use ipnet::IpNet;

use super::token::selector;
use crate::dialect::{
    lowering::Lowering,
    names::{network, wildcard},
    scalar::any_port,
};
use crate::{
    diagnostic::FieldPath,
    dialect::istio::dry_run,
    dialect::istio::{
        attribute::{claim_path, filter_key},
        security::{self, Action, AuthorizationPolicy, Rule},
    },
    ir::{
        AccessAction, AccessPolicy, AccessRule, Account, CallMatch, CallerMatch, MetadataText,
        PolicyScope, PolicyTarget, RequestPrincipal, Selector, StringMatch, Unmatched, Values,
    },
    snapshot::Item,
};

impl Lowering<'_> {
    pub(in crate::dialect) fn authorization_policy(
        &mut self,
        spec: &AuthorizationPolicy,
    ) -> Option<Item> {
        if self.is_attached(spec.target_ref.as_ref(), &spec.target_refs) {
            return None;
        }
        let action = action(spec.action);
        let rules = spec.rules.iter().enumerate();
        let rules = rules
            .map(|(i, r)| self.access_rule(&FieldPath::of("spec.rules").index(i), r))
            .collect();
        let mut policy = self.access_policy(selector(spec.selector.as_ref()), action, rules);
        policy.authorizer =
            spec.provider.as_ref().filter(|_| action == AccessAction::Ask).map(|p| p.name.clone());
        Some(Item::Access(Arc::new(policy)))
    }

    /// Istio's policy: with one that allows, what none allows is refused.
    pub(super) fn access_policy(
        &mut self,
        selector: Selector,
        action: AccessAction,
        rules: Vec<AccessRule>,
    ) -> AccessPolicy {
        let dry_run = self.is_dry_run();
        AccessPolicy {
            origin: self.origin(),
            scope: PolicyScope::of(self.namespace(), &self.mesh.root_namespace),
            selector,
            target: PolicyTarget::All,
            ports: None,
            action,
            authorizer: None,
            rules,
            shared_callers: Vec::new(),
            unmatched: Unmatched::under(action),
            dry_run,
        }
    }

    /// Whether the policy is only tried out.
    fn is_dry_run(&self) -> bool {
        let written = self.meta.annotations.get(dry_run::ANNOTATION);
        written.and_then(|word| dry_run::means(word)).unwrap_or(false)
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
        let principals = values(&s.principals, &s.not_principals, principal);
        push(&mut all, principals, CallerMatch::Principal);
        push(&mut all, texts(&s.trust_domains, &s.not_trust_domains), CallerMatch::TrustDomain);
        let namespaces = values(&s.namespaces, &s.not_namespaces, namespace);
        push(&mut all, namespaces, CallerMatch::Namespace);
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
        let tokens = values(&s.request_principals, &s.not_request_principals, request_principal);
        push(&mut all, tokens, CallerMatch::RequestPrincipal);
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
            "source.principal" => CallerMatch::Principal(values(wanted, refused, principal)),
            "source.trustDomain" => CallerMatch::TrustDomain(texts(wanted, refused)),
            "source.namespace" => CallerMatch::Namespace(values(wanted, refused, namespace)),
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
                None => return found_out(key, wanted, refused, rule),
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
        self.each_of(at, wanted, refused, any_port, "a port from 0 to 65535, as text")
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
}

/// A condition on what filters find out: of a request's token, or of anything by their own words.
fn found_out(key: &str, wanted: &[Arc<str>], refused: &[Arc<str>], rule: &mut AccessRule) {
    let claim = |path: Vec<Arc<str>>| CallerMatch::Claim(path, texts(wanted, refused));
    rule.when_from.push(match key {
        "request.auth.principal" => {
            CallerMatch::RequestPrincipal(values(wanted, refused, request_principal))
        }
        "request.auth.audiences" => claim(vec!["aud".into()]),
        "request.auth.presenter" => claim(vec!["azp".into()]),
        key => match (claim_path(key), filter_key(key)) {
            (Some(path), _) => claim(path),
            (None, Some((filter, key))) => {
                let texts = values(wanted, refused, metadata_text);
                return rule.when_to.push(CallMatch::Metadata(filter.into(), key.into(), texts));
            }
            // Refused by its rules.
            (None, None) => return,
        },
    });
}

/// The identity that is named, also by its whole URI.
fn principal(text: &str) -> StringMatch {
    wildcard(text.strip_prefix("spiffe://").unwrap_or(text))
}

/// A namespace; `*` is any part of it, wherever it stands.
fn namespace(text: &str) -> StringMatch {
    let inner = text.strip_prefix('*').unwrap_or(text);
    let inner = inner.strip_suffix('*').unwrap_or(inner);
    let ends = text.len() - inner.len();
    if ends < 2 && !inner.contains('*') || text == "*" {
        return wildcard(text);
    }
    let parts: Vec<String> = text.split('*').map(regex::escape).collect();
    StringMatch::Regex(parts.join("[^/]*").into())
}

/// Issuer and subject, which the last slash parts, since an issuer may be a URL. Without one, what is
/// written is about the end that the `*` leaves.
fn request_principal(text: &str) -> RequestPrincipal {
    let both = |issuer, subject| RequestPrincipal { issuer, subject };
    match (wildcard(text), text.rsplit_once('/')) {
        (StringMatch::Present, _) => both(StringMatch::Present, StringMatch::Present),
        (_, Some((issuer, subject))) => both(wildcard(issuer), wildcard(subject)),
        (suffix @ StringMatch::Suffix(_), None) => both(StringMatch::Present, suffix),
        (prefix @ StringMatch::Prefix(_), None) => both(prefix, StringMatch::Present),
        (issuer, None) => both(issuer, StringMatch::Exact("".into())),
    }
}

/// A text, or in brackets one of a list.
fn metadata_text(text: &str) -> MetadataText {
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(element) => MetadataText { in_list: true, condition: wildcard(element) },
        None => MetadataText { in_list: false, condition: wildcard(text) },
    }
}

fn action(action: Action) -> AccessAction {
    match action {
        Action::Allow => AccessAction::Allow,
        Action::Deny => AccessAction::Deny,
        Action::Audit => AccessAction::Audit,
        Action::Custom => AccessAction::Ask,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_part_of_a_namespace() {
        let regex = |text: &str| StringMatch::Regex(text.into());
        for (text, expected) in [
            ("shop", StringMatch::Exact("shop".into())),
            ("*", StringMatch::Present),
            ("shop*", StringMatch::Prefix("shop".into())),
            ("*shop", StringMatch::Suffix("shop".into())),
            ("team-*-prod", regex(r"team\-[^/]*\-prod")),
            ("*a*", regex("[^/]*a[^/]*")),
            ("a*b*", regex("a[^/]*b[^/]*")),
            ("**", regex("[^/]*[^/]*")),
        ] {
            assert_eq!(namespace(text), expected, "{text}");
        }
    }
}
