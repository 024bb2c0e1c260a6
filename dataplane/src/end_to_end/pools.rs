//! Connections to endpoints: who waits for one, for how long, and with whom it is shared.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Barrier,
    time::{Instant, timeout},
};

use super::{
    fixture::*,
    peer::{Server, client, get},
};
use crate::runtime::{
    Cluster,
    cluster::{CircuitBreakers, UpstreamProtocol},
};

const SOON: Duration = Duration::from_secs(20);

/// A proxy to one endpoint that speaks HTTP/2, by a cluster that `change` has changed.
async fn proxy_to(endpoint: SocketAddr, change: impl FnOnce(&mut Cluster)) -> Proxy {
    let mut proxy = Proxy::start(None);
    let mut cluster = proxy.cluster("a", &[endpoint]);
    cluster.connection.protocol = UpstreamProtocol::Http2;
    change(&mut cluster);
    let listener = proxy.listener(http_chain(with_routes(vec![to("a", |_| {})])));
    assert_eq!(proxy.configure(vec![listener], vec![cluster]).await, []);
    proxy
}

/// A server that allows one stream at a time on a connection, and ends no answer.
async fn one_at_a_time() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                builder.max_concurrent_streams(1);
                let mut connection = builder.handshake::<_, Bytes>(tcp).await.unwrap();
                let mut open = Vec::new();
                while let Some(Ok((_request, mut answer))) = connection.accept().await {
                    open.push(answer.send_response(Response::new(()), false).unwrap());
                }
            });
        }
    });
    address
}

/// A request of its own connection.
async fn ask(proxy: &Proxy) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    stream
}

async fn status(stream: &mut TcpStream) -> String {
    let mut line = [0; 12];
    timeout(SOON, stream.read_exact(&mut line)).await.expect("an answer").unwrap();
    String::from_utf8_lossy(&line[9..]).into_owned()
}

#[tokio::test]
async fn streams_beyond_what_a_server_allows_go_on_another_connection() {
    let proxy = proxy_to(one_at_a_time().await, |_| {}).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = ask(&proxy).await;
        assert_eq!(status(&mut stream).await, "200");
        open.push(stream);
    }
    let state = proxy.shared.config().cluster("a").unwrap().state.clone();
    assert_eq!(state.usage.connections.load(Relaxed), 4);
}

#[tokio::test]
async fn where_no_further_connection_may_be_opened_streams_wait_their_turn() {
    let few = CircuitBreakers { max_connections: 1, max_pending_requests: 1, ..Default::default() };
    let proxy = proxy_to(one_at_a_time().await, |cluster| cluster.limits = few).await;
    let mut first = ask(&proxy).await;
    assert_eq!(status(&mut first).await, "200");
    let mut second = ask(&proxy).await;
    let state = proxy.shared.config().cluster("a").unwrap().state.clone();
    let waits = || state.usage.pending.load(Relaxed) == 1;
    super::blame::until("the wait", waits).await;
    let mut third = ask(&proxy).await;
    assert_eq!(status(&mut third).await, "503", "no more than one may wait");
    drop(first);
    assert_eq!(status(&mut second).await, "200");
}

/// Opens three connections to one endpoint, for requests at a time, then allows one.
async fn lowered(protocol: UpstreamProtocol) {
    let together = Arc::new(Barrier::new(3));
    let server = Server::start(move |request, _| {
        let together = Arc::clone(&together);
        async move {
            if request.uri().path() == "/together" {
                together.wait().await;
            }
            Response::default()
        }
    })
    .await;
    let cluster = |most| {
        move |cluster: &mut Cluster| {
            cluster.connection.protocol = protocol;
            cluster.connection.http.limits.streams = 1;
            cluster.limits.max_connections = most;
        }
    };
    let mut proxy = proxy_to(server.address, cluster(3)).await;
    let client = client();
    let requests = (0..3).map(|_| get(&client, proxy.url("/together")));
    for answer in futures_util::future::join_all(requests).await {
        assert_eq!(answer.status, 200);
    }
    let state = proxy.shared.config().cluster("a").unwrap().state.clone();
    let open = || state.usage.connections.load(Relaxed);
    assert_eq!(open(), 3, "{protocol:?}");

    let mut less = proxy.cluster("a", &[server.address]);
    cluster(1)(&mut less);
    let listener = proxy.listener(http_chain(with_routes(vec![to("a", |_| {})])));
    assert_eq!(proxy.configure(vec![listener], vec![less]).await, []);
    assert_eq!(get(&client, proxy.url("/")).await.status, 200);
    super::blame::until("connections beyond the limit to be closed", || open() == 1).await;
}

#[tokio::test]
async fn idle_connections_beyond_a_limit_that_was_lowered_are_closed() {
    lowered(UpstreamProtocol::Http1).await;
    lowered(UpstreamProtocol::Http2).await;
}

/// A server that takes no connection any more, and refuses none.
fn full() -> (Socket, Vec<std::net::TcpStream>, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok();
    let taken = std::iter::from_fn(connect).collect();
    (socket, taken, address)
}

#[tokio::test]
async fn a_connection_that_cannot_be_opened_fails_all_who_wait_for_it_at_once() {
    const LIMIT: Duration = Duration::from_millis(500);
    const REQUESTS: u32 = 40;
    let (_socket, _taken, address) = full();
    let limited = |cluster: &mut Cluster| cluster.connection.connect_timeout = LIMIT;
    let proxy = proxy_to(address, limited).await;
    let (client, begin) = (client(), Instant::now());
    let requests = (0..REQUESTS).map(|_| get(&client, proxy.url("/")));
    for answer in futures_util::future::join_all(requests).await {
        assert_eq!(answer.status, 503);
        assert!(answer.body.contains("connection timeout"), "{}", answer.body);
    }
    let elapsed = begin.elapsed();
    assert!(elapsed >= LIMIT && elapsed < LIMIT * REQUESTS / 2, "{elapsed:?}");
}
