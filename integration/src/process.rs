//! Processes that end when their test does, and whose last words a failed test prints.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// A child in a process group of its own.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, its output going to `DIR/NAME.log`.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(name: &str, dir: &Path, mut command: Command) -> Self {
        use std::os::unix::process::CommandExt;
        let log = dir.join(format!("{name}.log"));
        let output = File::create(&log).expect("the test's directory is writable");
        let both = output.try_clone().expect("a file can be shared");
        command.stdin(Stdio::null()).stdout(output).stderr(both).process_group(0);
        let child = command.spawn().unwrap_or_else(|e| panic!("starting {name}: {e}"));
        Self { name: name.to_owned(), child, log }
    }

    /// What it wrote so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to it and its children.
    pub fn signal(&self, signal: Signal) {
        let group = i32::try_from(self.child.id()).expect("a process id is an i32");
        let _ = killpg(Pid::from_raw(group), signal);
    }

    /// Waits until it ended; `None` after `limit`.
    pub fn ended(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if begin.elapsed() > limit {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until `ready` holds.
    ///
    /// # Panics
    /// The process ended, or `ready` does not hold in time; with its last words.
    pub fn until(&mut self, what: &str, ready: impl FnMut() -> bool) {
        let ended = {
            let child = &mut self.child;
            until_or(Duration::from_secs(60), ready, || child.try_wait().is_ok_and(|s| s.is_some()))
        };
        assert!(ended, "{}: not {what}; it said:\n{}", self.name, self.output());
    }
}

fn until_or(
    limit: Duration,
    mut ready: impl FnMut() -> bool,
    mut over: impl FnMut() -> bool,
) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        if ready() {
            return true;
        }
        if over() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// Waits until `ready` holds.
///
/// # Panics
/// It does not hold within `limit`.
pub fn until(limit: Duration, what: &str, ready: impl FnMut() -> bool) {
    assert!(until_or(limit, ready, || false), "not {what} within {limit:?}");
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        if self.ended(Duration::from_secs(8)).is_none() {
            self.signal(Signal::SIGKILL);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let output = self.output();
            let tail: Vec<&str> = output.lines().rev().take(30).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            #[allow(clippy::print_stderr, reason = "what a failed test has to say")]
            {
                eprintln!("--- {} said last:\n{}", self.name, tail.join("\n"));
            }
        }
    }
}
