//! Which pods are injected, of those whose namespace or label asks for it.
//!
//! Istio's order: the network of the node and the namespaces of the cluster exclude everything;
//! then the pod's own word, as a label or else an annotation; then `neverInject` of the settings.
//! What namespaces ask for stands in the selectors of the webhook's configuration, and the API
//! server has applied it.

use std::fmt;

use ferromesh_xds_translator::diagnostic::{Code, Diagnostic, FieldPath};
use serde_json::Value;

use super::{pod, settings::InjectionSettings, template};

/// The label, or annotation, in which a pod says whether it wants to be injected.
pub(super) const INJECT: &str = "sidecar.istio.io/inject";
/// Namespaces whose pods the cluster itself cannot be without.
const SYSTEM_NAMESPACES: [&str; 4] =
    ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Why a pod stays as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It uses the network of its node, which nobody may redirect.
    HostNetwork,
    /// Its namespace is the cluster's own.
    SystemNamespace,
    /// It says so.
    SaysNo,
    /// A selector of the settings says so.
    NeverInject,
    /// Another program has injected it.
    ByAnother,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostNetwork => "it uses its node's network",
            Self::SystemNamespace => "its namespace is the cluster's own",
            Self::SaysNo => "it says `sidecar.istio.io/inject: \"false\"`",
            Self::NeverInject => "a selector below `neverInject` in the settings matches it",
            Self::ByAnother => "another program has injected it",
        })
    }
}

/// Whether a namespace is the cluster's own, where neither injection nor validation may stand in
/// the way.
pub(crate) fn is_system(namespace: &str) -> bool {
    SYSTEM_NAMESPACES.contains(&namespace)
}

/// `Ok(Err(_))`: why the pod is left alone.
///
/// # Errors
/// The pod is none, or what it says about injection is no word for yes or no.
pub(super) fn check(
    pod: &Value,
    namespace: &str,
    settings: &InjectionSettings,
) -> Result<Result<(), Reason>, Vec<Diagnostic>> {
    if pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)) {
        return Ok(Err(Reason::HostNetwork));
    }
    if is_system(namespace) {
        return Ok(Err(Reason::SystemNamespace));
    }
    let malformed = pod::check(pod);
    if !malformed.is_empty() {
        return Err(malformed);
    }
    if template::injected_by_another(pod) {
        return Ok(Err(Reason::ByAnother));
    }
    Ok(match own_word(pod).map_err(|finding| vec![*finding])? {
        Some(true) => Ok(()),
        Some(false) => Err(Reason::SaysNo),
        None if settings.never_inject.iter().any(|selector| selector.matches(pod)) => {
            Err(Reason::NeverInject)
        }
        None => Ok(()),
    })
}

/// What the pod says about itself; nothing, or an empty text, leaves it to others.
fn own_word(pod: &Value) -> Result<Option<bool>, Box<Diagnostic>> {
    let Some(word) = pod::label_or_annotation(pod, INJECT) else { return Ok(None) };
    match word.to_ascii_lowercase().as_str() {
        "" => Ok(None),
        "true" | "yes" | "y" | "on" => Ok(Some(true)),
        "false" | "no" | "n" | "off" => Ok(Some(false)),
        _ => {
            let place = if pod::label(pod, INJECT).is_some() {
                "metadata.labels"
            } else {
                "metadata.annotations"
            };
            let field = FieldPath::of(place).field(INJECT);
            let finding = Diagnostic::error(Code::InvalidValue, field, "not a known value");
            Err(Box::new(finding.expected("true or false", format!("`{word}`"))))
        }
    }
}
