//! Access logs: who is told of a request or connection, what, and which of them. Rendering belongs
//! to `telemetry`, which knows the values.

use std::{path::PathBuf, sync::Arc};

use super::{cel::Expression, collector::Collector, format::Format};

/// Where and how requests or connections are logged.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Who is told what.
    pub target: LogTarget,
    /// Which entries are logged.
    pub filter: LogFilter,
}

/// Who is told what.
#[derive(Clone, Debug)]
pub enum LogTarget {
    /// A stream of lines.
    Lines(LogLines),
    /// A service.
    Service(Arc<LogService>),
}

/// A service that takes entries in OpenTelemetry's form.
#[derive(Debug)]
pub struct LogService {
    /// Who takes them.
    pub collector: Collector,
    /// What is said of who tells them.
    pub resource: Vec<(Arc<str>, Arc<str>)>,
    /// The name of the log, where it and the node are told too.
    pub names_origin: Option<Arc<str>>,
    /// What an entry says; `None`: nothing but its attributes.
    pub body: Option<OtlpFormat>,
    /// What it says by name.
    pub attributes: Vec<(Arc<str>, OtlpFormat)>,
}

/// How a value in OpenTelemetry's form is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OtlpFormat {
    /// A text.
    Text(Format),
    /// A list.
    List(Vec<OtlpFormat>),
    /// Values by name.
    Map(Vec<(Arc<str>, OtlpFormat)>),
}

/// Lines that are written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLines {
    /// Where lines go.
    pub sink: LogSink,
    /// How a line is made.
    pub format: LogFormat,
    /// What has no value is left out; otherwise it is `-` in texts and null in JSON.
    pub omits_empty: bool,
}

/// Where log lines go.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum LogSink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

/// How a log line is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// A text line; the format brings its own line end.
    Text(Format),
    /// One JSON object a line; keys sorted.
    Json(Vec<(Arc<str>, JsonFormat)>),
}

/// How a value in JSON is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JsonFormat {
    /// Always the same: a number, yes or no, null.
    Constant(serde_json::Value),
    /// A text; one single operator keeps its type, so that numbers are written as such.
    Text(Format),
    /// A list.
    List(Vec<JsonFormat>),
    /// An object; keys sorted.
    Object(Vec<(Arc<str>, JsonFormat)>),
}

/// Which entries are logged.
#[derive(Clone, Debug)]
pub enum LogFilter {
    /// All of them.
    All,
    /// Those with any of these response flags; an empty list means any flag at all.
    ResponseFlags(Vec<Arc<str>>),
    /// Those whose status is at least this.
    StatusAtLeast(u16),
    /// Those that satisfy any of these.
    AnyOf(Vec<LogFilter>),
    /// Those that satisfy all of these.
    AllOf(Vec<LogFilter>),
    /// Those of which this is true.
    True(Arc<Expression>),
}
