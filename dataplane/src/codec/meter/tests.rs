//! Frames as peers send them, good ones and floods.

use std::{cell::Cell, time::Duration};

use proptest::prelude::*;

use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn headers(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, 0x4, stream, &[0x82, 0x86, 0x84])
}

/// Which limit bytes from the peer cross.
fn received(meter: &mut Meter, bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Limit> {
    meter.received(bytes, now).map_err(|excess| excess.limit)
}

/// What a server's meter says of these bytes after the preface, and when the clock stands still.
fn server(frames: &[Vec<u8>]) -> Result<Meter, Limit> {
    let now = Instant::now();
    let mut meter = Meter::new(Role::Server, HttpLimits::default(), now);
    received(&mut meter, &PREFACE, || now)?;
    for frame in frames {
        received(&mut meter, frame, || now)?;
    }
    Ok(meter)
}

fn limit(frames: &[Vec<u8>]) -> Option<Limit> {
    server(frames).err()
}

/// `count` times the same, after one request.
fn flood(frame: &[u8], count: usize) -> Option<Limit> {
    limit(&[headers(1), frame.repeat(count)])
}

#[tokio::test]
async fn floods_are_noticed_at_envoy_s_limits() {
    let (settings, ack) = (frame(4, 0, 0, &[]), frame(4, 1, 0, &[]));
    let ping = frame(6, 0, 0, &[0; 8]);
    let window = frame(kind::WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes());
    let priority = frame(kind::PRIORITY, 0, 1, &[0; 5]);
    let empty = frame(kind::DATA, 0, 1, &[]);
    let padded = frame(kind::DATA, 0x8, 1, &[3, 0, 0, 0]);
    let empty_block =
        [frame(kind::HEADERS, 0, 1, &[0x90]), frame(kind::CONTINUATION, 0, 1, &[]).repeat(2)]
            .concat();
    // The request before has earned one more, which is seen when the allowance is spent.
    for (flood_of, most, expected) in [
        (&settings, 1001, Limit::ControlFrames),
        (&ack, 1001, Limit::ControlFrames),
        (&ping, 1001, Limit::ControlFrames),
        (&frame(0xfa, 0, 0, &[]), 1001, Limit::ControlFrames),
        (&frame(7, 0, 0, &[0; 8]), 1001, Limit::ControlFrames),
        (&frame(kind::RST_STREAM, 0, 1, &[0; 4]), 1002, Limit::ControlFrames),
        (&priority, 200, Limit::PriorityFrames),
        (&window, 7, Limit::WindowUpdates),
        (&empty, 1, Limit::EmptyFrames),
        (&padded, 1, Limit::EmptyFrames),
        (&empty_block, 0, Limit::EmptyFrames),
    ] {
        assert_eq!(flood(flood_of, most), None, "{expected:?}: {most} are allowed");
        assert_eq!(flood(flood_of, most + 1), Some(expected), "one more than {most}");
    }
}

#[tokio::test]
async fn a_header_block_of_one_byte_references_is_refused_before_it_is_decoded() {
    let block = |fields: usize| frame(kind::HEADERS, 0x4, 1, &vec![0xbe; fields]);
    assert_eq!(limit(&[block(400)]), None);
    assert_eq!(limit(&[block(401)]), Some(Limit::Headers));
    // Over several frames, padded, with a priority.
    let mut payload = vec![2, 0, 0, 0, 0, 16];
    payload.extend([0xbe; 200]);
    payload.extend([0, 0]);
    let first = frame(kind::HEADERS, 0x28, 1, &payload);
    let rest = |fields: usize| frame(kind::CONTINUATION, 0x4, 1, &vec![0xbe; fields]);
    assert_eq!(limit(&[first.clone(), rest(200)]), None);
    assert_eq!(limit(&[first.clone(), rest(201)]), Some(Limit::Headers));
    assert!(server(std::slice::from_ref(&first)).unwrap().in_head());
    assert!(!server(&[first, rest(1)]).unwrap().in_head());
    let trailers = frame(kind::HEADERS, 0x5, 1, &vec![0xbe; 401]);
    assert_eq!(limit(&[headers(1), trailers]), Some(Limit::Headers));
}

#[tokio::test]
async fn whoever_sends_little_but_blocks_with_too_many_fields_is_cut() {
    let block = |stream: u32, fields: usize| frame(kind::HEADERS, 0x4, stream, &vec![0xbe; fields]);
    let over = |count: u32| (0..count).map(|i| block(2 * i + 1, 101)).collect::<Vec<_>>();
    assert_eq!(limit(&over(16)), None);
    assert_eq!(limit(&over(17)), Some(Limit::Headers));
    let mixed = (0..1000).map(|i| block(2 * i + 1, if i % 3 == 0 { 101 } else { 10 }));
    assert_eq!(limit(&mixed.collect::<Vec<_>>()), None);
}

#[tokio::test]
async fn what_carries_a_message_allows_for_more() {
    let window = frame(kind::WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes());
    let now = Instant::now();
    let mut meter = server(&[headers(1)]).unwrap();
    meter.sent(&frame(kind::DATA, 0, 1, &[0; 20_000]));
    // Two units of data, twenty updates for each, and seven for the stream.
    assert_eq!(received(&mut meter, &window.repeat(47), || now), Ok(()));
    assert_eq!(received(&mut meter, &window, || now), Err(Limit::WindowUpdates));

    let ping = frame(6, 0, 0, &[0; 8]);
    let mut meter = server(&[]).unwrap();
    for stream in 0..10_000 {
        let message =
            [headers(stream * 2 + 1), frame(kind::DATA, 1, stream * 2 + 1, b"x"), ping.repeat(2)]
                .concat();
        assert_eq!(received(&mut meter, &message, || now), Ok(()), "message {stream}");
    }
}

#[tokio::test]
async fn keep_alive_goes_on_for_ever() {
    let ping = frame(6, 0, 0, &[0; 8]);
    let (begin, passed) = (Instant::now(), Cell::new(Duration::ZERO));
    let mut meter = Meter::new(Role::Client, HttpLimits::default(), begin);
    for _ in 0..20_000 {
        assert_eq!(received(&mut meter, &ping, || begin + passed.get()), Ok(()));
        passed.set(passed.get() + Duration::from_millis(200));
    }
    let flooded = received(&mut meter, &ping.repeat(2000), || begin + passed.get());
    assert_eq!(flooded, Err(Limit::ControlFrames));
}

#[tokio::test]
async fn answers_that_only_inform_are_limited() {
    let now = Instant::now();
    let mut meter = Meter::new(Role::Client, HttpLimits::default(), now);
    meter.sent(&PREFACE);
    meter.sent(&headers(1));
    let hint = frame(kind::HEADERS, 0x4, 1, b"\x08\x03103");
    assert_eq!(received(&mut meter, &hint.repeat(200), || now), Ok(()));
    assert_eq!(received(&mut meter, &hint, || now), Err(Limit::Informational));
}

#[tokio::test]
async fn a_farewell_is_only_said_between_frames() {
    let mut meter = server(&[headers(7)]).unwrap();
    let farewell = meter.goaway(Limit::Headers).unwrap();
    assert_eq!(&farewell[9..], [0, 0, 0, 7, 0, 0, 0, 0xb]);
    let data = frame(kind::DATA, 0, 1, &[0; 100]);
    meter.sent(&data[..50]);
    assert_eq!(meter.goaway(Limit::Headers), None);
    meter.sent(&data[50..]);
    assert_eq!(meter.goaway(Limit::Headers), Some(farewell));
    assert_eq!(meter.sent(&frame(kind::RST_STREAM, 0, 9, &[0, 0, 0, 7])), Some(Limit::Streams));
    assert_eq!(meter.sent(&frame(kind::RST_STREAM, 0, 9, &[0, 0, 0, 8])), None);
}

proptest! {
    /// Whatever is sent, the pieces in which it arrives make no difference.
    #[test]
    fn pieces_make_no_difference(
        frames in proptest::collection::vec((0u8..11, any::<u8>(), 0u32..5, proptest::collection::vec(any::<u8>(), 0..40)), 0..60),
        cut in 1usize..60,
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, payload)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let now = Instant::now();
            let run = |role: Role, size: usize| {
                let mut meter = Meter::new(role, HttpLimits::default(), now);
                meter.sent(&[&PREFACE[..], &headers(1), &headers(3)].concat());
                let preface = if role == Role::Server { &PREFACE[..] } else { &[] };
                let whole = [preface, &bytes].concat();
                let result = whole.chunks(size).try_for_each(|piece| received(&mut meter, piece, || now));
                (result, meter.in_head())
            };
            for role in [Role::Client, Role::Server] {
                let (whole, pieces) = (run(role, usize::MAX), run(role, cut));
                assert_eq!(whole.0, pieces.0);
                assert!(whole.0.is_err() || whole.1 == pieces.1);
            }
        });
    }
}

#[tokio::test]
async fn pseudo_headers_in_trailers_are_noticed_however_they_are_written() {
    let literal = |first: u8, name: &[u8], value: &[u8]| {
        let text = |text: &[u8]| [&[text.len() as u8], text].concat();
        [vec![first], text(name), text(value)].concat()
    };
    // The request puts `:authority: a` and `x: y` into the table, in this order.
    let request = [&[0x82, 0x86, 0x84, 0x41, 1, b'a'][..], &literal(0x40, b"x", b"y")].concat();
    let opened = || frame(kind::HEADERS, 0x4, 1, &request);
    let trailers = |block: &[u8]| limit(&[opened(), frame(kind::HEADERS, 0x5, 1, block)]);
    for block in [
        &[0x82][..],
        &[0xbf],
        &[0x01, 1, b'b'],
        &[0x0f, 0x30, 1, b'b'],
        &literal(0, b":path", b"/"),
        &literal(0x10, b":foo", b""),
        // `:` alone, coded.
        &[0, 0x81, 0xb9, 0],
        &[&[0xbe][..], &[0x84]].concat(),
    ] {
        assert_eq!(trailers(block), Some(Limit::PseudoTrailers), "{block:x?}");
    }
    for block in [
        &[0xbe][..],
        &[0x90],
        &literal(0x40, b"x-trailer", b":a"),
        &[0x0f, 0x2f, 1, b'b'],
        &[0x20, 0x3f, 0xe1, 0x1f, 0x90],
    ] {
        assert_eq!(trailers(block), None, "{block:x?}");
    }
    // Another stream is another request.
    assert_eq!(limit(&[opened(), frame(kind::HEADERS, 0x5, 3, &[0x82])]), None);
}

/// A client's meter after requests on streams 1 and 3.
fn client() -> Meter {
    let mut meter = Meter::new(Role::Client, HttpLimits::default(), Instant::now());
    meter.sent(&[&PREFACE[..], &headers(1), &headers(3)].concat());
    meter
}

#[test]
fn an_answer_that_is_none_is_noticed_however_it_is_written() {
    let now = Instant::now();
    let (head, trailers) =
        (frame(kind::HEADERS, 0x4, 1, &[0x88]), |block: &[u8]| frame(kind::HEADERS, 0x5, 1, block));
    let interim = frame(kind::HEADERS, 0x4, 1, b"\x08\x03103");
    for (block, expected) in [
        (&b"\x08\x03101"[..], Some(Limit::MalformedHead)),
        (b"\x48\x03101", Some(Limit::MalformedHead)),
        (b"\x08\x82\x08\x03", Some(Limit::MalformedHead)),
        (b"\x00\x07:status\x03101", Some(Limit::MalformedHead)),
        (b"\x00\x85\xb8\x84\x8d\x36\xa3\x82\x08\x03", Some(Limit::MalformedHead)),
        (b"\x88\x82", Some(Limit::MalformedHead)),
        (b"\x88\x00\x09:protocol\x01x", Some(Limit::MalformedHead)),
        (b"\x88", None),
        (b"\x08\x041010", None),
        (b"\x08\x03200", None),
        (b"\x00\x07xstatus\x03101", None),
    ] {
        for before in [&[][..], &interim] {
            let answer = [before, &frame(kind::HEADERS, 0x4, 1, block)].concat();
            let found = received(&mut client(), &answer, || now).err();
            assert_eq!(found, expected, "{block:x?} after {before:x?}");
        }
    }
    // The table remembers that it was no final one.
    let mut meter = client();
    let inserted = received(&mut meter, &frame(kind::HEADERS, 0x4, 1, b"\x48\x03103"), || now);
    assert_eq!(inserted, Ok(()));
    assert_eq!(received(&mut meter, &frame(kind::HEADERS, 0x4, 1, &[0xbe]), || now), Ok(()));
    assert_eq!(received(&mut meter, &head, || now), Ok(()));
    assert_eq!(received(&mut meter, &trailers(&[0xbe]), || now), Err(Limit::PseudoTrailers));
    // Another stream is another answer.
    let other = frame(kind::HEADERS, 0x5, 3, &[0x88]);
    assert_eq!(received(&mut client(), &[&head[..], &other].concat(), || now), Ok(()));
}

#[test]
fn nothing_is_remembered_of_answers_that_are_over() {
    let now = Instant::now();
    let head = |stream, flags| frame(kind::HEADERS, flags, stream, &[0x88]);
    for end in [
        head(1, 0x5),
        [head(1, 0x4), frame(kind::DATA, 1, 1, b"")].concat(),
        [head(1, 0x4), frame(kind::HEADERS, 0x5, 1, &[0x90])].concat(),
        frame(kind::RST_STREAM, 0, 1, &[0; 4]),
    ] {
        let mut meter = client();
        assert_eq!(received(&mut meter, &end, || now), Ok(()));
        // Trailers of our own come behind an early answer.
        meter.sent(&frame(kind::HEADERS, 0x5, 1, &[0x90]));
        assert_eq!(meter.answers.keys().collect::<Vec<_>>(), [&3], "{end:x?}");
    }
    let mut meter = client();
    assert_eq!(received(&mut meter, &head(1, 0x4), || now), Ok(()));
    meter.sent(&frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    assert_eq!(meter.answers.len(), 1);
    // What was on its way is none of our business.
    assert_eq!(received(&mut meter, &head(1, 0x5), || now), Ok(()));
}

#[test]
fn what_is_wrong_in_a_head_is_not_forgotten_where_it_is_cut() {
    let literal = |name: &[u8], huffman: u8, value: &[u8]| {
        let (n, v) = (name.len() as u8 | huffman, value.len() as u8);
        [&[0x40, n][..], name, &[v], value].concat()
    };
    let cut = |fields: &[Vec<u8>]| {
        let block =
            [&[0x82, 0x86, 0x84][..], &fields.concat(), &literal(b"x-long", 0, &[b'y'; 100])]
                .concat();
        let (first, rest) = block.split_at(block.len() - 50);
        limit(&[frame(kind::HEADERS, 0x1, 1, first), frame(kind::CONTINUATION, 0x4, 1, rest)])
    };
    for wrong in [
        vec![literal(b"connection", 0, b"close")],
        vec![literal(&[0xb6, 0xb9, 0xac, 0x1c, 0x85], 0x80, b"h2c")],
        // `transfer-encoding` by its place.
        vec![vec![0x40 | 57, 1, b'x']],
        vec![literal(b"x", 0, b"y"), literal(b":authority", 0, b"a")],
        vec![literal(b":path", 0, b"/")],
        vec![literal(b":authority", 0, b"a"), vec![0x41, 1, b'b']],
        // From the table, where the first field has put it.
        vec![literal(b"keep-alive", 0, b"5"), vec![0xbe]],
        vec![literal(b"te", 0, b"gzip")],
        vec![literal(b"te", 0, b"trailers, gzip")],
        vec![literal(b"te", 0, b"gzip"), vec![0xbe]],
        // The name alone from the table, where it came with a good value.
        vec![literal(b"te", 0, b"trailers"), vec![0x7e, 4, b'g', b'z', b'i', b'p']],
        vec![literal(&[0x49, 0x7f], 0x80, b"gzip")],
    ] {
        assert_eq!(cut(&wrong), Some(Limit::MalformedHead), "{wrong:x?}");
    }
    for right in [
        vec![],
        vec![literal(b"connections", 0, b"a")],
        vec![literal(b"te", 0, b"trailers")],
        vec![literal(b"te", 0, b"trailers"), vec![0xbe]],
        vec![[&[0x40, 2][..], b"te", &[0x86, 0x4d, 0x83, 0x35, 0x05, 0xb1, 0x1f]].concat()],
    ] {
        assert_eq!(cut(&right), None, "{right:x?}");
    }
}

#[test]
fn what_precedes_the_frame_that_is_one_too_many_is_told() {
    let now = Instant::now();
    let meter = || Meter::new(Role::Client, HttpLimits::default(), now);
    let (good, bad) = (frame(kind::DATA, 0, 1, b"ab"), frame(kind::DATA, 0, 1, b""));
    let excess = |before| Err(Excess { limit: Limit::EmptyFrames, before });
    let whole = [&good[..], &bad, &bad, &good].concat();
    let before = good.len() + bad.len();
    assert_eq!(meter().received(&whole, || now), excess(before));
    for cut in 1..bad.len() {
        let (first, rest) = whole.split_at(before + cut);
        let mut meter = meter();
        assert_eq!(meter.received(first, || now), Ok(()), "{cut}");
        assert_eq!(meter.received(rest, || now), excess(0), "{cut}: a part is there already");
    }
    // Found in the payload of a block.
    let head = frame(kind::HEADERS, 0x4, 1, &[0x88]);
    let trailers = frame(kind::HEADERS, 0x5, 1, &[0x88]);
    let mut client = meter();
    client.sent(&[&PREFACE[..], &headers(1)].concat());
    let answer = [&head[..], &good, &trailers].concat();
    let before = head.len() + good.len();
    let excess = Excess { limit: Limit::PseudoTrailers, before };
    assert_eq!(client.received(&answer, || now), Err(excess));
}
