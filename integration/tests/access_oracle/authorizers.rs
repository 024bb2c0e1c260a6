//! Services that are asked about calls, as a user runs them: one over gRPC, one over HTTP. Each
//! decides by what the call shows, so that the oracle can tell what it says.

use std::net::Ipv4Addr;

use ferromesh_integration::service::{
    self, Answer,
    access::{CHECK, CheckRequest, CheckResponse, Status},
};
use http::Request;
use hyper::body::Incoming;
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The port of both.
const PORT: u16 = 9191;
/// The header by which the one over HTTP decides.
pub(crate) const SHOWN: &str = "x-token";

/// The one over gRPC lets in who comes from here.
pub(crate) fn grpc_allows(source: Ipv4Addr) -> bool {
    source.octets()[3] % 2 == 1
}

/// The one over HTTP lets in who shows this.
pub(crate) fn http_allows(shown: Option<&str>) -> bool {
    shown == Some("one")
}

/// Names of authorizers that policies write; the last one does not exist.
pub(crate) const NAMES: [&str; 3] = ["by-grpc", "by-http", "by-nobody"];

/// The part of a mesh configuration.
pub(crate) fn providers() -> Value {
    json!([
        {"name": NAMES[0], "envoyExtAuthzGrpc": {
            "service": "grpc.authz.example.com", "port": PORT, "timeout": "10s",
        }},
        {"name": NAMES[1], "envoyExtAuthzHttp": {
            "service": "istio-system/http.authz.example.com", "port": PORT, "timeout": "10s",
            "includeRequestHeadersInCheck": ["X-Token"], "pathPrefix": "/check",
        }},
    ])
}

/// Their services.
pub(crate) fn services(addresses: [Ipv4Addr; 2]) -> Vec<Value> {
    let service = |name: &str, protocol: &str, address: Ipv4Addr| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": name, "namespace": "istio-system"},
            "spec": {
                "hosts": [format!("{name}.authz.example.com")], "location": "MESH_EXTERNAL",
                "ports": [{"number": PORT, "name": "p", "protocol": protocol}],
                "resolution": "DNS", "endpoints": [{"address": address}],
            },
        })
    };
    vec![service("grpc", "GRPC", addresses[0]), service("http", "HTTP", addresses[1])]
}

/// Serves both.
pub(crate) async fn serve(addresses: [Ipv4Addr; 2]) {
    for address in addresses {
        let listener = TcpListener::bind((address, PORT)).await.expect("a free address");
        tokio::spawn(service::accept(listener, |request, _| Box::pin(answer(request))));
    }
}

async fn answer(request: Request<Incoming>) -> Answer {
    if request.uri().path() == CHECK { grpc(request).await } else { plain(&request) }
}

/// 200 lets a request in, everything else is sent to the client.
fn plain(request: &Request<Incoming>) -> Answer {
    assert!(request.uri().path().starts_with("/check/"), "{}", request.uri());
    let shown: Vec<&str> =
        request.headers().get_all(SHOWN).iter().filter_map(|v| v.to_str().ok()).collect();
    let allowed = http_allows(Some(&shown.join(",")));
    service::http(if allowed { 200 } else { 403 }, &[], "")
}

const PERMISSION_DENIED: i32 = 7;

async fn grpc(request: Request<Incoming>) -> Answer {
    let check: CheckRequest = service::message(request).await;
    let source = check.attributes.and_then(|a| a.source?.address?.socket).expect("a source");
    let source: Ipv4Addr = source.address.parse().expect("an address");
    let code = if grpc_allows(source) { 0 } else { PERMISSION_DENIED };
    let answer = CheckResponse { status: Some(Status { code }), ..Default::default() };
    service::grpc(&answer.encode_to_vec())
}
