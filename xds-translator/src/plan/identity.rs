//! Conditions on identities, as conditions on the URI SAN
//! `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
//!
//! A part of an identity has a fixed end on both sides, which neither a prefix nor a suffix of the
//! whole can say: each is matched by one anchored pattern.

use std::sync::Arc;

use regex::escape;

use crate::ir::{Account, MeshDefaults, StringMatch};

/// Slashes in an identity without scheme.
const SLASHES: usize = 4;

/// A principal as written, under every name of the mesh's trust domain that it means (Istio
/// `meshConfig.trustDomainAliases`); `cluster.local` is the mesh's own, whatever that is called.
/// Never empty.
pub(super) fn principal(mesh: &MeshDefaults, principal: &StringMatch) -> Vec<StringMatch> {
    match principal {
        StringMatch::Exact(text) => in_domains(mesh, text, StringMatch::Exact),
        StringMatch::Prefix(text) => in_domains(mesh, text, StringMatch::Prefix),
        StringMatch::Suffix(text) => suffix(mesh, text),
        StringMatch::Regex(regex) => vec![StringMatch::Regex(format!("spiffe://{regex}").into())],
        StringMatch::Present => vec![StringMatch::Present],
    }
}

fn in_domains(
    mesh: &MeshDefaults,
    id: &str,
    make: fn(Arc<str>) -> StringMatch,
) -> Vec<StringMatch> {
    let spell = |id: &str| make(format!("spiffe://{id}").into());
    match id.split_once('/') {
        Some((domain, path))
            if domain == "cluster.local" || names(mesh).any(|name| name == domain) =>
        {
            names(mesh).map(|name| spell(&format!("{name}/{path}"))).collect()
        }
        _ => vec![spell(id)],
    }
}

/// The end of an identity. One that reaches into the trust domain, `*.corp/ns/…`, means the mesh's
/// own under all of its names once it means it under one.
fn suffix(mesh: &MeshDefaults, text: &Arc<str>) -> Vec<StringMatch> {
    let mut all = vec![StringMatch::Suffix(text.clone())];
    if let Some((end, path)) = text.split_once('/').filter(|_| text.matches('/').count() == SLASHES)
        && names(mesh).any(|name| name.ends_with(end))
    {
        let others = names(mesh).filter(|name| !name.ends_with(end));
        all.extend(others.map(|name| StringMatch::Exact(format!("spiffe://{name}/{path}").into())));
    }
    all
}

/// A trust domain as a whole; each name of the mesh's own stands for all of them. Never empty.
pub(super) fn trust_domain(mesh: &MeshDefaults, domain: &StringMatch) -> Vec<StringMatch> {
    let of = |name: &str| StringMatch::Prefix(format!("spiffe://{name}/").into());
    match domain {
        StringMatch::Exact(name) if names(mesh).any(|own| own == &**name) => {
            names(mesh).map(of).collect()
        }
        StringMatch::Exact(name) => vec![of(name)],
        other => vec![StringMatch::Regex(format!("spiffe://{}/.*", segment(other)).into())],
    }
}

/// A namespace as a whole.
pub(super) fn namespace(namespace: &StringMatch) -> StringMatch {
    StringMatch::Regex(format!("spiffe://[^/]+/ns/{}/.*", segment(namespace)).into())
}

/// A service account in any trust domain.
pub(super) fn account(account: &Account) -> StringMatch {
    let (namespace, name) = (escape(&account.namespace), escape(&account.name));
    StringMatch::Regex(format!("spiffe://[^/]+/ns/{namespace}/sa/{name}").into())
}

/// A pattern of one segment.
fn segment(condition: &StringMatch) -> String {
    match condition {
        StringMatch::Exact(text) => escape(text),
        StringMatch::Prefix(text) => format!("{}[^/]*", escape(text)),
        StringMatch::Suffix(text) => format!("[^/]*{}", escape(text)),
        StringMatch::Present => "[^/]+".to_owned(),
        StringMatch::Regex(regex) => regex.to_string(),
    }
}

/// The names of the mesh's own trust domain, today's first.
fn names(mesh: &MeshDefaults) -> impl Iterator<Item = &str> {
    std::iter::once(mesh.trust_domain.as_str())
        .chain(mesh.trust_domain_aliases.iter().map(AsRef::as_ref))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh() -> MeshDefaults {
        MeshDefaults {
            trust_domain: ferromesh_proto::TrustDomain::new("new.corp").unwrap(),
            trust_domain_aliases: vec!["old.example".into()],
            ..MeshDefaults::default()
        }
    }

    /// Whether Envoy would match the identity; patterns stand for the whole text.
    fn matches(condition: &StringMatch, id: &str) -> bool {
        let uri = format!("spiffe://{id}");
        match condition {
            StringMatch::Exact(text) => uri == **text,
            StringMatch::Prefix(text) => uri.starts_with(&**text),
            StringMatch::Suffix(text) => uri.ends_with(&**text),
            StringMatch::Regex(regex) => {
                regex::Regex::new(&format!("^(?:{regex})$")).unwrap().is_match(&uri)
            }
            StringMatch::Present => true,
        }
    }

    #[track_caller]
    fn check(conditions: Vec<StringMatch>, inside: &[&str], outside: &[&str]) {
        let any = |id: &str| conditions.iter().any(|c| matches(c, id));
        assert!(inside.iter().all(|id| any(id)), "{conditions:?} matches all of {inside:?}");
        assert!(!outside.iter().any(|id| any(id)), "{conditions:?} matches none of {outside:?}");
    }

    fn written(text: &str) -> StringMatch {
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(""), _) => StringMatch::Present,
            (Some(suffix), _) => StringMatch::Suffix(suffix.into()),
            (_, Some(prefix)) => StringMatch::Prefix(prefix.into()),
            _ => StringMatch::Exact(text.into()),
        }
    }

    #[test]
    fn principals_hold_under_every_name_of_the_trust_domain() {
        let own: &[&str] = &["new.corp/ns/a/sa/b", "old.example/ns/a/sa/b"];
        let foreign: &[&str] = &["evil.corp/ns/a/sa/b", "cluster.local/ns/a/sa/b"];
        for text in [
            "new.corp/ns/a/sa/b",
            "old.example/ns/a/sa/b",
            "cluster.local/ns/a/sa/b",
            "new.corp/ns/a/*",
        ] {
            check(principal(&mesh(), &written(text)), own, foreign);
        }
        check(principal(&mesh(), &written("evil.corp/ns/a/sa/b")), &foreign[..1], own);
        // The wildcard takes every trust domain with that end, and the mesh's own under its other
        // names.
        let every: &[&str] =
            &["new.corp/ns/a/sa/b", "evil.corp/ns/a/sa/b", "old.example/ns/a/sa/b"];
        check(
            principal(&mesh(), &written("*.corp/ns/a/sa/b")),
            every,
            &["cluster.local/ns/a/sa/b", "new.corp/ns/a/sa/c"],
        );
        check(principal(&mesh(), &written("*.net/ns/a/sa/b")), &["x.net/ns/a/sa/b"], own);
        check(
            principal(&mesh(), &written("*/sa/b")),
            own,
            &["new.corp/ns/a/sa/bb", "new.corp/ns/a/sa/c"],
        );
    }

    #[test]
    fn a_trust_domain_is_never_found_at_the_end_of_an_identity() {
        let evil = ["evil.net/ns/a/sa/my.corp", "evil.net/ns/x.corp/sa/b"];
        check(
            trust_domain(&mesh(), &written("*.corp")),
            &["new.corp/ns/a/sa/b", "evil.corp/ns/a/sa/b"],
            &evil,
        );
        check(
            trust_domain(&mesh(), &written("evil*")),
            &["evil.net/ns/a/sa/b"],
            &["new.corp/ns/evil/sa/evil"],
        );
        check(
            trust_domain(&mesh(), &written("corp")),
            &["corp/ns/a/sa/b"],
            &["new.corp/ns/a/sa/b", "corp.net/ns/a/sa/b"],
        );
        check(trust_domain(&mesh(), &written("*")), &["a/ns/b/sa/c"], &[]);
        // A name of the mesh's own means all of them; `cluster.local` is one of its names only
        // where it is.
        let own: &[&str] = &["new.corp/ns/a/sa/b", "old.example/ns/a/sa/b"];
        check(trust_domain(&mesh(), &written("old.example")), own, &["cluster.local/ns/a/sa/b"]);
        check(trust_domain(&mesh(), &written("cluster.local")), &["cluster.local/ns/a/sa/b"], own);
    }

    #[test]
    fn namespaces_and_accounts_match_whole_segments_only() {
        let ids =
            ["td/ns/shop/sa/a", "td/ns/shop.eu/sa/a", "td/ns/workshop/sa/a", "td/ns/x/sa/shop"];
        for (text, inside) in
            [("shop", &ids[..1]), ("shop.*", &ids[1..2]), ("*shop", &[ids[0], ids[2]]), ("*", &ids)]
        {
            let outside: Vec<&str> = ids.into_iter().filter(|id| !inside.contains(id)).collect();
            check(vec![namespace(&written(text))], inside, &outside);
        }
        let sleep = account(&Account { namespace: "shop".into(), name: "sleep".into() });
        let others =
            ["td/ns/bank/sa/sleep", "td/ns/shop/sa/sleepy", "td/ns/shop/sa/x/ns/shop/sa/sleep"];
        check(vec![sleep], &["td/ns/shop/sa/sleep", "other/ns/shop/sa/sleep"], &others);
    }

    #[test]
    fn what_is_special_in_patterns_is_taken_literally() {
        check(vec![namespace(&written("a.b"))], &["td/ns/a.b/sa/c"], &["td/ns/axb/sa/c"]);
        check(trust_domain(&mesh(), &written("*.c.d")), &["b.c.d/ns/a/sa/b"], &["b.cxd/ns/a/sa/b"]);
    }
}
