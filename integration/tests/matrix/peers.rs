//! Services that proxies ask or tell something, all at one port of every address of the servers: who
//! is asked about access, who counts requests, who takes spans and log entries, and who has keys.
//! What they are told is kept, a line for each thing, behind the address where it came.
//!
//! What one does, a call wishes by the header `x-do`, or by `do=` in its query: `deny`, `fail` or
//! `hang`; else it lets pass.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use ferromesh_integration::service::{
    self, Answer,
    access::{Allowed, CHECK, CheckRequest, CheckResponse, Denied, Status, field},
    limit::{Asked, COUNT, Counted, Entry},
};
use http::{Request, request::Parts};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;

use crate::application::{Servers, asynchronous};

/// Key sets, by the path where they are fetched: `/keys/…`, `/others/…`, or `/turning/…`, where
/// the others are the first time.
#[derive(Clone)]
pub(crate) struct KeySets {
    pub(crate) keys: String,
    pub(crate) others: String,
}

/// Serves until the test ends.
pub(crate) fn serve(servers: &Servers, listener: std::net::TcpListener, keys: KeySets) {
    let (servers, keys) = (servers.clone(), Arc::new(keys));
    tokio::spawn(async move {
        let listener = asynchronous(listener);
        let answer = move |request, local| -> service::Answering {
            let (servers, keys) = (servers.clone(), keys.clone());
            Box::pin(async move { answer(&servers, &keys, request, local).await })
        };
        service::accept(listener, answer).await;
    });
}

/// What one call says.
struct Told<'a> {
    servers: &'a Servers,
    at: String,
    lines: Vec<String>,
}

impl Told<'_> {
    fn line(&mut self, line: &str) {
        self.lines.push(format!("{} {line}", self.at));
    }

    /// Keeps what was said until now; how often its first line was said.
    fn keep(&self) -> usize {
        self.servers.keep(&*self.lines[0], self.lines.clone())
    }
}

async fn answer(
    servers: &Servers,
    keys: &KeySets,
    request: Request<Incoming>,
    local: SocketAddr,
) -> Answer {
    let (head, body) = request.into_parts();
    let mut told = Told { servers, at: local.ip().to_string(), lines: Vec::new() };
    told.line(&format!("asked {} {}", head.method, path_and_query(&head)));
    for (name, value) in &head.headers {
        told.line(&format!("field {name}: {}", String::from_utf8_lossy(value.as_bytes())));
    }
    match head.uri.path() {
        CHECK => decide(&mut told, service::message(Request::from_parts(head, body)).await).await,
        COUNT => count(&mut told, service::message(Request::from_parts(head, body)).await).await,
        _ if is_grpc(&head) => take(&told, body).await,
        path => {
            let body = body.collect().await.ok()?.to_bytes();
            told.line(&format!("body {}", printable(&body)));
            let number = told.keep();
            let set = match path.split('/').nth(1) {
                Some("keys") => &keys.keys,
                Some("turning") if number > 1 => &keys.keys,
                Some("others" | "turning") => &keys.others,
                _ => return over_http(wish(&head)).await,
            };
            service::http(200, &[], set)
        }
    }
}

fn path_and_query(head: &Parts) -> &str {
    head.uri.path_and_query().map_or("/", |path| path.as_str())
}

fn is_grpc(head: &Parts) -> bool {
    let kind = head.headers.get("content-type").and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/grpc"))
}

fn wish(head: &Parts) -> &str {
    let by_header = head.headers.get("x-do").and_then(|wish| wish.to_str().ok());
    by_header.or_else(|| in_query(path_and_query(head))).unwrap_or("allow")
}

fn in_query(path: &str) -> Option<&str> {
    let (_, query) = path.split_once('?')?;
    query.split('&').find_map(|part| part.strip_prefix("do="))
}

async fn over_http(wish: &str) -> Answer {
    match wish {
        "deny" => service::http(403, &[("x-why", "because"), ("x-secret", "not told")], "no"),
        "fail" => service::http(500, &[], "broken"),
        "hang" => std::future::pending().await,
        _ => service::http(
            200,
            &[("x-up", "by the service"), ("x-down", "told"), ("x-secret", "not told")],
            "",
        ),
    }
}

async fn decide(told: &mut Told<'_>, check: CheckRequest) -> Answer {
    let http = check.attributes.and_then(|all| all.request?.http)?;
    for (name, value) in &http.headers {
        told.line(&format!("shown {name}: {value}"));
    }
    told.line(&format!("body {}", http.body));
    told.line(&format!("bytes {}", String::from_utf8_lossy(&http.raw_body)));
    told.keep();
    let status = |code| Some(Status { code });
    let wish = http.headers.get("x-do").map(String::as_str);
    let answer = match wish.or_else(|| in_query(&http.path)).unwrap_or("allow") {
        "deny" => CheckResponse {
            status: status(7),
            denied: Some(Denied {
                status: status(409),
                headers: vec![field("x-why", "because", None)],
                body: "no".to_owned(),
            }),
            ..Default::default()
        },
        "fail" => return service::failure("14"),
        "hang" => return std::future::pending().await,
        _ => CheckResponse {
            status: status(0),
            ok: Some(Allowed {
                headers: vec![field("x-up", "by the service", None)],
                response: vec![field("x-down", "told", None)],
                ..Default::default()
            }),
            ..Default::default()
        },
    };
    service::grpc(&answer.encode_to_vec())
}

async fn count(told: &mut Told<'_>, asked: Asked) -> Answer {
    for descriptor in &asked.descriptors {
        let parts = descriptor.entries.iter().map(|part| format!("{}={}", part.key, part.value));
        let parts: Vec<String> = parts.collect();
        told.line(&format!("counts {} {}", asked.domain, parts.join(" ")));
    }
    told.keep();
    let mut all = asked.descriptors.iter().flat_map(|descriptor| &descriptor.entries);
    let wish = all.find_map(|part| in_query(&part.value).or(Some(&*part.value)).filter(is_wish));
    let header = |key: &str, value: &str| Entry { key: key.to_owned(), value: value.to_owned() };
    let counted = match wish {
        Some("deny") => Counted { code: 2, ..Default::default() },
        Some("fail") => return service::failure("14"),
        Some("hang") => return std::future::pending().await,
        _ => Counted { code: 1, request: vec![header("x-up", "counted")], ..Default::default() },
    };
    service::grpc(&counted.encode_to_vec())
}

fn is_wish(text: &&str) -> bool {
    ["deny", "fail", "hang"].contains(text)
}

/// Takes messages over gRPC, each as it comes: whoever streams them never ends.
async fn take(told: &Told<'_>, mut body: Incoming) -> Answer {
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            let mut lines = told.lines.clone();
            lines.push(format!("{} body {}", told.at, printable(&data)));
            told.servers.keep(&*told.lines[0], lines);
        }
    }
    service::grpc(&[])
}

/// What can be read of bytes, with a blank for all that stands between.
fn printable(bytes: &Bytes) -> String {
    let readable = |byte: &u8| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { ' ' };
    let text: String = bytes.iter().map(readable).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
