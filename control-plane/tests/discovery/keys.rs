//! Keys of tokens: fetched before a proxy is served, rotated, and nobody's where there are none.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use ferromesh_proto::ResourceType::{Cluster, Endpoint, Listener};
use ferromesh_xds_translator::ir::KeySet;
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

use crate::{
    CART, PATIENCE,
    client::Delta,
    plane::{Plane, SIDECAR},
};

/// A server of keys, and what it answers.
async fn key_server(keys: Arc<Mutex<String>>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let body = keys.lock().expect("no panic").clone();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    address
}

fn authentication(url: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: login, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: cart}}}}
  jwtRules: [{{issuer: 'https://login.example.com', jwksUri: '{url}'}}]
"
    )
}

/// A sidecar that has got its clusters, and asks for listeners.
async fn sidecar(plane: &Plane) -> Delta {
    let mut proxy = Delta::connect(plane.plaintext().await, SIDECAR).await;
    proxy.fetch(Cluster, &[]).await;
    proxy.fetch(Endpoint, &[CART]).await;
    proxy.subscribe(Listener, &[]).await;
    proxy
}

/// Waits for a response that holds a text.
async fn until_told(proxy: &mut Delta, text: &str) {
    let told = timeout(PATIENCE, async {
        loop {
            let bytes = proxy.next_raw().await.encode_to_vec();
            if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
                return;
            }
        }
    });
    assert!(told.await.is_ok(), "never told: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_before_a_proxy_is_served_and_follow_their_rotation() {
    let set = |k: &str| format!(r#"{{"keys":[{{"k":"{k}","kty":"oct"}}]}}"#);
    let keys = Arc::new(Mutex::new(set("first")));
    let address = key_server(keys.clone()).await;
    let file = authentication(&format!("http://{address}/keys"));
    let plane = Plane::start_with(&[("login.yaml", file)]).await;
    let mut proxy = sidecar(&plane).await;
    let listeners = timeout(PATIENCE, proxy.next_raw()).await.expect("listeners").encode_to_vec();
    let first = set("first");
    assert!(listeners.windows(first.len()).any(|part| part == first.as_bytes()), "at once");
    *keys.lock().expect("no panic") = set("second");
    until_told(&mut proxy, &set("second")).await;
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_no_token_is_valid_and_that_is_said() {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = nobody.local_addr().expect("bound");
    drop(nobody);
    let file = authentication(&format!("http://{address}/keys"));
    let plane = Plane::start_with(&[("login.yaml", file)]).await;
    until_told(&mut sidecar(&plane).await, KeySet::nobodys().as_str()).await;
    let said = timeout(PATIENCE, async {
        loop {
            let all = plane.control.mesh.diagnostics().await.expect("it runs");
            if let Some(found) = all.iter().find(|d| d.message.contains("cannot be fetched")) {
                return found.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let said = said.await.expect("a finding");
    assert_eq!(said.field.to_string(), "spec.jwtRules[0]");
    assert!(said.message.contains(&address.to_string()), "{}", said.message);
    plane.stop().await;
}
