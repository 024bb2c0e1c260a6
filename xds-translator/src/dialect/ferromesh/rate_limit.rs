//! `policy.ferromesh.io RateLimit`: its fields.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::dialect::schema::{choice, object};

object! { no_null;
    /// How many requests workloads and gateways take.
    RateLimit {
        /// Workloads of the namespace (in the root namespace: of the mesh); absent: all.
        "selector" selector: Option<Selector>,
        /// Instead of workloads, the proxies of this Gateway of the namespace.
        "gateway" gateway: Arc<str>,
        /// The port: of a container, or of a gateway's listener; absent: all.
        "port" port: Option<u16>,
        /// What every proxy counts for itself; excludes `global`.
        "local" local: Option<Local>,
        /// What a service counts for all proxies; excludes `local`.
        "global" global: Option<Global>,
        /// What is answered to what is too much.
        "answer" answer: Option<Answer>,
    }
}

object! { no_null;
    /// Workloads by their labels.
    Selector {
        /// Labels that they have.
        "matchLabels" match_labels: BTreeMap<Arc<str>, Arc<str>>,
    }
}

object! { no_null;
    /// What every proxy counts for itself.
    Local {
        /// How many requests, from all clients together.
        "requests" requests: u32 [required],
        /// In which time; so much later all of them are free again.
        "interval" interval: Duration [required],
        /// How many of those that are alike, which count as any other beside.
        "alike" alike: Vec<Alike>,
    }
}

object! { no_null;
    /// How many requests are taken that have something in common.
    Alike {
        /// What they have in common.
        "by" by: Vec<Part> [required],
        /// How many.
        "requests" requests: u32 [required],
        /// In which time.
        "interval" interval: Duration [required],
    }
}

object! { no_null;
    /// What a service counts for all proxies.
    Global {
        /// The service's host; a short name is of the same namespace.
        "service" service: Arc<str> [required],
        /// Its port.
        "port" port: u16 [required],
        /// Which of the service's limits are meant.
        "domain" domain: Arc<str> [required],
        /// What it is told of a request.
        "descriptors" descriptors: Vec<Descriptor> [required],
        /// Limit of its answer (100ms).
        "timeout" timeout: Option<Duration>,
        /// What happens to a request about which it does not answer.
        "failureMode" failure_mode: FailureMode,
    }
}

object! { no_null;
    /// What a service is told of a request for one limit.
    Descriptor {
        /// The parts of the request.
        "by" by: Vec<Part> [required],
    }
}

choice! {
    /// What happens to a request about which a service does not answer.
    FailureMode {
        /// It is refused.
        Deny = "DENY",
        /// It passes.
        Allow = "ALLOW",
    }
}

object! { no_null;
    /// A part of a request by which requests are alike; a request without it is not counted by it.
    Part {
        /// What it is.
        "source" source: PartSource [required],
        /// Which: the name of a header, a claim (of nested ones, separated by dots), the key of a
        /// constant.
        "name" name: Arc<str>,
        /// Its value: of a constant, or the one that is meant; absent: each value is counted by
        /// itself.
        "value" value: Option<Arc<str>>,
    }
}

choice! {
    /// What a part is.
    PartSource {
        /// A header.
        Header = "HEADER",
        /// The client's address.
        RemoteAddress = "REMOTE_ADDRESS",
        /// The path with its query.
        Path = "PATH",
        /// A constant, which a service is told.
        Constant = "CONSTANT",
        /// A claim of the request's token.
        Claim = "CLAIM",
    }
}

object! { no_null;
    /// What is answered to a request that is too much.
    Answer {
        /// The status (429).
        "status" status: Option<u16>,
        /// Headers.
        "headers" headers: BTreeMap<Arc<str>, Arc<str>>,
    }
}
