//! The control plane: a server around the translator and the certificate authority.
//!
//! Configuration flows one way: sources send events to the pipeline, which owns the compiler and publishes views; ADS
//! streams follow the views of their proxy; status and metrics are sinks that nothing reads back.

pub mod store;
pub mod config;
pub mod secret;
pub mod source;
