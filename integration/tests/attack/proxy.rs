//! Attacks on a sidecar and a gateway that carry traffic.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::{
    flood::Flood,
    frames::*,
    good::{self, Ask},
    round::{self, Victim},
    site::{HOST, Site},
};

/// Memory that a proxy may take more while it is attacked: a hundred connections with what each may
/// buffer.
const BOUND: u64 = 128 << 20;

/// Good clients of a port: over HTTP/1 and HTTP/2 on connections that are kept, and on a new one
/// for each request.
fn good(to: SocketAddr) -> Vec<(&'static str, Ask)> {
    // Whatever the name: HTTP/2 has no other place for it than the address.
    let resolve = tower::service_fn(move |_: Name| {
        std::future::ready(Ok::<_, Infallible>(std::iter::once(to)))
    });
    let connector = HttpConnector::new_with_resolver(resolve);
    let builder = || Client::builder(TokioExecutor::new());
    let port = to.port();
    vec![
        ("HTTP/1", asking(builder().build(connector.clone()), port)),
        ("HTTP/2", asking(builder().http2_only(true).build(connector.clone()), port)),
        ("new", asking(builder().pool_max_idle_per_host(0).build(connector), port)),
    ]
}

fn asking<C>(client: Client<C, Full<Bytes>>, port: u16) -> Ask
where
    C: Connect + Clone + Send + Sync + 'static,
{
    Arc::new(move || {
        let client = client.clone();
        async move {
            let body = Full::from("a body of some length");
            let request = Request::post(format!("http://{HOST}:{port}/good")).body(body);
            let response = client
                .request(request.map_err(|e| e.to_string())?)
                .await
                .map_err(|e| format!("{e:?}"))?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
            let text = String::from_utf8_lossy(&body);
            if status == 200 && text.contains("shop") {
                Ok(())
            } else {
                Err(format!("{status}: {text}"))
            }
        }
        .boxed()
    })
}

/// Good clients of the small servers beside.
fn probes(site: &Site) -> Vec<(&'static str, Ask)> {
    let probe = |port: u16, path: &str| good::probe(format!("http://{}{path}", site.own(port)));
    vec![
        ("15021", probe(15021, "/healthz/ready")),
        ("15090", probe(15090, "/stats/prometheus")),
        ("15020", probe(15020, "/healthz/ready")),
    ]
}

/// What is done to a port for traffic.
fn attacks() -> Vec<Flood> {
    vec![
        Flood::new("header references", 20, header_references),
        Flood::new("cookie crumbs", 20, cookie_crumbs),
        Flood::new("continuations without end", 20, continuations),
        Flood::new("settings", 20, |to| flood_of(to, frame(SETTINGS, 0, 0, &[]))),
        Flood::new("pings", 20, |to| flood_of(to, frame(PING, 0, 0, &[0; 8]))),
        Flood::new("priorities", 20, |to| flood_of(to, frame(PRIORITY, 0, 1, &[0; 5]))),
        Flood::new("window updates", 20, |to| {
            flood_of(to, frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))
        }),
        Flood::new("empty data", 20, empty_data),
        Flood::new("rapid reset", 10, rapid_reset),
        Flood::new("windows of zero", 10, window_of_zero),
        Flood::new("readers that do not read", 50, no_reader),
        Flood::new("slow heads", 200, slow_head),
        Flood::new("slow bodies", 200, slow_body),
        Flood::new("huge heads", 20, huge_head),
        Flood::new("invented hosts", 20, invented_hosts),
        Flood::new("half a handshake", 200, half_handshake),
        Flood::new("garbage", 20, garbage),
        Flood::new("a storm of connections", 100, connect_and_leave),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_and_a_gateway_serve_others_whatever_some_send() {
    let site = Site::start("127.83.1").await;
    for (name, process, to) in [
        ("sidecar", site.process("shop"), site.sidecar()),
        ("gateway", site.process("gateway"), site.gateway()),
    ] {
        let attacks: Vec<_> = attacks().into_iter().map(|flood| (to, flood)).collect();
        round::run(&Victim { name, process, bound: BOUND }, &good(to), &attacks).await;
    }
    let small: Vec<_> = [15021, 15090, 15020]
        .into_iter()
        .flat_map(|port| {
            let floods = [
                Flood::new("half a request", 200, slow_head),
                Flood::new("half a body", 200, slow_body),
                Flood::new("huge heads", 20, huge_head),
            ];
            floods.map(|flood| (site.own(port), flood))
        })
        .collect();
    let victim = Victim { name: "own ports", process: site.process("shop"), bound: BOUND };
    round::run(&victim, &probes(&site), &small).await;
}

/// Opens a connection and sends; gives it back to listen to.
pub(crate) async fn open(to: SocketAddr, bytes: &[u8]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(to).await.ok()?;
    stream.write_all(bytes).await.ok()?;
    Some(stream)
}

/// Listens until the other side ends the connection.
pub(crate) async fn listen(stream: &mut TcpStream) {
    let mut heard = [0; 16 * 1024];
    while stream.read(&mut heard).await.is_ok_and(|read| read > 0) {}
}

/// Sends the same for as long as it is taken, and listens meanwhile.
pub(crate) async fn repeat(stream: TcpStream, bytes: Vec<u8>) {
    let (mut read, mut write) = stream.into_split();
    let saying = async { while write.write_all(&bytes).await.is_ok() {} };
    let mut heard = [0; 16 * 1024];
    let hearing = async { while read.read(&mut heard).await.is_ok_and(|read| read > 0) {} };
    tokio::select! {
        () = saying => {}
        () = hearing => {}
    }
}

async fn header_references(to: SocketAddr) {
    let mut bytes = beginning();
    let mut block = [get(HOST), remembered("x", "1")].concat();
    for stream in 0..100 {
        block.extend([REFERENCE; 1800]);
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, 2 * stream + 1, &block));
        block = get(HOST);
    }
    if let Some(mut stream) = open(to, &bytes).await {
        listen(&mut stream).await;
    }
}

async fn cookie_crumbs(to: SocketAddr) {
    let mut bytes = beginning();
    let mut block = [get(HOST), remembered("cookie", "a=b")].concat();
    for stream in 0..1000 {
        block.extend([REFERENCE; 300]);
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, 2 * stream + 1, &block));
        block = get(HOST);
    }
    if let Some(stream) = open(to, &bytes).await {
        // As many streams as are taken were refused one by one.
        repeat(stream, frame(PING, 0, 0, &[0; 8])).await;
    }
}

async fn continuations(to: SocketAddr) {
    let first = frame(HEADERS, END_STREAM, 1, &get(HOST));
    if let Some(stream) = open(to, &[beginning(), first].concat()).await {
        repeat(stream, frame(CONTINUATION, 0, 1, &[REFERENCE; 16])).await;
    }
}

async fn flood_of(to: SocketAddr, frame: Vec<u8>) {
    if let Some(stream) = open(to, &beginning()).await {
        repeat(stream, frame.repeat(500)).await;
    }
}

async fn empty_data(to: SocketAddr) {
    let post = [&[0x83], &get(HOST)[1..]].concat();
    if let Some(stream) =
        open(to, &[beginning(), frame(HEADERS, END_HEADERS, 1, &post)].concat()).await
    {
        repeat(stream, frame(DATA, 0, 1, &[]).repeat(500)).await;
    }
}

async fn rapid_reset(to: SocketAddr) {
    let mut bytes = beginning();
    for stream in 0..2000 {
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, 2 * stream + 1, &get(HOST)));
        bytes.extend(frame(RST_STREAM, 0, 2 * stream + 1, &[0, 0, 0, 8]));
    }
    if let Some(mut stream) = open(to, &bytes).await {
        listen(&mut stream).await;
    }
}

/// Asks for much and takes nothing of it: a window of zero for every stream.
async fn window_of_zero(to: SocketAddr) {
    let mut bytes = beginning();
    bytes.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    for stream in 0..100 {
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, 2 * stream + 1, &get(HOST)));
    }
    if let Some(mut stream) = open(to, &bytes).await {
        listen(&mut stream).await;
    }
}

/// Asks again and again and never reads.
async fn no_reader(to: SocketAddr) {
    let Ok(socket) = TcpSocket::new_v4() else { return };
    let _ = socket.set_recv_buffer_size(4096);
    let Ok(mut stream) = socket.connect(to).await else { return };
    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    while stream.write_all(request.repeat(100).as_bytes()).await.is_ok() {}
}

pub(crate) async fn slow_head(to: SocketAddr) {
    let Some(mut stream) = open(to, b"GET / HTTP/1.1\r\nhost: ").await else { return };
    while stream.write_all(b"a").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

pub(crate) async fn slow_body(to: SocketAddr) {
    let head = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 1000000\r\n\r\n");
    let Some(mut stream) = open(to, head.as_bytes()).await else { return };
    while stream.write_all(b"a").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

pub(crate) async fn huge_head(to: SocketAddr) {
    let Some(stream) = open(to, format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nx: ").as_bytes()).await
    else {
        return;
    };
    repeat(stream, vec![b'a'; 16 * 1024]).await;
}

/// Asks for hosts that nobody has, each time for another one.
async fn invented_hosts(to: SocketAddr) {
    let ask = |end: &str| {
        format!("GET / HTTP/1.1\r\nhost: {:x}.{HOST}\r\n{end}\r\n", rand::random::<u64>())
    };
    let asked: String = (0..1000).map(|_| ask("")).chain([ask("connection: close\r\n")]).collect();
    let Ok(stream) = TcpStream::connect(to).await else { return };
    let (mut read, mut write) = stream.into_split();
    let mut nowhere = tokio::io::sink();
    let hearing = tokio::io::copy(&mut read, &mut nowhere);
    let _ = tokio::join!(write.write_all(asked.as_bytes()), hearing);
}

/// The beginning of a TLS record that never ends.
pub(crate) async fn half_handshake(to: SocketAddr) {
    if let Some(mut stream) = open(to, &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await {
        listen(&mut stream).await;
    }
}

async fn garbage(to: SocketAddr) {
    let bytes: Vec<u8> = (0..4096).map(|_| rand::random()).collect();
    if let Some(mut stream) = open(to, &bytes).await {
        let _ = tokio::time::timeout(Duration::from_millis(100), listen(&mut stream)).await;
    }
}

async fn connect_and_leave(to: SocketAddr) {
    let _ = TcpStream::connect(to).await;
}
