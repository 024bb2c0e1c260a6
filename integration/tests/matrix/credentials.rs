//! An authority, what it signed, and who signs tokens.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use ferromesh_integration::{
    certificate::{self_signed, signed},
    token::Issuer,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, client::Resumption, server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Map, Value, json};
use tokio_rustls::TlsAcceptor;

/// A name that servers outside prove, beside those of all cases.
pub(crate) const NAME: &str = "secure.test";

/// Files in the folder of the mesh: `authority`, `server` (proves [`NAME`]), `client`, and
/// `stranger` (another authority), each `.crt` and `.key`.
pub(crate) struct Credentials {
    authority: PathBuf,
    server: (PathBuf, PathBuf),
    pub(crate) issuer: Issuer,
    forger: Issuer,
}

impl Credentials {
    pub(crate) fn make(folder: &Path) -> Self {
        let authority = self_signed(folder, "authority", &["-subj", "/CN=outside"]);
        let server =
            signed(folder, "server", "/", &authority, &format!("DNS:{NAME},DNS:*.case.test"));
        let client = signed(folder, "client", "/CN=client", &authority, "DNS:client.test");
        let stranger = self_signed(folder, "stranger", &["-subj", "/CN=stranger"]);
        for (certificate, key) in [&authority, &server, &client, &stranger] {
            for path in [certificate, key] {
                // Proxies, which are another user, read them by their paths.
                let readable = fs::Permissions::from_mode(0o644);
                fs::set_permissions(path, readable).expect("a mode");
            }
        }
        let [issuer, forger] = ["key", "key"].map(Issuer::new);
        Self { authority: authority.0, server, issuer, forger }
    }

    /// What takes TLS at servers outside: whoever comes; who shows a certificate must have it of
    /// the authority.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let verifier = WebPkiClientVerifier::builder(Arc::new(self.roots()));
        let verifier = verifier.allow_unauthenticated().build().expect("an authority");
        let (chain, key) = pair(&self.server);
        let config = ServerConfig::builder().with_client_cert_verifier(verifier);
        let mut config = config.with_single_cert(vec![chain], key).expect("a certificate");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// TLS of those who call the gateway.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let config = ClientConfig::builder().with_root_certificates(self.roots());
        let mut config = config.with_no_client_auth();
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }

    /// The gateway's credential, `edge`.
    pub(crate) fn secret(&self) -> Value {
        let text = |path: &Path| fs::read_to_string(path).expect("PEM");
        let (chain, key) = &self.server;
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "edge", "namespace": "istio-system"},
            "stringData": {"tls.crt": text(chain), "tls.key": text(key),
                "ca.crt": text(&self.authority)},
        })
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(&self.authority).expect("a certificate");
        roots.add(authority).expect("an authority");
        roots
    }

    /// A text with the tokens that it asks for: `$TOKEN(…)` signed by the issuer, `$FORGED(…)` by
    /// somebody else with a key of the same name. Claims are `NAME=VALUE`, `,` between them; dots
    /// in a name lead into maps, `+` divides values of a list, and numbers are numbers.
    pub(crate) fn with_tokens(&self, text: &str) -> String {
        let signers = [("$TOKEN(", &self.issuer), ("$FORGED(", &self.forger)];
        signers.iter().fold(text.to_owned(), |text, (begin, signer)| {
            let Some((before, rest)) = text.split_once(begin) else { return text };
            let (wish, behind) = rest.split_once(')').expect("a token ends");
            format!("{before}{}{behind}", signer.sign(&claims(wish)))
        })
    }
}

fn claims(wish: &str) -> Value {
    let mut claims = Map::new();
    claims.insert("exp".to_owned(), 4_102_444_800_u64.into());
    for claim in wish.split(',').filter(|claim| !claim.is_empty()) {
        let (name, text) = claim.split_once('=').expect("a claim has a value");
        let value = match text.split_once('+') {
            Some(_) => text.split('+').collect(),
            None => text.parse::<u64>().map_or_else(|_| text.into(), Value::from),
        };
        let mut path = name.split('.').rev();
        let last = path.next().expect("a name");
        let (name, value) = path.fold((last, value), |(name, value), above| {
            (above, Value::Object(Map::from_iter([(name.to_owned(), value)])))
        });
        claims.insert(name.to_owned(), value);
    }
    Value::Object(claims)
}

fn pair(
    (certificate, key): &(PathBuf, PathBuf),
) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
    (certificate, PrivateKeyDer::from_pem_file(key).expect("a key"))
}
