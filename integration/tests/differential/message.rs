//! HTTP/1 messages as bytes: read strictly, since a proxy writes them well or it is a finding.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Most bytes of a head.
const MAX_HEAD: usize = 1024 * 1024;

/// The head of a request or response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    /// Request line or status line, without its end.
    pub(crate) start: Vec<u8>,
    /// Names and values in the order of their arrival; names as they came.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// The head in `bytes`, which end with an empty line; `None` if it is none.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = bytes.strip_suffix(b"\r\n\r\n")?;
        let mut lines = split_lines(text).into_iter();
        let start = lines.next()?.to_vec();
        Some(Self { start, fields: lines.map(field).collect::<Option<_>>()? })
    }

    /// The same of a request, whose line must have three parts.
    pub(crate) fn request(bytes: &[u8]) -> Option<Self> {
        let head = Self::parse(bytes)?;
        let parts: Vec<&[u8]> = head.start.split(|b| *b == b' ').collect();
        (parts.len() == 3
            && parts.iter().all(|p| !p.is_empty())
            && parts[2].starts_with(b"HTTP/1."))
        .then_some(head)
    }

    /// What is no head.
    pub(crate) fn garbage(bytes: &[u8]) -> Self {
        Self { start: bytes.to_vec(), fields: Vec::new() }
    }

    /// The head of an HTTP/2 request, pseudo headers as its first line.
    pub(crate) fn http2(parts: &http::request::Parts) -> Self {
        let uri = &parts.uri;
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        let scheme = uri.scheme_str().unwrap_or("-");
        let start = format!("{} {path} HTTP/2 {scheme}", parts.method);
        let mut fields = crate::application::fields(&parts.headers);
        if let Some(authority) = uri.authority() {
            fields.push((":authority".into(), authority.as_str().as_bytes().to_vec()));
        }
        Self { start: start.into_bytes(), fields }
    }

    /// All values of a field.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }

    /// Whether an element of a list field is this.
    pub(crate) fn lists(&self, name: &str, element: &str) -> bool {
        let elements = self.values(name).flat_map(|value| value.split(|b| *b == b','));
        elements.into_iter().any(|e| e.trim_ascii().eq_ignore_ascii_case(element.as_bytes()))
    }

    /// The status of a response.
    pub(crate) fn status(&self) -> Option<u16> {
        let code = self.start.strip_prefix(b"HTTP/1.")?.get(2..5)?;
        std::str::from_utf8(code).ok()?.parse().ok()
    }

    fn length(&self) -> Option<Option<usize>> {
        let mut values = self.values("content-length");
        match (values.next(), values.next()) {
            (None, _) => Some(None),
            (Some(value), None) => Some(Some(std::str::from_utf8(value).ok()?.parse().ok()?)),
            (Some(_), Some(_)) => None,
        }
    }
}

fn split_lines(text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(2).position(|w| w == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    lines
}

fn field(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|b| *b == b':')?;
    let name = std::str::from_utf8(&line[..colon]).ok()?;
    Some((name.to_owned(), line[colon + 1..].trim_ascii().to_vec()))
}

/// How the end of a body is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    None,
    Length(usize),
    Chunked,
    /// Until the connection ends.
    End,
    /// In two ways, or in none that is known.
    Broken,
}

impl Framing {
    /// RFC 9112 section 6.3, for a request.
    pub(crate) fn of_request(head: &Head) -> Self {
        match (head.values("transfer-encoding").next(), head.length()) {
            (Some(b"chunked"), Some(None)) => Self::Chunked,
            (None, Some(None | Some(0))) => Self::None,
            (None, Some(Some(length))) => Self::Length(length),
            _ => Self::Broken,
        }
    }

    /// The same for a response to a request whose method may forbid a body.
    pub(crate) fn of_response(head: &Head, is_head: bool) -> Self {
        let status = head.status().unwrap_or_default();
        if is_head || status < 200 || matches!(status, 204 | 304) {
            return Self::None;
        }
        match (head.values("transfer-encoding").next(), head.length()) {
            (Some(b"chunked"), Some(None)) => Self::Chunked,
            (None, Some(None)) => Self::End,
            (None, Some(Some(length))) => Self::Length(length),
            _ => Self::Broken,
        }
    }
}

/// A connection's bytes, read as they are needed.
pub(crate) struct Input<S> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Input<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Reads more; false at the end.
    pub(crate) async fn fill(&mut self) -> std::io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// What was read and not taken.
    pub(crate) fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Takes what was read.
    pub(crate) fn take_buffered(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Takes so many bytes, which must have been read.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Everything until the end.
    pub(crate) async fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        while self.fill().await? {}
        Ok(self.take_buffered())
    }

    /// The next head with its empty line; `None` when the connection ends before one begins.
    ///
    /// # Errors
    /// The connection breaks, or ends within a head.
    pub(crate) async fn head(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                return Ok(Some(self.take(at + 4)));
            }
            if self.buffer.len() > MAX_HEAD || !self.fill().await? {
                let cut = std::io::ErrorKind::UnexpectedEof;
                return if self.buffer.is_empty() { Ok(None) } else { Err(cut.into()) };
            }
        }
    }

    /// A line without its end; `None` when there is none any more.
    async fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let mut line = self.take(at + 2);
                line.truncate(at);
                return Some(line);
            }
            if !self.fill().await.ok()? {
                return None;
            }
        }
    }
}

/// A body on its way.
pub(crate) struct Body {
    framing: Framing,
    /// Bytes that are still to come, of the body or of the chunk.
    left: usize,
    begun: bool,
    /// Known behind the last chunk.
    pub(crate) trailers: Vec<(String, Vec<u8>)>,
}

impl Body {
    pub(crate) fn new(framing: Framing) -> Self {
        let left = if let Framing::Length(length) = framing { length } else { 0 };
        Self { framing, left, begun: false, trailers: Vec::new() }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// It is cut, or framed badly.
    pub(crate) async fn next<S: AsyncRead + Unpin>(
        &mut self,
        input: &mut Input<S>,
    ) -> Result<Option<Vec<u8>>, ()> {
        match self.framing {
            Framing::None => Ok(None),
            Framing::Broken => Err(()),
            Framing::End => {
                let more = !input.buffer.is_empty() || input.fill().await.map_err(|_| ())?;
                Ok(more.then(|| input.take_buffered()))
            }
            Framing::Length(_) if self.left == 0 => Ok(None),
            Framing::Length(_) => self.some(input).await.map(Some),
            Framing::Chunked => self.chunk(input).await,
        }
    }

    async fn some<S: AsyncRead + Unpin>(&mut self, input: &mut Input<S>) -> Result<Vec<u8>, ()> {
        if input.buffer.is_empty() && !input.fill().await.map_err(|_| ())? {
            return Err(());
        }
        let piece = input.take(input.buffer.len().min(self.left));
        self.left -= piece.len();
        Ok(piece)
    }

    async fn chunk<S: AsyncRead + Unpin>(
        &mut self,
        input: &mut Input<S>,
    ) -> Result<Option<Vec<u8>>, ()> {
        if self.left == 0 {
            if self.begun && !input.line().await.ok_or(())?.is_empty() {
                return Err(());
            }
            self.begun = true;
            let line = input.line().await.ok_or(())?;
            let size = std::str::from_utf8(&line).map_err(|_| ())?;
            self.left = usize::from_str_radix(size, 16).map_err(|_| ())?;
            if self.left == 0 {
                return self.trailer(input).await.map(|()| None);
            }
        }
        self.some(input).await.map(Some)
    }

    async fn trailer<S: AsyncRead + Unpin>(&mut self, input: &mut Input<S>) -> Result<(), ()> {
        self.framing = Framing::None;
        loop {
            let line = input.line().await.ok_or(())?;
            if line.is_empty() {
                return Ok(());
            }
            self.trailers.push(field(&line).ok_or(())?);
        }
    }
}
