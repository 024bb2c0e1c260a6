//! Cross-origin rules, which routes have.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::extensions::filters::http::cors::v3::{Cors, CorsPolicy as Wire},
    google::protobuf::Any,
};

use super::super::{
    field::{Invalid, each, flag, refuse, share, unpack},
    known::{
        Known::{Each, In, NoEffect, Read},
        base::RUNTIME_FRACTION,
        matcher::STRING,
        messages,
        reason::SHADOW,
    },
    matcher,
};
use crate::runtime::{
    HttpFilter,
    filter::{FilterOverride, cors::CorsPolicy},
    matcher::Share,
};

/// Compiles the filter, which says nothing of its own.
pub(super) fn filter(config: &Any) -> Result<Option<HttpFilter>, Invalid> {
    let Cors {} = unpack(config)?;
    Ok(Some(HttpFilter::Cors))
}

/// Compiles what a route sets.
pub(super) fn per_route(config: &Any) -> Result<FilterOverride, Invalid> {
    Ok(FilterOverride::Cors(Arc::new(cors(&unpack(config)?)?)))
}

fn cors(message: &Wire) -> Result<CorsPolicy, Invalid> {
    let enabled = message
        .filter_enabled
        .as_ref()
        .map(|enabled| enabled.default_value.as_ref().map_or(Share::NONE, share));
    refuse(&[
        ("filter_enabled", enabled.is_some_and(|share| share != Share::ALL)),
        (
            "allow_private_network_access",
            flag(message.allow_private_network_access.as_ref(), false),
        ),
    ])?;
    let text = |text: &String| Arc::from(text.as_str());
    Ok(CorsPolicy {
        allow_origins: each(
            "allow_origin_string_match",
            &message.allow_origin_string_match,
            matcher::string,
        )?,
        allow_methods: text(&message.allow_methods),
        allow_headers: text(&message.allow_headers),
        expose_headers: text(&message.expose_headers),
        max_age: text(&message.max_age),
        allow_credentials: flag(message.allow_credentials.as_ref(), false),
        forward_unmatched_preflights: flag(message.forward_not_matching_preflights.as_ref(), true),
    })
}

messages! {
    CORS = "envoy.extensions.filters.http.cors.v3.Cors" {}

    CORS_POLICY = "envoy.extensions.filters.http.cors.v3.CorsPolicy" {
        1 "allow_origin_string_match": Each(&STRING);
        2 "allow_methods": Read;
        3 "allow_headers": Read;
        4 "expose_headers": Read;
        5 "max_age": Read;
        6 "allow_credentials": Read;
        7 "filter_enabled": In(&RUNTIME_FRACTION);
        8 "shadow_enabled": NoEffect(SHADOW);
        9 "allow_private_network_access": Read;
        10 "forward_not_matching_preflights": Read;
    }
}
