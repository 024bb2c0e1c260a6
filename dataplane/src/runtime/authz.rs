//! Role-based access control: policies over connections and requests, evaluated as trees.
//!
//! Whatever cannot be evaluated never counts as a match of an ALLOW policy; `compile` refuses
//! conditions that this engine does not know, since skipping one would open a hole. Spec: Envoy
//! `envoy.config.rbac.v3`.

use std::{ops::Range, sync::Arc};

use ipnet::IpNet;

use super::{
    facts::{ConnectionFacts, NoHeaders, RequestFacts},
    matcher::{HeaderMatcher, Reading, StringMatcher},
    metadata::MetadataMatcher,
};

/// One RBAC filter; several may follow one another, and each must allow.
#[derive(Clone, Debug)]
pub struct Rbac {
    /// What a match means.
    pub action: RbacAction,
    /// Sorted by name; evaluated in order.
    pub policies: Vec<Policy>,
}

/// What a match of any policy means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RbacAction {
    /// Only what matches is allowed; without policies nothing is.
    Allow,
    /// What matches is denied.
    Deny,
    /// Nothing is denied; matches are only recorded.
    Log,
}

/// One named policy: both trees must hold.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Such as `ns[default]-policy[ratings]-rule[0]`.
    pub name: Arc<str>,
    /// What is done.
    pub permission: Condition,
    /// By whom.
    pub principal: Condition,
}

/// A predicate over a connection and its request.
#[derive(Clone, Debug)]
pub enum Condition {
    /// Always holds.
    Any,
    /// All hold; holds if empty.
    And(Vec<Condition>),
    /// One holds; fails if empty.
    Or(Vec<Condition>),
    /// Does not hold.
    Not(Box<Condition>),
    /// A header matches.
    Header(HeaderMatcher),
    /// The path without query matches.
    Path(StringMatcher),
    /// The destination address is inside.
    DestinationIp(IpNet),
    /// The destination port is this.
    DestinationPort(u16),
    /// The destination port is inside; the end is excluded.
    DestinationPortRange(Range<u32>),
    /// The server name matches; a missing one counts as empty.
    ServerName(StringMatcher),
    /// The peer has proven an identity, which matches if a matcher is given.
    Authenticated(Option<StringMatcher>),
    /// The connection's source address is inside.
    DirectRemoteIp(IpNet),
    /// The connection's source, as a balancer before us says it by the PROXY protocol.
    SourceIp(IpNet),
    /// The client's address, trusted `x-forwarded-for` considered, is inside.
    RemoteIp(IpNet),
    /// What filters before have found out matches.
    Metadata(MetadataMatcher),
}

/// What a filter decided, and by which policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Goes on; the policy that matched, if any.
    Allow(Option<Arc<str>>),
    /// Refused; the DENY policy that matched, or `None` if no ALLOW policy did.
    Deny(Option<Arc<str>>),
}

impl Verdict {
    /// Whether traffic goes on.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

impl Rbac {
    /// Judges a request.
    ///
    /// A field in several lines must match in each for an ALLOW, and in one or joined for a DENY,
    /// the other way round below a `not`: so sending it twice never makes a policy milder. Envoy
    /// 1.40 asks for one line in all cases.
    pub fn decide(&self, request: &RequestFacts<'_>) -> Verdict {
        let reading = match self.action {
            RbacAction::Allow => Reading::Certain,
            RbacAction::Deny | RbacAction::Log => Reading::Possible,
        };
        self.verdict(|condition| condition.holds(request, reading))
    }

    /// Judges a connection that carries no HTTP: conditions see no headers, and no path matches.
    pub fn decide_connection(&self, connection: &ConnectionFacts) -> Verdict {
        let request = RequestFacts {
            connection,
            method: "",
            scheme: "",
            authority: "",
            path: "",
            remote_ip: connection.source.ip(),
            headers: &NoHeaders,
            metadata: None,
        };
        self.verdict(|condition| condition.holds_for_connection(&request))
    }

    fn verdict(&self, holds: impl Fn(&Condition) -> bool) -> Verdict {
        let matching = self
            .policies
            .iter()
            .find(|policy| holds(&policy.permission) && holds(&policy.principal));
        let name = matching.map(|policy| policy.name.clone());
        match (self.action, name) {
            (RbacAction::Allow, None) => Verdict::Deny(None),
            (RbacAction::Deny, Some(name)) => Verdict::Deny(Some(name)),
            (_, name) => Verdict::Allow(name),
        }
    }
}

impl Condition {
    fn holds(&self, request: &RequestFacts<'_>, reading: Reading) -> bool {
        match self {
            Self::And(all) => all.iter().all(|condition| condition.holds(request, reading)),
            Self::Or(any) => any.iter().any(|condition| condition.holds(request, reading)),
            Self::Not(inner) => !inner.holds(request, reading.of_opposite()),
            Self::Header(matcher) => matcher.matches_by(reading, request),
            Self::Path(matcher) => matcher.matches(request.path_only()),
            other => other.holds_below_http(request),
        }
    }

    fn holds_for_connection(&self, request: &RequestFacts<'_>) -> bool {
        match self {
            Self::And(all) => all.iter().all(|condition| condition.holds_for_connection(request)),
            Self::Or(any) => any.iter().any(|condition| condition.holds_for_connection(request)),
            Self::Not(inner) => !inner.holds_for_connection(request),
            // Envoy judges a bare connection over an empty header map; a pseudo header is absent
            // there too.
            Self::Header(matcher) => matcher.matches_absent(),
            Self::Path(_) => false,
            other => other.holds_below_http(request),
        }
    }

    fn holds_below_http(&self, request: &RequestFacts<'_>) -> bool {
        let connection = request.connection;
        let destination = connection.destination;
        match self {
            Self::Any => true,
            Self::DestinationIp(net) => net.contains(&destination.ip()),
            Self::DestinationPort(port) => destination.port() == *port,
            Self::DestinationPortRange(range) => range.contains(&u32::from(destination.port())),
            Self::ServerName(matcher) => {
                matcher.matches(connection.server_name.as_deref().unwrap_or_default())
            }
            Self::Authenticated(matcher) => is_authenticated(connection, matcher.as_ref()),
            Self::SourceIp(net) => net.contains(&connection.source.ip()),
            Self::DirectRemoteIp(net) => net.contains(&connection.direct_source.ip()),
            Self::RemoteIp(net) => net.contains(&request.remote_ip),
            Self::Metadata(matcher) => matcher.matches(request.metadata),
            Self::And(_) | Self::Or(_) | Self::Not(_) | Self::Header(_) | Self::Path(_) => false,
        }
    }
}

/// Envoy compares URI SANs, then DNS SANs, then the subject; without a proven certificate nothing
/// matches.
fn is_authenticated(connection: &ConnectionFacts, matcher: Option<&StringMatcher>) -> bool {
    let Some(peer) = &connection.peer else { return false };
    let Some(matcher) = matcher else { return true };
    let mut sans = peer.uri_sans.iter().chain(&peer.dns_sans);
    sans.any(|san| matcher.matches(san)) || matcher.matches(&peer.subject)
}

#[cfg(test)]
mod tests {
    use super::{
        super::facts::{PeerCertificate, fixture},
        *,
    };

    const PRODUCTPAGE: &str = "spiffe://cluster.local/ns/default/sa/productpage";

    fn connection(peer: Option<&str>) -> ConnectionFacts {
        let mut facts =
            ConnectionFacts::plaintext(([10, 0, 0, 5], 4000).into(), ([10, 0, 0, 9], 9080).into());
        facts.peer = peer.map(|san| {
            Arc::new(PeerCertificate { uri_sans: vec![san.into()], ..Default::default() })
        });
        facts
    }

    fn policy(name: &str, permission: Condition, principal: Condition) -> Policy {
        Policy { name: name.into(), permission, principal }
    }

    fn check(rbac: &Rbac, peer: Option<&str>, method: &str, path: &str, allowed: bool) {
        let connection = connection(peer);
        let request = RequestFacts {
            method,
            authority: "ratings:9080",
            path,
            remote_ip: [192, 0, 2, 1].into(),
            ..fixture::get(&connection)
        };
        assert_eq!(rbac.decide(&request).is_allowed(), allowed, "{peer:?} {method} {path}");
    }

    fn get_ratings() -> Policy {
        let method = HeaderMatcher {
            name: ":method".into(),
            value: super::super::matcher::ValueMatcher::Text(StringMatcher::Exact("GET".into())),
            invert: false,
            missing_is_empty: false,
        };
        let path = Condition::Path(StringMatcher::Prefix("/ratings".into()));
        let who = Condition::Authenticated(Some(StringMatcher::Exact(PRODUCTPAGE.into())));
        policy("get", Condition::And(vec![Condition::Header(method), path]), who)
    }

    #[test]
    fn allow_needs_a_matching_policy() {
        let rbac = Rbac { action: RbacAction::Allow, policies: vec![get_ratings()] };
        check(&rbac, Some(PRODUCTPAGE), "GET", "/ratings/1?x=/y", true);
        check(&rbac, Some(PRODUCTPAGE), "POST", "/ratings/1", false);
        check(&rbac, Some(PRODUCTPAGE), "GET", "/other?/ratings", false);
        check(
            &rbac,
            Some("spiffe://cluster.local/ns/default/sa/other"),
            "GET",
            "/ratings/1",
            false,
        );
        check(&rbac, None, "GET", "/ratings/1", false);
        check(
            &Rbac { action: RbacAction::Allow, policies: vec![] },
            Some(PRODUCTPAGE),
            "GET",
            "/",
            false,
        );
    }

    #[test]
    fn deny_needs_no_matching_policy_and_log_denies_nothing() {
        let rbac = |action| Rbac { action, policies: vec![get_ratings()] };
        check(&rbac(RbacAction::Deny), Some(PRODUCTPAGE), "GET", "/ratings", false);
        check(&rbac(RbacAction::Deny), None, "GET", "/ratings", true);
        check(&rbac(RbacAction::Log), Some(PRODUCTPAGE), "GET", "/ratings", true);
        check(&rbac(RbacAction::Log), None, "GET", "/", true);
    }

    /// Which answers a policy of each action gives to a request with these lines of `x`; beside
    /// them Envoy 1.40's.
    fn check_lines(
        condition: &Condition,
        lines: &[&'static str],
        allow: (bool, bool),
        deny: (bool, bool),
    ) {
        let mut headers = http::HeaderMap::new();
        lines.iter().for_each(|line| {
            headers.append("x", http::HeaderValue::from_static(line));
        });
        let connection = connection(None);
        let request = RequestFacts { headers: &headers, ..fixture::get(&connection) };
        for (action, (ours, envoy)) in [(RbacAction::Allow, allow), (RbacAction::Deny, deny)] {
            let rbac =
                Rbac { action, policies: vec![policy("p", condition.clone(), Condition::Any)] };
            assert_eq!(
                rbac.decide(&request).is_allowed(),
                ours,
                "{action:?} {condition:?} {lines:?}"
            );
            assert!(envoy || !ours, "never milder than Envoy: {action:?} {condition:?} {lines:?}");
        }
    }

    #[test]
    fn a_header_sent_twice_makes_no_policy_milder() {
        let (yes, no, stricter) = ((true, true), (false, false), (false, true));
        let is = |text: &str| {
            let value =
                super::super::matcher::ValueMatcher::Text(StringMatcher::Exact(text.into()));
            Condition::Header(HeaderMatcher {
                name: "x".into(),
                value,
                invert: false,
                missing_is_empty: false,
            })
        };
        let not = |condition| Condition::Not(Box::new(condition));
        for (lines, allow, deny) in [
            (&["a"][..], yes, no),
            (&["b"], no, yes),
            (&[], no, yes),
            (&["a", "b"], stricter, no),
            (&["b", "a"], stricter, no),
            (&["a", "a"], yes, no),
            (&["b", "b"], no, yes),
            (&["a,b"], no, yes),
        ] {
            check_lines(&is("a"), lines, allow, deny);
        }
        for (lines, allow, deny) in [
            (&["a"][..], no, yes),
            (&["b"], yes, no),
            (&[], yes, no),
            (&["a", "b"], no, stricter),
            (&["b", "a"], no, stricter),
            (&["a", "a"], no, yes),
            (&["b", "b"], yes, no),
        ] {
            check_lines(&not(is("a")), lines, allow, deny);
            check_lines(&not(not(not(is("a")))), lines, allow, deny);
        }
        check_lines(&is("a,b"), &["a", "b"], no, stricter);
        check_lines(&not(is("a,b")), &["a", "b"], stricter, no);
    }

    #[test]
    fn addresses_ports_and_trees_are_judged() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        for (condition, expected) in [
            (Condition::Any, true),
            (Condition::And(vec![]), true),
            (Condition::Or(vec![]), false),
            (Condition::Not(Box::new(Condition::Any)), false),
            (Condition::DestinationIp(net("10.0.0.0/24")), true),
            (Condition::DestinationIp(net("::/0")), false),
            (Condition::DestinationPort(9080), true),
            (Condition::DestinationPortRange(9000..9080), false),
            (Condition::DestinationPortRange(9080..9081), true),
            (Condition::DirectRemoteIp(net("10.0.0.5/32")), true),
            (Condition::RemoteIp(net("10.0.0.5/32")), false),
            (Condition::RemoteIp(net("192.0.2.0/24")), true),
            (Condition::ServerName(StringMatcher::Exact("".into())), true),
            (Condition::Authenticated(None), false),
        ] {
            let rbac = Rbac {
                action: RbacAction::Allow,
                policies: vec![policy("p", condition, Condition::Any)],
            };
            check(&rbac, None, "GET", "/", expected);
        }
    }

    #[test]
    fn a_source_is_what_a_balancer_says_and_the_direct_one_is_the_balancer() {
        let told = ConnectionFacts {
            source: ([192, 0, 2, 9], 1).into(),
            direct_source: ([10, 0, 0, 5], 2).into(),
            ..connection(None)
        };
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        for (condition, allowed) in [
            (Condition::SourceIp(net("192.0.2.0/24")), true),
            (Condition::SourceIp(net("10.0.0.0/8")), false),
            (Condition::DirectRemoteIp(net("192.0.2.0/24")), false),
            (Condition::DirectRemoteIp(net("10.0.0.0/8")), true),
        ] {
            let policies = vec![policy("p", Condition::Any, condition)];
            let rbac = Rbac { action: RbacAction::Allow, policies };
            assert_eq!(rbac.decide_connection(&told) != Verdict::Deny(None), allowed, "{rbac:?}");
        }
    }

    #[test]
    fn a_bare_connection_has_no_headers_and_no_path() {
        let rbac = Rbac { action: RbacAction::Allow, policies: vec![get_ratings()] };
        assert_eq!(rbac.decide_connection(&connection(Some(PRODUCTPAGE))), Verdict::Deny(None));
        let by_port =
            policy("port", Condition::DestinationPort(9080), Condition::Authenticated(None));
        let rbac = Rbac { action: RbacAction::Deny, policies: vec![by_port] };
        assert_eq!(
            rbac.decide_connection(&connection(Some(PRODUCTPAGE))),
            Verdict::Deny(Some("port".into()))
        );
        assert!(rbac.decide_connection(&connection(None)).is_allowed());
    }
}
