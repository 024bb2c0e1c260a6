//! The application's metrics, fetched and put after our own.

use std::{net::SocketAddr, str::FromStr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use super::{Application, METRICS_TYPE};
use crate::identity::channel::causes;

/// Limit of an application that a scrape without a limit of its own waits for.
const LIMIT: Duration = Duration::from_secs(9);
/// What remains of the scrape's limit for us.
const OWN_SHARE: f64 = 0.1;
/// More than this is no answer to a scrape.
const LARGEST: usize = 64 << 20;
const SCRAPE_LIMIT: &str = "x-prometheus-scrape-timeout-seconds";
/// The end of an answer in OpenMetrics, which may stand only once.
const END_MARK: &str = "# EOF";

/// Where the application serves Prometheus' text: its `prometheus.io` annotations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppMetrics {
    /// Its port.
    pub port: u16,
    /// Its path.
    pub path: String,
}

#[derive(Deserialize)]
struct Written {
    port: Number,
    path: Option<String>,
}

/// A number, or its text as annotations have it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(u16),
    Text(String),
}

impl FromStr for AppMetrics {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let written: Written = serde_json::from_str(text)
            .map_err(|e| format!(r#"expected {{"port": "8080", "path": "/metrics"}}: {e}"#))?;
        let port = match written.port {
            Number::Number(port) => port,
            Number::Text(text) => {
                text.trim().parse().map_err(|_| format!("port: expected a port, got {text:?}"))?
            }
        };
        let path =
            written.path.filter(|path| !path.is_empty()).unwrap_or_else(|| "/metrics".into());
        Ok(Self { port, path: if path.starts_with('/') { path } else { format!("/{path}") } })
    }
}

/// How long the application may take, so that the scrape still gets our own metrics when it does
/// not answer.
pub(super) fn limit(headers: &HeaderMap) -> Duration {
    let asked =
        headers.get(SCRAPE_LIMIT).and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok());
    let asked = asked.filter(|seconds| (0.1..=600.0).contains(seconds));
    asked.map_or(LIMIT, |seconds| Duration::from_secs_f64(seconds * (1.0 - OWN_SHARE)))
}

/// The application's metrics as Prometheus' text.
pub(super) async fn fetch(
    application: Application,
    metrics: &AppMetrics,
    limit: Duration,
) -> Result<String, String> {
    let (status, body) = tokio::time::timeout(limit, exchange(application, metrics))
        .await
        .map_err(|_| format!("no answer within {limit:?}"))?
        .map_err(|error| causes(&*error))?;
    if !status.is_success() {
        return Err(format!("it answers {status}"));
    }
    let text = String::from_utf8(body.into()).map_err(|_| "it answers no text".to_owned())?;
    // One line that is none would cost the scraper ours, too.
    match text.lines().find(|line| !is_exposition(line)) {
        Some(line) => Err(format!("it answers something else than metrics: {:.60?}", line)),
        None => Ok(text),
    }
}

/// Whether a line is a comment, or a series with its value: `NAME{LABELS} VALUE [TIME]`.
fn is_exposition(line: &str) -> bool {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return true;
    }
    let named = line.starts_with(|first: char| first.is_ascii_alphabetic() || "_:".contains(first));
    // Label values may hold anything but are quoted; the last brace before an exemplar ends them.
    let series = line.split(" # {").next().unwrap_or(line);
    let value = match series.rsplit_once('}') {
        Some((_, rest)) => rest.split_whitespace().next(),
        None => series.split_whitespace().nth(1),
    };
    named && value.is_some_and(|value| value.parse::<f64>().is_ok())
}

type ScrapeError = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(
    application: Application,
    metrics: &AppMetrics,
) -> Result<(StatusCode, Bytes), ScrapeError> {
    let address = SocketAddr::new(application.address, metrics.port);
    let request = Request::builder()
        .uri(&metrics.path)
        .header(header::HOST, address.to_string())
        .header(header::ACCEPT, METRICS_TYPE)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(application.connect(address).await?)).await?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok::<_, ScrapeError>((
            status,
            Limited::new(response.into_body(), LARGEST).collect().await?.to_bytes(),
        ))
    };
    // Driven here, so that nothing outlives the scrape.
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => { ended?; answer.await }
    }
}

/// Puts the application's lines after ours.
pub(super) fn append(own: &mut String, application: &str) {
    if !own.is_empty() && !own.ends_with('\n') {
        own.push('\n');
    }
    let lines = application.lines().filter(|line| line.trim_end() != END_MARK);
    for line in lines {
        own.push_str(line);
        own.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn annotations_name_port_and_path() {
        let metrics = |port, path: &str| Ok(AppMetrics { port, path: path.into() });
        assert_eq!(r#"{"port": "8080", "path": "/m"}"#.parse(), metrics(8080, "/m"));
        assert_eq!(r#"{"port": 8080, "path": "m"}"#.parse(), metrics(8080, "/m"));
        assert_eq!(r#"{"port": "8080"}"#.parse(), metrics(8080, "/metrics"));
        assert!(r#"{"port": "http"}"#.parse::<AppMetrics>().unwrap_err().contains("got \"http\""));
    }

    #[test]
    fn the_application_may_take_most_of_the_scrape_s_time() {
        let with = |text: &'static str| {
            HeaderMap::from_iter([(SCRAPE_LIMIT.parse().unwrap(), HeaderValue::from_static(text))])
        };
        assert_eq!(limit(&with("10.000000")), Duration::from_secs(9));
        assert_eq!(limit(&with("soon")), LIMIT);
        assert_eq!(limit(&HeaderMap::new()), LIMIT);
    }

    #[test]
    fn only_metrics_are_metrics() {
        for (line, expected) in [
            ("# HELP a b", true),
            ("", true),
            ("a 1", true),
            ("a:b_total{c=\"d } e\",f=\"\"} 1.5e3 1700000000", true),
            ("a{le=\"+Inf\"} +Inf", true),
            ("a NaN", true),
            ("a_bucket{le=\"1\"} 5 # {trace_id=\"x\"} 0.7", true),
            ("{\"status\": 1}", false),
            ("<html>", false),
            ("not metrics", false),
            ("a", false),
        ] {
            assert_eq!(is_exposition(line), expected, "{line}");
        }
    }

    #[test]
    fn two_answers_become_one() {
        let mut own = "a 1".to_owned();
        append(&mut own, "# TYPE b counter\nb 2\n# EOF\n");
        assert_eq!(own, "a 1\n# TYPE b counter\nb 2\n");
    }
}
