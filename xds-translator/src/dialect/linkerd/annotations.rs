//! What annotations say: on routes, and on Services, pods and namespaces of Kubernetes.
//!
//! A value that cannot be read is said and not followed: an annotation takes no Service out of the
//! mesh.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use super::{route::itself, server::DefaultAccess};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{Kind, decode::Decoder, lowering::Lowering, scalar::parse_duration, schema::Decode},
    ir::{
        AccessDefault, Attachment, BackendPolicy, HttpRule, OutlierDetection, Protocol, Retry,
        RetryCondition, RetryPolicy, RouteFields, RouteTable, RuleOrder, Service, Standing,
        Timeouts, TrafficPolicy, Visibility,
    },
    snapshot::{Item, ServiceDefinition},
};

const ACCRUAL: &str = "balancer.linkerd.io/failure-accrual";
const DEFAULT_ACCESS: &str = "config.linkerd.io/default-inbound-policy";
const OPAQUE_PORTS: &str = "config.linkerd.io/opaque-ports";

/// Prefixes of Linkerd's annotations.
const PREFIXES: [&str; 5] = [
    "linkerd.io/",
    "config.linkerd.io/",
    "balancer.linkerd.io/",
    "retry.linkerd.io/",
    "timeout.linkerd.io/",
];

/// What is written instead of annotations that nobody reads here.
const INSTEAD: [(&str, &str); 9] = [
    ("linkerd.io/inject", "the label `istio-injection`, of a pod `sidecar.istio.io/inject`"),
    ("config.linkerd.io/proxy-cpu-request", "`sidecar.istio.io/proxyCPU`"),
    ("config.linkerd.io/proxy-cpu-limit", "`sidecar.istio.io/proxyCPULimit`"),
    ("config.linkerd.io/proxy-memory-request", "`sidecar.istio.io/proxyMemory`"),
    ("config.linkerd.io/proxy-memory-limit", "`sidecar.istio.io/proxyMemoryLimit`"),
    ("config.linkerd.io/proxy-log-level", "`sidecar.istio.io/logLevel`"),
    ("config.linkerd.io/skip-inbound-ports", "`traffic.sidecar.istio.io/excludeInboundPorts`"),
    ("config.linkerd.io/skip-outbound-ports", "`traffic.sidecar.istio.io/excludeOutboundPorts`"),
    ("config.linkerd.io/proxy-await", "nothing: applications start behind a ready proxy"),
];

/// Reads the annotations of an object of another dialect.
pub(in crate::dialect) fn annotate(lowering: &mut Lowering<'_>, items: &mut Vec<Item>) {
    match lowering.id.kind {
        kind if kind == Kind::SERVICE => service(lowering, items),
        kind if kind == Kind::POD => {
            let labels = lowering.meta.labels.clone();
            let namespace = lowering.namespace().clone();
            items.extend(default_access(lowering, namespace, Some(labels)));
            lowering.unread(&[DEFAULT_ACCESS]);
        }
        kind if kind == Kind::NAMESPACE => {
            let namespace = lowering.id.name.clone();
            items.extend(default_access(lowering, namespace, None));
            lowering.unread(&[DEFAULT_ACCESS]);
        }
        _ => {}
    }
}

fn default_access(
    lowering: &mut Lowering<'_>,
    namespace: Arc<str>,
    labels: Option<crate::ir::Labels>,
) -> Option<Item> {
    let word = lowering.annotation(DEFAULT_ACCESS)?;
    let mut at = Decoder::default();
    // A word that is none is taken for the one that it resembles, or for the strictest.
    let access = DefaultAccess::decode(&Value::from(&*word), &mut at);
    if !at.finish().is_empty() {
        let words: Vec<&str> = DefaultAccess::VALUES.iter().map(|value| value.name).collect();
        lowering.unreadable(DEFAULT_ACCESS, &format!("one of {}", words.join(", ")));
    }
    Some(Item::AccessDefault(Arc::new(AccessDefault {
        origin: lowering.origin(),
        namespace,
        labels,
        rules: access.rules(),
    })))
}

// -------------------------------------------------------------------------------------------------
// Services

fn service(lowering: &mut Lowering<'_>, items: &mut Vec<Item>) {
    let Some(definition) = items.iter_mut().find_map(|item| match item {
        Item::Service(definition) => Some(definition),
        _ => None,
    }) else {
        return;
    };
    if let Some(ports) = lowering.opaque_ports() {
        *definition = Arc::new(opaque(definition, &ports));
    }
    let service = definition.service.clone();
    let tries = Tries::read(lowering);
    if tries.says_something() {
        items.push(Item::Routes(Arc::new(table(lowering, &service, &tries))));
    }
    if let Some(outlier) = lowering.accrual() {
        items.push(Item::Backend(Arc::new(BackendPolicy {
            origin: lowering.origin(),
            host: service.key.host.clone(),
            export_to: Visibility::Public,
            workload_selector: None,
            fills_in: true,
            traffic: TrafficPolicy { outlier: Some(outlier), ..TrafficPolicy::default() },
            subsets: Vec::new(),
        })));
    }
    let read = [&TRIES[..], &ACCRUALS[..], &[OPAQUE_PORTS]].concat();
    lowering.unread(&read);
}

/// The service with bytes at these ports, whatever they are called.
fn opaque(definition: &ServiceDefinition, ports: &[(u16, u16)]) -> ServiceDefinition {
    let mut service = Service::clone(&definition.service);
    for port in &mut service.ports {
        if ports.iter().any(|(first, last)| (*first..=*last).contains(&port.number)) {
            port.protocol = Protocol::Tcp;
        }
    }
    ServiceDefinition { service: Arc::new(service), inline: definition.inline.clone() }
}

/// What holds for a service of which no routes speak.
fn table(lowering: &Lowering<'_>, service: &Service, tries: &Tries) -> RouteTable {
    let at = "metadata.annotations";
    let host = service.key.host.clone();
    let rule = HttpRule {
        timeouts: tries.timeouts(Timeouts::default()),
        retry: tries.retry.clone(),
        ..HttpRule::forward(at.into(), itself(at, &host))
    };
    RouteTable {
        origin: lowering.origin(),
        hosts: vec![host],
        attachments: vec![Attachment::Mesh],
        export_to: service.export_to.clone(),
        http: vec![rule],
        order: RuleOrder::AsWritten,
        standing: Standing::Last,
        tls: Vec::new(),
        tcp: Vec::new(),
        fields: RouteFields { hosts: vec![at.into()], gateways: Vec::new(), idle: Vec::new() },
    }
}

// -------------------------------------------------------------------------------------------------
// retries and timeouts

const RETRY_HTTP: &str = "retry.linkerd.io/http";
const RETRY_GRPC: &str = "retry.linkerd.io/grpc";
const RETRY_LIMIT: &str = "retry.linkerd.io/limit";
const RETRY_TIMEOUT: &str = "retry.linkerd.io/timeout";
const TIMEOUT_REQUEST: &str = "timeout.linkerd.io/request";
const TIMEOUT_IDLE: &str = "timeout.linkerd.io/idle";
const TRIES: [&str; 6] =
    [RETRY_HTTP, RETRY_GRPC, RETRY_LIMIT, RETRY_TIMEOUT, TIMEOUT_REQUEST, TIMEOUT_IDLE];

/// What annotations say of retries and of time.
pub(super) struct Tries {
    pub(super) retry: Retry,
    timeouts: Timeouts,
}

impl Tries {
    /// What the object's annotations say.
    pub(super) fn read(lowering: &mut Lowering<'_>) -> Self {
        let statuses = lowering.read(RETRY_HTTP, statuses, "`5xx`, `gateway-error` or statuses");
        let grpc = lowering.read(RETRY_GRPC, grpc_conditions, "names of gRPC statuses");
        let whole = |text: &str| text.parse::<u32>().ok().filter(|limit| *limit > 0);
        let limit = lowering.read(RETRY_LIMIT, whole, "a number of retries");
        let mut time = |name| {
            let positive = |text: &str| parse_duration(text).filter(|d| *d > Duration::ZERO);
            lowering.read(name, positive, "a duration such as `5s`")
        };
        let (per_try, request, idle) =
            (time(RETRY_TIMEOUT), time(TIMEOUT_REQUEST), time(TIMEOUT_IDLE));
        let retried = statuses.is_some() || grpc.is_some();
        let retry = match retried {
            false => Retry::MeshDefault,
            true => Retry::Policy(RetryPolicy {
                attempts: limit.unwrap_or(1),
                conditions: Some(
                    statuses
                        .iter()
                        .flat_map(|s| s.0.clone())
                        .chain(grpc.into_iter().flatten())
                        .collect(),
                ),
                statuses: statuses.map(|s| s.1).unwrap_or_default(),
                remote_localities: false,
                ignore_previous_hosts: None,
                backoff: None,
            }),
        };
        let per_try = per_try.filter(|_| retried);
        Self { retry, timeouts: Timeouts { request, per_try, idle } }
    }

    fn says_something(&self) -> bool {
        self.retry != Retry::MeshDefault || self.timeouts != Timeouts::default()
    }

    /// Limits of time: annotations come before fields.
    pub(super) fn timeouts(&self, written: Timeouts) -> Timeouts {
        let own = &self.timeouts;
        Timeouts {
            request: own.request.or(written.request),
            per_try: own.per_try.or(written.per_try),
            idle: own.idle.or(written.idle),
        }
    }
}

/// `5xx`, `gateway-error`, `504`, `500-504`, in any number.
fn statuses(text: &str) -> Option<(Vec<RetryCondition>, Vec<u16>)> {
    let (mut conditions, mut listed) = (Vec::new(), Vec::new());
    for word in text.split(',').map(str::trim) {
        match word {
            "5xx" => conditions.push(RetryCondition::ServerError),
            "gateway-error" => conditions.push(RetryCondition::GatewayError),
            word => {
                let (first, last) = range(word)?;
                listed.extend((100..600).contains(&first).then_some(first..=last.min(599))?);
            }
        }
    }
    listed.sort_unstable();
    listed.dedup();
    Some((conditions, listed))
}

fn grpc_conditions(text: &str) -> Option<Vec<RetryCondition>> {
    let one = |word: &str| {
        Some(match word.trim() {
            "cancelled" => RetryCondition::GrpcCancelled,
            "deadline-exceeded" => RetryCondition::GrpcDeadlineExceeded,
            "internal" => RetryCondition::GrpcInternal,
            "resource-exhausted" => RetryCondition::GrpcResourceExhausted,
            "unavailable" => RetryCondition::GrpcUnavailable,
            _ => return None,
        })
    };
    text.split(',').map(one).collect()
}

/// A number, or two with a dash between them.
fn range(word: &str) -> Option<(u16, u16)> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some((first, last))
}

// -------------------------------------------------------------------------------------------------
// failure accrual

const MAX_FAILURES: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-failures";
const MIN_PENALTY: &str = "balancer.linkerd.io/failure-accrual-consecutive-min-penalty";
const ACCRUALS: [&str; 3] = [ACCRUAL, MAX_FAILURES, MIN_PENALTY];

impl Lowering<'_> {
    /// What takes failing endpoints out. They come back by time, and not by a request that probes
    /// them.
    fn accrual(&mut self) -> Option<OutlierDetection> {
        let only = |word: &str| (word == "consecutive").then_some(());
        self.read(ACCRUAL, only, "`consecutive`")?;
        let whole = |text: &str| text.parse::<u32>().ok().filter(|limit| *limit > 0);
        let failures = self.read(MAX_FAILURES, whole, "a number of failures").unwrap_or(7);
        let penalty = self.read(MIN_PENALTY, parse_duration, "a duration such as `5s`");
        let penalty = penalty.unwrap_or(Duration::from_secs(1));
        Some(OutlierDetection {
            consecutive_5xx: Some(failures),
            // Endpoints come back when this has gone by.
            interval: Some(penalty.min(Duration::from_secs(1))),
            base_ejection: Some(penalty),
            max_ejection_percent: Some(100),
            ..OutlierDetection::default()
        })
    }

    fn opaque_ports(&mut self) -> Option<Vec<(u16, u16)>> {
        let ports = |text: &str| -> Option<Vec<(u16, u16)>> {
            text.split(',').map(|word| range(word.trim())).collect()
        };
        self.read(OPAQUE_PORTS, ports, "ports by number, or ranges of them")
    }

    fn annotation(&self, name: &str) -> Option<Arc<str>> {
        self.meta.annotations.get(name).cloned()
    }

    /// The value of an annotation; `None` where there is none, or none that `parse` reads, which is
    /// said.
    fn read<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
        expected: &str,
    ) -> Option<T> {
        let text = self.annotation(name)?;
        let read = parse(&text);
        if read.is_none() {
            self.unreadable(name, expected);
        }
        read
    }

    fn unreadable(&mut self, name: &str, expected: &str) {
        let field = FieldPath::of("metadata.annotations").field(name);
        let got = self.annotation(name).unwrap_or_default();
        let finding = Diagnostic::warning(Code::NoEffect, field, "the value is not followed");
        self.note(finding.expected(expected, format!("`{got}`")));
    }

    /// Notes Linkerd's annotations that are none of these.
    fn unread(&mut self, read: &[&str]) {
        let ours = |name: &str| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let unread: Vec<Arc<str>> = self
            .meta
            .annotations
            .keys()
            .filter(|name| ours(name) && !read.contains(&&***name))
            .cloned()
            .collect();
        for name in unread {
            let instead = INSTEAD.iter().find(|(known, _)| *known == &*name);
            let field = FieldPath::of("metadata.annotations").field(&*name);
            let message = "nothing follows from this annotation here";
            let finding = Diagnostic::warning(Code::NotActedOn, field, message);
            self.note(finding.fix(instead.map_or("take it out", |(_, instead)| instead)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_retries_are_read_or_not_at_all() {
        use RetryCondition::{GatewayError, ServerError};
        let table = [
            ("5xx", Some((vec![ServerError], vec![]))),
            ("gateway-error, 429", Some((vec![GatewayError], vec![429]))),
            ("500-502,504", Some((vec![], vec![500, 501, 502, 504]))),
            ("50x", None),
            ("504-500", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(statuses(text), expected, "{text}");
        }
        assert_eq!(grpc_conditions("internal,unknown"), None);
        assert_eq!(grpc_conditions("cancelled, unavailable").map(|c| c.len()), Some(2));
    }
}
