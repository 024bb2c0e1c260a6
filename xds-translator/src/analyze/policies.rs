//! PeerAuthentications, AuthorizationPolicies and Sidecars: whom they select, and each other.

use std::{collections::BTreeMap, sync::Arc};

use super::input::{Input, reason};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{
        Kind, Object,
        istio::{
            security::{Action, AuthorizationPolicy},
            shared::ServerTlsMode,
            sidecar::Sidecar,
        },
    },
    ir::{AccessPolicy, Labels, Origin, PeerTls, Quota, Selector, Workload},
    plan::{NobodyAsked, NobodyCounts, authorizer, counter},
    snapshot::{Item, Reader},
};

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    check_same_selector(input, findings);
    check_overlapping_selectors(input, findings);
    check_denials(input, findings);
    check_optional_tokens(input, findings);
    check_selectors(input, findings);
    check_authorizers(input, findings);
    check_counters(input, findings);
    check_namespaces(input, findings);
    check_ingress_tls(input, findings);
}

/// TLS of a Sidecar's listeners at workloads whose ports take the mesh's own.
fn check_ingress_tls(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let reader = Reader::new(&input.snapshot);
    for policy in policies(input).filter(|policy| input.is_wanted(&policy.origin.id)) {
        let id = &policy.origin.id;
        let Some(sidecar) = input.object(id).and_then(|object| object.content::<Sidecar>()) else {
            continue;
        };
        for (index, listener) in sidecar.ingress.iter().enumerate() {
            let mode = listener.tls.as_ref().map(|tls| tls.mode.unwrap_or_default());
            let terminates = mode.is_some_and(|mode| mode != ServerTlsMode::Passthrough);
            let number = listener.port.number;
            let takes_mesh_tls = |w: &&Arc<Workload>| {
                let (namespace, labels) = (&w.id.namespace, &w.labels);
                reader.peer_tls(namespace, labels, Some(number)) != PeerTls::Disable
            };
            let Some(workload) = policy.governed(input).find(takes_mesh_tls).filter(|_| terminates)
            else {
                continue;
            };
            let message = format!(
                "not in force at workload `{}`: mutual TLS of the mesh is not off for port {number}, \
                 which takes nothing else then",
                workload.id.name
            );
            let field = FieldPath::of("spec.ingress").index(index).field("tls");
            let fix = format!(
                "a PeerAuthentication for these workloads with `portLevelMtls: {{{number}: {{mode: DISABLE}}}}`"
            );
            let finding = Diagnostic::warning(Code::NoEffect, field, message).fix(fix);
            findings.push(input.diagnose(id, finding));
        }
    }
}

/// Namespaces that policies name and that are not there, where namespaces are known.
fn check_namespaces(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let known: Vec<&str> = input
        .objects()
        .filter(|object| object.id.kind == Kind::NAMESPACE)
        .map(|object| &*object.id.name)
        .collect();
    if known.is_empty() {
        return;
    }
    for object in input.objects().filter(|object| input.is_wanted(&object.id)) {
        let Some(policy) = object.content::<AuthorizationPolicy>() else { continue };
        for (i, rule) in policy.rules.iter().enumerate() {
            for (j, from) in rule.from.iter().enumerate() {
                let Some(source) = &from.source else { continue };
                let at =
                    FieldPath::of("spec.rules").index(i).field("from").index(j).field("source");
                let named =
                    [("namespaces", &source.namespaces), ("notNamespaces", &source.not_namespaces)];
                for (field, names) in named {
                    let unknown = names.iter().enumerate().filter(|(_, name)| {
                        !known.iter().any(|namespace| is_meant(name, namespace))
                    });
                    findings.extend(unknown.map(|(k, name)| {
                        let message = format!("no namespace is `{name}`");
                        let at = at.field(field).index(k);
                        let finding = Diagnostic::error_ref(Code::MissingReference, at, message)
                            .fix("the name of a namespace, or create it");
                        input.diagnose(&object.id, finding)
                    }));
                }
            }
        }
    }
}

/// Whether a pattern, with `*` at one end, is for a name.
fn is_meant(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(suffix), _) => name.ends_with(suffix),
        (_, Some(prefix)) => name.starts_with(prefix),
        _ => pattern == name,
    }
}

/// An item that is for selected workloads.
struct Policy<'a> {
    item: &'a Item,
    origin: &'a Origin,
    selector: &'a Selector,
    /// Where the selector is written, below `spec`.
    field: &'static str,
}

impl<'a> Policy<'a> {
    /// `None` for items that select no workloads.
    fn of(item: &'a Item) -> Option<Self> {
        let (origin, selector, field) = match item {
            Item::PeerTls(policy) => (&policy.origin, &policy.selector, "selector"),
            Item::Access(policy) => (&policy.origin, &policy.selector, "selector"),
            Item::Tokens(policy) => (&policy.origin, &policy.selector, "selector"),
            Item::Scope(scope) => (&scope.origin, &scope.selector, "workloadSelector"),
            Item::Patches(set) => (&set.origin, &set.selector, "workloadSelector"),
            Item::Telemetry(policy) => (&policy.origin, &policy.selector, "selector"),
            Item::Proxy(policy) => (&policy.origin, &policy.selector, "selector"),
            _ => return None,
        };
        Some(Self { item, origin, selector, field })
    }

    /// Whether of several with one selector only the oldest counts.
    fn is_exclusive(&self) -> bool {
        let exclusive = matches!(self.item, Item::PeerTls(_) | Item::Scope(_) | Item::Telemetry(_));
        exclusive || matches!(self.item, Item::Proxy(_))
    }

    fn governs(&self, root: &str, namespace: &str, labels: &Labels) -> bool {
        match self.item {
            Item::PeerTls(policy) => policy.governs(root, namespace, labels),
            Item::Access(policy) => policy.governs(namespace, labels),
            Item::Tokens(policy) => policy.governs(namespace, labels),
            Item::Scope(scope) => scope.governs(root, namespace, labels),
            Item::Patches(set) => set.governs(root, namespace, labels),
            Item::Telemetry(policy) => policy.governs(root, namespace, labels),
            Item::Proxy(policy) => policy.governs(root, namespace, labels),
            _ => false,
        }
    }

    /// The workloads that it is for.
    fn governed(&self, input: &'a Input<'_>) -> impl Iterator<Item = &'a Arc<Workload>> {
        let all = input.snapshot.all_workloads();
        all.filter(|w| self.governs(input.root(), &w.id.namespace, &w.labels))
    }
}

fn policies<'a>(input: &'a Input<'_>) -> impl Iterator<Item = Policy<'a>> {
    input.items().iter().filter_map(Policy::of)
}

/// Of these kinds one object serves a workload: two with one selector are ambiguous.
fn check_same_selector(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let mut groups: BTreeMap<_, Vec<Policy<'_>>> = BTreeMap::new();
    for policy in policies(input).filter(Policy::is_exclusive) {
        let id = &policy.origin.id;
        groups.entry((id.kind, &id.namespace, policy.selector)).or_default().push(policy);
    }
    for mut group in groups.into_values() {
        group.sort_by(|a, b| a.origin.by_age(b.origin));
        let Some((winner, losers)) = group.split_first() else { continue };
        findings.extend(losers.iter().map(|loser| ambiguous(input, winner, loser)));
    }
}

/// What it is called that an object of this kind is ignored.
fn conflict(loser: &Policy<'_>) -> Code {
    match loser.item {
        Item::Telemetry(_) if loser.selector.is_empty() => Code::ConflictingTelemetry,
        Item::Telemetry(_) => Code::ConflictingTelemetrySelectors,
        _ => Code::ConflictingPolicies,
    }
}

fn ambiguous(input: &Input<'_>, winner: &Policy<'_>, loser: &Policy<'_>) -> Diagnostic {
    let (what, field) = if loser.selector.is_empty() {
        ("no selector, as", FieldPath::of("spec"))
    } else {
        ("same selector as", FieldPath::of("spec").field(loser.field))
    };
    let (first, second) = (winner.origin, loser.origin);
    let message = format!(
        "{what} `{}`, which wins ({}); this one is ignored",
        first.id.name,
        reason(first, second)
    );
    let finding =
        Diagnostic::error_ref(conflict(loser), field.clone(), message).fix("delete one of them");
    let finding = match loser.selector.is_empty() && matches!(loser.item, Item::Scope(_)) {
        true => finding.istio("IST0111"),
        false => finding,
    };
    input.relate(input.diagnose(&second.id, finding), &first.id, &field)
}

/// Policies of these kinds whose selectors differ and meet in a workload: the oldest serves it.
fn check_overlapping_selectors(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let mut exclusive: Vec<Policy<'_>> = policies(input)
        .filter(|policy| policy.is_exclusive() && !policy.selector.is_empty())
        .collect();
    exclusive.sort_by(|a, b| a.origin.by_age(b.origin));
    // By the numbers of winner and loser: the workloads that both select.
    let mut met: BTreeMap<(usize, usize), Vec<&Arc<Workload>>> = BTreeMap::new();
    for workload in input.snapshot.all_workloads() {
        let mut winners: BTreeMap<Kind, usize> = BTreeMap::new();
        for (number, policy) in exclusive.iter().enumerate() {
            if policy.governs(input.root(), &workload.id.namespace, &workload.labels) {
                let winner = *winners.entry(policy.origin.id.kind).or_insert(number);
                if policy.selector != exclusive[winner].selector {
                    met.entry((winner, number)).or_default().push(workload);
                }
            }
        }
    }
    findings.extend(met.iter().map(|((winner, loser), workloads)| {
        overlapping(input, &exclusive[*winner], &exclusive[*loser], workloads)
    }));
}

fn overlapping(
    input: &Input<'_>,
    winner: &Policy<'_>,
    loser: &Policy<'_>,
    workloads: &[&Arc<Workload>],
) -> Diagnostic {
    let field = FieldPath::of("spec").field(loser.field);
    let (first, second) = (winner.origin, loser.origin);
    let others = match workloads.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!(
        "`{}` selects workload `{}`{others} too and wins there ({}); this one is ignored",
        first.id.name,
        workloads[0].id.name,
        reason(first, second)
    );
    let finding = Diagnostic::error_ref(conflict(loser), field.clone(), message)
        .fix("selectors of which only one selects each workload");
    input.relate(input.diagnose(&second.id, finding), &first.id, &field)
}

/// Whether an object refuses everything: ALLOW without rules allows nothing.
fn denies_all(object: &Object) -> bool {
    let Some(policy) = object.content::<AuthorizationPolicy>() else { return false };
    match policy.action {
        Action::Allow => policy.rules.is_empty(),
        Action::Deny => {
            policy.rules.iter().any(|r| r.from.is_empty() && r.to.is_empty() && r.when.is_empty())
        }
        Action::Audit | Action::Custom => false,
    }
}

fn check_denials(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    for policy in policies(input) {
        let id = &policy.origin.id;
        if !input.object(id).is_some_and(denies_all) {
            continue;
        }
        let count = policy.governed(input).filter(|w| input.is_proxied(w)).count();
        let scope = if *id.namespace == *input.root() { "the mesh" } else { &id.namespace };
        let workloads = if count == 1 { "workload" } else { "workloads" };
        let message = format!("denies all traffic to {count} {workloads} in {scope}");
        let finding = Diagnostic::info(Code::DeniesAll, FieldPath::of("spec"), message);
        findings.push(input.diagnose(id, finding));
    }
}

/// RequestAuthentications at whose workloads nobody has to have a token: only bad ones are refused.
fn check_optional_tokens(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let reader = Reader::new(&input.snapshot);
    let asks = |workload: &Arc<Workload>| {
        let (namespace, labels) = (&workload.id.namespace, &workload.labels);
        let policies = reader.access_policies(namespace, labels);
        let tokens = reader.token_policies(namespace, labels);
        policies.iter().any(|policy| policy.looks_at_tokens())
            || tokens.iter().any(|policy| policy.rules.iter().any(|rule| rule.check.required))
    };
    for policy in policies(input).filter(|policy| input.is_wanted(&policy.origin.id)) {
        let Item::Tokens(tokens) = policy.item else { continue };
        let mut governed = policy.governed(input).peekable();
        // Who selects nobody is told that.
        if tokens.rules.is_empty() || governed.peek().is_none() || governed.any(asks) {
            continue;
        }
        let message = "no policy requires `requestPrincipals`, so requests without a token pass";
        let finding = Diagnostic::info(Code::OptionalTokens, FieldPath::of("spec"), message)
            .fix("an AuthorizationPolicy whose rules have `requestPrincipals: [\"*\"]`");
        findings.push(input.diagnose(&policy.origin.id, finding));
    }
}

/// Policies that ask somebody who cannot be asked: what they match is refused.
fn check_authorizers(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let asking = input.items().iter().filter_map(|item| match item {
        Item::Access(policy) => Some((policy, policy.authorizer.as_deref()?)),
        _ => None,
    });
    let asking: Vec<(&Arc<AccessPolicy>, &str)> = asking.collect();
    let reader = Reader::new(&input.snapshot);
    for (policy, name) in &asking {
        let field = FieldPath::of("spec.provider.name");
        let id = &policy.origin.id;
        if let Some(message) = nobody_asked(&reader, name) {
            let message = format!("{message}, so that all that this policy matches is refused");
            let finding = Diagnostic::error_ref(Code::MissingReference, field.clone(), message);
            findings.push(input.diagnose(id, finding));
        }
        let rival = |(other, asked): &&(&Arc<AccessPolicy>, &str)| {
            let mut all = input.snapshot.all_workloads();
            let governs =
                |policy: &AccessPolicy, w: &Workload| policy.governs(&w.id.namespace, &w.labels);
            asked != name && all.any(|w| governs(policy, w) && governs(other, w))
        };
        if let Some((other, asked)) = asking.iter().find(rival) {
            let message = format!(
                "`{}` has `{asked}` asked at the same workloads: of two nobody is asked, and all that \
                 they match is refused",
                other.origin.id.name
            );
            let finding = Diagnostic::error_ref(Code::ConflictingPolicies, field.clone(), message)
                .fix("one provider for each workload");
            findings.push(input.relate(input.diagnose(id, finding), &other.origin.id, &field));
        }
    }
}

fn nobody_asked(reader: &Reader<'_>, name: &str) -> Option<String> {
    let reason = authorizer(reader, name).err()?;
    let known = reader.mesh().authorizers.get(name);
    Some(match (reason, known) {
        (NobodyAsked::Unknown, _) | (_, None) => {
            format!(
                "no `extensionProviders` of the mesh configuration that is asked is called `{name}`"
            )
        }
        (NobodyAsked::Host, Some(known)) => {
            format!("no service has the host `{}` of provider `{name}`", known.host)
        }
        (NobodyAsked::Port, Some(known)) => {
            format!("`{}` of provider `{name}` has no port {}", known.host, known.port)
        }
    })
}

/// Limits that nobody can count: whom they are for passes never, or always.
fn check_counters(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let reader = Reader::new(&input.snapshot);
    for item in input.items() {
        let Item::RateLimit(limit) = item else { continue };
        let Quota::Shared(shared) = &limit.quota else { continue };
        let Err(reason) = counter(&reader, limit, shared) else { continue };
        let (field, lack) = match reason {
            NobodyCounts::Host => ("service", format!("no service has the host `{}`", shared.host)),
            NobodyCounts::Port => {
                ("port", format!("`{}` has no port {}", shared.host, shared.port))
            }
            NobodyCounts::Protocol => {
                let of = format!("port {} of `{}`", shared.port, shared.host);
                ("port", format!("{of} is not declared to speak gRPC"))
            }
        };
        let then = if shared.fail_open { "nothing is limited" } else { "every request is refused" };
        let field = FieldPath::of("spec.global").field(field);
        let message = format!("{lack}, so that {then}");
        let finding = Diagnostic::error_ref(Code::MissingReference, field, message);
        findings.push(input.diagnose(&limit.origin.id, finding));
    }
}

/// Selectors that select nothing, where workloads are known.
fn check_selectors(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    if !input.knows_workloads() {
        return;
    }
    for policy in policies(input).filter(|policy| !policy.selector.is_empty()) {
        if policy.governed(input).next().is_none() {
            let path = FieldPath::of("spec").field(policy.field);
            let finding = Diagnostic::warning(Code::SelectsNothing, path, "selects no workload")
                .fix("labels that workloads have");
            let finding = match policy.item {
                Item::Scope(_) => finding.istio("IST0101"),
                _ => finding,
            };
            findings.push(input.diagnose(&policy.origin.id, finding));
        }
    }
}
