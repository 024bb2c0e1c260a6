//! Charts as text: goldens, lint, and values that are refused.

use std::{fs, process::Command};

use ferromesh_integration::{mesh::chart, paths};
use ferromesh_xds_translator::crds::custom_resource_definitions;

/// Rendering is for this version, whatever Helm was built for.
const VERSION: &str = "1.36.0";

/// Runs the cache's Helm without a cluster: what it printed, or what it complained about.
fn helm(arguments: &[&str]) -> Result<String, String> {
    let script = paths::project().join("integration/kube.sh");
    let output =
        Command::new("bash").arg(script).arg("helm").args(arguments).output().expect("bash runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// A chart as text, with further arguments.
pub(super) fn helm_template(name: &str, more: &[&str]) -> Result<String, String> {
    let chart = chart(name);
    let mut arguments =
        vec!["template", name, &chart, "--namespace", "istio-system", "--kube-version", VERSION];
    arguments.extend(more);
    helm(&arguments)
}

fn template(name: &str, values: &[&str]) -> Result<String, String> {
    let values: Vec<&str> = values.iter().flat_map(|value| ["--set", *value]).collect();
    helm_template(name, &values)
}

fn check(golden: &str, chart: &str, values: &[&str]) {
    let rendered = template(chart, values).unwrap_or_else(|e| panic!("{golden}: {e}"));
    // A new installation has a token of its own.
    let secret = |line: &&str| line.starts_with("  token: ");
    let got: String = rendered
        .lines()
        .map(|l| if secret(&l) { "  token: RANDOM\n".into() } else { format!("{l}\n") })
        .collect();
    let path =
        paths::project().join("integration/tests/kube_helm/golden").join(format!("{golden}.yaml"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &got).expect("the golden can be written");
    }
    let want = fs::read_to_string(&path).unwrap_or_default();
    let differs = got.lines().zip(want.lines()).find(|(got, want)| got != want);
    assert!(got == want, "{golden}: {differs:?}; UPDATE_GOLDEN=1 accepts it");
}

#[test]
fn charts_render_as_their_goldens() {
    // The definitions have a golden of their own.
    check("ferromesh", "ferromesh", &["crds.enabled=false"]);
    check(
        "ferromesh-many-values",
        "ferromesh",
        &[
            "crds.enabled=false",
            "replicas=3",
            "revision=canary",
            "image.registry=registry.example/mesh/",
            "image.tag=0.1.1",
            "image.pullSecrets={registry}",
            "injection.proxy=envoy",
            "injection.settings.redirect.excludeOutboundIPRanges=10.0.0.0/8",
            "meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY",
            "takeOverRoots=true",
            "validation.enabled=false",
            "networkPolicy.enabled=false",
            "env.FERROMESH_NEW_ROOT=true",
            "env.RUST_LOG=debug",
            "podAnnotations.team=1",
            "podLabels.team=mesh",
            "revisionTags={prod,default}",
            "injectorTemplates.traced.metadata.labels.traced=yes",
            "injection.defaultTemplates={sidecar,traced}",
            "sidecarInjectorWebhook.enableNamespacesByDefault=true",
            "sidecarInjectorWebhook.injectedAnnotations.team=mesh",
            "serviceAccountAnnotations.role=reader",
            "volumes[0].name=extra",
            "volumes[0].emptyDir.medium=Memory",
            "volumeMounts[0].name=extra",
            "volumeMounts[0].mountPath=/extra",
            "ipFamilyPolicy=PreferDualStack",
            "global.imagePullSecrets={registry,mirror}",
            "priorityClassName=system-cluster-critical",
        ],
    );
    check(
        "ferromesh-scaled",
        "ferromesh",
        &["crds.enabled=false", "autoscaleEnabled=true", "memory.targetAverageUtilization=70"],
    );
    check("gateway", "gateway", &[]);
    check(
        "gateway-many-values",
        "gateway",
        &[
            "name=istio-edge",
            "proxy=envoy",
            "autoscaling.minReplicas=2",
            "service.type=ClusterIP",
            "labels.team=edge",
            "env.MINE=1",
            "podAnnotations.team=1",
            "service.loadBalancerSourceRanges={10.0.0.0/8}",
            "service.ipFamilies={IPv6}",
            "serviceAccount.annotations.role=edge",
            "imagePullSecrets[0].name=registry",
            "autoscaling.targetMemoryUtilizationPercentage=75",
            "podDisruptionBudget.maxUnavailable=25%",
            "volumes[0].name=extra",
            "volumes[0].emptyDir.medium=Memory",
        ],
    );
    check("gateway-daemonset", "gateway", &["kind=DaemonSet", "serviceAccount.create=false"]);
}

/// Values that came after the first chart: a release that is upgraded with `--reuse-values` has none.
const LATER: [(&str, &[&str]); 2] = [
    (
        "ferromesh",
        &[
            "autoscaleBehavior",
            "autoscaleEnabled",
            "autoscaleMax",
            "autoscaleMin",
            "cpu",
            "deploymentAnnotations",
            "deploymentLabels",
            "envVarFrom",
            "extraContainerArgs",
            "global",
            "initContainers",
            "injection.defaultTemplates",
            "injectorTemplates",
            "ipFamilies",
            "ipFamilyPolicy",
            "memory",
            "revisionTags",
            "rollingMaxSurge",
            "rollingMaxUnavailable",
            "serviceAccountAnnotations",
            "sidecarInjectorWebhook",
            "sidecarInjectorWebhookAnnotations",
            "volumeMounts",
            "volumes",
        ],
    ),
    (
        "gateway",
        &[
            "additionalContainers",
            "annotations",
            "autoscaling.targetMemoryUtilizationPercentage",
            "containerSecurityContext",
            "envVarFrom",
            "imagePullPolicy",
            "imagePullSecrets",
            "initContainers",
            "kind",
            "minReadySeconds",
            "podDisruptionBudget.maxUnavailable",
            "securityContext",
            "service.loadBalancerIP",
            "serviceAccount",
            "strategy",
            "volumeMounts",
            "volumes",
        ],
    ),
];

#[test]
fn a_release_that_has_no_such_value_yet_is_rendered_as_with_the_default() {
    for (chart, values) in LATER {
        let rendered = |value: &str| {
            let text =
                template(chart, &["crds.enabled=false", value][usize::from(chart == "gateway")..]);
            let text = text.unwrap_or_else(|e| panic!("{chart} without {value}: {e}"));
            let public = text.lines().filter(|line| !line.starts_with("  token: "));
            public.map(str::to_owned).collect::<Vec<_>>()
        };
        let usual = rendered("nodeSelector=null");
        for value in values {
            assert_eq!(rendered(&format!("{value}=null")), usual, "{chart} without {value}");
        }
    }
}

#[test]
fn charts_have_nothing_that_helm_warns_of() {
    for name in ["ferromesh", "ferromesh-crds", "gateway"] {
        let said = helm(&["lint", "--strict", "--kube-version", VERSION, &chart(name)]);
        said.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn definitions_are_all_there_and_outlive_their_release_unless_told_otherwise() {
    let count = |text: &str, mark: &str| text.lines().filter(|line| line.trim() == mark).count();
    let expected = custom_resource_definitions().len();
    for (keep, kept) in [("true", expected), ("false", 0)] {
        let rendered = template("ferromesh", &[&format!("crds.keep={keep}")]).expect("rendered");
        assert_eq!(count(&rendered, "kind: CustomResourceDefinition"), expected);
        assert_eq!(count(&rendered, "helm.sh/resource-policy: keep"), kept);
    }
    let without = template("ferromesh", &["crds.enabled=false"]).expect("rendered");
    assert_eq!(count(&without, "kind: CustomResourceDefinition"), 0);
}

#[test]
fn the_role_allows_what_every_kind_needs() {
    let rendered = template("ferromesh", &["crds.enabled=false"]).expect("rendered");
    for definition in custom_resource_definitions() {
        let text = |pointer: &str| {
            definition.pointer(pointer).and_then(serde_json::Value::as_str).expect("a text")
        };
        let (group, plural) = (text("/spec/group"), text("/spec/names/plural"));
        let allows = |resource: &str| {
            let rule = format!("- {{apiGroups: [{group}], resources: [");
            let lists =
                rendered.lines().filter_map(|line| line.strip_prefix(&rule)?.split(']').next());
            lists.flat_map(|list| list.split(", ")).any(|listed| listed == resource)
        };
        assert!(allows(plural), "{plural}.{group}");
        assert!(allows(&format!("{plural}/status")), "the status of {plural}.{group}");
    }
}

#[test]
fn a_cluster_too_old_for_native_sidecars_is_refused() {
    let old = helm(&["template", "x", &chart("ferromesh"), "--kube-version", "1.28.0"])
        .expect_err("too old");
    assert!(old.contains("requires kubeVersion: >=1.29"), "{old}");
    let first = helm(&["template", "x", &chart("ferromesh"), "--kube-version", "1.29.0"])
        .expect("new enough");
    assert!(!first.contains("preStop"), "1.29 has no hook that sleeps");
}

#[test]
fn values_that_are_wrong_are_named_with_what_is_expected() {
    let cases = [
        ("ferromesh", "replicas=0", "at '/replicas': minimum: got 0, want 1"),
        ("ferromesh", "replica=2", "additional properties 'replica' not allowed"),
        (
            "ferromesh",
            "injection.proxy=nginx",
            "at '/injection/proxy': value must be one of 'ferromesh', 'envoy'",
        ),
        ("ferromesh", "leafTtl=fast", "at '/leafTtl': 'fast' does not match pattern"),
        (
            "ferromesh",
            "image.pullPolicy=Sometimes",
            "at '/image/pullPolicy': value must be one of 'Always'",
        ),
        ("ferromesh", "revision=Canary", "at '/revision': 'Canary' does not match pattern"),
        (
            "ferromesh",
            "injection.settings.probs.rewriteApp=false",
            "additional properties 'probs' not allowed",
        ),
        ("ferromesh", "crds.enabld=true", "additional properties 'enabld' not allowed"),
        (
            "gateway",
            "service.type=External",
            "at '/service/type': value must be one of 'LoadBalancer'",
        ),
        (
            "gateway",
            "autoscaling.minReplicas=0",
            "at '/autoscaling/minReplicas': minimum: got 0, want 1",
        ),
        ("gateway", "proxy=nginx", "at '/proxy': value must be one of"),
        // Istio's names of what has another name here, or is not served.
        ("ferromesh", "replicaCount=2", "use replicas"),
        ("ferromesh", "global.tag=1.31", "use image.tag"),
        ("ferromesh", "global.proxy.logLevel=debug", "use injection.logLevel"),
        ("ferromesh", "global.multiCluster.clusterName=a", "use clusterId"),
        ("ferromesh", "sidecarInjectorWebhook.templates.a=b", "use injectorTemplates"),
        ("ferromesh", "pilot.env.A=b", "not served: its values stand at the top"),
        (
            "ferromesh",
            "injectorTemplates.a=b",
            "at '/injectorTemplates/a': got string, want object",
        ),
        ("gateway", "replicaCount=2", "use replicas"),
        ("gateway", "networkGateway=a", "not served: a mesh is one network"),
    ];
    for (chart, value, expected) in cases {
        let said = template(chart, &[value]).expect_err(value);
        assert!(said.contains(expected), "{value}: {said}");
    }
}
