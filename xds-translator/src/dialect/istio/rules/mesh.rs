//! Rules of the mesh configuration.

use std::time::Duration;

use super::{
    backend::{check_outlier, check_pool},
    format::check_format,
    line::remark_refused_by_ours,
    locality::{check_locality, check_zone_aware},
    log::{check_log_fields, check_log_file},
    provider::check_providers,
    route::check_retries,
    time::{check_duration, check_optional_duration},
    tls::{check_cipher_suites, check_curves, remark_curves_of_envoy, remark_suites_of_envoy},
    variables,
};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{each, is_dns_name},
        istio::mesh_config::{
            AccessLogEncoding, ForwardClientCert, GatewayTopology, InterceptionMode, MeshConfig,
            ProxyDefaults, ProxyStatsMatcher, SelectorOperator, ServerHeader,
        },
    },
};

/// Where sidecars listen unless told otherwise.
const OUTBOUND_PORT: u16 = 15001;
const INBOUND_PORT: u16 = 15006;

/// Notes a malformed log format. Text that should be JSON and is not falls back to the default.
fn check_log_format(mesh: &MeshConfig, at: &mut Decoder) {
    if mesh.access_log_encoding != Some(AccessLogEncoding::Json) {
        return check_format(&mesh.access_log_format, at);
    }
    match serde_json::from_str(&mesh.access_log_format) {
        Ok(fields @ serde_json::Value::Object(_)) => check_log_fields(&fields, at),
        _ if mesh.access_log_format.is_empty() => {}
        _ => at.remark(|path| {
            Diagnostic::warning(
                Code::NoEffect,
                path,
                "not a JSON object, so the default fields are logged",
            )
        }),
    }
}

/// Says what clients may write themselves, and what only Envoy takes.
fn check_topology(topology: &GatewayTopology, at: &mut Decoder) {
    if topology.forward_client_cert_details == Some(ForwardClientCert::AlwaysForwardOnly) {
        let message = "`x-forwarded-client-cert` is whatever clients write, unless what stands before the gateways takes it off";
        at.within("forwardClientCertDetails", |at| {
            at.remark(|path| {
                Diagnostic::warning(Code::NoEffect, path, message).fix("`APPEND_FORWARD`")
            })
        });
    }
    if topology.proxy_protocol.is_some() {
        at.within("proxyProtocol", |at| remark_refused_by_ours("listeners of gateways", at));
    }
}

/// Notes what no header can say: Envoy would refuse every listener for it.
fn check_server(server: &ServerHeader, at: &mut Decoder) {
    if server.value.chars().any(char::is_control) {
        at.within("value", |at| at.invalid("not the value of a header", None));
    }
}

/// Notes how long is waited where Istio takes another time, or none.
fn check_waits(mesh: &MeshConfig, at: &mut Decoder) {
    const LONGEST: Duration = Duration::from_secs(3600);
    check_duration("connectTimeout", mesh.connect_timeout, at);
    if mesh.connect_timeout.is_some_and(|timeout| timeout > LONGEST) {
        let path = at.path().field("connectTimeout");
        let finding = Diagnostic::error(Code::InvalidValue, path, "out of range");
        at.note(
            finding
                .expected("1ms to 1h", format!("{:?}", mesh.connect_timeout.unwrap_or_default())),
        );
    }
    let detection = mesh.protocol_detection_timeout;
    check_optional_duration("protocolDetectionTimeout", detection, at);
}

/// Notes sources of configuration other than the cluster: what is read there would guard too.
fn check_sources(mesh: &MeshConfig, at: &mut Decoder) {
    each("configSources", &mesh.config_sources, at, |source, at| {
        if &*source.address != "k8s://" {
            let path = at.path().field("address");
            let message = "what is read is said where the control plane is started";
            let finding = Diagnostic::error(Code::NotActedOn, path, message);
            at.note(finding.expected("`k8s://`", format!("`{}`", source.address)));
        }
    });
}

fn check_discovery(mesh: &MeshConfig, at: &mut Decoder) {
    each("discoverySelectors", &mesh.discovery_selectors, at, |selector, at| {
        each("matchExpressions", &selector.match_expressions, at, |expression, at| {
            let wants =
                matches!(expression.operator, SelectorOperator::In | SelectorOperator::NotIn);
            if wants == expression.values.is_empty() {
                let operator = expression.operator.as_str();
                let message = match wants {
                    true => format!("`{operator}` needs values"),
                    false => format!("`{operator}` takes no values"),
                };
                at.within("values", |at| at.invalid(message, None));
            }
        });
    });
}

/// Most names of statistics in one list: each is compiled here, and again by every Envoy.
const MOST_NAMES: usize = 100;
/// Longest of them, in bytes: an Envoy's agent is told all of them by one variable.
const LONGEST_NAME: usize = 200;

/// Notes what no proxy would start with, and what no program of ours reads.
pub(in crate::dialect::istio) fn check_start(config: &ProxyDefaults, at: &mut Decoder) {
    if let Some(matcher) = &config.proxy_stats_matcher {
        at.within("proxyStatsMatcher", |at| check_statistics(matcher, at));
    }
    each("extraStatTags", &config.extra_stat_tags, at, |tag, at| {
        if !is_tag(tag) {
            at.invalid(format!("`{tag}`: expected letters, digits and `_`"), None);
        }
    });
    at.within("proxyMetadata", |at| {
        config.proxy_metadata.keys().for_each(|name| variables::check(name, at));
    });
}

fn check_statistics(matcher: &ProxyStatsMatcher, at: &mut Decoder) {
    let lists = [
        ("inclusionPrefixes", &matcher.prefixes),
        ("inclusionSuffixes", &matcher.suffixes),
        ("inclusionRegexps", &matcher.regexes),
    ];
    for (field, names) in lists {
        if names.len() > MOST_NAMES {
            let found = names.len();
            let message = format!("expected at most {MOST_NAMES} names, got {found}");
            at.within(field, |at| at.invalid(message, None));
            continue;
        }
        each(field, names, at, |name, at| match (&**name, field) {
            ("", _) => at.invalid("empty, but names what is kept", None),
            (long, _) if long.len() > LONGEST_NAME => {
                at.invalid(format!("longer than {LONGEST_NAME} bytes"), None);
            }
            (regex, "inclusionRegexps") => at.check_regex(regex),
            _ => {}
        });
    }
}

/// Whether a text can be the name of a tag, of which a regular expression is made.
pub fn is_tag(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Notes ways of interception that pods do not get.
fn check_interception(mesh: &MeshConfig, at: &mut Decoder) {
    let mode = mesh.default_config.as_ref().and_then(|config| config.interception_mode);
    if let Some(mode) = mode.filter(|mode| *mode != InterceptionMode::Redirect) {
        let path = at.path().field("defaultConfig").field("interceptionMode");
        let finding = Diagnostic::error(Code::NotActedOn, path, "not a way that pods get");
        at.note(finding.expected("REDIRECT", format!("`{}`", mode.as_str())));
    }
}

pub(in crate::dialect::istio) fn check_mesh(mesh: &MeshConfig, at: &mut Decoder) {
    for (field, name) in
        [("trustDomain", &mesh.trust_domain), ("rootNamespace", &mesh.root_namespace)]
    {
        if !name.is_empty() && !is_dns_name(name) {
            at.within(field, |at| at.invalid(format!("`{name}` is not a valid name"), None));
        }
    }
    each("trustDomainAliases", &mesh.trust_domain_aliases, at, |alias, at| {
        if !is_dns_name(alias) {
            at.invalid(format!("`{alias}` is not a trust domain"), None);
        }
    });
    check_waits(mesh, at);
    check_sources(mesh, at);
    check_discovery(mesh, at);
    check_interception(mesh, at);
    if mesh.mesh_mtls.as_ref().is_some_and(|tls| !tls.ecdh_curves.is_empty()) {
        at.within("meshMTLS", |at| {
            at.within("ecdhCurves", |at| {
                let fix = Some("`tlsDefaults`, which holds for other traffic".to_owned());
                at.invalid("the curves of mesh traffic are not chosen here", fix);
            });
        });
    }
    let own = mesh.mesh_mtls.as_ref().map(|tls| (&tls.cipher_suites, &tls.ecdh_curves));
    let other = mesh.tls_defaults.as_ref().map(|tls| (&tls.cipher_suites, &tls.ecdh_curves));
    for (field, words) in [("meshMTLS", own), ("tlsDefaults", other)] {
        let Some((suites, curves)) = words else { continue };
        at.within(field, |at| {
            check_cipher_suites(suites, at);
            remark_suites_of_envoy(suites, at);
            check_curves(curves, at);
        });
    }
    if let Some(tls) = &mesh.tls_defaults {
        at.within("tlsDefaults", |at| {
            remark_curves_of_envoy(&tls.ecdh_curves, at);
            if !tls.cipher_suites.is_empty() {
                at.within("cipherSuites", |at| {
                    remark_refused_by_ours("clusters with TLS to servers outside", at)
                });
            }
        });
    }
    if let Some(policy) = &mesh.default_traffic_policy {
        at.within("defaultTrafficPolicy", |at| {
            if let Some(pool) = &policy.connection_pool {
                at.within("connectionPool", |at| check_pool(pool, at));
            }
            if let Some(outlier) = &policy.outlier_detection {
                at.within("outlierDetection", |at| check_outlier(outlier, at));
            }
        });
    }
    for (field, retries) in [
        ("defaultHttpRetryPolicy", &mesh.default_http_retry_policy),
        ("defaultInboundHttpRetryPolicy", &mesh.default_inbound_http_retry_policy),
    ] {
        if let Some(retries) = retries {
            at.within(field, |at| check_retries(retries, at));
        }
    }
    if let Some(config) = &mesh.default_config {
        at.within("defaultConfig", |at| check_start(config, at));
    }
    let topology = mesh.default_config.as_ref().and_then(|c| c.gateway_topology.as_ref());
    if let Some(topology) = topology {
        at.within("defaultConfig", |at| {
            at.within("gatewayTopology", |at| check_topology(topology, at))
        });
    }
    let headers = mesh.default_config.as_ref().and_then(|c| c.proxy_headers.as_ref());
    if let Some(server) = headers.and_then(|headers| headers.server.as_ref()) {
        at.within("defaultConfig", |at| {
            at.within("proxyHeaders", |at| at.within("server", |at| check_server(server, at)));
        });
    }
    if let Some(locality) = &mesh.locality_lb_setting {
        at.within("localityLbSetting", |at| check_locality(locality, true, at));
    }
    if let Some(zones) = &mesh.zone_aware_lb_setting {
        at.within("zoneAwareLbSetting", |at| check_zone_aware(zones, true, at));
    }
    if mesh.proxy_listen_port.unwrap_or(OUTBOUND_PORT)
        == mesh.proxy_inbound_listen_port.unwrap_or(INBOUND_PORT)
    {
        at.within("proxyListenPort", |at| {
            at.invalid("the same port as `proxyInboundListenPort`", None)
        });
    }
    check_providers(mesh, at);
    at.within("accessLogFile", |at| check_log_file(&mesh.access_log_file, at));
    at.within("accessLogFormat", |at| check_log_format(mesh, at));
    let lines = mesh.access_log_format.lines().count();
    if lines > 1 {
        at.within("accessLogFormat", |at| {
            at.remark(|path| {
                Diagnostic::warning(Code::NoEffect, path, format!("{lines} lines per request"))
                    .fix("`>-` instead of `|`")
            });
        });
    }
}
