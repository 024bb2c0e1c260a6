//! What a piece of work says in the log, for tests.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use tracing_subscriber::EnvFilter;

const POISONED: &str = "no holder of this lock panics";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect(POISONED).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log of this thread while it does `work`, without colours, and what `work` returns.
pub(crate) fn logged<T>(filter: EnvFilter, work: impl FnOnce() -> T) -> (String, T) {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let done = tracing::subscriber::with_default(log, work);
    let said = lines.0.lock().expect(POISONED).clone();
    (String::from_utf8(said).expect("the log is text"), done)
}
