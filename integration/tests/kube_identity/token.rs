//! Tokens of service accounts: those that the API server makes, and one that was good until an hour
//! ago.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ferromesh_integration::kube_cluster::KubeCluster;
use serde_json::Value;

/// A token of a pod's service account for the mesh.
pub(crate) fn of_pod(cluster: &KubeCluster, namespace: &str, account: &str, pod: &str) -> String {
    let bound = ["--bound-object-kind", "Pod", "--bound-object-name", pod];
    make(cluster, namespace, account, &[&["--audience", "istio-ca"], &bound[..]].concat())
}

/// A token as the options say.
pub(crate) fn make(
    cluster: &KubeCluster,
    namespace: &str,
    account: &str,
    options: &[&str],
) -> String {
    let arguments = ["create", "token", account, "--namespace", namespace, "--duration", "10m"];
    cluster.kubectl(&[&arguments[..], options].concat()).trim().to_owned()
}

/// The same token, signed by the cluster's own key, whose time is over: the API server makes none
/// for less than ten minutes.
pub(crate) fn expired(cluster: &KubeCluster, token: &str) -> String {
    let mut parts = token.split('.');
    let (header, claims) = (parts.next().expect("a header"), parts.next().expect("claims"));
    let mut claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64")).expect("JSON");
    for time in ["iat", "nbf", "exp"] {
        claims[time] = (claims[time].as_u64().expect("seconds") - 3600).into();
    }
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(sign(cluster, message.as_bytes())))
}

fn sign(cluster: &KubeCluster, message: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(["dgst", "-sha256", "-sign"]).arg(cluster.folder().join("pki/tokens.key"));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("openssl runs");
    child.stdin.take().expect("piped").write_all(message).expect("openssl reads");
    let output = child.wait_with_output().expect("openssl ends");
    assert!(output.status.success(), "openssl does not sign");
    output.stdout
}
