//! All clients together.

use std::sync::{Arc, atomic::Ordering};

use ferromesh_proto::ResourceType;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    board::Board,
    proxy::{Proxy, Texts},
};

/// Clients with one connection each.
pub(crate) struct Fleet {
    /// What they report.
    pub(crate) board: Arc<Board>,
    size: usize,
    stop: watch::Sender<bool>,
    running: JoinSet<anyhow::Result<Proxy>>,
}

impl Fleet {
    /// Clients that have nothing and are not connected.
    pub(crate) fn new(size: usize) -> (Self, Vec<Proxy>) {
        let (board, texts) = (Arc::<Board>::default(), Arc::<Texts>::default());
        let proxies =
            (0..size).map(|number| Proxy::new(number, board.clone(), texts.clone())).collect();
        (Self { board, size, stop: watch::channel(false).0, running: JoinSet::new() }, proxies)
    }

    /// Connects them all at once.
    pub(crate) fn connect(&mut self, proxies: Vec<Proxy>) {
        self.stop = watch::channel(false).0;
        self.board.opened.store(0, Ordering::Relaxed);
        for proxy in proxies {
            let (board, number) = (self.board.clone(), proxy.number());
            let followed = proxy.follow(self.stop.subscribe());
            self.running
                .spawn(async move { followed.await.inspect_err(|why| board.fail(number, why)) });
        }
    }

    /// Waits until the server has taken them all in.
    ///
    /// # Errors
    /// A stream ended, or that takes too long.
    pub(crate) async fn opened(&self) -> anyhow::Result<()> {
        self.board
            .until(self.size, "were let in", || self.board.opened.load(Ordering::Relaxed))
            .await
    }

    /// Waits until each has everything it asked for.
    ///
    /// # Errors
    /// A stream ended, or that takes too long.
    pub(crate) async fn configured(&self) -> anyhow::Result<()> {
        self.board
            .until(self.size, "have a configuration", || {
                self.board.configured.load(Ordering::Relaxed)
            })
            .await
    }

    /// Disconnects them all.
    ///
    /// # Errors
    /// One had lost its stream before.
    pub(crate) async fn disconnect(&mut self) -> anyhow::Result<Vec<Proxy>> {
        let _ = self.stop.send(true);
        let mut proxies = Vec::with_capacity(self.size);
        while let Some(proxy) = self.running.join_next().await {
            proxies.push(proxy??);
        }
        Ok(proxies)
    }
}

/// What clients have, by type: the same number each.
///
/// # Errors
/// Two differ.
pub(crate) fn counts(proxies: &[Proxy]) -> anyhow::Result<[usize; 4]> {
    let of = |proxy: &Proxy| [0, 1, 2, 3].map(|at| proxy.count(ResourceType::ALL[at]));
    let counts = proxies.first().map(of).unwrap_or_default();
    anyhow::ensure!(
        proxies.iter().all(|proxy| of(proxy) == counts),
        "clients have different numbers of resources"
    );
    Ok(counts)
}
