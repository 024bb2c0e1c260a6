//! The proxies as they are shipped: run from the file systems of their images, which hold nothing
//! of this machine. What names a file in a proxy, or has it look for one, is tested here. Needs
//! root and the images of `integration/images.sh`.
#![cfg(feature = "kube")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ferromesh_integration::{
    certificate, mesh,
    plane::ControlPlane,
    process::{Process, until},
};
use serde_json::Value;

/// Where Debian keeps the roots of the public PKI, and our images do.
const ROOTS: &str = "etc/ssl/certs/ca-certificates.crt";
const HOST: &str = "api.partner.test";

#[test]
fn our_proxy_checks_servers_outside_by_the_roots_that_it_is_shipped_with() {
    check(1, "proxy", "run");
}

#[test]
fn the_shipped_envoy_checks_servers_outside_by_the_roots_that_it_is_shipped_with() {
    check(2, "envoy", "envoy");
}

/// A mesh on loopback: one client, and a server outside that only some know.
struct Site {
    control: ControlPlane,
    third: u8,
}

fn check(third: u8, image: &str, command: &str) {
    let site = Site { control: ControlPlane::new(format!("127.78.{third}.1")), third };
    let root = site.unpack(image);
    let shipped = fs::read_to_string(root.join(ROOTS)).expect("the image has roots");
    assert!(
        shipped.matches("BEGIN CERTIFICATE").count() > 100,
        "{ROOTS} of the image {image} is no bundle"
    );
    let known = site.authority();
    let _server = site.server(&known);
    let _control_plane = site.control_plane();

    let proxy = site.proxy(&root, command);
    // Nobody has told the proxy of this authority: the server is refused, and it is not asked in
    // plaintext. Envoy does not say why; ours must not say that it has refused the cluster.
    until(Duration::from_secs(30), "the server refused", || site.ask().0 == "503");
    let (_, body) = site.ask();
    assert!(!body.contains("closed until"), "{body}\n{}", proxy.output());
    drop(proxy);

    let mut bundle =
        fs::OpenOptions::new().append(true).open(root.join(ROOTS)).expect("a file of ours");
    bundle.write_all(&fs::read(&known.0).expect("a certificate")).expect("a file of ours");
    let _proxy = site.proxy(&root, command);
    until(Duration::from_secs(30), "the server accepted", || site.ask().0 == "200");
}

impl Site {
    fn address(&self, last: u8, port: u16) -> String {
        format!("127.78.{}.{last}:{port}", self.third)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.control.path(name)
    }

    /// The image's files, as a container would see them.
    fn unpack(&self, image: &str) -> PathBuf {
        let (archive, root) = (self.path("archive"), self.path("root"));
        for folder in [&archive, &root] {
            fs::create_dir(folder).expect("a folder");
        }
        untar(&mesh::archive(image), &archive);
        let manifest = fs::read(archive.join("manifest.json")).expect("an archive of docker save");
        let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
        for layer in manifest[0]["Layers"].as_array().expect("layers") {
            untar(&archive.join(layer.as_str().expect("a name")), &root);
        }
        root
    }

    /// An authority that this test has made: certificate and key.
    fn authority(&self) -> (PathBuf, PathBuf) {
        certificate::self_signed(self.control.folder(), "known", &["-subj", "/CN=known to some"])
    }

    fn server(&self, authority: &(PathBuf, PathBuf)) -> Process {
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let name = format!("subjectAltName=DNS:{HOST}");
        let (root, root_key) = (text(&authority.0), text(&authority.1));
        let about = ["-subj", "/CN=partner", "-CA", &root, "-CAkey", &root_key, "-addext", &name];
        let about: Vec<&str> =
            about.into_iter().chain(["-addext", "basicConstraints=critical,CA:FALSE"]).collect();
        let (certificate, key) = certificate::self_signed(self.control.folder(), "partner", &about);
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-www", "-accept", &self.address(9, 8443)]);
        command.arg("-cert").arg(certificate).arg("-key").arg(key);
        Process::start("partner", self.control.folder(), command)
    }

    fn control_plane(&self) -> Process {
        let text =
            include_str!("outside.yaml").replace("127.78.0.", &format!("127.78.{}.", self.third));
        self.control.write("mesh.yaml", text);
        self.control.start()
    }

    /// Starts the image's program in the image's files, with this machine's devices only.
    fn proxy(&self, root: &Path, kind: &str) -> Process {
        for folder in ["state", "dev", "proc"] {
            fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        fs::copy(self.path("data/root-cert.pem"), root.join("state/root.pem"))
            .expect("the root is published");
        fs::write(root.join("state/token"), self.control.join_token("shop", "client"))
            .expect("a token");
        let mut arguments = format!(
            "--control-plane {} --root-cert /state/root.pem --token-file /state/token --work-dir /state \
             --namespace shop --service-account client --name client --ip {} --interception none --concurrency 1 \
             --drain-time 1s",
            self.address(1, 15012),
            self.address(2, 0).trim_end_matches(":0"),
        );
        for (name, last) in [("app", 2), ("inbound", 3), ("outbound", 4)] {
            arguments +=
                &format!(" --{name}-address {}", self.address(last, 0).trim_end_matches(":0"));
        }
        for (name, port) in [("admin", 15000), ("status", 15021), ("metrics", 15090)] {
            arguments += &format!(" --{name}-address {}", self.address(2, port));
        }
        // Mounts that end with the program: nothing is left on this machine.
        let script = format!(
            "mount --rbind /dev {root}/dev && mount -t proc proc {root}/proc && \
             exec chroot {root} /ferromesh-proxy {kind} {arguments}",
            root = root.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "bash", "-c", &script]);
        if kind == "envoy" {
            // As the image's own environment says.
            command.env("FERROMESH_ENVOY_PATH", "/envoy");
        }
        let mut process = Process::start(&format!("{kind}-proxy"), self.control.folder(), command);
        let ready = format!("http://{}/healthz/ready", self.address(2, 15021));
        process.until("ready", || curl(&["-f", &ready]).is_some());
        process
    }

    /// Status and body of a request to the server outside, through the proxy; no status if there is
    /// no answer.
    fn ask(&self) -> (String, String) {
        let (host, url) = (format!("host: {HOST}"), format!("http://{}/", self.address(4, 80)));
        let text = curl(&["-H", &host, "-w", "\n%{http_code}", &url]).unwrap_or_default();
        let (body, status) = text.rsplit_once('\n').unwrap_or_default();
        (status.to_owned(), body.to_owned())
    }
}

fn untar(archive: &Path, folder: &Path) {
    let done = Command::new("tar")
        .arg("-xf")
        .arg(archive)
        .arg("-C")
        .arg(folder)
        .status()
        .expect("tar runs");
    assert!(done.success(), "{} cannot be unpacked", archive.display());
}

fn curl(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("curl").args(["-s", "-m", "3"]).args(arguments).output().expect("curl runs");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
