//! Asking a service whether a call may pass: rules that only mark what is asked about, and the
//! filter that asks about what is marked.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    http, network,
    rbac::{self, Marked},
};
use crate::{
    emit::{
        any::{duration, names},
        matching::string,
        pb::{
            ask::{
                AuthorizationRequest, AuthorizationResponse, BufferSettings, ExtAuthz, HttpService,
                ext_authz::Services,
            },
            core,
            hcm::HttpFilter,
            listener,
            matcher::{
                ListStringMatcher, MetadataMatcher, ValueMatcher,
                metadata_matcher::{PathSegment, path_segment::Segment},
                value_matcher::MatchPattern,
            },
            network_ask, types,
        },
    },
    ir::{Authorizer, AuthorizerProtocol, HttpAuthorizer, StringMatch},
    plan::{AccessPolicyPlan, AskFilter, Asked},
};

/// What the names of rules end in that nobody can be asked about, as Istio writes them.
const NOBODY: &str = "-deny-due-to-bad-CUSTOM-action";

/// The filters for requests.
pub(super) fn http_filters(plan: &AskFilter) -> Vec<HttpFilter> {
    match &plan.asked {
        Some(asked) => {
            vec![rbac::http_marks(&plan.policies), http(names::ASK, &request_filter(asked))]
        }
        None => vec![rbac::http_refusal(&closed(&plan.policies))],
    }
}

/// The filters for connections.
pub(in crate::emit) fn network_filters(plan: &AskFilter) -> Vec<listener::Filter> {
    let connections =
        plan.asked.as_ref().filter(|asked| asked.authorizer.protocol == AuthorizerProtocol::Grpc);
    match connections {
        Some(asked) => vec![
            rbac::network_marks(&plan.policies),
            network(names::NETWORK_ASK, &connection_filter(asked)),
        ],
        None => vec![rbac::network_refusal(&closed(&plan.policies))],
    }
}

type Policies = BTreeMap<Arc<str>, AccessPolicyPlan>;

fn closed(policies: &Policies) -> Policies {
    let named = |(name, plan): (&Arc<str>, &AccessPolicyPlan)| {
        (format!("{name}{NOBODY}").into(), plan.clone())
    };
    policies.iter().map(named).collect()
}

fn request_filter(asked: &Asked) -> ExtAuthz {
    let Authorizer { fail_open, status_on_error, reroutes, body, .. } = &asked.authorizer;
    let body = body.map(|body| BufferSettings {
        max_request_bytes: body.most,
        allow_partial_message: body.partial,
        pack_as_bytes: body.raw,
    });
    let (services, shown) = match &asked.authorizer.protocol {
        AuthorizerProtocol::Grpc => (Services::GrpcService(grpc(asked)), None),
        AuthorizerProtocol::Http(http) => {
            (Services::HttpService(http_service(asked, http)), headers(&http.shown))
        }
    };
    ExtAuthz {
        services: Some(services),
        failure_mode_allow: *fail_open,
        status_on_error: status_on_error.map(|code| types::HttpStatus { code: code.into() }),
        clear_route_cache: *reroutes,
        with_request_body: body,
        allowed_headers: shown,
        filter_enabled_metadata: Some(marked(asked, Marked::Request)),
        transport_api_version: core::ApiVersion::V3 as i32,
        ..Default::default()
    }
}

fn connection_filter(asked: &Asked) -> network_ask::ExtAuthz {
    network_ask::ExtAuthz {
        stat_prefix: "tcp.".to_owned(),
        grpc_service: Some(grpc(asked)),
        failure_mode_allow: asked.authorizer.fail_open,
        transport_api_version: core::ApiVersion::V3 as i32,
        filter_enabled_metadata: Some(marked(asked, Marked::Connection)),
        ..Default::default()
    }
}

/// The mark of a rule by whose name this service is asked.
fn marked(asked: &Asked, what: Marked) -> MetadataMatcher {
    let key = Segment::Key(rbac::MARK.to_owned());
    let prefix = string(&StringMatch::Prefix(asked.prefix.clone()), false);
    MetadataMatcher {
        filter: what.filter().to_owned(),
        path: vec![PathSegment { segment: Some(key) }],
        value: Some(ValueMatcher { match_pattern: Some(MatchPattern::StringMatch(prefix)) }),
        invert: false,
    }
}

fn grpc(asked: &Asked) -> core::GrpcService {
    let envoy = core::grpc_service::EnvoyGrpc {
        cluster_name: asked.cluster.to_string(),
        authority: asked.authorizer.host.as_str().to_owned(),
        ..Default::default()
    };
    core::GrpcService {
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(envoy)),
        timeout: Some(duration(asked.authorizer.timeout)),
        ..Default::default()
    }
}

fn http_service(asked: &Asked, http: &HttpAuthorizer) -> HttpService {
    let uri = core::HttpUri {
        // Needed and not looked at: the cluster says where.
        uri: format!("http://{}", asked.authorizer.host.as_str()),
        timeout: Some(duration(asked.authorizer.timeout)),
        http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(
            asked.cluster.to_string(),
        )),
    };
    let added = http.added.iter().map(|(key, value)| core::HeaderValue {
        key: key.to_string(),
        value: value.to_string(),
        ..Default::default()
    });
    let request = AuthorizationRequest { headers_to_add: added.collect(), ..Default::default() };
    let response = AuthorizationResponse {
        allowed_upstream_headers: headers(&http.to_upstream),
        allowed_client_headers: headers(&http.to_refused),
        allowed_client_headers_on_success: headers(&http.to_allowed),
        ..Default::default()
    };
    HttpService {
        server_uri: Some(uri),
        path_prefix: http.path_prefix.to_string(),
        authorization_request: Some(request).filter(|r| *r != AuthorizationRequest::default()),
        authorization_response: Some(response).filter(|r| *r != AuthorizationResponse::default()),
        ..Default::default()
    }
}

fn headers(names: &[StringMatch]) -> Option<ListStringMatcher> {
    let patterns = names.iter().map(|name| string(name, true)).collect();
    (!names.is_empty()).then_some(ListStringMatcher { patterns })
}
