//! As much of gRPC over HTTP/2 as a benchmark needs: length-prefixed messages of fixed sizes in both directions,
//! several per stream or one, answers with trailers. Bounds: streams and windows as HTTP/2 has them here; a message
//! that is asked with is at most [`ASK_MAX`] bytes.

use std::collections::{HashMap, VecDeque};

use anyhow::{Result, bail};

use crate::http2::{self, Block, Frame, Frames, kind, setting};

/// The prefix of a message: a flag and its length.
const PREFIX: usize = 5;
/// Bytes of a message that asks.
pub(crate) const ASK_BYTES: usize = 64;
/// Bytes of a message that answers, so that with its prefix it has 1 KiB.
pub(crate) const ANSWER_BYTES: usize = 1024 - PREFIX;
/// A stream of many messages has so many each way: the default window of a stream holds their answers.
pub(crate) const MESSAGES_PER_STREAM: usize = 32;
/// Traces come in batches.
const ASK_MAX: usize = 4 << 20;

/// A message with its prefix.
pub(crate) fn message(bytes: usize) -> Vec<u8> {
    let length = u32::try_from(bytes).unwrap_or_default().to_be_bytes();
    let mut message = [&[0][..], &length].concat();
    message.resize(PREFIX + bytes, b'x');
    message
}

/// The block of a call as gRPC's own libraries write it.
pub(crate) fn request_block() -> Block {
    // :method POST and :scheme http have static indexes.
    http2::block(
        vec![0x83, 0x86],
        &[
            (":path", "/bench.Bench/Call"),
            (":authority", crate::shape::HOST),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "grpc-bench/1.0"),
            ("grpc-accept-encoding", "identity,deflate,gzip"),
        ],
    )
}

/// Counts messages in the bytes of a stream, however they are cut into frames.
#[derive(Debug, Default, Clone)]
pub(crate) struct Messages {
    prefix: [u8; PREFIX],
    have: usize,
    left: usize,
}

impl Messages {
    /// How many messages end in `bytes`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<usize> {
        let mut ended = 0;
        while !bytes.is_empty() {
            if self.have < PREFIX {
                let take = bytes.len().min(PREFIX - self.have);
                self.prefix[self.have..self.have + take].copy_from_slice(&bytes[..take]);
                self.have += take;
                bytes = &bytes[take..];
                if self.have < PREFIX {
                    break;
                }
                let [_, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length) as usize;
                if self.left > ASK_MAX {
                    bail!("a message of {} bytes", self.left);
                }
            }
            let take = bytes.len().min(self.left);
            self.left -= take;
            bytes = &bytes[take..];
            if self.left == 0 {
                self.have = 0;
                ended += 1;
            }
        }
        Ok(ended)
    }
}

/// The server's end of a connection.
#[derive(Debug)]
pub(crate) struct Server {
    frames: Frames,
    /// Bytes of the client's preface still to come.
    preface: usize,
    answer: Vec<u8>,
    /// The answer's fields, entered into the client's table by the first one; `None`: it has no table to speak of.
    entered: Option<bool>,
    block: Block,
    streams: HashMap<u32, Stream>,
    /// What the client still takes on this connection.
    window: i64,
    /// Streams that want to answer, once for each message, and once when they end; the client bounds their number.
    waiting: VecDeque<(u32, Waiting)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Message,
    End,
}

#[derive(Debug, Default)]
struct Stream {
    messages: Messages,
    begun: bool,
}

impl Server {
    pub(crate) fn new(message_bytes: usize, out: &mut Vec<u8>) -> Self {
        http2::put_settings(out, &[(setting::MAX_CONCURRENT_STREAMS, 1024)]);
        Self {
            frames: Frames::default(),
            preface: http2::PREFACE.len(),
            answer: message(message_bytes),
            entered: Some(false),
            block: http2::block(
                vec![0x88],
                &[
                    ("content-type", "application/grpc"),
                    ("grpc-accept-encoding", "identity,deflate,gzip"),
                ],
            ),
            streams: HashMap::new(),
            window: http2::WINDOW,
            waiting: VecDeque::new(),
        }
    }

    pub(crate) fn input(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let skip = self.preface.min(bytes.len());
        self.preface -= skip;
        let mut frames = std::mem::take(&mut self.frames);
        frames.feed(&bytes[skip..], |frame| self.frame(frame, out))?;
        self.frames = frames;
        self.send(out);
        Ok(())
    }

    fn frame(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<()> {
        match frame.kind {
            kind::HEADERS => {
                self.streams.entry(frame.stream).or_default();
                self.ended(frame);
            }
            kind::DATA => {
                if !frame.payload.is_empty() {
                    let bytes = frame.payload.len() as u32;
                    http2::put_window(out, 0, bytes);
                    // A batch of traces may be longer than a stream's window.
                    if frame.flags & http2::END_STREAM == 0 {
                        http2::put_window(out, frame.stream, bytes);
                    }
                }
                let Some(stream) = self.streams.get_mut(&frame.stream) else {
                    return Ok(());
                };
                for _ in 0..stream.messages.feed(frame.payload)? {
                    self.waiting.push_back((frame.stream, Waiting::Message));
                }
                self.ended(frame);
            }
            kind::SETTINGS if frame.flags & http2::ACK == 0 => {
                for (id, value) in http2::settings(frame.payload) {
                    if id == setting::HEADER_TABLE_SIZE && value < 4096 {
                        self.entered = None;
                    }
                }
                http2::put(out, kind::SETTINGS, http2::ACK, 0, &[]);
            }
            kind::PING if frame.flags & http2::ACK == 0 => {
                http2::put(out, kind::PING, http2::ACK, 0, frame.payload);
            }
            kind::WINDOW_UPDATE if frame.stream == 0 => self.window += http2::increment(frame.payload),
            kind::RST_STREAM => {
                self.streams.remove(&frame.stream);
                self.waiting.retain(|(stream, _)| *stream != frame.stream);
            }
            kind::GOAWAY => bail!("the client leaves"),
            _ => {}
        }
        Ok(())
    }

    fn ended(&mut self, frame: Frame<'_>) {
        if frame.flags & http2::END_STREAM != 0 {
            self.waiting.push_back((frame.stream, Waiting::End));
        }
    }

    /// Sends what waits, as far as the connection's window goes.
    fn send(&mut self, out: &mut Vec<u8>) {
        while let Some((id, what)) = self.waiting.front().copied() {
            let Some(stream) = self.streams.get_mut(&id) else {
                self.waiting.pop_front();
                continue;
            };
            if what == Waiting::Message && self.window < self.answer.len() as i64 {
                return;
            }
            self.waiting.pop_front();
            if !std::mem::replace(&mut stream.begun, true) {
                let later = self.entered == Some(true);
                let block = if later {
                    &self.block.later
                } else {
                    &self.block.first
                };
                self.entered = self.entered.map(|_| true);
                http2::put(out, kind::HEADERS, http2::END_HEADERS, id, block);
            }
            match what {
                Waiting::Message => {
                    self.window -= self.answer.len() as i64;
                    http2::put(out, kind::DATA, 0, id, &self.answer);
                }
                Waiting::End => {
                    // A literal that no table keeps, so that it may stand between other streams' headers.
                    let mut block = vec![0x00];
                    http2::put_text(&mut block, "grpc-status");
                    http2::put_text(&mut block, "0");
                    http2::put(
                        out,
                        kind::HEADERS,
                        http2::END_HEADERS | http2::END_STREAM,
                        id,
                        &block,
                    );
                    self.streams.remove(&id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let wire = [message(64), message(0), message(3)].concat();
        for cut in 0..=wire.len() {
            let mut messages = Messages::default();
            let counted =
                messages.feed(&wire[..cut]).expect("small") + messages.feed(&wire[cut..]).expect("small");
            assert_eq!(counted, 3, "cut at {cut}");
        }
        assert!(Messages::default().feed(&[0, 0xff, 0, 0, 0]).is_err(), "too long");
    }
}
