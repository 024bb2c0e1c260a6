//! Route tables: hosts, subsets, gateways and conditions that they name, and each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    clients::{Clients, clients},
    input::{Input, reason},
    meant::meant_host,
};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::suggest,
    ir::{
        Attachment, Destination, DestinationPort, Field, Hostname, HttpAction, HttpRule, ObjectId,
        Retry, RouteTable, RuleOrder, Service,
    },
    plan::{Lack, destinations, find_service, l4_destinations, lack_in, references},
    snapshot::{NoPart, Reader, continued, part},
};

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let tables = || input.tables().filter(|table| input.is_wanted(&table.origin.id));
    if tables().next().is_none() {
        return;
    }
    let uses = Uses::of(input, &clients(input));
    for table in tables() {
        let mut found = Vec::new();
        check_destinations(input, table, &uses, &mut found);
        check_gateways(input, table, &mut found);
        check_match_sets(input, table, &mut found);
        check_parts(input, table, &mut found);
        check_outer(input, table, &mut found);
        check_http(table, &mut found);
        findings.extend(found.into_iter().map(|f| input.diagnose(&table.origin.id, f)));
    }
    check_conflicts(input, findings);
}

/// What became of every destination that some client is led to.
#[derive(Default)]
struct Uses(BTreeMap<(ObjectId, Field), Fate>);

/// What becomes of a destination for those who are led to it.
#[derive(Default)]
struct Fate {
    /// Namespaces whose clients lack something, by what and at which port.
    lacking: BTreeMap<(Lack, u16), BTreeSet<Arc<str>>>,
}

impl Uses {
    fn of(input: &Input<'_>, clients: &[Clients]) -> Self {
        let mut uses = Self::default();
        for clients in clients {
            for used in references(&Reader::new(&input.snapshot), &clients.view) {
                let fate = uses.0.entry((used.table, used.at)).or_default();
                if let Some(lack) = used.lack {
                    let lacking = fate.lacking.entry((lack, used.port)).or_default();
                    lacking.extend(clients.namespaces.iter().cloned());
                }
            }
        }
        uses
    }

    /// What becomes of a destination; of one that nobody is led to, what becomes of another of the
    /// table that means the same.
    fn fate(&self, table: &RouteTable, to: &Destination) -> Option<&Fate> {
        let of = |at: &Field| self.0.get(&(table.origin.id.clone(), at.clone()));
        let same = |other: &&Destination| {
            (&other.host, &other.port, &other.subset) == (&to.host, &to.port, &to.subset)
        };
        let others = || destinations(table).chain(l4_destinations(table)).filter(same);
        of(&to.at).or_else(|| others().find_map(|other| of(&other.at)))
    }

    /// What is lacking at a destination, at which port, and for whom. A destination that nobody is
    /// led to is judged as for a client of its own namespace.
    fn missing(&self, input: &Input<'_>, table: &RouteTable, to: &Destination) -> Option<Missing> {
        let id = &table.origin.id;
        match self.fate(table, to) {
            None => {
                let lack = lack_in(&Reader::new(&input.snapshot), &id.namespace, to)?;
                let clients = BTreeSet::from([id.namespace.clone()]);
                Some(Missing { lack, port: to.port.number().unwrap_or_default(), clients })
            }
            Some(fate) => {
                let ((lack, port), clients) = fate.lacking.first_key_value()?;
                Some(Missing { lack: *lack, port: *port, clients: clients.clone() })
            }
        }
    }
}

struct Missing {
    lack: Lack,
    port: u16,
    /// Namespaces whose clients miss it.
    clients: BTreeSet<Arc<str>>,
}

fn check_destinations(
    input: &Input<'_>,
    table: &RouteTable,
    uses: &Uses,
    found: &mut Vec<Diagnostic>,
) {
    let used = destinations(table).chain(l4_destinations(table));
    // Rules of several protocols may come from one field.
    let mut seen = BTreeSet::new();
    let named = used.chain(&table.fields.idle).filter(|destination| seen.insert(&destination.at));
    for destination in named {
        let missing = uses.missing(input, table, destination);
        let Some(missing) = missing.filter(|_| !destination.host.as_str().is_empty()) else {
            continue;
        };
        found.push(match missing.lack {
            Lack::Host => no_host(input, table, destination, &missing),
            Lack::Subset => no_subset(input, destination, &missing),
            Lack::Port => no_port(input, destination, &missing),
        });
    }
}

fn no_host(
    input: &Input<'_>,
    table: &RouteTable,
    destination: &Destination,
    missing: &Missing,
) -> Diagnostic {
    let host = &destination.host;
    let field = FieldPath::of(&destination.at);
    let finding = |message| Diagnostic::error_ref(Code::MissingReference, field.clone(), message);
    if let Some(service) = input.snapshot.services().defining(host).next() {
        let message = format!(
            "`{host}` is no host of a Service or ServiceEntry that {} sees",
            named_clients(&missing.clients)
        );
        let fix = format!(
            "`exportTo` of {}, or the hosts of the Sidecar object there",
            service.origin.id
        );
        return input.relate(finding(message).fix(fix), &service.origin.id, &FieldPath::root());
    }
    if let Some(service) = input.snapshot.services().overlapping(host).next() {
        let message = format!(
            "`{host}` is no host of a Service or ServiceEntry: `{}` stands for names that clients call, not for destinations",
            service.key.host
        );
        let fix =
            format!("`{}` as the destination, or a ServiceEntry for `{host}`", service.key.host);
        return input.relate(finding(message).fix(fix), &service.origin.id, &FieldPath::root());
    }
    let finding = finding(format!("`{host}` is no host of a Service or ServiceEntry"));
    match meant_host(input, &table.origin.id, &field, host) {
        Some(meant) => finding.instead(meant),
        None => finding.fix(format!("a Service or ServiceEntry for `{host}`, or another host")),
    }
}

/// `namespace \`a\``
fn named_clients(namespaces: &BTreeSet<Arc<str>>) -> String {
    const NAMED: usize = 3;
    let named: Vec<String> = namespaces.iter().take(NAMED).map(|n| format!("`{n}`")).collect();
    let more = match namespaces.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" or {more} more"),
    };
    format!("a client in namespace {}{more}", named.join(" or "))
}

fn no_subset(input: &Input<'_>, destination: &Destination, missing: &Missing) -> Diagnostic {
    let Destination { host, subset, .. } = destination;
    let field = beside(&destination.at).field("subset");
    let service = missing.clients.first().and_then(|namespace| {
        find_service(&Reader::new(&input.snapshot), host, namespace).cloned()
    });
    let host = service.as_ref().map_or(host, |service| &service.key.host);
    let defines = |p: &&Arc<crate::ir::BackendPolicy>| {
        p.host.contains(host) && p.subsets.iter().any(|s| s.name == *subset)
    };
    let message = format!("subset `{subset}` of `{host}` is in no DestinationRule");
    match input.backends().find(defines) {
        None => {
            let fix = subset_fix(input, service.as_deref(), host, subset);
            let finding = Diagnostic::error_ref(Code::MissingReference, field, message).fix(fix);
            let of_host = input.backends().filter(|policy| policy.host.contains(host));
            let names: BTreeSet<&str> =
                of_host.flat_map(|policy| &policy.subsets).map(|subset| &*subset.name).collect();
            match suggest::meant(subset, names.iter().copied()) {
                Some(name) => finding.instead(name),
                None => finding,
            }
        }
        Some(policy) => {
            let message = format!("{message} that {} uses", named_clients(&missing.clients));
            let fix = format!("`exportTo` or `workloadSelector` of {}", policy.origin.id);
            let finding = Diagnostic::error_ref(Code::MissingReference, field, message).fix(fix);
            input.relate(finding, &policy.origin.id, &FieldPath::of("spec.exportTo"))
        }
    }
}

/// The DestinationRule that would define the subset, with labels that pods of the service carry.
fn subset_fix(
    input: &Input<'_>,
    service: Option<&Service>,
    host: &Hostname,
    subset: &str,
) -> String {
    let pods = service.into_iter().flat_map(|service| input.snapshot.behind(service));
    let labels: Vec<_> = pods.map(|workload| workload.labels.clone()).collect();
    let named = labels
        .iter()
        .flatten()
        .filter(|(key, value)| &***value == subset && !key.starts_with("security.istio.io/"));
    // `version` is the label that people use; any other that says the same will do.
    let label =
        named.map(|(key, _)| &**key).min_by_key(|key| (*key != "version", (*key).to_owned()));
    match label {
        Some(label) => format!(
            "a DestinationRule for `{host}` with `subsets: [{{name: {subset}, labels: {{{label}: {subset}}}}}]`"
        ),
        None => format!(
            "a DestinationRule for `{host}` with a subset `{subset}`; no pod of it carries a label with that value"
        ),
    }
}

fn no_port(input: &Input<'_>, destination: &Destination, missing: &Missing) -> Diagnostic {
    let Destination { host, .. } = destination;
    let service = missing
        .clients
        .first()
        .and_then(|namespace| find_service(&Reader::new(&input.snapshot), host, namespace));
    let ports: Vec<String> = service
        .into_iter()
        .flat_map(|service| &service.ports)
        .map(|port| port.number.to_string())
        .collect();
    let implied = || format!("none, which leads to port {}", missing.port);
    let (field, got) = match &destination.port {
        DestinationPort::Named(name) => {
            let field = beside(&destination.at).field("port").field("name");
            let message = format!("`{host}` has no port `{name}`");
            let names = service.into_iter().flat_map(|service| &service.ports);
            let names: Vec<&str> = names.map(|port| &*port.name).collect();
            let finding = Diagnostic::error_ref(Code::MissingReference, field, message)
                .expected(format!("one of {}", names.join(", ")), format!("`{name}`"));
            return match suggest::meant(name, names.into_iter()) {
                Some(meant) => finding.instead(meant),
                None => finding,
            };
        }
        DestinationPort::Number(port) => {
            (beside(&destination.at).field("port").field("number"), port.to_string())
        }
        DestinationPort::Inferred => (beside(&destination.at), implied()),
        DestinationPort::Requested => (FieldPath::of(&destination.at), implied()),
    };
    let message = format!("`{host}` has no port {}", missing.port);
    Diagnostic::error_ref(Code::MissingReference, field, message)
        .expected(format!("one of {}", ports.join(", ")), got)
}

/// What a destination's host is written in, together with its port and subset.
fn beside(host: &Field) -> FieldPath {
    FieldPath::of(host.rsplit_once('.').map_or("", |(parent, _)| parent))
}

fn check_gateways(input: &Input<'_>, table: &RouteTable, found: &mut Vec<Diagnostic>) {
    for (id, at) in &table.fields.gateways {
        if input.object(id).is_some() {
            continue;
        }
        let written = match id.namespace == table.origin.id.namespace {
            true => id.name.to_string(),
            false => format!("{}/{}", id.namespace, id.name),
        };
        let message = format!("Gateway `{written}` not found");
        let finding = Diagnostic::error_ref(Code::MissingReference, FieldPath::of(at), message);
        let all = || input.gateways().map(|g| &g.origin.id);
        let elsewhere: Vec<_> = all().filter(|other| other.name == id.name).collect();
        let beside: BTreeSet<&str> = all()
            .filter(|other| other.namespace == id.namespace)
            .map(|other| &*other.name)
            .collect();
        let named = |id: &ObjectId| format!("{}/{}", id.namespace, id.name);
        found.push(match (&elsewhere[..], suggest::meant(&id.name, beside.iter().copied())) {
            ([other], _) => finding.instead(named(other)),
            ([other, ..], _) => finding.fix(format!("`{}`", named(other))),
            ([], Some(name)) if id.namespace == table.origin.id.namespace => finding.instead(name),
            ([], Some(name)) => finding.instead(format!("{}/{name}", id.namespace)),
            ([], None) => finding.fix("create it, or remove the name"),
        });
    }
}

/// Conditions that other objects hold: while such an object is not there, nothing matches them.
fn check_match_sets(input: &Input<'_>, table: &RouteTable, found: &mut Vec<Diagnostic>) {
    let shared = table.http.iter().flat_map(|rule| &rule.shared_matches);
    for shared in shared.filter(|shared| input.object(&shared.set).is_none()) {
        let message = format!("{} not found, so that nothing matches", shared.set);
        let field = FieldPath::of(&shared.at);
        let finding = Diagnostic::error_ref(Code::MissingReference, field, message);
        found.push(finding.fix("create it, or remove the name"));
    }
}

/// Parts in which rules continue that are no parts for them: such a rule takes no request.
fn check_parts(input: &Input<'_>, table: &RouteTable, found: &mut Vec<Diagnostic>) {
    for (rule, id) in continuing(table) {
        let Err(lack) = part(table, input.snapshot.routes().table(id)) else { continue };
        let field = FieldPath::of(&rule.at).field("delegate");
        let finding = |message| Diagnostic::error_ref(Code::MissingReference, field, message);
        let namespace = &table.origin.id.namespace;
        found.push(match lack {
            NoPart::Missing => {
                let message = format!("{id} not found: the rule takes no request");
                finding(message).fix("create it without `hosts`, or remove the rule")
            }
            NoPart::Whole => {
                let message = format!("{id} has `hosts` of its own: the rule takes no request");
                let fix = format!("no `hosts` and no `gateways` in {id}");
                input.relate(finding(message).fix(fix), id, &FieldPath::of("spec.hosts"))
            }
            NoPart::Hidden => {
                let message = format!(
                    "{id} is not exported to namespace `{namespace}`: the rule takes no request"
                );
                let fix = format!("`{namespace}` in `exportTo` of {id}");
                input.relate(finding(message).fix(fix), id, &FieldPath::of("spec.exportTo"))
            }
        });
    }
}

/// The rules of a part that hold nowhere: because nobody continues in it, or because the rule that
/// does lets none of their requests through.
fn check_outer(input: &Input<'_>, table: &RouteTable, found: &mut Vec<Diagnostic>) {
    let id = &table.origin.id;
    if !table.is_part() {
        return;
    }
    let rules = input.tables().flat_map(|outer| {
        continuing(outer).filter(|(_, part)| *part == id).map(move |(rule, _)| (outer, rule))
    });
    let mut known = false;
    for (outer, rule) in rules {
        known = true;
        let excluded = table.http.iter().filter(|own| continued(rule, own, id).is_none());
        for own in excluded {
            let from = &outer.origin.id;
            let message = format!(
                "never reached from `{}` of {from}: one of its matches asks for what no match there lets through",
                below_spec(&rule.at)
            );
            let finding = Diagnostic::warning(Code::NoEffect, FieldPath::of(&own.at), message)
                .fix("matches within those of the rule that delegates, or none");
            found.push(input.relate(finding, from, &FieldPath::of(&rule.at)));
        }
    }
    if !known {
        let message = "without `hosts`, and no VirtualService delegates to it: no request meets it";
        let finding = Diagnostic::warning(Code::NoEffect, FieldPath::of("spec"), message);
        found.push(finding.fix(format!(
            "`hosts`, or `delegate: {{name: {}, namespace: {}}}` in a rule of another",
            id.name, id.namespace
        )));
    }
}

/// The rules of a table that continue in parts.
fn continuing(table: &RouteTable) -> impl Iterator<Item = (&HttpRule, &ObjectId)> {
    table.http.iter().filter_map(|rule| match &rule.action {
        HttpAction::Continue { part, .. } => Some((rule, part)),
        _ => None,
    })
}

fn check_http(table: &RouteTable, found: &mut Vec<Diagnostic>) {
    let mut catch_all: Option<&HttpRule> = None;
    for rule in &table.http {
        found.extend(check_retries(rule));
        if let Some(earlier) = catch_all.filter(|_| table.order == RuleOrder::AsWritten) {
            let message =
                format!("never reached: `{}` takes every request", below_spec(&earlier.at));
            found.push(
                Diagnostic::warning(Code::UnreachableRule, FieldPath::of(&rule.at), message)
                    .fix("put rules without `match` last"),
            );
        }
        catch_all = catch_all.or(Some(rule).filter(|rule| rule.is_unconditional()));
    }
}

fn check_retries(rule: &HttpRule) -> Option<Diagnostic> {
    let Retry::Policy(retry) = &rule.retry else { return None };
    let (timeout, per_try) =
        (rule.timeouts.request.filter(|limit| !limit.is_zero())?, rule.timeouts.per_try?);
    let tries = retry.attempts.saturating_add(1);
    if per_try.checked_mul(tries).is_some_and(|all| all <= timeout) {
        return None;
    }
    let message = format!("{tries} tries of {per_try:?} exceed `timeout: {timeout:?}`");
    let finding =
        Diagnostic::info(Code::Retries, FieldPath::of(&rule.at).field("retries"), message);
    Some(finding.fix("a longer `timeout`, or fewer or shorter tries"))
}

/// A table's claim to a host.
struct Claim<'a> {
    table: &'a RouteTable,
    at: &'a Field,
}

/// Whether tables for one host are read as one.
fn joined(one: &RouteTable, other: &RouteTable) -> bool {
    [one, other].iter().all(|table| table.order == RuleOrder::BySpecificity)
}

/// Most rivals that are named in one finding.
const NAMED_RIVALS: usize = 8;

/// Two VirtualServices for one host in the mesh: sidecars do not merge them.
fn check_conflicts(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let mut claims: BTreeMap<&Hostname, Vec<Claim<'_>>> = BTreeMap::new();
    for table in input.tables().filter(|t| t.attachments.contains(&Attachment::Mesh)) {
        for (host, at) in table.hosts.iter().zip(&table.fields.hosts) {
            claims.entry(host).or_default().push(Claim { table, at });
        }
    }
    for (host, mut claims) in claims {
        claims.sort_by(|a, b| a.table.origin.by_age(&b.table.origin));
        let wanted = |(_, claim): &(usize, &Claim<'_>)| input.is_wanted(&claim.table.origin.id);
        for (rank, claim) in claims.iter().enumerate().filter(wanted) {
            let meets = |rival: &Claim<'_>| {
                claim.table.export_to.overlaps(&rival.table.export_to)
                    && !joined(claim.table, rival.table)
                    && claim.table.standing == rival.table.standing
            };
            let others =
                claims.iter().enumerate().filter(|(other, rival)| *other != rank && meets(rival));
            let rivals: Vec<(bool, &Claim<'_>)> =
                others.take(NAMED_RIVALS).map(|(other, rival)| (other < rank, rival)).collect();
            if !rivals.is_empty() {
                findings.push(conflict(input, host, claim, &rivals));
            }
            let first = claims.iter().find(|rival| {
                let seen = claim.table.export_to.overlaps(&rival.table.export_to);
                seen && rival.table.standing < claim.table.standing
            });
            findings.extend(first.map(|first| behind(input, host, claim, first)));
        }
    }
}

/// What is said of a table that stands behind another one by what it is, whichever is older.
fn behind(input: &Input<'_>, host: &Hostname, claim: &Claim<'_>, first: &Claim<'_>) -> Diagnostic {
    let winner = &first.table.origin.id;
    let message =
        format!("`{winner}` comes first for `{host}`: these routes are not followed there");
    let finding = Diagnostic::info(Code::ConflictingHosts, FieldPath::of(claim.at), message);
    let finding = finding.fix("keep one of the two");
    let finding = input.diagnose(&claim.table.origin.id, finding);
    input.relate(finding, winner, &FieldPath::of(first.at))
}

/// The finding on one of the claimants; each rival with whether it comes first.
fn conflict(
    input: &Input<'_>,
    host: &Hostname,
    claim: &Claim<'_>,
    rivals: &[(bool, &Claim<'_>)],
) -> Diagnostic {
    let own = routes_of(claim.table);
    let origin = &claim.table.origin;
    let message = match rivals.iter().find(|(first, _)| *first) {
        None => {
            let losers = rivals
                .iter()
                .map(|(_, rival)| rival.table.origin.id.to_string())
                .collect::<Vec<_>>()
                .join(", ");
            let why = rivals.first().map_or("", |(_, rival)| reason(origin, &rival.table.origin));
            format!(
                "`{host}` is claimed by {losers} too, and sidecars do not merge: this one wins ({why}), its {own} apply"
            )
        }
        Some((_, winner)) => format!(
            "`{host}` is claimed by {} too, and sidecars do not merge: that one wins ({}), its {} apply; ignored here: {own}",
            winner.table.origin.id,
            reason(&winner.table.origin, origin),
            routes_of(winner.table)
        ),
    };
    let finding = Diagnostic::error_ref(Code::ConflictingHosts, FieldPath::of(claim.at), message);
    let finding = input.diagnose(&origin.id, finding.fix("merge them into one VirtualService"));
    rivals.iter().fold(finding, |finding, (_, rival)| {
        input.relate(finding, &rival.table.origin.id, &FieldPath::of(rival.at))
    })
}

/// `http[0], http[1]`
fn routes_of(table: &RouteTable) -> String {
    let http = table.http.iter().map(|rule| &rule.at);
    let tls = table.tls.iter().map(|rule| &rule.at);
    let tcp = table.tcp.iter().map(|rule| &rule.at);
    let mut all: Vec<&str> = http.chain(tls).chain(tcp).map(below_spec).collect();
    all.dedup();
    if all.is_empty() { "rules".to_owned() } else { all.join(", ") }
}

fn below_spec(field: &Field) -> &str {
    field.strip_prefix("spec.").unwrap_or(field)
}
