//! Services: what their ports say.

use super::input::Input;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::kubernetes::ServicePort,
};

/// Protocols that a port's name may begin with.
const PROTOCOL_PREFIXES: &[&str] = &[
    "http",
    "http2",
    "grpc",
    "grpc-web",
    "https",
    "tls",
    "tcp",
    "mongo",
    "redis",
    "mysql",
    "udp",
    "http_proxy",
    "hbone",
];

/// Ports of a server that proxies take for TCP without looking, since it speaks first.
const SERVER_FIRST: &[u16] = &[25, 53, 3306, 27017];

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    for (object, service) in input.services() {
        if matches!(&*object.id.namespace, "kube-system" | "kube-public")
            || &*service.spec.kind == "ExternalName"
        {
            continue;
        }
        for (i, port) in service.spec.ports.iter().enumerate() {
            let path = FieldPath::of("spec.ports").index(i);
            if !declares_protocol(port) {
                let message = format!(
                    "`{}` has no protocol prefix, the protocol is detected per connection",
                    port.name
                );
                let fix =
                    format!("`name: http-{}` or another protocol, or `appProtocol`", port.name);
                findings.push(input.diagnose(
                    &object.id,
                    Diagnostic::info(Code::PortName, path.field("name"), message).fix(fix),
                ));
            }
            if port.port == 14268 {
                let message = "14268 is the legacy collector port of Jaeger";
                findings.push(
                    input.diagnose(
                        &object.id,
                        Diagnostic::info(Code::LegacyPort, path.field("port"), message)
                            .fix("add port 4317 (OTLP)"),
                    ),
                );
            }
        }
    }
}

fn declares_protocol(port: &ServicePort) -> bool {
    let transport = port.protocol.to_ascii_uppercase();
    let name = port.name.to_ascii_lowercase();
    let prefixed = PROTOCOL_PREFIXES
        .iter()
        .any(|p| name == *p || name.strip_prefix(p).is_some_and(|rest| rest.starts_with('-')));
    !port.app_protocol.is_empty()
        || matches!(&*transport, "UDP" | "SCTP")
        || prefixed
        || SERVER_FIRST.contains(&port.port)
}
