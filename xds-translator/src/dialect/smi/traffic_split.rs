//! `split.smi-spec.io TrafficSplit`: fields and rules.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Map, Value};

use super::{Spec, is_early, version};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{HostForm, check_host, each},
        lowering::Lowering,
        reading,
        schema::object,
        spec::Content,
        weight::Weight,
    },
    snapshot::Item,
};

object! {
    /// Requests for a service go to others, by weight.
    TrafficSplit {
        /// The service that clients ask for: its name, or its full name.
        "service" service: Arc<str> [required],
        /// Where its requests go.
        "backends" backends: Vec<Backend> [required],
        /// Only requests that one of these matches are split; absent: all. Since v1alpha3.
        "matches" matches: Vec<MatchReference>,
    }
}

object! {
    /// A service that gets a share.
    Backend {
        /// Its name. It gets nothing where it lacks the port that the client asks for.
        "service" service: Arc<str> [required],
        /// Its weight, relative to the others'.
        "weight" weight: Weight [required],
    }
}

object! {
    /// Conditions that are kept elsewhere.
    MatchReference {
        /// `HTTPRouteGroup`.
        "kind" kind: Arc<str> [required],
        /// Its name, in the namespace of the split.
        "name" name: Arc<str> [required],
        /// `specs.smi-spec.io`, if any.
        "apiGroup" api_group: Arc<str>,
    }
}

/// Reads a split, and notes what its version lacks.
pub(super) fn read(value: &Value, map: &Map<String, Value>, at: &mut Decoder) -> Content {
    let version = version(value);
    at.within("apiVersion", |at| {
        at.remark(|path| {
            Diagnostic::info(Code::Deprecated, path, "the Service Mesh Interface is archived")
                .fix("Gateway API's HTTPRoute, with weights in `backendRefs`")
        });
    });
    at.within("spec", |at| {
        check_quantities(value, version, at);
        if is_early(version) && value.pointer("/spec/matches").is_some() {
            at.within("matches", |at| {
                at.invalid(
                    format!("{version} has no `matches`"),
                    Some("apiVersion v1alpha4".to_owned()),
                );
            });
        }
    });
    reading::spec::<TrafficSplit>(value, map, at)
}

/// Weights are quantities in v1alpha1 only.
fn check_quantities(value: &Value, version: &str, at: &mut Decoder) {
    let backends = value.pointer("/spec/backends").and_then(Value::as_array);
    at.within("backends", |at| {
        for (index, backend) in backends.into_iter().flatten().enumerate() {
            let text = backend.get("weight").and_then(Value::as_str);
            if let Some(text) = text.filter(|_| version != "v1alpha1") {
                at.within_index(index, |at| {
                    at.within("weight", |at| {
                        let message = format!("{version} takes whole numbers, got `{text}`");
                        at.invalid(message, None);
                    });
                });
            }
        }
    });
}

impl Spec for TrafficSplit {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| self.check_spec(at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        vec![lowering.traffic_split(self)]
    }
}

impl TrafficSplit {
    fn check_spec(&self, at: &mut Decoder) {
        at.within("service", |at| check_host(&self.service, HostForm::Exact, at));
        let mut seen = BTreeSet::new();
        each("backends", &self.backends, at, |backend, at| {
            at.within("service", |at| {
                check_host(&backend.service, HostForm::Exact, at);
                if !seen.insert(backend.service.clone()) {
                    at.invalid(format!("`{}` stands here twice", backend.service), None);
                }
            });
        });
        let nobody = self.backends.iter().all(|backend| backend.weight == Weight(0));
        if nobody && !self.backends.is_empty() {
            at.within("backends", |at| at.invalid("every weight is 0", None));
        }
        each("matches", &self.matches, at, |reference, at| {
            if &*reference.kind != "HTTPRouteGroup" {
                at.within("kind", |at| {
                    let message = format!("expected HTTPRouteGroup, got `{}`", reference.kind);
                    at.invalid(message, Some("`HTTPRouteGroup`".to_owned()));
                });
            }
            if !matches!(&*reference.api_group, "" | "specs.smi-spec.io") {
                at.within("apiGroup", |at| {
                    let message =
                        format!("expected specs.smi-spec.io, got `{}`", reference.api_group);
                    at.invalid(message, Some("`specs.smi-spec.io`".to_owned()));
                });
            }
        });
    }
}
