//! Chooses the ALPN list of a mesh connection by the request's protocol, without Istio's own filter
//! (ARCHITECTURE.md).

use super::http;
use crate::emit::{
    access_log::text_format,
    pb::{core, filter_state, hcm::HttpFilter, set_filter_state::Config},
};

/// The filter state that overrides a cluster's `alpn_protocols`.
const OBJECT: &str = "envoy.network.application_protocols";

/// Reads the lists from the chosen cluster's metadata. A cluster without them is outside the mesh,
/// and gives the empty text: a value that is missing would be `-`, which is a list, and one that
/// strict servers refuse.
const LISTS: &str = concat!(
    "%CEL(request.protocol == 'HTTP/2' && 'mesh' in xds.cluster_metadata.filter_metadata ? ",
    "xds.cluster_metadata.filter_metadata.mesh.h2 : ",
    "'mesh' in xds.cluster_metadata.filter_metadata ? ",
    "xds.cluster_metadata.filter_metadata.mesh.h1 : '')%",
);

/// The filter; goes right before the router, when the route and so the cluster is known.
pub(super) fn filter() -> HttpFilter {
    use filter_state::filter_state_value::{Key, Value};
    let lists =
        core::SubstitutionFormatString { format: Some(text_format(LISTS)), ..Default::default() };
    let value = filter_state::FilterStateValue {
        key: Some(Key::ObjectKey(OBJECT.to_owned())),
        value: Some(Value::FormatString(lists)),
        skip_if_empty: true,
        ..Default::default()
    };
    http(
        "envoy.filters.http.set_filter_state",
        &Config { on_request_headers: vec![value], ..Default::default() },
    )
}
