//! What the application may answer, well and badly formed: the head of a request names one of these
//! by its number.

/// When the application speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    /// Once the whole request is there.
    Complete,
    /// As soon as its head is there; the rest of it is still read.
    Early,
    /// Never: it waits until the other side goes away.
    Never,
}

/// One answer; `{id}` in it stands for the number of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) name: &'static str,
    pub(crate) when: When,
    pub(crate) bytes: &'static str,
    /// The connection ends behind it.
    pub(crate) close: bool,
}

const fn keep(name: &'static str, bytes: &'static str) -> Answer {
    Answer { name, when: When::Complete, bytes, close: false }
}

const fn last(name: &'static str, bytes: &'static str) -> Answer {
    Answer { name, when: When::Complete, bytes, close: true }
}

/// Number of the plain answer.
pub(crate) const PLAIN: usize = 0;
/// Number of the answer that never comes.
pub(crate) const SILENCE: usize = 1;
/// Number of the answer that does not wait for a body.
pub(crate) const EARLY: usize = 2;
/// Number of the answer that changes the protocol.
pub(crate) const SWITCH: usize = 3;
/// Numbers of those that a request without special needs may ask for.
pub(crate) const ORDINARY: std::ops::Range<usize> = 4..ANSWERS.len();

/// All of them; `{long}` stands for 70 KiB, `{many}` for 120 header lines.
pub(crate) const ANSWERS: &[Answer] = &[
    keep("plain", "HTTP/1.1 200 OK\r\nx-app: {id}\r\ncontent-length: 2\r\n\r\nok"),
    Answer { name: "silence", when: When::Never, bytes: "", close: true },
    Answer {
        name: "early",
        when: When::Early,
        bytes: "HTTP/1.1 413 Content Too Large\r\nx-app: {id}\r\ncontent-length: 3\r\n\r\nbig",
        close: false,
    },
    last(
        "switch",
        "HTTP/1.1 101 Switching Protocols\r\nx-app: {id}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ),
    keep(
        "chunked",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    keep(
        "trailers",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nx-trailer: t\r\n\r\n",
    ),
    last("until the end", "HTTP/1.1 200 OK\r\nx-app: {id}\r\n\r\nok"),
    keep("no content", "HTTP/1.1 204 No Content\r\nx-app: {id}\r\n\r\n"),
    keep("not modified", "HTTP/1.1 304 Not Modified\r\nx-app: {id}\r\netag: \"e\"\r\n\r\n"),
    keep(
        "continue first",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nx-app: {id}\r\ncontent-length: 2\r\n\r\nok",
    ),
    keep(
        "hints first",
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nx-app: {id}\r\ncontent-length: 2\r\n\r\nok",
    ),
    last(
        "both lengths",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    last(
        "two lengths",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
    ),
    last(
        "the same length twice",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
    ),
    last("a list of lengths", "HTTP/1.1 200 OK\r\nx-app: {id}\r\ncontent-length: 2, 2\r\n\r\nok"),
    last("a signed length", "HTTP/1.1 200 OK\r\nx-app: {id}\r\ncontent-length: +2\r\n\r\nok"),
    last("a bad status", "HTTP/1.1 20x OK\r\nx-app: {id}\r\ncontent-length: 2\r\n\r\nok"),
    last("a low status", "HTTP/1.1 099 Low\r\nx-app: {id}\r\ncontent-length: 2\r\n\r\nok"),
    last("a high status", "HTTP/1.1 600 High\r\nx-app: {id}\r\ncontent-length: 2\r\n\r\nok"),
    last("garbage", "\u{1}\u{2}\u{3} not HTTP at all\r\n\r\n"),
    last("cut in the status line", "HTTP/1.1 2"),
    last("cut in the head", "HTTP/1.1 200 OK\r\nx-app: {id}\r\ncontent-le"),
    last("cut in the body", "HTTP/1.1 200 OK\r\nx-app: {id}\r\ncontent-length: 10\r\n\r\nok"),
    last(
        "cut in a chunk",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\ntransfer-encoding: chunked\r\n\r\n9\r\nok",
    ),
    last(
        "no last chunk",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
    ),
    last(
        "a bad chunk size",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
    ),
    last(
        "gzip, chunked",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    last("identity", "HTTP/1.1 200 OK\r\nx-app: {id}\r\ntransfer-encoding: identity\r\n\r\nok"),
    last(
        "space before a colon",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\nx-space : 1\r\ncontent-length: 2\r\n\r\nok",
    ),
    last("no colon", "HTTP/1.1 200 OK\r\nx-app: {id}\r\nx-no-colon\r\ncontent-length: 2\r\n\r\nok"),
    last("bare line feeds", "HTTP/1.1 200 OK\nx-app: {id}\ncontent-length: 2\n\nok"),
    last(
        "a folded line",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\nx-fold: a\r\n b\r\ncontent-length: 2\r\n\r\nok",
    ),
    last("a NUL", "HTTP/1.1 200 OK\r\nx-app: {id}\r\nx-nul: a\0b\r\ncontent-length: 2\r\n\r\nok"),
    last(
        "a bare CR",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\nx-cr: a\rb\r\ncontent-length: 2\r\n\r\nok",
    ),
    last("HTTP/1.0", "HTTP/1.0 200 OK\r\nx-app: {id}\r\ncontent-length: 2\r\n\r\nok"),
    last("HTTP/0.9", "ok"),
    last("HTTP/2.0", "HTTP/2.0 200 OK\r\nx-app: {id}\r\ncontent-length: 2\r\n\r\nok"),
    last("no reason", "HTTP/1.1 200\r\nx-app: {id}\r\ncontent-length: 2\r\n\r\nok"),
    last("an odd reason", "HTTP/1.1 200 a\u{e9}b\r\nx-app: {id}\r\ncontent-length: 2\r\n\r\nok"),
    last(
        "101 unasked",
        "HTTP/1.1 101 Switching Protocols\r\nx-app: {id}\r\nconnection: upgrade\r\nupgrade: odd\r\n\r\n",
    ),
    last("closed", ""),
    last(
        "more than said",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ),
    last(
        "told to close",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
    ),
    keep(
        "fields of one hop",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\nconnection: x-hop, keep-alive\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
         proxy-connection: x\r\ntrailer: x\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nok",
    ),
    keep(
        "repeated fields",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nX-Twice: 1\r\nx-twice: 2\r\n\
         x_under: 1\r\nx-empty:\r\nserver: other\r\nvia: 1.1 x\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\
         content-length: 2\r\n\r\nok",
    ),
    keep(
        "fields of Envoy",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\nx-envoy-upstream-service-time: 7\r\nx-envoy-overloaded: true\r\n\
         x-envoy-retry-on: 5xx\r\nx-request-id: app\r\nx-envoy-degraded: true\r\n\
         x-envoy-immediate-health-check-fail: 1\r\n\
         content-length: 2\r\n\r\nok",
    ),
    last(
        "a long line",
        "HTTP/1.1 200 OK\r\nx-app: {id}\r\nx-long: {long}\r\ncontent-length: 2\r\n\r\nok",
    ),
    last("many lines", "HTTP/1.1 200 OK\r\nx-app: {id}\r\n{many}content-length: 2\r\n\r\nok"),
    keep("500", "HTTP/1.1 500 Internal Server Error\r\nx-app: {id}\r\ncontent-length: 2\r\n\r\nno"),
    keep(
        "location",
        "HTTP/1.1 302 Found\r\nx-app: {id}\r\nlocation: http://x/a b\r\ncontent-length: 0\r\n\r\n",
    ),
    last(
        "a length on 204",
        "HTTP/1.1 204 No Content\r\nx-app: {id}\r\ncontent-length: 2\r\n\r\nok",
    ),
    keep(
        "late switch",
        "HTTP/1.1 426 Upgrade Required\r\nx-app: {id}\r\nupgrade: websocket\r\ncontent-length: 2\r\n\r\nno",
    ),
];

/// The number of a request and the answer that it wants, by what it says of itself:
/// `NUMBER-ANSWER`, or without the second for the plain one.
pub(crate) fn wanted(case: &str) -> (&str, Answer) {
    let (id, answer) = case.split_once('-').unwrap_or((case, ""));
    (id, ANSWERS[answer.parse().ok().filter(|n| *n < ANSWERS.len()).unwrap_or(PLAIN)])
}

impl Answer {
    /// The bytes for the request with this number.
    pub(crate) fn render(&self, id: &str) -> Vec<u8> {
        let text = self.bytes.replace("{id}", id);
        let text = text.replace("{long}", &"y".repeat(70 * 1024));
        let many: String = (0..120).map(|n| format!("x-many-{n}: {n}\r\n")).collect();
        text.replace("{many}", &many).into_bytes()
    }
}
