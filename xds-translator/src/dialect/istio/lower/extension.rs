//! Extensions of proxies: a filter that asks for its configuration by name, the configuration, and
//! where code is fetched from server by server, a cluster that leads there.
//!
//! An extension is opaque as a patch is, and is one: whatever holds for what users change (whom it
//! is for, how it is served and told of) holds for it.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Map, Value, json};

use super::token::selector;
use crate::{
    dialect::{
        decode::Decoder,
        istio::{
            extension::{
                FailStrategy, Mode, Phase, PluginType, PullPolicy, Source, TrafficExtension,
                TrafficSelector, ValueFrom, WasmModule, WasmPlugin,
            },
            shared::{TargetRef, WorkloadSelector},
        },
        lowering::Lowering,
        message,
    },
    ir::{
        ClusterMatch, FilterPlace, ListenerMatch, Patch, PatchMessage, PatchOperation, PatchSet,
        PatchStage, PatchSubject, ProxyCondition, ProxySide,
    },
    snapshot::Item,
};

/// What both kinds say.
struct Written<'a> {
    selector: Option<&'a WorkloadSelector>,
    target: Option<&'a TargetRef>,
    targets: &'a [TargetRef],
    phase: Phase,
    priority: i32,
    matches: &'a [TrafficSelector],
}

/// What a filter runs, as resources say it.
struct Code {
    /// Its name among extensions.
    name: String,
    /// Where it stands in its object.
    at: &'static str,
    /// Which filter it is.
    filter: Filter,
    /// What stands for it while it is not there.
    fail: FailStrategy,
    /// Its configuration; `None`: there is no code, so that the filter is what stands for it.
    config: Option<Value>,
    /// The cluster that it is fetched from.
    cluster: Option<Value>,
    /// Whether the proxy's agent fetches it, which then hands the configuration on.
    by_agent: bool,
    /// The Secret with which the agent does.
    pull_secret: Option<Arc<str>>,
}

/// Filters that run code.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filter {
    /// Of requests, in WebAssembly.
    Wasm,
    /// Of connections, in WebAssembly.
    NetworkWasm,
    /// Of requests, in Lua.
    Lua,
}

impl Lowering<'_> {
    pub(in crate::dialect) fn wasm_plugin(&mut self, spec: &WasmPlugin) -> Option<Item> {
        let written = Written {
            selector: spec.selector.as_ref(),
            target: spec.target_ref.as_ref(),
            targets: &spec.target_refs,
            phase: spec.phase,
            priority: spec.priority,
            matches: &spec.matches,
        };
        let name = self.extension_name("wasmplugin");
        self.extension(&written, module(name, self.namespace(), "spec.url", &spec.module())?)
    }

    pub(in crate::dialect) fn traffic_extension(
        &mut self,
        spec: &TrafficExtension,
    ) -> Option<Item> {
        let written = Written {
            selector: spec.selector.as_ref(),
            target: None,
            targets: &spec.target_refs,
            phase: spec.phase,
            priority: spec.priority,
            matches: &spec.matches,
        };
        let name = self.extension_name("trafficextension");
        let code = match (&spec.wasm, &spec.lua) {
            (Some(wasm), _) => module(name, self.namespace(), "spec.wasm", wasm)?,
            (None, Some(lua)) => Code {
                name,
                at: "spec.lua",
                filter: Filter::Lua,
                fail: FailStrategy::Close,
                config: Some(json!({
                    "@type": Filter::Lua.kind(),
                    "default_source_code": {"inline_string": &*lua.inline_code},
                })),
                cluster: None,
                by_agent: false,
                pull_secret: None,
            },
            (None, None) => return None,
        };
        self.extension(&written, code)
    }

    /// As dashboards and Istio's own proxies know it.
    fn extension_name(&self, kind: &str) -> String {
        format!("extensions.istio.io/{kind}/{}.{}", self.namespace(), self.id.name)
    }

    fn extension(&mut self, written: &Written<'_>, code: Code) -> Option<Item> {
        if self.is_attached(written.target, written.targets) {
            return None;
        }
        let sides = ports_by_side(written.matches);
        let place = place(written.phase);
        let patch = |side, subject, operation, message: &PatchMessage| {
            Arc::new(Patch {
                origin: self.id.clone(),
                at: code.at.into(),
                side: Some(side),
                proxy: ProxyCondition::default(),
                subject,
                operation,
                message: Some(message.clone()),
                guards: code.fail != FailStrategy::Open,
            })
        };
        let mut patches = Vec::new();
        let config = code.config.as_ref();
        let extension = config.map(|config| json!({"name": code.name, "typed_config": config}));
        let cluster = code.cluster.as_ref().map(|cluster| read(CLUSTER, cluster));
        let extension = extension.map(|extension| read(EXTENSION, &extension));
        for side in holders(&sides) {
            if let Some(cluster) = &cluster {
                let subject = PatchSubject::Cluster(ClusterMatch::default());
                patches.push(patch(side, subject, PatchOperation::Add, cluster.as_ref()?));
            }
            if let Some(extension) = &extension {
                let added = PatchOperation::Add;
                patches.push(patch(side, PatchSubject::Extension, added, extension.as_ref()?));
            }
        }
        let filter = read(code.filter.message(), &code.filter())?;
        for (side, port) in &sides {
            let matches = ListenerMatch { port: *port, ..ListenerMatch::default() };
            let subject = match code.filter {
                Filter::NetworkWasm => PatchSubject::NetworkFilter(matches),
                Filter::Wasm | Filter::Lua => PatchSubject::HttpFilter(matches),
            };
            patches.push(patch(*side, subject, PatchOperation::InsertAt(place), &filter));
        }
        Some(Item::Patches(Arc::new(PatchSet {
            origin: self.origin(),
            selector: selector(written.selector),
            stage: PatchStage::Extension(place),
            priority: written.priority.saturating_neg(),
            patches,
            pull_secret: code.pull_secret,
        })))
    }
}

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const EXTENSION: &str = "envoy.config.core.v3.TypedExtensionConfig";

/// A message of the API; `None`: it is none, which the values of an accepted object exclude.
fn read(kind: &str, value: &Value) -> Option<PatchMessage> {
    message::read(kind, value, &mut Decoder::default()).map(|read| message::close(&read))
}

/// Extensions of one phase stand in the order of their application.
fn place(phase: Phase) -> FilterPlace {
    match phase {
        Phase::Authn => FilterPlace::BeforeAuthentication,
        Phase::Authz => FilterPlace::BeforeAuthorization,
        // Statistics are no filter here, so that both mean one place; Istio puts them in this order.
        Phase::Stats => FilterPlace::BehindAuthorization,
        Phase::Unspecified => FilterPlace::Unspecified,
    }
}

/// Which sides of proxies a filter stands in, each with a port or all: each place once, however
/// many selectors mean it.
fn ports_by_side(matches: &[TrafficSelector]) -> BTreeSet<(ProxySide, Option<u16>)> {
    const CLIENT: [ProxySide; 2] = [ProxySide::Outbound, ProxySide::Gateway];
    let everything = [TrafficSelector::default()];
    let matches = if matches.is_empty() { &everything[..] } else { matches };
    let mut found = BTreeSet::new();
    for selector in matches {
        let client = CLIENT.into_iter().filter(|_| selector.mode != Mode::Server);
        let server = (selector.mode != Mode::Client).then_some(ProxySide::Inbound);
        for side in client.chain(server) {
            found.extend(selector.ports.iter().map(|port| (side, Some(port.number))));
            found.extend(selector.ports.is_empty().then_some((side, None)));
        }
    }
    let every: BTreeSet<ProxySide> =
        found.iter().filter(|(_, port)| port.is_none()).map(|(side, _)| *side).collect();
    found.retain(|(side, port)| port.is_none() || !every.contains(side));
    found
}

/// The sides that hold a configuration: of both sides of a sidecar one is enough, since a proxy
/// finds in any of its views what it asks for.
fn holders(sides: &BTreeSet<(ProxySide, Option<u16>)>) -> BTreeSet<ProxySide> {
    let mut holders: BTreeSet<ProxySide> = sides.iter().map(|(side, _)| *side).collect();
    if holders.contains(&ProxySide::Outbound) {
        holders.remove(&ProxySide::Inbound);
    }
    holders
}

/// `None`: its source means nothing, for which the object is refused.
fn module(name: String, namespace: &str, at: &'static str, module: &WasmModule) -> Option<Code> {
    let filter = match module.kind {
        PluginType::Unspecified | PluginType::Http => Filter::Wasm,
        PluginType::Network => Filter::NetworkWasm,
    };
    let (code, cluster) = match Source::of(&module.url)? {
        // There is no code in it: what closes for a module that is refused needs no proxy to find
        // that out.
        Source::File("/dev/null") => (None, None),
        Source::File(path) => (Some(json!({"local": {"filename": path}})), None),
        Source::Server { url, tls, host, port } => {
            let cluster = server(tls, host, port);
            let uri = json!({"uri": url, "timeout": "30s", "cluster": cluster["name"]});
            let digest = module.sha256.to_ascii_lowercase();
            (Some(json!({"remote": {"http_uri": uri, "sha256": digest}})), Some(cluster))
        }
        Source::Image(image) => {
            let pull = match module.image_pull_policy {
                PullPolicy::Unspecified => "",
                PullPolicy::IfNotPresent => "missing",
                PullPolicy::Always => "always",
            };
            let secret = match &*module.image_pull_secret {
                "" => String::new(),
                secret => format!("{namespace}/{secret}"),
            };
            // For the agent alone, which puts a file in its place.
            let uri = json!({
                "uri": format!("oci://{image}?pull={pull}&secret={secret}"),
                "timeout": "60s",
                "cluster": AGENT_CLUSTER,
            });
            let digest = module.sha256.to_ascii_lowercase();
            (Some(json!({"remote": {"http_uri": uri, "sha256": digest}})), None)
        }
    };
    let by_agent = matches!(Source::of(&module.url), Some(Source::Image(_)));
    let policy = match module.fail_strategy {
        FailStrategy::Close => "FAIL_CLOSED",
        FailStrategy::Open => "FAIL_OPEN",
        FailStrategy::Reload => "FAIL_RELOAD",
    };
    let config = code.map(|code| {
        let mut plugin = json!({
            "name": name,
            "root_id": &*module.plugin_name,
            "failure_policy": policy,
            "vm_config": {
                "runtime": "envoy.wasm.runtime.v8",
                "code": code,
                "environment_variables": environment(module),
            },
        });
        if let Some(config) = &module.plugin_config {
            plugin["configuration"] = json!({
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": config.to_string(),
            });
        }
        json!({"@type": filter.kind(), "config": plugin})
    });
    let secret = Some(&module.image_pull_secret).filter(|secret| by_agent && !secret.is_empty());
    Some(Code {
        name,
        at,
        filter,
        fail: module.fail_strategy,
        config,
        cluster,
        by_agent,
        pull_secret: secret.cloned(),
    })
}

fn environment(module: &WasmModule) -> Value {
    let variables = module.vm_config.iter().flat_map(|machine| &machine.env);
    let (own, of_host): (Vec<_>, Vec<_>) =
        variables.partition(|variable| variable.value_from == ValueFrom::Inline);
    let own: Map<String, Value> = own
        .into_iter()
        .map(|variable| (variable.name.to_string(), json!(&*variable.value)))
        .collect();
    let of_host: Vec<&str> = of_host.into_iter().map(|variable| &*variable.name).collect();
    json!({"key_values": own, "host_env_keys": of_host})
}

/// The cluster that leads to a server from which code is fetched.
fn server(tls: bool, host: &str, port: u16) -> Value {
    let scheme = if tls { "https" } else { "http" };
    let name = format!("extension-code|{scheme}|{host}:{port}");
    let address = json!({"socket_address": {"address": host, "port_value": port}});
    let mut cluster = json!({
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "10s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    });
    if tls {
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type":
                    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": host,
                "common_tls_context": {"combined_validation_context": {
                    "default_validation_context": {
                        "match_typed_subject_alt_names": [{
                            "san_type": if host.parse::<std::net::IpAddr>().is_ok() {
                                "IP_ADDRESS"
                            } else {
                                "DNS"
                            },
                            "matcher": {"exact": host},
                        }],
                    },
                    "validation_context_sds_secret_config": public_roots(),
                }},
            },
        });
    }
    cluster
}

/// The roots of the public PKI, as the proxy's agent has them; Envoy waits for a file that may be
/// missing no longer than a second.
fn public_roots() -> Value {
    json!({
        "name": "file-root:system",
        "sds_config": {
            "resource_api_version": "V3",
            "initial_fetch_timeout": "1s",
            "api_config_source": from_agent("GRPC"),
        },
    })
}

/// The cluster of the agent's socket, in every bootstrap beside an agent.
const AGENT_CLUSTER: &str = "sds-grpc";

/// What is asked of the agent, in this variant of the protocol.
fn from_agent(variant: &str) -> Value {
    json!({
        "api_type": variant,
        "transport_api_version": "V3",
        "set_node_on_first_message_only": true,
        "grpc_services": [{"envoy_grpc": {"cluster_name": AGENT_CLUSTER}}],
    })
}

impl Filter {
    /// The type of its configuration.
    fn kind(self) -> &'static str {
        match self {
            Self::Wasm => "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            Self::NetworkWasm => {
                "type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm"
            }
            Self::Lua => "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        }
    }

    /// The message that names it in a chain.
    fn message(self) -> &'static str {
        match self {
            Self::NetworkWasm => "envoy.config.listener.v3.Filter",
            Self::Wasm | Self::Lua => {
                "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter"
            }
        }
    }

    /// What stands for it while its code is not there: everybody passes or nobody does.
    fn stand_in(self, fail: FailStrategy) -> Value {
        let mut rbac = match self {
            Self::NetworkWasm => json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
                "stat_prefix": "extension",
            }),
            Self::Wasm | Self::Lua => json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            }),
        };
        if fail != FailStrategy::Open {
            // It allows, and nobody is listed.
            rbac["rules"] = json!({"action": "ALLOW"});
        }
        rbac
    }
}

impl Code {
    /// The filter, as it stands in a chain. A listener is not put in force before it has the
    /// configuration: it may guard.
    fn filter(&self) -> Value {
        let stand_in = self.filter.stand_in(self.fail);
        if self.config.is_none() {
            return json!({"name": self.name, "typed_config": stand_in});
        }
        let kinds = [self.filter.kind(), stand_in["@type"].as_str().unwrap_or_default()];
        let mut source = json!({"initial_fetch_timeout": "0s", "resource_api_version": "V3"});
        match self.by_agent {
            true => source["api_config_source"] = from_agent("DELTA_GRPC"),
            false => source["ads"] = json!({}),
        }
        json!({"name": self.name, "config_discovery": {
            "config_source": source,
            "type_urls": kinds,
            "default_config": stand_in,
        }})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dialect::{lower::lower, parse_file},
        ir::MeshDefaults,
    };

    fn set(kind: &str, spec: &str) -> Arc<PatchSet> {
        let text = format!(
            "apiVersion: extensions.istio.io/v1alpha1\nkind: {kind}\n\
             metadata: {{name: x, namespace: shop}}\nspec: {spec}\n"
        );
        let parsed = parse_file("a.yaml", text.as_bytes());
        let [object] = &parsed.objects[..] else { panic!("{text}{:#?}", parsed.diagnostics) };
        let lowered = lower(object, &MeshDefaults::default());
        match &lowered.items[..] {
            [Item::Patches(set)] => set.clone(),
            other => panic!("{text}{other:?}"),
        }
    }

    /// Side and port of each place of the filter, and the sides that hold what it asks for.
    fn places(spec: &str) -> (Vec<(ProxySide, Option<u16>)>, Vec<ProxySide>) {
        let set = set("WasmPlugin", spec);
        let (mut filters, mut holders) = (Vec::new(), Vec::new());
        for patch in &set.patches {
            let side = patch.side.expect("one side each");
            match &patch.subject {
                PatchSubject::HttpFilter(m) | PatchSubject::NetworkFilter(m) => {
                    filters.push((side, m.port));
                }
                PatchSubject::Extension => holders.push(side),
                other => panic!("{other:?}"),
            }
        }
        (filters, holders)
    }

    #[test]
    fn a_filter_stands_once_wherever_selectors_mean_it() {
        use ProxySide::{Gateway, Inbound, Outbound};
        let with = |matches: &str| places(&format!("{{url: 'file:///m', match: {matches}}}"));
        let everywhere = vec![(Inbound, None), (Outbound, None), (Gateway, None)];
        assert_eq!(with("[]"), (everywhere.clone(), vec![Outbound, Gateway]));
        assert_eq!(with("[{}]"), (everywhere, vec![Outbound, Gateway]));
        assert_eq!(with("[{mode: SERVER}]"), (vec![(Inbound, None)], vec![Inbound]));
        let ports = "{ports: [{number: 80}, {number: 81}], mode: SERVER}";
        let both = vec![(Inbound, Some(80)), (Inbound, Some(81))];
        assert_eq!(with(&format!("[{ports}, {ports}]")), (both, vec![Inbound]));
        let all = vec![(Inbound, None)];
        assert_eq!(with(&format!("[{ports}, {{mode: SERVER}}]")), (all, vec![Inbound]));
        let client = vec![(Outbound, Some(80)), (Gateway, Some(80))];
        let held = vec![Outbound, Gateway];
        assert_eq!(with("[{mode: CLIENT, ports: [{number: 80}]}]"), (client, held));
    }

    #[test]
    fn code_is_a_configuration_that_the_filter_asks_for_or_else_what_stands_for_it() {
        let json = |set: &PatchSet, at: usize| {
            let message = set.patches[at].message.as_ref().expect("a message");
            let descriptor = crate::descriptors::pool().get_message_by_name(&message.kind);
            let opened = prost_reflect::DynamicMessage::decode(
                descriptor.expect("a type of the API"),
                &message.body[..],
            );
            serde_json::to_value(opened.expect("a message")).expect("JSON")
        };
        let digest = "0a".repeat(32);
        let written = set(
            "WasmPlugin",
            &format!(
                "{{url: 'https://code.test/m.wasm', sha256: '{digest}', pluginName: root, \
                 pluginConfig: {{a: 1}}, failStrategy: FAIL_RELOAD, match: [{{mode: SERVER}}], \
                 vmConfig: {{env: [{{name: A, value: a}}, {{name: B, valueFrom: HOST}}]}}}}"
            ),
        );
        let [cluster, extension, filter] = [0, 1, 2].map(|at| json(&written, at));
        assert_eq!(cluster["name"], "extension-code|https|code.test:443");
        let config = &extension["typedConfig"]["config"];
        assert_eq!(extension["name"], "extensions.istio.io/wasmplugin/shop.x");
        assert_eq!(config["vmConfig"]["code"]["remote"]["sha256"], *digest);
        assert_eq!(config["vmConfig"]["code"]["remote"]["httpUri"]["cluster"], cluster["name"]);
        assert_eq!(config["failurePolicy"], "FAIL_RELOAD");
        assert_eq!(config["configuration"]["value"], "{\"a\":1}");
        let discovery = &filter["configDiscovery"];
        assert_eq!(filter["name"], extension["name"]);
        assert_eq!(
            discovery["defaultConfig"]["rules"],
            json!({}),
            "it allows, and nobody is listed"
        );
        assert_eq!(discovery["typeUrls"].as_array().map(Vec::len), Some(2));

        let open = set(
            "WasmPlugin",
            "{url: 'file:///m', failStrategy: FAIL_OPEN, match: [{mode: SERVER}]}",
        );
        let discovery = json(&open, 1)["configDiscovery"].clone();
        assert_eq!(discovery["defaultConfig"]["rules"], Value::Null, "nothing is asked");
        assert!(open.patches.iter().all(|patch| !patch.guards));

        let nothing = set("WasmPlugin", "{url: 'file:///dev/null', match: [{mode: SERVER}]}");
        assert_eq!(nothing.patches.len(), 1, "nothing is asked for");
        assert!(json(&nothing, 0)["typedConfig"]["rules"].is_object());

        let script = set("TrafficExtension", "{lua: {inlineCode: x = 1}, match: [{mode: CLIENT}]}");
        assert_eq!(json(&script, 0)["typedConfig"]["defaultSourceCode"]["inlineString"], "x = 1");
    }

    #[test]
    fn greater_priorities_come_first_within_a_phase_wherever_they_stand() {
        let plugin = |phase: &str, priority: i32| {
            let spec = format!("{{url: 'file:///m', phase: {phase}, priority: {priority}}}");
            let mut set = (*set("WasmPlugin", &spec)).clone();
            set.origin.id.name = format!("{phase}{priority}").into();
            set
        };
        let mut of_root = plugin("AUTHN", 1);
        of_root.origin.id.namespace = "istio-system".into();
        let change = PatchSet { stage: PatchStage::Change, ..plugin("AUTHN", 99) };
        let mut sets =
            [change, plugin("STATS", 5), plugin("AUTHN", 7), of_root, plugin("AUTHZ", 3)];
        sets.sort_by(|a, b| a.by_precedence(b, "istio-system"));
        let names: Vec<&str> = sets.iter().map(|set| &*set.origin.id.name).collect();
        assert_eq!(names, ["AUTHN7", "AUTHN1", "AUTHZ3", "STATS5", "AUTHN99"]);
    }
}
