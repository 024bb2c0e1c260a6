//! A service counts requests, for all proxies together (global rate limit).
//!
//! Who is not answered in time is let pass or refused as the filter says; what is no answer is as
//! good as none. Spec: Envoy `http.ratelimit.v3.RateLimit`, `service.ratelimit.v3`.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};

use super::{
    Answer, Called, FilterRequest, FilterResponse, FilterState, Notes, Payload, Step,
    grpc::{self, GrpcService},
};
use crate::runtime::{
    flags::Flags,
    format::HeaderOps,
    matcher::Share,
    metadata::Fields,
    rate_limit::{Descriptor, HostLimits, LimitPolicies, RateLimit},
};

const METHOD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
const X_ENVOY_INTERNAL: &str = "x-envoy-internal";
/// Tells proxies before ours that a limit has answered.
pub const LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// A gRPC status.
const RESOURCE_EXHAUSTED: u32 = 8;

/// Whom to ask, about what, and what follows.
#[derive(Debug)]
pub struct GlobalRateLimit {
    /// Who counts.
    pub service: GrpcService,
    /// How its messages are written and read.
    pub codec: Codec,
    /// What is counted, as the service calls it.
    pub domain: Arc<str>,
    /// How requests are described.
    pub policies: LimitPolicies,
    /// Which requests.
    pub origin: Origin,
    /// Requests that are counted.
    pub enabled: Share,
    /// Of those that are above the limit, the ones that are refused.
    pub enforced: Share,
    /// Without an answer a request is refused.
    pub fail_closed: bool,
    /// Status then.
    pub status_on_error: u16,
    /// Status of a request above the limit.
    pub status: u16,
    /// gRPC clients get `RESOURCE_EXHAUSTED` instead of `UNAVAILABLE`.
    pub resource_exhausted: bool,
    /// Responses tell of the limit.
    pub limit_headers: bool,
    /// A refused client is told who has refused it.
    pub tells_limited: bool,
    /// Changes of the answer to a request above the limit.
    pub response_headers: Arc<HeaderOps>,
    /// Where what the service found is left for later filters and logs.
    pub metadata_namespace: Arc<str>,
}

/// Which requests are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// All.
    Any,
    /// Those from inside.
    Internal,
    /// Those from outside.
    External,
}

/// What a route sets.
#[derive(Clone, Debug)]
pub struct LimitOverride {
    /// Instead of the filter's.
    pub domain: Option<Arc<str>>,
    /// Policies that are used instead of all others; empty for none.
    pub own: Vec<RateLimit>,
    /// When the virtual host's policies are used.
    pub host: HostLimits,
}

/// How messages of the service are written and read.
#[derive(Clone, Copy)]
pub struct Codec {
    /// Writes what is asked about a domain.
    pub encode: fn(&str, &[Descriptor<'_>]) -> Vec<u8>,
    /// Reads what is answered; nothing where it is no answer.
    pub decode: fn(&[u8]) -> Option<Counted>,
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Codec")
    }
}

/// What a service says of a request.
#[derive(Default, Debug)]
pub struct Counted {
    /// It is above a limit.
    pub is_above: bool,
    /// What is known of each limit.
    pub limits: Vec<LimitState>,
    /// Fields of the request.
    pub request: Vec<(HeaderName, HeaderValue)>,
    /// Fields of the response, whoever answers.
    pub response: Vec<(HeaderName, HeaderValue)>,
    /// Body of a refusal.
    pub body: Bytes,
    /// What is left for later filters and logs.
    pub metadata: Fields,
}

/// What is known of one limit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitState {
    /// What it is called; may be empty.
    pub name: String,
    /// Requests.
    pub requests: u32,
    /// In so many seconds; 0 if that is not said.
    pub window: u32,
    /// How many are left.
    pub remaining: u32,
    /// Seconds until there are as many again.
    pub reset: u64,
}

/// What the filter keeps of a request.
#[derive(Clone, Debug)]
pub enum Counting {
    /// The service was asked, and this came of it.
    Told(Box<Called>),
    /// The response gets these.
    Passed(Arc<Vec<(HeaderName, HeaderValue)>>),
}

impl GlobalRateLimit {
    /// Asks, or goes by what was answered.
    pub(super) fn step(
        &self,
        request: &mut FilterRequest<'_>,
        set: Option<&LimitOverride>,
    ) -> Step {
        if let Some(FilterState::RateLimit(Counting::Told(_))) = request.notes.kept(request.place) {
            return self.told(request);
        }
        let Some(limits) = request.limits.filter(|_| self.concerns(request)) else {
            return Step::Continue;
        };
        let domain = set.and_then(|set| set.domain.as_ref()).unwrap_or(&self.domain);
        let facts = request.facts();
        let descriptors = self.policies.descriptors(set.map(own_of), limits, &facts);
        // Who cannot be described is not counted, as in Envoy.
        if descriptors.iter().all(|descriptor| descriptor.entries.is_empty()) {
            return Step::Continue;
        }
        let call = self.service.call(METHOD, &(self.codec.encode)(domain, &descriptors));
        call.map_or_else(|| self.uncounted(), |call| Step::Call(Box::new(call)))
    }

    fn concerns(&self, request: &FilterRequest<'_>) -> bool {
        let internal = request.headers.get(X_ENVOY_INTERNAL).is_some_and(|value| value == "true");
        let concerned = match self.origin {
            Origin::Any => true,
            Origin::Internal => internal,
            Origin::External => !internal,
        };
        concerned && self.enabled.contains((request.random)())
    }

    fn told(&self, request: &mut FilterRequest<'_>) -> Step {
        let Some(FilterState::RateLimit(Counting::Told(called))) =
            request.notes.take(request.place)
        else {
            return Step::Continue;
        };
        let message = called.ok().and_then(|answer| grpc::message(&answer).ok());
        match message.and_then(|message| (self.codec.decode)(&message)) {
            None => self.uncounted(),
            Some(counted) => self.follow(request, counted),
        }
    }

    fn uncounted(&self) -> Step {
        if !self.fail_closed {
            return Step::Continue;
        }
        Step::Answer(Box::new(Answer {
            payload: Payload::Text { status: self.status_on_error, text: "".into(), grpc: None },
            flag: Flags::RATE_LIMIT_ERROR,
            details: "rate_limiter_error".into(),
            changes: None,
            headers: HeaderMap::new(),
        }))
    }

    fn follow(&self, request: &mut FilterRequest<'_>, mut counted: Counted) -> Step {
        for (key, value) in std::mem::take(&mut counted.metadata) {
            request.notes.set_metadata(&self.metadata_namespace, &key, value);
        }
        if self.limit_headers {
            counted.response.extend(tightest(&counted.limits));
        }
        if counted.is_above && self.enforced.contains((request.random)()) {
            return Step::Answer(Box::new(self.refusal(counted)));
        }
        if !counted.is_above {
            for (name, value) in counted.request {
                request.headers.append(name, value);
            }
        }
        if !counted.response.is_empty() {
            let state = FilterState::RateLimit(Counting::Passed(Arc::new(counted.response)));
            request.notes.keep(request.place, state);
        }
        Step::Continue
    }

    fn refusal(&self, counted: Counted) -> Answer {
        let mut headers: HeaderMap = HeaderMap::new();
        headers.extend(counted.response);
        if self.tells_limited {
            headers.insert(LIMITED, HeaderValue::from_static("true"));
        }
        if counted.body.is_empty() {
            headers.remove(CONTENT_TYPE);
        }
        Answer {
            payload: Payload::Body {
                status: self.status,
                body: counted.body,
                grpc: self.resource_exhausted.then_some(RESOURCE_EXHAUSTED),
            },
            flag: Flags::RATE_LIMITED,
            details: "request_rate_limited".into(),
            changes: Some(Arc::clone(&self.response_headers)),
            headers,
        }
    }
}

fn own_of(set: &LimitOverride) -> (&[RateLimit], HostLimits) {
    (&set.own, set.host)
}

/// The limit of which least is left, and all that there are
/// (draft-polli-ratelimit-headers-03, section 3).
fn tightest(limits: &[LimitState]) -> Vec<(HeaderName, HeaderValue)> {
    let Some(least) = limits.iter().min_by_key(|limit| limit.remaining) else { return Vec::new() };
    let mut text = least.requests.to_string();
    for limit in limits.iter().filter(|limit| limit.window > 0) {
        text += &format!(", {};w={}", limit.requests, limit.window);
        if !limit.name.is_empty() {
            text += &format!(";name=\"{}\"", limit.name);
        }
    }
    let Ok(all) = HeaderValue::from_str(&text) else { return Vec::new() };
    vec![
        (LIMIT, all),
        (REMAINING, HeaderValue::from(least.remaining)),
        (RESET, HeaderValue::from(least.reset)),
    ]
}

/// Remembers what came of asking.
pub(super) fn called(called: Called, notes: &mut Notes, place: usize) {
    notes.keep(place, FilterState::RateLimit(Counting::Told(Box::new(called))));
}

/// Writes what the service wants of the response to a request that has passed.
pub(super) fn write(response: &mut FilterResponse<'_>) {
    if let Some(FilterState::RateLimit(Counting::Passed(fields))) =
        response.notes.kept(response.place)
    {
        for (name, value) in fields.iter() {
            response.headers.append(name, value.clone());
        }
    }
}
