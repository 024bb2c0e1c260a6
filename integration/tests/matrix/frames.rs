//! A server that speaks just enough of HTTP/2 (RFC 9113) to see whether it is still asked for: it
//! answers no request.

use std::net::TcpListener;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::application::{Servers, asynchronous};

/// Whether it shows that it is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pings {
    Answered,
    Ignored,
}

const PREFACE: usize = 24;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACKNOWLEDGED: u8 = 1;

/// Serves until the test ends; a ping is a request with the line `ping ADDRESS`, by the address
/// that it came to.
pub(crate) fn serve(servers: &Servers, listener: TcpListener, pings: Pings) {
    let servers = servers.clone();
    tokio::spawn(async move {
        let listener = asynchronous(listener);
        while let Ok((stream, _)) = listener.accept().await {
            let servers = servers.clone();
            tokio::spawn(async move { converse(&servers, stream, pings).await });
        }
    });
}

async fn converse(servers: &Servers, mut stream: TcpStream, pings: Pings) -> std::io::Result<()> {
    let line = format!("ping {}", stream.local_addr()?.ip());
    stream.read_exact(&mut [0; PREFACE]).await?;
    stream.write_all(&frame(SETTINGS, 0, &[])).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = Vec::new();
        (&mut stream).take(length.into()).read_to_end(&mut payload).await?;
        let is_new = head[4] & ACKNOWLEDGED == 0;
        match head[3] {
            SETTINGS if is_new => stream.write_all(&frame(SETTINGS, ACKNOWLEDGED, &[])).await?,
            PING if is_new => {
                servers.note_line(&line);
                if pings == Pings::Answered {
                    stream.write_all(&frame(PING, ACKNOWLEDGED, &payload)).await?;
                }
            }
            _ => {}
        }
    }
}

/// A frame of the connection (section 4.1); its payload is shorter than 256 bytes.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a short payload");
    [&[0, 0, length, kind, flags, 0, 0, 0, 0], payload].concat()
}
