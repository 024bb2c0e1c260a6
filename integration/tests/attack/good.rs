//! Clients that behave: each sends one request after the other, at a steady pace, and remembers
//! what failed.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::Request;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

/// A request of a good client; `Err` says what went wrong.
pub(crate) type Ask = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The pause between two requests of a client.
const PAUSE: Duration = Duration::from_millis(20);
/// A good request takes this long at most, on two slow cores that are busy with something else, too:
/// whoever is starved waits for as long as the attack lasts, and for its leftovers.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What good clients have seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) answered: u64,
    pub(crate) failed: Vec<String>,
    pub(crate) slowest: Duration,
}

/// Asks for `url` on a connection of its own each time, and wants 200.
pub(crate) fn probe(url: String) -> Ask {
    let client =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http::<Full<Bytes>>();
    Arc::new(move || {
        let (client, url) = (client.clone(), url.clone());
        async move {
            let request = Request::get(url).body(Full::default()).map_err(|e| e.to_string())?;
            let status = client.request(request).await.map_err(|e| format!("{e:?}"))?.status();
            if status == 200 { Ok(()) } else { Err(status.to_string()) }
        }
        .boxed()
    })
}

/// Good clients at work; they stop when dropped.
pub(crate) struct Good {
    tasks: Vec<tokio::task::JoinHandle<()>>,
    seen: Arc<Mutex<Seen>>,
}

impl Good {
    /// Starts a client for each of these requests.
    pub(crate) fn start(asks: &[(&'static str, Ask)]) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let client = |(name, ask): &(&'static str, Ask)| {
            let (name, ask, seen) = (*name, Arc::clone(ask), Arc::clone(&seen));
            tokio::spawn(async move {
                loop {
                    let begin = Instant::now();
                    let answer = tokio::time::timeout(PATIENCE, ask()).await;
                    let answer =
                        answer.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
                    note(&seen, begin.elapsed(), answer.map_err(|why| format!("{name}: {why}")));
                    tokio::time::sleep(PAUSE).await;
                }
            })
        };
        Self { tasks: asks.iter().map(client).collect(), seen }
    }

    /// What they have seen until now.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().expect("nobody panics with it").clone()
    }

    /// The same; from now on another request is the slowest.
    pub(crate) fn begin(&self) -> Seen {
        let mut seen = self.seen.lock().expect("nobody panics with it");
        seen.slowest = Duration::ZERO;
        seen.clone()
    }
}

fn note(seen: &Mutex<Seen>, took: Duration, answer: Result<(), String>) {
    let mut seen = seen.lock().expect("nobody panics with it");
    seen.slowest = seen.slowest.max(took);
    match answer {
        Ok(()) => seen.answered += 1,
        Err(why) => seen.failed.push(why),
    }
}

impl Drop for Good {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
