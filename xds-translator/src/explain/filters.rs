//! The filters of an HTTP connection manager: who refuses, who answers, who is asked, and what they
//! find out.

use super::{
    access::{Caller, Verdict, judge},
    answer::{End, Stage},
    connection::Connection,
    notes::{Walk, dry_run, is_harmless, rules_say},
    pb::{
        ask, cors, fault, fault_delay, filter_state,
        hcm::{HttpConnectionManager, HttpFilter, http_filter::ConfigType},
        http_rbac,
        protobuf::Any,
        rbac::Rbac,
        route::{Route, VirtualHost},
        set_filter_state, short_type, token, unpack,
    },
    request::Request,
    routes::{self, percent, whole},
    token::{Checked, check as token_check},
    truth::{Metadata, Truth, header, metadata, string},
};

/// The filter state that overrides the protocols that a cluster's connections offer.
const OFFERED: &str = "envoy.network.application_protocols";

/// What filters made of a request.
pub(super) enum Filtered {
    /// It ends there.
    Ends(End),
    /// It goes on.
    Goes(Passed),
}

/// A request behind filters.
pub(super) struct Passed {
    pub(super) request: Request,
    pub(super) found: Metadata,
    /// Whether its route is chosen again.
    pub(super) reroutes: bool,
    /// Whether connections offer the protocols that a cluster's metadata list.
    pub(super) offers: bool,
}

/// Where a request is led, as filters see it.
#[derive(Clone, Copy)]
pub(super) enum Way<'r> {
    /// Nobody owns what it asks for.
    Nowhere,
    /// To the same by TLS.
    Https,
    /// By the routes of a virtual host, which are chosen again once a token is known.
    Among(&'r VirtualHost),
}

impl<'r> Way<'r> {
    fn route(self, request: &Request, found: &Metadata) -> Option<&'r Route> {
        match self {
            Self::Among(host) => routes::route(host, request, found).found.map(|(_, route)| route),
            Self::Nowhere | Self::Https => None,
        }
    }
}

/// Shows a request to the filters, in their order.
pub(super) fn filters(
    walk: &mut Walk<'_>,
    manager: &HttpConnectionManager,
    way: Way<'_>,
    (connection, identity): (&Connection, Option<&str>),
    request: &Request,
) -> Filtered {
    let (mut found, mut reroutes, mut offers) = (Metadata::new(), false, false);
    let mut request = request.clone();
    let mut route = way.route(&request, &found);
    for filter in manager.http_filters.iter().filter(|filter| !filter.disabled) {
        let Some(ConfigType::TypedConfig(any)) = &filter.config_type else {
            walk.depends(format!("the filter {}, which the proxy fetches", filter.name));
            continue;
        };
        if let Some(own) = route.and_then(|route| route.typed_per_filter_config.get(&filter.name))
            && guards(any)
        {
            let kind = short_type(own).to_owned();
            walk.depends(format!("what the route says of the filter {} ({kind})", filter.name));
        }
        let caller = Caller { connection, identity, request: Some(&request), metadata: &found };
        if let Some(config) = unpack::<http_rbac::Rbac>(any) {
            if let Some(rules) = &config.rules
                && let Some(refusal) = rules_say(walk, rules, &caller)
            {
                return Filtered::Ends(End::refused(403, refusal));
            }
            if let Some(shadow) = &config.shadow_rules {
                dry_run(walk, shadow, &config.shadow_rules_stat_prefix, &caller);
                let marks = marks(shadow, &config.shadow_rules_stat_prefix, &caller);
                found.entry(filter.name.clone()).or_insert_with(|| marks.into());
            }
        } else if let Some(config) = unpack::<token::JwtAuthentication>(any) {
            let signatures = walk.proxy.world.signatures;
            match token_check(&config, &filter.name, &request, signatures) {
                Checked::Pass { found: more, reroutes: again, bears, headers } => {
                    let what = if bears { "the token is valid" } else { "there is no token" };
                    let by = if bears { walk.proxy.token_policies() } else { Vec::new() };
                    walk.step(Stage::Filter, "token", what, by);
                    found.extend(more);
                    reroutes |= again;
                    for (name, value) in headers {
                        request.headers.retain(|(own, _)| *own != name);
                        request.headers.extend(value.map(|value| (name, value)));
                    }
                    if again {
                        route = way.route(&request, &found);
                    }
                }
                Checked::Refused(status, what) => {
                    let by = walk.proxy.token_policies();
                    walk.step(Stage::Filter, "token", what.clone(), by);
                    return Filtered::Ends(End::refused(status, what));
                }
                Checked::Unknown(what) => walk.depends(what),
            }
        } else if let Some(config) = unpack::<ask::ExtAuthz>(any) {
            // Nobody is asked about what has no route (Envoy's filter skips its check).
            if route.is_some() || matches!(way, Way::Https) {
                asks(walk, &config, &found);
            }
        } else if unpack::<fault::HttpFault>(any).is_some() {
            if let Some(end) = faults(walk, filter, any, route, &request) {
                return Filtered::Ends(end);
            }
        } else if unpack::<cors::Cors>(any).is_some() {
            if let Some(end) = preflight(filter, route, &request) {
                let name = route.map(|route| route.name.as_str()).unwrap_or_default();
                let what = format!("answers the preflight of a browser, as route {name:?} says");
                walk.step(Stage::Filter, "cors", what, Vec::new());
                return Filtered::Ends(end);
            }
        } else if let Some(config) = unpack::<set_filter_state::Config>(any) {
            offers |= config.on_request_headers.iter().any(sets_protocols);
        } else if any.type_url.ends_with("LocalRateLimit") {
            walk.depends("a rate limit: requests beyond it are answered with 429");
        } else if filter.name == "istio.alpn" {
            offers = true;
        } else if !is_harmless(any) {
            let kind = short_type(any);
            walk.depends(format!("the filter {} ({kind}), which is not judged here", filter.name));
        }
    }
    Filtered::Goes(Passed { request, found, reroutes, offers })
}

fn sets_protocols(value: &filter_state::FilterStateValue) -> bool {
    use filter_state::filter_state_value::Key;
    matches!(&value.key, Some(Key::ObjectKey(key)) if key == OFFERED)
}

/// Whether a filter refuses some requests, so that a route's word on it matters here.
fn guards(any: &Any) -> bool {
    unpack::<http_rbac::Rbac>(any).is_some()
        || unpack::<token::JwtAuthentication>(any).is_some()
        || unpack::<ask::ExtAuthz>(any).is_some()
}

/// What rules leave that only mark requests.
fn marks(
    rules: &Rbac,
    prefix: &str,
    caller: &Caller<'_>,
) -> serde_json::Map<String, serde_json::Value> {
    let (policy, result) = match judge(rules, caller) {
        Verdict::Refuse(policy) => (policy, "denied"),
        Verdict::Pass(policy) => (policy, "allowed"),
        Verdict::Unknown(_) => (None, "unknown"),
    };
    let mut marks = serde_json::Map::new();
    if let Some(policy) = policy {
        marks.insert(format!("{prefix}shadow_effective_policy_id"), policy.into());
    }
    marks.insert(format!("{prefix}shadow_engine_result"), result.into());
    marks
}

/// Notes that somebody is asked, where the marks say so.
fn asks(walk: &mut Walk<'_>, config: &ask::ExtAuthz, found: &Metadata) {
    let asked = match &config.filter_enabled_metadata {
        Some(condition) => metadata(condition, found),
        None => Truth::Yes,
    };
    if asked == Truth::No {
        return;
    }
    use super::pb::core::{grpc_service::TargetSpecifier, http_uri::HttpUpstreamType};
    use ask::ext_authz::Services;
    let who = match &config.services {
        Some(Services::GrpcService(service)) => match &service.target_specifier {
            Some(TargetSpecifier::EnvoyGrpc(grpc)) => grpc.cluster_name.clone(),
            _ => "a service".to_owned(),
        },
        Some(Services::HttpService(service)) => {
            let uri = service.server_uri.as_ref().and_then(|uri| uri.http_upstream_type.as_ref());
            match uri {
                Some(HttpUpstreamType::Cluster(cluster)) => cluster.clone(),
                None => "a service".to_owned(),
            }
        }
        None => "a service".to_owned(),
    };
    let by = walk.proxy.access_policies();
    walk.step(Stage::Filter, "ext_authz", format!("{who} is asked whether it may pass"), by);
    walk.depends(format!("the answer of {who}, which is asked whether the request may pass"));
}

/// Injected faults of a route, else of the filter.
fn faults(
    walk: &mut Walk<'_>,
    filter: &HttpFilter,
    any: &Any,
    route: Option<&Route>,
    request: &Request,
) -> Option<End> {
    let own = route.and_then(|route| route.typed_per_filter_config.get(&filter.name));
    let config = unpack::<fault::HttpFault>(own.unwrap_or(any))?;
    if Truth::all(config.headers.iter().map(|m| header(m, request))) == Truth::No {
        return None;
    }
    if let Some(delay) = &config.delay {
        let share = delay.percentage.as_ref().map_or(0.0, percent);
        let length = match &delay.fault_delay_secifier {
            Some(fault_delay::fault_delay::FaultDelaySecifier::FixedDelay(length)) => {
                format!("{}.{:03} s", length.seconds, length.nanos / 1_000_000)
            }
            _ => "as a header says".to_owned(),
        };
        if share > 0.0 {
            let what = format!("{} % of requests are delayed by {length}", whole(share));
            walk.step(Stage::Filter, "fault", what, Vec::new());
        }
    }
    let abort = config.abort.as_ref()?;
    let share = abort.percentage.as_ref().map_or(0.0, percent);
    use fault::fault_abort::ErrorType;
    let status = match abort.error_type {
        Some(ErrorType::HttpStatus(status)) => u16::try_from(status).unwrap_or(500),
        Some(ErrorType::GrpcStatus(_)) => 200,
        _ => return None,
    };
    if share <= 0.0 {
        return None;
    }
    let what =
        format!("{} % of requests are answered with {status} by an injected fault", whole(share));
    walk.step(Stage::Filter, "fault", what.clone(), Vec::new());
    if share >= 100.0 {
        return Some(End::refused(status, what));
    }
    walk.depends(what);
    None
}

/// The answer to a preflight of a browser.
fn preflight(filter: &HttpFilter, route: Option<&Route>, request: &Request) -> Option<End> {
    let any = route?.typed_per_filter_config.get(&filter.name)?;
    let policy = unpack::<cors::CorsPolicy>(any)?;
    let origin = request.header("origin")?;
    request.header("access-control-request-method")?;
    if request.method != "OPTIONS" {
        return None;
    }
    let allowed = policy.allow_origin_string_match.iter().map(|m| string(m, &origin));
    let forwards = policy.forward_not_matching_preflights.as_ref().is_none_or(|on| on.value);
    let what = "the proxy answers a preflight itself".to_owned();
    match Truth::any(allowed) {
        Truth::Yes => Some(End::Answered { status: 200, what }),
        _ if !forwards => Some(End::Answered { status: 200, what }),
        _ => None,
    }
}
