//! ALPN per request, which stock Envoy is told by filter state.

use envoy_types::pb::{
    envoy::{
        config::core::v3::{data_source::Specifier, substitution_format_string::Format},
        extensions::filters::{
            common::set_filter_state::v3::{FilterStateValue, filter_state_value},
            http::set_filter_state::v3::Config as SetFilterState,
        },
    },
    google::protobuf::Any,
};

use super::super::{
    field::{At, Invalid, unpack},
    known::{
        Known::{Each, In, NoEffect, Read, Refused},
        base::FORMAT,
        messages,
    },
};
use crate::runtime::HttpFilter;

/// The filter state that replaces the ALPN offered upstream.
const ALPN_KEY: &str = "envoy.network.application_protocols";

/// Compiles the filter.
pub(super) fn filter(config: &Any) -> Result<Option<HttpFilter>, Invalid> {
    mesh_alpn(&unpack(config)?).map(Some)
}

/// The one use of filter state that this proxy knows, natively: ALPN per request protocol from the
/// chosen cluster's metadata.
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
            return Err(Invalid::new(format!(
                "expected {ALPN_KEY}, others are not supported by this proxy"
            ))
            .at("object_key"));
        }
    }
    let Some(filter_state_value::Value::FormatString(format)) = &value.value else {
        return Err(Invalid::new("required, but missing").at("format_string"));
    };
    let text = match &format.format {
        Some(Format::TextFormatSource(source)) => match &source.specifier {
            Some(Specifier::InlineString(text)) => text,
            _ => "",
        },
        #[allow(deprecated, reason = "both spellings are accepted")]
        Some(Format::TextFormat(text)) => text,
        _ => "",
    };
    // The expression itself runs in Envoy; here it must be the one whose meaning is built in.
    if text.contains("filter_metadata.mesh")
        || text.contains("filter_metadata[") && text.contains("mesh")
    {
        return Ok(HttpFilter::MeshAlpn);
    }
    Err(Invalid::new("expected the ALPN lists of the cluster's metadata (filter_metadata.mesh)")
        .at("format_string"))
}

messages! {
    SET_FILTER_STATE = "envoy.extensions.filters.http.set_filter_state.v3.Config" {
        1 "on_request_headers": Each(&FILTER_STATE_VALUE);
        2 "clear_route_cache": Refused;
    }

    FILTER_STATE_VALUE = "envoy.extensions.filters.common.set_filter_state.v3.FilterStateValue" {
        1 "object_key": Read;
        2 "format_string": In(&FORMAT);
        3 "read_only": Refused;
        4 "shared_with_upstream": Refused;
        5 "skip_if_empty": NoEffect("no list is no override, whatever this says");
        6 "factory_key": Refused;
    }
}
