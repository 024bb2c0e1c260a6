//! How much the codec holds of a connection of HTTP/2 where nothing is said of it, in either
//! direction.

/// Windows: large enough for a fast link, small enough for many streams.
pub(crate) const STREAM_WINDOW: u32 = 1024 * 1024;
pub(crate) const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes of a stream that wait to be sent.
pub(crate) const SEND_BUFFER: usize = 400 * 1024;
/// A frame of the smallest size that both sides must take (RFC 9113, section 4.2).
pub(crate) const LEAST_SEND_BUFFER: usize = 16 * 1024;
