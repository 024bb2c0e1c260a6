//! Dynamic metadata: what filters have found out about a request, by namespace and key, for later
//! filters, access control and logs. Spec: Envoy `core.v3.Metadata`, `MetadataMatcher`.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::text::StringMatcher;

/// A value; the kinds of protobuf's `Struct`.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Nothing.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A text.
    Text(Arc<str>),
    /// Several values.
    List(Vec<Value>),
    /// Values by key.
    Struct(Fields),
}

/// Values by key.
pub type Fields = BTreeMap<Arc<str>, Value>;

/// What is known of a request, by namespace. A namespace is mostly a filter's name.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Metadata(Vec<(Arc<str>, Fields)>);

impl Metadata {
    /// Sets one key of a namespace, whatever it was.
    pub fn set(&mut self, namespace: &str, key: &str, value: Value) {
        let index = self.0.iter().position(|(name, _)| **name == *namespace);
        let index = index.unwrap_or_else(|| {
            self.0.push((namespace.into(), Fields::new()));
            self.0.len() - 1
        });
        self.0[index].1.insert(key.into(), value);
    }

    /// The value at the end of a path of keys; none for an empty path.
    pub fn get(&self, namespace: &str, path: &[Arc<str>]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        let mut value = self.fields(namespace)?.get(&**first)?;
        for key in rest {
            let Value::Struct(fields) = value else { return None };
            value = fields.get(&**key)?;
        }
        Some(value)
    }

    /// All keys of a namespace.
    pub fn fields(&self, namespace: &str) -> Option<&Fields> {
        let found = self.0.iter().find(|(name, _)| **name == *namespace);
        found.map(|(_, fields)| fields)
    }
}

/// As a log writes it: a text as it stands, everything else as JSON.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            other => write!(f, "{}", other.to_json()),
        }
    }
}

impl Value {
    fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(yes) => (*yes).into(),
            Self::Number(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
                (*number as i64).into()
            }
            Self::Number(number) => (*number).into(),
            Self::Text(text) => (**text).into(),
            Self::List(values) => values.iter().map(Self::to_json).collect(),
            Self::Struct(fields) => fields_to_json(fields),
        }
    }
}

/// All keys of a namespace as one JSON object.
pub fn fields_to_json(fields: &Fields) -> serde_json::Value {
    fields.iter().map(|(key, value)| (key.to_string(), value.to_json())).collect()
}

/// A predicate over one value of the metadata.
#[derive(Clone, Debug)]
pub struct MetadataMatcher {
    /// The namespace.
    pub namespace: Arc<str>,
    /// Keys that lead to the value; never empty.
    pub path: Vec<Arc<str>>,
    /// What the value must be.
    pub value: ValueMatcher,
    /// Holds where it otherwise would not.
    pub invert: bool,
}

/// What a value must be; only [`ValueMatcher::Present`] has anything to say of a missing one.
#[derive(Clone, Debug)]
pub enum ValueMatcher {
    /// Null.
    Null,
    /// This one of two.
    Bool(bool),
    /// A number from the first to below the second.
    Range(f64, f64),
    /// This number.
    Number(f64),
    /// A text that matches.
    Text(StringMatcher),
    /// There is one, or (`false`) nothing ever matches, as in Envoy.
    Present(bool),
    /// A list of which one element matches.
    OneOf(Box<ValueMatcher>),
    /// One of these matches.
    Or(Vec<ValueMatcher>),
}

impl MetadataMatcher {
    /// Whether a request with this metadata matches; none is as good as empty.
    pub fn matches(&self, metadata: Option<&Metadata>) -> bool {
        let value = metadata.and_then(|metadata| metadata.get(&self.namespace, &self.path));
        value.is_some_and(|value| self.value.matches(value)) != self.invert
    }
}

impl ValueMatcher {
    fn matches(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(wanted), Value::Bool(yes)) => wanted == yes,
            (Self::Range(from, to), Value::Number(number)) => (*from..*to).contains(number),
            (Self::Number(wanted), Value::Number(number)) => wanted == number,
            (Self::Text(matcher), Value::Text(text)) => matcher.matches(text),
            (Self::Present(wanted), _) => *wanted,
            (Self::OneOf(matcher), Value::List(values)) => {
                values.iter().any(|value| matcher.matches(value))
            }
            (Self::Or(matchers), value) => matchers.iter().any(|matcher| matcher.matches(value)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Metadata {
        let groups = Value::List(vec![Value::Text("a".into()), Value::Text("b".into())]);
        let mut metadata = Metadata::default();
        let inner = Fields::from([("iss".into(), Value::Text("x".into())), ("g".into(), groups)]);
        metadata.set("jwt", "payload", Value::Struct(inner));
        metadata.set("jwt", "age", Value::Number(3.0));
        metadata
    }

    fn check(path: &[&str], value: ValueMatcher, expected: bool) {
        let path: Vec<Arc<str>> = path.iter().map(|key| (*key).into()).collect();
        let text = format!("{path:?} {value:?}");
        for (invert, expected) in [(false, expected), (true, !expected)] {
            let (path, value) = (path.clone(), value.clone());
            let matcher = MetadataMatcher { namespace: "jwt".into(), path, value, invert };
            assert_eq!(matcher.matches(Some(&claims())), expected, "{text} inverted: {invert}");
            assert_eq!(matcher.matches(None), invert, "{text} of nothing");
        }
    }

    #[test]
    fn a_value_is_found_by_its_path_and_judged_by_its_kind() {
        let text = |text: &str| ValueMatcher::Text(StringMatcher::Exact(text.into()));
        check(&["payload", "iss"], text("x"), true);
        check(&["payload", "iss"], text("y"), false);
        check(&["payload", "none"], text(""), false);
        check(&["payload", "iss", "deeper"], text("x"), false);
        check(&["age"], text("3"), false);
        check(&["age"], ValueMatcher::Number(3.0), true);
        check(&["age"], ValueMatcher::Range(1.0, 3.0), false);
        check(&["age"], ValueMatcher::Range(3.0, 4.0), true);
        check(&["age"], ValueMatcher::Present(true), true);
        check(&["age"], ValueMatcher::Null, false);
        check(&["payload", "g"], ValueMatcher::OneOf(Box::new(text("b"))), true);
        check(&["payload", "g"], ValueMatcher::OneOf(Box::new(text("c"))), false);
        check(&["age"], ValueMatcher::Or(vec![text("3"), ValueMatcher::Number(3.0)]), true);
    }

    #[test]
    fn values_are_written_as_a_log_shows_them() {
        let metadata = claims();
        let at = |path: &str| metadata.get("jwt", &[path.into()]).unwrap().to_string();
        assert_eq!(at("age"), "3");
        assert_eq!(at("payload"), r#"{"g":["a","b"],"iss":"x"}"#);
    }
}
