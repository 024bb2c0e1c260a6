//! Identities as Linkerd writes them, which are names of DNS, and as the mesh has them, which are
//! SPIFFE ids.
//!
//! `ACCOUNT.NAMESPACE.serviceaccount.identity.CONTROL-PLANE.TRUST-DOMAIN` is
//! `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`; of `*.SUFFIX` any such name with that end.

use std::sync::Arc;

use crate::{
    diagnostic::FieldPath,
    dialect::{forms::is_dns_name, lowering::Lowering},
    ir::{CallerMatch, MeshDefaults, StringMatch, Values},
};

/// What stands between the namespace and the control plane.
const BETWEEN: &str = "serviceaccount.identity.";

impl Lowering<'_> {
    /// The conditions on a caller that has an identity; `None`: it is none, which is noted.
    pub(super) fn identity(&mut self, at: &FieldPath, text: &str) -> Option<Vec<CallerMatch>> {
        let found = conditions(text, self.mesh);
        if found.is_none() {
            let expected = "`*`, `*.SUFFIX`, \
                            `ACCOUNT.NAMESPACE.serviceaccount.identity.CONTROL-PLANE.TRUST-DOMAIN` or \
                            `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`";
            self.invalid(at.clone(), expected, text);
        }
        found
    }
}

fn conditions(text: &str, mesh: &MeshDefaults) -> Option<Vec<CallerMatch>> {
    if text == "*" {
        return Some(vec![CallerMatch::Principal(one(StringMatch::Present))]);
    }
    if let Some(id) = text.strip_prefix("spiffe://") {
        let parts: Vec<&str> = id.split('/').collect();
        let [domain, "ns", namespace, "sa", account] = parts[..] else { return None };
        let whole = ![domain, namespace, account].contains(&"");
        return whole.then(|| vec![principal(domain, namespace, account)]);
    }
    let (suffix, any) = match text.strip_prefix("*.") {
        Some(suffix) => (suffix, true),
        None => (text, false),
    };
    if !is_dns_name(suffix) {
        return None;
    }
    match (suffix.split_once(BETWEEN), any) {
        (Some((head, tail)), false) => {
            let (account, namespace) = head.strip_suffix('.')?.rsplit_once('.')?;
            Some(vec![principal(trust_domain(tail)?, namespace, account)])
        }
        (Some(("", tail)), true) => Some(vec![of_domain(trust_domain(tail)?)]),
        (Some((head, tail)), true) => {
            let namespace = head.strip_suffix('.').filter(|head| !head.contains('.'))?;
            let within = CallerMatch::Namespace(one(StringMatch::Exact(namespace.into())));
            Some(vec![within, of_domain(trust_domain(tail)?)])
        }
        // The end of every identity of a trust domain that the mesh knows.
        (None, true) => Some(vec![of_domain(known_domain(suffix, mesh)?)]),
        (None, false) => None,
    }
}

/// What stands behind the control plane's namespace.
fn trust_domain(tail: &str) -> Option<&str> {
    tail.split_once('.').map(|(_, domain)| domain).filter(|domain| !domain.is_empty())
}

/// The trust domain of the mesh, under one of its names, that `suffix` is, or that it ends with
/// behind the control plane.
fn known_domain<'t>(suffix: &'t str, mesh: &MeshDefaults) -> Option<&'t str> {
    let rest = suffix.strip_prefix("identity.").unwrap_or(suffix);
    let mut candidates = vec![rest];
    candidates.extend(rest.split_once('.').map(|(_, domain)| domain));
    let own = |name: &str| {
        let aliases = mesh.trust_domain_aliases.iter().map(AsRef::as_ref);
        std::iter::once(mesh.trust_domain.as_str()).chain(aliases).any(|known: &str| known == name)
    };
    candidates.into_iter().find(|name| own(name))
}

fn principal(domain: &str, namespace: &str, account: &str) -> CallerMatch {
    let id: Arc<str> = format!("{domain}/ns/{namespace}/sa/{account}").into();
    CallerMatch::Principal(one(StringMatch::Exact(id)))
}

fn of_domain(domain: &str) -> CallerMatch {
    CallerMatch::TrustDomain(one(StringMatch::Exact(domain.into())))
}

fn one<T>(value: T) -> Values<T> {
    Values { wanted: vec![value], refused: Vec::new() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn identities_of_both_forms_mean_the_same_callers() {
        let principal =
            |id: &str| json!([{"Principal": {"wanted": [{"Exact": id}], "refused": []}}]);
        let domain =
            json!({"TrustDomain": {"wanted": [{"Exact": "cluster.local"}], "refused": []}});
        let namespace = json!({"Namespace": {"wanted": [{"Exact": "shop"}], "refused": []}});
        let web = "cluster.local/ns/shop/sa/web";
        let table = [
            ("*", json!([{"Principal": {"wanted": ["Present"], "refused": []}}])),
            ("web.shop.serviceaccount.identity.linkerd.cluster.local", principal(web)),
            ("spiffe://cluster.local/ns/shop/sa/web", principal(web)),
            ("a.b.shop.serviceaccount.identity.linkerd.x.y", principal("x.y/ns/shop/sa/a.b")),
            ("*.shop.serviceaccount.identity.linkerd.cluster.local", json!([namespace, domain])),
            ("*.serviceaccount.identity.linkerd.cluster.local", json!([domain])),
            ("*.identity.linkerd.cluster.local", json!([domain])),
            ("*.linkerd.cluster.local", json!([domain])),
            ("*.cluster.local", json!([domain])),
            ("*.local", Value::Null),
            ("*.other.test", Value::Null),
            ("web.shop", Value::Null),
            ("web.serviceaccount.identity.linkerd.cluster.local", Value::Null),
            ("web.shop.serviceaccount.identity.linkerd", Value::Null),
            ("spiffe://cluster.local/ns/shop", Value::Null),
            ("a*b", Value::Null),
        ];
        for (text, expected) in table {
            let found = conditions(text, &MeshDefaults::default());
            assert_eq!(serde_json::to_value(found).expect("JSON"), expected, "{text}");
        }
    }
}
