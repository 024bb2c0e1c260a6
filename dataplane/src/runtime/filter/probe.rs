//! A filter for tests: does in each phase what a test says, and remembers what it was told.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use super::{Call, Called, FilterRequest, FilterResponse, FilterState, Notes, Phase, Piece, Step};

type OnRequest = Box<dyn Fn(&mut FilterRequest<'_>) -> Step + Send + Sync>;
type OnRequestBody = Box<dyn Fn(&mut FilterRequest<'_>, &mut Piece) -> Step + Send + Sync>;
type OnResponse = Box<dyn Fn(&mut FilterResponse<'_>) -> Step + Send + Sync>;
type OnResponseBody = Box<dyn Fn(&mut Notes, &mut Piece, usize) -> Step + Send + Sync>;
type OnLog = Box<dyn Fn(&mut Notes, u16) -> Option<Box<Call>> + Send + Sync>;

/// What to do in each phase; takes no part in those that are not given.
#[derive(Default)]
pub struct Probe {
    pub(crate) request_headers: Option<OnRequest>,
    pub(crate) request_body: Option<OnRequestBody>,
    pub(crate) response_headers: Option<OnResponse>,
    pub(crate) response_body: Option<OnResponseBody>,
    pub(crate) log: Option<OnLog>,
    pub(crate) told: Mutex<Vec<Called>>,
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").finish_non_exhaustive()
    }
}

impl Probe {
    pub(super) fn phases(&self) -> u8 {
        let parts = [
            (Phase::RequestHeaders, self.request_headers.is_some()),
            (Phase::RequestBody, self.request_body.is_some()),
            (Phase::ResponseHeaders, self.response_headers.is_some()),
            (Phase::ResponseBody, self.response_body.is_some()),
            (Phase::Log, self.log.is_some()),
        ];
        let taken = parts.into_iter().filter(|(_, takes_part)| *takes_part);
        taken.fold(0, |phases, (phase, _)| phases | phase.bit())
    }

    /// What it was told so far, in order.
    pub(crate) fn told(&self) -> Vec<Called> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn request_headers(&self, request: &mut FilterRequest<'_>) -> Step {
        self.request_headers.as_ref().map_or(Step::Continue, |on| on(request))
    }

    pub(super) fn request_body(&self, request: &mut FilterRequest<'_>, piece: &mut Piece) -> Step {
        self.request_body.as_ref().map_or(Step::Continue, |on| on(request, piece))
    }

    pub(super) fn response_headers(&self, response: &mut FilterResponse<'_>) -> Step {
        self.response_headers.as_ref().map_or(Step::Continue, |on| on(response))
    }

    pub(super) fn response_body(&self, notes: &mut Notes, piece: &mut Piece, place: usize) -> Step {
        self.response_body.as_ref().map_or(Step::Continue, |on| on(notes, piece, place))
    }

    pub(super) fn log(&self, notes: &mut Notes, status: u16) -> Option<Box<Call>> {
        self.log.as_ref().and_then(|on| on(notes, status))
    }

    /// Counts in its state how often it was told something.
    pub(super) fn called(&self, called: Called, notes: &mut Notes, place: usize) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(called);
        let before = match notes.kept(place) {
            Some(FilterState::Probe(times)) => *times,
            _ => 0,
        };
        notes.keep(place, FilterState::Probe(before + 1));
    }
}
