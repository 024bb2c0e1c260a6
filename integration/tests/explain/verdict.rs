//! What is explained of a request, and whether that is what was seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ferromesh_xds_translator::{
    compiler::{Change, Compiler},
    explain::{
        Asker, Branch, End, Explanation, Hop, Server, Signatures, Stage, Step, World, explain,
    },
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

/// What became of a request.
pub(crate) struct Outcome<'a> {
    /// Of the client's answer.
    pub(crate) status: Option<u16>,
    /// What the asker's proxy logged.
    pub(crate) seen: Option<&'a Seen>,
    /// How often somebody was asked about it.
    pub(crate) asked: usize,
}

impl Outcome<'_> {
    /// Whether every endpoint was taken out for its failures.
    fn is_ejected(&self) -> bool {
        self.seen.is_some_and(|seen| seen.details.contains("no_healthy_upstream"))
    }
}

/// What outcomes may rest on in these meshes, as the tests know how it turns out.
const KNOWN: [&str; 3] = [ANSWER, EJECTION, CERTIFICATE];
const ANSWER: &str = "the answer of";
const EJECTION: &str = "ejection is";
const CERTIFICATE: &str = "the client's certificate";

fn rests_on(depends: &[String], what: &str) -> bool {
    depends.iter().any(|on| on.starts_with(what))
}

/// How a request ends at a proxy once who is asked has answered, and whether he was asked.
fn settled(hop: &Hop, call: &Call) -> (End, bool) {
    let asked = rests_on(&hop.depends, ANSWER);
    let end = match asked && call.unwanted {
        true => End::Refused { status: Some(403), what: "by who is asked".to_owned() },
        false => hop.end.clone(),
    };
    (end, asked)
}

impl Prediction {
    /// Whether somebody reads the request, so that a log speaks of it.
    fn is_http(&self) -> bool {
        self.explanation.client.steps.iter().any(|step| step.stage == Stage::VirtualHost)
    }

    /// Whether the log speaks of the request.
    pub(crate) fn is_logged(&self, call: &Call) -> bool {
        self.is_http() && !self.lacks_certificate(call)
    }

    /// Whether the client ought to show a certificate, and shows none.
    fn lacks_certificate(&self, call: &Call) -> bool {
        rests_on(&self.explanation.client.depends, CERTIFICATE) && !call.certificate
    }

    /// As people read it.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(&self.explanation).expect("plain data")
    }

    /// Whether Envoy did what was explained.
    pub(crate) fn agrees(&self, call: &Call, outcome: &Outcome<'_>) -> Result<(), String> {
        let hops = self.explanation.hops().map(|hop| &hop.depends);
        let branches = self.explanation.branches.iter().map(|branch| &branch.depends);
        let mut all = hops.chain(branches).flatten();
        if let Some(on) = all.find(|on| !KNOWN.iter().any(|known| on.starts_with(known))) {
            return Err(format!("nothing in these meshes depends on {on}"));
        }
        if self.lacks_certificate(call) {
            return match (outcome.status, outcome.seen) {
                (None, None) => Ok(()),
                _ => Err("a client without certificate was let in".to_owned()),
            };
        }
        let (end, asked) = settled(&self.explanation.client, call);
        let asked = usize::from(asked);
        if self.is_http() {
            let seen = outcome.seen.ok_or("no line in the log")?;
            let counts = matches!(end, End::Passes | End::Answered { .. }) && !self.is_preflight();
            if !self.has_route(&seen.route) && counts {
                return Err(format!("route {:?}, and Envoy took {}", self.route, seen.route));
            }
        }
        if end != End::Passes {
            return told(asked, outcome).and(ended(&end, outcome.status));
        }
        match outcome.seen.filter(|_| self.is_http()) {
            Some(seen) => self.forwarded(call, outcome, seen, asked),
            None => self.bytes(call, outcome),
        }
    }

    /// Unnamed routes are told by their number.
    fn has_route(&self, seen: &str) -> bool {
        let route = self.route.as_deref().unwrap_or("-");
        route == seen || route.starts_with('#') && seen == "-"
    }

    fn is_preflight(&self) -> bool {
        self.explanation.client.steps.last().is_some_and(|step| step.name == "cors")
    }

    /// Of a request that goes on to a cluster. `asked`: how often somebody was asked before.
    fn forwarded(
        &self,
        call: &Call,
        outcome: &Outcome<'_>,
        seen: &Seen,
        asked: usize,
    ) -> Result<(), String> {
        let branches = &self.explanation.branches;
        let Some(branch) = branches.iter().find(|branch| branch.cluster == seen.cluster) else {
            // A cluster that is not there is not named.
            let missing = |b: &&Branch| b.steps.len() == 1 && b.end != End::Passes;
            return match branches.iter().find(missing).filter(|_| seen.cluster == "-") {
                Some(branch) => ended(&branch.end, outcome.status),
                None => Err(format!("Envoy went to cluster {}", seen.cluster)),
            };
        };
        if branch.end != End::Passes {
            return told(asked, outcome).and(ended(&branch.end, outcome.status));
        }
        if outcome.is_ejected() && rests_on(&branch.depends, EJECTION) {
            return told(asked, outcome);
        }
        let before = |server: &&Server| server.endpoints.contains(&seen.host);
        let Some(server) = branch.servers.iter().find(before) else {
            let unknown = seen.cluster == "PassthroughCluster";
            return unknown.then_some(()).ok_or(format!("Envoy went to {}", seen.host));
        };
        let (end, more) = settled(&server.hop, call);
        told(asked + usize::from(more), outcome)?;
        match end {
            // Where the client was going, nobody may be.
            End::Passes if seen.cluster == "PassthroughCluster" => Ok(()),
            End::Passes if outcome.status == Some(call.status) => Ok(()),
            End::Passes => Err("it should have reached the application".to_owned()),
            end => ended(&end, outcome.status),
        }
    }

    /// Of bytes that nobody reads on the way.
    fn bytes(&self, call: &Call, outcome: &Outcome<'_>) -> Result<(), String> {
        let status = outcome.status;
        let at = |server: &Server| {
            let (end, asked) = settled(&server.hop, call);
            let as_told = told(usize::from(asked), outcome).is_ok();
            as_told
                && (end == End::Passes && status == Some(call.status)
                    || end != End::Passes && ended(&end, status).is_ok())
        };
        let passes = |branch: &Branch| match &branch.end {
            End::Passes if branch.cluster == "PassthroughCluster" => status.is_none(),
            // The client is told of an ejection by the end of its connection.
            End::Passes if status.is_none() && rests_on(&branch.depends, EJECTION) => true,
            End::Passes => branch.servers.iter().any(at),
            _ => status.is_none(),
        };
        let any = self.explanation.branches.iter().any(passes);
        any.then_some(()).ok_or("bytes went another way".to_owned())
    }

    /// What decided: conditions of the route that took it, what refused it, and what else is rare.
    pub(crate) fn kinds(
        &self,
        mesh: &Mesh,
        call: &Call,
        outcome: &Outcome<'_>,
    ) -> BTreeSet<&'static str> {
        let rule = self.route.as_ref().and_then(|name| mesh.kinds.get(name));
        let mut kinds: BTreeSet<&'static str> = rule.into_iter().flatten().copied().collect();
        if self.lacks_certificate(call) {
            kinds.insert("no certificate");
            return kinds;
        }
        let client = &self.explanation.client;
        kinds.extend(refusal(client, "no chain"));
        let servers = self.explanation.branches.iter().flat_map(|branch| &branch.servers);
        kinds.extend(servers.filter_map(|server| refusal(&server.hop, "mTLS")));
        let unwanted = |hop: &Hop| settled(hop, call).1 && call.unwanted;
        kinds.extend(self.explanation.hops().any(unwanted).then_some("CUSTOM"));
        let nobody = |branch: &Branch| matches!(branch.end, End::Nowhere { .. });
        kinds.extend(self.explanation.branches.iter().any(nobody).then_some("no endpoints"));
        let ejects = |branch: &Branch| rests_on(&branch.depends, EJECTION);
        let ejected = outcome.is_ejected() && self.explanation.branches.iter().any(ejects);
        kinds.extend(ejected.then_some("ejection"));
        kinds.extend(self.is_preflight().then_some("preflight"));
        let named = |step: &Step| step.stage == Stage::Tls && !step.name.is_empty();
        kinds.extend(client.steps.iter().any(named).then_some("TLS at the gateway"));
        let passed = call.request.secure && client.end == End::Passes && !self.is_http();
        kinds.extend((passed && outcome.status.is_some()).then_some("TLS passed on"));
        kinds
    }
}

/// What refuses at a proxy; `unmatched`: that no filter chain takes the connection.
fn refusal(hop: &Hop, unmatched: &'static str) -> Option<&'static str> {
    let last = hop.steps.last().filter(|_| matches!(hop.end, End::Refused { .. }))?;
    match (&*last.name, last.stage) {
        ("access", _) => Some("RBAC"),
        ("token", _) => Some("JWT"),
        (_, Stage::FilterChain | Stage::Tls) => Some(unmatched),
        _ => None,
    }
}

fn told(asked: usize, outcome: &Outcome<'_>) -> Result<(), String> {
    let expected = format!("asked {asked} times, and not {}", outcome.asked);
    (asked == outcome.asked).then_some(()).ok_or(expected)
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
