//! Rules of the mesh configuration.

use super::{
    backend::{check_locality, check_outlier, check_pool},
    format::check_format,
    route::check_retries,
    tls::{check_cipher_suites, check_curves},
};
use crate::{
    diagnostic::Code,
    diagnostic::Diagnostic,
    dialect::{
        decode::Decoder,
        forms::is_dns_name,
        istio::mesh_config::{AccessLogEncoding, MeshConfig},
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
        Ok(fields @ serde_json::Value::Object(_)) => {
            check_log_fields(&fields, at);
            remark_nested_fields(&fields, at);
        }
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

fn check_log_fields(fields: &serde_json::Value, at: &mut Decoder) {
    match fields {
        serde_json::Value::String(format) => check_format(format, at),
        serde_json::Value::Array(items) => items.iter().for_each(|item| check_log_fields(item, at)),
        serde_json::Value::Object(fields) => {
            fields.values().for_each(|field| check_log_fields(field, at))
        }
        _ => {}
    }
}

fn remark_nested_fields(fields: &serde_json::Value, at: &mut Decoder) {
    let mut values = fields.as_object().into_iter().flatten();
    if let Some((name, _)) = values.find(|(_, value)| !value.is_string()) {
        let message = format!(
            "field `{name}` is no text: Ferromesh's own proxy refuses listeners with such a log, \
             and goes on with what it had"
        );
        at.remark(|path| {
            Diagnostic::warning(Code::NotActedOn, path, message)
                .fix("fields of text alone, where such proxies are in use")
        });
    }
}

/// Where every proxy can write: the directories of files are those of its image or machine, and a
/// file that cannot be opened costs every listener.
const LOG_FILES: &[&str] = &["/dev/stdout", "/dev/stderr", "/dev/null"];

fn check_log_file(path: &str, at: &mut Decoder) {
    if !path.is_empty() && !LOG_FILES.contains(&path) {
        let message = "proxies that cannot write there would refuse every listener";
        let finding = Diagnostic::error(Code::InvalidValue, at.path(), message);
        let finding =
            finding.expected(format!("one of {}", LOG_FILES.join(", ")), format!("`{path}`"));
        at.note(finding.fix("`/dev/stdout`, and a collector of the containers' output"));
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
    for (field, tls) in [("meshMTLS", &mesh.mesh_mtls), ("tlsDefaults", &mesh.tls_defaults)] {
        let Some(tls) = tls else { continue };
        at.within(field, |at| {
            check_cipher_suites(&tls.cipher_suites, at);
            check_curves(&tls.ecdh_curves, at);
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
    if let Some(locality) = &mesh.locality_lb_setting {
        at.within("localityLbSetting", |at| check_locality(locality, at));
    }
    if mesh.proxy_listen_port.unwrap_or(OUTBOUND_PORT)
        == mesh.proxy_inbound_listen_port.unwrap_or(INBOUND_PORT)
    {
        at.within("proxyListenPort", |at| {
            at.invalid("the same port as `proxyInboundListenPort`", None)
        });
    }
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
