//! Conditions of requests (RFC 9110 §13.1): `If-Match` and `If-None-Match`, whose tags are
//! revisions. A condition that is not understood is refused: ignored, it would hold always.

use axum::http::{HeaderMap, HeaderName, StatusCode, header};

use super::problem::Problem;
use crate::store::Expect;

/// What a condition names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    /// `*`
    Any,
    /// One revision.
    Revision(u64),
}

/// What a request expects of the object that it is about.
///
/// # Errors
/// A condition is none of ours, or there are several.
pub(super) fn expectation(headers: &HeaderMap) -> Result<Expect, Problem> {
    let matched = tag(headers, &header::IF_MATCH)?;
    let unmatched = tag(headers, &header::IF_NONE_MATCH)?;
    match (matched, unmatched) {
        (None, None) => Ok(Expect::Any),
        (Some(Tag::Any), None) => Ok(Expect::Present),
        (Some(Tag::Revision(revision)), None) => Ok(Expect::Revision(revision)),
        (None, Some(Tag::Any)) => Ok(Expect::Absent),
        (None, Some(Tag::Revision(revision))) => Ok(Expect::OtherThan(revision)),
        (Some(_), Some(_)) => {
            Err(Problem::bad_request("expected If-Match or If-None-Match, got both"))
        }
    }
}

/// How a reading is answered instead of with the object, whose revision is known if it was stored
/// here.
pub(super) fn answer_instead(expect: Expect, revision: Option<u64>) -> Option<StatusCode> {
    let stale = match expect {
        Expect::Any | Expect::Present => false,
        Expect::Absent => return Some(StatusCode::NOT_MODIFIED),
        Expect::OtherThan(known) if revision == Some(known) => {
            return Some(StatusCode::NOT_MODIFIED);
        }
        Expect::OtherThan(_) => false,
        Expect::Revision(wanted) => revision != Some(wanted),
    };
    stale.then_some(StatusCode::PRECONDITION_FAILED)
}

fn tag(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tag>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let refused = |got: &str| {
        Problem::bad_request(format!(
            "{name}: expected one revision in quotes, as ETag gave it, or *, got {got}"
        ))
    };
    if values.next().is_some() {
        return Err(refused("several"));
    }
    let text = value.to_str().map_err(|_| refused("other bytes than ASCII"))?.trim();
    if text == "*" {
        return Ok(Some(Tag::Any));
    }
    // Weak tags are compared as if they were strong, but for `If-Match` (§8.8.3.2).
    let strong = match text.strip_prefix("W/") {
        Some(weak) if *name == header::IF_NONE_MATCH => weak,
        _ => text,
    };
    let bare = strong.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(strong);
    let digits = bare.bytes().all(|b| b.is_ascii_digit());
    let revision = digits.then(|| bare.parse().ok()).flatten();
    revision
        .map(|revision| Some(Tag::Revision(revision)))
        .ok_or_else(|| refused(&format!("{text:?}")))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn check(written: &[(HeaderName, &[u8])], expected: Option<Expect>) {
        let mut headers = HeaderMap::new();
        for (name, value) in written {
            headers.append(name, HeaderValue::from_bytes(value).expect("a value"));
        }
        assert_eq!(expectation(&headers).ok(), expected, "{headers:?}");
    }

    #[test]
    fn conditions_are_understood_or_refused() {
        use header::{IF_MATCH, IF_NONE_MATCH};
        check(&[], Some(Expect::Any));
        check(&[(IF_MATCH, b"*")], Some(Expect::Present));
        check(&[(IF_MATCH, b"\"9\"")], Some(Expect::Revision(9)));
        check(&[(IF_MATCH, b"9")], Some(Expect::Revision(9)));
        check(&[(IF_NONE_MATCH, b"*")], Some(Expect::Absent));
        check(&[(IF_NONE_MATCH, b"\"9\"")], Some(Expect::OtherThan(9)));
        check(&[(IF_NONE_MATCH, b"W/\"9\"")], Some(Expect::OtherThan(9)));
        let wrong: [&[u8]; 9] = [
            b"W/\"9\"",
            b"\"\xe9\"",
            b"",
            b"\"\"",
            b"\"nine\"",
            b"\"+9\"",
            b"\"8\", \"9\"",
            b"\"9",
            b"**",
        ];
        for value in wrong {
            check(&[(IF_MATCH, value)], None);
        }
        check(&[(IF_NONE_MATCH, b"\"\xe9\"")], None);
        check(&[(IF_MATCH, b"\"9\""), (IF_MATCH, b"\"8\"")], None);
        check(&[(IF_MATCH, b"\"9\""), (IF_NONE_MATCH, b"*")], None);
    }

    #[test]
    fn readings_are_answered_by_what_is_known() {
        let (unchanged, failed) = (StatusCode::NOT_MODIFIED, StatusCode::PRECONDITION_FAILED);
        let table = [
            (Expect::Any, Some(9), None),
            (Expect::Present, None, None),
            (Expect::Absent, Some(9), Some(unchanged)),
            (Expect::OtherThan(9), Some(9), Some(unchanged)),
            (Expect::OtherThan(8), Some(9), None),
            (Expect::OtherThan(8), None, None),
            (Expect::Revision(9), Some(9), None),
            (Expect::Revision(8), Some(9), Some(failed)),
            (Expect::Revision(9), None, Some(failed)),
        ];
        for (expect, revision, expected) in table {
            assert_eq!(answer_instead(expect, revision), expected, "{expect:?} {revision:?}");
        }
    }
}
