//! A service that is asked whether requests may pass.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            Address, HeaderValue as WireHeader, HeaderValueOption, HttpUri, SocketAddress, address,
            header_value_option::HeaderAppendAction, http_uri::HttpUpstreamType,
            socket_address::PortSpecifier,
        },
        extensions::filters::http::ext_authz::v3::{
            BufferSettings, CheckSettings, ExtAuthz as Wire, ExtAuthzPerRoute,
            HttpService as WireHttp, ext_authz::Services, ext_authz_per_route::Override,
        },
        service::auth::v3::{
            AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
            attribute_context::{HttpRequest, Peer, Request},
            check_response::HttpResponse,
        },
        r#type::matcher::v3::ListStringMatcher,
    },
    google::protobuf::{Any, Struct, Timestamp},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;

use super::super::{
    field::{At, Invalid, each, limit, required, share, status, unpack},
    grpc_service::{self, GRPC_SERVICE},
    known::{
        Known::{Each, Guard, In, NoEffect, Read, Refused},
        base::{HEADER_VALUE, HTTP_STATUS, RUNTIME_FRACTION},
        matcher::{METADATA_MATCHER, STRING},
        messages,
        reason::{ONE_API, ONE_SPAN, STATISTICS},
    },
    matcher, metadata,
};
use crate::runtime::{
    HttpFilter,
    facts::PeerCertificate,
    filter::{
        FilterOverride,
        ext_authz::{
            Allowed, AskOverride, BodyShown, Codec, Denied, ExtAuthz, HttpService, Question,
            ResponseWrite, Service, Verdict,
        },
    },
    matcher::{Share, StringMatcher},
    metadata::Fields,
};

/// Compiles the filter.
pub(super) fn filter(config: &Any) -> Result<Option<HttpFilter>, Invalid> {
    let message: Wire = unpack(config)?;
    let enabled = message.filter_enabled.as_ref().map(|part| part.default_value.as_ref());
    Ok(Some(HttpFilter::ExtAuthz(Arc::new(ExtAuthz {
        service: service(&message)?,
        enabled: enabled.map_or(Share::ALL, |part| part.map_or(Share::NONE, share)),
        asked: message
            .filter_enabled_metadata
            .as_ref()
            .map(matcher::metadata)
            .transpose()
            .at("filter_enabled_metadata")?,
        shown: message
            .allowed_headers
            .as_ref()
            .map(|list| names("allowed_headers", Some(list)))
            .transpose()?,
        hidden: names("disallowed_headers", message.disallowed_headers.as_ref())?,
        body: message.with_request_body.as_ref().map(body).transpose().at("with_request_body")?,
        fail_open: message.failure_mode_allow,
        tells_failure: message.failure_mode_allow_header_add,
        status_on_error: match &message.status_on_error {
            None => 403,
            Some(wire) => {
                let code = u32::try_from(wire.code).unwrap_or_default();
                status("code", code).at("status_on_error")?
            }
        },
        reroutes: message.clear_route_cache,
    }))))
}

/// Compiles what a route sets.
pub(super) fn per_route(config: &Any) -> Result<FilterOverride, Invalid> {
    let message: ExtAuthzPerRoute = unpack(config)?;
    Ok(FilterOverride::ExtAuthz(Arc::new(
        match required("override", message.r#override.as_ref())? {
            Override::Disabled(true) => AskOverride::Disabled,
            Override::Disabled(false) => return Err(Invalid::new("expected true").at("disabled")),
            Override::CheckSettings(CheckSettings {
                context_extensions,
                disable_request_body_buffering,
                ..
            }) => AskOverride::Settings {
                context: context_extensions.clone().into_iter().collect(),
                without_body: *disable_request_body_buffering,
            },
        },
    )))
}

fn service(message: &Wire) -> Result<Service, Invalid> {
    match required("services", message.services.as_ref())? {
        Services::GrpcService(wire) => {
            let service = grpc_service::service(wire, None).at("grpc_service")?;
            Ok(Service::Grpc(service, Codec { encode, decode }))
        }
        Services::HttpService(wire) => http(wire).map(Service::Http).at("http_service"),
    }
}

fn http(message: &WireHttp) -> Result<HttpService, Invalid> {
    let uri = required("server_uri", message.server_uri.as_ref())?;
    let HttpUri { timeout, http_upstream_type, .. } = uri;
    let Some(HttpUpstreamType::Cluster(cluster)) = http_upstream_type else {
        return Err(Invalid::new("required, but missing").at("server_uri.cluster"));
    };
    let timeout = limit("timeout", timeout.as_ref()).at("server_uri")?;
    let (request, response) = (&message.authorization_request, &message.authorization_response);
    let added = request.iter().flat_map(|request| &request.headers_to_add);
    let lists = response.clone().unwrap_or_default();
    let list = |field: &str, list: &Option<ListStringMatcher>| {
        names(field, list.as_ref()).at("authorization_response")
    };
    Ok(HttpService {
        cluster: cluster.as_str().into(),
        timeout: timeout
            .ok_or_else(|| Invalid::new("required, but missing").at("server_uri.timeout"))?,
        path_prefix: message.path_prefix.as_str().into(),
        added: each("headers_to_add", added, grpc_service::header).at("authorization_request")?,
        to_upstream: list("allowed_upstream_headers", &lists.allowed_upstream_headers)?,
        to_upstream_appended: list(
            "allowed_upstream_headers_to_append",
            &lists.allowed_upstream_headers_to_append,
        )?,
        to_refused: list("allowed_client_headers", &lists.allowed_client_headers)?,
        to_allowed: list(
            "allowed_client_headers_on_success",
            &lists.allowed_client_headers_on_success,
        )?,
    })
}

fn names(field: &str, list: Option<&ListStringMatcher>) -> Result<Vec<StringMatcher>, Invalid> {
    let patterns = list.into_iter().flat_map(|list| &list.patterns);
    each("patterns", patterns, matcher::string).at(field)
}

fn body(message: &BufferSettings) -> Result<BodyShown, Invalid> {
    if message.max_request_bytes == 0 {
        return Err(Invalid::new("expected at least 1").at("max_request_bytes"));
    }
    Ok(BodyShown {
        most: message.max_request_bytes as usize,
        partial: message.allow_partial_message,
        raw: message.pack_as_bytes,
    })
}

/// What is asked.
fn encode(question: &Question<'_>) -> Vec<u8> {
    let since = question.time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut http = HttpRequest {
        id: question.id.to_string(),
        method: question.method.to_owned(),
        headers: question.headers.clone().into_iter().collect(),
        path: question.path.to_owned(),
        host: question.host.to_owned(),
        scheme: question.scheme.to_owned(),
        size: i64::try_from(question.received).unwrap_or(i64::MAX),
        protocol: question.protocol.to_owned(),
        ..Default::default()
    };
    match question.body {
        Some((bytes, true)) => http.raw_body = bytes.to_vec(),
        Some((bytes, false)) => http.body = String::from_utf8_lossy(bytes).into_owned(),
        None => {}
    }
    let peer = question.connection.peer.as_deref().map(principal).unwrap_or_default();
    let time = Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or_default(),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    };
    let attributes = AttributeContext {
        source: Some(self::peer(question.connection.source, peer)),
        destination: Some(self::peer(question.connection.destination, question.own_name)),
        request: Some(Request { time: Some(time), http: Some(http) }),
        context_extensions: question.context.cloned().unwrap_or_default().into_iter().collect(),
        ..Default::default()
    };
    CheckRequest { attributes: Some(attributes) }.encode_to_vec()
}

/// Who a peer is by its certificate.
fn principal(peer: &PeerCertificate) -> &str {
    let name = peer.uri_sans.first().or(peer.dns_sans.first());
    name.map_or(&*peer.subject, AsRef::as_ref)
}

fn peer(at: SocketAddr, principal: &str) -> Peer {
    let socket = SocketAddress {
        address: at.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(at.port().into())),
        ..Default::default()
    };
    Peer {
        address: Some(Address { address: Some(address::Address::SocketAddress(socket)) }),
        principal: principal.to_owned(),
        ..Default::default()
    }
}

/// What is answered; nothing where it is no answer, or wants what cannot be done.
fn decode(body: &[u8]) -> Option<Verdict> {
    let message = CheckResponse::decode(body).ok()?;
    let code = message.status.as_ref().map_or(0, |status| status.code);
    let found = |older: Option<&Struct>| {
        metadata::fields(message.dynamic_metadata.as_ref().or(older).cloned().unwrap_or_default())
    };
    match (code, &message.http_response) {
        (0, Some(HttpResponse::OkResponse(ok))) => {
            #[allow(deprecated, reason = "older services leave it here")]
            let metadata = found(ok.dynamic_metadata.as_ref());
            allowed(ok, metadata).map(|allowed| Verdict::Allowed(Box::new(allowed)))
        }
        (0, _) => {
            let allowed = Allowed { metadata: found(None), ..Allowed::default() };
            Some(Verdict::Allowed(Box::new(allowed)))
        }
        (_, Some(HttpResponse::DeniedResponse(denied))) => {
            self::denied(denied, found(None)).map(|denied| Verdict::Denied(Box::new(denied)))
        }
        (_, Some(HttpResponse::ErrorResponse(_))) => None,
        (_, _) => Some(Verdict::Denied(Box::new(Denied {
            status: 403,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            metadata: found(None),
        }))),
    }
}

fn allowed(message: &OkHttpResponse, metadata: Fields) -> Option<Allowed> {
    let OkHttpResponse { query_parameters_to_set, query_parameters_to_remove, .. } = message;
    if !query_parameters_to_set.is_empty() || !query_parameters_to_remove.is_empty() {
        return None;
    }
    let mut allowed = Allowed { metadata, ..Allowed::default() };
    for option in &message.headers {
        let written = header(option)?;
        match appends(option) {
            Some(true) => allowed.appended.push(written),
            _ => allowed.set.push(written),
        }
    }
    for name in &message.headers_to_remove {
        allowed.removed.push(HeaderName::from_bytes(name.as_bytes()).ok()?);
    }
    for option in &message.response_headers_to_add {
        let (name, value) = header(option)?;
        let how = match (appends(option), option.append_action()) {
            (Some(true), _) | (None, HeaderAppendAction::AppendIfExistsOrAdd) => {
                ResponseWrite::Append
            }
            (Some(false), _) | (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => {
                ResponseWrite::Set
            }
            (None, HeaderAppendAction::AddIfAbsent) => ResponseWrite::IfAbsent,
            (None, HeaderAppendAction::OverwriteIfExists) => ResponseWrite::IfPresent,
        };
        allowed.response.push((name, value, how));
    }
    Some(allowed)
}

fn denied(message: &DeniedHttpResponse, metadata: Fields) -> Option<Denied> {
    let status = message.status.as_ref().map_or(0, |status| status.code);
    let status = match u16::try_from(status).ok()? {
        0 => 403,
        code @ 200..600 => code,
        _ => return None,
    };
    // What is to be appended to is not there, and is left out, as in Envoy.
    let set = message.headers.iter().filter(|option| appends(option) != Some(true));
    let headers = set.map(header).collect::<Option<HeaderMap>>()?;
    let body = message.body.clone().into();
    Some(Denied { status, headers, body, metadata })
}

#[allow(deprecated, reason = "services of both generations answer")]
fn appends(option: &HeaderValueOption) -> Option<bool> {
    option.append.as_ref().map(|append| append.value)
}

/// A field as it is sent; nothing for one that cannot be, and for a pseudo header.
fn header(option: &HeaderValueOption) -> Option<(HeaderName, HeaderValue)> {
    let WireHeader { key, value, raw_value } = option.header.as_ref()?;
    let value = if value.is_empty() { raw_value } else { value.as_bytes() };
    let name = HeaderName::from_bytes(key.as_bytes()).ok()?;
    Some((name, HeaderValue::from_bytes(value).ok()?))
}

messages! {
    EXT_AUTHZ = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz" {
        1 "grpc_service": In(&GRPC_SERVICE);
        2 "failure_mode_allow": Read;
        3 "http_service": In(&HTTP_SERVICE);
        5 "with_request_body": In(&BUFFER);
        6 "clear_route_cache": Read;
        7 "status_on_error": In(&HTTP_STATUS);
        8 "metadata_context_namespaces": Guard;
        9 "filter_enabled": In(&RUNTIME_FRACTION);
        10 "include_peer_certificate": Guard;
        11 "deny_at_disable": Guard;
        12 "transport_api_version": NoEffect(ONE_API);
        13 "stat_prefix": NoEffect(STATISTICS);
        14 "filter_enabled_metadata": In(&METADATA_MATCHER);
        15 "bootstrap_metadata_labels_key": Guard;
        16 "typed_metadata_context_namespaces": Guard;
        17 "allowed_headers": In(&NAMES);
        18 "include_tls_session": Guard;
        19 "failure_mode_allow_header_add": Read;
        20 "charge_cluster_response_stats": NoEffect(STATISTICS);
        21 "route_metadata_context_namespaces": Guard;
        22 "route_typed_metadata_context_namespaces": Guard;
        23 "encode_raw_headers": Guard;
        24 "validate_mutations": Guard;
        25 "disallowed_headers": In(&NAMES);
        26 "decoder_header_mutation_rules": Guard;
        27 "enable_dynamic_metadata_ingestion": Guard;
        28 "filter_metadata": Refused;
        29 "emit_filter_state_stats": NoEffect(STATISTICS);
        30 "max_denied_response_body_bytes": Refused;
        31 "enforce_response_header_limits": Refused;
        32 "shadow_mode": Guard;
        33 "emit_client_span": NoEffect(ONE_SPAN);
    }

    NAMES = "envoy.type.matcher.v3.ListStringMatcher" {
        1 "patterns": Each(&STRING);
    }

    BUFFER = "envoy.extensions.filters.http.ext_authz.v3.BufferSettings" {
        1 "max_request_bytes": Read;
        2 "allow_partial_message": Read;
        3 "pack_as_bytes": Read;
    }

    HTTP_SERVICE = "envoy.extensions.filters.http.ext_authz.v3.HttpService" {
        1 "server_uri": In(&SERVER_URI);
        2 "path_prefix": Read;
        7 "authorization_request": In(&AUTHORIZATION_REQUEST);
        8 "authorization_response": In(&AUTHORIZATION_RESPONSE);
        9 "retry_policy": Refused;
        10 "path_override": Guard;
    }

    SERVER_URI = "envoy.config.core.v3.HttpUri" {
        1 "uri": NoEffect("the cluster says where, and the request what it is called");
        2 "cluster": Read;
        3 "timeout": Read;
    }

    AUTHORIZATION_REQUEST = "envoy.extensions.filters.http.ext_authz.v3.AuthorizationRequest" {
        1 "allowed_headers": Guard;
        2 "headers_to_add": Each(&HEADER_VALUE);
    }

    AUTHORIZATION_RESPONSE = "envoy.extensions.filters.http.ext_authz.v3.AuthorizationResponse" {
        1 "allowed_upstream_headers": In(&NAMES);
        2 "allowed_client_headers": In(&NAMES);
        3 "allowed_upstream_headers_to_append": In(&NAMES);
        4 "allowed_client_headers_on_success": In(&NAMES);
        5 "dynamic_metadata_from_headers": Guard;
    }

    PER_ROUTE = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute" {
        1 "disabled": Read;
        2 "check_settings": In(&CHECK_SETTINGS);
    }

    CHECK_SETTINGS = "envoy.extensions.filters.http.ext_authz.v3.CheckSettings" {
        1 "context_extensions": Read;
        2 "disable_request_body_buffering": Read;
        3 "with_request_body": Guard;
        4 "grpc_service": Guard;
        5 "http_service": Guard;
        6 "emit_client_span": NoEffect(ONE_SPAN);
    }
}
