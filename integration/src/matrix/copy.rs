//! A case as it is served: whole, or without a field that it proves.

use std::net::Ipv4Addr;

use ferromesh_xds_translator::dialect::Kind;
use serde_json::{Value, json};

use super::{Ask, Case, Proof, Site, expand::replace};

/// One copy of a case.
#[derive(Clone, Debug)]
pub struct CaseCopy {
    /// What its objects and its host are called after; unique in the mesh.
    pub id: String,
    /// The field that is not as the case has it; `None`: it is whole.
    pub without: Option<String>,
    /// Whom its requests reach.
    pub site: Site,
    /// What is served.
    pub objects: Vec<Value>,
    /// What is asked, and expected if the copy is whole.
    pub asks: Vec<Ask>,
}

/// The namespace of the cases' objects, and of their client.
const NAMESPACE: &str = "shop";

/// The gateway's address in the objects that are always there.
const GATEWAY: &str = "10.77.0.15";
/// An address that no server has.
const NOBODY: &str = "10.96.0.9";

impl Case {
    /// The copies of a case that has this number, the whole one first.
    ///
    /// # Panics
    /// A field that it is to prove is not in its objects.
    pub fn copies(&self, number: usize) -> Vec<CaseCopy> {
        let whole = self.copy(number, 0, None);
        let taken = self.proofs.iter().enumerate();
        let taken = taken.map(|(i, proof)| self.copy(number, i + 1, Some(proof)));
        std::iter::once(whole).chain(taken).collect()
    }

    fn copy(&self, number: usize, index: usize, proof: Option<&Proof>) -> CaseCopy {
        let names = Names::of(self.site, number, index);
        let mut contents = self.objects.clone();
        if let Some(proof) = proof {
            let found = of_each(contents.iter_mut(), |(kind, content)| proof.apply(kind, content));
            assert!(found, "{}: no {} in its objects", self.name, proof.take);
        }
        let named = contents.into_iter().enumerate();
        let mut objects: Vec<Value> =
            named.map(|(i, (kind, content))| names.object(self.site, i, &kind, content)).collect();
        let by_bytes = self.asks.iter().any(|ask| ask.bytes.is_some());
        objects.extend(surroundings(self.site, by_bytes, &objects));
        // The case's own gateway is the first of its objects.
        let own =
            objects.iter().any(|o| o["kind"] == "Gateway" && o["metadata"]["name"] == *names.id);
        let gateway = if own { "$ID" } else { "$ID-site" };
        objects.iter_mut().for_each(|object| replace(object, "$GATEWAY", gateway));
        objects.iter_mut().for_each(|object| names.put_into(object));
        CaseCopy {
            id: names.id.clone(),
            without: proof.map(|proof| proof.field.clone()),
            site: self.site,
            objects,
            asks: self.asks.iter().map(|ask| names.ask(self.site, ask)).collect(),
        }
    }
}

impl Proof {
    /// Changes the content of an object of this kind; whether the field was there.
    fn apply(&self, kind: &str, content: &mut Value) -> bool {
        let mut path = self.take.split('.');
        let path: Vec<&str> = match path.next() == Some(kind) {
            true => path.collect(),
            false => return false,
        };
        take(content, &path, self.instead.as_ref())
    }
}

/// Takes a field away, and what is empty without it, or puts another value there. Keys of maps are
/// not in the path.
fn take(value: &mut Value, path: &[&str], instead: Option<&Value>) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    match value {
        Value::Array(list) => {
            let found = of_each(list.iter_mut(), |item| take(item, path, instead));
            list.retain(|item| !found || !is_empty(item));
            found
        }
        Value::Object(map) if map.contains_key(*first) => {
            match (rest, instead) {
                ([], Some(instead)) => map.insert((*first).to_owned(), instead.clone()),
                ([], None) => map.remove(*first),
                (rest, instead) => {
                    let below = map.get_mut(*first).expect("it was found");
                    if !take(below, rest, instead) {
                        return false;
                    }
                    match is_empty(below) {
                        true => map.remove(*first),
                        false => None,
                    }
                }
            };
            true
        }
        Value::Object(map) => {
            let found = of_each(map.values_mut(), |item| take(item, path, instead));
            if found {
                map.retain(|_, item| !is_empty(item));
            }
            found
        }
        _ => false,
    }
}

/// Whether something was done to any of them: to each it is tried.
fn of_each<T>(items: impl Iterator<Item = T>, mut change: impl FnMut(T) -> bool) -> bool {
    let mut any = false;
    for item in items {
        any |= change(item);
    }
    any
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// What a copy calls its own.
struct Names {
    id: String,
    host: String,
    path: String,
    vip: Ipv4Addr,
    server: Ipv4Addr,
}

impl Names {
    fn of(site: Site, number: usize, index: usize) -> Self {
        let id = format!("c{number}x{index}");
        let byte = |number: usize| u8::try_from(number).expect("few cases, and few fields of each");
        let host = match site {
            Site::Web | Site::Server => "web.shop.svc.cluster.local".to_owned(),
            _ => format!("{id}.case.test"),
        };
        let path = match site {
            Site::Web | Site::Server => format!("/open/{id}"),
            _ => "/".to_owned(),
        };
        let address = |block: u8| {
            Ipv4Addr::new(10, block + byte(number / 250), byte(number % 250), byte(index + 1))
        };
        Self { id, host, path, vip: address(100), server: address(200) }
    }

    fn texts(&self) -> [(&'static str, String); 5] {
        [
            ("$HOST", self.host.clone()),
            ("$PATH", self.path.clone()),
            ("$ID", self.id.clone()),
            ("$VIP", self.vip.to_string()),
            ("$SERVER", self.server.to_string()),
        ]
    }

    fn put_into(&self, value: &mut Value) {
        self.texts().iter().for_each(|(from, to)| replace(value, from, to));
    }

    fn text(&self, text: &str) -> String {
        self.texts().iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// An object; of what it may do without, its name, namespace and host are said here.
    fn object(&self, site: Site, index: usize, kind: &str, mut content: Value) -> Value {
        let mut metadata = json!({"name": self.name(index), "namespace": NAMESPACE});
        let own = content.as_object_mut().and_then(|content| content.remove("metadata"));
        let is_renamed = own.as_ref().is_some_and(|own| own.get("name").is_some());
        if let Some(Value::Object(own)) = own {
            metadata.as_object_mut().expect("a map").extend(own);
        }
        // Parts of rules that continue elsewhere are called by a name, and have no host.
        if kind != "VirtualService" || !is_renamed {
            complete(site, kind, &mut content);
        }
        let found = found(kind);
        let mut object =
            json!({"apiVersion": found.api_version(), "kind": kind, "metadata": metadata});
        match (found.declared().and_then(|declared| declared.below), content) {
            (None, Value::Object(content)) => {
                object.as_object_mut().expect("a map").extend(content);
            }
            (_, content) => object["spec"] = content,
        }
        object
    }

    fn name(&self, index: usize) -> String {
        match index {
            0 => self.id.clone(),
            index => format!("{}-{index}", self.id),
        }
    }

    fn ask(&self, site: Site, ask: &Ask) -> Ask {
        let from = match (&ask.from, site) {
            (Some(from), _) => from,
            (None, Site::Edge) => "outsider",
            (None, _) => "client",
        };
        let address = match (&ask.address, from) {
            (Some(address), _) => address,
            (None, "outsider") => GATEWAY,
            (None, _) if ask.bytes.is_some() => "$VIP",
            (None, _) => NOBODY,
        };
        let own = |map: &std::collections::BTreeMap<String, [usize; 2]>| {
            map.iter().map(|(text, range)| (self.text(text), *range)).collect()
        };
        let all = |list: &[String]| list.iter().map(|text| self.text(text)).collect();
        Ask {
            from: Some(from.to_owned()),
            address: Some(self.text(address)),
            to: self.text(&ask.to),
            path: Some(self.text(ask.path.as_deref().unwrap_or("$PATH"))),
            headers: ask.headers.iter().map(|(n, v)| (self.text(n), self.text(v))).collect(),
            bytes: ask.bytes.as_deref().map(|text| self.text(text)),
            sni: ask.sni.as_deref().map(|text| self.text(text)),
            has: all(&ask.has),
            lacks: all(&ask.lacks),
            count: own(&ask.count),
            distinct: own(&ask.distinct),
            server: self.server.to_string(),
            arrived: own(&ask.arrived),
            logged: own(&ask.logged),
            ..ask.clone()
        }
    }
}

/// What most objects of a kind say in the same way.
fn complete(site: Site, kind: &str, content: &mut Value) {
    let usual: &[(&str, Value)] = match kind {
        "VirtualService" if site == Site::Edge => {
            &[("hosts", json!(["$HOST"])), ("gateways", json!(["shop/$GATEWAY"]))]
        }
        "VirtualService" => &[("hosts", json!(["$HOST"]))],
        "DestinationRule" => &[("host", json!("$HOST"))],
        "Gateway" => &[("selector", json!({"istio": "ingressgateway"}))],
        "AuthorizationPolicy" | "RequestAuthentication"
            if content.get("targetRefs").or_else(|| content.get("targetRef")).is_none() =>
        {
            &[("selector", json!({"matchLabels": {"app": "web"}}))]
        }
        _ => &[],
    };
    for (field, value) in usual {
        if content.get(*field).is_none() {
            content[*field] = value.clone();
        }
    }
}

/// The kind of this name: of Istio's and our own, of Kubernetes' own, or else of others.
fn found(kind: &str) -> Kind {
    let of = |group: &'static [&str]| {
        Kind::all_served().find(|found| {
            let own = |end: &&str| found.group().ends_with(end) && !found.group().is_empty();
            found.kind_name() == kind && (group.iter().any(own) || group.is_empty())
        })
    };
    let found = of(&[".istio.io", ".ferromesh.io"]).or_else(|| of(&[]));
    found.unwrap_or_else(|| panic!("no kind {kind}"))
}

/// What stands around the objects of a copy: the service that is asked, and how it is reached.
fn surroundings(site: Site, by_bytes: bool, objects: &[Value]) -> Vec<Value> {
    let lacks = |kind: &str| objects.iter().all(|object| object["kind"] != kind);
    let mut all = match site {
        Site::Outside | Site::Edge => vec![outside(3, 80, by_bytes)],
        Site::One => vec![outside(1, 80, by_bytes)],
        Site::Secure => vec![outside(3, 8443, by_bytes)],
        Site::Web | Site::Server | Site::Nothing => Vec::new(),
    };
    if site == Site::Edge {
        all.extend(lacks("Gateway").then(edge));
        all.extend(lacks("VirtualService").then(edge_route));
    }
    all
}

fn surrounding(kind: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": found(kind).api_version(), "kind": kind,
        "metadata": {"name": "$ID-site", "namespace": NAMESPACE}, "spec": spec,
    })
}

/// So many servers outside of the mesh, whose HTTP port is this one. A port for bytes is a listener
/// more in every sidecar.
fn outside(count: u8, http: u16, by_bytes: bool) -> Value {
    let endpoint = |number: u8| {
        let address = format!("10.77.0.{}", 200 + number);
        json!({"address": address, "labels": {"version": format!("v{number}")}})
    };
    let endpoints: Vec<Value> = (1..=count).map(endpoint).collect();
    let mut ports =
        vec![json!({"number": 80, "name": "http", "protocol": "HTTP", "targetPort": http})];
    ports.extend(by_bytes.then(|| json!({"number": 9000, "name": "tcp", "protocol": "TCP"})));
    let mut spec = json!({
        "hosts": ["$HOST"], "location": "MESH_EXTERNAL", "resolution": "STATIC",
        "ports": ports, "endpoints": endpoints,
    });
    if by_bytes {
        spec["addresses"] = json!(["$VIP"]);
    }
    surrounding("ServiceEntry", &spec)
}

fn edge() -> Value {
    let port = json!({"number": 80, "name": "http", "protocol": "HTTP"});
    let servers = json!([{"port": port, "hosts": ["$HOST"]}]);
    surrounding("Gateway", &json!({"selector": {"istio": "ingressgateway"}, "servers": servers}))
}

fn edge_route() -> Value {
    let http = json!([{"route": [{"destination": {"host": "$HOST"}}]}]);
    let gateways = json!(["shop/$GATEWAY"]);
    surrounding("VirtualService", &json!({"hosts": ["$HOST"], "gateways": gateways, "http": http}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(mut value: Value, path: &str, instead: Option<Value>) -> Value {
        let path: Vec<&str> = path.split('.').collect();
        assert!(take(&mut value, &path, instead.as_ref()));
        value
    }

    #[test]
    fn a_field_goes_with_what_is_empty_without_it() {
        let rule =
            json!({"http": [{"match": [{"headers": {"x": {"exact": "1"}}}], "timeout": "1s"}]});
        let path = "http.match.headers.exact";
        assert_eq!(taken(rule.clone(), path, None), json!({"http": [{"timeout": "1s"}]}));
        let other = taken(rule, path, Some(json!("2")));
        assert_eq!(other["http"][0]["match"][0]["headers"]["x"]["exact"], "2");
    }

    #[test]
    fn a_field_that_is_not_there_is_not_taken() {
        let path = ["http", "retries"];
        assert!(!take(&mut json!({"http": [{"timeout": "1s"}]}), &path, None));
    }
}
