//! One request and its response: what is noted on the way, and reported to metrics and access logs
//! at the end.
//!
//! The response body carries the exchange, so that it ends with the last byte, or when the client
//! goes away.

use std::{
    borrow::Cow,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body::Frame;
use tokio::time::Instant;

use super::{call, headers::GRPC_STATUS, outgoing::Outgoing, told};
use crate::{
    codec::{blame::DownstreamFault, progress::Progress},
    runtime::{
        HttpConnectionManager,
        filter::{Notes, Phase},
    },
    telemetry::{
        Entry, Flags,
        labels::{Changed, ConnectionKey, Observed, Reporter, RequestKey, known_grpc_status},
        metrics::Direction,
        trace::Span,
    },
    upstream::{
        LiveCluster, LiveEndpoint,
        outlier::{self, Outcome},
        pool::UpstreamFacts,
    },
    worker::downstream::Downstream,
};

/// The name of HTTP/2 in logs.
pub(crate) const HTTP_2: &str = "HTTP/2";

/// What is noted of a request on its way. Reports itself when dropped.
pub(crate) struct Exchange {
    pub(crate) downstream: Rc<Downstream>,
    pub(crate) manager: Arc<HttpConnectionManager>,
    pub(crate) start: Instant,
    start_wall: SystemTime,
    pub(crate) method: Method,
    pub(crate) scheme: &'static str,
    pub(crate) authority: String,
    /// As received, after normalisation, until the route has rewritten it.
    pub(crate) path: String,
    pub(crate) protocol: &'static str,
    pub(crate) remote: SocketAddr,
    /// Kept if an access log may ask for them.
    pub(crate) request_headers: Option<HeaderMap>,
    pub(crate) is_grpc: bool,
    pub(crate) progress: Rc<Progress>,
    /// What filters have noted.
    pub(crate) notes: Notes,
    /// The span, if it is told.
    pub(crate) span: Option<Box<Span>>,
    pub(crate) flags: Flags,
    pub(crate) details: Cow<'static, str>,
    pub(crate) status: u16,
    pub(crate) cluster: Option<Arc<LiveCluster>>,
    pub(crate) endpoint: Option<LiveEndpoint>,
    pub(crate) upstream: Option<Rc<UpstreamFacts>>,
    pub(crate) upstream_failure: String,
    pub(crate) attempts: u32,
    pub(crate) route: Arc<str>,
    pub(crate) response_headers: Option<HeaderMap>,
    response_start: Option<Duration>,
    trailers: Option<HeaderMap>,
    bytes_sent: u64,
    grpc_status: Option<u32>,
    complete: bool,
}

/// What an exchange begins with.
pub(crate) struct Begin {
    pub(crate) method: Method,
    pub(crate) scheme: &'static str,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) protocol: &'static str,
    pub(crate) remote: SocketAddr,
    pub(crate) request_headers: Option<HeaderMap>,
    pub(crate) is_grpc: bool,
}

impl Exchange {
    pub(crate) fn new(
        downstream: Rc<Downstream>,
        manager: Arc<HttpConnectionManager>,
        begin: Begin,
    ) -> Box<Self> {
        downstream.requests.begin();
        Box::new(Self {
            downstream,
            manager,
            start: Instant::now(),
            start_wall: SystemTime::now(),
            method: begin.method,
            scheme: begin.scheme,
            authority: begin.authority,
            path: begin.path,
            protocol: begin.protocol,
            remote: begin.remote,
            request_headers: begin.request_headers,
            is_grpc: begin.is_grpc,
            progress: Rc::default(),
            notes: Notes::default(),
            span: None,
            flags: Flags::default(),
            details: Cow::Borrowed(""),
            status: 0,
            cluster: None,
            endpoint: None,
            upstream: None,
            upstream_failure: String::new(),
            attempts: 0,
            route: Arc::default(),
            response_headers: None,
            response_start: None,
            trailers: None,
            bytes_sent: 0,
            grpc_status: None,
            complete: false,
        })
    }

    /// Notes one more flag.
    pub(crate) fn flag(&mut self, flag: Flags) {
        self.flags = self.flags.with(flag);
    }

    /// Notes that its route has changed the request: logs and whatever reads the request after it
    /// see what is sent, as at Envoy, which keeps no other.
    pub(super) fn note_changed(&mut self, outgoing: &Outgoing) {
        self.path.clone_from(&outgoing.path);
        self.authority.clone_from(&outgoing.authority);
        if let Some(kept) = &mut self.request_headers {
            kept.clone_from(&outgoing.headers);
        }
    }

    /// Notes the head of the response that goes downstream.
    pub(crate) fn note_response(&mut self, status: u16, headers: &HeaderMap) {
        self.status = status;
        self.response_start = Some(self.start.elapsed());
        self.note_grpc_status(headers);
        if self.is_told() {
            self.response_headers = Some(headers.clone());
        }
    }

    /// Notes bytes that an upgraded connection has carried.
    pub(crate) fn note_tunnel(&mut self, sent: u64) {
        self.bytes_sent += sent;
        self.complete = true;
    }

    /// Whether headers are to be told at the end.
    fn is_told(&self) -> bool {
        self.manager.keeps_response_headers() || self.span.is_some()
    }

    /// Nothing more will follow: the exchange ended as it should.
    pub(crate) fn finish(&mut self) {
        self.complete = true;
    }

    /// Notes how the client has broken the exchange, which ends it.
    pub(crate) fn note_fault(&mut self, fault: DownstreamFault) {
        if let DownstreamFault::TooMuch(limit) = fault {
            self.downstream.worker.metrics.exceeded(Direction::Downstream, limit);
        }
        self.flag(fault.flag());
        self.details = Cow::Borrowed(fault.details(self.is_http2()));
        self.complete = true;
    }

    /// How the client has left an exchange that nobody has ended.
    fn parting(&self) -> DownstreamFault {
        let left = if self.is_http2() && !self.downstream.seen.is_closed() {
            DownstreamFault::Reset
        } else {
            DownstreamFault::Gone
        };
        self.progress.settle().unwrap_or(left)
    }

    /// Whether the client speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.protocol == HTTP_2
    }

    /// Tells outlier detection how the endpoint has done. Nothing that a client did comes here.
    pub(crate) fn judge(&self, outcome: Outcome) {
        if let (Some(cluster), Some(endpoint)) = (&self.cluster, &self.endpoint)
            && let Some(settings) = &cluster.outlier
        {
            outlier::record(&cluster.state, settings, &endpoint.state, outcome);
        }
    }

    fn note_grpc_status(&mut self, headers: &HeaderMap) {
        if let Some(status) =
            headers.get(GRPC_STATUS).and_then(|value| value.to_str().ok()?.parse().ok())
        {
            self.grpc_status = Some(known_grpc_status(status));
        }
    }

    /// Notes a piece of the response's body.
    pub(crate) fn note_frame(&mut self, frame: &Frame<Bytes>) {
        if let Some(chunk) = frame.data_ref() {
            self.bytes_sent += chunk.len() as u64;
        } else if let Some(trailers) = frame.trailers_ref() {
            self.note_grpc_status(trailers);
            if self.is_told() {
                self.trailers = Some(trailers.clone());
            }
        }
    }

    /// What formats are rendered over; `request_headers` are those of the moment.
    pub(crate) fn entry<'a>(&'a self, request_headers: Option<&'a HeaderMap>) -> Entry<'a> {
        Entry {
            start: self.start_wall,
            duration: self.start.elapsed(),
            request_duration: None,
            response_duration: self.response_start,
            connection: &self.downstream.facts,
            remote: self.remote,
            protocol: self.protocol,
            method: self.method.as_str(),
            path: &self.path,
            authority: &self.authority,
            scheme: self.scheme,
            request_headers,
            response_headers: self.response_headers.as_ref(),
            trailers: self.trailers.as_ref(),
            status: self.status,
            details: &self.details,
            termination: "",
            flags: self.flags,
            bytes_received: self.progress.bytes(),
            bytes_sent: self.bytes_sent,
            upstream_host: self.endpoint.as_ref().map(|endpoint| endpoint.state.address),
            upstream_local: self.upstream.as_ref().and_then(|facts| facts.local),
            cluster: self.cluster.as_ref().map_or("", |cluster| &cluster.name),
            upstream_failure: &self.upstream_failure,
            attempts: self.attempts,
            route: &self.route,
            chain: "",
            tls: self.downstream.tls.as_ref(),
            metadata: self.notes.metadata(),
            span: self.span.as_ref().map(|span| span.context),
        }
    }

    fn report(&mut self) {
        // Whoever waits for the rest of the request waits no longer.
        if !self.complete {
            self.note_fault(self.parting());
        }
        let unanswered = (self.status == 0).then(|| self.start.elapsed());
        self.downstream.requests.end(unanswered, &self.manager.limits);
        self.downstream.seen.answer();
        self.progress.close();
        self.end_filters();
        let worker = &self.downstream.worker;
        let series = worker.metrics.requests(&self.key());
        series.record(self.start.elapsed(), self.progress.bytes(), self.bytes_sent);
        if !self.manager.access_logs.is_empty() {
            let entry = self.entry(self.request_headers.as_ref());
            told::log(worker, &self.manager.access_logs, &entry);
        }
        if let Some(span) = self.span.take() {
            self.end_span(*span);
        }
    }

    fn end_span(&self, span: Span) {
        let worker = &self.downstream.worker;
        let Some(tracing) = &self.manager.tracing else { return };
        let Some(tracer) = &tracing.tracer else { return };
        let origin = &worker.shared.metrics.node().origin;
        let span = span.finish(tracing, &self.entry(self.request_headers.as_ref()), origin);
        told::span(worker, tracer, span);
    }

    /// Counts what filters have counted.
    pub(crate) fn count_notes(&mut self) {
        for (counter, value) in self.notes.take_counts() {
            self.downstream.worker.metrics.count(counter, &value);
        }
    }

    /// Shows the end to the filters. What they call is not waited for.
    fn end_filters(&mut self) {
        self.count_notes();
        if !self.manager.filters.take_part(Phase::Log) {
            return;
        }
        for named in self.manager.filters.iter() {
            if let Some(wanted) = named.filter.log(&mut self.notes, self.status) {
                call::spawn(&self.downstream.worker, wanted);
            }
        }
    }

    fn key(&self) -> RequestKey {
        let reporter = Reporter::from(self.downstream.listener.direction);
        let (certificate, workload) = match reporter {
            Reporter::Source => (
                self.upstream.as_ref().and_then(|facts| facts.peer.as_ref()),
                self.endpoint.as_ref().and_then(|endpoint| endpoint.workload.as_ref()),
            ),
            Reporter::Destination => (self.downstream.facts.peer.as_ref(), None),
        };
        let own = self.manager.metrics.as_deref();
        let changed = own.map(|own| Changed::of(own, &self.entry(self.request_headers.as_ref())));
        let service = self.cluster.as_ref().and_then(|cluster| cluster.services.first());
        // Whoever calls the workload names what it likes.
        let is_named = service.is_none()
            && reporter == Reporter::Source
            && !own.is_some_and(|own| own.rules.ignores_hosts());
        let host = match is_named {
            true => self.downstream.worker.metrics.host(&self.authority),
            false => Arc::default(),
        };
        let connection = ConnectionKey::from(Observed {
            reporter,
            principal: certificate.and_then(|peer| peer.uri_sans.first()),
            workload,
            service,
            cluster: self.cluster.as_ref().map_or("", |cluster| &cluster.name),
            host,
            flags: self.flags,
            changed: changed.as_ref(),
        });
        let grpc_status = self.is_grpc.then(|| self.grpc_status.unwrap_or_default());
        RequestKey { connection, status: self.status, grpc_status }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.report();
    }
}
