//! Envoy and our proxy behind the same configurations, with the same requests, byte by byte: same
//! statuses, same bytes at the application. Random, from a seed that is named when the test fails;
//! `FERROMESH_SEED` repeats it.
#![cfg(feature = "e2e")]

mod allowed;
mod answers;
mod application;
mod configuration;
mod dice;
mod exchange;
mod http1;
mod http1_grammar;
mod http2;
mod http2_grammar;
mod message;
mod outcome;
mod policy;
mod report;
mod rules;
mod shrink;
mod site;
mod syntax;
mod targets;

use std::time::Duration;

use ferromesh_integration::paths;
use futures_util::{StreamExt, stream};

use crate::{
    configuration::{Configuration, NORMALIZATIONS, Speech},
    dice::Dice,
    exchange::{Case, Request},
    outcome::{Aspect, Outcome},
    report::Report,
    site::{Proxy, Side},
};

/// How long a side may be silent before that is its outcome, and before it is when both are asked
/// again. Envoy says nothing for a second before it closes a connection that it has given up.
const PATIENCE: Duration = Duration::from_millis(1400);
const LONG_PATIENCE: Duration = Duration::from_secs(3);
/// How often a request has to show a difference.
const TRIES: usize = 5;
/// Requests under way at a time.
const AT_ONCE: usize = 24;
/// Configurations of one mesh.
const OF_ONE_MESH: usize = 40;

/// The two sides of one mesh.
pub(crate) struct Pair<'a> {
    seed: u64,
    configurations: &'a [Configuration],
    envoy: Side,
    ours: Side,
}

impl<'a> Pair<'a> {
    async fn start(seed: u64, configurations: &'a [Configuration], normalization: &str) -> Self {
        let (mut envoy, mut ours) = std::thread::scope(|scope| {
            let envoy = scope.spawn(|| Side::start(Proxy::Envoy, configurations, normalization));
            let ours = Side::start(Proxy::Ours, configurations, normalization);
            (envoy.join().expect("Envoy's side starts"), ours)
        });
        envoy.until_ready(configurations).await;
        ours.until_ready(configurations).await;
        Self { seed, configurations, envoy, ours }
    }

    /// The configuration that a request is for.
    pub(crate) fn configuration(&self, case: &Case) -> &'a Configuration {
        &self.configurations[case.configuration]
    }

    fn case(&self, number: u64) -> Case {
        let mut dice = Dice::new(self.seed, number);
        let configuration = dice.below(self.configurations.len());
        let of = &self.configurations[configuration];
        let http2 = dice.chance(if of.speech == Speech::Http2 { 60 } else { 25 });
        let (id, request) = if http2 {
            let (id, request) = http2_grammar::random(&mut dice, of, number);
            (id, Request::Http2(request))
        } else {
            let (id, request) = http1_grammar::random(&mut dice, of, number);
            (id, Request::Http1(Box::new(request)))
        };
        let (id, answer) = answers::wanted(&id);
        Case { id: id.to_owned(), answer, configuration, request }
    }

    async fn outcomes(&self, case: &Case, patience: Duration) -> (Outcome, Outcome) {
        let configuration = self.configuration(case);
        let envoy = case.run(&self.envoy, configuration, patience);
        futures_util::future::join(envoy, case.run(&self.ours, configuration, patience)).await
    }

    /// In what the sides differ every time: what comes and goes is said to be unsteady.
    pub(crate) async fn judge(&self, case: &Case) -> Verdict {
        let (envoy, ours) = self.outcomes(case, PATIENCE).await;
        let mut first = Outcome::differences(&envoy, &ours);
        if first.is_empty() {
            return Verdict::Same;
        }
        for _ in 1..TRIES {
            let (envoy, ours) = self.outcomes(case, LONG_PATIENCE).await;
            let aspects = Outcome::differences(&envoy, &ours);
            if aspects.is_empty() {
                return Verdict::Unsteady(first);
            }
            first = aspects;
        }
        Verdict::Different(first)
    }

    /// In what the sides differ when asked once.
    pub(crate) async fn once(&self, case: &Case) -> Vec<Aspect> {
        let (envoy, ours) = self.outcomes(case, PATIENCE).await;
        Outcome::differences(&envoy, &ours)
    }
}

/// How a request went.
pub(crate) enum Verdict {
    Same,
    /// Different once, in this, and the same when asked again.
    Unsteady(Vec<Aspect>),
    Different(Vec<Aspect>),
}

#[test]
fn our_proxy_does_what_envoy_does() {
    let settings = paths::differential_settings();
    let configurations: Vec<Configuration> = (0..settings.configurations)
        .map(|number| Configuration::random(settings.seed, number))
        .collect();
    let size = OF_ONE_MESH.min(configurations.len().div_ceil(3)).max(1);
    let meshes: Vec<&[Configuration]> = configurations.chunks(size).collect();
    let share = settings.requests / meshes.len() as u64;
    let mut report = Report::new(settings.seed);
    for (index, configurations) in meshes.iter().enumerate() {
        let normalization = NORMALIZATIONS[index % NORMALIZATIONS.len()];
        let numbers = index as u64 * share..(index as u64 + 1) * share;
        // Its end is the end of the mesh's applications too.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run(settings.seed, configurations, normalization, numbers, &mut report));
        report.say_progress(index + 1, meshes.len());
    }
    report.judge(settings.requests);
}

async fn run(
    seed: u64,
    configurations: &[Configuration],
    normalization: &str,
    numbers: std::ops::Range<u64>,
    report: &mut Report,
) {
    let mut pair = Pair::start(seed, configurations, normalization).await;
    let verdicts = stream::iter(numbers).map(|number| {
        let case = pair.case(number);
        async {
            let verdict = pair.judge(&case).await;
            (case, verdict)
        }
    });
    let verdicts: Vec<(Case, Verdict)> = verdicts.buffer_unordered(AT_ONCE).collect().await;
    let new: Vec<_> = verdicts
        .into_iter()
        .flat_map(|(case, verdict)| report.note(&pair, &case, verdict))
        .collect();
    let texts: Vec<_> = stream::iter(new)
        .map(|first| first.shrunk(&pair))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    texts.into_iter().for_each(|text| report.add(text));
    let fallen = [pair.envoy.fallen(), pair.ours.fallen()].concat();
    assert!(fallen.is_empty(), "ended under the requests of seed {seed}:\n{}", fallen.join("\n"));
}
