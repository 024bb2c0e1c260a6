//! HTTP filters and their per-route settings.
//!
//! A filter that only measures is accepted and left out. Every other filter that this proxy does not have refuses the
//! listener: leaving it out could open what it closes.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::{
        config::{core::v3::substitution_format_string::Format, route::v3::FilterConfig},
        extensions::filters::{
            common::{
                fault::v3::{FaultDelay as WireDelay, fault_delay::FaultDelaySecifier},
                set_filter_state::v3::{FilterStateValue, filter_state_value},
            },
            http::{
                cors::v3::CorsPolicy as WireCors,
                fault::v3::{FaultAbort as WireAbort, HttpFault, fault_abort::ErrorType},
                rbac::v3::{Rbac as WireRbac, RbacPerRoute},
                router::v3::Router,
                set_filter_state::v3::Config as SetFilterState,
            },
            network::http_connection_manager::v3::{HttpFilter as Wire, http_filter::ConfigType},
        },
    },
    google::protobuf::Any,
};
use prost::Message;

use super::{
    authz,
    field::{At, Invalid, duration, each, flag, refuse, required, share, type_name, unpack},
    matcher, route_action,
};
use crate::runtime::{
    authz::Rbac,
    http::{AbortStatus, CorsPolicy, FaultAbort, FaultConfig, FaultDelay, HttpFilter},
    matcher::Share,
    route::FilterOverrides,
};

/// The filter state that replaces the ALPN offered upstream.
const ALPN_KEY: &str = "envoy.network.application_protocols";

/// Filters that measure or exchange labels: without effect on which requests pass, and where to.
const NO_EFFECT: [&str; 5] = [
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "stats.PluginConfig",
    "io.istio.http.peer_metadata.Config",
    "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
];

/// Whether a filter, or its settings for a route, can let nothing through that would be stopped without it.
pub(super) fn guards_nothing(kind: &str) -> bool {
    const OPEN: [&str; 5] = [
        "envoy.extensions.filters.http.router.v3.Router",
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
        "envoy.extensions.filters.http.cors.v3.Cors",
        "envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "envoy.extensions.filters.http.set_filter_state.v3.Config",
    ];
    OPEN.contains(&kind) || NO_EFFECT.contains(&kind)
}

/// Compiles a chain of filters.
pub(super) fn chain(filters: &[Wire]) -> Result<Vec<HttpFilter>, Invalid> {
    let compiled = each("http_filters", filters, filter)?;
    let chain: Vec<_> = compiled.into_iter().flatten().collect();
    let routers = chain.iter().filter(|filter| matches!(filter, HttpFilter::Router { .. })).count();
    match chain.last() {
        Some(HttpFilter::Router { .. }) if routers == 1 => Ok(chain),
        _ => Err(Invalid::new("expected one router, as the last filter").at("http_filters")),
    }
}

fn filter(message: &Wire) -> Result<Option<HttpFilter>, Invalid> {
    refuse(&[("disabled", message.disabled)])?;
    let Some(ConfigType::TypedConfig(config)) = &message.config_type else {
        return Err(Invalid::new(format!("expected a configuration of {} in place", message.name)).at("typed_config"));
    };
    self::config(message, config).at("typed_config")
}

fn config(message: &Wire, config: &Any) -> Result<Option<HttpFilter>, Invalid> {
    let kind = inner_type(config)?;
    Ok(match kind.as_str() {
        "envoy.extensions.filters.http.router.v3.Router" => Some(router(&unpack(config)?)?),
        "envoy.extensions.filters.http.rbac.v3.RBAC" => {
            rbac(&unpack(config)?)?.map(|rbac| HttpFilter::Rbac(Arc::new(rbac)))
        }
        "envoy.extensions.filters.http.fault.v3.HTTPFault" => {
            let fault: HttpFault = unpack(config)?;
            Some(HttpFilter::Fault(fault_config(&fault)?.map(Arc::new)))
        }
        "envoy.extensions.filters.http.cors.v3.Cors" => Some(HttpFilter::Cors),
        "envoy.extensions.filters.http.set_filter_state.v3.Config" => Some(mesh_alpn(&unpack(config)?)?),
        name if NO_EFFECT.contains(&name) => None,
        name => {
            let reason = format!("filter {} ({name}) is not supported by this proxy", message.name);
            return Err(Invalid::new(reason));
        }
    })
}

/// The type of a configuration, looking into a `TypedStruct`.
pub(super) fn inner_type(config: &Any) -> Result<String, Invalid> {
    let outer = type_name(config);
    if !matches!(outer, "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct") {
        return Ok(outer.to_owned());
    }
    // Both messages have the type URL as field 1.
    let wrapped = TypedStructHead::decode(&*config.value).map_err(|error| Invalid::new(error.to_string()))?;
    Ok(wrapped.type_url.rsplit('/').next().unwrap_or_default().to_owned())
}

#[derive(Clone, PartialEq, Message)]
struct TypedStructHead {
    #[prost(string, tag = "1")]
    type_url: String,
}

fn router(message: &Router) -> Result<HttpFilter, Invalid> {
    refuse(&[
        ("upstream_http_filters", !message.upstream_http_filters.is_empty()),
        ("strict_check_headers", !message.strict_check_headers.is_empty()),
    ])?;
    Ok(HttpFilter::Router { suppress_envoy_headers: message.suppress_envoy_headers })
}

/// Without rules the filter enforces nothing (shadow rules only count), and is left out.
fn rbac(message: &WireRbac) -> Result<Option<Rbac>, Invalid> {
    refuse(&[("matcher", message.matcher.is_some())])?;
    message.rules.as_ref().map(authz::rules).transpose().at("rules")
}

/// The one use of filter state that this proxy knows, natively: ALPN per request protocol from the chosen cluster's
/// metadata.
fn mesh_alpn(message: &SetFilterState) -> Result<HttpFilter, Invalid> {
    let [value] = message.on_request_headers.as_slice() else {
        return Err(Invalid::new("expected one value").at("on_request_headers"));
    };
    mesh_alpn_value(value).at("on_request_headers[0]")
}

fn mesh_alpn_value(value: &FilterStateValue) -> Result<HttpFilter, Invalid> {
    match &value.key {
        Some(filter_state_value::Key::ObjectKey(key)) if key == ALPN_KEY => {}
        _ => {
            return Err(
                Invalid::new(format!("expected {ALPN_KEY}, others are not supported by this proxy")).at("object_key")
            );
        }
    }
    let Some(filter_state_value::Value::FormatString(format)) = &value.value else {
        return Err(Invalid::new("required, but missing").at("format_string"));
    };
    let text = match &format.format {
        Some(Format::TextFormatSource(source)) => match &source.specifier {
            Some(envoy_types::pb::envoy::config::core::v3::data_source::Specifier::InlineString(text)) => text,
            _ => "",
        },
        #[allow(deprecated, reason = "both spellings are accepted")]
        Some(Format::TextFormat(text)) => text,
        _ => "",
    };
    // The expression itself runs in Envoy; here it must be the one whose meaning is built in.
    if text.contains("filter_metadata.mesh") || text.contains("filter_metadata[") && text.contains("mesh") {
        return Ok(HttpFilter::MeshAlpn);
    }
    Err(Invalid::new("expected the ALPN lists of the cluster's metadata (filter_metadata.mesh)").at("format_string"))
}

fn fault_config(message: &HttpFault) -> Result<Option<FaultConfig>, Invalid> {
    refuse(&[
        ("upstream_cluster", !message.upstream_cluster.is_empty()),
        ("downstream_nodes", !message.downstream_nodes.is_empty()),
        ("response_rate_limit", message.response_rate_limit.is_some()),
        ("max_active_faults", message.max_active_faults.is_some()),
    ])?;
    let fault = FaultConfig {
        delay: message.delay.as_ref().map(delay).transpose().at("delay")?,
        abort: message.abort.as_ref().map(abort).transpose().at("abort")?,
        headers: each("headers", &message.headers, matcher::header)?,
    };
    Ok(Some(fault).filter(|fault| fault.delay.is_some() || fault.abort.is_some()))
}

fn delay(message: &WireDelay) -> Result<FaultDelay, Invalid> {
    let Some(FaultDelaySecifier::FixedDelay(fixed)) = &message.fault_delay_secifier else {
        return Err(Invalid::new("expected a fixed_delay, others are not supported by this proxy"));
    };
    Ok(FaultDelay {
        duration: duration("fixed_delay", fixed)?,
        share: message.percentage.as_ref().map_or(Share::NONE, share),
    })
}

fn abort(message: &WireAbort) -> Result<FaultAbort, Invalid> {
    refuse(&[("response_body", !message.response_body.is_empty())])?;
    let status = match required("error_type", message.error_type.as_ref())? {
        ErrorType::HttpStatus(code) => AbortStatus::Http(route_action::status("http_status", *code)?),
        ErrorType::GrpcStatus(code) => AbortStatus::Grpc(*code),
        ErrorType::HeaderAbort(_) => return Err(Invalid::new("not supported by this proxy").at("header_abort")),
    };
    Ok(FaultAbort { status, share: message.percentage.as_ref().map_or(Share::NONE, share) })
}

/// Compiles one entry of `typed_per_filter_config`.
pub(super) fn per_route(overrides: &mut FilterOverrides, config: &Any) -> Result<(), Invalid> {
    match type_name(config) {
        "envoy.extensions.filters.http.fault.v3.HTTPFault" => {
            let fault: HttpFault = unpack(config)?;
            // A route without faults of its own still replaces those of the filter.
            let none = FaultConfig { delay: None, abort: None, headers: Vec::new() };
            overrides.fault = Some(Arc::new(fault_config(&fault)?.unwrap_or(none)));
        }
        "envoy.extensions.filters.http.cors.v3.CorsPolicy" => {
            overrides.cors = Some(Arc::new(cors(&unpack(config)?)?));
        }
        "envoy.extensions.filters.http.rbac.v3.RBACPerRoute" => {
            let per_route: RbacPerRoute = unpack(config)?;
            let rules = per_route.rbac.as_ref().map(rbac).transpose().at("rbac")?.flatten();
            overrides.rbac = Some(rules.map(Arc::new));
        }
        "envoy.config.route.v3.FilterConfig" => {
            let wrapped: FilterConfig = unpack(config)?;
            refuse(&[("disabled", wrapped.disabled)])?;
            let inner = required("config", wrapped.config.as_ref())?;
            per_route(overrides, inner).at("config")?;
        }
        other => return Err(Invalid::new(format!("{other} is not supported by this proxy"))),
    }
    Ok(())
}

fn cors(message: &WireCors) -> Result<CorsPolicy, Invalid> {
    let enabled =
        message.filter_enabled.as_ref().map(|enabled| enabled.default_value.as_ref().map_or(Share::NONE, share));
    refuse(&[
        ("filter_enabled", enabled.is_some_and(|share| share != Share::ALL)),
        ("allow_private_network_access", flag(message.allow_private_network_access.as_ref(), false)),
    ])?;
    let text = |text: &String| Arc::from(text.as_str());
    Ok(CorsPolicy {
        allow_origins: each("allow_origin_string_match", &message.allow_origin_string_match, matcher::string)?,
        allow_methods: text(&message.allow_methods),
        allow_headers: text(&message.allow_headers),
        expose_headers: text(&message.expose_headers),
        max_age: text(&message.max_age),
        allow_credentials: flag(message.allow_credentials.as_ref(), false),
        forward_unmatched_preflights: flag(message.forward_not_matching_preflights.as_ref(), true),
    })
}
