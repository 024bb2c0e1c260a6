//! Roots that a rule names by path and that come after it: what needs them is closed until then.

use std::{fs, process::Command};

use ferromesh_integration::{
    certificate::{self_signed, signed},
    process::{Process, until},
    workload::LIMIT,
};

use crate::beside::Pair;

/// `FILES` is where certificates are, `SERVER` the port of the server outside.
const MESH: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: late, namespace: shop}
spec:
  hosts: [late.test]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: SERVER}]
  endpoints: [{address: 127.90.61.6}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: late, namespace: shop}
spec:
  host: late.test
  trafficPolicy: {tls: {mode: SIMPLE, caCertificates: FILES/late.crt}}
";

/// The first block of loopback addresses.
const BLOCK: u8 = 61;
const SERVER: u16 = 9444;

#[test]
fn roots_that_come_later_open_what_lacked_them_and_take_the_refusal_back() {
    let folder = tempfile::tempdir().expect("a directory");
    let files = folder.path();
    let ca = self_signed(files, "ca", &["-subj", "/CN=outside"]);
    signed(files, "late", "/CN=late", &ca, "DNS:late.test");
    fs::rename(files.join("late.crt"), files.join("server.crt")).expect("it is renamed");
    let mut server = Command::new("openssl");
    server.args(["s_server", "-quiet", "-www", "-accept", &format!("127.90.{BLOCK}.6:{SERVER}")]);
    server.arg("-cert").arg(files.join("server.crt")).arg("-key").arg(files.join("late.key"));
    let _server = Process::start("server", files, server);

    let pair = Pair::start(BLOCK);
    let mesh = MESH.replace("FILES", &files.display().to_string());
    pair.write("late.yaml", &mesh.replace("SERVER", &SERVER.to_string()));
    let [_, (ours, _)] = pair.each().collect::<Vec<_>>().try_into().ok().expect("two");
    let told = || ours.plane.get("/api/v1/diagnostics").unwrap_or_default().contains("late.crt: ");
    until(LIMIT, "our proxy's refusal is told", told);
    for block in pair.blocks() {
        until(LIMIT, "nobody is called without roots", || pair.called(block, "late.test") == 503);
    }

    fs::copy(files.join("ca.crt"), files.join("late.crt")).expect("the roots come");
    for block in pair.blocks() {
        until(LIMIT, "the server outside is called", || pair.called(block, "late.test") == 200);
    }
    until(LIMIT, "the refusal is taken back", || !told());
}
