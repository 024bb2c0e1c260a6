//! One watch: finds the version under which the API server offers a kind, lists it, follows it, and
//! begins again when it breaks. Knows nothing of what objects mean.

use std::{pin::pin, time::Duration};

use futures_util::StreamExt;
use kube::{
    Api, Client, Error,
    api::{ApiResource, GroupVersionKind},
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use serde_json::Value;
use tokio::{
    sync::mpsc::{Sender, error::SendError},
    time::{Instant, sleep, timeout},
};

use super::{kinds::Watched, known::Step, object::WatchedObject};

/// How often a kind that the cluster lacks is looked for, and a failing question asked again.
const RETRY: Duration = Duration::from_secs(2);
/// A definition is really gone after this long: while a server starts it may lack some for a
/// moment.
const GRACE: Duration = Duration::from_secs(30);
/// First and longest pause between two tries of a watch that breaks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A watch without an error for this long is in order again: longer than a try may hang and the
/// longest pause.
const CALM: Duration = Duration::from_secs(40);

/// Pauses that double, each off by up to a quarter so that watches do not come back all at once.
struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(PAUSES.0)
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0.mul_f64(rand::random_range(0.75..1.25));
        self.0 = (self.0 * 2).min(PAUSES.1);
        Some(pause)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Where a watch speaks to: its place among the watches, and its words.
struct StepSender {
    place: usize,
    steps: Sender<(usize, Step)>,
}

/// Why a watch ended.
enum End {
    /// The cluster does not have the kind any more.
    Absent,
    /// The server cannot send the first list as a stream: its store may be too old.
    NoStream,
}

/// The source is gone with everything it could be told.
type ReceiverDropped = SendError<(usize, Step)>;

impl StepSender {
    async fn send(&self, step: Step) -> Result<(), ReceiverDropped> {
        self.steps.send((self.place, step)).await
    }
}

/// Follows a kind until nobody listens any more.
pub(super) async fn follow(
    client: Client,
    watched: Watched,
    streaming: bool,
    place: usize,
    steps: Sender<(usize, Step)>,
) {
    // Ends when nobody listens: the source is gone with everything it could be told.
    let _ = Watch { client, watched, streaming, sender: StepSender { place, steps } }.run().await;
}

struct Watch {
    client: Client,
    watched: Watched,
    streaming: bool,
    sender: StepSender,
}

impl Watch {
    async fn run(&self) -> Result<(), ReceiverDropped> {
        let mut absent_since: Option<Instant> = None;
        let mut streaming = self.streaming;
        loop {
            match self.discover().await {
                Ok(Some(resource)) => {
                    absent_since = None;
                    if let End::NoStream = self.watch(&resource, streaming).await? {
                        streaming = false;
                        continue;
                    }
                }
                Ok(None) => {
                    let since = *absent_since.get_or_insert_with(Instant::now);
                    let gone = since.elapsed() >= GRACE;
                    self.sender.send(if gone { Step::Gone } else { Step::Absent }).await?;
                }
                Err(error) => self.sender.send(Step::Failing(reason(&error))).await?,
            }
            sleep(RETRY).await;
        }
    }

    /// The kind under the first of our versions that the cluster serves; `None`: under none of
    /// them.
    async fn discover(&self) -> Result<Option<ApiResource>, Error> {
        let kind = self.watched.resource;
        for version in kind.versions() {
            let resource = ApiResource::from_gvk_with_plural(
                &GroupVersionKind::gvk(kind.group(), version, kind.kind_name()),
                kind.plural(),
            );
            if self.watched.built_in() {
                return Ok(Some(resource));
            }
            match self.client.list_api_group_resources(&resource.api_version).await {
                Ok(list) if list.resources.iter().any(|r| r.name == resource.plural) => {
                    return Ok(Some(resource));
                }
                Ok(_) => {}
                Err(Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Lists and follows for as long as that is possible.
    async fn watch(&self, resource: &ApiResource, streaming: bool) -> Result<End, ReceiverDropped> {
        let client = self.client.clone();
        let api: Api<WatchedObject> = match &self.watched.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, resource),
            None => Api::all_with(client, resource),
        };
        let fields = self.watched.fields.map(str::to_owned);
        let mut config = watcher::Config { field_selector: fields, ..watcher::Config::default() };
        if streaming {
            config = config.streaming_lists();
        }
        let mut events = pin!(watcher(api, config).backoff(Pauses::default()));
        let (mut listed, mut troubled) = (false, false);
        loop {
            let event = match timeout(CALM, events.next()).await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(End::Absent),
                Err(_) if troubled => {
                    troubled = false;
                    self.sender.send(Step::Well).await?;
                    continue;
                }
                Err(_) => continue,
            };
            match event {
                Ok(event) => {
                    (listed, troubled) = (listed || matches!(event, Event::InitDone), false);
                    self.sender.send(self.step(event, resource)).await?;
                }
                Err(error) => match code(&error) {
                    Some(404) => return Ok(End::Absent),
                    // A server that has lost the kind also answers in ways that make no status.
                    _ if matches!(self.discover().await, Ok(None)) => return Ok(End::Absent),
                    Some(400 | 422 | 500) if streaming && !listed => return Ok(End::NoStream),
                    // The server has forgotten what happened since: the watcher lists again by
                    // itself.
                    Some(410) => tracing::debug!(kind = %resource.kind, "listing again"),
                    _ => {
                        troubled = true;
                        self.sender.send(Step::Failing(reason(&error))).await?;
                    }
                },
            }
        }
    }

    fn step(&self, event: Event<WatchedObject>, resource: &ApiResource) -> Step {
        match event {
            Event::Apply(object) => Step::Seen(self.value(object, resource)),
            Event::Delete(object) => Step::Deleted(self.value(object, resource)),
            Event::Init => Step::ListBegins,
            Event::InitApply(object) => Step::Seen(self.value(object, resource)),
            Event::InitDone => Step::ListEnds,
        }
    }

    /// The object as written, without what nobody here reads.
    fn value(&self, object: WatchedObject, resource: &ApiResource) -> Value {
        let mut value = object.into_value(resource);
        self.watched.trim(&mut value);
        value
    }
}

/// An error with its causes, in one line; causes that it repeats itself are left out.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The HTTP status in an error of a watch.
fn code(error: &watcher::Error) -> Option<u16> {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(Error::Api(status))
        | WatchStartFailed(Error::Api(status))
        | WatchFailed(Error::Api(status)) => Some(status.code),
        WatchError(status) => Some(status.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_again_after_success() {
        let mut pauses = Pauses::default();
        let grown: Vec<Duration> = pauses.by_ref().take(20).collect();
        assert!(
            grown[0] <= PAUSES.0.mul_f64(1.25) && grown[19] >= PAUSES.1.mul_f64(0.75),
            "{grown:?}"
        );
        assert!(grown.iter().all(|p| *p <= PAUSES.1.mul_f64(1.25)), "{grown:?}");
        pauses.reset();
        assert!(pauses.next().is_some_and(|p| p <= PAUSES.0.mul_f64(1.25)));
    }

    #[test]
    fn a_reason_names_every_cause_once() {
        let refused =
            || Box::new(io::Error::new(io::ErrorKind::ConnectionRefused, "connection\nrefused"));
        let error = watcher::Error::InitialListFailed(Error::Service(refused()));
        assert_eq!(reason(&error).matches("connection refused").count(), 1, "{}", reason(&error));
        assert!(reason(&error).starts_with("failed to perform initial object list"));
        assert_eq!(code(&error), None);
    }
}
