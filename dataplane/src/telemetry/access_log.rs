//! Access logs: renders compiled formats over what is known of a request or connection, and hands
//! lines to one writer thread, so that no worker ever waits for a disk or a terminal.
//!
//! The same operators also render header values. Spec: Envoy "Access logging".

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant, SystemTime},
};

use ferromesh_proto::recurring::Recurring;
use http::HeaderMap;
use serde_json::Value as Json;
use time::OffsetDateTime;

use crate::runtime::{
    access_log::{JsonFormat, LogFilter, LogFormat, LogLines, LogSink},
    facts::{ConnectionFacts, HeaderLookup},
    flags::Flags,
    format::{Field, FormatOp, GrpcStatusForm},
    metadata::{Metadata, fields_to_json},
    trace::SpanContext,
};

/// Lines that may wait for the writer; what comes on top is counted and dropped.
const QUEUE: usize = 8192;

/// What is known of the downstream TLS connection.
#[derive(Clone, Debug, Default)]
pub struct TlsFacts {
    /// Such as `TLSv1.3`.
    pub version: &'static str,
    /// Such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: &'static str,
    /// The protocol that was agreed on, if any.
    pub alpn: Option<Vec<u8>>,
    /// URI names of the certificate that we have shown.
    pub local_uri_sans: Arc<[Arc<str>]>,
}

/// What is known of a request or connection when it is logged. Empty texts mean "no value".
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// When it began.
    pub start: SystemTime,
    /// Time until now.
    pub duration: Duration,
    /// Time until the request was received.
    pub request_duration: Option<Duration>,
    /// Time until the response began.
    pub response_duration: Option<Duration>,
    /// The downstream connection.
    pub connection: &'a ConnectionFacts,
    /// The client's address, trusted hops considered; the port is 0 when it came from a header.
    pub remote: SocketAddr,
    /// `HTTP/1.1`, `HTTP/2`…; empty for TCP.
    pub protocol: &'a str,
    /// Request method; empty for TCP.
    pub method: &'a str,
    /// Path with query.
    pub path: &'a str,
    /// `:authority`.
    pub authority: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Request headers.
    pub request_headers: Option<&'a HeaderMap>,
    /// Response headers.
    pub response_headers: Option<&'a HeaderMap>,
    /// Response trailers.
    pub trailers: Option<&'a HeaderMap>,
    /// Response status; 0 if there was none.
    pub status: u16,
    /// Why the status is what it is.
    pub details: &'a str,
    /// Why an L4 connection ended.
    pub termination: &'a str,
    /// Response flags.
    pub flags: Flags,
    /// Bytes from downstream.
    pub bytes_received: u64,
    /// Bytes to downstream.
    pub bytes_sent: u64,
    /// The chosen endpoint.
    pub upstream_host: Option<SocketAddr>,
    /// Our side of the upstream connection.
    pub upstream_local: Option<SocketAddr>,
    /// The chosen cluster.
    pub cluster: &'a str,
    /// Why upstream could not be reached.
    pub upstream_failure: &'a str,
    /// Attempts made.
    pub attempts: u32,
    /// The route's name.
    pub route: &'a str,
    /// The filter chain's name.
    pub chain: &'a str,
    /// TLS towards downstream.
    pub tls: Option<&'a TlsFacts>,
    /// What filters have found out.
    pub metadata: Option<&'a Metadata>,
    /// The span, if it is told.
    pub span: Option<SpanContext>,
}

impl<'a> Entry<'a> {
    /// An entry of a connection that carries no HTTP, about which nothing else is known yet.
    pub fn of_connection(
        connection: &'a ConnectionFacts,
        start: SystemTime,
        duration: Duration,
    ) -> Self {
        Self {
            start,
            duration,
            request_duration: None,
            response_duration: None,
            connection,
            remote: connection.source,
            protocol: "",
            method: "",
            path: "",
            authority: "",
            scheme: "",
            request_headers: None,
            response_headers: None,
            trailers: None,
            status: 0,
            details: "",
            termination: "",
            flags: Flags::NONE,
            bytes_received: 0,
            bytes_sent: 0,
            upstream_host: None,
            upstream_local: None,
            cluster: "",
            upstream_failure: "",
            attempts: 0,
            route: "",
            chain: "",
            tls: None,
            metadata: None,
            span: None,
        }
    }

    /// The operator's value, or `None` if it has none.
    fn value(&self, field: &Field) -> Option<Cow<'a, str>> {
        let text = |text: &'a str| (!text.is_empty()).then_some(Cow::Borrowed(text));
        let number = |number: u64| Some(Cow::Owned(number.to_string()));
        let millis = |d: Duration| Some(Cow::Owned(d.as_millis().to_string()));
        let shown = |address: SocketAddr| Some(Cow::Owned(address.to_string()));
        let host = |address: SocketAddr| Some(Cow::Owned(address.ip().to_string()));
        let peer = self.connection.peer.as_deref();
        match field {
            Field::RequestHeader(name, other) => self
                .request_header(name)
                .or_else(|| other.as_deref().and_then(|name| self.request_header(name))),
            Field::ResponseHeader(name, other) => {
                let headers = self.response_headers?;
                headers
                    .header(name)
                    .or_else(|| other.as_deref().and_then(|name| headers.header(name)))
            }
            Field::Trailer(name) => self.trailers?.header(name),
            Field::StartTime(format) => Some(Cow::Owned(format_time(self.start, format))),
            Field::Protocol => text(self.protocol),
            Field::ResponseCode => number(self.status.into()),
            Field::ResponseCodeDetails => text(self.details),
            Field::ResponseFlags => Some(Cow::Owned(self.flags.to_string())),
            Field::ConnectionTerminationDetails => text(self.termination),
            Field::BytesReceived => number(self.bytes_received),
            Field::BytesSent => number(self.bytes_sent),
            Field::Duration => millis(self.duration),
            Field::RequestDuration => self.request_duration.and_then(millis),
            Field::ResponseDuration => self.response_duration.and_then(millis),
            Field::UpstreamHost => self.upstream_host.and_then(shown),
            Field::UpstreamCluster => text(self.cluster),
            Field::UpstreamLocalAddress => self.upstream_local.and_then(shown),
            Field::UpstreamTransportFailureReason => text(self.upstream_failure),
            Field::UpstreamRequestAttemptCount => number(self.attempts.into()),
            Field::DownstreamLocalAddress => shown(self.connection.destination),
            Field::DownstreamLocalAddressWithoutPort => host(self.connection.destination),
            Field::DownstreamRemoteAddress => shown(self.remote),
            Field::DownstreamRemoteAddressWithoutPort => host(self.remote),
            Field::DownstreamDirectRemoteAddress => shown(self.connection.direct_source),
            Field::DownstreamDirectRemoteAddressWithoutPort => host(self.connection.direct_source),
            Field::RequestedServerName => {
                text(self.connection.server_name.as_deref().unwrap_or_default())
            }
            Field::RouteName => text(self.route),
            Field::FilterChainName => text(self.chain),
            Field::DownstreamPeerUriSan => {
                peer.filter(|p| !p.uri_sans.is_empty()).map(|p| p.uri_sans.join(",").into())
            }
            Field::DownstreamLocalUriSan => self
                .tls
                .map(|tls| &tls.local_uri_sans)
                .filter(|names| !names.is_empty())
                .map(|names| names.join(",").into()),
            Field::DownstreamPeerSubject => text(peer.map_or("", |p| &p.subject)),
            Field::DownstreamTlsVersion => text(self.tls.map_or("", |tls| tls.version)),
            Field::DownstreamTlsCipher => text(self.tls.map_or("", |tls| tls.cipher)),
            Field::Hostname => hostname().map(Cow::Owned),
            Field::DynamicMetadata(namespace, path) => self.metadata_at(namespace, path),
            Field::GrpcStatus(form) => self.grpc_status().map(|status| form.shown(status).into()),
            Field::TraceId => self.span.map(|span| span.trace.to_string().into()),
            Field::SpanId => self.span.map(|span| format!("{:016x}", span.span).into()),
            Field::DownstreamLocalPort => number(self.connection.destination.port().into()),
            Field::DownstreamRemotePort => number(self.remote.port().into()),
            Field::DownstreamDirectRemotePort => {
                number(self.connection.direct_source.port().into())
            }
            Field::UpstreamHostWithoutPort => self.upstream_host.and_then(host),
            Field::UpstreamPort => self.upstream_host.and_then(|at| number(at.port().into())),
            Field::UpstreamLocalAddressWithoutPort => self.upstream_local.and_then(host),
            Field::UpstreamLocalPort => self.upstream_local.and_then(|at| number(at.port().into())),
            Field::DownstreamPeerFingerprint => text(peer.map_or("", |p| &p.sha256)),
            Field::DownstreamPeerDnsSan => {
                peer.filter(|p| !p.dns_sans.is_empty()).map(|p| p.dns_sans.join(",").into())
            }
            Field::Absent => None,
        }
    }

    /// The response's status of gRPC, if it has a whole number for one.
    pub(super) fn grpc_status(&self) -> Option<i64> {
        let of = |headers: Option<&HeaderMap>| headers?.header("grpc-status")?.parse().ok();
        of(self.trailers).or_else(|| of(self.response_headers))
    }

    /// What filters have found out, as text.
    pub(super) fn metadata_at(&self, namespace: &str, path: &[Arc<str>]) -> Option<Cow<'a, str>> {
        let metadata = self.metadata?;
        let text = match path {
            [] => fields_to_json(metadata.fields(namespace)?).to_string(),
            path => metadata.get(namespace, path)?.to_string(),
        };
        Some(Cow::Owned(text))
    }

    /// A header of the request or a pseudo header, by its lower-case name.
    pub(super) fn request_header(&self, name: &str) -> Option<Cow<'a, str>> {
        let text = |text: &'a str| (!text.is_empty()).then_some(Cow::Borrowed(text));
        match name {
            ":method" => text(self.method),
            ":path" => text(self.path),
            ":authority" | "host" => text(self.authority),
            ":scheme" => text(self.scheme),
            name => self.request_headers?.header(name),
        }
    }

    /// Renders a format; an operator without value becomes `absent`.
    pub fn render(&self, format: &[FormatOp], absent: &str) -> String {
        let mut out = String::new();
        for op in format {
            match op {
                FormatOp::Literal(text) => out.push_str(text),
                FormatOp::Field { field, limit } => match self.value(field) {
                    Some(value) => out.push_str(cut(&value, *limit)),
                    None => out.push_str(absent),
                },
            }
        }
        out
    }

    /// Whether a log has it.
    pub fn passes(&self, filter: &LogFilter) -> bool {
        match filter {
            LogFilter::All => true,
            LogFilter::ResponseFlags(wanted) if wanted.is_empty() => self.flags.any(),
            LogFilter::ResponseFlags(wanted) => {
                self.flags.names().any(|name| wanted.iter().any(|w| **w == *name))
            }
            LogFilter::StatusAtLeast(least) => self.status >= *least,
            LogFilter::AnyOf(filters) => filters.iter().any(|filter| self.passes(filter)),
            LogFilter::AllOf(filters) => filters.iter().all(|filter| self.passes(filter)),
            LogFilter::True(expression) => expression.holds(self),
        }
    }

    fn line(&self, lines: &LogLines) -> String {
        match &lines.format {
            LogFormat::Text(format) => self.render(format, absent(lines.omits_empty)),
            LogFormat::Json(fields) => {
                let mut line = self.json_object(fields, lines.omits_empty).to_string();
                line.push('\n');
                line
            }
        }
    }

    fn json_object(&self, fields: &[(Arc<str>, JsonFormat)], omits_empty: bool) -> Json {
        let values = fields.iter().map(|(name, format)| (name, self.json(format, omits_empty)));
        let kept = values.filter(|(_, value)| !(omits_empty && value.is_null()));
        kept.map(|(name, value)| (name.to_string(), value)).collect()
    }

    fn json(&self, format: &JsonFormat, omits_empty: bool) -> Json {
        match format {
            JsonFormat::Constant(value) => value.clone(),
            JsonFormat::Text(format) => self.json_text(format, omits_empty),
            JsonFormat::List(items) => {
                let values = items.iter().map(|item| self.json(item, omits_empty));
                values.filter(|value| !(omits_empty && value.is_null())).collect()
            }
            JsonFormat::Object(fields) => self.json_object(fields, omits_empty),
        }
    }

    /// A single operator keeps its type: numbers stay numbers, no value is null.
    fn json_text(&self, format: &[FormatOp], omits_empty: bool) -> Json {
        let [FormatOp::Field { field, limit }] = format else {
            return self.render(format, absent(omits_empty)).into();
        };
        match (self.value(field), is_number(field)) {
            (None, _) => Json::Null,
            (Some(value), true) => {
                value.parse::<u64>().map_or_else(|_| (*value).into(), Into::into)
            }
            (Some(value), false) => cut(&value, *limit).into(),
        }
    }
}

/// What stands for no value in a text.
fn absent(omits_empty: bool) -> &'static str {
    if omits_empty { "" } else { "-" }
}

/// Read each time: formats that ask for it are rare, and it may change.
fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

fn is_number(field: &Field) -> bool {
    use Field::{
        BytesReceived, BytesSent, DownstreamDirectRemotePort, DownstreamLocalPort,
        DownstreamRemotePort, Duration, GrpcStatus, RequestDuration, ResponseCode,
        ResponseDuration, UpstreamLocalPort, UpstreamPort, UpstreamRequestAttemptCount,
    };
    matches!(
        field,
        BytesReceived
            | BytesSent
            | Duration
            | DownstreamDirectRemotePort
            | DownstreamLocalPort
            | DownstreamRemotePort
            | GrpcStatus(GrpcStatusForm::Number)
            | RequestDuration
            | ResponseCode
            | ResponseDuration
            | UpstreamLocalPort
            | UpstreamPort
            | UpstreamRequestAttemptCount
    )
}

/// The beginning of a text, of at most so many bytes.
pub(super) fn cut(text: &str, limit: Option<usize>) -> &str {
    match limit {
        Some(limit) if limit < text.len() => {
            let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            &text[..end]
        }
        _ => text,
    }
}

/// Formats UTC time; an empty format is ISO 8601 with milliseconds. What strftime knows and we do
/// not stays as it is.
fn format_time(at: SystemTime, format: &str) -> String {
    let at = OffsetDateTime::from(at);
    let format = if format.is_empty() { "%Y-%m-%dT%H:%M:%S.%3fZ" } else { format };
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(character) = rest.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut kind = rest.next().unwrap_or('%');
        let digits = kind.to_digit(10);
        if digits.is_some() {
            kind = rest.next().unwrap_or('f');
        }
        time_part(&mut out, at, kind, digits);
    }
    out
}

fn time_part(out: &mut String, at: OffsetDateTime, kind: char, digits: Option<u32>) {
    let _ = match kind {
        'Y' => write!(out, "{:04}", at.year()),
        'm' => write!(out, "{:02}", u8::from(at.month())),
        'd' => write!(out, "{:02}", at.day()),
        'H' => write!(out, "{:02}", at.hour()),
        'M' => write!(out, "{:02}", at.minute()),
        'S' => write!(out, "{:02}", at.second()),
        'b' => write!(out, "{:.3}", at.month().to_string()),
        'F' => write!(out, "{:04}-{:02}-{:02}", at.year(), u8::from(at.month()), at.day()),
        'T' => write!(out, "{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second()),
        's' => write!(out, "{}", at.unix_timestamp()),
        'z' => write!(out, "+0000"),
        'Z' => write!(out, "UTC"),
        'f' => {
            let digits = digits.unwrap_or(9).clamp(1, 9) as usize;
            write!(out, "{}", &format!("{:09}", at.nanosecond())[..digits])
        }
        '%' => write!(out, "%"),
        other => write!(out, "%{other}"),
    };
}

/// Hands lines to the writer thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogWriter {
    lines: SyncSender<(LogSink, String)>,
    dropped: Arc<AtomicU64>,
}

impl LogWriter {
    /// Starts the writer thread, which ends when the last handle is dropped.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> io::Result<Self> {
        let (lines, received) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(&received))?;
        Ok(Self { lines, dropped: Arc::default() })
    }

    /// Writes the line of an entry.
    pub fn write(&self, lines: &LogLines, entry: &Entry<'_>) {
        if self.lines.try_send((lines.sink.clone(), entry.line(lines))).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Lines that were dropped because the writer could not keep up.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

fn write_lines(lines: &Receiver<(LogSink, String)>) {
    let mut files = Files::default();
    while let Ok((sink, line)) = lines.recv() {
        let mut written = files.write(&sink, &line);
        // What has queued up meanwhile is written in one go.
        while let Ok((sink, line)) = lines.try_recv() {
            written = written.and(files.write(&sink, &line));
        }
        let flushed = files.flush();
        files.tell_of(written.and(flushed));
    }
}

#[derive(Default)]
struct Files {
    open: HashMap<PathBuf, Option<BufWriter<File>>>,
    /// Failures to write, as far as they were told.
    trouble: Recurring,
}

impl Files {
    /// Fails with what could not be written, and why.
    fn write(&mut self, sink: &LogSink, line: &str) -> Result<(), String> {
        let written = match sink {
            LogSink::Stdout => io::stdout().lock().write_all(line.as_bytes()),
            LogSink::Stderr => io::stderr().lock().write_all(line.as_bytes()),
            LogSink::File(path) => match self.file(path) {
                Some(file) => file.write_all(line.as_bytes()),
                None => Ok(()),
            },
        };
        written.map_err(|error| format!("{sink:?}: {error}"))
    }

    /// A pipe that nobody reads stays so, and every line would say it again.
    fn tell_of(&mut self, written: Result<(), String>) {
        match written {
            Ok(()) => {
                if let Some(failures) = self.trouble.worked(Instant::now()) {
                    tracing::info!(failures, "access log can be written again");
                }
            }
            Err(why) => {
                if let Some(failures) = self.trouble.failed(&why, Instant::now()) {
                    tracing::warn!(why, failures, "access log cannot be written");
                }
            }
        }
    }

    fn file(&mut self, path: &PathBuf) -> Option<&mut BufWriter<File>> {
        let open = |path: &PathBuf| match OpenOptions::new().create(true).append(true).open(path) {
            Ok(file) => Some(BufWriter::new(file)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "access log cannot be opened");
                None
            }
        };
        self.open.entry(path.clone()).or_insert_with(|| open(path)).as_mut()
    }

    fn flush(&mut self) -> Result<(), String> {
        let open = self.open.iter_mut().filter_map(|(path, file)| Some((path, file.as_mut()?)));
        let flushed = open.map(|(path, file)| {
            file.flush().map_err(|error| format!("{}: {error}", path.display()))
        });
        // All of them, whatever becomes of one.
        flushed.fold(Ok(()), Result::and)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(connection: &'a ConnectionFacts, headers: &'a HeaderMap) -> Entry<'a> {
        let start = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        Entry {
            response_duration: Some(Duration::from_millis(2)),
            protocol: "HTTP/1.1",
            method: "GET",
            path: "/x?y",
            authority: "reviews",
            scheme: "http",
            request_headers: Some(headers),
            status: 200,
            details: "via_upstream",
            bytes_sent: 12,
            upstream_host: Some(([10, 0, 0, 1], 9080).into()),
            cluster: "outbound|80||reviews",
            attempts: 1,
            route: "default",
            ..Entry::of_connection(connection, start, Duration::from_millis(3))
        }
    }

    fn field(field: Field) -> FormatOp {
        FormatOp::Field { field, limit: None }
    }

    #[test]
    fn a_line_is_rendered_as_envoy_does() {
        let connection =
            ConnectionFacts::plaintext(([10, 0, 0, 5], 4000).into(), ([10, 0, 0, 9], 80).into());
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", "abc-def".parse().unwrap());
        let ops = [
            FormatOp::Literal("[".into()),
            field(Field::StartTime("".into())),
            FormatOp::Literal("] ".into()),
            field(Field::RequestHeader("x-envoy-original-path".into(), Some(":path".into()))),
            FormatOp::Literal(" ".into()),
            field(Field::ResponseCode),
            FormatOp::Literal(" ".into()),
            field(Field::ResponseFlags),
            FormatOp::Literal(" ".into()),
            FormatOp::Field {
                field: Field::RequestHeader("x-request-id".into(), None),
                limit: Some(3),
            },
            FormatOp::Literal(" ".into()),
            field(Field::UpstreamTransportFailureReason),
            FormatOp::Literal(" ".into()),
            field(Field::UpstreamHost),
        ];
        let text = entry(&connection, &headers).render(&ops, "-");
        assert_eq!(text, "[2023-11-14T22:13:20.123Z] /x?y 200 - abc - 10.0.0.1:9080");
    }

    #[test]
    fn json_keeps_numbers_and_nulls() {
        let connection =
            ConnectionFacts::plaintext(([10, 0, 0, 5], 4000).into(), ([10, 0, 0, 9], 80).into());
        let headers = HeaderMap::new();
        let text = |ops: Vec<FormatOp>| JsonFormat::Text(ops.into());
        let failure = || field(Field::UpstreamTransportFailureReason);
        let inner = vec![
            ("failure".into(), text(vec![failure()])),
            ("level".into(), JsonFormat::Constant(3.into())),
        ];
        let method = field(Field::RequestHeader(":method".into(), None));
        let format = LogFormat::Json(vec![
            ("bytes".into(), text(vec![field(Field::BytesSent)])),
            ("failure".into(), text(vec![failure()])),
            ("inner".into(), JsonFormat::Object(inner)),
            ("line".into(), text(vec![method, failure(), FormatOp::Literal("!".into())])),
            ("list".into(), JsonFormat::List(vec![text(vec![field(Field::Protocol)])])),
        ]);
        for (omits_empty, expected) in [
            (
                false,
                r#"{"bytes":12,"failure":null,"inner":{"failure":null,"level":3},"line":"GET-!","list":["HTTP/1.1"]}"#,
            ),
            (true, r#"{"bytes":12,"inner":{"level":3},"line":"GET!","list":["HTTP/1.1"]}"#),
        ] {
            let lines = LogLines { sink: LogSink::Stdout, format: format.clone(), omits_empty };
            let line = entry(&connection, &headers).line(&lines);
            assert_eq!(line, format!("{expected}\n"));
        }
    }

    #[test]
    fn filters_decide_what_is_logged() {
        let connection =
            ConnectionFacts::plaintext(([10, 0, 0, 5], 4000).into(), ([10, 0, 0, 9], 80).into());
        let headers = HeaderMap::new();
        let mut entry = entry(&connection, &headers);
        let any =
            LogFilter::AnyOf(vec![LogFilter::StatusAtLeast(400), LogFilter::ResponseFlags(vec![])]);
        assert!(!entry.passes(&any));
        entry.flags = Flags::NO_ROUTE;
        assert!(entry.passes(&any));
        assert!(!entry.passes(&LogFilter::ResponseFlags(vec!["UH".into()])));
        entry.status = 404;
        assert!(
            entry.passes(&LogFilter::AllOf(vec![LogFilter::StatusAtLeast(400), LogFilter::All]))
        );
    }

    #[test]
    fn times_follow_strftime() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
        for (format, expected) in [
            ("%s", "1700000000"),
            ("%F %T.%6f", "2023-11-14 22:13:20.123456"),
            ("%d/%b/%Y%%", "14/Nov/2023%"),
        ] {
            assert_eq!(format_time(at, format), expected);
        }
    }

    #[test]
    fn lines_reach_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut files = Files::default();
        files.write(&LogSink::File(path.clone()), "a\n").unwrap();
        files.write(&LogSink::File(path.clone()), "b\n").unwrap();
        files.flush().unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "a\nb\n");
    }
}
