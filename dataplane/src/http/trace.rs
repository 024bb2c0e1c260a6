//! A request's place in traces: whether it is told, which trace it belongs to, and what whoever
//! gets it is told of that.
//!
//! A request of a connection manager without traces costs one look, one that is not told no span.

use http::HeaderValue;

use super::{
    exchange::Exchange,
    headers::X_REQUEST_ID,
    operation::{self, Told},
    outgoing::Outgoing,
    reply::Reply,
};
use crate::{
    runtime::{
        HttpConnectionManager,
        listener::TrafficDirection,
        route::Route,
        trace::{CallSide, Tracing},
    },
    telemetry::trace::Span,
};

/// What vendors add to a context (W3C Trace Context, section 3.3).
const TRACESTATE: &str = "tracestate";

/// Decides about a request of which the route was looked for, and tells whoever gets it.
pub(super) fn begin(
    exchange: &mut Exchange,
    manager: &HttpConnectionManager,
    route: Option<&Route>,
    outgoing: &mut Outgoing,
) -> Told {
    let Some(tracing) = &manager.tracing else { return Told::Nothing };
    let side = side(exchange.downstream.listener.direction);
    let traced = tracing.decide(&mut outgoing.headers, rand::random);
    note_id(exchange, outgoing);
    let (told, name) = operation::tell(side, route, &mut outgoing.headers);
    exchange.span = span(tracing, side, traced, name.as_ref(), outgoing).map(Box::new);
    told
}

fn side(direction: TrafficDirection) -> CallSide {
    match direction {
        TrafficDirection::Outbound => CallSide::Client,
        TrafficDirection::Inbound | TrafficDirection::Unspecified => CallSide::Server,
    }
}

/// Logs show the id as it is marked.
fn note_id(exchange: &mut Exchange, outgoing: &Outgoing) {
    if let (Some(kept), Some(id)) =
        (&mut exchange.request_headers, outgoing.headers.get(X_REQUEST_ID))
        && let Some(noted) = kept.get_mut(X_REQUEST_ID)
        && noted != id
    {
        noted.clone_from(id);
    }
}

/// The span of a request that is told.
fn span(
    tracing: &Tracing,
    side: CallSide,
    traced: bool,
    name: Option<&HeaderValue>,
    outgoing: &mut Outgoing,
) -> Option<Span> {
    let tracer = tracing.tracer.as_ref()?;
    let context = tracer.begin(&outgoing.headers, side, traced, rand::random)?;
    if !tracing.is_silent {
        tracer.tell(&context, &mut outgoing.headers);
    }
    if !context.sampled {
        return None;
    }
    let name = match name {
        Some(name) => String::from_utf8_lossy(name.as_bytes()).into_owned(),
        None => tracer.form.usual_name(side, &outgoing.authority),
    };
    let states = outgoing.headers.get_all(TRACESTATE).iter();
    let states: Vec<_> = states.map(|state| String::from_utf8_lossy(state.as_bytes())).collect();
    Some(Span {
        context,
        side,
        name,
        state: states.join(","),
        headers: outgoing.headers.clone(),
        authority: outgoing.authority.clone(),
        path: outgoing.path.clone(),
    })
}

/// Notes the request as it is sent on.
pub(super) fn note_sent(exchange: &mut Exchange, outgoing: &Outgoing) {
    if let Some(span) = &mut exchange.span {
        span.headers.clone_from(&outgoing.headers);
        span.authority.clone_from(&outgoing.authority);
        span.path.clone_from(&outgoing.path);
    }
}

/// Tells the caller's proxy, or takes what the callee's has told us.
pub(super) fn answered(told: Told, reply: &mut Reply) {
    let Some(name) = told.write(reply.headers_mut()).filter(|name| !name.is_empty()) else {
        return;
    };
    let exchange = reply.body_mut().exchange_mut();
    if let Some(span) = exchange.and_then(|exchange| exchange.span.as_mut()) {
        span.name = String::from_utf8_lossy(name.as_bytes()).into_owned();
    }
}
