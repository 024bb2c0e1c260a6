//! Who is connected, what each proxy runs, and what it refused: a sink that the REST API reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use ferromesh_proto::{ResourceType, SpiffeId, Version};
use ferromesh_xds_translator::{debug, diagnostic::Diagnostic, ir::ObjectId, plan::ViewKey, view::View};
use serde::Serialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::watch;

use crate::ads::{Refusal, Variant};

const POISONED: &str = "no code panics while it holds this lock";

/// Every connected proxy.
#[derive(Default, Debug)]
pub struct Proxies {
    streams: Mutex<BTreeMap<u64, Arc<Proxy>>>,
    complaints: watch::Sender<()>,
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
    /// Which variant of the protocol it speaks.
    pub variant: Variant,
    /// Since when it is connected.
    pub since: SystemTime,
    state: Mutex<State>,
    complaints: watch::Sender<()>,
}

/// Who refuses what an object was translated to.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Refused {
    /// The proxies: `NAME.NAMESPACE` where their id says so. Not empty.
    pub proxies: BTreeSet<String>,
    /// What they say, each once.
    pub findings: Vec<Diagnostic>,
}

#[derive(Default, Debug)]
struct State {
    views: Vec<Arc<ViewKey>>,
    sync: [Sync; ResourceType::ALL.len()],
    refusals: [Vec<Diagnostic>; ResourceType::ALL.len()],
    secrets: Vec<Arc<str>>,
}

/// How far a proxy is with one type.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
#[serde(tag = "state")]
pub enum Sync {
    /// It was sent nothing, for it asked for nothing or there is nothing.
    #[default]
    #[serde(rename = "NOT SENT")]
    NotSent,
    /// It has not answered the newest response yet.
    #[serde(rename = "STALE")]
    Stale {
        /// The version on its way.
        #[serde(serialize_with = "as_text")]
        version: Version,
    },
    /// It runs the newest.
    #[serde(rename = "SYNCED")]
    Synced {
        /// The version it runs.
        #[serde(serialize_with = "as_text")]
        version: Version,
    },
    /// It refused the newest and runs something older.
    #[serde(rename = "NACK")]
    Nack {
        /// Its words.
        message: String,
        /// What it names as the reason; may be empty.
        resources: Vec<Arc<str>>,
        /// The refused version.
        #[serde(serialize_with = "as_text")]
        version: Version,
        /// When, as RFC 3339.
        at: String,
    },
}

fn as_text<S: serde::Serializer>(version: &Version, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(version)
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
    /// Protocol variant.
    pub variant: Variant,
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
        if self.proxy.state().refusals.iter().any(|of_type| !of_type.is_empty()) {
            self.proxies.complaints.send_replace(());
        }
    }
}

impl Proxies {
    /// Lists a stream for as long as the result lives.
    pub fn register(self: &Arc<Self>, arrival: Arrival, now: SystemTime) -> Registration {
        let Arrival { stream, id, kind, namespace, identity, remote, variant } = arrival;
        let proxy = Arc::new(Proxy {
            stream,
            id,
            kind,
            namespace,
            identity,
            remote,
            variant,
            since: now,
            state: Mutex::default(),
            complaints: self.complaints.clone(),
        });
        self.streams.lock().expect(POISONED).insert(stream, proxy.clone());
        Registration { proxies: self.clone(), proxy }
    }

    /// Every stream, oldest first.
    pub fn list(&self) -> Vec<ProxyStatus> {
        self.all().iter().map(|p| p.status()).collect()
    }

    /// The newest stream of a proxy: by its node id, or by `NAME.NAMESPACE`.
    pub fn find(&self, id: &str) -> Option<Arc<Proxy>> {
        let named = |p: &&Arc<Proxy>| p.id == id || p.short_name() == id;
        self.all().iter().rev().find(named).cloned()
    }

    /// What proxies refused and have not accepted another version of since.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let refusals = self.all().into_iter().flat_map(|p| p.state().refusals.concat());
        let mut unique: Vec<Diagnostic> = Vec::new();
        refusals.for_each(|d| {
            // A hundred replicas refuse for one reason: once is enough.
            if !unique.iter().any(|u| (&u.object, &u.message) == (&d.object, &d.message)) {
                unique.push(d);
            }
        });
        unique
    }

    /// The same by object, with who refuses; what no object is to blame for is left out.
    pub fn refused(&self) -> BTreeMap<ObjectId, Refused> {
        let mut refused: BTreeMap<ObjectId, Refused> = BTreeMap::new();
        for proxy in self.all() {
            for finding in proxy.state().refusals.iter().flatten() {
                let Some(id) = &finding.object else { continue };
                let entry = refused.entry(id.clone()).or_default();
                entry.proxies.insert(proxy.short_name().to_owned());
                if !entry.findings.iter().any(|f| f.message == finding.message) {
                    entry.findings.push(finding.clone());
                }
            }
        }
        refused
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
    /// `NAME.NAMESPACE`; the whole id where it is of another form.
    fn short_name(&self) -> &str {
        self.id.split('~').nth(2).unwrap_or(&self.id)
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
        if !std::mem::take(&mut state.refusals[kind.index()]).is_empty() {
            self.complaints.send_replace(());
        }
        let sync = &mut state.sync[kind.index()];
        if let Sync::Stale { version } | Sync::Nack { version, .. } = *sync {
            *sync = Sync::Synced { version };
        }
    }

    /// It refused the newest response.
    pub fn refused(&self, refusal: &Refusal, diagnostics: Vec<Diagnostic>, now: SystemTime) {
        let mut state = self.state();
        state.refusals[refusal.kind.index()] = diagnostics;
        self.complaints.send_replace(());
        let sync = &mut state.sync[refusal.kind.index()];
        let version = match *sync {
            Sync::Stale { version } | Sync::Synced { version } | Sync::Nack { version, .. } => version,
            Sync::NotSent => Version::default(),
        };
        let (message, resources) = (refusal.message.clone(), refusal.resources.clone());
        *sync = Sync::Nack { message, resources, version, at: rfc3339(now) };
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
            protocol: match self.variant {
                Variant::Sotw => "sotw",
                Variant::Delta => "delta",
            },
            connected_since: rfc3339(self.since),
            sync: ResourceType::ALL.into_iter().map(|k| (k.short_name(), state.sync[k.index()].clone())).collect(),
            views: state.views.clone(),
        }
    }

    /// What it is sent, as canonical protobuf JSON, given its views; secrets by name only.
    pub fn dump(&self, views: &[Arc<View>]) -> Value {
        let section = |kind: ResourceType| {
            let mut resources: BTreeMap<&str, Value> = BTreeMap::new();
            for resource in views.iter().flat_map(|v| v.tables[kind.index()].values()) {
                let body = debug::to_json(kind, &resource.body);
                let shown = body.unwrap_or_else(|e| json!({ "name": resource.name.as_ref(), "error": e.to_string() }));
                resources.entry(&resource.name).or_insert(shown);
            }
            Value::Array(resources.into_values().collect())
        };
        json!({
            "listeners": section(ResourceType::Listener),
            "routes": section(ResourceType::Route),
            "clusters": section(ResourceType::Cluster),
            "endpoints": section(ResourceType::Endpoint),
            "secrets": self.state().secrets,
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect(POISONED)
    }
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(stream: u64, id: &str) -> Arrival {
        Arrival {
            stream,
            id: id.to_owned(),
            kind: "sidecar",
            namespace: "shop".into(),
            identity: None,
            remote: None,
            variant: Variant::Delta,
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
        let refusal = Refusal {
            kind: ResourceType::Cluster,
            resources: vec!["c".into()],
            message: "no".into(),
            accepted_version: String::new(),
        };
        proxy.sent(ResourceType::Cluster, Version(2));
        proxy.refused(&refusal, vec![], SystemTime::UNIX_EPOCH);
        let json = serde_json::to_value(state()).expect("JSON");
        assert_eq!(json["state"], "NACK");
        assert_eq!(json["version"], "0000000000000002");
        assert_eq!(json["at"], "1970-01-01T00:00:00Z");
    }
}
