//! Rate limit policies of routes.

use envoy_types::pb::{
    envoy::{
        config::route::v3::{
            RateLimit as WirePolicy, RouteAction, RouteConfiguration, VirtualHost as WireHost,
            rate_limit::{
                Action, Override,
                action::{
                    ActionSpecifier, GenericKey, MaskedRemoteAddress, MetaData, RequestHeaders,
                    SourceCluster, meta_data::Source,
                },
            },
        },
        r#type::metadata::v3::MetadataKey,
    },
    google::protobuf::UInt32Value,
};

use super::{
    routes::{forward, prefix, to},
    *,
};
use crate::runtime::{
    action,
    rate_limit::{DescriptorAction, LimitHeaders},
};

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

fn generic(value: &str) -> ActionSpecifier {
    let descriptor_value = value.to_owned();
    ActionSpecifier::GenericKey(GenericKey { descriptor_value, ..Default::default() })
}

fn policy(action: ActionSpecifier) -> WirePolicy {
    let actions = vec![Action { action_specifier: Some(action) }];
    WirePolicy { actions, ..Default::default() }
}

fn compile(policy: WirePolicy) -> Result<Arc<RouteConfig>, String> {
    let action = RouteAction { rate_limits: vec![policy.clone()], ..to("c") };
    let host = WireHost {
        name: "h".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![forward("r", prefix("/"), action)],
        rate_limits: vec![policy],
        ..Default::default()
    };
    let message = RouteConfiguration {
        name: "80".to_owned(),
        virtual_hosts: vec![host],
        ..Default::default()
    };
    let compiled = context().routes("80", &message.encode_to_vec());
    compiled.map(|compiled| compiled.value).map_err(|rejection| rejection.to_string())
}

#[test]
fn a_policy_of_a_route_or_host_is_kept_with_its_stage() {
    let wire = WirePolicy { stage: number(3), x_ratelimit_option: 1, ..policy(generic("g")) };
    let routes = compile(wire).unwrap();
    let host = &routes.virtual_hosts()[0];
    let action::Action::Forward(action) = &host.routes[0].action else { panic!("forwards") };
    for limits in [&host.rate_limits, &action.rate_limits] {
        let [limit] = &limits[..] else { panic!("one policy") };
        assert_eq!((limit.stage, limit.headers), (3, LimitHeaders::Off));
        assert!(matches!(
            &limit.actions[..],
            [DescriptorAction::Generic { key, value }] if &**key == "generic_key" && &**value == "g"
        ));
    }
}

#[test]
fn what_a_policy_cannot_do_here_is_refused_by_name() {
    let header = RequestHeaders { header_name: "x".to_owned(), ..Default::default() };
    let mask = MaskedRemoteAddress { v4_prefix_mask_len: number(33), ..Default::default() };
    let data = MetaData {
        descriptor_key: "k".to_owned(),
        source: Source::RouteEntry as i32,
        metadata_key: Some(MetadataKey::default()),
        ..Default::default()
    };
    for (wire, place) in [
        (
            WirePolicy { stage: number(11), ..policy(generic("g")) },
            "stage: expected 0..=10, got 11",
        ),
        (WirePolicy { disable_key: "k".to_owned(), ..policy(generic("g")) }, "disable_key: not"),
        (WirePolicy { limit: Some(Override::default()), ..policy(generic("g")) }, "limit: not"),
        (WirePolicy { apply_on_stream_done: true, ..policy(generic("g")) }, "apply_on_stream_done"),
        (policy(generic("")), "actions[0].generic_key.descriptor_value: required"),
        (
            policy(ActionSpecifier::SourceCluster(SourceCluster {})),
            "actions[0].source_cluster: not",
        ),
        (
            policy(ActionSpecifier::RequestHeaders(header)),
            "actions[0].request_headers.descriptor_key: required",
        ),
        (
            policy(ActionSpecifier::MaskedRemoteAddress(mask)),
            "actions[0].masked_remote_address.v4_prefix_mask_len: expected at most 32, got 33",
        ),
        (policy(ActionSpecifier::Metadata(data)), "actions[0].metadata.source: not supported"),
    ] {
        let error = compile(wire).unwrap_err();
        // The route's is compiled before the host's.
        let place = format!("RDS 80: virtual_hosts[0].routes[0].route.rate_limits[0].{place}");
        assert!(error.starts_with(&place), "{error}");
    }
}
