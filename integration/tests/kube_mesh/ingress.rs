//! A gateway of the chart, from outside of the cluster.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ferromesh_integration::{
    certificate::self_signed,
    mesh::{Mesh, chart},
    process::until,
};

use crate::say;

const GATEWAY: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop, namespace: shop}
spec:
  selector: {istio: ingress}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.example]}
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [shop.example], tls: {mode: SIMPLE, credentialName: shop-cert}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ingress, namespace: shop}
spec:
  hosts: [shop.example]
  gateways: [shop]
  http: [{route: [{destination: {host: reviews, subset: v1}}]}]
";

/// A type of Secret, with its keys for the certificate and the private key. Istio reads both.
type Form = [&'static str; 3];
const OF_TLS: Form = ["kubernetes.io/tls", "tls.crt", "tls.key"];
const GENERIC: Form = ["Opaque", "cert", "key"];

/// A certificate for `shop.example` that signs itself, into the Secret that the Gateway names.
fn install_certificate(mesh: &Mesh, folder: &Path, organisation: &str, form: Form) -> PathBuf {
    let subject = format!("/O={organisation}/CN=shop.example");
    let about = ["-subj", &subject, "-addext", "subjectAltName=DNS:shop.example"];
    let (certificate, key) = self_signed(folder, organisation, &about);
    let text = |path: &Path| fs::read_to_string(path).expect("openssl wrote it");
    let indented =
        |text: String| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let [kind, certificate_name, key_name] = form;
    let (certificate_text, key_text) = (indented(text(&certificate)), indented(text(&key)));
    mesh.cluster.apply(&format!(
        "
apiVersion: v1
kind: Secret
type: {kind}
metadata: {{name: shop-cert, namespace: ingress}}
stringData:
  {certificate_name}: |
{certificate_text}  {key_name}: |
{key_text}"
    ));
    certificate
}

/// The status and body of an answer, or nothing.
fn curl(address: &str, roots: Option<&Path>) -> Option<String> {
    let mut command = Command::new("curl");
    command.args(["-s", "-m", "5", "--resolve", &format!("shop.example:80:{address}")]);
    command.args(["--resolve", &format!("shop.example:443:{address}"), "-w", "\n%{http_code}"]);
    match roots {
        Some(roots) => command.arg("--cacert").arg(roots).arg("https://shop.example/"),
        None => command.arg("http://shop.example/"),
    };
    let output = command.output().expect("curl runs");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) fn a_gateway_serves_http_and_https_with_a_certificate_that_changes(mesh: &Mesh) {
    let folder = tempfile::tempdir().expect("a folder");
    for (kind, form) in [("ferromesh", OF_TLS), ("envoy", GENERIC)] {
        say(&format!(
            "a gateway of kind {kind} serves HTTP, and HTTPS with a certificate that changes"
        ));
        let proxy = format!("proxy={kind}");
        let gateway = chart("gateway");
        let mut arguments = vec![
            "upgrade",
            "--install",
            "ingress",
            &gateway,
            "--namespace",
            "ingress",
            "--create-namespace",
        ];
        arguments.extend([
            "--set",
            "service.type=ClusterIP",
            "--set",
            "autoscaling.enabled=false",
            "--set",
            &proxy,
        ]);
        arguments.extend(["--wait", "--timeout=240s"]);
        mesh.helm(&arguments);
        mesh.cluster.apply(GATEWAY);
        let first = install_certificate(mesh, folder.path(), &format!("{kind}-first"), form);
        let address = mesh.service_address("ingress", "ingress");
        let serves = |roots| {
            curl(&address, roots)
                .is_some_and(|said| said.contains("reviews-v1") && said.ends_with("200"))
        };
        let limit = Duration::from_secs(60);
        until(limit, "HTTP through the gateway", || serves(None));
        until(limit, "HTTPS through the gateway", || serves(Some(&first)));
        let second = install_certificate(mesh, folder.path(), &format!("{kind}-second"), form);
        until(limit, "HTTPS with the new certificate", || serves(Some(&second)));
        assert!(!serves(Some(&first)), "the old certificate is served no more");
        // The type of a Secret never changes.
        mesh.cluster.kubectl(&["delete", "secret", "shop-cert", "--namespace", "ingress"]);
    }
    for object in ["gateway.networking.istio.io/shop", "virtualservice/ingress"] {
        mesh.until_status(
            "shop",
            object,
            ".status.conditions[?(@.type==\"Accepted\")].status",
            |s| s == "True",
        );
    }
}
