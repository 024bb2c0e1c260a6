//! Ferromesh's own kinds: what users of a mesh need and no dialect has.

mod lower;
pub mod rate_limit;
mod rules;

use self::rate_limit::RateLimit;
use super::{
    decode::Decoder,
    definition::{Column, Definition},
    kind::{Served, Serving, kinds},
    lowering::Lowering,
    spec::Spec,
};
use crate::snapshot::Item;

kinds! {
    700;
    /// RateLimit: how many requests workloads and gateways take.
    RATE_LIMIT: "policy.ferromesh.io" ["v1alpha1"] "RateLimit" "ratelimits" "rate-limit" Namespaced => Serving::Served(Served::spec::<RateLimit>().defined(&RATE_LIMITS));
}

static RATE_LIMITS: Definition = Definition {
    schema: RateLimit::SCHEMA,
    short: &[],
    versions: &["v1alpha1"],
    columns: &[
        Column::text("Requests", ".spec.local.requests", "How many a proxy takes."),
        Column::text("Interval", ".spec.local.interval", "In which time."),
        Column::text("Service", ".spec.global.service", "Who counts for all proxies."),
    ],
};

impl Spec for RateLimit {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::check(self, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        lowering.rate_limit(self).into_iter().collect()
    }
}
