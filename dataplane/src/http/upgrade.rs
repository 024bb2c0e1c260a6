//! Upgraded connections (WebSocket and the like): after a 101 both sides are joined and bytes flow.

use std::{io, rc::Rc};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, ext::Protocol, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::{carried::Holds, exchange::Exchange};
use crate::{codec::fields::lists, upstream::pool::Lease};

/// What a request says of a change of the protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    /// Nothing, or that a change to HTTP/2 would be welcome, which may be ignored (RFC 9113,
    /// section 3.1).
    Nothing,
    /// To this protocol, in lower case.
    Offered(String),
    /// To one that the connection manager does not offer.
    Unknown,
}

/// The protocol that a request wants to change to, if the connection manager allows it.
pub(crate) fn wanted<B>(request: &Request<B>, allowed: &[std::sync::Arc<str>]) -> Wanted {
    if !request.headers().contains_key(header::UPGRADE) || !asks_for_upgrade(request.headers()) {
        return Wanted::Nothing;
    }
    let protocols: Vec<&str> = lists(request.headers(), &header::UPGRADE).collect();
    let protocol = protocols.join(",").to_ascii_lowercase();
    match protocol.as_str() {
        "h2c" => Wanted::Nothing,
        _ if request.version() == http::Version::HTTP_11
            && allowed.iter().any(|a| **a == *protocol) =>
        {
            Wanted::Offered(protocol)
        }
        _ => Wanted::Unknown,
    }
}

/// The protocol to which a request over HTTP/2 wants its stream to change (RFC 8441 section 4). It
/// becomes what it would be over HTTP/1, so that whoever comes after knows one form: a GET.
pub(crate) fn extended<B>(
    request: &mut Request<B>,
    allowed: &[std::sync::Arc<str>],
) -> Option<Wanted> {
    let protocol = request.extensions_mut().remove::<Protocol>()?;
    if request.method() != Method::CONNECT {
        return None;
    }
    *request.method_mut() = Method::GET;
    let protocol = protocol.as_str().to_ascii_lowercase();
    let offered = allowed.iter().any(|a| **a == *protocol);
    Some(if offered { Wanted::Offered(protocol) } else { Wanted::Unknown })
}

/// Turns a request for an upgrade into one over HTTP/2. `None`: no protocol is named.
pub(crate) fn extend<B>(request: &mut Request<B>) -> Option<()> {
    let headers = request.headers_mut();
    headers.remove(header::CONNECTION);
    let protocol = headers.remove(header::UPGRADE)?;
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from(protocol.to_str().ok()?));
    Some(())
}

/// What an endpoint says over HTTP/2 to an upgrade, as it would be over HTTP/1.
pub(crate) fn answered<B>(response: &mut Response<B>, protocol: Option<&HeaderValue>) {
    let Some(protocol) = protocol.filter(|_| response.status().is_success()) else { return };
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol.clone());
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    lists(headers, &header::CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"))
}

/// Whether an answer changes to protocols that its request has offered, and to one at least.
pub(crate) fn is_offered(answer: &HeaderMap, request: &HeaderMap) -> bool {
    let mut chosen = lists(answer, &header::UPGRADE).peekable();
    let is_known = |chosen: &str| {
        lists(request, &header::UPGRADE).any(|offered| offered.eq_ignore_ascii_case(chosen))
    };
    chosen.peek().is_some() && chosen.all(is_known)
}

/// Joins both sides once downstream has seen the 101; the exchange lasts as long as the connection.
///
/// They end with their configuration, too, as the connections of [`crate::tcp`] do.
pub(crate) fn join(
    downstream: OnUpgrade,
    response: Response<Incoming>,
    lease: Lease,
    holds: Holds,
    mut exchange: Box<Exchange>,
) {
    exchange.downstream.seen.join();
    let upstream = hyper::upgrade::on(response);
    tokio::task::spawn_local(async move {
        // Held until the tunnel ends: it counts as a request in flight.
        let (_lease, _holds) = (lease, holds);
        let (Ok(downstream), Ok(upstream)) = (downstream.await, upstream.await) else { return };
        let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
        let connection = Rc::clone(&exchange.downstream);
        let outlived = connection.outlived_request(&exchange.manager);
        // Asked only when something has happened to it, not with every piece that is carried.
        let mut outlived = FuturesUnordered::from_iter([outlived]);
        let joined = tokio::select! {
            joined = copy_bidirectional(&mut downstream, &mut upstream) => joined,
            Some(()) = outlived.next() => Err(io::Error::other("its configuration is gone")),
        };
        drop(outlived);
        match joined {
            Ok((_, sent)) => exchange.note_tunnel(sent),
            Err(error) => {
                tracing::debug!(%error, "upgraded connection ended");
                exchange.note_tunnel(0);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_header_asks_for_an_upgrade() {
        for (value, expected) in
            [("Upgrade", true), ("keep-alive, upgrade", true), ("close", false)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONNECTION, value.parse().unwrap());
            assert_eq!(asks_for_upgrade(&headers), expected, "{value}");
        }
    }

    #[test]
    fn a_protocol_is_offered_unknown_or_left_alone() {
        for (connection, upgrade, expected) in [
            ("upgrade", "WebSocket", Wanted::Offered("websocket".into())),
            ("keep-alive", "websocket", Wanted::Nothing),
            ("upgrade, http2-settings", "h2c", Wanted::Nothing),
            ("upgrade", "websocket, h2c", Wanted::Unknown),
            ("upgrade", "other", Wanted::Unknown),
        ] {
            let request =
                Request::builder().header("connection", connection).header("upgrade", upgrade);
            assert_eq!(
                wanted(&request.body(()).unwrap(), &["websocket".into()]),
                expected,
                "{connection} {upgrade}"
            );
        }
    }
}
