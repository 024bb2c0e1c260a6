//! `policy.linkerd.io MeshTLSAuthentication` and `NetworkAuthentication`: sets of callers.

use std::sync::Arc;

use ipnet::IpNet;

use super::reference::Reference;
use crate::{
    diagnostic::FieldPath,
    dialect::{
        decode::Decoder,
        forms::{check_network, each},
        lowering::Lowering,
        names::network,
        schema::object,
        spec::Spec,
    },
    ir::{Account, CallerMatch, CallerSet, StringMatch, Values},
    snapshot::Item,
};

object! { no_null;
    /// Callers by the identity that they prove: one of either list.
    MeshTlsAuthentication {
        /// Identities: `*`, `*.SUFFIX`, `ACCOUNT.NAMESPACE.serviceaccount.identity.CONTROL-PLANE.TRUST-DOMAIN`,
        /// or `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
        "identities" identities: Vec<Arc<str>>,
        /// Service accounts, or namespaces, which stand for all accounts in them.
        "identityRefs" identity_refs: Vec<Reference>,
    }
}

const IDENTITIES: [(&str, &str); 2] = [("", "ServiceAccount"), ("", "Namespace")];

impl Spec for MeshTlsAuthentication {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| {
            if self.identities.is_empty() && self.identity_refs.is_empty() {
                at.missing("identities", None);
            }
            each("identityRefs", &self.identity_refs, at, |reference, at| {
                reference.check("identity", &IDENTITIES, at);
            });
        });
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        let at = FieldPath::of("spec.identities");
        let identities = self.identities.iter().enumerate();
        let mut alternatives: Vec<Vec<CallerMatch>> =
            identities.filter_map(|(i, id)| lowering.identity(&at.index(i), id)).collect();
        alternatives
            .extend(self.identity_refs.iter().map(|reference| vec![named(reference, lowering)]));
        vec![Item::Callers(Arc::new(CallerSet { origin: lowering.origin(), alternatives }))]
    }
}

fn named(reference: &Reference, lowering: &Lowering<'_>) -> CallerMatch {
    let name = reference.name.clone();
    match &*reference.kind {
        "Namespace" => {
            let wanted = vec![StringMatch::Exact(name)];
            CallerMatch::Namespace(Values { wanted, refused: Vec::new() })
        }
        _ => {
            let wanted = vec![Account { namespace: reference.namespace(lowering), name }];
            CallerMatch::Account(Values { wanted, refused: Vec::new() })
        }
    }
}

object! { no_null;
    /// Callers by where they call from.
    NetworkAuthentication {
        /// Networks; one of them.
        "networks" networks: Vec<CallerNetwork> [required],
    }
}

object! { no_null;
    /// A network.
    CallerNetwork {
        /// Its addresses.
        "cidr" cidr: Arc<str> [required],
        /// Of them, those that do not belong to it.
        "except" except: Vec<Arc<str>>,
    }
}

impl Spec for NetworkAuthentication {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| check_networks(&self.networks, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        let alternatives = networks(&self.networks);
        vec![Item::Callers(Arc::new(CallerSet { origin: lowering.origin(), alternatives }))]
    }
}

/// Notes what is no network.
pub(super) fn check_networks(list: &[CallerNetwork], at: &mut Decoder) {
    each("networks", list, at, |network, at| {
        if !network.cidr.is_empty() {
            at.within("cidr", |at| check_network(&network.cidr, at));
        }
        each("except", &network.except, at, |text, at| check_network(text, at));
    });
}

/// Alternatives, a network each.
pub(super) fn networks(list: &[CallerNetwork]) -> Vec<Vec<CallerMatch>> {
    let one = |network: &CallerNetwork| {
        vec![CallerMatch::DirectIp(Values {
            wanted: parsed(std::slice::from_ref(&network.cidr)),
            refused: parsed(&network.except),
        })]
    };
    list.iter().map(one).collect()
}

/// Texts as networks; what is none is refused by a rule.
fn parsed(texts: &[Arc<str>]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| network(text)).collect()
}
