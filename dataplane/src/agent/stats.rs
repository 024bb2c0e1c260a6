//! Istio's metrics of what an Envoy carries, which has no filter for them: Envoy logs every request
//! and connection to the agent's socket, and the agent counts them under the labels that our own
//! proxy would give them ([`crate::telemetry::labels`]).
//!
//! What an entry says beside what every entry says, and what is different of the metrics, the
//! control plane has written into the log's configuration ([`ferromesh_proto::stats`]). A connection
//! is logged when it ends, so that it is counted as begun only then.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use ferromesh_proto::{
    access_log::{
        AccessLogCommon, HttpAccessLogEntry, StreamAccessLogsMessage, StreamAccessLogsResponse,
        TcpAccessLogEntry,
        access_log_service_server::{AccessLogService, AccessLogServiceServer},
        stream_access_logs_message::LogEntries,
    },
    stats::{StatsLog, tag, value_tag},
};
use serde::Deserialize;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::{
    runtime::{cluster::ServiceLabel, endpoint::Workload, flags::Flags, metric_rules::MetricRules},
    telemetry::{
        Metrics,
        labels::{Changed, ConnectionKey, Observed, Reporter, RequestKey, known_grpc_status},
        metrics::WorkerMetrics,
    },
};

/// What Envoy writes where there is no value.
const NOTHING: &str = "-";

/// Counts what is logged on a socket, for as long as the agent runs.
///
/// # Errors
/// The server failed.
pub async fn serve(
    listener: UnixListener,
    metrics: Arc<Metrics>,
) -> Result<(), tonic::transport::Error> {
    let service = AccessLogServiceServer::new(Stats { series: metrics.worker() });
    let incoming = UnixListenerStream::new(listener);
    Server::builder().add_service(service).serve_with_incoming(incoming).await
}

struct Stats {
    series: Arc<WorkerMetrics>,
}

#[tonic::async_trait]
impl AccessLogService for Stats {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let mut messages = request.into_inner();
        let mut log = None;
        while let Some(message) = messages.message().await? {
            // Only the first message of a stream says what it is about.
            if let Some(identifier) = message.identifier {
                log = Some(Log::read(&identifier.log_name)?);
            }
            let log = log.as_ref().ok_or_else(|| Status::invalid_argument("no identifier"))?;
            match message.log_entries {
                Some(LogEntries::HttpLogs(entries)) => {
                    entries.log_entry.into_iter().for_each(|entry| self.request(log, entry));
                }
                Some(LogEntries::TcpLogs(entries)) => {
                    entries.log_entry.into_iter().for_each(|entry| self.connection(log, entry));
                }
                None => {}
            }
        }
        Ok(Response::new(StreamAccessLogsResponse {}))
    }
}

impl Stats {
    fn request(&self, log: &Log, entry: HttpAccessLogEntry) {
        let common = entry.common_properties.unwrap_or_default();
        let request = entry.request.unwrap_or_default();
        let response = entry.response.unwrap_or_default();
        let content = request.request_headers.get("content-type");
        let is_grpc = content.is_some_and(|kind| kind.starts_with("application/grpc"));
        let grpc_status =
            || told(&common.custom_tags, tag::GRPC_STATUS).and_then(|status| status.parse().ok());
        let status = response.response_code.unwrap_or_default();
        let key = RequestKey {
            connection: log.key(&common, &request.authority, &self.series),
            status: u16::try_from(status).unwrap_or_default(),
            grpc_status: is_grpc.then(|| known_grpc_status(grpc_status().unwrap_or_default())),
        };
        self.series.requests(&key).record(
            duration(&common),
            request.request_body_bytes,
            response.response_body_bytes,
        );
    }

    fn connection(&self, log: &Log, entry: TcpAccessLogEntry) {
        let common = entry.common_properties.unwrap_or_default();
        let carried = entry.connection_properties.unwrap_or_default();
        let series = self.series.connections(&log.key(&common, "", &self.series));
        series.opened.fetch_add(1, Relaxed);
        series.closed.fetch_add(1, Relaxed);
        series.sent.fetch_add(carried.sent_bytes, Relaxed);
        series.received.fetch_add(carried.received_bytes, Relaxed);
    }
}

/// What the entries of a stream are about.
struct Log {
    reporter: Reporter,
    ignores_hosts: bool,
    /// What is different of the metrics, with the tags of the values for it.
    changed: Option<(Arc<MetricRules>, Vec<String>)>,
}

impl Log {
    fn read(name: &str) -> Result<Self, Status> {
        let wrong = |why: String| Status::invalid_argument(format!("not a log of ours: {why}"));
        let log: StatsLog = serde_json::from_str(name).map_err(|error| wrong(error.to_string()))?;
        let rules = MetricRules::new(log.config).map_err(|error| wrong(error.to_string()))?;
        let tags = (0..rules.expressions().len()).map(value_tag).collect();
        Ok(Self {
            reporter: if log.inbound { Reporter::Destination } else { Reporter::Source },
            ignores_hosts: rules.ignores_hosts(),
            changed: (!rules.are_usual()).then(|| (Arc::new(rules), tags)),
        })
    }

    fn key(&self, common: &AccessLogCommon, named: &str, series: &WorkerMetrics) -> ConnectionKey {
        let tags = &common.custom_tags;
        let principal: Option<Arc<str>> =
            told(tags, tag::PEER).and_then(|names| names.split(',').next()).map(Into::into);
        let workload = told(tags, tag::WORKLOAD)
            .filter(|_| self.reporter == Reporter::Source)
            .map(|text| Arc::new(Workload::parse(text)));
        let service = told(tags, tag::SERVICES).and_then(first_service);
        let is_named = service.is_none() && !self.ignores_hosts;
        let host = if is_named { series.host(named) } else { Arc::default() };
        let changed = self.changed.as_ref().map(|(rules, names)| {
            Changed::new(rules, names.iter().map(|name| told(tags, name).map(Arc::from)))
        });
        ConnectionKey::from(Observed {
            reporter: self.reporter,
            principal: principal.as_ref(),
            workload: workload.as_ref(),
            service: service.as_ref(),
            cluster: &common.upstream_cluster,
            host,
            flags: told(tags, tag::FLAGS).map(Flags::named).unwrap_or_default(),
            changed: changed.as_ref(),
        })
    }
}

/// What a tag says, if anything.
fn told<'a>(tags: &'a HashMap<String, String>, name: &str) -> Option<&'a str> {
    tags.get(name).map(String::as_str).filter(|text| !matches!(*text, "" | NOTHING))
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct ToldService {
    host: String,
    name: String,
    namespace: String,
}

/// The first of the services that a cluster stands for, as its metadata says.
fn first_service(text: &str) -> Option<ServiceLabel> {
    let services: Vec<ToldService> = serde_json::from_str(text).ok()?;
    let ToldService { host, name, namespace } = services.into_iter().next()?;
    Some(ServiceLabel { host: host.into(), name: name.into(), namespace: namespace.into() })
}

fn duration(common: &AccessLogCommon) -> Duration {
    let duration = common.duration.unwrap_or_default();
    duration.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use ferromesh_proto::{
        access_log::{HttpRequestProperties, HttpResponseProperties},
        bootstrap::{NodeSettings, ProxyType},
        stats::{MetricConfig, PluginConfig},
    };
    use tokio::sync::watch;

    use super::*;
    use crate::telemetry::Node;

    fn metrics() -> Metrics {
        let node = NodeSettings {
            proxy_type: ProxyType::Sidecar,
            address: [10, 0, 0, 7].into(),
            name: "cart-7-x".into(),
            workload: Some("cart".into()),
            namespace: "shop".into(),
            service_account: "cart".into(),
            labels: [("app".to_owned(), "cart".to_owned())].into(),
            cluster_id: "Kubernetes".into(),
            dns_domain: "cluster.local".into(),
            locality: None,
            metadata: serde_json::Map::new(),
        };
        Metrics::new(Node::from(&node), watch::channel(None).1)
    }

    fn common(tags: &[(&str, &str)]) -> AccessLogCommon {
        let tags = tags.iter().map(|(tag, value)| ((*tag).to_owned(), (*value).to_owned()));
        AccessLogCommon {
            upstream_cluster: "outbound|80||b.shop.svc.cluster.local".into(),
            custom_tags: tags.collect(),
            duration: Some(prost_types::Duration { seconds: 0, nanos: 3_000_000 }),
        }
    }

    /// What one request says in labels, by the name of its log.
    fn labels(log: &StatsLog, tags: &[(&str, &str)]) -> String {
        let metrics = metrics();
        let stats = Stats { series: metrics.worker() };
        let name = serde_json::to_string(log).expect("JSON");
        let log = Log::read(&name).expect("a log of ours");
        let request = HttpRequestProperties {
            authority: "b".into(),
            request_body_bytes: 5,
            request_headers: [("content-type".into(), "application/grpc".into())].into(),
        };
        let response = HttpResponseProperties { response_code: Some(200), response_body_bytes: 9 };
        let entry = HttpAccessLogEntry {
            common_properties: Some(common(tags)),
            request: Some(request),
            response: Some(response),
        };
        stats.request(&log, entry);
        let text = metrics.render();
        let mut lines = text.lines();
        let line = lines.find(|line| line.starts_with("istio_requests_total{")).expect("a sample");
        line.to_owned()
    }

    #[test]
    fn an_entry_says_what_our_own_proxy_would() {
        let log = StatsLog { inbound: false, config: PluginConfig::default() };
        let services = r#"[{"host":"b.shop.svc.cluster.local","name":"b","namespace":"shop"}]"#;
        let line = labels(
            &log,
            &[
                (tag::PEER, "spiffe://cluster.local/ns/shop/sa/b"),
                (tag::WORKLOAD, "b-v1;shop;b;v1;Kubernetes"),
                (tag::SERVICES, services),
                (tag::FLAGS, "UF,URX"),
                (tag::GRPC_STATUS, "14"),
            ],
        );
        for part in [
            "reporter=\"source\"",
            "source_workload=\"cart\"",
            "source_app=\"cart\"",
            "destination_workload=\"b-v1\"",
            "destination_principal=\"spiffe://cluster.local/ns/shop/sa/b\"",
            "destination_service=\"b.shop.svc.cluster.local\"",
            "destination_service_namespace=\"shop\"",
            "request_protocol=\"grpc\"",
            "response_code=\"200\"",
            "grpc_response_status=\"14\"",
            "response_flags=\"UF,URX\"",
        ] {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
    }

    #[test]
    fn labels_are_changed_by_what_the_log_says() {
        let metric = MetricConfig {
            dimensions: [("path".to_owned(), "request.url_path".to_owned())].into(),
            tags_to_remove: vec!["source_app".to_owned()],
            ..MetricConfig::default()
        };
        let config = PluginConfig { disable_host_header_fallback: true, metrics: vec![metric] };
        let log = StatsLog { inbound: true, config };
        let line = labels(&log, &[(&value_tag(0), "/a"), (tag::PEER, NOTHING)]);
        assert!(line.contains("path=\"/a\"") && !line.contains("source_app"), "{line}");
        assert!(line.contains("destination_service=\"unknown\""), "{line}");
        assert!(line.contains("connection_security_policy=\"none\""), "{line}");
    }

    #[test]
    fn a_log_of_somebody_else_is_refused() {
        for name in ["", "otel", r#"{"inbound":true,"config":{"metrics":[{"name":"x"}]}}"#] {
            let refused = Log::read(name).err().expect(name);
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        }
    }
}
