//! A control plane in this process, on free ports, over a directory that tests edit.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ferromesh_cert_authority::Uses;
use ferromesh_control_plane::{
    app::ControlPlane,
    config::{SERVER_NAME, Settings, Style},
    status::ProxyStatus,
};
use ferromesh_proto::{SpiffeId, TrustDomain};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::{PATIENCE, find};

pub(crate) const SIDECAR: &str = "sidecar~10.1.0.1~cart-0.shop~shop.svc.cluster.local";
pub(crate) const GATEWAY: &str = "router~10.1.0.2~gateway-0.edge~edge.svc.cluster.local";

pub(crate) struct Plane {
    pub(crate) control: ControlPlane,
    dir: TempDir,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// One that finds these files beside its usual ones.
    pub(crate) async fn start_with(more: &[(&str, String)]) -> Self {
        Self::start_changed(more, |_| {}).await
    }

    /// The same, with settings that are changed.
    pub(crate) async fn start_changed(
        more: &[(&str, String)],
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("config");
        fs::create_dir(&config).expect("making a directory");
        let files = [
            ("mesh.yaml", mesh()),
            ("slice.yaml", slice(&["10.1.0.1"])),
            ("route.yaml", route(10)),
            ("secret.yaml", secret("web-cert", "edge")),
            ("stray.yaml", secret("not-mine", "edge")),
        ];
        for (name, text) in files.iter().chain(more) {
            fs::write(config.join(name), text).expect("writing a file");
        }
        let mut settings = settings(dir.path());
        change(&mut settings);
        let control = ControlPlane::start(settings, Arc::default()).await.expect("it starts");
        control.mesh.until_synced().await;
        Self { control, dir }
    }

    /// The token of its administrator.
    pub(crate) fn token(&self) -> String {
        let file = self.dir.path().join("data/admin-token");
        fs::read_to_string(file).expect("a token").trim().to_owned()
    }

    pub(crate) async fn stop(self) {
        self.control.stop().await;
    }

    /// Replaces a file the way editors do.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let config = self.dir.path().join("config");
        let fresh = config.join(format!(".{name}.new"));
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, config.join(name)))
            .expect("replacing a file");
    }

    /// The directory of configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    pub(crate) fn admin_token(&self) -> String {
        fs::read_to_string(self.dir.path().join("data/admin-token"))
            .expect("the administrator's token")
            .trim()
            .to_owned()
    }

    pub(crate) async fn plaintext(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.control.addresses.xds))
            .expect("an address");
        endpoint.connect().await.expect("the port is open")
    }

    pub(crate) fn roots(&self) -> Vec<u8> {
        fs::read(self.dir.path().join("data/root-cert.pem")).expect("the file of roots")
    }

    pub(crate) fn join_token(&self, namespace: &str, account: &str) -> String {
        let id = SpiffeId::new(TrustDomain::default(), namespace, account).expect("good names");
        let (ttl, now) = (Duration::from_secs(600), std::time::SystemTime::now());
        self.control.authority.join_tokens().issue(&id, ttl, Uses::Many, now).expect("a token")
    }

    /// The state of the only connected proxy.
    pub(crate) fn only_proxy(&self) -> ProxyStatus {
        let list = self.control.proxies.list();
        assert_eq!(list.len(), 1, "{list:#?}");
        list.into_iter().next().expect("one")
    }

    /// Waits until the sidecar's state is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&ProxyStatus) -> bool) {
        self.poll(|list| find(list, SIDECAR).is_some_and(&wanted)).await;
    }

    /// Waits until so many proxies are connected.
    pub(crate) async fn until_count(&self, count: usize) {
        self.poll(|list| list.len() == count).await;
    }

    async fn poll(&self, wanted: impl Fn(&[ProxyStatus]) -> bool) {
        let reached = tokio::time::timeout(PATIENCE, async {
            while !wanted(&self.control.proxies.list()) {
                tokio::task::yield_now().await;
            }
        });
        assert!(reached.await.is_ok(), "never reached: {:#?}", self.control.proxies.list());
    }
}

pub(crate) fn settings(dir: &Path) -> Settings {
    let any = "127.0.0.1:0".parse().expect("an address");
    let config = dir.join("config");
    Settings {
        config: config.is_dir().then_some(config).into_iter().collect(),
        cluster: None,
        data_dir: dir.join("data"),
        xds_address: any,
        xds_tls_address: any,
        http_address: any,
        metrics_address: any,
        webhook_address: None,
        injection_settings: None,
        trust_domain: TrustDomain::default(),
        root_namespace: "istio-system".into(),
        proxy_grace: Duration::from_secs(60),
        api_users: None,
        log: "info".to_owned(),
        log_style: Style::Text,
        leaf_ttl: Duration::from_secs(3600),
        pod_name: "control-plane".to_owned(),
        new_root: false,
        discard_sealed_secrets: false,
        signer_ttl: None,
        take_over_roots: false,
        admin_token_file: None,
        jwks_roots: None,
        jwks_networks: vec!["127.0.0.0/8".parse().expect("a network")],
        jwks_refresh: Duration::from_secs(1),
        server_names: vec![SERVER_NAME.to_owned()],
    }
}

fn mesh() -> String {
    let pods = [
        pod("cart-0", "shop", "cart", "10.1.0.1"),
        pod("gateway-0", "edge", "gateway", "10.1.0.2"),
    ]
    .join("---\n");
    format!(
        "{pods}---
apiVersion: v1
kind: Service
metadata: {{name: cart, namespace: shop}}
spec:
  clusterIP: 10.96.0.10
  selector: {{app: cart}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: web, namespace: edge}}
spec:
  selector: {{app: gateway}}
  servers:
  - port: {{number: 443, name: https, protocol: HTTPS}}
    hosts: [shop.example.com]
    tls: {{mode: SIMPLE, credentialName: web-cert}}
"
    )
}

pub(crate) fn pod(name: &str, namespace: &str, account: &str, address: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {namespace}
  labels: {{app: {account}, security.istio.io/tlsMode: istio}}
spec:
  serviceAccountName: {account}
  containers: [{{name: app, image: app, ports: [{{containerPort: 8080}}]}}]
status:
  phase: Running
  podIP: {address}
  conditions: [{{type: Ready, status: 'True'}}]
"
    )
}

pub(crate) fn slice(addresses: &[&str]) -> String {
    let endpoints: String = addresses
        .iter()
        .map(|a| format!("- addresses: [{a}]\n  conditions: {{ready: true}}\n"))
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: cart-1
  namespace: shop
  labels: {{kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{{name: http, port: 8080, protocol: TCP}}]
endpoints:
{endpoints}"
    )
}

/// Services without endpoints.
pub(crate) fn services(number: usize) -> String {
    let one = |i| {
        format!(
            "apiVersion: v1
kind: Service
metadata: {{name: other-{i}, namespace: shop}}
spec: {{clusterIP: 10.97.{}.{}, ports: [{{name: http, port: 80}}]}}
",
            i / 200,
            i % 200 + 1
        )
    };
    (0..number).map(one).collect::<Vec<_>>().join("---\n")
}

pub(crate) fn route(seconds: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: cart-route, namespace: shop}}
spec:
  hosts: [cart]
  http: [{{timeout: {seconds}s, route: [{{destination: {{host: cart}}}}]}}]
"
    )
}

/// A Secret with a new certificate.
pub(crate) fn secret(name: &str, namespace: &str) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["shop.example.com".to_owned()])
        .expect("a certificate");
    let indent = |pem: String| pem.lines().map(|l| format!("    {l}\n")).collect::<String>();
    let (certificate, key) = (indent(made.cert.pem()), indent(made.signing_key.serialize_pem()));
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: {namespace}}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
{certificate}  tls.key: |
{key}"
    )
}
