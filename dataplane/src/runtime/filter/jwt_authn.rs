//! Tokens that requests bear (JWT, RFC 7519): where they are looked for, whose are taken, and what
//! of them is told to whom.
//!
//! Of a request nothing is believed that a token says before it is verified, and a token that is
//! looked at must be valid, whichever others are. Statuses, bodies and headers are Envoy's.
//! Spec: Envoy `http.jwt_authn.v3.JwtAuthentication`.

use std::{collections::BTreeMap, sync::Arc, time::UNIX_EPOCH};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, COOKIE, ORIGIN, WWW_AUTHENTICATE},
};
use serde_json::Value as Json;

use super::{Answer, FilterRequest, Payload, Step};
use crate::runtime::{
    flags::Flags,
    jwt::{Fault, KeySet, Token},
    metadata::Value,
    route_match::RouteMatch,
};

/// Where what tokens say is left for later filters, whatever the filter is called.
const NAMESPACE: &str = "envoy.filters.http.jwt_authn";

/// Characters of the path that a refused client is told.
const LONGEST_REALM_PATH: usize = 256;

const X_ENVOY_ORIGINAL_PATH: &str = "x-envoy-original-path";

/// Which tokens requests must bear.
#[derive(Debug)]
pub struct JwtAuthn {
    /// Sorted by name.
    pub providers: Vec<Provider>,
    /// The first that matches a request says what it must bear; nothing where none does.
    pub rules: Vec<Rule>,
    /// What routes choose from, by name.
    pub requirements: BTreeMap<Arc<str>, Requirement>,
    /// CORS preflights pass.
    pub bypass_cors_preflight: bool,
    /// A client that is refused is not told why.
    pub silent: bool,
}

/// What requests of one kind must bear.
#[derive(Debug)]
pub struct Rule {
    /// Which requests.
    pub matching: RouteMatch,
    /// `None`: nothing.
    pub requirement: Option<Requirement>,
}

/// What a request must bear. Providers are places in [`JwtAuthn::providers`].
#[derive(Clone, Debug)]
pub enum Requirement {
    /// Nothing.
    Nothing,
    /// A token of this provider, for one of these audiences instead of the provider's own.
    Provider(usize, Option<Audiences>),
    /// One of these, and none that only allows less.
    Any {
        /// In this order.
        of: Vec<Requirement>,
        /// What else passes.
        lenient: Lenient,
    },
    /// All of these.
    All(Vec<Requirement>),
    /// Tokens that are there, wherever any provider looks.
    Lenient(Lenient),
}

/// What passes without a valid token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lenient {
    /// Nothing.
    Never,
    /// No token.
    Missing,
    /// No token, or a bad one.
    MissingOrFailed,
}

/// Audiences as they are compared; without any, every token is for us.
#[derive(Clone, Debug, Default)]
pub struct Audiences(Vec<Box<str>>);

/// What a route sets.
#[derive(Clone, Debug)]
pub enum JwtOverride {
    /// Nothing is checked.
    Disabled,
    /// One of [`JwtAuthn::requirements`].
    Requirement(Arc<str>),
}

/// An issuer, where its tokens are, and what becomes of them.
#[derive(Debug)]
pub struct Provider {
    /// What requirements call it.
    pub name: Arc<str>,
    /// The claim `iss`; empty: any.
    pub issuer: Arc<str>,
    /// The claim `aud`.
    pub audiences: Audiences,
    /// Where tokens are.
    pub places: Vec<Place>,
    /// The token stays in the request.
    pub forward: bool,
    /// Gets the payload as it was signed.
    pub payload_header: Option<HeaderName>,
    /// With the padding of Base64.
    pub padded: bool,
    /// Under which the payload is left for later filters.
    pub payload_key: Option<Arc<str>>,
    /// Under which the token's header is.
    pub header_key: Option<Arc<str>>,
    /// Claims whose text is a list of words, and is left as one.
    pub lists_of_words: Vec<Arc<str>>,
    /// Seconds by which clocks may differ.
    pub clock_skew: u64,
    /// Headers that are set to claims, each by the way to it.
    pub claim_headers: Vec<(HeaderName, Vec<Arc<str>>)>,
    /// The route is chosen again by what the token says.
    pub reroutes: bool,
    /// What tokens are verified with.
    pub keys: KeySet,
}

/// Where a token may be; places are looked at in their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A header, and what stands before the token in it.
    Header(HeaderName, Box<str>),
    /// A query parameter.
    Parameter(Box<str>),
    /// A cookie.
    Cookie(Box<str>),
}

/// A token that was found.
struct Found<'a> {
    text: String,
    place: &'a Place,
}

/// The check of one request.
struct Check<'a, 'b, 'c> {
    filter: &'a JwtAuthn,
    request: &'b mut FilterRequest<'c>,
    /// Seconds since the epoch.
    now: u64,
    /// What is left for later filters once the request passes.
    said: Vec<(Arc<str>, Value)>,
}

impl JwtAuthn {
    /// Checks what a request bears.
    pub(super) fn step(&self, request: &mut FilterRequest<'_>, set: Option<&JwtOverride>) -> Step {
        if self.bypass_cors_preflight && is_preflight(request) {
            return Step::Continue;
        }
        let requirement = match set {
            Some(JwtOverride::Disabled) => None,
            Some(JwtOverride::Requirement(name)) => match self.requirements.get(name) {
                None => return Step::Answer(Box::new(self.unknown(name))),
                requirement => requirement,
            },
            None => {
                let random = (request.random)();
                let facts = request.facts();
                let rule = self.rules.iter().find(|rule| rule.matching.matches(&facts, random));
                rule.and_then(|rule| rule.requirement.as_ref())
            }
        };
        let Some(requirement) = requirement else { return Step::Continue };
        let realm = realm(request);
        let since = (request.date)().duration_since(UNIX_EPOCH);
        let now = since.map_or(0, |since| since.as_secs());
        let mut check = Check { filter: self, request, now, said: Vec::new() };
        match check.requires(requirement) {
            Ok(()) => {
                for (key, value) in check.said {
                    check.request.notes.set_metadata(NAMESPACE, &key, value);
                }
                Step::Continue
            }
            Err(fault) => Step::Answer(Box::new(self.refusal(fault, &realm))),
        }
    }

    fn refusal(&self, fault: Fault, realm: &[u8]) -> Answer {
        let status = if fault == Fault::Audience { 403 } else { 401 };
        let reason = fault.to_string();
        let mut headers = HeaderMap::new();
        if !self.silent {
            let error: &[u8] =
                if fault == Fault::Missing { b"" } else { b", error=\"invalid_token\"" };
            let challenge = [b"Bearer realm=\"", realm, b"\"", error].concat();
            headers.extend(
                HeaderValue::from_bytes(&challenge).ok().map(|text| (WWW_AUTHENTICATE, text)),
            );
        }
        self.answer(status, &reason, reason.clone(), headers)
    }

    /// A route asks for what there is not.
    fn unknown(&self, name: &str) -> Answer {
        let names: Vec<&str> = self.requirements.keys().map(AsRef::as_ref).collect();
        let reason =
            format!("Wrong requirement_name: {name}. It should be one of [{}]", names.join(","));
        let text = format!("Failed JWT authentication: {reason}");
        self.answer(403, &reason, text, HeaderMap::new())
    }

    fn answer(&self, status: u16, reason: &str, text: String, headers: HeaderMap) -> Answer {
        let text = if self.silent { String::new() } else { text };
        let reason = reason.replace(|c: char| c.is_ascii_whitespace(), "_");
        Answer {
            payload: Payload::Text { status, text: text.into(), grpc: None },
            flag: Flags::NONE,
            details: format!("jwt_authn_access_denied{{{reason}}}").into(),
            changes: None,
            headers,
        }
    }
}

/// Fetch, section "CORS-preflight request": it bears no token.
fn is_preflight(request: &FilterRequest<'_>) -> bool {
    let says = |name| request.headers.get(name).is_some_and(|value| !value.is_empty());
    *request.method == Method::OPTIONS && says(ORIGIN) && says(ACCESS_CONTROL_REQUEST_METHOD)
}

/// What was asked for, as a refused client is told.
fn realm(request: &FilterRequest<'_>) -> Vec<u8> {
    let original = request.headers.get(X_ENVOY_ORIGINAL_PATH).map(HeaderValue::as_bytes);
    let path = original.unwrap_or(request.path.as_bytes());
    let path = &path[..path.len().min(LONGEST_REALM_PATH)];
    [request.scheme.as_bytes(), b"://", request.authority.as_bytes(), path].concat()
}

impl Check<'_, '_, '_> {
    fn requires(&mut self, requirement: &Requirement) -> Result<(), Fault> {
        match requirement {
            Requirement::Nothing => Ok(()),
            Requirement::Provider(at, audiences) => self.by(*at, audiences.as_ref()),
            Requirement::All(of) => of.iter().try_for_each(|one| self.requires(one)),
            Requirement::Any { of, lenient } => self.any(of, *lenient),
            Requirement::Lenient(lenient) => match self.by_anybody() {
                Err(Fault::Missing) => Ok(()),
                Err(_) if *lenient == Lenient::MissingOrFailed => Ok(()),
                result => result,
            },
        }
    }

    /// Of several faults, that a token is bad counts for more than that it is somebody else's, and
    /// this for more than that there is none.
    fn any(&mut self, of: &[Requirement], lenient: Lenient) -> Result<(), Fault> {
        let mut worst = Fault::Missing;
        for requirement in of {
            match self.requires(requirement) {
                Ok(()) => return Ok(()),
                Err(Fault::Missing | Fault::UnknownIssuer) if worst != Fault::Missing => {}
                Err(fault) => worst = fault,
            }
        }
        match lenient {
            Lenient::MissingOrFailed => Ok(()),
            Lenient::Missing if worst == Fault::Missing => Ok(()),
            _ => Err(worst),
        }
    }

    fn by(&mut self, at: usize, audiences: Option<&Audiences>) -> Result<(), Fault> {
        let Some(provider) = self.filter.providers.get(at) else { return Err(Fault::NoKeys) };
        self.clean(provider);
        let found = find(&provider.places, self.request);
        if found.is_empty() {
            return Err(Fault::Missing);
        }
        // All are checked, since an application that looks elsewhere might take one that is bad; and
        // before the first is taken off, since nobody would find the others missing then.
        let mut valid = Vec::new();
        for found in found.iter().rev() {
            let token = Token::parse(&found.text)?;
            if !provider.issuer.is_empty() && *provider.issuer != *token.issuer() {
                return Err(Fault::UnknownIssuer);
            }
            self.verified(provider, &token, audiences.unwrap_or(&provider.audiences))?;
            valid.push((provider, token, found.place));
        }
        self.tell_all(&valid);
        Ok(())
    }

    /// Every token that any provider looks for is by a provider that looks there.
    fn by_anybody(&mut self) -> Result<(), Fault> {
        let filter = self.filter;
        for provider in &filter.providers {
            self.clean(provider);
        }
        let mut places: Vec<Place> = Vec::new();
        for place in filter.providers.iter().flat_map(|provider| &provider.places) {
            if !places.contains(place) {
                places.push(place.clone());
            }
        }
        let found = find(&places, self.request);
        if found.is_empty() {
            return Err(Fault::Missing);
        }
        let mut valid = Vec::new();
        for found in found.iter().rev() {
            let token = Token::parse(&found.text)?;
            let looks = |provider: &&Provider| provider.places.contains(found.place);
            let named = |provider: &&Provider| *provider.issuer == *token.issuer();
            let anybodys = |provider: &&Provider| provider.issuer.is_empty();
            let mut looking = filter.providers.iter().filter(looks);
            let provider = looking.clone().find(named).or_else(|| looking.find(anybodys));
            let provider = provider.ok_or(Fault::UnknownIssuer)?;
            self.verified(provider, &token, &provider.audiences)?;
            valid.push((provider, token, found.place));
        }
        self.tell_all(&valid);
        Ok(())
    }

    fn tell_all(&mut self, valid: &[(&Provider, Token<'_>, &Place)]) {
        for (provider, token, place) in valid {
            self.tell(provider, token, place);
        }
    }

    /// Nobody but a token sets the headers that are told of one.
    fn clean(&mut self, provider: &Provider) {
        let told = provider.claim_headers.iter().map(|(name, _)| name);
        for name in provider.payload_header.iter().chain(told) {
            self.request.headers.remove(name);
        }
    }

    fn verified(
        &self,
        provider: &Provider,
        token: &Token<'_>,
        audiences: &Audiences,
    ) -> Result<(), Fault> {
        token.check_time(self.now, provider.clock_skew)?;
        if !audiences.take(token) {
            return Err(Fault::Audience);
        }
        provider.keys.verify(token)
    }

    /// Tells the application and later filters what a valid token says.
    fn tell(&mut self, provider: &Provider, token: &Token<'_>, place: &Place) {
        let headers = &mut *self.request.headers;
        if let Some(name) = &provider.payload_header
            && let Ok(payload) = HeaderValue::from_bytes(payload(provider, token).as_bytes())
        {
            headers.append(name, payload);
        }
        for (name, way) in &provider.claim_headers {
            let text = claim(token, way).filter(|text| !text.is_empty());
            if let Some(Ok(text)) = text.map(|text| HeaderValue::from_bytes(text.as_bytes())) {
                headers.append(name, text);
            }
        }
        if !provider.forward {
            take_off(place, self.request);
        }
        if let Some(key) = &provider.header_key {
            let header = Json::Object(token.header.clone());
            self.said.push((Arc::clone(key), value(&header)));
        }
        if let Some(key) = &provider.payload_key {
            self.said.push((Arc::clone(key), claims(provider, token)));
        }
        self.request.router.other_route |= provider.reroutes;
    }
}

impl Audiences {
    /// These.
    pub fn new<'a>(audiences: impl IntoIterator<Item = &'a str>) -> Self {
        Self(audiences.into_iter().map(|audience| plain(audience).into()).collect())
    }

    fn take(&self, token: &Token<'_>) -> bool {
        let own = |audience| self.0.iter().any(|own| **own == *plain(audience));
        self.0.is_empty() || token.audiences().any(own)
    }
}

/// Audiences are compared without scheme and without a slash at the end.
fn plain(audience: &str) -> &str {
    let rest = audience.strip_prefix("http://").or_else(|| audience.strip_prefix("https://"));
    let rest = rest.unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// The tokens at some places.
fn find<'a>(places: &'a [Place], request: &FilterRequest<'_>) -> Vec<Found<'a>> {
    let mut found = Vec::new();
    for place in places {
        match place {
            Place::Header(name, prefix) => {
                let texts = lines(request.headers, name);
                let texts = texts.iter().filter_map(|text| after(text, prefix));
                found.extend(texts.map(|text| Found { text, place }));
            }
            Place::Parameter(name) => {
                let text = parameters(request.path).find(|(own, _)| own.1 == **name);
                found.extend(text.map(|(_, text)| Found { text, place }));
            }
            Place::Cookie(name) => {
                let text = cookie(request.headers, name);
                found.extend(text.map(|text| Found { text, place }));
            }
        }
    }
    found
}

/// The lines of a header. Of `Authorization` there may be one alone (RFC 9110, section 11.6.2):
/// several are one that no token is in, as in Envoy.
fn lines(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter();
    let lines: Vec<_> =
        lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned()).collect();
    match name == AUTHORIZATION && lines.len() > 1 {
        true => vec![lines.join(",")],
        false => lines,
    }
}

/// What follows a prefix that stands anywhere in a header, from the first character that a token may
/// have. Where none follows, the whole is a token that is none, as in Envoy.
fn after(text: &str, prefix: &str) -> Option<String> {
    if prefix.is_empty() {
        return Some(text.to_owned());
    }
    let rest = &text[text.find(prefix)? + prefix.len()..];
    let of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    Some(rest.find(of_token).map_or(text, |begin| &rest[begin..]).to_owned())
}

/// Parameters of a path: each as it stands there, and its name; and its value, both decoded.
fn parameters(path: &str) -> impl Iterator<Item = ((&str, String), String)> {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    query.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        ((part, decoded(name)), decoded(value))
    })
}

/// Without percent-encoding (RFC 3986, section 2.1); what is not encoded so stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.extend(u8::try_from(high * 16 + low));
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The first cookie of this name (RFC 6265, section 4.2).
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).find_map(|pair| {
        let (own, value) = pair.trim().split_once('=')?;
        let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        (own == name).then(|| quoted.unwrap_or(value).to_owned())
    })
}

/// Takes a token off a request. The other parameters of a query stay as they are; a cookie stays, as
/// in Envoy.
fn take_off(place: &Place, request: &mut FilterRequest<'_>) {
    match place {
        Place::Header(name, _) => drop(request.headers.remove(name)),
        Place::Parameter(name) => {
            let others: Vec<&str> = parameters(request.path)
                .filter(|((_, own), _)| *own != **name)
                .map(|((part, _), _)| part)
                .collect();
            let (path, _) = request.path.split_once('?').unwrap_or((request.path, ""));
            let mark = if others.is_empty() { "" } else { "?" };
            let rest = format!("{path}{mark}{}", others.join("&"));
            request.change_path(rest);
        }
        Place::Cookie(_) => {}
    }
}

fn payload(provider: &Provider, token: &Token<'_>) -> String {
    let bare = token.payload.trim_end_matches('=');
    match provider.padded {
        // How long it is was looked at when it was read.
        true => match bare.len() % 4 {
            2 => format!("{bare}=="),
            3 => format!("{bare}="),
            _ => bare.to_owned(),
        },
        false => token.payload.to_owned(),
    }
}

/// What a claim says that is one text, number or answer; texts as they are.
fn claim(token: &Token<'_>, way: &[Arc<str>]) -> Option<String> {
    let (first, rest) = way.split_first()?;
    let claim = token.claims.get(&**first)?;
    let claim = rest.iter().try_fold(claim, |claim, key| claim.get(&**key))?;
    match claim {
        Json::String(text) => Some(text.clone()),
        Json::Bool(yes) => Some(yes.to_string()),
        Json::Number(number) => number.as_f64().map(number_text),
        _ => None,
    }
}

/// A whole number as one, any other with six digits, as Envoy writes it.
fn number_text(number: f64) -> String {
    let is_whole = number.fract() == 0.0 && (0.0..u64::MAX as f64).contains(&number);
    if is_whole { (number as u64).to_string() } else { format!("{number:.6}") }
}

/// All claims, with lists of words as lists.
fn claims(provider: &Provider, token: &Token<'_>) -> Value {
    let own = token.claims.iter().map(|(name, claim)| {
        let is_list = provider.lists_of_words.iter().any(|list| **list == **name);
        let claim = match claim.as_str().filter(|_| is_list).map(words) {
            Some(words) if !words.is_empty() => Value::List(words),
            _ => value(claim),
        };
        (Arc::from(name.as_str()), claim)
    });
    Value::Struct(own.collect())
}

fn words(text: &str) -> Vec<Value> {
    let words = text.split(' ').filter(|word| !word.is_empty());
    words.map(|word| Value::Text(word.into())).collect()
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(yes) => Value::Bool(*yes),
        Json::Number(number) => Value::Number(number.as_f64().unwrap_or_default()),
        Json::String(text) => Value::Text(text.as_str().into()),
        Json::Array(values) => Value::List(values.iter().map(value).collect()),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(key, inner)| (key.as_str().into(), value(inner)));
            Value::Struct(fields.collect())
        }
    }
}
