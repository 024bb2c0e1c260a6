//! Requests with bodies that are read whole before they are answered (REST, metrics, webhooks): how
//! large, how slow, and how many at a time. Health is not among them: it answers beside them.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use super::{
    budget::{Budget, Reserved},
    network::ClientNetwork,
    not_served::NotServed,
    turns::Turns,
    visit::Visit,
};
use crate::metrics::Metrics;

/// Bodies up to this size have memory of their own: they do not wait behind large ones.
const SMALL: usize = 64 << 10;
/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is told to somebody who should come back, in seconds.
const COME_BACK: HeaderValue = HeaderValue::from_static("1");

/// What the requests of one port may cost.
pub struct Requests {
    /// As metrics call the port.
    pub port: &'static str,
    /// Largest body.
    pub largest: usize,
    /// From the head of a request to the end of its body.
    pub body: Duration,
    /// Memory for bodies that are not small, until their requests are answered.
    pub bodies: Arc<Budget<ClientNetwork>>,
    /// The same for small ones: on one connection there may be many.
    pub small: Arc<Budget<ClientNetwork>>,
    /// Whose request is answered next.
    pub turns: Arc<Turns<ClientNetwork>>,
    /// Where refusals are counted.
    pub metrics: Arc<Metrics>,
}

impl Requests {
    /// Reads the body, waits for a turn, and lets the request pass.
    ///
    /// # Errors
    /// Why not; counted.
    pub async fn pass(&self, request: Request, next: Next) -> Result<Response, NotServed> {
        let visit = request.extensions().get::<Visit>().cloned();
        let passed = self.admit(request, visit.as_ref(), next).await;
        passed.inspect_err(|why| self.metrics.turned_away(self.port, why.label()))
    }

    async fn admit(
        &self,
        request: Request,
        visit: Option<&Visit>,
        next: Next,
    ) -> Result<Response, NotServed> {
        let network = visit.map_or(ClientNetwork::UNKNOWN, Visit::network);
        let (head, body) = request.into_parts();
        let reading = timeout(self.body, self.read(network, body));
        let (bytes, reserved) = reading.await.map_err(|_| NotServed::SlowBody)??;
        let turn =
            timeout(PATIENCE, self.turns.turn(network)).await.map_err(|_| NotServed::Busy)?;
        let occupied = visit.map(Visit::occupy);
        let response = next.run(Request::from_parts(head, Body::from(bytes))).await;
        // The body was kept while it waited for its turn, and was there until it was answered.
        drop((turn, occupied, reserved));
        Ok(response)
    }

    /// The whole body, and the memory that it takes until its request is answered.
    async fn read(
        &self,
        network: ClientNetwork,
        body: Body,
    ) -> Result<(Bytes, Option<Reserved>), NotServed> {
        let expected =
            http_body::Body::size_hint(&body).upper().and_then(|upper| usize::try_from(upper).ok());
        let most = expected.unwrap_or(self.largest);
        if expected.is_some() && most > self.largest {
            return Err(self.discard(body).await);
        }
        let reserved = match most {
            0 => None,
            1..=SMALL => Some(self.small.reserve(network, most).await),
            large => Some(self.bodies.reserve(network, large).await),
        };
        let collected = Limited::new(body, self.largest).collect().await.map_err(|error| {
            // One that breaks off is as good as one that never comes.
            if error.is::<LengthLimitError>() { NotServed::LargeBody } else { NotServed::SlowBody }
        });
        Ok((collected?.to_bytes(), reserved))
    }
}

impl Requests {
    /// Reads what is too large without keeping it: somebody who is still sending does not read why
    /// it is refused.
    async fn discard(&self, body: Body) -> NotServed {
        let mut left = 4 * self.largest;
        let mut frames = body.into_data_stream();
        while let Some(Ok(bytes)) = frames.next().await
            && let Some(less) = left.checked_sub(bytes.len())
        {
            left = less;
        }
        NotServed::LargeBody
    }
}

impl NotServed {
    /// As HTTP says it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::LargeBody => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Tells whoever should come back when.
    pub fn advise(self, mut response: Response) -> Response {
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, COME_BACK);
        }
        response
    }
}

impl IntoResponse for NotServed {
    fn into_response(self) -> Response {
        self.advise((self.status(), format!("{self}\n")).into_response())
    }
}
