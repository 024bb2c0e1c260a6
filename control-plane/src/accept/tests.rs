//! Real sockets on a port with short times: who is silent, slow or many, and who is served beside
//! them.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    routing::{get, post},
};
use futures_util::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Acceptor, ClientNetwork, Limits, NotServed, Port, Spoken, budget::Budget, requests::Requests,
    seats::Seats, turns::Turns,
};
use crate::metrics::Metrics;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a test waits for to end; everything else has [`PATIENCE`], so that nothing ends by chance.
const SHORT: Duration = Duration::from_millis(300);
const PATIENT: Limits = Limits {
    connections: 8,
    first_byte: PATIENCE,
    handshake: PATIENCE,
    head: PATIENCE,
    quiet: PATIENCE,
    answer: PATIENCE,
};

/// The largest body, and memory for bodies.
const LARGE: usize = 1 << 20;
const BODIES: usize = 4 * LARGE;
/// Memory for small bodies.
const SMALL: usize = 128 << 10;

struct Fixture {
    address: std::net::SocketAddr,
    metrics: Arc<Metrics>,
    requests: Arc<Requests>,
    /// Lets `/told` answer.
    told: Arc<Notify>,
    _stop: DropGuard,
}

impl Fixture {
    async fn open(limits: Limits, body: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let (address, metrics, stop) =
            (listener.local_addr().expect("bound"), Metrics::new(), CancellationToken::new());
        let requests = Arc::new(Requests {
            port: "test",
            largest: LARGE,
            body,
            bodies: Budget::new(BODIES, LARGE),
            small: Budget::new(SMALL, SMALL),
            turns: Turns::new(1),
            metrics: metrics.clone(),
        });
        let kept = requests.clone();
        let admit = async |State(requests): State<Arc<Requests>>, request: Request, next: Next| {
            requests.pass(request, next).await
        };
        let told = Arc::<Notify>::default();
        let waiting = told.clone();
        let router = Router::new()
            .route("/length", post(async |body: axum::body::Bytes| body.len().to_string()))
            .route("/never", get(std::future::pending::<()>))
            .route("/told", get(move || answer_once(waiting.clone())))
            .layer(middleware::from_fn_with_state(requests, admit))
            .route("/health", get(async || "well"));
        let port = Port {
            name: "test",
            limits,
            spoken: Spoken::Http,
            metrics: metrics.clone(),
            stop: stop.clone(),
        };
        let seats = Seats::new(limits.connections);
        let acceptor = Acceptor { port: Arc::new(port), tls: None, seats };
        tokio::spawn(acceptor.serve(listener, router));
        Self { address, metrics, requests: kept, told, _stop: stop.drop_guard() }
    }

    async fn connect(&self, begin: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(begin.as_bytes()).await.expect("sent");
        stream
    }

    /// What comes until the connection is closed.
    async fn ask(&self, request: &str) -> String {
        read(self.connect(request).await).await
    }

    async fn is_well(&self) {
        let answer = self.ask("GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("well"), "{answer}");
    }

    fn refused(&self, why: NotServed) -> u64 {
        let line = format!("mesh_door_refusals_total{{door=\"test\",reason=\"{}\"}} ", why.label());
        let text = self.metrics.render();
        text.lines()
            .find_map(|found| found.strip_prefix(&line))
            .map_or(0, |number| number.parse().expect("a number"))
    }
}

async fn answer_once(told: Arc<Notify>) -> &'static str {
    told.notified().await;
    "told"
}

async fn read(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end, too.
    let _ =
        timeout(2 * PATIENCE, stream.read_to_end(&mut text)).await.expect("it is closed in time");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn who_says_nothing_half_a_head_or_nothing_more_is_sent_away() {
    let head = "GET /health HTTP/1.1\r\nhost: a\r\n";
    let silent = Limits { first_byte: SHORT, ..PATIENT };
    let half = Limits { head: SHORT, ..PATIENT };
    // Whether it is quiet is seen for the first time when a head would be late.
    let quiet = Limits { head: 10 * SHORT, quiet: SHORT, ..PATIENT };
    for (limits, begin, why) in [
        (silent, "", NotServed::Silent),
        (half, "PRI * HTT", NotServed::NoRequest),
        (half, head, NotServed::NoRequest),
        (quiet, &format!("{head}\r\n"), NotServed::Quiet),
    ] {
        let fixture = Fixture::open(limits, PATIENCE).await;
        let asked = Instant::now();
        fixture.ask(begin).await;
        assert!(asked.elapsed() < PATIENCE / 2, "{begin:?}: after {:?}", asked.elapsed());
        assert!(fixture.refused(why) > 0, "{begin:?}: {}", fixture.metrics.render());
    }
}

#[tokio::test]
async fn a_body_that_is_slow_large_or_late_is_refused_and_a_good_one_is_read() {
    let post = |length: usize, body: &str| {
        format!(
            "POST /length HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let never = "GET /never HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned();
    let impatient = Limits { answer: SHORT, ..PATIENT };
    for (limits, body, request, status, why) in [
        (PATIENT, PATIENCE, post(5, "12345"), "200", None),
        (PATIENT, SHORT, post(5, "1234"), "408", Some(NotServed::SlowBody)),
        (PATIENT, SHORT, post(1 << 20, "x"), "408", Some(NotServed::SlowBody)),
        (
            PATIENT,
            PATIENCE,
            post((1 << 20) + 1, &"x".repeat((1 << 20) + 1)),
            "413",
            Some(NotServed::LargeBody),
        ),
        (impatient, PATIENCE, never, "503", Some(NotServed::SlowAnswer)),
    ] {
        let fixture = Fixture::open(limits, body).await;
        let answer = fixture.ask(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        assert!(
            why.is_none_or(|why| fixture.refused(why) > 0),
            "{status}: {}",
            fixture.metrics.render()
        );
    }
}

#[tokio::test]
async fn a_body_counts_until_its_request_is_answered() {
    let fixture = Fixture::open(PATIENT, PATIENCE).await;
    let Requests { bodies, small, turns, .. } = &*fixture.requests;
    for (length, budget, all) in [(LARGE, bodies, BODIES), (32 << 10, small, SMALL)] {
        let served = "GET /told HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let served = fixture.connect(served).await;
        while turns.turn(ClientNetwork::UNKNOWN).now_or_never().is_some() {
            tokio::task::yield_now().await;
        }
        let head = "POST /length HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
        let body = "x".repeat(length);
        let posted =
            fixture.connect(&format!("{head}content-length: {length}\r\n\r\n{body}")).await;
        let waits = async {
            while turns.waiting() != 1 {
                tokio::task::yield_now().await;
            }
        };
        // The body has come as a whole, and waits for the only turn.
        timeout(PATIENCE, waits).await.expect("it waits for its turn");
        assert_eq!(budget.left(), all - length);
        fixture.told.notify_one();
        assert!(read(served).await.ends_with("told"));
        assert!(read(posted).await.ends_with(&length.to_string()));
        assert_eq!(budget.left(), all);
    }
}

#[tokio::test]
async fn health_answers_beside_a_flood_that_takes_every_seat_and_every_turn() {
    let fixture = Fixture::open(PATIENT, PATIENCE).await;
    let served = "GET /told HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let served = fixture.connect(served).await;
    let mut flood = Vec::new();
    for round in 0..20 {
        for begin in ["", "GET /health HT", "GET /never HTTP/1.1\r\nhost: a\r\n\r\n"] {
            flood.push(fixture.connect(begin).await);
        }
        let well = timeout(PATIENCE / 2, fixture.is_well());
        assert!(well.await.is_ok(), "in round {round}");
    }
    assert!(fixture.refused(NotServed::Cleared) > 40, "{}", fixture.metrics.render());
    assert_eq!(fixture.refused(NotServed::Full), 0, "there was always somebody to make room");
    fixture.told.notify_one();
    let answer = read(served).await;
    assert!(answer.ends_with("told"), "who is being served stays: {answer}");
}
