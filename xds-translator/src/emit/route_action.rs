//! What a route does: forward, redirect, answer.

use std::{sync::Arc, time::Duration};

use super::{
    any::{any, boolean, duration, per_million, uint32},
    headers::Headers,
    matching::regex,
    pb::{
        core, matcher, previous_hosts, previous_priorities,
        route::{self, route_action as parts},
    },
};
use crate::{
    ir::{HashKey, PerMillion, RetryCondition},
    plan::{ForwardPlan, PathChange, RedirectPlan, RetryPlan, RouteTimeout, WeightedCluster},
};

/// Forwarding.
pub(super) fn forward(plan: &ForwardPlan) -> route::RouteAction {
    use parts::{ClusterNotFoundResponseCode, HostRewriteSpecifier};
    let missing_cluster = match plan.missing_cluster_500 {
        true => ClusterNotFoundResponseCode::InternalServerError,
        false => ClusterNotFoundResponseCode::ServiceUnavailable,
    };
    let mut action = route::RouteAction {
        cluster_specifier: Some(clusters(&plan.clusters)),
        cluster_not_found_response_code: missing_cluster as i32,
        host_rewrite_specifier: plan
            .host_rewrite
            .as_ref()
            .map(|h| HostRewriteSpecifier::HostRewriteLiteral(h.to_string())),
        retry_policy: plan.retry.as_ref().map(retry_policy),
        request_mirror_policies: plan
            .mirrors
            .iter()
            .map(|(cluster, share)| mirror(cluster, *share))
            .collect(),
        hash_policy: plan.hash.iter().map(hash_policy).collect(),
        idle_timeout: plan.idle_timeout.map(duration),
        ..Default::default()
    };
    set_path(&mut action, plan.path.as_ref());
    set_timeout(&mut action, plan.timeout);
    action
}

fn clusters(clusters: &[WeightedCluster]) -> parts::ClusterSpecifier {
    match clusters {
        [only] if only.headers == Default::default() && only.host_rewrite.is_none() => {
            parts::ClusterSpecifier::Cluster(only.name.to_string())
        }
        several => parts::ClusterSpecifier::WeightedClusters(route::WeightedCluster {
            clusters: several.iter().map(weighted_cluster).collect(),
            ..Default::default()
        }),
    }
}

fn weighted_cluster(plan: &WeightedCluster) -> route::weighted_cluster::ClusterWeight {
    use route::weighted_cluster::cluster_weight::HostRewriteSpecifier;
    let headers = Headers::new(&plan.headers);
    route::weighted_cluster::ClusterWeight {
        name: plan.name.to_string(),
        weight: uint32(plan.weight),
        request_headers_to_add: headers.request_add,
        request_headers_to_remove: headers.request_remove,
        response_headers_to_add: headers.response_add,
        response_headers_to_remove: headers.response_remove,
        host_rewrite_specifier: plan
            .host_rewrite
            .as_ref()
            .map(|h| HostRewriteSpecifier::HostRewriteLiteral(h.to_string())),
        ..Default::default()
    }
}

/// Envoy has no field for a whole path, so that an expression takes all of it.
fn set_path(action: &mut route::RouteAction, change: Option<&PathChange>) {
    match change {
        None => {}
        Some(PathChange::Prefix(prefix)) => action.prefix_rewrite = prefix.to_string(),
        Some(PathChange::Full(path)) => {
            action.regex_rewrite = Some(substituted("^.*$", &path.replace('\\', r"\\")));
        }
        Some(PathChange::Regex { pattern, substitution }) => {
            action.regex_rewrite = Some(substituted(pattern, substitution));
        }
    }
}

fn substituted(pattern: &str, substitution: &str) -> matcher::RegexMatchAndSubstitute {
    matcher::RegexMatchAndSubstitute {
        pattern: Some(regex(pattern)),
        substitution: substitution.to_owned(),
    }
}

/// Without a limit, gRPC's own header still counts. With `max_stream_duration` on a route Envoy no
/// longer looks at `timeout`, so a limit goes with the older `max_grpc_timeout`, as Istio writes
/// it.
#[allow(deprecated, reason = "the newer field switches `timeout` off")]
fn set_timeout(action: &mut route::RouteAction, timeout: RouteTimeout) {
    if let RouteTimeout::After(limit) = timeout {
        action.timeout = Some(duration(limit));
        action.max_grpc_timeout = Some(duration(limit));
        return;
    }
    action.timeout = Some(duration(Duration::ZERO));
    action.max_stream_duration = Some(parts::MaxStreamDuration {
        max_stream_duration: (timeout == RouteTimeout::Inbound).then(|| duration(Duration::ZERO)),
        grpc_timeout_header_max: Some(duration(Duration::ZERO)),
        ..Default::default()
    });
}

fn retry_policy(plan: &RetryPlan) -> route::RetryPolicy {
    /// How often another endpoint is drawn when one was tried before.
    const HOST_SELECTION_ATTEMPTS: i64 = 5;
    let backoff = plan.backoff.map(|base| route::retry_policy::RetryBackOff {
        base_interval: Some(duration(base)),
        ..Default::default()
    });
    route::RetryPolicy {
        retry_on: plan.conditions.iter().map(|c| condition(*c)).collect::<Vec<_>>().join(","),
        num_retries: uint32(plan.attempts),
        per_try_timeout: plan.per_try_timeout.map(duration),
        retriable_status_codes: plan.statuses.iter().map(|s| u32::from(*s)).collect(),
        retry_host_predicate: plan
            .avoid_previous_hosts
            .then(avoid_previous_hosts)
            .into_iter()
            .collect(),
        host_selection_retry_max_attempts: if plan.avoid_previous_hosts {
            HOST_SELECTION_ATTEMPTS
        } else {
            0
        },
        retry_priority: plan.remote_localities.then(other_priorities),
        retry_back_off: backoff,
        ..Default::default()
    }
}

/// Envoy's word.
fn condition(condition: RetryCondition) -> &'static str {
    match condition {
        RetryCondition::ServerError => "5xx",
        RetryCondition::GatewayError => "gateway-error",
        RetryCondition::Reset => "reset",
        RetryCondition::ResetBeforeRequest => "reset-before-request",
        RetryCondition::ConnectFailure => "connect-failure",
        RetryCondition::RateLimited => "envoy-ratelimited",
        RetryCondition::Conflict => "retriable-4xx",
        RetryCondition::RefusedStream => "refused-stream",
        RetryCondition::ListedStatus => "retriable-status-codes",
        RetryCondition::ListedHeader => "retriable-headers",
        RetryCondition::Http3Failure => "http3-post-connect-failure",
        RetryCondition::GrpcCancelled => "cancelled",
        RetryCondition::GrpcDeadlineExceeded => "deadline-exceeded",
        RetryCondition::GrpcInternal => "internal",
        RetryCondition::GrpcResourceExhausted => "resource-exhausted",
        RetryCondition::GrpcUnavailable => "unavailable",
    }
}

fn avoid_previous_hosts() -> route::retry_policy::RetryHostPredicate {
    use route::retry_policy::retry_host_predicate::ConfigType;
    route::retry_policy::RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(ConfigType::TypedConfig(any(
            &previous_hosts::PreviousHostsPredicate::default(),
        ))),
    }
}

fn other_priorities() -> route::retry_policy::RetryPriority {
    use route::retry_policy::retry_priority::ConfigType;
    /// Tries until the priorities are weighed anew.
    const UPDATE_FREQUENCY: i32 = 2;
    let config =
        previous_priorities::PreviousPrioritiesConfig { update_frequency: UPDATE_FREQUENCY };
    route::retry_policy::RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(ConfigType::TypedConfig(any(&config))),
    }
}

fn mirror(cluster: &str, share: PerMillion) -> parts::RequestMirrorPolicy {
    parts::RequestMirrorPolicy {
        cluster: cluster.to_owned(),
        runtime_fraction: Some(core::RuntimeFractionalPercent {
            default_value: Some(per_million(share.0)),
            ..Default::default()
        }),
        trace_sampled: boolean(false),
        disable_shadow_host_suffix_append: true,
        ..Default::default()
    }
}

fn hash_policy(key: &HashKey) -> parts::HashPolicy {
    use parts::hash_policy::{
        ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
    };
    let specifier = match key {
        HashKey::Header(name) => {
            PolicySpecifier::Header(Header { header_name: name.to_string(), ..Default::default() })
        }
        HashKey::Cookie { name, path, ttl, attributes } => {
            let attribute = |(name, value): &(Arc<str>, Arc<str>)| CookieAttribute {
                name: name.to_string(),
                value: value.to_string(),
            };
            PolicySpecifier::Cookie(Cookie {
                name: name.to_string(),
                path: path.to_string(),
                ttl: ttl.map(duration),
                attributes: attributes.iter().map(attribute).collect(),
            })
        }
        HashKey::SourceIp => {
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
        }
        HashKey::QueryParameter(name) => {
            PolicySpecifier::QueryParameter(QueryParameter { name: name.to_string() })
        }
    };
    parts::HashPolicy { policy_specifier: Some(specifier), ..Default::default() }
}

/// A redirect.
pub(super) fn redirect(plan: &RedirectPlan) -> route::RedirectAction {
    use route::redirect_action::{
        PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
    };
    let code = match plan.code {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    let path = plan.path.as_ref().map(|p| match p {
        PathChange::Full(path) => PathRewriteSpecifier::PathRedirect(path.to_string()),
        PathChange::Prefix(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix.to_string()),
        PathChange::Regex { pattern, substitution } => {
            PathRewriteSpecifier::RegexRewrite(substituted(pattern, substitution))
        }
    });
    route::RedirectAction {
        host_redirect: plan.authority.as_deref().unwrap_or_default().to_owned(),
        port_redirect: plan.port.unwrap_or(0).into(),
        response_code: code as i32,
        scheme_rewrite_specifier: plan
            .scheme
            .as_ref()
            .map(|s| SchemeRewriteSpecifier::SchemeRedirect(s.to_string())),
        path_rewrite_specifier: path,
        ..Default::default()
    }
}

/// A direct answer.
pub(super) fn direct(status: u16, body: &[u8]) -> route::DirectResponseAction {
    use core::data_source::Specifier;
    let specifier = match std::str::from_utf8(body) {
        Ok(text) => Specifier::InlineString(text.to_owned()),
        Err(_) => Specifier::InlineBytes(body.to_vec()),
    };
    let body = (!body.is_empty())
        .then(|| core::DataSource { specifier: Some(specifier), ..Default::default() });
    route::DirectResponseAction { status: status.into(), body, ..Default::default() }
}
