//! What Istio's documentation says of a call: "Authorization Policy", "Authorization Policy
//! Conditions", "Authorization Policy Normalization", "Authorization for TCP traffic", "Dry Run"
//! "Trust Domain Migration", "External Authorization" and "Request Authentication". It is written from those pages alone, and shares no code with what
//! it judges.

use std::net::IpAddr;

use serde_json::Value;

use crate::{
    authorizers::{NAMES, SHOWN, grpc_allows, http_allows},
    cases::{Action, Call, Field, Identity, Mesh, NAMESPACE, Payload, Policy, ROOT, Rule, Set},
    tokens::{self, Authentication, Token, TokenRule},
};

/// How a call ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Passes,
    Refused,
    /// For its token: 401, or 403 where only the audience is wrong.
    BadToken,
}

impl Answer {
    /// Whether this is what was expected. Whose audience is wrong is told so as who is not allowed.
    pub(crate) fn agrees(self, expected: Self) -> bool {
        self == expected || (self == Self::Refused && expected == Self::BadToken)
    }
}

/// What happens to a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    pub(crate) answer: Answer,
    /// What the dry runs report, where there are any of that action for the workload: whether they
    /// would let it pass.
    pub(crate) dry_allow: Option<bool>,
    /// As above, of action DENY.
    pub(crate) dry_deny: Option<bool>,
}

/// Judges `call` to a workload with label `app: app`, at `destination`.
pub(crate) fn judge(set: &Set, call: &Call, destination: IpAddr) -> Verdict {
    let mut scene = Scene { mesh: &set.mesh, call, destination, claims: None };
    // "The CUSTOM action is evaluated first." Nobody knows yet whose token it is.
    let early = |answer| Verdict { answer, dry_allow: None, dry_deny: None };
    if !scene.is_let_in(set) {
        return early(Answer::Refused);
    }
    match scene.claims(set) {
        Ok(claims) => scene.claims = claims,
        Err(BadToken) => return early(Answer::BadToken),
    }
    let of = |action: Action, dry_run: bool| -> Option<bool> {
        let policies = set
            .policies
            .iter()
            .filter(|p| p.action == action && p.dry_run == dry_run && applies(p));
        policies.map(|policy| scene.matches(policy)).reduce(|one, other| one || other)
    };
    // "If there are any DENY policies that match the request, deny the request. If there are no
    // ALLOW policies for the workload, allow the request. If any of the ALLOW policies match the
    // request, allow the request. Deny the request."
    let denied = of(Action::Deny, false) == Some(true);
    let allowed = !denied && of(Action::Allow, false) != Some(false);
    // Policies are looked at in this order, so that what is denied never comes to the dry runs of
    // ALLOW.
    let dry_allow = of(Action::Allow, true).filter(|_| !denied);
    let answer = if allowed { Answer::Passes } else { Answer::Refused };
    Verdict { answer, dry_allow, dry_deny: of(Action::Deny, true).map(|matches| !matches) }
}

/// A policy holds in its namespace, that of the root namespace in every one; a selector chooses
/// among the workloads.
fn applies(policy: &Policy) -> bool {
    holds(policy.namespace, policy.selects)
}

fn holds(namespace: &str, selects: Option<&str>) -> bool {
    [NAMESPACE, ROOT].contains(&namespace) && selects.is_none_or(|app| app == "app")
}

/// A token that is there and not valid.
struct BadToken;

struct Scene<'a> {
    mesh: &'a Mesh,
    call: &'a Call,
    destination: IpAddr,
    /// Of a valid token.
    claims: Option<&'a Value>,
}

impl<'a> Scene<'a> {
    /// Whether who is asked lets the call in. "Each workload may have one provider"; where there are
    /// several, or one that is not there, what would be asked about is refused.
    fn is_let_in(&self, set: &Set) -> bool {
        let asking: Vec<&Policy> =
            set.policies.iter().filter(|p| p.action == Action::Custom && applies(p)).collect();
        // A policy without rules asks about nothing.
        let names: Vec<&str> =
            asking.iter().filter(|p| !p.rules.is_empty()).map(|p| p.authorizer).collect();
        if !asking.iter().any(|policy| self.matches(policy)) {
            return true;
        }
        let [first, ..] = names[..] else { return true };
        names.iter().all(|name| *name == first) && self.says(first)
    }

    fn says(&self, name: &str) -> bool {
        match (&self.call.payload, name) {
            (_, name) if name == NAMES[0] => grpc_allows(self.call.source),
            (Payload::Request { headers, .. }, name) if name == NAMES[1] => {
                let shown: Vec<&str> =
                    headers.iter().filter(|(name, _)| *name == SHOWN).map(|(_, v)| *v).collect();
                http_allows(Some(&*shown.join(",")))
            }
            // Bytes cannot be asked about over HTTP, and nobody cannot be asked.
            _ => false,
        }
    }

    /// The claims of the call's token, if some policy looks for one there.
    fn claims(&self, set: &Set) -> Result<Option<&'a Value>, BadToken> {
        let Payload::Request { token: Some(token), .. } = &self.call.payload else {
            return Ok(None);
        };
        let policies = set.authentications.iter().filter(|a| holds(a.namespace, a.selects));
        let rules = policies.flat_map(|Authentication { rules, .. }| rules);
        let looking: Vec<&TokenRule> = rules.filter(|rule| rule.looks_at(token.place)).collect();
        match looking.iter().any(|rule| accepts(rule, token)) {
            true => Ok(Some(&token.claims)),
            false if looking.is_empty() => Ok(None),
            false => Err(BadToken),
        }
    }

    /// "A match occurs when at least one rule matches the request."
    fn matches(&self, policy: &Policy) -> bool {
        policy.rules.iter().any(|rule| self.rule(policy, rule))
    }

    /// "At least one source, one operation and all conditions match. An empty rule is always
    /// matched."
    fn rule(&self, policy: &Policy, rule: &Rule) -> bool {
        let all = |fields: &Vec<Field>| fields.iter().all(|field| self.field(policy, field));
        // An ALLOW rule with an attribute of HTTP is ignored for other traffic, whatever
        // alternatives it has.
        if policy.action == Action::Allow && self.is_bytes() {
            let mut fields = rule.from.iter().chain(&rule.to).flatten().chain(&rule.when);
            if fields.any(|field| is_http(field.name)) {
                return false;
            }
        }
        let one = |alternatives: &Vec<Vec<Field>>| {
            alternatives.is_empty() || alternatives.iter().any(all)
        };
        one(&rule.from) && one(&rule.to) && all(&rule.when)
    }

    fn is_bytes(&self) -> bool {
        matches!(self.call.payload, Payload::Bytes)
    }

    fn field(&self, policy: &Policy, field: &Field) -> bool {
        if self.is_bytes() && is_http(field.name) {
            // "For a DENY rule, missing attributes are treated as matches."
            return true;
        }
        let any =
            |values: &[String]| values.iter().any(|value| self.value(policy, field.name, value));
        (field.values.is_empty() || any(&field.values)) && !any(&field.not_values)
    }

    fn value(&self, policy: &Policy, name: &str, value: &str) -> bool {
        let peer = |test: &dyn Fn(&Identity) -> bool| self.call.peer.as_ref().is_some_and(test);
        match name {
            "requestPrincipals" | "request.auth.principal" => self.request_principal(value),
            "request.auth.audiences" => self.claim(&["aud"], value),
            "request.auth.presenter" => self.claim(&["azp"], value),
            name if name.starts_with("request.auth.claims") => {
                let path: Vec<&str> = name.split(['[', ']']).skip(1).step_by(2).collect();
                self.claim(&path, value)
            }
            "principals" | "source.principal" => peer(&|peer| self.principal(value, peer)),
            "trustDomains" | "source.trustDomain" => peer(&|peer| self.trust_domain(value, peer)),
            "namespaces" | "source.namespace" => peer(&|peer| text(value, peer.namespace)),
            "serviceAccounts" | "source.serviceAccount" => {
                peer(&|peer| account(policy, value, peer))
            }
            "ipBlocks" | "source.ip" => inside(value, self.call.source.into()),
            "remoteIpBlocks" | "remote.ip" => inside(value, self.remote()),
            "destination.ip" => inside(value, self.destination),
            "ports" | "destination.port" => value == self.call.port.to_string(),
            "connection.sni" => text(value, self.call.server_name.unwrap_or_default()),
            _ => self.request(name, value),
        }
    }

    /// `<ISS>/<SUB>`: exact, prefix of the subject, any issuer or any subject, presence.
    fn request_principal(&self, pattern: &str) -> bool {
        let claim = |name: &str| self.claims.and_then(|claims| claims[name].as_str());
        let (Some(issuer), Some(subject)) = (claim("iss"), claim("sub")) else { return false };
        text(pattern, &format!("{issuer}/{subject}"))
    }

    /// A claim that is a text or a list of texts; `scope` is a list of words.
    fn claim(&self, path: &[&str], pattern: &str) -> bool {
        let Some(claims) = self.claims else { return false };
        let value = path.iter().fold(claims, |value, name| &value[*name]);
        match value {
            Value::String(words) if path == ["scope"] => {
                words.split(' ').any(|word| text(pattern, word))
            }
            Value::String(value) => text(pattern, value),
            Value::Array(items) => {
                items.iter().filter_map(Value::as_str).any(|item| text(pattern, item))
            }
            _ => false,
        }
    }

    fn request(&self, name: &str, value: &str) -> bool {
        let Payload::Request { method, host, path, headers, token } = &self.call.payload else {
            return false;
        };
        // The token itself is nothing that policies are written about.
        let path = match token {
            Some(token) => tokens::target(path, token.place, "TOKEN"),
            None => (*path).to_owned(),
        };
        let path = normalized(&path);
        match name {
            // Of a host the case says nothing (RFC 9110 section 4.2.3), whichever field names it.
            "hosts" | "request.headers[:authority]" => {
                text(&value.to_lowercase(), &host.to_lowercase())
            }
            "methods" | "request.headers[:method]" => text(value, method),
            "paths" => template(value, path.split('?').next().unwrap_or_default()),
            "request.headers[:path]" => text(value, &path),
            _ => {
                let wanted = name.trim_start_matches("request.headers[").trim_end_matches(']');
                headers.iter().any(|(header, given)| {
                    header.eq_ignore_ascii_case(wanted) && text(value, given)
                })
            }
        }
    }

    /// "Populated from X-Forwarded-For": of trusted proxies there are none, so that its last
    /// address counts.
    fn remote(&self) -> IpAddr {
        let Payload::Request { headers, .. } = &self.call.payload else {
            return self.call.source.into();
        };
        let forwarded = headers.iter().find(|(name, _)| *name == "x-forwarded-for");
        let last = forwarded.and_then(|(_, list)| list.rsplit(", ").next()?.parse().ok());
        last.unwrap_or(self.call.source.into())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.mesh.trust_domain).chain(self.mesh.aliases.iter().copied())
    }

    /// A workload is the same under every name of the mesh's trust domain; "cluster.local" points
    /// to it.
    fn principal(&self, pattern: &str, peer: &Identity) -> bool {
        let pointed = pattern
            .strip_prefix("cluster.local/")
            .map(|path| format!("{}/{path}", self.mesh.trust_domain));
        let pattern = pointed.as_deref().unwrap_or(pattern);
        let domains = match self.names().any(|name| name == peer.trust_domain) {
            true => self.names().collect(),
            false => vec![peer.trust_domain],
        };
        let path = format!("/ns/{}/sa/{}", peer.namespace, peer.account);
        domains.iter().any(|domain| text(pattern, &format!("{domain}{path}")))
    }

    fn trust_domain(&self, pattern: &str, peer: &Identity) -> bool {
        let own = |domain: &str| self.names().any(|name| name == domain);
        text(pattern, peer.trust_domain) || (own(pattern) && own(peer.trust_domain))
    }
}

/// "A JWT with the issuer, signed by a key of it and for one of the audiences, if there are any."
fn accepts(rule: &TokenRule, token: &Token) -> bool {
    let audiences: Vec<&str> = match &token.claims["aud"] {
        Value::String(only) => vec![only],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let for_one = rule.audiences.iter().any(|own| audiences.contains(own));
    rule.issuer == token.issuer && token.good && (rule.audiences.is_empty() || for_one)
}

/// "Must be used only with HTTP."
fn is_http(name: &str) -> bool {
    matches!(name, "hosts" | "methods" | "paths" | "requestPrincipals")
        || name.starts_with("request.")
}

/// "`<namespace>/<serviceaccount>`, or `<serviceaccount>` to use the same namespace as the policy."
fn account(policy: &Policy, value: &str, peer: &Identity) -> bool {
    let (namespace, name) = value.split_once('/').unwrap_or((policy.namespace, value));
    (namespace, name) == (peer.namespace, peer.account)
}

/// Exact, prefix, suffix and presence.
fn text(pattern: &str, value: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(""), _) => !value.is_empty(),
        (Some(suffix), _) => value.ends_with(suffix),
        (_, Some(prefix)) => value.starts_with(prefix),
        _ => pattern == value,
    }
}

/// "`{*}` matches a single glob that cannot extend beyond a path segment. `{**}` matches zero or
/// more globs."
fn template(pattern: &str, path: &str) -> bool {
    if !pattern.contains('{') {
        text(pattern, path)
    } else {
        glob(pattern.as_bytes(), path.as_bytes())
    }
}

fn glob(pattern: &[u8], path: &[u8]) -> bool {
    if let Some(rest) = pattern.strip_prefix(b"{**}") {
        return (0..=path.len()).any(|end| glob(rest, &path[end..]));
    }
    if let Some(rest) = pattern.strip_prefix(b"{*}") {
        let segment = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
        return (1..=segment).any(|end| glob(rest, &path[end..]));
    }
    match (pattern.split_first(), path.split_first()) {
        (Some((wanted, pattern)), Some((byte, path))) => wanted == byte && glob(pattern, path),
        (None, None) => true,
        _ => false,
    }
}

/// The mesh's default, BASE: percent-encoded unreserved characters are decoded, dot segments are
/// resolved (RFC 3986).
fn normalized(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let decoded = path.replace("%2e", ".").replace("%61", "a");
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    format!("/{}{query}", segments.join("/"))
}

/// A single address or a network.
fn inside(network: &str, address: IpAddr) -> bool {
    let (base, length) = network.split_once('/').unwrap_or((network, "32"));
    let (IpAddr::V4(address), Ok(base), Ok(length)) =
        (address, base.parse::<std::net::Ipv4Addr>(), length.parse::<u32>())
    else {
        return false;
    };
    let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
    (address.to_bits() ^ base.to_bits()) & mask == 0
}
