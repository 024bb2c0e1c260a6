//! `networking.k8s.io IngressClass`: which Ingresses are the mesh's.
//!
//! It means something to Ingresses alone, which are lowered with all classes beside them
//! ([`MeshDefaults::with_classes`](crate::ir::MeshDefaults::with_classes)).

use std::sync::Arc;

use crate::{
    dialect::{Object, schema::object, spec::Spec},
    ir::IngressClass as Class,
};

/// The controller that the mesh is, to Ingresses.
const CONTROLLER: &str = "istio.io/ingress-controller";
/// Says that Ingresses without a class are of this one.
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

object! { open;
    /// A class of Ingresses.
    IngressClass {
        /// Its specification.
        "spec" spec: IngressClassSpec,
    }
}

object! { open;
    /// Specification of a class of Ingresses.
    IngressClassSpec {
        /// Who serves them.
        "controller" controller: Arc<str>,
    }
}

impl Spec for IngressClass {}

/// What an object says of a class; `None`: it is none.
pub(crate) fn class_of(object: &Object) -> Option<Class> {
    let class = object.content::<IngressClass>()?;
    Some(Class {
        ours: &*class.spec.controller == CONTROLLER,
        by_default: object.meta.annotations.get(IS_DEFAULT).is_some_and(|word| &**word == "true"),
    })
}
