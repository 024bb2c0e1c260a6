//! Label selectors as Kubernetes writes them.

use std::{collections::BTreeMap, sync::Arc};

use ferromesh_xds_translator::{choice, object};
use serde_json::Value;

use super::pod;

object! {
    /// Which pods are meant, by their labels: everything that is written must hold; nothing written
    /// matches nothing here.
    Selector {
        /// Labels with these values.
        "matchLabels" match_labels: BTreeMap<Arc<str>, Arc<str>>,
        /// Conditions on labels.
        "matchExpressions" match_expressions: Vec<Requirement>,
    }
}

object! {
    /// A condition on a label.
    Requirement {
        /// The label.
        "key" key: Arc<str> [required],
        /// How its value is compared.
        "operator" operator: Operator [required],
        /// With what.
        "values" values: Vec<Arc<str>>,
    }
}

choice! {
    /// How a label is compared.
    Operator {
        /// It has one of the values.
        In = "In",
        /// It has none of the values, or is not there.
        NotIn = "NotIn",
        /// It is there.
        Exists = "Exists",
        /// It is not there.
        DoesNotExist = "DoesNotExist",
    }
}

impl Selector {
    /// Whether a pod is meant.
    pub(super) fn matches(&self, pod: &Value) -> bool {
        let label = |key: &str| pod::label(pod, key);
        let says_something = !self.match_labels.is_empty() || !self.match_expressions.is_empty();
        says_something
            && self.match_labels.iter().all(|(key, value)| label(key) == Some(value))
            && self
                .match_expressions
                .iter()
                .all(|requirement| requirement.holds(label(&requirement.key)))
    }
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        let listed = value.is_some_and(|value| self.values.iter().any(|wanted| **wanted == *value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}
