//! The application's probes, as the injector hands them over: Kubernetes' words, in JSON, by path.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use serde::Deserialize;

/// Kubernetes' default for `timeoutSeconds`.
const TIMEOUT_SECONDS: u64 = 1;

/// Probes by path, such as `/app-health/app/readyz`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AppProbes(BTreeMap<String, Probe>);

/// One probe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Probe {
    pub(super) action: Action,
    /// How long the application may take.
    pub(super) timeout: Duration,
}

/// What is asked of the application.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Http(HttpGet),
    /// The port takes connections.
    Tcp(u16),
    /// It serves `grpc.health.v1.Health`; the service's name may be empty.
    Grpc {
        port: u16,
        service: String,
    },
}

/// Kubernetes' `HTTPGetAction`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpGet {
    /// With its query, if any.
    #[serde(default = "root")]
    pub(super) path: String,
    pub(super) port: u16,
    #[serde(default)]
    pub(super) scheme: Scheme,
    /// In order; win over the kubelet's own.
    #[serde(default)]
    pub(super) http_headers: Vec<Header>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
pub(super) enum Scheme {
    #[default]
    #[serde(rename = "HTTP", alias = "http", alias = "")]
    Http,
    #[serde(rename = "HTTPS", alias = "https")]
    Https,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) value: String,
}

/// A probe as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<Grpc>,
    pub(super) timeout_seconds: Option<u64>,
}

impl Written {
    /// Whether it says no way to ask.
    pub(super) fn is_empty(&self) -> bool {
        self.http_get.is_none() && self.tcp_socket.is_none() && self.grpc.is_none()
    }
}

#[derive(Deserialize)]
struct TcpSocket {
    port: u16,
}

#[derive(Deserialize)]
struct Grpc {
    port: u16,
    service: Option<String>,
}

fn root() -> String {
    "/".to_owned()
}

impl AppProbes {
    /// The probe at this path.
    pub(super) fn of(&self, path: &str) -> Option<&Probe> {
        self.0.get(path)
    }
}

impl FromStr for AppProbes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let written: BTreeMap<String, Written> = serde_json::from_str(text)
            .map_err(|e| format!("expected a JSON object of probes by path: {e}"))?;
        let probe = |(path, written): (String, Written)| {
            let probe = Probe::parse(written).map_err(|why| format!("{path}: {why}"))?;
            Ok((path, probe))
        };
        written.into_iter().map(probe).collect::<Result<_, String>>().map(Self)
    }
}

impl Probe {
    pub(super) fn parse(written: Written) -> Result<Self, &'static str> {
        let timeout =
            Duration::from_secs(written.timeout_seconds.unwrap_or(TIMEOUT_SECONDS).max(1));
        let action = match (written.http_get, written.tcp_socket, written.grpc) {
            (Some(get), None, None) => Action::Http(get),
            (None, Some(TcpSocket { port }), None) => Action::Tcp(port),
            (None, None, Some(Grpc { port, service })) => {
                Action::Grpc { port, service: service.unwrap_or_default() }
            }
            _ => return Err("expected exactly one of httpGet, tcpSocket, grpc"),
        };
        Ok(Self { action, timeout })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_written_in_kubernetes_words() {
        let probes: AppProbes = r#"{
            "/app-health/app/livez": {"httpGet": {"path": "/live?x=1", "port": 8443, "scheme": "HTTPS",
                "httpHeaders": [{"name": "Host", "value": "shop"}]}, "timeoutSeconds": 3},
            "/app-health/app/readyz": {"tcpSocket": {"port": 9000}},
            "/app-health/app/startupz": {"grpc": {"port": 9001, "service": null}, "timeoutSeconds": 0}
        }"#
        .parse()
        .unwrap();
        let headers = vec![Header { name: "Host".into(), value: "shop".into() }];
        let get = HttpGet {
            path: "/live?x=1".into(),
            port: 8443,
            scheme: Scheme::Https,
            http_headers: headers,
        };
        let expected = Probe { action: Action::Http(get), timeout: Duration::from_secs(3) };
        assert_eq!(probes.of("/app-health/app/livez"), Some(&expected));
        let expected = Probe { action: Action::Tcp(9000), timeout: Duration::from_secs(1) };
        assert_eq!(probes.of("/app-health/app/readyz"), Some(&expected));
        let expected = Probe {
            action: Action::Grpc { port: 9001, service: String::new() },
            timeout: Duration::from_secs(1),
        };
        assert_eq!(probes.of("/app-health/app/startupz"), Some(&expected));
        assert_eq!(probes.of("/app-health/other/readyz"), None);
    }

    #[test]
    fn a_wrong_probe_is_named() {
        for (text, expected) in [
            (
                r#"{"/a": {"tcpSocket": {"port": 1}, "grpc": {"port": 1}}}"#,
                "/a: expected exactly one of",
            ),
            (r#"{"/a": {}}"#, "/a: expected exactly one of"),
            (r#"{"/a": {"tcpSocket": {"port": "http"}}}"#, "expected u16"),
            ("[]", "expected a JSON object"),
        ] {
            let error = text.parse::<AppProbes>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
