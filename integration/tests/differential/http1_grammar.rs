//! Random HTTP/1 requests: a plain one, and up to four things about it that are unusual or wrong.

use crate::{
    answers::{EARLY, ORDINARY, PLAIN, SILENCE, SWITCH},
    configuration::Configuration,
    dice::Dice,
    http1::{Break, Ending, Request},
    targets,
};

const METHODS: [&str; 24] = [
    "GET",
    "GET",
    "GET",
    "POST",
    "POST",
    "PUT",
    "HEAD",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "CONNECT",
    "get",
    "Post",
    "PROPFIND",
    "M-SEARCH",
    "X.Y",
    "A_B",
    "G!#$%&'*+-.^_`|~T",
    "G(T",
    "G\u{e9}T",
    "PRI",
    "1",
    "",
];
const VERSIONS: [&str; 12] = [
    "HTTP/1.0",
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/1.10",
    "HTTP/2.0",
    "HTTP/0.9",
    "http/1.1",
    "HTTP/1",
    "HTTP/11",
    "HTP/1.1",
    "HTTP/1.1 ",
    "",
];
/// Whole lines that are added to a head.
const LINES: [&str; 62] = [
    "x-user: alice\r\n",
    "x-user: bob\r\n",
    "x-user: alice\r\nx-user: bob\r\n",
    "x-user: bob\r\nx-user: alice\r\n",
    "x-user: alice,bob\r\n",
    "X-USER: alice\r\n",
    "x-user:alice\r\n",
    "x-user:\t alice \t\r\n",
    "x-user: \r\n",
    "x-user:\r\nx-user: alice\r\n",
    "x-user : alice\r\n",
    "x-user: al\r\n ice\r\n",
    "x-user: al\x0bice\r\n",
    "x-user: alice\0\r\n",
    "x-user: al\rice\r\n",
    "x-user: al\u{e9}ce\r\n",
    "x-user: alice\n",
    " x-user: alice\r\n",
    "x-user\r\n",
    ": alice\r\n",
    "x user: alice\r\n",
    "x_user: alice\r\n",
    "x\u{e9}user: alice\r\n",
    "x(user: alice\r\n",
    "cookie: a=1\r\ncookie: admin=1\r\n",
    "cookie: a=1; admin=1\r\n",
    "connection: keep-alive\r\n",
    "connection: close\r\n",
    "connection: x-user\r\nx-user: alice\r\n",
    "connection: close, x-user\r\nx-user: alice\r\n",
    "connection: x-case\r\n",
    "connection: host\r\n",
    "connection: \r\n",
    "connection: upgrade\r\nupgrade: odd\r\n",
    "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
    "keep-alive: timeout=5\r\n",
    "proxy-connection: keep-alive\r\n",
    "te: trailers\r\n",
    "te: gzip, trailers\r\n",
    "te: gzip\r\n",
    "trailer: x\r\n",
    "expect: nothing\r\n",
    "content-length: 0\r\n",
    "content-type: application/grpc\r\n",
    "x-forwarded-for: 10.1.2.3\r\n",
    "x-forwarded-for: 10.1.2.3, 127.0.0.9\r\nx-forwarded-for: nobody\r\n",
    "x-forwarded-proto: https\r\n",
    "x-forwarded-proto: gopher\r\n",
    "x-forwarded-host: other\r\n",
    "x-forwarded-client-cert: By=a;URI=spiffe://b\r\n",
    "x-request-id: from-the-client\r\n",
    "x-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 3\r\n",
    "x-envoy-original-path: /x\r\nx-envoy-internal: true\r\nx-envoy-decorator-operation: d\r\n",
    "x-envoy-upstream-rq-timeout-ms: 50\r\nx-envoy-expected-rq-timeout-ms: 7\r\n",
    "x-envoy-force-trace: true\r\nx-envoy-upstream-alt-stat-name: y\r\nx-envoy-original-dst-host: 127.0.0.1:1\r\n",
    "x-envoy-attempt-count: 9\r\nx-envoy-external-address: 1.2.3.4\r\nx-envoy-ip-tags: t\r\n",
    "x-b3-traceid: 463ac35c9f6413ad48485a3953bb6124\r\n\
     traceparent: 00-463ac35c9f6413ad48485a3953bb6124-a2fb4a1d1a96d312-01\r\n",
    "origin: http://good.example\r\n",
    "origin: http://bad.example\r\naccess-control-request-method: GET\r\n",
    "origin: http://good.example\r\naccess-control-request-method: POST\r\n",
    "proxy-authorization: x\r\nauthorization: y\r\nvia: 1.1 z\r\nforwarded: for=a\r\nserver: s\r\n",
    ":authority: smuggled\r\n:path: /admin\r\n",
];

/// Bodies with the lines that announce them, and whether a proxy has to take it (RFC 9112 section
/// 6).
const BODIES: [(&str, &str); 38] = [
    ("content-length: 5\r\n", "hello"),
    ("content-length: 5\r\n", "hello"),
    ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5;name=value\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5;name=\"va\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "00005\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5 \r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5\nhello\n0\n\n"),
    ("transfer-encoding: chunked\r\n", "5\r\nhello0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5\r\nhelloxx0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "z\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "-5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\nx-trailer: t\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\nx-trailer : t\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\ncontent-length: 3\r\nhost: x\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: Chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked \r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: \x0bchunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: xchunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: gzip, chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked, gzip\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: identity\r\n", ""),
    ("transfer-encoding: \r\n", ""),
    ("transfer-encoding: chunked\r\ncontent-length: 5\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ("content-length: 5\r\ntransfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ("content-length: 5\r\ncontent-length: 5\r\n", "hello"),
    ("content-length: 5\r\ncontent-length: 6\r\n", "hello"),
    ("content-length: 5, 5\r\n", "hello"),
    ("content-length: +5\r\n", "hello"),
    ("content-length: 0x5\r\n", "hello"),
    ("content-length: 18446744073709551621\r\n", "hello"),
];

/// A random request and the number of the answer that it wants.
pub(crate) fn random(dice: &mut Dice, configuration: &Configuration, id: u64) -> (String, Request) {
    let ending = dice.below(100);
    let answer = match ending {
        0..=2 => SILENCE,
        3..=4 => EARLY,
        5..=6 => SWITCH,
        7..=21 => ORDINARY.start + dice.below(ORDINARY.len()),
        _ => PLAIN,
    };
    let case = format!("{id}-{answer}");
    let mut request = Request::new(&configuration.host, &case);
    if dice.chance(60) {
        request.target = targets::origin(dice, configuration).into_bytes();
    }
    if dice.chance(25) {
        request.method = dice.pick(&METHODS[..9]).as_bytes().to_vec();
    }
    match ending {
        0..=2 => broken_off(dice, &mut request),
        3..=4 => late(dice, &mut request),
        5..=6 => upgrade(dice, &mut request),
        _ if answer == PLAIN => {
            (0..dice.below(4)).for_each(|_| oddity(dice, configuration, id, &mut request))
        }
        _ => {}
    }
    if dice.chance(15) {
        request.fields.push(dice.pick(&LINES[..8]).as_bytes().to_vec());
    }
    (case, request)
}

/// The client goes away while it sends, or while it waits.
fn broken_off(dice: &mut Dice, request: &mut Request) {
    let how = if dice.chance(50) { Break::HalfClose } else { Break::Reset };
    request.method = b"POST".to_vec();
    let (lines, body, keep) = *dice.pick(&[
        ("content-length: 10\r\n", "helloworld", 4),
        ("content-length: 10\r\n", "helloworld", 0),
        ("content-length: 10\r\n", "helloworld", 10),
        ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", 5),
        ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", 13),
        ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", 15),
        ("transfer-encoding: chunked\r\n", "5\r\nhello\r\nzz\r\n", 14),
    ]);
    request.fields.push(lines.into());
    request.body = body.into();
    request.ending = Ending::Cut { keep, how };
}

/// The answer comes before the body does.
fn late(dice: &mut Dice, request: &mut Request) {
    request.method = b"POST".to_vec();
    let (lines, body) = *dice.pick(&[
        ("content-length: 5\r\n", "hello"),
        ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ]);
    request.fields.push(lines.into());
    request.body = body.into();
    request.ending = Ending::Late { keep: dice.below(4) };
}

fn upgrade(dice: &mut Dice, request: &mut Request) {
    request.method = b"GET".to_vec();
    let forms = [
        "connection: upgrade\r\nupgrade: websocket\r\n",
        "connection: Upgrade, keep-alive\r\nupgrade: WebSocket\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 0\r\n",
        "upgrade: websocket\r\n",
        "connection: upgrade\r\nupgrade: websocket, h2c\r\n",
        "connection: upgrade\r\nupgrade: other\r\n",
    ];
    request.fields.push(dice.pick(&forms).as_bytes().to_vec());
    request.ending = Ending::Tunnel;
}

/// Something unusual or wrong.
fn oddity(dice: &mut Dice, configuration: &Configuration, id: u64, request: &mut Request) {
    let host = &configuration.host;
    match dice.below(100) {
        0..=13 => request.target = targets::origin(dice, configuration).into_bytes(),
        14..=21 => request.target = targets::odd(dice, host),
        22..=33 => hosts(dice, request, host),
        34..=39 => request.method = bytes(dice.pick(&METHODS)),
        40 => request.method = vec![b'M'; 33 + dice.below(300)],
        41..=44 => request.version = bytes(dice.pick(&VERSIONS)),
        45..=46 => {
            request.gaps[dice.below(2)] = bytes(dice.pick(&["  ", "\t", "", " \t ", "\u{b}"]))
        }
        47 => request.end = bytes(dice.pick(&["\n", "\r\r\n", " \r\n", "\r"])),
        48..=49 => request.prefix = bytes(dice.pick(&["\r\n", "\r\n\r\n", "\n", " ", "\0", "\r"])),
        50 => request.blank = bytes(dice.pick(&["\n", "\r\n\r\n", "\r\r\n"])),
        51..=71 => request.fields.insert(dice.below(3), bytes(dice.pick(&LINES))),
        72..=86 => body(dice, request),
        87..=88 => pipeline(dice, configuration, id, request),
        89..=90 => expect(dice, request),
        91..=92 => many(dice, request),
        _ => request.fields.push(bytes(dice.pick(&LINES))),
    }
}

/// Text as bytes; characters up to U+00FF stand for one byte each.
fn bytes(text: impl AsRef<str>) -> Vec<u8> {
    text.as_ref().chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

fn hosts(dice: &mut Dice, request: &mut Request, host: &str) {
    let bare = host.split(':').next().unwrap_or(host);
    let line = match dice.below(40) {
        0..=1 => String::new(),
        2..=3 => format!("host: {host}\r\nhost: {host}\r\n"),
        4 => format!("host: {host}\r\nhost: other\r\n"),
        5..=6 => format!("host: {bare}\r\n"),
        7..=8 => format!("host: {bare}:80\r\n"),
        9 => format!("host: {bare}:\r\n"),
        10..=12 => format!("Host: {}\r\n", host.to_uppercase()),
        13 => format!("host: {bare}.\r\n"),
        14 => format!("host: {bare}.default.svc.cluster.local\r\n"),
        15 => "host: \r\n".to_owned(),
        16 => "host:\r\n".to_owned(),
        17 => "host: unknown.example.org\r\n".to_owned(),
        18 => "host: x.example.com\r\n".to_owned(),
        19 => "host: 127.0.0.1\r\n".to_owned(),
        20 => "host: [::1]:80\r\n".to_owned(),
        21 => format!("host: {bare}:99999\r\n"),
        22 => format!("host: {bare}:8x\r\n"),
        23 => format!("host: {host}\r\nx-host: {host}\r\n"),
        24 => format!("host: user@{host}\r\n"),
        25 => format!("host: user:password@{host}\r\n"),
        _ => {
            let odd = dice.pick(&[
                "#", "/", "?", "\\", ", x", " x", "\t", "%00", "%41", "_", "*", "\u{e9}", "<", "^",
                "\"", "|", "'", "(",
            ]);
            match dice.below(3) {
                0 => format!("host: {odd}{host}\r\n"),
                1 => format!("host: {bare}{odd}\r\n"),
                _ => format!("host: {host}{odd}\r\n"),
            }
        }
    };
    request.fields[0] = bytes(&line);
}

fn body(dice: &mut Dice, request: &mut Request) {
    let (lines, body) = dice.pick(&BODIES);
    if dice.chance(85) {
        request.method = b"POST".to_vec();
    }
    request.fields.push(bytes(lines));
    request.body = bytes(body);
}

/// Further requests behind the first, in one write.
fn pipeline(dice: &mut Dice, configuration: &Configuration, id: u64, request: &mut Request) {
    let target = targets::origin(dice, configuration);
    let second =
        format!("GET {target} HTTP/1.1\r\nhost: {}\r\nx-case: {id}-0\r\n\r\n", configuration.host);
    request.body.extend_from_slice(second.as_bytes());
}

fn expect(dice: &mut Dice, request: &mut Request) {
    request.method = b"POST".to_vec();
    let forms = [
        "expect: 100-continue\r\n",
        "expect: 100-Continue\r\n",
        "expect: 100-continue, x\r\n",
        "expect: 200-ok\r\n",
    ];
    request.fields.push(bytes(dice.pick(&forms)));
    request.fields.push(bytes("content-length: 5\r\n"));
    request.body = bytes("hello");
}

/// Many lines, or long ones, around the usual limits.
fn many(dice: &mut Dice, request: &mut Request) {
    match dice.below(6) {
        0 => request.fields.push(format!("x-long: {}\r\n", "y".repeat(20_000)).into_bytes()),
        1 => request.fields.push(format!("x-long: {}\r\n", "y".repeat(70_000)).into_bytes()),
        2 => (0..60).for_each(|n| request.fields.push(format!("x-many-{n}: {n}\r\n").into_bytes())),
        3 => {
            (0..120).for_each(|n| request.fields.push(format!("x-many-{n}: {n}\r\n").into_bytes()))
        }
        4 => request.target = format!("/{}", "long/".repeat(1_800)).into_bytes(),
        _ => request.target = format!("/?{}", "q=1&".repeat(2_500)).into_bytes(),
    }
}
