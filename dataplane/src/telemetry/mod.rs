//! What is reported about traffic: metrics with Istio's names and labels, access logs in Envoy's
//! format, spans of requests that are traced. All of them only read what the hot path has noted;
//! nothing here decides about traffic.

pub mod access_log;
mod attributes;
pub mod batch;
pub mod labels;
pub mod log_service;
pub mod metrics;
mod otlp;
mod series;
pub mod trace;

pub use self::{
    access_log::{Entry, LogWriter},
    labels::Node,
    metrics::Metrics,
};
pub use crate::runtime::flags::Flags;
