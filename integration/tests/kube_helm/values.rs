//! Values by name: each of Istio's acts here, or is refused with what to use; each of ours is in the
//! schema, has a default, and is read by a template. Needs no Helm.

use std::fs;

use ferromesh_integration::paths;
use ferromesh_xds_translator::yaml;
use serde_json::{Map, Value};

/// Values of Istio's charts base and istiod (1.31), as Helm's `--set` names them.
const OF_ISTIOD: &[&str] = &[
    "affinity",
    "autoscaleBehavior",
    "autoscaleEnabled",
    "autoscaleMax",
    "autoscaleMin",
    "base.enableCRDTemplates",
    "base.enableIstioConfigCRDs",
    "base.excludedCRDs",
    "base.validationCABundle",
    "base.validationURL",
    "cni.enabled",
    "cni.provider",
    "compatibilityVersion",
    "configMap",
    "cpu.targetAverageUtilization",
    "defaultRevision",
    "deploymentAnnotations",
    "deploymentLabels",
    "env.PILOT_ENABLE_STATUS",
    "envVarFrom",
    "experimental.stableValidationPolicy",
    "extraContainerArgs",
    "gatewayClasses",
    "gateways.seccompProfile",
    "gateways.securityContext",
    "global.caAddress",
    "global.caName",
    "global.certSigners",
    "global.configCluster",
    "global.configValidation",
    "global.defaultNodeSelector",
    "global.defaultPodDisruptionBudget.enabled",
    "global.defaultResources",
    "global.defaultTolerations",
    "global.externalIstiod",
    "global.hub",
    "global.imagePullPolicy",
    "global.imagePullSecrets",
    "global.istioNamespace",
    "global.istiod.enableAnalysis",
    "global.logAsJson",
    "global.logging.level",
    "global.meshID",
    "global.meshNetworks",
    "global.mountMtlsCerts",
    "global.multiCluster.clusterName",
    "global.multiCluster.enabled",
    "global.multiCluster.globalDomainSuffix",
    "global.multiCluster.includeEnvoyFilter",
    "global.nativeNftables",
    "global.network",
    "global.networkPolicy.enabled",
    "global.omitSidecarInjectorConfigMap",
    "global.oneNamespace",
    "global.operatorManageWebhooks",
    "global.pilotCertProvider",
    "global.platform",
    "global.podDNSSearchNamespaces",
    "global.priorityClassName",
    "global.proxy.autoInject",
    "global.proxy.clusterDomain",
    "global.proxy.componentLogLevel",
    "global.proxy.enableCoreDump",
    "global.proxy.excludeIPRanges",
    "global.proxy.excludeInboundPorts",
    "global.proxy.excludeOutboundPorts",
    "global.proxy.holdApplicationUntilProxyStarts",
    "global.proxy.image",
    "global.proxy.includeIPRanges",
    "global.proxy.includeInboundPorts",
    "global.proxy.includeOutboundPorts",
    "global.proxy.lifecycle",
    "global.proxy.logLevel",
    "global.proxy.outlierLogPath",
    "global.proxy.privileged",
    "global.proxy.readinessFailureThreshold",
    "global.proxy.readinessInitialDelaySeconds",
    "global.proxy.readinessPeriodSeconds",
    "global.proxy.resources.requests.cpu",
    "global.proxy.seccompProfile",
    "global.proxy.startupProbe.enabled",
    "global.proxy.startupProbe.failureThreshold",
    "global.proxy.statusPort",
    "global.proxy.tracer",
    "global.proxy_init.forceApplyIptables",
    "global.proxy_init.image",
    "global.proxy_init.resources",
    "global.remotePilotAddress",
    "global.resourceScope",
    "global.sds.token.aud",
    "global.sts.servicePort",
    "global.tag",
    "global.tracer.zipkin.address",
    "global.trustBundleName",
    "global.variant",
    "global.waypoint.resources",
    "hub",
    "image",
    "initContainers",
    "ipFamilies",
    "ipFamilyPolicy",
    "istiodRemote.enabled",
    "istiodRemote.injectionURL",
    "jwksResolverExtraRootCA",
    "keepaliveMaxServerConnectionAge",
    "memory.targetAverageUtilization",
    "meshConfig.accessLogFile",
    "nodeSelector",
    "ownerName",
    "pilot.env.PILOT_ENABLE_STATUS",
    "platform",
    "podAnnotations",
    "podLabels",
    "profile",
    "replicaCount",
    "resources.requests.cpu",
    "revision",
    "revisionTags",
    "rollingMaxSurge",
    "rollingMaxUnavailable",
    "seccompProfile",
    "serviceAccountAnnotations",
    "serviceAnnotations",
    "sidecarInjectorWebhook.alwaysInjectSelector",
    "sidecarInjectorWebhook.defaultTemplates",
    "sidecarInjectorWebhook.enableNamespacesByDefault",
    "sidecarInjectorWebhook.injectedAnnotations",
    "sidecarInjectorWebhook.neverInjectSelector",
    "sidecarInjectorWebhook.reinvocationPolicy",
    "sidecarInjectorWebhook.rewriteAppHTTPProbe",
    "sidecarInjectorWebhook.templates",
    "sidecarInjectorWebhookAnnotations",
    "tag",
    "taint.enabled",
    "taint.namespace",
    "telemetry.enabled",
    "telemetry.v2.prometheus.enabled",
    "tolerations",
    "topologySpreadConstraints",
    "traceSampling",
    "trustedZtunnelName",
    "trustedZtunnelNamespace",
    "variant",
    "volumeMounts",
    "volumes",
];

/// Values of Istio's chart gateway (1.31).
const OF_GATEWAY: &[&str] = &[
    "additionalContainers",
    "affinity",
    "annotations",
    "autoscaling.autoscaleBehavior",
    "autoscaling.enabled",
    "autoscaling.maxReplicas",
    "autoscaling.minReplicas",
    "autoscaling.targetCPUUtilizationPercentage",
    "autoscaling.targetMemoryUtilizationPercentage",
    "compatibilityVersion",
    "containerSecurityContext",
    "env.MINE",
    "envVarFrom",
    "imagePullPolicy",
    "imagePullSecrets",
    "initContainers",
    "kind",
    "labels",
    "lifecycle",
    "minReadySeconds",
    "name",
    "networkGateway",
    "nodeSelector",
    "ownerName",
    "platform",
    "podAnnotations",
    "podDisruptionBudget.maxUnavailable",
    "podDisruptionBudget.minAvailable",
    "podDisruptionBudget.unhealthyPodEvictionPolicy",
    "priorityClassName",
    "profile",
    "rbac.enabled",
    "readinessProbe",
    "replicaCount",
    "resources.limits.cpu",
    "revision",
    "securityContext",
    "service.annotations",
    "service.externalIPs",
    "service.externalTrafficPolicy",
    "service.ipFamilies",
    "service.ipFamilyPolicy",
    "service.loadBalancerClass",
    "service.loadBalancerIP",
    "service.loadBalancerSourceRanges",
    "service.ports",
    "service.selectorLabels",
    "service.type",
    "serviceAccount.annotations",
    "serviceAccount.create",
    "serviceAccount.name",
    "strategy",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "unprivilegedPort",
    "volumeMounts",
    "volumes",
];

fn folder(chart: &str) -> std::path::PathBuf {
    paths::project().join("helm").join(chart)
}

fn schema(chart: &str) -> Value {
    let text = fs::read_to_string(folder(chart).join("values.schema.json")).expect("a schema");
    serde_json::from_str(&text).expect("JSON")
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties")?.as_object()
}

/// What the schema has for a value: what is below an open map is the map's; `None`: nothing.
fn entry<'s>(schema: &'s Value, path: &str) -> Option<&'s Value> {
    let mut at = schema;
    for name in path.split('.') {
        if at.get("const").is_some() {
            return Some(at);
        }
        match properties(at) {
            Some(fields) => at = fields.get(name)?,
            None => return Some(at),
        }
    }
    // All that is below it is named, or it is one of ours.
    Some(at)
}

#[test]
fn each_value_of_istios_charts_acts_or_is_refused_with_what_to_use() {
    for (chart, names) in [("ferromesh", OF_ISTIOD), ("gateway", OF_GATEWAY)] {
        let schema = schema(chart);
        let unknown: Vec<&&str> =
            names.iter().filter(|name| entry(&schema, name).is_none()).collect();
        assert!(unknown.is_empty(), "{chart}: {unknown:?}");
    }
}

#[test]
fn a_refusal_says_what_to_use_and_that_exists() {
    for chart in ["ferromesh", "gateway"] {
        let schema = schema(chart);
        let mut refusals = Vec::new();
        collect(&schema, "", &mut |path, entry| {
            refusals
                .extend(entry["const"].as_str().map(|words| (path.to_owned(), words.to_owned())));
        });
        assert!(!refusals.is_empty());
        for (path, words) in refusals {
            let Some(instead) = words.strip_prefix("use ") else {
                assert!(words.starts_with("not served: "), "{path}: {words}");
                continue;
            };
            let name = instead.split([' ', ':']).next().unwrap_or_default();
            if name == "the" {
                continue;
            }
            let found = entry(&schema, name).filter(|entry| entry.get("const").is_none());
            assert!(found.is_some(), "{path}: `{name}` does not exist: {words}");
        }
    }
}

/// Every entry of a schema with its path.
fn collect(schema: &Value, path: &str, take: &mut impl FnMut(&str, &Value)) {
    for (name, entry) in properties(schema).into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        take(&path, entry);
        collect(entry, &path, take);
    }
}

#[test]
fn each_of_our_values_has_a_default_and_is_read_by_a_template() {
    for chart in ["ferromesh", "gateway"] {
        let text = fs::read_to_string(folder(chart).join("values.yaml")).expect("values");
        let defaults = yaml::parse(&text).expect("YAML").expect("values").to_json();
        let mut templates = String::new();
        for file in fs::read_dir(folder(chart).join("templates")).expect("templates") {
            let path = file.expect("a file").path();
            if path.is_file() {
                templates += &fs::read_to_string(path).expect("text");
            }
        }
        let mut wrong = Vec::new();
        collect(&schema(chart), "", &mut |path, entry| {
            let name = path.rsplit('.').next().unwrap_or_default();
            // Settings of injection are passed on as they are; the definitions are another chart's.
            let passed_on = ["injection.settings.", "injection.resources.", "global", "crds"];
            if entry.get("const").is_some() || passed_on.iter().any(|p| path.starts_with(p)) {
                return;
            }
            let pointer = format!("/{}", path.replace('.', "/"));
            let of_a_map = ["targetAverageUtilization", "requests", "limits", "metadata", "spec"];
            if defaults.pointer(&pointer).is_none() && !of_a_map.contains(&name) {
                wrong.push(format!("{path}: no default"));
            }
            let read = |c: char| !(c.is_ascii_alphanumeric());
            let word = format!(".{name}");
            let whole = |(at, _): (usize, &str)| templates[at + word.len()..].starts_with(read);
            let parent = path.rsplit_once('.').map(|(parent, _)| format!(".Values.{parent} "));
            let by_parent = parent.is_some_and(|parent| templates.contains(&parent));
            if !templates.match_indices(&word).any(whole) && !by_parent {
                wrong.push(format!("{path}: no template reads it"));
            }
        });
        for_each_default(&defaults, "", &mut |path| {
            if entry(&schema(chart), path).is_none() {
                wrong.push(format!("{path}: not in the schema"));
            }
        });
        assert!(wrong.is_empty(), "{chart}: {wrong:#?}");
    }
}

fn for_each_default(value: &Value, path: &str, take: &mut impl FnMut(&str)) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        take(&path);
        for_each_default(value, &path, take);
    }
}
