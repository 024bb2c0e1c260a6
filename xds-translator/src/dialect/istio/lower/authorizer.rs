//! Providers of the mesh configuration that are asked about access.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    dialect::{
        istio::extension_provider::{ExtAuthzBody, ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider},
        names::wildcard,
    },
    ir::{Authorizer, AuthorizerProtocol, Hostname, HttpAuthorizer, ShownBody, StringMatch},
};

/// How long an answer may take where nothing is said.
const ANSWER: Duration = Duration::from_secs(600);

/// Those of all providers that are asked about access, by name.
pub(super) fn authorizers(providers: &[ExtensionProvider]) -> BTreeMap<Arc<str>, Authorizer> {
    let asked = providers.iter().filter_map(|provider| {
        let over_http = provider.ext_authz_http.as_ref().map(over_http);
        let asked = over_http.or_else(|| provider.ext_authz_grpc.as_ref().map(over_grpc))?;
        Some((provider.name.clone(), asked))
    });
    asked.collect()
}

fn over_grpc(grpc: &ExtAuthzGrpc) -> Authorizer {
    Authorizer {
        fail_open: grpc.fail_open,
        status_on_error: grpc.status_on_error.parse().ok(),
        reroutes: grpc.clear_route_cache,
        body: grpc.include_body.as_ref().map(body),
        ..asked(&grpc.service, grpc.port, grpc.timeout, AuthorizerProtocol::Grpc)
    }
}

fn over_http(http: &ExtAuthzHttp) -> Authorizer {
    let shown = match &http.include_request_headers[..] {
        [] => &http.include_headers,
        _ => &http.include_request_headers,
    };
    let protocol = AuthorizerProtocol::Http(HttpAuthorizer {
        path_prefix: http.path_prefix.clone(),
        shown: names(shown),
        added: http.include_additional_headers.clone(),
        to_upstream: names(&http.upstream_on_allow),
        to_refused: names(&http.downstream_on_deny),
        to_allowed: names(&http.downstream_on_allow),
    });
    Authorizer {
        fail_open: http.fail_open,
        status_on_error: http.status_on_error.parse().ok(),
        reroutes: http.clear_route_cache,
        body: http.include_body.as_ref().map(body),
        ..asked(&http.service, http.port, http.timeout, protocol)
    }
}

fn asked(
    service: &str,
    port: u16,
    timeout: Option<Duration>,
    protocol: AuthorizerProtocol,
) -> Authorizer {
    let (namespace, host) = match service.split_once('/') {
        Some((namespace, host)) => (Some(namespace.into()), host),
        None => (None, service),
    };
    Authorizer {
        host: Hostname::new(host),
        namespace,
        port,
        timeout: timeout.unwrap_or(ANSWER),
        fail_open: false,
        status_on_error: None,
        reroutes: false,
        body: None,
        protocol,
    }
}

fn body(body: &ExtAuthzBody) -> ShownBody {
    ShownBody {
        most: body.max_request_bytes,
        partial: body.allow_partial_message,
        raw: body.pack_as_bytes,
    }
}

fn names(written: &[Arc<str>]) -> Vec<StringMatch> {
    written.iter().map(|name| wildcard(name)).collect()
}
