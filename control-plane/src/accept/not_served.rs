//! Why callers are not served.

/// Why somebody was not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotServed {
    /// Every seat is taken by connections that are being served.
    #[error("no room for another connection")]
    Full,
    /// Others needed the seat more.
    #[error("driven out by newer connections")]
    Cleared,
    /// No byte came.
    #[error("no byte came in time")]
    Silent,
    /// The handshake was not finished in time.
    #[error("the TLS handshake took too long")]
    SlowHandshake,
    /// The handshake failed.
    #[error("the TLS handshake failed")]
    Handshake,
    /// No request came.
    #[error("no request came in time")]
    NoRequest,
    /// Nothing was asked for long.
    #[error("quiet for too long")]
    Quiet,
    /// The body of a request is larger than is allowed.
    #[error("the body of the request is too large")]
    LargeBody,
    /// The body of a request did not come in time.
    #[error("the body of the request did not come in time")]
    SlowBody,
    /// Too many wait for a turn.
    #[error("too many requests at a time: try again later")]
    Busy,
    /// The answer was not there in time.
    #[error("the request took too long")]
    SlowAnswer,
}

impl NotServed {
    /// As metrics call it.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Cleared => "cleared",
            Self::Silent => "silent",
            Self::SlowHandshake => "slow_handshake",
            Self::Handshake => "handshake",
            Self::NoRequest => "no_request",
            Self::Quiet => "quiet",
            Self::LargeBody => "large_body",
            Self::SlowBody => "slow_body",
            Self::Busy => "busy",
            Self::SlowAnswer => "slow_answer",
        }
    }
}
