//! Route configurations, virtual hosts and routes.

use super::{
    any::{any, boolean, names, uint32},
    filters::{cors, fault},
    headers::Headers,
    matching, metadata,
    pb::{
        protobuf::Any,
        route::{self, route::Action},
    },
    route_action,
};
use crate::plan::{RouteActionPlan, RouteConfigPlan, RoutePlan, VirtualHostPlan};

/// Longest body of a direct response, in bytes; Envoy's default is 4 KiB.
const MAX_DIRECT_RESPONSE_BODY: u32 = 1 << 20;

/// An RDS resource without its virtual hosts.
pub(super) fn configuration_frame(name: &str, ignore_port_in_host: bool) -> route::RouteConfiguration {
    route::RouteConfiguration {
        max_direct_response_body_size_bytes: uint32(MAX_DIRECT_RESPONSE_BODY),
        ..configuration(name, ignore_port_in_host, Vec::new())
    }
}

/// A route configuration inside a listener.
pub(super) fn inline_configuration(plan: &RouteConfigPlan) -> route::RouteConfiguration {
    let virtual_hosts = plan.virtual_hosts.iter().map(virtual_host).collect();
    configuration(&plan.name, plan.ignore_port_in_host, virtual_hosts)
}

/// Clusters are not checked: they may come after the routes, and a missing one is answered per request.
fn configuration(
    name: &str,
    ignore_port_in_host: bool,
    virtual_hosts: Vec<route::VirtualHost>,
) -> route::RouteConfiguration {
    route::RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        validate_clusters: boolean(false),
        ignore_port_in_host_matching: ignore_port_in_host,
        ..Default::default()
    }
}

/// A virtual host.
pub(super) fn virtual_host(plan: &VirtualHostPlan) -> route::VirtualHost {
    let require_tls = match plan.require_tls {
        true => route::virtual_host::TlsRequirementType::All,
        false => route::virtual_host::TlsRequirementType::None,
    };
    route::VirtualHost {
        name: plan.name.to_string(),
        domains: plan.domains.iter().map(|d| d.to_string()).collect(),
        routes: plan.routes.iter().map(route).collect(),
        require_tls: require_tls as i32,
        include_request_attempt_count: plan.attempt_count,
        ..Default::default()
    }
}

fn route(plan: &RoutePlan) -> route::Route {
    let headers = Headers::new(&plan.headers);
    let action = match &plan.action {
        RouteActionPlan::Forward(forward) => {
            Action::Route(route_action::forward(forward, headers.authority.as_deref()))
        }
        RouteActionPlan::Redirect(redirect) => Action::Redirect(route_action::redirect(redirect)),
        RouteActionPlan::Direct { status, body } => Action::DirectResponse(route_action::direct(*status, body)),
    };
    let stat_prefix = plan.matches.as_ref().and_then(|m| m.stat_prefix.as_deref());
    route::Route {
        name: plan.name.to_string(),
        r#match: Some(matching::route_match(plan.matches.as_ref())),
        action: Some(action),
        metadata: metadata::route(plan.config.as_ref()),
        decorator: decorator(&plan.operation),
        typed_per_filter_config: filter_overrides(plan).collect(),
        request_headers_to_add: headers.request_add,
        request_headers_to_remove: headers.request_remove,
        response_headers_to_add: headers.response_add,
        response_headers_to_remove: headers.response_remove,
        stat_prefix: stat_prefix.unwrap_or_default().to_owned(),
        ..Default::default()
    }
}

fn decorator(operation: &str) -> Option<route::Decorator> {
    (!operation.is_empty()).then(|| route::Decorator { operation: operation.to_owned(), ..Default::default() })
}

/// What filters do differently on this route.
fn filter_overrides(plan: &RoutePlan) -> impl Iterator<Item = (String, Any)> {
    let fault = plan.fault.as_ref().map(|f| (names::FAULT.to_owned(), any(&fault::injected(f))));
    let cors = plan.cors.as_ref().map(|c| (names::CORS.to_owned(), any(&cors::policy(c))));
    fault.into_iter().chain(cors)
}
