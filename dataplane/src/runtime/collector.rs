//! Services that are told something, by gRPC or HTTP: how they are called. What is told is nobody's
//! business here.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Uri, header};

use super::filter::{
    Call, CallAnswer,
    grpc::{self, GrpcService},
};

/// Who takes what a proxy tells.
#[derive(Clone, Debug)]
pub enum Collector {
    /// A service that is called by gRPC.
    Grpc(GrpcService),
    /// A server that it is posted to.
    Http(HttpCollector),
}

/// A server that something is posted to.
#[derive(Clone, Debug)]
pub struct HttpCollector {
    /// Its cluster.
    pub cluster: Arc<str>,
    /// Where in it.
    pub uri: Uri,
    /// What every request bears.
    pub headers: HeaderMap,
    /// For a whole answer.
    pub timeout: Duration,
}

impl Collector {
    /// The call that hands it this message: of `method` by gRPC, as `content_type` by HTTP. None
    /// where nothing can be called so.
    pub fn call(
        &self,
        method: &'static str,
        content_type: &'static str,
        message: Vec<u8>,
    ) -> Option<Call> {
        match self {
            Self::Grpc(service) => service.call(method, &message),
            Self::Http(server) => {
                let mut request = Request::new(Bytes::from(message));
                *request.method_mut() = http::Method::POST;
                *request.uri_mut() = server.uri.clone();
                let headers = request.headers_mut();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
                headers.extend(server.headers.clone());
                let cluster = Arc::clone(&server.cluster);
                Some(Call { cluster, request, timeout: server.timeout })
            }
        }
    }

    /// Whether it has taken what it was handed.
    pub fn has_taken(&self, answer: &CallAnswer) -> bool {
        match self {
            Self::Grpc(_) => grpc::message(answer).is_ok(),
            Self::Http(_) => answer.status.is_success(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_posted_as_the_collector_wants_it() {
        let headers =
            HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("key"))]);
        let collector = Collector::Http(HttpCollector {
            cluster: "c".into(),
            uri: Uri::from_static("http://c.test/t"),
            headers,
            timeout: Duration::from_secs(1),
        });
        let call = collector.call("/M", "application/json", b"abc".to_vec()).unwrap();
        assert_eq!((&*call.cluster, call.timeout), ("c", Duration::from_secs(1)));
        assert_eq!(call.request.uri(), "http://c.test/t");
        assert_eq!(call.request.headers()["content-type"], "application/json");
        assert_eq!(call.request.headers()["authorization"], "key");
        assert_eq!(&call.request.body()[..], b"abc");
    }

    #[test]
    fn a_call_is_taken_if_its_status_says_so() {
        let grpc = Collector::Grpc(GrpcService {
            cluster: "c".into(),
            authority: "c.test".into(),
            metadata: HeaderMap::new(),
            timeout: Duration::from_secs(1),
        });
        let server = Uri::from_static("http://c.test/");
        let posted = Collector::Http(HttpCollector {
            cluster: "c".into(),
            uri: server,
            headers: HeaderMap::new(),
            timeout: Duration::from_secs(1),
        });
        for (status, grpc_status, expected) in
            [(200, "0", [true, true]), (200, "14", [false, true]), (503, "0", [false, false])]
        {
            let trailers = HeaderMap::from_iter([(
                "grpc-status".parse().unwrap(),
                grpc_status.parse().unwrap(),
            )]);
            let body = Bytes::from_static(&[0; 5]);
            let status = http::StatusCode::from_u16(status).unwrap();
            let answer = CallAnswer { status, headers: HeaderMap::new(), body, trailers };
            assert_eq!([grpc.has_taken(&answer), posted.has_taken(&answer)], expected);
        }
    }
}
