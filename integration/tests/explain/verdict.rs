//! What is explained of a request, and whether that is what was seen.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ferromesh_xds_translator::{
    compiler::{Change, Compiler},
    explain::{Asker, Branch, End, Explanation, Server, Signatures, Stage, World, explain},
    ir::{MeshDefaults, WorkloadId},
    plan::ViewKey,
};
use serde_json::Value;

use crate::{
    calls::Call,
    mesh::Mesh,
    site::{Seen, nodes, parsed},
};

/// What is explained of a request.
pub(crate) struct Prediction {
    explanation: Explanation,
    /// Where the client was told that the host is.
    pub(crate) destination: Option<IpAddr>,
    /// The route that takes it.
    pub(crate) route: Option<String>,
}

/// Explains every request.
pub(crate) fn predict(mesh: &Mesh, calls: &[Call]) -> Vec<Prediction> {
    let mut compiler = Compiler::new(MeshDefaults::default());
    let objects = parsed(mesh).objects;
    compiler.apply(objects.into_iter().map(|object| Change::Upsert(Box::new(object))).collect());
    let mut running: BTreeMap<WorkloadId, Vec<Arc<ViewKey>>> = BTreeMap::new();
    for node in nodes(mesh) {
        let class = compiler.classify(&node).expect("a class");
        running.insert(node.workload.clone(), class.views);
    }
    let world = World {
        signatures: &Es256,
        locate: &|_, _| None,
        running: &|workload| running.get(workload).cloned(),
        refused: &BTreeMap::new(),
    };
    let asker = match mesh.client {
        Some(namespace) => Asker::From(format!("web-0.{namespace}")),
        None => Asker::Gateway("edge.istio-system".to_owned()),
    };
    let mut one = |call: &Call| {
        let explanation = explain(&mut compiler, &world, &asker, &call.request)
            .unwrap_or_else(|error| panic!("{}: {error}", call.line()));
        let named = |stage: Stage| {
            let steps = explanation.client.steps.iter();
            let mut of = steps.filter(move |step| step.stage == stage && !step.name.is_empty());
            of.next().map(|step| step.name.clone())
        };
        Prediction {
            destination: named(Stage::Address).and_then(|name| name.parse().ok()),
            route: named(Stage::Route),
            explanation,
        }
    };
    calls.iter().map(&mut one).collect()
}

impl Prediction {
    /// Whether somebody reads the request, so that a log speaks of it.
    pub(crate) fn is_http(&self) -> bool {
        self.explanation.client.steps.iter().any(|step| step.stage == Stage::VirtualHost)
    }

    /// As people read it.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(&self.explanation).expect("plain data")
    }

    /// Whether Envoy did what was explained. `status`: of the client's answer.
    pub(crate) fn agrees(&self, status: Option<u16>, seen: Option<&Seen>) -> Result<(), String> {
        let client = &self.explanation.client;
        if let Some(on) = client.depends.first() {
            return Err(format!("nothing in these meshes depends on {on}"));
        }
        if self.is_http() {
            let seen = seen.ok_or("no line in the log")?;
            let route = self.route.clone().unwrap_or_else(|| "-".to_owned());
            // Unnamed routes are told by their number.
            let same = route == seen.route || route.starts_with('#') && seen.route == "-";
            let counts = matches!(client.end, End::Passes | End::Answered { .. });
            if !same && counts {
                return Err(format!("route {route}, and Envoy took {}", seen.route));
            }
        }
        match &client.end {
            End::Passes => {}
            end => return ended(end, status),
        }
        let Some(seen) = seen.filter(|_| self.is_http()) else { return self.bytes(status) };
        let branches = &self.explanation.branches;
        let Some(branch) = branches.iter().find(|branch| branch.cluster == seen.cluster) else {
            // A cluster that is not there is not named.
            let missing = |b: &&Branch| b.steps.len() == 1 && b.end != End::Passes;
            return match branches.iter().find(missing).filter(|_| seen.cluster == "-") {
                Some(branch) => ended(&branch.end, status),
                None => Err(format!("Envoy went to cluster {}", seen.cluster)),
            };
        };
        if branch.end != End::Passes {
            return ended(&branch.end, status);
        }
        let before = |server: &&Server| server.endpoints.contains(&seen.host);
        match branch.servers.iter().find(before) {
            None if seen.cluster == "PassthroughCluster" => Ok(()),
            None => Err(format!("Envoy went to {}", seen.host)),
            Some(server) if server.hop.end == End::Passes => {
                let reached = status == Some(200) || seen.cluster == "PassthroughCluster";
                reached.then_some(()).ok_or("it should have reached the application".to_owned())
            }
            Some(server) => ended(&server.hop.end, status),
        }
    }

    /// Of bytes that nobody reads on the way.
    fn bytes(&self, status: Option<u16>) -> Result<(), String> {
        let unknown = |branch: &Branch| branch.cluster == "PassthroughCluster";
        let passes = |branch: &Branch| match &branch.end {
            End::Passes if unknown(branch) => status.is_none(),
            End::Passes => branch.servers.iter().any(|server| match &server.hop.end {
                End::Passes => status == Some(200),
                end => ended(end, status).is_ok(),
            }),
            _ => status.is_none(),
        };
        let any = self.explanation.branches.iter().any(passes);
        any.then_some(()).ok_or("bytes went another way".to_owned())
    }

    /// What decided: conditions of the route that took it, and what refused it.
    pub(crate) fn kinds(&self, mesh: &Mesh) -> Vec<&'static str> {
        let rule = self.route.as_ref().and_then(|name| mesh.kinds.get(name));
        let mut kinds: Vec<&'static str> = rule.cloned().unwrap_or_default();
        kinds.sort_unstable();
        kinds.dedup();
        let refused = self.explanation.hops().filter(|hop| matches!(hop.end, End::Refused { .. }));
        let by: Vec<&'static str> = refused
            .filter_map(|hop| {
                let last = hop.steps.last()?;
                match (&*last.name, last.stage) {
                    ("access", _) => Some("RBAC"),
                    ("token", _) => Some("JWT"),
                    (_, Stage::FilterChain | Stage::Tls) => Some("mTLS"),
                    _ => None,
                }
            })
            .collect();
        kinds.extend(by);
        let nobody = |branch: &Branch| matches!(branch.end, End::Nowhere { .. });
        kinds.extend(self.explanation.branches.iter().any(nobody).then_some("no endpoints"));
        kinds
    }
}

fn ended(end: &End, status: Option<u16>) -> Result<(), String> {
    let expected = match end {
        End::Passes => Some(200),
        End::Answered { status, .. } => Some(*status),
        End::Refused { status, .. } | End::Nowhere { status, .. } => *status,
    };
    (expected == status).then_some(()).ok_or(format!("{expected:?} was to be the status"))
}

/// Verifies what the issuer of these tests signs.
struct Es256;

impl Signatures for Es256 {
    fn verify(&self, token: &str, keys: &str) -> bool {
        let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        let keys: Value = serde_json::from_str(keys).unwrap_or_default();
        let part = |name: &str| decoded(keys["keys"][0][name].as_str().unwrap_or_default());
        let point = [vec![4], part("x"), part("y")].concat();
        let Some((signed, signature)) = token.rsplit_once('.') else { return false };
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        key.verify(signed.as_bytes(), &decoded(signature)).is_ok()
    }

    fn now(&self) -> u64 {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock");
        since.as_secs()
    }
}
