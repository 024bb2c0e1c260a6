//! `networking.istio.io ProxyConfig`: fields only.

use std::{collections::BTreeMap, sync::Arc};

use super::shared::WorkloadSelector;
use crate::dialect::schema::object;

object! { no_null;
    /// What proxies are started with; pods that run already keep what they were started with.
    ProxyConfig {
        /// Workloads of the namespace; absent: all (in the root namespace: all of the mesh).
        "selector" selector: Option<WorkloadSelector>,
        /// Worker threads; 0: as many as there are processors.
        "concurrency" concurrency: Option<u32>,
        /// Further variables of the proxy's environment.
        "environmentVariables" environment: BTreeMap<Arc<str>, Arc<str>>,
        /// The proxy's image.
        "image" image: Option<ProxyImage>,
    }
}

object! { no_null;
    /// The proxy's image.
    ProxyImage {
        /// A variant of it.
        "imageType" image_type: Arc<str>
            [idle("there is one image of each kind of proxy, which the settings of injection name")],
    }
}
