//! One proxy's way with a request: normalization, virtual host, filters, route, and how it is sent
//! on.

use ferromesh_proto::ResourceType;

use super::{
    answer::{End, Near, Stage},
    connection::Connection,
    filters::{Filtered, Way, filters},
    notes::{Onward, Walk},
    pb::{
        hcm::{HttpConnectionManager, http_connection_manager::RouteSpecifier},
        route::{
            Route, RouteAction, RouteConfiguration, VirtualHost,
            route::Action,
            route_action::{ClusterNotFoundResponseCode, ClusterSpecifier},
            weighted_cluster::ClusterWeight,
        },
    },
    request::Request,
    rewrite::{location, normalized, redirect_status, sent},
    routes::{self, whole},
    truth::Metadata,
};

/// What more objects than this have shaped is told by its parts.
const MAKERS: usize = 3;
/// Routes that nearly took a request are told up to this number.
const NEARLY: usize = 4;

/// Follows a request through a connection manager.
pub(super) fn manage(
    walk: &mut Walk<'_>,
    manager: &HttpConnectionManager,
    (connection, identity): (&Connection, Option<&str>),
    request: &Request,
) -> (End, Vec<Onward>) {
    let read = normalized(manager, request);
    if read.target != request.target {
        let what = format!("the path is read as {}", read.target);
        walk.step(Stage::Filter, "normalization", what, Vec::new());
    }
    let request = received(manager, read);
    let config = match &manager.route_specifier {
        Some(RouteSpecifier::Rds(rds)) => {
            match walk.proxy.route_configuration(&rds.route_config_name) {
                Some(config) => {
                    walk.refusals(ResourceType::Route, &rds.route_config_name);
                    config
                }
                None => {
                    let what =
                        format!("route configuration {} is not there", rds.route_config_name);
                    return (End::nowhere(404, what), Vec::new());
                }
            }
        }
        Some(RouteSpecifier::RouteConfig(config)) => config.clone(),
        Some(RouteSpecifier::ScopedRoutes(_)) | None => {
            walk.depends("scoped routes, which are not judged here");
            return (End::nowhere(404, "no routes"), Vec::new());
        }
    };
    let Some((host, domain)) = routes::virtual_host(&config, &request.authority) else {
        let what = format!("no virtual host owns {:?}", request.authority);
        walk.step(Stage::VirtualHost, "", what.clone(), Vec::new()).nearly =
            elsewhere(walk.proxy.route_configurations(), &config.name, &request.authority);
        return match filters(walk, manager, Way::Nowhere, (connection, identity), &request) {
            Filtered::Ends(end) => (end, Vec::new()),
            Filtered::Goes(_) => (End::nowhere(404, what), Vec::new()),
        };
    };
    let what = format!(
        "owns {:?} by {domain:?}, in route configuration {}",
        request.authority, config.name
    );
    let near = match domain {
        "*" => elsewhere(walk.proxy.route_configurations(), &config.name, &request.authority),
        _ => Vec::new(),
    };
    walk.step(Stage::VirtualHost, host.name.clone(), what, Vec::new()).nearly = near;
    if routes::wants_tls(host, &request) {
        let caller = (connection, identity);
        if let Filtered::Ends(end) = filters(walk, manager, Way::Https, caller, &request) {
            return (end, Vec::new());
        }
        let what = format!("a redirect to https://{}{}", request.authority, request.target);
        let by = walk.proxy.makers(ResourceType::Route, &config.name);
        let by = if by.len() > MAKERS { Vec::new() } else { by };
        walk.step(Stage::Route, "", format!("{what}, since TLS is demanded"), by);
        return (End::Answered { status: 301, what }, Vec::new());
    }
    let place = Place { config: &config, host };
    filters_and_route(walk, manager, &place, (connection, identity), &request)
}

/// A request without what the proxy does not believe: of a client from outside, by which scheme
/// another proxy was called.
fn received(manager: &HttpConnectionManager, mut request: Request) -> Request {
    let edge = manager.use_remote_address.as_ref().is_some_and(|on| on.value);
    if edge && manager.xff_num_trusted_hops == 0 {
        request.headers.retain(|(name, _)| name != "x-forwarded-proto");
    }
    request
}

/// Virtual hosts of other ports that own an authority by its name.
fn elsewhere(configs: Vec<RouteConfiguration>, but: &str, authority: &str) -> Vec<Near> {
    let others = configs.iter().filter(|config| config.name != but);
    let owning = others.filter_map(|config| {
        let (host, domain) = routes::virtual_host(config, authority)?;
        (domain != "*").then(|| Near {
            name: host.name.clone(),
            unmet: format!("it is in route configuration {}, for another port", config.name),
            decided_by: Vec::new(),
        })
    });
    owning.take(NEARLY).collect()
}

/// Where routes of a request are.
struct Place<'c> {
    config: &'c RouteConfiguration,
    host: &'c VirtualHost,
}

fn filters_and_route(
    walk: &mut Walk<'_>,
    manager: &HttpConnectionManager,
    place: &Place<'_>,
    caller: (&Connection, Option<&str>),
    request: &Request,
) -> (End, Vec<Onward>) {
    let first = routes::route(place.host, request, &Metadata::new());
    let passed = match filters(walk, manager, Way::Among(place.host), caller, request) {
        // What it would have come to says nothing any more.
        Filtered::Ends(end) => return (end, Vec::new()),
        Filtered::Goes(passed) => passed,
    };
    let request = &passed.request;
    let tried = match passed.reroutes {
        true => routes::route(place.host, request, &passed.found),
        false => first,
    };
    for (index, route, on) in &tried.possible {
        let title = route_title(*index, route);
        walk.depends(format!("route {title} takes it depending on {on}"));
    }
    let near: Vec<Near> = tried
        .nearly
        .iter()
        .take(NEARLY)
        .map(|(index, route, unmet)| Near {
            name: route_title(*index, route),
            unmet: unmet.clone(),
            decided_by: walk.proxy.rule(&place.config.name, &place.host.name, *index, &route.name),
        })
        .collect();
    let Some((index, route)) = tried.found else {
        let what = match place.host.routes.is_empty() {
            true => "the virtual host has no routes".to_owned(),
            false => "no route takes the request".to_owned(),
        };
        walk.step(Stage::Route, "", what.clone(), Vec::new()).nearly = near;
        return (End::nowhere(404, what), Vec::new());
    };
    let by = walk.proxy.rule(&place.config.name, &place.host.name, index, &route.name);
    let (what, end, onward) = acted(walk, place, route, request, passed.offers);
    let what = format!("{}: {what}", routes::conditions(route));
    walk.step(Stage::Route, route_title(index, route), what, by).nearly = near;
    (end, onward)
}

/// A route by its name, or by its number in its virtual host.
fn route_title(index: usize, route: &Route) -> String {
    if route.name.is_empty() { format!("#{}", index + 1) } else { route.name.clone() }
}

/// What a route's action is, in words, and what becomes of the request.
fn acted(
    walk: &mut Walk<'_>,
    place: &Place<'_>,
    route: &Route,
    request: &Request,
    offers: bool,
) -> (String, End, Vec<Onward>) {
    match &route.action {
        Some(Action::Redirect(redirect)) => {
            let location = location(redirect, route, request);
            let status = redirect_status(redirect);
            let what = format!("a redirect to {location}");
            (format!("{status}, {what}"), End::Answered { status, what }, Vec::new())
        }
        Some(Action::DirectResponse(direct)) => {
            let status = u16::try_from(direct.status).unwrap_or(500);
            let what = "a direct response".to_owned();
            match &*place.host.name {
                "block_all" => {
                    let what = "nobody knows the host, and unknown hosts are blocked".to_owned();
                    (what.clone(), End::nowhere(status, what), Vec::new())
                }
                _ => (format!("{status}, {what}"), End::Answered { status, what }, Vec::new()),
            }
        }
        Some(Action::Route(action)) => forwarded(walk, place, route, action, (request, offers)),
        Some(Action::FilterAction(_) | Action::NonForwardingAction(_)) | None => {
            let what = "a filter answers".to_owned();
            walk.depends("the answer of a filter, which is not judged here");
            (what, End::Passes, Vec::new())
        }
    }
}

fn forwarded(
    walk: &mut Walk<'_>,
    place: &Place<'_>,
    route: &Route,
    action: &RouteAction,
    (request, offers): (&Request, bool),
) -> (String, End, Vec<Onward>) {
    let missing = match action.cluster_not_found_response_code {
        code if code == ClusterNotFoundResponseCode::NotFound as i32 => 404,
        code if code == ClusterNotFoundResponseCode::InternalServerError as i32 => 500,
        _ => 503,
    };
    let onward = |share: f64, cluster: &str, weight: Option<&ClusterWeight>| Onward {
        share,
        cluster: cluster.to_owned(),
        request: Some(sent((place.config, place.host), (route, action), weight, request)),
        offers,
        missing,
    };
    let (words, onward) = match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(cluster)) => {
            (format!("to {cluster}"), vec![onward(100.0, cluster, None)])
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let weight = |one: &ClusterWeight| one.weight.as_ref().map_or(0, |w| w.value);
            let total: f64 = weighted.clusters.iter().map(|one| f64::from(weight(one))).sum();
            let share = |one: &ClusterWeight| f64::from(weight(one)) * 100.0 / total.max(1.0);
            let taking = weighted.clusters.iter().filter(|one| weight(one) > 0);
            let all: Vec<Onward> =
                taking.map(|one| onward(share(one), &one.name, Some(one))).collect();
            let words: Vec<String> = all
                .iter()
                .map(|one| format!("{} % to {}", whole(one.share), one.cluster))
                .collect();
            (words.join(", "), all)
        }
        Some(ClusterSpecifier::ClusterHeader(name)) => match request.header(name) {
            Some(cluster) => {
                (format!("to {cluster}, by header {name}"), vec![onward(100.0, &cluster, None)])
            }
            None => {
                let what = format!("header {name}, which names the cluster, is missing");
                return (what.clone(), End::nowhere(missing, what), Vec::new());
            }
        },
        Some(
            ClusterSpecifier::ClusterSpecifierPlugin(_)
            | ClusterSpecifier::InlineClusterSpecifierPlugin(_),
        )
        | None => {
            walk.depends("a plugin that chooses the cluster, which is not judged here");
            ("to a cluster that a plugin chooses".to_owned(), Vec::new())
        }
    };
    (words, End::Passes, onward)
}
