//! Bodies without a codec: what is kept of them, and what readers and mirrors get.

use std::{pin::Pin, task::Waker};

use http_body::Body;

use super::*;
use crate::{codec::body::RequestBody, runtime::limits::BufferLimit};

const LIMIT: usize = BufferLimit::DEFAULT as usize;

fn kept(budget: &Arc<Budget>) -> Kept {
    let recording = Recording::new(&Rc::default(), LIMIT, budget);
    Rc::into_inner(recording).unwrap().kept.into_inner()
}

fn data(length: usize) -> Frame<Bytes> {
    Frame::data(vec![b'a'; length].into())
}

#[test]
fn bodies_keep_what_envoy_keeps_within_a_budget() {
    let budget = Arc::<Budget>::default();
    let mut all: Vec<Kept> = Vec::new();
    for _ in 0..ALL_KEPT / (LIMIT - OWN_SHARE) {
        let mut one = kept(&budget);
        one.record(&data(LIMIT));
        assert!(one.is_whole);
        all.push(one);
    }
    let mut late = kept(&budget);
    late.record(&data(OWN_SHARE));
    assert!(late.is_whole, "everybody has a share");
    late.record(&data(LIMIT - OWN_SHARE));
    assert!(!late.is_whole && late.pieces.is_empty(), "no more than the budget");
    all.pop();
    let mut next = kept(&budget);
    next.record(&data(LIMIT));
    assert!(next.is_whole, "what is given back can be had");
    next.record(&data(1));
    assert!(!next.is_whole, "no more than the limit");
    drop((all, late, next));
    assert_eq!(budget.0.load(Relaxed), 0);
}

/// A body that somebody has read ahead, with its end or not.
fn ahead(frames: &[usize], has_ended: bool) -> Rc<Progress> {
    let progress = Rc::<Progress>::default();
    progress.unread(frames.iter().map(|length| data(*length)));
    if has_ended {
        progress.finish();
    }
    progress
}

/// The bytes of the next frame, if there is one already.
fn poll(body: &mut RequestBody) -> Poll<Option<Result<usize, RequestBodyError>>> {
    let polled = Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()));
    polled.map_ok(|frame| frame.data_ref().map_or(0, Bytes::len))
}

#[test]
fn what_was_read_ahead_is_recorded_at_once_or_left_where_it_is() {
    let budget = Arc::<Budget>::default();
    let recording = Recording::new(&ahead(&[2 * OWN_SHARE], true), LIMIT, &budget);
    assert!(recording.can_replay());
    let mut mirror = RequestBody::mirrored(recording.follower(Trailers::Dropped));
    assert!(matches!(poll(&mut mirror), Poll::Ready(Some(Ok(length))) if length == 2 * OWN_SHARE));
    assert!(mirror.is_end_stream());
    assert!(budget.take(ALL_KEPT - OWN_SHARE));
    let progress = ahead(&[2 * OWN_SHARE], true);
    let recording = Recording::new(&progress, LIMIT, &budget);
    assert!(!recording.can_replay());
    let mut body = RequestBody::replay(&recording);
    assert!(matches!(poll(&mut body), Poll::Ready(Some(Ok(length))) if length == 2 * OWN_SHARE));
    assert!(body.is_end_stream() && progress.is_read());
}

#[test]
fn pieces_of_one_byte_are_joined() {
    let mut kept = kept(&Arc::default());
    let text: Vec<u8> = (0..50_000_u32).map(|number| number.to_be_bytes()[3]).collect();
    for byte in &text {
        kept.record(&Frame::data(vec![*byte].into()));
    }
    assert!(kept.pieces.len() < 32, "{} pieces", kept.pieces.len());
    let mut read = Vec::new();
    while let Some(bytes) = kept.after(read.len()) {
        // Not to the end of a piece: readers are where a piece was before it was joined.
        read.extend_from_slice(&bytes[..bytes.len().min(1000)]);
    }
    assert_eq!(read, text);
}

/// Two mirrors of a body that is read by one attempt, over a limit that is smaller than it.
#[test]
fn a_mirror_gets_what_comes_and_is_left_behind_rather_than_waited_for() {
    let budget = Arc::<Budget>::default();
    let progress = ahead(&[1], false);
    let recording = Recording::new(&progress, 100, &budget);
    let [mut near, mut far] =
        [(); 2].map(|()| RequestBody::mirrored(recording.follower(Trailers::Dropped)));
    let mut attempt = RequestBody::replay(&recording);
    for body in [&mut attempt, &mut near] {
        assert!(matches!(poll(body), Poll::Ready(Some(Ok(1)))));
    }
    for round in 0..20 {
        progress.unread([data(40)]);
        assert!(poll(&mut near).is_pending(), "{round}: the attempt reads first");
        assert!(matches!(poll(&mut attempt), Poll::Ready(Some(Ok(40)))), "{round}");
        assert!(matches!(poll(&mut near), Poll::Ready(Some(Ok(40)))), "{round}");
        assert!(recording.kept.borrow().held() <= 140, "{round}: a limit and a piece");
    }
    assert!(!recording.can_replay());
    let left = poll(&mut far);
    assert!(matches!(left, Poll::Ready(Some(Err(RequestBodyError::LeftBehind)))), "{left:?}");
    progress.unread([data(1)]);
    progress.close();
    let cut = poll(&mut near);
    assert!(matches!(cut, Poll::Ready(Some(Err(RequestBodyError::Unfinished)))), "{cut:?}");
}

#[test]
fn a_mirror_ends_with_its_request() {
    for skipped in [false, true] {
        let progress = ahead(&[40], false);
        let recording = Recording::new(&progress, LIMIT, &Arc::default());
        let mut mirror = RequestBody::mirrored(recording.follower(Trailers::Dropped));
        let mut attempt = RequestBody::replay(&recording);
        assert!(matches!(poll(&mut attempt), Poll::Ready(Some(Ok(40)))));
        // The attempt is gone, and the rest is read to learn of its end.
        progress.unread(skipped.then(|| data(1)));
        assert_eq!(progress.settle(), None);
        progress.close();
        assert!(matches!(poll(&mut mirror), Poll::Ready(Some(Ok(40)))));
        let Poll::Ready(end) = poll(&mut mirror) else { panic!("nothing ends it") };
        assert_eq!(end.is_some_and(|end| end.is_err()), skipped);
    }
}
