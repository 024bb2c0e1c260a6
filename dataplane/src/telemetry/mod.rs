//! What is reported about traffic: metrics with Istio's names and labels, and access logs in Envoy's format. Both only
//! read what the hot path has noted; nothing here decides about traffic.

pub mod access_log;
pub mod flags;
pub mod metrics;

pub use self::{
    access_log::{Entry, LogWriter},
    flags::Flags,
    metrics::{Metrics, Node},
};
