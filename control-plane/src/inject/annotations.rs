//! What a pod's labels and annotations ask for, over the defaults of the settings.

use std::{collections::BTreeMap, num::NonZeroU16, sync::Arc, time::Duration};

use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic, FieldPath, Severity},
    dialect::{
        decode::Decoder,
        istio::{
            annotation::{self, INTERCEPTION, PROXY_CONFIG},
            pod_config,
        },
        schema::Decode,
    },
    ir::{Labels, ProxyStart},
    snapshot::MeshSnapshot,
};
use serde_json::Value;

use super::{
    Surroundings,
    own_words::{self, UserVolumes},
    pod,
    settings::{InjectionSettings, ProxyKind, Quantities, Redirect, Resources, Timing},
    statistics::{self, Statistics},
    values::{self, unfit},
};

/// The label, or annotation, of pods and namespaces that says which proxy they want.
const PROXY_KIND: &str = "ferromesh.io/proxy";
/// The annotation that says whether the proxy is a sidecar or a gateway.
const TEMPLATES: &str = "inject.istio.io/templates";
/// Where the agent answers, unless the pod says otherwise.
pub(super) const AGENT_PORT: u16 = 15020;
/// The pause between the proxy's end and that of its pod's time.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// What a pod has for its end if it says nothing.
const DEFAULT_GRACE: u64 = 30;

/// The annotation that says what the proxy logs.
const LOG_LEVEL: &str = "sidecar.istio.io/logLevel";
/// The annotation that says what its agent logs.
const AGENT_LOG_LEVEL: &str = "sidecar.istio.io/agentLogLevel";

/// What is said of a level for the agent where the proxy has one.
const NO_AGENT: &str =
    "no effect beside sidecar.istio.io/logLevel: the Ferromesh proxy has no agent of its own";
/// What is said of targets where the proxy is an Envoy.
const NO_TARGETS: &str = "target=level pairs have no effect on an Envoy, but on its agent alone";

/// What the mesh adds to a pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Template {
    /// A proxy beside an application, and redirection to it.
    Sidecar,
    /// A proxy that is the application.
    Gateway,
}

/// What a pod is made with.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Chosen {
    /// What the proxy is.
    pub(super) proxy: Template,
    /// Templates of the settings that are merged into the pod, in order.
    pub(super) templates: Vec<Arc<str>>,
}

const SIDECAR: &str = "sidecar";
const GATEWAY: &str = "gateway";
/// Templates of Istio's that nothing here makes, and what does instead.
const NOT_MADE: [(&str, &str); 4] = [
    ("grpc-agent", "gRPC clients without a proxy get no agent: use `sidecar`"),
    ("grpc-simple", "gRPC clients without a proxy get no agent: use `sidecar`"),
    ("waypoint", "there is no ambient mode: use `gateway` for a proxy of its own"),
    ("kube-gateway", "Gateway API is not served yet: use `gateway`"),
];

/// Everything that a pod's proxy is to be.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct PodOverrides {
    pub(super) chosen: Chosen,
    pub(super) proxy: ProxyKind,
    pub(super) image: Arc<str>,
    pub(super) resources: Resources,
    /// What our programs log: our proxy, or Envoy's agent.
    pub(super) log_level: Arc<str>,
    /// What Envoy logs.
    pub(super) envoy_log_level: Arc<str>,
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
    /// Which statistics an Envoy keeps.
    pub(super) statistics: Statistics,
    /// What the pod's author says of our containers in an annotation.
    pub(super) containers: Vec<Value>,
    /// What the author adds to the proxy's volumes.
    pub(super) volumes: UserVolumes,
    /// Further variables.
    pub(super) env: BTreeMap<Arc<str>, Arc<str>>,
}

impl PodOverrides {
    /// Reads the overrides of a pod, and what its author should know about them; `at` holds what was
    /// found in it before.
    ///
    /// # Errors
    /// Values that are not of their form.
    pub(super) fn read(
        pod: &Value,
        namespace: &str,
        chosen: Chosen,
        around: &Surroundings<'_>,
        settings: &InjectionSettings,
        at: Decoder,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let mut asked = Asked { pod, at };
        let said = |mesh: &MeshSnapshot| mesh.proxy_start(namespace, &pod::labels(pod));
        let start = around.mesh.map(said).unwrap_or_default();
        let overrides = asked.overrides(chosen, around.namespace_labels, &start, settings);
        let (mistakes, mut warnings): (Vec<Diagnostic>, Vec<Diagnostic>) =
            asked.at.finish().into_iter().partition(|finding| finding.severity == Severity::Error);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let (annotations, labels) = (pod::annotations(pod), pod::labels(pod));
        warnings.extend(annotation::in_vain(
            "Pod",
            &annotations,
            &labels,
            &FieldPath::of("metadata"),
        ));
        match overrides.chosen.proxy {
            Template::Sidecar => warnings.extend(bypassed(pod)),
            Template::Gateway => warnings.extend(of_sidecars(&annotations)),
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
        chosen: Chosen,
        namespace_labels: Option<&Labels>,
        start: &ProxyStart,
        settings: &InjectionSettings,
    ) -> PodOverrides {
        let proxy = self.proxy_kind(namespace_labels).unwrap_or(settings.proxy);
        let own = self.config();
        if proxy == ProxyKind::Ferromesh {
            let at = pod::annotation_path(PROXY_CONFIG);
            statistics::of_no_effect(self.pod, &own, &at).for_each(|finding| self.at.note(finding));
        }
        let config = own.over(start);
        let drain_time = config.drain.unwrap_or(match chosen.proxy {
            Template::Sidecar => settings.drain_time,
            Template::Gateway => settings.gateway_drain_time,
        });
        let concurrency = config.threads.filter(|threads| *threads > 0);
        let image = pod::annotation(self.pod, "sidecar.istio.io/proxyImage")
            .map_or_else(|| settings.image(proxy).clone(), Arc::from);
        let (log_level, envoy_log_level) = self.log_levels(proxy, settings);
        let status_port = self
            .number("status.sidecar.istio.io/port")
            .unwrap_or_else(|| u32::from(config.agent_port.unwrap_or(AGENT_PORT)));
        let agent_port = u16::try_from(status_port)
            .ok()
            .and_then(NonZeroU16::new)
            .map_or(AGENT_PORT, NonZeroU16::get);
        self.only_redirection();
        PodOverrides {
            chosen,
            proxy,
            image,
            resources: self.resources(&settings.proxy_resources),
            log_level,
            envoy_log_level,
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
            statistics: Statistics::read(self.pod, &config, &mut self.at),
            containers: own_words::containers(self.pod, &mut self.at),
            volumes: UserVolumes::read(self.pod, &mut self.at),
            env: settings
                .env
                .iter()
                .chain(&config.environment)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        }
    }

    fn annotated<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&'a str, &mut Decoder) -> T,
    ) -> Option<T> {
        pod::annotated(self.pod, key, &mut self.at, read)
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        self.annotated(key, |text, at| {
            let flag = annotation::means(text);
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
        if own.is_some() {
            return own;
        }
        let word = namespace_labels?.get(PROXY_KIND)?;
        let kinds = [ProxyKind::Ferromesh, ProxyKind::Envoy];
        let of_namespace = kinds.into_iter().find(|kind| kind.as_str() == &**word);
        if of_namespace.is_none() {
            // A namespace's mistake must not keep its pods from starting.
            let message = "its namespace's label is no kind of proxy: not read";
            let field = FieldPath::of("metadata.namespace");
            let finding = Diagnostic::warning(Code::InvalidValue, field, message);
            let got = format!("`{PROXY_KIND}: {word}`");
            self.at.note(finding.expected("one of ferromesh, envoy", got));
        }
        of_namespace
    }

    /// What our program logs, and what Envoy does.
    fn log_levels(
        &mut self,
        proxy: ProxyKind,
        settings: &InjectionSettings,
    ) -> (Arc<str>, Arc<str>) {
        let agent = self.annotated(AGENT_LOG_LEVEL, agent_log_level).flatten();
        let of_proxy = self.annotated(LOG_LEVEL, |text, at| {
            values::check_log_level(text, at);
            Arc::<str>::from(text)
        });
        let envoy = of_proxy.clone().unwrap_or_else(|| settings.log_level.clone());
        let ours = match proxy {
            ProxyKind::Ferromesh if agent.is_some() && of_proxy.is_some() => {
                self.note(AGENT_LOG_LEVEL, NO_AGENT);
                of_proxy
            }
            ProxyKind::Ferromesh => of_proxy.or(agent),
            ProxyKind::Envoy => {
                if of_proxy.as_ref().is_some_and(|levels| levels.contains('=')) {
                    self.note(LOG_LEVEL, NO_TARGETS);
                }
                agent.or(of_proxy)
            }
        };
        (ours.unwrap_or_else(|| settings.log_level.clone()), envoy)
    }

    /// Says of an annotation that nothing follows from it, or from a part of it.
    fn note(&mut self, key: &str, message: &str) {
        let field = pod::annotation_path(key);
        self.at.note(Diagnostic::warning(Code::NotActedOn, field, message));
    }

    fn config(&mut self) -> ProxyStart {
        self.annotated(PROXY_CONFIG, pod_config::read).unwrap_or_default()
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
        self.annotated(INTERCEPTION, |mode, at| {
            if mode != "REDIRECT" {
                at.note(pod_config::only_redirection(at.path(), mode));
            }
        });
    }

    /// The most that a proxy may take for its end, so that it is not killed while it drains.
    fn time_to_end(&self) -> Duration {
        let grace = self.pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64);
        Duration::from_secs(grace.unwrap_or(DEFAULT_GRACE)).saturating_sub(LAST_MOMENT)
    }
}

impl Chosen {
    /// Reads what a pod asks for, or else takes the settings' default.
    pub(super) fn read(pod: &Value, settings: &InjectionSettings, at: &mut Decoder) -> Self {
        let read = |text: &str, at: &mut Decoder| {
            let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
            chosen(names, settings, at)
        };
        let written = pod::annotated(pod, TEMPLATES, at, |text, at| {
            (!text.trim().is_empty()).then(|| read(text, at))
        });
        let default = || settings.default_templates.iter().map(AsRef::as_ref);
        let (proxy, templates) = written
            .flatten()
            .unwrap_or_else(|| chosen(default(), settings, &mut Decoder::default()));
        Self { proxy, templates }
    }
}

/// Reads the names of templates: one of the proxy's, and any of the settings', each once.
fn chosen<'t>(
    names: impl Iterator<Item = &'t str>,
    settings: &InjectionSettings,
    at: &mut Decoder,
) -> (Template, Vec<Arc<str>>) {
    let of_settings = settings.templates.keys().map(AsRef::as_ref);
    let known: Vec<&str> = [SIDECAR, GATEWAY].into_iter().chain(of_settings).collect();
    let (mut of_proxy, mut others) = (Vec::new(), Vec::new());
    for name in names {
        if let Some((_, instead)) = NOT_MADE.iter().find(|(other, _)| *other == name) {
            let finding = Diagnostic::error(Code::NotActedOn, at.path(), "no such template here");
            at.note(finding.expected(format!("one of {}", known.join(", ")), name).fix(*instead));
            return (Template::Sidecar, others);
        }
        match at.word(name, &known) {
            Some(SIDECAR) => of_proxy.push(Template::Sidecar),
            Some(GATEWAY) => of_proxy.push(Template::Gateway),
            Some(name) if others.iter().any(|other: &Arc<str>| **other == *name) => {}
            Some(name) => others.push(Arc::from(name)),
            None => return (Template::Sidecar, others),
        }
    }
    match of_proxy[..] {
        [template] => (template, others),
        _ => {
            let message = "what the proxy is to be must be said once";
            let finding = Diagnostic::error(Code::InvalidValue, at.path(), message);
            let got = if of_proxy.is_empty() { "neither" } else { "several" };
            at.note(finding.expected("sidecar or gateway, and others with commas", got));
            (Template::Sidecar, others)
        }
    }
}

/// Reads a level for the agent, as Istio writes it: a level, or `SCOPE:LEVEL` with commas. Our agent
/// has one level for all that it does, that of `default` or `all`.
fn agent_log_level(text: &str, at: &mut Decoder) -> Option<Arc<str>> {
    const LEVELS: [(&str, &str); 6] = [
        ("none", "off"),
        ("fatal", "error"),
        ("error", "error"),
        ("warn", "warn"),
        ("info", "info"),
        ("debug", "debug"),
    ];
    let mut of_all = None;
    for part in text.split(',').map(str::trim) {
        let (scope, level) = part.split_once(':').unwrap_or(("default", part));
        let Some((_, ours)) = LEVELS.iter().find(|(name, _)| *name == level) else {
            let levels = "one of none, fatal, error, warn, info, debug, or default:LEVEL";
            unfit(part, levels, at);
            return None;
        };
        match scope {
            "default" | "all" => of_all = Some(Arc::from(*ours)),
            _ => at.remark(|path| {
                let message = format!("no effect: the agent has one level, and no scope `{scope}`");
                Diagnostic::info(Code::NotActedOn, path, message)
            }),
        }
    }
    of_all
}

/// What a gateway is told in vain: its traffic is its own, and nothing is redirected to it.
fn of_sidecars(annotations: &Labels) -> impl Iterator<Item = Diagnostic> {
    let of_sidecar = |key: &str| {
        key.starts_with("traffic.sidecar.istio.io/")
            || matches!(key, INTERCEPTION | "sidecar.istio.io/rewriteAppHTTPProbers")
    };
    annotations.keys().filter(move |key| of_sidecar(key)).map(|key| {
        let message = "no effect on a gateway: nothing is redirected to it";
        Diagnostic::info(Code::NotActedOn, pod::annotation_path(key), message)
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
