//! The virtual host and the route of a request, and those that nearly were.

use std::cmp::Reverse;

use super::{
    pb::{
        route::{
            Route, RouteConfiguration, RouteMatch, VirtualHost, route_match::PathSpecifier,
            virtual_host::TlsRequirementType,
        },
        types::{FractionalPercent, fractional_percent::DenominatorType},
    },
    request::{Request, split_port},
    truth::{
        Metadata, Truth, header, header_words, keys, matches_whole, metadata, parameter,
        parameter_words,
    },
};

/// The virtual host of an authority, with the domain by which it is: an exact one, then the longest
/// `*.b`, then the longest `a.*`, then `*`.
pub(super) fn virtual_host<'c>(
    config: &'c RouteConfiguration,
    authority: &str,
) -> Option<(&'c VirtualHost, &'c str)> {
    let host = match config.ignore_port_in_host_matching {
        true => split_port(authority).0,
        false => authority,
    };
    let host = host.to_ascii_lowercase();
    let claims = config
        .virtual_hosts
        .iter()
        .flat_map(|own| own.domains.iter().map(move |domain| (own, domain.as_str())));
    let ranked = claims.filter_map(|(own, domain)| Some((rank(domain, &host)?, own, domain)));
    let best = ranked.min_by_key(|(rank, ..)| *rank)?;
    Some((best.1, best.2))
}

/// Less is closer.
fn rank(domain: &str, host: &str) -> Option<(u8, Reverse<usize>)> {
    let domain = domain.to_ascii_lowercase();
    if domain == "*" {
        return Some((3, Reverse(0)));
    }
    let longer = host.len() >= domain.len();
    if let Some(suffix) = domain.strip_prefix('*') {
        return (longer && host.ends_with(suffix)).then_some((1, Reverse(suffix.len())));
    }
    if let Some(prefix) = domain.strip_suffix('*') {
        return (longer && host.starts_with(prefix)).then_some((2, Reverse(prefix.len())));
    }
    (domain == host).then_some((0, Reverse(0)))
}

/// Whether a virtual host answers plaintext with a redirect to HTTPS.
pub(super) fn wants_tls(host: &VirtualHost, request: &Request) -> bool {
    let all = host.require_tls == TlsRequirementType::All as i32;
    let external = host.require_tls == TlsRequirementType::ExternalOnly as i32;
    (all || external) && request.header("x-forwarded-proto").as_deref() != Some("https")
}

/// What becomes of a request among routes.
pub(super) struct Tried<'h> {
    /// The route that takes it, with its place.
    pub(super) found: Option<(usize, &'h Route)>,
    /// Routes before it that may take it, with what that depends on.
    pub(super) possible: Vec<(usize, &'h Route, String)>,
    /// Routes that one condition keeps from it, with that condition; or that come too late.
    pub(super) nearly: Vec<(usize, &'h Route, String)>,
}

/// The first route that takes a request.
pub(super) fn route<'h>(host: &'h VirtualHost, request: &Request, found: &Metadata) -> Tried<'h> {
    let mut tried = Tried { found: None, possible: Vec::new(), nearly: Vec::new() };
    for (place, route) in host.routes.iter().enumerate() {
        let unmet = unmet(route.r#match.as_ref(), request, found);
        let fails: Vec<&(String, Truth)> =
            unmet.iter().filter(|(_, truth)| *truth == Truth::No).collect();
        match (&fails[..], tried.found) {
            ([], None) if unmet.is_empty() => tried.found = Some((place, route)),
            ([], None) => {
                let on: Vec<&str> = unmet.iter().map(|(words, _)| words.as_str()).collect();
                tried.possible.push((place, route, on.join(", ")));
            }
            ([], Some(_)) => {
                let late = "it comes after the route that takes the request".to_owned();
                tried.nearly.push((place, route, late));
            }
            ([(words, _)], None) => tried.nearly.push((place, route, words.clone())),
            _ => {}
        }
    }
    tried
}

/// The conditions of a match that a request does not meet, or perhaps does not.
pub(super) fn unmet(
    condition: Option<&RouteMatch>,
    request: &Request,
    found: &Metadata,
) -> Vec<(String, Truth)> {
    let Some(condition) = condition else { return Vec::new() };
    let mut all = vec![(path_words(condition), path(condition, request))];
    all.extend(condition.headers.iter().map(|m| (header_words(m), header(m, request))));
    let parameters = condition.query_parameters.iter();
    all.extend(parameters.map(|m| (parameter_words(m), parameter(m, request))));
    all.extend(condition.dynamic_metadata.iter().map(|m| {
        let not = if m.invert { "not: " } else { "" };
        (format!("{not}{} of the token", keys(m).join(".")), metadata(m, found))
    }));
    if condition.grpc.is_some() {
        let grpc = request.header("content-type").is_some_and(|kind| {
            kind == "application/grpc" || kind.starts_with("application/grpc+")
        });
        all.push(("the call is gRPC".to_owned(), grpc.into()));
    }
    if let Some(share) = &condition.runtime_fraction {
        let percent = share.default_value.as_ref().map_or(100.0, percent);
        let truth = match percent {
            p if p >= 100.0 => Truth::Yes,
            p if p <= 0.0 => Truth::No,
            _ => Truth::unknown("chance"),
        };
        all.push((format!("chance: {percent} % of requests"), truth));
    }
    for cookie in &condition.cookies {
        let words = format!("the cookie {}", cookie.name);
        all.push((words.clone(), Truth::Unknown(words)));
    }
    if condition.tls_context.is_some() {
        all.push(("the client's certificate".to_owned(), Truth::unknown("certificate")));
    }
    for state in &condition.filter_state {
        let words = format!("filter state {}", state.key);
        all.push((words.clone(), Truth::Unknown(words)));
    }
    all.retain(|(_, truth)| *truth != Truth::Yes);
    all
}

/// A share in percent.
pub(super) fn percent(share: &FractionalPercent) -> f64 {
    let of = match share.denominator {
        d if d == DenominatorType::TenThousand as i32 => 10_000.0,
        d if d == DenominatorType::Million as i32 => 1_000_000.0,
        _ => 100.0,
    };
    f64::from(share.numerator) * 100.0 / of
}

/// A percentage without what nobody needs to read.
pub(super) fn whole(share: f64) -> f64 {
    (share * 100.0).round() / 100.0
}

fn path(condition: &RouteMatch, request: &Request) -> Truth {
    let ignore_case = condition.case_sensitive.as_ref().is_some_and(|sensitive| !sensitive.value);
    let folded = |text: &str| match ignore_case {
        true => text.to_ascii_lowercase(),
        false => text.to_owned(),
    };
    let own = folded(request.path());
    let holds = match &condition.path_specifier {
        Some(PathSpecifier::Path(exact)) => own == folded(exact),
        Some(PathSpecifier::Prefix(prefix)) => own.starts_with(&folded(prefix)),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            let rest = own.strip_prefix(&folded(prefix));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        Some(PathSpecifier::SafeRegex(regex)) => matches_whole(&regex.regex, request.path()),
        Some(PathSpecifier::ConnectMatcher(_)) => request.method == "CONNECT",
        Some(PathSpecifier::PathMatchPolicy(policy)) => {
            return Truth::unknown(format!("the path policy {}", policy.name));
        }
        None => false,
    };
    holds.into()
}

fn path_words(condition: &RouteMatch) -> String {
    match &condition.path_specifier {
        Some(PathSpecifier::Path(exact)) => format!("the path is {exact:?}"),
        Some(PathSpecifier::Prefix(prefix)) => format!("the path begins with {prefix:?}"),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            format!("the path is {prefix:?} or below it")
        }
        Some(PathSpecifier::SafeRegex(regex)) => format!("the path matches {:?}", regex.regex),
        Some(PathSpecifier::ConnectMatcher(_)) => "the method is CONNECT".to_owned(),
        Some(PathSpecifier::PathMatchPolicy(policy)) => format!("the path suits {}", policy.name),
        None => "a path".to_owned(),
    }
}

/// Every condition of a route, in words.
pub(super) fn conditions(route: &Route) -> String {
    let Some(condition) = &route.r#match else { return "every request".to_owned() };
    let mut words = vec![path_words(condition)];
    words.extend(condition.headers.iter().map(header_words));
    words.extend(condition.query_parameters.iter().map(parameter_words));
    if !condition.dynamic_metadata.is_empty() {
        words.push("claims of the token suit".to_owned());
    }
    match &words[..] {
        [only] if only == "the path begins with \"/\"" => "every request".to_owned(),
        _ => words.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::pb::{
        matcher::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
        protobuf::BoolValue,
        route::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
    };

    fn hosts(ignore_port: bool, hosts: &[&[&str]]) -> RouteConfiguration {
        let host = |domains: &&[&str]| VirtualHost {
            name: domains[0].to_owned(),
            domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
            ..VirtualHost::default()
        };
        RouteConfiguration {
            virtual_hosts: hosts.iter().map(host).collect(),
            ignore_port_in_host_matching: ignore_port,
            ..RouteConfiguration::default()
        }
    }

    #[test]
    fn the_closest_domain_owns_a_request() {
        let config = hosts(true, &[&["*"], &["a.test"], &["*.test"], &["*.b.test"], &["a.*"]]);
        for (authority, expected) in [
            ("a.test", "a.test"),
            ("A.TEST:8080", "a.test"),
            ("x.test", "*.test"),
            ("x.b.test", "*.b.test"),
            (".b.test", "*.test"),
            ("a.other", "a.*"),
            ("other", "*"),
        ] {
            let found = virtual_host(&config, authority).map(|(host, _)| &*host.name);
            assert_eq!(found, Some(expected), "{authority}");
        }
        let strict = hosts(false, &[&["a.test", "a.test:80"], &["b.test"]]);
        assert!(virtual_host(&strict, "a.test:80").is_some());
        assert!(virtual_host(&strict, "b.test:80").is_none());
    }

    fn request(target: &str, headers: &[&str]) -> Request {
        let headers: Vec<String> = headers.iter().map(|text| (*text).to_owned()).collect();
        Request::parse("GET", &format!("http://a{target}"), &headers).expect("a request")
    }

    fn at(specifier: PathSpecifier, ignore_case: bool) -> RouteMatch {
        RouteMatch {
            path_specifier: Some(specifier),
            case_sensitive: ignore_case.then_some(BoolValue { value: false }),
            ..RouteMatch::default()
        }
    }

    #[test]
    fn paths_are_compared_by_kind_and_without_the_query() {
        let regex = |text: &str| {
            PathSpecifier::SafeRegex(RegexMatcher {
                regex: text.to_owned(),
                ..RegexMatcher::default()
            })
        };
        let (prefix, exact) = (PathSpecifier::Prefix, PathSpecifier::Path);
        let below = PathSpecifier::PathSeparatedPrefix;
        for (specifier, ignore_case, target, expected) in [
            (exact("/a".into()), false, "/a?b", true),
            (exact("/A".into()), false, "/a", false),
            (exact("/A".into()), true, "/a", true),
            (prefix("/a".into()), false, "/ab", true),
            (below("/a".into()), false, "/ab", false),
            (below("/a".into()), false, "/a/b?c", true),
            (regex("/a+"), false, "/aa?x", true),
            (regex("/a+"), false, "/aab", false),
        ] {
            let m = at(specifier.clone(), ignore_case);
            let holds = path(&m, &request(target, &[]));
            assert_eq!(holds, expected.into(), "{specifier:?} {target}");
        }
    }

    #[test]
    fn what_one_condition_keeps_away_is_told_with_it() {
        let asking = |name: &str, value: &str| HeaderMatcher {
            name: name.to_owned(),
            header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
                match_pattern: Some(MatchPattern::Exact(value.to_owned())),
                ignore_case: false,
            })),
            ..HeaderMatcher::default()
        };
        let route_of = |name: &str, prefix: &str, headers: Vec<HeaderMatcher>| Route {
            name: name.to_owned(),
            r#match: Some(RouteMatch {
                headers,
                ..at(PathSpecifier::Prefix(prefix.to_owned()), false)
            }),
            ..Route::default()
        };
        let host = VirtualHost {
            routes: vec![
                route_of("far", "/b", vec![asking("x", "1")]),
                route_of("near", "/a", vec![asking("x", "1")]),
                route_of("won", "/a", Vec::new()),
                route_of("late", "/", Vec::new()),
            ],
            ..VirtualHost::default()
        };
        let tried = route(&host, &request("/a", &["x: 2"]), &Metadata::new());
        assert_eq!(tried.found.map(|(place, _)| place), Some(2));
        let nearly: Vec<(&str, &str)> =
            tried.nearly.iter().map(|(_, route, why)| (&*route.name, &**why)).collect();
        assert_eq!(nearly[0], ("near", "header x is \"1\""));
        assert_eq!(nearly[1].0, "late");
        assert_eq!(nearly.len(), 2);
    }
}
