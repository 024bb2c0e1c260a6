//! HTTP/2 byte by byte, for peers that keep to no rule.

/// What a connection begins with: the preface and settings.
pub(crate) fn beginning() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat()
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A frame (RFC 9113, section 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET /` of a host, without its end (RFC 7541).
pub(crate) fn get(host: &str) -> Vec<u8> {
    [&[0x82, 0x86, 0x84, 0x01, u8::try_from(host.len()).expect("a short name")], host.as_bytes()]
        .concat()
}

/// A field that goes into the table, at its first place.
pub(crate) fn remembered(name: &str, value: &str) -> Vec<u8> {
    let text =
        |text: &str| [&[u8::try_from(text.len()).expect("a short text")], text.as_bytes()].concat();
    [vec![0x40], text(name), text(value)].concat()
}

/// One byte that stands for the field at the first place of the table.
pub(crate) const REFERENCE: u8 = 0xbe;
