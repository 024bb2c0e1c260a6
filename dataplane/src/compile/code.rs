//! Code of filters that is in an image: what a configuration says of it, and the configuration with
//! what an agent has put in its place. For agents beside Envoys; our proxy runs no such code.

use std::path::Path;

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{
                AsyncDataSource, DataSource, TypedExtensionConfig,
                async_data_source::Specifier as Async, data_source::Specifier,
            },
            rbac::v3::Rbac as Rules,
        },
        extensions::{
            filters::{
                http::{rbac::v3::Rbac as HttpRbac, wasm::v3::Wasm as HttpWasm},
                network::{rbac::v3::Rbac as NetworkRbac, wasm::v3::Wasm as NetworkWasm},
            },
            wasm::v3::{FailurePolicy, PluginConfig, plugin_config::Vm},
        },
    },
    google::protobuf::Any,
};
use prost::{Message, Name};

const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const NETWORK: &str = "type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm";

/// A filter's configuration whose code is in an image.
#[derive(Clone, PartialEq, Debug)]
pub struct ImagedCode {
    name: String,
    network: bool,
    plugin: PluginConfig,
    /// Where the image is: `oci://…`.
    pub url: String,
    /// SHA-256 of the image in hexadecimal digits; empty: any will do.
    pub digest: String,
}

impl ImagedCode {
    /// Reads an encoded `TypedExtensionConfig`; `None`: its code is in no image.
    pub fn read(body: &[u8]) -> Option<Self> {
        let config = TypedExtensionConfig::decode(body).ok()?;
        let typed = config.typed_config?;
        let (network, plugin) = match typed.type_url.as_str() {
            HTTP => (false, HttpWasm::decode(&*typed.value).ok()?.config?),
            NETWORK => (true, NetworkWasm::decode(&*typed.value).ok()?.config?),
            _ => return None,
        };
        let Some(Vm::VmConfig(machine)) = &plugin.vm else { return None };
        let Some(Async::Remote(remote)) = &machine.code.as_ref()?.specifier else { return None };
        let url = remote.http_uri.as_ref()?.uri.clone();
        let digest = remote.sha256.clone();
        url.starts_with("oci://").then_some(Self {
            name: config.name,
            network,
            plugin,
            url,
            digest,
        })
    }

    /// The configuration with the code in a file, encoded.
    pub fn with_file(&self, path: &Path) -> Vec<u8> {
        let mut plugin = self.plugin.clone();
        if let Some(Vm::VmConfig(machine)) = &mut plugin.vm {
            let local = Specifier::Filename(path.display().to_string());
            let local = DataSource { specifier: Some(local), ..Default::default() };
            machine.code = Some(AsyncDataSource { specifier: Some(Async::Local(local)) });
        }
        let config = Some(plugin);
        self.configured(match self.network {
            true => packed(NETWORK, &NetworkWasm { config }),
            false => packed(HTTP, &HttpWasm { config }),
        })
    }

    /// What stands for it while there is no code: nobody passes, or everybody where it says so.
    pub fn stand_in(&self) -> Vec<u8> {
        // It allows, and nobody is listed.
        let opens = self.plugin.failure_policy() == FailurePolicy::FailOpen;
        let rules = (!opens).then(Rules::default);
        self.configured(match self.network {
            true => {
                let stat_prefix = "extension".to_owned();
                let rbac = NetworkRbac { rules, stat_prefix, ..Default::default() };
                packed(&NetworkRbac::type_url(), &rbac)
            }
            false => {
                let rbac = HttpRbac { rules, ..Default::default() };
                packed(&HttpRbac::type_url(), &rbac)
            }
        })
    }

    fn configured(&self, typed: Any) -> Vec<u8> {
        let config = TypedExtensionConfig { name: self.name.clone(), typed_config: Some(typed) };
        config.encode_to_vec()
    }
}

fn packed(type_url: &str, message: &impl Message) -> Any {
    Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}
