//! Clients that ask a number of times and print what came back. Names are resolved in the process:
//! a static program has no other way.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hickory_resolver::{TokioResolver, config::LookupIpStrategy};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tower::Service;

/// A request without an answer after this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Finds addresses as `/etc/resolv.conf` and `/etc/hosts` say.
#[derive(Clone)]
pub(crate) struct Resolver(TokioResolver);

impl Resolver {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut builder = TokioResolver::builder_tokio()?;
        // Where a hosts file has the one kind of address, nobody is asked for the other.
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
        Ok(Self(builder.build()?))
    }

    async fn addresses(self, host: String) -> io::Result<std::vec::IntoIter<SocketAddr>> {
        let found = self.0.lookup_ip(host).await.map_err(io::Error::other)?;
        Ok(found.iter().map(|ip| SocketAddr::new(ip, 0)).collect::<Vec<_>>().into_iter())
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(self.clone().addresses(name.as_str().to_owned()))
    }
}

/// Asks one URL with the same headers again and again, on connections that are kept.
pub(crate) struct Asker {
    client: Client<HttpConnector<Resolver>, Full<Bytes>>,
    url: String,
    headers: Vec<(String, String)>,
}

impl Asker {
    pub(crate) fn new(url: &str, headers: &[&str]) -> anyhow::Result<Self> {
        let pair = |header: &&str| {
            header.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        let headers =
            headers.iter().map(pair).collect::<Option<_>>().context("a header is NAME=VALUE")?;
        let connector = HttpConnector::new_with_resolver(Resolver::new()?);
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            url: url.to_owned(),
            headers,
        })
    }

    /// The status and the body, if that is JSON.
    pub(crate) async fn ask(&self) -> anyhow::Result<(u16, Value)> {
        let (status, body) = self.fetch().await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// The status and the body.
    async fn fetch(&self) -> anyhow::Result<(u16, Bytes)> {
        let mut request = Request::get(&self.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let exchange = async {
            let response = self.client.request(request.body(Full::default())?).await?;
            let status = response.status().as_u16();
            anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        timeout(PATIENCE, exchange).await.context("no answer")?
    }
}

/// Prints the body of one answer.
pub(crate) async fn text(url: &str) -> anyhow::Result<()> {
    let (status, body) = Asker::new(url, &[])?.fetch().await?;
    ensure!(status == 200, "{url} answers {status}");
    println!("{}", String::from_utf8_lossy(&body));
    Ok(())
}

/// Prints `{"statuses": {"200": n}, "versions": {"v1": n}, "failed": n, "last": …}`.
pub(crate) async fn get(url: &str, count: usize, headers: &[&str]) -> anyhow::Result<()> {
    let asker = Asker::new(url, headers)?;
    let (mut statuses, mut versions) =
        (BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new());
    let (mut failed, mut last) = (Vec::new(), Value::Null);
    let mut answers = stream::iter((0..count).map(|_| asker.ask())).buffer_unordered(16);
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
    println!(
        "{}",
        json!({ "statuses": statuses, "versions": versions, "failed": failed, "last": last })
    );
    Ok(())
}

/// Sends `text` and prints as many bytes of what comes back.
pub(crate) async fn say(address: &str, text: &str) -> anyhow::Result<()> {
    let (host, port) = address.rsplit_once(':').context("an address is HOST:PORT")?;
    let mut found = Resolver::new()?.addresses(host.to_owned()).await?;
    let ip = found.next().with_context(|| format!("{host} has no address"))?.ip();
    let exchange = async {
        let mut stream = TcpStream::connect((ip, port.parse()?)).await?;
        stream.write_all(text.as_bytes()).await?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = timeout(PATIENCE, exchange).await.context("no answer")??;
    println!("{}", String::from_utf8_lossy(&answer));
    Ok(())
}
