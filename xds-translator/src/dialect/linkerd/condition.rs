//! Conditions on requests: paths and methods, with `all`, `any` and `not`.
//!
//! A condition comes to alternatives, in each of which some paths and methods must match and others
//! must not. What a route cannot hold beside each other is refused.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    dialect::{
        decode::Decoder,
        forms::each,
        schema::{Decode, Shape, object},
    },
    ir::{HttpMatch, PathMatch, StringMatch},
};

/// Most alternatives of one condition.
const MOST: usize = 64;

object! { no_null;
    /// A condition on a request; what it asks for must all hold.
    RequestCondition {
        /// RE2 that the whole path matches.
        "pathRegex" path_regex: Arc<str>,
        /// The method.
        "method" method: Arc<str>,
        /// All of these hold.
        "all" all: Nested,
        /// One of these holds.
        "any" any: Nested,
        /// None of these holds: one condition, or a list.
        "not" not: Nested,
    }
}

/// Conditions within a condition. A definition for API servers cannot be endless, so that these
/// are anything there.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Nested(pub Vec<RequestCondition>);

impl Decode for Nested {
    fn decode(value: &Value, at: &mut Decoder) -> Self {
        match value {
            Value::Array(list) => {
                let each = list.iter().enumerate();
                let decode = |(i, value): (usize, &Value)| {
                    at.within_index(i, |at| RequestCondition::decode(value, at))
                };
                Self(each.map(decode).collect())
            }
            one => Self(vec![RequestCondition::decode(one, at)]),
        }
    }

    fn shape() -> Shape {
        Shape::Any
    }
}

/// A part of a condition: whether it must hold, and what.
#[derive(Clone, PartialEq, Debug)]
enum Literal<'c> {
    Path(bool, &'c str),
    Method(bool, &'c str),
}

/// Literals that must all hold.
type All<'c> = Vec<Literal<'c>>;

impl RequestCondition {
    /// Notes what asks for nothing, and what cannot be compared.
    pub(super) fn check(&self, at: &mut Decoder) {
        self.check_parts(at);
        match self.alternatives(true) {
            Some(alternatives) if alternatives.iter().all(|all| matched(all).is_some()) => {}
            Some(_) => {
                let message =
                    "more than two paths, or several methods, would have to match at once";
                at.invalid(message, Some("one `pathRegex` for all of them".to_owned()));
            }
            None => {
                let message = format!("comes to more than {MOST} alternatives");
                at.invalid(message, Some("fewer `any` within `all`".to_owned()));
            }
        }
    }

    fn check_parts(&self, at: &mut Decoder) {
        let lists = [&self.all, &self.any, &self.not];
        let asks = !self.path_regex.is_empty() || !self.method.is_empty();
        if !asks && lists.iter().all(|list| list.0.is_empty()) {
            at.invalid("asks for nothing: one of `pathRegex`, `method`, `all`, `any`, `not`", None);
        }
        if !self.path_regex.is_empty() {
            at.within("pathRegex", |at| at.check_regex(&self.path_regex));
        }
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if !self.method.chars().all(token) {
            at.within("method", |at| at.invalid("not a method", None));
        }
        for (field, list) in ["all", "any", "not"].into_iter().zip(lists) {
            each(field, &list.0, at, |one, at| one.check_parts(at));
        }
    }

    /// The condition, or that it does not hold, as alternatives; `None`: they are too many.
    fn alternatives(&self, holds: bool) -> Option<Vec<All<'_>>> {
        let path = (!self.path_regex.is_empty())
            .then(|| vec![vec![Literal::Path(holds, &self.path_regex)]]);
        let method =
            (!self.method.is_empty()).then(|| vec![vec![Literal::Method(holds, &self.method)]]);
        let mut parts: Vec<Vec<All<'_>>> = path.into_iter().chain(method).collect();
        for one in &self.all.0 {
            parts.push(one.alternatives(holds)?);
        }
        if !self.any.0.is_empty() {
            let each: Option<Vec<_>> = self.any.0.iter().map(|c| c.alternatives(holds)).collect();
            parts.push(if holds { either(each?) } else { both(each?)? });
        }
        for one in &self.not.0 {
            parts.push(one.alternatives(!holds)?);
        }
        let met = if holds { both(parts)? } else { either(parts) };
        (met.len() <= MOST).then_some(met)
    }

    /// Whether it names a method, somewhere.
    pub(super) fn is_for(&self, method: &str) -> bool {
        let lists = [&self.all, &self.any];
        *self.method == *method || lists.iter().flat_map(|l| &l.0).any(|one| one.is_for(method))
    }

    /// The alternatives as a route has them; what is refused by a rule is left out.
    pub(super) fn matches(&self) -> Vec<HttpMatch> {
        let alternatives = self.alternatives(true).unwrap_or_default();
        alternatives.iter().filter_map(|all| matched(all).flatten()).collect()
    }
}

fn either(parts: Vec<Vec<All<'_>>>) -> Vec<All<'_>> {
    parts.into_iter().flatten().collect()
}

/// Each of one with each of the others; `None`: too many.
fn both<'c>(parts: Vec<Vec<All<'c>>>) -> Option<Vec<All<'c>>> {
    parts.into_iter().try_fold(vec![Vec::new()], |met: Vec<All<'c>>, part| {
        let joined = |one: &All<'c>, other: &All<'c>| [one.clone(), other.clone()].concat();
        let met: Vec<All<'c>> =
            met.iter().flat_map(|one| part.iter().map(|other| joined(one, other))).collect();
        (met.len() <= MOST).then_some(met)
    })
}

/// Literals that must all hold, as a match. `None`: it cannot hold them; `Some(None)`: no request
/// meets them.
fn matched(all: &[Literal<'_>]) -> Option<Option<HttpMatch>> {
    let mut m = HttpMatch::default();
    let (mut paths, mut not_paths, mut methods, mut not_methods) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for literal in all {
        let (list, text) = match literal {
            Literal::Path(true, text) => (&mut paths, *text),
            Literal::Path(false, text) => (&mut not_paths, *text),
            Literal::Method(true, text) => (&mut methods, *text),
            Literal::Method(false, text) => (&mut not_methods, *text),
        };
        if !list.contains(&text) {
            list.push(text);
        }
    }
    let exact = |text: &str| StringMatch::Exact(text.into());
    match methods[..] {
        [] => {}
        [only] if !not_methods.contains(&only) => m.method = Some(exact(only)),
        // A request has one method.
        _ => return Some(None),
    }
    if m.method.is_none() && !not_methods.is_empty() {
        let each: Vec<String> = not_methods.iter().map(|text| regex::escape(text)).collect();
        let any = StringMatch::Regex(format!("(?:{})", each.join("|")).into());
        m.without_headers.insert(":method".into(), any);
    }
    match paths[..] {
        [] => {}
        [only] => m.path = Some(path(only)),
        [one, other] => {
            m.path = Some(path(one));
            m.headers.insert(":path".into(), with_query(&[other]));
        }
        _ => return None,
    }
    if !not_paths.is_empty() {
        m.without_headers.insert(":path".into(), with_query(&not_paths));
    }
    Some(Some(m))
}

/// An expression for a whole path; one without operators is the path, or the beginning of one.
fn path(regex: &str) -> PathMatch {
    let plain = |text: &str| {
        text.starts_with('/')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "/_-".contains(c))
    };
    match regex.strip_suffix(".*") {
        Some(prefix) if plain(prefix) => PathMatch::Prefix(prefix.into()),
        _ if plain(regex) => PathMatch::Exact(regex.into()),
        _ => PathMatch::Regex(regex.into()),
    }
}

/// One of these expressions for paths, where a query stands behind the path.
fn with_query(regexes: &[&str]) -> StringMatch {
    let each: Vec<String> = regexes.iter().map(|regex| format!("(?:{regex})")).collect();
    StringMatch::Regex(format!("(?:{})(?:\\?.*)?", each.join("|")).into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> (RequestCondition, Vec<String>) {
        let mut at = Decoder::default();
        let condition = RequestCondition::decode(&value, &mut at);
        condition.check(&mut at);
        let findings = at.finish().iter().map(|d| d.field.to_string()).collect();
        (condition, findings)
    }

    /// Each alternative: path, method, `:path` besides, what path and method are not.
    fn texts(condition: &RequestCondition) -> Vec<[String; 5]> {
        let text = |one: Option<&StringMatch>| match one {
            Some(StringMatch::Exact(text) | StringMatch::Regex(text)) => text.to_string(),
            other => other.map(|other| format!("{other:?}")).unwrap_or_default(),
        };
        let one = |m: &HttpMatch| {
            [
                m.path.as_ref().map(|path| format!("{path:?}")).unwrap_or_default(),
                text(m.method.as_ref()),
                text(m.headers.get(":path")),
                text(m.without_headers.get(":path")),
                text(m.without_headers.get(":method")),
            ]
        };
        condition.matches().iter().map(one).collect()
    }

    #[test]
    fn conditions_come_to_alternatives() {
        let path = |text: &str| json!({ "pathRegex": text });
        let method = |text: &str| json!({ "method": text });
        let table = [
            (
                json!({"pathRegex": "/a", "method": "GET"}),
                vec![["Exact(\"/a\")", "GET", "", "", ""]],
            ),
            (path("/api/.*"), vec![["Prefix(\"/api/\")", "", "", "", ""]]),
            (path("/a/[^/]*"), vec![["Regex(\"/a/[^/]*\")", "", "", "", ""]]),
            (
                json!({"any": [method("GET"), path("/b")]}),
                vec![["", "GET", "", "", ""], ["Exact(\"/b\")", "", "", "", ""]],
            ),
            (
                json!({"all": [{"any": [path("/a"), path("/b")]}, method("PUT")]}),
                vec![["Exact(\"/a\")", "PUT", "", "", ""], ["Exact(\"/b\")", "PUT", "", "", ""]],
            ),
            (
                json!({"pathRegex": "/a.*", "not": path("/a/b")}),
                vec![["Prefix(\"/a\")", "", "", "(?:(?:/a/b))(?:\\?.*)?", ""]],
            ),
            (
                json!({"not": [{"any": [method("GET"), method("HEAD")]}]}),
                vec![["", "", "", "", "(?:GET|HEAD)"]],
            ),
            // Not both: one of them is not.
            (
                json!({"not": {"pathRegex": "/a", "method": "GET"}}),
                vec![["", "", "", "(?:(?:/a))(?:\\?.*)?", ""], ["", "", "", "", "(?:GET)"]],
            ),
            (
                json!({"all": [path("/a.*"), path(".*b")]}),
                vec![["Prefix(\"/a\")", "", "(?:(?:.*b))(?:\\?.*)?", "", ""]],
            ),
            (json!({"all": [method("GET"), method("PUT")]}), vec![]),
            (json!({"method": "GET", "not": method("GET")}), vec![]),
        ];
        for (written, expected) in table {
            let (condition, findings) = read(written.clone());
            assert_eq!(findings, [""; 0], "{written}");
            let found = texts(&condition);
            let found: Vec<[&str; 5]> =
                found.iter().map(|one| std::array::from_fn(|i| one[i].as_str())).collect();
            assert_eq!(found, expected, "{written}");
        }
    }

    #[test]
    fn what_no_route_can_hold_is_refused() {
        let path = |n: usize| json!({ "pathRegex": format!("/{n}") });
        let two = |n: usize| json!({"any": [path(2 * n), path(2 * n + 1)]});
        let table = [
            (json!({}), ""),
            (json!({"pathRegex": "("}), "pathRegex"),
            (json!({"method": "G T"}), "method"),
            (json!({"any": [{}]}), "any[0]"),
            (json!({"all": [path(1), path(2), path(3)]}), ""),
            (json!({"all": (0..7).map(two).collect::<Vec<_>>()}), ""),
            (json!({"pathRegx": "/a"}), "pathRegx"),
        ];
        for (written, field) in table {
            let (_, findings) = read(written.clone());
            assert!(findings.iter().any(|found| found == field), "{written}: {findings:?}");
        }
    }
}
