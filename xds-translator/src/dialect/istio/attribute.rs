//! Attributes that are named with names in brackets: claims of tokens, what filters find out.

use std::sync::Arc;

const CLAIMS: &str = "request.auth.claims";
const FILTERS: &str = "experimental.";

/// The claim that a condition's key names (`request.auth.claims[a][b]`); `None`: it names none.
pub(super) fn claim_path(key: &str) -> Option<Vec<Arc<str>>> {
    bracketed(key.strip_prefix(CLAIMS)?)
}

/// What routing rules write for a claim among the headers, in any case.
const ROUTED: &str = "@request.auth.claims";

/// Whether a header's name is meant for a claim.
pub(super) fn is_routed_claim(name: &str) -> bool {
    name.get(..ROUTED.len()).is_some_and(|start| start.eq_ignore_ascii_case(ROUTED))
}

/// The claim that a header's name stands for (`@request.auth.claims.a.b`,
/// `@request.auth.claims[a][b]`); `None`: it names none.
pub(super) fn routed_claim(name: &str) -> Option<Vec<Arc<str>>> {
    let claim = is_routed_claim(name).then(|| &name[ROUTED.len()..])?;
    match claim.strip_prefix('.') {
        Some(path) if path.split('.').all(|part| !part.is_empty()) => {
            Some(path.split('.').map(Arc::from).collect())
        }
        Some(_) => None,
        None => bracketed(claim),
    }
}

/// Names in brackets, one behind the other. What does not part so is one name, brackets in it
/// included.
fn bracketed(text: &str) -> Option<Vec<Arc<str>>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']').filter(|inner| !inner.is_empty())?;
    let parts: Vec<&str> = inner.split("][").collect();
    let parted = parts.iter().all(|part| !part.is_empty() && !part.contains(['[', ']']));
    let names = if parted { parts } else { vec![inner] };
    Some(names.into_iter().map(Arc::from).collect())
}

/// The filter and the name that a condition's key names (`experimental.envoy.filters.a.b[c]`).
pub(super) fn filter_key(key: &str) -> Option<(&str, &str)> {
    let (filter, name) = key.strip_prefix(FILTERS)?.strip_suffix(']')?.split_once('[')?;
    (!name.is_empty()).then_some((filter, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_names_within_names() {
        let table: [(&str, Option<&[&str]>); 7] = [
            ("request.auth.claims[iss]", Some(&["iss"])),
            ("request.auth.claims[a.b/c][d]", Some(&["a.b/c", "d"])),
            ("request.auth.claims[a]b]", Some(&["a]b"])),
            ("request.auth.claims[]", None),
            ("request.auth.claims.a", None),
            ("request.auth.claims[a", None),
            ("request.auth.principal", None),
        ];
        for (key, expected) in table {
            let path = claim_path(key);
            let path =
                path.as_ref().map(|path| path.iter().map(AsRef::as_ref).collect::<Vec<&str>>());
            assert_eq!(path.as_deref(), expected, "{key}");
        }
    }

    #[test]
    fn a_claim_may_stand_among_headers() {
        let table: [(&str, Option<&[&str]>); 6] = [
            ("@request.auth.claims.group", Some(&["group"])),
            ("@Request.Auth.Claims.a.b", Some(&["a", "b"])),
            ("@request.auth.claims[https://a.test/b][c]", Some(&["https://a.test/b", "c"])),
            ("@request.auth.claims.", None),
            ("@request.auth.claims", None),
            ("x-group", None),
        ];
        for (name, expected) in table {
            let path = routed_claim(name);
            let path = path.as_ref().map(|p| p.iter().map(AsRef::as_ref).collect::<Vec<&str>>());
            assert_eq!(path.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn a_filter_keeps_what_it_found_under_a_name() {
        let key = "experimental.envoy.filters.network.mysql_proxy[db.table]";
        assert_eq!(filter_key(key), Some(("envoy.filters.network.mysql_proxy", "db.table")));
        for key in ["experimental.envoy.filters.a", "experimental.envoy.filters.a[]", "a[b]"] {
            assert_eq!(filter_key(key), None, "{key}");
        }
    }
}
