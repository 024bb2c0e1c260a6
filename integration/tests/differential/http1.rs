//! HTTP/1 requests of any bytes, and the exchange of one with a proxy.

use std::time::Duration;

use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use crate::{
    exchange::{Exchanged, Route},
    message::{Body, Framing, Head, Input},
    outcome::{End, Response},
};

/// How a client breaks off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Break {
    /// It sends no more, but still listens.
    HalfClose,
    /// It is gone at once.
    Reset,
}

/// What follows the first bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// The answer, then another request on the same connection.
    Next,
    /// Only so many bytes of the body are sent; when the application has seen the head, the client
    /// breaks off.
    Cut { keep: usize, how: Break },
    /// Only so many bytes of the body are sent, the rest after the answer.
    Late { keep: usize },
    /// The answer changes the protocol; then bytes go to and fro.
    Tunnel,
}

/// A request in the parts that it is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    /// Before the request line.
    pub(crate) prefix: Vec<u8>,
    pub(crate) method: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) version: Vec<u8>,
    /// Between the three.
    pub(crate) gaps: [Vec<u8>; 2],
    /// End of the request line.
    pub(crate) end: Vec<u8>,
    /// Whole lines.
    pub(crate) fields: Vec<Vec<u8>>,
    /// Ends the head.
    pub(crate) blank: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) ending: Ending,
}

impl Request {
    /// A plain one.
    pub(crate) fn new(host: &str, case: &str) -> Self {
        Self {
            prefix: Vec::new(),
            method: b"GET".to_vec(),
            target: b"/".to_vec(),
            version: b"HTTP/1.1".to_vec(),
            gaps: [b" ".to_vec(), b" ".to_vec()],
            end: b"\r\n".to_vec(),
            fields: vec![
                format!("host: {host}\r\n").into_bytes(),
                format!("x-case: {case}\r\n").into_bytes(),
            ],
            blank: b"\r\n".to_vec(),
            body: Vec::new(),
            ending: Ending::Next,
        }
    }

    /// The bytes before its body.
    pub(crate) fn head(&self) -> Vec<u8> {
        let [first, second] = &self.gaps;
        let line =
            [&self.prefix, &self.method, first, &self.target, second, &self.version, &self.end];
        let line = line.into_iter().flatten();
        line.chain(self.fields.iter().flatten()).chain(&self.blank).copied().collect()
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.head(), self.body.clone()].concat()
    }
}

struct Client<'a> {
    route: &'a Route<'a>,
    input: Input<OwnedReadHalf>,
    output: OwnedWriteHalf,
    responses: Vec<Response>,
    tunnel: Vec<u8>,
}

/// Sends a request over a connection of its own, and tells what came back.
pub(crate) async fn exchange(request: &Request, route: &Route<'_>) -> Exchanged {
    let Ok(stream) = TcpStream::connect(route.entry).await else { return Exchanged::nothing() };
    let _ = stream.set_nodelay(true);
    let reset = matches!(request.ending, Ending::Cut { how: Break::Reset, .. });
    if reset {
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
    let (input, output) = stream.into_split();
    let mut client = Client {
        route,
        input: Input::new(input),
        output,
        responses: Vec::new(),
        tunnel: Vec::new(),
    };
    let end = match request.ending {
        Ending::Cut { keep, how } => client.cut(request, keep, how).await,
        Ending::Next => client.whole(request).await,
        Ending::Late { keep } => client.late(request, keep).await,
        Ending::Tunnel => client.upgrade(request).await,
    };
    Exchanged { responses: client.responses, end, tunnel: client.tunnel }
}

impl Client<'_> {
    /// What cannot be sent any more is answered all the same, or seen to be closed.
    async fn send(&mut self, bytes: &[u8]) {
        let _ = timeout(self.route.patience, self.output.write_all(bytes)).await;
    }

    async fn whole(&mut self, request: &Request) -> End {
        self.send(&request.bytes()).await;
        match self.response(request.method == b"HEAD").await {
            Ok(()) => self.follow_up().await,
            Err(end) => end,
        }
    }

    async fn late(&mut self, request: &Request, keep: usize) -> End {
        let (now, later) = request.body.split_at(keep.min(request.body.len()));
        self.send(&[request.head(), now.to_vec()].concat()).await;
        match self.response(request.method == b"HEAD").await {
            Ok(()) => {
                self.send(later).await;
                self.follow_up().await
            }
            Err(end) => end,
        }
    }

    async fn cut(&mut self, request: &Request, keep: usize, how: Break) -> End {
        let now = &request.body[..keep.min(request.body.len())];
        self.send(&[request.head(), now.to_vec()].concat()).await;
        tokio::select! {
            _ = self.route.seen.until_body(self.route.id, 0, self.route.patience) => {}
            _ = self.input.fill() => {}
        }
        match how {
            // The lingering time of 0 makes it a reset.
            Break::Reset => return End::Closed,
            Break::HalfClose => {
                let _ = self.output.shutdown().await;
            }
        }
        self.all().await
    }

    async fn upgrade(&mut self, request: &Request) -> End {
        self.send(&request.bytes()).await;
        if let Err(end) = self.response(false).await {
            return end;
        }
        if self.responses.last().is_none_or(|response| response.status != 101) {
            return self.follow_up().await;
        }
        self.send(b"to and fro").await;
        while self.input.buffered().len() < b"to and fro".len() {
            match timeout(self.route.patience, self.input.fill()).await {
                Ok(Ok(true)) => {}
                Ok(_) => return End::Closed,
                Err(_) => return End::Silent,
            }
        }
        self.tunnel = self.input.take_buffered();
        End::Served
    }

    /// Asks again on the same connection, and reads to its end.
    async fn follow_up(&mut self) -> End {
        let Route { host, id, .. } = self.route;
        let line = format!(
            "GET /follow-up HTTP/1.1\r\nhost: {host}\r\nx-case: {id}-0\r\nconnection: close\r\n\r\n"
        );
        self.send(line.as_bytes()).await;
        self.all().await
    }

    /// Reads responses until the end.
    async fn all(&mut self) -> End {
        loop {
            if let Err(end) = self.response(false).await {
                return end;
            }
        }
    }

    /// Reads one final response and those that precede it; `Err` when the connection ends with it,
    /// or before.
    async fn response(&mut self, is_head: bool) -> Result<(), End> {
        loop {
            let head = match timeout(self.route.patience, self.input.head()).await {
                Ok(Ok(Some(bytes))) => Head::parse(&bytes).unwrap_or_else(|| Head::garbage(&bytes)),
                Ok(_) => return Err(End::Closed),
                Err(_) => return Err(End::Silent),
            };
            let status = head.status().unwrap_or_default();
            let (body, complete) = self.body(Framing::of_response(&head, is_head)).await;
            let response = Response::new(status, &head.fields, &body, complete, &self.route.prefix);
            self.responses.push(response);
            if !complete
                || head.lists("connection", "close")
                || !head.start.starts_with(b"HTTP/1.1")
            {
                return Err(End::Closed);
            }
            if status >= 200 || status == 101 {
                return Ok(());
            }
        }
    }

    async fn body(&mut self, framing: Framing) -> (Vec<u8>, bool) {
        let (mut body, mut bytes) = (Body::new(framing), Vec::new());
        loop {
            match timeout(self.route.patience, body.next(&mut self.input)).await {
                Ok(Ok(Some(piece))) => bytes.extend_from_slice(&piece),
                Ok(Ok(None)) => {
                    for (name, value) in &body.trailers {
                        bytes.extend_from_slice(format!("\ntrailer {name}: ").as_bytes());
                        bytes.extend_from_slice(value);
                    }
                    return (bytes, true);
                }
                Ok(Err(())) | Err(_) => return (bytes, false),
            }
        }
    }
}
