//! What a filter wants, done for it: waiting and calling, while the worker serves others.

use std::sync::Arc;

use tokio::time::sleep;

use super::{call, exchange::Exchange};
use crate::{
    runtime::filter::{Answer, NamedFilter, Phase, Piece, Step},
    worker::ActiveConfig,
};

/// How it goes on once what a filter wanted is done.
pub(super) enum Next {
    /// The filter is shown the same again.
    Again,
    /// It has seen enough.
    Onward,
}

/// Waits and calls as a filter wants it; an answer of its is the error.
pub(super) async fn satisfy(
    exchange: &mut Exchange,
    config: &ActiveConfig,
    named: &NamedFilter,
    place: usize,
    step: Step,
) -> Result<Next, Box<Answer>> {
    match step {
        Step::Continue | Step::More | Step::Change(_) => Ok(Next::Onward),
        Step::Answer(answer) => Err(answer),
        Step::Wait(time, then) => {
            sleep(time).await;
            then.map_or(Ok(Next::Onward), Err)
        }
        Step::Call(wanted) => {
            let called = call::call(&exchange.downstream.worker, config, *wanted).await;
            named.filter.called(called, &mut exchange.notes, place);
            Ok(Next::Again)
        }
    }
}

/// Shows a piece of a response's body to the filters, the last one first. The exchange comes back;
/// no piece does where a filter ends the response.
pub(super) async fn response_body(
    mut exchange: Box<Exchange>,
    mut piece: Piece,
) -> (Box<Exchange>, Option<Piece>) {
    let manager = Arc::clone(&exchange.manager);
    for (place, named) in manager.filters.iter().enumerate().rev() {
        while named.filter.takes_part(Phase::ResponseBody) {
            let step = named.filter.response_body(&mut exchange.notes, &mut piece, place);
            let config = exchange.downstream.worker.shared.config();
            match satisfy(&mut exchange, &config, named, place, step).await {
                Ok(Next::Again) => {}
                Ok(Next::Onward) => break,
                Err(_) => return (exchange, None),
            }
        }
    }
    (exchange, Some(piece))
}
