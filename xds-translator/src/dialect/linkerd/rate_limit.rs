//! `policy.linkerd.io HTTPLocalRateLimitPolicy`: how many requests a Server takes.

use std::{sync::Arc, time::Duration};

use super::reference::{POLICY, Reference};
use crate::{
    dialect::{Kind, decode::Decoder, lowering::Lowering, schema::object, spec::Spec},
    ir::{
        LimitRefusal, OwnQuota, PolicyScope, PolicyTarget, Quota, Rate, RateLimit, Selector,
        SharedPorts, WhichPorts,
    },
    snapshot::Item,
};

object! { no_null;
    /// How many requests a Server takes.
    LocalRateLimit {
        /// The Server.
        "targetRef" target_ref: Reference [required],
        /// From all callers together.
        "total" total: Option<RequestRate>,
        /// From each identity.
        "identity" identity: Option<RequestRate> [refused("proxies do not count identities apart: `total` counts all callers together, and a RateLimit of Ferromesh's those that a header tells apart")],
        /// From some callers.
        "overrides" overrides: Vec<RateOverride> [refused("proxies do not count identities apart: `total` counts all callers together")],
    }
}

object! { no_null;
    /// Requests over time.
    RequestRate {
        /// How many in a second.
        "requestsPerSecond" requests_per_second: u32 [required],
    }
}

object! { no_null;
    /// Requests of some callers over time.
    RateOverride {
        /// How many in a second.
        "requestsPerSecond" requests_per_second: u32 [required],
        /// The callers.
        "clientRefs" client_refs: Vec<Reference> [required],
    }
}

impl Spec for LocalRateLimit {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| {
            at.within("targetRef", |at| {
                self.target_ref.check("target", &[(POLICY, "Server")], at);
                self.target_ref.check_local(at);
            });
            match &self.total {
                Some(total) if total.requests_per_second == 0 => at.within("total", |at| {
                    let message = "lets nobody pass: at least 1";
                    at.within("requestsPerSecond", |at| at.invalid(message, None));
                }),
                None if !at.is_refused_here() => at.missing("total", None),
                _ => {}
            }
        });
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        let Some(total) = &self.total else { return Vec::new() };
        let rate = Rate { requests: total.requests_per_second, window: Duration::from_secs(1) };
        let server = self.target_ref.object(Kind::LINKERD_SERVER, lowering);
        vec![Item::RateLimit(Arc::new(RateLimit {
            origin: lowering.origin(),
            scope: PolicyScope::Namespace(lowering.namespace().clone()),
            selector: Selector::default(),
            gateway: None,
            target: PolicyTarget::All,
            ports: Some(SharedPorts {
                at: "spec.targetRef.name".into(),
                which: WhichPorts::Of(server),
            }),
            quota: Quota::Own(OwnQuota::of(rate)),
            refusal: LimitRefusal::default(),
        }))]
    }
}
