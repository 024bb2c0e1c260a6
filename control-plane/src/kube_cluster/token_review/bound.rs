//! What a token says of itself, what the API server says of it, and whether the pod is the one:
//! pure decisions.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::api::{authentication::v1::TokenReviewStatus, core::v1::Pod};
use serde::Deserialize;

/// The audience that a token must be made for: Istio's, which its injected pods ask for too.
pub(super) const AUDIENCE: &str = "istio-ca";
const USER: &str = "system:serviceaccount:";
const GROUP: &str = "system:serviceaccounts";
// Claims of bound tokens (Kubernetes KEP-1205 and KEP-4193).
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const TOKEN_ID: &str = "authentication.kubernetes.io/credential-id";
/// What is repeated of a token's or a server's words.
const LONGEST_QUOTE: usize = 512;

/// What a token says of itself: proves nothing, tells the audit log who was refused, and bounds how
/// long an acceptance is remembered.
#[derive(Deserialize)]
pub(super) struct Claimed {
    #[serde(default)]
    sub: String,
    #[serde(default)]
    exp: u64,
}

impl Claimed {
    pub(super) fn read(token: &str) -> Result<Self, &'static str> {
        let mut parts = token.split('.');
        let (Some(_), Some(claims), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("not a JWT");
        };
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| "its claims are not base64")?;
        serde_json::from_slice(&claims).map_err(|_| "its claims are not JSON of the expected form")
    }

    /// When it ends; long ago if it does not say.
    pub(super) fn expiry(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(self.exp))
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl fmt::Display for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Quoted: whoever made the token chose these words.
        write!(f, "{:?}", quote(&self.sub))
    }
}

fn quote(text: &str) -> String {
    text.chars().take(LONGEST_QUOTE).collect()
}

/// Whom a good token was made for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Bound {
    pub(super) namespace: String,
    pub(super) service_account: String,
    pub(super) pod: String,
    pod_uid: String,
    node: Option<String>,
    id: Option<String>,
}

impl Bound {
    /// Reads the API server's verdict.
    pub(super) fn read(status: &TokenReviewStatus) -> Result<Self, String> {
        if status.authenticated != Some(true) {
            let why = status.error.as_deref().map_or_else(|| "no reason given".to_owned(), quote);
            return Err(format!("the API server does not accept it: {why}"));
        }
        let user = status.user.clone().unwrap_or_default();
        let name = user.username.as_deref().unwrap_or_default();
        let (namespace, service_account) = name
            .strip_prefix(USER)
            .and_then(|rest| rest.split_once(':'))
            .filter(|(namespace, account)| {
                !namespace.is_empty() && !account.is_empty() && !account.contains(':')
            })
            .ok_or_else(|| format!("it is of {name:?}: expected a service account"))?;
        // A server that knows nothing of audiences accepts every token and names none.
        if !status.audiences.iter().flatten().any(|a| a == AUDIENCE) {
            return Err(format!(
                "it is of {name}, for audiences {:?}: expected {AUDIENCE}",
                status.audiences
            ));
        }
        if !user.groups.iter().flatten().any(|g| g == GROUP) {
            return Err(format!("it is of {name}, who is not in group {GROUP}"));
        }
        let extra = user.extra.unwrap_or_default();
        let one = |key: &str| match extra.get(key).map(Vec::as_slice) {
            Some([only]) if !only.is_empty() => Some(only.clone()),
            _ => None,
        };
        let (Some(pod), Some(pod_uid)) = (one(POD_NAME), one(POD_UID)) else {
            return Err(format!(
                "it is of {name} and bound to no pod: expected a projected token of a pod"
            ));
        };
        let (namespace, service_account) = (namespace.to_owned(), service_account.to_owned());
        Ok(Self {
            namespace,
            service_account,
            pod,
            pod_uid,
            node: one(NODE_NAME),
            id: one(TOKEN_ID),
        })
    }

    /// The account as Kubernetes writes it.
    pub(super) fn user(&self) -> String {
        format!("{USER}{}:{}", self.namespace, self.service_account)
    }

    /// For the audit log: the token's id, and its pod.
    pub(super) fn token_id(&self) -> String {
        format!(
            "{} of pod {}/{}",
            self.id.as_deref().unwrap_or("without id"),
            self.namespace,
            self.pod
        )
    }

    /// Whether `pod`, the one of that name, is the token's.
    ///
    /// The node's own UID is not looked at: a pod never moves, so its UID pins its node. A pod that
    /// is being deleted still drains, and may.
    pub(super) fn check(&self, pod: Option<&Pod>) -> Result<(), String> {
        let name = format!("pod {}/{}", self.namespace, self.pod);
        let pod = pod.ok_or_else(|| format!("{name} does not exist"))?;
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if uid != self.pod_uid {
            return Err(format!(
                "{name} is another by now: its UID is {uid}, the token's {}",
                self.pod_uid
            ));
        }
        let spec = pod.spec.as_ref();
        let account = spec.and_then(|s| s.service_account_name.as_deref()).unwrap_or("default");
        if account != self.service_account {
            return Err(format!(
                "{name} runs as {account}, the token is of {}",
                self.service_account
            ));
        }
        let node = spec.and_then(|s| s.node_name.as_deref());
        if self.node.is_some() && self.node.as_deref() != node {
            return Err(format!(
                "{name} runs on node {node:?}, the token was made for {:?}",
                self.node
            ));
        }
        match pod.status.as_ref().and_then(|s| s.phase.as_deref()) {
            Some(ended @ ("Succeeded" | "Failed")) => Err(format!("{name} has ended ({ended})")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn verdict() -> Value {
        json!({
            "authenticated": true,
            "audiences": ["istio-ca"],
            "user": {
                "username": "system:serviceaccount:shop:cart",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"],
                "extra": {
                    POD_NAME: ["cart-1"], POD_UID: ["u-1"], NODE_NAME: ["n-1"], TOKEN_ID: ["JTI=1"],
                },
            },
        })
    }

    fn pod() -> Value {
        json!({
            "metadata": {"name": "cart-1", "namespace": "shop", "uid": "u-1"},
            "spec": {"serviceAccountName": "cart", "nodeName": "n-1", "containers": []},
            "status": {"phase": "Running"},
        })
    }

    /// `document` with the value at `pointer` replaced; null removes it.
    fn with(mut document: Value, pointer: &str, value: Value) -> Value {
        *document.pointer_mut(pointer).expect("the field is there") = value;
        document
    }

    fn check_verdict(verdict: Value, expected: Result<&str, &str>) {
        let status: TokenReviewStatus = serde_json::from_value(verdict).expect("a status");
        match (Bound::read(&status), expected) {
            (Ok(bound), Ok(user)) => assert_eq!(bound.user(), user),
            (Err(why), Err(expected)) => {
                assert!(why.contains(expected), "{why}: expected {expected}")
            }
            (got, expected) => panic!("{got:?}: expected {expected:?}"),
        }
    }

    #[test]
    fn only_an_accepted_token_of_our_audience_that_is_bound_to_a_pod_names_anybody() {
        let change = |pointer, value| with(verdict(), pointer, value);
        let extra = |key: &str, value| {
            let mut document = verdict();
            document["user"]["extra"][key] = value;
            document
        };
        check_verdict(verdict(), Ok("system:serviceaccount:shop:cart"));
        check_verdict(extra(NODE_NAME, json!([])), Ok("system:serviceaccount:shop:cart"));
        check_verdict(
            json!({"authenticated": false, "error": "token has expired"}),
            Err("token has expired"),
        );
        check_verdict(json!({}), Err("does not accept"));
        check_verdict(
            json!({"authenticated": true, "audiences": ["istio-ca"]}),
            Err("expected a service account"),
        );
        for stranger in [
            "admin",
            "system:serviceaccount:",
            "system:serviceaccount:shop",
            "system:serviceaccount::cart",
        ] {
            check_verdict(
                change("/user/username", json!(stranger)),
                Err("expected a service account"),
            );
        }
        check_verdict(
            change("/user/username", json!("system:serviceaccount:a:b:c")),
            Err("service account"),
        );
        check_verdict(
            change("/audiences", json!(["https://kubernetes.default.svc"])),
            Err("expected istio-ca"),
        );
        check_verdict(change("/audiences", json!([])), Err("expected istio-ca"));
        check_verdict(change("/audiences", json!(null)), Err("expected istio-ca"));
        check_verdict(change("/user/groups", json!(["system:authenticated"])), Err("not in group"));
        check_verdict(change("/user/extra", json!({})), Err("bound to no pod"));
        check_verdict(extra(POD_UID, json!([])), Err("bound to no pod"));
        check_verdict(extra(POD_NAME, json!(["a", "b"])), Err("bound to no pod"));
    }

    fn check_pod(pod: Option<Value>, expected: Result<(), &str>) {
        let status = serde_json::from_value(verdict()).expect("a status");
        let pod: Option<Pod> = pod.map(|p| serde_json::from_value(p).expect("a pod"));
        match (Bound::read(&status).expect("a good token").check(pod.as_ref()), expected) {
            (Ok(()), Ok(())) => {}
            (Err(why), Err(expected)) => {
                assert!(why.contains(expected), "{why}: expected {expected}")
            }
            (got, expected) => panic!("{got:?}: expected {expected:?}"),
        }
    }

    #[test]
    fn the_pod_must_be_the_same_run_as_the_same_account_on_the_same_node_and_not_have_ended() {
        let change = |pointer, value| Some(with(pod(), pointer, value));
        check_pod(Some(pod()), Ok(()));
        check_pod(change("/status/phase", json!("Pending")), Ok(()));
        check_pod(change("/status", json!({})), Ok(()));
        check_pod(None, Err("does not exist"));
        check_pod(change("/metadata/uid", json!("u-2")), Err("another by now"));
        check_pod(change("/metadata/uid", json!(null)), Err("another by now"));
        check_pod(change("/spec/serviceAccountName", json!("vault")), Err("runs as vault"));
        check_pod(change("/spec/serviceAccountName", json!(null)), Err("runs as default"));
        check_pod(change("/spec/nodeName", json!("n-2")), Err("was made for"));
        check_pod(change("/spec/nodeName", json!(null)), Err("was made for"));
        check_pod(change("/status/phase", json!("Succeeded")), Err("has ended"));
        check_pod(change("/status/phase", json!("Failed")), Err("has ended"));
    }

    #[test]
    fn a_token_tells_who_it_says_it_is_and_when_it_ends() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let good = Claimed::read(&token(r#"{"sub":"system:serviceaccount:a:b\n","exp":100}"#))
            .expect("claims");
        assert_eq!(good.to_string(), r#""system:serviceaccount:a:b\n""#);
        assert_eq!(good.expiry(), SystemTime::UNIX_EPOCH + Duration::from_secs(100));
        assert_eq!(Claimed::read(&token("{}")).expect("claims").expiry(), SystemTime::UNIX_EPOCH);
        for bad in ["", "abc", "a.b", "a.b.c.d", &token("1"), &token(r#"{"exp":-1}"#)] {
            assert!(Claimed::read(bad).is_err(), "{bad}");
        }
    }
}
