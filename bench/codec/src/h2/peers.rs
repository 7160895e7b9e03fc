//! The client and the backend on either side of a hop, on our codec, whose costs are not counted. Strings are Huffman coded, as
//! the usual clients do it.

use anyhow::{Context, Result};
use bytes::{Buf, Bytes, BytesMut};
use rajut_codec::{
    Fields, Method, Output, RequestHead, ResponseHead, Scheme,
    h2::{BodyLength, ClientConn, Config, Event, ServerConn, StreamKey},
};

use super::Wires;

/// Bytes of a streamed message.
pub(crate) const MESSAGE: usize = 130;
const BODY: &[u8] = &[b'b'; 100];

fn config() -> Config {
    Config {
        use_huffman: true,
        // The hop is measured for much longer than a period.
        max_control_frames: u32::MAX,
        ..Config::default()
    }
}

fn fields(list: &[(&str, &str)]) -> Result<Fields> {
    let mut fields = Fields::new();
    for (name, value) in list {
        fields.append(*name, value)?;
    }
    Ok(fields)
}

/// Who asks.
#[derive(Debug)]
pub(crate) struct Client {
    conn: ClientConn,
    buf: BytesMut,
    out: Output,
    head: RequestHead,
    stream: Option<StreamKey>,
    number: u64,
    /// Requests whose answers have come whole.
    pub(crate) answered: usize,
}

impl Client {
    pub(crate) fn new() -> Self {
        let mut out = Output::new();
        let conn = ClientConn::new(config(), &mut out);
        Self {
            conn,
            buf: BytesMut::new(),
            out,
            head: RequestHead::default(),
            stream: None,
            number: 0,
            answered: 0,
        }
    }

    /// A gRPC call whose messages follow.
    pub(crate) fn open_stream(&mut self) -> Result<()> {
        let mut head = RequestHead::new(Method::Post, "/clinic.Visits/Watch");
        head.authority = Bytes::from_static(b"visits.clinic:9090");
        head.fields = fields(&[("te", "trailers"), ("content-type", "application/grpc")])?;
        self.stream = Some(
            self.conn
                .open(&head, Scheme::Http, BodyLength::Unknown, &mut self.out)?,
        );
        Ok(())
    }

    pub(crate) fn send_message(&mut self) -> Result<()> {
        let mut piece = Bytes::from_static(&[b'm'; MESSAGE]);
        let stream = self.stream.context("a stream is open")?;
        self.conn.encode_data(stream, &mut piece, false, &mut self.out)?;
        anyhow::ensure!(piece.is_empty(), "the window is used up");
        Ok(())
    }

    /// A request with ten fields, two of them new each time, and a body.
    pub(crate) fn send_request(&mut self) -> Result<()> {
        self.number += 1;
        let number = self.number;
        if self.head.authority.is_empty() {
            self.head = RequestHead::new(Method::Post, "/api/visits");
            self.head.authority = Bytes::from_static(b"visits.clinic:8080");
        }
        self.head.fields = fields(&[
            ("user-agent", "clinic-portal/4.2 (linux; x86_64)"),
            ("accept", "application/json"),
            ("accept-encoding", "gzip, deflate, br"),
            ("accept-language", "en-GB,en;q=0.9"),
            ("content-type", "application/json"),
            ("content-length", "100"),
            (
                "authorization",
                "Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwb3J0YWwifQ.c2lnbmF0dXJl",
            ),
            ("x-tenant", "north"),
            ("x-request-id", &format!("8f14e45f-ceea-467e-bd8a-{number:012x}")),
            (
                "traceparent",
                &format!("00-0af7651916cd43dd8448eb21{number:08x}-b7ad6b7169203331-01"),
            ),
        ])?;
        let length = BodyLength::Exact(BODY.len() as u64);
        let stream = self.conn.open(&self.head, Scheme::Http, length, &mut self.out)?;
        let mut body = Bytes::from_static(BODY);
        self.conn.encode_data(stream, &mut body, true, &mut self.out)?;
        Ok(())
    }

    pub(crate) fn turn(&mut self, wires: &mut Wires) -> Result<()> {
        self.buf.extend_from_slice(&wires.to_client);
        wires.to_client.clear();
        while let Some(event) = self.conn.receive(&mut self.buf, &mut self.out)? {
            match event {
                Event::Data { stream, data, is_end } => {
                    self.conn.release(stream, data.len(), &mut self.out);
                    self.answered += usize::from(is_end);
                }
                Event::Head { .. } => {}
                other => anyhow::bail!("{other:?}"),
            }
        }
        drain(&mut self.out, &mut wires.from_client);
        Ok(())
    }
}

/// Who answers.
#[derive(Debug)]
pub(crate) struct Served {
    conn: ServerConn,
    buf: BytesMut,
    out: Output,
    head: ResponseHead,
    /// Bytes of bodies that have come.
    pub(crate) bytes: usize,
}

impl Served {
    pub(crate) fn new() -> Self {
        let mut out = Output::new();
        let conn = ServerConn::new(config(), &mut out);
        Self {
            conn,
            buf: BytesMut::new(),
            out,
            head: ResponseHead::new(200),
            bytes: 0,
        }
    }

    pub(crate) fn turn(&mut self, wires: &mut Wires) -> Result<()> {
        self.buf.extend_from_slice(&wires.to_backend);
        wires.to_backend.clear();
        while let Some(event) = self.conn.receive(&mut self.buf, &mut self.out)? {
            match event {
                Event::Data { stream, data, is_end } => {
                    self.bytes += data.len();
                    self.conn.release(stream, data.len(), &mut self.out);
                    if is_end {
                        self.answer(stream)?;
                    }
                }
                // A request of a stream is answered by a head, so that the call is under way.
                Event::Head { stream, head, .. } if head.body == BodyLength::Unknown => {
                    self.conn
                        .encode_head(stream, &self.head, BodyLength::Unknown, &mut self.out)?;
                }
                Event::Head { .. } => {}
                other => anyhow::bail!("{other:?}"),
            }
        }
        drain(&mut self.out, &mut wires.from_backend);
        Ok(())
    }

    fn answer(&mut self, stream: StreamKey) -> Result<()> {
        self.head.fields = fields(&[
            ("content-type", "application/json"),
            ("content-length", "100"),
            ("date", "Sun, 22 Nov 2026 05:00:00 GMT"),
            ("server", "visits"),
            ("cache-control", "no-store"),
        ])?;
        let length = BodyLength::Exact(BODY.len() as u64);
        self.conn.encode_head(stream, &self.head, length, &mut self.out)?;
        let mut body = Bytes::from_static(BODY);
        self.conn.encode_data(stream, &mut body, true, &mut self.out)?;
        Ok(())
    }
}

/// Writes all output, as a vectored write would take it.
pub(crate) fn drain(out: &mut Output, to: &mut Vec<u8>) {
    while out.has_remaining() {
        let chunk = out.chunk();
        to.extend_from_slice(chunk);
        let size = chunk.len();
        out.advance(size);
    }
}
