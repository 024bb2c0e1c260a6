//! Random HTTP/2 requests: a plain one, and up to three things about its frames or fields that are
//! unusual or wrong.

use crate::{
    answers::{EARLY, PLAIN, SILENCE},
    configuration::Configuration,
    dice::Dice,
    http2::{Fields, Piece, Request, kind},
    targets,
};

const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// A random request and the number of the answer that it wants.
pub(crate) fn random(dice: &mut Dice, configuration: &Configuration, id: u64) -> (String, Request) {
    let shape = dice.below(100);
    let answer = match shape {
        0..=3 => SILENCE,
        4..=6 => EARLY,
        _ => PLAIN,
    };
    let case = format!("{id}-{answer}");
    let mut request = Request::new(&configuration.host, &case);
    let fields = fields(&mut request);
    if dice.chance(60) {
        set(fields, ":path", targets::origin(dice, configuration).into_bytes());
    }
    if dice.chance(25) {
        set(
            fields,
            ":method",
            bytes(dice.pick(&["POST", "PUT", "HEAD", "DELETE", "OPTIONS", "get", "X.Y"])),
        );
    }
    match shape {
        0..=3 => broken_off(dice, &mut request),
        4..=6 => body(&mut request, &[("hello", Some(3))], None),
        7..=20 => with_body(dice, &mut request),
        _ => {}
    }
    if shape > 6 {
        (0..dice.below(4)).for_each(|_| oddity(dice, configuration, &mut request));
    }
    (case, request)
}

fn bytes(text: impl AsRef<str>) -> Vec<u8> {
    text.as_ref().chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

/// The fields of the first header block.
fn fields(request: &mut Request) -> &mut Fields {
    let block = request.pieces.iter_mut().find_map(|piece| match piece {
        Piece::Headers { fields, .. } => Some(fields),
        _ => None,
    });
    block.expect("every request has a header block")
}

fn set(fields: &mut Fields, name: &str, value: Vec<u8>) {
    match fields.iter_mut().find(|(own, _)| own == name.as_bytes()) {
        Some((_, own)) => *own = value,
        None => fields.insert(0, (bytes(name), value)),
    }
}

/// Lets the header block be followed by these pieces of a body, and by trailers.
fn body(request: &mut Request, pieces: &[(&str, Option<u8>)], trailers: Option<Fields>) {
    if let Some(Piece::Headers { end, .. }) =
        request.pieces.iter_mut().find(|p| matches!(p, Piece::Headers { .. }))
    {
        *end = false;
    }
    let last = pieces.len().saturating_sub(1);
    for (index, (text, padding)) in pieces.iter().enumerate() {
        let end = index == last && trailers.is_none();
        request.pieces.push(Piece::Data { stream: 1, bytes: bytes(text), end, padding: *padding });
    }
    if let Some(fields) = trailers {
        request.pieces.push(Piece::Headers {
            stream: 1,
            fields,
            end: true,
            cut: None,
            priority: false,
        });
    }
}

fn broken_off(dice: &mut Dice, request: &mut Request) {
    set(fields(request), ":method", bytes("POST"));
    body(request, &[("hello", None), ("world", None)], None);
    let complete = dice.chance(30);
    if !complete {
        request.pieces.pop();
    }
    request.pieces.push(Piece::Await);
    let code = *dice.pick(&[CANCEL, [0, 0, 0, 0], [0, 0, 0, 1]]);
    request.pieces.push(Piece::Frame {
        kind: kind::RST_STREAM,
        flags: 0,
        stream: 1,
        payload: code.to_vec(),
    });
    // Behind the broken stream, so that there is something to wait for.
    let again = follow_up(request, 3);
    request.pieces.push(again);
}

/// A plain request on another stream, of the same number.
fn follow_up(request: &mut Request, stream: u32) -> Piece {
    let mut fields = fields(request).clone();
    set(&mut fields, ":method", bytes("GET"));
    set(&mut fields, ":path", bytes("/follow-up"));
    let case = fields.iter_mut().find(|(name, _)| name == b"x-case");
    if let Some((_, value)) = case {
        value.truncate(value.iter().position(|b| *b == b'-').unwrap_or(value.len()));
    }
    Piece::Headers { stream, fields, end: true, cut: None, priority: false }
}

fn with_body(dice: &mut Dice, request: &mut Request) {
    set(fields(request), ":method", bytes("POST"));
    let length = match dice.below(10) {
        0..=4 => None,
        5..=6 => Some("10"),
        7 => Some("9"),
        8 => Some("11"),
        _ => Some(*dice.pick(&["0", "x", "+10", "10, 10", "-1", ""])),
    };
    if let Some(length) = length {
        fields(request).push((bytes("content-length"), bytes(length)));
    }
    let pieces: &[(&str, Option<u8>)] = match dice.below(5) {
        0 => &[("helloworld", Some(0))],
        1 => &[("hello", Some(200)), ("world", None)],
        2 => &[("hello", None), ("", None), ("world", None)],
        3 => &[("helloworld", None), ("", Some(9))],
        _ => &[("helloworld", None)],
    };
    let trailers = dice.chance(35).then(|| trailers(dice));
    body(request, pieces, trailers);
}

fn trailers(dice: &mut Dice) -> Fields {
    let (name, value) = *dice.pick(&[
        ("x-trailer", "t"),
        ("x-trailer", "t"),
        ("grpc-status", "0"),
        (":path", "/admin"),
        (":status", "200"),
        ("X-Trailer", "t"),
        ("connection", "close"),
        ("te", "trailers"),
        ("content-length", "10"),
        ("host", "x"),
        ("x_under", "t"),
        ("x trailer", "t"),
        ("x-trailer", "a\nb"),
        ("", "t"),
    ]);
    vec![(bytes(name), bytes(value))]
}

const FIELDS: [(&str, &str); 50] = [
    ("x-user", "alice"),
    ("x-user", "bob"),
    ("x-user", ""),
    ("x-user", " alice "),
    ("x-user", "alice,bob"),
    ("X-User", "alice"),
    ("x-user", "al\u{0}ice"),
    ("x-user", "al\rice"),
    ("x-user", "al\nice"),
    ("x-user", "al\u{e9}ce"),
    ("x-user", "al\u{7f}ce"),
    ("x-user", "al\u{b}ce"),
    ("x_user", "alice"),
    ("x user", "alice"),
    ("x\u{e9}user", "alice"),
    ("x(user", "alice"),
    ("x:user", "alice"),
    ("", "alice"),
    ("cookie", "a=1"),
    ("cookie", "admin=1"),
    ("cookie", ""),
    ("connection", "close"),
    ("connection", "x-user"),
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "keep-alive"),
    ("transfer-encoding", "chunked"),
    ("upgrade", "websocket"),
    ("te", "trailers"),
    ("te", "gzip"),
    ("te", "trailers, gzip"),
    ("trailer", "x"),
    ("expect", "100-continue"),
    ("host", "other.example.com"),
    ("host", "a.example.com"),
    ("content-length", "0"),
    ("content-type", "application/grpc"),
    ("x-forwarded-for", "10.1.2.3"),
    ("x-forwarded-proto", "https"),
    ("x-request-id", "from-the-client"),
    ("x-envoy-retry-on", "5xx"),
    ("x-envoy-original-path", "/x"),
    ("x-envoy-internal", "true"),
    ("origin", "http://good.example"),
    ("priority", "u=1"),
    ("http2-settings", "AAMAAABkAAQAAP__"),
    (":protocol", "websocket"),
    (":unknown", "x"),
    (":status", "200"),
    (":path", "/admin"),
    (":authority", "other.example.com"),
];

/// Something unusual or wrong.
fn oddity(dice: &mut Dice, configuration: &Configuration, request: &mut Request) {
    match dice.below(100) {
        0..=34 => {
            let (name, value) = *dice.pick(&FIELDS);
            let block = fields(request);
            // Pseudo headers belong to the front (RFC 9113 section 8.3); sometimes they are not
            // there.
            let at = if name.starts_with(':') && dice.chance(70) { 0 } else { block.len() };
            block.insert(at, (bytes(name), bytes(value)));
        }
        35..=46 => pseudo(dice, configuration, request),
        47..=60 => {
            let path = match dice.below(3) {
                0 => targets::odd(dice, &configuration.host),
                _ => targets::origin(dice, configuration).into_bytes(),
            };
            set(fields(request), ":path", path);
        }
        61..=70 => authority(dice, configuration, request),
        71..=74 => spread(dice, request),
        75..=78 => many(dice, request),
        79..=86 => frame_before(dice, request),
        87..=92 => frame_behind(dice, request),
        _ => set(fields(request), ":method", odd_method(dice)),
    }
}

fn odd_method(dice: &mut Dice) -> Vec<u8> {
    bytes(dice.pick(&[
        "",
        "CONNECT",
        "TRACE",
        "G T",
        "G(T",
        "g\u{e9}t",
        "PRI",
        "A_B",
        "MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM",
    ]))
}

fn pseudo(dice: &mut Dice, configuration: &Configuration, request: &mut Request) {
    let names = [":method", ":scheme", ":authority", ":path"];
    let name = *dice.pick(&names);
    let block = fields(request);
    match dice.below(6) {
        0..=1 => block.retain(|(own, _)| own != name.as_bytes()),
        2 => {
            if let Some(field) = block.iter().find(|(own, _)| own == name.as_bytes()).cloned() {
                block.insert(0, field);
            }
        }
        3 => {
            if let Some(at) = block.iter().position(|(own, _)| own == name.as_bytes()) {
                let field = block.remove(at);
                block.push(field);
            }
        }
        4 => set(block, ":scheme", bytes(dice.pick(&["https", "HTTP", "ftp", "", "h t", "http:"]))),
        _ => {
            block.retain(|(own, _)| own != b":authority");
            block.push((bytes("host"), bytes(&configuration.host)));
        }
    }
}

fn authority(dice: &mut Dice, configuration: &Configuration, request: &mut Request) {
    let host = &configuration.host;
    let bare = host.split(':').next().unwrap_or(host);
    let odd = dice.pick(&[
        "#", "/", "?", "\\", ", x", " x", "%00", "_", "*", "\u{e9}", "@", "\t", "\n", "<", "'",
    ]);
    let value = match dice.below(12) {
        0 => bare.to_owned(),
        1 => format!("{bare}:80"),
        2 => host.to_uppercase(),
        3 => String::new(),
        4 => format!("user@{host}"),
        5 => "unknown.example.org".to_owned(),
        6 => format!("{bare}."),
        7 => format!("{odd}{host}"),
        _ => format!("{host}{odd}"),
    };
    set(fields(request), ":authority", bytes(&value));
}

/// The header block over several frames, or with a priority.
fn spread(dice: &mut Dice, request: &mut Request) {
    let amount = dice.below(60);
    if let Some(Piece::Headers { cut, priority, .. }) =
        request.pieces.iter_mut().find(|p| matches!(p, Piece::Headers { .. }))
    {
        if amount.is_multiple_of(2) { *cut = Some(amount) } else { *priority = true }
    }
}

fn many(dice: &mut Dice, request: &mut Request) {
    let block = fields(request);
    match dice.below(6) {
        0 => block.push((bytes("x-long"), vec![b'y'; 20_000])),
        1 => block.push((bytes("x-long"), vec![b'y'; 70_000])),
        2 => (0..60).for_each(|n| block.push((format!("x-many-{n}").into_bytes(), b"1".to_vec()))),
        3 => (0..120).for_each(|n| block.push((format!("x-many-{n}").into_bytes(), b"1".to_vec()))),
        4 => (0..40).for_each(|n| block.push((bytes("cookie"), format!("c{n}=1").into_bytes()))),
        _ => set(block, ":path", format!("/{}", "long/".repeat(1_800)).into_bytes()),
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Piece {
    Piece::Frame { kind, flags, stream, payload: payload.to_vec() }
}

/// A frame before the request.
fn frame_before(dice: &mut Dice, request: &mut Request) {
    let frames = [
        frame(99, 0, 0, b"unknown"),
        frame(99, 0xff, 7, b"unknown"),
        frame(kind::PING, 0, 0, &[0; 8]),
        frame(kind::PING, 0, 0, &[0; 7]),
        frame(kind::PING, 0, 1, &[0; 8]),
        frame(kind::PING, 1, 0, &[0; 8]),
        frame(kind::PRIORITY, 0, 3, &[0, 0, 0, 0, 9]),
        frame(kind::PRIORITY, 0, 0, &[0, 0, 0, 0, 9]),
        frame(kind::PRIORITY, 0, 3, &[0, 0, 0, 3, 9]),
        frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 0]),
        frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 9]),
        frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9]),
        frame(kind::SETTINGS, 0, 0, &[0, 99, 0, 0, 0, 1]),
        frame(kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
        frame(kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 9]),
        frame(kind::SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]),
        frame(kind::SETTINGS, 0, 0, &[0, 1, 0]),
        frame(kind::SETTINGS, 0, 1, &[]),
        frame(kind::SETTINGS, 1, 0, &[0; 6]),
        frame(kind::DATA, 0, 0, b"x"),
        frame(kind::DATA, 0, 1, b"idle"),
        frame(kind::HEADERS, 4, 0, &[0x82]),
        frame(kind::HEADERS, 4, 2, &[0x82]),
        frame(kind::RST_STREAM, 0, 1, &CANCEL),
        frame(kind::RST_STREAM, 0, 0, &CANCEL),
        frame(kind::CONTINUATION, 4, 1, b""),
        frame(kind::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2, 0x82]),
        frame(kind::GOAWAY, 0, 0, &[0; 8]),
        frame(kind::GOAWAY, 0, 1, &[0; 8]),
    ];
    request.pieces.insert(0, dice.pick(&frames).clone());
}

/// A frame between the header block and what follows it, or behind everything, and then another
/// request.
fn frame_behind(dice: &mut Dice, request: &mut Request) {
    let frames = [
        frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 0]),
        frame(kind::WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]),
        frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 9]),
        frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 1, 9]),
        frame(kind::PRIORITY, 0, 1, &[0, 0, 0]),
        frame(kind::CONTINUATION, 4, 1, b""),
        frame(99, 0, 1, b"unknown"),
        frame(kind::PING, 0, 0, &[0; 8]),
    ];
    let chosen = dice.pick(&frames).clone();
    let again = follow_up(request, 3);
    let at = request
        .pieces
        .iter()
        .position(|p| matches!(p, Piece::Headers { .. }))
        .map_or(0, |at| at + 1);
    request.pieces.insert(at, chosen);
    request.pieces.push(again);
}
