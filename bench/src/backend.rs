//! The backend: constant answers as cheaply as they can be given, on a few listeners of one single-threaded process.
//!
//! HTTP/1.1 answers each `\r\n\r\n` (requests have no body); HTTP/2 each finished stream; gRPC each message, and each
//! finished stream with its trailers (a collector of traces is that too); `echo` sends each byte back; `source` sends
//! without end after the first byte. The services of the large configuration are HTTP/1.1 on addresses of their own.
//! Prints its ports as one JSON line, then serves until it is ended.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Result, bail};
use serde_json::json;

use crate::grpc;
use crate::http2::{self, Block, Frame, Frames, kind, setting};
use crate::poll::{Poll, Ready};
use crate::set::large;
use crate::shape;

/// One read takes at most so much.
const READ_BYTES: usize = 64 * 1024;
/// `source` offers so much per write.
const SOURCE_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1(Size),
    Http2,
    /// Every message is answered by one of so many bytes.
    Grpc {
        message: usize,
    },
    Echo,
    Source,
}

/// How long the body of an HTTP/1.1 answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Empty,
    Usual,
    Big,
}

const WIDE: &str = "wide";

const PROTOCOLS: [(Protocol, &str); 9] = [
    (Protocol::Http1(Size::Usual), "http1"),
    (Protocol::Http1(Size::Empty), "empty"),
    (Protocol::Http1(Size::Big), "big"),
    (Protocol::Http1(Size::Usual), WIDE),
    (Protocol::Http2, "http2"),
    (
        Protocol::Grpc {
            message: grpc::ANSWER_BYTES,
        },
        "grpc",
    ),
    (Protocol::Grpc { message: 0 }, "collector"),
    (Protocol::Echo, "echo"),
    (Protocol::Source, "source"),
];

/// What is the same for all connections.
#[derive(Debug)]
struct Answers {
    usual: Vec<u8>,
    empty: Vec<u8>,
    big: Vec<u8>,
    http2: Block,
    body: Vec<u8>,
    source: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    talk: Talk,
    /// Bytes that the socket did not take yet.
    out: Vec<u8>,
    blocked: bool,
}

#[derive(Debug)]
enum Talk {
    /// How many bytes of the blank line that ends a head have been seen.
    Http1 {
        size: Size,
        matched: usize,
    },
    Http2(Box<Server>),
    Grpc(Box<grpc::Server>),
    Echo,
    Source {
        begun: bool,
    },
}

/// Serves until the process is ended.
pub(crate) fn serve() -> Result<()> {
    let answers = Answers {
        usual: shape::http1_response(shape::BODY_BYTES),
        empty: shape::http1_response(0),
        big: shape::http1_response(shape::BIG_BYTES),
        http2: http2::response_block(shape::BODY_BYTES),
        body: vec![b'x'; shape::BODY_BYTES],
        source: vec![b'x'; SOURCE_BYTES],
    };
    let mut poll = Poll::new()?;
    let mut listeners = Vec::new();
    let mut ports = serde_json::Map::new();
    for (protocol, name) in PROTOCOLS {
        let bound = if name == WIDE {
            bind_wide()?
        } else {
            vec![TcpListener::bind(("127.0.0.1", 0))?]
        };
        ports.insert(name.to_owned(), json!(bound[0].local_addr()?.port()));
        for listener in bound {
            listener.set_nonblocking(true)?;
            poll.add(&listener, listeners.len() as u64)?;
            listeners.push((listener, protocol));
        }
    }
    println!("{}", serde_json::Value::Object(ports));

    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut next = listeners.len() as u64;
    let (mut ready, mut buffer) = (Vec::new(), vec![0; READ_BYTES]);
    loop {
        poll.wait(None, &mut ready)?;
        for event in &ready {
            if let Some((listener, protocol)) = listeners.get(event.token as usize) {
                while let Ok((socket, _)) = listener.accept() {
                    let connection = Connection::new(socket, *protocol)?;
                    poll.add(&connection.socket, next)?;
                    connections.insert(next, connection);
                    next += 1;
                }
            } else if let Some(connection) = connections.get_mut(&event.token)
                && connection.step(*event, &poll, &answers, &mut buffer).is_err()
            {
                connections.remove(&event.token);
            }
        }
    }
}

/// One port on each address of those services of the large configuration that are ever asked.
fn bind_wide() -> Result<Vec<TcpListener>> {
    let addresses: Vec<String> = large::used()
        .chain(large::unused())
        .flat_map(|service| (0..large::ENDPOINTS).map(move |copy| large::address(service, copy)))
        .collect();
    let all_at = |port: u16| -> std::io::Result<Vec<TcpListener>> {
        addresses
            .iter()
            .map(|address| TcpListener::bind((address.as_str(), port)))
            .collect()
    };
    for port in 18_000..18_100 {
        if let Ok(listeners) = all_at(port) {
            return Ok(listeners);
        }
    }
    bail!("no port from 18000 to 18099 is free on the addresses of the large configuration")
}

impl Connection {
    fn new(socket: TcpStream, protocol: Protocol) -> Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let mut out = Vec::new();
        let talk = match protocol {
            Protocol::Http1(size) => Talk::Http1 { size, matched: 0 },
            Protocol::Grpc { message } => Talk::Grpc(Box::new(grpc::Server::new(message, &mut out))),
            Protocol::Http2 => {
                http2::put_settings(&mut out, &[(setting::MAX_CONCURRENT_STREAMS, 1024)]);
                Talk::Http2(Box::default())
            }
            Protocol::Echo => Talk::Echo,
            Protocol::Source => Talk::Source { begun: false },
        };
        Ok(Self {
            socket,
            talk,
            out,
            blocked: false,
        })
    }

    /// Reads once, answers, writes; an error ends the connection.
    fn step(&mut self, event: Ready, poll: &Poll, answers: &Answers, buffer: &mut [u8]) -> Result<()> {
        if event.readable {
            match self.socket.read(buffer) {
                Ok(0) => bail!("closed"),
                Ok(n) => self.input(&buffer[..n], answers)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        if matches!(self.talk, Talk::Source { begun: true }) {
            match self.socket.write(&answers.source) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.flush()?;
        let blocked = !self.out.is_empty() || matches!(self.talk, Talk::Source { begun: true });
        if blocked != self.blocked {
            self.blocked = blocked;
            poll.want(&self.socket, event.token, true, blocked)?;
        }
        Ok(())
    }

    fn input(&mut self, bytes: &[u8], answers: &Answers) -> Result<()> {
        match &mut self.talk {
            Talk::Http1 { size, matched } => {
                let answer = match size {
                    Size::Empty => &answers.empty,
                    Size::Usual => &answers.usual,
                    Size::Big => &answers.big,
                };
                for _ in 0..heads(matched, bytes) {
                    self.out.extend_from_slice(answer);
                }
            }
            Talk::Grpc(server) => server.input(bytes, &mut self.out)?,
            Talk::Http2(server) => server.input(bytes, answers, &mut self.out)?,
            Talk::Echo => self.out.extend_from_slice(bytes),
            Talk::Source { begun } => *begun = true,
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// How many blank lines end in `bytes`; `matched` carries over.
fn heads(matched: &mut usize, bytes: &[u8]) -> usize {
    const END: &[u8; 4] = b"\r\n\r\n";
    let mut found = 0;
    for &byte in bytes {
        *matched = if byte == END[*matched] {
            *matched + 1
        } else {
            usize::from(byte == b'\r')
        };
        if *matched == END.len() {
            *matched = 0;
            found += 1;
        }
    }
    found
}

/// The server's end of an HTTP/2 connection.
#[derive(Debug)]
struct Server {
    frames: Frames,
    /// Bytes of the client's preface still to come.
    preface: usize,
    /// Whether the fields of the answer stand in the client's table (`None`: it has no table to speak of).
    entered: Option<bool>,
    /// What the client still takes on this connection.
    window: i64,
    /// What it takes per stream from the start.
    stream_window: i64,
    /// Streams whose answer's body waits for the window; the client bounds their number.
    waiting: VecDeque<u32>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            frames: Frames::default(),
            preface: http2::PREFACE.len(),
            entered: Some(false),
            window: http2::WINDOW,
            stream_window: http2::WINDOW,
            waiting: VecDeque::new(),
        }
    }
}

impl Server {
    fn input(&mut self, bytes: &[u8], answers: &Answers, out: &mut Vec<u8>) -> Result<()> {
        let skip = self.preface.min(bytes.len());
        self.preface -= skip;
        let mut frames = std::mem::take(&mut self.frames);
        frames.feed(&bytes[skip..], |frame| self.frame(frame, answers, out))?;
        self.frames = frames;
        Ok(())
    }

    fn frame(&mut self, frame: Frame<'_>, answers: &Answers, out: &mut Vec<u8>) -> Result<()> {
        match frame.kind {
            kind::HEADERS | kind::DATA => {
                if frame.kind == kind::DATA && !frame.payload.is_empty() {
                    http2::put_window(out, 0, frame.payload.len() as u32);
                }
                if frame.flags & http2::END_STREAM != 0 {
                    self.answer(frame.stream, answers, out)?;
                }
            }
            kind::SETTINGS if frame.flags & http2::ACK == 0 => {
                for (id, value) in http2::settings(frame.payload) {
                    match id {
                        setting::INITIAL_WINDOW_SIZE => self.stream_window = i64::from(value),
                        setting::HEADER_TABLE_SIZE if value < 4096 => self.entered = None,
                        _ => {}
                    }
                }
                http2::put(out, kind::SETTINGS, http2::ACK, 0, &[]);
            }
            kind::PING if frame.flags & http2::ACK == 0 => {
                http2::put(out, kind::PING, http2::ACK, 0, frame.payload)
            }
            kind::WINDOW_UPDATE if frame.stream == 0 => {
                self.window += http2::increment(frame.payload);
                while self.window >= answers.body.len() as i64
                    && let Some(stream) = self.waiting.pop_front()
                {
                    self.body(stream, answers, out);
                }
            }
            kind::RST_STREAM => self.waiting.retain(|stream| *stream != frame.stream),
            kind::GOAWAY => bail!("the client leaves"),
            _ => {}
        }
        Ok(())
    }

    fn answer(&mut self, stream: u32, answers: &Answers, out: &mut Vec<u8>) -> Result<()> {
        if answers.body.len() as i64 > self.stream_window {
            bail!(
                "a window of {} bytes per stream is too small for this benchmark",
                self.stream_window
            );
        }
        let block = match self.entered {
            None | Some(false) => &answers.http2.first,
            Some(true) => &answers.http2.later,
        };
        if self.entered.is_some() {
            self.entered = Some(true);
        }
        http2::put(out, kind::HEADERS, http2::END_HEADERS, stream, block);
        if self.window >= answers.body.len() as i64 {
            self.body(stream, answers, out);
        } else {
            self.waiting.push_back(stream);
        }
        Ok(())
    }

    fn body(&mut self, stream: u32, answers: &Answers, out: &mut Vec<u8>) {
        self.window -= answers.body.len() as i64;
        let mut pieces = answers.body.chunks(http2::FRAME_MAX).peekable();
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() {
                http2::END_STREAM
            } else {
                0
            };
            http2::put(out, kind::DATA, flags, stream, piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_counted_across_reads() {
        let mut matched = 0;
        assert_eq!(heads(&mut matched, b"GET / HTTP/1.1\r\na: b\r\n\r"), 0);
        assert_eq!(heads(&mut matched, b"\nGET / HTTP/1.1\r\n\r\nGET"), 2);
    }
}
