//! Plays attacks one after the other, beside good clients, and looks at what they cost.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use ferromesh_integration::paths;

use crate::{
    flood::Flood,
    good::{Ask, Good},
    memory::{self, Held, Watch},
};

/// A process that is attacked.
pub(crate) struct Victim<'a> {
    /// Whose figures these are.
    pub(crate) name: &'a str,
    pub(crate) process: u32,
    /// What memory may grow by while it is attacked, in bytes.
    pub(crate) bound: u64,
}

/// After an attack everything is as before within this time.
const RECOVERY: Duration = Duration::from_secs(60);
/// Memory that an allocator may keep, beside as much again as there was at the start.
const SLACK: u64 = 16 << 20;

/// Runs every attack against its address for as long as the settings say.
///
/// # Panics
/// A good request fails, memory grows beyond the bound, or does not come back, and connections
/// neither.
pub(crate) async fn run(
    victim: &Victim<'_>,
    good: &[(&'static str, Ask)],
    attacks: &[(SocketAddr, Flood)],
) {
    let (length, rounds) = paths::attack_settings();
    // Buffers and pools are there before anything is measured.
    let clients = Good::start(good);
    until_answered(&clients, 20).await;
    let start = memory::of(victim.process);
    for round in 1..=rounds {
        for (to, flood) in attacks {
            attack(victim, &clients, start, *to, flood, length).await;
        }
        let after = recovered(victim, start).await;
        say(format_args!(
            "{}: round {round}: {} at the start, {} after",
            victim.name,
            mib(start.memory),
            mib(after.memory)
        ));
    }
}

async fn attack(
    victim: &Victim<'_>,
    clients: &Good,
    start: Held,
    to: SocketAddr,
    flood: &Flood,
    length: Duration,
) {
    let before = clients.begin();
    let watch = Watch::start(victim.process);
    flood.run(to, length).await;
    until_answered(clients, 1).await;
    let (seen, peak) = (clients.seen(), watch.peak());
    let good = seen.answered - before.answered;
    say(format_args!(
        "{}: {}: {good} good requests, slowest {:?}, memory {} of at most {}",
        victim.name,
        flood.name,
        seen.slowest,
        mib(peak),
        mib(start.memory + victim.bound),
    ));
    assert_eq!(
        seen.failed,
        Vec::<String>::new(),
        "{}: good requests beside {}",
        victim.name,
        flood.name
    );
    assert!(
        peak <= start.memory + victim.bound,
        "{}: {} took {} beside {} at the start; at most {} more are allowed",
        victim.name,
        flood.name,
        mib(peak),
        mib(start.memory),
        mib(victim.bound),
    );
}

/// Waits until so many more good requests were answered.
async fn until_answered(clients: &Good, more: u64) {
    let wanted = clients.seen().answered + more;
    let waiting = async {
        while clients.seen().answered < wanted && clients.seen().failed.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(RECOVERY, waiting).await;
    assert!(
        waited.is_ok() && clients.seen().failed.is_empty(),
        "good clients: {:?}",
        clients.seen()
    );
}

/// Waits until the process holds what it held at the start.
async fn recovered(victim: &Victim<'_>, start: Held) -> Held {
    let begin = Instant::now();
    loop {
        let now = memory::of(victim.process);
        // A good client or two may be between two connections.
        if now.memory <= start.memory * 2 + SLACK && now.files <= start.files + 8 {
            return now;
        }
        assert!(
            begin.elapsed() < RECOVERY,
            "{}: {start:?} at the start, and long after all left {now:?}",
            victim.name
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[allow(clippy::print_stdout, reason = "the figures are a result, too")]
fn say(line: std::fmt::Arguments<'_>) {
    println!("{line}");
}
