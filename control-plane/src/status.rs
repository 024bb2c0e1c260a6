//! Who is connected, what each proxy runs, and what it refused: a sink that the REST API reads.
//!
//! A refusal stands until the proxy accepts the resource or it is gone ([`standing`]), also over a
//! broken connection: a proxy that comes back within [`ABSENCE`] still refuses what it refused,
//! unless its new stream says otherwise.

mod standing;
mod sync;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use ferromesh_proto::{AGENT, ResourceType, SpiffeId, Version, resource::ServedFrom};
use ferromesh_xds_translator::{
    debug, diagnostic::Diagnostic, ir::ObjectId, plan::ViewKey, view::View,
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

pub use self::sync::Sync;
use self::{standing::Standing, sync::rfc3339};
use crate::{metrics::Metrics, nack::Nack, pipeline::Blame};

/// How long the refusals of a proxy without a stream count: longer than Envoy waits before it
/// connects again (30 s).
pub const ABSENCE: Duration = Duration::from_secs(60);

const POISONED: &str = "no code panics while it holds this lock";

/// Every connected proxy.
#[derive(Default, Debug)]
pub struct Proxies {
    streams: Mutex<BTreeMap<u64, Arc<Proxy>>>,
    absent: Mutex<BTreeMap<String, Absent>>,
    complaints: watch::Sender<()>,
}

/// A proxy whose stream ended while it refused something.
#[derive(Debug)]
struct Absent {
    standing: Standing,
    until: Instant,
}

/// One stream of a proxy.
#[derive(Debug)]
pub struct Proxy {
    /// The stream's number; unique in this process.
    pub stream: u64,
    /// The proxy's node id.
    pub id: String,
    /// `sidecar` or `router`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// What it proved; `None` on the plaintext port, where it is believed.
    pub identity: Option<SpiffeId>,
    /// Where it calls from.
    pub remote: Option<SocketAddr>,
    /// The variant of the protocol that it speaks: `sotw` or `delta`.
    pub protocol: &'static str,
    /// The program that it says it is, with its version; may be empty.
    pub version: String,
    /// Since when it is connected.
    pub since: SystemTime,
    state: Mutex<ProxyState>,
    complaints: watch::Sender<()>,
}

/// Who refuses what an object was translated to.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ObjectRefusal {
    /// The proxies: `NAME.NAMESPACE` where their id says so. Not empty.
    pub proxies: BTreeSet<String>,
    /// What they say, each once.
    pub findings: Vec<Diagnostic>,
}

#[derive(Default, Debug)]
struct ProxyState {
    views: Vec<Arc<ViewKey>>,
    sync: [Sync; ResourceType::ALL.len()],
    refusals: Standing,
    secrets: Vec<Arc<str>>,
}

/// A proxy as the REST API shows it.
#[derive(Clone, Debug, Serialize)]
pub struct ProxyStatus {
    /// Node id.
    pub id: String,
    /// `sidecar` or `router`.
    pub kind: &'static str,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Proven SPIFFE id; absent on the plaintext port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Address it calls from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<SocketAddr>,
    /// `sotw` or `delta`.
    pub protocol: &'static str,
    /// The program that it says it is, with its version; may be empty.
    pub version: String,
    /// Connected since, as RFC 3339.
    pub connected_since: String,
    /// By short name: `CDS`, `EDS`, `LDS`, `RDS`, `SDS`.
    pub sync: BTreeMap<&'static str, Sync>,
    /// The views it gets, by the position of their type in the key (debugging).
    pub views: Vec<Arc<ViewKey>>,
}

/// What is known of a stream when it begins.
#[derive(Debug)]
pub struct Arrival {
    /// The stream's number.
    pub stream: u64,
    /// Node id.
    pub id: String,
    /// `sidecar` or `router`.
    pub kind: &'static str,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Proven identity.
    pub identity: Option<SpiffeId>,
    /// Peer address.
    pub remote: Option<SocketAddr>,
    /// `sotw` or `delta`.
    pub protocol: &'static str,
    /// The program that it says it is, with its version; may be empty.
    pub version: String,
}

/// Keeps a proxy in the list until it is dropped.
#[derive(Debug)]
pub struct Registration {
    proxies: Arc<Proxies>,
    proxy: Arc<Proxy>,
}

impl std::ops::Deref for Registration {
    type Target = Proxy;
    fn deref(&self) -> &Proxy {
        &self.proxy
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.proxies.streams.lock().expect(POISONED).remove(&self.proxy.stream);
        let standing = std::mem::take(&mut self.proxy.state().refusals);
        // Whoever is back already speaks for itself.
        let is_back = self.proxies.all().iter().any(|other| other.id == self.proxy.id);
        if !standing.is_empty() && !is_back {
            let absent = Absent { standing, until: Instant::now() + ABSENCE };
            self.proxies.absent.lock().expect(POISONED).insert(self.proxy.id.clone(), absent);
            self.proxies.complaints.send_replace(());
        }
    }
}

impl Proxies {
    /// Lists a stream for as long as the result lives. What the proxy refused when it left stands.
    pub fn register(self: &Arc<Self>, arrival: Arrival, now: SystemTime) -> Registration {
        let Arrival { stream, id, kind, namespace, identity, remote, protocol, version } = arrival;
        let absent = self
            .absent
            .lock()
            .expect(POISONED)
            .remove(&id)
            .filter(|absent| absent.until > Instant::now());
        let refusals = absent.map(|absent| absent.standing).unwrap_or_default();
        let proxy = Arc::new(Proxy {
            stream,
            id,
            kind,
            namespace,
            identity,
            remote,
            protocol,
            version,
            since: now,
            state: Mutex::new(ProxyState { refusals, ..ProxyState::default() }),
            complaints: self.complaints.clone(),
        });
        self.streams.lock().expect(POISONED).insert(stream, proxy.clone());
        Registration { proxies: self.clone(), proxy }
    }

    /// Every stream of a proxy, oldest first.
    pub fn list(&self) -> Vec<ProxyStatus> {
        self.proxies().map(|p| p.status()).collect()
    }

    /// The same with their numbers, which grow.
    pub fn numbered(&self) -> Vec<(u64, ProxyStatus)> {
        self.proxies().map(|p| (p.stream, p.status())).collect()
    }

    /// The newest stream of a proxy: by its node id, or by `NAME.NAMESPACE`.
    pub fn find(&self, id: &str) -> Option<Arc<Proxy>> {
        let named = |p: &Arc<Proxy>| p.id == id || p.short_name() == id;
        self.proxies().filter(named).last()
    }

    /// Every stream but those of agents, which ask for what is theirs beside their Envoys.
    fn proxies(&self) -> impl Iterator<Item = Arc<Proxy>> {
        self.all().into_iter().filter(|proxy| !proxy.version.starts_with(AGENT))
    }

    /// What proxies refused and have not accepted since.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut unique: Vec<Diagnostic> = Vec::new();
        self.each_standing(|_, standing| {
            for finding in standing.findings() {
                // A hundred replicas refuse for one reason: once is enough.
                if !unique
                    .iter()
                    .any(|u| (&u.object, &u.message) == (&finding.object, &finding.message))
                {
                    unique.push(finding.clone());
                }
            }
        });
        unique
    }

    /// The same by object, with who refuses; what no object is to blame for is left out.
    pub fn refused(&self) -> BTreeMap<ObjectId, ObjectRefusal> {
        let mut refused: BTreeMap<ObjectId, ObjectRefusal> = BTreeMap::new();
        self.each_standing(|id, standing| {
            for finding in standing.findings() {
                let Some(object) = &finding.object else { continue };
                let entry = refused.entry(object.clone()).or_default();
                entry.proxies.insert(short_name(id).to_owned());
                if !entry.findings.iter().any(|f| f.message == finding.message) {
                    entry.findings.push(finding.clone());
                }
            }
        });
        refused
    }

    /// The same by resource: each proxy that refuses it, with its words.
    pub fn refused_in_words(&self) -> BTreeMap<(ResourceType, Arc<str>), Vec<String>> {
        let mut refused: BTreeMap<_, Vec<String>> = BTreeMap::new();
        self.each_standing(|id, standing| {
            for (resource, words) in standing.words() {
                let entry = refused.entry(resource.clone()).or_default();
                entry.push(format!("{}: {words}", short_name(id)));
            }
        });
        refused
    }

    /// How many resources of a type are refused, each proxy counted by itself.
    pub fn refused_resources(&self, kind: ResourceType) -> usize {
        let mut count = 0;
        self.each_standing(|_, standing| count += standing.count(kind));
        count
    }

    /// Everybody who refuses something, with its node id: connected proxies, and those absent for a
    /// short time.
    fn each_standing(&self, mut take: impl FnMut(&str, &Standing)) {
        for proxy in self.all() {
            take(&proxy.id, &proxy.state().refusals);
        }
        let now = Instant::now();
        for (id, absent) in
            self.absent.lock().expect(POISONED).iter().filter(|(_, absent)| absent.until > now)
        {
            take(id, &absent.standing);
        }
    }

    /// Counts what is refused, and forgets proxies that have stayed away; never ends.
    pub async fn tend(&self, metrics: &Metrics) {
        let mut complaints = self.complaints();
        loop {
            complaints.mark_unchanged();
            self.count(metrics);
            let next =
                self.absent.lock().expect(POISONED).values().map(|absent| absent.until).min();
            let due = async {
                match next {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => self.forget(Instant::now()),
                _ = complaints.changed() => {}
            }
        }
    }

    fn count(&self, metrics: &Metrics) {
        for kind in ResourceType::ALL {
            metrics.refused(kind, self.refused_resources(kind));
        }
    }

    /// Forgets who should have come back before `now`.
    fn forget(&self, now: Instant) {
        self.absent.lock().expect(POISONED).retain(|_, absent| absent.until > now);
        self.complaints.send_replace(());
    }

    /// Changes whenever what proxies refuse may have.
    pub fn complaints(&self) -> watch::Receiver<()> {
        self.complaints.subscribe()
    }

    fn all(&self) -> Vec<Arc<Proxy>> {
        self.streams.lock().expect(POISONED).values().cloned().collect()
    }
}

impl Proxy {
    fn short_name(&self) -> &str {
        short_name(&self.id)
    }

    /// It gets these views from now on.
    pub fn views(&self, views: Vec<Arc<ViewKey>>) {
        self.state().views = views;
    }

    /// The keys of its views.
    pub fn view_keys(&self) -> Vec<Arc<ViewKey>> {
        self.state().views.clone()
    }

    /// It may have these secrets, by resource name.
    pub fn secrets(&self, names: Vec<Arc<str>>) {
        self.state().secrets = names;
    }

    /// It was sent a response.
    pub fn sent(&self, kind: ResourceType, version: Version) {
        self.state().sync[kind.index()] = Sync::Stale { version };
    }

    /// Whether some type was never sent.
    pub fn has_unsent(&self) -> bool {
        self.state().sync.contains(&Sync::NotSent)
    }

    /// It brought the newest of this type from an earlier stream, so nothing had to be sent.
    pub fn resumed(&self, kind: ResourceType, version: Version) {
        let mut state = self.state();
        let sync = &mut state.sync[kind.index()];
        if *sync == Sync::NotSent {
            *sync = Sync::Synced { version };
        }
    }

    /// It accepted the newest response.
    pub fn accepted(&self, kind: ResourceType) {
        let mut state = self.state();
        let sync = &mut state.sync[kind.index()];
        if let Sync::Stale { version } = *sync {
            *sync = Sync::Synced { version };
        }
    }

    /// It refused resources of the newest response, for which `blame` was found.
    pub fn refused(&self, nack: &Nack, blame: Vec<Blame>, now: SystemTime) {
        let mut state = self.state();
        let sync = &mut state.sync[nack.kind.index()];
        let version = match *sync {
            Sync::Stale { version } | Sync::Synced { version } | Sync::Nack { version, .. } => {
                version
            }
            Sync::NotSent => Version::default(),
        };
        *sync = Sync::Synced { version };
        state.refusals.refuse(nack, blame, version, now);
        drop(state);
        self.complaints.send_replace(());
    }

    /// Whether it refuses anything.
    pub fn refuses(&self) -> bool {
        !self.state().refusals.is_empty()
    }

    /// The resources that it refuses.
    pub fn refused_resources(&self) -> BTreeSet<(ResourceType, Arc<str>)> {
        self.state().refusals.resources()
    }

    /// Of what it refused, only this is neither accepted nor gone.
    pub fn still_refuses(&self, outstanding: &BTreeSet<(ResourceType, Arc<str>)>) {
        if self.state().refusals.keep(outstanding) {
            self.complaints.send_replace(());
        }
    }

    /// Its state now.
    pub fn status(&self) -> ProxyStatus {
        let state = self.state();
        ProxyStatus {
            id: self.id.clone(),
            kind: self.kind,
            namespace: self.namespace.clone(),
            identity: self.identity.as_ref().map(ToString::to_string),
            remote: self.remote,
            protocol: self.protocol,
            version: self.version.clone(),
            connected_since: rfc3339(self.since),
            sync: ResourceType::ALL
                .into_iter()
                .map(|kind| (kind.short_name(), state.sync_of(kind)))
                .collect(),
            views: state.views.clone(),
        }
    }

    /// What it is sent, as canonical protobuf JSON, given its views; secrets by name only.
    pub fn dump(&self, views: &[Arc<View>]) -> Value {
        let section = |kind: ResourceType| {
            let mut resources: BTreeMap<&str, Value> = BTreeMap::new();
            for resource in views.iter().flat_map(|v| v.tables[kind.index()].values()) {
                let body = debug::to_json(kind, &resource.body);
                let shown = body.unwrap_or_else(
                    |e| json!({ "name": resource.name.as_ref(), "error": e.to_string() }),
                );
                resources.entry(&resource.name).or_insert(shown);
            }
            Value::Array(resources.into_values().collect())
        };
        let sections = ResourceType::ALL.into_iter().map(|kind| {
            let resources = match kind.row().served_from {
                ServedFrom::Views => section(kind),
                ServedFrom::Secrets => json!(self.state().secrets),
            };
            (kind.row().section.to_owned(), resources)
        });
        Value::Object(sections.collect())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, ProxyState> {
        self.state.lock().expect(POISONED)
    }
}

impl ProxyState {
    /// A refusal that stands outweighs what was accepted beside it.
    fn sync_of(&self, kind: ResourceType) -> Sync {
        self.refusals.sync(kind).unwrap_or_else(|| self.sync[kind.index()].clone())
    }
}

/// `NAME.NAMESPACE`; the whole node id where it is of another form.
fn short_name(id: &str) -> &str {
    id.split('~').nth(2).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use ferromesh_xds_translator::{
        diagnostic::{Code, FieldPath},
        dialect::Kind,
    };

    use super::*;

    fn arrival(stream: u64, id: &str) -> Arrival {
        Arrival {
            stream,
            id: id.to_owned(),
            kind: "sidecar",
            namespace: "shop".into(),
            identity: None,
            remote: None,
            protocol: "delta",
            version: String::new(),
        }
    }

    #[test]
    fn a_proxy_is_found_by_id_or_name_while_it_is_connected() {
        let proxies = Arc::new(Proxies::default());
        let id = "sidecar~10.0.0.1~cart-0.shop~shop.svc.cluster.local";
        let registration = proxies.register(arrival(1, id), SystemTime::UNIX_EPOCH);
        assert!(proxies.find(id).is_some() && proxies.find("cart-0.shop").is_some());
        assert!(proxies.find("cart-0").is_none());
        drop(registration);
        assert!(proxies.list().is_empty());
    }

    fn nack(kind: ResourceType, names: &[&str]) -> (Nack, Vec<Blame>) {
        let names: Vec<Arc<str>> = names.iter().map(|name| (*name).into()).collect();
        let blame = |name: &Arc<str>| {
            let object = ObjectId {
                kind: Kind::VIRTUAL_SERVICE,
                namespace: "shop".into(),
                name: name.clone(),
            };
            let finding = Diagnostic::error(
                Code::RefusedByProxy,
                FieldPath::root(),
                format!("refused {name}"),
            );
            Blame { resource: Some(name.clone()), findings: vec![finding.object(object)] }
        };
        let blame = names.iter().map(blame).collect();
        let (resources, message) = (names.clone(), format!("no {}", names.join(" ")));
        (Nack { kind, resources, suspects: names, message, accepted_version: String::new() }, blame)
    }

    fn resources(of: &[(ResourceType, &str)]) -> BTreeSet<(ResourceType, Arc<str>)> {
        of.iter().map(|(kind, name)| (*kind, (*name).into())).collect()
    }

    fn blamed(proxies: &Proxies) -> String {
        let refused = proxies.refused();
        refused
            .iter()
            .map(|(id, r)| format!("{}:{}", id.name, r.proxies.len()))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn states_follow_what_was_sent_and_answered() {
        let proxies = Arc::new(Proxies::default());
        let proxy = proxies.register(arrival(1, "n"), SystemTime::UNIX_EPOCH);
        let state = || proxies.list()[0].sync["CDS"].clone();
        assert_eq!(state(), Sync::NotSent);
        proxy.sent(ResourceType::Cluster, Version(1));
        assert_eq!(state(), Sync::Stale { version: Version(1) });
        proxy.accepted(ResourceType::Cluster);
        assert_eq!(state(), Sync::Synced { version: Version(1) });
        proxy.sent(ResourceType::Cluster, Version(2));
        let (refused, blame) = nack(ResourceType::Cluster, &["c"]);
        proxy.refused(&refused, blame, SystemTime::UNIX_EPOCH);
        let json = serde_json::to_value(state()).expect("JSON");
        assert_eq!(
            (&json["state"], &json["version"]),
            (&json!("NACK"), &json!("0000000000000002"))
        );
        assert_eq!(
            (&json["resources"], &json["at"]),
            (&json!(["c"]), &json!("1970-01-01T00:00:00Z"))
        );
        proxy.sent(ResourceType::Cluster, Version(3));
        proxy.accepted(ResourceType::Cluster);
        assert!(matches!(state(), Sync::Nack { .. }), "others were accepted");
        proxy.still_refuses(&BTreeSet::new());
        assert_eq!(state(), Sync::Synced { version: Version(3) });
    }

    #[test]
    fn several_refusals_stand_side_by_side_and_each_is_taken_back_by_itself() {
        let proxies = Arc::new(Proxies::default());
        let proxy = proxies.register(arrival(1, "n"), SystemTime::UNIX_EPOCH);
        for (kind, names) in [(ResourceType::Route, ["a", "b"]), (ResourceType::Route, ["b", "c"])]
        {
            let (refused, blame) = nack(kind, &names);
            proxy.refused(&refused, blame, SystemTime::UNIX_EPOCH);
        }
        assert_eq!(blamed(&proxies), "a:1 b:1 c:1");
        let json = serde_json::to_value(&proxies.list()[0].sync["RDS"]).expect("JSON");
        assert_eq!(
            (&json["resources"], &json["message"]),
            (&json!(["a", "b", "c"]), &json!("no a b; no b c"))
        );
        proxy.still_refuses(&resources(&[(ResourceType::Route, "a"), (ResourceType::Route, "c")]));
        assert_eq!(blamed(&proxies), "a:1 c:1");
        assert_eq!(proxies.refused_resources(ResourceType::Route), 2);
    }

    #[test]
    fn a_proxy_that_is_away_for_a_moment_still_refuses_and_one_that_stays_away_does_not() {
        let (proxies, metrics) = (Arc::new(Proxies::default()), Metrics::new());
        let gauge = |expected: usize| {
            proxies.count(&metrics);
            let line = format!("mesh_refused_resources{{type=\"rds\"}} {expected}\n");
            assert!(metrics.render().contains(&line), "{line}");
        };
        let (refused, blame) = nack(ResourceType::Route, &["a"]);
        let proxy = proxies.register(arrival(1, "n"), SystemTime::UNIX_EPOCH);
        proxy.refused(&refused, blame, SystemTime::UNIX_EPOCH);
        drop(proxy);
        proxies.forget(Instant::now());
        assert_eq!(blamed(&proxies), "a:1");
        gauge(1);
        let back = proxies.register(arrival(2, "n"), SystemTime::UNIX_EPOCH);
        assert_eq!(back.refused_resources(), resources(&[(ResourceType::Route, "a")]));
        assert_eq!(blamed(&proxies), "a:1");
        drop(back);
        let mut complaints = proxies.complaints();
        complaints.mark_unchanged();
        proxies.forget(Instant::now() + ABSENCE);
        assert!(complaints.has_changed().expect("a sender"), "those who write statuses are told");
        assert_eq!(blamed(&proxies), "");
        gauge(0);
    }
}
