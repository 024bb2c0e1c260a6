//! Random policies: who may call, with which token, and who is asked.

use serde_json::{Value, json};

use crate::{
    authorizer,
    credentials::Credentials,
    mesh::{Dice, Mesh, PORTS, SERVICES},
};

impl Mesh {
    pub(crate) fn policies(&mut self, dice: &mut Dice, credentials: &Credentials) {
        let mut push = |kind: &str, name: String, namespace: &str, spec: Value| {
            self.objects.push(json!({
                "apiVersion": "security.istio.io/v1", "kind": kind,
                "metadata": {"name": name, "namespace": namespace}, "spec": spec,
            }));
        };
        if dice.chance(50) {
            let mode = dice.pick(&["STRICT", "STRICT", "PERMISSIVE", "DISABLE"]);
            push("PeerAuthentication", "all".into(), "shop", json!({"mtls": {"mode": mode}}));
        }
        for service in &SERVICES[..3] {
            let selector = json!({"matchLabels": {"app": service}});
            if dice.chance(35) {
                let mode = dice.pick(&["STRICT", "STRICT", "PERMISSIVE", "DISABLE"]);
                let mut spec = json!({"selector": selector, "mtls": {"mode": mode}});
                if dice.chance(25) {
                    let port = dice.pick(&PORTS).1.to_string();
                    spec["portLevelMtls"] =
                        json!({port: {"mode": dice.pick(&["STRICT", "PERMISSIVE"])}});
                }
                push("PeerAuthentication", format!("own-{service}"), "shop", spec);
            }
            if dice.chance(40) {
                let mut rule =
                    json!({"issuer": "https://login.test", "jwks": credentials.issuer.jwks()});
                if dice.chance(40) {
                    rule["audiences"] = json!(["shop"]);
                }
                if dice.chance(15) {
                    rule["presence"] = json!("REQUIRED");
                }
                if dice.chance(25) {
                    rule["fromHeaders"] = json!([{"name": "x-jwt", "prefix": "JWT "}]);
                }
                let spec = json!({"selector": selector, "jwtRules": [rule]});
                push("RequestAuthentication", format!("own-{service}"), "shop", spec);
            }
            if dice.chance(30) {
                let rules = [access_of_requests(dice)];
                let spec = json!({
                    "selector": selector, "action": "CUSTOM", "rules": rules,
                    "provider": {"name": authorizer::NAME},
                });
                push("AuthorizationPolicy", format!("ask-{service}"), "shop", spec);
            }
            for number in 0..dice.below(3) {
                let action = dice.pick(&["ALLOW", "DENY", "DENY"]);
                let rules: Vec<Value> = (0..=dice.below(2)).map(|_| access(dice)).collect();
                let spec = json!({"selector": selector, "action": action, "rules": rules});
                push("AuthorizationPolicy", format!("{service}-{number}"), "shop", spec);
            }
        }
        let selector = json!({"matchLabels": {"istio": "ingressgateway"}});
        if dice.chance(25) {
            let rules = [access_of_requests(dice)];
            let spec = json!({"selector": selector, "action": "DENY", "rules": rules});
            push("AuthorizationPolicy", "edge".into(), "istio-system", spec);
        }
        if dice.chance(25) {
            let rules = [access_of_requests(dice)];
            let spec = json!({
                "selector": selector, "action": "CUSTOM", "rules": rules,
                "provider": {"name": authorizer::NAME},
            });
            push("AuthorizationPolicy", "ask-edge".into(), "istio-system", spec);
        }
        if dice.chance(90) {
            let mut rule = json!({
                "issuer": "https://login.test", "jwks": credentials.issuer.jwks(),
                "forwardOriginalToken": true,
            });
            if dice.chance(15) {
                rule["presence"] = json!("REQUIRED");
            }
            let spec = json!({"selector": selector, "jwtRules": [rule]});
            push("RequestAuthentication", "edge".into(), "istio-system", spec);
        }
    }
}

/// A rule of a policy about callers and what they ask for.
fn access(dice: &mut Dice) -> Value {
    let mut rule = access_of_requests(dice);
    match dice.below(6) {
        0 => rule["from"] = json!([{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}]),
        1 => rule["from"] = json!([{"source": {"namespaces": ["bank"]}}]),
        2 => {
            rule["from"] = json!([{"source": {"notPrincipals": ["cluster.local/ns/bank/sa/web"]}}])
        }
        3 => rule["from"] = json!([{"source": {"requestPrincipals": ["https://login.test/*"]}}]),
        4 => rule["when"] = json!([{"key": "request.auth.claims[group]", "values": ["staff"]}]),
        _ => {}
    }
    rule
}

fn access_of_requests(dice: &mut Dice) -> Value {
    let operation = match dice.below(6) {
        0 => json!({"methods": ["POST"]}),
        1 => json!({"paths": ["/admin*"]}),
        2 => json!({"ports": ["8080"]}),
        3 => json!({"hosts": ["*.test", "one*"]}),
        4 => json!({"notPaths": ["/api*"], "methods": ["GET", "PUT"]}),
        _ => return json!({"when": [{"key": "request.headers[x-a]", "values": ["one", "two*"]}]}),
    };
    json!({"to": [{"operation": operation}]})
}
