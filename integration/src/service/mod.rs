//! Services that proxies ask, over HTTP and gRPC, as a user runs them: how they are served, and how
//! they answer. What an answer is, is its test's.

pub mod access;
pub mod limit;

use std::{convert::Infallible, future::Future, net::SocketAddr, pin::Pin, thread};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, response::Parts};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use prost::Message;
use tokio::net::TcpListener;

/// What is answered; nothing: the connection ends.
pub type Answer = Option<Response<BoxBody<Bytes, Infallible>>>;

/// An answer that is still to come.
pub type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Serves HTTP/1 and HTTP/2 at this address, on a thread of its own, until the process ends.
///
/// # Panics
/// The address is not free.
pub fn serve(address: SocketAddr, answer: fn(Request<Incoming>) -> Answering) {
    let (ready, until_ready) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let listener = TcpListener::bind(address).await.expect("a free address");
            ready.send(()).expect("somebody waits");
            accept(listener, move |request, _| answer(request)).await;
        });
    });
    until_ready.recv().expect("it serves");
}

/// Serves HTTP/1 and HTTP/2 for as long as connections come. The answer is told the request, and
/// which of the server's addresses it came to.
pub async fn accept<F>(listener: TcpListener, answer: F)
where
    F: Fn(Request<Incoming>, SocketAddr) -> Answering + Clone + Send + Sync + 'static,
{
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(local) = stream.local_addr() else { continue };
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answering = answer(request, local);
                async move { answering.await.ok_or("there is no answer") }
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// An answer over HTTP.
pub fn http(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut answer = Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    answer.body(Full::new(Bytes::from(body.to_owned())).boxed()).ok()
}

/// The message of a call over gRPC.
///
/// # Panics
/// It is not whole, or another one.
pub async fn message<M: Message + Default>(request: Request<Incoming>) -> M {
    let mut body = request.into_body().collect().await.expect("a whole message").to_bytes();
    // A message is preceded by a flag and its length.
    body.advance(5);
    M::decode(body).expect("what is asked")
}

/// An answer over gRPC.
///
/// # Panics
/// The message has 4 GiB or more.
pub fn grpc(message: &[u8]) -> Answer {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("a small message"));
    framed.extend_from_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    let body = Full::new(framed.freeze()).with_trailers(async { Some(Ok(trailers)) });
    Response::builder().header("content-type", "application/grpc").body(body.boxed()).ok()
}

/// The failure of a call over gRPC.
///
/// # Panics
/// The status is no value of a header.
pub fn failure(status: &str) -> Answer {
    let (mut parts, ()): (Parts, ()) = Response::new(()).into_parts();
    parts.headers.insert("content-type", "application/grpc".parse().expect("a value"));
    parts.headers.insert("grpc-status", status.parse().expect("a value"));
    Some(Response::from_parts(parts, Full::new(Bytes::new()).boxed()))
}
