//! Rules of EnvoyFilters. What is not served is refused, never left out: who wrote it relies on it.

use ferromesh_proto::{bootstrap::LOCAL_CLUSTER, stats::STATS_CLUSTER};
use serde_json::Value;

use super::label::check_workload_selector;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{
        decode::Decoder,
        forms::each,
        istio::envoy_filter::{
            ApplyTo, Changeable, ClusterMatch, ConfigPatch, EnvoyFilter, FilterClass, FilterMatch,
            ListenerMatch, Operation, PatchBody, PatchContext, PatchMatch, RouteConfigurationMatch,
        },
        message,
    },
    ir::RESERVED_PORTS,
};

pub(in crate::dialect::istio) fn check(filter: &EnvoyFilter, at: &mut Decoder) {
    if !filter.target_refs.is_empty() {
        let path = at.path().field("targetRefs");
        at.note(unserved(path, "attachment by `targetRefs`", "use `workloadSelector`"));
    }
    check_workload_selector(filter.workload_selector.as_ref(), at);
    if filter.config_patches.is_empty() {
        at.remark(|path| {
            let message = "without `configPatches` nothing is changed";
            Diagnostic::warning(Code::NoEffect, path, message)
        });
    }
    each("configPatches", &filter.config_patches, at, check_patch);
}

/// The refusal of something that Istio has.
fn unserved(path: FieldPath, what: &str, fix: &str) -> Diagnostic {
    let message = format!(
        "{what} is not served yet: the object is refused; its last accepted version stays in force"
    );
    Diagnostic::error(Code::NotActedOn, path, message).fix(fix)
}

fn check_patch(patch: &ConfigPatch, at: &mut Decoder) {
    // A missing word is noted already.
    if patch.apply_to == ApplyTo::Invalid {
        return;
    }
    let Some(changeable) = patch.apply_to.changeable() else {
        let served: Vec<&str> = ApplyTo::SERVED.iter().map(|served| served.as_str()).collect();
        let path = at.path().field("applyTo");
        let word = patch.apply_to.as_str();
        let finding = unserved(path, word, "change what it stands in by another patch");
        at.note(finding.expected(format!("one of {}", served.join(", ")), word));
        return;
    };
    let all = PatchMatch::default();
    let matches = patch.matches.as_ref().unwrap_or(&all);
    at.within("match", |at| check_match(patch.apply_to, changeable.matched_by, matches, at));
    if let Some(body) = &patch.patch {
        at.within("patch", |at| check_body(body, patch.apply_to, &changeable, at));
        check_target(body.operation, patch.apply_to, matches, at);
        check_name(body, patch.apply_to, matches, at);
    }
}

fn check_match(apply_to: ApplyTo, by: &str, matches: &PatchMatch, at: &mut Decoder) {
    if let Some(proxy) = &matches.proxy {
        at.within("proxy", |at| {
            at.within("proxyVersion", |at| {
                at.check_regex(&proxy.proxy_version);
                if !proxy.proxy_version.is_empty() {
                    at.remark(unversioned);
                }
            });
        });
    }
    if matches.context == PatchContext::Waypoint || matches.waypoint.is_some() {
        let path = at.path().field("context");
        at.note(unserved(
            path,
            "a waypoint",
            "use ANY, SIDECAR_INBOUND, SIDECAR_OUTBOUND or GATEWAY",
        ));
    }
    let given = [
        ("listener", matches.listener.is_some()),
        ("cluster", matches.cluster.is_some()),
        ("routeConfiguration", matches.route_configuration.is_some()),
    ];
    for (field, _) in given.into_iter().filter(|(field, given)| *given && *field != by) {
        foreign(field, apply_to, at);
    }
    if let Some(listener) = &matches.listener {
        at.within("listener", |at| check_listener(apply_to, listener, at));
    }
    if let Some(routes) = &matches.route_configuration {
        at.within("routeConfiguration", |at| check_routes(apply_to, routes, at));
    }
    if let Some(cluster) = &matches.cluster {
        at.within("cluster", |at| check_cluster(cluster, at));
    }
}

/// Notes a condition that says nothing about what is changed.
fn foreign(field: &'static str, apply_to: ApplyTo, at: &mut Decoder) {
    at.within(field, |at| {
        let message = format!("says nothing about {}, which is changed", apply_to.as_str());
        at.invalid(message, Some("remove it, or change another thing".to_owned()));
    });
}

fn check_listener(apply_to: ApplyTo, listener: &ListenerMatch, at: &mut Decoder) {
    if !listener.listener_filter.is_empty() && apply_to != ApplyTo::ListenerFilter {
        foreign("listenerFilter", apply_to, at);
    }
    let Some(chain) = &listener.filter_chain else { return };
    if matches!(apply_to, ApplyTo::Listener | ApplyTo::ListenerFilter) {
        return foreign("filterChain", apply_to, at);
    }
    if chain.filter.is_some() && apply_to == ApplyTo::FilterChain {
        return at.within("filterChain", |at| foreign("filter", apply_to, at));
    }
    at.within("filterChain", |at| {
        if let Some(filter) = &chain.filter {
            at.within("filter", |at| check_filter(filter, at));
        }
        let sub = chain.filter.as_ref().is_some_and(|filter| filter.sub_filter.is_some());
        if sub && apply_to != ApplyTo::HttpFilter {
            at.within("filter", |at| foreign("subFilter", apply_to, at));
        }
    });
}

/// Names by which filters of HTTP connections are found (Istio).
const HTTP_CONNECTIONS: [&str; 2] =
    ["envoy.filters.network.http_connection_manager", "envoy.http_connection_manager"];

/// Notes a filter that is not named, and filters in one that has none.
fn check_filter(filter: &FilterMatch, at: &mut Decoder) {
    if filter.name.is_empty() {
        return at.missing("name", Some(format!("`{}`", HTTP_CONNECTIONS[0])));
    }
    let Some(sub) = &filter.sub_filter else { return };
    if !HTTP_CONNECTIONS.contains(&&*filter.name) {
        let path = at.path().field("name");
        let finding = Diagnostic::error(Code::InvalidValue, path, "has no filters in it");
        let expected = format!("`{}` above a `subFilter`", HTTP_CONNECTIONS[0]);
        at.note(finding.expected(expected, format!("`{}`", filter.name)));
    }
    if sub.name.is_empty() {
        at.within("subFilter", |at| at.missing("name", None));
    }
}

fn check_routes(apply_to: ApplyTo, routes: &RouteConfigurationMatch, at: &mut Decoder) {
    let Some(vhost) = &routes.vhost else { return };
    if apply_to == ApplyTo::RouteConfiguration {
        return foreign("vhost", apply_to, at);
    }
    if vhost.route.is_some() && apply_to != ApplyTo::HttpRoute {
        at.within("vhost", |at| foreign("route", apply_to, at));
    }
}

fn check_cluster(cluster: &ClusterMatch, at: &mut Decoder) {
    let others =
        cluster.port_number != 0 || !cluster.service.is_empty() || !cluster.subset.is_empty();
    if !cluster.name.is_empty() && others {
        let fix = "remove `name`, or the others".to_owned();
        at.within("name", |at| at.invalid("stands alone: it says all the others say", Some(fix)));
    }
}

fn check_body(body: &PatchBody, apply_to: ApplyTo, what: &Changeable, at: &mut Decoder) {
    if body.filter_class != FilterClass::Unspecified && !body.takes_class(apply_to) {
        at.within("filterClass", |at| {
            at.remark(|path| {
                let message =
                    "only ADD of HTTP_FILTER and NETWORK_FILTER puts a filter by its class";
                Diagnostic::warning(Code::NoEffect, path, message)
                    .fix("`operation: ADD`, or remove it")
            });
        });
    }
    if body.operation == Operation::Invalid {
        return;
    }
    if !what.operations.contains(&body.operation) {
        let words: Vec<&str> = what.operations.iter().map(|o| o.as_str()).collect();
        let path = at.path().field("operation");
        let message = format!("{} takes no such operation", apply_to.as_str());
        let finding = match body.operation.meaning() {
            None => unserved(path, body.operation.as_str(), "use MERGE or REPLACE"),
            Some(_) => {
                misused(Diagnostic::error(Code::InvalidValue, path, message), body.operation)
            }
        };
        at.note(finding.expected(format!("one of {}", words.join(", ")), body.operation.as_str()));
    }
    if let Some(value) = body.value.as_ref().filter(|_| apply_to == ApplyTo::Bootstrap) {
        at.within("value", |at| check_start(value, at));
    }
    match &body.value {
        Some(_) if body.operation == Operation::Remove => {
            let fix = Some("remove it; what is removed is said by `match`".to_owned());
            at.within("value", |at| at.invalid("REMOVE has no value", fix));
        }
        Some(value) => at.within("value", |at| check_value(value, body.operation, what, at)),
        None if body.operation != Operation::Remove => at.missing("value", None),
        None => {}
    }
}

/// A finding on an operation that is for other things, with the code that Istio has for it.
fn misused(finding: Diagnostic, operation: Operation) -> Diagnostic {
    match operation {
        Operation::Replace => finding.istio("IST0152"),
        Operation::Add => finding.istio("IST0153"),
        Operation::Remove => finding.istio("IST0154"),
        _ => finding,
    }
}

/// What Envoy need not know by a name, though it may have one.
const UNNAMED: [&str; 3] = [
    "envoy.config.listener.v3.FilterChain",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.config.route.v3.Route",
];

fn check_value(value: &Value, operation: Operation, what: &Changeable, at: &mut Decoder) {
    let Some(message) = message::read(what.message, value, at) else { return };
    let name = message::close(&message).name;
    let whole = !operation.merges() && what.operations.contains(&operation);
    if whole && !UNNAMED.contains(&what.message) && name.is_empty() {
        at.missing("name", None);
    }
    if operation.merges() && message::is_empty(&message) {
        let path = at.path();
        let message =
            "MERGE of a value that is all defaults changes nothing: protobuf merges what is set";
        at.note(Diagnostic::warning(Code::NoEffect, path, message));
    }
}

/// Notes what an agent says of the Envoy that it starts, and nobody else can say otherwise.
fn check_start(value: &Value, at: &mut Decoder) {
    const SAID: [(&[&str], &str); 7] = [
        (&["node"], "who it is"),
        (&["admin"], "where it is asked about itself"),
        (&["dynamicResources"], "where its configuration comes from"),
        (&["clusterManager", "localClusterName"], "where its own replicas are"),
        (&["statsConfig", "useAllDefaultTags"], "how its statistics are called"),
        (&["statsConfig", "statsMatcher", "rejectAll"], "which statistics it keeps"),
        (&["statsConfig", "statsMatcher", "exclusionList"], "which statistics it keeps"),
    ];
    for (names, what) in SAID {
        let Some((_, path)) = find((value, at.path()), names) else { continue };
        let message = format!("an agent says of its Envoy {what}, and nobody else does");
        let finding = Diagnostic::error(Code::NotActedOn, path, message);
        at.note(finding.fix("take it out: the flags of `ferromesh-proxy envoy` say it"));
    }
    for (kind, own) in [("clusters", &OWN_CLUSTERS[..]), ("listeners", &OWN_LISTENERS)] {
        let of_kind = ["staticResources", kind];
        let Some((list, path)) = find((value, at.path()), &of_kind) else { continue };
        for (index, resource) in list.as_array().into_iter().flatten().enumerate() {
            let path = path.index(index);
            let name = resource.get("name").and_then(Value::as_str).unwrap_or_default();
            if own.contains(&name) {
                let message = format!("`{name}` is an agent's own: it cannot be changed");
                let finding = Diagnostic::error(Code::NotActedOn, path.field("name"), message);
                at.note(finding.fix("another name"));
            }
            let port = find((resource, path), &["address", "socketAddress", "portValue"]);
            let taken = port.filter(|(port, _)| {
                let number = port.as_u64().and_then(|port| u16::try_from(port).ok());
                number.is_some_and(|port| RESERVED_PORTS.contains(&port))
            });
            if let Some((port, path)) = taken {
                let message = format!("port {port} is a proxy's or its agent's own");
                let finding = Diagnostic::error(Code::NotActedOn, path, message);
                at.note(finding.fix("another port"));
            }
        }
    }
    at.remark(|path| {
        Diagnostic::info(Code::NoEffect, path, "holds for Envoys that are started from now on")
            .fix("start the workloads again")
    });
}

/// Clusters of a bootstrap that an agent writes, beside that of the replicas.
const OWN_CLUSTERS: [&str; 6] =
    ["xds-grpc", "sds-grpc", STATS_CLUSTER, "agent", "prometheus_stats", LOCAL_CLUSTER];
/// Its listeners.
const OWN_LISTENERS: [&str; 2] = ["prometheus", "readiness"];

/// The value behind these names, one in the other, with its place.
fn find<'v>(whole: (&'v Value, FieldPath), names: &[&str]) -> Option<(&'v Value, FieldPath)> {
    names.iter().try_fold(whole, |(value, path), name| {
        let mut fields = value.as_object()?.iter();
        let (key, value) = fields.find(|(key, _)| is_called(key, name))?;
        Some((value, path.field(key.as_str())))
    })
}

/// Whether a key is a field's name, in either of its spellings.
fn is_called(key: &str, name: &str) -> bool {
    key.replace('_', "").eq_ignore_ascii_case(name)
}

/// Notes a merge that gives a resource another name, by which others would look for it in vain.
fn check_name(body: &PatchBody, apply_to: ApplyTo, matches: &PatchMatch, at: &mut Decoder) {
    let own = match apply_to {
        ApplyTo::Cluster => matches.cluster.as_ref().map(|m| &m.name),
        ApplyTo::Listener => matches.listener.as_ref().map(|m| &m.name),
        ApplyTo::RouteConfiguration => matches.route_configuration.as_ref().map(|m| &m.name),
        _ => return,
    };
    let written = body.value.as_ref().and_then(|value| value.get("name")?.as_str());
    let Some(written) = written.filter(|_| body.operation.merges()) else { return };
    if own.is_none_or(|own| **own != *written) {
        at.within("patch", |at| {
            at.within("value", |at| {
                at.within("name", |at| {
                    let fix = Some("remove it".to_owned());
                    at.invalid("MERGE cannot give a resource another name", fix);
                });
            });
        });
    }
}

/// Operations that need to be told on what.
fn check_target(operation: Operation, apply_to: ApplyTo, matches: &PatchMatch, at: &mut Decoder) {
    let filter = matches.listener.as_ref().and_then(|l| l.filter_chain.as_ref()?.filter.as_ref());
    let named = match apply_to {
        ApplyTo::NetworkFilter => filter.is_some_and(|filter| !filter.name.is_empty()),
        ApplyTo::ListenerFilter => {
            matches.listener.as_ref().is_some_and(|l| !l.listener_filter.is_empty())
        }
        ApplyTo::HttpFilter => filter
            .and_then(|filter| filter.sub_filter.as_ref())
            .is_some_and(|sub| !sub.name.is_empty()),
        _ => return,
    };
    let needs = operation.merges() || matches!(operation, Operation::Remove | Operation::Replace);
    if needs && !named {
        let field = match apply_to {
            ApplyTo::HttpFilter => "filterChain.filter.subFilter.name",
            ApplyTo::ListenerFilter => "listenerFilter",
            _ => "filterChain.filter.name",
        };
        let path = FieldPath::of(&format!("{}.match.listener.{field}", at.path()));
        let message = format!("{} must be told which filter is meant", operation.as_str());
        at.note(Diagnostic::error(Code::MissingField, path, message));
    }
}

/// Says that a version of Istio's proxy may be nobody's.
fn unversioned(path: FieldPath) -> Diagnostic {
    let message = "compared with ISTIO_VERSION in the metadata of a proxy: proxies that Ferromesh \
                   starts send none, and the patch is in none of them";
    Diagnostic::warning(Code::NoEffect, path, message)
        .fix("no `proxyVersion`, or `match.proxy.metadata`")
}

#[cfg(test)]
mod tests {
    use crate::{diagnostic::Severity, dialect::parse_file};

    /// An EnvoyFilter with one patch.
    fn filter(patch: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: a}}\nspec:\n  configPatches:\n  - {patch}\n"
        )
    }

    /// A patch of an HTTP filter with this value.
    fn valued(value: &str) -> String {
        filter(&format!(
            "{{applyTo: HTTP_FILTER, patch: {{operation: INSERT_FIRST, value: {value}}}}}"
        ))
    }

    fn matched(apply_to: &str, matches: &str) -> String {
        filter(&format!(
            "{{applyTo: {apply_to}, match: {{{matches}}}, patch: {{operation: MERGE, value: {{}}}}}}"
        ))
    }

    const FILTERS: &str = "spec.configPatches[0]";

    #[test]
    fn what_is_not_served_is_refused_with_its_place() {
        let table = [
            (
                filter(
                    "{applyTo: BOOTSTRAP, patch: {operation: ADD, value: {stats_flush_interval: 1s}}}",
                ),
                "expected one of MERGE",
            ),
            (
                filter("{applyTo: BOOTSTRAP, patch: {operation: MERGE, value: {admin: {}}}}"),
                ".patch.value.admin: an agent says of its Envoy",
            ),
            (
                filter(
                    "{applyTo: BOOTSTRAP, patch: {operation: MERGE, value: {stats_config: {stats_matcher: {reject_all: true}}}}}",
                ),
                ".patch.value.stats_config.stats_matcher.reject_all: an agent says",
            ),
            (
                filter(
                    "{applyTo: BOOTSTRAP, patch: {operation: MERGE, value: {clusterManager: {localClusterName: a}}}}",
                ),
                ".patch.value.clusterManager.localClusterName: an agent says",
            ),
            (
                filter(
                    "{applyTo: BOOTSTRAP, patch: {operation: MERGE, value: {static_resources: {clusters: [{name: a}, {name: xds-grpc}]}}}}",
                ),
                ".patch.value.static_resources.clusters[1].name: `xds-grpc` is an agent's own",
            ),
            (
                filter(
                    "{applyTo: BOOTSTRAP, patch: {operation: MERGE, value: {static_resources: {listeners: [{name: a, address: {socket_address: {address: 0.0.0.0, port_value: 15006}}}]}}}}",
                ),
                ".listeners[0].address.socket_address.port_value: port 15006 is a proxy's",
            ),
            (
                filter("{applyTo: LISTENER_FILTER, patch: {operation: REMOVE}}"),
                ".match.listener.listenerFilter: REMOVE must be told which",
            ),
            (matched("CLUSTER", "proxy: {proxyVersion: '(1'}"), ".match.proxy.proxyVersion: not a"),
            (
                matched("CLUSTER", "context: WAYPOINT"),
                ".match.context: a waypoint is not served yet",
            ),
        ];
        for (text, expected) in table {
            refused(&text, expected);
        }
        let attached = filter("{applyTo: CLUSTER, patch: {operation: REMOVE}}")
            + "  targetRefs: [{kind: Gateway, name: g}]\n";
        let parsed = parse_file("a.yaml", attached.as_bytes());
        assert!(parsed.diagnostics[0].to_string().contains("spec.targetRefs"), "{parsed:?}");
    }

    /// One error, at the patch, that says this.
    fn refused(text: &str, expected: &str) {
        let parsed = parse_file("a.yaml", text.as_bytes());
        let errors = parsed.diagnostics.iter().filter(|d| d.severity == Severity::Error);
        let errors: Vec<String> = errors.map(ToString::to_string).collect();
        let [error] = &errors[..] else { panic!("{text}: {errors:#?}") };
        assert!(error.contains(FILTERS) && error.contains(expected), "{error}\nnot {expected}");
        assert!(parsed.objects.is_empty());
    }

    #[test]
    fn a_value_must_be_the_message_that_it_becomes() {
        let lua = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";
        let config = |config: &str| valued(&format!("{{name: l, typed_config: {config}}}"));
        let table = [
            (valued("{nmae: l}"), ".value.nmae: unknown field of envoy.extensions.filters"),
            (
                valued("{typed_config: {'@type': a/b.C}, name: l}"),
                "a type that Envoy's API v3 does not have",
            ),
            (config("{inline_code: x}"), ".typed_config[\"@type\"]"),
            (
                config(&format!("{{'@type': {lua}, inlineCod: x}}")),
                ".typed_config.inlineCod: unknown field of envoy.extensions.filters.http.lua.v3.Lua; fix: rename it to `inline_code`",
            ),
            (
                config(&format!("{{'@type': {lua}, inline_code: 7}}")),
                ".typed_config.inline_code: the value cannot be used",
            ),
            (
                config(&format!("{{'@type': {lua}, inline_code: x, source_codes: [x]}}")),
                ".typed_config.source_codes: the value cannot be used",
            ),
            (
                config(&format!("{{'@type': {lua}, source_codes: {{a: {{inline_strng: x}}}}}}")),
                ".source_codes.a.inline_strng",
            ),
            (
                config(
                    "{'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: 'x/envoy.extensions.filters.http.lua.v3.Lua', value: {inlin_code: x}}",
                ),
                ".typed_config.value.inlin_code",
            ),
            (valued("[1]"), ".value: wrong type: expected an object"),
            (
                valued(
                    "{typed_config: {'@type': x/envoy.extensions.filters.http.router.v3.Router}}",
                ),
                ".value.name: missing",
            ),
            (
                filter(
                    "{applyTo: CLUSTER, patch: {operation: MERGE, value: {connect_timeout: soon}}}",
                ),
                ".value.connect_timeout: the value cannot be used",
            ),
            (
                filter(
                    "{applyTo: CLUSTER, patch: {operation: MERGE, value: {lb_policy: FASTEST}}}",
                ),
                "one of ROUND_ROBIN, LEAST_REQUEST",
            ),
            (
                filter("{applyTo: CLUSTER, patch: {operation: MERGE, value: {name: b}}}"),
                ".value.name: MERGE cannot give a resource another name",
            ),
            (
                filter("{applyTo: CLUSTER, patch: {operation: ADD, value: {type: STATIC}}}"),
                ".value.name: missing",
            ),
            (filter("{applyTo: CLUSTER, patch: {operation: ADD}}"), ".value: missing"),
            (
                filter("{applyTo: CLUSTER, patch: {operation: REMOVE, value: {}}}"),
                ".value: REMOVE has no value",
            ),
        ];
        for (text, expected) in table {
            refused(&text, expected);
        }
    }

    #[test]
    fn operations_and_conditions_must_make_sense() {
        let body = "typed_config: {'@type': x/envoy.extensions.filters.http.router.v3.Router}";
        let op = |apply_to: &str, operation: &str, value: &str| {
            filter(&format!("{{applyTo: {apply_to}, patch: {{operation: {operation}{value}}}}}"))
        };
        let table = [
            (op("CLUSTER", "REPLACE", ", value: {name: a}"), "CLUSTER takes no such operation"),
            (
                op("ROUTE_CONFIGURATION", "REMOVE", ""),
                "ROUTE_CONFIGURATION takes no such operation",
            ),
            (
                op("VIRTUAL_HOST", "INSERT_FIRST", ", value: {name: a}"),
                "one of MERGE, MERGE_AND_REPLACE_LIST, ADD, REMOVE",
            ),
            (op("HTTP_ROUTE", "REPLACE", ", value: {}"), "takes no such operation"),
            (
                op("EXTENSION_CONFIG", "MERGE", ", value: {name: a}"),
                "EXTENSION_CONFIG takes no such operation",
            ),
            (op("EXTENSION_CONFIG", "ADD", ", value: {}"), ".value.name: missing"),
            (op("HTTP_FILTER", "REMOVE", ""), ".subFilter.name: REMOVE must be told which filter"),
            (
                op("NETWORK_FILTER", "MERGE", &format!(", value: {{{body}}}")),
                ".filter.name: MERGE must",
            ),
            (
                matched("CLUSTER", "listener: {portNumber: 80}"),
                ".match.listener: says nothing about CLUSTER",
            ),
            (matched("HTTP_ROUTE", "cluster: {name: a}"), ".match.cluster: says nothing"),
            (
                matched("LISTENER", "listener: {filterChain: {sni: a}}"),
                ".filterChain: says nothing",
            ),
            (
                matched("ROUTE_CONFIGURATION", "routeConfiguration: {vhost: {name: a}}"),
                ".vhost: says",
            ),
            (
                matched("VIRTUAL_HOST", "routeConfiguration: {vhost: {route: {name: a}}}"),
                ".route: says",
            ),
            (
                matched("CLUSTER", "cluster: {name: a, portNumber: 80}"),
                ".cluster.name: stands alone",
            ),
            (
                filter("{applyTo: SOMETHING, patch: {operation: REMOVE}}"),
                ".applyTo: not a known value",
            ),
        ];
        for (text, expected) in table {
            refused(&text, expected);
        }
    }

    #[test]
    fn what_changes_nothing_is_said() {
        for (text, expected) in [
            (matched("CLUSTER", ""), "all defaults changes nothing"),
            (
                filter(
                    "{applyTo: CLUSTER, patch: {operation: ADD, filterClass: AUTHZ, value: {name: a}}}",
                ),
                ".patch.filterClass: only ADD of HTTP_FILTER and NETWORK_FILTER",
            ),
            (
                "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: a}\n".to_owned(),
                "without `configPatches`",
            ),
        ] {
            let parsed = parse_file("a.yaml", text.as_bytes());
            assert_eq!(parsed.objects.len(), 1);
            let [finding] = &parsed.diagnostics[..] else { panic!("{parsed:?}") };
            assert!(finding.severity == Severity::Warning, "{finding}");
            assert!(finding.to_string().contains(expected), "{finding}");
        }
    }
}
