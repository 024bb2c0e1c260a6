//! Rules of `MeshConfig.extensionProviders` and `defaultProviders`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{
    format::check_format,
    line::{check_line, is_header_name, remark_refused_by_ours},
    log::{check_log_fields, check_log_file},
    telemetry::is_tag_header,
};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{
            HostForm, check_host, check_percent, check_range, each, is_dns_name, is_known_status,
        },
        istio::{
            extension_provider::{
                DefaultProviders, DynatraceSampler, ExtAuthzBody, ExtAuthzHttp, ExtensionProvider,
                HttpHeader, HttpService, LogFormat, OpenTelemetry, Purpose,
            },
            mesh_config::{MeshConfig, MeshTag, MeshTracing, TracerAddress},
        },
        suggest,
    },
};

/// Notes what is wrong with the providers, and with the names of those that are used by default.
pub(super) fn check_providers(mesh: &MeshConfig, at: &mut Decoder) {
    let mut names = BTreeSet::new();
    each("extensionProviders", &mesh.extension_providers, at, |provider, at| {
        if !names.insert(provider.name.to_lowercase()) {
            let message = format!("another provider is called `{}`", provider.name);
            at.within("name", |at| at.invalid(message, Some("a name of its own".to_owned())));
        }
        if provider.ext_authz_http.is_some() || provider.ext_authz_grpc.is_some() {
            check_authorizer_name(&provider.name, at);
        }
        check_provider(provider, at);
    });
    if let Some(config) = &mesh.default_config {
        at.within("defaultConfig", |at| {
            at.within("zipkinAddress", |at| check_address(&config.zipkin_address, at));
            if let Some(service) = &config.envoy_access_log_service {
                at.within("envoyAccessLogService", |at| {
                    at.within("address", |at| check_address(&service.address, at));
                });
            }
        });
    }
    if mesh.enable_envoy_access_log_service == Some(true) {
        let config = mesh.default_config.as_ref();
        at.within("enableEnvoyAccessLogService", |at| {
            if config.is_none_or(|config| config.envoy_access_log_service.is_none()) {
                let fix = "`defaultConfig: {envoyAccessLogService: {address: HOST:PORT}}`";
                at.invalid("no service is named that takes the entries", Some(fix.to_owned()));
            }
            remark_refused_by_ours("listeners", at);
        });
    }
    if let Some(tracing) = mesh.default_config.as_ref().and_then(|c| c.tracing.as_ref()) {
        let check = |at: &mut Decoder| check_mesh_tracing(tracing, at);
        at.within("defaultConfig", |at| at.within("tracing", check));
    }
    if let Some(defaults) = &mesh.default_providers {
        let check = |at: &mut Decoder| check_defaults(defaults, &mesh.extension_providers, at);
        at.within("defaultProviders", check);
    }
}

fn check_mesh_tracing(tracing: &MeshTracing, at: &mut Decoder) {
    check_percent("sampling", tracing.sampling, at);
    for (field, address) in [("zipkin", &tracing.zipkin), ("datadog", &tracing.datadog)] {
        let Some(TracerAddress { address }) = address else { continue };
        at.within(field, |at| at.within("address", |at| check_address(address, at)));
    }
    if tracing.zipkin.is_some() && tracing.datadog.is_some() {
        at.invalid("`zipkin` and `datadog` exclude each other", None);
    }
    at.within("customTags", |at| {
        for (name, tag) in &tracing.custom_tags {
            at.within_key(name, |at| check_mesh_tag(tag, at));
        }
    });
}

fn check_address(address: &str, at: &mut Decoder) {
    let is_address = address.rsplit_once(':').is_some_and(|(host, port)| {
        is_dns_name(host) && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if !address.is_empty() && !is_address {
        at.invalid("not of the form `HOST:PORT`", None);
    }
}

fn check_mesh_tag(tag: &MeshTag, at: &mut Decoder) {
    let given = [tag.literal.is_some(), tag.environment.is_some(), tag.header.is_some()];
    if given.into_iter().filter(|given| *given).count() != 1 {
        at.invalid("exactly one of `literal`, `environment`, `header`", None);
    }
    if tag.header.as_ref().is_some_and(|header| !is_tag_header(&header.name)) {
        at.within("header", |at| {
            at.within("name", |at| at.invalid("not the name of a header", None));
        });
    }
}

fn check_provider(provider: &ExtensionProvider, at: &mut Decoder) {
    match provider.given()[..] {
        [(field, purpose)] => at.within(field, |at| check_settings(provider, purpose, at)),
        [] => at.invalid(
            "says nothing of what it provides",
            Some("one of `opentelemetry`, `zipkin`, `envoyFileAccessLog`, …".to_owned()),
        ),
        [(first, _), (second, _), ..] => at.invalid(
            format!("`{first}` and `{second}` exclude each other"),
            Some("a provider of its own for each".to_owned()),
        ),
    }
}

fn check_settings(provider: &ExtensionProvider, purpose: Purpose, at: &mut Decoder) {
    if let Some((service, port)) = address(provider) {
        check_service(service, port, at);
    }
    if purpose == Purpose::Gone {
        at.remark(|path| {
            let message = "Envoy has no such tracer or log any more: nothing is sent";
            Diagnostic::warning(Code::NoEffect, path, message).fix("`opentelemetry`")
        });
    }
    check_tracer(provider, at);
    check_log(provider, at);
    check_authorizer(provider, at);
}

/// Where a provider is.
fn address(provider: &ExtensionProvider) -> Option<(&str, u16)> {
    let ExtensionProvider { zipkin, datadog, skywalking, opentelemetry, .. } = provider;
    let ExtensionProvider { http_log, tcp_log, otel_log, .. } = provider;
    let ExtensionProvider { ext_authz_http, ext_authz_grpc, .. } = provider;
    let all = [
        zipkin.as_ref().map(|p| (&p.service, p.port)),
        datadog.as_ref().map(|p| (&p.service, p.port)),
        skywalking.as_ref().map(|p| (&p.service, p.port)),
        opentelemetry.as_ref().map(|p| (&p.service, p.port)),
        http_log.as_ref().map(|p| (&p.service, p.port)),
        tcp_log.as_ref().map(|p| (&p.service, p.port)),
        otel_log.as_ref().map(|p| (&p.service, p.port)),
        ext_authz_http.as_ref().map(|p| (&p.service, p.port)),
        ext_authz_grpc.as_ref().map(|p| (&p.service, p.port)),
    ];
    let (service, port) = all.into_iter().flatten().next()?;
    Some((service, port))
}

/// `HOST` or `NAMESPACE/HOST`.
fn check_service(service: &str, port: u16, at: &mut Decoder) {
    if !service.is_empty() {
        at.within("service", |at| {
            let (namespace, host) = service.split_once('/').unwrap_or(("x", service));
            if !is_dns_name(namespace) {
                at.invalid(format!("`{namespace}` is not a namespace"), None);
            }
            check_host(host, HostForm::Exact, at);
        });
    }
    check_range("port", i64::from(port), 1..=65535, at);
}

fn check_tracer(provider: &ExtensionProvider, at: &mut Decoder) {
    if let Some(zipkin) = &provider.zipkin {
        if !zipkin.path.is_empty() {
            check_path(&zipkin.path, at);
        }
        check_timeout(zipkin.timeout, at);
        check_headers("headers", &zipkin.headers, at);
    }
    if let Some(otel) = &provider.opentelemetry {
        check_otel(otel, at);
    }
    if provider.datadog.is_some() || provider.skywalking.is_some() {
        at.remark(|path| {
            let message = "Ferromesh's own proxy sends no spans in this form; Envoys do";
            Diagnostic::info(Code::NotActedOn, path, message)
        });
    }
    if provider.skywalking.as_ref().is_some_and(|s| !s.access_token.is_empty()) {
        at.within("accessToken", |at| {
            at.remark(|path| {
                let message = "not sent, as in Istio: who reads the configuration would have it";
                Diagnostic::warning(Code::NoEffect, path, message)
            });
        });
    }
}

fn check_otel(otel: &OpenTelemetry, at: &mut Decoder) {
    if let Some(http) = &otel.http {
        at.within("http", |at| check_http(http, at));
    }
    if let Some(grpc) = &otel.grpc {
        at.within("grpc", |at| {
            check_timeout(grpc.timeout, at);
            check_headers("initialMetadata", &grpc.initial_metadata, at);
        });
        if otel.http.is_some() {
            at.invalid("`http` and `grpc` exclude each other", None);
        }
    }
    if let Some(sampler) = &otel.dynatrace_sampler {
        at.within("dynatraceSampler", |at| {
            check_sampler(sampler, otel.http.is_some(), at);
            remark_refused_by_ours("listeners whose spans a service chooses", at);
        });
    }
    if otel.resource_detectors.as_ref().is_some_and(|found| found.dynatrace.is_some()) {
        let what = "listeners whose spans say what Dynatrace's files do";
        at.within("resourceDetectors", |at| remark_refused_by_ours(what, at));
    }
}

fn check_sampler(sampler: &DynatraceSampler, exports_by_http: bool, at: &mut Decoder) {
    match &sampler.http_service {
        Some(api) => at.within("httpService", |at| {
            check_service(&api.service, api.port, at);
            if let Some(http) = &api.http {
                at.within("http", |at| check_http(http, at));
            }
        }),
        None if exports_by_http => {}
        None => at.missing("httpService", Some("or send spans by `http`".to_owned())),
    }
}

fn check_http(http: &HttpService, at: &mut Decoder) {
    check_path(&http.path, at);
    check_timeout(http.timeout, at);
    check_headers("headers", &http.headers, at);
}

fn check_path(path: &str, at: &mut Decoder) {
    let is_path = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic());
    if !path.is_empty() && !is_path {
        at.within("path", |at| {
            at.invalid("not a path: it begins with `/` and has no blanks", None);
        });
    }
}

fn check_timeout(timeout: Option<Duration>, at: &mut Decoder) {
    if timeout.is_some_and(|timeout| timeout < Duration::from_millis(1)) {
        at.within("timeout", |at| at.invalid("at least 1ms", None));
    }
}

fn check_headers(field: &'static str, headers: &[HttpHeader], at: &mut Decoder) {
    each(field, headers, at, |header, at| {
        if !is_header_name(&header.name) {
            at.within("name", |at| at.invalid("not the name of a header", None));
        }
        match (&header.value, &header.env_name) {
            (Some(value), None) => at.within("value", |at| check_line(value, at)),
            (None, None) => at.missing("value", None),
            (_, Some(_)) => at.within("envName", |at| {
                let fix = "`value`, where it is no secret".to_owned();
                at.invalid("the control plane's environment is no configuration", Some(fix));
            }),
        }
    });
}

fn check_log(provider: &ExtensionProvider, at: &mut Decoder) {
    if provider.http_log.is_some() || provider.tcp_log.is_some() {
        remark_refused_by_ours("listeners whose log goes to a service of Envoy's", at);
    }
    if let Some(file) = &provider.file_log {
        at.within("path", |at| check_log_file(&file.path, at));
    }
    let formats = [
        provider.file_log.as_ref().and_then(|log| log.log_format.as_ref()),
        provider.otel_log.as_ref().and_then(|log| log.log_format.as_ref()),
    ];
    for format in formats.into_iter().flatten() {
        let one_form = provider.file_log.is_some();
        at.within("logFormat", |at| check_log_format(format, one_form, at));
    }
    if let Some(log) = &provider.http_log {
        for (field, headers) in [
            ("additionalRequestHeadersToLog", &log.request_headers),
            ("additionalResponseHeadersToLog", &log.response_headers),
            ("additionalResponseTrailersToLog", &log.response_trailers),
        ] {
            each(field, headers, at, |name, at| check_header_name(name, at));
        }
    }
}

/// `one_form`: a log has a text or fields; otherwise it has both.
fn check_log_format(format: &LogFormat, one_form: bool, at: &mut Decoder) {
    if let Some(text) = &format.text {
        at.within("text", |at| check_format(text, at));
    }
    let Some(labels) = &format.labels else { return };
    if format.text.as_ref().is_some_and(|text| !text.is_empty()) && one_form {
        at.invalid("`text` and `labels` exclude each other", None);
    }
    let fields = labels.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    let fields = serde_json::Value::Object(fields);
    at.within("labels", |at| check_log_fields(&fields, at));
}

fn check_header_name(name: &str, at: &mut Decoder) {
    if !is_header_name(name) {
        at.invalid("not the name of a header", None);
    }
}

fn check_authorizer(provider: &ExtensionProvider, at: &mut Decoder) {
    if let Some(http) = &provider.ext_authz_http {
        check_timeout(http.timeout, at);
        check_status(&http.status_on_error, at);
        check_body(http.include_body.as_ref(), at);
        check_names(http, at);
        if !http.path_prefix.is_empty() && !http.path_prefix.starts_with('/') {
            at.within("pathPrefix", |at| at.invalid("it begins with `/`", None));
        }
    }
    if let Some(grpc) = &provider.ext_authz_grpc {
        check_timeout(grpc.timeout, at);
        check_status(&grpc.status_on_error, at);
        check_body(grpc.include_body.as_ref(), at);
    }
}

fn check_status(status: &str, at: &mut Decoder) {
    if !status.is_empty() && !status.parse().is_ok_and(is_known_status) {
        at.within("statusOnError", |at| at.invalid("not a status that Envoy knows", None));
    }
}

fn check_names(http: &ExtAuthzHttp, at: &mut Decoder) {
    for (field, names) in [
        ("includeHeadersInCheck", &http.include_headers),
        ("includeRequestHeadersInCheck", &http.include_request_headers),
        ("headersToUpstreamOnAllow", &http.upstream_on_allow),
        ("headersToDownstreamOnDeny", &http.downstream_on_deny),
        ("headersToDownstreamOnAllow", &http.downstream_on_allow),
    ] {
        each(field, names, at, |name, at| check_header_pattern(name, at));
    }
    at.within("includeAdditionalHeadersInCheck", |at| {
        for (name, value) in &http.include_additional_headers {
            at.within_key(name, |at| {
                if !is_header_name(name) {
                    at.invalid(format!("`{name}` is not a header name"), None);
                }
                check_line(value, at);
            });
        }
    });
}

/// A name, or a part of one with a `*` at one end.
fn check_header_pattern(name: &str, at: &mut Decoder) {
    let part = name.strip_prefix('*').or(name.strip_suffix('*')).unwrap_or(name);
    if !is_header_name(part) || part.contains('*') {
        let message = format!("`{name}` is not a header name, nor part of one beside a `*`");
        at.invalid(message, None);
    }
}

/// Names of rules hold that of who is asked, and statistics do.
fn check_authorizer_name(name: &str, at: &mut Decoder) {
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.chars().all(label) || name.len() > 63 || name.starts_with('-') || name.ends_with('-') {
        at.within("name", |at| {
            let message = "who is asked about access needs a name of a-z, 0-9 and -, at most 63";
            at.invalid(format!("`{name}`: {message}"), None);
        });
    }
}

fn check_body(body: Option<&ExtAuthzBody>, at: &mut Decoder) {
    if body.is_some_and(|body| body.max_request_bytes == 0) {
        at.within("includeRequestBodyInCheck", |at| {
            at.missing("maxRequestBytes", None);
        });
    }
}

/// Providers that everybody has, without a word.
const BUILT_IN: [(&str, Purpose); 3] = [
    ("envoy", Purpose::AccessLog),
    ("prometheus", Purpose::Metrics),
    ("stackdriver", Purpose::Gone),
];

fn check_defaults(defaults: &DefaultProviders, all: &[ExtensionProvider], at: &mut Decoder) {
    for (field, names, purpose) in [
        ("tracing", &defaults.tracing, Purpose::Tracing),
        ("metrics", &defaults.metrics, Purpose::Metrics),
        ("accessLogging", &defaults.access_logging, Purpose::AccessLog),
    ] {
        each(field, names, at, |name, at| check_default(name, purpose, all, at));
    }
    if let [first, _, ..] = &defaults.tracing[..] {
        let message = format!("spans go to one provider, which is `{first}`");
        at.within("tracing", |at| {
            at.remark(|path| Diagnostic::warning(Code::NoEffect, path, message));
        });
    }
}

fn check_default(name: &Arc<str>, purpose: Purpose, all: &[ExtensionProvider], at: &mut Decoder) {
    let purposes = |(name, purpose): &(&str, Purpose)| (name.to_lowercase(), vec![*purpose]);
    let own = all.iter().map(|p| {
        (p.name.to_lowercase(), p.given().into_iter().map(|(_, purpose)| purpose).collect())
    });
    let known: Vec<(String, Vec<Purpose>)> = own.chain(BUILT_IN.iter().map(purposes)).collect();
    let Some((_, found)) = known.iter().find(|(known, _)| *known == name.to_lowercase()) else {
        let message = format!("no provider is called `{name}`");
        let finding = Diagnostic::error(Code::InvalidValue, at.path(), message);
        let words = known.iter().map(|(name, _)| name.as_str());
        return at.note(suggest::advise(finding, name, words));
    };
    if !found.contains(&purpose) && !found.contains(&Purpose::Gone) {
        at.remark(|path| {
            let message = format!("`{name}` is a provider of something else");
            Diagnostic::warning(Code::NoEffect, path, message)
        });
    }
}
