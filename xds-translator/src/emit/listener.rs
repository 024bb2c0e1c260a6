//! Listeners: LDS resources.

use prost::{Message, Name};

use super::{
    access_log::listener_logs,
    any::{any, boolean, duration, uint32},
    endpoint::address,
    filter_chain::filter_chain,
    pb::{
        core, from_proxy_protocol, http_inspector,
        listener::{
            self, ListenerFilterChainMatchPredicate as Predicate, listener_filter,
            listener_filter_chain_match_predicate as predicate,
        },
        original_dst, tls_inspector,
        types::Int32Range,
    },
};
use crate::plan::{Bind, Direction, ListenerFilter, ListenerPlan};

/// As Linux numbers them.
const SOL_SOCKET: i64 = 1;
const SO_REUSEADDR: i64 = 2;

/// An LDS resource.
pub(super) fn listener(plan: &ListenerPlan) -> listener::Listener {
    let direction = match plan.direction {
        Direction::Inbound => core::TrafficDirection::Inbound,
        Direction::Outbound => core::TrafficDirection::Outbound,
        Direction::Unspecified => core::TrafficDirection::Unspecified,
    };
    listener::Listener {
        name: plan.name.to_string(),
        address: Some(address(plan.address.to_string(), plan.port)),
        bind_to_port: if plan.bind == Bind::Captured { boolean(false) } else { None },
        socket_options: if plan.bind == Bind::Chosen { vec![told_apart()] } else { Vec::new() },
        use_original_dst: if plan.use_original_dst { boolean(true) } else { None },
        traffic_direction: direction as i32,
        listener_filters: plan.listener_filters.iter().map(listener_filter).collect(),
        listener_filters_timeout: plan.filters_timeout.map(duration),
        continue_on_listener_filters_timeout: plan.continue_on_timeout,
        filter_chains: plan.chains.iter().map(filter_chain).collect(),
        default_filter_chain: plan.default_chain.as_ref().map(filter_chain),
        max_connections_to_accept_per_socket_event: plan.accept_one.then(|| uint32(1)).flatten(),
        access_log: listener_logs(&plan.access_logs),
        ..Default::default()
    }
}

/// A socket option that every listener has anyway. Envoy gives an update of a listener the sockets
/// of the one before it, whether or not those were opened, unless their options differ: without this
/// a worker dies of a listener that is opened after it was captured, and one that is captured after
/// it was opened leaves a port open at which nobody answers.
pub(crate) fn told_apart() -> core::SocketOption {
    core::SocketOption {
        description: "SO_REUSEADDR".into(),
        level: SOL_SOCKET,
        name: SO_REUSEADDR,
        value: Some(core::socket_option::Value::IntValue(1)),
        state: core::socket_option::SocketState::StatePrebind as i32,
        ..Default::default()
    }
}

fn listener_filter(plan: &ListenerFilter) -> listener::ListenerFilter {
    /// Enough for most client hellos; the inspector reads more when it must.
    const HELLO: u32 = 512;
    match plan {
        // Without rules it only takes the header off, whose addresses are then the connection's.
        ListenerFilter::ProxyProtocol => named(
            "envoy.filters.listener.proxy_protocol",
            &from_proxy_protocol::ProxyProtocol::default(),
            &[],
        ),
        ListenerFilter::OriginalDst => {
            named("envoy.filters.listener.original_dst", &original_dst::OriginalDst::default(), &[])
        }
        ListenerFilter::TlsInspector(off) => {
            let config = tls_inspector::TlsInspector {
                initial_read_buffer_size: uint32(HELLO),
                ..Default::default()
            };
            named("envoy.filters.listener.tls_inspector", &config, off)
        }
        ListenerFilter::HttpInspector(off) => named(
            "envoy.filters.listener.http_inspector",
            &http_inspector::HttpInspector::default(),
            off,
        ),
    }
}

fn named<T: Name + Message>(name: &str, config: &T, off: &[u16]) -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: name.to_owned(),
        filter_disabled: ports(off),
        config_type: Some(listener_filter::ConfigType::TypedConfig(any(config))),
    }
}

/// A predicate that holds for these destination ports.
fn ports(ports: &[u16]) -> Option<Predicate> {
    let port = |port: &u16| {
        let start = i32::from(*port);
        Predicate {
            rule: Some(predicate::Rule::DestinationPortRange(Int32Range { start, end: start + 1 })),
        }
    };
    match ports {
        [] => None,
        [only] => Some(port(only)),
        several => {
            let rules = several.iter().map(port).collect();
            Some(Predicate { rule: Some(predicate::Rule::OrMatch(predicate::MatchSet { rules })) })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{
        emit::tests::{self, chain, file_log, full_listener, http, listener, tcp},
        ir::{
            AlikeQuota, AuthorizerProtocol, ClientCertHeader, Edge, Hostname, HttpAuthorizer,
            LimitRefusal, LogFormat, OwnQuota, Pins, Rate, RequestPart, SharedQuota, StringMatch,
            TlsWords,
        },
        plan::{
            Bind, DownstreamTls, FilterChainPlan, HttpConnection, HttpRole, LimitPlan,
            ListenerFilter, ListenerPlan, PlanItem, QuotaPlan, SecretRef, TerminalFilter,
            TokenFilter, TrustRef,
        },
    };

    const HCM: &str = "/filter_chains/0/filters/0/typed_config";

    fn check(plan: ListenerPlan, expected: &[(&str, &str)]) {
        tests::check(&PlanItem::Listener(Box::new(plan)), expected);
    }

    fn check_http(plan: HttpConnection, expected: &[(&str, &str)]) {
        let pointers: Vec<String> =
            expected.iter().map(|(pointer, _)| format!("{HCM}{pointer}")).collect();
        let expected: Vec<(&str, &str)> = pointers
            .iter()
            .zip(expected)
            .map(|(pointer, (_, json))| (pointer.as_str(), *json))
            .collect();
        check(listener(vec![chain(TerminalFilter::Http(Box::new(plan)))]), &expected);
    }

    #[test]
    fn a_tcp_listener_is_as_small_as_istios() {
        let expected = r#"{"name":"0.0.0.0_80","bind_to_port":false,"traffic_direction":"OUTBOUND",
            "address":{"socket_address":{"address":"0.0.0.0","port_value":80}},
            "filter_chains":[{"filters":[{"name":"envoy.filters.network.tcp_proxy","typed_config":{
                "@type":"type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "cluster":"PassthroughCluster","stat_prefix":"PassthroughCluster"}}]}]}"#;
        check(
            listener(vec![chain(TerminalFilter::Tcp(tcp("PassthroughCluster")))]),
            &[("", expected)],
        );
    }

    #[test]
    fn a_listener_that_is_opened_now_and_then_has_other_options_than_its_captured_form() {
        let option = r#"[{"description":"SO_REUSEADDR","level":"1","name":"2","int_value":"1"}]"#;
        for (bind, options) in
            [(Bind::Captured, "null"), (Bind::Always, "null"), (Bind::Chosen, option)]
        {
            let plan = ListenerPlan { bind, ..listener(Vec::new()) };
            check(plan, &[("/socket_options", options)]);
        }
    }

    #[test]
    fn inspectors_are_off_for_ports_that_need_none() {
        let range = |port: i32| {
            format!(r#"{{"destination_port_range":{{"start":{port},"end":{}}}}}"#, port + 1)
        };
        let both = format!(r#"{{"or_match":{{"rules":[{},{}]}}}}"#, range(9080), range(15006));
        check(
            full_listener(),
            &[
                ("/bind_to_port", "null"),
                ("/listener_filters/0/filter_disabled", "null"),
                ("/listener_filters/1/filter_disabled", &range(15006)),
                ("/listener_filters/2/filter_disabled", &both),
                ("/listener_filters_timeout", r#""2s""#),
                ("/continue_on_listener_filters_timeout", "true"),
                ("/max_connections_to_accept_per_socket_event", "1"),
                ("/access_log/0/filter", r#"{"response_flag_filter":{"flags":["NR"]}}"#),
                (
                    "/filter_chains/0/filter_chain_match",
                    r#"{"destination_port":9080,"transport_protocol":"tls","server_names":["*.example.com"],
                        "application_protocols":["istio-http/1.1","istio-h2"],
                        "prefix_ranges":[{"address_prefix":"10.0.0.0","prefix_len":8}]}"#,
                ),
                (
                    "/filter_chains/1/filters/1/typed_config/tunneling_config",
                    r#"{"hostname":"far.test:443","use_post":true}"#,
                ),
                ("/default_filter_chain/filters/0/name", r#""envoy.filters.network.tcp_proxy""#),
            ],
        );
    }

    #[test]
    fn each_role_has_its_filters_and_client_certificate_header() {
        let names = |json: serde_json::Value| -> Vec<String> {
            let filters = json.pointer(&format!("{HCM}/http_filters")).unwrap().as_array().unwrap();
            filters
                .iter()
                .map(|f| f["name"].as_str().unwrap().rsplit('.').next().unwrap().to_owned())
                .collect()
        };
        let outbound = HttpConnection { alpn_override: true, ..http(HttpRole::Outbound) };
        let plan = listener(vec![chain(TerminalFilter::Http(Box::new(outbound.clone())))]);
        let outbound_filters = names(tests::json(&PlanItem::Listener(Box::new(plan))));
        assert_eq!(outbound_filters, ["grpc_stats", "fault", "cors", "set_filter_state", "router"]);
        let inbound_filters = names(tests::json(&PlanItem::Listener(Box::new(full_listener()))));
        assert_eq!(inbound_filters, ["rbac", "grpc_stats", "fault", "cors", "router"]);
        check_http(
            outbound,
            &[
                ("/server_name", "null"),
                ("/use_remote_address", "false"),
                (
                    "/http_filters/3/typed_config/on_request_headers/0",
                    r#"{"object_key":"envoy.network.application_protocols","skip_if_empty":true,
                        "format_string":{"text_format_source":{"inline_string":"%CEL(request.protocol == 'HTTP/2' && 'mesh' in xds.cluster_metadata.filter_metadata ? xds.cluster_metadata.filter_metadata.mesh.h2 : 'mesh' in xds.cluster_metadata.filter_metadata ? xds.cluster_metadata.filter_metadata.mesh.h1 : '')%"}}}"#,
                ),
            ],
        );
        check_http(
            http(HttpRole::Gateway),
            &[
                ("/forward_client_cert_details", r#""SANITIZE_SET""#),
                (
                    "/set_current_client_cert_details",
                    r#"{"subject":true,"cert":true,"dns":true,"uri":true}"#,
                ),
                ("/use_remote_address", "true"),
                ("/server_name", r#""istio-envoy""#),
            ],
        );
        check_http(
            http(HttpRole::Inbound { mtls: true }),
            &[
                ("/forward_client_cert_details", r#""APPEND_FORWARD""#),
                ("/set_current_client_cert_details", r#"{"subject":true,"dns":true,"uri":true}"#),
                (
                    "/rds",
                    r#"{"route_config_name":"80","config_source":
                        {"ads":{},"initial_fetch_timeout":"0s","resource_api_version":"V3"}}"#,
                ),
            ],
        );
    }

    #[test]
    fn policies_become_rbac_rules() {
        let rbac = format!("{HCM}/http_filters/0/typed_config");
        let policy = format!("{rbac}/rules/policies/ns[default]-policy[p]-rule[1]");
        let network = "/filter_chains/1/filters/0/typed_config";
        check(
            full_listener(),
            &[
                (
                    &format!("{policy}/permissions/0/and_rules/rules"),
                    r#"[{"or_rules":{"rules":[{"header":{"name":":method","string_match":{"exact":"GET"}}}]}},
                        {"url_path":{"path":{"prefix":"/a/"}}},
                        {"not_rule":{"destination_port":1}}]"#,
                ),
                (
                    &format!("{policy}/principals/0/and_ids/ids"),
                    r#"[{"authenticated":{"principal_name":{"safe_regex":{"regex":".*/ns/default/.*"}}}},
                        {"direct_remote_ip":{"address_prefix":"10.0.0.0","prefix_len":8}}]"#,
                ),
                (&format!("{rbac}/shadow_rules_stat_prefix"), r#""istio_dry_run_allow_""#),
                // Nothing is enforced where every policy is a dry run; an empty alternative never
                // holds.
                (&format!("{network}/rules"), "null"),
                (&format!("{network}/shadow_rules/action"), r#""DENY""#),
                (
                    &format!("{network}/shadow_rules/policies/p/permissions/1"),
                    r#"{"not_rule":{"any":true}}"#,
                ),
                (&format!("{network}/stat_prefix"), r#""tcp.""#),
            ],
        );
    }

    #[test]
    fn who_is_asked_is_asked_first() {
        let asked = |protocol| HttpConnection {
            tokens: Some(TokenFilter { issuers: vec![tests::token("a")], reroutes: false }),
            ask: Some(tests::ask(protocol)),
            ..http(HttpRole::Inbound { mtls: true })
        };
        let mark = |layer: &str| {
            format!(
                r#"{{"filter":"envoy.filters.{layer}.rbac",
                    "path":[{{"key":"istio_ext_authz_shadow_effective_policy_id"}}],
                    "value":{{"string_match":{{"prefix":"istio-ext-authz-opa-"}}}}}}"#
            )
        };
        let grpc = r#"{"envoy_grpc":{"cluster_name":"outbound|9191||opa.example.com","authority":"opa.example.com"},"timeout":"2s"}"#;
        let config = "/http_filters/1/typed_config";
        let marks = "/http_filters/0/typed_config";
        check_http(
            asked(AuthorizerProtocol::Grpc),
            &[
                (&format!("{marks}/rules"), "null"),
                (&format!("{marks}/shadow_rules/action"), r#""DENY""#),
                (&format!("{marks}/shadow_rules_stat_prefix"), r#""istio_ext_authz_""#),
                ("/http_filters/1/name", r#""envoy.filters.http.ext_authz""#),
                (&format!("{config}/grpc_service"), grpc),
                (&format!("{config}/filter_enabled_metadata"), &mark("http")),
                (&format!("{config}/failure_mode_allow"), "true"),
                (&format!("{config}/status_on_error"), r#"{"code":"ServiceUnavailable"}"#),
                (&format!("{config}/clear_route_cache"), "true"),
                (
                    &format!("{config}/with_request_body"),
                    r#"{"max_request_bytes":10,"allow_partial_message":true,"pack_as_bytes":true}"#,
                ),
                ("/http_filters/2/name", r#""envoy.filters.http.jwt_authn""#),
            ],
        );
        let by_http = HttpAuthorizer {
            path_prefix: "/check".into(),
            shown: vec![StringMatch::Exact("Cookie".into())],
            added: [("x-a".into(), "b".into())].into(),
            to_upstream: vec![StringMatch::Suffix("-user".into())],
            ..HttpAuthorizer::default()
        };
        check_http(
            asked(AuthorizerProtocol::Http(by_http)),
            &[
                (
                    &format!("{config}/http_service"),
                    r#"{"server_uri":{"uri":"http://opa.example.com","cluster":"outbound|9191||opa.example.com","timeout":"2s"},
                        "path_prefix":"/check",
                        "authorization_request":{"headers_to_add":[{"key":"x-a","value":"b"}]},
                        "authorization_response":{"allowed_upstream_headers":{"patterns":[{"suffix":"-user","ignore_case":true}]}}}"#,
                ),
                (
                    &format!("{config}/allowed_headers"),
                    r#"{"patterns":[{"exact":"Cookie","ignore_case":true}]}"#,
                ),
            ],
        );
        let chain = |protocol| FilterChainPlan {
            ask: Some(tests::ask(protocol)),
            ..chain(TerminalFilter::Tcp(tcp("a")))
        };
        let filters = "/filter_chains/0/filters";
        check(
            listener(vec![chain(AuthorizerProtocol::Grpc)]),
            &[
                (
                    &format!("{filters}/0/typed_config/shadow_rules_stat_prefix"),
                    r#""istio_ext_authz_""#,
                ),
                (&format!("{filters}/1/typed_config/grpc_service"), grpc),
                (&format!("{filters}/1/typed_config/filter_enabled_metadata"), &mark("network")),
            ],
        );
        // Bytes cannot be asked about by requests: nobody passes.
        let refused = "istio-ext-authz-opa-rule-deny-due-to-bad-CUSTOM-action";
        let rules = format!("{filters}/0/typed_config/rules");
        check(
            listener(vec![chain(AuthorizerProtocol::Http(HttpAuthorizer::default()))]),
            &[
                (&format!("{rules}/action"), r#""DENY""#),
                (&format!("{rules}/policies/{refused}/unknown"), "null"),
                (&format!("{filters}/1/name"), r#""envoy.filters.network.tcp_proxy""#),
            ],
        );
    }

    #[test]
    fn tokens_are_checked_before_access() {
        let checked = |issuers: &[&str]| HttpConnection {
            access: vec![tests::access()],
            tokens: Some(TokenFilter {
                issuers: issuers.iter().map(|issuer| tests::token(issuer)).collect(),
                reroutes: issuers.len() > 1,
            }),
            ..http(HttpRole::Inbound { mtls: true })
        };
        let config = "/http_filters/0/typed_config";
        let keys = serde_json::json!(crate::ir::KeySet::nobodys().as_str());
        let provider = format!(
            r#"{{"issuer":"a","audiences":["shop"],"forward":true,
                "from_headers":[{{"name":"x-jwt","value_prefix":"JWT "}}],"from_params":["t"],"from_cookies":["c"],
                "forward_payload_header":"x-payload","payload_in_metadata":"payload",
                "normalize_payload_in_metadata":{{"space_delimited_claims":["permission","scope"]}},
                "claim_to_headers":[{{"header_name":"x-group","claim_name":"realm.group"}}],
                "local_jwks":{{"inline_string":{keys}}}}}"#
        );
        let one = |name: &str| {
            format!(
                r#"{{"requires_any":{{"requirements":[{{"provider_name":"{name}"}},{{"allow_missing":{{}}}}]}}}}"#
            )
        };
        let rule =
            |requires: &str| format!(r#"[{{"match":{{"prefix":"/"}},"requires":{requires}}}]"#);
        check_http(
            checked(&["a"]),
            &[
                ("/http_filters/0/name", r#""envoy.filters.http.jwt_authn""#),
                ("/http_filters/1/name", r#""envoy.filters.http.rbac""#),
                (&format!("{config}/providers/origins-0"), &provider),
                (&format!("{config}/rules"), &rule(&one("origins-0"))),
                (&format!("{config}/bypass_cors_preflight"), "true"),
            ],
        );
        let all = format!(
            r#"{{"requires_any":{{"requirements":[{{"provider_name":"origins-0"}},{{"provider_name":"origins-1"}},
                {{"requires_all":{{"requirements":[{},{}]}}}}]}}}}"#,
            one("origins-0"),
            one("origins-1")
        );
        check_http(
            checked(&["a", "b"]),
            &[
                (&format!("{config}/providers/origins-1/clear_route_cache"), "true"),
                (&format!("{config}/rules"), &rule(&all)),
            ],
        );
        let by = |name: &str| format!(r#"{{"provider_name":"{name}"}}"#);
        let both = [by("origins-1"), by("origins-2")].join(",");
        let both = format!(r#"{{"requires_all":{{"requirements":[{both}]}}}}"#);
        for (demanded, expected) in [(1..=1, by("origins-1")), (1..=2, both)] {
            let mut http = checked(&["a", "b", "c"]);
            let issuers = http.tokens.as_mut().map(|tokens| &mut tokens.issuers[demanded]);
            issuers.into_iter().flatten().for_each(|(check, _)| check.required = true);
            check_http(http, &[(&format!("{config}/rules"), &rule(&expected))]);
        }
    }

    #[test]
    fn limits_say_what_requests_have_in_common_and_who_counts() {
        let part = |name: &str| RequestPart::Header(name.into());
        let rate = |requests| Rate { requests, window: Duration::from_secs(60) };
        let alike = |value: Option<&str>, requests| AlikeQuota {
            parts: vec![(part("x-plan"), value.map(Into::into))],
            rate: rate(requests),
        };
        let own = QuotaPlan::Own(OwnQuota {
            rate: rate(9),
            alike: vec![
                alike(Some("free"), 1),
                alike(None, 2),
                AlikeQuota {
                    parts: vec![(RequestPart::Claim(vec!["x-plan".into()]), None)],
                    rate: rate(3),
                },
            ],
        });
        let shared = QuotaPlan::Shared {
            cluster: "counters".into(),
            quota: SharedQuota {
                host: Hostname::new("limiter.test"),
                port: 8081,
                domain: "d".into(),
                timeout: Duration::from_secs(2),
                fail_open: false,
                told: vec![vec![
                    RequestPart::Claim(vec!["realm".into(), "plan".into()]),
                    RequestPart::RemoteAddress,
                    RequestPart::Path,
                    RequestPart::Constant("kind".into(), "http".into()),
                ]],
            },
        };
        let refusal = LimitRefusal { status: 503, headers: [("a".into(), "b".into())].into() };
        let plan = |quota| LimitPlan { quota, refusal: refusal.clone() };
        let limited = HttpConnection {
            rate_limits: vec![plan(own), plan(shared), plan(QuotaPlan::Exhausted)],
            ..http(HttpRole::Inbound { mtls: true })
        };
        let token = r#"{"descriptor_key":"realm.plan","metadata_key":{"key":"envoy.filters.http.jwt_authn",
            "path":[{"key":"payload"},{"key":"realm"},{"key":"plan"}]}}"#;
        let told = format!(
            r#"[{{"actions":[{{"metadata":{token}}},{{"remote_address":{{}}}},
            {{"request_headers":{{"header_name":":path","descriptor_key":"path"}}}},
            {{"generic_key":{{"descriptor_value":"http","descriptor_key":"kind"}}}}]}}]"#
        );
        let at = |index: usize, field: &str| format!("/http_filters/{index}/typed_config/{field}");
        let expected = [
            (
                at(0, "rate_limits"),
                r#"[{"actions":[{"request_headers":
                    {"header_name":"x-plan","descriptor_key":"header x-plan"}}]},
                   {"actions":[{"metadata":{"descriptor_key":"claim x-plan","metadata_key":
                    {"key":"envoy.filters.http.jwt_authn",
                    "path":[{"key":"payload"},{"key":"x-plan"}]}}}]}]"#,
            ),
            (
                at(0, "descriptors"),
                r#"[{"entries":[{"key":"header x-plan","value":"free"}],
                    "token_bucket":{"max_tokens":1,"tokens_per_fill":1,"fill_interval":"60s"}},
                   {"entries":[{"key":"header x-plan"}],
                    "token_bucket":{"max_tokens":2,"tokens_per_fill":2,"fill_interval":"60s"}},
                   {"entries":[{"key":"claim x-plan"}],
                    "token_bucket":{"max_tokens":3,"tokens_per_fill":3,"fill_interval":"60s"}}]"#,
            ),
            (at(0, "status"), r#"{"code":"ServiceUnavailable"}"#),
            (
                at(0, "response_headers_to_add"),
                r#"[{"header":{"key":"a","value":"b"},"append_action":"OVERWRITE_IF_EXISTS_OR_ADD"}]"#,
            ),
            (at(1, "domain"), r#""d""#),
            (at(1, "failure_mode_deny"), "true"),
            (at(1, "rate_limited_status"), r#"{"code":"ServiceUnavailable"}"#),
            (at(1, "rate_limit_service/grpc_service/envoy_grpc/cluster_name"), r#""counters""#),
            (at(1, "rate_limits"), told.as_str()),
            (at(2, "token_bucket"), r#"{"tokens_per_fill":1,"fill_interval":"1s"}"#),
        ];
        let expected: Vec<(&str, &str)> =
            expected.iter().map(|(pointer, json)| (pointer.as_str(), *json)).collect();
        check_http(limited, &expected);
    }

    #[test]
    fn limits_of_requests_stand_behind_access() {
        let expected = r#"{"@type":"type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix":"http_local_rate_limiter",
            "token_bucket":{"max_tokens":100,"tokens_per_fill":100,"fill_interval":"1s"},
            "filter_enabled":{"default_value":{"numerator":1000000,"denominator":"MILLION"}},
            "filter_enforced":{"default_value":{"numerator":1000000,"denominator":"MILLION"}}}"#;
        let rate = Rate { requests: 100, window: Duration::from_secs(1) };
        let rate = LimitPlan {
            quota: QuotaPlan::Own(OwnQuota::of(rate)),
            refusal: LimitRefusal::default(),
        };
        let limited = HttpConnection {
            access: vec![tests::access()],
            rate_limits: vec![rate],
            ..http(HttpRole::Inbound { mtls: true })
        };
        check_http(
            limited,
            &[
                ("/http_filters/0/name", r#""envoy.filters.http.rbac""#),
                ("/http_filters/1/typed_config", expected),
            ],
        );
    }

    #[test]
    fn a_gateways_credential_comes_over_the_aggregated_stream() {
        let tls = DownstreamTls {
            certificates: vec![
                SecretRef::Credential("cred".into()),
                SecretRef::Files("/c.pem".into(), "/k.pem".into()),
            ],
            trust: Some(TrustRef::Credential("cred".into())),
            min_version: None,
            max_version: None,
            words: TlsWords::default(),
            ..tests::server_tls()
        };
        let chain = FilterChainPlan { tls: Some(tls), ..chain(TerminalFilter::Tcp(tcp("a"))) };
        let common = "/filter_chains/0/transport_socket/typed_config/common_tls_context";
        check(
            listener(vec![chain]),
            &[
                (
                    &format!("{common}/tls_certificate_sds_secret_configs/0"),
                    r#"{"name":"kubernetes://cred","sds_config":{"ads":{},"resource_api_version":"V3"}}"#,
                ),
                (
                    &format!("{common}/tls_certificate_sds_secret_configs/1/name"),
                    r#""file-cert:/c.pem~/k.pem""#,
                ),
                (&format!("{common}/tls_params"), "null"),
                (
                    &format!(
                        "{common}/combined_validation_context/validation_context_sds_secret_config/name"
                    ),
                    r#""kubernetes://cred-cacert""#,
                ),
            ],
        );
    }

    #[test]
    fn what_files_say_is_revoked_comes_with_their_roots() {
        let name = |roots: &str, revoked: &str, expected: &str| {
            let files = TrustRef::Files { roots: roots.into(), revoked: revoked.into() };
            let tls = DownstreamTls { trust: Some(files), ..tests::server_tls() };
            let chain = FilterChainPlan { tls: Some(tls), ..chain(TerminalFilter::Tcp(tcp("a"))) };
            let secret = "/filter_chains/0/transport_socket/typed_config/common_tls_context\
                          /combined_validation_context/validation_context_sds_secret_config/name";
            check(listener(vec![chain]), &[(secret, &format!("{expected:?}"))]);
        };
        name("/ca.pem", "", "file-root:/ca.pem");
        name("/ca.pem", "/revoked.pem", "file-root:/ca.pem~/revoked.pem");
        name("", "/revoked.pem", "file-root:system~/revoked.pem");
    }

    #[test]
    fn what_a_gateways_clients_must_be_and_what_stands_before_it_is_spelled() {
        let tls = DownstreamTls {
            pins: Pins { keys: vec!["k=".into()], certificates: vec!["0f".into()] },
            words: TlsWords { suites: Vec::new(), curves: vec!["P-256".into()] },
            ..tests::server_tls()
        };
        let edge = Edge {
            trusted_proxies: 2,
            client_cert: ClientCertHeader::Append,
            proxy_protocol: true,
        };
        let http = HttpConnection { edge, ..http(HttpRole::Gateway) };
        let chain =
            FilterChainPlan { tls: Some(tls), ..chain(TerminalFilter::Http(Box::new(http))) };
        let plan = ListenerPlan {
            listener_filters: vec![ListenerFilter::ProxyProtocol],
            ..listener(vec![chain])
        };
        let common = "/filter_chains/0/transport_socket/typed_config/common_tls_context";
        let validation = format!("{common}/combined_validation_context/default_validation_context");
        check(
            plan,
            &[
                (&format!("{validation}/verify_certificate_spki"), r#"["k="]"#),
                (&format!("{validation}/verify_certificate_hash"), r#"["0f"]"#),
                (&format!("{common}/tls_params/ecdh_curves"), r#"["P-256"]"#),
                (&format!("{HCM}/xff_num_trusted_hops"), "2"),
                (&format!("{HCM}/forward_client_cert_details"), r#""APPEND_FORWARD""#),
                ("/listener_filters/0/name", r#""envoy.filters.listener.proxy_protocol""#),
            ],
        );
    }

    #[test]
    fn a_json_log_takes_the_users_fields_or_istios() {
        let log = |format: &str| vec![file_log(LogFormat::Json(format.into()))];
        let format = "/access_log/0/typed_config/log_format/json_format";
        let with = |format| HttpConnection { access_logs: log(format), ..http(HttpRole::Outbound) };
        check_http(
            with(r#"{"a":{"b":["%PROTOCOL%",1,true,null]}}"#),
            &[(format, r#"{"a":{"b":["%PROTOCOL%",1.0,true,null]}}"#)],
        );
        check_http(with("not json"), &[(&format!("{format}/method"), r#""%REQ(:METHOD)%""#)]);
    }
}
