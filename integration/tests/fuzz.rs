//! The translator under inputs that nobody would write, for `FERROMESH_FUZZ_SECONDS` for each stage:
//! no panic, no input that takes long or much memory. What is found is made smaller and kept in
//! `integration/corpus/fuzz`, where a unit test finds it.
#![cfg(feature = "e2e")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what a long run did is read")]

use std::{
    fs, panic,
    sync::{
        Arc, Mutex,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use ferromesh_integration::{
    fuzz::{Failure, Fuzzer, Stage, examine, found, minimised},
    paths,
};

/// An input that takes longer than this is given up with the whole test.
const HANGS: Duration = Duration::from_secs(120);
/// Failures of a stage after which it ends.
const ENOUGH: usize = 3;

#[test]
fn no_input_makes_a_stage_panic_or_take_long() {
    let (seconds, seed) = paths::fuzz_settings();
    // Panics are counted; a thousand backtraces say no more than one input.
    panic::set_hook(Box::new(|_| {}));
    let watched = Watched::default();
    let watching = watched.clone().watch();
    let mut failures = Vec::new();
    for stage in Stage::ALL {
        failures.extend(fuzz(stage, Duration::from_secs(seconds), seed, &watched));
    }
    drop((watching, panic::take_hook()));
    assert!(failures.is_empty(), "FERROMESH_SEED={seed}:\n{}", failures.join("\n"));
}

fn fuzz(stage: Stage, time: Duration, seed: u64, watched: &Watched) -> Vec<String> {
    let (begin, mut count, mut longest) = (Instant::now(), 0u64, Duration::ZERO);
    let mut fuzzer = Fuzzer::new(stage, seed);
    let mut failures = Vec::new();
    let mut known: Vec<Failure> = Vec::new();
    while begin.elapsed() < time && failures.len() < ENOUGH {
        let input = fuzzer.next_input();
        watched.begin(stage, &input);
        let one = Instant::now();
        match examine(stage, &input) {
            Ok(said) => fuzzer.learn(&input, &said),
            Err(failure) if known.contains(&failure) => {}
            Err(failure) => {
                watched.end();
                failures.push(keep(stage, &input, &failure));
                known.push(failure);
            }
        }
        watched.end();
        longest = longest.max(one.elapsed());
        count += 1;
    }
    println!(
        "{stage:?}: {count} inputs in {} s, {} kept, longest {} ms, FERROMESH_SEED={seed}",
        begin.elapsed().as_secs(),
        fuzzer.kept(),
        longest.as_millis()
    );
    failures
}

/// Makes an input smaller and keeps it.
fn keep(stage: Stage, input: &[u8], failure: &Failure) -> String {
    let small = minimised(stage, input, failure);
    let digest = small.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let name = format!("{stage:?}-{failure:?}-{digest:016x}.yaml").to_lowercase();
    let path = found().join(name);
    fs::write(&path, &small).expect("the corpus can be written");
    format!("{stage:?} {failure:?}: {}", path.display())
}

/// The input that is being examined, for the case that it never ends.
#[derive(Clone, Default)]
struct Watched(Arc<Mutex<Option<Current>>>);

type Current = (Instant, Stage, Vec<u8>);

impl Watched {
    fn begin(&self, stage: Stage, input: &[u8]) {
        *self.0.lock().expect("nobody panics with it") =
            Some((Instant::now(), stage, input.to_vec()));
    }

    fn end(&self) {
        *self.0.lock().expect("nobody panics with it") = None;
    }

    /// Looks at it until the sender is dropped.
    fn watch(self) -> mpsc::Sender<()> {
        let (watching, ended) = mpsc::channel();
        thread::spawn(move || {
            while ended.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                let current = self.0.lock().expect("nobody panics with it").clone();
                if let Some((begin, stage, input)) = current
                    && begin.elapsed() > HANGS
                {
                    let path = found().join(format!("{stage:?}-hangs.yaml").to_lowercase());
                    fs::write(&path, input).expect("the corpus can be written");
                    eprintln!("{stage:?} does not end: {}", path.display());
                    std::process::abort();
                }
            }
        });
        watching
    }
}
