//! A service is asked about each request whether it may pass (external authorization).
//!
//! Who does not answer in time, answers what cannot be read, or fails, has not allowed anything: the
//! request is refused unless the filter says otherwise. Statuses, bodies and headers are Envoy's.
//! Spec: Envoy `http.ext_authz.v3.ExtAuthz`, `service.auth.v3`.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration, time::SystemTime};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, LOCATION, PROXY_AUTHENTICATE,
        TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
    },
};

use super::{
    Answer, Call, CallAnswer, Called, FilterRequest, FilterResponse, FilterState, Notes, Payload,
    Piece, Step,
    grpc::{self, GrpcService},
};
use crate::runtime::{
    facts::ConnectionFacts,
    flags::Flags,
    matcher::{Share, StringMatcher},
    metadata::{Fields, MetadataMatcher},
};

/// Where the service's own findings are left, whatever the filter is called.
const NAMESPACE: &str = "envoy.filters.http.ext_authz";

const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";
const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");
const LET_BY_FAILURE: HeaderName = HeaderName::from_static("x-envoy-auth-failure-mode-allowed");

/// Whom to ask, about what, and what follows.
#[derive(Debug)]
pub struct ExtAuthz {
    /// Who is asked.
    pub service: Service,
    /// Requests that are asked about.
    pub enabled: Share,
    /// Only requests with this metadata are.
    pub asked: Option<MetadataMatcher>,
    /// Headers that the service is shown, pseudo headers by their names; `None`: all over gRPC, and
    /// the least over HTTP.
    pub shown: Option<Vec<StringMatcher>>,
    /// Headers that it is not shown in any case.
    pub hidden: Vec<StringMatcher>,
    /// How much of the body it is shown.
    pub body: Option<BodyShown>,
    /// Without an answer the request passes.
    pub fail_open: bool,
    /// And tells that it has.
    pub tells_failure: bool,
    /// Status of a request that is refused without an answer.
    pub status_on_error: u16,
    /// The route is chosen again by what the service has changed.
    pub reroutes: bool,
}

/// Who is asked.
#[derive(Debug)]
pub enum Service {
    /// A service of `service.auth.v3`.
    Grpc(GrpcService, Codec),
    /// A server to which the request's head is sent.
    Http(HttpService),
}

/// A server that is asked by HTTP.
#[derive(Debug)]
pub struct HttpService {
    /// Its cluster.
    pub cluster: Arc<str>,
    /// For a whole answer.
    pub timeout: Duration,
    /// Stands before the path.
    pub path_prefix: Arc<str>,
    /// Headers that it gets too.
    pub added: Vec<(HeaderName, HeaderValue)>,
    /// Headers of its that a request gets that it lets pass.
    pub to_upstream: Vec<StringMatcher>,
    /// The same, behind those of the name that are there.
    pub to_upstream_appended: Vec<StringMatcher>,
    /// Headers of its that a refused client gets; without any, all.
    pub to_refused: Vec<StringMatcher>,
    /// Headers of its that the response to a request gets that it lets pass.
    pub to_allowed: Vec<StringMatcher>,
}

/// How much of a body is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BodyShown {
    /// Most bytes.
    pub most: usize,
    /// Of a longer one its beginning is; otherwise it is refused.
    pub partial: bool,
    /// As bytes, whatever they are; over gRPC.
    pub raw: bool,
}

/// What a route sets.
#[derive(Clone, Debug)]
pub enum AskOverride {
    /// Nobody is asked.
    Disabled,
    /// What the service is told too.
    Settings {
        /// Over gRPC.
        context: BTreeMap<String, String>,
        /// It is not shown the body.
        without_body: bool,
    },
}

/// How messages of the service are written and read.
#[derive(Clone, Copy)]
pub struct Codec {
    /// Writes what is asked.
    pub encode: fn(&Question<'_>) -> Vec<u8>,
    /// Reads what is answered; nothing where it is no answer.
    pub decode: fn(&[u8]) -> Option<Verdict>,
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Codec")
    }
}

/// What a service is told of a request.
pub struct Question<'a> {
    /// The connection.
    pub connection: &'a ConnectionFacts,
    /// Who we are to the client; may be empty.
    pub own_name: &'a str,
    /// When it came.
    pub time: SystemTime,
    /// A number for it.
    pub id: u64,
    /// Method.
    pub method: &'a str,
    /// Scheme.
    pub scheme: &'a str,
    /// Authority.
    pub host: &'a str,
    /// Path with query.
    pub path: &'a str,
    /// Such as `HTTP/2`.
    pub protocol: &'static str,
    /// Headers by lower-case names, each once.
    pub headers: BTreeMap<String, String>,
    /// The body, as far as it is shown, and whether as bytes.
    pub body: Option<(&'a [u8], bool)>,
    /// Bytes of the body that were received.
    pub received: usize,
    /// What the route tells.
    pub context: Option<&'a BTreeMap<String, String>>,
}

/// What a service says.
#[derive(Debug)]
pub enum Verdict {
    /// It lets the request pass.
    Allowed(Box<Allowed>),
    /// It does not.
    Denied(Box<Denied>),
}

/// What is changed about a request that passes, and about its response.
#[derive(Default, Debug)]
pub struct Allowed {
    /// Fields of the request, in the place of those of their names.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Texts behind those of fields that are there.
    pub appended: Vec<(HeaderName, HeaderValue)>,
    /// Fields of the request that go.
    pub removed: Vec<HeaderName>,
    /// Fields of the response.
    pub response: Vec<(HeaderName, HeaderValue, ResponseWrite)>,
    /// What is left for later filters and logs.
    pub metadata: Fields,
}

/// How a field of the response is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResponseWrite {
    /// Beside those of its name.
    Append,
    /// In their place.
    Set,
    /// Where there is none.
    IfAbsent,
    /// In the place of one that is there.
    IfPresent,
}

/// How a client is refused.
#[derive(Debug)]
pub struct Denied {
    /// Status.
    pub status: u16,
    /// Fields of the answer.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// What is left for logs.
    pub metadata: Fields,
}

/// What the filter keeps of a request.
#[derive(Clone, Debug)]
pub enum Asking {
    /// Its body is waited for.
    Body,
    /// The service was asked, and this came of it.
    Told(Box<Called>),
    /// It has let the request pass, and wants this of the response.
    Passed(Arc<Vec<(HeaderName, HeaderValue, ResponseWrite)>>),
}

impl ExtAuthz {
    /// Whether it looks at bodies.
    pub(super) fn reads_bodies(&self) -> bool {
        self.body.is_some()
    }

    /// Asks, or goes by what was answered.
    pub(super) fn step(&self, request: &mut FilterRequest<'_>, set: Option<&AskOverride>) -> Step {
        if let Some(told) = self.told(request) {
            return told;
        }
        let without_body = match set {
            Some(AskOverride::Disabled) => return Step::Continue,
            Some(AskOverride::Settings { without_body, .. }) => *without_body,
            None => false,
        };
        let unasked = |asked: &MetadataMatcher| !asked.matches(request.notes.metadata());
        if self.asked.as_ref().is_some_and(unasked) || !self.enabled.contains((request.random)()) {
            return Step::Continue;
        }
        // The bytes of another protocol are no body.
        let upgrades = request.headers.contains_key(UPGRADE) || *request.method == Method::CONNECT;
        if self.body.is_some() && !without_body && !upgrades {
            request.notes.keep(request.place, FilterState::ExtAuthz(Asking::Body));
            return Step::Continue;
        }
        self.ask(request, set, None)
    }

    /// Asks once enough of the body is there.
    pub(super) fn body(
        &self,
        request: &mut FilterRequest<'_>,
        set: Option<&AskOverride>,
        piece: &Piece,
    ) -> Step {
        if let Some(told) = self.told(request) {
            return told;
        }
        let waits =
            matches!(request.notes.kept(request.place), Some(FilterState::ExtAuthz(Asking::Body)));
        let Some(shown) = self.body.filter(|_| waits) else { return Step::Continue };
        if piece.bytes.len() > shown.most && !shown.partial {
            return Step::Answer(Box::new(Answer {
                payload: Payload::Text {
                    status: 413,
                    text: "Payload Too Large".into(),
                    grpc: None,
                },
                flag: Flags::NONE,
                details: "request_payload_too_large".into(),
                changes: None,
                headers: HeaderMap::new(),
            }));
        }
        if !piece.is_last && piece.bytes.len() < shown.most {
            return Step::More;
        }
        self.ask(request, set, Some(&piece.bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// What was answered, if the service was asked.
    fn told(&self, request: &mut FilterRequest<'_>) -> Option<Step> {
        let Some(FilterState::ExtAuthz(Asking::Told(_))) = request.notes.kept(request.place) else {
            return None;
        };
        let Some(FilterState::ExtAuthz(Asking::Told(called))) = request.notes.take(request.place)
        else {
            return None;
        };
        let verdict = called.ok().and_then(|answer| self.verdict(&answer));
        Some(self.follow(request, verdict))
    }

    fn ask(
        &self,
        request: &mut FilterRequest<'_>,
        set: Option<&AskOverride>,
        body: Option<&Bytes>,
    ) -> Step {
        let shown = body.zip(self.body).map(|(bytes, shown)| {
            let part = bytes.slice(..bytes.len().min(shown.most));
            (part, bytes.len() > shown.most, shown.raw)
        });
        let call = match &self.service {
            Service::Grpc(service, codec) => {
                let received = body.map_or(0, Bytes::len);
                let question = self.question(request, set, shown.as_ref(), received);
                service.call(METHOD, &(codec.encode)(&question))
            }
            Service::Http(service) => service.call(self, request, shown),
        };
        match call {
            Some(call) => Step::Call(Box::new(call)),
            None => self.follow(request, None),
        }
    }

    fn question<'a>(
        &self,
        request: &'a FilterRequest<'_>,
        set: Option<&'a AskOverride>,
        shown: Option<&'a (Bytes, bool, bool)>,
        received: usize,
    ) -> Question<'a> {
        let mut headers = BTreeMap::new();
        let mut add = |name: &str, value: &str| {
            if !self.shows(name, true) {
                return;
            }
            let all: &mut String = headers.entry(name.to_owned()).or_default();
            if !all.is_empty() {
                all.push(',');
            }
            all.push_str(value);
        };
        for (name, value) in pseudo(request) {
            add(name, value);
        }
        for (name, value) in request.headers.iter().filter(|(name, _)| **name != PARTIAL_BODY) {
            add(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
        }
        if let Some((_, cut, _)) = shown {
            headers.insert(PARTIAL_BODY.as_str().to_owned(), cut.to_string());
        }
        Question {
            connection: request.connection,
            own_name: request.own_names.first().map_or("", AsRef::as_ref),
            time: (request.date)(),
            id: (request.random)(),
            method: request.method.as_str(),
            scheme: request.scheme,
            host: request.authority,
            path: request.path,
            protocol: request.protocol,
            headers,
            body: shown.map(|(bytes, _, raw)| (&bytes[..], *raw)),
            received,
            context: match set {
                Some(AskOverride::Settings { context, .. }) => Some(context),
                _ => None,
            },
        }
    }

    /// Whether the service is shown a header where nothing is said of it.
    fn shows(&self, name: &str, unsaid: bool) -> bool {
        !any_matches(&self.hidden, name)
            && self.shown.as_ref().map_or(unsaid, |shown| any_matches(shown, name))
    }

    fn verdict(&self, answer: &CallAnswer) -> Option<Verdict> {
        match &self.service {
            Service::Grpc(_, codec) => (codec.decode)(&grpc::message(answer).ok()?),
            Service::Http(service) => service.verdict(answer),
        }
    }

    /// Does what the service says; without a word of it, what is said for that.
    fn follow(&self, request: &mut FilterRequest<'_>, verdict: Option<Verdict>) -> Step {
        match verdict {
            Some(Verdict::Allowed(allowed)) => {
                leave(request.notes, &allowed.metadata);
                self.pass(request, *allowed)
            }
            Some(Verdict::Denied(denied)) => {
                leave(request.notes, &denied.metadata);
                Step::Answer(Box::new(denied.answer()))
            }
            None if self.fail_open => {
                if self.tells_failure {
                    request.headers.insert(LET_BY_FAILURE, HeaderValue::from_static("true"));
                }
                Step::Continue
            }
            None => Step::Answer(Box::new(Answer {
                payload: Payload::Text {
                    status: self.status_on_error,
                    text: "".into(),
                    grpc: None,
                },
                flag: Flags::UNAUTHORIZED,
                details: "ext_authz_error".into(),
                changes: None,
                headers: HeaderMap::new(),
            })),
        }
    }

    fn pass(&self, request: &mut FilterRequest<'_>, allowed: Allowed) -> Step {
        let Allowed { set, appended, removed, response, .. } = allowed;
        let changes = !set.is_empty() || !appended.is_empty() || !removed.is_empty();
        for (name, value) in set {
            request.headers.insert(name, value);
        }
        for (name, value) in appended {
            append(request.headers, name, &value);
        }
        for name in removed.iter().filter(|name| **name != HOST) {
            request.headers.remove(name);
        }
        if !response.is_empty() {
            let state = FilterState::ExtAuthz(Asking::Passed(Arc::new(response)));
            request.notes.keep(request.place, state);
        }
        request.router.other_route |= self.reroutes && changes;
        Step::Continue
    }
}

fn leave(notes: &mut Notes, metadata: &Fields) {
    for (key, value) in metadata {
        notes.set_metadata(NAMESPACE, key, value.clone());
    }
}

/// A text behind that of a field that is there, in one line; a field that is not is not made.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    let Some(before) = headers.get(&name) else { return };
    let both = [before.as_bytes(), b",", value.as_bytes()].concat();
    if let Ok(both) = HeaderValue::from_bytes(&both) {
        headers.insert(name, both);
    }
}

/// Remembers what came of asking.
pub(super) fn called(called: Called, notes: &mut Notes, place: usize) {
    notes.keep(place, FilterState::ExtAuthz(Asking::Told(Box::new(called))));
}

/// Writes what the service wants of the response to a request that it has let pass.
pub(super) fn write(response: &mut FilterResponse<'_>) {
    let Some(FilterState::ExtAuthz(Asking::Passed(writes))) = response.notes.kept(response.place)
    else {
        return;
    };
    for (name, value, how) in writes.iter() {
        let is_there = response.headers.contains_key(name);
        match how {
            ResponseWrite::Append => drop(response.headers.append(name, value.clone())),
            ResponseWrite::Set => drop(response.headers.insert(name, value.clone())),
            ResponseWrite::IfAbsent if !is_there => {
                response.headers.insert(name, value.clone());
            }
            ResponseWrite::IfPresent if is_there => {
                response.headers.insert(name, value.clone());
            }
            ResponseWrite::IfAbsent | ResponseWrite::IfPresent => {}
        }
    }
}

impl Denied {
    fn answer(self) -> Answer {
        Answer {
            payload: Payload::Body { status: self.status, body: self.body, grpc: None },
            flag: Flags::UNAUTHORIZED,
            details: "ext_authz_denied".into(),
            changes: None,
            headers: self.headers,
        }
    }
}

fn pseudo<'a>(request: &'a FilterRequest<'_>) -> [(&'static str, &'a str); 4] {
    [
        (":authority", request.authority),
        (":method", request.method.as_str()),
        (":path", request.path),
        (":scheme", request.scheme),
    ]
}

fn any_matches(list: &[StringMatcher], name: &str) -> bool {
    list.iter().any(|matcher| matcher.matches(name))
}

impl HttpService {
    /// The request's head, with as much of its body as is shown.
    fn call(
        &self,
        filter: &ExtAuthz,
        request: &FilterRequest<'_>,
        shown: Option<(Bytes, bool, bool)>,
    ) -> Option<Call> {
        let path = format!("{}{}", self.path_prefix, request.path);
        let uri = Uri::builder().scheme("http").authority(request.authority);
        let uri = uri.path_and_query(path).build().ok()?;
        let (body, cut) = match shown {
            Some((bytes, cut, _)) => (bytes, Some(cut)),
            None => (Bytes::new(), None),
        };
        let mut ask = Request::builder().method(request.method.clone()).uri(uri);
        let headers = ask.headers_mut()?;
        for (name, value) in request.headers.iter() {
            let of_hop = [CONTENT_LENGTH, CONNECTION, TRANSFER_ENCODING, UPGRADE].contains(name);
            if !of_hop && filter.shows(name.as_str(), *name == AUTHORIZATION) {
                headers.append(name, value.clone());
            }
        }
        // Shown in any case, as in Envoy.
        if let Some(authorization) = request.headers.get(AUTHORIZATION) {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if let Some(cut) = cut {
            let cut = if cut { "true" } else { "false" };
            headers.insert(PARTIAL_BODY, HeaderValue::from_static(cut));
        }
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        for (name, value) in &self.added {
            headers.append(name, value.clone());
        }
        let (cluster, timeout) = (Arc::clone(&self.cluster), self.timeout);
        Some(Call { cluster, request: ask.body(body).ok()?, timeout })
    }

    /// 200 lets the request pass; a server that fails has not answered.
    fn verdict(&self, answer: &CallAnswer) -> Option<Verdict> {
        if answer.status.is_server_error() {
            return None;
        }
        let told = |list: &[StringMatcher]| -> Vec<(HeaderName, HeaderValue)> {
            let own = answer.headers.iter().filter(|(name, _)| **name != TO_REMOVE);
            let own = own.filter(|(name, _)| any_matches(list, name.as_str()));
            own.map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        if answer.status == StatusCode::OK {
            let response = told(&self.to_allowed).into_iter();
            return Some(Verdict::Allowed(Box::new(Allowed {
                set: told(&self.to_upstream),
                appended: told(&self.to_upstream_appended),
                removed: removed(&answer.headers),
                response: response
                    .map(|(name, value)| (name, value, ResponseWrite::Append))
                    .collect(),
                metadata: Fields::new(),
            })));
        }
        let headers = answer.headers.iter().filter(|(name, _)| self.tells_refused(name));
        Some(Verdict::Denied(Box::new(Denied {
            status: answer.status.as_u16(),
            headers: headers.map(|(name, value)| (name.clone(), value.clone())).collect(),
            body: answer.body.clone(),
            metadata: Fields::new(),
        })))
    }

    /// What a refused client cannot do without, it gets in any case.
    fn tells_refused(&self, name: &HeaderName) -> bool {
        const NEEDED: [HeaderName; 3] = [WWW_AUTHENTICATE, LOCATION, PROXY_AUTHENTICATE];
        const OF_HOP: [HeaderName; 4] = [HOST, CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH];
        let wanted = self.to_refused.is_empty()
            || NEEDED.contains(name)
            || any_matches(&self.to_refused, name.as_str());
        wanted && !OF_HOP.contains(name)
    }
}

fn removed(headers: &HeaderMap) -> Vec<HeaderName> {
    let lists = headers.get_all(TO_REMOVE).iter().filter_map(|list| list.to_str().ok());
    let names = lists.flat_map(|list| list.split(','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok()).collect()
}
