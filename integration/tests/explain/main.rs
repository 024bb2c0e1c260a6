//! What `ferromesh explain` says of random requests in random meshes, beside what a real Envoy does
//! with them: status, route, cluster, endpoint, and what the server's side says.
#![cfg(feature = "e2e")]

mod authorizer;
mod block;
mod calls;
mod credentials;
mod gateways;
mod mesh;
mod policies;
mod rules;
mod site;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};

use ferromesh_integration::paths;
use futures_util::{StreamExt, stream};

use crate::{
    authorizer::Authorizer,
    block::Block,
    calls::Call,
    credentials::Credentials,
    mesh::{Dice, Mesh},
    site::Site,
    verdict::{Outcome, predict},
};

/// Disagreements that are printed in full.
const SHOWN: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_does_what_is_explained() {
    let settings = paths::explain_settings();
    println!(
        "{} requests, {} configurations, FERROMESH_SEED={}",
        settings.requests, settings.configurations, settings.seed
    );
    let folder = tempfile::tempdir().expect("a directory");
    let credentials = Credentials::make(folder.path());
    let block = Block::claim();
    site::serve_application(&block, &credentials).await;
    let authorizer = Authorizer::serve(block.authorizer()).await;
    let mut tally = Tally::default();
    let mut disagreements = Vec::new();
    let configurations = u64::try_from(settings.configurations).expect("a number");
    let each = usize::try_from(settings.requests.div_ceil(configurations)).expect("a number");
    for configuration in 0..configurations {
        let mut dice = Dice::new(settings.seed, configuration);
        let mesh = Mesh::random(&mut dice, &block, &credentials);
        let calls: Vec<Call> =
            (0..each).map(|number| Call::random(&mut dice, &mesh, &credentials, number)).collect();
        let predicted = predict(&mesh, &calls);
        let site = Site::start(&block, &mesh, &credentials);
        let made = calls
            .iter()
            .zip(&predicted)
            .map(|(call, p)| site.call(call, p.destination, &credentials));
        let statuses: Vec<Option<u16>> = stream::iter(made).buffered(16).collect().await;
        let logged = site.logged(&calls, &predicted);
        let asked = authorizer.take();
        for ((call, prediction), status) in calls.iter().zip(&predicted).zip(statuses) {
            let asked = asked.get(&call.number).copied().unwrap_or(0);
            let outcome = Outcome { status, seen: logged.get(&call.number), asked };
            tally.count(prediction.route.is_some(), prediction.kinds(&mesh, call, &outcome));
            if let Err(why) = prediction.agrees(call, &outcome) {
                disagreements.push(format!(
                    "\nconfiguration {configuration}: {why}\n  {}\n  explained: {}\n  \
                     Envoy: {status:?} {:?}, asked {asked} times\n{}",
                    call.line(),
                    prediction.text(),
                    outcome.seen,
                    mesh.text(),
                ));
            }
        }
    }
    println!("{tally:#?}");
    for disagreement in &disagreements {
        println!("{}", disagreement.lines().nth(1).unwrap_or_default());
    }
    let shown = disagreements.iter().take(SHOWN).fold(String::new(), |text, one| text + one);
    assert!(
        disagreements.is_empty(),
        "FERROMESH_SEED={}: {} disagreements\n{shown}",
        settings.seed,
        disagreements.len()
    );
    tally.assert_enough(settings.requests);
}

/// How often each thing decided: a test in which everything is refused proves little.
#[derive(Default, Debug)]
struct Tally {
    all: u64,
    /// Requests that a route took.
    routed: u64,
    /// By the kind of a condition of the route that took it, or of the refusal.
    decided: BTreeMap<&'static str, u64>,
}

/// Everything that must decide often.
const KINDS: [&str; 25] = [
    "exact",
    "prefix",
    "regex",
    "header exact",
    "header prefix",
    "header regex",
    "header present",
    "without header",
    "query",
    "method",
    "authority",
    "port",
    "gateway",
    "claim",
    "scheme",
    "preflight",
    "TLS at the gateway",
    "TLS passed on",
    "no certificate",
    "RBAC",
    "JWT",
    "mTLS",
    "CUSTOM",
    "ejection",
    "no endpoints",
];

impl Tally {
    fn count(&mut self, routed: bool, kinds: BTreeSet<&'static str>) {
        self.all += 1;
        self.routed += u64::from(routed);
        for kind in kinds {
            *self.decided.entry(kind).or_default() += 1;
        }
    }

    /// Of 10,000 requests, each kind decided 100; of fewer, once where that is to be expected.
    fn assert_enough(&self, requests: u64) {
        assert!(self.routed * 2 >= self.all, "one-sided: {self:#?}");
        let least = requests / 100;
        for kind in KINDS {
            let count = self.decided.get(kind).copied().unwrap_or(0);
            assert!(requests < 1000 || count >= least, "{kind} decided {count} times: {self:#?}");
        }
    }
}
