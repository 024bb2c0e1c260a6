//! Callers that are silent, slow or without measure, and others beside them.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use ferromesh_proto::{
    ResourceType::Cluster,
    istio_ca::{
        IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
    },
    retry,
};
use futures_util::{StreamExt, future::try_join_all, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tonic::{Code, Request, Status};

use crate::{
    PATIENCE,
    client::{Delta, secure_channel, sign},
    plane::{Plane, SIDECAR},
};

/// Less than silent callers were waited for when they kept others waiting (10 s), and as much as a
/// busy machine may need.
const SOON: Duration = Duration::from_secs(9);

/// Connections on which this much of a TLS handshake came.
async fn connections(plane: &Plane, number: usize, begun: &'static [u8]) -> Vec<TcpStream> {
    let address = plane.control.addresses.xds_tls;
    let connect = async |_| {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(begun).await.map(|()| stream)
    };
    try_join_all((0..number).map(connect)).await.expect("connections")
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_callers_and_half_handshakes_keep_nobody_waiting() {
    let plane = Plane::start().await;
    let silent = connections(&plane, 140, b"").await;
    // A record of a handshake whose body never comes.
    let half = connections(&plane, 140, &[0x16, 3, 1, 2, 0, 1]).await;
    let token = plane.join_token("shop", "cart");
    let served = timeout(SOON, async {
        let identity = sign(&plane, &token).await;
        let mut proxy =
            Delta::connect(secure_channel(&plane, Some(&identity)).await, SIDECAR).await;
        proxy.fetch(Cluster, &[]).await
    });
    assert!(served.await.expect("served beside them").names().count() > 0);
    drop((silent, half));
    plane.stop().await;
}

/// What a stream is told that announces a request of `length` bytes and sends the beginning of it.
async fn announce(plane: &Plane, length: u32) -> Status {
    let stream = TcpStream::connect(plane.control.addresses.xds).await.expect("a connection");
    let (mut requests, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let mut begin = vec![0];
    begin.extend(length.to_be_bytes());
    begin.resize(64 << 10, 0);
    let frames = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(begin)))])
        .chain(stream::pending());
    let method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
    let request = http::Request::post(format!("http://control-plane{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(frames))
        .expect("a request");
    let response = requests.send_request(request).await.expect("an answer");
    let trailers = http_body_util::BodyExt::collect(response.into_body()).await.expect("an end");
    Status::from_header_map(trailers.trailers().expect("trailers")).expect("a status")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_no_mesh_needs_is_refused_before_it_is_kept() {
    let plane = Plane::start().await;
    // One whose end was waited for would be told of a deadline.
    let status = timeout(PATIENCE, announce(&plane, 31 << 20)).await.expect("an answer");
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_asks_for_certificates_without_end_is_told_when_to_come_back() {
    let plane = Plane::start().await;
    let csr = || {
        let key = rcgen::KeyPair::generate().expect("a key");
        rcgen::CertificateParams::default()
            .serialize_request(&key)
            .expect("a request")
            .pem()
            .expect("PEM")
    };
    let channel = secure_channel(&plane, None).await;
    let ask = async |token: &str, csr: String| {
        let mut request = Request::new(IstioCertificateRequest { csr, ..Default::default() });
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse().expect("ASCII"));
        IstioCertificateServiceClient::new(channel.clone()).create_certificate(request).await
    };
    let (evil, good, csr) =
        (plane.join_token("shop", "cart"), plane.join_token("shop", "other"), csr());
    let mut refused = None;
    for _ in 0..150 {
        refused = ask(&evil, csr.clone()).await.err().or(refused);
    }
    let refused = refused.expect("no identity needs so many");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(
        retry::hint(&refused).is_some_and(|wait| wait < Duration::from_secs(10)),
        "{refused:?}"
    );
    ask(&good, csr).await.expect("others are served");
    plane.stop().await;
}
