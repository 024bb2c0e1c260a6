//! Kubernetes' own kinds, as far as a mesh reads them. Fields that are not listed are left alone.

mod fields;
pub mod ingress;
pub mod ingress_class;
mod lower;
mod rules;

pub use fields::*;

use self::{ingress::Ingress, ingress_class::IngressClass};

use super::{
    decode::Decoder,
    kind::{Served, Serving, guards_nothing, kinds},
    lowering::Lowering,
    spec::Spec,
};
use crate::snapshot::Item;

kinds! {
    0;
    /// `v1 Namespace`.
    NAMESPACE: "" ["v1"] "Namespace" "namespaces" "namespace" Cluster => Serving::Served(Served::metadata::<Namespace>());
    /// `v1 Node`: its labels say in which zone its pods are.
    NODE: "" ["v1"] "Node" "nodes" "node" Cluster => Serving::Served(Served::metadata::<Node>());
    /// `v1 Service`.
    SERVICE: "" ["v1"] "Service" "services" "service" Namespaced => Serving::Served(Served::whole::<Service>());
    /// `v1 Pod`.
    POD: "" ["v1"] "Pod" "pods" "pod" Namespaced => Serving::Served(Served::whole::<Pod>());
    /// `v1 ServiceAccount`.
    SERVICE_ACCOUNT: "" ["v1"] "ServiceAccount" "serviceaccounts" "service-account" Namespaced => Serving::Served(Served::metadata::<ServiceAccount>());
    /// `v1 Secret`.
    SECRET: "" ["v1"] "Secret" "secrets" "secret" Namespaced => Serving::Served(Served::whole::<Secret>());
    /// `v1 ConfigMap`: only `istio`, which holds the mesh configuration, means something.
    CONFIG_MAP: "" ["v1"] "ConfigMap" "configmaps" "config-map" Namespaced => Serving::Planned(guards_nothing);
    /// `discovery.k8s.io/v1 EndpointSlice`.
    ENDPOINT_SLICE: "discovery.k8s.io" ["v1"] "EndpointSlice" "endpointslices" "endpoint-slice" Namespaced => Serving::Served(Served::whole::<EndpointSlice>());
    /// `apps/v1 Deployment`: read so that real manifests load.
    DEPLOYMENT: "apps" ["v1"] "Deployment" "deployments" "deployment" Namespaced => Serving::Served(Served::whole::<Deployment>());
    /// Kubernetes' Ingress.
    INGRESS: "networking.k8s.io" ["v1"] "Ingress" "ingresses" "ingress" Namespaced => Serving::Served(Served::whole::<Ingress>());
    /// A class of Ingresses.
    INGRESS_CLASS: "networking.k8s.io" ["v1"] "IngressClass" "ingressclasses" "ingress-class" Cluster => Serving::Served(Served::whole::<IngressClass>());
}

// Namespaces and accounts are known by the objects in them; Secrets are the secret provider's. Nodes
// say where pods are, which the compiler adds to them.
impl Spec for Namespace {}
impl Spec for Node {}
impl Spec for ServiceAccount {}
impl Spec for Deployment {}

impl Spec for Secret {
    fn check(&self, at: &mut Decoder) {
        rules::check_secret(self, at);
    }
}

impl Spec for Service {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| rules::check_service(&self.spec, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        lowering.service(self).into_iter().collect()
    }
}

impl Spec for Pod {
    fn check(&self, at: &mut Decoder) {
        at.within("status", |at| rules::check_pod(&self.status, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        vec![lowering.pod(self)]
    }
}

impl Spec for EndpointSlice {
    fn check(&self, at: &mut Decoder) {
        rules::check_slice(self, at);
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        lowering.slice(self).into_iter().collect()
    }
}
