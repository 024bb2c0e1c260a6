//! What a writer says must be there: by HTTP's conditions, by the revision that it names in the
//! object or in the options of a deletion, or both.

use serde_json::Value;

use super::WriteError;
use crate::store::{Expect, StoreError};

/// Where an object names the revision that it is meant to replace.
pub(super) const OF_OBJECT: &str = "metadata.resourceVersion";
/// Where a deletion names the revision that it is meant to delete.
pub(super) const OF_DELETION: &str = "preconditions.resourceVersion";

/// A condition of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Condition {
    /// What must be there.
    pub(super) expect: Expect,
    /// The field that says so; `None`: nothing but the request's own conditions.
    field: Option<&'static str>,
}

impl Condition {
    /// What `request` expects, and the revision that `field` names, if it names one.
    ///
    /// # Errors
    /// Both cannot hold.
    pub(super) fn new(
        request: Expect,
        field: &'static str,
        revision: Option<u64>,
    ) -> Result<Self, WriteError> {
        let Some(revision) = revision else { return Ok(Self { expect: request, field: None }) };
        let expected = match request {
            Expect::Any | Expect::Present => None,
            Expect::Revision(other) if other == revision => None,
            Expect::OtherThan(other) if other != revision => None,
            Expect::Revision(other) => Some(format!("revision {other}")),
            Expect::OtherThan(other) => Some(format!("another than revision {other}")),
            Expect::Absent => Some("no such object".to_owned()),
        };
        match expected {
            None => Ok(Self { expect: Expect::Revision(revision), field: Some(field) }),
            Some(expected) => Err(WriteError::Condition(format!(
                "{field} names revision {revision}, but the request expects {expected}: leave one \
                 of them out"
            ))),
        }
    }

    /// A refusal of the store, with the field that the condition comes from.
    pub(super) fn refusal(self, error: StoreError) -> WriteError {
        match (error, self.field) {
            (cause @ StoreError::Conflict { .. }, Some(field)) => {
                WriteError::Outdated { field, cause: Box::new(cause) }
            }
            (error, _) => error.into(),
        }
    }
}

/// Takes out of an object the revision that it names: it is the store's to say, and an object that
/// kept it would name an old one when it is read again. What is no text is left to be refused.
///
/// # Errors
/// It is the revision of nothing here.
pub(super) fn take_version(value: &mut Value) -> Result<Option<u64>, WriteError> {
    let meta = value.get_mut("metadata").and_then(Value::as_object_mut);
    let Some(meta) = meta.filter(|meta| meta.get("resourceVersion").is_some_and(Value::is_string))
    else {
        return Ok(None);
    };
    let written = meta.remove("resourceVersion");
    revision(OF_OBJECT, written.as_ref().and_then(Value::as_str).unwrap_or_default())
}

/// The revision that a text names; none that is empty, as in Kubernetes.
///
/// # Errors
/// It names none.
pub(super) fn revision(field: &str, text: &str) -> Result<Option<u64>, WriteError> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    digits.map(Some).ok_or_else(|| {
        WriteError::Condition(format!(
            "{field}: expected a revision such as 9, got {text:?}; leave it out to write whatever \
             is there"
        ))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_revision_that_is_named_is_a_condition_beside_those_of_the_request() {
        use Expect::{Absent, Any, OtherThan, Present, Revision};
        let table = [
            (Any, None, Some(Any)),
            (Any, Some(9), Some(Revision(9))),
            (Present, Some(9), Some(Revision(9))),
            (Revision(9), Some(9), Some(Revision(9))),
            (OtherThan(8), Some(9), Some(Revision(9))),
            (Revision(8), Some(9), None),
            (OtherThan(9), Some(9), None),
            (Absent, Some(9), None),
            (Absent, None, Some(Absent)),
        ];
        for (request, revision, expected) in table {
            let got = Condition::new(request, OF_OBJECT, revision).ok().map(|c| c.expect);
            assert_eq!(got, expected, "{request:?} {revision:?}");
        }
    }

    #[test]
    fn the_revision_is_taken_out_of_an_object_and_must_be_one() {
        let taken = |version: Value| {
            let mut object = json!({ "metadata": { "name": "a", "resourceVersion": version } });
            let taken = take_version(&mut object);
            (taken.ok(), object["metadata"].get("resourceVersion").is_some())
        };
        assert_eq!(taken(json!("9")), (Some(Some(9)), false));
        assert_eq!(taken(json!("")), (Some(None), false));
        assert_eq!(taken(json!(9)), (Some(None), true));
        for wrong in ["+9", "nine", "9 ", "-1", "99999999999999999999"] {
            assert_eq!(taken(json!(wrong)).0, None, "{wrong}");
        }
    }
}
