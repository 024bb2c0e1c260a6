//! From cases as they are written to cases: what is written once may stand for several.

use serde_json::{Map, Value, json};

use super::{Ask, Case, Each, Listed, Proof, Written};

/// The cases that a written one stands for.
pub(super) fn expand(written: Written) -> Vec<Case> {
    let of_places = |places: &[Place]| {
        let each = places.iter().map(|place| of_place(&written, *place));
        each.collect()
    };
    match written.each {
        Each::Once => {
            vec![case(&written, "", &written.fields, objects(&written), written.asks.clone())]
        }
        Each::Action => vec![of_action(&written, "ALLOW"), of_action(&written, "DENY")],
        Each::Place => of_places(&Place::ALL),
        Each::Side => of_places(&[Place::Host, Place::Subset]),
        Each::Pool => {
            vec![of_pool(&written, "inboundConnectionPool"), of_pool(&written, "ingress")]
        }
    }
}

fn case(
    written: &Written,
    apart: &str,
    fields: &[Listed],
    objects: Vec<(String, Value)>,
    asks: Vec<Ask>,
) -> Case {
    let name = match apart {
        "" => written.case.clone(),
        apart => format!("{}, {apart}", written.case),
    };
    let proofs = fields.iter().cloned().map(|listed| match listed {
        Listed::Alone(field) => Proof { take: field.clone(), field, instead: None },
        Listed::Changed { field, take, instead } => {
            Proof { take: take.unwrap_or_else(|| field.clone()), field, instead }
        }
    });
    let proofs: Vec<Proof> = proofs.collect();
    assert!(!proofs.is_empty(), "{name} proves nothing");
    let (site, company, not_ours) = (written.site, written.company, written.not_ours.clone());
    let only_in_soak = written.only_in_soak.clone();
    Case { name, proofs, site, company, not_ours, only_in_soak, objects, asks }
}

fn objects(written: &Written) -> Vec<(String, Value)> {
    let objects = written.objects.iter().flat_map(|object| object.iter());
    objects.map(|(kind, spec)| (kind.clone(), spec.clone())).collect()
}

/// The case of one action. Paths of the other one do not meet its rules.
fn of_action(written: &Written, action: &str) -> Case {
    let mut objects = objects(written);
    for (kind, spec) in &mut objects {
        if kind == "AuthorizationPolicy" {
            spec["action"] = action.into();
        }
    }
    let mut asks = written.asks.clone();
    if action == "DENY" {
        for ask in &mut asks {
            ask.status = match ask.status {
                Some(403) => Some(200),
                None | Some(200) => Some(403),
                other => other,
            };
        }
    }
    // Everything below `/deny` is allowed, so that a rule of DENY decides alone.
    let path = format!("/{}/$ID", action.to_lowercase());
    objects.iter_mut().for_each(|(_, spec)| replace(spec, "$PATH", &path));
    for ask in &mut asks {
        let own = ask.path.take().unwrap_or_else(|| "$PATH".to_owned());
        ask.path = Some(own.replace("$PATH", &path));
    }
    case(written, action, &written.fields, objects, asks)
}

/// Replaces a part of every text in a tree.
pub(super) fn replace(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::String(text) if text.contains(from) => *text = text.replace(from, to),
        Value::Array(list) => list.iter_mut().for_each(|value| replace(value, from, to)),
        Value::Object(map) => map.values_mut().for_each(|value| replace(value, from, to)),
        _ => {}
    }
}

/// Where a DestinationRule has a traffic policy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Host,
    Port,
    Subset,
    SubsetPort,
}

impl Place {
    const ALL: [Self; 4] = [Self::Host, Self::Port, Self::Subset, Self::SubsetPort];

    fn name(self) -> &'static str {
        match self {
            Self::Host => "of the host",
            Self::Port => "of a port",
            Self::Subset => "of a subset",
            Self::SubsetPort => "of a port of a subset",
        }
    }

    /// The path of the fields of a policy here.
    fn path(self) -> &'static str {
        match self {
            Self::Host => "DestinationRule.trafficPolicy",
            Self::Port => "DestinationRule.trafficPolicy.portLevelSettings",
            Self::Subset => "DestinationRule.subsets.trafficPolicy",
            Self::SubsetPort => "DestinationRule.subsets.trafficPolicy.portLevelSettings",
        }
    }

    fn is_of_subset(self) -> bool {
        matches!(self, Self::Subset | Self::SubsetPort)
    }

    /// A rule that has the policy here.
    fn rule(self, policy: &Value) -> Value {
        let policy = match self {
            Self::Host | Self::Subset => policy.clone(),
            Self::Port | Self::SubsetPort => {
                let mut of_port = policy.clone();
                of_port["port"] = json!({"number": 80});
                json!({"portLevelSettings": [of_port]})
            }
        };
        match self.is_of_subset() {
            false => json!({"trafficPolicy": policy}),
            true => json!({"subsets": [{"name": "part", "trafficPolicy": policy}]}),
        }
    }
}

fn of_place(written: &Written, place: Place) -> Case {
    let policy = written.policy.as_ref().expect("a case for each place has a policy");
    let fields = below(place.path(), &written.fields);
    let mut objects = objects(written);
    let mut rule = place.rule(policy);
    if let Some(more) = &written.rule {
        rule.as_object_mut().expect("a rule is a map").extend(more.clone());
    }
    objects.push(("DestinationRule".to_owned(), rule));
    if place.is_of_subset() {
        if objects.iter().all(|(kind, _)| kind != "VirtualService") {
            let http = json!([{"route": [{"destination": {"host": "$HOST"}}]}]);
            objects.push(("VirtualService".to_owned(), json!({"http": http})));
        }
        let routes = objects.iter_mut().filter(|(kind, _)| kind == "VirtualService");
        routes.for_each(|(_, spec)| to_subset(spec));
    }
    case(written, place.name(), &fields, objects, written.asks.clone())
}

/// The case of limits of one place in a Sidecar object of `web`.
fn of_pool(written: &Written, place: &str) -> Case {
    let pool = written.policy.as_ref().expect("a case for each place has a policy");
    let (limits, path, name) = match place {
        "ingress" => {
            let port = json!({"number": 8080, "name": "http", "protocol": "HTTP"});
            let listener =
                json!({"port": port, "defaultEndpoint": "127.0.0.1:8080", "connectionPool": pool});
            (json!([listener]), "Sidecar.ingress.connectionPool", "of a listener")
        }
        _ => (pool.clone(), "Sidecar.inboundConnectionPool", "of every listener"),
    };
    let mut spec = json!({"workloadSelector": {"labels": {"app": "web"}}});
    spec[place] = limits;
    let mut objects = objects(written);
    objects.push(("Sidecar".to_owned(), spec));
    case(written, name, &below(path, &written.fields), objects, written.asks.clone())
}

/// Fields that are written from a place on.
fn below(place: &str, fields: &[Listed]) -> Vec<Listed> {
    let below = |path: &str| format!("{place}.{path}");
    let each = fields.iter().map(|listed| match listed {
        Listed::Alone(path) => Listed::Alone(below(path)),
        Listed::Changed { field, take, instead } => Listed::Changed {
            field: below(field),
            take: take.as_deref().map(below),
            instead: instead.clone(),
        },
    });
    each.collect()
}

/// Sends what goes to the case's own host to the subset of that.
fn to_subset(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(to_subset);
            if let Some(destination) = map.get_mut("destination").and_then(Value::as_object_mut) {
                name_subset(destination);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(to_subset),
        _ => {}
    }
}

fn name_subset(destination: &mut Map<String, Value>) {
    if destination.get("host").is_some_and(|host| host == "$HOST") {
        destination.insert("subset".to_owned(), "part".into());
    }
}
