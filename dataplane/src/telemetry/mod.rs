//! What is reported about traffic: metrics with Istio's names and labels, and access logs in
//! Envoy's format. Both only read what the hot path has noted; nothing here decides about traffic.

pub mod access_log;
pub(crate) mod expression;
pub mod labels;
pub mod metrics;
mod series;

pub use self::{
    access_log::{Entry, LogWriter},
    labels::Node,
    metrics::Metrics,
};
pub use crate::runtime::flags::Flags;
