//! An application that knows nothing of the mesh: an echo server, and a client that counts answers.
//!
//!   fm-peer serve ADDRESS NAME VERSION       answers every request with what it saw, as JSON
//!   fm-peer get URL COUNT [NAME=VALUE]...    sends COUNT GETs and prints what came back, as JSON
//!   fm-peer tcp ADDRESS                      echoes bytes

#![allow(clippy::print_stdout, reason = "its output is its result")]

use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match texts[..] {
        ["serve", address, name, version] => serve(address.parse()?, name, version).await,
        ["tcp", address] => echo(address.parse()?).await,
        ["get", url, count, ref headers @ ..] => get(url, count.parse()?, headers).await,
        _ => bail!("usage: fm-peer serve ADDRESS NAME VERSION | get URL COUNT [NAME=VALUE]... | tcp ADDRESS"),
    }
}

async fn serve(address: SocketAddr, name: &str, version: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("binding {address}"))?;
    let identity: Arc<(String, String)> = Arc::new((name.to_owned(), version.to_owned()));
    loop {
        let (stream, _) = listener.accept().await?;
        let _ = stream.set_nodelay(true);
        let identity = identity.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(identity.clone(), request));
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    identity: Arc<(String, String)>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let length = body.collect().await.map_or(0, |b| b.to_bytes().len());
    let path = head.uri.path_and_query().map_or("/", |p| p.as_str());
    if let Some(delay) = path.strip_prefix("/delay/").and_then(|d| d.parse().ok()) {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let status =
        path.strip_prefix("/status/").and_then(|s| s.parse::<u16>().ok()).and_then(|s| StatusCode::from_u16(s).ok());
    let text = json!({
        "pod": identity.0, "version": identity.1, "method": head.method.as_str(), "path": path, "length": length,
        "headers": headers(&head.headers), "protocol": format!("{:?}", head.version),
    });
    let mut response = Response::new(Full::from(text.to_string()));
    *response.status_mut() = status.unwrap_or(StatusCode::OK);
    Ok(response)
}

fn headers(map: &HeaderMap) -> BTreeMap<&str, String> {
    map.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}

async fn echo(address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("binding {address}"))?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await
        });
    }
}

/// Prints `{"statuses": {"200": n}, "versions": {"v1": n}, "failed": n, "last": …}`.
async fn get(url: &str, count: usize, headers: &[&str]) -> anyhow::Result<()> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let send = || async {
        let mut request = Request::get(url);
        for header in headers {
            let (name, value) = header.split_once('=').context("a header is NAME=VALUE")?;
            request = request.header(name, value);
        }
        let exchange = async {
            let response = client.request(request.body(Full::default())?).await?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, serde_json::from_slice::<Value>(&body).unwrap_or(Value::Null)))
        };
        tokio::time::timeout(Duration::from_secs(20), exchange).await.context("no answer")?
    };
    let (mut statuses, mut versions) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new());
    let (mut failed, mut last) = (Vec::new(), Value::Null);
    let mut answers = stream::iter((0..count).map(|_| send())).buffer_unordered(16);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok((status, body)) => {
                *statuses.entry(status.to_string()).or_default() += 1;
                if let Some(version) = body["version"].as_str() {
                    *versions.entry(version.to_owned()).or_default() += 1;
                }
                last = body;
            }
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    failed.truncate(3);
    println!("{}", json!({ "statuses": statuses, "versions": versions, "failed": failed, "last": last }));
    Ok(())
}
