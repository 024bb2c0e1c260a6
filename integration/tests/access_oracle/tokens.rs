//! Random tokens, and policies about them; written as a user writes them. The keys are made here,
//! and every token is really signed.

use ferromesh_integration::token::Issuer;
use serde_json::{Value, json};

use crate::cases::{Dice, NAMESPACE, ROOT};

/// Who signs tokens; the last one is known to nobody.
pub(crate) const ISSUERS: [&str; 3] = ["https://login.example.com", "b", "https://evil.example"];
const SUBJECTS: [&str; 3] = ["alice", "bob", "al"];
const AUDIENCES: [&str; 3] = ["shop", "bank", "shopping"];
const CLIENTS: [&str; 2] = ["app", "web"];
const GROUPS: [&str; 3] = ["staff", "admin", "guest"];
/// Before a token in the header `x-jwt`.
const PREFIX: &str = "JWT ";

/// Where a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// `Authorization: Bearer`.
    Bearer,
    /// The query parameter `access_token`.
    AccessToken,
    /// The header `x-jwt`.
    Header,
    /// The cookie `session`.
    Cookie,
    /// The query parameter `t`.
    Parameter,
}

/// A token of a call.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) issuer: &'static str,
    pub(crate) place: Place,
    /// Signed by its issuer, and not too old.
    pub(crate) good: bool,
    pub(crate) claims: Value,
}

/// A rule of a RequestAuthentication.
#[derive(Clone, Debug)]
pub(crate) struct TokenRule {
    pub(crate) issuer: &'static str,
    pub(crate) audiences: Vec<&'static str>,
    /// Empty: the default places.
    pub(crate) places: Vec<Place>,
    forward: bool,
}

impl TokenRule {
    pub(crate) fn looks_at(&self, place: Place) -> bool {
        match place {
            Place::Bearer | Place::AccessToken if self.places.is_empty() => true,
            place => self.places.contains(&place),
        }
    }
}

/// A RequestAuthentication.
#[derive(Clone, Debug)]
pub(crate) struct Authentication {
    pub(crate) namespace: &'static str,
    pub(crate) selects: Option<&'static str>,
    pub(crate) rules: Vec<TokenRule>,
}

impl Dice {
    pub(crate) fn authentication(&mut self) -> Authentication {
        let rules = self.several(2, |dice| TokenRule {
            issuer: dice.pick(&ISSUERS[..2]),
            audiences: dice.some(30, 2, |dice| dice.pick(&AUDIENCES)),
            places: dice
                .some(40, 2, |dice| dice.pick(&[Place::Header, Place::Cookie, Place::Parameter])),
            forward: dice.chance(50),
        });
        Authentication {
            namespace: self.pick(&[NAMESPACE, NAMESPACE, ROOT, "bank"]),
            selects: self.pick(&[None, Some("app"), Some("app"), Some("other")]),
            rules,
        }
    }

    pub(crate) fn token(&mut self) -> Token {
        let issuer = self.pick(&[ISSUERS[0], ISSUERS[0], ISSUERS[0], ISSUERS[1], ISSUERS[2]]);
        let mut claims = json!({"iss": issuer, "sub": self.pick(&SUBJECTS)});
        let audiences = self.some(80, 2, |dice| dice.pick(&AUDIENCES));
        match audiences[..] {
            [] => {}
            [only] => claims["aud"] = json!(only),
            _ => claims["aud"] = json!(audiences),
        }
        if self.chance(60) {
            claims["azp"] = json!(self.pick(&CLIENTS));
        }
        let groups = self.some(80, 2, |dice| dice.pick(&GROUPS));
        match groups[..] {
            [] => {}
            [only] => claims["group"] = json!(only),
            _ => claims["group"] = json!(groups),
        }
        if self.chance(60) {
            claims["realm"] = json!({"roles": self.several(2, |dice| dice.pick(&GROUPS))});
        }
        if self.chance(50) {
            claims["scope"] = json!(self.pick(&["read", "read write", "readwrite"]));
        }
        let place = self.pick(&[
            Place::Bearer,
            Place::Bearer,
            Place::Bearer,
            Place::AccessToken,
            Place::Header,
            Place::Cookie,
            Place::Parameter,
        ]);
        Token { issuer, place, good: self.chance(90), claims }
    }

    /// A value of a field or condition on tokens.
    pub(crate) fn token_value(&mut self, name: &str) -> String {
        let value = match name {
            "requestPrincipals" | "request.auth.principal" => return self.request_principal(),
            "request.auth.audiences" => self.pick(&["shop", "shop*", "*ank", "bank", "*"]),
            "request.auth.presenter" => self.pick(&["app", "web", "a*", "*"]),
            "request.auth.claims[scope]" => self.pick(&["read", "write", "read*", "readwrite"]),
            _ => self.pick(&["staff", "admin", "*st", "s*", "*", "guest"]),
        };
        value.to_owned()
    }

    fn request_principal(&mut self) -> String {
        let (issuer, subject) = (self.pick(&ISSUERS), self.pick(&SUBJECTS));
        match self.pick(&[0, 1, 2, 3, 4, 4, 4]) {
            0 => "*".to_owned(),
            1 => format!("{issuer}/*"),
            2 => format!("*/{subject}"),
            3 => format!("{issuer}/a*"),
            _ => format!("{issuer}/{subject}"),
        }
    }
}

/// The keys of all issuers.
pub(crate) struct Keys([Issuer; 3]);

impl Keys {
    pub(crate) fn make() -> Self {
        Self(["key-0", "key-1", "key-2"].map(Issuer::new))
    }

    fn of(&self, issuer: &str) -> usize {
        ISSUERS.iter().position(|own| *own == issuer).expect("an issuer")
    }

    /// The token as it is sent. One that is no good is signed by somebody else, or too old.
    pub(crate) fn signed(&self, token: &Token) -> String {
        let issuer = self.of(token.issuer);
        let mut claims = token.claims.clone();
        let forged = !token.good && claims.get("azp").is_some();
        let signer = if forged { (issuer + 1) % 3 } else { issuer };
        let lasts = token.good || forged;
        claims["exp"] = json!(if lasts { 4_102_444_800_u64 } else { 1_000_000_000 });
        self.0[signer].sign_as(self.0[issuer].kid(), &claims)
    }

    fn jwks(&self, issuer: &str) -> String {
        self.0[self.of(issuer)].jwks()
    }
}

impl Authentication {
    pub(crate) fn object(&self, name: &str, keys: &Keys) -> Value {
        let rules: Vec<Value> = self.rules.iter().map(|rule| rule.value(keys)).collect();
        let mut spec = json!({ "jwtRules": rules });
        if let Some(app) = self.selects {
            spec["selector"] = json!({"matchLabels": {"app": app}});
        }
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        })
    }
}

impl TokenRule {
    fn value(&self, keys: &Keys) -> Value {
        let mut rule = json!({
            "issuer": self.issuer, "jwks": keys.jwks(self.issuer),
            "forwardOriginalToken": self.forward,
        });
        if !self.audiences.is_empty() {
            rule["audiences"] = json!(self.audiences);
        }
        for place in &self.places {
            match place {
                Place::Header => rule["fromHeaders"] = json!([{"name": "x-jwt", "prefix": PREFIX}]),
                Place::Cookie => rule["fromCookies"] = json!(["session"]),
                Place::Parameter => rule["fromParams"] = json!(["t"]),
                Place::Bearer | Place::AccessToken => {}
            }
        }
        rule
    }
}

/// The header of a token, as a name and what stands before it.
pub(crate) fn header(place: Place) -> Option<(&'static str, &'static str)> {
    match place {
        Place::Bearer => Some(("authorization", "Bearer ")),
        Place::Header => Some(("x-jwt", PREFIX)),
        Place::Cookie => Some(("cookie", "other=1; session=")),
        Place::AccessToken | Place::Parameter => None,
    }
}

/// A request's target with the parameter that holds a token.
pub(crate) fn target(path: &str, place: Place, token: &str) -> String {
    let name = match place {
        Place::AccessToken => "access_token",
        Place::Parameter => "t",
        Place::Bearer | Place::Header | Place::Cookie => return path.to_owned(),
    };
    format!("{path}{}{name}={token}", if path.contains('?') { '&' } else { '?' })
}
