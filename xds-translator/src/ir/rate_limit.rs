//! How many requests workloads and gateways take.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Serialize;

use super::{Hostname, ObjectId, Origin, PolicyScope, PolicyTarget, Selector, SharedPorts};

/// The limit that one object gives; of several limits all hold. Connections of other protocols than
/// HTTP are not limited.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct RateLimit {
    /// The object.
    pub origin: Origin,
    /// Where the workloads are.
    pub scope: PolicyScope,
    /// Which workloads of its scope; empty: all.
    pub selector: Selector,
    /// The gateway object whose proxies are meant, instead of workloads.
    pub gateway: Option<ObjectId>,
    /// At which port of theirs.
    pub target: PolicyTarget,
    /// Instead of all that `selector` and `target` say: ports that objects of their own describe. Only
    /// as lowered.
    pub ports: Option<SharedPorts>,
    /// How many requests.
    pub quota: Quota,
    /// What is answered to what is too much.
    pub refusal: LimitRefusal,
}

impl RateLimit {
    /// Whether it is for a gateway's proxies, by the gateway objects that it serves, or for what its
    /// selector picks.
    pub fn is_for(&self, gateways: &[ObjectId]) -> bool {
        self.gateway.as_ref().is_none_or(|gateway| gateways.contains(gateway))
    }
}

/// How many requests are taken, and who counts.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum Quota {
    /// Every proxy counts for itself.
    Own(OwnQuota),
    /// A service counts for all proxies.
    Shared(SharedQuota),
}

/// What every proxy counts for itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct OwnQuota {
    /// How many requests, from all clients together.
    pub rate: Rate,
    /// How many of those that are alike; no two with the same parts and values.
    pub alike: Vec<AlikeQuota>,
}

impl OwnQuota {
    /// So many of all requests.
    pub fn of(rate: Rate) -> Self {
        Self { rate, alike: Vec::new() }
    }
}

/// How many requests are taken that have something in common.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct AlikeQuota {
    /// What they have in common, never empty: a part, and its value; `None`: any, each of which is
    /// counted by itself.
    pub parts: Vec<(RequestPart, Option<Arc<str>>)>,
    /// How many.
    pub rate: Rate,
}

/// What a service counts for all proxies.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct SharedQuota {
    /// The service's host.
    pub host: Hostname,
    /// Its port.
    pub port: u16,
    /// Which of the service's limits are meant.
    pub domain: Arc<str>,
    /// Limit of its answer.
    pub timeout: Duration,
    /// Who gets no answer passes.
    pub fail_open: bool,
    /// What the service is told of a request: lists of parts, each for one limit; never empty.
    pub told: Vec<Vec<RequestPart>>,
}

/// A part of a request by which requests are alike. A request without it is not counted by it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum RequestPart {
    /// A header, in lower case.
    Header(Arc<str>),
    /// The client's address.
    RemoteAddress,
    /// The path with its query.
    Path,
    /// A constant, by its name.
    Constant(Arc<str>, Arc<str>),
    /// A claim of the request's token, by its way through the claims.
    Claim(Vec<Arc<str>>),
}

impl RequestPart {
    /// What it is called where it is counted.
    pub fn key(&self) -> String {
        match self {
            Self::Header(name) | Self::Constant(name, _) => name.to_string(),
            Self::RemoteAddress => "remote_address".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Claim(path) => path.join("."),
        }
    }
}

/// What is answered to a request that is too much.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct LimitRefusal {
    /// The status.
    pub status: u16,
    /// Headers of the answer.
    pub headers: BTreeMap<Arc<str>, Arc<str>>,
}

impl Default for LimitRefusal {
    fn default() -> Self {
        Self { status: 429, headers: BTreeMap::new() }
    }
}

/// Requests over time: a bucket of this many, which is full again after the window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Rate {
    /// At least 1.
    pub requests: u32,
    /// At least 50 ms, which proxies count in.
    pub window: Duration,
}
