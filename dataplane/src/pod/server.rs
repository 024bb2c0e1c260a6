//! Serves the proxy's own small endpoints, which whoever reaches the pod may ask: connections are
//! limited in number, time and bytes, and one that waits makes room for one that comes, so that
//! probes are answered beside half-sent requests.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
    time::{Instant, sleep},
};
use tower::ServiceExt;

/// How much all clients of one port may ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at a time.
    pub(super) connections: usize,
    /// A connection is not ended for another before this time: its request may be on the way.
    pub(super) grace: Duration,
    /// For a request's head, and between two requests.
    pub(super) head_time: Duration,
    /// Until a connection is asked to end after the request that it has; then it has `head_time` to
    /// do so.
    pub(super) lifetime: Duration,
}

impl Default for Limits {
    /// Many times what kubelet and Prometheus need.
    fn default() -> Self {
        Self {
            connections: 256,
            grace: Duration::from_millis(250),
            head_time: Duration::from_secs(15),
            lifetime: Duration::from_secs(300),
        }
    }
}

/// Bytes of a request's head; it also bounds what is read ahead of a body that nobody wants.
const HEAD_BYTES: usize = 16 * 1024;
/// How often a connection that may go is looked for in the time in which none may.
const LOOKS_PER_GRACE: u32 = 16;
/// Pause after accept has failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until the listener fails for good, which it does not.
pub(super) async fn serve(listener: TcpListener, routes: Router, limits: Limits) -> io::Result<()> {
    let mut open = Open::default();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        open.make_room(limits).await;
        let answering = Arc::<AtomicBool>::default();
        let connection = connection(stream, peer, routes.clone(), limits, Arc::clone(&answering));
        let task = tokio::spawn(connection).abort_handle();
        open.0.push_back(Slot {
            peer: peer.ip().to_canonical(),
            since: Instant::now(),
            task,
            answering,
        });
    }
}

/// A connection that was accepted.
struct Slot {
    peer: IpAddr,
    since: Instant,
    task: AbortHandle,
    /// A request is under way.
    answering: Arc<AtomicBool>,
}

/// Connections, the oldest first; some have ended.
#[derive(Default)]
struct Open(VecDeque<Slot>);

impl Open {
    /// Ends connections until there is room for one more; waits while all of them have just come.
    async fn make_room(&mut self, limits: Limits) {
        while self.0.len() >= limits.connections {
            self.0.retain(|slot| !slot.task.is_finished());
            if self.0.len() < limits.connections {
                return;
            }
            let is_old = |slot: &Slot| slot.since.elapsed() >= limits.grace;
            match self.least_needed(is_old).and_then(|index| self.0.remove(index)) {
                Some(slot) => slot.task.abort(),
                None => sleep(limits.grace / LOOKS_PER_GRACE).await,
            }
        }
    }

    /// Of the peer with most connections the oldest that waits for its client, else its oldest; of
    /// those that may go.
    fn least_needed(&self, may_go: impl Fn(&Slot) -> bool) -> Option<usize> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for slot in &self.0 {
            *counts.entry(slot.peer).or_default() += 1;
        }
        let (peer, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        let of_peer =
            || self.0.iter().enumerate().filter(|(_, slot)| slot.peer == peer && may_go(slot));
        let waits = of_peer().find(|(_, slot)| !slot.answering.load(Relaxed));
        waits.or_else(|| of_peer().next()).map(|(index, _)| index)
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    routes: Router,
    limits: Limits,
    answering: Arc<AtomicBool>,
) {
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (routes, answering) = (routes.clone(), Arc::clone(&answering));
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            answering.store(true, Relaxed);
            let response = routes.oneshot(request).await;
            answering.store(false, Relaxed);
            response
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head_time).max_buf_size(HEAD_BYTES);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = sleep(limits.lifetime) => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                ended = serving => ended,
                () = sleep(limits.head_time) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection to a port of our own ended");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    async fn start(limits: Limits) -> (SocketAddr, AbortHandle) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let echo = |ConnectInfo(peer): ConnectInfo<SocketAddr>, body: String| async move {
            format!("{peer} {body}")
        };
        let routes =
            Router::new().route("/ready", get(|| async { "ready" })).route("/echo", post(echo));
        (address, tokio::spawn(serve(listener, routes, limits)).abort_handle())
    }

    async fn ask(to: SocketAddr) -> String {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream
            .write_all(b"GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
        answer
    }

    async fn is_closed(stream: &mut TcpStream) {
        let mut rest = Vec::new();
        let _ =
            timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the connection is closed");
    }

    #[tokio::test]
    async fn what_is_sent_by_half_is_closed_in_time() {
        let head_time = Duration::from_millis(200);
        let (address, task) =
            start(Limits { head_time, lifetime: head_time, ..Limits::default() }).await;
        let begin = Instant::now();
        for (half, least) in [
            ("", head_time),
            ("GET /ready HTTP/1.1\r\nhost:", head_time),
            ("GET /ready HTTP/1.1\r\nhost: a\r\n\r\n", head_time),
            ("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf", 2 * head_time),
        ] {
            let begin = Instant::now();
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(half.as_bytes()).await.unwrap();
            is_closed(&mut stream).await;
            assert!(begin.elapsed() >= least, "{half:?}: {:?}", begin.elapsed());
        }
        assert!(begin.elapsed() < SOON && ask(address).await.ends_with("ready"));
        task.abort();
    }

    #[tokio::test]
    async fn probes_are_answered_beside_more_half_requests_than_connections_are_allowed() {
        let limits = Limits {
            connections: 8,
            grace: Duration::from_millis(20),
            head_time: SOON,
            lifetime: SOON,
        };
        let (address, task) = start(limits).await;
        let mut halves = Vec::new();
        for _ in 0..30 {
            let mut half = TcpStream::connect(address).await.unwrap();
            half.write_all(b"GET /ready HTTP/1.1\r\nhost:").await.unwrap();
            halves.push(half);
            assert!(ask(address).await.starts_with("HTTP/1.1 200 "));
        }
        // The oldest have made room.
        is_closed(&mut halves[0]).await;
        task.abort();
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let (address, task) = start(Limits::default()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream
            .write_all(
                format!("GET /ready HTTP/1.1\r\nx: {}", "a".repeat(2 * HEAD_BYTES)).as_bytes(),
            )
            .await;
        is_closed(&mut stream).await;
        task.abort();
    }

    #[tokio::test]
    async fn whoever_holds_most_gives_way() {
        let idle = || tokio::spawn(std::future::pending::<()>()).abort_handle();
        let slot = |peer: u8, answering: bool| Slot {
            peer: [10, 0, 0, peer].into(),
            since: Instant::now(),
            task: idle(),
            answering: Arc::new(AtomicBool::new(answering)),
        };
        for (slots, expected) in [
            (vec![slot(1, false), slot(2, true), slot(2, false), slot(2, false)], 2),
            (vec![slot(1, false), slot(2, true), slot(2, true)], 1),
            (vec![slot(1, false)], 0),
        ] {
            let open = Open(slots.into());
            assert_eq!(open.least_needed(|_| true), Some(expected));
            assert_eq!(open.least_needed(|_| false), None);
            open.0.iter().for_each(|slot| slot.task.abort());
        }
    }
}
