//! The sample services: what answers behind the sidecars, and remembers what it saw.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::json;
use tokio::net::TcpListener;

use super::{
    client::Caller,
    layout::{Role, SERVICE_PORT, Workload},
};

/// What one service instance saw. Shared by its connections.
#[derive(Default, Debug)]
pub(crate) struct Seen {
    requests: Mutex<Vec<Arrival>>,
    edges: Mutex<BTreeMap<String, u64>>,
}

/// One request as the application saw it.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// Path with query.
    pub path: String,
    /// Headers.
    pub headers: HeaderMap,
}

const POISONED: &str = "no code panics while it holds this lock";
/// Enough for the checks; live traffic must not grow without bound.
const REMEMBERED: usize = 20_000;

impl Seen {
    /// Requests whose path begins with `prefix`, oldest first.
    pub(crate) fn arrivals(&self, prefix: &str) -> Vec<Arrival> {
        self.requests
            .lock()
            .expect(POISONED)
            .iter()
            .filter(|a| a.path.starts_with(prefix))
            .cloned()
            .collect()
    }

    /// Requests by the identity of their caller since the last call.
    pub(crate) fn take_edges(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut *self.edges.lock().expect(POISONED))
    }

    fn remember(&self, arrival: Arrival) {
        let caller = peer_identity(&arrival.headers).unwrap_or_else(|| "(plaintext)".to_owned());
        *self.edges.lock().expect(POISONED).entry(caller).or_default() += 1;
        let mut requests = self.requests.lock().expect(POISONED);
        if requests.len() >= REMEMBERED {
            requests.drain(..REMEMBERED / 2);
        }
        requests.push(arrival);
    }
}

/// The peer's SPIFFE id from the last element of `x-forwarded-client-cert`, which the sidecar
/// wrote.
pub(crate) fn peer_identity(headers: &HeaderMap) -> Option<String> {
    let value = headers.get_all("x-forwarded-client-cert").iter().next_back()?.to_str().ok()?;
    let last = value.rsplit(',').next()?;
    last.split(';')
        .find_map(|part| part.strip_prefix("URI="))
        .map(|uri| uri.trim_matches('"').to_owned())
}

/// A running service instance.
pub(crate) struct Sample {
    workload: Workload,
    seen: Arc<Seen>,
    caller: Caller,
}

impl Sample {
    /// Serves `workload` at `address` until the task is dropped; calls to other services go out
    /// through `caller`.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub(crate) async fn start(
        workload: Workload,
        address: SocketAddr,
        caller: Caller,
    ) -> std::io::Result<Arc<Seen>> {
        let listener = TcpListener::bind(address).await?;
        let seen = Arc::new(Seen::default());
        let sample = Arc::new(Self { workload, seen: seen.clone(), caller });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let sample = sample.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(sample.clone(), request));
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(seen)
    }

    /// What this service asks of others before it answers.
    async fn calls(&self) -> Vec<serde_json::Value> {
        let targets: &[(&str, &str)] = match self.workload.app {
            "productpage" => &[("details", "/details/1"), ("reviews", "/reviews/1")],
            "reviews" if self.workload.version != "v1" => &[("ratings", "/ratings/1")],
            _ => &[],
        };
        let mut answers = Vec::new();
        for (service, path) in targets {
            let result = self.caller.get(&format!("{service}:{SERVICE_PORT}"), path, &[]).await;
            let status = result.map_or_else(|e| e.to_string(), |r| r.status.to_string());
            answers.push(json!({ "service": service, "status": status }));
        }
        answers
    }
}

async fn answer(
    sample: Arc<Sample>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let arrival = Arrival { path: path.clone(), headers: head.headers };
    let breaks = arrival.headers.get("x-break").is_some_and(|v| v == sample.workload.name);
    sample.seen.remember(arrival);
    let _ = body.collect().await;
    let status = match path.as_str() {
        _ if breaks => StatusCode::INTERNAL_SERVER_ERROR,
        p if p.starts_with("/slow") => {
            tokio::time::sleep(Duration::from_secs(3)).await;
            StatusCode::OK
        }
        // Every request under its own path fails twice, then succeeds.
        p if p.starts_with("/flaky") && sample.seen.arrivals(p).len() <= 2 => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::OK,
    };
    let calls = if path.starts_with("/productpage") || path.starts_with("/reviews") {
        sample.calls().await
    } else {
        Vec::new()
    };
    let Workload { name, app, version, .. } = sample.workload;
    let text =
        json!({ "service": app, "version": version, "pod": name, "path": path, "calls": calls })
            .to_string();
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("content-type", http::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Whether a workload answers requests.
pub(crate) fn serves(workload: Workload) -> bool {
    workload.role == Role::Service
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_element_of_the_header_names_the_direct_peer() {
        let mut headers = HeaderMap::new();
        assert_eq!(peer_identity(&headers), None);
        let value = "By=x;URI=spiffe://td/ns/a/sa/first,By=y;Hash=1;Subject=\"\";URI=spiffe://td/ns/a/sa/last";
        headers.insert("x-forwarded-client-cert", value.parse().expect("a header value"));
        assert_eq!(peer_identity(&headers).as_deref(), Some("spiffe://td/ns/a/sa/last"));
    }
}
