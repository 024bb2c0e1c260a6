//! Messages as control planes send them, compiled; and what must be refused, with the field that is
//! named.

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{
                SocketOption, SubstitutionFormatString, socket_option,
                substitution_format_string::Format,
            },
            listener::v3::FilterChainMatch as WireChainMatch,
            rbac::v3::{
                Permission, Policy as WirePolicy, Principal, Rbac as WireRules, permission::Rule,
                principal::Identifier, rbac::Action,
            },
        },
        extensions::filters::{
            common::set_filter_state::v3::{FilterStateValue, filter_state_value},
            http::{
                rbac::v3::Rbac as HttpRbac, router::v3::Router,
                set_filter_state::v3::Config as SetFilterState, wasm::v3::Wasm,
            },
            network::{
                http_connection_manager::v3::HttpFilter as WireHttpFilter,
                rbac::v3::Rbac as NetworkRbac,
                tcp_proxy::v3::{TcpProxy as WireTcp, tcp_proxy::ClusterSpecifier},
            },
        },
    },
    google::protobuf::{Any, UInt32Value},
};
use proptest::proptest;
use prost::Message;

use super::{fixture::*, *};
use crate::runtime::{ConnectionFacts, HttpFilter, Terminal, TransportProtocol};

mod clusters;
mod jwt_authn;
mod local_rate_limits;
mod logs;
mod rate_limits;
mod routes;
mod services;
mod traces;

fn context() -> Context {
    Context::default()
}

fn compile_listener(
    message: &envoy_types::pb::envoy::config::listener::v3::Listener,
) -> Result<Arc<Listener>, String> {
    let compiled = context().listener(&message.name, 1, &message.encode_to_vec());
    compiled.map(|compiled| compiled.value).map_err(|rejection| rejection.to_string())
}

fn tcp(cluster: &str) -> Any {
    let cluster = ClusterSpecifier::Cluster(cluster.to_owned());
    any(&WireTcp {
        stat_prefix: "tcp".to_owned(),
        cluster_specifier: Some(cluster),
        ..Default::default()
    })
}

fn rules(permission: Rule, principal: Identifier) -> WireRules {
    let policy = WirePolicy {
        permissions: vec![Permission { rule: Some(permission) }],
        principals: vec![Principal { identifier: Some(principal) }],
        ..Default::default()
    };
    let policies = [("ns[default]-policy[a]-rule[0]".to_owned(), policy)].into();
    WireRules { action: Action::Deny as i32, policies, ..Default::default() }
}

fn with_http_filter(filter: WireHttpFilter) -> Result<Arc<Listener>, String> {
    let manager = manager("80", vec![filter, router()]);
    compile_listener(&listener("l", chain(vec![network_filter("hcm", any(&manager))])))
}

fn http_filters(listener: &Listener) -> Vec<&HttpFilter> {
    match &listener.chains[0].terminal {
        Terminal::Http(manager) => manager.filters.iter().map(|named| &named.filter).collect(),
        Terminal::Tcp(_) => panic!("expected HTTP"),
    }
}

#[test]
fn a_permissive_inbound_listener_keeps_its_five_chains_apart() {
    let matching = |transport: &str, protocols: &[&str]| WireChainMatch {
        transport_protocol: transport.to_owned(),
        application_protocols: protocols.iter().map(|p| (*p).to_owned()).collect(),
        ..Default::default()
    };
    let mut message = http_listener("virtualInbound", "inbound");
    let http = message.filter_chains[0].filters.clone();
    let tcp = vec![network_filter("tcp", tcp("inbound|9080||"))];
    let chains = [
        (matching("tls", &["istio-http/1.1", "istio-h2"]), http.clone()),
        (matching("raw_buffer", &["http/1.1", "h2c"]), http),
        (matching("tls", &["istio-peer-exchange", "istio"]), tcp.clone()),
        (matching("raw_buffer", &[]), tcp.clone()),
        (matching("tls", &[]), tcp),
    ];
    message.filter_chains = chains
        .into_iter()
        .enumerate()
        .map(|(index, (wanted, filters))| {
            envoy_types::pb::envoy::config::listener::v3::FilterChain {
                filter_chain_match: Some(wanted),
                filters,
                name: index.to_string(),
                ..Default::default()
            }
        })
        .collect();
    let listener = compile_listener(&message).unwrap();
    let mut facts =
        ConnectionFacts::plaintext(([10, 0, 0, 1], 9).into(), ([10, 0, 0, 2], 9080).into());
    assert_eq!(&*listener.matching_chain(&facts).unwrap().name, "3");
    facts.transport = TransportProtocol::Tls;
    facts.application_protocols = vec!["istio-h2".into(), "istio".into(), "h2".into()];
    assert_eq!(&*listener.matching_chain(&facts).unwrap().name, "0");
}

#[test]
fn filters_without_effect_are_left_out_and_unknown_ones_refuse_the_listener() {
    let stats =
        Any { type_url: "type.googleapis.com/stats.PluginConfig".to_owned(), value: vec![] };
    let listener = with_http_filter(http_filter("istio.stats", stats.clone())).unwrap();
    assert!(matches!(http_filters(&listener)[..], [HttpFilter::Router { .. }]));

    // A `TypedStruct` is judged by the type that it wraps.
    let wrap = |url: &str| {
        let mut value = vec![0x0a, u8::try_from(url.len()).unwrap()];
        value.extend(url.as_bytes());
        Any { type_url: "type.googleapis.com/udpa.type.v1.TypedStruct".to_owned(), value }
    };
    let exchange = wrap("type.googleapis.com/io.istio.http.peer_metadata.Config");
    assert!(with_http_filter(http_filter("istio.metadata_exchange", exchange)).is_ok());

    let path = "LDS l: filter_chains[0].filters[0].typed_config.http_filters[0].typed_config";
    for (name, config) in [
        ("envoy.filters.http.wasm", any(&Wasm::default())),
        ("envoy.filters.http.oauth2", wrap("x/envoy.extensions.filters.http.oauth2.v3.OAuth2")),
    ] {
        let error = with_http_filter(http_filter(name, config)).unwrap_err();
        assert!(
            error.starts_with(path) && error.contains(name) && error.contains("not supported"),
            "{error}"
        );
    }

    let config = any(&Router::default());
    let disabled =
        WireHttpFilter { disabled: true, ..http_filter("envoy.filters.http.router", config) };
    assert!(with_http_filter(disabled).unwrap_err().contains("http_filters[0].disabled"));
}

#[test]
fn network_filters_need_one_that_takes_the_connection() {
    let twice = chain(vec![network_filter("a", tcp("c")), network_filter("b", tcp("c"))]);
    assert!(compile_listener(&listener("l", twice)).unwrap_err().contains("a filter follows"));
    assert!(
        compile_listener(&listener("l", chain(vec![]))).unwrap_err().contains("expected tcp_proxy")
    );

    let rbac = NetworkRbac {
        rules: Some(rules(Rule::Any(true), Identifier::Any(true))),
        ..Default::default()
    };
    let guarded = chain(vec![network_filter("rbac", any(&rbac)), network_filter("b", tcp("c"))]);
    let listener = compile_listener(&listener("l", guarded)).unwrap();
    let facts = ConnectionFacts::plaintext(([10, 0, 0, 1], 9).into(), ([10, 0, 0, 2], 80).into());
    assert!(!listener.chains[0].rbac[0].decide_connection(&facts).is_allowed());
}

#[test]
#[allow(deprecated, reason = "what is deprecated must be refused too")]
fn conditions_that_cannot_be_judged_refuse_the_listener() {
    for (permission, principal, field) in [
        (Rule::Metadata(Default::default()), Identifier::Any(true), "permissions[0].metadata"),
        (
            Rule::UriTemplate(Default::default()),
            Identifier::Any(true),
            "permissions[0].uri_template",
        ),
        (Rule::Any(true), Identifier::Metadata(Default::default()), "principals[0].metadata"),
        (
            Rule::Any(true),
            Identifier::FilterState(Default::default()),
            "principals[0].filter_state.key",
        ),
        (
            Rule::DestinationIp(Default::default()),
            Identifier::Any(true),
            "permissions[0].destination_ip.address_prefix",
        ),
        (Rule::NotRule(Box::default()), Identifier::Any(true), "permissions[0].not_rule.rule"),
    ] {
        let rbac = HttpRbac { rules: Some(rules(permission, principal)), ..Default::default() };
        let error =
            with_http_filter(http_filter("envoy.filters.http.rbac", any(&rbac))).unwrap_err();
        assert!(
            error.contains(&format!("rules.policies[ns[default]-policy[a]-rule[0]].{field}")),
            "{error}"
        );
    }
}

#[test]
fn shadow_rules_enforce_nothing_and_leave_their_finding() {
    let shadow = HttpRbac {
        shadow_rules: Some(rules(Rule::Any(true), Identifier::Any(true))),
        shadow_rules_stat_prefix: "try_".to_owned(),
        ..Default::default()
    };
    let listener = with_http_filter(http_filter("envoy.filters.http.rbac", any(&shadow))).unwrap();
    let [HttpFilter::Rbac(access), HttpFilter::Router { .. }] = http_filters(&listener)[..] else {
        panic!("{listener:?}")
    };
    assert!(access.enforced.is_none());
    let keys = access.shadow.as_ref().map(|shadow| (&*shadow.policy_key, &*shadow.result_key));
    assert_eq!(keys, Some(("try_shadow_effective_policy_id", "try_shadow_engine_result")));
    let none = http_filter("envoy.filters.http.rbac", any(&HttpRbac::default()));
    assert!(matches!(
        http_filters(&with_http_filter(none).unwrap())[..],
        [HttpFilter::Router { .. }]
    ));
}

fn filter_state(key: &str, text: &str) -> WireHttpFilter {
    #[allow(deprecated, reason = "one of two spellings")]
    let format = SubstitutionFormatString {
        format: Some(Format::TextFormat(text.to_owned())),
        ..Default::default()
    };
    let value = FilterStateValue {
        key: Some(filter_state_value::Key::ObjectKey(key.to_owned())),
        value: Some(filter_state_value::Value::FormatString(format)),
        ..Default::default()
    };
    let config = SetFilterState { on_request_headers: vec![value], ..Default::default() };
    http_filter("envoy.filters.http.set_filter_state", any(&config))
}

#[test]
fn alpn_by_cluster_metadata_is_the_only_filter_state() {
    let alpn = "%CEL(request.protocol == 'HTTP/2' ? xds.cluster_metadata.filter_metadata.mesh.h2 : \
        xds.cluster_metadata.filter_metadata.mesh.h1)%";
    let listener =
        with_http_filter(filter_state("envoy.network.application_protocols", alpn)).unwrap();
    assert!(matches!(
        http_filters(&listener)[..],
        [HttpFilter::MeshAlpn, HttpFilter::Router { .. }]
    ));
    let other =
        with_http_filter(filter_state("envoy.network.upstream_server_name", alpn)).unwrap_err();
    assert!(other.contains("on_request_headers[0].object_key"), "{other}");
    let fixed =
        with_http_filter(filter_state("envoy.network.application_protocols", "h2")).unwrap_err();
    assert!(fixed.contains("on_request_headers[0].format_string"), "{fixed}");
}

#[test]
fn names_must_agree_and_nonsense_is_refused() {
    let message = http_listener("l", "80");
    let error = context().listener("m", 1, &message.encode_to_vec()).err().unwrap();
    assert_eq!(error.to_string(), "LDS m: name: expected \"m\" as in the response, got \"l\"");
    assert!(
        context()
            .cluster("c", &[0xff])
            .err()
            .unwrap()
            .to_string()
            .starts_with("CDS c: not a valid message")
    );
}

#[test]
fn chains_that_match_the_same_are_refused() {
    let mut message = http_listener("l", "80");
    message.filter_chains.push(message.filter_chains[0].clone());
    assert_eq!(
        compile_listener(&message).unwrap_err(),
        "LDS l: filter_chains: filter chains 0 and 1 match the same connections"
    );
}

#[test]
fn only_the_socket_option_that_every_listener_has_is_taken() {
    let mut message = http_listener("l", "80");
    let with = |level, name, value| SocketOption {
        level,
        name,
        value: Some(socket_option::Value::IntValue(value)),
        ..Default::default()
    };
    message.socket_options = vec![with(1, 2, 1)];
    assert!(compile_listener(&message).is_ok());
    for other in [with(1, 2, 0), with(1, 9, 1), with(6, 2, 1)] {
        message.socket_options = vec![with(1, 2, 1), other];
        assert_eq!(
            compile_listener(&message).unwrap_err(),
            "LDS l: socket_options[1]: only SO_REUSEADDR (level 1, name 2, value 1) is supported"
        );
    }
}

#[test]
fn a_listener_names_its_routes_and_secrets() {
    let compiled = context().listener("l", 1, &http_listener("l", "80").encode_to_vec()).unwrap();
    assert!(compiled.needs.routes.contains("80") && compiled.needs.secrets.is_empty());
    let own = context().listener("l", 1, &tls_listener("l", "default").encode_to_vec()).unwrap();
    assert!(own.needs.secrets.is_empty(), "the workload's own certificate is not asked for");
    let foreign = context().listener("l", 1, &tls_listener("l", "shop").encode_to_vec()).unwrap();
    assert!(foreign.needs.secrets.contains("shop"));
}

#[test]
fn a_private_key_never_shows_in_an_error() {
    use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
    let mut message = certificate("shop");
    let Some(Type::TlsCertificate(certificate)) = &mut message.r#type else {
        panic!("a certificate")
    };
    let swapped = certificate.certificate_chain.clone();
    certificate.certificate_chain = std::mem::replace(&mut certificate.private_key, swapped);
    let error = context().secret("shop", &message.encode_to_vec()).err().unwrap().to_string();
    assert!(error.starts_with("SDS shop: tls_certificate.") && error.len() < 120, "{error}");
    let whole = context().secret("shop", &self::certificate("shop").encode_to_vec()).unwrap();
    assert_eq!(format!("{:?}", whole.value), "certificate(1 in chain)");
}

#[test]
fn how_much_a_connection_holds_is_read_where_it_is_said() {
    let mut listener = http_listener("l", "r");
    let mut cluster = static_cluster("c", ([127, 0, 0, 1], 1).into());
    for (said, held) in [(None, 1 << 20), (Some(5000), 5000)] {
        let bytes = || said.map(|value| UInt32Value { value });
        listener.per_connection_buffer_limit_bytes = bytes();
        cluster.per_connection_buffer_limit_bytes = bytes();
        assert_eq!(compile_listener(&listener).unwrap().buffer.of_body(None), held);
        let compiled = context().cluster("c", &cluster.encode_to_vec()).unwrap().value;
        assert_eq!(compiled.connection.buffer.of_body(None), held);
    }
    listener.per_connection_buffer_limit_bytes = Some(UInt32Value { value: 0 });
    let refused = compile_listener(&listener).unwrap_err();
    let expected = "LDS l: per_connection_buffer_limit_bytes: expected at least 1, got 0";
    assert!(refused.starts_with(expected), "{refused}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..200)) {
        let mut context = context();
        let _ = context.cluster("c", &bytes);
        let _ = context.listener("l", 1, &bytes);
        let _ = context.routes("r", &bytes);
        let _ = context.endpoints("e", &bytes);
        let _ = context.secret("s", &bytes);
    }
}
