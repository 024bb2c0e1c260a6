//! What injected pods get, as the mesh's operator wants it: the file `settings.yaml`, and defaults
//! for all of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ferromesh_proto::TrustDomain;
use ferromesh_xds_translator::{
    choice,
    diagnostic::{Diagnostic, FieldPath, Position},
    dialect::{decode::Decoder, schema::Decode},
    object, yaml,
};
use serde_json::Value;

use super::{fragment, selector::Selector, values};

object! {
    /// The settings file. Everything may be left out.
    SettingsFile {
        /// Revision of this control plane, as `istio.io/rev` names it.
        "revision" revision: Option<Arc<str>>,
        /// Namespace of the control plane.
        "rootNamespace" root_namespace: Option<Arc<str>>,
        /// Trust domain of the mesh.
        "trustDomain" trust_domain: Option<Arc<str>>,
        /// DNS suffix of services.
        "clusterDomain" cluster_domain: Option<Arc<str>>,
        /// Name of the cluster, for proxies to tell.
        "clusterId" cluster_id: Option<Arc<str>>,
        /// Where proxies find the control plane.
        "discoveryAddress" discovery_address: Option<Arc<str>>,
        /// The kind of proxy of pods and namespaces that ask for none.
        "proxy" proxy: Option<ProxyKind>,
        /// What proxies log.
        "logLevel" log_level: Option<Arc<str>>,
        /// How long open connections may finish when a sidecar ends, whose application is gone by
        /// then.
        "drainTime" drain_time: Option<Duration>,
        /// The same for a gateway, which serves meanwhile.
        "gatewayDrainTime" gateway_drain_time: Option<Duration>,
        /// Whether applications start only once the proxy is ready.
        "holdApplicationUntilProxyStarts" hold: Option<bool>,
        /// Images.
        "images" images: ImagesFile,
        /// Requests and limits.
        "resources" resources: ResourcesFile,
        /// What is redirected.
        "redirect" redirect: RedirectFile,
        /// Probes.
        "probes" probes: ProbesFile,
        /// Metrics.
        "metrics" metrics: MetricsFile,
        /// Pods that are left alone unless they ask for injection themselves.
        "neverInject" never_inject: Vec<Selector>,
        /// Further variables of every proxy.
        "env" env: BTreeMap<Arc<str>, Arc<str>>,
        /// Parts of pods by name, which pods ask for by `inject.istio.io/templates`.
        "templates" templates: BTreeMap<Arc<str>, Value>,
        /// The templates of pods that ask for none.
        "defaultTemplates" default_templates: Vec<Arc<str>>,
        /// Annotations of every injected pod that has none of the name.
        "injectedAnnotations" injected_annotations: BTreeMap<Arc<str>, Arc<str>>,
    }
}

choice! {
    /// Which proxy runs beside an application.
    ProxyKind {
        /// The Ferromesh proxy.
        Ferromesh = "ferromesh",
        /// A stock Envoy with our agent.
        Envoy = "envoy",
    }
}

choice! {
    /// When the node asks the registry for an image.
    PullPolicy {
        /// When it does not have it.
        IfNotPresent = "IfNotPresent",
        /// Each time.
        Always = "Always",
        /// Not at all.
        Never = "Never",
    }
}

object! {
    /// Images.
    ImagesFile {
        /// The Ferromesh proxy.
        "ferromesh" ferromesh: Option<Arc<str>>,
        /// Envoy with our agent.
        "envoy" envoy: Option<Arc<str>>,
        /// When they are pulled.
        "pullPolicy" pull_policy: PullPolicy,
        /// Names of Secrets to pull them with.
        "pullSecrets" pull_secrets: Vec<Arc<str>>,
    }
}

object! {
    /// Requests and limits, by container.
    ResourcesFile {
        /// The proxy's.
        "proxy" proxy: Option<Resources>,
        /// Those of the container that redirects traffic.
        "init" init: Option<Resources>,
    }
}

object! {
    /// Requests and limits of a container.
    Resources {
        /// What is set aside for it.
        "requests" requests: Quantities,
        /// What it gets at most.
        "limits" limits: Quantities,
    }
}

object! {
    /// Amounts of processor and memory; what is left out, or empty, is not written.
    Quantities {
        /// Processors, such as `100m` or `"2"`.
        "cpu" cpu: Arc<str>,
        /// Memory, such as `64Mi`.
        "memory" memory: Arc<str>,
    }
}

object! {
    /// Defaults of the annotations `traffic.sidecar.istio.io/…`.
    RedirectFile {
        /// Addresses to which outgoing connections are redirected.
        "includeOutboundIPRanges" include_outbound_ranges: Option<Arc<str>>,
        /// Addresses that are left alone.
        "excludeOutboundIPRanges" exclude_outbound_ranges: Option<Arc<str>>,
        /// Ports to which outgoing connections are redirected whatever their address.
        "includeOutboundPorts" include_outbound_ports: Option<Arc<str>>,
        /// Ports that are left alone.
        "excludeOutboundPorts" exclude_outbound_ports: Option<Arc<str>>,
        /// Ports whose incoming connections are redirected.
        "includeInboundPorts" include_inbound_ports: Option<Arc<str>>,
        /// Ports that are left alone.
        "excludeInboundPorts" exclude_inbound_ports: Option<Arc<str>>,
    }
}

object! {
    /// Probes.
    ProbesFile {
        /// Whether probes of applications go through the agent.
        "rewriteApp" rewrite_app: Option<bool>,
        /// The proxy's readiness probe.
        "readiness" readiness: TimingFile,
        /// The proxy's startup probe.
        "startup" startup: TimingFile,
    }
}

object! {
    /// When a probe asks, in seconds.
    TimingFile {
        /// Before the first time.
        "initialDelaySeconds" initial_delay: Option<u32>,
        /// Between two times.
        "periodSeconds" period: Option<u32>,
        /// For an answer.
        "timeoutSeconds" timeout: Option<u32>,
        /// How often it may fail in a row.
        "failureThreshold" failure_threshold: Option<u32>,
    }
}

object! {
    /// Metrics.
    MetricsFile {
        /// Whether the agent shows the application's metrics beside the proxy's.
        "merge" merge: Option<bool>,
    }
}

/// Checked settings.
#[derive(Clone, PartialEq, Debug)]
pub struct InjectionSettings {
    /// Revision of this control plane.
    pub revision: Arc<str>,
    /// Namespace of the control plane.
    pub root_namespace: Arc<str>,
    /// Trust domain of the mesh.
    pub trust_domain: TrustDomain,
    /// DNS suffix of services.
    pub cluster_domain: Arc<str>,
    /// Name of the cluster.
    pub cluster_id: Arc<str>,
    /// Where proxies find the control plane, `HOST:PORT`.
    pub discovery_address: Arc<str>,
    /// The kind of proxy where nothing else is said.
    pub proxy: ProxyKind,
    /// What proxies log.
    pub log_level: Arc<str>,
    /// How long open connections may finish when a sidecar ends.
    pub drain_time: Duration,
    /// The same for a gateway.
    pub gateway_drain_time: Duration,
    /// Whether applications start only once the proxy is ready.
    pub hold: bool,
    /// Image of the Ferromesh proxy.
    pub ferromesh_image: Arc<str>,
    /// Image of Envoy with our agent.
    pub envoy_image: Arc<str>,
    /// When they are pulled.
    pub pull_policy: PullPolicy,
    /// Names of Secrets to pull them with.
    pub pull_secrets: Vec<Arc<str>>,
    /// Resources of the proxy.
    pub proxy_resources: Resources,
    /// Resources of the container that redirects traffic.
    pub init_resources: Resources,
    /// What is redirected.
    pub redirect: Redirect,
    /// Whether probes of applications go through the agent.
    pub rewrite_probes: bool,
    /// The proxy's readiness probe.
    pub readiness: Timing,
    /// The proxy's startup probe.
    pub startup: Timing,
    /// Whether the agent shows the application's metrics beside the proxy's.
    pub merge_metrics: bool,
    /// Pods that are left alone unless they ask for injection.
    pub never_inject: Vec<Selector>,
    /// Further variables of every proxy.
    pub env: BTreeMap<Arc<str>, Arc<str>>,
    /// Parts of pods (`metadata`, `spec`), by name.
    pub templates: BTreeMap<Arc<str>, Value>,
    /// The templates of pods that ask for none; `sidecar` or `gateway` is among them.
    pub default_templates: Vec<Arc<str>>,
    /// Annotations of every injected pod that has none of the name.
    pub injected_annotations: BTreeMap<Arc<str>, Arc<str>>,
}

/// What is redirected; lists with commas, `*` is everything, empty is nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Redirect {
    /// Destinations of outgoing connections that are redirected.
    pub include_outbound_ranges: Arc<str>,
    /// Destinations that are left alone.
    pub exclude_outbound_ranges: Arc<str>,
    /// Outgoing ports that are redirected whatever the address.
    pub include_outbound_ports: Arc<str>,
    /// Outgoing ports that are left alone.
    pub exclude_outbound_ports: Arc<str>,
    /// Incoming ports that are redirected.
    pub include_inbound_ports: Arc<str>,
    /// Incoming ports that are left alone, beside the proxy's own.
    pub exclude_inbound_ports: Arc<str>,
}

/// When a probe asks, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// Before the first time.
    pub initial_delay: u32,
    /// Between two times.
    pub period: u32,
    /// For an answer.
    pub timeout: u32,
    /// How often it may fail in a row.
    pub failure_threshold: u32,
}

/// The version of the images that belong to this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Least pause between two probes and least number of tries: the API server's.
const AT_LEAST_ONE: u32 = 1;

impl Default for InjectionSettings {
    fn default() -> Self {
        Self::new("istio-system".into(), TrustDomain::default())
    }
}

impl InjectionSettings {
    /// The defaults of a mesh.
    pub fn new(root_namespace: Arc<str>, trust_domain: TrustDomain) -> Self {
        let (everything, nothing): (Arc<str>, Arc<str>) = ("*".into(), "".into());
        Self {
            revision: "default".into(),
            discovery_address: discovery_address(&root_namespace),
            root_namespace,
            trust_domain,
            cluster_domain: "cluster.local".into(),
            cluster_id: "Kubernetes".into(),
            proxy: ProxyKind::Ferromesh,
            log_level: "info".into(),
            drain_time: Duration::from_secs(5),
            gateway_drain_time: Duration::from_secs(20),
            hold: true,
            ferromesh_image: format!("ferromesh/proxy:{VERSION}").into(),
            envoy_image: format!("ferromesh/envoy:{VERSION}").into(),
            pull_policy: PullPolicy::IfNotPresent,
            pull_secrets: Vec::new(),
            proxy_resources: Resources {
                requests: Quantities::of("20m", "48Mi"),
                limits: Quantities::of("2", "1Gi"),
            },
            init_resources: Resources {
                requests: Quantities::of("10m", "16Mi"),
                limits: Quantities::of("1", "64Mi"),
            },
            redirect: Redirect {
                include_outbound_ranges: everything.clone(),
                exclude_outbound_ranges: nothing.clone(),
                include_outbound_ports: nothing.clone(),
                exclude_outbound_ports: nothing.clone(),
                include_inbound_ports: everything,
                exclude_inbound_ports: nothing,
            },
            rewrite_probes: true,
            readiness: Timing { initial_delay: 0, period: 5, timeout: 3, failure_threshold: 4 },
            startup: Timing { initial_delay: 0, period: 1, timeout: 3, failure_threshold: 600 },
            merge_metrics: true,
            never_inject: Vec::new(),
            env: BTreeMap::new(),
            templates: BTreeMap::new(),
            default_templates: vec!["sidecar".into()],
            injected_annotations: BTreeMap::new(),
        }
    }

    /// Reads a settings file over these settings. `file` is its name, for findings.
    ///
    /// # Errors
    /// What is wrong with it, each finding with its field, line and fix.
    pub fn read(self, file: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let at = |line, col| Some(Position { file: file.into(), line, col });
        let tree = yaml::parse(text).map_err(|error| {
            let mut finding = Diagnostic::error(error.code, FieldPath::root(), error.message);
            finding.fix = error.fix;
            vec![finding.at(at(error.line, error.col))]
        })?;
        let Some(tree) = tree else { return Ok(self) };
        let mut decoder = Decoder::default();
        let written = SettingsFile::decode(&tree.to_json(), &mut decoder);
        let settings = self.overlaid(written, &mut decoder);
        let place = |finding: Diagnostic| {
            let (line, col) = tree.locate(&finding.field);
            finding.at(at(line, col))
        };
        let found: Vec<Diagnostic> = decoder.finish().into_iter().map(place).collect();
        if found.is_empty() { Ok(settings) } else { Err(found) }
    }

    fn overlaid(mut self, file: SettingsFile, at: &mut Decoder) -> Self {
        let moved = file.root_namespace.is_some();
        set(&mut self.revision, file.revision);
        set(&mut self.root_namespace, file.root_namespace);
        if moved {
            self.discovery_address = discovery_address(&self.root_namespace);
        }
        if let Some(name) = file.trust_domain {
            match TrustDomain::new(&name) {
                Ok(domain) => self.trust_domain = domain,
                Err(error) => at.within("trustDomain", |at| at.invalid(error.to_string(), None)),
            }
        }
        set(&mut self.cluster_domain, file.cluster_domain);
        set(&mut self.cluster_id, file.cluster_id);
        set(&mut self.discovery_address, file.discovery_address);
        set(&mut self.proxy, file.proxy);
        file.log_level
            .iter()
            .for_each(|level| at.within("logLevel", |at| values::check_log_level(level, at)));
        set(&mut self.log_level, file.log_level);
        set(&mut self.drain_time, file.drain_time);
        set(&mut self.gateway_drain_time, file.gateway_drain_time);
        set(&mut self.hold, file.hold);
        set(&mut self.ferromesh_image, file.images.ferromesh);
        set(&mut self.envoy_image, file.images.envoy);
        self.pull_policy = file.images.pull_policy;
        self.pull_secrets = file.images.pull_secrets;
        at.within("resources", |at| {
            at.within("proxy", |at| {
                file.resources.proxy.iter().for_each(|resources| resources.check(at))
            });
            at.within("init", |at| {
                file.resources.init.iter().for_each(|resources| resources.check(at))
            });
        });
        set(&mut self.proxy_resources, file.resources.proxy);
        set(&mut self.init_resources, file.resources.init);
        at.within("redirect", |at| self.redirect.overlay(file.redirect, at));
        set(&mut self.rewrite_probes, file.probes.rewrite_app);
        at.within("probes", |at| {
            at.within("readiness", |at| self.readiness.overlay(&file.probes.readiness, at));
            at.within("startup", |at| self.startup.overlay(&file.probes.startup, at));
        });
        set(&mut self.merge_metrics, file.metrics.merge);
        self.never_inject = file.never_inject;
        self.env = file.env;
        at.within("templates", |at| {
            for (name, part) in &file.templates {
                at.within_key(name, |at| fragment::check(name, part, at));
            }
        });
        self.templates = file.templates;
        if !file.default_templates.is_empty() {
            at.within("defaultTemplates", |at| {
                fragment::check_defaults(&file.default_templates, &self.templates, at);
            });
            self.default_templates = file.default_templates;
        }
        self.injected_annotations = file.injected_annotations;
        self
    }

    /// The image of a kind of proxy.
    pub(super) fn image(&self, kind: ProxyKind) -> &Arc<str> {
        match kind {
            ProxyKind::Ferromesh => &self.ferromesh_image,
            ProxyKind::Envoy => &self.envoy_image,
        }
    }
}

fn set<T>(setting: &mut T, written: Option<T>) {
    if let Some(written) = written {
        *setting = written;
    }
}

fn discovery_address(root_namespace: &str) -> Arc<str> {
    format!("ferromesh.{root_namespace}.svc:15012").into()
}

impl Redirect {
    fn overlay(&mut self, file: RedirectFile, at: &mut Decoder) {
        let ranges = [
            (
                "includeOutboundIPRanges",
                &mut self.include_outbound_ranges,
                file.include_outbound_ranges,
            ),
            (
                "excludeOutboundIPRanges",
                &mut self.exclude_outbound_ranges,
                file.exclude_outbound_ranges,
            ),
        ];
        for (name, setting, written) in ranges {
            written
                .iter()
                .for_each(|written| at.within(name, |at| values::check_ranges(written, at)));
            set(setting, written);
        }
        let ports = [
            ("includeOutboundPorts", &mut self.include_outbound_ports, file.include_outbound_ports),
            ("excludeOutboundPorts", &mut self.exclude_outbound_ports, file.exclude_outbound_ports),
            ("includeInboundPorts", &mut self.include_inbound_ports, file.include_inbound_ports),
            ("excludeInboundPorts", &mut self.exclude_inbound_ports, file.exclude_inbound_ports),
        ];
        for (name, setting, written) in ports {
            written
                .iter()
                .for_each(|written| at.within(name, |at| values::check_ports(written, at)));
            set(setting, written);
        }
    }
}

impl Timing {
    fn overlay(&mut self, file: &TimingFile, at: &mut Decoder) {
        let fields = [
            ("initialDelaySeconds", &mut self.initial_delay, file.initial_delay, 0),
            ("periodSeconds", &mut self.period, file.period, AT_LEAST_ONE),
            ("timeoutSeconds", &mut self.timeout, file.timeout, AT_LEAST_ONE),
            ("failureThreshold", &mut self.failure_threshold, file.failure_threshold, AT_LEAST_ONE),
        ];
        for (name, setting, written, least) in fields {
            if written.is_some_and(|written| written < least) {
                at.within(name, |at| at.invalid(format!("expected at least {least}, got 0"), None));
            }
            set(setting, written);
        }
    }
}

impl Quantities {
    fn of(cpu: &str, memory: &str) -> Self {
        Self { cpu: cpu.into(), memory: memory.into() }
    }

    /// Name and amount of what is written.
    pub(super) fn written(&self) -> impl Iterator<Item = (&'static str, &Arc<str>)> {
        [("cpu", &self.cpu), ("memory", &self.memory)]
            .into_iter()
            .filter(|(_, amount)| !amount.is_empty())
    }
}

impl Resources {
    fn check(&self, at: &mut Decoder) {
        for (field, quantities) in [("requests", &self.requests), ("limits", &self.limits)] {
            at.within(field, |at| {
                for (name, amount) in quantities.written() {
                    at.within(name, |at| values::check_quantity(amount, at));
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<InjectionSettings, Vec<String>> {
        let read = InjectionSettings::default().read("settings.yaml", text);
        read.map_err(|found| found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn nothing_written_is_the_defaults() {
        for text in ["", "# nothing\n", "{}", "images: {}\nprobes: {readiness: {}}\n"] {
            assert_eq!(read(text), Ok(InjectionSettings::default()), "{text:?}");
        }
    }

    #[test]
    fn what_is_written_replaces_defaults_and_leaves_the_rest() {
        let text = "
rootNamespace: mesh
proxy: envoy
images: {envoy: registry.example/envoy:7, pullPolicy: Always, pullSecrets: [registry]}
resources: {proxy: {limits: {cpu: \"4\"}}}
redirect: {excludeOutboundIPRanges: \"10.0.0.0/8,fd00::/8\", excludeInboundPorts: \"22,8443\"}
probes: {startup: {failureThreshold: 30}}
neverInject: [{matchLabels: {app: batch}}]
env: {FERROMESH_DNS_DOMAIN: example.org}
";
        let settings = read(text).expect("it is read");
        assert_eq!(&*settings.discovery_address, "ferromesh.mesh.svc:15012");
        assert_eq!(
            (settings.proxy, &**settings.image(ProxyKind::Envoy)),
            (ProxyKind::Envoy, "registry.example/envoy:7")
        );
        let limits: Vec<_> = settings.proxy_resources.limits.written().collect();
        assert_eq!(limits, [("cpu", &"4".into())]);
        assert_eq!(settings.proxy_resources.requests.written().count(), 0);
        assert_eq!(&*settings.redirect.exclude_inbound_ports, "22,8443");
        assert_eq!((settings.startup.failure_threshold, settings.startup.period), (30, 1));
        assert_eq!(settings.never_inject.len(), 1);
    }

    #[test]
    fn a_mistake_is_named_with_its_place_and_what_was_meant() {
        for (text, words) in [
            ("a: b: c", &["settings.yaml:1:"][..]),
            ("\nproxxy: envoy\n", &["settings.yaml:2:1", "proxxy", "did you mean `proxy`"]),
            ("proxy: nginx", &["settings.yaml:1:1", "proxy", "one of ferromesh, envoy", "nginx"]),
            ("images: {pullPolicy: always}", &["images.pullPolicy", "`Always`"]),
            ("trustDomain: Bad!", &["trustDomain"]),
            ("logLevel: loud", &["logLevel", "one of trace", "`loud`"]),
            ("drainTime: 5", &["drainTime", "`5s`"]),
            ("templates: {sidecar: {}}", &["templates.sidecar", "the proxy's own"]),
            ("templates: {a: 'spec: {}'}", &["templates.a", "an object", "without Go's"]),
            ("templates: {a: {spec: {hostname: '{{ .Name }}'}}}", &["templates.a", "`{{`"]),
            ("templates: {a: {status: {}}}", &["templates.a", "metadata and spec alone"]),
            (
                "templates: {a: {metadata: {labels: {tier: 1}}}}",
                &["templates.a.metadata.labels.tier", "quote it"],
            ),
            (
                "templates: {a: {metadata: {name: b}}}",
                &["templates.a.metadata.name", "labels and annotations alone"],
            ),
            (
                "templates: {a: {metadata: {labels: {sidecar.istio.io/inject: 'false'}}}}",
                &["sidecar.istio.io/inject", "before templates are merged"],
            ),
            ("templates: {a: {spec: {hostNetwork: true}}}", &["spec.hostNetwork", "no proxy"]),
            (
                "templates: {a: {spec: {containers: [{image: b}]}}}",
                &["templates.a.spec.containers", "objects with names"],
            ),
            ("defaultTemplates: [sidecar, b]", &["defaultTemplates[1]", "no template `b`"]),
            ("templates: {a: {}}\ndefaultTemplates: [a]", &["defaultTemplates", "one of sidecar"]),
            (
                "redirect: {excludeInboundPorts: \"22,none\"}",
                &["redirect.excludeInboundPorts", "none"],
            ),
            (
                "redirect: {includeOutboundIPRanges: 10.0.0.0/99}",
                &["redirect.includeOutboundIPRanges", "10.0.0.0/99"],
            ),
            (
                "resources: {init: {limits: {memory: lots}}}",
                &["resources.init.limits.memory", "lots"],
            ),
            (
                "probes: {readiness: {periodSeconds: 0}}",
                &["probes.readiness.periodSeconds", "at least 1"],
            ),
            (
                "neverInject: [{matchExpressions: [{key: a, operator: Is}]}]",
                &["matchExpressions[0].operator", "`In`"],
            ),
        ] {
            let found = read(text).expect_err(text).join("\n");
            words
                .iter()
                .for_each(|word| assert!(found.contains(word), "{text:?}: no {word:?} in {found}"));
        }
    }
}
