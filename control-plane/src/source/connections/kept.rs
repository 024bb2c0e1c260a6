//! Proxies at their workloads, over a restart: a file of this process's own.
//!
//! A line for each: address, identity and, where the proxy has no stream any more, the second since
//! 1970 in which it counts no longer. What is lost with the file comes back with the proxies.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ferromesh_cert_authority::files;
use ferromesh_xds_translator::ir::Connection;
use tokio::{task::spawn_blocking, time::Instant};

/// Longer files are not ours.
const LARGEST: u64 = 16 << 20;
/// Nobody else has to know who is there.
const MODE: u32 = 0o600;

/// Proxies, and until when those count that have no stream.
type Placed = BTreeMap<Connection, Option<Instant>>;

/// Where proxies are kept, and for how long they count.
#[derive(Debug)]
pub(super) struct Kept {
    file: PathBuf,
    stay: Duration,
}

impl Kept {
    pub(super) fn new(file: PathBuf, stay: Duration) -> Self {
        Self { file, stay }
    }

    /// How long a proxy counts after its last stream.
    pub(super) fn stay(&self) -> Duration {
        self.stay
    }

    /// What a former process knew: each has to come back before its end. What cannot be read is said
    /// and counts for nothing.
    pub(super) fn load(&self) -> Placed {
        let text = match files::read_private(&self.file, LARGEST) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Placed::new(),
            Err(error) => {
                self.complain(&error, "read");
                return Placed::new();
            }
        };
        let (now, clock) = (Instant::now(), seconds(SystemTime::now()));
        let entry = |line: &str| {
            let (connection, end) = read(line)?;
            // A clock that was set back makes nobody stay for longer.
            let left = end.map_or(self.stay, |end| Duration::from_secs(end.saturating_sub(clock)));
            Some((connection, Some(now + left.min(self.stay))))
        };
        text.lines().filter_map(entry).collect()
    }

    /// Replaces what is kept. That it cannot be written is said.
    pub(super) async fn save(&self, placed: Placed) {
        let (now, clock) = (Instant::now(), seconds(SystemTime::now()));
        let line = |(connection, end): (&Connection, &Option<Instant>)| {
            let Connection { address, identity } = connection;
            match end {
                Some(end) => {
                    let end = clock + end.saturating_duration_since(now).as_secs();
                    format!("{address} {identity} {end}\n")
                }
                None => format!("{address} {identity}\n"),
            }
        };
        let text: String = placed.iter().map(line).collect();
        let file = self.file.clone();
        let write = move || files::replace(&file, MODE, text.as_bytes());
        if let Err(error) = spawn_blocking(write).await.unwrap_or_else(|e| Err(e.into())) {
            self.complain(&error, "written");
        }
    }

    fn complain(&self, error: &io::Error, what: &str) {
        tracing::warn!(
            file = %self.file.display(), %error,
            "connected proxies cannot be {what}: after a restart, workloads that only their proxies \
             show to speak mutual TLS are called in plaintext until those are back"
        );
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What a line says; `None`: nothing that can be read.
fn read(line: &str) -> Option<(Connection, Option<u64>)> {
    let mut words = line.split(' ');
    let (address, identity) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let end = words.next().map(str::parse).transpose().ok()?;
    words.next().is_none().then_some((Connection { identity, address }, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_none_counts_for_nothing() {
        let id = "spiffe://cluster.local/ns/shop/sa/cart";
        let table = [
            (format!("10.0.0.7 {id}"), Some(None)),
            (format!("10.0.0.7 {id} 17"), Some(Some(17))),
            (format!("10.0.0.7 {id} soon"), None),
            (format!("10.0.0.7 {id} 17 18"), None),
            (format!("cart {id}"), None),
            ("10.0.0.7 spiffe://cluster.local/cart".to_owned(), None),
            (String::new(), None),
        ];
        for (line, expected) in table {
            assert_eq!(read(&line).map(|(_, end)| end), expected, "{line:?}");
        }
    }

    #[tokio::test]
    async fn a_file_that_others_may_read_or_that_is_none_counts_for_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let kept = Kept::new(directory.path().join("proxies"), Duration::from_secs(60));
        assert!(kept.load().is_empty());
        let (connection, _) =
            read("10.0.0.7 spiffe://cluster.local/ns/shop/sa/cart").expect("a line");
        kept.save(Placed::from([(connection.clone(), None)])).await;
        let left = kept.load()[&connection].expect("an end") - Instant::now();
        assert!(left > Duration::from_secs(50) && left <= Duration::from_secs(60), "{left:?}");
        std::fs::remove_file(&kept.file).expect("the file");
        std::fs::create_dir(&kept.file).expect("a directory in its place");
        assert!(kept.load().is_empty());
    }
}
