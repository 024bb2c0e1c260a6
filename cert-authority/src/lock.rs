//! Locks on files that somebody is just about to let go of.

use std::{thread, time::Duration};

const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// Tries to `take` a lock again while the error `is_held`, for two seconds; then returns the error.
///
/// A lock outlives its holder for a moment: a process that is killed ends after its successor has
/// begun, a database closes its files on a thread of its own, and a child has every open file of
/// its parent from its fork until it runs another program.
///
/// # Errors
/// Those of the last attempt.
pub fn take_soon<T, E>(
    mut take: impl FnMut() -> Result<T, E>,
    is_held: impl Fn(&E) -> bool,
) -> Result<T, E> {
    for _ in 1..TRIES {
        match take() {
            Err(error) if is_held(&error) => thread::sleep(PAUSE),
            other => return other,
        }
    }
    take()
}
