//! Rules of ProxyConfigs.

use super::label::check_selector;
use crate::dialect::{decode::Decoder, istio::proxy_config::ProxyConfig};

pub(in crate::dialect::istio) fn check_proxy(config: &ProxyConfig, at: &mut Decoder) {
    check_selector("selector", config.selector.as_ref(), at);
    at.within("environmentVariables", |at| {
        for name in config.environment.keys() {
            if !is_variable(name) {
                at.within_key(name, |at| {
                    at.invalid(format!("`{name}` is not the name of a variable"), None)
                });
            }
        }
    });
}

/// Whether an environment can have a variable of this name (Kubernetes).
fn is_variable(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    name.chars().all(inner) && name.starts_with(|c: char| !c.is_ascii_digit())
}
