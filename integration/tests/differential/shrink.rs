//! Makes the request of a difference as plain as it can be made with the difference still there.

use crate::{
    Pair,
    exchange::{Case, Request},
    http1::{self, Ending},
    http2::{self, Piece},
    outcome::Aspect,
};

/// Makes `case` the plainest request that shows an aspect of the same kind; whoever stops it has
/// what was found until then.
pub(crate) async fn shrink(pair: &Pair<'_>, case: &mut Case, aspect: &Aspect) {
    let host = &pair.configuration(case).host;
    let mut begin = 0;
    while let Some((index, candidate)) =
        first_that_shows(pair, &candidates(case, host), begin, aspect).await
    {
        *case = candidate;
        begin = index;
    }
}

async fn first_that_shows(
    pair: &Pair<'_>,
    candidates: &[Case],
    begin: usize,
    aspect: &Aspect,
) -> Option<(usize, Case)> {
    for (index, candidate) in candidates.iter().enumerate().skip(begin) {
        if pair.once(candidate).await.iter().any(|other| other.kind() == aspect.kind()) {
            return Some((index, candidate.clone()));
        }
    }
    None
}

fn candidates(case: &Case, host: &str) -> Vec<Case> {
    let requests: Vec<Request> = match &case.request {
        Request::Http1(request) => plainer_http1(request, host, &case.id)
            .into_iter()
            .map(|r| Request::Http1(Box::new(r)))
            .collect(),
        Request::Http2(request) => {
            plainer_http2(request, host, &case.id).into_iter().map(Request::Http2).collect()
        }
    };
    requests
        .into_iter()
        .filter(|r| *r != case.request)
        .map(|request| Case { request, ..case.clone() })
        .collect()
}

fn plainer_http1(request: &http1::Request, host: &str, id: &str) -> Vec<http1::Request> {
    let plain = http1::Request::new(host, id);
    let own = || request.clone();
    let mut plainer = vec![
        http1::Request { ending: Ending::Next, ..own() },
        http1::Request { body: Vec::new(), ..own() },
        http1::Request { target: plain.target, ..own() },
        http1::Request { method: plain.method, ..own() },
        http1::Request { version: plain.version, ..own() },
        http1::Request { gaps: plain.gaps, ..own() },
        http1::Request { prefix: plain.prefix, end: plain.end, blank: plain.blank, ..own() },
    ];
    for index in (1..request.fields.len()).filter(|i| !request.fields[*i].starts_with(b"x-case")) {
        let mut without = own();
        without.fields.remove(index);
        plainer.push(without);
    }
    let mut with_host = own();
    with_host.fields[0] = format!("host: {host}\r\n").into_bytes();
    plainer.push(with_host);
    plainer
}

fn plainer_http2(request: &http2::Request, host: &str, id: &str) -> Vec<http2::Request> {
    let mut plainer = Vec::new();
    for (index, piece) in request.pieces.iter().enumerate() {
        let mut without = request.clone();
        without.pieces.remove(index);
        plainer.push(without);
        let Piece::Headers { stream, fields, end, .. } = piece else { continue };
        let mut replace = |fields, end| {
            let mut changed = request.clone();
            changed.pieces[index] =
                Piece::Headers { stream: *stream, fields, end, cut: None, priority: false };
            plainer.push(changed);
        };
        replace(fields.clone(), *end);
        replace(fields.clone(), true);
        for at in 0..fields.len() {
            let mut fewer = fields.clone();
            fewer.remove(at);
            replace(fewer, *end);
        }
        let plain = http2::Request::new(host, id);
        if let Some(Piece::Headers { fields: usual, .. }) = plain.pieces.first() {
            for (at, (name, _)) in fields.iter().enumerate() {
                let Some((_, value)) = usual.iter().find(|(own, _)| own == name) else { continue };
                let mut changed = fields.clone();
                changed[at].1.clone_from(value);
                replace(changed, *end);
            }
        }
    }
    plainer.retain(|request| request.pieces.iter().any(|p| matches!(p, Piece::Headers { .. })));
    plainer
}
