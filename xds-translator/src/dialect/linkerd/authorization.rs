//! `policy.linkerd.io AuthorizationPolicy` and `ServerAuthorization`: who may call Servers.

use std::sync::Arc;

use super::{
    authentication::{CallerNetwork, check_networks, networks},
    reference::{POLICY, Reference},
    selector::LabelSelector,
};
use crate::{
    diagnostic::FieldPath,
    dialect::{Kind, decode::Decoder, forms::each, lowering::Lowering, schema::object, spec::Spec},
    ir::{
        AccessRule, Account, CallerMatch, ObjectId, Selector, SharedCallers, StringMatch, Values,
        WhichPorts,
    },
    snapshot::Item,
};

object! { no_null;
    /// Who may call a Server.
    PortAuthorization {
        /// The Server, or the own namespace, which stands for all Servers in it.
        "targetRef" target_ref: Reference [required],
        /// What callers must prove, all of it; an empty list: nothing.
        "requiredAuthenticationRefs" required_authentication_refs: Option<Vec<Reference>>,
    }
}

/// What a policy may be for.
const TARGETS: [(&str, &str); 2] = [(POLICY, "Server"), ("", "Namespace")];
/// What callers may have to prove: identities first.
const PROOFS: [(&str, &str); 3] =
    [(POLICY, "MeshTLSAuthentication"), (POLICY, "NetworkAuthentication"), ("", "ServiceAccount")];

impl Spec for PortAuthorization {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| {
            at.within("targetRef", |at| check_target(&self.target_ref, at));
            let Some(proofs) = &self.required_authentication_refs else {
                let fix = "an empty list lets everybody pass".to_owned();
                return at.missing("requiredAuthenticationRefs", Some(fix));
            };
            each("requiredAuthenticationRefs", proofs, at, |proof, at| {
                proof.check("authentication", &PROOFS, at);
            });
            let count = |network: bool| {
                let is = |r: &&Reference| (&*r.kind == "NetworkAuthentication") == network;
                proofs.iter().filter(is).count()
            };
            if count(true) > 1 || count(false) > 1 {
                let message = "at most one authentication by identity, and one by network";
                at.within("requiredAuthenticationRefs", |at| at.invalid(message, None));
            }
        });
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        let (at, which) = match &*self.target_ref.kind {
            "Server" => {
                let server = self.target_ref.object(Kind::LINKERD_SERVER, lowering);
                ("spec.targetRef.name", WhichPorts::Of(server))
            }
            _ => ("spec.targetRef", WhichPorts::Labelled(Selector::default())),
        };
        let mut rule = AccessRule::default();
        let mut shared = Vec::new();
        for (i, proof) in self.required_authentication_refs.iter().flatten().enumerate() {
            let at = FieldPath::of("spec.requiredAuthenticationRefs").index(i).field("name");
            let kind = match &*proof.kind {
                "ServiceAccount" => {
                    let account =
                        Account { namespace: proof.namespace(lowering), name: proof.name.clone() };
                    rule.when_from.push(CallerMatch::Account(only(account)));
                    continue;
                }
                "NetworkAuthentication" => Kind::NETWORK_AUTHENTICATION,
                _ => Kind::MESH_TLS_AUTHENTICATION,
            };
            let set = proof.object(kind, lowering);
            shared.push(SharedCallers { at: at.to_string().into(), set });
        }
        let mut policy = lowering.allowing(at, which, vec![rule]);
        policy.shared_callers = shared;
        vec![Item::Access(Arc::new(policy))]
    }
}

fn check_target(target: &Reference, at: &mut Decoder) {
    if matches!(&*target.kind, "HTTPRoute" | "GRPCRoute") {
        let message = format!(
            "policies for an {} of a Server are not served: nobody passes by this one",
            target.kind
        );
        let fix = "a policy for the Server".to_owned();
        return at.within("kind", |at| at.invalid(message, Some(fix)));
    }
    target.check("target", &TARGETS, at);
    target.check_local(at);
    let own = at.namespace().to_owned();
    if target.is("", "Namespace") && *target.name != *own {
        let message = format!("only the own namespace `{own}` can be meant");
        at.within("name", |at| at.invalid(message, Some(format!("`{own}`"))));
    }
}

fn only<T>(value: T) -> Values<T> {
    Values { wanted: vec![value], refused: Vec::new() }
}

// -------------------------------------------------------------------------------------------------
// the older form

object! { no_null;
    /// Who may call Servers, the older form.
    ServerAuthorization {
        /// Which Servers.
        "server" server: ServerRef [required],
        /// Who.
        "client" client: Client [required],
    }
}

object! { no_null;
    /// Servers of the same namespace; exactly one of the two.
    ServerRef {
        /// By name.
        "name" name: Arc<str>,
        /// By their labels.
        "selector" selector: Option<LabelSelector>,
    }
}

object! { no_null;
    /// Callers.
    Client {
        /// Where they call from; absent: anywhere.
        "networks" networks: Vec<CallerNetwork>,
        /// They need not prove anything; excludes `meshTLS`.
        "unauthenticated" unauthenticated: bool,
        /// They prove an identity of the mesh.
        "meshTLS" mesh_tls: Option<MeshTls>,
    }
}

object! { no_null;
    /// Who proves an identity of the mesh: one that is listed in either list.
    MeshTls {
        /// Any; excludes the lists.
        "unauthenticatedTLS" unauthenticated_tls: bool,
        /// Identities, as in a MeshTLSAuthentication.
        "identities" identities: Vec<Arc<str>>,
        /// Service accounts.
        "serviceAccounts" service_accounts: Vec<AccountRef>,
    }
}

object! { no_null;
    /// A service account.
    AccountRef {
        /// Its name.
        "name" name: Arc<str> [required],
        /// Its namespace; absent: the own one.
        "namespace" namespace: Arc<str>,
    }
}

impl Spec for ServerAuthorization {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| {
            at.within("server", |at| {
                if self.server.name.is_empty() == self.server.selector.is_none() {
                    at.invalid("exactly one of `name` and `selector`", None);
                }
                if let Some(selector) = &self.server.selector {
                    at.within("selector", |at| selector.check(at));
                }
            });
            at.within("client", |at| self.client.check(at));
        });
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        let (at, which) = match &self.server.selector {
            Some(selector) => ("spec.server.selector", WhichPorts::Labelled(selector.selector())),
            None => {
                let server = ObjectId {
                    kind: Kind::LINKERD_SERVER,
                    namespace: lowering.namespace().clone(),
                    name: self.server.name.clone(),
                };
                ("spec.server.name", WhichPorts::Of(server))
            }
        };
        let mut rule = AccessRule { from: self.client.callers(lowering), ..AccessRule::default() };
        let networks = networks(&self.client.networks);
        if !networks.is_empty() {
            rule.narrow(&networks);
        }
        vec![Item::Access(Arc::new(lowering.allowing(at, which, vec![rule])))]
    }
}

impl Client {
    fn check(&self, at: &mut Decoder) {
        check_networks(&self.networks, at);
        let listed = |tls: &MeshTls| !tls.identities.is_empty() || !tls.service_accounts.is_empty();
        match &self.mesh_tls {
            Some(_) if self.unauthenticated => {
                at.invalid("`unauthenticated` and `meshTLS` exclude each other", None);
            }
            None if !self.unauthenticated => {
                at.invalid("one of `unauthenticated: true` and `meshTLS`", None);
            }
            Some(tls) if listed(tls) == tls.unauthenticated_tls => at.within("meshTLS", |at| {
                let message =
                    "either identities or service accounts, or `unauthenticatedTLS: true`";
                at.invalid(message, None);
            }),
            _ => {}
        }
    }

    /// Alternatives; none: anybody.
    fn callers(&self, lowering: &mut Lowering<'_>) -> Vec<Vec<CallerMatch>> {
        let Some(tls) = &self.mesh_tls else { return Vec::new() };
        if tls.unauthenticated_tls {
            return vec![vec![CallerMatch::Principal(only(StringMatch::Present))]];
        }
        let at = FieldPath::of("spec.client.meshTLS.identities");
        let identities = tls.identities.iter().enumerate();
        let mut callers: Vec<Vec<CallerMatch>> =
            identities.filter_map(|(i, id)| lowering.identity(&at.index(i), id)).collect();
        callers.extend(tls.service_accounts.iter().map(|account| {
            let namespace = match account.namespace.is_empty() {
                true => lowering.namespace().clone(),
                false => account.namespace.clone(),
            };
            let name = account.name.clone();
            vec![CallerMatch::Account(only(Account { namespace, name }))]
        }));
        callers
    }
}
