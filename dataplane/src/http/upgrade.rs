//! Upgraded connections (WebSocket and the like): after a 101 both sides are joined and bytes flow.

use http::{HeaderMap, Request, Response, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::{exchange::Exchange, response::Holds};
use crate::upstream::pool::Lease;

/// The protocol that a request wants to change to, if the connection manager allows it; in lower case.
pub(crate) fn wanted(request: &Request<Incoming>, allowed: &[std::sync::Arc<str>]) -> Option<String> {
    if request.version() != http::Version::HTTP_11 || !asks_for_upgrade(request.headers()) {
        return None;
    }
    let protocol = request.headers().get(header::UPGRADE)?.to_str().ok()?.to_ascii_lowercase();
    allowed.iter().any(|allowed| **allowed == *protocol).then_some(protocol)
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// Joins both sides once downstream has seen the 101; the exchange lasts as long as the connection.
pub(crate) fn join(
    downstream: OnUpgrade,
    response: Response<Incoming>,
    lease: Lease,
    holds: Holds,
    mut exchange: Box<Exchange>,
) {
    let upstream = hyper::upgrade::on(response);
    tokio::task::spawn_local(async move {
        // Held until the tunnel ends: it counts as a request in flight.
        let (_lease, _holds) = (lease, holds);
        let (Ok(downstream), Ok(upstream)) = (downstream.await, upstream.await) else { return };
        let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
        match copy_bidirectional(&mut downstream, &mut upstream).await {
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
        for (value, expected) in [("Upgrade", true), ("keep-alive, upgrade", true), ("close", false)] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONNECTION, value.parse().unwrap());
            assert_eq!(asks_for_upgrade(&headers), expected, "{value}");
        }
    }
}
