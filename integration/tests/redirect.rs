//! What `ferromesh-proxy redirect` captures and what it leaves alone, told by real connections in
//! network namespaces. Listeners say which port took a connection, and where it wanted to go
//! before.
#![cfg(feature = "e2e")]

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use ferromesh_integration::{
    namespace::{Bridge, PROXY_USER, Pod},
    paths,
    plane::ControlPlane,
    process::Process,
};
use socket2::{Domain, SockRef, Socket, Type};

const APPLICATION: u16 = 8080;
const OTHER: u16 = 8081;

/// A pod whose traffic is redirected, and two that it calls and is called by.
struct Site {
    pod: Pod,
    peer: Pod,
    third_party: Pod,
    _bridge: Bridge,
}

impl Site {
    fn new(third: u8) -> Self {
        let bridge = Bridge::new(third);
        let pod = |name, last| Pod::new(&bridge, name, last, &[]);
        let site = Self {
            pod: pod("a", 11),
            peer: pod("b", 12),
            third_party: pod("c", 13),
            _bridge: bridge,
        };
        for port in [15001, 15006, 15008, 15020, APPLICATION] {
            listen(&site.pod, port);
        }
        for port in [APPLICATION, OTHER] {
            listen(&site.peer, port);
            listen(&site.third_party, port);
        }
        site
    }
}

/// Answers every connection to a port of the pod, over IPv4 and IPv6.
fn listen(pod: &Pod, port: u16) {
    for address in ["0.0.0.0", "::"] {
        let address = SocketAddr::new(address.parse().expect("an address"), port);
        let listener = pod.inside(|| open(address));
        // Ends with the test's process.
        thread::spawn(move || {
            listener.incoming().flatten().for_each(|stream| answer(stream, port))
        });
    }
}

fn open(address: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    if address.is_ipv6() {
        socket.set_only_v6(true).expect("an option");
    }
    socket
        .bind(&address.into())
        .and_then(|()| socket.listen(16))
        .expect("the port is free in this namespace");
    socket.into()
}

fn answer(mut stream: TcpStream, port: u16) {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request);
    let text = match original(&stream) {
        Some(destination) => format!("{port} wanted {destination}"),
        None => format!("{port} directly"),
    };
    let _ = write!(stream, "HTTP/1.0 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
}

/// The destination before redirection.
fn original(stream: &TcpStream) -> Option<SocketAddr> {
    let (socket, local) = (SockRef::from(stream), stream.local_addr().ok()?);
    let asked = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    asked.ok()?.as_socket().filter(|destination| *destination != local)
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
enum Caller {
    Application,
    Proxy,
    /// A process of another user, in the proxy's group.
    ProxysGroup,
    /// The proxy, from the address with which it passes connections to its workload.
    Passthrough,
}

/// What a call from the pod meets.
fn call(pod: &Pod, caller: Caller, to: IpAddr, port: u16) -> String {
    let curl = Path::new("curl");
    let mut command = match caller {
        Caller::Application => pod.command(curl),
        Caller::Proxy | Caller::Passthrough => pod.proxy_command(curl),
        Caller::ProxysGroup => {
            let mut command = pod.command(Path::new("setpriv"));
            command.args(["--regid", &PROXY_USER.to_string(), "--clear-groups", "curl"]);
            command
        }
    };
    if let Caller::Passthrough = caller {
        command.args(["--interface", if to.is_ipv4() { "127.0.0.6" } else { "::6" }]);
    }
    let output = command
        .args(["-gsS", "-m", "30"])
        .arg(format!("http://{}/", SocketAddr::new(to, port)))
        .output();
    let output = output.expect("ip starts");
    assert!(
        output.status.success(),
        "{caller:?} to {to}:{port}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn check(pod: &Pod, caller: Caller, to: IpAddr, port: u16, expected: &str) {
    assert_eq!(call(pod, caller, to, port), expected, "{caller:?} of {} to {to}:{port}", pod.name);
}

fn addresses(pod: &Pod) -> [IpAddr; 2] {
    [pod.address.into(), pod.address6.into()]
}

#[test]
fn a_pod_s_traffic_goes_through_its_proxy_and_nothing_else_does() {
    let site = Site::new(41);
    site.pod.redirect(&[]);
    let (pod, peer) = (&site.pod, &site.peer);
    for (own, foreign) in addresses(pod).into_iter().zip(addresses(peer)) {
        let captured = |port, to| format!("{port} wanted {}", SocketAddr::new(to, APPLICATION));
        let loopback = if own.is_ipv4() { "127.0.0.1" } else { "::1" }.parse().expect("an address");
        // On the way out.
        check(pod, Caller::Application, foreign, APPLICATION, &captured(15001, foreign));
        check(pod, Caller::Proxy, foreign, APPLICATION, "8080 directly");
        check(pod, Caller::ProxysGroup, foreign, APPLICATION, "8080 directly");
        // On the way in.
        check(peer, Caller::Application, own, APPLICATION, &captured(15006, own));
        check(peer, Caller::Application, own, 15008, "15008 directly");
        check(peer, Caller::Application, own, 15020, "15020 directly");
        // To itself.
        check(pod, Caller::Application, own, APPLICATION, "8080 directly");
        check(pod, Caller::Application, loopback, APPLICATION, "8080 directly");
        check(pod, Caller::Proxy, loopback, APPLICATION, "8080 directly");
        check(pod, Caller::Proxy, own, APPLICATION, &captured(15006, own));
        check(pod, Caller::Passthrough, own, APPLICATION, "8080 directly");
    }
}

#[test]
fn datagrams_are_left_alone() {
    let site = Site::new(42);
    site.pod.redirect(&[]);
    let to = SocketAddr::new(site.peer.address.into(), 53);
    let server = site.peer.inside(|| UdpSocket::bind(to)).expect("the port is free");
    let client = site.pod.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    client.send_to(b"question", to).expect("a route");
    server.set_read_timeout(Some(Duration::from_secs(30))).expect("an option");
    let mut datagram = [0; 16];
    let (length, _) =
        server.recv_from(&mut datagram).expect("the datagram arrives where it was sent");
    assert_eq!(&datagram[..length], b"question");
}

#[test]
fn a_second_run_replaces_the_first() {
    let site = Site::new(43);
    let (pod, peer, third) = (&site.pod, &site.peer, &site.third_party);
    let check_v4 = |to: &Pod, port, expected: &str| {
        check(pod, Caller::Application, to.address.into(), port, expected)
    };
    let (of_peer, of_third) =
        (format!("wanted {}", peer.address), format!("wanted {}", third.address));

    pod.redirect(&[]);
    pod.redirect(&[
        "--exclude-outbound-ports",
        "8081",
        "--exclude-outbound-cidrs",
        &third.address.to_string(),
    ]);
    check_v4(peer, APPLICATION, &format!("15001 {of_peer}:8080"));
    check_v4(peer, OTHER, "8081 directly");
    check_v4(third, APPLICATION, "8080 directly");

    let only = format!("{}/32,fd00::/8", third.address);
    pod.redirect(&[
        "--include-outbound-cidrs",
        &only,
        "--include-outbound-ports",
        "8081",
        "--exclude-inbound-ports",
        "8080",
    ]);
    check_v4(peer, APPLICATION, "8080 directly");
    check_v4(peer, OTHER, &format!("15001 {of_peer}:8081"));
    check_v4(third, APPLICATION, &format!("15001 {of_third}:8080"));
    check(peer, Caller::Application, pod.address.into(), APPLICATION, "8080 directly");

    pod.redirect(&["--include-inbound-ports", "", "--include-outbound-cidrs", ""]);
    check_v4(peer, APPLICATION, "8080 directly");
    check(peer, Caller::Application, pod.address.into(), APPLICATION, "8080 directly");
}

#[test]
fn the_kernel_holds_what_is_printed() {
    let site = Site::new(44);
    let flags = [
        "--exclude-outbound-cidrs",
        "10.0.0.0/8,fd00::/8,192.0.2.1",
        "--exclude-outbound-ports",
        "5432",
    ];
    site.pod.redirect(&flags);
    let nft = |arguments: &[&str]| {
        let output = site.pod.exec(Path::new("nft"), arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let held = nft(&["list", "ruleset"]);
    let script = site
        .pod
        .exec(&paths::program("ferromesh-proxy"), &[&["redirect", "--print"], &flags[..]].concat());
    // What is printed can be loaded, and makes no difference.
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &script.stdout).expect("a file of ours");
    nft(&["-f", file.path().to_str().expect("a path of ours is text")]);
    assert_eq!(nft(&["list", "ruleset"]), held);
    let printed = String::from_utf8_lossy(&script.stdout).into_owned();
    for line in held.lines().filter(|line| line.starts_with("\t\t") && !line.contains("type nat")) {
        assert!(
            printed.contains(line.trim()),
            "the kernel holds {line:?}, printed was:\n{printed}"
        );
    }
}

/// A proxy that runs as a user whose traffic is redirected: whatever it sends comes back to it.
fn captured_proxy(pod: &Pod, control: &ControlPlane, control_plane: &str) -> Process {
    let (token, work) = (control.file("token"), control.file("work"));
    std::fs::write(&token, control.join_token("default", "captured")).expect("a token file");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    std::fs::create_dir(&work).expect("a directory");
    let mut command = pod.command(&paths::program("ferromesh-proxy"));
    command.args(["run", "--control-plane", control_plane, "--token-file", &token]);
    command.args(["--root-cert", &control.file("data/root-cert.pem"), "--work-dir", &work]);
    command.args(["--namespace", "default", "--service-account", "captured"]);
    command.args(["--name", "captured", "--ip", &pod.address.to_string()]);
    command.args(["--concurrency", "1", "--drain-time", "1s"]);
    let mut proxy = Process::start("captured", control.folder(), command);
    let probe = ["-sf", "-m", "10", "http://127.0.0.1:15021/healthz/ready"];
    proxy.until("ready", || pod.exec(Path::new("curl"), &probe).status.success());
    proxy
}

#[test]
fn a_proxy_that_is_captured_itself_ends_what_would_come_back_for_ever() {
    const CALLS: u32 = 3;
    let site = Site::new(46);
    let (pod, to) = (&site.third_party, site.peer.address);
    let control = ControlPlane::new("127.77.46.1").listening("xds-tls", "10.77.46.1:15012");
    let _control_plane = control.start();
    pod.redirect(&["--exclude-outbound-cidrs", "10.77.46.1/32"]);
    let proxy = captured_proxy(pod, &control, "10.77.46.1:15012");
    for _ in 0..CALLS {
        let url = format!("http://{to}:{APPLICATION}/");
        let answer = pod.exec(Path::new("curl"), &["-s", "-m", "30", &url]);
        let text = String::from_utf8_lossy(&answer.stdout);
        assert_ne!(answer.status.code(), Some(28), "nobody waits: {}", proxy.output());
        assert!(!text.contains("directly"), "its own connections are captured: {text}");
    }
    let stats = pod.exec(Path::new("curl"), &["-s", "http://127.0.0.1:15000/stats/prometheus"]);
    let stats = String::from_utf8_lossy(&stats.stdout).into_owned();
    let counted = |line: &str| {
        let value = line.strip_prefix("ferromesh_own_connections_captured_total{")?;
        value.rsplit(' ').next()?.parse::<u32>().ok()
    };
    let captured: u32 = stats.lines().filter_map(counted).sum();
    // A call may be tried a few times; one that came back would be counted without end.
    assert!((CALLS..=10 * CALLS).contains(&captured), "{captured} captured: {}", proxy.output());
    assert!(proxy.output().contains("interception captures this proxy's own connections"));
}

#[test]
fn who_may_not_is_told_what_is_missing() {
    let site = Site::new(45);
    let output =
        site.pod.proxy_command(&paths::program("ferromesh-proxy")).arg("redirect").output();
    let output = output.expect("ip starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("NET_ADMIN"), "{text}");
    let rules = Command::new("ip")
        .args(["netns", "exec", &site.pod.name, "nft", "list", "ruleset"])
        .output();
    assert_eq!(String::from_utf8_lossy(&rules.expect("ip starts").stdout), "");
}
