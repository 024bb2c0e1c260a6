//! Workloads, and the proxies that are connected for them: where what is written of mutual TLS and
//! who is there contradict each other.
//!
//! The one finding that objects alone do not show: whoever asks knows the streams.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::Object,
    ir::{Connection, MeshTls, ObjectId, PeerTls, Presence, Workload},
    snapshot::MeshSnapshot,
};

const LABEL: &str = "security.istio.io/tlsMode";

/// What contradicts the proxies that have a stream now: of workloads that services lead to, in the
/// order of their names. `objects` give findings their places.
pub fn unproven(
    objects: &BTreeMap<&ObjectId, &Object>,
    snapshot: &MeshSnapshot,
    connected: &BTreeSet<Connection>,
) -> Vec<Diagnostic> {
    let site = Site { snapshot, connected };
    let finding = |workload: &Workload| {
        let finding = site.finding(workload)?;
        let id = &workload.origin.id;
        Some(match objects.get(id) {
            Some(object) => object.diagnose(finding),
            None => finding.object(id.clone()),
        })
    };
    snapshot.all_workloads().filter_map(|workload| finding(workload)).collect()
}

struct Site<'a> {
    snapshot: &'a MeshSnapshot,
    connected: &'a BTreeSet<Connection>,
}

impl Site<'_> {
    fn finding(&self, workload: &Workload) -> Option<Diagnostic> {
        // A machine that came by itself is its proxy.
        if workload.registered || workload.addresses.is_empty() {
            return None;
        }
        let modes = self.modes(workload);
        let here = self.proxies(workload).any(|proxy| self.connected.contains(&proxy));
        let strict = modes.contains(&PeerTls::Strict);
        match (self.is_called_by_tls(workload), here) {
            (true, false) if !modes.is_empty() && self.is_left(workload) => {
                Some(self.nobody_is_sent(workload))
            }
            (true, false) if modes.iter().any(|mode| *mode != PeerTls::Disable) => {
                Some(self.nobody_answers(workload))
            }
            (false, false) if strict => Some(self.nobody_enforces(workload)),
            (false, true) if workload.mesh_tls == MeshTls::Never && !modes.is_empty() => {
                Some(called_in_plaintext(strict))
            }
            _ => None,
        }
    }

    /// What the workload takes at the ports that services lead to.
    fn modes(&self, workload: &Workload) -> BTreeSet<PeerTls> {
        let (policies, root) = (self.snapshot.peer_tls(), &self.snapshot.mesh().root_namespace);
        let ports = self.snapshot.ports_of(workload).into_iter();
        let (namespace, labels) = (&workload.id.namespace, &workload.labels);
        ports.map(|(.., port)| policies.mode(root, namespace, labels, Some(port))).collect()
    }

    fn is_called_by_tls(&self, workload: &Workload) -> bool {
        match workload.mesh_tls {
            MeshTls::Never => false,
            MeshTls::Always => true,
            MeshTls::WhileConnected => self
                .proxies(workload)
                .any(|proxy| self.snapshot.presence(&proxy) != Presence::Unknown),
        }
    }

    /// Whether its proxy was there and is away.
    fn is_left(&self, workload: &Workload) -> bool {
        self.proxies(workload).any(|proxy| self.snapshot.presence(&proxy) == Presence::Away)
    }

    /// The proxies that would be the workload's.
    fn proxies<'w>(&self, workload: &'w Workload) -> impl Iterator<Item = Connection> + 'w {
        let identity = self.snapshot.identity_of(workload);
        let addresses = workload.addresses.iter();
        addresses.filter_map(move |address| {
            Some(Connection { identity: identity.clone()?, address: *address })
        })
    }

    fn nobody_answers(&self, workload: &Workload) -> Diagnostic {
        let message = format!(
            "callers speak mutual TLS with it, and no proxy of it is connected{}",
            self.elsewhere(workload)
        );
        warning(message).fix(format!(
            "start its proxy (`ferromesh-proxy run --name {} …`), or where there is to be none, the \
             label `{LABEL}: disabled`",
            workload.id.name
        ))
    }

    fn nobody_is_sent(&self, workload: &Workload) -> Diagnostic {
        let message = "its proxy is gone, and nobody is sent to it until that is back".to_owned();
        warning(message).fix(format!(
            "start its proxy (`ferromesh-proxy run --name {} …`), or where there is to be none any \
             more, the label `{LABEL}: disabled`",
            workload.id.name
        ))
    }

    fn nobody_enforces(&self, workload: &Workload) -> Diagnostic {
        let message = format!(
            "a PeerAuthentication asks for mutual TLS, and no proxy of it is connected that would: \
             callers reach it in plaintext, whoever they are{}",
            self.elsewhere(workload)
        );
        warning(message)
            .fix(format!("start its proxy (`ferromesh-proxy run --name {} …`)", workload.id.name))
    }

    /// A proxy of the workload's account that is at nobody's address is probably its own.
    fn elsewhere(&self, workload: &Workload) -> String {
        let Some(identity) = self.snapshot.identity_of(workload) else {
            return "; without a service account none can prove to be its own".to_owned();
        };
        let stray = |proxy: &&Connection| {
            proxy.identity == identity && self.snapshot.workload_at(proxy.address).is_none()
        };
        match (self.connected.iter().find(stray), workload.addresses.first()) {
            (Some(proxy), Some(own)) => format!(
                "; one with its account says that it is at {}, the workload is at {own}",
                proxy.address
            ),
            _ => String::new(),
        }
    }
}

fn called_in_plaintext(strict: bool) -> Diagnostic {
    let message = match strict {
        true => {
            "its label keeps callers from mutual TLS, and a PeerAuthentication takes nothing else: \
             its connected proxy refuses them"
        }
        false => "its label keeps callers from mutual TLS, though a proxy of it is connected",
    };
    let finding = match strict {
        true => warning(message.to_owned()),
        false => Diagnostic::info(Code::NoProxy, FieldPath::of("metadata"), message),
    };
    finding.fix(format!("without the label `{LABEL}`, its proxy is proof enough"))
}

fn warning(message: String) -> Diagnostic {
    Diagnostic::warning(Code::NoProxy, FieldPath::of("metadata.name"), message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compiler::{Change, Compiler},
        dialect::parse_file,
        ir::MeshDefaults,
    };

    /// What is said of a pod with a label and a policy, while proxies are connected at `here`, and of
    /// some that went it is known.
    fn said(label: &str, policy: &str, here: &[&str], gone: &[(&str, Presence)]) -> Vec<String> {
        said_behind("cart", label, policy, here, gone)
    }

    /// The same where a service leads to pods of this app.
    fn said_behind(
        app: &str,
        label: &str,
        policy: &str,
        here: &[&str],
        gone: &[(&str, Presence)],
    ) -> Vec<String> {
        let label = if label.is_empty() { String::new() } else { format!(", {LABEL}: {label}") };
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: cart-1, namespace: shop, labels: {{app: cart{label}}}}}\n\
             spec: {{serviceAccountName: cart}}\n\
             status: {{phase: Running, podIP: 10.0.0.7, conditions: [{{type: Ready, status: \"True\"}}]}}\n\
             ---\napiVersion: v1\nkind: Service\nmetadata: {{name: cart, namespace: shop}}\n\
             spec: {{clusterIP: 10.96.0.7, selector: {{app: {app}}}, ports: [{{name: http, port: 80, targetPort: 8000}}]}}\n\
             ---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: shop}}\n\
             spec: {{mtls: {{mode: {policy}}}}}\n"
        );
        let parsed = parse_file("mesh.yaml", text.as_bytes());
        let connection = |address: &&str| Connection {
            identity: "spiffe://cluster.local/ns/shop/sa/cart".parse().expect("an identity"),
            address: address.parse().expect("an address"),
        };
        let connected: BTreeSet<Connection> = here.iter().map(connection).collect();
        let gone = gone.iter().map(|(address, presence)| (connection(address), *presence));
        let here = connected.iter().map(|proxy| (proxy.clone(), Presence::Connected));
        let known = gone.chain(here);
        let changes = known
            .map(|(connection, presence)| Change::Connection { connection, presence })
            .collect();
        let mut compiler = Compiler::new(MeshDefaults::default());
        let objects = parsed.objects.iter().cloned();
        compiler.apply(objects.map(|object| Change::Upsert(Box::new(object))).collect());
        compiler.apply(changes);
        let objects = parsed.objects.iter().map(|object| (&object.id, object)).collect();
        let findings = unproven(&objects, compiler.snapshot(), &connected);
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn who_is_there_is_held_against_what_is_written() {
        let own = "10.0.0.7";
        let (soon, away) = ((own, Presence::Connected), (own, Presence::Away));
        let left = Some("nobody is sent to it until that is back");
        let table = [
            ("", "PERMISSIVE", vec![], vec![], None),
            ("", "PERMISSIVE", vec![own], vec![], None),
            ("", "PERMISSIVE", vec![], vec![soon], Some("no proxy of it is connected")),
            ("", "PERMISSIVE", vec![], vec![away], left),
            ("istio", "DISABLE", vec![], vec![away], left),
            ("disabled", "PERMISSIVE", vec![], vec![away], None),
            ("", "STRICT", vec![], vec![], Some("callers reach it in plaintext")),
            ("", "STRICT", vec![own], vec![], None),
            (
                "",
                "STRICT",
                vec!["10.0.0.8"],
                vec![],
                Some("at 10.0.0.8, the workload is at 10.0.0.7"),
            ),
            ("istio", "PERMISSIVE", vec![], vec![], Some("callers speak mutual TLS with it")),
            ("istio", "PERMISSIVE", vec![own], vec![], None),
            ("istio", "DISABLE", vec![], vec![], None),
            ("disabled", "PERMISSIVE", vec![], vec![], None),
            (
                "disabled",
                "PERMISSIVE",
                vec![own],
                vec![],
                Some("though a proxy of it is connected"),
            ),
            ("disabled", "STRICT", vec![own], vec![], Some("its connected proxy refuses them")),
        ];
        for (label, policy, here, counting, expected) in table {
            let said = said(label, policy, &here, &counting);
            let case = format!("{label:?} {policy} {here:?} {counting:?}: {said:?}");
            assert_eq!(said.len(), usize::from(expected.is_some()), "{case}");
            for (said, expected) in said.iter().zip(expected) {
                assert!(said.contains(expected) && said.contains("mesh.yaml:3:"), "{case}");
            }
        }
    }

    #[test]
    fn who_only_calls_others_may_be_away() {
        let away = ("10.0.0.7", Presence::Away);
        for label in ["", "istio"] {
            let said = said_behind("till", label, "PERMISSIVE", &[], &[away]);
            assert!(said.is_empty(), "nobody is sent there anyway: {said:?}");
        }
    }
}
