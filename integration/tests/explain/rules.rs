//! Random rules: where requests go, by every kind of condition.

use serde_json::{Value, json};

use crate::{
    gateways,
    mesh::{Dice, Mesh, ORIGINS, PATHS, PORTS, SERVICES, VALUES},
};

impl Mesh {
    pub(crate) fn routes(&mut self, dice: &mut Dice) {
        self.objects.extend(gateways::objects(dice));
        for (index, service) in SERVICES.into_iter().enumerate() {
            if !dice.chance(95) {
                continue;
            }
            let count = 3 + dice.below(4);
            let rules: Vec<Value> = (0..count)
                .map(|rule| {
                    let last = rule + 1 == count && dice.chance(60);
                    self.rule(dice, format!("r{index}-{rule}"), service, last)
                })
                .collect();
            self.objects.push(json!({
                "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                "metadata": {"name": service, "namespace": "shop"},
                "spec": {
                    "hosts": [
                        format!("{service}.shop.svc.cluster.local"), format!("{service}.test"),
                    ],
                    "gateways": ["mesh", "istio-system/edge"],
                    "http": rules,
                },
            }));
        }
    }

    fn rule(&mut self, dice: &mut Dice, name: String, service: &str, last: bool) -> Value {
        let mut kinds = Vec::new();
        let mut rule = json!({"name": name});
        if !last {
            rule["match"] = json!([condition(dice, service, &mut kinds)]);
        }
        match dice.below(12) {
            0 => rule["directResponse"] = json!({"status": dice.pick(&[200, 403, 418])}),
            1 => {
                rule["redirect"] =
                    json!({"uri": "/elsewhere", "redirectCode": dice.pick(&[301, 302, 307])});
            }
            _ => self.forward(dice, &mut rule, service),
        }
        self.kinds.insert(name, kinds);
        rule
    }

    fn forward(&mut self, dice: &mut Dice, rule: &mut Value, service: &str) {
        let destination = |dice: &mut Dice, service: &str| {
            let host = format!("{service}.shop.svc.cluster.local");
            let mut destination = json!({"host": host});
            if dice.chance(60) {
                destination["subset"] = json!(dice.pick(&["v1", "v2", "v1", "v2", "v3"]));
            }
            if dice.chance(30) {
                destination["port"] = json!({"number": dice.pick(&PORTS).0});
            }
            destination
        };
        let other = *dice.pick(&SERVICES[..3]);
        rule["route"] = match dice.below(4) {
            0 => json!([
                {"destination": destination(dice, service), "weight": 70},
                {"destination": destination(dice, other), "weight": 30},
            ]),
            1 => json!([{"destination": destination(dice, other)}]),
            _ => json!([{"destination": destination(dice, service)}]),
        };
        if dice.chance(20) {
            rule["rewrite"] = json!({"uri": dice.pick(&["/api", "/rewritten", "/admin"])});
        } else if dice.chance(10) {
            rule["rewrite"] = json!({"authority": "other.test"});
        }
        if dice.chance(15) {
            rule["headers"] = json!({"request": {"set": {"x-a": "one"}, "remove": ["x-b"]}});
        }
        if dice.chance(30) {
            rule["corsPolicy"] = json!({
                "allowOrigins": [{"exact": ORIGINS[0]}, {"prefix": "https://b"}],
                "allowMethods": ["GET"],
                "unmatchedPreflights": dice.pick(&["FORWARD", "IGNORE"]),
            });
        }
        if dice.chance(6) {
            rule["fault"] = json!({"abort": {"httpStatus": 503, "percentage": {"value": 100}}});
        }
        // What is not tried again says at once what it came to.
        rule["retries"] = json!({"attempts": 0});
    }
}

/// One match of a rule, with the kinds of its conditions.
fn condition(dice: &mut Dice, service: &str, kinds: &mut Vec<&'static str>) -> Value {
    // What is seldom met is asked for more often.
    const ASKED: [u8; 50] = [
        0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 5, 5, 6, 6, 7, 8, 8, 8, 8, 9, 9, 10,
        10, 11, 11, 12, 12, 12, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 14, 14,
    ];
    let mut m = json!({});
    let mut take = |kind: &'static str| kinds.push(kind);
    for _ in 0..=dice.below(2) {
        let value = *dice.pick(&VALUES[..3]);
        let header = *dice.pick(&["x-a", "x-b"]);
        let kind = *dice.pick(&ASKED);
        let taken = match kind {
            0..3 => "uri",
            12 | 13 => "gateways",
            _ => "",
        };
        if m.get(taken).is_some() {
            continue;
        }
        match kind {
            0 => {
                take("exact");
                m["uri"] = json!({"exact": dice.pick(&PATHS[..6])});
            }
            1 => {
                take("prefix");
                m["uri"] = json!({"prefix": dice.pick(&["/api", "/api/v", "/admin", "/img/"])});
            }
            2 => {
                take("regex");
                m["uri"] =
                    json!({"regex": dice.pick(&["/api/v[0-9].*", ".*\\.png", "/(api|admin)"])});
            }
            3 => {
                take("header exact");
                m["headers"][header] = json!({"exact": value});
            }
            4 => {
                take("header prefix");
                m["headers"][header] = json!({"prefix": "one"});
            }
            5 => {
                take("header regex");
                m["headers"][header] = json!({"regex": "(one|two)+"});
            }
            6 => {
                take("header present");
                m["headers"][header] = json!({});
            }
            7 => {
                take("without header");
                m["withoutHeaders"][header] = json!({"exact": value});
            }
            8 => {
                take("query");
                m["queryParams"]["q"] = json!({"exact": value});
            }
            9 => {
                take("method");
                m["method"] = json!({"exact": dice.pick(&["GET", "POST"])});
            }
            10 => {
                take("authority");
                let prefix = json!({"prefix": service});
                let exact = json!({"exact": format!("{service}.test")});
                m["authority"] = dice.pick(&[prefix, exact]).clone();
            }
            11 => {
                take("port");
                m["port"] = json!(dice.pick(&PORTS).0);
            }
            12 => {
                take("gateway");
                m["gateways"] = json!([dice.pick(&["mesh", "istio-system/edge"])]);
            }
            13 => {
                // Claims are known at gateways alone.
                take("claim");
                m["gateways"] = json!(["istio-system/edge"]);
                let exact = json!({"exact": dice.pick(&["staff", "staff", "staff", "guest"])});
                m["headers"]["@request.auth.claims.group"] = exact;
                break;
            }
            _ => {
                take("scheme");
                m["scheme"] = json!({"exact": dice.pick(&["http", "https"])});
            }
        }
    }
    m
}
