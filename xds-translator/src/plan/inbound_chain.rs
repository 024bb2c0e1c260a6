//! Filter chains of one inbound port, by what is spoken and what TLS is taken (ARCHITECTURE.md).

use std::sync::Arc;

use super::{
    ChainMatch, DownstreamTls, FilterChainPlan, HttpRole, LimitPlan, RouteConfigPlan, RouteSource,
    TcpProxyPlan, TerminalFilter, TransportMatch,
    authz::Access,
    defaults,
    mtls::{self, HTTP_ALPN, MESH_ALPN, TCP_ALPN, texts},
    outbound_listener::PLAIN_HTTP,
};
use crate::ir::{MeshDefaults, PeerTls, Protocol};

/// ALPN that HTTP chains negotiate; the codec sniffs when nothing is.
pub(super) const HTTP_SERVER_ALPN: [&str; 2] = ["h2", "http/1.1"];
/// ALPN that TCP chains negotiate.
const TCP_SERVER_ALPN: [&str; 3] = ["istio", "h2", "http/1.1"];

/// What a port speaks, as far as chains care.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Speech {
    /// Found out per connection.
    Auto,
    /// HTTP in any version.
    Http,
    /// Anything else, the application's own TLS included.
    Tcp,
}

impl Speech {
    pub(crate) fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Auto => Self::Auto,
            p if p.is_http() => Self::Http,
            _ => Self::Tcp,
        }
    }
}

/// What TLS a port takes.
pub(crate) enum PortTls {
    /// The mesh's, as policies say.
    Mesh(PeerTls),
    /// Another than the mesh's, and nothing else.
    Own(Box<DownstreamTls>),
}

/// One port's chains to be planned.
pub(crate) struct PortChains<'a> {
    pub(crate) mesh: &'a MeshDefaults,
    pub(crate) access: &'a Access,
    pub(crate) limits: Vec<LimitPlan>,
    /// Destination port to match; `None`: the listener has only this one, or it is the catch-all.
    pub(crate) port: Option<u16>,
    /// Names of the HTTP and of the TCP chains.
    pub(crate) names: (Arc<str>, Arc<str>),
    /// `stat_prefix` of HTTP.
    pub(crate) stat_prefix: Arc<str>,
    pub(crate) routes: RouteConfigPlan,
    pub(crate) proxy: TcpProxyPlan,
}

/// One row of the table of chains.
struct Row {
    transport: TransportMatch,
    alpn: Vec<Arc<str>>,
    http: bool,
    /// Terminates TLS.
    tls: bool,
}

fn row(transport: TransportMatch, alpn: &[&str], http: bool, tls: bool) -> Row {
    Row { transport, alpn: texts(alpn), http, tls }
}

fn rows(speech: Speech, tls: &PortTls) -> Vec<Row> {
    match tls {
        PortTls::Mesh(mode) => mesh_rows(speech, *mode),
        // What is inside is not told apart: the port declares it.
        PortTls::Own(_) => vec![row(TransportMatch::Tls, &[], speech == Speech::Http, true)],
    }
}

fn mesh_rows(speech: Speech, mode: PeerTls) -> Vec<Row> {
    use TransportMatch::{Raw, Tls};
    match (speech, mode) {
        (Speech::Auto, PeerTls::Permissive) => vec![
            row(Tls, &HTTP_ALPN, true, true),
            row(Raw, &PLAIN_HTTP, true, false),
            row(Tls, &TCP_ALPN, false, true),
            row(Raw, &[], false, false),
            row(Tls, &[], false, false),
        ],
        (Speech::Auto, PeerTls::Strict) => {
            vec![row(Tls, &HTTP_ALPN, true, true), row(Tls, &[], false, true)]
        }
        (Speech::Auto, PeerTls::Disable) => {
            vec![row(Raw, &PLAIN_HTTP, true, false), row(Raw, &[], false, false)]
        }
        (Speech::Http, PeerTls::Permissive) => {
            vec![row(Tls, &MESH_ALPN, true, true), row(Raw, &[], true, false)]
        }
        (Speech::Http, PeerTls::Strict) => vec![row(Tls, &[], true, true)],
        (Speech::Http, PeerTls::Disable) => vec![row(Raw, &[], true, false)],
        (Speech::Tcp, PeerTls::Permissive) => {
            vec![
                row(Tls, &MESH_ALPN, false, true),
                row(Tls, &[], false, false),
                row(Raw, &[], false, false),
            ]
        }
        (Speech::Tcp, PeerTls::Strict) => vec![row(Tls, &[], false, true)],
        (Speech::Tcp, PeerTls::Disable) => vec![row(Raw, &[], false, false)],
    }
}

impl PortChains<'_> {
    /// The chains, in Istio's order.
    pub(crate) fn plan(&self, speech: Speech, tls: &PortTls) -> Vec<FilterChainPlan> {
        rows(speech, tls).into_iter().map(|row| self.chain(row, tls)).collect()
    }

    fn chain(&self, row: Row, tls: &PortTls) -> FilterChainPlan {
        FilterChainPlan {
            name: if row.http { self.names.0.clone() } else { self.names.1.clone() },
            matches: ChainMatch {
                port: self.port,
                transport: Some(row.transport),
                alpn: row.alpn.clone(),
                ..ChainMatch::default()
            },
            tls: row.tls.then(|| self.server(row.http, tls)),
            connect_timeout: None,
            ask: self.access.ask_tcp.clone().filter(|_| !row.http),
            access: if row.http { Vec::new() } else { self.access.tcp.clone() },
            terminal: if row.http {
                self.http(row.tls && matches!(tls, PortTls::Mesh(_)))
            } else {
                TerminalFilter::Tcp(self.proxy.clone())
            },
        }
    }

    fn server(&self, http: bool, tls: &PortTls) -> DownstreamTls {
        match tls {
            PortTls::Own(own) => (**own).clone(),
            PortTls::Mesh(_) if http => mtls::mesh_server(self.mesh, &HTTP_SERVER_ALPN),
            PortTls::Mesh(_) => mtls::mesh_server(self.mesh, &TCP_SERVER_ALPN),
        }
    }

    fn http(&self, mtls: bool) -> TerminalFilter {
        let routes = RouteSource::Inline(self.routes.clone());
        let mut http =
            defaults::http(self.mesh, &self.stat_prefix, routes, HttpRole::Inbound { mtls });
        http.ask = self.access.ask_http.clone();
        http.tokens = self.access.tokens.clone();
        http.access = self.access.http.clone();
        http.rate_limits = self.limits.clone();
        TerminalFilter::Http(Box::new(http))
    }
}

/// Whether some chain of the port looks at TLS.
pub(crate) fn inspects_tls(tls: &PortTls) -> bool {
    !matches!(tls, PortTls::Mesh(PeerTls::Disable))
}

/// Whether some plaintext chain of the port tells HTTP from other bytes.
pub(crate) fn inspects_http(speech: Speech, tls: &PortTls) -> bool {
    let plaintext = matches!(tls, PortTls::Mesh(PeerTls::Permissive | PeerTls::Disable));
    speech == Speech::Auto && plaintext
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows as `TRANSPORT[+N alpn] → http|tcp [mtls]`.
    fn table(speech: Speech, mode: PeerTls) -> Vec<String> {
        let spell = |r: Row| {
            let transport = if r.transport == TransportMatch::Tls { "tls" } else { "raw" };
            let alpn = if r.alpn.is_empty() { String::new() } else { format!("+{}", r.alpn.len()) };
            let what = if r.http { "http" } else { "tcp" };
            format!("{transport}{alpn} {what}{}", if r.tls { " mtls" } else { "" })
        };
        mesh_rows(speech, mode).into_iter().map(spell).collect()
    }

    #[test]
    fn chains_follow_protocol_and_mode() {
        use PeerTls::{Disable, Permissive, Strict};
        let cases: [(Speech, PeerTls, &[&str]); 9] = [
            (
                Speech::Auto,
                Permissive,
                &["tls+3 http mtls", "raw+3 http", "tls+2 tcp mtls", "raw tcp", "tls tcp"],
            ),
            (Speech::Auto, Strict, &["tls+3 http mtls", "tls tcp mtls"]),
            (Speech::Auto, Disable, &["raw+3 http", "raw tcp"]),
            (Speech::Http, Permissive, &["tls+5 http mtls", "raw http"]),
            (Speech::Http, Strict, &["tls http mtls"]),
            (Speech::Http, Disable, &["raw http"]),
            (Speech::Tcp, Permissive, &["tls+5 tcp mtls", "tls tcp", "raw tcp"]),
            (Speech::Tcp, Strict, &["tls tcp mtls"]),
            (Speech::Tcp, Disable, &["raw tcp"]),
        ];
        for (speech, mode, expected) in cases {
            assert_eq!(table(speech, mode), expected, "{speech:?} {mode:?}");
        }
    }

    #[test]
    fn strict_mode_leaves_no_chain_without_mutual_tls() {
        for speech in [Speech::Auto, Speech::Http, Speech::Tcp] {
            assert!(mesh_rows(speech, PeerTls::Strict).iter().all(|row| row.tls), "{speech:?}");
        }
    }

    #[test]
    fn no_server_negotiates_an_alpn_that_would_force_http1() {
        for name in HTTP_SERVER_ALPN.iter().chain(&TCP_SERVER_ALPN) {
            assert!(!name.starts_with("istio-"), "{name}");
        }
    }
}
