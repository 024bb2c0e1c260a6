//! What a route does: forwarding, redirects and direct responses.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use envoy_types::pb::envoy::{
    config::{
        core::v3::data_source::Specifier,
        route::v3::{
            DirectResponseAction, RedirectAction, RetryPolicy as WireRetry, RouteAction,
            WeightedCluster as WireWeighted, redirect_action,
            retry_policy::{RetryHostPredicate, retry_host_predicate},
            route_action::{
                ClusterSpecifier, HashPolicy as WireHash, HostRewriteSpecifier,
                RequestMirrorPolicy,
                hash_policy::{Cookie as WireCookie, PolicySpecifier},
            },
            weighted_cluster::{ClusterWeight, cluster_weight},
        },
    },
    r#type::matcher::v3::RegexMatchAndSubstitute,
};
use regex::Regex;

use super::{
    field::{
        At, Invalid, each, flag, limit, number, optional_duration, port, refuse, required, share,
        status, type_name,
    },
    filter,
    header::{self, lists},
    matcher, rate_limit,
};
use crate::runtime::{
    action::{
        DirectResponse, Forward, HashPolicy, HashSource, HostRewrite, Mirror, NewCookie,
        PathRewrite, Redirect, RedirectPath, RetryOn, RetryPolicy,
    },
    matcher::Share,
    target::{ClusterChoice, WeightedCluster, WeightedClusters},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
const DEFAULT_BACK_OFF: Duration = Duration::from_millis(25);

/// Compiles a forwarding action.
#[allow(deprecated, reason = "`include_vh_rate_limits` is what older control planes send")]
pub(super) fn forward(message: &RouteAction) -> Result<Forward, Invalid> {
    Ok(Forward {
        cluster: cluster(message)?,
        cluster_not_found_status: match message.cluster_not_found_response_code {
            1 => 404,
            2 => 500,
            _ => 503,
        },
        timeout: timeout(message)?,
        max_grpc_timeout: max_grpc_timeout(message)?,
        idle_timeout: optional_duration("idle_timeout", message.idle_timeout.as_ref())?,
        path_rewrite: path_rewrite(&message.prefix_rewrite, message.regex_rewrite.as_ref())?,
        host_rewrite: host_rewrite(message)?,
        append_forwarded_host: message.append_x_forwarded_host,
        retry: message.retry_policy.as_ref().map(retry).transpose().at("retry_policy")?,
        hash: each("hash_policy", &message.hash_policy, hash)?,
        mirrors: message.request_mirror_policies.iter().map(mirror).collect(),
        rate_limits: each("rate_limits", &message.rate_limits, rate_limit::policy)?,
        include_host_rate_limits: flag(message.include_vh_rate_limits.as_ref(), false),
        upgrades: message
            .upgrade_configs
            .iter()
            .map(|upgrade| {
                (
                    upgrade.upgrade_type.to_ascii_lowercase().into(),
                    flag(upgrade.enabled.as_ref(), true),
                )
            })
            .collect(),
    })
}

fn cluster(message: &RouteAction) -> Result<ClusterChoice, Invalid> {
    match required("cluster_specifier", message.cluster_specifier.as_ref())? {
        ClusterSpecifier::Cluster(name) => Ok(ClusterChoice::One(name.as_str().into())),
        ClusterSpecifier::ClusterHeader(name) => {
            Ok(ClusterChoice::Header(name.to_ascii_lowercase().into()))
        }
        ClusterSpecifier::WeightedClusters(weighted) => {
            weighted_clusters(weighted).at("weighted_clusters")
        }
        _ => Err(Invalid::new("not supported by this proxy").at("cluster_specifier")),
    }
}

fn weighted_clusters(message: &WireWeighted) -> Result<ClusterChoice, Invalid> {
    let clusters = each("clusters", &message.clusters, weighted_cluster)?;
    let weighted = WeightedClusters::new(clusters);
    weighted
        .map(ClusterChoice::Weighted)
        .ok_or_else(|| Invalid::new("expected a sum of weights above 0").at("clusters"))
}

fn weighted_cluster(message: &ClusterWeight) -> Result<WeightedCluster, Invalid> {
    let host_rewrite = message.host_rewrite_specifier.as_ref();
    Ok(WeightedCluster {
        name: message.name.as_str().into(),
        weight: number(message.weight.as_ref(), 0),
        headers: header::compile(&lists!(message))?,
        host_rewrite: host_rewrite.map(
            |cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)| host.as_str().into(),
        ),
        overrides: filter::overrides(&message.typed_per_filter_config)?,
    })
}

/// Zero means no limit; nothing means Envoy's 15 seconds. A limit for the whole stream counts like
/// one for the answer.
fn timeout(message: &RouteAction) -> Result<Option<Duration>, Invalid> {
    let answer = match optional_duration("timeout", message.timeout.as_ref())? {
        None => Some(DEFAULT_TIMEOUT),
        Some(timeout) => Some(timeout).filter(|timeout| !timeout.is_zero()),
    };
    let stream =
        message.max_stream_duration.as_ref().and_then(|limits| limits.max_stream_duration.as_ref());
    let stream = limit("max_stream_duration.max_stream_duration", stream)?;
    Ok(match (answer, stream) {
        (Some(answer), Some(stream)) => Some(answer.min(stream)),
        (answer, stream) => answer.or(stream),
    })
}

#[allow(deprecated, reason = "`max_grpc_timeout` is what istiod sends")]
fn max_grpc_timeout(message: &RouteAction) -> Result<Option<Duration>, Invalid> {
    let newer = message
        .max_stream_duration
        .as_ref()
        .and_then(|limits| limits.grpc_timeout_header_max.as_ref());
    optional_duration("max_grpc_timeout", newer.or(message.max_grpc_timeout.as_ref()))
}

fn path_rewrite(
    prefix: &str,
    regex: Option<&RegexMatchAndSubstitute>,
) -> Result<PathRewrite, Invalid> {
    match (prefix, regex) {
        ("", None) => Ok(PathRewrite::Keep),
        ("", Some(regex)) => regex_rewrite(regex).at("regex_rewrite"),
        (prefix, None) => Ok(PathRewrite::Prefix(prefix.into())),
        _ => Err(Invalid::new("expected prefix_rewrite or regex_rewrite, got both")),
    }
}

fn regex_rewrite(message: &RegexMatchAndSubstitute) -> Result<PathRewrite, Invalid> {
    let pattern = required("pattern", message.pattern.as_ref())?;
    let expression =
        Regex::new(&pattern.regex).map_err(|error| matcher::bad_regex(&error)).at("pattern")?;
    let substitution =
        substitution(&message.substitution, expression.captures_len()).at("substitution")?;
    Ok(PathRewrite::Regex(expression, substitution))
}

/// Turns RE2's `\1` into `${1}`; a dollar sign has no meaning there and is kept.
fn substitution(text: &str, groups: usize) -> Result<Arc<str>, Invalid> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '$' => out.push_str("$$"),
            '\\' => match chars.next() {
                Some('\\') => out.push('\\'),
                Some(digit)
                    if digit.to_digit(10).is_some_and(|group| (group as usize) < groups) =>
                {
                    out.push_str(&format!("${{{digit}}}"));
                }
                other => {
                    let escape = other.map(String::from).unwrap_or_default();
                    return Err(Invalid::new(format!(
                        "\\{escape} is not a group of the expression"
                    )));
                }
            },
            other => out.push(other),
        }
    }
    Ok(out.into())
}

fn host_rewrite(message: &RouteAction) -> Result<HostRewrite, Invalid> {
    Ok(match &message.host_rewrite_specifier {
        None => HostRewrite::Keep,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            HostRewrite::Literal(host.as_str().into())
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(auto)) if flag(Some(auto), false) => {
            HostRewrite::Endpoint
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(_)) => HostRewrite::Keep,
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            HostRewrite::Header(name.to_ascii_lowercase().into())
        }
        Some(_) => {
            return Err(Invalid::new("not supported by this proxy").at("host_rewrite_specifier"));
        }
    })
}

/// Compiles a retry policy.
pub(super) fn retry(message: &WireRetry) -> Result<Arc<RetryPolicy>, Invalid> {
    let predicate =
        message.retry_host_predicate.iter().find(|predicate| !avoids_tried_hosts(predicate));
    if let Some(predicate) = predicate {
        return Err(Invalid::new(format!("{} is not supported by this proxy", predicate.name))
            .at("retry_host_predicate"));
    }
    let on = RetryOn::parse(&message.retry_on)
        .map_err(|word| Invalid::new(format!("unknown condition {word:?}")).at("retry_on"))?;
    let back_off = message.retry_back_off.as_ref();
    let base =
        limit("retry_back_off.base_interval", back_off.and_then(|b| b.base_interval.as_ref()))?;
    let base = base.unwrap_or(DEFAULT_BACK_OFF);
    let longest =
        limit("retry_back_off.max_interval", back_off.and_then(|b| b.max_interval.as_ref()))?;
    let attempts = u32::try_from(message.host_selection_retry_max_attempts).unwrap_or(0).max(1);
    Ok(Arc::new(RetryPolicy {
        on,
        retries: number(message.num_retries.as_ref(), 1),
        per_try_timeout: limit("per_try_timeout", message.per_try_timeout.as_ref())?,
        statuses: each("retriable_status_codes", &message.retriable_status_codes, |code| {
            status("", *code)
        })?,
        back_off_base: base,
        back_off_max: longest.unwrap_or(base * 10).max(base),
        reselect_attempts: if message.retry_host_predicate.is_empty() { 0 } else { attempts },
    }))
}

/// Whether a predicate asks for another endpoint than those tried; nobody is marked as a canary
/// here.
fn avoids_tried_hosts(predicate: &RetryHostPredicate) -> bool {
    let kind = match &predicate.config_type {
        Some(retry_host_predicate::ConfigType::TypedConfig(config)) => type_name(config),
        None => &predicate.name,
    };
    const PREDICATES: [&str; 4] = [
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
        "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate",
        "envoy.retry_host_predicates.previous_hosts",
        "envoy.retry_host_predicates.omit_canary_hosts",
    ];
    PREDICATES.contains(&kind)
}

fn hash(message: &WireHash) -> Result<HashPolicy, Invalid> {
    let source = match required("policy_specifier", message.policy_specifier.as_ref())? {
        PolicySpecifier::Header(header) => {
            HashSource::Header(header.header_name.to_ascii_lowercase().into())
        }
        PolicySpecifier::Cookie(cookie) => HashSource::Cookie {
            name: cookie.name.as_str().into(),
            new: optional_duration("cookie.ttl", cookie.ttl.as_ref())?
                .map(|ttl| new_cookie(cookie, ttl)),
        },
        PolicySpecifier::ConnectionProperties(properties) => {
            refuse(&[("connection_properties.source_ip", !properties.source_ip)])?;
            HashSource::SourceIp
        }
        PolicySpecifier::QueryParameter(parameter) => {
            HashSource::Query(parameter.name.as_str().into())
        }
        PolicySpecifier::FilterState(_) => {
            return Err(Invalid::new("not supported by this proxy").at("filter_state"));
        }
    };
    Ok(HashPolicy { source, terminal: message.terminal })
}

fn new_cookie(message: &WireCookie, ttl: Duration) -> NewCookie {
    let attributes = message.attributes.iter();
    NewCookie {
        ttl,
        path: message.path.as_str().into(),
        attributes: attributes
            .map(|one| (one.name.as_str().into(), one.value.as_str().into()))
            .collect(),
    }
}

fn mirror(message: &RequestMirrorPolicy) -> Mirror {
    let fraction =
        message.runtime_fraction.as_ref().and_then(|fraction| fraction.default_value.as_ref());
    Mirror {
        cluster: message.cluster.as_str().into(),
        share: fraction.map_or(Share::ALL, share),
        keep_host: message.disable_shadow_host_suffix_append,
    }
}

/// Compiles a redirect.
pub(super) fn redirect(message: &RedirectAction) -> Result<Redirect, Invalid> {
    use redirect_action::{PathRewriteSpecifier as Path, SchemeRewriteSpecifier as Scheme};
    let text = |text: &String| Arc::from(text.as_str());
    Ok(Redirect {
        status: match message.response_code {
            0 => 301,
            1 => 302,
            2 => 303,
            3 => 307,
            4 => 308,
            other => return Err(Invalid::new(format!("unknown value {other}")).at("response_code")),
        },
        scheme: match &message.scheme_rewrite_specifier {
            Some(Scheme::HttpsRedirect(true)) => Some("https".into()),
            Some(Scheme::SchemeRedirect(scheme)) => Some(text(scheme)),
            Some(Scheme::HttpsRedirect(false)) | None => None,
        },
        host: Some(&message.host_redirect).filter(|host| !host.is_empty()).map(text),
        port: Some(port("port_redirect", message.port_redirect)?).filter(|port| *port != 0),
        path: match &message.path_rewrite_specifier {
            None => RedirectPath::Rewrite(PathRewrite::Keep),
            Some(Path::PathRedirect(path)) => RedirectPath::Whole(text(path)),
            Some(Path::PrefixRewrite(prefix)) => {
                RedirectPath::Rewrite(PathRewrite::Prefix(text(prefix)))
            }
            Some(Path::PathRewrite(_)) => {
                return Err(Invalid::new("not supported by this proxy").at("path_rewrite"));
            }
            Some(Path::RegexRewrite(regex)) => {
                RedirectPath::Rewrite(regex_rewrite(regex).at("regex_rewrite")?)
            }
        },
        strip_query: message.strip_query,
    })
}

/// Compiles a direct response.
pub(super) fn direct(message: &DirectResponseAction) -> Result<DirectResponse, Invalid> {
    let body = match message.body.as_ref().and_then(|body| body.specifier.as_ref()) {
        None => Bytes::new(),
        Some(Specifier::InlineString(text)) => Bytes::copy_from_slice(text.as_bytes()),
        Some(Specifier::InlineBytes(bytes)) => Bytes::copy_from_slice(bytes),
        Some(_) => return Err(Invalid::new("expected an inline_string or inline_bytes").at("body")),
    };
    Ok(DirectResponse { status: status("status", message.status)?, body })
}
