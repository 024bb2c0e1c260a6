//! An authority, what it signed, and who signs tokens.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ferromesh_integration::{
    certificate::{Revocations, self_signed, signed},
    token::Issuer,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, client::Resumption, server::WebPkiClientVerifier,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer as PublicKeyDer, pem::PemObject,
};
use serde_json::{Map, Value, json};
use tokio_rustls::TlsAcceptor;

/// A name that servers outside prove, beside those of all cases.
pub(crate) const NAME: &str = "secure.test";

/// Files in the folder of the mesh: `authority`, `server` (proves [`NAME`]), `client`, and
/// `stranger` (another authority), each `.crt` and `.key`; `servers.crl` and `clients.crl` of the
/// authority, which revoke `server` and `client`.
pub(crate) struct Credentials {
    folder: PathBuf,
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
        for (list, (revoked, _)) in [("servers.crl", &server), ("clients.crl", &client)] {
            let revocations = Revocations::new(folder.join(list.replace('.', "-")), &authority);
            revocations.revoke(revoked);
            let path = folder.join(list);
            fs::write(&path, revocations.list(&[])).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
        }
        let [issuer, forger] = ["key", "key"].map(Issuer::new);
        Self { folder: folder.to_owned(), authority: authority.0, server, issuer, forger }
    }

    /// A text with the files that it asks for: `$PEM(FILE)` as they are, `$BASE64(FILE)` coded,
    /// `$HASH(FILE)` and `$SPKI(FILE)` of a certificate and its key (SHA-256, as pins are written).
    pub(crate) fn with_files(&self, text: &str) -> String {
        type Form = fn(&Path) -> String;
        let forms: [(&str, Form); 4] =
            [("$PEM(", pem), ("$BASE64(", base64), ("$HASH(", hash), ("$SPKI(", spki)];
        forms.iter().fold(text.to_owned(), |text, (begin, form)| {
            let Some((before, rest)) = text.split_once(begin) else { return text };
            let (file, behind) = rest.split_once(')').expect("a name of a file ends");
            format!("{before}{}{behind}", form(&self.folder.join(file)))
        })
    }

    /// The key set of who forges tokens.
    pub(crate) fn forged_jwks(&self) -> String {
        self.forger.jwks()
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

    /// TLS of those who call the gateway. `shows`: by which certificate of the folder it proves who
    /// it is; `old`: no TLS but 1.2.
    pub(crate) fn client(&self, shows: Option<&str>, old: bool) -> Arc<ClientConfig> {
        let versions: &[_] = if old {
            &[&rustls::version::TLS12]
        } else {
            &[&rustls::version::TLS13, &rustls::version::TLS12]
        };
        let config = ClientConfig::builder_with_protocol_versions(versions);
        let config = config.with_root_certificates(self.roots());
        let mut config = match shows {
            None => config.with_no_client_auth(),
            Some(name) => {
                let path = |kind: &str| self.folder.join(format!("{name}.{kind}"));
                let (chain, key) = pair(&(path("crt"), path("key")));
                config.with_client_auth_cert(vec![chain], key).expect("a certificate")
            }
        };
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }

    /// The credentials of the gateway (`edge`, and `edge-ca` and `strange-ca` with an authority
    /// alone) and of the client (`origin`, `strange-origin`).
    pub(crate) fn secrets(&self) -> Vec<Value> {
        let text = |file: &str| pem(&self.folder.join(file));
        let secret = |[namespace, name]: [&str; 2], pair: &str, authority: &str| {
            let mut data = json!({"ca.crt": text(authority)});
            if !pair.is_empty() {
                data["tls.crt"] = text(&format!("{pair}.crt")).into();
                data["tls.key"] = text(&format!("{pair}.key")).into();
            }
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": {"name": name, "namespace": namespace}, "stringData": data,
            })
        };
        vec![
            secret(["istio-system", "edge"], "server", "authority.crt"),
            secret(["istio-system", "strange-edge"], "stranger", "authority.crt"),
            secret(["istio-system", "edge-ca"], "", "authority.crt"),
            secret(["istio-system", "strange-ca"], "", "stranger.crt"),
            secret(["shop", "origin"], "client", "authority.crt"),
            secret(["shop", "strange-origin"], "client", "stranger.crt"),
        ]
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

fn pem(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn base64(path: &Path) -> String {
    STANDARD.encode(pem(path))
}

/// As hexadecimal digits.
fn hash(path: &Path) -> String {
    let printed = openssl(&["x509", "-noout", "-fingerprint", "-sha256", "-in"], path);
    let (_, digits) = printed.trim().split_once('=').expect("openssl says what it is");
    digits.replace(':', "").to_ascii_lowercase()
}

fn spki(path: &Path) -> String {
    let key = openssl(&["x509", "-noout", "-pubkey", "-in"], path);
    let der = PublicKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der))
}

fn openssl(arguments: &[&str], path: &Path) -> String {
    let printed = Command::new("openssl").args(arguments).arg(path).output().expect("it runs");
    String::from_utf8(printed.stdout).expect("text")
}
