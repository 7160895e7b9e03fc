//! The client's end of one connection, by protocol: how a request is begun and when it has been answered. No sockets.

use anyhow::{Result, bail};

use crate::grpc;
use crate::http2::{self, Block, Frame, Frames, kind, setting};
use crate::set::large;
use crate::shape;

/// HTTP/1.1: a head of an answer has at most so many bytes.
const HEAD_MAX: usize = 16 * 1024;
/// An answer of any length has at most so many bytes.
const ANY_MAX: usize = 1 << 20;
/// HTTP/2: what we take per stream and per connection before we say so.
const WINDOW: u32 = 1 << 20;

/// A request that ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finished {
    /// When it was due, nanoseconds.
    pub(super) due: u64,
    /// Status 200 and the whole body.
    pub(super) ok: bool,
}

#[derive(Debug)]
pub(super) enum Session {
    Http1(Http1),
    Http2(Box<Http2>),
    Echo(Echo),
}

impl Session {
    /// `out` gets what the client sends first.
    pub(super) fn new(proto: &str, streams: usize, expect: usize, out: &mut Vec<u8>) -> Result<Self> {
        Ok(match proto {
            "http1" => Self::Http1(Http1::new(&[shape::HOST.to_owned()], shape::FEW, expect)),
            "http1-16" => Self::Http1(Http1::new(&[shape::HOST.to_owned()], shape::MANY, expect)),
            "http1-large" => {
                let hosts: Vec<String> = large::used().map(large::host).collect();
                Self::Http1(Http1::new(&hosts, shape::FEW, expect))
            }
            path if path.starts_with("http1:/") => {
                let mut http1 = Http1::new(&["localhost".to_owned()], shape::FEW, expect);
                http1.any = true;
                for request in &mut http1.requests {
                    let text = String::from_utf8_lossy(request).replace(shape::PATH, &path["http1:".len()..]);
                    *request = text.into_bytes();
                }
                Self::Http1(http1)
            }
            "http2" => Self::Http2(Box::new(Http2::new(Ask::Get, streams, expect, out))),
            "grpc" => Self::Http2(Box::new(Http2::new(Ask::Call, streams, expect, out))),
            "grpc-stream" => Self::Http2(Box::new(Http2::new(Ask::Stream, streams, expect, out))),
            "echo" => Self::Echo(Echo {
                due: None,
                left: 0,
                slots: 1,
            }),
            _ => bail!("--proto http1, http1-16, http1-large, http1:/PATH, http2, grpc, grpc-stream or echo"),
        })
    }

    /// How many more requests can be begun than at the last call.
    pub(super) fn take_slots(&mut self) -> usize {
        std::mem::take(match self {
            Self::Http1(s) => &mut s.slots,
            Self::Http2(s) => &mut s.slots,
            Self::Echo(s) => &mut s.slots,
        })
    }

    /// Whether a request can be begun, or could be before those that were.
    pub(super) fn can_begin(&self) -> bool {
        match self {
            Self::Http1(_) | Self::Echo(_) => true,
            Self::Http2(s) => s.greeted,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        match self {
            Self::Http1(s) => usize::from(s.due.is_some()),
            Self::Http2(s) => s.streams.iter().filter(|stream| stream.due.is_some()).count(),
            Self::Echo(s) => usize::from(s.due.is_some()),
        }
    }

    pub(super) fn begin(&mut self, due: u64, out: &mut Vec<u8>) {
        match self {
            Self::Http1(s) => {
                s.due = Some(due);
                out.extend_from_slice(&s.requests[s.next]);
                s.next = (s.next + 1) % s.requests.len();
            }
            Self::Http2(s) => s.begin(due, out),
            Self::Echo(s) => {
                s.due = Some(due);
                s.left = shape::ECHO_BYTES;
                out.extend_from_slice(&[b'e'; shape::ECHO_BYTES]);
            }
        }
    }

    pub(super) fn input(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        finished: &mut Vec<Finished>,
    ) -> Result<()> {
        match self {
            Self::Http1(s) => s.input(bytes, finished),
            Self::Http2(s) => s.input(bytes, out, finished),
            Self::Echo(s) => s.input(bytes, finished),
        }
    }
}

/// Fixed messages, each answered by as many bytes.
#[derive(Debug)]
pub(super) struct Echo {
    due: Option<u64>,
    left: usize,
    slots: usize,
}

impl Echo {
    fn input(&mut self, bytes: &[u8], finished: &mut Vec<Finished>) -> Result<()> {
        if bytes.len() > self.left {
            bail!("more bytes than were sent");
        }
        self.left -= bytes.len();
        if self.left == 0
            && let Some(due) = self.due.take()
        {
            finished.push(Finished { due, ok: true });
            self.slots += 1;
        }
        Ok(())
    }
}

/// One request at a time.
#[derive(Debug)]
pub(super) struct Http1 {
    /// At least one; taken in turn.
    requests: Vec<Vec<u8>>,
    next: usize,
    /// A body of any length will do, in chunks too.
    any: bool,
    expect: usize,
    due: Option<u64>,
    head: Vec<u8>,
    /// Bytes of the body still to come, once the head is known.
    left: Option<usize>,
    ok: bool,
    slots: usize,
}

impl Http1 {
    fn new(hosts: &[String], fields: &[(&str, &str)], expect: usize) -> Self {
        let requests = hosts.iter().map(|host| shape::http1_request(host, fields));
        Self {
            requests: requests.collect(),
            next: 0,
            any: false,
            expect,
            due: None,
            head: Vec::new(),
            left: None,
            ok: false,
            slots: 1,
        }
    }

    fn input(&mut self, bytes: &[u8], finished: &mut Vec<Finished>) -> Result<()> {
        if self.due.is_none() {
            bail!("bytes that answer no request");
        }
        if self.any {
            return self.input_any(bytes, finished);
        }
        let arrived = match self.left {
            Some(_) => bytes.len(),
            None => {
                self.head.extend_from_slice(bytes);
                let Some(end) = self.head.windows(4).position(|w| w == b"\r\n\r\n") else {
                    if self.head.len() > HEAD_MAX {
                        bail!("a head without end");
                    }
                    return Ok(());
                };
                let head = &self.head[..end];
                let Some(length) = content_length(head) else {
                    bail!("an answer without content-length");
                };
                self.ok = head.starts_with(b"HTTP/1.1 200") && length == self.expect;
                self.left = Some(length);
                self.head.len() - end - 4
            }
        };
        let left = self.left.unwrap_or_default();
        if arrived > left {
            bail!("more bytes than the answer has");
        }
        self.left = Some(left - arrived);
        if arrived == left {
            self.left = None;
            self.head.clear();
            let Some(due) = self.due.take() else {
                bail!("an answer without a request")
            };
            finished.push(Finished { due, ok: self.ok });
            self.slots += 1;
        }
        Ok(())
    }
}

impl Http1 {
    /// An answer of a server that chooses its length and coding; kept whole until it ends.
    fn input_any(&mut self, bytes: &[u8], finished: &mut Vec<Finished>) -> Result<()> {
        self.head.extend_from_slice(bytes);
        if self.head.len() > ANY_MAX {
            bail!("an answer without end");
        }
        let Some(end) = self.head.windows(4).position(|w| w == b"\r\n\r\n") else {
            return Ok(());
        };
        let (head, body) = self.head.split_at(end + 4);
        let whole = match content_length(head) {
            Some(length) => body.len() >= length,
            None => body.ends_with(b"0\r\n\r\n"),
        };
        if whole && let Some(due) = self.due.take() {
            let ok = head.starts_with(b"HTTP/1.1 200");
            self.head.clear();
            finished.push(Finished { due, ok });
            self.slots += 1;
        }
        Ok(())
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    head.split(|b| *b == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(NAME.len())?;
        name.eq_ignore_ascii_case(NAME).then_some(())?;
        std::str::from_utf8(value).ok()?.trim().parse().ok()
    })
}

/// What a request over HTTP/2 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Get,
    /// A gRPC call of one message.
    Call,
    /// One message of a gRPC stream of [`grpc::MESSAGES_PER_STREAM`].
    Stream,
}

/// Several requests at a time, on streams.
#[derive(Debug)]
pub(super) struct Http2 {
    ask: Ask,
    frames: Frames,
    block: Block,
    /// A message that asks, with its prefix.
    message: Vec<u8>,
    entered: bool,
    expect: usize,
    next: u32,
    /// At most `--streams` of them.
    streams: Vec<Stream>,
    streams_max: usize,
    /// Not until the server's settings have come.
    slots: usize,
    greeted: bool,
    /// Bytes received for which the connection's window was not given back yet.
    owed: u32,
}

#[derive(Debug)]
struct Stream {
    id: u32,
    /// `None`: open and waiting for its next message.
    due: Option<u64>,
    /// Messages begun on it.
    asked: usize,
    messages: grpc::Messages,
    bytes: usize,
    ok: bool,
}

impl Http2 {
    fn new(ask: Ask, streams: usize, expect: usize, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(http2::PREFACE);
        http2::put_settings(out, &[(2, 0), (setting::INITIAL_WINDOW_SIZE, WINDOW)]);
        http2::put_window(out, 0, WINDOW - http2::WINDOW as u32);
        let get = ask == Ask::Get;
        Self {
            ask,
            frames: Frames::default(),
            block: if get {
                http2::request_block()
            } else {
                grpc::request_block()
            },
            message: if get {
                Vec::new()
            } else {
                grpc::message(grpc::ASK_BYTES)
            },
            entered: false,
            expect,
            next: 1,
            streams: Vec::new(),
            streams_max: streams,
            slots: 0,
            greeted: false,
            owed: 0,
        }
    }

    fn begin(&mut self, due: u64, out: &mut Vec<u8>) {
        let index = match self.streams.iter().position(|stream| stream.due.is_none()) {
            Some(index) => index,
            None => self.open(out),
        };
        let stream = &mut self.streams[index];
        stream.due = Some(due);
        stream.asked += 1;
        let last = match self.ask {
            Ask::Get => return,
            Ask::Call => true,
            Ask::Stream => stream.asked == grpc::MESSAGES_PER_STREAM,
        };
        let flags = if last { http2::END_STREAM } else { 0 };
        http2::put(out, kind::DATA, flags, stream.id, &self.message);
    }

    /// Opens a stream; its place.
    fn open(&mut self, out: &mut Vec<u8>) -> usize {
        let block = if self.entered {
            &self.block.later
        } else {
            &self.block.first
        };
        let end = if self.ask == Ask::Get {
            http2::END_STREAM
        } else {
            0
        };
        http2::put(out, kind::HEADERS, http2::END_HEADERS | end, self.next, block);
        self.entered = true;
        self.streams.push(Stream {
            id: self.next,
            due: None,
            asked: 0,
            messages: grpc::Messages::default(),
            bytes: 0,
            ok: false,
        });
        self.next += 2;
        self.streams.len() - 1
    }

    fn input(&mut self, bytes: &[u8], out: &mut Vec<u8>, finished: &mut Vec<Finished>) -> Result<()> {
        let mut frames = std::mem::take(&mut self.frames);
        frames.feed(bytes, |frame| self.frame(frame, out, finished))?;
        self.frames = frames;
        if self.owed > WINDOW / 2 {
            http2::put_window(out, 0, std::mem::take(&mut self.owed));
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame<'_>, out: &mut Vec<u8>, finished: &mut Vec<Finished>) -> Result<()> {
        match frame.kind {
            kind::HEADERS | kind::DATA => self.answer(frame, finished),
            kind::SETTINGS if frame.flags & http2::ACK == 0 => {
                let mut streams = self.streams_max;
                for (id, value) in http2::settings(frame.payload) {
                    match id {
                        setting::HEADER_TABLE_SIZE if value < 4096 => {
                            bail!("a header table of {value} bytes")
                        }
                        setting::MAX_CONCURRENT_STREAMS => streams = streams.min(value as usize),
                        _ => {}
                    }
                }
                if !std::mem::replace(&mut self.greeted, true) {
                    self.slots = streams;
                }
                http2::put(out, kind::SETTINGS, http2::ACK, 0, &[]);
                Ok(())
            }
            kind::PING if frame.flags & http2::ACK == 0 => {
                http2::put(out, kind::PING, http2::ACK, 0, frame.payload);
                Ok(())
            }
            kind::RST_STREAM => {
                // After its trailers a server may refuse the rest of a stream that has none.
                self.end(frame.stream, false, finished);
                Ok(())
            }
            kind::GOAWAY => bail!("the server leaves"),
            _ => Ok(()),
        }
    }

    fn answer(&mut self, frame: Frame<'_>, finished: &mut Vec<Finished>) -> Result<()> {
        let is_data = frame.kind == kind::DATA;
        if is_data {
            self.owed += frame.payload.len() as u32;
        }
        let Some(stream) = self.streams.iter_mut().find(|s| s.id == frame.stream) else {
            bail!("a frame for a stream that is not open");
        };
        if is_data {
            stream.bytes += frame.payload.len();
            if self.ask == Ask::Stream
                && stream.messages.feed(frame.payload)? == 1
                && stream.asked < grpc::MESSAGES_PER_STREAM
                && let Some(due) = stream.due.take()
            {
                let ok = stream.ok && stream.bytes == self.expect * stream.asked;
                finished.push(Finished { due, ok });
                self.slots += 1;
            }
        } else if stream.bytes == 0 {
            stream.ok = http2::is_200(&frame);
        }
        if frame.flags & http2::END_STREAM != 0 {
            let ok = stream.ok && stream.bytes == self.expect * stream.asked;
            self.end(frame.stream, ok, finished);
        }
        Ok(())
    }

    fn end(&mut self, id: u32, ok: bool, finished: &mut Vec<Finished>) {
        if let Some(at) = self.streams.iter().position(|s| s.id == id)
            && let Some(due) = self.streams.swap_remove(at).due
        {
            finished.push(Finished { due, ok });
            self.slots += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(parts: &[&[u8]]) -> Result<Vec<bool>> {
        let mut session = Session::new("http1", 1, 5, &mut Vec::new())?;
        let mut finished = Vec::new();
        session.begin(0, &mut Vec::new());
        for part in parts {
            session.input(part, &mut Vec::new(), &mut finished)?;
        }
        Ok(finished.iter().map(|f| f.ok).collect())
    }

    #[test]
    fn an_http1_answer_counts_when_status_and_length_are_right() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(answered(&[whole]).expect("read"), [true]);
        assert_eq!(
            answered(&[&whole[..20], &whole[20..40], &whole[40..]]).expect("read"),
            [true]
        );
        assert_eq!(
            answered(&[&whole[..42]]).expect("read"),
            [] as [bool; 0],
            "not whole yet"
        );
        assert_eq!(
            answered(&[b"HTTP/1.1 503 No\r\ncontent-length: 5\r\n\r\nhello"]).expect("read"),
            [false]
        );
        assert_eq!(
            answered(&[b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"]).expect("read"),
            [false]
        );
        assert!(answered(&[b"HTTP/1.1 200 OK\r\n\r\n"]).is_err());
        assert!(answered(&[whole, b"more"]).is_err());
    }

    /// Lets our client and our server talk; how often the client asked and was answered well.
    fn talk(proto: &str, times: usize) -> usize {
        let (mut out, mut wire, mut finished) = (Vec::new(), Vec::new(), Vec::new());
        let mut session = Session::new(proto, 10, 1024, &mut out).expect("known");
        let mut server = grpc::Server::new(grpc::ANSWER_BYTES, &mut wire);
        session
            .input(&std::mem::take(&mut wire), &mut out, &mut finished)
            .expect("settings");
        for _ in 0..times {
            session.begin(0, &mut out);
            while !out.is_empty() {
                server
                    .input(&std::mem::take(&mut out), &mut wire)
                    .expect("a call");
                session
                    .input(&std::mem::take(&mut wire), &mut out, &mut finished)
                    .expect("an answer");
            }
        }
        finished.iter().filter(|finished| finished.ok).count()
    }

    #[test]
    fn grpc_calls_and_messages_of_streams_are_answered_and_counted() {
        assert_eq!(talk("grpc", 5), 5);
        assert_eq!(talk("grpc-stream", 100), 100, "over several streams");
    }

    #[test]
    fn an_http2_answer_counts_when_status_and_length_are_right() {
        let mut session = Session::new("http2", 10, 5, &mut Vec::new()).expect("known");
        let (mut wire, mut finished) = (Vec::new(), Vec::new());
        assert_eq!(session.take_slots(), 0, "nothing before the server's settings");
        http2::put_settings(&mut wire, &[(setting::MAX_CONCURRENT_STREAMS, 3)]);
        session
            .input(&wire, &mut Vec::new(), &mut finished)
            .expect("read");
        assert_eq!(session.take_slots(), 3);
        session.begin(7, &mut Vec::new());
        session.begin(8, &mut Vec::new());
        wire.clear();
        http2::put(&mut wire, kind::HEADERS, http2::END_HEADERS, 3, &[0x88]);
        http2::put(&mut wire, kind::DATA, http2::END_STREAM, 3, b"hello");
        http2::put(
            &mut wire,
            kind::HEADERS,
            http2::END_HEADERS | http2::END_STREAM,
            1,
            &[0x8e],
        );
        session
            .input(&wire, &mut Vec::new(), &mut finished)
            .expect("read");
        assert_eq!(
            finished.iter().map(|f| (f.due, f.ok)).collect::<Vec<_>>(),
            [(8, true), (7, false)]
        );
        assert_eq!(session.take_slots(), 2);
        assert_eq!(session.in_flight(), 0);
    }
}
