//! The two ends of a counted request: a client that asks one request after the other on one connection, and a server
//! that answers each with the same kilobyte. HTTP/1.1, and as much of HTTP/2 (RFC 9113) as these fixed messages need.
//!
//! No implementation to use elsewhere: both know what the other sends. Every read is bounded by [`PATIENCE`].

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::PATIENCE;

/// What is asked.
pub(super) enum Message {
    /// HTTP/1.1: this text.
    Text(&'static str),
    /// HTTP/2: a GET with these fields beside the pseudo headers.
    Fields(&'static [(&'static str, &'static str)]),
}

pub(super) const GET: Message = Message::Text(
    "GET /bench/item?id=42 HTTP/1.1\r\nhost: bench.example\r\nuser-agent: counted\r\naccept: */*\r\n\r\n",
);
pub(super) const BROWSER: Message = Message::Text(
    "GET /bench/item?id=42 HTTP/1.1\r\nhost: bench.example\r\nconnection: keep-alive\r\n\
cache-control: max-age=0\r\nsec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"\r\nsec-ch-ua-mobile: ?0\r\n\
sec-ch-ua-platform: \"Linux\"\r\nuser-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
Chrome/140.0.0.0 Safari/537.36\r\naccept: application/json, text/plain, */*\r\norigin: https://app.bench.example\r\n\
sec-fetch-site: same-site\r\nsec-fetch-mode: cors\r\nsec-fetch-dest: empty\r\n\
referer: https://app.bench.example/patients/4711/encounters?page=2\r\naccept-encoding: gzip, deflate, br, zstd\r\n\
accept-language: de-CH,de;q=0.9,en;q=0.8,id;q=0.7\r\ncookie: session=6f1d0c9a7be34c2f8d3e5a1b; theme=dark\r\n\r\n",
);
const BODY_SENT: &str = "seventeen bytes.\n";
pub(super) const POST: Message = Message::Text(
    "POST /bench/item HTTP/1.1\r\nhost: bench.example\r\nuser-agent: counted\r\n\
content-type: text/plain\r\ncontent-length: 17\r\n\r\nseventeen bytes.\n",
);
pub(super) const RPC: Message = Message::Fields(&[("user-agent", "counted"), ("accept", "*/*")]);

/// Bytes of every answer's body.
const BODY: usize = 1024;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Asks.
pub(super) struct Client {
    socket: TcpStream,
    /// HTTP/2: what arrived and is not yet read, and the streams opened.
    seen: Vec<u8>,
    streams: u32,
}

impl Client {
    /// Connects once the proxy listens; `alive` tells whether it still may.
    pub(super) fn connect(port: u16, first: &Message, mut alive: impl FnMut() -> Result<()>) -> Result<Self> {
        let start = Instant::now();
        let mut socket = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(socket) => break socket,
                Err(error) => {
                    alive()?;
                    ensure!(start.elapsed() < PATIENCE, "the proxy does not answer: {error}");
                    thread::sleep(Duration::from_millis(20));
                }
            }
        };
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        if matches!(first, Message::Fields(_)) {
            let mut out = PREFACE.to_vec();
            put_frame(&mut out, SETTINGS, 0, 0, &[]);
            // The connection's window is never used up.
            put_frame(&mut out, WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes());
            socket.write_all(&out)?;
        }
        Ok(Self {
            socket,
            seen: Vec::new(),
            streams: 0,
        })
    }

    /// Asks and reads the whole answer, which must be 200.
    pub(super) fn ask(&mut self, message: &Message) -> Result<()> {
        match message {
            Message::Text(text) => self.ask_text(text),
            Message::Fields(fields) => self.ask_stream(fields),
        }
    }

    fn ask_text(&mut self, text: &str) -> Result<()> {
        self.socket.write_all(text.as_bytes())?;
        let (mut buffer, mut seen) = ([0; 16 * 1024], Vec::new());
        loop {
            let count = self.socket.read(&mut buffer).context("no answer")?;
            ensure!(count > 0, "closed without an answer");
            seen.extend_from_slice(&buffer[..count]);
            if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n")
                && seen.len() == end + 4 + BODY
            {
                ensure!(seen.starts_with(b"HTTP/1.1 200"), "another answer than 200");
                return Ok(());
            }
        }
    }

    fn ask_stream(&mut self, fields: &[(&str, &str)]) -> Result<()> {
        let stream = self.streams * 2 + 1;
        // :method GET and :scheme http are in the static table (RFC 7541 appendix A), :path is told anew each time.
        let mut block = vec![0x82, 0x86, 0x04];
        put_text(&mut block, "/bench/item?id=42")?;
        put_fields(
            &mut block,
            &[&[(":authority", "bench.example")], fields].concat(),
            self.streams == 0,
        )?;
        self.streams += 1;
        let mut out = Vec::new();
        put_frame(&mut out, HEADERS, END_STREAM | END_HEADERS, stream, &block);
        self.socket.write_all(&out)?;
        let (mut status, mut body) = (false, 0);
        loop {
            let frame = read_frame(&mut self.socket, &mut self.seen)?.context("closed without an answer")?;
            match frame.kind {
                HEADERS if frame.stream == stream => status = says_200(&frame.payload),
                DATA if frame.stream == stream => body += frame.payload.len(),
                GOAWAY => bail!("the proxy ends the connection"),
                _ => answer_control(&mut self.socket, &frame)?,
            }
            if frame.stream == stream && frame.kind <= HEADERS && frame.flags & END_STREAM != 0 {
                ensure!(status && body == BODY, "another answer than 200");
                return Ok(());
            }
        }
    }
}

/// Whether a block says 200 (index 8 of the static table), perhaps behind changes of the table's size.
fn says_200(mut block: &[u8]) -> bool {
    while let Some((first, rest)) = block.split_first() {
        if first & 0xe0 != 0x20 {
            return *first == 0x88;
        }
        let more = if first & 0x1f == 0x1f {
            rest.iter()
                .position(|byte| byte & 0x80 == 0)
                .map_or(rest.len(), |at| at + 1)
        } else {
            0
        };
        block = &rest[more..];
    }
    false
}

/// Answers every request on a connection until it closes.
pub(super) fn serve(mut socket: TcpStream) -> Result<()> {
    socket.set_nodelay(true)?;
    let (mut buffer, mut seen) = ([0; 16 * 1024], Vec::new());
    let head = format!(
        "HTTP/1.1 200 OK\r\nserver: counted\r\ncontent-type: text/plain\r\ncontent-length: {BODY}\r\n\r\n"
    );
    let mut whole = head.into_bytes();
    whole.resize(whole.len() + BODY, b'x');
    while let count @ 1.. = socket.read(&mut buffer)? {
        seen.extend_from_slice(&buffer[..count]);
        if seen.starts_with(PREFACE) {
            seen.drain(..PREFACE.len());
            return serve_streams(socket, seen);
        }
        // By its last bytes, since the requests are our own.
        let complete = seen.ends_with(BODY_SENT.as_bytes())
            || seen.ends_with(b"\r\n\r\n") && !seen.starts_with(b"POST") && !PREFACE.starts_with(&seen);
        if complete {
            seen.clear();
            socket.write_all(&whole)?;
        }
    }
    Ok(())
}

fn serve_streams(mut socket: TcpStream, mut seen: Vec<u8>) -> Result<()> {
    let mut out = Vec::new();
    put_frame(&mut out, SETTINGS, 0, 0, &[]);
    socket.write_all(&out)?;
    let length = BODY.to_string();
    let fields = [
        ("server", "counted"),
        ("content-type", "text/plain"),
        ("content-length", &length),
    ];
    let mut first = true;
    while let Some(frame) = read_frame(&mut socket, &mut seen)? {
        if frame.kind == HEADERS && frame.flags & END_STREAM != 0 {
            let mut block = vec![0x88];
            put_fields(&mut block, &fields, first)?;
            first = false;
            let mut out = Vec::new();
            put_frame(&mut out, HEADERS, END_HEADERS, frame.stream, &block);
            put_frame(&mut out, DATA, END_STREAM, frame.stream, &[b'x'; BODY]);
            socket.write_all(&out)?;
        } else {
            answer_control(&mut socket, &frame)?;
        }
    }
    Ok(())
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// The next frame; `None` where the connection closed.
fn read_frame(socket: &mut TcpStream, seen: &mut Vec<u8>) -> Result<Option<Frame>> {
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some(head) = seen.first_chunk::<FRAME_HEAD>() {
            let [_, a, b, kind, flags, s0, s1, s2, s3] = *head;
            ensure!(head[0] == 0, "a frame longer than the default allows");
            let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
            let end = FRAME_HEAD + usize::from(u16::from_be_bytes([a, b]));
            if seen.len() >= end {
                let payload = seen[FRAME_HEAD..end].to_vec();
                seen.drain(..end);
                return Ok(Some(Frame {
                    kind,
                    flags,
                    stream,
                    payload,
                }));
            }
        }
        let count = socket.read(&mut buffer)?;
        if count == 0 {
            return Ok(None);
        }
        seen.extend_from_slice(&buffer[..count]);
    }
}

/// Settings and pings want an answer.
fn answer_control(socket: &mut TcpStream, frame: &Frame) -> Result<()> {
    let mut out = Vec::new();
    match frame.kind {
        SETTINGS if frame.flags & ACK == 0 => put_frame(&mut out, SETTINGS, ACK, 0, &[]),
        PING if frame.flags & ACK == 0 => put_frame(&mut out, PING, ACK, 0, &frame.payload),
        _ => return Ok(()),
    }
    socket.write_all(&out)?;
    Ok(())
}

fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, _, a, b] = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    out.extend_from_slice(&[0, a, b, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Fields that enter the peer's table with the first message of a connection, and that later ones refer to.
fn put_fields(block: &mut Vec<u8>, fields: &[(&str, &str)], first: bool) -> Result<()> {
    for (place, (name, value)) in fields.iter().enumerate() {
        if first {
            block.push(0x40);
            put_text(block, name)?;
            put_text(block, value)?;
        } else {
            // The newest entry of the dynamic table is number 62.
            block.push(0x80 | u8::try_from(62 + fields.len() - 1 - place)?);
        }
    }
    Ok(())
}

/// A text of at most 126 bytes, not Huffman coded.
fn put_text(block: &mut Vec<u8>, text: &str) -> Result<()> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
    block.push(length.context("a longer text")?);
    block.extend_from_slice(text.as_bytes());
    Ok(())
}
