//! Names of gateways' route configurations.
//!
//! One type spells and reads them, so that whoever asks for one by its parts means the same as who
//! made it.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

/// A route configuration of a gateway. Two of them never have one name, whatever their parts hold
/// ([`Self::name`]).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum GatewayRoutes {
    /// Of every plaintext server of a listener.
    Http {
        /// Port of the listener.
        port: u16,
        /// Address that the servers ask for.
        bind: Option<IpAddr>,
    },
    /// Of one server that terminates TLS.
    Https {
        /// The server's port.
        port: u16,
        /// Its name.
        port_name: Arc<str>,
        /// Namespace of the gateway object.
        namespace: Arc<str>,
        /// Its name.
        gateway: Arc<str>,
        /// Address that the server asks for.
        bind: Option<IpAddr>,
        /// Port of the listener, where the server's port arrives at several.
        listener: Option<u16>,
    },
}

impl GatewayRoutes {
    /// As Istio spells it, `http.PORT[.BIND]` or `https.PORT.PORTNAME.GATEWAY.NAMESPACE[.BIND]`,
    /// where no two readings of that are possible. Elsewhere the characters that would end a part
    /// too early are written as `%XX`; `|LISTENER` follows where one server has several listeners.
    pub fn name(&self) -> Arc<str> {
        let suffix = |bind: &Option<IpAddr>| bind.map(|b| format!(".{b}")).unwrap_or_default();
        match self {
            Self::Http { port, bind } => format!("http.{port}{}", suffix(bind)).into(),
            Self::Https { port, port_name, namespace, gateway, bind, listener } => {
                let port_name = escaped(port_name, true);
                let gateway = escaped(gateway, may_end_address(namespace));
                let namespace = escaped(namespace, true);
                let bind = suffix(bind);
                let listener = listener.map(|l| format!("|{l}")).unwrap_or_default();
                format!("https.{port}.{port_name}.{gateway}.{namespace}{bind}{listener}").into()
            }
        }
    }

    /// Reads a [`Self::name`]; `None` for every other text.
    pub fn read(name: &str) -> Option<Self> {
        if let Some(rest) = name.strip_prefix("http.") {
            let (port, bind) = rest.split_once('.').map_or((rest, None), |(p, b)| (p, Some(b)));
            let bind = bind.map(str::parse).transpose().ok()?;
            return Some(Self::Http { port: port.parse().ok()?, bind });
        }
        let rest = name.strip_prefix("https.")?;
        let (rest, listener) = match rest.split_once('|') {
            Some((rest, listener)) => (rest, Some(listener.parse().ok()?)),
            None => (rest, None),
        };
        let mut parts = rest.splitn(3, '.');
        let (port, port_name) = (parts.next()?.parse().ok()?, unescaped(parts.next()?));
        let (object, bind) = without_address(parts.next()?);
        let (gateway, namespace) = object.rsplit_once('.')?;
        let (gateway, namespace) = (unescaped(gateway), unescaped(namespace));
        Some(Self::Https { port, port_name, namespace, gateway, bind, listener })
    }
}

/// Whether a namespace behind dots may be taken for the end of an address.
fn may_end_address(namespace: &str) -> bool {
    namespace.parse::<u8>().is_ok()
}

/// Parts an address from the end of `GATEWAY.NAMESPACE[.BIND]`.
fn without_address(text: &str) -> (&str, Option<IpAddr>) {
    // Four parts: an address of IPv4, alone or at the end of one of IPv6; one part: IPv6.
    for parts in [4, 1] {
        let Some((dot, _)) = text.rmatch_indices('.').nth(parts - 1) else { continue };
        let (object, address) = (&text[..dot], &text[dot + 1..]);
        if let (true, Ok(address)) = (object.contains('.'), address.parse()) {
            return (object, Some(address));
        }
    }
    (text, None)
}

/// A part without the characters that have a meaning in names; `dots` among them.
fn escaped(part: &str, dots: bool) -> Cow<'_, str> {
    let special = |c: char| matches!(c, '%' | '|' | ':') || dots && c == '.';
    if !part.contains(special) {
        return part.into();
    }
    let mut text = String::with_capacity(part.len() + 2);
    for c in part.chars() {
        match special(c) {
            true => text.push_str(&format!("%{:02X}", u32::from(c))),
            false => text.push(c),
        }
    }
    text.into()
}

fn unescaped(part: &str) -> Arc<str> {
    const MEANT: [(&str, &str); 4] = [("%2E", "."), ("%7C", "|"), ("%3A", ":"), ("%25", "%")];
    let mut text = Cow::Borrowed(part);
    for (written, meant) in MEANT {
        if text.contains(written) {
            text = text.replace(written, meant).into();
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn https(port_name: &str, gateway: &str, namespace: &str) -> GatewayRoutes {
        GatewayRoutes::Https {
            port: 443,
            port_name: port_name.into(),
            namespace: namespace.into(),
            gateway: gateway.into(),
            bind: None,
            listener: None,
        }
    }

    #[test]
    fn names_are_istios_unless_they_could_be_read_otherwise() {
        let bound = |routes: GatewayRoutes, address: &str, at: Option<u16>| match routes {
            GatewayRoutes::Https { port, port_name, namespace, gateway, .. } => {
                let bind = address.parse().ok();
                GatewayRoutes::Https { port, port_name, namespace, gateway, bind, listener: at }
            }
            other => other,
        };
        let table = [
            (GatewayRoutes::Http { port: 8080, bind: None }, "http.8080"),
            (GatewayRoutes::Http { port: 80, bind: "10.0.0.1".parse().ok() }, "http.80.10.0.0.1"),
            (https("web", "my.edge", "istio-system"), "https.443.web.my.edge.istio-system"),
            (bound(https("web", "a", "b"), "10.0.0.1", None), "https.443.web.a.b.10.0.0.1"),
            (bound(https("web", "a", "b"), "", Some(8443)), "https.443.web.a.b|8443"),
            (https("a.b", "c", "edge"), "https.443.a%2Eb.c.edge"),
            (https("a", "b.c", "edge"), "https.443.a.b.c.edge"),
            // Not gateway `a` of namespace `b` at 1.2.3.4.
            (https("web", "a.b.1.2.3", "4"), "https.443.web.a%2Eb%2E1%2E2%2E3.4"),
        ];
        for (routes, name) in table {
            assert_eq!(&*routes.name(), name);
            assert_eq!(GatewayRoutes::read(name), Some(routes), "{name}");
        }
        for other in ["80", "a.b:80", "inbound|80||", "http.x", "https.443.web", "https.443.a.b"] {
            assert_eq!(GatewayRoutes::read(other), None, "{other}");
        }
    }

    fn part() -> impl Strategy<Value = String> {
        "[a-c0-9.%|:E2]{1,6}"
    }

    proptest! {
        /// What can be read back is a name of one thing only.
        #[test]
        fn a_name_says_all_of_its_parts(
            parts in (part(), part(), part()),
            bind in proptest::option::of(prop_oneof![
                any::<[u8; 4]>().prop_map(IpAddr::from),
                any::<[u8; 16]>().prop_map(IpAddr::from),
                any::<[u8; 4]>().prop_map(|v4| std::net::Ipv4Addr::from(v4).to_ipv6_mapped().into()),
            ]),
            listener in proptest::option::of(any::<u16>()),
        ) {
            let (port_name, gateway, namespace) = parts;
            let routes = GatewayRoutes::Https {
                port: 443,
                port_name: port_name.into(),
                namespace: namespace.into(),
                gateway: gateway.into(),
                bind,
                listener,
            };
            prop_assert_eq!(GatewayRoutes::read(&routes.name()), Some(routes));
        }
    }
}
