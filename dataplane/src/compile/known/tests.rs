//! What the walk stops at, and where it says so.

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{Cluster, OutlierDetection},
            core::v3::{AggregatedConfigSource, HttpProtocolOptions, http_protocol_options},
            listener::v3::{Filter, FilterChain, Listener, filter},
            route::v3::{
                FilterConfig, Route, RouteAction, RouteConfiguration, VirtualHost, route,
                virtual_host::TlsRequirementType,
            },
        },
        extensions::filters::{
            http::router::v3::Router,
            network::http_connection_manager::v3::{
                HttpConnectionManager, http_connection_manager::StripPortMode,
            },
        },
    },
    google::protobuf::{Any, UInt32Value},
};
use proptest::proptest;
use prost::{
    Message as _,
    encoding::{encode_key, encode_varint},
};

use super::{super::fixture::*, *};

/// The bytes with one more field, of a number that no API has.
fn strange(mut body: Vec<u8>) -> Vec<u8> {
    append(&mut body, 9999, b"x");
    body
}

fn append(body: &mut Vec<u8>, number: u32, content: &[u8]) {
    encode_key(number, prost::encoding::WireType::LengthDelimited, body);
    encode_varint(content.len() as u64, body);
    body.extend(content);
}

/// A message that holds this one, encoded, in field `number`.
fn within(number: u32, inner: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    append(&mut body, number, inner);
    body
}

fn refused(kind: ResourceType, body: &[u8]) -> String {
    let Invalid { field, reason, .. } = check(kind, body).expect_err("it is refused");
    format!("{field}: {reason}")
}

fn packed_as(name: &str, value: Vec<u8>) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value }
}

fn with_manager(config: Any) -> Vec<u8> {
    listener("l", chain(vec![network_filter("hcm", config)])).encode_to_vec()
}

#[test]
fn a_field_that_nobody_knows_is_named_by_its_place() {
    const UNKNOWN: &str = "field 9999: not known to this proxy";
    let route = within(1, &strange(within(1, b"/")));
    let host = within(3, &route);
    let router = http_filter("r", packed_as(ROUTER_TYPE, strange(vec![])));
    let manager = any(&manager("80", vec![router]));
    let options = within(
        36,
        &[
            within(1, b"key"),
            within(2, &packed_as(HTTP_OPTIONS_TYPE, strange(vec![])).encode_to_vec()),
        ]
        .concat(),
    );
    for (kind, body, place) in [
        (ResourceType::Cluster, strange(vec![]), ""),
        (ResourceType::Cluster, within(27, &strange(vec![])), "common_lb_config."),
        (
            ResourceType::Route,
            [within(2, b""), within(2, &host)].concat(),
            "virtual_hosts[1].routes[0].match.",
        ),
        (
            ResourceType::Listener,
            with_manager(manager),
            "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.",
        ),
        (ResourceType::Cluster, options, "typed_extension_protocol_options[key]."),
        (ResourceType::Endpoint, within(2, &strange(vec![])), "endpoints[0]."),
        (ResourceType::Secret, within(4, &strange(vec![])), "validation_context."),
    ] {
        assert_eq!(refused(kind, &body), format!("{place}{UNKNOWN}"));
    }
}

const ROUTER_TYPE: &str = "envoy.extensions.filters.http.router.v3.Router";
const HTTP_OPTIONS_TYPE: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

#[test]
fn a_field_that_is_read_elsewhere_is_refused_where_it_is_not() {
    let reject = http_protocol_options::HeadersWithUnderscoresAction::RejectRequest as i32;
    let common =
        HttpProtocolOptions { headers_with_underscores_action: reject, ..Default::default() };
    let manager = HttpConnectionManager {
        common_http_protocol_options: Some(common),
        ..manager("80", vec![router()])
    };
    let place = "filter_chains[0].filters[0].typed_config.common_http_protocol_options.\
                 headers_with_underscores_action: not supported by this proxy";
    assert_eq!(refused(ResourceType::Listener, &with_manager(any(&manager))), place);
    let names = within(4, &within(9, b"")); // SDS: validation_context.match_subject_alt_names
    assert_eq!(
        refused(ResourceType::Secret, &names),
        "validation_context.match_subject_alt_names: not supported by this proxy"
    );
    let ads = AggregatedConfigSource {}.encode_to_vec();
    let source = within(3, &within(1, &within(3, &strange(ads))));
    assert_eq!(
        refused(ResourceType::Cluster, &source),
        "eds_cluster_config.eds_config.ads.field 9999: not known to this proxy"
    );
}

#[test]
fn values_are_known_too() {
    let host = VirtualHost { require_tls: TlsRequirementType::All as i32, ..Default::default() };
    let config = |host| RouteConfiguration { virtual_hosts: vec![host], ..Default::default() };
    let negative = VirtualHost { require_tls: -1, ..host.clone() };
    for (host, value) in [(VirtualHost { require_tls: 3, ..host.clone() }, 3), (negative, -1)] {
        assert_eq!(
            refused(ResourceType::Route, &config(host).encode_to_vec()),
            format!("virtual_hosts[0].require_tls: unknown value {value}")
        );
    }
    assert_eq!(check(ResourceType::Route, &config(host).encode_to_vec()), Ok(()));
    let detector = |percent| Cluster {
        outlier_detection: Some(OutlierDetection {
            enforcing_success_rate: Some(UInt32Value { value: percent }),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(check(ResourceType::Cluster, &detector(0).encode_to_vec()), Ok(()));
    assert_eq!(
        refused(ResourceType::Cluster, &detector(100).encode_to_vec()),
        "outlier_detection.enforcing_success_rate: expected 0, others are not supported by this proxy"
    );
}

#[test]
fn what_two_configurations_would_be_merged_to_is_never_guessed() {
    let first = packed_as("a.Nobody.Knows", strange(vec![])).encode_to_vec();
    let second = within(1, format!("x/{ROUTER_TYPE}").as_bytes());
    let filter = [within(4, &first), within(4, &second)].concat();
    let manager = packed_as(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        within(5, &filter),
    );
    assert_eq!(
        refused(ResourceType::Listener, &with_manager(manager)),
        "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config: given twice"
    );
}

#[test]
fn what_is_nested_without_end_is_refused_before_the_stack_is_used_up() {
    let mut config = any(&Router::default());
    for _ in 0..2_000 {
        config = any(&FilterConfig { config: Some(config), ..Default::default() });
    }
    let host = VirtualHost {
        typed_per_filter_config: [("f".to_owned(), config)].into(),
        ..Default::default()
    };
    let config = RouteConfiguration { virtual_hosts: vec![host], ..Default::default() };
    assert!(refused(ResourceType::Route, &config.encode_to_vec()).ends_with("nested too deep"));
}

#[test]
fn rows_are_in_the_order_of_their_numbers() {
    let mut messages: Vec<&Message> = ResourceType::ALL.into_iter().filter_map(resource).collect();
    messages.extend(all_packed());
    let mut seen = 0;
    while let Some(message) = messages.get(seen).copied() {
        seen += 1;
        assert!(message.fields.is_sorted_by(|a, b| a.number < b.number), "{}", message.name);
        assert!(
            message.fields.iter().all(|field| field.number < 64),
            "{} has a number above 63",
            message.name
        );
        for field in message.fields {
            if let In(inner) | Each(inner) | Map(inner) | PackedAs(inner) = field.known
                && !messages.iter().any(|known| std::ptr::eq(*known, inner))
            {
                messages.push(inner);
            }
        }
    }
    assert!(seen > 100, "only {seen} messages");
}

/// A listener of two chains, the second with this manager.
fn two_chains(manager: HttpConnectionManager) -> Listener {
    let http = |manager: &HttpConnectionManager| {
        let config_type = Some(filter::ConfigType::TypedConfig(any(manager)));
        Filter { name: "hcm".to_owned(), config_type }
    };
    let chain = |filter| FilterChain { filters: vec![filter], ..Default::default() };
    Listener {
        filter_chains: vec![chain(http(&self::manager("80", vec![router()])))],
        default_filter_chain: Some(chain(http(&manager))),
        ..Default::default()
    }
}

#[test]
fn what_may_guard_is_found_in_its_part() {
    let strip = HttpConnectionManager {
        strip_port_mode: Some(StripPortMode::StripAnyHostPort(true)),
        ..manager("80", vec![router()])
    };
    let body = two_chains(strip).encode_to_vec();
    assert_eq!(guarding(ResourceType::Listener, &body), [("default_filter_chain", 0)]);
    let reply = HttpConnectionManager {
        local_reply_config: Some(Default::default()),
        ..manager("80", vec![])
    };
    let body = two_chains(reply).encode_to_vec();
    assert!(check(ResourceType::Listener, &body).is_err());
    assert_eq!(guarding(ResourceType::Listener, &body), []);

    let hosts = [within(2, b""), within(2, &strange(vec![])), within(2, b"")].concat();
    assert_eq!(guarding(ResourceType::Route, &hosts), [("virtual_hosts", 1)]);
    assert_eq!(guarding(ResourceType::Route, &strange(vec![])), [("", 0)]);
    let action = RouteAction { priority: 1, ..Default::default() };
    let route = Route { action: Some(route::Action::Route(action)), ..Default::default() };
    let host = VirtualHost { routes: vec![route], ..Default::default() };
    let config = RouteConfiguration { virtual_hosts: vec![host], ..Default::default() };
    assert_eq!(guarding(ResourceType::Route, &config.encode_to_vec()), []);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..300)
    ) {
        for kind in ResourceType::ALL {
            let _ = check(kind, &bytes);
            let _ = guarding(kind, &bytes);
        }
    }
}
