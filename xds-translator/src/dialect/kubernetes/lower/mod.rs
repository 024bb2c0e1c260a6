//! What Kubernetes' objects mean.

mod pods;
mod services;
