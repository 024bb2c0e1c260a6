//! Revoked certificates: of clients whose TLS a sidecar terminates, and of a server outside.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use ferromesh_integration::{
    certificate::{Revocations, self_signed, signed},
    process::{Process, until},
    workload::{LIMIT, Workload, status},
};

use crate::beside::Pair;

/// `FILES` is where certificates are, `SERVER` the port of the server outside.
const MESH: &str = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: cart, namespace: shop}
spec:
  workloadSelector: {labels: {app: cart}}
  ingress:
  - port: {number: 8443, name: https, protocol: HTTPS}
    defaultEndpoint: 127.0.0.1:APPLICATION
    tls:
      mode: MUTUAL
      serverCertificate: FILES/cart.crt
      privateKey: FILES/cart.key
      caCertificates: FILES/ca.crt
      caCrl: FILES/revoked.pem
  - port: {number: 8444, name: simple, protocol: HTTPS}
    defaultEndpoint: 127.0.0.1:APPLICATION
    tls: {mode: SIMPLE, serverCertificate: FILES/cart.crt, privateKey: FILES/cart.key}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: shop}
spec:
  hosts: [out.test]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: SERVER}]
  endpoints: [{address: 127.90.41.6}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: out, namespace: shop}
spec:
  host: out.test
  trafficPolicy:
    tls: {mode: SIMPLE, caCertificates: FILES/ca.crt, caCrl: FILES/revoked.pem}
";

/// The first block of loopback addresses.
const BLOCK: u8 = 41;
const SERVER: u16 = 9443;

struct Certificates {
    folder: tempfile::TempDir,
    revocations: Revocations,
}

impl Certificates {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let ca = self_signed(folder.path(), "ca", &["-subj", "/CN=clients"]);
        for name in ["cart", "alice", "bob", "out"] {
            signed(folder.path(), name, &format!("/CN={name}"), &ca, &format!("DNS:{name}.test"));
        }
        let revocations = Revocations::new(folder.path().join("ca"), &ca);
        Self { folder, revocations }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a list in the place of the one before, at one stroke.
    fn publish(&self, list: &str) {
        let new = self.path("new");
        fs::write(&new, list).expect("a file");
        fs::rename(new, self.path("revoked.pem")).expect("it is replaced");
    }

    fn revoke(&self, name: &str) {
        self.revocations.revoke(&self.path(&format!("{name}.crt")));
        self.publish(&self.revocations.list(&[]));
    }
}

/// What a client with this certificate, if it has one, is answered over TLS; nothing where it is
/// refused.
fn answer(address: &str, files: &Path, client: Option<&str>) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-connect", address, "-servername", "cart.test"]);
    command.arg("-CAfile").arg(files.join("ca.crt")).arg("-verify_return_error");
    if let Some(name) = client {
        command.arg("-cert").arg(files.join(format!("{name}.crt")));
        command.arg("-key").arg(files.join(format!("{name}.key")));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut asking = command.spawn().expect("openssl runs");
    let request = "GET / HTTP/1.1\r\nhost: cart.test\r\nconnection: close\r\n\r\n";
    // Who is refused at once takes no request.
    let _ = asking.stdin.as_mut().expect("a pipe").write_all(request.as_bytes());
    let done = asking.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn who_is_revoked_is_refused_as_a_client_and_as_a_server() {
    let certificates = Certificates::new();
    certificates.publish(&certificates.revocations.list(&[]));
    let files = certificates.folder.path();
    let mut server = Command::new("openssl");
    server.args(["s_server", "-quiet", "-www", "-accept", &format!("127.90.{BLOCK}.6:{SERVER}")]);
    server.arg("-cert").arg(files.join("out.crt")).arg("-key").arg(files.join("out.key"));
    let _server = Process::start("server", files, server);

    let pair = Pair::start(BLOCK);
    let mesh = MESH.replace("FILES", &files.display().to_string());
    pair.write("revoked.yaml", &mesh.replace("SERVER", &SERVER.to_string()));
    for block in pair.blocks() {
        let mutual = format!("{block}.2:8443");
        let ask = |client| status(&answer(&mutual, files, Some(client)));
        until(LIMIT, "alice is served", || ask("alice") == 200);
        assert_eq!(ask("bob"), 200, "{block}");
        assert_eq!(answer(&mutual, files, None), "", "{block}: a certificate is asked for");
        assert_eq!(status(&answer(&format!("{block}.2:8444"), files, None)), 200, "{block}");
        until(LIMIT, "the server outside is called", || pair.called(block, "out.test") == 200);
    }

    certificates.revoke("bob");
    for block in pair.blocks() {
        let ask = |client| status(&answer(&format!("{block}.2:8443"), files, Some(client)));
        until(LIMIT, "bob is refused", || ask("bob") != 200);
        assert_eq!(ask("alice"), 200, "{block}: nobody revoked alice");
        assert_eq!(pair.called(block, "out.test"), 200, "{block}: nobody revoked the server");
    }

    certificates.revoke("out");
    for block in pair.blocks() {
        until(LIMIT, "the server outside is refused", || pair.called(block, "out.test") == 503);
    }

    // What is no list is refused: our proxy closes what needs it, an Envoy keeps the one before.
    certificates.publish("nobody");
    let [envoy, ours] = pair.blocks().each_ref().map(|block| format!("{block}.2:8443"));
    let ask = |address: &str, client| status(&answer(address, files, Some(client)));
    until(LIMIT, "nobody is known to be unrevoked", || ask(&ours, "alice") != 200);
    assert!(ask(&ours, "bob") != 200 && ask(&envoy, "bob") != 200);
    let past = ["-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200201000000Z"];
    certificates.publish(&certificates.revocations.list(&past));
    until(LIMIT, "nothing is known by an old list", || ask(&envoy, "alice") != 200);
    assert!(ask(&ours, "alice") != 200);
    certificates.publish(&certificates.revocations.list(&[]));
    for address in [&envoy, &ours] {
        until(LIMIT, "alice is served again", || ask(address, "alice") == 200);
        assert_ne!(ask(address, "bob"), 200, "{address}");
    }
}

/// A gateway whose clients show certificates; the Secrets come before it.
const GATEWAY: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {app: cart}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}
  - port: {number: 8443, name: https, protocol: HTTPS}
    hosts: [cart.test]
    tls: {mode: MUTUAL, credentialName: cart}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: shop}
spec:
  hosts: [cart.test]
  gateways: [edge]
  http: [{directResponse: {status: 200}}]
";

impl Certificates {
    /// The gateway with its Secrets, of which one has this list.
    fn gateway(&self, list: &str) -> String {
        let text = |name: &str| {
            let pem = fs::read_to_string(self.path(name)).expect("a PEM file");
            serde_json::to_string(&pem).expect("a text")
        };
        let list = serde_json::to_string(list).expect("a text");
        let secret = |name: &str, data: String| {
            format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: shop}}\n\
                 stringData: {{{data}}}\n---\n"
            )
        };
        let pair = format!("tls.crt: {}, tls.key: {}", text("cart.crt"), text("cart.key"));
        let authority = format!("ca.crt: {}, ca.crl: {list}", text("ca.crt"));
        [secret("cart", pair), secret("cart-cacert", authority), GATEWAY.to_owned()].concat()
    }
}

#[test]
fn a_list_in_a_secret_keeps_clients_out_of_a_gateway() {
    let certificates = Certificates::new();
    let files = certificates.folder.path();
    let first = certificates.gateway(&certificates.revocations.list(&[]));
    certificates.revoke("bob");
    let (second, past) = (
        certificates.gateway(&certificates.revocations.list(&[])),
        ["-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200201000000Z"],
    );
    for (kind, block) in [("envoy", "127.90.51"), ("run", "127.90.52")] {
        let gateway = Workload::start_gateway(kind, block, &first);
        let write = |objects: &str| gateway.plane.write("gateway.yaml", objects);
        let address = format!("{block}.2:8443");
        let ask = |client| status(&answer(&address, files, Some(client)));
        until(LIMIT, "alice is served", || ask("alice") == 200);
        assert_eq!(ask("bob"), 200, "{kind}");
        assert_eq!(answer(&address, files, None), "", "{kind}");

        write(&second);
        until(LIMIT, "bob is refused", || ask("bob") != 200);
        assert_eq!(ask("alice"), 200, "{kind}: nobody revoked alice");

        // What is no list is refused at the door, and the one before holds.
        write(&certificates.gateway("nobody"));
        let told = || gateway.plane.get("/api/v1/diagnostics").unwrap_or_default();
        until(LIMIT, "it is told", || told().contains("ca.crl"));
        assert!(ask("bob") != 200 && ask("alice") == 200, "{kind}");

        write(&certificates.gateway(&certificates.revocations.list(&past)));
        until(LIMIT, "nothing is known by an old list", || ask("alice") != 200);
        write(&second);
        until(LIMIT, "alice is served again", || ask("alice") == 200);
        assert_ne!(ask("bob"), 200, "{kind}");
    }
}
