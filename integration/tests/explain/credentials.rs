//! An authority, certificates of everybody, keys of tokens, and the TLS of clients.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use ferromesh_integration::{
    certificate::{self_signed, signed},
    token::Issuer,
};
use rustls::{ClientConfig, RootCertStore, ServerConfig, client::Resumption};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{
    gateways::{OTHERS, PASSED},
    mesh::{ACCOUNTS, SERVICES},
};

/// A certificate and its key, as files.
pub(crate) type Files = (PathBuf, PathBuf);

/// An authority, a certificate for every account, one for every name, and keys of tokens.
pub(crate) struct Credentials {
    pub(crate) authority: Files,
    pub(crate) accounts: BTreeMap<(&'static str, &'static str), Files>,
    /// Of gateways and applications.
    pub(crate) server: Files,
    pub(crate) issuer: Issuer,
    /// Signs tokens in the issuer's name.
    pub(crate) forger: Issuer,
    /// Clients that prove nothing, and such as show a certificate.
    clients: [TlsConnector; 2],
}

impl Credentials {
    pub(crate) fn make(folder: &Path) -> Self {
        let authority = self_signed(folder, "authority", &["-subj", "/CN=test"]);
        let account = |(namespace, account): (&'static str, &'static str)| {
            let name = format!("URI:spiffe://cluster.local/ns/{namespace}/sa/{account}");
            let files = signed(folder, &format!("{namespace}-{account}"), "/", &authority, &name);
            ((namespace, account), files)
        };
        let accounts: BTreeMap<_, _> = ACCOUNTS.into_iter().map(account).collect();
        let server = signed(folder, "server", "/", &authority, &names());
        let proof = &accounts[&ACCOUNTS[3]];
        let clients = [client(&authority, None), client(&authority, Some(proof))];
        let (issuer, forger) = (Issuer::new("key"), Issuer::new("key"));
        Self { authority, accounts, server, issuer, forger, clients }
    }

    /// A client's TLS.
    pub(crate) fn connector(&self, certificate: bool) -> &TlsConnector {
        &self.clients[usize::from(certificate)]
    }

    /// An application's TLS.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let (certificate, key) = pair(&self.server);
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate], key).expect("a certificate");
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Every name that a client asks for.
fn names() -> String {
    let of = |service: &str| {
        let suffixes = ["", ".test", ".shop", ".shop.svc.cluster.local"];
        suffixes.map(|suffix| format!("DNS:{service}{suffix}")).join(",")
    };
    let services = SERVICES.iter().map(|service| of(service));
    let others = [PASSED, "unknown.test"].into_iter().chain(OTHERS);
    services.chain(others.map(|name| format!("DNS:{name}"))).collect::<Vec<_>>().join(",")
}

fn pair((certificate, key): &Files) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
    (certificate, PrivateKeyDer::from_pem_file(key).expect("a key"))
}

fn client(authority: &Files, proof: Option<&Files>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(pair(authority).0).expect("an authority");
    let config = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match proof.map(pair) {
        Some((certificate, key)) => {
            config.with_client_auth_cert(vec![certificate], key).expect("a certificate")
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Each request proves itself anew.
    config.resumption = Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}
