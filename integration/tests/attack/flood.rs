//! Attacks as data: what is sent, again and again, on how many connections.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{task::JoinSet, time::Instant};

/// One connection of an attacker, from its beginning to its end; errors are of no interest to him.
pub(crate) type Connection = Arc<dyn Fn(SocketAddr) -> BoxFuture<'static, ()> + Send + Sync>;

/// An attack.
#[derive(Clone)]
pub(crate) struct Flood {
    /// What it is.
    pub(crate) name: &'static str,
    /// Connections at a time; one that ended is followed by another.
    pub(crate) connections: usize,
    pub(crate) connection: Connection,
}

/// A pause before an attacker that was turned away comes back: he has a network between him and us.
const BETWEEN: Duration = Duration::from_millis(5);

impl Flood {
    pub(crate) fn new<F>(
        name: &'static str,
        connections: usize,
        connection: fn(SocketAddr) -> F,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self { name, connections, connection: Arc::new(move |to| connection(to).boxed()) }
    }

    /// Attacks for so long, then lets go of everything.
    pub(crate) async fn run(&self, to: SocketAddr, limit: Duration) {
        let end = Instant::now() + limit;
        let mut attackers = JoinSet::new();
        for _ in 0..self.connections {
            let connection = Arc::clone(&self.connection);
            attackers.spawn(async move {
                loop {
                    connection(to).await;
                    tokio::time::sleep(BETWEEN).await;
                }
            });
        }
        tokio::time::sleep_until(end).await;
        attackers.shutdown().await;
    }
}
