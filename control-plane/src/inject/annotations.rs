//! What a pod's labels and annotations ask for, over the defaults of the settings.

use std::{collections::BTreeMap, num::NonZeroU16, sync::Arc, time::Duration};

use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{
        decode::Decoder,
        schema::{ChoiceValue, Decode},
    },
    ir::{Labels, ProxyStart},
    object,
    snapshot::MeshSnapshot,
    yaml,
};
use serde_json::Value;

use super::{
    Surroundings, pod,
    settings::{InjectionSettings, ProxyKind, Quantities, Redirect, Resources, Timing},
    values::{self, unfit},
};

/// The label, or annotation, of pods and namespaces that says which proxy they want.
const PROXY_KIND: &str = "ferromesh.io/proxy";
/// The annotation that says whether the proxy is a sidecar or a gateway.
const TEMPLATES: &str = "inject.istio.io/templates";
/// The annotation with settings of this pod's proxy.
const CONFIG: &str = "proxy.istio.io/config";
/// Where the agent answers, unless the pod says otherwise.
pub(super) const AGENT_PORT: u16 = 15020;
/// The pause between the proxy's end and that of its pod's time.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// What a pod has for its end if it says nothing.
const DEFAULT_GRACE: u64 = 30;

/// Istio's switch between native sidecars and others.
const NATIVE: &str = "sidecar.istio.io/nativeSidecar";

/// The annotation that says what the proxy logs.
const LOG_LEVEL: &str = "sidecar.istio.io/logLevel";

/// Annotations of Istio that ask for something we do not do, with what to know about them.
const NOT_ACTED_ON: &[(&str, &str)] = &[
    ("sidecar.istio.io/bootstrapOverride", "the bootstrap is made by the agent alone"),
    ("sidecar.istio.io/componentLogLevel", "use sidecar.istio.io/logLevel with target=level pairs"),
    ("sidecar.istio.io/proxyImageType", "there is one image of each kind of proxy"),
    (
        "sidecar.istio.io/userVolume",
        "write volumes into the pod, and their mounts into a container named istio-proxy",
    ),
    ("sidecar.istio.io/userVolumeMount", "write the mounts into a container named istio-proxy"),
    (NATIVE, "the proxy always is a native sidecar"),
    ("traffic.sidecar.istio.io/excludeInterfaces", "traffic of every interface is redirected"),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", "traffic of every interface is redirected"),
    ("istio.io/reroute-virtual-interfaces", "traffic of every interface is redirected"),
];

/// What the mesh adds to a pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Template {
    /// A proxy beside an application, and redirection to it.
    Sidecar,
    /// A proxy that is the application.
    Gateway,
}

const TEMPLATE_NAMES: &[ChoiceValue] = &[
    ChoiceValue { name: "sidecar", doc: "A proxy beside an application." },
    ChoiceValue { name: "gateway", doc: "A proxy that is the application." },
];

/// Everything that a pod's proxy is to be.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct PodOverrides {
    pub(super) template: Template,
    pub(super) proxy: ProxyKind,
    pub(super) image: Arc<str>,
    pub(super) resources: Resources,
    pub(super) log_level: Arc<str>,
    /// Where the agent answers probes and scrapes.
    pub(super) agent_port: u16,
    /// The proxy's readiness probe; `None`: it has no probes.
    pub(super) readiness: Option<Timing>,
    pub(super) redirect: Redirect,
    pub(super) rewrite_probes: bool,
    pub(super) merge_metrics: bool,
    pub(super) hold: bool,
    /// Worker threads; `None`: as many as the limit of processors.
    pub(super) concurrency: Option<u32>,
    pub(super) drain_time: Duration,
    /// Further variables.
    pub(super) env: BTreeMap<Arc<str>, Arc<str>>,
}

object! { open;
    /// `proxy.istio.io/config`, as far as it means something here.
    PodProxyConfig {
        /// Worker threads; 0 is as many as there are processors.
        "concurrency" concurrency: Option<u32>,
        /// How long open connections may finish when the proxy ends.
        "terminationDrainDuration" drain: Option<Duration>,
        /// Where the agent answers; 0: nowhere.
        "statusPort" status_port: Option<u16>,
        /// Whether the application starts only once the proxy is ready.
        "holdApplicationUntilProxyStarts" hold: Option<bool>,
        /// Further variables.
        "proxyMetadata" metadata: BTreeMap<Arc<str>, Arc<str>>,
    }
}

impl From<PodProxyConfig> for ProxyStart {
    fn from(config: PodProxyConfig) -> Self {
        Self {
            threads: config.concurrency,
            drain: config.drain,
            hold: config.hold,
            agent_port: config.status_port,
            merge_metrics: None,
            environment: config.metadata,
        }
    }
}

impl PodOverrides {
    /// Reads the overrides of a pod, and what its author should know about them.
    ///
    /// # Errors
    /// Values that are not of their form.
    pub(super) fn read(
        pod: &Value,
        namespace: &str,
        around: &Surroundings<'_>,
        settings: &InjectionSettings,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let mut asked = Asked { pod, at: Decoder::default() };
        let said = |mesh: &MeshSnapshot| mesh.proxy_start(namespace, &pod::labels(pod));
        let start = around.mesh.map(said).unwrap_or_default();
        let overrides = asked.overrides(around.namespace_labels, &start, settings);
        let found = asked.at.finish();
        if !found.is_empty() {
            return Err(found);
        }
        let mut warnings: Vec<Diagnostic> = not_acted_on(pod).collect();
        if overrides.template == Template::Sidecar {
            warnings.extend(bypassed(pod));
        }
        Ok((overrides, warnings))
    }
}

/// A pod's annotations, being read.
struct Asked<'a> {
    pod: &'a Value,
    at: Decoder,
}

impl<'a> Asked<'a> {
    /// The pod's own word goes before that of objects, which goes before the settings.
    fn overrides(
        &mut self,
        namespace_labels: Option<&Labels>,
        start: &ProxyStart,
        settings: &InjectionSettings,
    ) -> PodOverrides {
        let proxy = self.proxy_kind(namespace_labels).unwrap_or(settings.proxy);
        let config = ProxyStart::from(self.config()).over(start);
        let template = self.template();
        let drain_time = config.drain.unwrap_or(match template {
            Template::Sidecar => settings.drain_time,
            Template::Gateway => settings.gateway_drain_time,
        });
        let concurrency = config.threads.filter(|threads| *threads > 0);
        let text = |key: &str, default: &Arc<str>| {
            pod::annotation(self.pod, key).map_or_else(|| default.clone(), Arc::from)
        };
        let image = text("sidecar.istio.io/proxyImage", settings.image(proxy));
        let log_level = text(LOG_LEVEL, &settings.log_level);
        self.annotated(LOG_LEVEL, values::check_log_level);
        let status_port = self
            .number("status.sidecar.istio.io/port")
            .unwrap_or_else(|| u32::from(config.agent_port.unwrap_or(AGENT_PORT)));
        let agent_port = u16::try_from(status_port)
            .ok()
            .and_then(NonZeroU16::new)
            .map_or(AGENT_PORT, NonZeroU16::get);
        self.only_redirection();
        PodOverrides {
            template,
            proxy,
            image,
            resources: self.resources(&settings.proxy_resources),
            log_level,
            agent_port,
            readiness: (status_port > 0).then(|| self.readiness(settings.readiness)),
            redirect: self.redirect(&settings.redirect),
            rewrite_probes: self
                .flag("sidecar.istio.io/rewriteAppHTTPProbers")
                .unwrap_or(settings.rewrite_probes),
            merge_metrics: self
                .flag("prometheus.istio.io/merge-metrics")
                .or(config.merge_metrics)
                .unwrap_or(settings.merge_metrics),
            hold: config.hold.unwrap_or(settings.hold),
            concurrency,
            drain_time: drain_time.min(self.time_to_end()),
            env: settings
                .env
                .iter()
                .chain(&config.environment)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        }
    }

    /// Reads an annotation, if it is there, at its path.
    fn annotated<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&'a str, &mut Decoder) -> T,
    ) -> Option<T> {
        let text = pod::annotation(self.pod, key)?;
        Some(self.at.within("metadata", |at| {
            at.within("annotations", |at| at.within_key(key, |at| read(text, at)))
        }))
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        self.annotated(key, |text, at| {
            let flag = text.parse().ok();
            if flag.is_none() {
                unfit(text, "true or false", at);
            }
            flag
        })?
    }

    fn number(&mut self, key: &str) -> Option<u32> {
        self.annotated(key, |text, at| {
            let number = text.parse::<u16>().ok();
            if number.is_none() {
                unfit(text, "a whole number 0..=65535", at);
            }
            number.map(u32::from)
        })?
    }

    /// The pod's own word, as label or annotation, or else that of its namespace.
    fn proxy_kind(&mut self, namespace_labels: Option<&Labels>) -> Option<ProxyKind> {
        let read =
            |word: &str, at: &mut Decoder| ProxyKind::decode(&Value::String(word.to_owned()), at);
        if let Some(word) = pod::label(self.pod, PROXY_KIND) {
            let labelled = |at: &mut Decoder| at.within_key(PROXY_KIND, |at| read(word, at));
            return Some(self.at.within("metadata", |at| at.within("labels", labelled)));
        }
        let own = self.annotated(PROXY_KIND, read);
        // A namespace's mistake must not keep its pods from starting.
        let of_namespace = || {
            let word = namespace_labels?.get(PROXY_KIND)?;
            [ProxyKind::Ferromesh, ProxyKind::Envoy]
                .into_iter()
                .find(|kind| kind.as_str() == &**word)
        };
        own.or_else(of_namespace)
    }

    fn template(&mut self) -> Template {
        let chosen = self.annotated(TEMPLATES, |text, at| {
            at.choice(&Value::String(text.trim().to_owned()), TEMPLATE_NAMES)
        });
        if chosen.flatten() == Some("gateway") { Template::Gateway } else { Template::Sidecar }
    }

    fn config(&mut self) -> PodProxyConfig {
        let read = |text: &str, at: &mut Decoder| match yaml::parse(text) {
            Ok(node) => node.map(|node| PodProxyConfig::decode(&node.to_json(), at)),
            Err(error) => {
                at.invalid(format!("not YAML: line {}: {}", error.line, error.message), error.fix);
                None
            }
        };
        self.annotated(CONFIG, read).flatten().unwrap_or_default()
    }

    /// Istio's way: an annotation about requests replaces all requests, one about limits all
    /// limits.
    fn resources(&mut self, default: &Resources) -> Resources {
        let requests = self.quantities("sidecar.istio.io/proxyCPU", "sidecar.istio.io/proxyMemory");
        let limits =
            self.quantities("sidecar.istio.io/proxyCPULimit", "sidecar.istio.io/proxyMemoryLimit");
        if requests.is_none() && limits.is_none() {
            return default.clone();
        }
        Resources { requests: requests.unwrap_or_default(), limits: limits.unwrap_or_default() }
    }

    fn quantities(&mut self, cpu: &str, memory: &str) -> Option<Quantities> {
        let mut read = |key| {
            self.annotated(key, |text, at| {
                values::check_quantity(text, at);
                Arc::<str>::from(text)
            })
        };
        let (cpu, memory) = (read(cpu), read(memory));
        (cpu.is_some() || memory.is_some()).then(|| Quantities {
            cpu: cpu.unwrap_or_default(),
            memory: memory.unwrap_or_default(),
        })
    }

    fn readiness(&mut self, default: Timing) -> Timing {
        let mut seconds =
            |name: &str| self.number(&format!("readiness.status.sidecar.istio.io/{name}"));
        Timing {
            initial_delay: seconds("initialDelaySeconds").unwrap_or(default.initial_delay),
            period: seconds("periodSeconds").unwrap_or(default.period),
            failure_threshold: seconds("failureThreshold").unwrap_or(default.failure_threshold),
            timeout: default.timeout,
        }
    }

    fn redirect(&mut self, default: &Redirect) -> Redirect {
        let mut read = |name: &str, check: fn(&str, &mut Decoder), default: &Arc<str>| {
            let read = |text: &str, at: &mut Decoder| {
                check(text, at);
                Arc::from(text)
            };
            self.annotated(&format!("traffic.sidecar.istio.io/{name}"), read)
                .unwrap_or_else(|| default.clone())
        };
        Redirect {
            include_outbound_ranges: read(
                "includeOutboundIPRanges",
                values::check_ranges,
                &default.include_outbound_ranges,
            ),
            exclude_outbound_ranges: read(
                "excludeOutboundIPRanges",
                values::check_ranges,
                &default.exclude_outbound_ranges,
            ),
            include_outbound_ports: read(
                "includeOutboundPorts",
                values::check_ports,
                &default.include_outbound_ports,
            ),
            exclude_outbound_ports: read(
                "excludeOutboundPorts",
                values::check_ports,
                &default.exclude_outbound_ports,
            ),
            include_inbound_ports: read(
                "includeInboundPorts",
                values::check_ports,
                &default.include_inbound_ports,
            ),
            exclude_inbound_ports: read(
                "excludeInboundPorts",
                values::check_ports,
                &default.exclude_inbound_ports,
            ),
        }
    }

    /// Other ways of interception would leave the pod outside the mesh without a word.
    fn only_redirection(&mut self) {
        self.annotated("sidecar.istio.io/interceptionMode", |mode, at| {
            if mode != "REDIRECT" {
                unfit(mode, "REDIRECT, the only mode there is", at);
            }
        });
    }

    /// The most that a proxy may take for its end, so that it is not killed while it drains.
    fn time_to_end(&self) -> Duration {
        let grace = self.pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64);
        Duration::from_secs(grace.unwrap_or(DEFAULT_GRACE)).saturating_sub(LAST_MOMENT)
    }
}

/// What the pod asks for in vain.
fn not_acted_on(pod: &Value) -> impl Iterator<Item = Diagnostic> {
    let asked =
        |key: &str| pod::annotation(pod, key).is_some_and(|value| (key, value) != (NATIVE, "true"));
    NOT_ACTED_ON.iter().filter(move |(key, _)| asked(key)).map(|(key, advice)| {
        Diagnostic::warning(
            Code::NotActedOn,
            pod::annotation_path(key),
            "accepted, but not acted on",
        )
        .fix(*advice)
    })
}

/// Whoever runs as the proxy's user, so that the traffic is taken for the proxy's own and is not
/// redirected.
fn bypassed(pod: &Value) -> impl Iterator<Item = Diagnostic> {
    let runs_as_proxy = |holder: Option<&Value>| {
        let user = holder.and_then(|holder| holder.pointer("/securityContext/runAsUser"));
        user.and_then(Value::as_u64) == Some(pod::PROXY_UID)
    };
    let of_pod = runs_as_proxy(pod.get("spec")).then(|| "spec".to_owned());
    let containers = pod::CONTAINER_LISTS.iter().flat_map(|list| {
        let containers =
            pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array).into_iter().flatten();
        containers
            .enumerate()
            .map(move |(index, container)| (format!("spec.{list}[{index}]"), container))
    });
    let of_containers = containers
        .filter(move |(_, container)| {
            pod::name(container) != pod::PROXY && runs_as_proxy(Some(container))
        })
        .map(|(path, _)| path);
    of_pod.into_iter().chain(of_containers).map(|path| {
        let field = FieldPath::of(&path).field("securityContext").field("runAsUser");
        let message = "user 1337 is the proxy's: traffic of this user is not redirected";
        Diagnostic::warning(Code::NoEffect, field, message)
            .fix("choose another user, unless that is meant")
    })
}
