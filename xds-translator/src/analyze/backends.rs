//! DestinationRules: their hosts, their levels, and each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;

use super::{
    clients::nodes,
    input::{Input, reason},
    meant::meant_host,
};
use crate::{
    class::client_view,
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{
        Object,
        istio::destination_rule::{ClientTls, ClientTlsMode, DestinationRule},
    },
    ir::{BackendPolicy, Hostname, ObjectId, Service, Subset, TrafficPolicy, topology},
    plan::{CredentialPart, NamedCredential, credentials},
    snapshot::Reader,
};

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let mut same_host: BTreeMap<(&str, &Hostname), Vec<&BackendPolicy>> = BTreeMap::new();
    for policy in input.backends() {
        let id = &policy.origin.id;
        let mut found: Vec<Diagnostic> =
            unknown_host(input, id, &policy.host).into_iter().collect();
        found.extend(input.object(id).into_iter().flat_map(dropped_blocks));
        found.extend(subsets_without_pods(input, policy));
        found.extend(input.object(id).into_iter().flat_map(unverified_servers));
        findings.extend(found.into_iter().map(|f| input.diagnose(id, f)));
        same_host.entry((&id.namespace, &policy.host)).or_default().push(policy);
    }
    for ((_, host), mut policies) in same_host {
        policies.sort_by(|a, b| a.origin.by_age(&b.origin));
        check_merge(input, host, &policies, findings);
    }
    check_credentials(input, findings);
}

/// Credentials that known clients would ask for and not find in their namespace: gateways, and
/// sidecars that a rule selects.
fn check_credentials(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    if input.backends().all(|policy| policy.credentials().next().is_none()) {
        return;
    }
    let reader = Reader::new(&input.snapshot);
    let mut missing: BTreeMap<NamedCredential, BTreeSet<Arc<str>>> = BTreeMap::new();
    for node in nodes(input).into_iter().filter(|node| !node.workload.name.is_empty()) {
        let Some(view) = client_view(&input.snapshot, &node) else { continue };
        let namespace = &node.workload.namespace;
        let lacking = credentials(&reader, &view);
        for named in lacking.into_iter().filter(|named| lacks(input, namespace, named)) {
            missing.entry(named).or_default().insert(namespace.clone());
        }
    }
    for (named, namespaces) in &missing {
        findings.extend(missing_credential(input, named, namespaces));
    }
}

/// Whether a namespace lacks a credential, or the authority in it or beside it.
fn lacks(input: &Input<'_>, namespace: &Arc<str>, named: &NamedCredential) -> bool {
    let credentials = input.snapshot.credentials();
    let find = |name: Arc<str>| credentials.get(&(namespace.clone(), name));
    let own = find(named.name.clone());
    // Another provider of secrets knows what it has.
    let foreign = named.name.contains("://");
    let there = match named.part {
        CredentialPart::Certificate => own.is_some(),
        CredentialPart::Authority => {
            own.is_some_and(|fact| fact.holds_ca) || find(beside(&named.name)).is_some()
        }
    };
    !there && !foreign
}

/// The credential in which the authority may stand apart.
fn beside(name: &str) -> Arc<str> {
    format!("{name}-cacert").into()
}

/// The findings at every place where the rule names the credential.
fn missing_credential(
    input: &Input<'_>,
    named: &NamedCredential,
    namespaces: &BTreeSet<Arc<str>>,
) -> Vec<Diagnostic> {
    let NamedCredential { policy, name, part } = named;
    let all = namespaces.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
    let (message, fix) = match part {
        CredentialPart::Certificate => (
            format!("Secret `{name}` is not in namespace {all}, where clients are to use it"),
            format!("create Secret `{name}` there"),
        ),
        CredentialPart::Authority => {
            let apart = beside(name);
            (
                format!(
                    "no CA for the server: neither Secret `{apart}` in namespace {all}, where clients are to use it, nor `ca.crt` in `{name}`"
                ),
                format!("create Secret `{apart}` there, with the key `ca.crt`"),
            )
        }
    };
    let written = input.object(policy).map(Object::raw);
    let mut fields = Vec::new();
    let spec = written.as_ref().and_then(|written| written.get("spec"));
    spec.iter().for_each(|spec| places(spec, &FieldPath::of("spec"), name, &mut fields));
    let finding = |field| {
        let finding = Diagnostic::error_ref(Code::MissingCredential, field, message.clone());
        input.diagnose(policy, finding.fix(fix.clone()))
    };
    fields.into_iter().map(finding).collect()
}

/// Where a credential of this name is asked for, below a field.
fn places(value: &Value, at: &FieldPath, name: &str, found: &mut Vec<FieldPath>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let field = at.field(key.as_str());
                if key == "credentialName" && value.as_str() == Some(name) {
                    found.push(field.clone());
                }
                places(value, &field, name, found);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                places(item, &at.index(i), name, found);
            }
        }
        _ => {}
    }
}

fn unknown_host(input: &Input<'_>, id: &ObjectId, host: &Hostname) -> Option<Diagnostic> {
    let services = input.snapshot.services();
    let known =
        services.defining(host).next().is_some() || services.overlapping(host).next().is_some();
    (!known && !host.as_str().is_empty()).then(|| {
        let message = format!("`{host}` is no host of a Service or ServiceEntry");
        let field = FieldPath::of("spec.host");
        let finding = Diagnostic::error_ref(Code::MissingReference, field.clone(), message)
            .istio("IST0174")
            .fix("the host of a Service or ServiceEntry, or delete the object");
        match meant_host(input, id, &field, host) {
            Some(meant) => finding.instead(meant),
            None => finding,
        }
    })
}

/// TLS for which no authority is named: servers are verified by the roots of the proxy's system,
/// or not at all.
fn unverified_servers(object: &Object) -> Vec<Diagnostic> {
    let Some(rule) = object.content::<DestinationRule>() else { return Vec::new() };
    let selects = rule.workload_selector.is_some();
    let Some(policy) = &rule.traffic_policy else { return Vec::new() };
    let at = FieldPath::of("spec.trafficPolicy");
    let whole = policy.tls.as_ref().and_then(|tls| unverified(tls, selects, at.field("tls")));
    let ports = policy.port_level_settings.iter().enumerate().filter_map(|(index, port)| {
        let at = at.field("portLevelSettings").index(index).field("tls");
        Some(unverified(port.tls.as_ref()?, selects, at)?.istio("IST0129"))
    });
    whole.into_iter().chain(ports).collect()
}

fn unverified(tls: &ClientTls, selects: bool, at: FieldPath) -> Option<Diagnostic> {
    let mode = tls.mode.filter(|m| matches!(m, ClientTlsMode::Simple | ClientTlsMode::Mutual))?;
    let named = !tls.ca_certificates.is_empty() || (selects && !tls.credential_name.is_empty());
    if named {
        return None;
    }
    let what = match tls.insecure_skip_verify {
        Some(true) => "the server is not verified",
        _ => "the server is verified by the roots of the proxy's system, whoever they are",
    };
    let message = format!("mode {} without `caCertificates`: {what}", mode.as_str());
    let finding = Diagnostic::warning(Code::UnverifiedServer, at, message);
    Some(finding.fix("`caCertificates` with the authority of the server's certificate"))
}

/// A block of a subset replaces the whole block above it: what only the upper one says is lost.
fn dropped_blocks(object: &Object) -> Vec<Diagnostic> {
    let policy =
        |value: &Value, block: &str| value.get("trafficPolicy").and_then(|p| p.get(block)).cloned();
    let written = object.raw();
    let Some(spec) = written.get("spec") else { return Vec::new() };
    let mut found = Vec::new();
    for block in ["connectionPool", "outlierDetection"] {
        let Some(upper) = policy(spec, block) else { continue };
        let subsets = spec.get("subsets").and_then(Value::as_array).into_iter().flatten();
        for (index, subset) in subsets.enumerate() {
            let Some(lower) = policy(subset, block) else { continue };
            let kept = leaves(&lower);
            let dropped: Vec<String> = leaves(&upper)
                .into_iter()
                .filter(|l| !kept.contains(l))
                .map(|l| format!("`{l}`"))
                .collect();
            if !dropped.is_empty() {
                let path =
                    FieldPath::of("spec.subsets").index(index).field("trafficPolicy").field(block);
                let message =
                    format!("replaces the block above whole, and so drops {}", dropped.join(", "));
                found.push(
                    Diagnostic::warning(Code::DropsSettings, path, message).fix("repeat them here"),
                );
            }
        }
    }
    found
}

/// Names of the scalar fields below a value.
fn leaves(value: &Value) -> Vec<String> {
    let Value::Object(map) = value else { return Vec::new() };
    map.iter()
        .flat_map(|(key, value)| if value.is_object() { leaves(value) } else { vec![key.clone()] })
        .collect()
}

/// Subsets that select nothing, where pods are known. Such a subset is no name that leads nowhere:
/// its cluster is there, without endpoints.
fn subsets_without_pods(input: &Input<'_>, policy: &BackendPolicy) -> Vec<Diagnostic> {
    let snapshot = &input.snapshot;
    let services: Vec<&Arc<Service>> = snapshot.services().defining(&policy.host).collect();
    let pods = || services.iter().flat_map(|service| snapshot.behind(service));
    if pods().next().is_none() {
        return Vec::new();
    }
    // Where pods run, only the cluster knows: what is known of that here says nothing.
    let placed = |s: &Subset| s.labels.keys().any(|key| topology::ALL.contains(&&**key));
    let selects = |s: &Subset| pods().any(|pod| s.selects(|key| pod.label(key)));
    let empty = |s: &&Subset| !placed(s) && !selects(s);
    let finding = |s: &Subset| {
        let message = format!("subset `{}` selects no pod of `{}`", s.name, policy.host);
        let field = FieldPath::of(&s.at).field("labels");
        Diagnostic::error_ref(Code::EmptySubset, field, message)
            .fix("labels that pods of the service have; who is sent there gets 503 (UH)")
    };
    policy.subsets.iter().filter(empty).map(finding).collect()
}

/// Several rules for one host in one namespace: new subsets are added, the first top-level policy
/// wins, as when they are planned.
fn check_merge(
    input: &Input<'_>,
    host: &Hostname,
    policies: &[&BackendPolicy],
    findings: &mut Vec<Diagnostic>,
) {
    for (i, policy) in policies.iter().enumerate() {
        // Who uses this one uses those too, unless some are for other clients.
        let earlier: Vec<&BackendPolicy> = policies[..i]
            .iter()
            .copied()
            .filter(|other| {
                other.export_to.covers(&policy.export_to)
                    && other.workload_selector == policy.workload_selector
            })
            .collect();
        findings.extend(ignored_settings(input, host, policy, &earlier));
        findings.extend(
            policy
                .subsets
                .iter()
                .filter_map(|subset| ignored_subset(input, policy, subset, &earlier)),
        );
    }
}

fn ignored_settings(
    input: &Input<'_>,
    host: &Hostname,
    policy: &BackendPolicy,
    earlier: &[&BackendPolicy],
) -> Option<Diagnostic> {
    let speaks = |policy: &&BackendPolicy| policy.traffic != TrafficPolicy::default();
    let winner = earlier.iter().copied().find(speaks).filter(|_| speaks(&policy))?;
    let message = format!(
        "ignored: {} for `{host}` has one too and comes first ({}); subsets of both stay",
        winner.origin.id,
        reason(&winner.origin, &policy.origin)
    );
    let field = FieldPath::of("spec.trafficPolicy");
    let finding = Diagnostic::warning(Code::NoEffect, field.clone(), message)
        .fix("merge them into one DestinationRule");
    let finding = input.diagnose(&policy.origin.id, finding);
    Some(input.relate(finding, &winner.origin.id, &field))
}

fn ignored_subset(
    input: &Input<'_>,
    policy: &BackendPolicy,
    subset: &Subset,
    earlier: &[&BackendPolicy],
) -> Option<Diagnostic> {
    let same = |s: &Subset| (&s.labels, &s.traffic) == (&subset.labels, &subset.traffic);
    let another = |p: &&BackendPolicy| p.subsets.iter().any(|s| s.name == subset.name && !same(s));
    let winner = earlier.iter().copied().find(another)?;
    let message = format!("ignored: {} defines subset `{}` already", winner.origin.id, subset.name);
    let finding = Diagnostic::warning(Code::NoEffect, FieldPath::of(&subset.at), message);
    let finding = input.diagnose(&policy.origin.id, finding);
    Some(input.relate(finding, &winner.origin.id, &FieldPath::of("spec.subsets")))
}
