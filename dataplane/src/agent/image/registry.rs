//! Asking a registry: manifests and blobs, with tokens where it wants them, over connections that
//! lead where they may.
//!
//! Spec: OCI distribution 1.1, "Pull"; the token scheme of Docker's registry; RFC 9110, section 15.4.
//! Everything is bounded: bytes of each answer, redirects, and by the caller the time. Whoever names
//! an image makes this machine call its registry, so that addresses of the machine itself, of its
//! link and of metadata services are called only for registries that are listed by name.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{
    HeaderValue, Request, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, HOST, LOCATION, USER_AGENT, WWW_AUTHENTICATE},
    uri::Scheme,
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1, rt};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

use super::{
    credentials::{Challenge, Credentials},
    layer::MANIFESTS,
    reference::Reference,
};
use crate::{
    identity::files::{FileContent, FileSecret},
    resolve::{Families, Resolver},
};

/// The largest manifest.
const MANIFEST: usize = 4 << 20;
/// The largest answer of a server of tokens.
const TOKEN: usize = 64 << 10;
/// Redirects that are followed.
const REDIRECTS: usize = 3;

/// What may be called, and how.
#[derive(Clone)]
pub struct Network {
    /// Registries, `HOST` or `HOST:PORT`, that are called without TLS and wherever they are.
    insecure: BTreeSet<String>,
    resolver: Resolver,
    tls: TlsConnector,
}

/// One registry, asked for one repository.
pub struct Registry<'a> {
    network: &'a Network,
    reference: &'a Reference,
    credentials: &'a Credentials,
    /// What the registry was shown and took.
    authorization: Option<Zeroizing<String>>,
}

struct Answer {
    status: StatusCode,
    location: Option<String>,
    challenge: Option<Challenge>,
    body: Bytes,
}

impl Network {
    /// Trusts the public PKI as far as this machine does.
    pub fn new(insecure: BTreeSet<String>) -> Self {
        let mut roots = RootCertStore::empty();
        let system = FileSecret::Roots { roots: None, revoked: None };
        // Where there are none, nothing over TLS is trusted.
        if let Ok(FileContent::Roots { roots: pem, .. }) = system.read() {
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has what the versions need")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { insecure, resolver: Resolver::default(), tls: TlsConnector::from(Arc::new(config)) }
    }

    /// Asks a server once, over a connection of its own.
    async fn ask(
        &self,
        uri: &Uri,
        accept: &str,
        authorization: Option<&str>,
        largest: usize,
    ) -> Result<Answer, String> {
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let listed = self.insecure.contains(&authority);
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP && listed => false,
            _ => return Err(format!("{authority} is not asked without TLS: it is not listed")),
        };
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let stream = self.connect(&host, port, listed).await?;
        let mut request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
            .header(HOST, &authority)
            .header(USER_AGENT, concat!("ferromesh-agent/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, accept);
        if let Some(text) = authorization {
            let mut value = HeaderValue::from_str(text).map_err(|_| "unusable credentials")?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
        if !tls {
            return exchange(&authority, TokioIo::new(stream), request, largest).await;
        }
        let name = ServerName::try_from(host.clone()).map_err(|_| format!("{host} is no name"))?;
        let stream = self.tls.connect(name, stream).await;
        let stream = stream.map_err(|error| format!("TLS with {authority}: {error}"))?;
        exchange(&authority, TokioIo::new(stream), request, largest).await
    }

    /// Connects to the first address that answers, of those that may be called.
    async fn connect(&self, host: &str, port: u16, anywhere: bool) -> Result<TcpStream, String> {
        let addresses = match host.parse() {
            Ok(address) => vec![address],
            Err(_) => {
                let found = self.resolver.look_up(host, Families::All).await;
                found.map_err(|error| error.to_string())?.addresses
            }
        };
        let mut failed = format!("{host} is at an address that registries are not called at");
        for address in addresses.into_iter().filter(|address| anywhere || may_be_called(*address)) {
            match TcpStream::connect(SocketAddr::new(address, port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = format!("connecting to {host}:{port}: {error}"),
            }
        }
        Err(failed)
    }
}

/// Not this machine, its link, or what clouds have there.
fn may_be_called(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified())
                && v6.segments()[..2] != [0xfd00, 0x0ec2]
        }
    }
}

async fn exchange<I: rt::Read + rt::Write + Send + Unpin + 'static>(
    authority: &str,
    io: I,
    request: Request<Empty<Bytes>>,
    largest: usize,
) -> Result<Answer, String> {
    let failed = |error: hyper::Error| format!("asking {authority}: {error}");
    let (mut sender, connection) = http1::handshake(io).await.map_err(failed)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(async move { connection.await.ok() }));
    let response = sender.send_request(request).await.map_err(failed)?;
    let (head, body) = response.into_parts();
    let text = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let location = text(LOCATION).map(str::to_owned);
    let challenge = text(WWW_AUTHENTICATE).and_then(Challenge::parse);
    let status = head.status;
    // Of what failed, what it says is nobody's business.
    let body = match status.is_success() {
        true => {
            let body = Limited::new(body, largest).collect().await;
            let long =
                || format!("{authority}: the answer ends early, or has more than {largest} bytes");
            body.map_err(|_| long())?.to_bytes()
        }
        false => Bytes::new(),
    };
    Ok(Answer { status, location, challenge, body })
}

impl<'a> Registry<'a> {
    /// Asks the registry of an image.
    pub fn new(
        network: &'a Network,
        reference: &'a Reference,
        credentials: &'a Credentials,
    ) -> Self {
        Self { network, reference, credentials, authorization: None }
    }

    /// The manifest of this version of the repository, `TAG` or `sha256:DIGITS`.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub async fn manifest(&mut self, version: &str) -> Result<Bytes, String> {
        self.get(&format!("manifests/{version}"), MANIFESTS, MANIFEST).await
    }

    /// A blob of at most so many bytes, by its digest.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub async fn blob(&mut self, digest: &str, largest: usize) -> Result<Bytes, String> {
        self.get(&format!("blobs/{digest}"), "*/*", largest).await
    }

    async fn get(&mut self, path: &str, accept: &str, largest: usize) -> Result<Bytes, String> {
        let Reference { repository, .. } = self.reference;
        let server = self.reference.server();
        let scheme = if self.network.insecure.contains(server) { "http" } else { "https" };
        let first = uri(&format!("{scheme}://{server}/v2/{repository}/{path}"))?;
        let (mut at, mut proven) = (first.clone(), false);
        let mut redirects = 0;
        loop {
            // Who else is led to learns of no credentials.
            let own = at.authority() == first.authority();
            let shown = self.authorization.as_ref().filter(|_| own).map(|text| text.as_str());
            let answer = self.network.ask(&at, accept, shown, largest).await?;
            match (answer.status, answer.location, answer.challenge) {
                (status, ..) if status.is_success() => return Ok(answer.body),
                (StatusCode::UNAUTHORIZED, _, Some(challenge)) if own && !proven => {
                    proven = true;
                    self.authorization = self.prove(&challenge, &first).await?;
                }
                (status, Some(location), _) if status.is_redirection() && redirects < REDIRECTS => {
                    redirects += 1;
                    at = led(&at, &location)?;
                }
                (status, ..) => return Err(format!("{server} answers {status} for {path}")),
            }
        }
    }

    /// What the registry is shown after it asked.
    async fn prove(
        &self,
        challenge: &Challenge,
        asked: &Uri,
    ) -> Result<Option<Zeroizing<String>>, String> {
        let own = self.credentials.of(&self.reference.registry);
        let Challenge::Bearer { realm, service, scope } = challenge else { return Ok(own) };
        let scope = match scope.is_empty() {
            true => format!("repository:{}:pull", self.reference.repository),
            false => scope.clone(),
        };
        let separator = if realm.contains('?') { '&' } else { '?' };
        let (service, scope) = (encoded(service), encoded(&scope));
        let at = uri(&format!("{realm}{separator}service={service}&scope={scope}"))?;
        // Tokens and what they are given for stay in TLS, but where the registry itself has none.
        if at.scheme() == Some(&Scheme::HTTP) && asked.scheme() != Some(&Scheme::HTTP) {
            return Err(format!("{realm} gives tokens without TLS"));
        }
        let shown = own.as_ref().map(|text| text.as_str());
        let answer = self.network.ask(&at, "application/json", shown, TOKEN).await?;
        if !answer.status.is_success() {
            return Err(format!("{realm} answers {}: it gives no token", answer.status));
        }
        let read: serde_json::Value =
            serde_json::from_slice(&answer.body).map_err(|_| format!("{realm} gives no token"))?;
        let token = read.get("token").or(read.get("access_token")).and_then(|token| token.as_str());
        let token = token.ok_or_else(|| format!("{realm} gives no token"))?;
        Ok(Some(Zeroizing::new(format!("Bearer {token}"))))
    }
}

fn uri(text: &str) -> Result<Uri, String> {
    text.parse().map_err(|_| format!("{text:?} is no URL"))
}

/// Where a redirect leads, which never leaves TLS.
fn led(from: &Uri, location: &str) -> Result<Uri, String> {
    let whole = match location.starts_with('/') {
        true => {
            let authority = from.authority().map(ToString::to_string).unwrap_or_default();
            format!("{}://{authority}{location}", from.scheme_str().unwrap_or("https"))
        }
        false => location.to_owned(),
    };
    let to = uri(&whole)?;
    match (from.scheme_str(), to.scheme_str()) {
        (Some("https"), Some("https")) | (Some("http"), Some("http" | "https")) => Ok(to),
        _ => Err("a redirect leads out of TLS".to_owned()),
    }
}

/// A text as a part of a query (RFC 3986).
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte);
    let one = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_s_own_addresses_are_not_called() {
        for (address, expected) in [
            ("10.1.2.3", true),
            ("203.0.113.9", true),
            ("2001:db8::1", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("0.0.0.0", false),
            ("::1", false),
            ("fe80::1", false),
            ("fd00:ec2::254", false),
            ("::ffff:127.0.0.1", false),
        ] {
            assert_eq!(may_be_called(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn a_redirect_stays_in_tls() {
        let to = |from: &str, location: &str| {
            led(&from.parse().unwrap(), location).map(|to| to.to_string())
        };
        assert_eq!(to("https://a.test/v2/x", "/y?z").unwrap(), "https://a.test/y?z");
        assert_eq!(to("https://a.test/v2/x", "https://b.test/y").unwrap(), "https://b.test/y");
        assert!(to("https://a.test/v2/x", "http://a.test/y").is_err());
        assert!(to("https://a.test/v2/x", "ftp://a.test/y").is_err());
    }

    #[test]
    fn a_scope_is_a_part_of_a_query() {
        assert_eq!(encoded("repository:a/b:pull"), "repository:a/b:pull");
        assert_eq!(encoded("a b&c=d"), "a%20b%26c%3Dd");
    }
}
