//! Selectors of labels, as Kubernetes writes them.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    dialect::{
        decode::Decoder,
        forms::each,
        schema::{choice, object},
    },
    ir::{LabelCondition, LabelExpression, Selector},
};

object! { no_null;
    /// Selects by labels; what it asks for must all hold.
    LabelSelector {
        /// Labels that are there with these values.
        "matchLabels" match_labels: BTreeMap<Arc<str>, Arc<str>>,
        /// What else is asked for.
        "matchExpressions" match_expressions: Vec<LabelRequirement>,
    }
}

object! { no_null;
    /// A condition on the label of one key.
    LabelRequirement {
        /// The key.
        "key" key: Arc<str> [required],
        /// What must hold.
        "operator" operator: LabelOperator [required],
        /// Values, for `In` and `NotIn`.
        "values" values: Vec<Arc<str>>,
    }
}

choice! {
    /// What must hold of a label.
    LabelOperator {
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

impl LabelSelector {
    /// Notes operators with too few values or too many.
    pub(super) fn check(&self, at: &mut Decoder) {
        each("matchExpressions", &self.match_expressions, at, |one, at| {
            let takes = matches!(one.operator, LabelOperator::In | LabelOperator::NotIn);
            if takes == one.values.is_empty() {
                let verb = if takes { "asks for" } else { "takes no" };
                let message = format!("`{}` {verb} values", one.operator.as_str());
                at.within("values", |at| at.invalid(message, None));
            }
        });
    }

    /// What it selects.
    pub(super) fn selector(&self) -> Selector {
        let expression = |one: &LabelRequirement| {
            let values = || one.values.iter().cloned().collect();
            let condition = match one.operator {
                LabelOperator::In => LabelCondition::In(values()),
                LabelOperator::NotIn => LabelCondition::NotIn(values()),
                LabelOperator::Exists => LabelCondition::Exists,
                LabelOperator::DoesNotExist => LabelCondition::DoesNotExist,
            };
            LabelExpression { key: one.key.clone(), condition }
        };
        Selector {
            labels: self.match_labels.clone(),
            expressions: self.match_expressions.iter().map(expression).collect(),
        }
    }
}
