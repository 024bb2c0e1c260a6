//! Proxies at their workloads, over a restart: a file of this process's own.
//!
//! A line for each: address and identity and, where the proxy is away, that word. Former versions
//! wrote a second since 1970 there; such a proxy, like all that are not away, has to come back in its
//! time. What is lost with the file comes back with the proxies.

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use ferromesh_cert_authority::files;
use ferromesh_xds_translator::ir::Connection;
use tokio::{task::spawn_blocking, time::Instant};

/// Longer files are not ours.
const LARGEST: u64 = 16 << 20;
/// Nobody else has to know who is there.
const MODE: u32 = 0o600;
/// Behind a proxy that is away.
const AWAY: &str = "away";

/// Proxies at the addresses of their workloads.
pub(super) type Placed = BTreeMap<Connection, Stay>;

/// Whether a proxy at its workload is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stay {
    /// It has a stream.
    Here,
    /// It has none any more, and is away from then on.
    Until(Instant),
    /// It did not come back.
    Away,
}

/// Where proxies are kept, and how long they may be without a stream.
#[derive(Debug)]
pub(super) struct Kept {
    file: PathBuf,
    grace: Duration,
}

impl Kept {
    pub(super) fn new(file: PathBuf, grace: Duration) -> Self {
        Self { file, grace }
    }

    /// Who has no stream now is away from then on.
    pub(super) fn departing(&self) -> Stay {
        Stay::Until(Instant::now() + self.grace)
    }

    /// What a former process knew: whoever was not away has time to come back. What cannot be read is
    /// said and counts for nothing.
    pub(super) fn load(&self) -> Placed {
        let text = match files::read_private(&self.file, LARGEST) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Placed::new(),
            Err(error) => {
                self.complain(&error, "read");
                return Placed::new();
            }
        };
        let departing = self.departing();
        let entry = |line: &str| {
            let (connection, away) = read(line)?;
            Some((connection, if away { Stay::Away } else { departing }))
        };
        text.lines().filter_map(entry).collect()
    }

    /// Replaces what is kept. That it cannot be written is said.
    pub(super) async fn save(&self, placed: Placed) {
        let line = |(connection, stay): (&Connection, &Stay)| {
            let Connection { address, identity } = connection;
            match stay {
                Stay::Away => format!("{address} {identity} {AWAY}\n"),
                Stay::Here | Stay::Until(_) => format!("{address} {identity}\n"),
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

/// What a line says: a proxy, and whether it is away; `None`: nothing that can be read.
fn read(line: &str) -> Option<(Connection, bool)> {
    let mut words = line.split(' ');
    let (address, identity) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let away = match words.next() {
        None => false,
        Some(AWAY) => true,
        Some(second) => second.parse::<u64>().ok().map(|_| false)?,
    };
    words.next().is_none().then_some((Connection { identity, address }, away))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_none_counts_for_nothing() {
        let id = "spiffe://cluster.local/ns/shop/sa/cart";
        let table = [
            (format!("10.0.0.7 {id}"), Some(false)),
            (format!("10.0.0.7 {id} away"), Some(true)),
            (format!("10.0.0.7 {id} 17"), Some(false)),
            (format!("10.0.0.7 {id} soon"), None),
            (format!("10.0.0.7 {id} away 18"), None),
            (format!("cart {id}"), None),
            ("10.0.0.7 spiffe://cluster.local/cart".to_owned(), None),
            (String::new(), None),
        ];
        for (line, expected) in table {
            assert_eq!(read(&line).map(|(_, away)| away), expected, "{line:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_others_may_read_or_that_is_none_counts_for_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let kept = Kept::new(directory.path().join("proxies"), Duration::from_secs(60));
        assert!(kept.load().is_empty());
        let proxy = |last: u8| {
            let line = format!("10.0.0.{last} spiffe://cluster.local/ns/shop/sa/cart");
            read(&line).expect("a line").0
        };
        kept.save(Placed::from([(proxy(1), Stay::Here), (proxy(2), Stay::Away)])).await;
        let back = Placed::from([(proxy(1), kept.departing()), (proxy(2), Stay::Away)]);
        assert_eq!(kept.load(), back);
        std::fs::remove_file(&kept.file).expect("the file");
        std::fs::create_dir(&kept.file).expect("a directory in its place");
        assert!(kept.load().is_empty());
    }
}
