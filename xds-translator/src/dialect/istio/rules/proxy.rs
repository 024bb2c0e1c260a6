//! Rules of ProxyConfigs.

use super::{label::check_selector, variables};
use crate::dialect::{decode::Decoder, istio::proxy_config::ProxyConfig};

pub(in crate::dialect::istio) fn check_proxy(config: &ProxyConfig, at: &mut Decoder) {
    check_selector("selector", config.selector.as_ref(), at);
    at.within("environmentVariables", |at| {
        config.environment.keys().for_each(|name| variables::check(name, at));
    });
}
