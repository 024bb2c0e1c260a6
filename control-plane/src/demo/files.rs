//! The demo's configuration as files that a person can open and edit.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use super::layout::{GATEWAY, Network, Role, SERVICE_PORT, WORKLOADS, Workload};

/// Files that are the same in every demo.
const WRITTEN: [(&str, &str); 5] = [
    ("10-reviews.yaml", include_str!("config/10-reviews.yaml")),
    ("20-details.yaml", include_str!("config/20-details.yaml")),
    ("30-ratings.yaml", include_str!("config/30-ratings.yaml")),
    ("40-security.yaml", include_str!("config/40-security.yaml")),
    ("50-gateway.yaml", include_str!("config/50-gateway.yaml")),
];

/// The file that a live edit changes.
pub(crate) const REVIEWS: &str = "10-reviews.yaml";

/// The host that the gateway serves.
pub(crate) const PUBLIC_HOST: &str = "bookinfo.example.com";

/// Writes every file into `dir`.
///
/// # Errors
/// The directory cannot be written.
pub(crate) fn write_all(dir: &Path, network: &Network) -> anyhow::Result<String> {
    fs::create_dir_all(dir)?;
    for (name, text) in WRITTEN {
        fs::write(dir.join(name), text)?;
    }
    fs::write(dir.join("00-workloads.yaml"), workloads(network))?;
    let certificate = rcgen::generate_simple_self_signed(vec![PUBLIC_HOST.to_owned()])?;
    let secret = tls_secret(&certificate.cert.pem(), &certificate.signing_key.serialize_pem());
    fs::write(dir.join("60-certificate.yaml"), secret)?;
    Ok(certificate.cert.pem())
}

/// Replaces a file in one step, as an editor does when it saves.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn replace(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let (target, draft): (PathBuf, PathBuf) = (dir.join(name), dir.join(format!(".{name}.draft")));
    fs::write(&draft, text)?;
    fs::rename(draft, target)
}

fn tls_secret(certificate: &str, key: &str) -> String {
    let indent = |pem: &str| pem.trim_end().replace('\n', "\n    ");
    format!(
        "# A certificate of the demo's own for {PUBLIC_HOST}; it lives where the gateway's pods live.\n\
         apiVersion: v1\nkind: Secret\nmetadata:\n  name: bookinfo-certificate\n  namespace: {}\ntype: kubernetes.io/tls\nstringData:\n  \
         tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
        GATEWAY.namespace,
        indent(certificate),
        indent(key)
    )
}

/// Namespaces, service accounts, services and pods, as `kubectl get -o yaml` would show them.
fn workloads(network: &Network) -> String {
    let mut text = String::from(
        "# The demo's workloads. Each pod's address is the inbound side of its sidecar.\n",
    );
    for namespace in ["default", "istio-system"] {
        let _ =
            write!(text, "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {namespace}\n---\n");
    }
    let mut accounts: Vec<_> = WORKLOADS.iter().map(|w| (w.namespace, w.account)).collect();
    accounts.dedup();
    for (namespace, account) in accounts {
        let _ = write!(
            text,
            "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {account}\n  namespace: {namespace}\n---\n"
        );
    }
    let mut services: Vec<_> = WORKLOADS
        .iter()
        .filter(|w| w.role != Role::Client)
        .map(|w| (w.namespace, w.app, w.role))
        .collect();
    services.dedup();
    for (namespace, app, role) in services {
        text.push_str(&service(namespace, app, role));
    }
    for workload in WORKLOADS {
        text.push_str(&pod(network, workload));
    }
    text
}

fn service(namespace: &str, app: &str, role: Role) -> String {
    let ports = match role {
        Role::Gateway => {
            "  - {name: http, port: 80, targetPort: 8080}\n  - {name: https, port: 443, targetPort: 8443}\n".to_owned()
        }
        _ => format!("  - {{name: http, port: {SERVICE_PORT}, targetPort: {SERVICE_PORT}}}\n"),
    };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {app}\n  namespace: {namespace}\nspec:\n  selector: {{app: {app}}}\n  ports:\n{ports}---\n"
    )
}

fn pod(network: &Network, workload: Workload) -> String {
    let Workload { name, app, version, namespace, account, role, .. } = workload;
    let gateway = if role == Role::Gateway { ", istio: ingressgateway" } else { "" };
    let address = network.inbound(workload);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  labels: {{app: {app}, version: {version}, \
         security.istio.io/tlsMode: istio{gateway}}}\nspec:\n  serviceAccountName: {account}\n  containers:\n  - name: app\n    image: demo\n    \
         ports: [{{name: http, containerPort: {SERVICE_PORT}}}]\nstatus:\n  phase: Running\n  podIP: {address}\n  podIPs: [{{ip: {address}}}]\n  \
         conditions: [{{type: Ready, status: \"True\"}}]\n---\n"
    )
}
