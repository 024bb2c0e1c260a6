//! Annotations and labels of Istio's groups, and our own: which there are, on what they are looked for,
//! and what becomes of them here.
//!
//! Names are those of Istio 1.31 (istio/api `annotation/annotations.yaml`, `label/labels.yaml`).
//! What their values may be is said where they are read.

use std::{collections::BTreeMap, sync::Arc};

/// What the value of an annotation that is a flag means.
pub use super::dry_run::means;
use crate::{
    diagnostic::{Change, Code, Diagnostic, FieldPath},
    dialect::suggest,
};

/// Annotations or labels of an object.
pub type Marks = BTreeMap<Arc<str>, Arc<str>>;

/// How settled one is in Istio.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It may change.
    Alpha,
    /// It stays.
    Settled,
    /// It goes.
    Deprecated,
}

/// What becomes of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Somebody reads it, or it only tells people who wrote the object.
    Acted,
    /// Nothing follows from it; why, or what does instead.
    Idle(&'static str),
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its whole name.
    pub name: &'static str,
    /// How settled it is.
    pub stage: Stage,
    /// The kinds that it is looked for on; none: any.
    pub kinds: &'static [&'static str],
    /// What becomes of it.
    pub fate: Fate,
}

use Fate::{Acted, Idle};
use Stage::{Alpha, Deprecated, Settled};

const fn row(
    name: &'static str,
    stage: Stage,
    kinds: &'static [&'static str],
    fate: Fate,
) -> Known {
    Known { name, stage, kinds, fate }
}

const POD: &[&str] = &["Pod"];
const NO_AMBIENT: &str = "there is no ambient mode: pods have proxies of their own";
const NO_GATEWAY_API: &str = "Gateway API is not served yet";
const EVERY_INTERFACE: &str = "traffic of every interface is redirected";
/// What asks for nothing, as a value.
const NOTHING: [&str; 2] = ["", "none"];
const ONE_CLUSTER: &str = "a mesh is one cluster and one network";

/// Asks for a proxy, or for none; as an annotation it is replaced by the label of the same name.
pub const INJECT: &str = "sidecar.istio.io/inject";
/// Settings of a pod's own proxy (Istio `ProxyConfig`).
pub const PROXY_CONFIG: &str = "proxy.istio.io/config";
/// Which proxy a pod gets, or the pods of a namespace.
const PROXY_KIND: &str = "ferromesh.io/proxy";
/// How traffic gets to a pod's proxy.
pub const INTERCEPTION: &str = "sidecar.istio.io/interceptionMode";
/// The proxy is a native sidecar; it always is.
const NATIVE: &str = "sidecar.istio.io/nativeSidecar";

/// Every annotation.
pub const ANNOTATIONS: &[Known] = &[
    row(
        "alpha.istio.io/canonical-serviceaccounts",
        Deprecated,
        &["Service"],
        Idle("deprecated: accounts of a service are those of its workloads"),
    ),
    row(
        "alpha.istio.io/kubernetes-serviceaccounts",
        Deprecated,
        &["Service"],
        Idle("deprecated: accounts of a service are those of its workloads"),
    ),
    row("ambient.istio.io/bypass-inbound-capture", Alpha, POD, Idle(NO_AMBIENT)),
    row("ambient.istio.io/dns-capture", Alpha, POD, Idle(NO_AMBIENT)),
    row("ambient.istio.io/redirection", Settled, POD, Acted),
    row(
        "ambient.istio.io/waypoint-inbound-binding",
        Alpha,
        &["GatewayClass", "Gateway"],
        Idle(NO_AMBIENT),
    ),
    row(PROXY_KIND, Settled, POD, Acted),
    row("galley.istio.io/analyze-suppress", Settled, &[], Acted),
    row("gateway.istio.io/controller-version", Settled, &[], Acted),
    row("gateway.istio.io/name-override", Alpha, &["Gateway"], Idle(NO_GATEWAY_API)),
    row("gateway.istio.io/service-account", Alpha, &["Gateway"], Idle(NO_GATEWAY_API)),
    row("inject.istio.io/templates", Alpha, POD, Acted),
    row("istio.io/autoRegistrationGroup", Alpha, &["WorkloadEntry"], Acted),
    row("istio.io/connectedAt", Alpha, &["WorkloadEntry"], Acted),
    row("istio.io/disconnectedAt", Alpha, &["WorkloadEntry"], Acted),
    row("istio.io/dry-run", Alpha, &["AuthorizationPolicy"], Acted),
    row("istio.io/reroute-virtual-interfaces", Alpha, POD, Idle(EVERY_INTERFACE)),
    row("istio.io/rev", Settled, POD, Acted),
    row(
        "istio.io/use-waypoint-canary-weight",
        Alpha,
        &["Service", "ServiceEntry", "Namespace"],
        Idle(NO_AMBIENT),
    ),
    row("istio.io/workloadController", Alpha, &["WorkloadEntry"], Acted),
    row("kubernetes.io/ingress.class", Settled, &["Ingress"], Acted),
    row("networking.istio.io/exportTo", Alpha, &["Service"], Acted),
    row("networking.istio.io/service-type", Alpha, &["Gateway"], Idle(NO_GATEWAY_API)),
    row(
        "networking.istio.io/traffic-distribution",
        Alpha,
        &["Namespace", "Service", "ServiceEntry"],
        Acted,
    ),
    row("prometheus.istio.io/merge-metrics", Alpha, POD, Acted),
    row(
        "prometheus.istio.io/scrape-targets",
        Alpha,
        POD,
        Idle("the application is scraped where its prometheus.io annotations say"),
    ),
    row(
        "prometheus.istio.io/secure-port",
        Alpha,
        POD,
        Idle("metrics are answered in the clear on the agent's port"),
    ),
    row("proxy.istio.io/config", Settled, POD, Acted),
    row("proxy.istio.io/overrides", Alpha, POD, Acted),
    row(
        "readiness.status.sidecar.istio.io/applicationPorts",
        Alpha,
        POD,
        Idle("whether the application is ready is said by its own probes"),
    ),
    row("readiness.status.sidecar.istio.io/failureThreshold", Alpha, POD, Acted),
    row("readiness.status.sidecar.istio.io/initialDelaySeconds", Alpha, POD, Acted),
    row("readiness.status.sidecar.istio.io/periodSeconds", Alpha, POD, Acted),
    row("sidecar.istio.io/agentLogLevel", Alpha, POD, Acted),
    row(
        "sidecar.istio.io/bootstrapOverride",
        Alpha,
        POD,
        Idle("the bootstrap is made by the agent alone"),
    ),
    row(
        "sidecar.istio.io/capNetBindService",
        Alpha,
        POD,
        Idle("a gateway listens on low ports without a capability"),
    ),
    row(
        "sidecar.istio.io/componentLogLevel",
        Alpha,
        POD,
        Idle(
            "use sidecar.istio.io/logLevel: for our proxy with target=level pairs, for an Envoy with one level",
        ),
    ),
    row(
        "sidecar.istio.io/discoveryAddress",
        Deprecated,
        POD,
        Idle("where proxies find the control plane is said by the settings of injection"),
    ),
    row("sidecar.istio.io/extraStatTags", Deprecated, POD, Acted),
    row(INJECT, Deprecated, POD, Acted),
    row(INTERCEPTION, Alpha, POD, Acted),
    row("sidecar.istio.io/logLevel", Alpha, POD, Acted),
    row("sidecar.istio.io/nativeSidecar", Alpha, POD, Acted),
    row("sidecar.istio.io/proxyCPU", Alpha, POD, Acted),
    row("sidecar.istio.io/proxyCPULimit", Alpha, POD, Acted),
    row("sidecar.istio.io/proxyImage", Alpha, POD, Acted),
    row(
        "sidecar.istio.io/proxyImageType",
        Alpha,
        POD,
        Idle("there is one image of each kind of proxy"),
    ),
    row("sidecar.istio.io/proxyMemory", Alpha, POD, Acted),
    row("sidecar.istio.io/proxyMemoryLimit", Alpha, POD, Acted),
    row("sidecar.istio.io/rewriteAppHTTPProbers", Alpha, POD, Acted),
    row(
        "sidecar.istio.io/statsCompression",
        Deprecated,
        POD,
        Idle("metrics are answered as they are"),
    ),
    row(
        "sidecar.istio.io/statsEvictionInterval",
        Alpha,
        POD,
        Idle("statistics of what is gone go with it"),
    ),
    row("sidecar.istio.io/statsFlushInterval", Alpha, POD, Acted),
    row(
        "sidecar.istio.io/statsHistogramBins",
        Alpha,
        POD,
        Idle("use sidecar.istio.io/statsHistogramBuckets"),
    ),
    row("sidecar.istio.io/statsHistogramBuckets", Alpha, POD, Acted),
    row("sidecar.istio.io/statsInclusionPrefixes", Deprecated, POD, Acted),
    row("sidecar.istio.io/statsInclusionRegexps", Deprecated, POD, Acted),
    row("sidecar.istio.io/statsInclusionSuffixes", Deprecated, POD, Acted),
    row("sidecar.istio.io/status", Settled, POD, Acted),
    row("sidecar.istio.io/userVolume", Alpha, POD, Acted),
    row("sidecar.istio.io/userVolumeMount", Alpha, POD, Acted),
    row("status.sidecar.istio.io/port", Alpha, POD, Acted),
    row("topology.istio.io/controlPlaneClusters", Alpha, &["Namespace"], Idle(ONE_CLUSTER)),
    row("traffic.istio.io/nodeSelector", Settled, &["Service"], Idle(ONE_CLUSTER)),
    row("traffic.sidecar.istio.io/excludeInboundPorts", Alpha, POD, Acted),
    row("traffic.sidecar.istio.io/excludeInterfaces", Alpha, POD, Idle(EVERY_INTERFACE)),
    row("traffic.sidecar.istio.io/excludeOutboundIPRanges", Alpha, POD, Acted),
    row("traffic.sidecar.istio.io/excludeOutboundPorts", Alpha, POD, Acted),
    row("traffic.sidecar.istio.io/includeInboundPorts", Alpha, POD, Acted),
    row("traffic.sidecar.istio.io/includeOutboundIPRanges", Alpha, POD, Acted),
    row("traffic.sidecar.istio.io/includeOutboundPorts", Alpha, POD, Acted),
    row("traffic.sidecar.istio.io/kubevirtInterfaces", Deprecated, POD, Idle(EVERY_INTERFACE)),
];

/// Every label.
pub const LABELS: &[Known] = &[
    row(PROXY_KIND, Settled, &["Pod", "Namespace"], Acted),
    row("gateway.istio.io/managed", Settled, &[], Acted),
    row("install.operator.istio.io/owning-resource", Settled, &[], Acted),
    row("install.operator.istio.io/owning-resource-namespace", Settled, &[], Acted),
    row("istio.io/dataplane-mode", Settled, &["Pod", "Namespace"], Idle(NO_AMBIENT)),
    row("istio.io/gateway-name", Settled, &["Pod", "Service", "Deployment"], Idle(NO_GATEWAY_API)),
    row("istio.io/global", Settled, &["Service", "ServiceEntry", "Namespace"], Idle(ONE_CLUSTER)),
    row(
        "istio.io/ingress-use-waypoint",
        Settled,
        &["Service", "ServiceEntry", "Namespace"],
        Idle(NO_AMBIENT),
    ),
    row("istio.io/rev", Settled, &[], Acted),
    row("istio.io/tag", Settled, &[], Acted),
    row(
        "istio.io/use-waypoint",
        Settled,
        &["Pod", "Service", "ServiceEntry", "Namespace", "WorkloadEntry"],
        Idle(NO_AMBIENT),
    ),
    row(
        "istio.io/use-waypoint-namespace",
        Settled,
        &["Pod", "Service", "ServiceEntry", "Namespace", "WorkloadEntry"],
        Idle(NO_AMBIENT),
    ),
    row("istio.io/waypoint-for", Settled, &["Gateway", "GatewayClass", "Pod"], Idle(NO_AMBIENT)),
    row("networking.istio.io/enable-autoallocate-ip", Settled, &["ServiceEntry"], Acted),
    row("networking.istio.io/gatewayPort", Settled, &["Service"], Idle(ONE_CLUSTER)),
    row(
        "networking.istio.io/traffic-distribution",
        Settled,
        &["Service", "ServiceEntry", "Namespace"],
        Acted,
    ),
    row(
        "networking.istio.io/tunnel",
        Settled,
        POD,
        Idle("connections between proxies are mutual TLS, and never HBONE"),
    ),
    row("operator.istio.io/component", Settled, &[], Acted),
    row("operator.istio.io/managed", Settled, &[], Acted),
    row("operator.istio.io/version", Settled, &[], Acted),
    row("security.istio.io/tlsMode", Settled, &[], Acted),
    row("service.istio.io/canonical-name", Settled, &[], Acted),
    row("service.istio.io/canonical-revision", Settled, &[], Acted),
    row("service.istio.io/workload-name", Settled, &[], Acted),
    row(INJECT, Settled, &[], Acted),
    row("topology.istio.io/cluster", Settled, &[], Acted),
    row("topology.istio.io/network", Settled, &[], Acted),
    row("topology.istio.io/subzone", Settled, &[], Acted),
];

/// Whether an annotation or label is one that Istio would read, or this mesh.
fn is_ours(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return false };
    let group = ["istio.io", "ferromesh.io"].contains(&domain) || domain.ends_with(".istio.io");
    group || key == "kubernetes.io/ingress.class"
}

/// What of an object's metadata is looked at.
#[derive(Clone, Copy)]
enum Place {
    Annotation,
    Label,
}

impl Place {
    fn field(self) -> &'static str {
        match self {
            Self::Annotation => "annotations",
            Self::Label => "labels",
        }
    }

    fn known(self) -> &'static [Known] {
        match self {
            Self::Annotation => ANNOTATIONS,
            Self::Label => LABELS,
        }
    }
}

/// What an object of a kind asks for in vain by its annotations and labels, which stand below `meta`:
/// what does not exist, what nobody looks for there, and what nothing follows from.
pub fn in_vain(
    kind: &str,
    annotations: &Marks,
    labels: &Marks,
    meta: &FieldPath,
) -> Vec<Diagnostic> {
    let of = |marks: &Marks, place: Place| -> Vec<Diagnostic> {
        let at = meta.field(place.field());
        let ours = marks.iter().filter(|(key, _)| is_ours(key));
        ours.filter_map(|(key, value)| judge(kind, (key, value), place, at.field(key.clone())))
            .collect()
    };
    let mut found = of(annotations, Place::Annotation);
    found.extend(of(labels, Place::Label));
    found
}

fn judge(
    kind: &str,
    (key, value): (&str, &str),
    place: Place,
    field: FieldPath,
) -> Option<Diagnostic> {
    let Some(known) = place.known().iter().find(|known| known.name == key) else {
        return Some(unknown(key, place, field));
    };
    if !known.kinds.is_empty() && !known.kinds.contains(&kind) {
        return Some(misplaced(known, kind, field));
    }
    let why = match known.fate {
        Acted if key == NATIVE && value != "true" => "the proxy always is a native sidecar",
        Acted => return None,
        Idle(_) if NOTHING.contains(&value) => return None,
        Idle(why) => why,
    };
    let finding = Diagnostic::warning(Code::NotActedOn, field, "accepted, but not acted on");
    Some(finding.fix(why))
}

fn unknown(key: &str, place: Place, field: FieldPath) -> Diagnostic {
    let (message, other, move_it) = match place {
        Place::Annotation => ("there is no such annotation", Place::Label, "make it a label"),
        Place::Label => ("there is no such label", Place::Annotation, "make it an annotation"),
    };
    let finding = Diagnostic::warning(Code::UnknownAnnotation, field.clone(), message);
    if other.known().iter().any(|known| known.name == key) {
        return finding.fix(move_it);
    }
    let known = || place.known().iter().map(|known| known.name);
    match (suggest::meant(key, known()), suggest::nearest(key, known())) {
        (Some(name), _) => {
            finding.fix(format!("`{name}`")).change(Change::Rename(field, name.into()))
        }
        (None, Some(near)) => finding.fix(format!("`{near}`")),
        (None, None) => finding.fix("remove it"),
    }
}

fn misplaced(known: &Known, kind: &str, field: FieldPath) -> Diagnostic {
    let message = format!("nobody looks for it on a {kind}");
    let fix = match (kind, known.kinds) {
        ("Deployment", ["Pod"]) => "put it below `spec.template.metadata`".to_owned(),
        (_, kinds) => format!("put `{}` on a {}", known.name, kinds.join(", ")),
    };
    Diagnostic::warning(Code::MisplacedAnnotation, field, message)
        .expected(known.kinds.join(" or "), kind)
        .fix(fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(key: &str, value: &str) -> Marks {
        Marks::from([(key.into(), value.into())])
    }

    #[test]
    fn names_are_sorted_and_stand_once() {
        for all in [ANNOTATIONS, LABELS] {
            for pair in all.windows(2) {
                assert!(pair[0].name < pair[1].name, "{} {}", pair[0].name, pair[1].name);
            }
        }
    }

    #[test]
    fn what_does_nothing_is_named_and_what_does_is_not() {
        let none = Marks::new();
        let meta = FieldPath::of("metadata");
        for (key, value, word) in [
            ("sidecar.istio.io/proxyCPUs", "1", Some("`sidecar.istio.io/proxyCPU`")),
            ("sidecar.istio.io/proxyCPU", "1", None),
            ("sidecar.istio.io/discoveryAddress", "a:1", Some("not acted on")),
            ("sidecar.istio.io/nativeSidecar", "true", None),
            ("sidecar.istio.io/nativeSidecar", "false", Some("always is a native sidecar")),
            ("ambient.istio.io/dns-capture", "true", Some("no ambient mode")),
            ("service.istio.io/canonical-name", "cart", Some("make it a label")),
            ("example.org/proxyCPUs", "1", None),
            ("notistio.io/config", "1", None),
            ("ferromesh.io/proxi", "envoy", Some("`ferromesh.io/proxy`")),
            ("ferromesh.io/proxy", "envoy", None),
            ("sidecar.istio.io/bootstrapOverride", "", None),
        ] {
            let found = in_vain("Pod", &marks(key, value), &none, &meta);
            let said: String = found.iter().map(ToString::to_string).collect();
            assert_eq!(found.len(), usize::from(word.is_some()), "{key}: {said}");
            assert!(said.contains(word.unwrap_or_default()), "{key}: {said}");
        }
    }

    #[test]
    fn labels_are_told_from_annotations_and_by_what_bears_them() {
        let none = Marks::new();
        let meta = FieldPath::of("metadata");
        for (kind, key, word) in [
            ("Pod", "sidecar.istio.io/injec", Some("`sidecar.istio.io/inject`")),
            ("Pod", "sidecar.istio.io/inject", None),
            ("Pod", "istio.io/dataplane-mode", Some("no ambient mode")),
            ("Pod", "proxy.istio.io/config", Some("make it an annotation")),
            ("Service", "istio.io/use-waypoint", Some("no ambient mode")),
            ("Namespace", "ferromesh.io/proxy", None),
            ("Service", "ferromesh.io/proxy", Some("nobody looks for it on a Service")),
            ("Service", "networking.istio.io/tunnel", Some("nobody looks for it on a Service")),
        ] {
            let found = in_vain(kind, &none, &marks(key, "x"), &meta);
            let said: String = found.iter().map(ToString::to_string).collect();
            assert_eq!(found.len(), usize::from(word.is_some()), "{key}: {said}");
            assert!(said.contains(word.unwrap_or_default()), "{key}: {said}");
        }
        // As Istio's own charts have it on pods.
        let off = marks("istio.io/dataplane-mode", "none");
        assert_eq!(in_vain("Pod", &none, &off, &meta), []);
    }
}
