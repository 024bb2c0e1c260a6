//! RDS resources and inline route configurations.

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::{
    Decorator, Route as WireRoute, RouteConfiguration, VirtualHost as WireHost, route,
    virtual_host::TlsRequirementType,
};
use http::HeaderValue;

use super::{
    check_name,
    field::{At, Invalid, each, flag, required},
    filter,
    header::{self, lists},
    limits, rate_limit, route_action, route_match,
};
use crate::runtime::{
    action::Action,
    route::{Operation, Route, RouteConfig, VirtualHost},
};

/// Compiles an RDS resource.
pub(super) fn compile(name: &str, message: &RouteConfiguration) -> Result<RouteConfig, Invalid> {
    check_name(name, &message.name)?;
    route_config(message)
}

/// Compiles a route configuration, which has no name of its own if it is inline.
pub(super) fn route_config(message: &RouteConfiguration) -> Result<RouteConfig, Invalid> {
    let hosts = each("virtual_hosts", &message.virtual_hosts, virtual_host)?;
    let config =
        RouteConfig::new(message.name.as_str().into(), message.ignore_port_in_host_matching, hosts);
    let mut config = config.map_err(|domain| {
        Invalid::new(format!("domain {domain:?} belongs to two virtual hosts")).at("virtual_hosts")
    })?;
    config.headers = header::compile(&lists!(message))?;
    config.most_specific_headers_win = message.most_specific_header_mutations_wins;
    Ok(config)
}

#[allow(deprecated, reason = "a deprecated field is read or refused, not skipped")]
fn virtual_host(message: &WireHost) -> Result<VirtualHost, Invalid> {
    let require_tls = match message.require_tls() {
        TlsRequirementType::None => false,
        TlsRequirementType::All => true,
        // It depends on which addresses count as internal, which nothing here says.
        TlsRequirementType::ExternalOnly => {
            return Err(
                Invalid::new("EXTERNAL_ONLY is not supported by this proxy").at("require_tls")
            );
        }
    };
    Ok(VirtualHost {
        name: message.name.as_str().into(),
        domains: each("domains", &message.domains, |domain| self::domain(domain))?,
        routes: each("routes", &message.routes, self::route)?,
        require_tls,
        headers: header::compile(&lists!(message))?,
        retry: message
            .retry_policy
            .as_ref()
            .map(route_action::retry)
            .transpose()
            .at("retry_policy")?,
        attempt_count_in_request: message.include_request_attempt_count,
        attempt_count_in_response: message.include_attempt_count_in_response,
        overrides: filter::overrides(&message.typed_per_filter_config)?,
        rate_limits: each("rate_limits", &message.rate_limits, rate_limit::policy)?,
        body_limit: limits::body(
            message.request_body_buffer_limit.as_ref(),
            message.per_request_buffer_limit_bytes.as_ref(),
        )?,
    })
}

fn domain(domain: &str) -> Result<Arc<str>, Invalid> {
    let inner = domain.trim_start_matches('*').trim_end_matches('*');
    let stars = domain.len() - inner.len();
    if domain.is_empty() || stars > 1 || inner.contains('*') {
        return Err(Invalid::new(format!(
            "expected an exact name, *suffix, prefix* or *, got {domain:?}"
        )));
    }
    Ok(domain.to_ascii_lowercase().into())
}

#[allow(deprecated, reason = "older control planes say there how much is kept of a body")]
fn route(message: &WireRoute) -> Result<Route, Invalid> {
    let action = match required("action", message.action.as_ref())? {
        route::Action::Route(action) => {
            Action::Forward(Box::new(route_action::forward(action).at("route")?))
        }
        route::Action::Redirect(action) => {
            Action::Redirect(route_action::redirect(action).at("redirect")?)
        }
        route::Action::DirectResponse(action) => {
            Action::Direct(route_action::direct(action).at("direct_response")?)
        }
        _ => return Err(Invalid::new("not supported by this proxy").at("action")),
    };
    Ok(Route {
        name: message.name.as_str().into(),
        matching: required("match", message.r#match.as_ref())
            .and_then(|m| route_match::compile(m).at("match"))?,
        action,
        headers: header::compile(&lists!(message))?,
        overrides: filter::overrides(&message.typed_per_filter_config)?,
        operation: message.decorator.as_ref().map(operation).transpose().at("decorator")?.flatten(),
        body_limit: limits::body(
            message.request_body_buffer_limit.as_ref(),
            message.per_request_buffer_limit_bytes.as_ref(),
        )?,
    })
}

/// `None` if it has no name.
fn operation(message: &Decorator) -> Result<Option<Operation>, Invalid> {
    let name = HeaderValue::from_str(&message.operation)
        .map_err(|_| Invalid::new("expected what a header field can hold").at("operation"))?;
    let is_told = flag(message.propagate.as_ref(), true);
    Ok(Some(Operation { name, is_told }).filter(|operation| !operation.name.is_empty()))
}
