//! What a gateway serves to those outside.

use std::process::Command;

use crate::{
    client::Ask,
    routing::{MYAPP, myapp},
    rows::example,
    site::{Setup, Site},
};

/// The gateway's port for HTTP, which its Service's port 80 leads to.
const HTTP: u16 = 8080;
/// The gateway's port for TLS.
const HTTPS: u16 = 8443;

fn http(site: &Site, host: &str, path: &str) -> Ask {
    Ask::get((site.block.gateway(), HTTP).into(), host, path)
}

pub(crate) async fn a_gateway_without_routes_answers_that_there_are_none() {
    let written = example("s0-03", &[]);
    let start = |text: &str| Setup::of(text).server("default", "reviews").gateway().start();
    let site = start(&written).await;
    for host in ["reviews", "reviews.default.svc.cluster.local", "other.test"] {
        assert_eq!(http(&site, host, "/").status().await, Some(404), "{host}");
    }
    drop(site);
    let bound = written
        .replace("  hosts:\n  - reviews\n", "  gateways: [bookinfo-gateway]\n  hosts: ['*']\n");
    assert_ne!(bound, written);
    let site = start(&bound).await;
    assert_eq!(http(&site, "other.test", "/").status().await, Some(200));
    http(&site, "other.test", "/").only("v1").await;
}

/// What comes of a request over TLS for a name: the status, the location of the answer's body, and
/// the name of the certificate; `None`: no answer.
fn https(site: &Site, name: &str, path: &str) -> Option<(String, String)> {
    let output = Command::new("curl")
        .args(["-skv", "-m", "10", "-w", "%{http_code}", "-o", "/dev/null", "--resolve"])
        .arg(format!("{name}:{HTTPS}:{}", site.block.gateway()))
        .arg(format!("https://{name}:{HTTPS}{path}"))
        .output()
        .expect("curl runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then(|| (String::from_utf8_lossy(&output.stdout).into_owned(), said))
}

pub(crate) async fn a_gateway_serves_by_certificate_and_sends_there() {
    const NAME: &str = "myapp.example.com";
    let bound = example("s4-03", &[]) + &example("s4-01", &[]) + &example("s4-02", &[]);
    let site = myapp(bound).gateway().start().await;
    let reply = http(&site, NAME, "/p").send().await;
    assert_eq!((reply.status, &*reply.location), (Some(301), "https://myapp.example.com/p"));
    assert_eq!(http(&site, "other.example.com", "/p").status().await, Some(404));
    let (status, said) = https(&site, NAME, "/p").expect("an answer");
    assert_eq!(status, "200", "{said}");
    assert!(said.contains("CN=myapp") || said.contains("CN = myapp"), "{said}");
    assert_eq!(https(&site, "other.example.com", "/p"), None);
    // The same rules as in the mesh.
    let hits = |version: &str| site.version(version).iter().map(|a| a.hits()).sum::<usize>();
    let before = (hits("v1"), hits("v2"));
    for _ in 0..5 {
        https(&site, NAME, "/other").expect("an answer");
    }
    assert_eq!((hits("v1"), hits("v2")), (before.0 + 5, before.1));
    crate::routing::ask(&site, "frontend", MYAPP, "/").only("v1").await;
    drop(site);
    let site =
        Setup::of(example("s4-03", &[])).server("production", "myapp").gateway().start().await;
    assert_eq!(https(&site, NAME, "/p").expect("an answer").0, "404");
}
