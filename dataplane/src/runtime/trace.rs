//! Which requests are traced, and how a trace goes on in headers: the decision, its mark in the
//! request's id, and the context of a span by W3C and B3.
//!
//! Sans-IO. Spec: Envoy `HttpConnectionManager.Tracing`, `UuidRequestIdConfig`; W3C Trace Context;
//! Zipkin B3. What these leave open is as in Envoy 1.40.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{collector::Collector, format::Format};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CLIENT_TRACE_ID: HeaderName = HeaderName::from_static("x-client-trace-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");

/// What a connection manager tells of its requests in traces.
#[derive(Debug)]
pub struct Tracing {
    /// How many requests are traced.
    pub sampling: Sampling,
    /// What ids of requests have to do with it.
    pub ids: RequestIds,
    /// Most bytes of a path in a span.
    pub longest_path: usize,
    /// What spans say beside the usual.
    pub tags: Vec<Tag>,
    /// Who takes spans; `None`: requests are only marked.
    pub tracer: Option<Arc<Tracer>>,
    /// Requests are not told of their trace.
    pub is_silent: bool,
}

/// How many requests are traced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sampling {
    /// Of a hundred that ask for it (`x-client-trace-id`).
    pub asked: u32,
    /// Of ten thousand of which nobody has said anything.
    pub random: u32,
    /// Of a hundred that were chosen so.
    pub overall: u32,
}

/// What ids of requests have to do with tracing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestIds {
    /// They decide; otherwise every request is traced, unless its caller's context says not.
    pub decide: bool,
    /// They bear a mark of what was decided, and all proxies of a request go by it.
    pub are_marked: bool,
}

/// Something that spans say.
#[derive(Debug)]
pub struct Tag {
    /// What it is called.
    pub name: Arc<str>,
    /// What is said; an empty text is left out.
    pub value: TagValue,
}

/// What a tag says.
#[derive(Debug)]
pub enum TagValue {
    /// Always the same.
    Literal(Arc<str>),
    /// A variable of the proxy's environment, else a default.
    Environment(Arc<str>, Arc<str>),
    /// A header of the request, else a default.
    Header(Arc<str>, Arc<str>),
    /// What a filter has found out: a namespace, the keys that lead to it, and a default.
    Metadata(Arc<str>, Vec<Arc<str>>, Arc<str>),
    /// A format, in which what has no value is nothing.
    Format(Format),
}

/// Who takes spans, and in which form.
#[derive(Debug)]
pub struct Tracer {
    /// The form of spans and of contexts.
    pub form: TraceForm,
    /// Who takes them.
    pub collector: Collector,
}

/// The form of spans and of contexts.
#[derive(Debug)]
pub enum TraceForm {
    /// OTLP; contexts by W3C.
    OpenTelemetry(Resource),
    /// Zipkin's second version in JSON; contexts by B3.
    Zipkin(Zipkin),
}

impl TraceForm {
    /// What a span is called of which nobody says what it is about.
    pub fn usual_name(&self, side: CallSide, host: &str) -> String {
        match (self, side) {
            (Self::OpenTelemetry(_), CallSide::Client) => format!("egress {host}"),
            (Self::OpenTelemetry(_), CallSide::Server) => "ingress".to_owned(),
            (Self::Zipkin(_), _) => host.to_owned(),
        }
    }
}

/// Whose spans they are, as OpenTelemetry says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resource {
    /// What is said of it.
    pub attributes: Vec<(Arc<str>, Arc<str>)>,
    /// Also what `OTEL_RESOURCE_ATTRIBUTES` of the environment says.
    pub from_environment: bool,
    /// Spans say which program has made them.
    pub names_program: bool,
}

/// What differs among Zipkin's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Zipkin {
    /// New traces have ids of 128 bits, not 64.
    pub wide_ids: bool,
    /// Contexts go by W3C too, and come by it where there is none of B3.
    pub w3c: bool,
    /// Both ends of a call make one span.
    pub shares_spans: bool,
}

/// Which side of a call a proxy is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallSide {
    /// The caller's.
    Client,
    /// The callee's.
    Server,
}

/// Why a request is traced, as its id tells the proxies behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mark {
    /// A share of all requests is.
    Sampled,
    /// Somebody in the mesh wants it.
    Forced,
    /// Its client wants it.
    Asked,
}

/// The version of a random UUID, which an id has that is not marked.
const UNMARKED: u8 = b'4';
const ID_LENGTH: usize = 36;
const MARK_AT: usize = 14;

impl Mark {
    fn of(id: &[u8]) -> Option<Self> {
        match id.get(MARK_AT).filter(|_| id.len() == ID_LENGTH)? {
            b'9' => Some(Self::Sampled),
            b'a' => Some(Self::Forced),
            b'b' => Some(Self::Asked),
            _ => None,
        }
    }

    fn digit(self) -> u8 {
        match self {
            Self::Sampled => b'9',
            Self::Forced => b'a',
            Self::Asked => b'b',
        }
    }
}

impl Tracing {
    /// Whether a request is traced; its id is marked so. What has no id, or one that is no UUID, is
    /// not.
    pub fn decide(&self, headers: &mut HeaderMap, random: impl FnOnce() -> u64) -> bool {
        if !self.ids.decide {
            return true;
        }
        let Some(id) = headers.get(REQUEST_ID).map(HeaderValue::as_bytes) else { return false };
        let Some(number) = id.get(..8).and_then(hexadecimal) else { return false };
        let noted = Mark::of(id).filter(|_| self.ids.are_marked);
        let chosen = noted.or_else(|| self.choose(headers, number, random));
        let traced = chosen.filter(|_| number % 100 < u64::from(self.sampling.overall));
        if self.ids.are_marked && traced != noted {
            mark(headers, traced);
        }
        traced.is_some()
    }

    fn choose(
        &self,
        headers: &HeaderMap,
        number: u64,
        random: impl FnOnce() -> u64,
    ) -> Option<Mark> {
        let Sampling { asked, random: share, .. } = self.sampling;
        // Seldom there: a look at the names costs less than the hash of ours.
        let asks = headers.keys().any(|name| *name == CLIENT_TRACE_ID);
        if asks && random() % 100 < u64::from(asked) {
            return Some(Mark::Asked);
        }
        (number % 10_000 < u64::from(share)).then_some(Mark::Sampled)
    }
}

/// Takes away a mark that somebody has made who decides nothing.
pub fn unmark(headers: &mut HeaderMap) {
    if headers.get(REQUEST_ID).is_some_and(|id| Mark::of(id.as_bytes()).is_some()) {
        mark(headers, None);
    }
}

fn mark(headers: &mut HeaderMap, mark: Option<Mark>) {
    let Some(id) = headers.get_mut(REQUEST_ID) else { return };
    let Ok(mut text) = <[u8; ID_LENGTH]>::try_from(id.as_bytes()) else { return };
    text[MARK_AT] = mark.map_or(UNMARKED, Mark::digit);
    if let Ok(marked) = HeaderValue::from_bytes(&text) {
        *id = marked;
    }
}

/// Names a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceId {
    /// The first half, if it has 128 bits.
    pub high: Option<u64>,
    /// The second half, or all of it.
    pub low: u64,
}

impl TraceId {
    /// As 128 bits.
    pub fn wide(self) -> u128 {
        u128::from(self.high.unwrap_or_default()) << 64 | u128::from(self.low)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        match text.split_at_checked(16) {
            Some((high, low)) if low.len() == 16 => {
                Some(Self { high: Some(hexadecimal(high)?), low: hexadecimal(low)? })
            }
            _ => Some(Self { high: None, low: hexadecimal(text)? }),
        }
    }
}

impl std::fmt::Display for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.high {
            Some(high) => write!(f, "{high:016x}{:016x}", self.low),
            None => write!(f, "{:016x}", self.low),
        }
    }
}

/// Names a span, and where it belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpanContext {
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub span: u64,
    /// The span that has caused it.
    pub parent: Option<u64>,
    /// It is told.
    pub sampled: bool,
    /// The caller tells of the same span.
    pub shared: bool,
    /// It came, and goes on, in one header.
    in_one: bool,
}

impl SpanContext {
    fn root(trace: TraceId, span: u64, sampled: bool) -> Self {
        Self { trace, span, parent: None, sampled, shared: false, in_one: false }
    }
}

impl Tracer {
    /// The span of a request, in the trace that its caller's headers name, else in a new one. `None`
    /// where the headers cannot be read: the trace is not ours to go on with.
    pub fn begin(
        &self,
        headers: &HeaderMap,
        side: CallSide,
        traced: bool,
        mut random: impl FnMut() -> u64,
    ) -> Option<SpanContext> {
        let mut id = || random().max(1);
        match &self.form {
            TraceForm::OpenTelemetry(_) => begin_w3c(headers, traced, &mut id),
            TraceForm::Zipkin(zipkin) => zipkin.begin(headers, side, traced, &mut id),
        }
    }

    /// Tells whoever gets the request.
    pub fn tell(&self, context: &SpanContext, headers: &mut HeaderMap) {
        match &self.form {
            TraceForm::OpenTelemetry(_) => write(headers, TRACEPARENT, w3c(context)),
            TraceForm::Zipkin(zipkin) => zipkin.tell(context, headers),
        }
    }
}

fn begin_w3c(
    headers: &HeaderMap,
    traced: bool,
    id: &mut impl FnMut() -> u64,
) -> Option<SpanContext> {
    let Some(parent) = headers.get(TRACEPARENT) else {
        let trace = TraceId { high: Some(id()), low: id() };
        return Some(SpanContext::root(trace, id(), traced));
    };
    let parent = Caller::w3c(parent.as_bytes())?;
    let sampled = traced && parent.sampled == Some(true);
    Some(SpanContext {
        parent: Some(parent.span),
        ..SpanContext::root(parent.trace, id(), sampled)
    })
}

/// What a caller says of its span.
struct Caller {
    trace: TraceId,
    span: u64,
    parent: Option<u64>,
    sampled: Option<bool>,
}

impl Caller {
    /// `00-TRACE-SPAN-FLAGS` (W3C Trace Context, section 3.2).
    fn w3c(text: &[u8]) -> Option<Self> {
        if text.len() != 55 {
            return None;
        }
        let mut parts = text.split(|byte| *byte == b'-');
        let mut part = |length: usize| parts.next().filter(|part| part.len() == length);
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        hexadecimal(version)?;
        let (trace, span) = (TraceId::parse(trace)?, hexadecimal(span)?);
        let flags = hexadecimal(flags)?;
        let named = trace.wide() != 0 && span != 0;
        named.then_some(Self { trace, span, parent: None, sampled: Some(flags & 1 == 1) })
    }

    /// `TRACE-SPAN[-SAMPLED[-PARENT]]` (B3, "Single Header").
    fn in_one(text: &[u8]) -> Option<Self> {
        let mut parts = text.split(|byte| *byte == b'-');
        let trace = parts.next().filter(|part| matches!(part.len(), 16 | 32))?;
        let span = parts.next().filter(|part| part.len() == 16)?;
        let sampled = parts.next().map(|part| sampled(part).ok_or(())).transpose().ok()?;
        let parent = parts.next().map(|part| hexadecimal(part).ok_or(())).transpose().ok()?;
        if parts.next().is_some() {
            return None;
        }
        Some(Self { trace: TraceId::parse(trace)?, span: hexadecimal(span)?, parent, sampled })
    }

    /// Of several headers; the outer `None`: they cannot be read, the inner: there are none.
    fn in_several(headers: &HeaderMap) -> Option<Option<Self>> {
        let (Some(trace), Some(span)) = (headers.get(B3_TRACE), headers.get(B3_SPAN)) else {
            return Some(None);
        };
        let trace = trace.as_bytes();
        let parent = headers.get(B3_PARENT).map(HeaderValue::as_bytes);
        let parent = parent.filter(|parent| !parent.is_empty());
        Some(Some(Self {
            trace: TraceId::parse(trace).filter(|_| matches!(trace.len(), 1..=16 | 32))?,
            span: hexadecimal(span.as_bytes())?,
            parent: match parent {
                Some(parent) => Some(hexadecimal(parent)?),
                None => None,
            },
            sampled: None,
        }))
    }
}

/// What a caller says by one character: `d` (it debugs) is sampled.
fn sampled(text: &[u8]) -> Option<bool> {
    match text {
        b"0" => Some(false),
        b"1" | b"d" => Some(true),
        _ => None,
    }
}

impl Zipkin {
    fn begin(
        self,
        headers: &HeaderMap,
        side: CallSide,
        traced: bool,
        id: &mut impl FnMut() -> u64,
    ) -> Option<SpanContext> {
        let of_b3 = headers.get(B3_SAMPLED).map(|value| {
            let value = value.as_bytes();
            value == b"1" || value == b"true"
        });
        if let Some(one) = headers.get(B3).map(HeaderValue::as_bytes) {
            // Only whether it is told may stand there, too.
            if let [_] = one {
                return Some(self.root(sampled(one).unwrap_or(traced), id));
            }
            let caller = Caller::in_one(one)?;
            let context = self.below(&caller, side, caller.sampled.unwrap_or(traced), id);
            return Some(SpanContext { in_one: true, ..context });
        }
        if let Some(caller) = Caller::in_several(headers)? {
            return Some(self.below(&caller, side, of_b3.unwrap_or(traced), id));
        }
        let w3c = headers.get(TRACEPARENT).filter(|_| self.w3c);
        if let Some(caller) = w3c.and_then(|value| Caller::w3c(value.as_bytes())) {
            let sampled = of_b3.or(caller.sampled).unwrap_or(traced);
            return Some(self.below(&caller, side, sampled, id));
        }
        Some(self.root(of_b3.unwrap_or(traced), id))
    }

    fn root(self, sampled: bool, id: &mut impl FnMut() -> u64) -> SpanContext {
        let trace = TraceId { high: self.wide_ids.then(&mut *id), low: id() };
        SpanContext::root(trace, trace.low, sampled)
    }

    fn below(
        self,
        caller: &Caller,
        side: CallSide,
        sampled: bool,
        id: &mut impl FnMut() -> u64,
    ) -> SpanContext {
        let Caller { trace, span, parent, .. } = *caller;
        if self.shares_spans && side == CallSide::Server {
            return SpanContext { parent, shared: true, ..SpanContext::root(trace, span, sampled) };
        }
        SpanContext { parent: Some(span), ..SpanContext::root(trace, id(), sampled) }
    }

    fn tell(self, context: &SpanContext, headers: &mut HeaderMap) {
        let SpanContext { trace, span, parent, sampled, .. } = context;
        let flag = if *sampled { '1' } else { '0' };
        if context.in_one {
            let parent = parent.map(|parent| format!("-{parent:016x}")).unwrap_or_default();
            write(headers, B3, format!("{trace}-{span:016x}-{flag}{parent}"));
        } else {
            write(headers, B3_TRACE, trace.to_string());
            write(headers, B3_SPAN, format!("{span:016x}"));
            match parent {
                Some(parent) => write(headers, B3_PARENT, format!("{parent:016x}")),
                None => drop(headers.remove(B3_PARENT)),
            }
            write(headers, B3_SAMPLED, flag.to_string());
        }
        if self.w3c {
            write(headers, TRACEPARENT, w3c(context));
        }
    }
}

fn w3c(context: &SpanContext) -> String {
    let SpanContext { trace, span, sampled, .. } = context;
    format!("00-{:032x}-{span:016x}-0{}", trace.wide(), u8::from(*sampled))
}

fn write(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// A number of up to 16 digits.
fn hexadecimal(digits: &[u8]) -> Option<u64> {
    if !matches!(digits.len(), 1..=16) {
        return None;
    }
    digits.iter().try_fold(0, |number: u64, digit| {
        Some(number << 4 | u64::from(char::from(*digit).to_digit(16)?))
    })
}

#[cfg(test)]
mod tests;
