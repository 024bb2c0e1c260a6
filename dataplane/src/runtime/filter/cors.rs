//! Cross-origin requests: answers preflights and names allowed origins in responses.
//!
//! Spec: Fetch standard, "CORS protocol"; Envoy CORS filter.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{Answer, FilterRequest, FilterResponse, FilterState, Payload, Step};
use crate::runtime::{flags::Flags, matcher::StringMatcher};

/// Cross-origin rules of a route or virtual host.
#[derive(Clone, Debug, Default)]
pub struct CorsPolicy {
    /// Origins that are allowed.
    pub allow_origins: Vec<StringMatcher>,
    /// `access-control-allow-methods`; empty writes none.
    pub allow_methods: Arc<str>,
    /// `access-control-allow-headers`; empty writes none.
    pub allow_headers: Arc<str>,
    /// `access-control-expose-headers`; empty writes none.
    pub expose_headers: Arc<str>,
    /// `access-control-max-age`; empty writes none.
    pub max_age: Arc<str>,
    /// Writes `access-control-allow-credentials: true`.
    pub allow_credentials: bool,
    /// Passes a preflight request on if its origin is not allowed; otherwise it is answered without
    /// CORS headers.
    pub forward_unmatched_preflights: bool,
}

impl CorsPolicy {
    /// Answers a preflight, or keeps the headers that the response gets.
    pub(super) fn step(&self, request: &mut FilterRequest<'_>) -> Step {
        match judge(self, request.method, request.headers) {
            Cors::Preflight(headers) => {
                let payload = Payload::Settled;
                let (flag, details, changes) = (Flags::NONE, "".into(), None);
                Step::Answer(Box::new(Answer { payload, flag, details, changes, headers }))
            }
            Cors::Continue(headers) => {
                if !headers.is_empty() {
                    request.notes.keep(request.place, FilterState::Cors(headers));
                }
                Step::Continue
            }
        }
    }
}

/// Writes the headers that were kept for the response.
pub(super) fn write(response: &mut FilterResponse<'_>) {
    if let Some(FilterState::Cors(headers)) = response.notes.kept(response.place) {
        response.headers.extend(headers.clone());
    }
}

/// What CORS makes of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Cors {
    /// It goes on; the response gets these headers.
    Continue(HeaderMap),
    /// A preflight: answered with 200 and these headers.
    Preflight(HeaderMap),
}

/// Judges a request by a policy.
fn judge(policy: &CorsPolicy, method: &Method, request: &HeaderMap) -> Cors {
    let mut origins = request.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return Cors::Continue(HeaderMap::new()) };
    // A request has one (RFC 6454, section 7.3): of several, none says where it comes from.
    let allowed = origins.next().is_none()
        && origin.to_str().is_ok_and(|o| policy.allow_origins.iter().any(|m| m.matches(o)));
    let preflight =
        method == Method::OPTIONS && request.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    match (allowed, preflight) {
        (true, false) => Cors::Continue(response_headers(policy, origin)),
        (true, true) => Cors::Preflight(preflight_headers(policy, origin)),
        (false, true) if !policy.forward_unmatched_preflights => Cors::Preflight(HeaderMap::new()),
        (false, _) => Cors::Continue(HeaderMap::new()),
    }
}

fn response_headers(policy: &CorsPolicy, origin: &HeaderValue) -> HeaderMap {
    let mut headers = common(policy, origin);
    set(&mut headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, &policy.expose_headers);
    headers
}

fn preflight_headers(policy: &CorsPolicy, origin: &HeaderValue) -> HeaderMap {
    let mut headers = common(policy, origin);
    set(&mut headers, header::ACCESS_CONTROL_ALLOW_METHODS, &policy.allow_methods);
    set(&mut headers, header::ACCESS_CONTROL_ALLOW_HEADERS, &policy.allow_headers);
    set(&mut headers, header::ACCESS_CONTROL_MAX_AGE, &policy.max_age);
    headers
}

fn common(policy: &CorsPolicy, origin: &HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if policy.allow_credentials {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    headers
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if !value.is_empty()
        && let Ok(value) = HeaderValue::from_str(value)
    {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, origin: Option<&str>, preflight: bool, forward: bool) -> Cors {
        let policy = CorsPolicy {
            allow_origins: vec![StringMatcher::Exact("https://a.b".into())],
            allow_methods: "GET".into(),
            expose_headers: "x-y".into(),
            allow_credentials: true,
            forward_unmatched_preflights: forward,
            ..CorsPolicy::default()
        };
        let mut headers = HeaderMap::new();
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        if preflight {
            headers.insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("GET"));
        }
        judge(&policy, &method, &headers)
    }

    #[test]
    fn of_several_origins_none_is_allowed() {
        let policy = CorsPolicy {
            allow_origins: vec![StringMatcher::Exact("https://a.b".into())],
            ..CorsPolicy::default()
        };
        let mut headers = HeaderMap::new();
        let origin = HeaderValue::from_static("https://a.b");
        headers.append(header::ORIGIN, origin.clone());
        let with_one = judge(&policy, &Method::GET, &headers);
        headers.append(header::ORIGIN, origin);
        let with_two = judge(&policy, &Method::GET, &headers);
        assert_ne!(with_one, Cors::Continue(HeaderMap::new()));
        assert_eq!(with_two, Cors::Continue(HeaderMap::new()));
    }

    #[test]
    fn only_allowed_origins_are_named() {
        let Cors::Continue(headers) = check(Method::GET, Some("https://a.b"), false, false) else {
            panic!("answered")
        };
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.b");
        assert_eq!(headers[header::ACCESS_CONTROL_EXPOSE_HEADERS], "x-y");
        assert_eq!(
            check(Method::GET, Some("https://evil"), false, false),
            Cors::Continue(HeaderMap::new())
        );
        assert_eq!(check(Method::GET, None, false, false), Cors::Continue(HeaderMap::new()));
    }

    #[test]
    fn preflights_are_answered() {
        let Cors::Preflight(headers) = check(Method::OPTIONS, Some("https://a.b"), true, true)
        else {
            panic!("passed on")
        };
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_METHODS], "GET");
        assert_eq!(
            check(Method::OPTIONS, Some("https://evil"), true, false),
            Cors::Preflight(HeaderMap::new())
        );
        assert_eq!(
            check(Method::OPTIONS, Some("https://evil"), true, true),
            Cors::Continue(HeaderMap::new())
        );
        assert_eq!(
            check(Method::OPTIONS, Some("https://evil"), false, true),
            Cors::Continue(HeaderMap::new())
        );
    }
}
