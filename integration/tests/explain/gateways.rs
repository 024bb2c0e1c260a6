//! What a gateway listens for: plaintext, TLS of every mode, and what it passes on untouched.

use serde_json::{Value, json};

use crate::mesh::{Dice, SERVICES};

/// The port with TLS.
pub(crate) const TLS_PORT: u16 = 443;
/// The name whose TLS the gateway does not take off.
pub(crate) const PASSED: &str = "raw.test";
/// A name that only a wildcard serves, and one that nobody does.
pub(crate) const OTHERS: [&str; 2] = ["x.test", "unknown.example"];
/// Credentials of servers; those behind the first have the clients' authority too.
pub(crate) const CREDENTIALS: [&str; 3] = ["simple", "mutual", "optional"];

/// The Gateway object, and the rules for what is passed on.
pub(crate) fn objects(dice: &mut Dice) -> [Value; 2] {
    let mut servers = vec![
        json!({
            "port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"],
            "tls": {"httpsRedirect": dice.chance(8)},
        }),
        json!({"port": {"number": 9090, "name": "more", "protocol": "HTTP"}, "hosts": ["*.test"]}),
        secure("one.test", "SIMPLE", CREDENTIALS[0], dice.chance(25)),
        secure("two.test", "MUTUAL", CREDENTIALS[1], false),
        secure("three.test", "OPTIONAL_MUTUAL", CREDENTIALS[2], false),
        json!({
            "port": {"number": TLS_PORT, "name": "tls", "protocol": "TLS"}, "hosts": [PASSED],
            "tls": {"mode": "PASSTHROUGH"},
        }),
    ];
    if dice.chance(50) {
        servers.push(secure("*.test", "SIMPLE", CREDENTIALS[0], false));
    }
    let gateway = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
        "metadata": {"name": "edge", "namespace": "istio-system"},
        "spec": {"selector": {"istio": "ingressgateway"}, "servers": servers},
    });
    let host = format!("{}.shop.svc.cluster.local", dice.pick(&SERVICES[..3]));
    let passed = json!({
        "match": [{"port": TLS_PORT, "sniHosts": [PASSED]}],
        "route": [{"destination": {"host": host, "port": {"number": 8443}}}],
    });
    let routes = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "raw", "namespace": "shop"},
        "spec": {"hosts": [PASSED], "gateways": ["istio-system/edge"], "tls": [passed]},
    });
    [gateway, routes]
}

fn secure(host: &str, mode: &str, credential: &str, redirect: bool) -> Value {
    let name = format!("https-{}", host.split('.').next().unwrap_or_default().replace('*', "any"));
    json!({
        "port": {"number": TLS_PORT, "name": name, "protocol": "HTTPS"},
        "hosts": [host],
        "tls": {"mode": mode, "credentialName": credential, "httpsRedirect": redirect},
    })
}
