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

impl Page {
    /// From the parameters of a query that has more.
    pub(super) fn new(limit: Option<String>, mark: Option<String>) -> Self {
        Self { limit, mark }
    }

    /// This part of items, which are sorted by identity, as an answer.
    ///
    /// # Errors
    /// `limit` is no number of items, or `continue` is no mark of ours.
    pub(super) fn of(&self, items: Vec<(ObjectId, Value)>) -> Result<Value, Problem> {
        let after = self.mark.as_deref().map(decode).transpose()?;
        let begin = after.map_or(0, |after| items.partition_point(|(id, _)| *id <= after));
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

fn encode(id: &ObjectId) -> String {
    let ObjectId { kind, namespace, name } = id;
    BASE64_URL_SAFE_NO_PAD.encode(format!("{}/{namespace}/{name}", kind.resource()))
}

fn decode(mark: &str) -> Result<ObjectId, Problem> {
    let read = || {
        let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(mark).ok()?).ok()?;
        let mut parts = text.splitn(3, '/');
        let kind = Kind::named(parts.next()?).ok()?;
        let (namespace, name) = (parts.next()?.into(), parts.next()?.into());
        Some(ObjectId { kind, namespace, name })
    };
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
    fn what_is_no_number_and_no_mark_is_refused() {
        for limit in ["0", "-1", "many", ""] {
            assert_eq!(part(Some(limit), None, &["a"]), Err(400), "{limit:?}");
        }
        for mark in ["", "shop", "c2hvcA", "b2RkL3Nob3AvYQ"] {
            assert_eq!(part(None, Some(mark), &["a"]), Err(400), "{mark:?}");
        }
    }
}
