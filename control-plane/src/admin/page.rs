//! Lists in parts: `limit` says how many items are wanted, `continue` what the part before answered.
//!
//! The mark is where the part before ended and not a number of items, so that nothing is left out or
//! said twice whatever comes and goes meanwhile.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ferromesh_xds_translator::{dialect::Kind, ir::ObjectId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;

/// Which part of a list is asked for.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<String>,
    #[serde(rename = "continue")]
    mark: Option<String>,
}

/// What the items of a list are sorted by, each by another.
pub(super) trait Key: Ord + Sized {
    /// As text.
    fn spell(&self) -> String;
    /// From [`Self::spell`].
    fn read(text: &str) -> Option<Self>;
}

impl Key for ObjectId {
    fn spell(&self) -> String {
        format!("{}/{}/{}", self.kind.resource(), self.namespace, self.name)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let kind = Kind::named(parts.next()?).ok()?;
        let (namespace, name) = (parts.next()?.into(), parts.next()?.into());
        Some(Self { kind, namespace, name })
    }
}

impl Key for String {
    fn spell(&self) -> String {
        self.clone()
    }

    fn read(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Page {
    /// From the parameters of a query that has more.
    pub(super) fn new(limit: Option<String>, mark: Option<String>) -> Self {
        Self { limit, mark }
    }

    /// This part of items, which are sorted by their keys, as an answer.
    ///
    /// # Errors
    /// `limit` is no number of items, or `continue` is no mark of ours.
    pub(super) fn of<K: Key>(&self, items: Vec<(K, Value)>) -> Result<Value, Problem> {
        let after: Option<K> = self.mark.as_deref().map(decode).transpose()?;
        let begin = after.map_or(0, |after| items.partition_point(|(key, _)| *key <= after));
        let rest = &items[begin..];
        let count = self.count()?.unwrap_or(rest.len()).min(rest.len());
        let part: Vec<&Value> = rest[..count].iter().map(|(_, item)| item).collect();
        let mut answer = json!({ "items": part });
        if let (Some((last, _)), true) = (rest[..count].last(), count < rest.len()) {
            let left = rest.len() - count;
            answer["metadata"] = json!({ "continue": encode(last), "remainingItemCount": left });
        }
        Ok(answer)
    }

    fn count(&self) -> Result<Option<usize>, Problem> {
        let Some(text) = &self.limit else { return Ok(None) };
        let count = text.parse().ok().filter(|count| *count > 0);
        count.map(Some).ok_or_else(|| {
            Problem::bad_request(format!("limit: expected a number of items above 0, got {text:?}"))
        })
    }
}

fn encode(key: &impl Key) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(key.spell())
}

fn decode<K: Key>(mark: &str) -> Result<K, Problem> {
    let read = || K::read(&String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(mark).ok()?).ok()?);
    read().ok_or_else(|| {
        Problem::bad_request(format!(
            "continue: expected what the part before answered, got {mark:?}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ObjectId {
        ObjectId { kind: Kind::SERVICE, namespace: "shop".into(), name: name.into() }
    }

    fn items(names: &[&str]) -> Vec<(ObjectId, Value)> {
        names.iter().map(|name| (id(name), json!(name))).collect()
    }

    fn part(limit: Option<&str>, mark: Option<&str>, names: &[&str]) -> Result<Value, u16> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Page::new(own(limit), own(mark)).of(items(names)).map_err(|problem| problem.status)
    }

    #[test]
    fn parts_follow_each_other_whatever_comes_and_goes_between_them() {
        assert_eq!(part(None, None, &["a", "b"]), Ok(json!({ "items": ["a", "b"] })));
        let first = part(Some("2"), None, &["a", "b", "c", "d"]).expect("a part");
        assert_eq!(first["items"], json!(["a", "b"]));
        assert_eq!(first["metadata"]["remainingItemCount"], 2);
        let mark = first["metadata"]["continue"].as_str();
        // What the first part ended with is gone, and something before it has come.
        let second = part(Some("2"), mark, &["a", "aa", "c", "d"]);
        assert_eq!(second, Ok(json!({ "items": ["c", "d"] })));
        assert_eq!(part(Some("5"), mark, &["a"]), Ok(json!({ "items": [] })));
    }

    #[test]
    fn a_mark_is_of_every_kind_what_it_was_made_of() {
        for kind in Kind::all_served() {
            let id = ObjectId { kind, namespace: "shop".into(), name: "a/b".into() };
            assert_eq!(decode(&encode(&id)).ok(), Some(id));
        }
        let key = "00000000000000000007".to_owned();
        assert_eq!(decode(&encode(&key)).ok(), Some(key));
    }

    #[test]
    fn what_is_no_number_and_no_mark_is_refused() {
        for limit in ["0", "-1", "many", ""] {
            assert_eq!(part(Some(limit), None, &["a"]), Err(400), "{limit:?}");
        }
        for mark in ["", "shop", "c2hvcA", "b2RkL3Nob3AvYQ"] {
            assert_eq!(part(None, Some(mark), &["a"]), Err(400), "{mark:?}");
        }
    }
}
