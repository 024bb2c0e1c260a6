//! Kinds of the Service Mesh Interface.

mod lower;
pub mod route_group;
pub mod traffic_split;

use serde_json::Value;

use super::{
    kind::{Declared, Served, Serving, guards_access, kinds, split_api_version},
    spec::Spec,
};

/// The version that an object is written in; empty where it says none.
fn version(object: &Value) -> &str {
    let api_version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    split_api_version(api_version).1
}

/// Whether a version is one before groups of routes were given their present form.
fn is_early(version: &str) -> bool {
    matches!(version, "v1alpha1" | "v1alpha2")
}

kinds! {
    400;
    /// TrafficSplit: requests for a service go to others, by weight.
    TRAFFIC_SPLIT: "split.smi-spec.io" ["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"] "TrafficSplit" "trafficsplits" "traffic-split" Namespaced => Serving::Served(Served::read(traffic_split::read, Declared::spec::<traffic_split::TrafficSplit>()));
    /// TrafficTarget: who may call.
    TRAFFIC_TARGET: "access.smi-spec.io" ["v1alpha3", "v1alpha2", "v1alpha1"] "TrafficTarget" "traffictargets" "traffic-target" Namespaced => Serving::Planned(guards_access);
    /// HTTPRouteGroup: named conditions on requests.
    HTTP_ROUTE_GROUP: "specs.smi-spec.io" ["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"] "HTTPRouteGroup" "httproutegroups" "http-route-group" Namespaced => Serving::Served(Served::read(route_group::read, Declared::spec::<route_group::RouteGroup>()));
}
