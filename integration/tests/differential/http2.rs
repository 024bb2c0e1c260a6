//! HTTP/2 requests of any frames, and the exchange of one with a proxy. Frames are written here and
//! not by a library, which would refuse to write what a proxy must refuse to take.

use std::collections::BTreeMap;

use loona_hpack::Decoder;
use tokio::{io::AsyncWriteExt, net::TcpStream, net::tcp::OwnedReadHalf, time::timeout};

use crate::{
    exchange::{Exchanged, Route},
    message::Input,
    outcome::{End, Response, readable},
};

/// Frame types (RFC 9113 section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITIZED: u8 = 0x20;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Largest payload that everybody takes (RFC 9113 section 4.2).
const MAX_FRAME: usize = 16384;

/// Names and values of a header block.
pub(crate) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A part of what a client sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Piece {
    /// A header block, in literals; `cut` bytes of it go into the HEADERS frame and the rest into
    /// CONTINUATION.
    Headers { stream: u32, fields: Fields, end: bool, cut: Option<usize>, priority: bool },
    /// A body's bytes, with so much padding.
    Data { stream: u32, bytes: Vec<u8>, end: bool, padding: Option<u8> },
    /// Any other frame.
    Frame { kind: u8, flags: u8, stream: u32, payload: Vec<u8> },
    /// Waits until the application has seen the head.
    Await,
}

/// What a client sends on a connection behind its preface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    pub(crate) pieces: Vec<Piece>,
}

impl Request {
    /// A plain one.
    pub(crate) fn new(host: &str, case: &str) -> Self {
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", host),
            (":path", "/"),
            ("x-case", case),
        ];
        let fields =
            fields.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
        Self {
            pieces: vec![Piece::Headers {
                stream: 1,
                fields,
                end: true,
                cut: None,
                priority: false,
            }],
        }
    }

    /// Header blocks, with their streams.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (u32, &Fields)> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Headers { stream, fields, .. } => Some((*stream, fields)),
            _ => None,
        })
    }

    /// Streams that a header block opens.
    pub(crate) fn streams(&self) -> Vec<u32> {
        let mut streams: Vec<u32> =
            self.blocks().map(|(stream, _)| stream).filter(|s| s % 2 == 1).collect();
        streams.sort_unstable();
        streams.dedup();
        streams
    }

    /// Streams that the client resets.
    fn given_up(&self) -> impl Iterator<Item = u32> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Frame { kind: kind::RST_STREAM, stream, .. } => Some(*stream),
            _ => None,
        })
    }

    pub(crate) fn readable(&self) -> String {
        let pieces: Vec<String> = self
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Headers { stream, fields, end, cut, priority } => {
                    let fields: Vec<String> = fields
                        .iter()
                        .map(|(n, v)| format!("{}={}", readable(n), readable(v)))
                        .collect();
                    let marks = [
                        end.then(|| " END_STREAM".to_owned()),
                        cut.map(|cut| format!(" CONTINUATION after {cut}")),
                        priority.then(|| " PRIORITY".to_owned()),
                    ];
                    format!(
                        "HEADERS {stream}{} [{}]",
                        marks.into_iter().flatten().collect::<String>(),
                        fields.join(", ")
                    )
                }
                Piece::Data { stream, bytes, end, padding } => {
                    format!("DATA {stream} {} end={end} padding={padding:?}", readable(bytes))
                }
                Piece::Frame { kind, flags, stream, payload } => {
                    format!(
                        "FRAME type={kind} flags={flags:#x} stream={stream} {}",
                        readable(payload)
                    )
                }
                Piece::Await => "(the application has the head)".to_owned(),
            })
            .collect();
        format!("HTTP/2: {}", pieces.join("; "))
    }
}

impl Piece {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Headers { stream, fields, end, cut, priority } => {
                write_headers(out, *stream, &literals(fields), *end, *cut, *priority);
            }
            Self::Data { stream, bytes, end, padding } => {
                let flags =
                    if *end { END_STREAM } else { 0 } | if padding.is_some() { PADDED } else { 0 };
                let padded = padding.map_or_else(Vec::new, |length| vec![0; length.into()]);
                write_frame(
                    out,
                    kind::DATA,
                    flags,
                    *stream,
                    &[padding.as_slice(), bytes, &padded].concat(),
                );
            }
            Self::Frame { kind, flags, stream, payload } => {
                write_frame(out, *kind, *flags, *stream, payload)
            }
            Self::Await => {}
        }
    }
}

/// A frame (RFC 9113 section 4.1).
fn write_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a frame is small").to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn write_headers(
    out: &mut Vec<u8>,
    stream: u32,
    block: &[u8],
    end: bool,
    cut: Option<usize>,
    priority: bool,
) {
    let prefix: &[u8] = if priority { &[0, 0, 0, 0, 16] } else { &[] };
    let (first, mut rest) =
        block.split_at(block.len().min(cut.unwrap_or(MAX_FRAME - prefix.len())));
    let flags = if end { END_STREAM } else { 0 } | if priority { PRIORITIZED } else { 0 };
    let flags = flags | if rest.is_empty() { END_HEADERS } else { 0 };
    write_frame(out, kind::HEADERS, flags, stream, &[prefix, first].concat());
    while !rest.is_empty() {
        let (next, after) = rest.split_at(rest.len().min(MAX_FRAME));
        rest = after;
        write_frame(
            out,
            kind::CONTINUATION,
            if rest.is_empty() { END_HEADERS } else { 0 },
            stream,
            next,
        );
    }
}

/// A header block of literals without indexing and without Huffman codes (RFC 7541 section 6.2.2).
fn literals(fields: &Fields) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            write_length(&mut block, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
fn write_length(out: &mut Vec<u8>, length: usize) {
    if length < 127 {
        out.push(u8::try_from(length).expect("below 127"));
        return;
    }
    out.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        out.push(u8::try_from(rest % 128).expect("below 128") | 128);
        rest /= 128;
    }
    out.push(u8::try_from(rest).expect("below 128"));
}

/// A stream's answer as it grows.
#[derive(Default)]
struct Answer {
    status: Option<u16>,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    ended: bool,
    reset: bool,
}

impl Answer {
    fn response(self, prefix: &str) -> Response {
        match self.status {
            None => Response::refused(),
            Some(status) => Response::new(status, &self.fields, &self.body, self.ended, prefix),
        }
    }

    fn is_over(&self) -> bool {
        self.ended || self.reset
    }
}

struct Client<'a> {
    route: &'a Route<'a>,
    input: Input<OwnedReadHalf>,
    output: tokio::net::tcp::OwnedWriteHalf,
    decoder: Decoder<'static>,
    answers: BTreeMap<u32, Answer>,
    /// A header block whose end has not come, with its stream and whether it is the stream's last.
    block: Option<(u32, bool, Vec<u8>)>,
    /// The proxy gave the connection up.
    gone: bool,
}

/// Sends the pieces over a connection of their own, and tells what became of their streams.
pub(crate) async fn exchange(request: &Request, route: &Route<'_>) -> Exchanged {
    let Ok(stream) = TcpStream::connect(route.entry).await else { return Exchanged::nothing() };
    let _ = stream.set_nodelay(true);
    let (input, output) = stream.into_split();
    let answers = request.streams().into_iter().map(|stream| (stream, Answer::default())).collect();
    let mut client = Client {
        route,
        input: Input::new(input),
        output,
        decoder: Decoder::new(),
        answers,
        block: None,
        gone: false,
    };
    let end = client.run(request).await;
    // What comes on a stream that the client itself gave up is a matter of time.
    request.given_up().for_each(|stream| {
        client.answers.remove(&stream);
    });
    let responses =
        client.answers.into_values().map(|answer| answer.response(&route.prefix)).collect();
    // Which of its streams a proxy that gives up a connection names, and whether it does, is its
    // choice (RFC 9113 5.4.1).
    let end = if end == End::Silent { End::Silent } else { End::Served };
    Exchanged { responses, end, tunnel: Vec::new() }
}

impl Client<'_> {
    async fn run(&mut self, request: &Request) -> End {
        let mut out = PREFACE.to_vec();
        write_frame(&mut out, kind::SETTINGS, 0, 0, &[]);
        for piece in &request.pieces {
            piece.write(&mut out);
            if *piece == Piece::Await {
                self.send(&std::mem::take(&mut out)).await;
                if let Some(end) = self.until_seen().await {
                    return end;
                }
            }
        }
        self.send(&out).await;
        for stream in request.given_up() {
            self.answers.entry(stream).or_default().reset = true;
        }
        while !self.is_over() {
            if let Some(end) = self.turn().await {
                return end;
            }
        }
        End::Served
    }

    async fn send(&mut self, bytes: &[u8]) {
        let _ = timeout(self.route.patience, self.output.write_all(bytes)).await;
    }

    /// Waits for the application, or for an answer that comes without it.
    async fn until_seen(&mut self) -> Option<End> {
        let (seen, id, patience) = (self.route.seen, self.route.id, self.route.patience);
        let arrived = seen.until_body(id, 0, patience);
        tokio::pin!(arrived);
        while !self.is_over() {
            tokio::select! {
                _ = &mut arrived => return None,
                end = self.turn() => match end {
                    None => {}
                    // As patient as the other.
                    Some(End::Silent) => return None,
                    end => return end,
                },
            }
        }
        None
    }

    fn is_over(&self) -> bool {
        self.gone || self.answers.values().all(Answer::is_over)
    }

    /// Reads what comes next; `Some` when nothing does.
    async fn turn(&mut self) -> Option<End> {
        while let Some((kind, flags, stream, payload)) = self.frame() {
            self.take(kind, flags, stream, payload).await;
        }
        if self.is_over() {
            return None;
        }
        match timeout(self.route.patience, self.input.fill()).await {
            Ok(Ok(true)) => None,
            Ok(_) => Some(End::Closed),
            Err(_) => Some(End::Silent),
        }
    }

    fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let head: [u8; 9] = *self.input.buffered().first_chunk()?;
        let length =
            usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).expect("24 bits");
        if self.input.buffered().len() < 9 + length {
            return None;
        }
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Some((head[3], head[4], stream, self.input.take(9 + length).split_off(9)))
    }

    async fn take(&mut self, kind: u8, flags: u8, stream: u32, mut payload: Vec<u8>) {
        match kind {
            kind::SETTINGS if flags & ACK == 0 => {
                let mut out = Vec::new();
                write_frame(&mut out, kind::SETTINGS, ACK, 0, &[]);
                self.send(&out).await;
            }
            kind::HEADERS => {
                unpad(&mut payload, flags);
                if flags & PRIORITIZED != 0 {
                    payload.drain(..5.min(payload.len()));
                }
                self.block = Some((stream, flags & END_STREAM != 0, payload));
            }
            kind::CONTINUATION => {
                if let Some((_, _, block)) = &mut self.block {
                    block.extend_from_slice(&payload);
                }
            }
            kind::DATA => {
                unpad(&mut payload, flags);
                if let Some(answer) = self.answers.get_mut(&stream) {
                    answer.body.extend_from_slice(&payload);
                    answer.ended |= flags & END_STREAM != 0;
                }
            }
            kind::RST_STREAM => {
                if let Some(answer) = self.answers.get_mut(&stream) {
                    answer.reset = true;
                }
            }
            // A code of 0 lets what is under way come to its end (RFC 9113 section 6.8).
            kind::GOAWAY => self.gone |= payload.get(4..8).is_some_and(|code| code != [0; 4]),
            _ => {}
        }
        if matches!(kind, kind::HEADERS | kind::CONTINUATION) && flags & END_HEADERS != 0 {
            self.decode();
        }
    }

    fn decode(&mut self) {
        let Some((stream, last, block)) = self.block.take() else { return };
        let Ok(fields) = self.decoder.decode(&block) else {
            self.gone = true;
            return;
        };
        let Some(answer) = self.answers.get_mut(&stream) else { return };
        answer.ended |= last;
        let trailers = answer.status.is_some_and(|status| status >= 200);
        for (name, value) in fields {
            let name = String::from_utf8_lossy(&name).into_owned();
            match name.as_str() {
                ":status" => answer.status = String::from_utf8_lossy(&value).parse().ok(),
                _ if trailers => {
                    answer.body.extend_from_slice(format!("\ntrailer {name}: ").as_bytes());
                    answer.body.extend_from_slice(&value);
                }
                _ => answer.fields.push((name, value)),
            }
        }
    }
}

fn unpad(payload: &mut Vec<u8>, flags: u8) {
    if flags & PADDED != 0 && !payload.is_empty() {
        let padding = usize::from(payload.remove(0));
        payload.truncate(payload.len().saturating_sub(padding));
    }
}
