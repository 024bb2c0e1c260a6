//! Calls with any identity, byte by byte.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ferromesh_integration::certificate::{self_signed, signed};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpSocket,
};
use tokio_rustls::TlsConnector;

use crate::{
    cases::{Call, Identity, Payload, SERVER_NAMES},
    oracle::Answer,
    tokens::{self, Keys},
};

/// A certificate and its key, as files.
type Files = (PathBuf, PathBuf);

/// An authority, the server's certificate and one for every identity.
pub(crate) struct Credentials {
    pub(crate) authority: Files,
    pub(crate) server: Files,
    clients: BTreeMap<Identity, Files>,
    pub(crate) tokens: Keys,
}

impl Credentials {
    pub(crate) fn make(dir: &Path, identities: &[Identity]) -> Self {
        let authority = self_signed(dir, "authority", &["-subj", "/CN=test"]);
        let server_names = SERVER_NAMES.map(|name| format!("DNS:{name}")).join(",");
        let server = signed(dir, "server", "/", &authority, &server_names);
        let client = |(i, identity): (usize, &Identity)| {
            let name = format!("URI:spiffe://{}", identity.text());
            (identity.clone(), signed(dir, &format!("client-{i}"), "/", &authority, &name))
        };
        let clients = identities.iter().enumerate().map(client).collect();
        Self { authority, server, clients, tokens: Keys::make() }
    }

    fn connector(&self, identity: &Identity, call: &Call) -> TlsConnector {
        let (certificate, key) = &self.clients[identity];
        let mut roots = RootCertStore::empty();
        roots.add(certificate_in(&self.authority.0)).expect("an authority");
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let config = ClientConfig::builder().with_root_certificates(roots);
        let mut config = config
            .with_client_auth_cert(vec![certificate_in(certificate)], key)
            .expect("a certificate");
        config.enable_sni = call.server_name.is_some();
        // What sidecars offer for what they carry.
        let alpn: &[u8] =
            if matches!(call.payload, Payload::Bytes) { b"istio" } else { b"istio-http/1.1" };
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    /// Makes the call: how it ended, and from which address it was made.
    pub(crate) async fn call(&self, call: &Call, destination: SocketAddr) -> (Answer, SocketAddr) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((call.source, 0).into()).expect("a loopback address");
        let stream = socket.connect(destination).await.expect("a listening proxy");
        let source = stream.local_addr().expect("a connected socket");
        let keys = &self.tokens;
        let Some(identity) = &call.peer else { return (answer(stream, call, keys).await, source) };
        let name =
            ServerName::try_from(call.server_name.unwrap_or(SERVER_NAMES[0])).expect("a name");
        let stream =
            self.connector(identity, call).connect(name, stream).await.expect("a handshake");
        (answer(stream, call, keys).await, source)
    }
}

fn certificate_in(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).expect("a certificate")
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    call: &Call,
    keys: &Keys,
) -> Answer {
    let answer =
        tokio::time::timeout(Duration::from_secs(20), exchange(&mut stream, &call.payload, keys));
    answer.await.unwrap_or_else(|_| panic!("no answer to {call:?}"))
}

async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    payload: &Payload,
    keys: &Keys,
) -> Answer {
    let Payload::Request { method, host, path, headers, token } = payload else {
        let echoed = stream.write_all(b"\0ping").await.is_ok()
            && stream.read(&mut [0; 16]).await.is_ok_and(|read| read > 0);
        return if echoed { Answer::Passes } else { Answer::Refused };
    };
    let mut headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut path = (*path).to_owned();
    if let Some(token) = token {
        let text = keys.signed(token);
        path = tokens::target(&path, token.place, &text);
        if let Some((name, before)) = tokens::header(token.place) {
            headers += &format!("{name}: {before}{text}\r\n");
        }
    }
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{headers}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("an open connection");
    let mut answer = Vec::new();
    // An end without TLS's goodbye is an end.
    let _ = stream.read_to_end(&mut answer).await;
    let status = answer
        .split(|byte| *byte == b' ')
        .nth(1)
        .map(String::from_utf8_lossy)
        .unwrap_or_default()
        .into_owned();
    match &*status {
        "200" => Answer::Passes,
        "403" => Answer::Refused,
        "401" => Answer::BadToken,
        _ => panic!("neither 200, 401 nor 403: {payload:?}: {}", String::from_utf8_lossy(&answer)),
    }
}
