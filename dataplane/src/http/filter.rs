//! Runs the filters of a connection manager over a request and its response: shows each the phases
//! in which it takes part, waits and calls for it.
//!
//! The request meets filters in their order, the response in the reverse. What is seldom is boxed:
//! what is held over an `await` is kept for every connection, and a request whose filters neither
//! wait nor call costs a loop over them and no allocation.

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, header};
use http_body::Frame;
use tokio::time::{Instant, timeout};

use super::{
    exchange::Exchange,
    outgoing::Outgoing,
    passing::Passing,
    reply::{self, Local, Reply},
    request::{self, Received},
    step::{Next, satisfy},
};
use crate::{
    codec::{blame::DownstreamFault, progress::Trailers},
    runtime::{
        HttpConnectionManager,
        filter::{
            Answer, FilterRequest, FilterResponse, ForRouter, NamedFilter, Notes, Phase, Piece,
            Step,
        },
    },
    telemetry::Flags,
};

/// The answer to a body that is longer, where a filter asks for all of it.
const TOO_LONG: Local =
    Local::new(413, "Payload Too Large", Flags::NONE, "request_payload_too_large");

/// Why a request does not come to the router.
pub(super) enum Stop {
    /// A filter has answered.
    Answered(Box<Answer>),
    /// The proxy has.
    Local(Local),
    /// The client has broken its request while a filter looked at it.
    Broken(DownstreamFault),
}

impl Stop {
    /// Ends the exchange.
    pub(super) fn answer(self, exchange: Box<Exchange>) -> Reply {
        match self {
            Self::Answered(answer) => reply::of_filter(exchange, *answer),
            Self::Local(local) => local.send(exchange),
            Self::Broken(fault) => reply::part(exchange, fault),
        }
    }
}

/// Shows a request to the filters; tells what they leave for the router.
pub(super) async fn request(
    exchange: &mut Exchange,
    passing: &mut Passing<'_>,
    outgoing: &mut Outgoing,
    received: &mut Received,
) -> Result<ForRouter, Stop> {
    let mut router = ForRouter::default();
    for (place, named) in passing.manager.filters.iter().enumerate() {
        let set = passing.levels.get(&named.name);
        loop {
            let mut shown = view(exchange, *passing, outgoing, &mut router, place);
            let step = named.filter.request_headers(&mut shown, set);
            match step {
                Step::Continue => break,
                Step::Change(changes) => {
                    request::change_headers(exchange, &changes, outgoing);
                    break;
                }
                _ => {}
            }
            match Box::pin(satisfy(exchange, passing.config, named, place, step)).await {
                Ok(Next::Again) => {}
                Ok(Next::Onward) => break,
                Err(answer) => return Err(Stop::Answered(answer)),
            }
        }
        if named.filter.takes_part(Phase::RequestBody) {
            let looking = request_body(exchange, *passing, outgoing, received, &mut router, place);
            Box::pin(looking).await?;
        }
        if std::mem::take(&mut router.other_path) {
            exchange.path.clone_from(&outgoing.path);
        }
        if std::mem::take(&mut router.other_route) {
            *passing = passing.again(exchange, outgoing);
        }
    }
    exchange.count_notes();
    Ok(router)
}

fn view<'a>(
    exchange: &'a mut Exchange,
    passing: Passing<'a>,
    outgoing: &'a mut Outgoing,
    router: &'a mut ForRouter,
    place: usize,
) -> FilterRequest<'a> {
    FilterRequest {
        connection: &exchange.downstream.facts,
        own_names: exchange.downstream.own_names(),
        protocol: exchange.protocol,
        remote_ip: exchange.remote.ip(),
        method: &outgoing.method,
        scheme: outgoing.scheme,
        authority: &outgoing.authority,
        path: &mut outgoing.path,
        headers: &mut outgoing.headers,
        notes: &mut exchange.notes,
        flags: &mut exchange.flags,
        router,
        limits: passing.limits,
        connection_state: &exchange.downstream.filters,
        random: rand::random,
        now,
        date: SystemTime::now,
        place,
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Shows a filter the request's body, as much of it as it wants to see.
async fn request_body(
    exchange: &mut Exchange,
    passing: Passing<'_>,
    outgoing: &mut Outgoing,
    received: &mut Received,
    router: &mut ForRouter,
    place: usize,
) -> Result<(), Stop> {
    let Some(named) = passing.manager.filters.iter().nth(place) else { return Ok(()) };
    let set = passing.levels.get(&named.name);
    if let Some(body) = received.body.take() {
        let limits = exchange.manager.limits;
        exchange.progress.begin(body, received.http2, Trailers::Kept, limits);
    }
    let (mut piece, mut trailers) = (Piece::default(), None);
    loop {
        piece.is_last = exchange.progress.is_read();
        let step = {
            let mut shown = view(exchange, passing, outgoing, router, place);
            named.filter.request_body(&mut shown, set, &mut piece)
        };
        match step {
            Step::Continue => break,
            Step::More if piece.is_last => break,
            Step::Change(changes) => {
                request::change_headers(exchange, &changes, outgoing);
                break;
            }
            Step::More => {
                let frame = next_frame(exchange, passing.manager).await?;
                match frame.map(Frame::into_data) {
                    Some(Ok(bytes)) => {
                        piece.bytes = joined(piece.bytes, bytes, passing.most_seen)?;
                    }
                    Some(Err(frame)) => trailers = Some(frame),
                    None => {}
                }
            }
            step => match satisfy(exchange, passing.config, named, place, step).await {
                Ok(Next::Again) => {}
                Ok(Next::Onward) => break,
                Err(answer) => return Err(Stop::Answered(answer)),
            },
        }
    }
    if piece.is_last && outgoing.headers.contains_key(header::CONTENT_LENGTH) {
        outgoing.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(piece.bytes.len()));
    }
    let data = Some(piece.bytes).filter(|bytes| !bytes.is_empty()).map(Frame::data);
    exchange.progress.unread(data.into_iter().chain(trailers));
    Ok(())
}

/// The next frame of a request's body, within the time that a client has for it.
async fn next_frame(
    exchange: &Exchange,
    manager: &HttpConnectionManager,
) -> Result<Option<Frame<Bytes>>, Stop> {
    let some = |limit: Option<std::time::Duration>| limit.filter(|limit| !limit.is_zero());
    let whole = some(manager.request_timeout)
        .map(|limit| (limit.saturating_sub(exchange.start.elapsed()), Local::REQUEST_TIMEOUT));
    let silence = some(manager.stream_idle_timeout).map(|limit| (limit, Local::IDLE_UPLOAD));
    let limit = whole.into_iter().chain(silence).min_by_key(|(limit, _)| *limit);
    let frame = match limit {
        Some((limit, late)) => {
            timeout(limit, exchange.progress.next()).await.map_err(|_| Stop::Local(late))?
        }
        None => exchange.progress.next().await,
    };
    frame.transpose().map_err(Stop::Broken)
}

fn joined(before: Bytes, more: Bytes, most: usize) -> Result<Bytes, Stop> {
    if before.len() + more.len() > most {
        return Err(Stop::Local(TOO_LONG));
    }
    if before.is_empty() {
        return Ok(more);
    }
    let mut both = BytesMut::from(before);
    both.extend_from_slice(&more);
    Ok(both.freeze())
}

/// Shows a response's head to the filters, the last one first.
pub(super) async fn response(passing: Passing<'_>, mut reply: Reply) -> Reply {
    if !passing.manager.filters.take_part(Phase::ResponseHeaders) {
        return reply;
    }
    // A connection that changes its protocol has taken the exchange along, and left the notes.
    let mut left = reply.extensions_mut().remove::<Notes>().unwrap_or_default();
    let before = reply.headers().len();
    for (place, named) in passing.manager.filters.iter().enumerate().rev() {
        while let Err(step) = show_head(named, place, &mut reply, &mut left) {
            let Some(exchange) = reply.body_mut().exchange_mut() else { break };
            match Box::pin(satisfy(exchange, passing.config, named, place, step)).await {
                Ok(Next::Again) => {}
                Ok(Next::Onward) => break,
                Err(answer) => return instead(reply, *answer),
            }
        }
    }
    if reply.headers().len() != before {
        note_headers(&mut reply);
    }
    reply
}

/// Logs show what filters have added.
fn note_headers(reply: &mut Reply) {
    let headers = reply.headers().clone();
    if let Some(exchange) = reply.body_mut().exchange_mut()
        && let Some(noted) = &mut exchange.response_headers
    {
        *noted = headers;
    }
}

/// The step that a filter wants, unless it is the next one.
fn show_head(
    named: &NamedFilter,
    place: usize,
    reply: &mut Reply,
    left: &mut Notes,
) -> Result<(), Step> {
    if !named.filter.takes_part(Phase::ResponseHeaders) {
        return Ok(());
    }
    let status = reply.status().as_u16();
    let mut headers = std::mem::take(reply.headers_mut());
    let notes = reply.body_mut().exchange_mut().map_or(left, |exchange| &mut exchange.notes);
    let mut shown = FilterResponse { status, headers: &mut headers, notes, now, place };
    let step = named.filter.response_headers(&mut shown);
    *reply.headers_mut() = headers;
    match step {
        Step::Continue => Ok(()),
        step => Err(step),
    }
}

/// A filter's answer in place of a response that has begun.
fn instead(mut reply: Reply, answer: Answer) -> Reply {
    match reply.body_mut().take_exchange() {
        Some(exchange) => reply::of_filter(exchange, answer),
        None => reply,
    }
}
