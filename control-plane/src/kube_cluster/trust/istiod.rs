//! Whether an istiod lives in this cluster: it serves endpoints, or has renewed one of its leader
//! locks a moment ago.

use std::time::Duration;

use k8s_openapi::{
    api::{coordination::v1::Lease, discovery::v1::EndpointSlice},
    jiff::Timestamp,
};
use kube::{Api, Error, ResourceExt, api::ListParams};
use tokio::time::timeout;

use crate::kube_cluster::{KubeCluster, said};

/// The labels of an istiod's endpoints: those of its Service, whatever its revision, and the
/// Service's name.
const ENDPOINTS: [&str; 2] = ["app=istiod", "kubernetes.io/service-name=istiod"];
/// The locks of istiod's controllers that say that one is there and publishes its root.
const LOCKS: [&str; 2] = ["istio-namespace-controller-election", "istio-leader"];
/// istiod renews every few seconds; its clock may differ from ours.
const RECENT: Duration = Duration::from_secs(60);
/// How long the API server may take to tell.
const ANSWER: Duration = Duration::from_secs(3);

/// What shows that an istiod lives; `None`: nothing does. Who cannot tell takes it for alive: a
/// root that is published late harms less than one that is taken away.
pub(super) async fn sign_of_life(cluster: &KubeCluster, root_namespace: &str) -> Option<String> {
    match timeout(ANSWER, search(cluster, root_namespace)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => Some(format!("cannot tell: {}", said(&error))),
        Err(_) => Some("cannot tell: the API server does not answer".to_owned()),
    }
}

async fn search(cluster: &KubeCluster, root_namespace: &str) -> Result<Option<String>, Error> {
    let slices: Api<EndpointSlice> = Api::all(cluster.client());
    for labels in ENDPOINTS {
        let found = slices.list(&ListParams::default().labels(labels)).await?;
        if let Some(slice) = found.iter().find(|slice| serves(slice)) {
            let namespace = slice.namespace().unwrap_or_default();
            return Ok(Some(format!(
                "ready endpoints in EndpointSlice {namespace}/{}",
                slice.name_any()
            )));
        }
    }
    let leases: Api<Lease> = Api::namespaced(cluster.client(), root_namespace);
    for name in LOCKS {
        let lease = leases.get_opt(name).await?;
        if lease.is_some_and(|lease| renewed(&lease, Timestamp::now())) {
            return Ok(Some(format!("Lease {root_namespace}/{name}, renewed just now")));
        }
    }
    Ok(None)
}

/// Whether any endpoint takes connections; without a word it does (Kubernetes' rule).
fn serves(slice: &EndpointSlice) -> bool {
    slice
        .endpoints
        .iter()
        .flatten()
        .any(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true))
}

fn renewed(lease: &Lease, now: Timestamp) -> bool {
    let spec = lease.spec.as_ref();
    let held =
        spec.and_then(|s| s.holder_identity.as_deref()).is_some_and(|holder| !holder.is_empty());
    let renewal = spec.and_then(|s| s.renew_time.as_ref());
    held && renewal.is_some_and(|renewal| now.duration_since(renewal.0).unsigned_abs() < RECENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn only_ready_endpoints_are_a_sign() {
        let check = |endpoints: Value, expected: bool| {
            let slice = json!({"addressType": "IPv4", "metadata": {}, "endpoints": endpoints});
            let slice: EndpointSlice = serde_json::from_value(slice).expect("a slice");
            assert_eq!(serves(&slice), expected, "{slice:?}");
        };
        check(json!([]), false);
        check(json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}]), false);
        check(json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]), true);
        check(json!([{"addresses": ["10.0.0.1"]}]), true);
    }

    #[test]
    fn only_a_lock_that_is_held_and_was_renewed_just_now_is_a_sign() {
        let now: Timestamp = "2030-01-01T12:00:00Z".parse().expect("a time");
        let check = |holder: &str, renewed_at: &str, expected: bool| {
            let spec = json!({"holderIdentity": holder, "renewTime": renewed_at});
            let lease: Lease =
                serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a lease");
            assert_eq!(renewed(&lease, now), expected, "{lease:?}");
        };
        check("istiod-1", "2030-01-01T11:59:50.000000Z", true);
        check("istiod-1", "2030-01-01T12:00:30.000000Z", true);
        check("istiod-1", "2030-01-01T11:58:00.000000Z", false);
        check("", "2030-01-01T11:59:50.000000Z", false);
        assert!(!renewed(&Lease::default(), now));
    }
}
