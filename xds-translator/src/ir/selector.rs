//! Label sets and the selectors over them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;

/// Labels, sorted by key; may be empty.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// Selects by labels; what it asks for must all hold. The empty selector selects everything.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize)]
pub struct Selector {
    /// Labels that are there with these values.
    pub labels: Labels,
    /// What else is asked for; may be empty.
    pub expressions: Vec<LabelExpression>,
}

/// A condition on the label of one key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct LabelExpression {
    /// The key.
    pub key: Arc<str>,
    /// What must hold of its value.
    pub condition: LabelCondition,
}

/// A condition on the value of a label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum LabelCondition {
    /// It is one of these; never empty.
    In(BTreeSet<Arc<str>>),
    /// It is none of these, or not there; never empty.
    NotIn(BTreeSet<Arc<str>>),
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl LabelExpression {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.condition {
            LabelCondition::In(values) => value.is_some_and(|v| values.contains(v)),
            LabelCondition::NotIn(values) => !value.is_some_and(|v| values.contains(v)),
            LabelCondition::Exists => value.is_some(),
            LabelCondition::DoesNotExist => value.is_none(),
        }
    }

    /// A label that meets it; `None`: it asks for none.
    fn sample(&self) -> Option<(Arc<str>, Arc<str>)> {
        match &self.condition {
            LabelCondition::In(values) => Some((self.key.clone(), values.first()?.clone())),
            LabelCondition::Exists => Some((self.key.clone(), "".into())),
            LabelCondition::NotIn(_) | LabelCondition::DoesNotExist => None,
        }
    }
}

impl Selector {
    /// Whether labels meet everything that it asks for.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.labels.iter().all(|(k, v)| labels.get(k) == Some(v))
            && self.expressions.iter().all(|expression| expression.matches(labels))
    }

    /// Whether it asks for nothing, and so selects everything in its scope.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.expressions.is_empty()
    }

    /// Keys of the labels that it looks at.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.labels.keys().chain(self.expressions.iter().map(|expression| &expression.key))
    }

    /// The fewest labels of somebody that it selects, unless nobody can meet it.
    pub fn sample(&self) -> Labels {
        let mut labels: Labels =
            self.expressions.iter().filter_map(LabelExpression::sample).collect();
        labels.extend(self.labels.iter().map(|(k, v)| (k.clone(), v.clone())));
        labels
    }
}

impl From<Labels> for Selector {
    fn from(labels: Labels) -> Self {
        Self { labels, expressions: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|&(k, v)| (k.into(), v.into())).collect()
    }

    fn asking(condition: LabelCondition) -> Selector {
        let expressions = vec![LabelExpression { key: "tier".into(), condition }];
        Selector { labels: labels(&[("app", "cart")]), expressions }
    }

    /// As Kubernetes reads them: what excludes values takes those without the label too.
    #[test]
    fn expressions_hold_beside_labels() {
        let values = || ["front".into(), "back".into()].into();
        let front = labels(&[("app", "cart"), ("tier", "front")]);
        let other = labels(&[("app", "cart"), ("tier", "other")]);
        let none = labels(&[("app", "cart")]);
        let table = [
            (LabelCondition::In(values()), [true, false, false]),
            (LabelCondition::NotIn(values()), [false, true, true]),
            (LabelCondition::Exists, [true, true, false]),
            (LabelCondition::DoesNotExist, [false, false, true]),
        ];
        for (condition, expected) in table {
            let selector = asking(condition);
            let found = [&front, &other, &none].map(|labels| selector.matches(labels));
            assert_eq!(found, expected, "{selector:?}");
            assert!(!selector.matches(&labels(&[("tier", "front")])), "{selector:?}");
            assert!(selector.matches(&selector.sample()), "{selector:?} selects its sample");
            assert_eq!(selector.keys().count(), 2);
        }
    }

    #[test]
    fn only_a_selector_that_asks_for_nothing_is_empty() {
        assert!(Selector::default().is_empty() && Selector::default().matches(&Labels::new()));
        let expression = LabelExpression { key: "a".into(), condition: LabelCondition::Exists };
        let selector = Selector { expressions: vec![expression], ..Selector::default() };
        assert!(!selector.is_empty());
    }
}
