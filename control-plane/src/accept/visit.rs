//! A connection that was let in: HTTP on it, and when it has to end.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use ferromesh_cert_authority::PeerCertificates;
use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, transport::server::TcpConnectInfo};
use tower::Service;

use super::{
    network::ClientNetwork,
    not_served::NotServed,
    port::{Limits, Port, Spoken},
    seats::{Occupied, Seat},
    wire::Wire,
};

/// How often a silent peer is asked over HTTP/2 whether it is there, and how long it may take to
/// answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// HTTP/2 streams on one connection; a proxy needs two.
const STREAMS: u32 = 128;
/// Bytes of an HTTP/1 head; tokens and cookies are the longest parts.
const HEAD: usize = 64 << 10;
/// Bytes that a client may send before they are read, on a connection and on a stream of it: what
/// it costs to be slow. The first request of a proxy that comes back has a line for each resource
/// that it holds; below half of this they are taken without a word, so that a mesh of thousands of
/// services comes back without frames that only widen windows.
const XDS_WINDOW: u32 = 1 << 20;
/// The same where requests are small.
const HTTP_WINDOW: u32 = 256 << 10;
/// Time for requests that are being answered to end, after a connection was asked to.
const GRACE: Duration = Duration::from_secs(10);

/// Who is at the other end of a connection; an extension of each of its requests.
#[derive(Clone, Debug)]
pub struct Visit {
    pub(super) network: ClientNetwork,
    pub(super) seat: Arc<Seat>,
    pub(super) certificates: PeerCertificates,
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: SocketAddr,
}

impl Visit {
    /// Where it comes from, for fairness.
    pub fn network(&self) -> ClientNetwork {
        self.network
    }

    /// The connection is being served for as long as the result lives, and does not have to make
    /// room.
    pub fn occupy(&self) -> Occupied {
        self.seat.occupy()
    }
}

/// Serves a connection to its end.
pub(super) async fn serve(port: Arc<Port>, wire: Wire, visit: Visit, router: Router) {
    let (limits, spoken) = (port.limits, port.spoken);
    let asked = Arc::new(AtomicBool::new(false));
    let seat = visit.seat.clone();
    let answering = {
        let (port, asked) = (port.clone(), asked.clone());
        service_fn(move |request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            answer(port.clone(), router.clone(), request.map(Body::new), visit.clone())
        })
    };
    let builder = builder(&limits, spoken);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(wire), answering));
    let mut look = pin!(sleep(limits.head));
    let mut leaving = false;
    let refused = loop {
        tokio::select! {
            ended = &mut connection => match ended {
                Err(error) if is_timeout(&*error) => break too_late(asked.load(Ordering::Relaxed)),
                // Broken connections are nobody's concern.
                _ => return,
            },
            () = seat.cleared() => break NotServed::Cleared,
            () = port.stop.cancelled(), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
                look.as_mut().reset(Instant::now() + GRACE);
            }
            () = &mut look => match next_look(&limits, asked.load(Ordering::Relaxed), leaving, &seat) {
                Look::Again(at) => look.as_mut().reset(at),
                Look::AskToLeave => {
                    leaving = true;
                    port.refuse(NotServed::Quiet);
                    connection.as_mut().graceful_shutdown();
                    look.as_mut().reset(Instant::now() + GRACE);
                }
                Look::End(Some(why)) => break why,
                Look::End(None) => return,
            }
        }
    };
    port.refuse(refused);
}

/// What to do about a connection now.
enum Look {
    Again(Instant),
    AskToLeave,
    End(Option<NotServed>),
}

fn next_look(limits: &Limits, asked: bool, leaving: bool, seat: &Seat) -> Look {
    match seat.quiet_since() {
        None => Look::Again(Instant::now() + if leaving { GRACE } else { limits.quiet }),
        Some(_) if leaving => Look::End(None),
        Some(_) if !asked => Look::End(Some(NotServed::NoRequest)),
        Some(since) if since.elapsed() >= limits.quiet => Look::AskToLeave,
        Some(since) => Look::Again(since + limits.quiet),
    }
}

/// Whether the head of an HTTP/1 request did not come in time.
fn is_timeout(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout)
}

/// What the head of a request is missing for: the first, or a further one.
const fn too_late(asked: bool) -> NotServed {
    if asked { NotServed::Quiet } else { NotServed::NoRequest }
}

fn builder(limits: &Limits, spoken: Spoken) -> Builder<TokioExecutor> {
    let window = match spoken {
        Spoken::Grpc => XDS_WINDOW,
        Spoken::Http => HTTP_WINDOW,
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(window)
        .initial_connection_window_size(window);
    match spoken {
        Spoken::Grpc => builder.http2_only(),
        Spoken::Http => builder,
    }
}

/// Answers a request in time.
async fn answer(
    port: Arc<Port>,
    mut router: Router,
    mut request: Request<Body>,
    visit: Visit,
) -> Result<Response<Body>, Infallible> {
    let connection = TcpConnectInfo { local_addr: visit.local, remote_addr: Some(visit.remote) };
    let extensions = request.extensions_mut();
    extensions.insert(connection);
    extensions.insert(visit.certificates.clone());
    extensions.insert(visit);
    if let Ok(answered) = timeout(port.limits.answer, router.call(request)).await {
        return answered;
    }
    port.refuse(NotServed::SlowAnswer);
    let why = NotServed::SlowAnswer.to_string();
    Ok(match port.spoken {
        Spoken::Grpc => Status::deadline_exceeded(why).into_http(),
        Spoken::Http => {
            let mut response = Response::new(Body::from(format!("{why}\n")));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        }
    })
}
