//! Mutual TLS between two proxies, the client's in front of the server's.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    fixture::*,
    peer::{Authority, Server, client, get, http2_client},
};
use crate::{
    identity::Identity,
    runtime::{
        Cluster, FilterChain, HttpFilter, Listener, Rbac, TransportProtocol,
        authz::{Condition, Policy, RbacAction},
        cluster::{MeshAlpn, Transport},
        filter_chain::FilterChainMatch,
        http::{ClientCertDetails, ForwardClientCert, ForwardClientCertMode},
        listener::{PortScope, TrafficDirection},
        matcher::StringMatcher,
        secret::{DownstreamTls, PeerValidation, SanMatcher, SecretRef, TlsVersions, UpstreamTls},
    },
};

const VERSIONS: TlsVersions = TlsVersions { tls12: true, tls13: true };

fn arcs(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn server_tls(alpn: &[&str]) -> Arc<DownstreamTls> {
    Arc::new(DownstreamTls {
        certificate: SecretRef::Workload,
        validation: Some(PeerValidation { roots: SecretRef::Workload, sans: vec![] }),
        require_client_certificate: true,
        alpn: arcs(alpn),
        versions: VERSIONS,
        suites: vec![],
    })
}

fn client_tls(account: &str, alpn: &[&str]) -> Transport {
    let id = format!("spiffe://cluster.local/ns/default/sa/{account}");
    Transport::Tls(Arc::new(UpstreamTls {
        certificate: Some(SecretRef::Workload),
        validation: Some(PeerValidation {
            roots: SecretRef::Workload,
            sans: vec![SanMatcher::Exact(id.into())],
        }),
        sni: Some("outbound_.80_._.server.default.svc.cluster.local".into()),
        sni_from_endpoint: false,
        match_server_name: false,
        alpn: arcs(alpn),
        versions: VERSIONS,
    }))
}

/// A port that takes HTTP and bytes over mutual TLS, plaintext HTTP only if `permissive`: the
/// chains of a mesh sidecar.
fn inbound(proxy: &Proxy, permissive: bool, filters: Vec<HttpFilter>) -> Listener {
    let matching = |transport, protocols: &[&str]| FilterChainMatch {
        transport: Some(transport),
        application_protocols: arcs(protocols),
        ..Default::default()
    };
    let http = || {
        let mut manager = with_routes(vec![to("app", |_| {})]);
        let details = ClientCertDetails { uri: true, ..Default::default() };
        manager.client_cert =
            ForwardClientCert { mode: ForwardClientCertMode::SanitizeSet, details };
        for filter in filters.iter().rev() {
            manager.filters.insert(0, filter.clone());
        }
        http_chain(manager)
    };
    let tls = TransportProtocol::Tls;
    let mut chains = vec![
        (
            matching(tls, &["istio-http/1.0", "istio-http/1.1", "istio-h2"]),
            FilterChain { tls: Some(server_tls(&["h2", "http/1.1"])), ..http() },
        ),
        (
            matching(tls, &["istio-peer-exchange", "istio"]),
            FilterChain {
                tls: Some(server_tls(&["istio-peer-exchange", "istio", "h2", "http/1.1"])),
                ..tcp_chain("tcp")
            },
        ),
    ];
    if permissive {
        chains.push((
            matching(TransportProtocol::RawBuffer, &["http/1.0", "http/1.1", "h2c"]),
            http(),
        ));
    }
    let mut listener = listener(proxy.address, chains);
    listener.direction = TrafficDirection::Inbound;
    listener.inspect.tls = Some(PortScope::default());
    listener.inspect.http = Some(PortScope::default());
    listener.inspect.timeout = Some(Duration::from_secs(5));
    listener
}

/// A client's proxy whose cluster `server` is reached over mutual TLS.
async fn outbound(identity: Arc<Identity>, server: &Proxy, account: &str, mesh: bool) -> Proxy {
    let mut proxy = Proxy::start(Some(identity));
    let mut cluster: Cluster = proxy.cluster("server", &[server.address]);
    cluster.connection.transport = client_tls(account, &["istio"]);
    cluster.mesh_alpn = mesh.then(|| MeshAlpn {
        h1: arcs(&["istio-http/1.1", "istio", "http/1.1"]),
        h2: arcs(&["istio-h2", "istio", "h2"]),
    });
    let mut manager = with_routes(vec![to("server", |_| {})]);
    manager.filters.insert(0, HttpFilter::MeshAlpn);
    let listener = proxy.listener(http_chain(manager));
    proxy.configure(vec![listener], vec![cluster]).await;
    proxy
}

async fn inbound_proxy(
    identity: Arc<Identity>,
    app: &Server,
    permissive: bool,
    filters: Vec<HttpFilter>,
) -> Proxy {
    let mut proxy = Proxy::start(Some(identity));
    let listener = inbound(&proxy, permissive, filters);
    let cluster = proxy.cluster("app", &[app.address]);
    proxy.configure(vec![listener], vec![cluster]).await;
    proxy
}

#[tokio::test]
async fn http_crosses_two_proxies_and_the_server_knows_the_client() {
    let authority = Authority::new();
    let app = Server::echoing().await;
    let server = inbound_proxy(authority.identity("server"), &app, false, vec![]).await;
    let through = outbound(authority.identity("client"), &server, "server", true).await;
    for client in [client(), http2_client()] {
        let answer = get(&client, through.url("/x")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let xfcc = answer
            .body
            .lines()
            .find(|line| line.starts_with("x-forwarded-client-cert"))
            .expect("the header");
        assert!(xfcc.contains("By=spiffe://cluster.local/ns/default/sa/server;Hash="), "{xfcc}");
        assert!(xfcc.ends_with("URI=spiffe://cluster.local/ns/default/sa/client"), "{xfcc}");
    }
    let metrics = server.shared.metrics.render();
    assert!(
        metrics.contains("source_principal=\"spiffe://cluster.local/ns/default/sa/client\""),
        "{metrics}"
    );
    assert!(metrics.contains("connection_security_policy=\"mutual_tls\""), "{metrics}");
    let metrics = through.shared.metrics.render();
    assert!(
        metrics.contains("destination_principal=\"spiffe://cluster.local/ns/default/sa/server\""),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_server_with_another_name_or_authority_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let app = Server::saying("ok").await;
    let server = inbound_proxy(authority.identity("server"), &app, false, vec![]).await;
    for (identity, expected) in
        [(authority.identity("client"), "impostor"), (other.identity("client"), "server")]
    {
        let through = outbound(identity, &server, expected, true).await;
        let answer = get(&client(), through.url("/")).await;
        assert_eq!(answer.status, 503);
        assert!(answer.body.contains("TLS error"), "{}", answer.body);
    }
    assert_eq!(app.hits(), 0);
}

#[tokio::test]
async fn strict_refuses_plaintext_and_permissive_takes_both() {
    let authority = Authority::new();
    let app = Server::saying("ok").await;
    let plain = |proxy: &Proxy| {
        let address = proxy.address;
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                .await
                .unwrap();
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text).await;
            text
        }
    };
    let strict = inbound_proxy(authority.identity("server"), &app, false, vec![]).await;
    assert_eq!(plain(&strict).await, "");
    let permissive = inbound_proxy(authority.identity("server"), &app, true, vec![]).await;
    assert!(plain(&permissive).await.starts_with("HTTP/1.1 200"));
    let through = outbound(authority.identity("client"), &permissive, "server", true).await;
    assert_eq!(get(&client(), through.url("/")).await.body, "ok");
}

#[tokio::test]
async fn a_connection_that_strict_would_refuse_is_refused_from_then_on() {
    let authority = Authority::new();
    let app = Server::saying("ok").await;
    let mut server = inbound_proxy(authority.identity("server"), &app, true, vec![]).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut ask = async |expected: &str| {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&head), expected);
        let mut rest = Vec::new();
        while !rest.ends_with(b"ok") && stream.read_buf(&mut rest).await.unwrap() > 0 {}
    };
    ask("HTTP/1.1 200").await;
    let listener = inbound(&server, false, vec![]);
    let cluster = server.cluster("app", &[app.address]);
    server.configure(vec![listener], vec![cluster]).await;
    ask("HTTP/1.1 503").await;
    assert_eq!(app.hits(), 1);
}

#[tokio::test]
async fn policies_see_the_client() {
    let authority = Authority::new();
    let app = Server::saying("ok").await;
    let principal = StringMatcher::Exact("spiffe://cluster.local/ns/default/sa/friend".into());
    let policy = Policy {
        name: "friends".into(),
        permission: Condition::Any,
        principal: Condition::Authenticated(Some(principal)),
    };
    let rbac = HttpFilter::Rbac(Arc::new(
        Rbac { action: RbacAction::Allow, policies: vec![policy] }.into(),
    ));
    let server = inbound_proxy(authority.identity("server"), &app, true, vec![rbac]).await;
    for (account, status) in [("friend", 200), ("stranger", 403)] {
        let through = outbound(authority.identity(account), &server, "server", true).await;
        assert_eq!(get(&client(), through.url("/")).await.status, status, "{account}");
    }
    assert_eq!(get(&client(), server.url("/")).await.status, 403, "plaintext proves nothing");
}

#[tokio::test]
async fn bytes_cross_two_proxies() {
    let authority = Authority::new();
    let app = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = app.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = app.accept().await {
            tokio::spawn(async move {
                // Speaks first, then echoes.
                stream.write_all(b"hi ").await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    let mut server = Proxy::start(Some(authority.identity("server")));
    let (listener, cluster) = (inbound(&server, false, vec![]), server.cluster("tcp", &[address]));
    server.configure(vec![listener], vec![cluster]).await;
    let mut through = Proxy::start(Some(authority.identity("client")));
    let mut cluster = through.cluster("server", &[server.address]);
    cluster.connection.transport = client_tls("server", &["istio-peer-exchange", "istio"]);
    let listener = through.listener(tcp_chain("server"));
    through.configure(vec![listener], vec![cluster]).await;
    let mut stream = TcpStream::connect(through.address).await.unwrap();
    let mut greeting = [0; 3];
    stream.read_exact(&mut greeting).await.unwrap();
    stream.write_all(&vec![b'x'; 200_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!((&greeting, rest.len()), (b"hi ", 200_000));
}

#[tokio::test]
async fn certificates_change_under_load_without_a_failed_request() {
    let authority = Authority::new();
    let app = Server::saying("ok").await;
    let server = inbound_proxy(authority.identity("server"), &app, false, vec![]).await;
    let through = outbound(authority.identity("client"), &server, "server", true).await;
    let client = client();
    let load = async {
        for _ in 0..300 {
            assert_eq!(get(&client, through.url("/")).await.status, 200);
        }
    };
    let rotation = async {
        for _ in 0..20 {
            server.identity.send_replace(Some(authority.identity("server")));
            through.identity.send_replace(Some(authority.identity("client")));
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(load, rotation);
    // A fresh connection shows the newest certificate.
    let again = outbound(authority.identity("late"), &server, "server", true).await;
    assert_eq!(get(&super::peer::client(), again.url("/")).await.status, 200);
}

#[tokio::test]
async fn without_a_certificate_nothing_is_sent_in_the_clear() {
    let authority = Authority::new();
    let app = Server::saying("ok").await;
    let server = inbound_proxy(authority.identity("server"), &app, true, vec![]).await;
    let through = outbound(authority.identity("client"), &server, "server", true).await;
    through.identity.send_replace(None);
    let answer = get(&client(), through.url("/")).await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("no certificate yet"), "{}", answer.body);
    assert_eq!(app.hits(), 0);
}

#[tokio::test]
async fn a_certificate_that_we_lack_is_not_the_endpoints_fault() {
    let server = Server::saying("ok").await;
    for tcp in [false, true] {
        let mut proxy = Proxy::start(None);
        let mut cluster = proxy.cluster("server", &[server.address]);
        cluster.connection.transport = client_tls("server", &["istio"]);
        cluster.outlier = Some(super::blame::at_once(false));
        let chain = if tcp {
            tcp_chain("server")
        } else {
            http_chain(with_routes(vec![to("server", |_| {})]))
        };
        let listener = proxy.listener(chain);
        proxy.configure(vec![listener], vec![cluster]).await;
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(
            answer.starts_with(b"HTTP/1.1 503 "),
            !tcp,
            "{}",
            String::from_utf8_lossy(&answer)
        );
        assert!(!super::blame::is_ejected(&proxy, "server"), "TCP: {tcp}");
    }
    assert_eq!(server.hits(), 0);
}
