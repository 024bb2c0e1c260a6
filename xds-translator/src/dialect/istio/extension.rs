//! `extensions.istio.io`: code of users that runs in proxies, as WasmPlugin and TrafficExtension
//! have it.

use std::sync::Arc;

use serde_json::Value;

use super::shared::{TargetRef, WorkloadSelector};
use crate::dialect::schema::{choice, object};

object! { no_null;
    /// A WebAssembly module that runs in proxies.
    WasmPlugin {
        /// Workloads of the namespace (in the root namespace: of the mesh); absent: all.
        "selector" selector: Option<WorkloadSelector>,
        /// What it is attached to.
        "targetRef" target_ref: Option<TargetRef>,
        /// As `targetRef`, for several.
        "targetRefs" target_refs: Vec<TargetRef>,
        /// Where the module is: `file://` of the proxy's machine, `http://`, `https://`, or an image
        /// (`oci://`, and without a scheme).
        "url" url: Arc<str> [required],
        /// SHA-256 of the module, in hexadecimal digits, which one from a server needs; of an
        /// image, of its manifest.
        "sha256" sha256: Arc<str>,
        /// When an image is pulled.
        "imagePullPolicy" image_pull_policy: PullPolicy,
        /// The Secret with which an image is pulled.
        "imagePullSecret" image_pull_secret: Arc<str>,
        /// A key by which a module is verified.
        "verificationKey" verification_key: Arc<str>,
        /// What the module is configured with.
        "pluginConfig" plugin_config: Option<Value>,
        /// Its name inside of the module.
        "pluginName" plugin_name: Arc<str>,
        /// Where among the filters of a proxy it runs.
        "phase" phase: Phase,
        /// Of one phase, those with greater numbers run earlier.
        "priority" priority: i32,
        /// What happens when it cannot be loaded, or breaks.
        "failStrategy" fail_strategy: FailStrategy,
        /// What it sees.
        "type" kind: PluginType,
        /// The traffic that it sees; absent: all.
        "match" matches: Vec<TrafficSelector>,
        /// Where it runs.
        "vmConfig" vm_config: Option<VmConfig>,
    }
}

object! { no_null;
    /// Code that runs in proxies.
    TrafficExtension {
        /// Workloads of the namespace (in the root namespace: of the mesh); absent: all.
        "selector" selector: Option<WorkloadSelector>,
        /// What it is attached to.
        "targetRefs" target_refs: Vec<TargetRef>,
        /// Where among the filters of a proxy it runs.
        "phase" phase: Phase,
        /// Of one phase, those with greater numbers run earlier.
        "priority" priority: i32,
        /// The traffic that it sees; absent: all.
        "match" matches: Vec<TrafficSelector>,
        /// A WebAssembly module; excludes `lua`.
        "wasm" wasm: Option<WasmModule>,
        /// A script; excludes `wasm`.
        "lua" lua: Option<Lua>,
    }
}

object! { no_null;
    /// A WebAssembly module.
    WasmModule {
        /// Where the module is: `file://` of the proxy's machine, `http://`, `https://`, or an image
        /// (`oci://`, and without a scheme).
        "url" url: Arc<str> [required],
        /// SHA-256 of the module, in hexadecimal digits, which one from a server needs; of an
        /// image, of its manifest.
        "sha256" sha256: Arc<str>,
        /// When an image is pulled.
        "imagePullPolicy" image_pull_policy: PullPolicy,
        /// The Secret with which an image is pulled.
        "imagePullSecret" image_pull_secret: Arc<str>,
        /// A key by which a module is verified.
        "verificationKey" verification_key: Arc<str>,
        /// What the module is configured with.
        "pluginConfig" plugin_config: Option<Value>,
        /// Its name inside of the module.
        "pluginName" plugin_name: Arc<str>,
        /// What happens when it cannot be loaded, or breaks.
        "failStrategy" fail_strategy: FailStrategy,
        /// What it sees.
        "type" kind: PluginType,
        /// Where it runs.
        "vmConfig" vm_config: Option<VmConfig>,
    }
}

object! { no_null;
    /// A script in Lua.
    Lua {
        /// The script.
        "inlineCode" inline_code: Arc<str> [required],
    }
}

choice! {
    /// When an image is pulled.
    PullPolicy {
        /// As the tag of the image suggests.
        Unspecified = "UNSPECIFIED_POLICY",
        /// When it is not there.
        IfNotPresent = "IfNotPresent",
        /// Whenever the object changes.
        Always = "Always",
    }
}

choice! {
    /// Where among the filters of a proxy an extension runs.
    Phase {
        /// Behind those that decide about access.
        Unspecified = "UNSPECIFIED_PHASE",
        /// Before those that authenticate.
        Authn = "AUTHN",
        /// Before those that authorize, behind those that authenticate.
        Authz = "AUTHZ",
        /// Before those that count, behind those that authorize.
        Stats = "STATS",
    }
}

choice! {
    /// What happens when a module cannot be loaded, or breaks.
    FailStrategy {
        /// Everything is refused.
        Close = "FAIL_CLOSE",
        /// Everything passes.
        Open = "FAIL_OPEN",
        /// As FAIL_CLOSE; a module that broke is loaded again.
        Reload = "FAIL_RELOAD",
    }
}

choice! {
    /// What a module sees.
    PluginType {
        /// As HTTP.
        Unspecified = "UNSPECIFIED_PLUGIN_TYPE",
        /// Requests.
        Http = "HTTP",
        /// Bytes of connections.
        Network = "NETWORK",
    }
}

object! { no_null;
    /// Some traffic.
    TrafficSelector {
        /// The side of a call.
        "mode" mode: Mode,
        /// The ports; absent: all.
        "ports" ports: Vec<PortSelector>,
    }
}

choice! {
    /// A side of a call.
    Mode {
        /// Both.
        Undefined = "UNDEFINED",
        /// Who calls; gateways too.
        Client = "CLIENT",
        /// Who is called.
        Server = "SERVER",
        /// Both.
        Both = "CLIENT_AND_SERVER",
    }
}

object! { no_null;
    /// A port.
    PortSelector {
        /// Its number: of a listener; of what leads to a workload, the workload's own.
        "number" number: u16 [required],
    }
}

object! { no_null;
    /// Where a module runs.
    VmConfig {
        /// Its environment.
        "env" env: Vec<EnvVar>,
    }
}

object! { no_null;
    /// A variable of a module's environment.
    EnvVar {
        /// Its name.
        "name" name: Arc<str> [required],
        /// Where its value comes from.
        "valueFrom" value_from: ValueFrom,
        /// Its value, for INLINE.
        "value" value: Arc<str>,
    }
}

choice! {
    /// Where the value of a variable comes from.
    ValueFrom {
        /// From the object.
        Inline = "INLINE",
        /// From the proxy's environment.
        Host = "HOST",
    }
}

impl WasmPlugin {
    /// Its module.
    pub(super) fn module(&self) -> WasmModule {
        WasmModule {
            url: self.url.clone(),
            sha256: self.sha256.clone(),
            image_pull_policy: self.image_pull_policy,
            image_pull_secret: self.image_pull_secret.clone(),
            verification_key: self.verification_key.clone(),
            plugin_config: self.plugin_config.clone(),
            plugin_name: self.plugin_name.clone(),
            fail_strategy: self.fail_strategy,
            kind: self.kind,
            vm_config: self.vm_config.clone(),
        }
    }
}

/// Where a module is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Source<'a> {
    /// In a file of the proxy's machine, by its absolute path.
    File(&'a str),
    /// On a server.
    Server {
        /// The whole URL.
        url: &'a str,
        /// Whether TLS is spoken to it.
        tls: bool,
        /// Its name or address.
        host: &'a str,
        /// Its port.
        port: u16,
    },
    /// In an image of a registry, by its name without a scheme.
    Image(&'a str),
}

impl<'a> Source<'a> {
    /// What a URL means; `None`: nothing. Without a scheme it is an image's (Istio).
    pub(super) fn of(url: &'a str) -> Option<Self> {
        match url.split_once("://") {
            Some(("file", path)) => path.starts_with('/').then_some(Self::File(path)),
            Some(("http", rest)) => Self::server(url, false, rest),
            Some(("https", rest)) => Self::server(url, true, rest),
            Some(("oci", rest)) => Self::image(rest),
            Some(_) => None,
            None => Self::image(url),
        }
    }

    fn image(name: &'a str) -> Option<Self> {
        let known = |c: char| c.is_ascii_alphanumeric() || "._-:/@[]".contains(c);
        (!name.is_empty() && name.chars().all(known)).then_some(Self::Image(name))
    }

    fn server(url: &'a str, tls: bool, rest: &'a str) -> Option<Self> {
        let authority = rest.split(['/', '?', '#']).next()?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (authority, if tls { 443 } else { 80 }),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        (!host.is_empty() && host.chars().all(known)).then_some(Self::Server {
            url,
            tls,
            host,
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_a_module_is() {
        let server = |url, tls, host, port| Some(Source::Server { url, tls, host, port });
        let table = [
            ("file:///opt/a.wasm", Some(Source::File("/opt/a.wasm"))),
            ("file://a.wasm", None),
            ("http://a.test/m", server("http://a.test/m", false, "a.test", 80)),
            ("https://a.test:8443/m", server("https://a.test:8443/m", true, "a.test", 8443)),
            ("https://[::1]/m", server("https://[::1]/m", true, "::1", 443)),
            ("https://user@a.test/m", None),
            ("https:///m", None),
            ("oci://a.test/m:v1", Some(Source::Image("a.test/m:v1"))),
            ("a.test/m:v1", Some(Source::Image("a.test/m:v1"))),
            ("oci://a.test/m?x", None),
            ("ftp://a.test/m", None),
            ("", None),
        ];
        for (url, expected) in table {
            assert_eq!(Source::of(url), expected, "{url}");
        }
    }
}
