//! Applications within pods: each answers with its name and with the head of what it was asked.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use ferromesh_integration::namespace::Pod;

/// Serves HTTP/1.1 on a port of a pod until the test ends.
pub(crate) fn serve(pod: &Pod, name: &'static str, port: u16) {
    each(pod, port, move |stream| answer(stream, name));
}

/// Speaks first on a port of a pod, and then sends back what comes.
pub(crate) fn speak_first(pod: &Pod, port: u16) {
    each(pod, port, |mut stream| {
        if stream.write_all(b"hello").is_ok() {
            echo(stream);
        }
    });
}

fn each(pod: &Pod, port: u16, serve: impl Fn(TcpStream) + Copy + Send + 'static) {
    let listener = pod.inside(|| TcpListener::bind(("0.0.0.0", port)).expect("a free port"));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
}

fn answer(mut stream: TcpStream, name: &str) {
    let (mut head, mut part) = (Vec::new(), [0; 16_384]);
    while let Ok(read @ 1..) = stream.read(&mut part) {
        head.extend_from_slice(&part[..read]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        if text.to_ascii_lowercase().contains("upgrade: websocket") {
            let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            if stream.write_all(head.as_bytes()).is_ok() {
                echo(stream);
            }
            return;
        }
        let body = format!("application {name}\r\n{text}");
        let line = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(line.as_bytes()).is_err() {
            return;
        }
        head.clear();
    }
}

fn echo(mut stream: TcpStream) {
    let mut part = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut part) {
        if stream.write_all(&part[..read]).is_err() {
            return;
        }
    }
}
