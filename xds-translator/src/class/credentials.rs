//! Which credentials configuration speaks of.

use std::sync::Arc;

use crate::ir::{GatewayConfig, ServerTlsMode};

/// Credentials of a gateway's servers: certificates, and where clients show one, the CA for them.
pub(super) fn of_servers(gateway: &GatewayConfig) -> impl Iterator<Item = Arc<str>> {
    gateway.servers.iter().filter_map(|s| s.tls.as_ref()).flat_map(|tls| {
        let asks_clients =
            matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
        let implied = tls.credentials.iter().map(|name| Arc::from(format!("{name}-cacert")));
        let authority = match &tls.ca_credential {
            Some(name) => vec![name.clone()],
            None => implied.collect(),
        };
        tls.credentials.iter().cloned().chain(authority.into_iter().filter(move |_| asks_clients))
    })
}
