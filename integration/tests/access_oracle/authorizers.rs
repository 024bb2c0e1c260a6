//! Services that are asked about calls, as a user runs them: one over gRPC, one over HTTP. Each
//! decides by what the call shows, so that the oracle can tell what it says.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
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
        let address: SocketAddr = (address, PORT).into();
        let listener = TcpListener::bind(address).await.expect("a free address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
                });
            }
        });
    }
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(request: Request<Incoming>) -> Result<Answer, Infallible> {
    let is_grpc = request.uri().path() == "/envoy.service.auth.v3.Authorization/Check";
    Ok(if is_grpc { grpc(request).await } else { plain(&request) })
}

/// 200 lets a request in, everything else is sent to the client.
fn plain(request: &Request<Incoming>) -> Answer {
    assert!(request.uri().path().starts_with("/check/"), "{}", request.uri());
    let shown: Vec<&str> =
        request.headers().get_all(SHOWN).iter().filter_map(|v| v.to_str().ok()).collect();
    let shown = shown.join(",");
    let allowed = http_allows(Some(&*shown));
    let status = if allowed { StatusCode::OK } else { StatusCode::FORBIDDEN };
    let answer = Response::builder().status(status).body(Full::new(Bytes::new()).boxed());
    answer.expect("an answer")
}

/// `CheckRequest` of `envoy.service.auth.v3`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

#[derive(Clone, PartialEq, Message)]
struct Attributes {
    #[prost(message, optional, tag = "1")]
    source: Option<Peer>,
}

#[derive(Clone, PartialEq, Message)]
struct Peer {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
}

#[derive(Clone, PartialEq, Message)]
struct Address {
    #[prost(message, optional, tag = "1")]
    socket: Option<Socket>,
}

#[derive(Clone, PartialEq, Message)]
struct Socket {
    #[prost(string, tag = "2")]
    address: String,
}

/// `CheckResponse`: a `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
}

const PERMISSION_DENIED: i32 = 7;

async fn grpc(request: Request<Incoming>) -> Answer {
    let mut body = request.into_body().collect().await.expect("a whole message").to_bytes();
    // A message is preceded by a flag and its length.
    body.advance(5);
    let check = CheckRequest::decode(body).expect("a check");
    let source = check.attributes.and_then(|a| a.source?.address?.socket).expect("a source");
    let source: Ipv4Addr = source.address.parse().expect("an address");
    let code = if grpc_allows(source) { 0 } else { PERMISSION_DENIED };
    let message = CheckResponse { status: Some(Status { code }) }.encode_to_vec();
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("a small message"));
    framed.extend_from_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    let body = Full::new(framed.freeze()).with_trailers(async { Some(Ok(trailers)) });
    let answer = Response::builder().header("content-type", "application/grpc");
    answer.body(body.boxed()).expect("an answer")
}
