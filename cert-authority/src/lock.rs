//! Locks on files that somebody is just about to let go of.

use std::{
    fs::{File, TryLockError},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// How long a lock is waited for whose holder may be another process that goes on.
pub const SOON: Duration = Duration::from_secs(10);
/// How long a lock is waited for that only something of this process can hold, which is about to
/// let go.
pub const SURELY: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(10);

/// Tries to `take` a lock again while the error `is_held`, for as long as `patience` lasts; then
/// returns the error.
///
/// A lock outlives its holder for a moment: a process that is killed ends after its successor has
/// begun, a database closes its files on a thread of its own and waits for the disk before, and a
/// child has every open file of its parent from its fork until it runs another program. On a busy
/// machine that moment is seconds.
///
/// # Errors
/// Those of the last attempt.
pub fn take_soon<T, E>(
    patience: Duration,
    mut take: impl FnMut() -> Result<T, E>,
    is_held: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let begin = Instant::now();
    loop {
        match take() {
            Err(error) if is_held(&error) && begin.elapsed() < patience => thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
}

/// Whether sled says that the lock of a database's files is taken; the kind of its error is `Other`.
pub fn is_held_by_database(why: &str) -> bool {
    why.contains("acquire lock")
}

/// Waits until nobody holds a lock on a file, [`SOON`] at most. One that is gone is nobody's.
pub fn until_let_go(path: &Path) {
    let is_held = |error: &TryLockError| matches!(error, TryLockError::WouldBlock);
    if let Ok(file) = File::open(path) {
        // Whoever needs it then is told so.
        let _ = take_soon(SOON, || file.try_lock(), is_held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_taken_when_it_is_let_go_and_other_errors_are_told_at_once() {
        let mut left = 3;
        let mut let_go = || {
            left -= 1;
            if left > 0 { Err("held") } else { Ok(left) }
        };
        assert_eq!(take_soon(SURELY, &mut let_go, |why| *why == "held"), Ok(0));
        let mut tries = 0;
        let mut broken = || -> Result<(), &str> {
            tries += 1;
            Err("broken")
        };
        assert_eq!(take_soon(SURELY, &mut broken, |why| *why == "held"), Err("broken"));
        assert_eq!(tries, 1);
        let dir = tempfile::tempdir().unwrap();
        until_let_go(&dir.path().join("none"));
        let held = take_soon(Duration::ZERO, || Err::<(), _>("held"), |_| true);
        assert_eq!(held, Err("held"));
    }
}
