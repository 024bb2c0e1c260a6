//! The control plane: a server around the translator and the certificate authority.
//!
//! Configuration flows one way: sources send events to the pipeline, which owns the compiler and
//! publishes views; ADS streams follow the views of their proxy; status and metrics are sinks that
//! nothing reads back.

pub mod accept;
pub mod admin;
pub mod ads;
pub mod app;
pub mod backup;
pub mod cli;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod event;
pub mod findings;
pub mod inject;
mod json;
pub mod judge;
pub mod kube_cluster;
pub mod log;
#[cfg(test)]
mod logged;
pub mod metrics;
pub mod nack;
pub mod pipeline;
pub mod precedence;
pub mod secret;
pub mod signatures;
pub mod source;
pub mod status;
pub mod store;
pub mod tls;
pub mod webhook;
