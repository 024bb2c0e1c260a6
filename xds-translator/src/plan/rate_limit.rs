//! Which limits of requests hold at a port.

use std::sync::Arc;

use crate::ir::{PolicyTarget, Rate, RateLimit};

/// The limits at a port; `None`: at ports of which nothing is known.
pub(crate) fn rates(limits: &[Arc<RateLimit>], port: Option<u16>) -> Vec<Rate> {
    let holds = |target: PolicyTarget| match port {
        Some(port) => target.reaches_port(port),
        None => target == PolicyTarget::All,
    };
    limits.iter().filter(|limit| holds(limit.target)).map(|limit| limit.rate).collect()
}
