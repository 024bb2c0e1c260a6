//! Where the programs under test and their peers are. The only place of the tests that reads the
//! environment.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The project's folder.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("integration/ lies in the project")
        .to_owned()
}

/// A program that this workspace built: beside the running test, or where `FERROMESH_BIN` says.
///
/// # Panics
/// It was not built; the text says how to.
#[allow(clippy::disallowed_methods, reason = "the tests' one place that reads the environment")]
pub fn program(name: &str) -> PathBuf {
    let folder = match std::env::var_os("FERROMESH_BIN") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let test = std::env::current_exe().expect("a test has a path");
            test.ancestors().nth(2).expect("target/PROFILE/deps/TEST").to_owned()
        }
    };
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is not there: run integration/test.sh, or cargo build --workspace",
        path.display()
    );
    path
}

/// `PATH`: where the machine's own programs are.
///
/// # Panics
/// There is none.
#[allow(clippy::disallowed_methods, reason = "the tests' one place that reads the environment")]
pub fn search_path() -> String {
    std::env::var("PATH").expect("a PATH")
}

/// Envoy 1.40, as `integration/peers.sh` installs it.
///
/// # Panics
/// It is not installed.
pub fn envoy() -> PathBuf {
    let path = project().join(".tools/bin/envoy");
    assert!(path.exists(), "{} is not there: run integration/peers.sh", path.display());
    path
}

/// How often the crash test kills, and the seed of its random moments: `FERROMESH_KILLS` (20) and
/// `FERROMESH_SEED` (from the process id).
///
/// # Panics
/// A variable is not a number.
pub fn crash_settings() -> (u32, u64) {
    let kills = number("FERROMESH_KILLS").and_then(|n| n.try_into().ok()).unwrap_or(20);
    (kills, number("FERROMESH_SEED").unwrap_or_else(|| std::process::id().into()))
}

/// How long each attack goes on, and how many rounds of all of them there are:
/// `FERROMESH_ATTACK_SECONDS` (a quarter) and `FERROMESH_ATTACK_ROUNDS` (1).
///
/// # Panics
/// A variable is not a number.
pub fn attack_settings() -> (Duration, u32) {
    let seconds = number("FERROMESH_ATTACK_SECONDS").map(Duration::from_secs);
    let rounds = number("FERROMESH_ATTACK_ROUNDS").and_then(|n| n.try_into().ok()).unwrap_or(1);
    (seconds.unwrap_or(Duration::from_millis(250)), rounds)
}

/// How many calls the authorization oracle judges, and the seed of everything in them:
/// `FERROMESH_ORACLE_CASES` (200) and `FERROMESH_SEED` (always the same).
///
/// # Panics
/// A variable is not a number.
pub fn oracle_settings() -> (usize, u64) {
    let cases = number("FERROMESH_ORACLE_CASES").and_then(|n| n.try_into().ok()).unwrap_or(200);
    (cases, number("FERROMESH_SEED").unwrap_or(1))
}

/// How much the differential test does: `FERROMESH_REQUESTS` (2,000) over
/// `FERROMESH_CONFIGURATIONS` (42), all from `FERROMESH_SEED` (always the same).
///
/// # Panics
/// A variable is not a number.
pub fn differential_settings() -> Differential {
    let configurations =
        number("FERROMESH_CONFIGURATIONS").and_then(|n| n.try_into().ok()).unwrap_or(42);
    Differential {
        requests: number("FERROMESH_REQUESTS").unwrap_or(2000),
        configurations,
        seed: number("FERROMESH_SEED").unwrap_or(8),
    }
}

/// How much a test of requests does.
#[derive(Clone, Copy, Debug)]
pub struct Differential {
    /// Requests, each to both proxies.
    pub requests: u64,
    /// Configurations that they are spread over.
    pub configurations: usize,
    /// Where all choices come from.
    pub seed: u64,
}

/// How much is explained beside an Envoy: `FERROMESH_REQUESTS` (300) over
/// `FERROMESH_CONFIGURATIONS` (6), all from `FERROMESH_SEED` (always the same).
///
/// # Panics
/// A variable is not a number.
pub fn explain_settings() -> Differential {
    let configurations =
        number("FERROMESH_CONFIGURATIONS").and_then(|n| n.try_into().ok()).unwrap_or(6);
    Differential {
        requests: number("FERROMESH_REQUESTS").unwrap_or(300),
        configurations,
        seed: number("FERROMESH_SEED").unwrap_or(1),
    }
}

/// How many random configurations are served: `FERROMESH_CONFIGURATIONS` (those of
/// [`CONFIGURATIONS`]), the first made from `FERROMESH_SEED` (always the same), each further one from
/// the next number.
///
/// # Panics
/// A variable is not a number.
pub fn configuration_settings() -> (u64, u64) {
    let (count, seed) = CONFIGURATIONS;
    let count = number("FERROMESH_CONFIGURATIONS").unwrap_or(count);
    (count, number("FERROMESH_SEED").unwrap_or(seed))
}

/// How many random configurations the test command serves, and the number of the first.
pub const CONFIGURATIONS: (u64, u64) = (20, 11);

/// Whether what is generated is to be written anew (`UPDATE_GOLDEN`).
#[allow(clippy::disallowed_methods, reason = "the tests' one place that reads the environment")]
pub fn updates_goldens() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

/// Texts of which one must be in a case's name, or in a field that it proves, for it to be served
/// (`FERROMESH_MATRIX`, `|` between them); empty: every case is. `None`: those of the test command.
#[allow(clippy::disallowed_methods, reason = "the tests' one place that reads the environment")]
pub fn chosen_cases() -> Option<String> {
    std::env::var("FERROMESH_MATRIX").ok()
}

/// How long each stage is fuzzed, in seconds: `FERROMESH_FUZZ_SECONDS` (2), from `FERROMESH_SEED`
/// (always the same).
///
/// # Panics
/// A variable is not a number.
pub fn fuzz_settings() -> (u64, u64) {
    (number("FERROMESH_FUZZ_SECONDS").unwrap_or(2), number("FERROMESH_SEED").unwrap_or(5))
}

/// How large the mesh is that comes and leaves, and how often: `FERROMESH_MEMORY_SERVICES` (200),
/// `FERROMESH_MEMORY_PROXIES` (100) and `FERROMESH_MEMORY_ROUNDS` (1).
///
/// # Panics
/// A variable is not a number.
pub fn memory_settings() -> (usize, usize, usize) {
    let size =
        |name: &str, small: usize| number(name).and_then(|n| n.try_into().ok()).unwrap_or(small);
    (
        size("FERROMESH_MEMORY_SERVICES", 200),
        size("FERROMESH_MEMORY_PROXIES", 100),
        size("FERROMESH_MEMORY_ROUNDS", 1),
    )
}

#[allow(clippy::disallowed_methods, reason = "the tests' one place that reads the environment")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().unwrap_or_else(|e| panic!("{name}: {e}")))
}
