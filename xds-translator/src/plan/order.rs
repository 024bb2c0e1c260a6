//! In which order the rules of a host's tables are tried.

use std::{cmp::Reverse, sync::Arc};

use crate::ir::{HttpMatch, HttpRule, ObjectId, PathMatch, RouteTable, RuleOrder};

/// A rule of a table with one of its matches, where requests may come to it.
#[derive(Clone, Copy)]
pub(crate) struct Reached<'t> {
    /// The table.
    pub(crate) table: &'t Arc<RouteTable>,
    /// The rule.
    pub(crate) rule: &'t HttpRule,
    /// The match; `None`: every request.
    pub(crate) matched: Option<&'t HttpMatch>,
}

impl Reached<'_> {
    /// Whether no later route can ever be reached.
    pub(crate) fn takes_everything(&self) -> bool {
        self.matched.is_none_or(matches_everything)
    }
}

/// Whether every request meets the match.
pub(crate) fn matches_everything(m: &HttpMatch) -> bool {
    m.path.as_ref().is_none_or(PathMatch::is_any)
        && m.headers.is_empty()
        && m.without_headers.is_empty()
        && m.claims.is_empty()
        && m.query.is_empty()
        && m.method.is_none()
        && m.authority.is_none()
        && m.scheme.is_none()
}

/// Puts the rules of tables, oldest table first and each as written, into the order in which they
/// are tried: tables whose rules go by specificity are read as one, in the place of the first of
/// them.
pub(crate) fn in_order(reached: Vec<Reached<'_>>) -> Vec<Reached<'_>> {
    let specific = |r: &Reached<'_>| r.table.order == RuleOrder::BySpecificity;
    let Some(place) = reached.iter().position(specific) else { return reached };
    let (mut ranked, mut ordered): (Vec<_>, Vec<_>) = reached.into_iter().partition(specific);
    // Stable: of equals the one that is written first stays first.
    ranked.sort_by_cached_key(|r| (specificity(r.matched), age(r.table)));
    ordered.splice(place..place, up_to_everything(ranked));
    ordered
}

/// Those that requests can reach, of rules that are tried in this order.
fn up_to_everything(rules: Vec<Reached<'_>>) -> Vec<Reached<'_>> {
    let last = rules.iter().position(Reached::takes_everything);
    let kept = last.map_or(rules.len(), |last| last + 1);
    rules.into_iter().take(kept).collect()
}

/// Less is more specific: what is said of the path, then of the method, of headers and of the
/// query.
type Specificity = (u8, Reverse<usize>, bool, Reverse<usize>, Reverse<usize>);

fn specificity(m: Option<&HttpMatch>) -> Specificity {
    let Some(m) = m else { return (3, Reverse(0), true, Reverse(0), Reverse(0)) };
    let (kind, length) = match &m.path {
        Some(PathMatch::Exact(path)) => (0, path.len()),
        Some(path) if path.is_any() => (3, 0),
        Some(PathMatch::Prefix(path) | PathMatch::Segments(path)) => (1, path.len()),
        Some(PathMatch::Regex(path)) => (2, path.len()),
        None => (3, 0),
    };
    let headers = m.headers.len() + m.without_headers.len() + m.claims.len();
    (kind, Reverse(length), m.method.is_none(), Reverse(headers), Reverse(m.query.len()))
}

fn age(table: &RouteTable) -> (i64, ObjectId) {
    (table.origin.created, table.origin.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ir::StringMatch,
        plan::fixture::{rule, table},
    };

    fn path(path: PathMatch) -> HttpMatch {
        HttpMatch { path: Some(path), ..HttpMatch::default() }
    }

    fn named(name: &str, m: HttpMatch) -> HttpMatch {
        HttpMatch { name: name.into(), ..m }
    }

    /// A table of rules with one match each.
    fn tabled(
        name: &str,
        created: i64,
        order: RuleOrder,
        matches: Vec<HttpMatch>,
    ) -> Arc<RouteTable> {
        let rules = matches.into_iter().map(|m| rule(vec![m], "cart")).collect();
        let mut table = RouteTable { order, ..table("shop", name, &["cart"], rules) };
        table.origin.created = created;
        Arc::new(table)
    }

    /// The names of the matches, in the order in which they are tried.
    fn order(tables: &[Arc<RouteTable>]) -> Vec<String> {
        let reached = tables.iter().flat_map(|table| {
            let rules = table.http.iter();
            rules.map(move |rule| Reached { table, rule, matched: rule.matches.first() })
        });
        let ordered = in_order(reached.collect());
        ordered.iter().filter_map(|r| Some(r.matched?.name.to_string())).collect()
    }

    #[test]
    fn the_most_specific_match_is_tried_first() {
        let text = |s: &str| StringMatch::Exact(s.into());
        let a = || path(PathMatch::segments("/a"));
        let headers = |m: HttpMatch, n: usize| HttpMatch {
            headers: (0..n).map(|i| (format!("x-{i}").into(), text("1"))).collect(),
            ..m
        };
        let query = HttpMatch { query: [("q".into(), text("1"))].into(), ..a() };
        let get = HttpMatch { method: Some(text("GET")), ..a() };
        let matches = vec![
            named("every", HttpMatch::default()),
            named("regex", path(PathMatch::Regex("/a/very/long/.*".into()))),
            named("short", a()),
            named("query", query),
            named("header", headers(a(), 1)),
            named("headers", headers(a(), 2)),
            named("method", get),
            named("long", path(PathMatch::segments("/a/b"))),
            named("exact", path(PathMatch::Exact("/a".into()))),
        ];
        let table = tabled("t", 0, RuleOrder::BySpecificity, matches);
        let expected =
            ["exact", "long", "method", "headers", "header", "query", "short", "regex", "every"];
        assert_eq!(order(&[table]), expected);
    }

    #[test]
    fn of_equals_the_older_table_is_first_then_the_name_then_what_is_written_first() {
        let a = |name: &str| named(name, path(PathMatch::segments("/a")));
        let specific = RuleOrder::BySpecificity;
        let young = tabled("a", 2, specific, vec![a("young")]);
        let old = tabled("c", 1, specific, vec![a("first"), a("second")]);
        let same = tabled("b", 1, specific, vec![a("by-name")]);
        assert_eq!(order(&[young, old, same]), ["by-name", "first", "second", "young"]);
    }

    #[test]
    fn tables_by_specificity_are_one_among_tables_as_written() {
        let by = |name: &str, text: &str| named(name, path(PathMatch::segments(text)));
        let tables = [
            tabled("a", 1, RuleOrder::AsWritten, vec![by("written", "/a"), by("behind", "/a/b")]),
            tabled("b", 2, RuleOrder::BySpecificity, vec![by("short", "/a")]),
            tabled("c", 3, RuleOrder::AsWritten, vec![by("last", "/a")]),
            tabled("d", 4, RuleOrder::BySpecificity, vec![by("long", "/a/b")]),
        ];
        assert_eq!(order(&tables), ["written", "behind", "long", "short", "last"]);
    }
}
