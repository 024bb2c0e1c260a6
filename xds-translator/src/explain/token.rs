//! The check of a token (JWT, RFC 7519) that a request bears.

use serde_json::Value;

use super::{
    pb::{
        core::data_source::Specifier,
        token::{
            JwtAuthentication, JwtProvider, JwtRequirement, jwt_provider::JwksSourceSpecifier,
            jwt_requirement::RequiresType, requirement_rule::RequirementType,
        },
    },
    request::Request,
    routes,
    truth::{Metadata, Truth, string},
};

/// Who verifies signatures: keys and cryptography are not the translator's.
pub trait Signatures {
    /// Whether a token (`HEADER.PAYLOAD.SIGNATURE`) is signed by one of these keys (a JWK set, RFC
    /// 7517).
    fn verify(&self, token: &str, keys: &str) -> bool;
    /// The moment of the request, in seconds since the epoch.
    fn now(&self) -> u64;
}

/// What the check comes to.
pub(super) enum Checked {
    /// It passes; what the token says, by the filter's name.
    Pass {
        found: Metadata,
        /// Whether routes are chosen again by it.
        reroutes: bool,
        /// Whether there was a token.
        bears: bool,
        /// Headers that are set, or taken off (`None`).
        headers: Vec<(String, Option<String>)>,
    },
    /// Refused with this status, and why.
    Refused(u16, String),
    /// It cannot be told.
    Unknown(String),
}

/// Why a token is not valid.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Fault {
    Missing,
    UnknownIssuer(String),
    Audience(String),
    Other(String),
}

/// A token and where it was found.
struct Found {
    text: String,
    /// The provider that looks there.
    provider: usize,
}

struct Check<'a> {
    /// By name, in the order of names.
    providers: Vec<(&'a String, &'a JwtProvider)>,
    tokens: Vec<Found>,
    signatures: &'a dyn Signatures,
}

/// Checks the tokens of a request.
pub(super) fn check(
    filter: &JwtAuthentication,
    filter_name: &str,
    request: &Request,
    signatures: &dyn Signatures,
) -> Checked {
    let preflight = request.method == "OPTIONS"
        && request.header("origin").is_some()
        && request.header("access-control-request-method").is_some();
    let passes = || Checked::Pass {
        found: Metadata::new(),
        reroutes: false,
        bears: false,
        headers: Vec::new(),
    };
    if filter.bypass_cors_preflight && preflight {
        return passes();
    }
    let suits = |truth: &Vec<(String, Truth)>| truth.is_empty();
    let rule = filter
        .rules
        .iter()
        .find(|rule| suits(&routes::unmet(rule.r#match.as_ref(), request, &Metadata::new())));
    let requirement = match rule.and_then(|rule| rule.requirement_type.as_ref()) {
        None => return passes(),
        Some(RequirementType::Requires(requirement)) => requirement,
        Some(RequirementType::RequirementName(name)) => match filter.requirement_map.get(name) {
            Some(requirement) => requirement,
            None => return Checked::Unknown(format!("the requirement {name} of tokens")),
        },
    };
    let mut providers: Vec<(&String, &JwtProvider)> = filter.providers.iter().collect();
    providers.sort_by_key(|(name, _)| *name);
    if providers.iter().any(|(_, provider)| keys(provider).is_none()) {
        return Checked::Unknown("keys that the proxy fetches itself".to_owned());
    }
    let tokens = providers.iter().enumerate().flat_map(|(index, (_, provider))| {
        texts(provider, request).into_iter().map(move |text| Found { text, provider: index })
    });
    let check = Check { tokens: tokens.collect(), providers, signatures };
    match check.requires(requirement) {
        Err(Fault::Missing) => Checked::Refused(401, "a token is required".to_owned()),
        Err(Fault::UnknownIssuer(why) | Fault::Other(why)) => Checked::Refused(401, why),
        Err(Fault::Audience(why)) => Checked::Refused(403, why),
        Ok(valid) => {
            let mut found = Metadata::new();
            let mut reroutes = false;
            let bears = !check.tokens.is_empty();
            let mut headers = Vec::new();
            for (index, claims) in valid {
                let provider = check.providers[index].1;
                reroutes |= provider.clear_route_cache;
                headers.extend(changed(provider, &claims));
                if !provider.payload_in_metadata.is_empty() {
                    let own = found
                        .entry(filter_name.to_owned())
                        .or_insert_with(|| Value::Object(serde_json::Map::new()));
                    own[&provider.payload_in_metadata] = normalized(provider, claims);
                }
            }
            Checked::Pass { found, reroutes, bears, headers }
        }
    }
}

/// Valid tokens: the provider's place, and claims.
type Valid = Vec<(usize, Value)>;

impl Check<'_> {
    fn requires(&self, requirement: &JwtRequirement) -> Result<Valid, Fault> {
        match &requirement.requires_type {
            None | Some(RequiresType::AllowMissingOrFailed(_)) => Ok(Valid::new()),
            Some(RequiresType::AllowMissing(_)) => self.allow_missing(),
            Some(RequiresType::ProviderName(name)) => self.by(name, None),
            Some(RequiresType::ProviderAndAudiences(with)) => {
                self.by(&with.provider_name, Some(&with.audiences))
            }
            Some(RequiresType::RequiresAll(all)) => {
                let mut valid = Valid::new();
                for requirement in &all.requirements {
                    valid.extend(self.requires(requirement)?);
                }
                Ok(valid)
            }
            Some(RequiresType::RequiresAny(any)) => self.any(&any.requirements),
            Some(RequiresType::ExtractOnlyWithoutValidation(_)) => Ok(Valid::new()),
        }
    }

    /// One of them; a missing token passes where that is one of them, and only then counts less
    /// than a bad one.
    fn any(&self, requirements: &[JwtRequirement]) -> Result<Valid, Fault> {
        let lenient = |requirement: &&JwtRequirement| {
            matches!(
                requirement.requires_type,
                Some(RequiresType::AllowMissing(_) | RequiresType::AllowMissingOrFailed(_))
            )
        };
        let (tolerant, strict): (Vec<_>, Vec<_>) = requirements.iter().partition(lenient);
        let mut fault = Fault::Missing;
        for requirement in strict {
            match self.requires(requirement) {
                Ok(valid) => return Ok(valid),
                Err(Fault::Missing) => {}
                Err(Fault::UnknownIssuer(why)) => {
                    if fault == Fault::Missing {
                        fault = Fault::UnknownIssuer(why);
                    }
                }
                Err(other) => fault = other,
            }
        }
        let fails = |r: &&JwtRequirement| {
            matches!(r.requires_type, Some(RequiresType::AllowMissingOrFailed(_)))
        };
        if tolerant.iter().any(fails) {
            return Ok(Valid::new());
        }
        match (&fault, tolerant.is_empty()) {
            (Fault::Missing, false) => Ok(Valid::new()),
            _ => Err(fault),
        }
    }

    /// No token anywhere, or only such as a provider takes.
    fn allow_missing(&self) -> Result<Valid, Fault> {
        let mut valid = Valid::new();
        for token in &self.tokens {
            let claims = claims_of(&token.text)?;
            let issuer = claims["iss"].as_str().unwrap_or_default();
            let taking = self.providers.iter().position(|(_, p)| p.issuer == issuer);
            let index = taking.ok_or(Fault::UnknownIssuer(unknown_issuer(issuer)))?;
            valid.push((index, self.verify(index, &token.text, None)?));
        }
        Ok(valid)
    }

    fn by(&self, name: &str, audiences: Option<&Vec<String>>) -> Result<Valid, Fault> {
        let index = self.providers.iter().position(|(own, _)| *own == name);
        let Some(index) = index else {
            return Err(Fault::Other(format!("the provider {name} of tokens is not there")));
        };
        let mut valid = Valid::new();
        // Every token that is found must be valid.
        for token in self.tokens.iter().filter(|token| token.provider == index) {
            valid = vec![(index, self.verify(index, &token.text, audiences)?)];
        }
        if valid.is_empty() { Err(Fault::Missing) } else { Ok(valid) }
    }

    fn verify(
        &self,
        index: usize,
        text: &str,
        audiences: Option<&Vec<String>>,
    ) -> Result<Value, Fault> {
        let provider = self.providers[index].1;
        let claims = claims_of(text)?;
        let issuer = claims["iss"].as_str().unwrap_or_default();
        if !provider.issuer.is_empty() && provider.issuer != issuer {
            return Err(Fault::UnknownIssuer(unknown_issuer(issuer)));
        }
        if let Some(subjects) = &provider.subjects {
            let subject = claims["sub"].as_str().unwrap_or_default();
            if string(subjects, subject) != Truth::Yes {
                return Err(Fault::Other(format!("the token's subject {subject:?} is not taken")));
            }
        }
        let (now, skew) = (self.signatures.now(), u64::from(provider.clock_skew_seconds));
        let skew = if skew == 0 { 60 } else { skew };
        let at = |claim: &str| claims[claim].as_f64();
        let seconds = |moment: u64| f64::from(u32::try_from(moment).unwrap_or(u32::MAX));
        if at("exp").is_some_and(|end| end > 0.0 && end + seconds(skew) < seconds(now)) {
            return Err(Fault::Other("the token is too old".to_owned()));
        }
        if at("nbf").is_some_and(|begin| begin > seconds(now + skew)) {
            return Err(Fault::Other("the token is not valid yet".to_owned()));
        }
        let accepted = audiences.unwrap_or(&provider.audiences);
        let own = texts_of(&claims["aud"]);
        if !accepted.is_empty() && !own.iter().any(|audience| takes(accepted, audience)) {
            return Err(Fault::Audience(format!("the token is for {}", own.join(", "))));
        }
        let keys = keys(provider).unwrap_or_default();
        if !self.signatures.verify(text, &keys) {
            return Err(Fault::Other("none of the issuer's keys signed the token".to_owned()));
        }
        Ok(claims)
    }
}

/// Audiences are compared without scheme and without a slash at the end.
fn takes(accepted: &[String], audience: &str) -> bool {
    let plain = |text: &str| {
        let text = text.strip_suffix('/').unwrap_or(text);
        let text = text.strip_prefix("https://").or(text.strip_prefix("http://")).unwrap_or(text);
        text.to_owned()
    };
    accepted.iter().any(|own| plain(own) == plain(audience))
}

fn unknown_issuer(issuer: &str) -> String {
    format!("tokens of the issuer {issuer:?} are not taken")
}

/// The keys that are written in a provider; `None`: they are fetched.
fn keys(provider: &JwtProvider) -> Option<String> {
    let Some(JwksSourceSpecifier::LocalJwks(source)) = &provider.jwks_source_specifier else {
        return None;
    };
    match source.specifier.as_ref()? {
        Specifier::InlineString(text) => Some(text.clone()),
        Specifier::InlineBytes(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    }
}

/// The tokens where a provider looks for them.
fn texts(provider: &JwtProvider, request: &Request) -> Vec<String> {
    let nowhere = provider.from_headers.is_empty()
        && provider.from_params.is_empty()
        && provider.from_cookies.is_empty();
    let after = |name: &str, prefix: &str| {
        let value = request.header(name)?;
        match prefix {
            "" => Some(value.trim().to_owned()),
            prefix => value.find(prefix).map(|at| first_word(&value[at + prefix.len()..])),
        }
    };
    let mut found = Vec::new();
    if nowhere {
        found.extend(after("authorization", "Bearer "));
        found.extend(request.parameter("access_token").map(str::to_owned));
    }
    found.extend(provider.from_headers.iter().filter_map(|h| after(&h.name, &h.value_prefix)));
    let parameters = provider.from_params.iter();
    found.extend(parameters.filter_map(|name| request.parameter(name)).map(str::to_owned));
    let cookies = request.header("cookie").unwrap_or_default();
    let cookie = |name: &String| {
        cookies.split([';', ',']).find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then(|| value.trim_matches('"').to_owned())
        })
    };
    found.extend(provider.from_cookies.iter().filter_map(cookie));
    found
}

/// Characters of a token in a row.
fn first_word(text: &str) -> String {
    let begin = text.trim_start();
    let end = begin.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
    begin[..end.unwrap_or(begin.len())].to_owned()
}

/// What a token says; not whether that is true.
fn claims_of(text: &str) -> Result<Value, Fault> {
    let malformed = || Fault::Other("the token is no JWT".to_owned());
    let parts: Vec<&str> = text.split('.').collect();
    let &[_, payload, _] = &parts[..] else { return Err(malformed()) };
    let bytes = decode(payload).ok_or_else(malformed)?;
    let claims: Value = serde_json::from_slice(&bytes).map_err(|_| malformed())?;
    if claims.is_object() { Ok(claims) } else { Err(malformed()) }
}

/// Base64 with the alphabet of URLs and without padding (RFC 4648 section 5).
fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut held, mut bytes) = (0u32, 0u32, Vec::with_capacity(text.len()));
    for c in text.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).ok()?);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

fn texts_of(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => {
            values.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    }
}

/// What a valid token changes about headers: it is taken off unless it is passed on, and claims are
/// told.
fn changed(provider: &JwtProvider, claims: &Value) -> Vec<(String, Option<String>)> {
    let mut headers = Vec::new();
    if !provider.forward {
        let bare = provider.from_headers.is_empty()
            && provider.from_params.is_empty()
            && provider.from_cookies.is_empty();
        headers.extend(bare.then(|| ("authorization".to_owned(), None)));
        let from = provider.from_headers.iter();
        headers.extend(from.map(|header| (header.name.to_ascii_lowercase(), None)));
    }
    for told in &provider.claim_to_headers {
        let mut path = told.claim_name.split('.');
        let claim = path.try_fold(claims, |value, key| value.get(key));
        let text = claim.and_then(|claim| match claim {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(claim.to_string()),
            _ => None,
        });
        headers.extend(text.map(|text| (told.header_name.to_ascii_lowercase(), Some(text))));
    }
    headers
}

/// Claims that are lists of words are lists.
fn normalized(provider: &JwtProvider, mut claims: Value) -> Value {
    let lists = provider.normalize_payload_in_metadata.as_ref();
    for name in lists.into_iter().flat_map(|lists| &lists.space_delimited_claims) {
        if let Some(text) = claims[name.as_str()].as_str() {
            let words: Vec<Value> = text.split(' ').map(Value::from).collect();
            claims[name.as_str()] = Value::Array(words);
        }
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::pb::{
        core::DataSource,
        protobuf::Empty,
        token::{JwtRequirementOrList, RequirementRule},
    };

    /// Tokens are good whose signature is the text of the keys.
    struct Told;

    impl Signatures for Told {
        fn verify(&self, token: &str, keys: &str) -> bool {
            token.rsplit('.').next() == Some(keys)
        }

        fn now(&self) -> u64 {
            1_000_000
        }
    }

    fn encode(text: &str) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut out = String::new();
        for chunk in text.as_bytes().chunks(3) {
            let mut bits = 0u32;
            (0..3).for_each(|i| bits = (bits << 8) | u32::from(*chunk.get(i).unwrap_or(&0)));
            for i in 0..=chunk.len() {
                let index = (bits >> (18 - 6 * i)) & 63;
                out.push(char::from(ALPHABET[index as usize]));
            }
        }
        out
    }

    fn checked(audiences: &[&str], header: Option<String>) -> Checked {
        let provider = JwtProvider {
            issuer: "me".to_owned(),
            audiences: audiences.iter().map(|text| (*text).to_owned()).collect(),
            payload_in_metadata: "payload".to_owned(),
            jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(DataSource {
                specifier: Some(Specifier::InlineString("key".to_owned())),
                ..DataSource::default()
            })),
            ..JwtProvider::default()
        };
        let of = |requirement| JwtRequirement { requires_type: Some(requirement) };
        let any = RequiresType::RequiresAny(JwtRequirementOrList {
            requirements: vec![
                of(RequiresType::ProviderName("p".to_owned())),
                of(RequiresType::AllowMissing(Empty {})),
            ],
        });
        let filter = JwtAuthentication {
            providers: [("p".to_owned(), provider)].into(),
            rules: vec![RequirementRule {
                r#match: None,
                requirement_type: Some(RequirementType::Requires(of(any))),
            }],
            ..JwtAuthentication::default()
        };
        let headers: Vec<String> = header.into_iter().collect();
        let request = Request::parse("GET", "http://a/", &headers).expect("a request");
        check(&filter, "jwt", &request, &Told)
    }

    fn bearer(claims: &str, signature: &str) -> Option<String> {
        Some(format!("authorization: Bearer {}.{}.{signature}", encode("{}"), encode(claims)))
    }

    #[test]
    fn a_token_that_is_there_must_be_valid_and_says_what_it_says() {
        let good = r#"{"iss":"me","aud":"https://shop/","sub":"alice"}"#;
        let Checked::Pass { found, bears: true, .. } = checked(&["shop"], bearer(good, "key"))
        else {
            panic!("a good token is refused")
        };
        assert_eq!(found["jwt"]["payload"]["sub"], "alice");
        assert!(matches!(checked(&[], None), Checked::Pass { bears: false, .. }));
        for (claims, signature, status) in [
            (good, "other", 401),
            (r#"{"iss":"me","aud":"bank"}"#, "key", 403),
            (r#"{"iss":"me","aud":"shop","exp":999000}"#, "key", 401),
            (r#"{"iss":"me","aud":"shop","nbf":1000999}"#, "key", 401),
            (r#"{"iss":"other"}"#, "key", 401),
        ] {
            let Checked::Refused(got, why) = checked(&["shop"], bearer(claims, signature)) else {
                panic!("{claims} passes")
            };
            assert_eq!(got, status, "{why}");
        }
        let no_token = Some("authorization: Bearer x".to_owned());
        assert!(matches!(checked(&[], no_token), Checked::Refused(401, _)));
    }
}
