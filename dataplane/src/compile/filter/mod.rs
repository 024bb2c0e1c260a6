//! HTTP filters and what routes set for them.
//!
//! A filter that only measures is accepted and left out. Every other filter that is no row of the
//! table refuses the listener: leaving it out could open what it closes.

use std::{collections::HashMap, sync::Arc};

use envoy_types::pb::{
    envoy::{
        config::route::v3::FilterConfig,
        extensions::filters::network::http_connection_manager::v3::{
            HttpFilter as Wire, http_filter::ConfigType,
        },
    },
    google::protobuf::Any,
};
use prost::Message;

use super::{
    field::{At, Invalid, each, required, type_name, unpack},
    known::{Message as Fields, without_effect},
};
use crate::runtime::{
    HttpFilter,
    filter::{FilterOverride, FilterOverrides, Filters, NamedFilter},
};

mod cors;
mod ext_authz;
mod fault;
mod jwt_authn;
mod local_rate_limit;
mod mesh_alpn;
mod rate_limit;
mod rbac;
mod router;

/// One kind of filter.
struct Row {
    /// Its configuration, by whose type it is known.
    config: &'static Fields,
    /// Compiles it; nothing where the filter would do nothing.
    filter: fn(&Any) -> Result<Option<HttpFilter>, Invalid>,
    /// What routes set for it, and how that is compiled.
    per_route: Option<PerRoute>,
    /// It can stop what would pass without it.
    guards: bool,
}

/// What routes set for a filter, and what compiles it.
type PerRoute = (&'static Fields, fn(&Any) -> Result<FilterOverride, Invalid>);

static TABLE: [Row; 9] = [
    Row { config: &router::ROUTER, filter: router::filter, per_route: None, guards: false },
    Row {
        config: &rbac::HTTP_RBAC,
        filter: rbac::filter,
        per_route: Some((&rbac::RBAC_PER_ROUTE, rbac::per_route)),
        guards: true,
    },
    Row {
        config: &fault::FAULT,
        filter: fault::filter,
        per_route: Some((&fault::FAULT, fault::per_route)),
        guards: false,
    },
    Row {
        config: &cors::CORS,
        filter: cors::filter,
        per_route: Some((&cors::CORS_POLICY, cors::per_route)),
        guards: false,
    },
    Row {
        config: &ext_authz::EXT_AUTHZ,
        filter: ext_authz::filter,
        per_route: Some((&ext_authz::PER_ROUTE, ext_authz::per_route)),
        guards: true,
    },
    Row {
        config: &jwt_authn::JWT_AUTHN,
        filter: jwt_authn::filter,
        per_route: Some((&jwt_authn::PER_ROUTE, jwt_authn::per_route)),
        guards: true,
    },
    Row {
        config: &local_rate_limit::LOCAL_RATE_LIMIT,
        filter: local_rate_limit::filter,
        per_route: Some((&local_rate_limit::LOCAL_RATE_LIMIT, local_rate_limit::per_route)),
        guards: true,
    },
    Row {
        config: &rate_limit::RATE_LIMIT,
        filter: rate_limit::filter,
        per_route: Some((&rate_limit::PER_ROUTE, rate_limit::per_route)),
        guards: true,
    },
    Row {
        config: &mesh_alpn::SET_FILTER_STATE,
        filter: mesh_alpn::filter,
        per_route: None,
        guards: false,
    },
];

/// The fields of everything that filters are configured by, and that routes set for them.
pub(super) fn messages() -> impl Iterator<Item = &'static Fields> {
    TABLE.iter().flat_map(|row| {
        let per_route = row.per_route.map(|(message, _)| message);
        std::iter::once(row.config).chain(per_route.filter(|own| own.name != row.config.name))
    })
}

/// Whether a filter, or what a route sets for it, can let nothing through that would be stopped
/// without it.
pub(super) fn guards_nothing(kind: &str) -> bool {
    let mut open = TABLE.iter().filter(|row| !row.guards);
    let is_of = |row: &Row| {
        row.config.name == kind || row.per_route.is_some_and(|(own, _)| own.name == kind)
    };
    without_effect(kind).is_some() || open.any(is_of)
}

/// Compiles a chain of filters.
pub(super) fn chain(filters: &[Wire]) -> Result<Filters, Invalid> {
    let compiled = each("http_filters", filters, filter)?;
    let chain: Vec<NamedFilter> = compiled.into_iter().flatten().collect();
    let is_router = |named: &&NamedFilter| matches!(named.filter, HttpFilter::Router { .. });
    match chain.last().filter(is_router) {
        Some(_) if chain.iter().filter(is_router).count() == 1 => Ok(Filters::new(chain)),
        _ => Err(Invalid::new("expected one router, as the last filter").at("http_filters")),
    }
}

fn filter(message: &Wire) -> Result<Option<NamedFilter>, Invalid> {
    let Some(ConfigType::TypedConfig(config)) = &message.config_type else {
        return Err(Invalid::new(format!("expected a configuration of {} in place", message.name))
            .at("typed_config"));
    };
    let filter = self::config(message, config).at("typed_config")?;
    Ok(filter.map(|filter| NamedFilter { name: message.name.as_str().into(), filter }))
}

fn config(message: &Wire, config: &Any) -> Result<Option<HttpFilter>, Invalid> {
    let kind = inner_type(config)?;
    if without_effect(&kind).is_some() {
        return Ok(None);
    }
    match TABLE.iter().find(|row| row.config.name == kind) {
        Some(row) => (row.filter)(config),
        None => {
            let reason = format!("filter {} ({kind}) is not supported by this proxy", message.name);
            Err(Invalid::new(reason))
        }
    }
}

/// The type of a configuration, looking into a `TypedStruct`.
pub(super) fn inner_type(config: &Any) -> Result<String, Invalid> {
    let outer = type_name(config);
    if !matches!(outer, "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct") {
        return Ok(outer.to_owned());
    }
    // Both messages have the type URL as field 1.
    let wrapped =
        TypedStructHead::decode(&*config.value).map_err(|error| Invalid::new(error.to_string()))?;
    Ok(wrapped.type_url.rsplit('/').next().unwrap_or_default().to_owned())
}

#[derive(Clone, PartialEq, Message)]
struct TypedStructHead {
    #[prost(string, tag = "1")]
    type_url: String,
}

/// Compiles what a route, a virtual host or a target sets for filters, each by its name.
pub(super) fn overrides(configs: &HashMap<String, Any>) -> Result<FilterOverrides, Invalid> {
    let one = |(filter, config): (&String, &Any)| {
        let compiled = per_route(config).at(&format!("typed_per_filter_config[{filter}]"))?;
        Ok((Arc::from(filter.as_str()), compiled))
    };
    configs.iter().map(one).collect::<Result<_, Invalid>>().map(FilterOverrides::new)
}

fn per_route(config: &Any) -> Result<FilterOverride, Invalid> {
    let kind = type_name(config);
    if kind == "envoy.config.route.v3.FilterConfig" {
        let wrapped: FilterConfig = unpack(config)?;
        let inner = required("config", wrapped.config.as_ref())?;
        return per_route(inner).at("config");
    }
    let mut settings = TABLE.iter().filter_map(|row| row.per_route);
    match settings.find(|(own, _)| own.name == kind) {
        Some((_, compile)) => compile(config),
        None => Err(Invalid::new(format!("{kind} is not supported by this proxy"))),
    }
}
