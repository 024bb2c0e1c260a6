//! VirtualServices: rules and matches whose requests earlier ones take, and Gateways that have none
//! of the hosts.

use std::{collections::BTreeMap, sync::Arc};

use super::input::Input;
use crate::{
    class::is_gateway,
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::istio::{
        shared::StringMatch,
        virtual_service::{HttpMatch, HttpRoute, VirtualService},
    },
    ir::{GatewayConfig, Hostname, HttpRule, ObjectId, RouteTable, Workload},
    snapshot::Item,
};

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    for object in input.objects().filter(|object| input.is_wanted(&object.id)) {
        let Some(rules) = object.content::<VirtualService>() else { continue };
        let found = shadowed(rules);
        findings.extend(found.into_iter().map(|finding| input.diagnose(&object.id, finding)));
    }
    for table in input.tables().filter(|table| input.is_wanted(&table.origin.id)) {
        let id = &table.origin.id;
        let found = [hostless_gateways(input, table), unchecked_claims(input, table)].concat();
        findings.extend(found.into_iter().map(|finding| input.diagnose(id, finding)));
    }
    check_gateway_only(input, findings);
}

/// Rules of one protocol, each with the conditions of its matches.
fn shadowed(rules: &VirtualService) -> Vec<Diagnostic> {
    let mut found = shadowed_http(&rules.http);
    let tls = rules.tls.iter().map(|rule| rule.matches.iter().collect());
    found.extend(shadowed_by("tls", tls.collect(), |earlier, later| earlier == later));
    let tcp = rules.tcp.iter().map(|rule| rule.matches.iter().collect());
    found.extend(shadowed_by("tcp", tcp.collect(), |earlier, later| earlier == later));
    found
}

fn shadowed_http(rules: &[HttpRoute]) -> Vec<Diagnostic> {
    // What a delegate leaves goes on to later rules.
    let whole = |rule: &HttpRoute| rule.delegate.is_none();
    let matches = rules.iter().map(|rule| match whole(rule) {
        true => rule.matches.iter().collect(),
        false => Vec::new(),
    });
    let delegates: Vec<bool> = rules.iter().map(|rule| !whole(rule)).collect();
    let mut found = shadowed_by("http", matches.collect(), covers);
    // A rule that delegates is neither in the way nor looked at.
    found.retain(|finding| {
        !delegates.iter().enumerate().any(|(index, delegates)| {
            let own = FieldPath::of("spec.http").index(index);
            *delegates && finding.field.0.starts_with(&own.0)
        })
    });
    found
}

/// The findings on rules of the field `field`, given the matches of each; none of them: it takes
/// everything.
fn shadowed_by<M>(
    field: &'static str,
    rules: Vec<Vec<&M>>,
    covers: impl Fn(&M, &M) -> bool,
) -> Vec<Diagnostic> {
    let at = FieldPath::of("spec").field(field);
    let mut found = Vec::new();
    let mut earlier: Vec<(FieldPath, &M)> = Vec::new();
    for (rule, matches) in rules.iter().enumerate() {
        let own = at.index(rule);
        let mut covered = 0;
        for (number, condition) in matches.iter().enumerate() {
            let own = own.field("match").index(number);
            let by = earlier.iter().find(|(_, other)| covers(other, condition));
            if let Some((by, _)) = by {
                covered += 1;
                let message = format!("matches nothing that `{}` leaves", below_spec(by));
                found.push(
                    Diagnostic::info(Code::IneffectiveMatch, own.clone(), message)
                        .fix("remove it, or put the narrower one first"),
                );
            }
            earlier.push((own, condition));
        }
        if covered > 0 && covered == matches.len() {
            let message = "never reached: earlier rules take all that it matches";
            found.push(
                Diagnostic::warning(Code::UnreachableRule, own, message)
                    .fix("remove it, or put it before them"),
            );
        }
    }
    found
}

fn below_spec(path: &FieldPath) -> String {
    path.to_string().trim_start_matches("spec.").to_owned()
}

/// Whether every request that `later` matches is one that `earlier` matches. Names and statistics
/// are no conditions.
fn covers(earlier: &HttpMatch, later: &HttpMatch) -> bool {
    let text = |a: &Option<StringMatch>, b: &Option<StringMatch>| a.is_none() || a == b;
    covers_path(earlier, later)
        && text(&earlier.scheme, &later.scheme)
        && text(&earlier.method, &later.method)
        && text(&earlier.authority, &later.authority)
        && within(&earlier.headers, &later.headers)
        && within(&earlier.query_params, &later.query_params)
        && within(&earlier.without_headers, &later.without_headers)
        && within(&earlier.source_labels, &later.source_labels)
        && (earlier.port.is_none() || earlier.port == later.port)
        && (earlier.source_namespace.is_empty()
            || earlier.source_namespace == later.source_namespace)
        && (earlier.gateways.is_empty() || earlier.gateways == later.gateways)
}

fn within<V: PartialEq>(earlier: &BTreeMap<Arc<str>, V>, later: &BTreeMap<Arc<str>, V>) -> bool {
    earlier.iter().all(|(key, value)| later.get(key) == Some(value))
}

fn covers_path(earlier: &HttpMatch, later: &HttpMatch) -> bool {
    let Some(wider) = &earlier.uri else { return true };
    let Some(narrower) = &later.uri else { return false };
    if earlier.ignore_uri_case != later.ignore_uri_case && !earlier.ignore_uri_case {
        return false;
    }
    match (wider, narrower) {
        (StringMatch::Prefix(a), StringMatch::Prefix(b) | StringMatch::Exact(b)) => {
            b.starts_with(&**a)
        }
        (a, b) => a == b,
    }
}

/// Gateways that a table is bound to, and that have none of its hosts for it.
fn hostless_gateways(input: &Input<'_>, table: &RouteTable) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (id, at) in &table.fields.gateways {
        let Some(gateway) = input.gateways().find(|gateway| gateway.origin.id == *id) else {
            continue;
        };
        if table.hosts.is_empty() || gateway.servers.is_empty() || has_host(gateway, table) {
            continue;
        }
        let hosts: Vec<&str> = table.hosts.iter().map(Hostname::as_str).collect();
        let message = format!(
            "Gateway `{}/{}` has none of the hosts {}: it serves none of these rules",
            id.namespace,
            id.name,
            hosts.join(", ")
        );
        let finding = Diagnostic::warning(Code::HostNotInGateway, FieldPath::of(at), message)
            .fix("one of them in `hosts` of a server there");
        found.push(input.relate(finding, id, &FieldPath::of("spec.servers")));
    }
    found
}

/// Conditions on claims at gateways whose proxies check no tokens: no request has such a claim there.
fn unchecked_claims(input: &Input<'_>, table: &RouteTable) -> Vec<Diagnostic> {
    let looks = |rule: &&HttpRule| rule.matches.iter().any(|m| !m.claims.is_empty());
    let Some(rule) = table.http.iter().find(looks) else { return Vec::new() };
    let checked = |w: &Workload| {
        input
            .items()
            .iter()
            .any(|item| matches!(item, Item::Tokens(p) if p.governs(&w.id.namespace, &w.labels)))
    };
    let mut found = Vec::new();
    for gateway in input.gateways() {
        let serves = |w: &&Arc<Workload>| {
            gateway.selector.matches(&w.labels) && is_gateway(&input.snapshot, w)
        };
        let bound = table.fields.gateways.iter().any(|(id, _)| *id == gateway.origin.id);
        if !bound || input.snapshot.all_workloads().filter(serves).all(|w| checked(w)) {
            continue;
        }
        let id = &gateway.origin.id;
        let message = format!(
            "no RequestAuthentication checks tokens at the proxies of Gateway `{}/{}`: no request \
             has a claim there",
            id.namespace, id.name
        );
        let field = FieldPath::of(&rule.at).field("match");
        let finding = Diagnostic::error_ref(Code::MissingReference, field, message)
            .istio("IST0149")
            .fix("a RequestAuthentication that selects the gateway's pods");
        found.push(input.relate(finding, id, &FieldPath::of("spec.selector")));
    }
    found
}

fn has_host(gateway: &GatewayConfig, table: &RouteTable) -> bool {
    let own: &str = &table.origin.id.namespace;
    let visible = gateway
        .servers
        .iter()
        .flat_map(|server| &server.hosts)
        .filter(|host| host.namespace.as_ref().is_none_or(|namespace| **namespace == *own));
    let mut hosts = visible.map(|host| &host.host);
    hosts.any(|host| table.hosts.iter().any(|own| host.overlaps(own)))
}

/// Says where requests through a gateway are not split as those of the mesh are: its own rules lead
/// to the host, and rules of the mesh for the host are no rules of theirs.
fn check_gateway_only(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let rules = || {
        input.objects().filter_map(|object| Some((&object.id, object.content::<VirtualService>()?)))
    };
    let mut split: BTreeMap<&str, Vec<&ObjectId>> = BTreeMap::new();
    for (id, rules) in rules() {
        for destination in rules.http.iter().flat_map(|rule| &rule.route).map(|r| &r.destination) {
            if !destination.subset.is_empty() && rules.hosts.contains(&destination.host) {
                let ids = split.entry(&destination.host).or_default();
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
    }
    for (id, rules) in
        rules().filter(|(id, rules)| !rules.gateways.is_empty() && input.is_wanted(id))
    {
        for (i, rule) in rules.http.iter().enumerate() {
            for (j, route) in rule.route.iter().enumerate() {
                let host = &route.destination.host;
                let others = split.get(&**host).into_iter().flatten();
                let other = others.copied().find(|other| *other != id);
                let Some(other) = other.filter(|_| route.destination.subset.is_empty()) else {
                    continue;
                };
                let at = FieldPath::of("spec.http").index(i).field("route").index(j);
                findings.push(unsplit(input, id, other, at.field("destination"), host));
            }
        }
    }
}

fn unsplit(
    input: &Input<'_>,
    id: &ObjectId,
    other: &ObjectId,
    at: FieldPath,
    host: &str,
) -> Diagnostic {
    let message = format!(
        "subsets that {other} chooses for `{host}` are chosen by sidecars; requests of a gateway \
         go to all of its endpoints"
    );
    let finding = Diagnostic::warning(Code::NoEffect, at, message)
        .istio("IST0140")
        .fix("repeat the rules here, with their subsets");
    input.relate(input.diagnose(id, finding), other, &FieldPath::of("spec.http"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{decode::Decoder, schema::Decode};

    fn condition(text: &str) -> HttpMatch {
        let tree = crate::yaml::parse(text).expect("YAML").expect("a node");
        HttpMatch::decode(&tree.to_json(), &mut Decoder::default())
    }

    #[test]
    fn a_match_covers_what_it_leaves_nothing_of() {
        let table = [
            ("{}", "{uri: {prefix: /a}}", true),
            ("{uri: {prefix: /a}}", "{}", false),
            ("{uri: {prefix: /a}}", "{uri: {exact: /ab}, method: {exact: GET}}", true),
            ("{uri: {prefix: /a}, method: {exact: GET}}", "{uri: {prefix: /a/b}}", false),
            ("{uri: {prefix: /a}, port: 80}", "{uri: {prefix: /a}, port: 81}", false),
            ("{name: x, headers: {a: {}}}", "{headers: {a: {}, b: {}}}", true),
            ("{headers: {a: {exact: b}}}", "{headers: {a: {prefix: b}}}", false),
            ("{uri: {exact: /a}}", "{uri: {exact: /a}, ignoreUriCase: true}", false),
            ("{uri: {regex: a}}", "{uri: {regex: a}, statPrefix: y}", true),
            ("{gateways: [g]}", "{gateways: [h]}", false),
        ];
        for (earlier, later, expected) in table {
            assert_eq!(
                covers(&condition(earlier), &condition(later)),
                expected,
                "{earlier} {later}"
            );
        }
    }
}
