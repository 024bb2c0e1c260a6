//! Annotations of Istio's: whether they exist, where they are looked for, what they may say.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;

use super::input::Input;
use crate::{
    diagnostic::{Change, Code, Diagnostic, FieldPath},
    dialect::{Kind, kubernetes::Deployment, suggest},
};

type Annotations = BTreeMap<Arc<str>, Arc<str>>;

/// How settled an annotation is in Istio.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Alpha,
    Settled,
    Deprecated,
}

use Stage::{Alpha, Deprecated, Settled};

/// Every annotation of Istio 1.31 with the kinds it is looked for on; none: any (istio/api
/// `annotation/annotations.yaml`).
const KNOWN: &[(&str, Stage, &[&str])] = &[
    ("alpha.istio.io/canonical-serviceaccounts", Deprecated, &["Service"]),
    ("alpha.istio.io/kubernetes-serviceaccounts", Deprecated, &["Service"]),
    ("ambient.istio.io/bypass-inbound-capture", Alpha, POD),
    ("ambient.istio.io/dns-capture", Alpha, POD),
    ("ambient.istio.io/redirection", Settled, POD),
    ("ambient.istio.io/waypoint-inbound-binding", Alpha, &["GatewayClass", "Gateway"]),
    ("galley.istio.io/analyze-suppress", Settled, &[]),
    ("gateway.istio.io/controller-version", Settled, &[]),
    ("gateway.istio.io/name-override", Alpha, &["Gateway"]),
    ("gateway.istio.io/service-account", Alpha, &["Gateway"]),
    ("inject.istio.io/templates", Alpha, POD),
    ("istio.io/autoRegistrationGroup", Alpha, &["WorkloadEntry"]),
    ("istio.io/connectedAt", Alpha, &["WorkloadEntry"]),
    ("istio.io/disconnectedAt", Alpha, &["WorkloadEntry"]),
    ("istio.io/dry-run", Alpha, &["AuthorizationPolicy"]),
    ("istio.io/reroute-virtual-interfaces", Alpha, POD),
    ("istio.io/rev", Settled, POD),
    ("istio.io/use-waypoint-canary-weight", Alpha, &["Service", "ServiceEntry", "Namespace"]),
    ("istio.io/workloadController", Alpha, &["WorkloadEntry"]),
    ("kubernetes.io/ingress.class", Settled, &["Ingress"]),
    ("networking.istio.io/exportTo", Alpha, &["Service"]),
    ("networking.istio.io/service-type", Alpha, &["Gateway"]),
    ("networking.istio.io/traffic-distribution", Alpha, &["Namespace", "Service", "ServiceEntry"]),
    ("prometheus.istio.io/merge-metrics", Alpha, POD),
    ("proxy.istio.io/config", Settled, POD),
    ("proxy.istio.io/overrides", Alpha, POD),
    ("readiness.status.sidecar.istio.io/applicationPorts", Alpha, POD),
    ("readiness.status.sidecar.istio.io/failureThreshold", Alpha, POD),
    ("readiness.status.sidecar.istio.io/initialDelaySeconds", Alpha, POD),
    ("readiness.status.sidecar.istio.io/periodSeconds", Alpha, POD),
    ("sidecar.istio.io/agentLogLevel", Alpha, POD),
    ("sidecar.istio.io/bootstrapOverride", Alpha, POD),
    ("sidecar.istio.io/componentLogLevel", Alpha, POD),
    ("sidecar.istio.io/discoveryAddress", Deprecated, POD),
    ("sidecar.istio.io/extraStatTags", Deprecated, POD),
    (INJECT, Deprecated, POD),
    ("sidecar.istio.io/interceptionMode", Alpha, POD),
    ("sidecar.istio.io/logLevel", Alpha, POD),
    ("sidecar.istio.io/nativeSidecar", Alpha, POD),
    ("sidecar.istio.io/proxyCPU", Alpha, POD),
    ("sidecar.istio.io/proxyCPULimit", Alpha, POD),
    ("sidecar.istio.io/proxyImage", Alpha, POD),
    ("sidecar.istio.io/proxyImageType", Alpha, POD),
    ("sidecar.istio.io/proxyMemory", Alpha, POD),
    ("sidecar.istio.io/proxyMemoryLimit", Alpha, POD),
    ("sidecar.istio.io/rewriteAppHTTPProbers", Alpha, POD),
    ("sidecar.istio.io/statsCompression", Deprecated, POD),
    ("sidecar.istio.io/statsEvictionInterval", Alpha, POD),
    ("sidecar.istio.io/statsFlushInterval", Alpha, POD),
    ("sidecar.istio.io/statsHistogramBins", Alpha, POD),
    ("sidecar.istio.io/statsHistogramBuckets", Alpha, POD),
    ("sidecar.istio.io/statsInclusionPrefixes", Deprecated, POD),
    ("sidecar.istio.io/statsInclusionRegexps", Deprecated, POD),
    ("sidecar.istio.io/statsInclusionSuffixes", Deprecated, POD),
    ("sidecar.istio.io/status", Settled, POD),
    ("sidecar.istio.io/userVolume", Alpha, POD),
    ("sidecar.istio.io/userVolumeMount", Alpha, POD),
    ("status.sidecar.istio.io/port", Alpha, POD),
    ("topology.istio.io/controlPlaneClusters", Alpha, &["Namespace"]),
    ("traffic.istio.io/nodeSelector", Settled, &["Service"]),
    ("traffic.sidecar.istio.io/excludeInboundPorts", Alpha, POD),
    ("traffic.sidecar.istio.io/excludeInterfaces", Alpha, POD),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", Alpha, POD),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", Alpha, POD),
    ("traffic.sidecar.istio.io/includeInboundPorts", Alpha, POD),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", Alpha, POD),
    ("traffic.sidecar.istio.io/includeOutboundPorts", Alpha, POD),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", Deprecated, POD),
];

const POD: &[&str] = &["Pod"];

/// The annotation that a label of the same name replaces.
const INJECT: &str = "sidecar.istio.io/inject";

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    for object in input.objects().filter(|object| input.is_wanted(&object.id)) {
        let kind = object.id.kind;
        let looked_at = [Kind::NAMESPACE, Kind::SERVICE, Kind::POD, Kind::DEPLOYMENT];
        if !looked_at.contains(&kind) {
            continue;
        }
        let own = FieldPath::of("metadata.annotations");
        let meta = &object.meta;
        let mut found = check_all(kind.kind_name(), &meta.annotations, &meta.labels, &own);
        if let Some(Deployment { spec }) = object.content() {
            let meta = &spec.template.metadata;
            let at = FieldPath::of("spec.template.metadata.annotations");
            found.extend(check_all("Pod", &meta.annotations, &meta.labels, &at));
        }
        findings.extend(found.into_iter().map(|finding| input.diagnose(&object.id, finding)));
    }
}

/// The findings on the annotations of an object of a kind, which stand at `at`.
fn check_all(
    kind: &str,
    annotations: &Annotations,
    labels: &Annotations,
    at: &FieldPath,
) -> Vec<Diagnostic> {
    let ours = annotations.iter().filter(|(key, _)| is_istio(key));
    let check = |(key, value): (&Arc<str>, &Arc<str>)| {
        let field = at.field(key.clone());
        let Some((name, stage, kinds)) = KNOWN.iter().find(|(name, ..)| **name == **key) else {
            return vec![unknown(key, field)];
        };
        let replaced = *name == INJECT && labels.contains_key(*name);
        let mut found: Vec<Diagnostic> =
            unsettled(name, *stage, replaced, field.clone()).into_iter().collect();
        if !kinds.is_empty() && !kinds.contains(&kind) {
            found.push(misplaced(name, kind, kinds, field));
        } else if let Some(expected) = objection(name, value) {
            let finding = Diagnostic::warning(Code::InvalidAnnotation, field, "cannot be used");
            found.push(finding.expected(expected, format!("`{value}`")));
        }
        found
    };
    ours.flat_map(check).collect()
}

/// Whether an annotation is one that Istio would read.
fn is_istio(key: &str) -> bool {
    let domain = key.split_once('/').map_or(key, |(domain, _)| domain);
    domain.ends_with("istio.io") || key == "kubernetes.io/ingress.class"
}

fn unknown(key: &str, field: FieldPath) -> Diagnostic {
    let message = "no annotation of Istio's";
    let finding = Diagnostic::warning(Code::UnknownAnnotation, field.clone(), message);
    let known = || KNOWN.iter().map(|(name, ..)| *name);
    match (suggest::meant(key, known()), suggest::nearest(key, known())) {
        (Some(name), _) => {
            finding.fix(format!("`{name}`")).change(Change::Rename(field, name.into()))
        }
        (None, Some(near)) => finding.fix(format!("`{near}`")),
        (None, None) => finding.fix("remove it"),
    }
}

fn unsettled(name: &str, stage: Stage, replaced: bool, field: FieldPath) -> Option<Diagnostic> {
    let finding = |message| Diagnostic::info(Code::UnsettledAnnotation, field, message);
    match stage {
        Settled => None,
        // Who has the label too knows it.
        Deprecated if replaced => None,
        Deprecated if name == INJECT => Some(
            finding("deprecated").istio("IST0135").fix(format!("the label `{INJECT}` instead")),
        ),
        Deprecated => Some(finding("deprecated").istio("IST0135").fix("remove it")),
        Alpha => Some(
            finding("an alpha feature of Istio, which may change")
                .fix("remove it, or see what becomes of it with each release"),
        ),
    }
}

fn misplaced(name: &str, kind: &str, kinds: &[&str], field: FieldPath) -> Diagnostic {
    let message = format!("nobody looks for it on a {kind}");
    let fix = match (kind, kinds) {
        ("Deployment", ["Pod"]) => "put it below `spec.template.metadata.annotations`".to_owned(),
        _ => format!("put `{name}` on a {}", kinds.join(", ")),
    };
    Diagnostic::warning(Code::MisplacedAnnotation, field, message)
        .expected(kinds.join(" or "), kind)
        .fix(fix)
}

/// What is expected instead of a value, as Istio's injector reads them.
fn objection(name: &str, value: &str) -> Option<&'static str> {
    let unless = |valid: bool, expected: &'static str| (!valid).then_some(expected);
    let (_, last) = name.rsplit_once('/')?;
    match last {
        "interceptionMode" => {
            unless(matches!(value, "REDIRECT" | "TPROXY" | "NONE"), "REDIRECT, TPROXY or NONE")
        }
        "port" | "initialDelaySeconds" | "periodSeconds" | "failureThreshold" => {
            let largest = if last == "port" { u32::from(u16::MAX) } else { u32::MAX };
            let number = value.parse::<u32>().is_ok_and(|number| number <= largest);
            unless(number, "a whole number")
        }
        "includeOutboundIPRanges" => {
            unless(value == "*" || networks(value), "`*`, or networks separated by commas")
        }
        "excludeOutboundIPRanges" => unless(networks(value), "networks separated by commas"),
        "includeInboundPorts" => {
            unless(value == "*" || ports(value), "`*`, or ports separated by commas")
        }
        "excludeInboundPorts" | "excludeOutboundPorts" => {
            unless(ports(value), "ports separated by commas")
        }
        "excludeInterfaces" | "kubevirtInterfaces" | "reroute-virtual-interfaces" => {
            unless(interfaces(value), "names of interfaces separated by commas")
        }
        "merge-metrics" => {
            unless(crate::dialect::istio::dry_run::means(value).is_some(), "true or false")
        }
        "proxyCPU" | "proxyCPULimit" | "proxyMemory" | "proxyMemoryLimit" => {
            unless(quantity(value), "a quantity such as `100m` or `128Mi`")
        }
        _ => None,
    }
}

fn networks(text: &str) -> bool {
    text.is_empty() || text.split(',').all(|network| network.parse::<IpNet>().is_ok())
}

fn ports(text: &str) -> bool {
    text.trim().is_empty() || text.split(',').all(|port| port.trim().parse::<u16>().is_ok())
}

fn interfaces(text: &str) -> bool {
    /// `IFNAMSIZ` of Linux without the NUL at its end.
    const LONGEST: usize = 15;
    let name = |name: &str| {
        (1..=LONGEST).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ';' | '\'' | '"'))
    };
    text.is_empty() || text.split(',').all(|part| name(part.trim()))
}

/// Whether a text is a quantity of Kubernetes: a number, perhaps with a unit.
fn quantity(text: &str) -> bool {
    const UNITS: [&str; 17] =
        ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3"];
    let digits = text.trim_start_matches(['+', '-']);
    let end = digits.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(digits.len());
    let (number, unit) = digits.split_at(end);
    number.parse::<f64>().is_ok() && UNITS.contains(&unit)
}
