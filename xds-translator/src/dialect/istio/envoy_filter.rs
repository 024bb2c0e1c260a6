//! `networking.istio.io EnvoyFilter`: fields, and which operation may be used on what.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::shared::{LabelSelector, TargetRef};
use crate::{
    dialect::schema::{choice, object},
    ir::{FilterPlace, MergedLists, PatchOperation},
};

object! { no_null;
    /// Changes of what proxies are sent.
    EnvoyFilter {
        /// Workloads of the namespace (in the root namespace: of the mesh); absent: all.
        "workloadSelector" workload_selector: Option<LabelSelector>,
        /// Gateways and services that it is attached to.
        "targetRefs" target_refs: Vec<TargetRef>,
        /// The changes, in the order in which they are applied.
        "configPatches" config_patches: Vec<ConfigPatch>,
        /// Objects with smaller numbers are applied earlier.
        "priority" priority: i32,
    }
}

object! { no_null;
    /// One change.
    ConfigPatch {
        /// What is changed.
        "applyTo" apply_to: ApplyTo [required],
        /// Where; absent: everywhere.
        "match" matches: Option<PatchMatch>,
        /// How.
        "patch" patch: Option<PatchBody> [required],
    }
}

choice! {
    /// What is changed.
    ApplyTo {
        /// Nothing; not to be used.
        Invalid = "INVALID",
        /// Listeners.
        Listener = "LISTENER",
        /// Filter chains of listeners.
        FilterChain = "FILTER_CHAIN",
        /// Filters of filter chains.
        NetworkFilter = "NETWORK_FILTER",
        /// Filters of HTTP connections.
        HttpFilter = "HTTP_FILTER",
        /// Route configurations.
        RouteConfiguration = "ROUTE_CONFIGURATION",
        /// Virtual hosts of route configurations.
        VirtualHost = "VIRTUAL_HOST",
        /// Routes of virtual hosts.
        HttpRoute = "HTTP_ROUTE",
        /// Clusters.
        Cluster = "CLUSTER",
        /// Configuration that filters are sent apart.
        ExtensionConfig = "EXTENSION_CONFIG",
        /// What a proxy starts with.
        Bootstrap = "BOOTSTRAP",
        /// Filters of listeners.
        ListenerFilter = "LISTENER_FILTER",
    }
}

object! { no_null;
    /// Where a change is made.
    PatchMatch {
        /// Which side of which proxies.
        "context" context: PatchContext,
        /// Which proxies, by what they say of themselves.
        "proxy" proxy: Option<ProxyMatch>,
        /// Which listeners and filters.
        "listener" listener: Option<ListenerMatch>,
        /// Which route configurations, virtual hosts and routes.
        "routeConfiguration" route_configuration: Option<RouteConfigurationMatch>,
        /// Which clusters.
        "cluster" cluster: Option<ClusterMatch>,
        /// Which parts of a waypoint.
        "waypoint" waypoint: Option<Value>,
    }
}

choice! {
    /// Which side of which proxies.
    PatchContext {
        /// All.
        Any = "ANY",
        /// Sidecars, what leads to the workload.
        SidecarInbound = "SIDECAR_INBOUND",
        /// Sidecars, what leads from the workload.
        SidecarOutbound = "SIDECAR_OUTBOUND",
        /// Gateways.
        Gateway = "GATEWAY",
        /// Waypoints.
        Waypoint = "WAYPOINT",
    }
}

object! { no_null;
    /// Proxies, by what they say of themselves.
    ProxyMatch {
        /// Their version, an RE2 expression.
        "proxyVersion" proxy_version: Arc<str>,
        /// Their metadata.
        "metadata" metadata: BTreeMap<Arc<str>, Arc<str>>,
    }
}

object! { no_null;
    /// Listeners, and what they consist of.
    ListenerMatch {
        /// Their port; of `virtualInbound` and `virtualOutbound`, the port of a chain.
        "portNumber" port_number: u16,
        /// What a service or a gateway calls that port, in any case.
        "portName" port_name: Arc<str>,
        /// Their filter chains.
        "filterChain" filter_chain: Option<FilterChainMatch>,
        /// A filter of theirs.
        "listenerFilter" listener_filter: Arc<str>,
        /// Their name.
        "name" name: Arc<str>,
    }
}

object! { no_null;
    /// Filter chains.
    FilterChainMatch {
        /// Their name.
        "name" name: Arc<str>,
        /// One of their SNI names.
        "sni" sni: Arc<str>,
        /// `tls` or `raw_buffer`.
        "transportProtocol" transport_protocol: Arc<str>,
        /// Names separated by commas, all of which they must have.
        "applicationProtocols" application_protocols: Arc<str>,
        /// Their destination port.
        "destinationPort" destination_port: u16,
        /// The name of their transport socket.
        "transportSocket" transport_socket: Arc<str>,
        /// A filter of theirs.
        "filter" filter: Option<FilterMatch>,
    }
}

object! { no_null;
    /// A filter of a filter chain.
    FilterMatch {
        /// Its name.
        "name" name: Arc<str>,
        /// A filter of the HTTP connection that it is.
        "subFilter" sub_filter: Option<SubFilterMatch>,
    }
}

object! { no_null;
    /// A filter of an HTTP connection.
    SubFilterMatch {
        /// Its name.
        "name" name: Arc<str>,
    }
}

object! { no_null;
    /// Route configurations, and what they consist of.
    RouteConfigurationMatch {
        /// Their port.
        "portNumber" port_number: u16,
        /// The name of a gateway's port.
        "portName" port_name: Arc<str>,
        /// The gateway, `NAMESPACE/NAME`.
        "gateway" gateway: Arc<str>,
        /// Their virtual hosts.
        "vhost" vhost: Option<VirtualHostMatch>,
        /// Their name.
        "name" name: Arc<str>,
    }
}

object! { no_null;
    /// Virtual hosts.
    VirtualHostMatch {
        /// Their name, `HOST:PORT`.
        "name" name: Arc<str>,
        /// One of their domains.
        "domainName" domain_name: Arc<str>,
        /// Their routes.
        "route" route: Option<RouteMatch>,
    }
}

object! { no_null;
    /// Routes.
    RouteMatch {
        /// Their name.
        "name" name: Arc<str>,
        /// What they do.
        "action" action: RouteAction,
    }
}

choice! {
    /// What a route does.
    RouteAction {
        /// Anything.
        Any = "ANY",
        /// It forwards.
        Route = "ROUTE",
        /// It redirects.
        Redirect = "REDIRECT",
        /// It answers.
        DirectResponse = "DIRECT_RESPONSE",
    }
}

object! { no_null;
    /// Clusters.
    ClusterMatch {
        /// Service port; of what leads to a workload, the workload's own.
        "portNumber" port_number: u16,
        /// Host of the service, fully qualified.
        "service" service: Arc<str>,
        /// Subset.
        "subset" subset: Arc<str>,
        /// The whole name; excludes the others.
        "name" name: Arc<str>,
    }
}

object! { no_null;
    /// How something is changed.
    PatchBody {
        /// What is done.
        "operation" operation: Operation [required],
        /// A message of Envoy's API as JSON.
        "value" value: Option<Value>,
        /// Where among the filters of a proxy a filter is put by ADD.
        "filterClass" filter_class: FilterClass,
    }
}

choice! {
    /// What is done.
    Operation {
        /// Nothing; not to be used.
        Invalid = "INVALID",
        /// Merged into those that match, by protobuf's rules.
        Merge = "MERGE",
        /// Added at the end.
        Add = "ADD",
        /// Those that match are taken out.
        Remove = "REMOVE",
        /// Put before the one that matches; at the front if none is named.
        InsertBefore = "INSERT_BEFORE",
        /// Put behind the one that matches; at the end if none is named.
        InsertAfter = "INSERT_AFTER",
        /// Put at the front, if the one that is named is there.
        InsertFirst = "INSERT_FIRST",
        /// Put in the place of those that match.
        Replace = "REPLACE",
        /// Merged into those that match, lists replaced.
        MergeAndReplaceList = "MERGE_AND_REPLACE_LIST",
    }
}

choice! {
    /// Where among the filters of a proxy a filter is put by ADD.
    FilterClass {
        /// At the end.
        Unspecified = "UNSPECIFIED",
        /// Behind those that authenticate.
        Authn = "AUTHN",
        /// Behind those that authorize.
        Authz = "AUTHZ",
        /// Before those that count.
        Stats = "STATS",
    }
}

/// What may be done to something that is changed.
pub(super) struct Changeable {
    /// The type of its values.
    pub(super) message: &'static str,
    /// The operations that make sense.
    pub(super) operations: &'static [Operation],
    /// The field of `match` that says which are meant; empty: none does.
    pub(super) matched_by: &'static str,
}

const HTTP_FILTER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter";

const ADDED: &[Operation] = &[Operation::Add];
const JOINED: &[Operation] = &[Operation::Merge];
const MERGED: &[Operation] = &[Operation::Merge, Operation::MergeAndReplaceList];
const WHOLE: &[Operation] =
    &[Operation::Merge, Operation::MergeAndReplaceList, Operation::Add, Operation::Remove];
const REPLACED: &[Operation] = &[
    Operation::Merge,
    Operation::MergeAndReplaceList,
    Operation::Add,
    Operation::Remove,
    Operation::Replace,
];
const ORDERED: &[Operation] = &[
    Operation::Merge,
    Operation::MergeAndReplaceList,
    Operation::Add,
    Operation::Remove,
    Operation::InsertBefore,
    Operation::InsertAfter,
    Operation::InsertFirst,
];
const FILTERS: &[Operation] = &[
    Operation::Merge,
    Operation::MergeAndReplaceList,
    Operation::Add,
    Operation::Remove,
    Operation::InsertBefore,
    Operation::InsertAfter,
    Operation::InsertFirst,
    Operation::Replace,
];

impl ApplyTo {
    /// What is served.
    pub(super) const SERVED: [Self; 11] = [
        Self::Cluster,
        Self::Listener,
        Self::ListenerFilter,
        Self::FilterChain,
        Self::NetworkFilter,
        Self::HttpFilter,
        Self::RouteConfiguration,
        Self::VirtualHost,
        Self::HttpRoute,
        Self::ExtensionConfig,
        Self::Bootstrap,
    ];

    /// What may be done to it; `None`: it is not served.
    pub(super) fn changeable(self) -> Option<Changeable> {
        let (message, operations, matched_by) = match self {
            Self::Cluster => ("envoy.config.cluster.v3.Cluster", WHOLE, "cluster"),
            Self::Listener => ("envoy.config.listener.v3.Listener", WHOLE, "listener"),
            Self::ListenerFilter => {
                ("envoy.config.listener.v3.ListenerFilter", FILTERS, "listener")
            }
            Self::FilterChain => ("envoy.config.listener.v3.FilterChain", WHOLE, "listener"),
            Self::NetworkFilter => ("envoy.config.listener.v3.Filter", FILTERS, "listener"),
            Self::HttpFilter => (HTTP_FILTER, FILTERS, "listener"),
            Self::RouteConfiguration => {
                ("envoy.config.route.v3.RouteConfiguration", MERGED, "routeConfiguration")
            }
            Self::VirtualHost => {
                ("envoy.config.route.v3.VirtualHost", REPLACED, "routeConfiguration")
            }
            Self::HttpRoute => ("envoy.config.route.v3.Route", ORDERED, "routeConfiguration"),
            Self::ExtensionConfig => ("envoy.config.core.v3.TypedExtensionConfig", ADDED, ""),
            Self::Bootstrap => ("envoy.config.bootstrap.v3.Bootstrap", JOINED, ""),
            _ => return None,
        };
        Some(Changeable { message, operations, matched_by })
    }
}

impl FilterClass {
    /// The place that it names; `None`: none.
    pub(super) fn place(self) -> Option<FilterPlace> {
        match self {
            Self::Unspecified => None,
            Self::Authn => Some(FilterPlace::BeforeAuthorization),
            Self::Authz => Some(FilterPlace::BehindAuthorization),
            Self::Stats => Some(FilterPlace::Unspecified),
        }
    }
}

impl PatchBody {
    /// What is done to what `apply_to` says; `None`: it is not served.
    pub(super) fn meaning(&self, apply_to: ApplyTo) -> Option<PatchOperation> {
        match self.filter_class.place().filter(|_| self.takes_class(apply_to)) {
            Some(place) => Some(PatchOperation::InsertAt(place)),
            None => self.operation.meaning(),
        }
    }

    /// Whether the class of the filter says where it is put.
    pub(super) fn takes_class(&self, apply_to: ApplyTo) -> bool {
        self.operation == Operation::Add
            && matches!(apply_to, ApplyTo::HttpFilter | ApplyTo::NetworkFilter)
    }
}

impl Operation {
    /// Whether a value is merged into what matches.
    pub(super) fn merges(self) -> bool {
        self.meaning().is_some_and(PatchOperation::merges)
    }

    /// What it means; `None`: it is not served.
    pub(super) fn meaning(self) -> Option<PatchOperation> {
        Some(match self {
            Self::Merge => PatchOperation::Merge(MergedLists::Joined),
            Self::MergeAndReplaceList => PatchOperation::Merge(MergedLists::Replaced),
            Self::Add => PatchOperation::Add,
            Self::Remove => PatchOperation::Remove,
            Self::InsertBefore => PatchOperation::InsertBefore,
            Self::InsertAfter => PatchOperation::InsertAfter,
            Self::InsertFirst => PatchOperation::InsertFirst,
            Self::Replace => PatchOperation::Replace,
            Self::Invalid => return None,
        })
    }
}

/// Envoy's filters that decide who passes, or may be written to, as their names and types have it.
const GUARDS: [&str; 14] = [
    "ext_authz",
    "jwt_authn",
    "rbac",
    "oauth2",
    "basic_auth",
    "api_key_auth",
    "ratelimit",
    "rate_limit_quota",
    "csrf",
    "ext_proc",
    "wasm",
    ".lua",
    ".golang",
    "dynamic_modules",
];

/// Whether what is written (an object, or the value of a patch) decides who passes.
pub fn guards(written: &Value) -> bool {
    names_guard(&written.to_string())
}

/// Whether a text names a filter that decides who passes.
pub(crate) fn names_guard(text: &str) -> bool {
    GUARDS.iter().any(|guard| text.contains(guard))
}
