//! Scripted transcripts, and a random sequence of pushes, refusals and reconnects against a model
//! control plane.

use ferromesh_proto::discovery::{Any, Resource};
use proptest::prelude::*;

use super::*;

fn node() -> Node {
    Node {
        id: "sidecar~10.0.0.1~a.default~default.svc.cluster.local".to_owned(),
        ..Default::default()
    }
}

fn response(
    kind: ResourceType,
    nonce: &str,
    resources: &[(&str, &str)],
    removed: &[&str],
) -> DeltaDiscoveryResponse {
    let resource = |(name, version): &(&str, &str)| Resource {
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        resource: Some(Any { type_url: kind.type_url().to_owned(), value: Bytes::new() }),
        aliases: Vec::new(),
    };
    DeltaDiscoveryResponse {
        type_url: kind.type_url().to_owned(),
        nonce: nonce.to_owned(),
        resources: resources.iter().map(resource).collect(),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

fn needs(endpoints: &[&str], routes: &[&str]) -> Needs {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Needs { endpoints: names(endpoints), routes: names(routes), ..Needs::default() }
}

fn rejection(kind: ResourceType, name: &str) -> Rejection {
    Rejection {
        kind,
        name: name.to_owned(),
        field: "lb_policy".to_owned(),
        reason: "unknown".to_owned(),
        closed: false,
    }
}

/// A request in one line: type, node, names, versions, nonce, error.
fn line(request: &DeltaDiscoveryRequest) -> String {
    let kind = ResourceType::from_type_url(&request.type_url).map_or("?", ResourceType::short_name);
    let mut line = kind.to_owned();
    if request.node.is_some() {
        line += " node";
    }
    for name in &request.resource_names_subscribe {
        line += &format!(" +{name}");
    }
    for name in &request.resource_names_unsubscribe {
        line += &format!(" -{name}");
    }
    for (name, version) in request.initial_resource_versions.iter().collect::<BTreeMap<_, _>>() {
        line += &format!(" {name}={version}");
    }
    if !request.response_nonce.is_empty() {
        line += &format!(" @{}", request.response_nonce);
    }
    if let Some(error) = &request.error_detail {
        line += &format!(" !{}", error.message);
    }
    line
}

fn lines(requests: &[DeltaDiscoveryRequest]) -> Vec<String> {
    requests.iter().map(line).collect()
}

#[test]
fn a_stream_starts_with_the_wildcards_and_names_follow_what_is_needed() {
    let mut session = Session::new(node());
    assert_eq!(lines(&session.connected()), ["CDS node", "LDS", "BDS +bootstrap"]);

    let (update, reply) =
        session.received(response(ResourceType::Cluster, "1", &[("c", "v1")], &[]));
    assert_eq!(update.unwrap().changed[0].name, "c");
    assert_eq!(lines(&session.applied(reply, &[], &needs(&["e"], &[]))), ["CDS @1", "EDS +e"]);

    let (_, reply) = session.received(response(ResourceType::Endpoint, "2", &[("e", "v1")], &[]));
    assert_eq!(lines(&session.applied(reply, &[], &needs(&["e"], &[]))), ["EDS @2"]);

    let (_, reply) = session.received(response(ResourceType::Cluster, "3", &[("d", "v1")], &["c"]));
    assert_eq!(
        lines(&session.applied(reply, &[], &needs(&["f"], &["80"]))),
        ["CDS @3", "EDS +f -e", "RDS +80"]
    );
    assert_eq!(session.version(ResourceType::Cluster, "c"), None);
    assert_eq!(session.version(ResourceType::Endpoint, "e"), None);
}

#[test]
fn a_new_stream_says_what_is_known() {
    let mut session = Session::new(node());
    for (kind, nonce, name) in [
        // Nobody asked for these endpoints: they are not kept, so not known either.
        (ResourceType::Endpoint, "0", "e"),
        (ResourceType::Endpoint, "0", "unasked"),
        (ResourceType::Cluster, "1", "c"),
        (ResourceType::Endpoint, "2", "e"),
        (ResourceType::Listener, "3", "l"),
    ] {
        let (_, reply) = session.received(response(kind, nonce, &[(name, "v7")], &[]));
        let _ = session.applied(reply, &[], &needs(&["e"], &["80"]));
    }
    assert_eq!(
        lines(&session.connected()),
        ["CDS node c=v7", "EDS +e e=v7", "LDS l=v7", "RDS +80", "BDS +bootstrap"]
    );
}

#[test]
fn a_refused_resource_is_nacked_and_its_neighbour_is_remembered() {
    let mut session = Session::new(node());
    let (_, reply) = session.received(response(
        ResourceType::Cluster,
        "1",
        &[("good", "v1"), ("bad", "v1")],
        &[],
    ));
    let requests =
        session.applied(reply, &[rejection(ResourceType::Cluster, "bad")], &Needs::default());
    assert_eq!(lines(&requests), ["CDS @1 !CDS bad: lb_policy: unknown"]);
    assert_eq!(requests[0].error_detail.as_ref().unwrap().code, INVALID_ARGUMENT);
    assert_eq!(lines(&session.connected()), ["CDS node good=v1", "LDS", "BDS +bootstrap"]);
}

#[test]
fn malformed_responses_are_nacked() {
    let mut session = Session::new(node());
    let (update, reply) =
        session.received(response(ResourceType::Route, "1", &[("a", "1"), ("a", "2")], &[]));
    assert_eq!(update.unwrap().changed.len(), 1);
    let answer = line(&session.applied(reply, &[], &Needs::default())[0]);
    assert_eq!(answer, "RDS @1 !a: the response holds it twice");

    let mut foreign = response(ResourceType::Route, "2", &[("a", "1")], &[]);
    foreign.resources[0].resource.as_mut().unwrap().type_url = "x".to_owned();
    let (update, reply) = session.received(foreign);
    assert!(update.unwrap().changed.is_empty());
    assert!(session.applied(reply, &[], &Needs::default())[0].error_detail.is_some());

    let unknown = DeltaDiscoveryResponse {
        type_url: "y".to_owned(),
        nonce: "3".to_owned(),
        ..Default::default()
    };
    let (update, reply) = session.received(unknown);
    assert!(update.is_none());
    assert_eq!(session.applied(reply, &[], &Needs::default())[0].response_nonce, "3");
}

#[test]
fn a_long_list_of_reasons_is_cut() {
    let session = Session::new(node());
    let (_, reply) = session.received(response(ResourceType::Cluster, "1", &[], &[]));
    let many: Vec<_> =
        (0..1000).map(|n| rejection(ResourceType::Cluster, &format!("ü{n}"))).collect();
    assert!(reply.error(&many).unwrap().message.len() <= LONGEST_REASON + '…'.len_utf8());
}

/// A control plane that serves clusters, each of which needs the endpoints of the same name.
#[derive(Default)]
struct Model {
    clusters: BTreeMap<String, u32>,
    endpoints: BTreeMap<String, u32>,
    subscribed: BTreeSet<String>,
    sent: BTreeMap<(bool, String), u32>,
    nonce: u32,
}

impl Model {
    fn connected(&mut self, requests: &[DeltaDiscoveryRequest]) {
        self.sent.clear();
        self.subscribed.clear();
        for request in requests {
            let endpoint = request.type_url == ResourceType::Endpoint.type_url();
            for (name, version) in &request.initial_resource_versions {
                self.sent.insert((endpoint, name.clone()), version.parse().unwrap());
            }
            self.heard(request);
        }
    }

    fn heard(&mut self, request: &DeltaDiscoveryRequest) {
        if request.type_url != ResourceType::Endpoint.type_url() {
            return;
        }
        for name in &request.resource_names_subscribe {
            self.subscribed.insert(name.clone());
            if !request.initial_resource_versions.contains_key(name) {
                self.sent.remove(&(true, name.clone()));
            }
        }
        for name in &request.resource_names_unsubscribe {
            self.subscribed.remove(name);
            self.sent.remove(&(true, name.clone()));
        }
    }

    fn push(&mut self, endpoint: bool) -> DeltaDiscoveryResponse {
        let kind = if endpoint { ResourceType::Endpoint } else { ResourceType::Cluster };
        let all = if endpoint { &self.endpoints } else { &self.clusters };
        let wanted = |name: &String| !endpoint || self.subscribed.contains(name);
        let now: BTreeMap<String, u32> = all
            .iter()
            .filter(|(name, _)| wanted(name))
            .map(|(name, version)| (name.clone(), *version))
            .collect();
        let known = |name: &String| self.sent.get(&(endpoint, name.clone()));
        let changed: Vec<_> =
            now.iter().filter(|(name, version)| known(name) != Some(*version)).collect();
        let gone: Vec<_> = self
            .sent
            .keys()
            .filter(|(e, name)| *e == endpoint && !now.contains_key(name))
            .collect();
        let removed: Vec<String> = gone.into_iter().map(|(_, name)| name.clone()).collect();
        self.nonce += 1;
        let texts: Vec<_> =
            changed.iter().map(|(name, version)| (name.as_str(), version.to_string())).collect();
        let pairs: Vec<_> = texts.iter().map(|(name, version)| (*name, version.as_str())).collect();
        let removed_names: Vec<_> = removed.iter().map(String::as_str).collect();
        let response = response(kind, &self.nonce.to_string(), &pairs, &removed_names);
        let changed: Vec<_> = changed
            .into_iter()
            .map(|(name, version)| ((endpoint, name.clone()), *version))
            .collect();
        self.sent.extend(changed);
        for name in removed {
            self.sent.remove(&(endpoint, name));
        }
        response
    }
}

/// What the proxy holds: a stand-in for compiled resources.
#[derive(Default)]
struct Held {
    clusters: BTreeMap<String, String>,
    endpoints: BTreeMap<String, String>,
}

impl Held {
    fn exchange(
        &mut self,
        session: &mut Session,
        model: &mut Model,
        endpoint: bool,
        refuse: Option<u8>,
    ) {
        let (update, reply) = session.received(model.push(endpoint));
        let update = update.unwrap();
        let table = if endpoint { &mut self.endpoints } else { &mut self.clusters };
        let mut rejections = Vec::new();
        for one in &update.changed {
            if refuse.is_some_and(|digit| one.name == name(digit)) {
                rejections.push(rejection(update.kind, &one.name));
                // A control plane resends refused content only when it changes.
                continue;
            }
            table.insert(one.name.clone(), one.version.clone());
        }
        for gone in &update.removed {
            table.remove(gone);
        }
        let wanted: BTreeSet<String> = self.clusters.keys().cloned().collect();
        self.endpoints.retain(|name, _| wanted.contains(name));
        let needs = Needs { endpoints: wanted, ..Default::default() };
        for request in session.applied(reply, &rejections, &needs) {
            assert!(request.node.is_none());
            model.heard(&request);
        }
    }
}

fn name(digit: u8) -> String {
    format!("n{digit}")
}

#[derive(Clone, Debug)]
enum Event {
    SetCluster(u8),
    DropCluster(u8),
    SetEndpoints(u8),
    Push { endpoint: bool, refuse: Option<u8> },
    Reconnect,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..4u8).prop_map(Event::SetCluster),
        (0..4u8).prop_map(Event::DropCluster),
        (0..4u8).prop_map(Event::SetEndpoints),
        (any::<bool>(), proptest::option::of(0..4u8))
            .prop_map(|(endpoint, refuse)| Event::Push { endpoint, refuse }),
        Just(Event::Reconnect),
    ]
}

proptest! {
    #[test]
    fn after_any_history_a_quiet_stream_holds_exactly_what_is_served(events in proptest::collection::vec(event(), 0..60)) {
        let (mut session, mut model, mut held) = (Session::new(node()), Model::default(), Held::default());
        model.connected(&session.connected());
        let mut clock = 0;
        for event in events {
            clock += 1;
            match event {
                Event::SetCluster(digit) => { model.clusters.insert(name(digit), clock); }
                Event::DropCluster(digit) => { model.clusters.remove(&name(digit)); }
                Event::SetEndpoints(digit) => { model.endpoints.insert(name(digit), clock); }
                Event::Push { endpoint, refuse } => held.exchange(&mut session, &mut model, endpoint, refuse),
                Event::Reconnect => model.connected(&session.connected()),
            }
        }
        // A new stream makes up for refusals, which the model does not repeat.
        model.connected(&session.connected());
        for endpoint in [false, true, false, true] {
            held.exchange(&mut session, &mut model, endpoint, None);
        }
        let served = |table: &BTreeMap<String, u32>| -> BTreeMap<String, String> {
            table.iter().map(|(name, version)| (name.clone(), version.to_string())).collect()
        };
        prop_assert_eq!(&held.clusters, &served(&model.clusters));
        let mut endpoints = served(&model.endpoints);
        endpoints.retain(|name, _| model.clusters.contains_key(name));
        prop_assert_eq!(&held.endpoints, &endpoints);
        prop_assert_eq!(&model.subscribed, &model.clusters.keys().cloned().collect::<BTreeSet<_>>());
    }
}

#[test]
fn what_a_refusal_has_closed_is_claimed_by_a_version_that_nobody_has_made() {
    let mut session = Session::new(node());
    let mut answer = |version: &str, closed: Option<bool>| {
        let (_, reply) =
            session.received(response(ResourceType::Cluster, "n", &[("c", version)], &[]));
        let refused =
            closed.map(|closed| Rejection { closed, ..rejection(ResourceType::Cluster, "c") });
        let _ = session.applied(reply, refused.as_slice(), &Needs::default());
        session.connected()[0].initial_resource_versions.get("c").cloned()
    };
    assert_eq!(answer("1", None).as_deref(), Some("1"));
    assert_eq!(answer("2", Some(false)).as_deref(), Some("1"));
    assert_eq!(answer("3", Some(true)).as_deref(), Some(CLOSED));
    assert_eq!(answer("1", None).as_deref(), Some("1"));
}
