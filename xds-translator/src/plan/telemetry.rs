//! What a proxy tells of the traffic that it carries: log entries, spans and metrics, merged from
//! the mesh's settings and the policies in a view's key.
//!
//! The rules of merging are Istio's (`Telemetry`): of providers the most special level that names
//! any decides, everything else of a rule adds to what less special ones say.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    AccessLogPlan, HttpRole, ListenerPlan, LogSinkPlan, MetricsPlan, PlannedCollector, SpanSource,
    TagPlan, TelemetryKey, TerminalFilter, TracerPlan, TracingPlan, UnknownHosts, metrics, naming,
    route::find_service,
};
use crate::{
    ir::{
        CallSide, Collector, Hostname, LogRule, LogSink, MeshDefaults, PerMillion, Service,
        TagValue, TelemetryDefaults, TelemetryPolicy, TelemetryProvider, Tracer, TracerForm,
        TracingRule,
    },
    snapshot::Reader,
};

/// What one side of calls tells.
#[derive(Clone, Default, Debug)]
pub(crate) struct Telemetry {
    /// Who gets log entries; sorted by provider.
    pub(crate) logs: Vec<AccessLogPlan>,
    /// Spans; `None`: requests are not traced, nor marked for it.
    pub(crate) tracing: Option<TracingPlan>,
    /// Metrics; `None`: those that the proxy has by itself.
    pub(crate) metrics: Option<MetricsPlan>,
    /// Whether listeners tell of connections that none of their chains takes.
    unmatched: bool,
}

impl Telemetry {
    /// Has a listener tell it. `itself`: also of connections that none of its chains takes.
    pub(crate) fn tell(&self, listener: &mut ListenerPlan, itself: bool) {
        if itself && self.unmatched {
            listener.access_logs.clone_from(&self.logs);
        }
        for chain in listener.chains.iter_mut().chain(&mut listener.default_chain) {
            match &mut chain.terminal {
                TerminalFilter::Http(http) => {
                    http.access_logs.clone_from(&self.logs);
                    http.tracing.clone_from(&self.tracing);
                    http.metrics.clone_from(&self.metrics);
                    if http.role == HttpRole::Gateway
                        && let Some(metrics) = &mut http.metrics
                    {
                        metrics.unknown_hosts = UnknownHosts::Unnamed;
                    }
                }
                TerminalFilter::Tcp(proxy) => {
                    proxy.access_logs.clone_from(&self.logs);
                    proxy.metrics.clone_from(&self.metrics);
                }
            }
        }
    }
}

/// Plans what one side tells in the proxies of a namespace.
pub(crate) fn telemetry(
    reader: &Reader<'_>,
    key: &TelemetryKey,
    namespace: &str,
    side: CallSide,
) -> Telemetry {
    let mesh = reader.mesh();
    let policies = policies(reader, key);
    let view = View { reader, namespace };
    let logs = logs(&mesh.telemetry, &policies, side);
    Telemetry {
        logs: logs.into_iter().filter_map(|log| view.log(log)).collect(),
        tracing: tracing(&mesh.telemetry, &policies, side)
            .and_then(|spans| view.tracing(mesh, &spans, key.source.as_ref())),
        metrics: metrics::plan(&mesh.telemetry, &policies, key.metrics, side),
        unmatched: mesh.telemetry.unmatched,
    }
}

/// The services that are told something by either side, as proxies of a namespace find them; they
/// are needed where they would not be seen, too.
pub(crate) fn collectors<'a>(
    reader: &Reader<'a>,
    key: &TelemetryKey,
    namespace: &str,
) -> Vec<&'a Arc<Service>> {
    let mesh = &reader.mesh().telemetry;
    let policies = policies(reader, key);
    let mut found = BTreeMap::new();
    for side in [CallSide::Client, CallSide::Server] {
        let logs = logs(mesh, &policies, side);
        let logs = logs.iter().filter_map(|log| log.sink.collector());
        let spans = tracing(mesh, &policies, side);
        let spans = spans.iter().filter_map(|spans| spans.tracer).flat_map(told_by);
        for collector in logs.chain(spans) {
            let service = find_collector(reader, namespace, collector);
            found.extend(service.map(|service| (service.key.clone(), service)));
        }
    }
    found.into_values().collect()
}

/// Whether spans say whose they are: such proxies share no view with those of other workloads.
pub(crate) fn names_workload(mesh: &MeshDefaults, policies: &[&TelemetryPolicy]) -> bool {
    let sides = [CallSide::Client, CallSide::Server];
    let spans = sides.into_iter().filter_map(|side| tracing(&mesh.telemetry, policies, side));
    spans.into_iter().any(|spans| spans.tracer.is_some())
}

/// The providers that a rule names and that are not there, or are for something else.
pub(crate) fn unknown_providers<'r>(
    mesh: &TelemetryDefaults,
    names: impl IntoIterator<Item = &'r Arc<str>>,
    fits: fn(&TelemetryProvider) -> bool,
) -> Vec<(&'r Arc<str>, bool)> {
    let named = names.into_iter().map(|name| (name, mesh.provider(name)));
    let wrong = named.filter(|(_, provider)| !provider.is_some_and(fits));
    wrong.map(|(name, provider)| (name, provider.is_some())).collect()
}

/// The services that a tracer tells.
pub(crate) fn told_by(tracer: &Tracer) -> impl Iterator<Item = &Collector> {
    let sampler = match &tracer.form {
        TracerForm::OpenTelemetry(otlp) => otlp.sampler.as_ref().map(|s| &s.collector),
        _ => None,
    };
    [&tracer.collector].into_iter().chain(sampler)
}

/// The service that a collector is, as proxies of a namespace find it. A name of the form
/// `SERVICE.NAMESPACE` is completed if no service has it as it is.
pub(crate) fn find_collector<'a>(
    reader: &Reader<'a>,
    namespace: &str,
    collector: &Collector,
) -> Option<&'a Arc<Service>> {
    let namespace = collector.namespace.as_deref().unwrap_or(namespace);
    let host = &collector.host;
    let whole = || {
        let domain = &reader.mesh().domain;
        let short = host.as_str().split('.').count() == 2;
        let whole = short.then(|| Hostname::new(&format!("{host}.svc.{domain}")))?;
        find_service(reader, &whole, namespace)
    };
    let service = find_service(reader, host, namespace).or_else(whole)?;
    service.port(collector.port).map(|_| service)
}

fn policies<'a>(reader: &Reader<'a>, key: &TelemetryKey) -> Vec<&'a TelemetryPolicy> {
    let found = key.policies.iter().filter_map(|id| reader.telemetry_policy(id));
    found.map(AsRef::as_ref).collect()
}

// -------------------------------------------------------------------------------------------------
// merging

/// A log as it is asked for.
#[derive(Clone, PartialEq, Debug)]
struct Log<'a> {
    sink: &'a LogSink,
    filter: Option<Arc<str>>,
}

/// The logs of one side; without any policy or default provider, the mesh's.
fn logs<'a>(
    mesh: &'a TelemetryDefaults,
    policies: &[&TelemetryPolicy],
    side: CallSide,
) -> Vec<Log<'a>> {
    let spoken = policies.iter().any(|policy| !policy.access_logs.is_empty());
    if !spoken && mesh.access_logs.is_empty() {
        return mesh.logs.iter().map(|sink| Log { sink, filter: None }).collect();
    }
    let chosen = log_providers(mesh, policies, side);
    let logs = chosen.into_iter().filter_map(|(name, filter)| match mesh.provider(&name)? {
        TelemetryProvider::Log(sink) => Some(Log { sink, filter }),
        _ => None,
    });
    logs.collect()
}

/// Providers by lower-case name, with their filters. A rule that names none speaks of those that the
/// rule before it spoke of; its filter holds for them too, which Istio leaves out.
fn log_providers(
    mesh: &TelemetryDefaults,
    policies: &[&TelemetryPolicy],
    side: CallSide,
) -> BTreeMap<Arc<str>, Option<Arc<str>>> {
    let lower = |names: &[Arc<str>]| -> Vec<Arc<str>> {
        names.iter().map(|name| name.to_lowercase().into()).collect()
    };
    let defaults = lower(&mesh.access_logs);
    let concerns = |rule: &&LogRule| rule.side.is_none_or(|own| own == side);
    let named = |policy: &&TelemetryPolicy| -> BTreeSet<Arc<str>> {
        let rules = policy.access_logs.iter().filter(concerns);
        rules.flat_map(|rule| lower(&rule.providers)).collect()
    };
    let most_special = policies.iter().rev().map(named).find(|names| !names.is_empty());
    let in_scope = most_special.unwrap_or_else(|| defaults.iter().cloned().collect());
    let spoken = policies.iter().any(|policy| !policy.access_logs.is_empty());
    let unfiltered = defaults.iter().filter(|_| !spoken).map(|name| (name.clone(), None));
    let mut chosen: BTreeMap<Arc<str>, Option<Arc<str>>> = unfiltered.collect();
    let mut before = defaults;
    for rule in policies.iter().flat_map(|policy| &policy.access_logs) {
        if !rule.providers.is_empty() {
            before = lower(&rule.providers);
        }
        if !concerns(&rule) {
            continue;
        }
        for name in before.iter().filter(|name| in_scope.contains(*name)) {
            if rule.disabled {
                chosen.remove(name);
                continue;
            }
            let filter = chosen.entry(name.clone()).or_default();
            if rule.filter.is_some() || !rule.providers.is_empty() {
                filter.clone_from(&rule.filter);
            }
        }
    }
    chosen
}

/// Spans as they are asked for.
#[derive(Clone, PartialEq, Debug)]
struct Spans<'a> {
    tracer: Option<&'a Tracer>,
    sampling: PerMillion,
    tags: &'a BTreeMap<Arc<str>, TagValue>,
    by_request_id: bool,
    workload_tags: bool,
    silent: bool,
}

/// The spans of one side; `None`: there are none, and nothing is marked for them.
fn tracing<'a>(
    mesh: &'a TelemetryDefaults,
    policies: &[&'a TelemetryPolicy],
    side: CallSide,
) -> Option<Spans<'a>> {
    let concerns = |rule: &&TracingRule| rule.side.is_none_or(|own| own == side);
    let all = || policies.iter().copied().flat_map(|policy: &'a TelemetryPolicy| &policy.tracing);
    let rules: Vec<&'a TracingRule> = all().filter(concerns).collect();
    let base = Spans {
        tracer: mesh.tracer.as_ref(),
        sampling: mesh.sampling,
        tags: &mesh.tags,
        by_request_id: true,
        workload_tags: mesh.workload_tags,
        silent: false,
    };
    if all().next().is_none() && mesh.tracing.is_none() {
        return mesh.marks_requests.then_some(base);
    }
    fn last<'r, T>(rules: &[&'r TracingRule], of: fn(&'r TracingRule) -> Option<T>) -> Option<T> {
        rules.iter().rev().find_map(|rule| of(rule))
    }
    let provider = last(&rules, |rule| rule.provider.as_ref()).or(mesh.tracing.as_ref());
    let tracer = match mesh.provider(provider?)? {
        TelemetryProvider::Tracer(tracer) => tracer,
        _ => return None,
    };
    let disabled = last(&rules, |rule| rule.disabled).unwrap_or(false);
    (!disabled).then(|| Spans {
        tracer: Some(tracer),
        sampling: last(&rules, |rule| rule.sampling).unwrap_or(base.sampling),
        tags: last(&rules, |r| r.tags.as_ref()).filter(|t| !t.is_empty()).unwrap_or(base.tags),
        by_request_id: last(&rules, |rule| rule.by_request_id).unwrap_or(true),
        workload_tags: last(&rules, |rule| rule.workload_tags).unwrap_or(true),
        silent: last(&rules, |rule| rule.silent).unwrap_or(false),
    })
}

// -------------------------------------------------------------------------------------------------
// plans

/// The proxies of a namespace.
struct View<'a> {
    reader: &'a Reader<'a>,
    namespace: &'a str,
}

impl View<'_> {
    /// `None`: nobody is there to take the entries.
    fn log(&self, log: Log<'_>) -> Option<AccessLogPlan> {
        let sink = match log.sink {
            LogSink::File { path, format, omit_empty } => LogSinkPlan::File {
                path: path.clone(),
                format: format.clone(),
                omit_empty: *omit_empty,
            },
            LogSink::HttpService(service) => LogSinkPlan::HttpService {
                collector: self.collector(&service.collector)?,
                service: service.clone(),
            },
            LogSink::TcpService(service) => LogSinkPlan::TcpService {
                collector: self.collector(&service.collector)?,
                service: service.clone(),
            },
            LogSink::Otlp { collector, name, body, attributes } => LogSinkPlan::Otlp {
                collector: self.collector(collector)?,
                name: name.clone(),
                body: body.clone(),
                attributes: attributes.clone(),
            },
        };
        Some(AccessLogPlan { sink, filter: log.filter })
    }

    /// `None`: nobody is there to take the spans.
    fn tracing(
        &self,
        mesh: &MeshDefaults,
        spans: &Spans<'_>,
        source: Option<&SpanSource>,
    ) -> Option<TracingPlan> {
        let Some(tracer) = spans.tracer else {
            return Some(TracingPlan::marking(spans.sampling, spans.by_request_id));
        };
        let mut told = told_by(tracer).map(|collector| self.collector(collector));
        let collector = told.next()??;
        let sampler = match told.next() {
            Some(found) => Some(found?),
            None => None,
        };
        Some(TracingPlan {
            // Whoever decides by itself has to see every request.
            sampling: if sampler.is_some() { PerMillion::ALL } else { spans.sampling },
            by_request_id: spans.by_request_id,
            silent: spans.silent,
            longest_path: tracer.longest_path.or(mesh.telemetry.longest_path),
            tags: self.tags(mesh, spans, source),
            tracer: Some(TracerPlan {
                collector,
                sampler,
                form: tracer.form.clone(),
                service: source.map(|s| s.service.clone()).unwrap_or_default(),
            }),
        })
    }

    fn tags(
        &self,
        mesh: &MeshDefaults,
        spans: &Spans<'_>,
        source: Option<&SpanSource>,
    ) -> BTreeMap<Arc<str>, TagPlan> {
        let own = spans.tags.iter().map(|(name, tag)| (name.clone(), TagPlan::Value(tag.clone())));
        let mut tags = BTreeMap::new();
        if let Some(source) = source.filter(|_| spans.workload_tags) {
            let literal = |text: &str| TagPlan::Value(TagValue::Literal(text.into()));
            tags.extend([
                (naming::TAG_REVISION.into(), literal(&source.revision)),
                (naming::TAG_SERVICE.into(), literal(&source.canonical)),
                (naming::TAG_MESH.into(), literal(mesh.trust_domain.as_str())),
                (naming::TAG_NAMESPACE.into(), literal(self.namespace)),
                (naming::TAG_CLUSTER.into(), literal(&source.cluster)),
            ]);
            let tried = naming::TRIED_OUT_TAGS.iter();
            tags.extend(tried.map(|(tag, key)| ((*tag).into(), TagPlan::TriedOut((*key).into()))));
        }
        tags.extend(own);
        tags
    }

    fn collector(&self, collector: &Collector) -> Option<PlannedCollector> {
        let service = find_collector(self.reader, self.namespace, collector)?;
        let host = service.key.host.shared();
        let cluster = naming::outbound_cluster(collector.port, "", &host);
        Some(PlannedCollector { cluster, host })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dialect::Kind,
        ir::{LogFormat, Selector},
        plan::MetricsMaker,
        plan::fixture::{mesh_with, origin, service, service_item},
        snapshot::Item,
    };

    fn file(path: &str) -> TelemetryProvider {
        let format = LogFormat::Text("".into());
        TelemetryProvider::Log(LogSink::File { path: path.into(), format, omit_empty: false })
    }

    fn tracer(host: &str) -> TelemetryProvider {
        let collector = Collector { host: Hostname::new(host), namespace: None, port: 80 };
        let form = TracerForm::Datadog;
        TelemetryProvider::Tracer(Tracer { collector, longest_path: None, form })
    }

    fn defaults() -> TelemetryDefaults {
        let providers = [
            ("a", file("/a")),
            ("b", file("/b")),
            ("t", tracer("t.shop")),
            ("u", tracer("u.shop.svc.cluster.local")),
            ("gone", tracer("gone.shop")),
        ];
        let providers = providers.map(|(name, provider)| (name.into(), provider));
        TelemetryDefaults { providers: providers.into(), ..Default::default() }
    }

    fn policy(tracing: Vec<TracingRule>, access_logs: Vec<LogRule>) -> TelemetryPolicy {
        TelemetryPolicy {
            origin: origin(Kind::TELEMETRY, "shop", "t"),
            selector: Selector::default(),
            tracing,
            access_logs,
            metrics: Vec::new(),
        }
    }

    /// `PROVIDER,PROVIDER FILTER`, with `!` before what is disabled and `>` or `<` before what is
    /// said of one side.
    fn rule(text: &str) -> LogRule {
        let side = match text.chars().next() {
            Some('>') => Some(CallSide::Client),
            Some('<') => Some(CallSide::Server),
            _ => None,
        };
        let text = text.trim_start_matches(['>', '<']);
        let (names, filter) = text.trim_start_matches('!').split_once(' ').unwrap_or_default();
        let names = names.split(',').filter(|name| !name.is_empty());
        LogRule {
            at: "".into(),
            side,
            providers: names.map(Into::into).collect(),
            filter: Some(filter.into()).filter(|filter: &Arc<str>| !filter.is_empty()),
            disabled: text.starts_with('!'),
        }
    }

    /// Files that clients write, as `PATH` or `PATH:FILTER`, by what the mesh has by default and
    /// what each level says.
    fn files(by_default: &[&str], levels: &[&[&str]]) -> Vec<String> {
        let access_logs = by_default.iter().map(|&name| name.into()).collect();
        let mesh = TelemetryDefaults {
            access_logs,
            logs: match file("/mesh") {
                TelemetryProvider::Log(log) => vec![log],
                _ => Vec::new(),
            },
            ..defaults()
        };
        let policies: Vec<TelemetryPolicy> = levels
            .iter()
            .map(|rules| policy(Vec::new(), rules.iter().map(|text| rule(text)).collect()))
            .collect();
        let policies: Vec<&TelemetryPolicy> = policies.iter().collect();
        let spell = |log: Log<'_>| match (log.sink, log.filter) {
            (LogSink::File { path, .. }, None) => path.to_string(),
            (LogSink::File { path, .. }, Some(filter)) => format!("{path}:{filter}"),
            other => format!("{other:?}"),
        };
        logs(&mesh, &policies, CallSide::Client).into_iter().map(spell).collect()
    }

    #[test]
    fn of_providers_the_most_special_level_decides_and_the_rest_adds_up() {
        let none: [&str; 0] = [];
        assert_eq!(files(&[], &[]), ["/mesh"]);
        assert_eq!(files(&["B"], &[]), ["/b"], "names have no case");
        assert_eq!(files(&["b"], &[&["a "]]), ["/a"], "a policy's own replace the mesh's");
        assert_eq!(files(&["b"], &[&[" x"]]), ["/b:x"], "a filter is for what is inherited");
        assert_eq!(files(&[], &[&["a x", "b "]]), ["/a:x", "/b"]);
        assert_eq!(files(&[], &[&["a "], &["b "]]), ["/b"]);
        assert_eq!(files(&[], &[&["a,b "], &["! "]]), none);
        assert_eq!(files(&[], &[&["a,b "], &["!a "]]), none, "only `a` is still spoken of");
        assert_eq!(files(&[], &[&["<a "]]), none, "servers only");
        assert_eq!(files(&[], &[&[">a "]]), ["/a"]);
        assert_eq!(files(&[], &[&["a x"], &[">a y", "<a z"]]), ["/a:y"]);
        assert_eq!(files(&[], &[&["nobody,t "]]), none, "nobody there takes logs");
        assert_eq!(files(&["a"], &[&["!  "]]), none);
    }

    fn spans(text: &str) -> TracingRule {
        let mut rule = TracingRule {
            at: "".into(),
            side: None,
            provider: None,
            sampling: None,
            disabled: None,
            tags: None,
            by_request_id: None,
            workload_tags: None,
            silent: None,
        };
        for part in text.split(' ') {
            match part.split_once('=') {
                Some(("provider", name)) => rule.provider = Some(name.into()),
                Some(("sampling", parts)) => rule.sampling = parts.parse().ok().map(PerMillion),
                Some(("disabled", word)) => rule.disabled = word.parse().ok(),
                Some(("tag", name)) => {
                    let tag = TagValue::Literal("x".into());
                    rule.tags = Some([(name.into(), tag)].into());
                }
                _ => rule.side = (part == "server").then_some(CallSide::Server),
            }
        }
        rule
    }

    /// What the proxies of `shop` tell as clients, by what each level says.
    fn told(levels: &[&[&str]], source: Option<SpanSource>) -> Telemetry {
        let policies = levels.iter().enumerate().map(|(level, rules)| {
            let rules = rules.iter().map(|text| spans(text)).collect();
            let name = format!("level{level}");
            let origin = origin(Kind::TELEMETRY, "shop", &name);
            TelemetryPolicy { origin, ..policy(rules, Vec::new()) }
        });
        let policies: Vec<TelemetryPolicy> = policies.collect();
        let key = TelemetryKey {
            policies: policies.iter().map(|policy| policy.origin.id.clone()).collect(),
            source,
            metrics: MetricsMaker::Nobody,
        };
        let items = policies.into_iter().map(|policy| Item::Telemetry(Arc::new(policy)));
        let host = |name| {
            let ports = [(80, crate::ir::Protocol::Http)];
            service_item(service("shop", name, "10.0.0.1", &ports))
        };
        let settings = MeshDefaults { telemetry: defaults(), ..Default::default() };
        let mesh = mesh_with(settings, items.chain([host("t"), host("u")]));
        telemetry(&Reader::new(&mesh), &key, "shop", CallSide::Client)
    }

    #[test]
    fn spans_go_where_the_most_special_rule_says_if_somebody_is_there() {
        let of = |levels: &[&[&str]]| {
            let tracing = told(levels, None).tracing?;
            let tracer = tracing.tracer.map(|tracer| tracer.collector.cluster.to_string());
            Some((tracer.unwrap_or_default(), tracing.sampling.0))
        };
        let t = "outbound|80||t.shop.svc.cluster.local".to_owned();
        let u = "outbound|80||u.shop.svc.cluster.local".to_owned();
        assert_eq!(of(&[]), Some((String::new(), 10_000)), "requests are marked all the same");
        assert_eq!(of(&[&["provider=t"]]), Some((t.clone(), 10_000)), "a short name is completed");
        let both: [&[&str]; 2] = [&["provider=t sampling=500"], &["provider=U"]];
        assert_eq!(of(&both), Some((u, 500)));
        assert_eq!(of(&[&["provider=t"], &["disabled=true"]]), None);
        assert_eq!(of(&[&["provider=t disabled=true"], &["disabled=false"]]), Some((t, 10_000)));
        assert_eq!(of(&[&["server provider=t"]]), None, "clients send none");
        assert_eq!(of(&[&["provider=gone"]]), None, "there is no such service");
        assert_eq!(of(&[&["provider=a"]]), None, "a log takes no spans");
    }

    #[test]
    fn spans_say_whose_they_are_beside_what_is_asked_for() {
        let source = SpanSource {
            service: "cart.shop".into(),
            canonical: "cart".into(),
            revision: "v1".into(),
            cluster: "Kubernetes".into(),
        };
        let tags = |levels: &[&[&str]], source| {
            let tracing = told(levels, source).tracing.expect("spans");
            tracing.tags.keys().map(|name| name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(tags(&[&["provider=t tag=b"]], None), ["b"]);
        let all = tags(&[&["provider=t tag=a"], &["tag=z"]], Some(source));
        assert!(all.contains(&naming::TAG_SERVICE.to_owned()), "{all:?}");
        assert!(all.contains(&"z".to_owned()) && !all.contains(&"a".to_owned()), "{all:?}");
    }
}
