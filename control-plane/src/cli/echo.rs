//! `ferromesh echo`: a server to try a mesh with. It answers with its name and who the mesh says that
//! the caller is, and may ask another one for every request.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use http::{
    HeaderMap, HeaderValue, Request, Response, Uri,
    header::{CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;

/// How long an asked server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// More of an answer is not repeated.
const LARGEST_ANSWER: usize = 64 << 10;
/// Who the mesh says the caller is (Envoy's `forward_client_cert_details`).
const CALLER: &str = "x-forwarded-client-cert";

/// `ferromesh echo`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(after_help = "Examples:
  ferromesh echo --name hello --listen 127.20.1.4:8000
  ferromesh echo --name web --listen 127.20.2.4:8000 --call http://127.20.2.3:8000/ --host hello")]
pub(crate) struct Echo {
    /// The name to answer with
    #[arg(long)]
    name: String,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Ask this URL for each request, and answer with its answer too
    #[arg(long, value_name = "URL")]
    call: Option<Uri>,
    /// The host to ask for there, where it is another than the URL's
    #[arg(long, requires = "call")]
    host: Option<HeaderValue>,
}

/// Serves until the process ends.
///
/// # Errors
/// The address cannot be listened on.
pub(crate) async fn run(command: Echo) -> anyhow::Result<()> {
    let listener = TcpListener::bind(command.listen).await;
    let listener = listener.with_context(|| format!("listening on {}", command.listen))?;
    let server =
        Arc::new(Server { command, client: Client::builder(TokioExecutor::new()).build_http() });
    loop {
        // A connection that broke before it was taken is no reason to end.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let server = server.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| server.clone().answer(request));
            let connection = auto::Builder::new(TokioExecutor::new());
            // Its client may leave whenever it wants.
            let _ = connection.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

struct Server {
    command: Echo,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Server {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let caller = caller(request.headers());
        let (name, path) = (&self.command.name, request.uri().path());
        let mut text = format!("{name}: {} {path}, called by {caller}\n", request.method());
        if let Some(url) = &self.command.call {
            let said = self.ask(url).await;
            let said = said.unwrap_or_else(|error| format!("no answer: {error:#}\n"));
            text.push_str(&said);
        }
        let mut response = Response::new(Full::from(text));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok(response)
    }

    async fn ask(&self, url: &Uri) -> anyhow::Result<String> {
        let mut request = Request::get(url.clone()).body(Full::default())?;
        if let Some(host) = &self.command.host {
            request.headers_mut().insert(HOST, host.clone());
        }
        let exchange = async {
            let response = self.client.request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
            let text = String::from_utf8_lossy(&body).trim_end().to_owned();
            Ok(if status.is_success() {
                format!("{text}\n")
            } else {
                format!("{status}: {text}\n")
            })
        };
        tokio::time::timeout(PATIENCE, exchange).await.context("none in time")?
    }
}

/// The identity that the caller's certificate has; the last element is that of the nearest proxy.
fn caller(headers: &HeaderMap) -> &str {
    let header = headers.get(CALLER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let nearest = header.rsplit(',').next().unwrap_or_default();
    let uri = nearest.split(';').find_map(|part| part.strip_prefix("URI="));
    uri.unwrap_or("somebody without an identity")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_whom_the_nearest_certificate_names() {
        let named = |header: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CALLER, HeaderValue::from_static(header));
            caller(&headers).to_owned()
        };
        let web = "spiffe://cluster.local/ns/default/sa/web";
        assert_eq!(named("By=spiffe://a;Hash=0;URI=spiffe://cluster.local/ns/default/sa/web"), web);
        let two = "URI=spiffe://other,By=spiffe://a;Subject=\"\";URI=spiffe://cluster.local/ns/default/sa/web";
        assert_eq!(named(two), web);
        assert_eq!(named("By=spiffe://a"), "somebody without an identity");
        assert_eq!(caller(&HeaderMap::new()), "somebody without an identity");
    }
}
