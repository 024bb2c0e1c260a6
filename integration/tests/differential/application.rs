//! The application behind a proxy: it answers as it is told, and remembers the bytes of every
//! request until the test has compared them. Its HTTP/1 is read here and not by a library, which
//! would hide what a proxy sends.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use crate::{
    answers::{self, ANSWERS, Answer, SILENCE, When},
    message::{Body, Framing, Head, Input},
};

/// Port of what has no sidecar.
pub(crate) const UPSTREAM_PORT: u16 = 7000;
/// Names the request, and the answer that it wants.
pub(crate) const CASE: &str = "x-case";
/// How long a request that has begun may take to end.
const SETTLED: Duration = Duration::from_secs(8);
const POISONED: &str = "no code panics while it holds this lock";

/// How far a request has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// Its end has not come yet.
    Underway,
    /// All of it was there.
    Complete,
    /// The proxy broke off, or sent what is no HTTP.
    Cut,
    /// All of it was there, then the proxy went away without waiting for the answer.
    Abandoned,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, Vec<u8>)>,
    pub(crate) progress: Progress,
}

/// What one side's application has seen. Requests without a number are kept under the empty one.
#[derive(Default)]
pub(crate) struct Seen {
    arrivals: Mutex<HashMap<String, Vec<Arrival>>>,
    changed: Notify,
}

impl Seen {
    fn begin(&self, id: &str, head: Head) -> usize {
        let mut arrivals = self.arrivals.lock().expect(POISONED);
        let of_id = arrivals.entry(id.to_owned()).or_default();
        of_id.push(Arrival {
            head,
            body: Vec::new(),
            trailers: Vec::new(),
            progress: Progress::Underway,
        });
        self.changed.notify_waiters();
        of_id.len() - 1
    }

    fn change(&self, id: &str, index: usize, change: impl FnOnce(&mut Arrival)) {
        if let Some(arrival) =
            self.arrivals.lock().expect(POISONED).get_mut(id).and_then(|a| a.get_mut(index))
        {
            change(arrival);
        }
        self.changed.notify_waiters();
    }

    /// Waits until `enough` holds of what has arrived for `id`; false when it does not in time.
    async fn wait(&self, id: &str, limit: Duration, enough: impl Fn(&[Arrival]) -> bool) -> bool {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if enough(self.arrivals.lock().expect(POISONED).get(id).map_or(&[], Vec::as_slice))
                {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(limit, wait).await.is_ok()
    }

    /// Waits until a request's head is there with at least `body` bytes behind it.
    pub(crate) async fn until_body(&self, id: &str, body: usize, limit: Duration) -> bool {
        self.wait(id, limit, |arrivals| arrivals.iter().any(|a| a.body.len() >= body)).await
    }

    /// Everything that has arrived for `id`, once nothing of it is under way; forgets it.
    pub(crate) async fn take(&self, id: &str) -> Vec<Arrival> {
        self.wait(id, SETTLED, |arrivals| {
            arrivals.iter().all(|a| a.progress != Progress::Underway)
        })
        .await;
        self.arrivals.lock().expect(POISONED).remove(id).unwrap_or_default()
    }
}

/// Serves `address` until the test ends.
pub(crate) async fn serve(address: SocketAddr, seen: &Arc<Seen>) {
    let listener = TcpListener::bind(address).await.unwrap_or_else(|e| panic!("{address}: {e}"));
    let seen = Arc::clone(seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(connection(stream, Arc::clone(&seen)));
        }
    });
}

async fn connection(stream: TcpStream, seen: Arc<Seen>) {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0";
    let mut start = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut start).await {
            Ok(read) if read == PREFACE.len() || start[..read] != PREFACE[..read] => break,
            Ok(0) | Err(_) => return,
            // Nothing tells of more bytes but another look.
            Ok(_) => tokio::task::yield_now().await,
        }
    }
    if start == PREFACE { http2(stream, seen).await } else { http1(stream, seen).await }
}

/// The number of a request and the answer it wants.
fn case(head: &Head) -> (String, Answer) {
    let value = head
        .fields
        .iter()
        .find(|(name, _)| name == CASE)
        .map(|(_, value)| String::from_utf8_lossy(value));
    let value = value.unwrap_or_default();
    let (id, answer) = answers::wanted(&value);
    (id.to_owned(), answer)
}

async fn http1(stream: TcpStream, seen: Arc<Seen>) {
    let mut input = Input::new(stream);
    while let Ok(Some(bytes)) = input.head().await {
        let Some(head) = Head::request(&bytes) else {
            let index = seen.begin("", Head::garbage(&bytes));
            seen.change("", index, |arrival| arrival.progress = Progress::Cut);
            return;
        };
        let (id, answer) = case(&head);
        let is_head = head.start.starts_with(b"HEAD ");
        let framing = Framing::of_request(&head);
        let index = seen.begin(&id, head);
        if answer.when == When::Early && input.stream.write_all(&answer.render(&id)).await.is_err()
        {
            return;
        }
        let body = receive(&mut input, framing, &seen, &id, index).await;
        let complete = body.is_ok();
        if !complete || answer.when != When::Never {
            let progress = if complete { Progress::Complete } else { Progress::Cut };
            seen.change(&id, index, |arrival| arrival.progress = progress);
        }
        if !complete || !respond(&mut input, &seen, &id, index, answer, is_head).await {
            return;
        }
    }
}

async fn receive(
    input: &mut Input<TcpStream>,
    framing: Framing,
    seen: &Seen,
    id: &str,
    index: usize,
) -> Result<(), ()> {
    let mut body = Body::new(framing);
    while let Some(piece) = body.next(input).await? {
        seen.change(id, index, |arrival| arrival.body.extend_from_slice(&piece));
    }
    let trailers = body.trailers;
    seen.change(id, index, |arrival| arrival.trailers = trailers);
    Ok(())
}

/// Answers; false when the connection is over.
async fn respond(
    input: &mut Input<TcpStream>,
    seen: &Seen,
    id: &str,
    index: usize,
    answer: Answer,
    is_head: bool,
) -> bool {
    match answer.when {
        When::Early => return !answer.close,
        When::Never => {
            let _ = input.rest().await;
            seen.change(id, index, |arrival| arrival.progress = Progress::Abandoned);
            return false;
        }
        When::Complete => {}
    }
    let mut bytes = answer.render(id);
    if is_head && !answer.close {
        let end = bytes.windows(4).rposition(|w| w == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        bytes.truncate(end);
    }
    if input.stream.write_all(&bytes).await.is_err() {
        return false;
    }
    if answer.name == "switch" {
        echo(input).await;
    }
    !answer.close
}

/// Sends back what comes, until nothing comes any more.
async fn echo(input: &mut Input<TcpStream>) {
    let buffered = input.take_buffered();
    if input.stream.write_all(&buffered).await.is_err() {
        return;
    }
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = input.stream.read(&mut buffer).await {
        if input.stream.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn http2(stream: TcpStream, seen: Arc<Seen>) {
    let service = service_fn(move |request| answer_http2(Arc::clone(&seen), request));
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

/// Marks a request that ends without its answer.
struct Underway {
    seen: Arc<Seen>,
    id: String,
    index: usize,
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.seen.change(&self.id, self.index, |arrival| match arrival.progress {
            Progress::Underway => arrival.progress = Progress::Abandoned,
            Progress::Complete | Progress::Cut | Progress::Abandoned => {}
        });
    }
}

async fn answer_http2(
    seen: Arc<Seen>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, mut body) = request.into_parts();
    let (head, is_head) = (Head::http2(&parts), parts.method == http::Method::HEAD);
    let (id, answer) = case(&head);
    let index = seen.begin(&id, head);
    let underway = Underway { seen: Arc::clone(&seen), id: id.clone(), index };
    let mut progress = Progress::Complete;
    if answer.when != When::Early {
        while let Some(frame) = body.frame().await {
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) => {
                    seen.change(&id, index, |arrival| arrival.body.extend_from_slice(&data))
                }
                Ok(Err(frame)) => {
                    let trailers = frame.into_trailers().map(|t| fields(&t)).unwrap_or_default();
                    seen.change(&id, index, |arrival| arrival.trailers = trailers);
                }
                // A broken body says so for ever.
                Err(_) => {
                    progress = Progress::Cut;
                    break;
                }
            }
        }
    }
    if answer.name == ANSWERS[SILENCE].name && progress == Progress::Complete {
        std::future::pending::<()>().await;
    }
    seen.change(&id, index, |arrival| arrival.progress = progress);
    drop(underway);
    let status = if answer.when == When::Early { 413 } else { 200 };
    let body = if is_head { Bytes::new() } else { Bytes::from_static(b"ok") };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    response
        .headers_mut()
        .insert("x-app", id.parse().unwrap_or_else(|_| http::HeaderValue::from_static("?")));
    Ok(response)
}

/// Names and values in the order of their arrival.
pub(crate) fn fields(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
}
