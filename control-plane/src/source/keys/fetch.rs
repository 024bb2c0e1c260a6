//! Fetching a set of keys: one `GET`, a few redirects, a bounded answer, an address that may be
//! called.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use ferromesh_xds_translator::ir::{KeySet, KeySource, NoKeySet, token};
use http::{
    Request, Response, StatusCode, Uri,
    header::{ACCEPT, HOST, LOCATION, USER_AGENT},
    uri::Scheme,
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Incoming, client::conn::http1, rt};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    net::{TcpStream, lookup_host},
    task::AbortHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::network::Reachable;

/// Sets of keys are some kilobytes; an answer of more is not one.
const LARGEST: usize = 512 << 10;
/// Redirects that are followed.
const REDIRECTS: usize = 3;
/// No rule makes anybody wait longer.
const LONGEST: Duration = Duration::from_secs(60);

/// Why there are no keys. Nothing of an answer's content is in it: it may come from a server that
/// whoever wrote the URL cannot ask himself.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// What it says cannot be fetched from.
    #[error("{0} cannot be fetched from: {1}")]
    Url(String, &'static str),
    /// The name of the server leads nowhere.
    #[error("no address for {0}: {1}")]
    Name(String, io::Error),
    /// Every address of the server is closed to this.
    #[error(
        "{0} is at an address that keys are not fetched from (this machine, its link, a metadata \
         service); `--jwks-networks` opens networks"
    )]
    Closed(String),
    /// No connection.
    #[error("connecting to {0}: {1}")]
    Connect(String, io::Error),
    /// The exchange failed.
    #[error("asking {0}: {1}")]
    Exchange(String, hyper::Error),
    /// Another status than success.
    #[error("{0} answered {1}")]
    Status(String, StatusCode),
    /// Too many redirects, or one that leads out of TLS.
    #[error("{0}: {1}")]
    Redirect(String, &'static str),
    /// The answer cannot be read to its end.
    #[error("the answer of {0} ends early or has more than {LARGEST} bytes")]
    Body(String),
    /// The answer is no set of keys.
    #[error("the answer of {0} is no set of keys: {1}")]
    Keys(String, NoKeySet),
    /// The answer is no configuration of that issuer.
    #[error("the answer of {0} is no configuration of issuer {1} (OpenID Connect Discovery 1.0)")]
    Discovery(String, String),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Late(Duration),
}

impl FetchError {
    /// Whether the issuer has answered, by a set in which nothing verifies: it has no keys any
    /// more, and those that it had are not to be trusted.
    pub fn withdraws(&self) -> bool {
        matches!(self, Self::Keys(_, NoKeySet::NoKey))
    }
}

/// Fetches keys.
#[derive(Clone)]
pub struct Fetcher {
    reachable: Reachable,
    tls: TlsConnector,
}

impl Fetcher {
    /// Trusts the system's roots and `further` ones, in PEM.
    ///
    /// # Errors
    /// `further` holds what is no certificate.
    pub fn new(reachable: Reachable, further: &[u8]) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for certificate in CertificateDer::pem_slice_iter(further) {
            roots.add(certificate?)?;
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self { reachable, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// The keys of a source, as they are now.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch(&self, source: &KeySource, limit: Duration) -> Result<KeySet, FetchError> {
        let limit = limit.min(LONGEST);
        timeout(limit, self.keys(source)).await.unwrap_or(Err(FetchError::Late(limit)))
    }

    async fn keys(&self, source: &KeySource) -> Result<KeySet, FetchError> {
        let url = match source {
            KeySource::Url(url) => url.to_string(),
            KeySource::Issuer(issuer) => self.discover(issuer).await?,
        };
        let body = self.get(&url).await?;
        let text = String::from_utf8_lossy(&body);
        KeySet::parse(&text).map_err(|error| FetchError::Keys(url, without_content(error)))
    }

    /// Where the keys of an issuer are, as its configuration says, which must be its own (section
    /// 4.3). From an issuer that is asked over TLS, keys come over TLS (section 3, `jwks_uri`).
    async fn discover(&self, issuer: &str) -> Result<String, FetchError> {
        let base = issuer.strip_suffix('/').unwrap_or(issuer);
        let url = format!("{base}/.well-known/openid-configuration");
        let body = self.get(&url).await?;
        let read: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        let text = |name: &str| Some(read.as_ref()?.get(name)?.as_str()?.to_owned());
        match (text("issuer"), text("jwks_uri")) {
            (Some(own), Some(keys)) if own == issuer => {
                stay_in_tls(&url, &keys, "its `jwks_uri` leads out of TLS")?;
                Ok(keys)
            }
            _ => Err(FetchError::Discovery(url, issuer.to_owned())),
        }
    }

    async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        let mut url = url.to_owned();
        for _ in 0..=REDIRECTS {
            let mut exchange = self.ask(&url).await?;
            let status = exchange.response.status();
            if status.is_success() {
                let body = Limited::new(exchange.response.body_mut(), LARGEST).collect().await;
                return Ok(body.map_err(|_| FetchError::Body(url))?.to_bytes());
            }
            let location = exchange.response.headers().get(LOCATION);
            match location.and_then(|to| to.to_str().ok()).filter(|_| status.is_redirection()) {
                Some(location) => url = redirected(&url, location)?,
                None => return Err(FetchError::Status(url, status)),
            }
        }
        Err(FetchError::Redirect(url, "too many redirects"))
    }

    async fn ask(&self, url: &str) -> Result<Exchange, FetchError> {
        let target = Target::parse(url)?;
        let stream = self.connect(&target).await?;
        if !target.tls {
            return exchange(&target, stream).await;
        }
        let name = ServerName::try_from(target.host.clone())
            .map_err(|_| FetchError::Url(url.to_owned(), "its host is no name of a server"))?;
        let stream = self.tls.connect(name, stream).await;
        exchange(&target, stream.map_err(|error| FetchError::Connect(target.at(), error))?).await
    }

    /// Connects to the first address that answers, of those that may be called; a name that changes
    /// its address afterwards changes nothing.
    async fn connect(&self, target: &Target) -> Result<TcpStream, FetchError> {
        let found = lookup_host((target.host.as_str(), target.port)).await;
        let found: Vec<SocketAddr> =
            found.map_err(|error| FetchError::Name(target.host.clone(), error))?.collect();
        let mut failed = FetchError::Closed(target.host.clone());
        for address in found.into_iter().filter(|address| self.reachable.allows(address.ip())) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = FetchError::Connect(target.at(), error),
            }
        }
        Err(failed)
    }
}

/// What is asked for.
struct Target {
    url: String,
    uri: Uri,
    host: String,
    port: u16,
    tls: bool,
}

impl Target {
    fn parse(url: &str) -> Result<Self, FetchError> {
        token::check_url(url).map_err(|reason| FetchError::Url(url.to_owned(), reason))?;
        let uri: Uri = url.parse().map_err(|_| FetchError::Url(url.to_owned(), "no URL"))?;
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { url: url.to_owned(), uri, host, port, tls })
    }

    fn at(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// An answer whose body is still to come, and the connection that it comes over.
struct Exchange {
    response: Response<Incoming>,
    connection: AbortHandle,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn exchange<S>(target: &Target, stream: S) -> Result<Exchange, FetchError>
where
    TokioIo<S>: rt::Read + rt::Write + Unpin + Send + 'static,
{
    let failed = |error| FetchError::Exchange(target.url.clone(), error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let connection = tokio::spawn(connection).abort_handle();
    let authority = target.uri.authority().map(|authority| authority.as_str().to_owned());
    let path = target.uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, authority.unwrap_or_default())
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("ferromesh/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Url(target.url.clone(), "no path of a request"))?;
    let response = sender.send_request(request).await;
    match response {
        Ok(response) => Ok(Exchange { response, connection }),
        Err(error) => {
            connection.abort();
            Err(failed(error))
        }
    }
}

/// Where a redirect leads to: an absolute URL, or a path of the same server. TLS is not left.
fn redirected(from: &str, location: &str) -> Result<String, FetchError> {
    let refused = |reason| FetchError::Redirect(from.to_owned(), reason);
    if location.starts_with('/') && !location.starts_with("//") {
        let end = from.find("://").map_or(0, |at| at + 3);
        let authority = from[end..].find('/').map_or(from.len(), |at| end + at);
        return Ok(format!("{}{location}", &from[..authority]));
    }
    stay_in_tls(from, location, "a redirect out of TLS")?;
    token::check_url(location).map_err(refused)?;
    Ok(location.to_owned())
}

/// What was asked over TLS leads to nothing that anybody on the way may change.
fn stay_in_tls(from: &str, to: &str, otherwise: &'static str) -> Result<(), FetchError> {
    match from.starts_with("https://") && !to.starts_with("https://") {
        true => Err(FetchError::Redirect(from.to_owned(), otherwise)),
        false => Ok(()),
    }
}

/// The same without what JSON's reader cites.
fn without_content(error: NoKeySet) -> NoKeySet {
    match error {
        NoKeySet::NotJson(_) => NoKeySet::NotJson("the text does not parse".to_owned()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    const KEYS: &str = r#"{"keys":[{"kty":"oct","k":"a"}]}"#;

    /// A server that answers paths with texts, `AT` in them being its address.
    async fn server(answers: &'static [(&'static str, &'static str)]) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let own = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default();
                let answer = answers.iter().find(|(own, _)| *own == path).map(|(_, text)| *text);
                let answer =
                    answer.unwrap_or("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
                let answer = answer.replace("AT", &own.to_string());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        own
    }

    fn fetcher(opened: &[&str]) -> Fetcher {
        let opened = opened.iter().map(|net| net.parse().expect("a network")).collect();
        Fetcher::new(Reachable::new(opened), &[]).expect("roots")
    }

    async fn fetched(url: String) -> Result<String, String> {
        let keys = fetcher(&["127.0.0.0/8"]).fetch(&KeySource::Url(url.into()), LONGEST).await;
        keys.map(|keys| keys.as_str().to_owned()).map_err(|error| error.to_string())
    }

    const ANSWERS: &[(&str, &str)] = &[
        (
            "/keys",
            "HTTP/1.1 200 OK\r\ncontent-length: 32\r\n\r\n{\"keys\":[{\"kty\":\"oct\",\"k\":\"a\"}]}",
        ),
        ("/secret", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nroot:x:0:0"),
        ("/cut", "HTTP/1.1 200 OK\r\ncontent-length: 99\r\nconnection: close\r\n\r\n{\"keys\":"),
        ("/moved", "HTTP/1.1 302 Found\r\nlocation: /keys\r\ncontent-length: 0\r\n\r\n"),
        ("/round", "HTTP/1.1 302 Found\r\nlocation: http://AT/round\r\ncontent-length: 0\r\n\r\n"),
        (
            "/file",
            "HTTP/1.1 302 Found\r\nlocation: file:///etc/passwd\r\ncontent-length: 0\r\n\r\n",
        ),
    ];

    #[tokio::test]
    async fn keys_are_what_a_server_answers_also_behind_a_redirect() {
        let at = server(ANSWERS).await;
        let keys = KeySet::parse(KEYS).expect("keys").as_str().to_owned();
        assert_eq!(fetched(format!("http://{at}/keys")).await, Ok(keys.clone()));
        assert_eq!(fetched(format!("http://{at}/moved")).await, Ok(keys));
    }

    #[test]
    fn tls_is_not_left() {
        for (from, to, stays) in [
            ("https://a/", "https://b/", true),
            ("https://a/", "http://a/", false),
            ("https://a/", "HTTP://a/", false),
            ("http://a/", "http://b/", true),
        ] {
            assert_eq!(stay_in_tls(from, to, "out").is_ok(), stays, "{from} {to}");
        }
    }

    #[tokio::test]
    async fn what_is_no_set_of_keys_is_told_without_its_content() {
        let at = server(ANSWERS).await;
        for (path, reason) in [
            ("secret", "no set of keys"),
            ("cut", "ends early"),
            ("round", "too many redirects"),
            ("file", "neither"),
            ("missing", "404"),
        ] {
            let error = fetched(format!("http://{at}/{path}")).await.expect_err(path);
            assert!(error.contains(reason) && !error.contains("root:"), "{path}: {error}");
        }
    }

    #[tokio::test]
    async fn this_machine_is_asked_only_where_that_is_opened() {
        let at = server(ANSWERS).await;
        for host in [at.to_string(), format!("localhost:{}", at.port())] {
            let url = KeySource::Url(format!("http://{host}/keys").into());
            let error = fetcher(&[]).fetch(&url, LONGEST).await.expect_err("closed");
            assert!(matches!(error, FetchError::Closed(_)), "{error}");
        }
    }

    #[tokio::test]
    async fn an_issuer_says_where_its_keys_are_and_nobody_elses() {
        let at = server(&[
            ("/a/.well-known/openid-configuration", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"issuer\":\"http://AT/a\",\"jwks_uri\":\"http://AT/keys\"}"),
            ("/b/.well-known/openid-configuration", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"issuer\":\"http://AT/a\",\"jwks_uri\":\"http://AT/keys\"}"),
            ("/keys", "HTTP/1.1 200 OK\r\ncontent-length: 32\r\n\r\n{\"keys\":[{\"kty\":\"oct\",\"k\":\"a\"}]}"),
        ])
        .await;
        let of = |path: &str| KeySource::Issuer(format!("http://{at}/{path}").into());
        let fetcher = fetcher(&["127.0.0.1/32"]);
        assert!(fetcher.fetch(&of("a"), LONGEST).await.is_ok());
        let error = fetcher.fetch(&of("b"), LONGEST).await.expect_err("another issuer's");
        assert!(matches!(error, FetchError::Discovery(..)), "{error}");
    }

    #[tokio::test]
    async fn a_silent_server_costs_no_more_than_the_limit() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let limit = Duration::from_millis(50);
        let error = fetcher(&["127.0.0.1/32"]).fetch(&KeySource::Url(url.into()), limit).await;
        assert!(matches!(error, Err(FetchError::Late(_))), "{error:?}");
    }

    #[test]
    fn redirects_keep_the_server_or_stay_within_tls() {
        let to = |from, location| redirected(from, location).ok();
        assert_eq!(to("https://a:8/b?c", "/d"), Some("https://a:8/d".to_owned()));
        assert_eq!(to("https://a", "/d"), Some("https://a/d".to_owned()));
        assert_eq!(to("https://a/b", "https://c/d"), Some("https://c/d".to_owned()));
        assert_eq!(to("http://a/b", "https://c/d"), Some("https://c/d".to_owned()));
        for (from, location) in
            [("https://a/b", "http://c/d"), ("https://a/b", "//c/d"), ("http://a", "gopher://b")]
        {
            assert_eq!(to(from, location), None, "{location}");
        }
    }
}
