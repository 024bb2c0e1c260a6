//! How much one HTTP connection may ask of us: one table for both versions and both directions.
//!
//! `compile` fills it, for a connection manager (what clients send) and for a cluster (what servers
//! send back). Names and defaults are Envoy's, so that a configuration written for Envoy means the
//! same here.

use std::{num::NonZeroU32, time::Duration};

/// Limits of one HTTP connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HttpLimits {
    /// Most header fields of a message, pseudo headers and crumbs of a cookie among them
    /// (`max_headers_count`).
    pub headers: u32,
    /// Most bytes of their names and values (`max_request_headers_kb`, `max_response_headers_kb`).
    pub header_bytes: u32,
    /// Most streams at a time (`max_concurrent_streams`).
    pub streams: u32,
    /// From the first byte of a message's head to its last (`request_headers_timeout`).
    pub head_time: Duration,
    /// Streams that end within [`Self::PREMATURE`] without an answer, until a connection where they
    /// are more than half of all is closed; half as many close it at once
    /// (`overload.premature_reset_total_stream_count`).
    pub premature_resets: u32,
    /// HTTP/2 frames that carry nothing of a message.
    pub frames: FrameLimits,
}

/// Limits of HTTP/2 frames that carry nothing of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FrameLimits {
    /// SETTINGS, PING, GOAWAY and unknown frames at a time. Each frame of a message allows one
    /// more, and each second [`Self::CONTROL_PER_SECOND`], up to this number
    /// (`max_outbound_control_frames`, where Envoy counts answers that wait; here none wait, since
    /// nothing is read until they are written).
    pub control: u32,
    /// Frames without payload that end nothing, in succession
    /// (`max_consecutive_inbound_frames_with_empty_payload`).
    pub empty: u32,
    /// PRIORITY frames, for each stream and one more (`max_inbound_priority_frames_per_stream`).
    pub priority_per_stream: u32,
    /// WINDOW_UPDATE frames for each DATA frame that we sent
    /// (`max_inbound_window_update_frames_per_data_frame_sent`).
    pub window_updates_per_data: u32,
}

impl HttpLimits {
    /// Most bytes of a response's names and values where nothing is said: 80 KiB, a third more than
    /// of a request.
    pub const RESPONSE_HEADER_BYTES: u32 = 80 * 1024;
    /// Within this time of its beginning the end of an unanswered stream is premature
    /// (`overload.premature_reset_min_stream_lifetime_seconds`: Envoy counts whole seconds).
    pub const PREMATURE: Duration = Duration::from_secs(2);
    /// A header block of so many times the allowed fields ends the connection before it is decoded:
    /// until then it is decoded, so that the stream alone is refused and the connection's header
    /// table stays right (RFC 9113, 10.5.1).
    pub const ABUSE: u32 = 4;

    /// Which of the limits a message's head crosses, by its fields and their bytes; HTTP/2's pseudo
    /// headers count.
    pub fn judge(&self, fields: usize, bytes: usize) -> Result<(), Limit> {
        match (u32::try_from(fields), u32::try_from(bytes)) {
            (Ok(fields), _) if fields > self.headers => Err(Limit::Headers),
            (_, Ok(bytes)) if bytes > self.header_bytes => Err(Limit::HeaderBytes),
            (Ok(_), Ok(_)) => Ok(()),
            _ => Err(Limit::Headers),
        }
    }

    /// Bytes of a head as a parser counts them, with colons and line ends, where names and values
    /// are within the limit.
    pub fn http1_head_bytes(&self) -> usize {
        const AROUND_A_FIELD: u32 = 4;
        usize::try_from(
            self.header_bytes.saturating_add(self.headers.saturating_mul(AROUND_A_FIELD)),
        )
        .unwrap_or(usize::MAX)
    }

    /// Size of a header list that the codec may decode, with 32 bytes for each field (RFC 9113,
    /// 6.5.2): twice as much as is allowed, so that the stream is refused by us, with a count and a
    /// line in the log.
    pub fn http2_list_size(&self) -> u32 {
        self.header_bytes.saturating_mul(2).saturating_add(self.headers.saturating_mul(32))
    }
}

impl Default for HttpLimits {
    /// Envoy 1.40's, but for the time of a head, which Envoy leaves open: a minute, as Istio's
    /// profile for the edge.
    fn default() -> Self {
        Self {
            headers: 100,
            header_bytes: 60 * 1024,
            streams: 1024,
            head_time: Duration::from_secs(60),
            premature_resets: 500,
            frames: FrameLimits::default(),
        }
    }
}

impl FrameLimits {
    /// Control frames that each second allows: many times what keep-alive needs.
    pub const CONTROL_PER_SECOND: u32 = 10;
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self { control: 1000, empty: 1, priority_per_stream: 100, window_updates_per_data: 10 }
    }
}

/// Most bytes that a stream, or a connection of HTTP/1, holds of what its reader has not taken yet,
/// and of a request's body beside that (`per_connection_buffer_limit_bytes` of a listener or a
/// cluster).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct BufferLimit(Option<NonZeroU32>);

impl BufferLimit {
    /// Envoy's, where nothing is said.
    pub const DEFAULT: u32 = 1024 * 1024;
    /// The smallest window that a connection of HTTP/2 can have (RFC 9113, section 6.9.2).
    const LEAST_WINDOW: u32 = 65_535;

    /// As configured, or what nothing says.
    pub fn new(bytes: Option<NonZeroU32>) -> Self {
        Self(bytes)
    }

    /// Most bytes of a request's body that are kept, where `own` is what its route says.
    pub fn of_body(self, own: Option<BodyLimit>) -> usize {
        let of_connection = self.0.map_or(Self::DEFAULT, NonZeroU32::get) as usize;
        match own {
            None => of_connection,
            Some(BodyLimit::Own(bytes) | BodyLimit::Older(bytes)) => bytes,
        }
    }

    /// A stream's window of HTTP/2 that is `usual` where nothing is said. A connection's window is
    /// not bounded by it: one slow reader would hold up the other streams.
    pub fn window(self, usual: u32) -> u32 {
        self.0.map_or(usual, |bytes| usual.min(bytes.get().max(Self::LEAST_WINDOW)))
    }

    /// A buffer that is `usual` where nothing is said, and never below `least`.
    pub fn buffer(self, usual: usize, least: usize) -> usize {
        self.0.map_or(usual, |bytes| usual.min((bytes.get() as usize).max(least)))
    }
}

/// What a route or a virtual host says of the bodies of its requests, whatever the listener says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyLimit {
    /// `request_body_buffer_limit`.
    Own(usize),
    /// `per_request_buffer_limit_bytes`, the older field.
    Older(usize),
}

impl BodyLimit {
    /// Which one counts of a route's and its virtual host's: any of the newer field, else the
    /// route's.
    pub fn in_force(of_route: Option<Self>, of_host: Option<Self>) -> Option<Self> {
        match (of_route, of_host) {
            (Some(Self::Older(_)) | None, Some(Self::Own(_))) => of_host,
            _ => of_route.or(of_host),
        }
    }
}

/// Which limit was crossed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// Connections of a process at a time.
    Connections,
    /// [`HttpLimits::headers`].
    Headers,
    /// [`HttpLimits::header_bytes`].
    HeaderBytes,
    /// One of these two: a parser of HTTP/1 does not tell which.
    Head,
    /// [`HttpLimits::head_time`].
    HeadTime,
    /// [`HttpLimits::streams`].
    Streams,
    /// [`HttpLimits::premature_resets`].
    PrematureResets,
    /// [`FrameLimits::control`].
    ControlFrames,
    /// [`FrameLimits::empty`].
    EmptyFrames,
    /// [`FrameLimits::priority_per_stream`].
    PriorityFrames,
    /// [`FrameLimits::window_updates_per_data`].
    WindowUpdates,
    /// Informational answers to one request.
    Informational,
    /// Pseudo headers in trailers, which have none (RFC 9113, section 8.1).
    PseudoTrailers,
    /// Fields of a connection, or pseudo headers behind others, in a head of several frames; a
    /// response with a request's pseudo headers, or that changes the protocol (RFC 9113, sections
    /// 8.2.2, 8.3 and 8.6).
    MalformedHead,
}

impl Limit {
    /// Each of them, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Connections,
        Self::Headers,
        Self::HeaderBytes,
        Self::Head,
        Self::HeadTime,
        Self::Streams,
        Self::PrematureResets,
        Self::ControlFrames,
        Self::EmptyFrames,
        Self::PriorityFrames,
        Self::WindowUpdates,
        Self::Informational,
        Self::PseudoTrailers,
        Self::MalformedHead,
    ];

    /// Whether what crosses it is no message, and not just too much.
    pub fn is_malformed(self) -> bool {
        matches!(self, Self::PseudoTrailers | Self::MalformedHead)
    }

    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Headers => "headers",
            Self::HeaderBytes => "header_bytes",
            Self::Head => "head",
            Self::HeadTime => "head_time",
            Self::Streams => "streams",
            Self::PrematureResets => "premature_resets",
            Self::ControlFrames => "control_frames",
            Self::EmptyFrames => "empty_frames",
            Self::PriorityFrames => "priority_frames",
            Self::WindowUpdates => "window_updates",
            Self::Informational => "informational",
            Self::PseudoTrailers => "pseudo_trailers",
            Self::MalformedHead => "malformed_head",
        }
    }
}
