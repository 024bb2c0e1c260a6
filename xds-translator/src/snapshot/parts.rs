//! Tables that continue in others: which part a rule leads to, and what its rules come to there.
//!
//! Nobody but this module says what continuing means: [`Reader`](super::Reader) puts tables
//! together with it, and findings ask it why a part has no effect.

use std::{collections::BTreeMap, sync::Arc};

use crate::ir::{
    Attachment, Destination, HeaderOps, HttpAction, HttpMatch, HttpRule, Mirror, ObjectId,
    PathMatch, Retry, Rewrite, RouteTable, StringMatch, Timeouts, WeightedDestination,
};

/// Why a rule does not continue in a table that it names: it takes no request then.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum NoPart {
    /// There is no such table.
    Missing,
    /// The table has hosts of its own.
    Whole,
    /// The table is not for the namespace of the one that names it.
    Hidden,
}

/// The part in which a rule of `table` continues, given the table that it names.
pub(crate) fn part<'t>(
    table: &RouteTable,
    named: Option<&'t Arc<RouteTable>>,
) -> Result<&'t Arc<RouteTable>, NoPart> {
    let part = named.ok_or(NoPart::Missing)?;
    if !part.is_part() {
        return Err(NoPart::Whole);
    }
    match part.export_to.includes(&table.origin.id.namespace) {
        true => Ok(part),
        false => Err(NoPart::Hidden),
    }
}

/// The table with the rules of its parts in the places where it continues in them. `named` finds
/// tables; the table and those found are all whole, or all in outline form.
pub(super) fn whole<'t>(
    table: &Arc<RouteTable>,
    named: impl Fn(&ObjectId) -> Option<&'t Arc<RouteTable>>,
) -> Arc<RouteTable> {
    if table.parts().next().is_none() {
        return table.clone();
    }
    let http = table.http.iter().flat_map(|rule| match &rule.action {
        HttpAction::Continue { part: id, .. } => match part(table, named(id)) {
            Ok(part) => part.http.iter().filter_map(|inner| continued(rule, inner, id)).collect(),
            Err(_) => Vec::new(),
        },
        _ => vec![rule.clone()],
    });
    Arc::new(RouteTable { http: http.collect(), ..RouteTable::clone(table) })
}

/// What a rule of the part `part` comes to behind a rule that continues there: both must match,
/// and the part's settings come first. `None`: some alternative of it asks for what no alternative
/// of the outer rule lets through whole; then the whole rule is left out, as in Istio.
pub(crate) fn continued(outer: &HttpRule, inner: &HttpRule, part: &ObjectId) -> Option<HttpRule> {
    let matches = match (&outer.matches[..], &inner.matches[..]) {
        (_, []) => outer.matches.clone(),
        ([], _) => inner.matches.clone(),
        (outer, inner) => narrowed(outer, inner)?,
    };
    let own_retry = inner.retry != Retry::MeshDefault;
    let retrying = if own_retry { inner } else { outer };
    let of_part = |mirror: &Mirror| Mirror {
        destination: written_in(part, &mirror.destination),
        share: mirror.share,
    };
    let mirrors = match &inner.mirrors[..] {
        [] => outer.mirrors.clone(),
        own => own.iter().map(of_part).collect(),
    };
    let unset = inner.headers == HeaderOps::default();
    Some(HttpRule {
        at: inner.at.clone(),
        name: joined(&outer.name, &inner.name),
        hosts: outer.hosts.clone(),
        matches,
        shared_matches: inner.shared_matches.clone(),
        action: action(outer, inner, part),
        headers: if unset { outer } else { inner }.headers.clone(),
        fault: inner.fault.clone().or_else(|| outer.fault.clone()),
        timeouts: Timeouts {
            request: inner.timeouts.request.or(outer.timeouts.request),
            per_try: retrying.timeouts.per_try,
            idle: inner.timeouts.idle.or(outer.timeouts.idle),
        },
        retry: retrying.retry.clone(),
        mirrors,
        cors: inner.cors.clone().or_else(|| outer.cors.clone()),
    })
}

fn action(outer: &HttpRule, inner: &HttpRule, part: &ObjectId) -> HttpAction {
    let HttpAction::Forward { destinations, rewrite: own } = &inner.action else {
        return inner.action.clone();
    };
    let inherited = match &outer.action {
        HttpAction::Continue { rewrite, .. } if *own == Rewrite::default() => rewrite,
        _ => own,
    };
    let of_part = |weighted: &WeightedDestination| WeightedDestination {
        destination: written_in(part, &weighted.destination),
        ..weighted.clone()
    };
    HttpAction::Forward {
        destinations: destinations.iter().map(of_part).collect(),
        rewrite: inherited.clone(),
    }
}

fn written_in(part: &ObjectId, destination: &Destination) -> Destination {
    Destination { of: Some(part.clone()), ..destination.clone() }
}

/// `OUTER-INNER`, or the one that there is.
fn joined(outer: &Arc<str>, inner: &Arc<str>) -> Arc<str> {
    match (&**outer, &**inner) {
        (_, "") => outer.clone(),
        ("", _) => inner.clone(),
        (outer, inner) => format!("{outer}-{inner}").into(),
    }
}

/// Every alternative of a part within those of the rule that continues there that let it through;
/// `None`: there is none for one of them.
fn narrowed(outer: &[HttpMatch], inner: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    let mut all = Vec::new();
    for own in inner {
        let before = all.len();
        all.extend(outer.iter().filter_map(|outer| both(outer, own)));
        if all.len() == before {
            return None;
        }
    }
    Some(all)
}

/// Both conditions in one; `None`: the inner one is not within the outer one, or one value would
/// have to keep to two conditions that a match cannot hold.
fn both(outer: &HttpMatch, inner: &HttpMatch) -> Option<HttpMatch> {
    let (path, ignore_path_case) = path(outer, inner)?;
    Some(HttpMatch {
        name: joined(&outer.name, &inner.name),
        path,
        ignore_path_case,
        headers: merged(&outer.headers, &inner.headers, |o, i| within(o, i).then(|| i.clone()))?,
        without_headers: merged(&outer.without_headers, &inner.without_headers, wider)?,
        // A claim may be a list that meets both.
        claims: outer.claims.iter().chain(&inner.claims).cloned().collect(),
        query: merged(&outer.query, &inner.query, |o, i| within(o, i).then(|| i.clone()))?,
        method: one(&outer.method, &inner.method, within)?,
        authority: one(&outer.authority, &inner.authority, within)?,
        scheme: one(&outer.scheme, &inner.scheme, within)?,
        port: one(&outer.port, &inner.port, PartialEq::eq)?,
        source_labels: merged(&outer.source_labels, &inner.source_labels, |o, i| {
            (o == i).then(|| i.clone())
        })?,
        source_namespace: one(&outer.source_namespace, &inner.source_namespace, PartialEq::eq)?,
        attachments: attachments(outer, inner)?,
        stat_prefix: inner.stat_prefix.clone().or_else(|| outer.stat_prefix.clone()),
    })
}

/// The inner value where there is one, if the outer one allows it.
fn one<T: Clone>(
    outer: &Option<T>,
    inner: &Option<T>,
    allows: impl Fn(&T, &T) -> bool,
) -> Option<Option<T>> {
    match (outer, inner) {
        (Some(o), Some(i)) if !allows(o, i) => None,
        (_, Some(_)) => Some(inner.clone()),
        (_, None) => Some(outer.clone()),
    }
}

/// All of both maps; `meet` tells what a key comes to that both have, if it comes to anything.
fn merged<T: Clone>(
    outer: &BTreeMap<Arc<str>, T>,
    inner: &BTreeMap<Arc<str>, T>,
    meet: impl Fn(&T, &T) -> Option<T>,
) -> Option<BTreeMap<Arc<str>, T>> {
    let mut all = outer.clone();
    for (key, value) in inner {
        let met = match outer.get(key) {
            Some(own) => meet(own, value)?,
            None => value.clone(),
        };
        all.insert(key.clone(), met);
    }
    Some(all)
}

/// Whether whatever meets `inner` meets `outer`, as far as the two texts tell.
fn within(outer: &StringMatch, inner: &StringMatch) -> bool {
    use StringMatch::{Exact, Prefix, Present, Suffix};
    match (outer, inner) {
        (Present, _) => true,
        (Prefix(start), Exact(text) | Prefix(text)) => text.starts_with(&**start),
        (Suffix(end), Exact(text) | Suffix(text)) => text.ends_with(&**end),
        _ => outer == inner,
    }
}

/// Of two conditions that must both fail the one that covers the other.
fn wider(one: &StringMatch, other: &StringMatch) -> Option<StringMatch> {
    match (within(one, other), within(other, one)) {
        (true, _) => Some(one.clone()),
        (_, true) => Some(other.clone()),
        _ => None,
    }
}

/// The condition on the path, and whether it ignores case.
fn path(outer: &HttpMatch, inner: &HttpMatch) -> Option<(Option<PathMatch>, bool)> {
    let (Some(outside), Some(inside)) = (&outer.path, &inner.path) else {
        let asks = if inner.path.is_some() { inner } else { outer };
        return Some((asks.path.clone(), asks.ignore_path_case));
    };
    let same_case = outer.ignore_path_case == inner.ignore_path_case;
    let kept = same_case && path_within(outside, inside, inner.ignore_path_case);
    kept.then(|| (inner.path.clone(), inner.ignore_path_case))
}

fn path_within(outer: &PathMatch, inner: &PathMatch, ignore_case: bool) -> bool {
    use PathMatch::{Exact, Prefix, Regex, Segments};
    let folded = |text: &str| match ignore_case {
        true => text.to_ascii_lowercase(),
        false => text.to_owned(),
    };
    let begins = |text: &str, start: &str| folded(text).starts_with(&folded(start));
    match (outer, inner) {
        (outer, _) if outer.is_any() => true,
        (Prefix(start), Exact(text) | Prefix(text) | Segments(text)) => begins(text, start),
        (Segments(start), Exact(text) | Segments(text)) => {
            begins(&format!("{text}/"), &format!("{start}/"))
        }
        (Segments(start), Prefix(text)) => begins(text, &format!("{start}/")),
        (Exact(one), Exact(other)) => folded(one) == folded(other),
        (Regex(_), _) | (_, Regex(_)) | (Exact(_), _) => outer == inner,
    }
}

/// The attachments for which both hold; empty: all of the table's.
fn attachments(outer: &HttpMatch, inner: &HttpMatch) -> Option<Vec<Attachment>> {
    let listed = |m: &HttpMatch| !m.attachments.is_empty();
    if listed(outer) && !inner.attachments.iter().all(|at| outer.attachments.contains(at)) {
        return None;
    }
    Some(if listed(inner) { inner } else { outer }.attachments.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> HttpMatch {
        HttpMatch { path: Some(PathMatch::Prefix(text.into())), ..HttpMatch::default() }
    }

    fn header(name: &str, value: StringMatch) -> HttpMatch {
        HttpMatch { headers: [(name.into(), value)].into(), ..HttpMatch::default() }
    }

    fn without(name: &str, value: StringMatch) -> HttpMatch {
        HttpMatch { without_headers: [(name.into(), value)].into(), ..HttpMatch::default() }
    }

    fn exact(text: &str) -> StringMatch {
        StringMatch::Exact(text.into())
    }

    fn begins(text: &str) -> StringMatch {
        StringMatch::Prefix(text.into())
    }

    #[test]
    fn a_match_of_a_part_must_lie_within_one_of_the_rule_that_leads_there() {
        let path = |path: PathMatch| HttpMatch { path: Some(path), ..HttpMatch::default() };
        let regex = |text: &str| path(PathMatch::Regex(text.into()));
        let folded = |m: HttpMatch| HttpMatch { ignore_path_case: true, ..m };
        let port = |port| HttpMatch { port: Some(port), ..HttpMatch::default() };
        let table = [
            (prefix("/a"), prefix("/a/b"), true),
            (prefix("/a/b"), prefix("/a"), false),
            (prefix("/a"), path(PathMatch::Exact("/a/b".into())), true),
            (path(PathMatch::Exact("/a".into())), prefix("/a"), false),
            (path(PathMatch::segments("/a")), path(PathMatch::segments("/ab")), false),
            (path(PathMatch::segments("/a")), path(PathMatch::segments("/a/b")), true),
            (prefix("/"), regex("/a.*"), true),
            (prefix("/a"), regex("/a.*"), false),
            (regex("/a.*"), regex("/a.*"), true),
            (prefix("/a"), folded(prefix("/a")), false),
            (folded(prefix("/A")), folded(prefix("/a/b")), true),
            (folded(prefix("/A")), header("x", exact("1")), true),
            (header("x", begins("1")), header("x", exact("12")), true),
            (header("x", exact("1")), header("x", begins("1")), false),
            (header("x", StringMatch::Present), header("x", begins("1")), true),
            (header("x", exact("1")), header("y", exact("2")), true),
            (port(80), port(80), true),
            (port(80), port(81), false),
        ];
        for (outer, inner, expected) in table {
            assert_eq!(both(&outer, &inner).is_some(), expected, "{outer:?} {inner:?}");
        }
    }

    #[test]
    fn both_conditions_hold_in_the_one_that_comes_of_them() {
        let outer = HttpMatch { method: Some(exact("GET")), ..header("x-a", exact("1")) };
        let outer = HttpMatch { path: Some(PathMatch::Prefix("/a".into())), ..outer };
        let got = both(&outer, &header("x-b", exact("2"))).expect("they meet");
        assert_eq!(got.headers.len(), 2);
        assert_eq!((got.path, got.method), (outer.path, outer.method));
    }

    #[test]
    fn of_what_must_not_match_the_wider_counts() {
        for (outer, inner, expected) in [
            (begins("a"), exact("ab"), Some(begins("a"))),
            (exact("ab"), begins("a"), Some(begins("a"))),
            (exact("a"), exact("b"), None),
        ] {
            let got = both(&without("x", outer.clone()), &without("x", inner.clone()));
            let got = got.map(|m| m.without_headers["x"].clone());
            assert_eq!(got, expected, "{outer:?} {inner:?}");
        }
    }
}
