//! Authorization, as Istio's documentation describes it, beside what a real Envoy makes of what the
//! translator sends: random policies, identities, tokens and calls; ALLOW, DENY, CUSTOM and dry
//! runs; requests and other bytes.
#![cfg(feature = "e2e")]

mod authorizers;
mod cases;
mod oracle;
mod site;
mod tokens;
mod wire;

use std::{fmt::Write as _, net::SocketAddr};

use futures_util::{StreamExt, stream};
use rand::{SeedableRng, rngs::StdRng};

use crate::{
    cases::{Call, Dice, Identity, Set},
    oracle::{Answer, Verdict, judge},
    site::{Block, Ends, Site},
    tokens::Keys,
    wire::Credentials,
};

/// Calls to each set of policies.
const CALLS: usize = 10;
/// Sets that one Envoy serves at a time.
const WORKLOADS: usize = 50;
/// Disagreements that are printed in full.
const SHOWN: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_decides_as_the_documentation_says() {
    let (count, seed) = ferromesh_integration::paths::oracle_settings();
    println!("{count} calls, FERROMESH_SEED={seed}");
    let mut dice = Dice(StdRng::seed_from_u64(seed));
    let identities = Identity::all();
    let dir = tempfile::tempdir().expect("a directory");
    let credentials = Credentials::make(dir.path(), &identities);
    let block = Block::claim();
    site::serve_application(&block).await;
    authorizers::serve(block.authorizers()).await;
    let sets: Vec<Set> = (0..count.div_ceil(CALLS)).map(|_| dice.set()).collect();
    let (mut tally, mut disagreements) = (Tally::default(), Vec::new());
    for sets in sets.chunks(WORKLOADS) {
        let site = Site::start(&block, sets, &credentials);
        let each = (0..sets.len()).flat_map(|set| std::iter::repeat_n(set, CALLS));
        let calls: Vec<(usize, Call)> = each.map(|set| (set, dice.call(&identities))).collect();
        let seen = observe(&site, &block, &credentials, &calls).await;
        for ((set, call), seen) in calls.iter().zip(seen) {
            let expected = judge(&sets[*set], call, block.workload(*set).into());
            tally.count(expected);
            let dry = |verdict: Verdict| (verdict.dry_allow, verdict.dry_deny);
            if !seen.answer.agrees(expected.answer) || dry(seen) != dry(expected) {
                let keys = &credentials.tokens;
                disagreements.push(describe(&sets[*set], keys, call, (expected, seen)));
            }
        }
    }
    println!("{tally:?}");
    let shown = disagreements.iter().take(SHOWN).fold(String::new(), |text, one| text + one);
    assert!(
        disagreements.is_empty(),
        "FERROMESH_SEED={seed}: {} disagreements\n{shown}",
        disagreements.len()
    );
    tally.assert_both_ways();
}

/// What Envoy did with each call.
async fn observe(
    site: &Site,
    block: &Block,
    credentials: &Credentials,
    calls: &[(usize, Call)],
) -> Vec<Verdict> {
    let one = |(set, call): &(usize, Call)| {
        let (call, destination) =
            (call.clone(), SocketAddr::from((block.workload(*set), call.port)));
        async move {
            let (answer, client) = credentials.call(&call, destination).await;
            (answer, (client, destination))
        }
    };
    let seen: Vec<(Answer, Ends)> =
        stream::iter(calls.iter().map(one)).buffered(16).collect().await;
    let dry_runs = site.dry_runs(&seen.iter().map(|(_, ends)| *ends).collect::<Vec<_>>());
    let verdict = |(answer, ends): &(Answer, Ends)| {
        let [dry_allow, dry_deny] = dry_runs[ends];
        Verdict { answer: *answer, dry_allow, dry_deny }
    };
    seen.iter().map(verdict).collect()
}

fn describe(set: &Set, keys: &Keys, call: &Call, (expected, seen): (Verdict, Verdict)) -> String {
    let mut text = format!(
        "\n{call:?}\n  documented: {expected:?}\n  Envoy:      {seen:?}\n  mesh: {:?}\n",
        set.mesh
    );
    for object in set.objects(keys) {
        let _ = writeln!(text, "  {object}");
    }
    text
}

/// How often each outcome was expected: a test in which everything is refused proves little.
#[derive(Default, Debug)]
struct Tally {
    allowed: usize,
    denied: usize,
    bad_tokens: usize,
    dry_allowed: usize,
    dry_denied: usize,
}

impl Tally {
    fn count(&mut self, verdict: Verdict) {
        *match verdict.answer {
            Answer::Passes => &mut self.allowed,
            Answer::Refused => &mut self.denied,
            Answer::BadToken => &mut self.bad_tokens,
        } += 1;
        for passes in [verdict.dry_allow, verdict.dry_deny].into_iter().flatten() {
            *(if passes { &mut self.dry_allowed } else { &mut self.dry_denied }) += 1;
        }
    }

    fn assert_both_ways(&self) {
        let Self { allowed, denied, bad_tokens, dry_allowed, dry_denied } = self;
        let all = allowed + denied + bad_tokens;
        assert!(bad_tokens * 50 > all, "one-sided: {self:?}");
        assert!(allowed * 5 > all && denied * 5 > all, "one-sided: {self:?}");
        assert!(dry_allowed * 20 > all && dry_denied * 20 > all, "one-sided: {self:?}");
    }
}
