//! Route configurations, virtual hosts and routes.

use super::{
    any::{any, boolean, names, uint32},
    filters::{cors, fault},
    headers::Headers,
    matching, metadata,
    pb::{
        protobuf::Any,
        route::{self, route::Action},
    },
    route_action,
};
use crate::plan::{RouteActionPlan, RouteConfigPlan, RoutePlan, VirtualHostPlan};

/// Longest body of a direct response, in bytes; Envoy's default is 4 KiB.
const MAX_DIRECT_RESPONSE_BODY: u32 = 1 << 20;

/// An RDS resource without its virtual hosts.
pub(super) fn configuration_frame(
    name: &str,
    ignore_port_in_host: bool,
) -> route::RouteConfiguration {
    route::RouteConfiguration {
        max_direct_response_body_size_bytes: uint32(MAX_DIRECT_RESPONSE_BODY),
        ..configuration(name, ignore_port_in_host, Vec::new())
    }
}

/// A route configuration inside a listener.
pub(super) fn inline_configuration(plan: &RouteConfigPlan) -> route::RouteConfiguration {
    let virtual_hosts = plan.virtual_hosts.iter().map(virtual_host).collect();
    configuration(&plan.name, plan.ignore_port_in_host, virtual_hosts)
}

/// Clusters are not checked: they may come after the routes, and a missing one is answered per
/// request.
fn configuration(
    name: &str,
    ignore_port_in_host: bool,
    virtual_hosts: Vec<route::VirtualHost>,
) -> route::RouteConfiguration {
    route::RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        validate_clusters: boolean(false),
        ignore_port_in_host_matching: ignore_port_in_host,
        ..Default::default()
    }
}

/// A virtual host.
pub(super) fn virtual_host(plan: &VirtualHostPlan) -> route::VirtualHost {
    let require_tls = match plan.require_tls {
        true => route::virtual_host::TlsRequirementType::All,
        false => route::virtual_host::TlsRequirementType::None,
    };
    route::VirtualHost {
        name: plan.name.to_string(),
        domains: plan.domains.iter().map(|d| d.to_string()).collect(),
        routes: plan.routes.iter().map(route).collect(),
        require_tls: require_tls as i32,
        include_request_attempt_count: plan.attempt_count,
        ..Default::default()
    }
}

fn route(plan: &RoutePlan) -> route::Route {
    let headers = Headers::new(&plan.headers);
    let action = match &plan.action {
        RouteActionPlan::Forward(forward) => Action::Route(route_action::forward(forward)),
        RouteActionPlan::Redirect(redirect) => Action::Redirect(route_action::redirect(redirect)),
        RouteActionPlan::Direct { status, body } => {
            Action::DirectResponse(route_action::direct(*status, body))
        }
    };
    let stat_prefix = plan.matches.as_ref().and_then(|m| m.stat_prefix.as_deref());
    route::Route {
        name: plan.name.to_string(),
        r#match: Some(matching::route_match(plan.matches.as_ref())),
        action: Some(action),
        metadata: metadata::route(plan.config.as_ref()),
        decorator: decorator(&plan.operation),
        typed_per_filter_config: filter_overrides(plan).collect(),
        request_headers_to_add: headers.request_add,
        request_headers_to_remove: headers.request_remove,
        response_headers_to_add: headers.response_add,
        response_headers_to_remove: headers.response_remove,
        stat_prefix: stat_prefix.unwrap_or_default().to_owned(),
        ..Default::default()
    }
}

fn decorator(operation: &str) -> Option<route::Decorator> {
    (!operation.is_empty())
        .then(|| route::Decorator { operation: operation.to_owned(), ..Default::default() })
}

/// What filters do differently on this route.
fn filter_overrides(plan: &RoutePlan) -> impl Iterator<Item = (String, Any)> {
    let fault = plan.fault.as_ref().map(|f| (names::FAULT.to_owned(), any(&fault::injected(f))));
    let cors = plan.cors.as_ref().map(|c| (names::CORS.to_owned(), any(&cors::policy(c))));
    fault.into_iter().chain(cors)
}

#[cfg(test)]
mod tests {
    use crate::{
        emit::tests::{self, forward, full_route, route, virtual_host},
        plan::{
            ForwardPlan, PathChange, PlanItem, RedirectPlan, RouteActionPlan, RoutePlan,
            VirtualHostPlan,
        },
    };

    /// Checks a route inside a whole route configuration; pointers start at the route.
    fn check(plan: RoutePlan, expected: &[(&str, &str)]) {
        let pointers: Vec<String> = expected
            .iter()
            .map(|(pointer, _)| format!("/virtual_hosts/0/routes/0{pointer}"))
            .collect();
        let expected: Vec<(&str, &str)> = pointers
            .iter()
            .zip(expected)
            .map(|(pointer, (_, json))| (pointer.as_str(), *json))
            .collect();
        tests::check(&PlanItem::VirtualHost(virtual_host(vec![plan])), &expected);
    }

    #[test]
    fn a_route_without_rules_is_istios_default_route() {
        let plan = RouteActionPlan::Forward(Box::new(forward("outbound|80||a")));
        let expected = r#"{"name":"default","match":{"prefix":"/"},
            "route":{"cluster":"outbound|80||a","timeout":"0s","max_stream_duration":{"grpc_timeout_header_max":"0s"}}}"#;
        check(route(plan), &[("", expected)]);
    }

    #[test]
    fn every_part_of_a_rule_is_spelled() {
        let filter = |name| format!("/typed_per_filter_config/envoy.filters.http.{name}");
        check(
            full_route(),
            &[
                ("/match", r#"{"prefix":"/a","case_sensitive":true}"#),
                (
                    "/route/weighted_clusters/clusters/0",
                    r#"{"name":"outbound|80|v1|a","weight":90}"#,
                ),
                (
                    "/route/weighted_clusters/clusters/1",
                    r#"{"name":"outbound|80|v2|a","weight":10,"host_rewrite_literal":"v2.com"}"#,
                ),
                ("/route/regex_rewrite/pattern/regex", r#""^/a/(.*)$""#),
                ("/route/host_rewrite_literal", r#""other.com""#),
                ("/route/timeout", r#""1.500s""#),
                ("/route/max_grpc_timeout", r#""1.500s""#),
                ("/route/idle_timeout", r#""30s""#),
                ("/route/cluster_not_found_response_code", r#""INTERNAL_SERVER_ERROR""#),
                (
                    "/route/retry_policy",
                    r#"{"retry_on":"5xx,retriable-status-codes","num_retries":3,"per_try_timeout":"2s",
                        "retriable_status_codes":[503],"host_selection_retry_max_attempts":"5",
                        "retry_back_off":{"base_interval":"0.025s"},
                        "retry_host_predicate":[{"name":"envoy.retry_host_predicates.previous_hosts","typed_config":
                            {"@type":"type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}],
                        "retry_priority":{"name":"envoy.retry_priorities.previous_priorities","typed_config":
                            {"@type":"type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                             "update_frequency":2}}}"#,
                ),
                (
                    "/route/request_mirror_policies/0",
                    r#"{"cluster":"outbound|80|v2|a","disable_shadow_host_suffix_append":true,"trace_sampled":false,
                        "runtime_fraction":{"default_value":{"numerator":500000,"denominator":"MILLION"}}}"#,
                ),
                (
                    "/route/hash_policy",
                    r#"[{"header":{"header_name":"x-user"}},{"cookie":{"name":"c","path":"/","ttl":"0s",
                            "attributes":[{"name":"SameSite","value":"Lax"}]}},
                        {"connection_properties":{"source_ip":true}},{"query_parameter":{"name":"q"}}]"#,
                ),
                (
                    "/request_headers_to_add",
                    r#"[{"header":{"key":"x-a","value":"1"},"append_action":"OVERWRITE_IF_EXISTS_OR_ADD"},
                        {"header":{"key":"x-b","value":"2"}}]"#,
                ),
                ("/request_headers_to_remove", r#"["x-c"]"#),
                ("/response_headers_to_remove", r#"["server"]"#),
                (
                    &filter("fault"),
                    r#"{"@type":"type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
                        "delay":{"fixed_delay":"5s","percentage":{"numerator":500000,"denominator":"MILLION"}},
                        "abort":{"http_status":503,"percentage":{"numerator":100000,"denominator":"MILLION"}}}"#,
                ),
                (
                    &filter("cors"),
                    r#"{"@type":"type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
                        "allow_origin_string_match":[{"exact":"https://a.com"}],"allow_methods":"GET,PUT",
                        "max_age":"86400","allow_credentials":true,"forward_not_matching_preflights":true,
                        "filter_enabled":{"default_value":{"numerator":100}}}"#,
                ),
                (
                    "/metadata/filter_metadata/istio/config",
                    r#""/apis/networking.istio.io/v1/namespaces/default/virtual-service/a""#,
                ),
                ("/decorator/operation", r#""a:80/*""#),
            ],
        );
    }

    #[test]
    fn a_whole_path_is_replaced_by_an_expression_that_takes_all_of_it() {
        let path = Some(PathChange::Full(r"/new\1".into()));
        let plan = ForwardPlan { path, ..forward("outbound|80||a") };
        let expected = r#"{"pattern":{"regex":"^.*$"},"substitution":"/new\\\\1"}"#;
        check(
            route(RouteActionPlan::Forward(Box::new(plan))),
            &[("/route/regex_rewrite", expected)],
        );
    }

    #[test]
    fn redirects_and_answers_are_spelled() {
        let redirect = RedirectPlan {
            path: Some(PathChange::Prefix("/b".into())),
            authority: Some("b.com".into()),
            port: Some(8443),
            scheme: Some("https".into()),
            code: 308,
        };
        check(
            route(RouteActionPlan::Redirect(redirect)),
            &[(
                "/redirect",
                r#"{"host_redirect":"b.com","port_redirect":8443,"scheme_redirect":"https","prefix_rewrite":"/b",
                    "response_code":"PERMANENT_REDIRECT"}"#,
            )],
        );
        let plain = |path| RedirectPlan {
            path: Some(path),
            authority: None,
            port: None,
            scheme: None,
            code: 301,
        };
        check(
            route(RouteActionPlan::Redirect(plain(PathChange::Full("/c".into())))),
            &[("/redirect", r#"{"path_redirect":"/c"}"#)],
        );
        let regex = PathChange::Regex { pattern: "^/a/?".into(), substitution: "/".into() };
        check(
            route(RouteActionPlan::Redirect(plain(regex))),
            &[(
                "/redirect",
                r#"{"regex_rewrite":{"pattern":{"regex":"^/a/?"},"substitution":"/"}}"#,
            )],
        );
        let direct =
            |body: &[u8]| route(RouteActionPlan::Direct { status: 503, body: body.into() });
        check(
            direct(b"no"),
            &[("/direct_response", r#"{"status":503,"body":{"inline_string":"no"}}"#)],
        );
        check(
            direct(b"\xff"),
            &[("/direct_response", r#"{"status":503,"body":{"inline_bytes":"/w=="}}"#)],
        );
        check(direct(b""), &[("/direct_response", r#"{"status":503}"#)]);
    }

    #[test]
    fn a_configuration_has_istios_settings() {
        let redirecting = VirtualHostPlan { require_tls: true, ..virtual_host(Vec::new()) };
        tests::check(
            &PlanItem::VirtualHost(redirecting),
            &[(
                "",
                r#"{"name":"80","ignore_port_in_host_matching":true,"max_direct_response_body_size_bytes":1048576,
                    "validate_clusters":false,
                    "virtual_hosts":[{"name":"a.default.svc.cluster.local:80","require_tls":"ALL",
                        "domains":["a.default.svc.cluster.local","a"],"include_request_attempt_count":true}]}"#,
            )],
        );
    }
}
