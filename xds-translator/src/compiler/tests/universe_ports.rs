//! The part of the universe in which policies refer to ports and callers that other objects
//! describe, and profiles come before routes.

use serde_json::{Value, json};

const POLICY: &str = "policy.linkerd.io";

fn server(number: usize) -> Value {
    json!({"group": POLICY, "kind": "Server", "name": format!("linkerd-server{number}")})
}

pub(super) fn port_server(_: &str, name: usize, variant: usize) -> Value {
    let protocol = ["unknown", "HTTP/1", "HTTP/2", "gRPC", "opaque", "TLS"][variant];
    let access = ["deny", "audit", "all-authenticated", "deny", "cluster-authenticated", "deny"];
    let selector = match variant {
        3 => json!({"matchExpressions": [{"key": "version", "operator": "In", "values": ["v0"]}]}),
        _ => json!({"matchLabels": {"app": format!("app{name}")}}),
    };
    json!({
        "metadata": {"labels": {"tier": format!("t{}", variant % 2)}},
        "spec": {
            "podSelector": selector,
            "port": if variant.is_multiple_of(2) { json!(8080) } else { json!("web") },
            "proxyProtocol": protocol,
            "accessPolicy": access[variant],
        },
    })
}

pub(super) fn port_authorization(namespace: &str, name: usize, variant: usize) -> Value {
    let target = match variant {
        5 => json!({"kind": "Namespace", "name": namespace}),
        _ => server(variant % 2),
    };
    let tls = json!({
        "group": POLICY, "kind": "MeshTLSAuthentication",
        "name": format!("mesh-tls-authentication{name}"), "namespace": "shop",
    });
    let network = json!({
        "group": POLICY, "kind": "NetworkAuthentication",
        "name": format!("network-authentication{}", variant % 2),
    });
    let account = json!({"kind": "ServiceAccount", "name": "account0"});
    let required = match variant % 3 {
        0 => json!([tls, network]),
        1 => json!([account, network]),
        _ => json!([]),
    };
    json!({"spec": {"targetRef": target, "requiredAuthenticationRefs": required}})
}

pub(super) fn server_authorization(_: &str, name: usize, variant: usize) -> Value {
    let server = match variant % 2 {
        0 => json!({"name": format!("linkerd-server{name}")}),
        _ => json!({"selector": {"matchLabels": {"tier": "t1"}}}),
    };
    let client = match variant {
        0 | 1 => json!({"unauthenticated": true, "networks": [{"cidr": "10.0.0.0/8"}]}),
        _ => json!({"meshTLS": {"serviceAccounts": [{"name": format!("account{name}")}]}}),
    };
    json!({"spec": {"server": server, "client": client}})
}

pub(super) fn mesh_tls_authentication(_: &str, name: usize, variant: usize) -> Value {
    let identity = format!("account{name}.shop.serviceaccount.identity.linkerd.cluster.local");
    json!({"spec": match variant {
        0 => json!({"identities": ["*"]}),
        1 => json!({"identityRefs": [{"kind": "Namespace", "name": "bank"}]}),
        2 => json!({"identityRefs": [{"kind": "ServiceAccount", "name": "account1"}]}),
        _ => json!({"identities": [identity, "*.bank.serviceaccount.identity.linkerd.cluster.local"]}),
    }})
}

pub(super) fn network_authentication(_: &str, _: usize, variant: usize) -> Value {
    let except = if variant.is_multiple_of(2) { json!([]) } else { json!(["10.1.0.0/16"]) };
    json!({"spec": {"networks": [{"cidr": format!("10.{variant}.0.0/15"), "except": except}]}})
}

pub(super) fn local_rate_limit(_: &str, name: usize, variant: usize) -> Value {
    let total = json!({"requestsPerSecond": 1 + variant});
    json!({"spec": {"targetRef": server(name), "total": total}})
}

pub(super) fn egress_network(_: &str, _: usize, variant: usize) -> Value {
    let policy = if variant.is_multiple_of(2) { "Deny" } else { "Allow" };
    json!({"spec": {"trafficPolicy": policy}})
}

pub(super) fn port_route(_: &str, name: usize, variant: usize) -> Value {
    let mut parent = json!({"group": "core", "kind": "Service", "name": format!("service{name}")});
    match variant {
        1 => parent["port"] = json!(80),
        2 => parent["namespace"] = json!("shop"),
        3 => parent = json!({"kind": "Server", "name": "linkerd-server0"}),
        _ => {}
    }
    let rules = match variant {
        3 => json!([]),
        _ => json!([{
            "matches": [{"path": {"value": format!("/v{variant}")}}, {"method": "POST"}],
            "backendRefs": [{"name": "service0", "weight": 90 - variant}, {"name": "nobody"}],
            "timeouts": {"request": format!("{}s", 1 + variant)},
        }]),
    };
    json!({"spec": {"parentRefs": [parent], "rules": rules}})
}

pub(super) fn service_profile(_: &str, name: usize, variant: usize) -> Value {
    let route = json!({
        "name": format!("r{variant}"),
        "condition": {"pathRegex": format!("/v{variant}"), "not": {"method": "PUT"}},
        "isRetryable": variant.is_multiple_of(2),
        "timeout": format!("{}s", 1 + variant),
    });
    let mut spec = json!({"routes": [route]});
    if variant == 3 {
        let other = format!("service{}.shop.svc.cluster.local", 1 - name);
        spec["dstOverrides"] = json!([{"authority": other, "weight": "500m"}]);
    }
    json!({"spec": spec})
}
