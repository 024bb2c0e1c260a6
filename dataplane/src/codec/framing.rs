//! Where a message ends, if that can be told in one way only. Pure. Spec: RFC 9112 section 6, RFC
//! 9113 section 8.1.1.
//!
//! The codec settles what is ambiguous (of two lengths one is dropped), which RFC 9112 allows and
//! Envoy refuses: whoever reads the same message otherwise is smuggled a request. What the codec
//! leaves in the headers is judged there; what it swallows is seen by [`Heads`], on the bytes.

use http::{HeaderMap, HeaderValue, StatusCode, Version, header};

use super::fields::lists;

const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";
/// First line of an HTTP/2 connection (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// Bytes of a line that are looked at: the longest name above and more digits than a length has.
const LINE: usize = 64;

/// Why the end of a request cannot be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Misframed {
    /// `Transfer-Encoding` is not `chunked` alone.
    Coding,
    /// `Content-Length` beside `Transfer-Encoding`.
    Both,
    /// Several `Content-Length`, or one that cannot be read.
    Length,
}

impl Misframed {
    /// What the headers of a request tell.
    pub(crate) fn of(headers: &HeaderMap, version: Version) -> Option<Self> {
        let coding = headers.contains_key(header::TRANSFER_ENCODING) && !is_chunked(headers);
        let lengths = || headers.get_all(header::CONTENT_LENGTH).iter().take(2).count();
        match (coding, version) {
            (true, _) => Some(Self::Coding),
            // The stream says where the message ends, but it may go on as HTTP/1.
            (false, Version::HTTP_2) if lengths() > 1 => Some(Self::Length),
            _ => None,
        }
    }
}

fn is_chunked(headers: &HeaderMap) -> bool {
    let readable =
        headers.get_all(header::TRANSFER_ENCODING).iter().all(|value| value.to_str().is_ok());
    let mut codings = lists(headers, &header::TRANSFER_ENCODING);
    readable
        && codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
        && codings.next().is_none()
}

/// Whether the head of a response leaves open where it ends, or announces a body where none can be.
/// The streams of HTTP/2 have an end of their own, but the response may go on as HTTP/1.
pub(crate) fn is_ambiguous<B>(response: &http::Response<B>) -> bool {
    let headers = response.headers();
    let coded = headers.contains_key(header::TRANSFER_ENCODING);
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next().map(HeaderValue::as_bytes);
    let readable =
        length.is_none_or(|length| !length.is_empty() && length.iter().all(u8::is_ascii_digit));
    let status = response.status();
    let bodiless = status == StatusCode::NO_CONTENT || status.is_informational();
    let announced = coded || length.is_some_and(|length| length.iter().any(|digit| *digit != b'0'));
    (coded && (length.is_some() || !is_chunked(headers)))
        || !readable
        || lengths.next().is_some()
        || (bodiless && announced)
}

/// Follows the requests of an HTTP/1 connection by their bytes, to see what the codec does not
/// show.
///
/// Agrees with the codec on all that the codec takes; what it refuses ends the connection anyway.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    at: At,
    /// Heads that have ended.
    seen: u64,
    /// The beginning of a line that has not ended.
    line: Line,
    head: Head,
}

#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Head,
    /// In a body, or what follows its chunk, with this many bytes left.
    Bytes {
        left: u64,
        then_chunk: bool,
    },
    ChunkSize,
    Trailers,
    /// Nothing is looked at any more.
    Off,
}

/// What the head that is being read has said.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    begun: bool,
    coded: bool,
    lengths: u32,
    /// `None` if the length cannot be read.
    length: Option<u64>,
}

/// A line, of which no more is kept than is looked at.
#[derive(Clone, Copy, Debug)]
struct Line {
    kept: [u8; LINE],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { kept: [0; LINE], length: 0 }
    }
}

impl Line {
    fn add(&mut self, bytes: &[u8]) {
        let from = self.length.min(LINE);
        let count = bytes.len().min(LINE - from);
        self.kept[from..from + count].copy_from_slice(&bytes[..count]);
        self.length = self.length.saturating_add(bytes.len());
    }

    fn text(&self) -> &[u8] {
        &self.kept[..self.length.min(LINE)]
    }
}

impl Heads {
    /// Looks no further.
    pub(crate) fn stop(&mut self) {
        self.at = At::Off;
    }

    /// Heads that have ended.
    pub(crate) fn count(&self) -> u64 {
        self.seen
    }

    /// A message has ended, and none has begun after it.
    pub(crate) fn is_between(&self) -> bool {
        matches!(self.at, At::Head) && !self.head.begun && self.line.length == 0
    }

    /// Reads on to the end of a message, and answers how many bytes that were. `found` is told of
    /// each head that cannot be taken, with its number from 1; nothing is looked at after it.
    pub(crate) fn read(&mut self, bytes: &[u8], mut found: impl FnMut(u64, Misframed)) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = self.is_within();
            rest = match self.at {
                At::Off => return bytes.len(),
                At::Bytes { left, then_chunk } => self.skip(rest, left, then_chunk),
                At::Head | At::ChunkSize | At::Trailers => self.read_line(rest, &mut found),
            };
            if within && self.is_between() {
                break;
            }
        }
        bytes.len() - rest.len()
    }

    /// Lines of a message have come, and not its end.
    fn is_within(&self) -> bool {
        self.head.begun || !matches!(self.at, At::Head)
    }

    fn skip<'a>(&mut self, bytes: &'a [u8], left: u64, then_chunk: bool) -> &'a [u8] {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - count as u64;
        self.at = match (left, then_chunk) {
            (0, true) => At::ChunkSize,
            (0, false) => At::Head,
            _ => At::Bytes { left, then_chunk },
        };
        &bytes[count..]
    }

    fn read_line<'a>(
        &mut self,
        bytes: &'a [u8],
        found: &mut impl FnMut(u64, Misframed),
    ) -> &'a [u8] {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            self.line.add(bytes);
            return &[];
        };
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        if self.line.length == 0 {
            self.take(line, found);
        } else {
            let mut whole = std::mem::take(&mut self.line);
            whole.add(line);
            self.take(whole.text(), found);
        }
        rest
    }

    fn take(&mut self, line: &[u8], found: &mut impl FnMut(u64, Misframed)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.at {
            At::Head if !line.is_empty() => self.take_field(line),
            At::Head if self.head.begun => self.end_head(found),
            At::ChunkSize => self.at = chunk(line),
            At::Trailers if line.is_empty() => self.at = At::Head,
            _ => {}
        }
    }

    fn take_field(&mut self, line: &[u8]) {
        let head = &mut self.head;
        if !std::mem::replace(&mut head.begun, true) {
            if line.starts_with(PREFACE) {
                self.at = At::Off;
            }
        } else if named(line, TRANSFER_ENCODING).is_some() {
            head.coded = true;
        } else if let Some(value) = named(line, CONTENT_LENGTH) {
            head.lengths += 1;
            head.length = if line.len() < LINE { number(value.trim_ascii(), 10) } else { None };
        }
    }

    fn end_head(&mut self, found: &mut impl FnMut(u64, Misframed)) {
        let Head { coded, lengths, length, .. } = std::mem::take(&mut self.head);
        self.seen += 1;
        let misframed = match (coded, lengths) {
            (true, 1..) => Some(Misframed::Both),
            (false, 2..) => Some(Misframed::Length),
            (false, 1) if length.is_none() => Some(Misframed::Length),
            _ => None,
        };
        self.at = match (coded, length.unwrap_or_default()) {
            _ if misframed.is_some() => At::Off,
            (true, _) => At::ChunkSize,
            (false, 0) => At::Head,
            (false, left) => At::Bytes { left, then_chunk: false },
        };
        if let Some(misframed) = misframed {
            found(self.seen, misframed);
        }
    }
}

/// What follows a chunk's first line. One that cannot be read is refused by the codec.
fn chunk(line: &[u8]) -> At {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    match number(&line[..digits], 16) {
        Some(0) => At::Trailers,
        // The chunk ends with CRLF.
        Some(size) => At::Bytes { left: size.saturating_add(2), then_chunk: true },
        None => At::Off,
    }
}

fn named<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(value)
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with(['+', '-']))?;
    u64::from_str_radix(text, radix).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(pieces: &[&[u8]]) -> (Vec<(u64, Misframed)>, u64) {
        let (mut heads, mut found) = (Heads::default(), Vec::new());
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let used = heads.read(rest, |number, misframed| found.push((number, misframed)));
                assert!(used == rest.len() || heads.is_between(), "stops at ends only");
                rest = &rest[used..];
            }
        }
        (found, heads.seen)
    }

    fn check(text: &str, expected: Option<(u64, Misframed)>, heads: u64) {
        let whole = find(&[text.as_bytes()]);
        assert_eq!(whole, (expected.into_iter().collect(), heads), "{text:?}");
        for cut in 0..text.len() {
            let (start, end) = text.as_bytes().split_at(cut);
            assert_eq!(find(&[start, end]), whole, "{text:?} cut at {cut}");
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(find(&bytes), whole, "{text:?} byte by byte");
    }

    #[test]
    fn heads_are_followed_through_bodies_of_every_kind() {
        use Misframed::{Both, Length};
        const CODED: &str = "POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nt: u\r\n\r\n";
        const SIZED: &str = "POST / HTTP/1.1\r\ncontent-LENGTH: 5 \r\n\r\nGET /";
        const EMPTY: &str = "\r\nGET / HTTP/1.1\nhost: a\n\n";
        const BOTH: &str =
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n";
        check(CODED, None, 1);
        check(&[CODED, SIZED, EMPTY, SIZED].concat(), None, 4);
        check(&[CODED, SIZED, EMPTY, BOTH].concat(), Some((4, Both)), 4);
        check(&[BOTH, BOTH].concat(), Some((1, Both)), 1);
        check(
            "POST / HTTP/1.1\r\ncontent-length: 3\r\nTRANSFER-encoding:x\r\n\r\n",
            Some((1, Both)),
            1,
        );
        check(
            "POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n",
            Some((1, Length)),
            1,
        );
        check("POST / HTTP/1.1\r\ncontent-length: +3\r\n\r\n", Some((1, Length)), 1);
        let far = format!("POST / HTTP/1.1\r\ncontent-length:{}3\r\n\r\n", " ".repeat(LINE));
        check(&far, Some((1, Length)), 1);
        check(
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
            None,
            0,
        );
        let other = "POST / HTTP/1.1\r\nx-content-length: 1\r\ncontent-lengthy: 2\r\ntransfer-encoding2: y\r\n\r\n";
        check(other, None, 1);
    }

    #[test]
    fn the_coding_of_a_request_is_chunked_alone() {
        use Misframed::{Coding, Length};
        let http1 = Version::HTTP_11;
        for (version, fields, expected) in [
            (http1, &[("transfer-encoding", "chunked")][..], None),
            (http1, &[("transfer-encoding", "Chunked")], None),
            (http1, &[("transfer-encoding", "gzip, chunked")], Some(Coding)),
            (http1, &[("transfer-encoding", "identity, chunked")], Some(Coding)),
            (
                http1,
                &[("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")],
                Some(Coding),
            ),
            (
                http1,
                &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
                Some(Coding),
            ),
            (http1, &[("transfer-encoding", ""), ("transfer-encoding", "chunked")], None),
            (http1, &[("transfer-encoding", "")], Some(Coding)),
            (http1, &[("content-length", "1")], None),
            (Version::HTTP_2, &[("content-length", "1"), ("content-length", "1")], Some(Length)),
            (Version::HTTP_2, &[("content-length", "1")], None),
        ] {
            assert_eq!(Misframed::of(&map(fields), version), expected, "{fields:?}");
        }
    }

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(pieces in proptest::collection::vec("[\\PC\r\n:;0-9]{0,40}", 0..8)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
            find(&pieces);
        }
    }
}
