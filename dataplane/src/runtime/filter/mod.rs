//! HTTP filters: what each is configured to do, and what it does, phase by phase.
//!
//! ```text
//! request headers ─▶ request body ─▶ (router) ─▶ response headers ─▶ response body ─▶ log
//! ```
//! A filter is sans-IO: a phase shows it the request or the response and gets a [`Step`]: go on,
//! wait, call a cluster (the answer is told to [`HttpFilter::called`] and the phase shown again), or
//! answer the request.
//! `http::filter` does the waiting and calling, so that no filter can block its worker. What a
//! filter finds out it leaves in the request's [`Notes`]: metadata for others, state for its own
//! later phases. Closed: an unknown filter is refused by `compile`, never skipped.
//!
//! A new filter is a file here, a variant of [`HttpFilter`] (and of [`FilterOverride`] if routes
//! may set it), a file of `compile::filter`, and a row of the table there.

use std::{cell::OnceCell, fmt, sync::Arc};

use http::HeaderMap;

pub mod cors;
pub mod ext_authz;
pub mod fault;
pub mod grpc;
pub mod jwt_authn;
pub mod local_rate_limit;
pub mod notes;
pub mod phase;
#[cfg(test)]
pub mod probe;
pub mod rate_limit;
pub mod rbac;

use self::{
    cors::CorsPolicy,
    ext_authz::{AskOverride, Asking, ExtAuthz},
    fault::FaultConfig,
    jwt_authn::{JwtAuthn, JwtOverride},
    local_rate_limit::{Limiter, LocalRateLimit, TokenBucket},
    rate_limit::{Counting, GlobalRateLimit, LimitOverride},
    rbac::Access,
};
pub use self::{
    notes::{Counter, Notes},
    phase::{
        Answer, Call, CallAnswer, CallFailure, Called, FilterRequest, FilterResponse, ForRouter,
        Payload, Phase, Piece, Step,
    },
};

/// What one filter does.
#[derive(Clone, Debug)]
pub enum HttpFilter {
    /// Answers 403 `RBAC: access denied` when refused.
    Rbac(Arc<Access>),
    /// Delays or aborts requests; a route's own [`FaultConfig`] replaces the filter's.
    Fault(Option<Arc<FaultConfig>>),
    /// Answers preflight requests by the route's or virtual host's [`CorsPolicy`].
    Cors,
    /// Asks a service about requests; a route may tell it more, or have nobody asked.
    ExtAuthz(Arc<ExtAuthz>),
    /// Refuses requests without a valid token; a route may ask for another one, or for none.
    JwtAuthn(Arc<JwtAuthn>),
    /// Replaces the ALPN offered upstream by the chosen cluster's [`super::cluster::MeshAlpn`].
    MeshAlpn,
    /// Answers requests that find no token; a route's own limit replaces the filter's.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// Has a service count requests; a route may say how they are described.
    RateLimit(Arc<GlobalRateLimit>),
    /// Forwards the request; always last.
    Router {
        /// Does not add `x-envoy-*` headers.
        suppress_envoy_headers: bool,
    },
    /// Takes part in whatever phase a test wants.
    #[cfg(test)]
    Probe(Arc<probe::Probe>),
}

/// What a route, its virtual host or one of its targets sets for one filter.
#[derive(Clone, Debug)]
pub enum FilterOverride {
    /// Instead of the fault filter's own settings.
    Fault(Arc<FaultConfig>),
    /// The CORS rules.
    Cors(Arc<CorsPolicy>),
    /// Instead of the filter's own rules; `None` switches it off.
    Rbac(Option<Arc<Access>>),
    /// Instead of the filter's own limit.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// Beside what the filter says.
    ExtAuthz(Arc<AskOverride>),
    /// Instead of what the filter's own rules ask for.
    JwtAuthn(Arc<JwtOverride>),
    /// Instead of the filter's own domain and descriptors.
    RateLimit(Arc<LimitOverride>),
}

/// What a filter keeps for its later phases.
#[derive(Clone, Debug)]
pub enum FilterState {
    /// Headers that the response gets.
    Cors(HeaderMap),
    /// How far asking has come.
    ExtAuthz(Asking),
    /// The bucket that the response tells of.
    LocalRateLimit(Arc<TokenBucket>),
    /// How far counting has come.
    RateLimit(Counting),
    /// Whatever a test wants.
    #[cfg(test)]
    Probe(u32),
}

/// What filters keep for a downstream connection.
#[derive(Default, Debug)]
pub struct ConnectionState {
    /// The buckets of the connection, made by its first request that asks for such; later ones
    /// share them whatever their own configuration says, as in Envoy.
    pub limiter: OnceCell<Arc<Limiter>>,
}

/// A filter by its name, under which routes set something for it.
#[derive(Clone, Debug)]
pub struct NamedFilter {
    /// Its name in the connection manager.
    pub name: Arc<str>,
    /// What it does.
    pub filter: HttpFilter,
}

/// The filters of a connection manager in their order; the last one is the router.
#[derive(Clone, Default)]
pub struct Filters {
    list: Vec<NamedFilter>,
    /// A bit for each phase in which any of them takes part.
    phases: u8,
}

impl Filters {
    /// These, in this order.
    pub fn new(list: Vec<NamedFilter>) -> Self {
        let phases = list.iter().fold(0, |phases, named| phases | named.filter.phases());
        Self { list, phases }
    }

    /// All of them in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, NamedFilter> {
        self.list.iter()
    }

    /// Whether any takes part in this phase; a phase without is skipped at this one look.
    pub fn take_part(&self, phase: Phase) -> bool {
        self.phases & phase.bit() != 0
    }

    /// These in their order, each by the name that its kind mostly has.
    #[cfg(test)]
    pub(crate) fn of(filters: impl IntoIterator<Item = HttpFilter>) -> Self {
        let mut of = Self::default();
        filters.into_iter().enumerate().for_each(|(at, filter)| of.insert(at, filter));
        of
    }

    /// One more at this place.
    #[cfg(test)]
    pub(crate) fn insert(&mut self, at: usize, filter: HttpFilter) {
        let name = match &filter {
            HttpFilter::Rbac(_) => "envoy.filters.http.rbac",
            HttpFilter::Fault(_) => "envoy.filters.http.fault",
            HttpFilter::Cors => "envoy.filters.http.cors",
            HttpFilter::ExtAuthz(_) => "envoy.filters.http.ext_authz",
            HttpFilter::JwtAuthn(_) => "envoy.filters.http.jwt_authn",
            HttpFilter::MeshAlpn => "envoy.filters.http.set_filter_state",
            HttpFilter::LocalRateLimit(_) => "envoy.filters.http.local_ratelimit",
            HttpFilter::RateLimit(_) => "envoy.filters.http.ratelimit",
            HttpFilter::Router { .. } => "envoy.filters.http.router",
            HttpFilter::Probe(_) => "probe",
        };
        let mut list = std::mem::take(&mut self.list);
        list.insert(at, NamedFilter { name: name.into(), filter });
        *self = Self::new(list);
    }
}

impl fmt::Debug for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.list).finish()
    }
}

/// What one level of routes sets for filters, by their names.
#[derive(Clone, Default, Debug)]
pub struct FilterOverrides(Vec<(Arc<str>, FilterOverride)>);

impl FilterOverrides {
    /// These settings; of equal names the first counts.
    pub fn new(mut settings: Vec<(Arc<str>, FilterOverride)>) -> Self {
        // Maps have no order on the wire.
        settings.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self(settings)
    }

    /// What is set for the filter of this name.
    pub fn get(&self, filter: &str) -> Option<&FilterOverride> {
        self.0.iter().find(|(name, _)| **name == *filter).map(|(_, setting)| setting)
    }
}

/// The settings for a request, the most specific level first: the target's, the route's, the
/// virtual host's.
#[derive(Clone, Copy, Default)]
pub struct OverrideLevels<'a>(pub [Option<&'a FilterOverrides>; 3]);

impl<'a> OverrideLevels<'a> {
    /// What the most specific level sets that sets anything for this filter.
    pub fn get(&self, filter: &str) -> Option<&'a FilterOverride> {
        self.0.into_iter().flatten().find_map(|level| level.get(filter))
    }
}

impl HttpFilter {
    /// The phases in which it takes part.
    fn phases(&self) -> u8 {
        match self {
            Self::Rbac(_)
            | Self::Fault(_)
            | Self::JwtAuthn(_)
            | Self::MeshAlpn
            | Self::Router { .. } => Phase::RequestHeaders.bit(),
            Self::Cors | Self::LocalRateLimit(_) | Self::RateLimit(_) => {
                Phase::RequestHeaders.bit() | Phase::ResponseHeaders.bit()
            }
            Self::ExtAuthz(ask) => {
                let body = if ask.reads_bodies() { Phase::RequestBody.bit() } else { 0 };
                Phase::RequestHeaders.bit() | body | Phase::ResponseHeaders.bit()
            }
            #[cfg(test)]
            Self::Probe(probe) => probe.phases(),
        }
    }

    /// Whether it takes part in this phase.
    pub fn takes_part(&self, phase: Phase) -> bool {
        self.phases() & phase.bit() != 0
    }

    /// Shows it the request's head. `set` is what the request's route sets for it.
    pub fn request_headers(
        &self,
        request: &mut FilterRequest<'_>,
        set: Option<&FilterOverride>,
    ) -> Step {
        match (self, set) {
            (Self::Rbac(_), Some(FilterOverride::Rbac(None))) => Step::Continue,
            (Self::Rbac(_), Some(FilterOverride::Rbac(Some(access)))) | (Self::Rbac(access), _) => {
                access.step(request)
            }
            (Self::Fault(_), Some(FilterOverride::Fault(fault))) => fault.step(request),
            (Self::Fault(own), _) => own.as_ref().map_or(Step::Continue, |own| own.step(request)),
            (Self::Cors, Some(FilterOverride::Cors(policy))) => policy.step(request),
            (Self::Cors, _) => Step::Continue,
            (Self::LocalRateLimit(_), Some(FilterOverride::LocalRateLimit(limit)))
            | (Self::LocalRateLimit(limit), _) => limit.step(request),
            (Self::ExtAuthz(ask), set) => ask.step(request, own_setting(set)),
            (Self::JwtAuthn(tokens), Some(FilterOverride::JwtAuthn(set))) => {
                tokens.step(request, Some(set))
            }
            (Self::JwtAuthn(tokens), _) => tokens.step(request, None),
            (Self::RateLimit(limit), Some(FilterOverride::RateLimit(set))) => {
                limit.step(request, Some(set))
            }
            (Self::RateLimit(limit), _) => limit.step(request, None),
            (Self::MeshAlpn, _) => {
                request.router.mesh_alpn = true;
                Step::Continue
            }
            (Self::Router { suppress_envoy_headers }, _) => {
                request.router.suppress_envoy_headers = *suppress_envoy_headers;
                Step::Continue
            }
            #[cfg(test)]
            (Self::Probe(probe), _) => probe.request_headers(request),
        }
    }

    /// Shows it a piece of the request's body, before anything of the request is sent on.
    pub fn request_body(
        &self,
        request: &mut FilterRequest<'_>,
        set: Option<&FilterOverride>,
        piece: &mut Piece,
    ) -> Step {
        match self {
            Self::ExtAuthz(ask) => ask.body(request, own_setting(set), piece),
            #[cfg(test)]
            Self::Probe(probe) => probe.request_body(request, piece),
            _ => Step::Continue,
        }
    }

    /// Shows it the response's head, an endpoint's or one of our own.
    pub fn response_headers(&self, response: &mut FilterResponse<'_>) -> Step {
        match self {
            Self::Cors => {
                cors::write(response);
                Step::Continue
            }
            Self::ExtAuthz(_) => {
                ext_authz::write(response);
                Step::Continue
            }
            Self::LocalRateLimit(_) => {
                local_rate_limit::write(response);
                Step::Continue
            }
            Self::RateLimit(_) => {
                rate_limit::write(response);
                Step::Continue
            }
            #[cfg(test)]
            Self::Probe(probe) => probe.response_headers(response),
            _ => Step::Continue,
        }
    }

    /// Shows it a piece of an endpoint's response body on its way.
    pub fn response_body(&self, notes: &mut Notes, piece: &mut Piece, place: usize) -> Step {
        let _ = (&notes, &piece, place);
        match self {
            #[cfg(test)]
            Self::Probe(probe) => probe.response_body(notes, piece, place),
            _ => Step::Continue,
        }
    }

    /// Shows it that the exchange is over, before the access log is written; what it calls then is
    /// not waited for.
    pub fn log(&self, notes: &mut Notes, status: u16) -> Option<Box<Call>> {
        let _ = (&notes, status);
        match self {
            #[cfg(test)]
            Self::Probe(probe) => probe.log(notes, status),
            _ => None,
        }
    }

    /// Tells it what came of a call that it has asked for; after that it is shown the phase again.
    pub fn called(&self, called: Called, notes: &mut Notes, place: usize) {
        match self {
            Self::ExtAuthz(_) => ext_authz::called(called, notes, place),
            Self::RateLimit(_) => rate_limit::called(called, notes, place),
            #[cfg(test)]
            Self::Probe(probe) => probe.called(called, notes, place),
            // Who never calls is never told.
            _ => {}
        }
    }
}

fn own_setting(set: Option<&FilterOverride>) -> Option<&AskOverride> {
    match set {
        Some(FilterOverride::ExtAuthz(set)) => Some(set),
        _ => None,
    }
}
