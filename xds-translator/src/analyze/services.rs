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
        if matches!(&*object.id.namespace, "kube-system" | "kube-public") {
            continue;
        }
        let external = &*service.spec.kind == "ExternalName";
        for (i, port) in service.spec.ports.iter().enumerate() {
            let path = FieldPath::of("spec.ports").index(i);
            let found = match external {
                true => check_external(port, &path).into_iter().collect(),
                false => check_port(port, &path),
            };
            findings.extend(found.into_iter().map(|f| input.diagnose(&object.id, f)));
        }
    }
}

fn check_port(port: &ServicePort, path: &FieldPath) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if !declares_protocol(port) {
        let message = format!(
            "`{}` has no protocol prefix, the protocol is detected per connection",
            port.name
        );
        let fix = format!("`name: http-{}` or another protocol, or `appProtocol`", port.name);
        let finding = Diagnostic::info(Code::PortName, path.field("name"), message).fix(fix);
        found.push(match meant(&port.name) {
            Some(name) => finding.instead(name),
            None => finding,
        });
    }
    if port.port == 14268 {
        let message = "14268 is the legacy collector port of Jaeger";
        found.push(
            Diagnostic::info(Code::LegacyPort, path.field("port"), message)
                .fix("add port 4317 (OTLP)"),
        );
    }
    found
}

/// A port of a name that stands for another: connections of unknown protocol may be kept from it.
fn check_external(port: &ServicePort, path: &FieldPath) -> Option<Diagnostic> {
    (!declares_protocol(port) || &*port.name == "tcp").then(|| {
        let message = format!(
            "`{}` of an ExternalName Service: sidecars may keep connections from it that are not \
             of a protocol that says where they go",
            port.name
        );
        Diagnostic::warning(Code::PortName, path.field("name"), message)
            .istio("IST0150")
            .fix("a name that begins with the protocol, such as `http` or `tls`")
    })
}

/// The name that a port is to have whose name begins with a protocol but for its letters' case or
/// order, or with another separator behind it.
fn meant(name: &str) -> Option<String> {
    let end = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
    let (word, rest) = name.split_at(end);
    let letters = |word: &str| {
        let mut letters: Vec<u8> = word.to_ascii_lowercase().into_bytes();
        letters.sort_unstable();
        letters
    };
    let mut same = PROTOCOL_PREFIXES.iter().filter(|known| letters(known) == letters(word));
    let protocol = same.next().filter(|_| same.next().is_none())?;
    let mut behind = rest.chars();
    behind.next();
    match behind.as_str() {
        "" => Some((*protocol).to_owned()),
        rest => Some(format!("{protocol}-{rest}")),
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
