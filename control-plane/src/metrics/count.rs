//! Counts that keep istiod's names.

use prometheus_client::metrics::gauge::Gauge;

/// A count under a name of istiod's that does not end in `_total`: this format reserves that ending
/// for counters and puts it on all of them, so that dashboards would not find the name.
pub type Count = Gauge;
