//! Both of our machines over a pipe, reading and writing in cuts of any size.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use rajut_codec::{
    Method, Output, RequestHead, ResponseHead, Scheme,
    h2::{BodyLength, Client, ClientConn, Config, Conn, Event, Reason, Role, Server, ServerConn, StreamKey},
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::plan::{End, Exchange, Message, Section, Seen, fields_of, section_of};

/// A small generator: cuts need no quality.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cuts(pub(crate) u64);

impl Cuts {
    pub(crate) fn next(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        1 + usize::try_from(self.0 >> 33).unwrap() % most
    }
}

/// One of our machines, its buffers and its end of the pipe.
#[derive(Debug)]
pub(crate) struct Ours<R: Role> {
    conn: Conn<R>,
    buf: BytesMut,
    out: Output,
    pipe: DuplexStream,
    cuts: Cuts,
    /// The largest cut.
    most: usize,
    turns: usize,
    /// By slot.
    streams: Vec<Option<Ongoing>>,
}

/// What a stream of ours is at.
#[derive(Debug, Default)]
struct Ongoing {
    key: Option<StreamKey>,
    number: usize,
    start: String,
    fields: Section,
    body: Vec<u8>,
    trailers: Option<Section>,
    /// What is still to be sent, the last piece first.
    pieces: Vec<Bytes>,
    then: Option<Section>,
    received: bool,
}

impl Ongoing {
    fn send(&mut self, message: &Message) {
        self.pieces = message.pieces();
        self.pieces.reverse();
        self.then.clone_from(&message.trailers);
    }

    fn seen(self) -> Seen {
        Seen::Whole {
            start: self.start,
            fields: self.fields,
            body: self.body,
            trailers: self.trailers,
        }
    }
}

fn length_of(message: &Message) -> BodyLength {
    match message.body().len() as u64 {
        _ if message.is_empty() => BodyLength::Empty,
        length if message.announced => BodyLength::Exact(length),
        _ => BodyLength::Unknown,
    }
}

impl<R: Role> Ours<R> {
    fn new(conn: Conn<R>, out: Output, pipe: DuplexStream, seed: u64, most: usize) -> Self {
        Self {
            conn,
            buf: BytesMut::new(),
            out,
            pipe,
            cuts: Cuts(seed),
            most,
            turns: 0,
            streams: Vec::new(),
        }
    }

    /// Writes and reads once what is possible; false at the end.
    async fn turn(&mut self) -> io::Result<bool> {
        poll_fn(|cx| self.poll_turn(cx)).await
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut moved = false;
        // Large bodies would take for ever in small cuts.
        self.turns += 1;
        if self.turns > 2_000 {
            self.most = 20_000;
        }
        while self.out.has_remaining() {
            let chunk = self.out.chunk();
            let cut = self.cuts.next(self.most).min(chunk.len());
            match Pin::new(&mut self.pipe).poll_write(cx, &chunk[..cut]) {
                Poll::Ready(Ok(written)) => {
                    self.out.advance(written);
                    moved = true;
                }
                // The other side has gone; what it said before is still to be read.
                Poll::Ready(Err(_)) => self.out.clear(),
                Poll::Pending => break,
            }
        }
        let mut space = vec![0; self.cuts.next(self.most)];
        let mut read = ReadBuf::new(&mut space);
        match Pin::new(&mut self.pipe).poll_read(cx, &mut read) {
            Poll::Ready(result) => {
                result?;
                if read.filled().is_empty() {
                    return Poll::Ready(Ok(false));
                }
                self.buf.extend_from_slice(read.filled());
                Poll::Ready(Ok(true))
            }
            Poll::Pending if moved => Poll::Ready(Ok(true)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn ongoing(&mut self, key: StreamKey) -> &mut Option<Ongoing> {
        if self.streams.len() <= key.slot() {
            self.streams.resize_with(key.slot() + 1, || None);
        }
        &mut self.streams[key.slot()]
    }

    /// Sends what is possible on a stream.
    fn pump(&mut self, key: StreamKey) {
        let mut taken = self.ongoing(key).take();
        if let Some(ongoing) = &mut taken {
            while let Some(mut piece) = ongoing.pieces.pop() {
                let end = ongoing.pieces.is_empty() && ongoing.then.is_none();
                self.conn
                    .encode_data(key, &mut piece, end, &mut self.out)
                    .unwrap();
                if !piece.is_empty() {
                    ongoing.pieces.push(piece);
                    break;
                }
            }
            if ongoing.pieces.is_empty()
                && let Some(trailers) = ongoing.then.take()
            {
                self.conn
                    .encode_trailers(key, &fields_of(&trailers), &mut self.out)
                    .unwrap();
            }
        }
        *self.ongoing(key) = taken;
    }

    fn pump_all(&mut self) {
        while let Some(key) = self.conn.next_writable(&self.out) {
            self.pump(key);
        }
    }

    /// Data came: released in two parts, as a slow reader would.
    fn data(&mut self, stream: StreamKey, data: &Bytes) {
        if let Some(ongoing) = self.ongoing(stream) {
            ongoing.body.extend_from_slice(data);
        }
        let part = self.cuts.next(data.len().max(1));
        self.conn.release(stream, part, &mut self.out);
        self.conn
            .release(stream, data.len() - part.min(data.len()), &mut self.out);
    }
}

/// Answers what the plan says until the client goes away; what was seen of each request.
pub(crate) async fn serve(
    pipe: DuplexStream,
    config: Config,
    plan: Vec<Exchange>,
    seed: u64,
    most: usize,
) -> Vec<Seen> {
    let mut out = Output::new();
    let conn = ServerConn::new(config, &mut out);
    let mut ours: Ours<Server> = Ours::new(conn, out, pipe, seed, most);
    let mut seen = vec![Seen::Nothing; plan.len()];
    loop {
        while let Some(event) = ours.conn.receive(&mut ours.buf, &mut ours.out).unwrap() {
            match event {
                Event::Head { stream, head, is_end } => {
                    let number: usize = std::str::from_utf8(&head.head.path()[1..])
                        .unwrap()
                        .parse()
                        .unwrap();
                    assert_eq!(head.head.authority_str(), "clinic:80");
                    *ours.ongoing(stream) = Some(Ongoing {
                        number,
                        start: head.head.method.as_str().to_owned(),
                        fields: section_of(&head.head.fields),
                        received: is_end,
                        ..Ongoing::default()
                    });
                    if is_end || plan[number].end != End::Whole {
                        ours.answer(stream, &plan, &mut seen);
                    }
                }
                Event::Data { stream, data, is_end } => {
                    ours.data(stream, &data);
                    ours.ended(stream, is_end, &plan, &mut seen);
                }
                Event::Trailers { stream, fields } => {
                    if let Some(ongoing) = ours.ongoing(stream) {
                        ongoing.trailers = Some(section_of(&fields));
                    }
                    ours.ended(stream, true, &plan, &mut seen);
                }
                Event::Reset {
                    stream,
                    reason,
                    error,
                } => {
                    assert_eq!(error, None);
                    if let Some(ongoing) = ours.ongoing(stream).take() {
                        seen[ongoing.number] = Seen::Reset(reason.0);
                    }
                }
                Event::GoAway { .. } => {}
                other => panic!("{other:?}"),
            }
            ours.pump_all();
        }
        ours.pump_all();
        if !ours.turn().await.unwrap_or(false) {
            return seen;
        }
    }
}

impl Ours<Server> {
    /// A request is whole: note it, and answer.
    fn ended(&mut self, stream: StreamKey, is_end: bool, plan: &[Exchange], seen: &mut [Seen]) {
        let Some(ongoing) = self.ongoing(stream) else {
            return;
        };
        ongoing.received |= is_end;
        if is_end && plan[ongoing.number].end == End::Whole {
            self.answer(stream, plan, seen);
        }
    }

    fn answer(&mut self, stream: StreamKey, plan: &[Exchange], seen: &mut [Seen]) {
        let ongoing = self.ongoing(stream).as_mut().unwrap();
        let number = ongoing.number;
        let exchange = &plan[number];
        ongoing.send(&exchange.response);
        if exchange.end == End::Whole {
            let received = std::mem::take(ongoing);
            ongoing.pieces.clone_from(&received.pieces);
            ongoing.then.clone_from(&received.then);
            seen[number] = received.seen();
        }
        if exchange.informational {
            let head = ResponseHead::new(103);
            self.conn
                .encode_informational(stream, &head, &mut self.out)
                .unwrap();
        }
        let mut head = ResponseHead::new(exchange.status);
        head.fields = fields_of(&exchange.response.section());
        match exchange.end {
            End::Whole => {
                let length = length_of(&exchange.response);
                self.conn
                    .encode_head(stream, &head, length, &mut self.out)
                    .unwrap();
                self.pump(stream);
            }
            End::ServerResets(code) => {
                self.conn
                    .encode_head(stream, &head, BodyLength::Unknown, &mut self.out)
                    .unwrap();
                self.conn.reset(stream, Reason(code), &mut self.out);
                *self.ongoing(stream) = None;
            }
            // The client resets when it has the head.
            End::ClientResets => {
                self.conn
                    .encode_head(stream, &head, BodyLength::Unknown, &mut self.out)
                    .unwrap();
                let ongoing = self.ongoing(stream).as_mut().unwrap();
                ongoing.pieces.clear();
                ongoing.then = None;
            }
        }
    }
}

/// Sends what the plan says, all at once as far as the server lets; what was seen of each response.
pub(crate) async fn ask(
    pipe: DuplexStream,
    config: Config,
    plan: Vec<Exchange>,
    seed: u64,
    most: usize,
) -> Vec<Seen> {
    let mut out = Output::new();
    let conn = ClientConn::new(config, &mut out);
    let mut ours: Ours<Client> = Ours::new(conn, out, pipe, seed, most);
    let mut seen = vec![Seen::Nothing; plan.len()];
    let mut next = 0;
    loop {
        while next < plan.len() && ours.conn.can_open() {
            ours.start(next, &plan[next]);
            next += 1;
        }
        ours.pump_all();
        if next == plan.len() && !seen.contains(&Seen::Nothing) && ours.conn.stream_count() == 0 {
            while ours.out.has_remaining() && ours.turn().await.unwrap_or(false) {}
            return seen;
        }
        if !ours.turn().await.unwrap_or(false) {
            return seen;
        }
        while let Some(event) = ours.conn.receive(&mut ours.buf, &mut ours.out).unwrap() {
            ours.take(event, &plan, &mut seen);
        }
    }
}

impl Ours<Client> {
    fn start(&mut self, number: usize, exchange: &Exchange) {
        let method = Method::from_bytes(exchange.method.as_bytes()).unwrap();
        let mut head = RequestHead::new(method, format!("/{number}"));
        head.authority = Bytes::from_static(b"clinic:80");
        head.fields = fields_of(&exchange.request.section());
        let length = length_of(&exchange.request);
        let key = self
            .conn
            .open(&head, Scheme::Http, length, &mut self.out)
            .unwrap();
        let mut ongoing = Ongoing {
            key: Some(key),
            number,
            ..Ongoing::default()
        };
        ongoing.send(&exchange.request);
        *self.ongoing(key) = Some(ongoing);
        self.pump(key);
    }

    fn take(&mut self, event: Event<rajut_codec::h2::Response>, plan: &[Exchange], seen: &mut [Seen]) {
        match event {
            Event::Head { head, .. } if head.head.is_informational() => assert_eq!(head.head.status, 103),
            Event::Head { stream, head, is_end } => {
                let Some(ongoing) = self.ongoing(stream) else {
                    return;
                };
                ongoing.start = head.head.status.to_string();
                ongoing.fields = section_of(&head.head.fields);
                let number = ongoing.number;
                if plan[number].end == End::ClientResets {
                    *self.ongoing(stream) = None;
                    self.conn.reset(stream, Reason::CANCEL, &mut self.out);
                    seen[number] = Seen::Reset(Reason::CANCEL.0);
                } else {
                    self.ended(stream, is_end, seen);
                }
            }
            Event::Data { stream, data, is_end } => {
                self.data(stream, &data);
                self.ended(stream, is_end, seen);
            }
            Event::Trailers { stream, fields } => {
                if let Some(ongoing) = self.ongoing(stream) {
                    ongoing.trailers = Some(section_of(&fields));
                }
                self.ended(stream, true, seen);
            }
            Event::Reset {
                stream,
                reason,
                error,
            } => {
                assert_eq!(error, None);
                if let Some(ongoing) = self.ongoing(stream).take()
                    && ongoing.key == Some(stream)
                {
                    // A server that has answered may not want the rest of the request.
                    if !ongoing.received {
                        seen[ongoing.number] = Seen::Reset(reason.0);
                    }
                }
            }
            Event::GoAway { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn ended(&mut self, stream: StreamKey, is_end: bool, seen: &mut [Seen]) {
        let Some(ongoing) = self.ongoing(stream).as_mut().filter(|_| is_end) else {
            return;
        };
        ongoing.received = true;
        let received = std::mem::take(ongoing);
        let number = received.number;
        *ongoing = Ongoing {
            key: Some(stream),
            number,
            received: true,
            pieces: received.pieces.clone(),
            then: received.then.clone(),
            ..Ongoing::default()
        };
        seen[number] = received.seen();
    }
}
