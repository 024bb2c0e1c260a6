//! What the values of one object must keep to, seen on its own. What objects say about each other:
//! [`crate::analyze`].

pub(super) mod backend;
mod cel;
pub(super) mod entry;
mod format;
pub(super) mod gateway;
mod line;
mod log;
pub(super) mod mesh;
pub(super) mod patch;
mod pattern;
mod provider;
pub(super) mod route;
pub(super) mod security;
pub(super) mod telemetry;
mod tls;
pub(super) mod token;
