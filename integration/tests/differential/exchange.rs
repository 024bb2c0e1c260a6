//! One request on one side, whatever its version.

use std::{net::SocketAddr, time::Duration};

use crate::{
    answers::Answer,
    application::Seen,
    configuration::Configuration,
    http1, http2,
    outcome::{self, End, Outcome, Response},
    site::Side,
};

/// Which way a request takes.
pub(crate) struct Route<'a> {
    pub(crate) entry: SocketAddr,
    /// A host that the configuration serves.
    pub(crate) host: &'a str,
    pub(crate) id: &'a str,
    pub(crate) seen: &'a Seen,
    /// How long nothing may come before that is the outcome.
    pub(crate) patience: Duration,
    /// How addresses of the side begin.
    pub(crate) prefix: String,
}

/// What the client saw.
pub(crate) struct Exchanged {
    pub(crate) responses: Vec<Response>,
    pub(crate) end: End,
    pub(crate) tunnel: Vec<u8>,
}

impl Exchanged {
    /// There was no connection.
    pub(crate) fn nothing() -> Self {
        Self { responses: Vec::new(), end: End::Closed, tunnel: Vec::new() }
    }
}

/// A request of either version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    Http1(Box<http1::Request>),
    Http2(http2::Request),
}

/// A request for a configuration.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Its number.
    pub(crate) id: String,
    /// What the application is asked to answer.
    pub(crate) answer: Answer,
    /// Index of its configuration.
    pub(crate) configuration: usize,
    pub(crate) request: Request,
}

impl Case {
    /// The bytes, for whoever reads about a difference.
    pub(crate) fn readable(&self) -> String {
        match &self.request {
            Request::Http1(request) => {
                format!("{:?} {}", request.ending, outcome::readable(&request.bytes()))
            }
            Request::Http2(request) => request.readable(),
        }
    }

    /// Sends it on one side and tells what came of it.
    pub(crate) async fn run(
        &self,
        side: &Side,
        configuration: &Configuration,
        patience: Duration,
    ) -> Outcome {
        let prefix = side.block.prefix();
        let route = Route {
            entry: side.block.entry(configuration),
            host: &configuration.host,
            id: &self.id,
            seen: &side.seen,
            patience,
            prefix: prefix.clone(),
        };
        let exchanged = match &self.request {
            Request::Http1(request) => http1::exchange(request, &route).await,
            Request::Http2(request) => http2::exchange(request, &route).await,
        };
        let arrivals = side.seen.take(&self.id).await;
        let mut arrivals: Vec<_> =
            arrivals.iter().map(|arrival| outcome::Seen::new(arrival, &prefix)).collect();
        // Streams of a connection overtake each other.
        arrivals.sort_by(|a, b| a.start.cmp(&b.start).then_with(|| a.fields.cmp(&b.fields)));
        Outcome {
            responses: exchanged.responses,
            end: exchanged.end,
            tunnel: outcome::readable(&exchanged.tunnel),
            arrivals,
        }
    }
}
