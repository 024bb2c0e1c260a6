//! What the values of one object must keep to, seen on its own. What objects say about each other:
//! [`crate::analyze`].

mod action;
pub(super) mod backend;
mod cel;
mod condition;
pub(super) mod entry;
pub(super) mod extension;
mod format;
pub(super) mod gateway;
mod label;
mod line;
mod locality;
mod log;
pub(super) mod machine;
pub(super) mod mesh;
mod metric_label;
mod own_cel;
pub(super) mod patch;
mod pattern;
mod provider;
pub(super) mod proxy;
pub(super) mod route;
pub(super) mod security;
mod share;
pub(super) mod sidecar;
pub(super) mod telemetry;
mod time;
mod tls;
pub(super) mod token;
pub(super) mod variables;

#[cfg(test)]
mod tests;

pub(super) use metric_label::label_expression;
