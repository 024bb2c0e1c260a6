//! Which clusters the requests of each route go to, and in which shares.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A route by which requests go elsewhere than before, or no more.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RouteChange {
    /// The virtual host that it is in.
    pub host: String,
    /// Which requests it takes, as `prefix /api`.
    pub requests: String,
    /// Whether it is new, gone, or leads elsewhere.
    pub change: String,
    /// Where its requests go, with those shares that are not as before.
    pub shares: Vec<Share>,
}

/// How much of a route's requests goes to one place, before and after; percent of them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Share {
    /// The cluster, or what else becomes of them: `a redirect`, `status 404`.
    pub to: String,
    /// Of those before.
    pub before: f64,
    /// Of those after.
    pub after: f64,
}

/// Shares by where requests go.
type Shares = BTreeMap<String, f64>;

/// Routes by virtual host and what they take.
type Routes = BTreeMap<(String, String), Shares>;

/// Routes of a route configuration that are not as before; in the order of virtual hosts.
pub(super) fn changes(before: Option<&Value>, after: Option<&Value>) -> Vec<RouteChange> {
    let (before, after) = (routes(before), routes(after));
    let mut keys: Vec<_> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    let changed = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    changed.map(|key| change(key, before.get(key), after.get(key))).collect()
}

fn change(
    (host, requests): &(String, String),
    before: Option<&Shares>,
    after: Option<&Shares>,
) -> RouteChange {
    let change = match (before, after) {
        (None, _) => "new",
        (_, None) => "gone",
        _ => "led elsewhere",
    };
    let of = |shares: Option<&Shares>, to: &String| {
        shares.and_then(|shares| shares.get(to)).copied().unwrap_or_default()
    };
    let mut places: Vec<&String> = before.into_iter().chain(after).flat_map(Shares::keys).collect();
    places.sort();
    places.dedup();
    let shares = places.into_iter().map(|to| Share {
        to: to.clone(),
        before: of(before, to),
        after: of(after, to),
    });
    RouteChange {
        host: host.clone(),
        requests: requests.clone(),
        change: change.to_owned(),
        shares: shares.filter(|share| share.before != share.after).collect(),
    }
}

fn routes(configuration: Option<&Value>) -> Routes {
    let hosts = configuration.map(|value| list(value, "virtual_hosts")).unwrap_or_default();
    let mut routes = Routes::new();
    for host in hosts {
        let name = host["name"].as_str().unwrap_or_default();
        for route in list(host, "routes") {
            let key = (name.to_owned(), requests(&route["match"]));
            // The first of several that take the same is the one that is used.
            routes.entry(key).or_insert_with(|| shares(route));
        }
    }
    routes
}

fn shares(route: &Value) -> Shares {
    let action = &route["route"];
    if let Some(cluster) = action["cluster"].as_str() {
        return Shares::from([(cluster.to_owned(), 100.0)]);
    }
    let clusters = list(&action["weighted_clusters"], "clusters");
    let weight = |cluster: &Value| cluster["weight"].as_f64().unwrap_or_default();
    let total: f64 = clusters.iter().map(weight).sum();
    let mut shares = Shares::new();
    for cluster in clusters.iter().filter(|cluster| weight(cluster) > 0.0) {
        let name = cluster["name"].as_str().unwrap_or_default().to_owned();
        *shares.entry(name).or_default() += 100.0 * weight(cluster) / total;
    }
    if shares.is_empty() {
        shares.insert(otherwise(route), 100.0);
    }
    shares
}

/// What becomes of requests that go to no cluster.
fn otherwise(route: &Value) -> String {
    match (&route["direct_response"], &route["redirect"]) {
        (Value::Object(answer), _) => match answer.get("status") {
            Some(status) => format!("status {status}"),
            None => "an answer of the proxy".to_owned(),
        },
        (_, Value::Object(_)) => format!("a redirect {}", route["redirect"]),
        _ => "a cluster that the request names".to_owned(),
    }
}

/// Which requests a match takes: the path, and whatever else it asks for.
fn requests(matching: &Value) -> String {
    let Value::Object(fields) = matching else { return "everything".to_owned() };
    let words = fields.iter().map(|(name, value)| match value {
        Value::String(text) => format!("{name} {text}"),
        other => format!("{name} {other}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}
