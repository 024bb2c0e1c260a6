//! What Ferromesh's own objects mean.

use std::{sync::Arc, time::Duration};

use super::rate_limit::{Alike, FailureMode, Global, Local, Part, PartSource, RateLimit};
use crate::{
    dialect::lowering::Lowering,
    ir::{
        AlikeQuota, Kind, LimitRefusal, ObjectId, OwnQuota, PolicyScope, PolicyTarget, Quota, Rate,
        RequestPart, Selector, SharedQuota,
    },
    snapshot::Item,
};

/// Limit of an answer of a service that counts.
const PATIENCE: Duration = Duration::from_millis(100);

impl Lowering<'_> {
    pub(super) fn rate_limit(&self, spec: &RateLimit) -> Option<Item> {
        let quota = match (&spec.local, &spec.global) {
            (Some(local), _) => Quota::Own(own(local)),
            (None, Some(global)) => Quota::Shared(self.shared(global)),
            (None, None) => return None,
        };
        let answer = spec.answer.as_ref();
        let refusal = LimitRefusal {
            status: answer
                .and_then(|answer| answer.status)
                .unwrap_or(LimitRefusal::default().status),
            headers: answer.map(|answer| answer.headers.clone()).unwrap_or_default(),
        };
        let gateway = (!spec.gateway.is_empty()).then(|| ObjectId {
            kind: Kind::GATEWAY,
            namespace: self.namespace().clone(),
            name: spec.gateway.clone(),
        });
        // The proxies of a Gateway may be in any namespace.
        let scope = match &gateway {
            Some(_) => PolicyScope::Mesh,
            None => PolicyScope::of(self.namespace(), &self.mesh.root_namespace),
        };
        let selector = spec.selector.as_ref();
        Some(Item::RateLimit(Arc::new(crate::ir::RateLimit {
            origin: self.origin(),
            scope,
            selector: selector
                .map(|selector| Selector::from(selector.match_labels.clone()))
                .unwrap_or_default(),
            gateway,
            target: spec.port.map_or(PolicyTarget::All, PolicyTarget::port),
            ports: None,
            quota,
            refusal,
        })))
    }

    fn shared(&self, global: &Global) -> SharedQuota {
        SharedQuota {
            host: self.host(&global.service),
            port: global.port,
            domain: global.domain.clone(),
            timeout: global.timeout.unwrap_or(PATIENCE),
            fail_open: global.failure_mode == FailureMode::Allow,
            told: global
                .descriptors
                .iter()
                .map(|descriptor| descriptor.by.iter().map(part).collect())
                .collect(),
        }
    }
}

fn own(local: &Local) -> OwnQuota {
    let alike = |alike: &Alike| AlikeQuota {
        parts: alike.by.iter().map(|written| (part(written), written.value.clone())).collect(),
        rate: Rate { requests: alike.requests, window: alike.interval },
    };
    OwnQuota {
        rate: Rate { requests: local.requests, window: local.interval },
        alike: local.alike.iter().map(alike).collect(),
    }
}

fn part(written: &Part) -> RequestPart {
    let name = &written.name;
    match written.source {
        PartSource::Header => RequestPart::Header(name.to_ascii_lowercase().into()),
        PartSource::RemoteAddress => RequestPart::RemoteAddress,
        PartSource::Path => RequestPart::Path,
        PartSource::Constant => {
            RequestPart::Constant(name.clone(), written.value.clone().unwrap_or_default())
        }
        PartSource::Claim => RequestPart::Claim(name.split('.').map(Into::into).collect()),
    }
}
