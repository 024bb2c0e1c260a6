//! Tells spans to their collectors: several at a time, while the worker serves others.

use std::{rc::Rc, sync::Arc};

use tokio::time::sleep;

use super::call;
use crate::{
    runtime::{filter::Counter, trace::Tracer},
    telemetry::trace::{self, Batches, Due, Finished},
    worker::Worker,
};

/// Spans by what became of them.
const SPANS: Counter = Counter { name: "ferromesh_spans_total", label: "outcome" };

/// Hands over a span that is over.
pub(super) fn end(worker: &Rc<Worker>, tracer: &Arc<Tracer>, span: Finished) {
    match worker.spans.add(tracer, span) {
        Due::Nothing => {}
        Due::Now(spans) => tell(worker, tracer, spans),
        Due::Later => {
            let (worker, tracer) = (Rc::clone(worker), Arc::clone(tracer));
            tokio::task::spawn_local(async move {
                sleep(Batches::PATIENCE).await;
                let spans = worker.spans.take(&tracer);
                tell(&worker, &tracer, spans);
            });
        }
    }
}

fn tell(worker: &Rc<Worker>, tracer: &Arc<Tracer>, spans: Vec<Finished>) {
    if spans.is_empty() {
        return;
    }
    let call = trace::told(tracer, &spans, &worker.shared.metrics.node().origin);
    let Some(call) = call.filter(|_| worker.spans.begin()) else {
        return count(worker, "dropped", spans.len());
    };
    let (worker, tracer, sent) = (Rc::clone(worker), Arc::clone(tracer), spans.len());
    tokio::task::spawn_local(async move {
        let config = worker.shared.config();
        let answer = call::call(&worker, &config, call).await;
        worker.spans.end();
        let taken = answer.is_ok_and(|answer| tracer.collector.has_taken(&answer));
        count(&worker, if taken { "sent" } else { "failed" }, sent);
    });
}

fn count(worker: &Worker, outcome: &str, spans: usize) {
    worker.metrics.count_many(SPANS, &outcome.into(), spans as u64);
}
