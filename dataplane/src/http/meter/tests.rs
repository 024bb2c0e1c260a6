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

/// What a server's meter says of these bytes after the preface, and when the clock stands still.
fn server(frames: &[Vec<u8>]) -> Result<Meter, Limit> {
    let now = Instant::now();
    let mut meter = Meter::new(Role::Server, HttpLimits::default(), now);
    meter.received(&PREFACE, || now)?;
    for frame in frames {
        meter.received(frame, || now)?;
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
    let empty_block = [frame(kind::HEADERS, 0, 1, &[0x90]), frame(kind::CONTINUATION, 0, 1, &[]).repeat(2)].concat();
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
    assert_eq!(meter.received(&window.repeat(47), || now), Ok(()));
    assert_eq!(meter.received(&window, || now), Err(Limit::WindowUpdates));

    let ping = frame(6, 0, 0, &[0; 8]);
    let mut meter = server(&[]).unwrap();
    for stream in 0..10_000 {
        let message = [headers(stream * 2 + 1), frame(kind::DATA, 1, stream * 2 + 1, b"x"), ping.repeat(2)].concat();
        assert_eq!(meter.received(&message, || now), Ok(()), "message {stream}");
    }
}

#[tokio::test]
async fn keep_alive_goes_on_for_ever() {
    let ping = frame(6, 0, 0, &[0; 8]);
    let (begin, passed) = (Instant::now(), Cell::new(Duration::ZERO));
    let mut meter = Meter::new(Role::Client, HttpLimits::default(), begin);
    for _ in 0..20_000 {
        assert_eq!(meter.received(&ping, || begin + passed.get()), Ok(()));
        passed.set(passed.get() + Duration::from_millis(200));
    }
    let flooded = meter.received(&ping.repeat(2000), || begin + passed.get());
    assert_eq!(flooded, Err(Limit::ControlFrames));
}

#[tokio::test]
async fn answers_that_only_inform_are_limited() {
    let now = Instant::now();
    let mut meter = Meter::new(Role::Client, HttpLimits::default(), now);
    meter.sent(&PREFACE);
    meter.sent(&headers(1));
    assert_eq!(meter.received(&headers(1).repeat(200), || now), Ok(()));
    assert_eq!(meter.received(&headers(1), || now), Err(Limit::Informational));
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
            let run = |size: usize| {
                let mut meter = Meter::new(Role::Server, HttpLimits::default(), now);
                let whole = [&PREFACE[..], &bytes].concat();
                let result = whole.chunks(size).try_for_each(|piece| meter.received(piece, || now));
                (result, meter.in_head())
            };
            let (whole, pieces) = (run(usize::MAX), run(cut));
            assert_eq!(whole.0, pieces.0);
            assert!(whole.0.is_err() || whole.1 == pieces.1);
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
