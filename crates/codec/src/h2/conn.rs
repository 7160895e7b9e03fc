//! The state of one connection, for both roles. `receive.rs` takes frames, `send.rs` makes them.
//!
//! ```text
//!  Preface ──(server: 24 bytes)──► Settings ──first SETTINGS──► Open ──broken rule──► Failed (GOAWAY is in the output)
//!  a stream:  recv  Head ──head──► Body ──END_STREAM──► Done        send  Head ──► Body ──► Done     both Done, or reset ──► gone
//!  shutdown:  GOAWAY(2^31-1), PING ──its answer──► GOAWAY(last stream) ──streams end──► is_drained
//! ```

mod receive;
mod send;

use std::{collections::VecDeque, fmt, marker::PhantomData};

use bytes::Bytes;

use super::{
    Config, DecodeError, Reason, Request, Response, StreamKey,
    budget::Budget,
    frame,
    hpack::{Decoder, Encoder},
    section::{Section, SizeHint},
    streams::Streams,
};
use crate::{Fields, Method, Output, h1::BodyLength};

/// The window that every connection and stream begins with (RFC 9113 §6.9.2).
const DEFAULT_WINDOW: u32 = 65_535;
/// Streams that a client opens before it knows the server's limit.
const STREAMS_BEFORE_SETTINGS: u32 = 100;
/// The largest frame that we send, whatever the peer takes: streams take turns by frames.
const SEND_FRAME_MAX: u32 = 16_384;
/// What the PING of a shutdown carries.
const SHUTDOWN_PING: [u8; 8] = *b"shutdown";
/// Identifiers kept of streams that we have reset and whose trailers may still be on their way.
const RESET_KEPT: usize = 64;

mod sealed {
    /// Only the two roles of this module.
    pub trait Sealed {}
    impl Sealed for super::Server {}
    impl Sealed for super::Client {}
}

/// What a received head says beyond itself.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct HeadFacts {
    informational: bool,
    /// Bytes that must follow.
    length: Option<u64>,
    /// A request to which the response has no body.
    bodiless: bool,
}

/// Which side of a connection the machine is.
pub trait Role: sealed::Sealed + fmt::Debug {
    /// What it receives: requests or responses.
    type Head: fmt::Debug;
    #[doc(hidden)]
    const IS_SERVER: bool;
    #[doc(hidden)]
    fn head(section: DecodedSection, allow_protocol: bool) -> Result<(Self::Head, HeadFacts), DecodeError>;
}

/// A decoded section and how it arrived.
#[derive(Debug)]
#[doc(hidden)]
pub struct DecodedSection {
    section: Section,
    is_end: bool,
    /// It answers a request without a body.
    bodiless: bool,
}

/// The side that takes requests.
#[derive(Debug)]
pub enum Server {}

/// The side that sends requests.
#[derive(Debug)]
pub enum Client {}

fn exact(body: BodyLength) -> Option<u64> {
    match body {
        BodyLength::Exact(length) => Some(length),
        BodyLength::Empty | BodyLength::Unknown | BodyLength::Tunnel => None,
    }
}

impl Role for Server {
    type Head = Request;
    const IS_SERVER: bool = true;

    fn head(decoded: DecodedSection, allow_protocol: bool) -> Result<(Request, HeadFacts), DecodeError> {
        let request = decoded.section.into_request(decoded.is_end, allow_protocol)?;
        let facts = HeadFacts {
            informational: false,
            length: exact(request.body),
            bodiless: request.head.method == Method::Head,
        };
        Ok((request, facts))
    }
}

impl Role for Client {
    type Head = Response;
    const IS_SERVER: bool = false;

    fn head(decoded: DecodedSection, _allow_protocol: bool) -> Result<(Response, HeadFacts), DecodeError> {
        let response = decoded.section.into_response(decoded.is_end, decoded.bodiless)?;
        let bodiless = decoded.bodiless || matches!(response.head.status, 204 | 304);
        let facts = HeadFacts {
            informational: response.head.is_informational(),
            length: if bodiless { Some(0) } else { exact(response.body) },
            bodiless,
        };
        Ok((response, facts))
    }
}

/// What came. `H` is a [`Request`] or a [`Response`].
#[derive(Debug)]
pub enum Event<H> {
    /// A head: of a new stream (a server), or the response to ours. Where it is an interim response, another follows.
    Head {
        /// The stream.
        stream: StreamKey,
        /// The head and what body follows.
        head: H,
        /// Nothing follows.
        is_end: bool,
    },
    /// A piece of a body, to be [released](Conn::release) once it is used.
    Data {
        /// The stream.
        stream: StreamKey,
        /// A slice of the read buffer; empty only at the end.
        data: Bytes,
        /// Nothing follows.
        is_end: bool,
    },
    /// The trailers, which end the stream.
    Trailers {
        /// The stream.
        stream: StreamKey,
        /// Its trailers.
        fields: Fields,
    },
    /// The stream has gone, whatever either side had still to send.
    Reset {
        /// The stream; the key is void.
        stream: StreamKey,
        /// The peer's reason, or the one that it was told.
        reason: Reason,
        /// The rule that it broke, if it was us who reset the stream.
        error: Option<DecodeError>,
    },
    /// A request was refused before it became a stream; it has been answered or reset. Nothing is to be done.
    Refused {
        /// Its identifier on the wire.
        id: u32,
        /// Why.
        error: DecodeError,
    },
    /// The peer takes no further streams. Those above `last` that we opened follow as reset, with
    /// [`Reason::REFUSED_STREAM`]: they may be sent again elsewhere.
    GoAway {
        /// The highest identifier that the peer has looked at.
        last: u32,
        /// Why.
        reason: Reason,
    },
    /// The answer to [`Conn::ping`].
    Pong {
        /// What that sent.
        payload: [u8; 8],
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Preface,
    Settings,
    Open,
    Failed,
}

/// The peer's settings.
#[derive(Clone, Copy, Debug)]
struct PeerSettings {
    initial_window: u32,
    max_frame: u32,
    max_streams: u32,
    connect_protocol: bool,
}

/// A header block whose CONTINUATION frames are still coming.
#[derive(Debug)]
struct Partial {
    stream: u32,
    is_end: bool,
    block: Vec<u8>,
    frames: usize,
}

/// How far a shutdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// The peer knows that we are leaving; requests that were under way are still taken.
    Announced,
    /// Streams above this one are not looked at.
    Last(u32),
}

/// One connection; see [`ServerConn`] and [`ClientConn`].
pub struct Conn<R: Role> {
    config: Config,
    phase: Phase,
    peer: PeerSettings,
    streams: Streams,
    /// What the peer may send on the connection, and what is released of it and not told.
    recv_window: i64,
    credit: u32,
    /// Bytes of streams that have gone which the caller has not released.
    orphaned: u32,
    send_window: i64,
    /// The initial window of streams that the peer has acknowledged.
    acked_window: u32,
    /// Settings that are not acknowledged.
    unacked: u32,
    /// The highest identifier that the peer has used (a server) and the next one of ours (a client).
    last_peer: u32,
    next_own: u32,
    /// Streams that wait for the connection's window or room in the output, first come first served.
    waiting: VecDeque<StreamKey>,
    leaving: Leaving,
    /// The peer is leaving.
    going: bool,
    /// Our streams above this one are being given back as refused.
    refusing_above: Option<u32>,
    reset_ids: VecDeque<u32>,
    partial: Option<Box<Partial>>,
    budget: Budget,
    hint: SizeHint,
    decoder: Decoder,
    encoder: Encoder,
    role: PhantomData<R>,
}

/// A server's side of a connection.
///
/// ```
/// use bytes::{Bytes, BytesMut, Buf};
/// use rajut_codec::{Method, Output, RequestHead, ResponseHead, Scheme, h2::{BodyLength, ClientConn, Config, Event, ServerConn}};
///
/// let (mut to_server, mut to_client) = (Output::new(), Output::new());
/// let mut client = ClientConn::new(Config::default(), &mut to_server);
/// let mut server = ServerConn::new(Config::default(), &mut to_client);
/// let mut head = RequestHead::new(Method::Get, "/visits");
/// head.authority = Bytes::from_static(b"clinic");
/// client.open(&head, Scheme::Http, BodyLength::Empty, &mut to_server).unwrap();
///
/// let mut read = BytesMut::from(&to_server.copy_to_bytes(to_server.remaining())[..]);
/// while let Some(event) = server.receive(&mut read, &mut to_client).unwrap() {
///     let Event::Head { stream, head: request, is_end: true } = event else { panic!() };
///     assert_eq!(request.head.path(), b"/visits");
///     let mut body = Bytes::from_static(b"ok\n");
///     server.encode_head(stream, &ResponseHead::new(200), BodyLength::Exact(3), &mut to_client).unwrap();
///     server.encode_data(stream, &mut body, true, &mut to_client).unwrap();
///     assert!(body.is_empty());
/// }
/// let mut read = BytesMut::from(&to_client.copy_to_bytes(to_client.remaining())[..]);
/// let Some(Event::Head { head: response, .. }) = client.receive(&mut read, &mut to_server).unwrap() else { panic!() };
/// assert_eq!((response.head.status, response.body), (200, BodyLength::Exact(3)));
/// let Some(Event::Data { data, is_end: true, .. }) = client.receive(&mut read, &mut to_server).unwrap() else { panic!() };
/// assert_eq!(data, "ok\n");
/// assert!(client.receive(&mut read, &mut to_server).unwrap().is_none());
/// ```
pub type ServerConn = Conn<Server>;

/// A client's side of a connection; see [`ServerConn`] for an example of both.
pub type ClientConn = Conn<Client>;

impl<R: Role> Conn<R> {
    /// A connection, whose first bytes are put into the output.
    pub fn new(config: Config, out: &mut Output) -> Self {
        let config = Config {
            stream_window: config.stream_window.min(frame::MAX_31),
            connection_window: config.connection_window.clamp(DEFAULT_WINDOW, frame::MAX_31),
            max_frame_size: config.max_frame_size.clamp(16_384, 0xff_ffff),
            ..config
        };
        let mut conn = Self {
            config,
            phase: if R::IS_SERVER {
                Phase::Preface
            } else {
                Phase::Settings
            },
            peer: PeerSettings {
                initial_window: DEFAULT_WINDOW,
                max_frame: SEND_FRAME_MAX,
                max_streams: STREAMS_BEFORE_SETTINGS,
                connect_protocol: false,
            },
            streams: Streams::default(),
            recv_window: DEFAULT_WINDOW.into(),
            credit: 0,
            orphaned: 0,
            send_window: DEFAULT_WINDOW.into(),
            acked_window: DEFAULT_WINDOW,
            unacked: 1,
            last_peer: 0,
            next_own: 1,
            waiting: VecDeque::new(),
            leaving: Leaving::No,
            going: false,
            refusing_above: None,
            reset_ids: VecDeque::new(),
            partial: None,
            budget: Budget::default(),
            hint: SizeHint::default(),
            decoder: Decoder::new(),
            encoder: Encoder::new(config.use_huffman),
            role: PhantomData,
        };
        out.append(|out| conn.begin(out));
        conn
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        let config = &self.config;
        let role = if R::IS_SERVER {
            (
                frame::SETTING_ENABLE_CONNECT_PROTOCOL,
                u32::from(config.enable_connect_protocol),
            )
        } else {
            out.extend_from_slice(frame::PREFACE);
            (frame::SETTING_ENABLE_PUSH, 0)
        };
        let list_size = u32::try_from(config.max_head_bytes).unwrap_or(u32::MAX);
        let all = [
            (frame::SETTING_HEADER_TABLE_SIZE, config.header_table_size.into()),
            (frame::SETTING_INITIAL_WINDOW_SIZE, config.stream_window),
            (frame::SETTING_MAX_FRAME_SIZE, config.max_frame_size),
            (frame::SETTING_MAX_HEADER_LIST_SIZE, list_size),
            (
                frame::SETTING_MAX_CONCURRENT_STREAMS,
                config.max_concurrent_streams,
            ),
            role,
        ];
        // A client bears no streams of the server's, and what is off need not be said.
        let told: Vec<_> = all
            .into_iter()
            .filter(|(name, value)| match *name {
                frame::SETTING_MAX_CONCURRENT_STREAMS => R::IS_SERVER,
                frame::SETTING_ENABLE_CONNECT_PROTOCOL => *value == 1,
                _ => true,
            })
            .collect();
        frame::write_settings(&told, 0, out);
        let more = config.connection_window - DEFAULT_WINDOW;
        if more > 0 {
            frame::write_number(frame::WINDOW_UPDATE, 0, more, out);
            self.recv_window += i64::from(more);
        }
    }

    /// Tells the time in seconds since any fixed moment, from which [`Config::max_resets`] and
    /// [`Config::max_control_frames`] are counted; without it they count for the whole connection.
    pub fn note_time(&mut self, seconds: u64) {
        self.budget.note_time(seconds);
    }

    /// Whether the peer's settings have come.
    pub fn is_settled(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Open streams.
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Whether a shutdown, of either side, has come to its end: close once the output is written.
    pub fn is_drained(&self) -> bool {
        let leaving = matches!(self.leaving, Leaving::Last(_)) || self.going;
        self.phase == Phase::Failed || (leaving && self.streams.is_empty() && self.refusing_above.is_none())
    }

    /// Whether the stream is still open in any direction.
    pub fn is_open(&self, stream: StreamKey) -> bool {
        self.streams.get(stream).is_some()
    }

    /// Bytes that the machine holds beside its own size.
    pub fn capacity(&self) -> usize {
        let partial = self
            .partial
            .as_ref()
            .map_or(0, |partial| partial.block.capacity());
        self.streams.capacity()
            + self.decoder.capacity()
            + self.encoder.capacity()
            + self.waiting.capacity() * size_of::<StreamKey>()
            + self.reset_ids.capacity() * 4
            + partial
    }

    /// Gives released bytes of the connection's window back to the peer, a half of the window at a time.
    fn credit_connection(&mut self, bytes: u32, out: &mut Output) {
        self.credit += bytes;
        if self.credit >= self.config.connection_window / 2 {
            out.append(|out| frame::write_number(frame::WINDOW_UPDATE, 0, self.credit, out));
            self.recv_window += i64::from(self.credit);
            self.credit = 0;
        }
    }

    /// Takes a stream out of the tables. What the caller still holds of it goes on to count against the connection's
    /// window until it is released.
    fn forget(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.remove(key) {
            if stream.waiting {
                self.waiting.retain(|waiting| *waiting != key);
            }
            self.orphaned = self.orphaned.saturating_add(stream.held);
        }
    }

    fn forget_if_done(&mut self, key: StreamKey) {
        if self.streams.get(key).is_some_and(super::streams::Stream::is_done) {
            self.forget(key);
        }
    }

    /// Notes that frames may still come for a stream that we have reset.
    fn note_reset(&mut self, id: u32) {
        if self.reset_ids.len() == RESET_KEPT {
            self.reset_ids.pop_front();
        }
        self.reset_ids.push_back(id);
    }

    /// Resets a stream from our side.
    fn reset_stream(&mut self, key: StreamKey, reason: Reason, out: &mut Output) {
        out.append(|out| frame::write_number(frame::RST_STREAM, key.id, reason.0, out));
        if self
            .streams
            .get(key)
            .is_some_and(|stream| stream.recv != super::streams::Half::Done)
        {
            self.note_reset(key.id);
        }
        self.forget(key);
    }
}

impl<R: Role> fmt::Debug for Conn<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("is_server", &R::IS_SERVER)
            .field("phase", &self.phase)
            .field("streams", &self.streams.len())
            .field("recv_window", &self.recv_window)
            .field("send_window", &self.send_window)
            .field("leaving", &self.leaving)
            .finish_non_exhaustive()
    }
}
