//! The cases: what each serves, and what must come of requests.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::Duration,
};

use ferromesh_integration::{
    certificate::{self, self_signed},
    paths,
};

use crate::mesh::{BYTES, Mesh, is_mutual};

/// The objects of a case.
pub(crate) fn input(number: &str) -> String {
    let folder = paths::project().join("integration/corpus/reported");
    let mut files = fs::read_dir(folder).expect("the corpus").flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(number))
    };
    let file = files.find(named).unwrap_or_else(|| panic!("no case {number}"));
    fs::read_to_string(file).expect("a text")
}

const WEB: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
";

pub(crate) fn a_long_url_stays_in_the_mesh(mesh: &Mesh) {
    let text = input("01");
    // The pod is always there.
    let documents: Vec<&str> = text.split("---\n").filter(|d| !d.contains("kind: Pod")).collect();
    let text = documents.join("---\n");
    let (without, _) = text.rsplit_once("---\n").expect("the rule comes last");
    let url = |length: usize| {
        format!("http://kf-0.kf.shop.svc.cluster.local:8080/?q={}", "b".repeat(length))
    };
    mesh.serve(&text);
    mesh.until("418", || mesh.call(&[&url(100)]), |(status, _)| *status == 418);
    for length in [9_000, 50_000] {
        let (status, text) = mesh.call(&[&url(length)]);
        assert_eq!(status, 418, "{length}: {text}");
    }
    mesh.serve(without);
    mesh.until("200 over mutual TLS", || mesh.call(&[&url(100)]), is_mutual);
    for length in [9_000, 50_000] {
        let answer = mesh.call(&[&url(length)]);
        assert!(is_mutual(&answer), "{length}: {} {}", answer.0, answer.1.len());
    }
}

/// Certificates that an authority signed, as files for everybody.
fn signed(mesh: &Mesh, authority: &(PathBuf, PathBuf), name: &str, dns: &str) -> [String; 2] {
    let text = |path: &PathBuf| path.to_str().expect("a path of ours is text").to_owned();
    let (folder, names) = (mesh.control.folder(), format!("DNS:{dns}"));
    let (certificate, key) =
        certificate::signed(folder, name, &format!("/CN={name}"), authority, &names);
    [text(&certificate), text(&key)]
}

fn authority(mesh: &Mesh) -> (PathBuf, PathBuf) {
    let made = self_signed(mesh.control.folder(), "authority", &["-subj", "/CN=authority"]);
    fs::set_permissions(&made.0, fs::Permissions::from_mode(0o644)).expect("a mode");
    made
}

pub(crate) fn a_server_outside_is_told_and_proves_its_name(mesh: &Mesh) {
    let authority = authority(mesh);
    let [right, right_key] = signed(mesh, &authority, "partner", "api.partner.test");
    let [other, other_key] = signed(mesh, &authority, "other", "other.partner.test");
    let serve =
        ["s_server", "-accept", "443", "-www", "-quiet", "-cert", &other, "-key", &other_key];
    // The right certificate is for those who say the name.
    let told = ["-servername", "api.partner.test", "-cert2", &right, "-key2", &right_key];
    let told = [&serve[..], &told].concat();
    let server = mesh.outside("partner", "openssl", &told);
    mesh.serve(&input("02").replace("/certs/ca.pem", &authority.0.display().to_string()));
    let call = || mesh.call(&["http://api.partner.test/"]);
    mesh.until("200 from who was told the name", call, |(status, _)| *status == 200);
    drop(server);
    let _server = mesh.outside("other", "openssl", &serve);
    mesh.until(
        "the other server is there",
        || mesh.ask(&mesh.outsider, &["-k", "https://127.0.0.1/"]),
        |(s, _)| *s == 200,
    );
    for _ in 0..5 {
        assert_eq!(call().0, 503, "a certificate for another name");
    }
}

pub(crate) fn who_has_no_cookie_gets_one_and_comes_back_with_it(mesh: &Mesh) {
    mesh.serve(&input("03"));
    let call = || mesh.call(&["http://web/"]);
    let is_given = |text: &str| {
        let text = text.to_ascii_lowercase();
        let line = text.lines().find(|line| line.starts_with("set-cookie: sid="));
        line.is_some_and(|line| line.contains("max-age=60") && line.contains("httponly"))
    };
    mesh.until("a cookie", call, |(status, text)| *status == 200 && is_given(text));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..12 {
        let (_, text) = call();
        let cookie = text.lines().find_map(|l| l.split_once("sid=\"")?.1.split_once('"'));
        let cookie = format!("cookie: sid=\"{}\"", cookie.expect("a cookie").0);
        let application = |text: &str| {
            text.lines()
                .find(|line| line.starts_with("application "))
                .unwrap_or_default()
                .to_owned()
        };
        let first = application(&text);
        for _ in 0..4 {
            let (status, text) = mesh.call(&["-H", &cookie, "http://web/"]);
            assert_eq!((status, application(&text)), (200, first.clone()), "{text}");
            assert!(!is_given(&text), "who has one gets no other");
        }
        seen.insert(first);
    }
    assert_eq!(seen.len(), 2, "both are asked: {seen:?}");
}

pub(crate) fn two_entries_of_one_host_are_one_service(mesh: &Mesh) {
    let authority = authority(mesh);
    let [certificate, key] = signed(mesh, &authority, "multi", "multi.far.test");
    let serve =
        ["s_server", "-accept", "443", "-www", "-quiet", "-cert", &certificate, "-key", &key];
    let _server = mesh.outside("multi", "openssl", &serve);
    mesh.serve(&input("04").replace("9.9.9.1", "10.77.0.16"));
    let call = |url: &str| mesh.call(&["-k", url]);
    mesh.until("HTTP", || call("http://multi.far.test/"), |(status, _)| *status == 200);
    mesh.until("TLS", || call("https://multi.far.test/"), |(status, _)| *status == 200);
    assert_ne!(call("http://multi.far.test:81/").0, 200, "no entry has this port");
}

pub(crate) fn a_websocket_crosses_http2(mesh: &Mesh) {
    mesh.serve(&input("05"));
    let shake = || {
        let mut stream = mesh.client.inside(|| TcpStream::connect("10.96.0.1:80")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let head =
            "GET /chat HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            answer.push(byte[0]);
        }
        Some((stream, String::from_utf8_lossy(&answer).into_owned()))
    };
    let mut open = None;
    ferromesh_integration::process::until(
        Duration::from_secs(40),
        "an upgrade over HTTP/2",
        || {
            open = shake().filter(|(_, text)| text.starts_with("HTTP/1.1 101"));
            open.is_some()
        },
    );
    let (mut stream, _) = open.expect("it was waited for");
    stream.write_all(b"hello").expect("bytes go out");
    let mut back = [0; 5];
    stream.read_exact(&mut back).expect("bytes come back");
    assert_eq!(&back, b"hello");
}

pub(crate) fn the_application_learns_the_clients_certificate(mesh: &Mesh) {
    let authority = authority(mesh);
    let [chain, key] = signed(mesh, &authority, "one", "one.shop.test");
    let [own, own_key] = signed(mesh, &authority, "caller", "caller.test");
    let pem = |path: &str| fs::read_to_string(path).expect("PEM");
    let secret = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "one-cert", "namespace": "istio-system"},
        "stringData": {"tls.crt": pem(&chain), "tls.key": pem(&key),
            "ca.crt": fs::read_to_string(&authority.0).expect("PEM")},
    });
    let route = "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: one, namespace: shop}
spec: {hosts: [one.shop.test], gateways: [one], http: [{route: [{destination: {host: web}}]}]}
";
    mesh.serve(&format!("{}{WEB}{route}---\n{secret}\n", input("07")));
    let place = format!("one.shop.test:443:{}", mesh.edge.address);
    let call = |with: &[&str]| {
        let url = ["-k", "--resolve", &place, "https://one.shop.test/"];
        mesh.ask(&mesh.outsider, &[&url[..], with].concat())
    };
    let shown = ["--cert", &own, "--key", &own_key];
    mesh.until("a client with a certificate", || call(&shown), |(status, _)| *status == 200);
    assert_eq!(call(&[]).0, 0, "a client without one");
    let (_, text) = call(&shown);
    let line =
        text.lines().find(|line| line.to_ascii_lowercase().starts_with("x-forwarded-client-cert:"));
    let line = line.unwrap_or_else(|| panic!("no header in {text}"));
    let (_, value) = line.split_once(": ").expect("a header");
    let first = value.split(',').next().unwrap_or_default();
    for part in ["Hash=", "Cert=\"-----BEGIN", "Subject=\"CN=caller\"", "DNS=caller.test"] {
        assert!(first.contains(part), "no {part} in {first}");
    }
    // Whose the gateway's certificate is, it does not say; nor does the caller's have a URI.
    assert!(!first.contains("By="), "{first}");
    assert!(first.split(';').all(|part| !part.starts_with("URI=") || part == "URI="), "{first}");
}

pub(crate) fn a_rule_continues_elsewhere(mesh: &Mesh) {
    let text = input("10").replace(
        "spec: {clusterIP: 10.1.0.1, ports: [{name: http, port: 80}]}",
        "spec: {clusterIP: 10.1.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}",
    );
    assert!(text.contains("selector: {app: web}"));
    mesh.serve(&text);
    let call = |path: &str, header: &str| {
        let url = format!("http://{}{path}", mesh.edge.address);
        mesh.ask(&mesh.outsider, &["-H", "host: shop.far.test", "-H", header, &url])
    };
    let is_v2 = |text: &str| text.to_ascii_lowercase().contains("x-c: v2");
    mesh.until(
        "the child's first rule",
        || call("/cart/v2/x", "x-b: 2"),
        |(status, text)| *status == 200 && is_v2(text),
    );
    let (status, text) = call("/cart/other", "x-a: 1");
    assert!(status == 200 && !is_v2(&text), "{text}");
    for (path, header) in [("/cart/v2", "x-a: 2"), ("/other", "x-a: 1")] {
        assert_eq!(call(path, header).0, 404, "{path} {header}");
    }
}

pub(crate) fn a_balancer_is_believed(mesh: &Mesh) {
    let text = input("11");
    let (_, settings) = text.split_once("spec:\n").expect("settings");
    let objects = format!("{WEB}---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: g, namespace: istio-system}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ['*'], tls: {{httpsRedirect: true}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: shop, namespace: shop}}
spec: {{hosts: [shop.test], gateways: [istio-system/g], http: [{{route: [{{destination: {{host: web}}}}]}}]}}
");
    mesh.serve(&objects);
    let url = format!("http://{}/", mesh.edge.address);
    let call = |forwarded: &[&str]| {
        let more = forwarded.iter().flat_map(|header| ["-H", *header]);
        let arguments: Vec<&str> =
            ["-H", "host: shop.test", &url].into_iter().chain(more).collect();
        mesh.ask(&mesh.outsider, &arguments)
    };
    let secure = ["x-forwarded-proto: https", "x-forwarded-for: 192.0.2.7"];
    mesh.until("a redirect for everybody", || call(&secure), |(status, _)| *status == 301);
    mesh.settings(settings);
    mesh.until("what the balancer says", || call(&secure), |(status, _)| *status == 200);
    assert_eq!(call(&[]).0, 301, "without the balancer's word");
    mesh.settings("");
}

pub(crate) fn a_sidecar_of_the_root_means_each_namespace(mesh: &Mesh) {
    let far = "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: far, namespace: bank}
spec:
  hosts: [far.bank.test]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.77.0.16}]
";
    mesh.serve(&format!("{WEB}{far}"));
    let call = || mesh.call(&["http://far.bank.test/"]);
    mesh.until("everybody's services", call, |(status, _)| *status == 200);
    mesh.serve(&format!("{WEB}{far}---\n{}", input("12")));
    mesh.until("nobody else's services", call, |(status, _)| *status == 502);
    mesh.until("its own services", || mesh.call(&["http://web/"]), is_mutual);
}

pub(crate) fn an_alias_without_ports_is_what_it_names(mesh: &Mesh) {
    let named = "---
apiVersion: v1
kind: Service
metadata: {name: httpbin, namespace: foo}
spec: {clusterIP: 10.96.0.3, selector: {app: web}, ports: [{name: http, port: 8000, targetPort: 8080}]}
";
    // Who asks and who is named are both of this namespace.
    let here = |text: &str| text.replace("foo", "shop").replace("default", "shop");
    mesh.serve(&here(&format!("{}{named}", input("13"))));
    mesh.until("what the alias names", || mesh.call(&["http://alias:8000/"]), is_mutual);
}

pub(crate) fn an_entry_of_a_workload_is_its_own_service(mesh: &Mesh) {
    mesh.serve(&input("14").replace("10.245.0.27", "10.77.0.12").replace("foo", "shop"));
    mesh.until(
        "a cluster of its own",
        || (200, mesh.sent("kf-0")),
        |(_, sent)| sent.contains(&format!("inbound|{BYTES}||")),
    );
    let address = (mesh.address("kf-0"), BYTES);
    let exchange = || {
        let mut stream = mesh.client.inside(|| TcpStream::connect(address)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
        stream.write_all(b"again").ok()?;
        let mut back = [0; 10];
        stream.read_exact(&mut back).ok()?;
        (&back == b"helloagain").then_some(())
    };
    mesh.until(
        "bytes",
        || (u16::from(exchange().is_some()), String::new()),
        |(done, _)| *done == 1,
    );
}
