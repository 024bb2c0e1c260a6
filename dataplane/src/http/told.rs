//! Tells services what a proxy tells of its traffic, several at a time, while the worker serves
//! others: spans, entries of logs.

use std::{rc::Rc, sync::Arc};

use tokio::time::sleep;

use super::call;
use crate::{
    runtime::{
        access_log::{AccessLog, LogService, LogTarget},
        collector::Collector,
        filter::{Call, Counter},
        trace::Tracer,
    },
    telemetry::{
        Entry,
        batch::{Batches, Due, PATIENCE},
        log_service::{self, Record},
        trace::{self, Finished, Origin},
    },
    worker::Worker,
};

/// Spans by what became of them.
const SPANS: Counter = Counter { name: "ferromesh_spans_total", label: "outcome" };
/// Entries that go to services, the same.
const ENTRIES: Counter = Counter { name: "ferromesh_log_entries_total", label: "outcome" };

/// A kind of service, and what it is told.
trait Told: Sized + 'static {
    type Item: 'static;
    const COUNTER: Counter;

    fn batches(worker: &Worker) -> &Batches<Self, Self::Item>;
    fn call(&self, items: Vec<Self::Item>, origin: &Origin) -> Option<Call>;
    fn collector(&self) -> &Collector;
}

impl Told for Tracer {
    type Item = Finished;
    const COUNTER: Counter = SPANS;

    fn batches(worker: &Worker) -> &Batches<Self, Finished> {
        &worker.spans
    }

    fn call(&self, items: Vec<Finished>, origin: &Origin) -> Option<Call> {
        trace::told(self, &items, origin)
    }

    fn collector(&self) -> &Collector {
        &self.collector
    }
}

impl Told for LogService {
    type Item = Record;
    const COUNTER: Counter = ENTRIES;

    fn batches(worker: &Worker) -> &Batches<Self, Record> {
        &worker.entries
    }

    fn call(&self, items: Vec<Record>, origin: &Origin) -> Option<Call> {
        log_service::told(self, items, origin)
    }

    fn collector(&self) -> &Collector {
        &self.collector
    }
}

/// Hands over a span that is over.
pub(super) fn span(worker: &Rc<Worker>, tracer: &Arc<Tracer>, span: Finished) {
    add(worker, tracer, span);
}

/// Logs an entry wherever a log's filter lets it pass.
pub(crate) fn log(worker: &Rc<Worker>, logs: &[AccessLog], entry: &Entry<'_>) {
    for log in logs.iter().filter(|log| entry.passes(&log.filter)) {
        match &log.target {
            LogTarget::Lines(lines) => worker.shared.log.write(lines, entry),
            LogTarget::Service(service) => {
                add(worker, service, log_service::record(service, entry));
            }
        }
    }
}

fn add<S: Told>(worker: &Rc<Worker>, service: &Arc<S>, item: S::Item) {
    match S::batches(worker).add(service, item) {
        Due::Nothing => {}
        Due::Now(items) => tell(worker, service, items),
        Due::Later => {
            let (worker, service) = (Rc::clone(worker), Arc::clone(service));
            tokio::task::spawn_local(async move {
                sleep(PATIENCE).await;
                let items = S::batches(&worker).take(&service);
                tell(&worker, &service, items);
            });
        }
    }
}

fn tell<S: Told>(worker: &Rc<Worker>, service: &Arc<S>, items: Vec<S::Item>) {
    if items.is_empty() {
        return;
    }
    let many = items.len();
    let call = service.call(items, &worker.shared.metrics.node().origin);
    let Some(call) = call.filter(|_| S::batches(worker).begin()) else {
        return count::<S>(worker, "dropped", many);
    };
    let (worker, service) = (Rc::clone(worker), Arc::clone(service));
    tokio::task::spawn_local(async move {
        let config = worker.shared.config();
        let answer = call::call(&worker, &config, call).await;
        S::batches(&worker).end();
        let taken = answer.is_ok_and(|answer| service.collector().has_taken(&answer));
        count::<S>(&worker, if taken { "sent" } else { "failed" }, many);
    });
}

fn count<S: Told>(worker: &Worker, outcome: &str, many: usize) {
    worker.metrics.count_many(S::COUNTER, &outcome.into(), many as u64);
}
