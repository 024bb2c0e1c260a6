//! RequestAuthentications by which no token is valid.

use serde_json::{Map, Value, json};

use super::Extent;
use crate::{
    dialect::{
        decode::Decoder,
        istio::request_authentication::{JwtRule, RequestAuthentication},
        schema::Decode,
    },
    ir::KeySet,
};

/// Parts of a rule that say where a token may be, and whether one must be.
const PLACES: [&str; 4] = ["fromHeaders", "fromParams", "fromCookies", "presence"];

/// What stands in for a policy on tokens: who bears one where it is looked for is turned away. If it
/// cannot be read where that is, everybody is.
pub(super) fn closed(raw: &Value, extent: Extent) -> Value {
    let rules = (extent == Extent::Whole).then(|| readable(raw.get("spec")?)).flatten();
    let rules = rules.unwrap_or_else(|| vec![everywhere()]);
    let closed = rules.into_iter().map(|places| {
        let mut rule = places;
        rule.insert("issuer".to_owned(), json!("refused"));
        rule.insert("jwks".to_owned(), json!(KeySet::nobodys().as_str()));
        rule
    });
    json!({ "jwtRules": closed.map(Value::from).collect::<Vec<_>>() })
}

/// The places of every rule; `None` if one of them may look elsewhere.
fn readable(spec: &Value) -> Option<Vec<Map<String, Value>>> {
    let known = |key: &str| RequestAuthentication::SCHEMA.fields.iter().any(|f| f.name == key);
    let rules = match (spec.as_object()?, spec.get("jwtRules")) {
        (spec, _) if !spec.keys().all(|key| known(key)) => return None,
        (_, None) => return Some(Vec::new()),
        (_, Some(rules)) => rules.as_array()?,
    };
    rules.iter().map(places).collect()
}

fn places(rule: &Value) -> Option<Map<String, Value>> {
    let rule = rule.as_object()?;
    let known = |key: &String| JwtRule::SCHEMA.fields.iter().any(|f| f.name == key);
    let places = PLACES.iter().filter_map(|name| rule.get_key_value(*name));
    let places: Map<String, Value> = places.map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut at = Decoder::default();
    JwtRule::decode(&places.clone().into(), &mut at);
    (rule.keys().all(known) && at.finish().is_empty()).then_some(places)
}

/// A place where every request has something, and never a token: the host that it is for.
fn everywhere() -> Map<String, Value> {
    Map::from_iter([("fromHeaders".to_owned(), json!([{ "name": "host" }]))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_turned_away_where_it_is_looked_for_and_everybody_where_that_is_not_known() {
        let host = json!([{ "name": "host" }]);
        let cookie = json!({ "issuer": 7, "fromCookies": ["a"], "jwks": "{" });
        let table = [
            (json!({ "jwtRules": [cookie] }), Extent::Whole, json!([{ "fromCookies": ["a"] }])),
            (json!({ "jwtRules": [{ "issuer": "a" }] }), Extent::Whole, json!([{}])),
            (
                json!({ "jwtRules": [{ "issuer": 7, "presence": "REQUIRED" }] }),
                Extent::Whole,
                json!([{ "presence": "REQUIRED" }]),
            ),
            (
                json!({ "jwtRules": [{ "presence": "SOMETIMES" }] }),
                Extent::Whole,
                json!([{ "fromHeaders": host }]),
            ),
            (json!({ "selector": 7 }), Extent::Whole, json!([])),
            (
                json!({ "jwtRules": [cookie] }),
                Extent::Part { guards: false },
                json!([{ "fromHeaders": host }]),
            ),
            (
                json!({ "jwtRules": [{ "fromCookie": ["a"] }] }),
                Extent::Whole,
                json!([{ "fromHeaders": host }]),
            ),
            (
                json!({ "jwtRules": [{ "fromCookies": "a" }] }),
                Extent::Whole,
                json!([{ "fromHeaders": host }]),
            ),
            (json!({ "jwtRulez": [] }), Extent::Whole, json!([{ "fromHeaders": host }])),
            (json!([]), Extent::Whole, json!([{ "fromHeaders": host }])),
        ];
        for (spec, extent, expected) in table {
            let mut closed = closed(&json!({ "spec": spec }), extent)["jwtRules"].clone();
            for rule in closed.as_array_mut().expect("rules") {
                let rule = rule.as_object_mut().expect("a rule");
                assert_eq!(rule.remove("jwks"), Some(json!(KeySet::nobodys().as_str())), "{spec}");
                rule.remove("issuer");
            }
            assert_eq!(closed, expected, "{spec}");
        }
    }
}
