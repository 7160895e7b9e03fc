//! Frames out. A head goes out at once; data as far as the windows and the output have room.

use bytes::{Buf, Bytes};

use super::{Client, Conn, Leaving, Phase, Role, SHUTDOWN_PING, Server};
use crate::{
    Output,
    fields::{Fields, Known, KnownSet, decimal},
    h1::{self, BodyLength},
    h2::{
        EncodeError, Reason, StreamKey,
        frame::{self, FrameHead},
        hpack::{Encoder, tables::Pseudo},
        streams::{Half, Stream, UNKNOWN},
    },
    message::{Method, RequestHead, ResponseHead, Scheme, TargetForm, is_authority_byte, is_path_byte},
    output::COPY_UP_TO,
};

/// Fields that HTTP/2 does not carry (RFC 9113 §8.2.2), carries as pseudo fields, or that this module writes itself.
const OWN: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::ContentLength,
    Known::Host,
    Known::Http2Settings,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Te,
    Known::TransferEncoding,
    Known::Upgrade,
]);

impl<R: Role> Conn<R> {
    /// Writes HEADERS, and CONTINUATION if it is long.
    pub(super) fn header_frame(
        &mut self,
        stream: u32,
        end_stream: bool,
        out: &mut Output,
        write: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) {
        self.budget.sent();
        let (encoder, max) = (&mut self.encoder, self.peer.max_frame as usize);
        out.append(|out| {
            let start = out.len();
            out.extend_from_slice(&[0; frame::HEAD]);
            encoder.begin(out);
            write(encoder, out);
            frame::frame_block(start, stream, end_stream, max, out);
        });
    }

    fn sendable(&mut self, stream: StreamKey) -> Result<&mut Stream, EncodeError> {
        if self.phase == Phase::Failed {
            return Err(EncodeError::Closed);
        }
        self.streams.get_mut(stream).ok_or(EncodeError::Closed)
    }

    /// Sends a piece of a body, as much of it as the windows and the output take now; the rest stays in `piece`, and
    /// [`Conn::next_writable`] will name the stream. `end`: nothing follows the piece.
    ///
    /// # Errors
    /// Nothing of the piece was sent; [`Conn::reset`] the stream if it is not closed.
    pub fn encode_data(
        &mut self,
        stream: StreamKey,
        piece: &mut Bytes,
        end: bool,
        out: &mut Output,
    ) -> Result<(), EncodeError> {
        let (high, max) = (self.config.output_high, i64::from(self.peer.max_frame));
        if self.phase == Phase::Failed {
            return Err(EncodeError::Closed);
        }
        let state = self.streams.get_mut(stream).ok_or(EncodeError::Closed)?;
        match state.send {
            Half::Head => return Err(EncodeError::OutOfStep),
            Half::Done => return Err(EncodeError::Closed),
            Half::Body => {}
        }
        let length = piece.len() as u64;
        if state.send_left != UNKNOWN {
            if length > state.send_left {
                return Err(EncodeError::BodyTooLong);
            }
            if end && length < state.send_left {
                return Err(EncodeError::BodyTooShort);
            }
        }
        while !piece.is_empty() {
            let window = state.send_window.min(self.send_window);
            if window <= 0 || out.remaining() >= high {
                if state.send_window <= 0 {
                    state.starved = true;
                } else if !state.waiting {
                    state.waiting = true;
                    self.waiting.push_back(stream);
                }
                return Ok(());
            }
            // Both are at most 2^31-1.
            let room = usize::try_from(window.min(max)).unwrap_or(0);
            let is_rest = piece.len() <= room;
            let part = if is_rest {
                std::mem::take(piece)
            } else {
                piece.split_to(room)
            };
            // At most the window.
            let sent = i64::try_from(part.len()).unwrap_or(window);
            state.send_window -= sent;
            self.send_window -= sent;
            if state.send_left != UNKNOWN {
                state.send_left -= part.len() as u64;
            }
            self.budget.sent();
            write_data(stream.id, part, end && is_rest, out);
        }
        if length == 0 && end {
            write_data(stream.id, Bytes::new(), true, out);
        }
        if end {
            state.send = Half::Done;
            self.forget_if_done(stream);
        }
        Ok(())
    }

    /// Ends the body without trailers; harmless where it has ended.
    pub fn encode_end(&mut self, stream: StreamKey, out: &mut Output) -> Result<(), EncodeError> {
        match self.streams.get(stream) {
            Some(state) if state.send != Half::Done => self.encode_data(stream, &mut Bytes::new(), true, out),
            _ => Ok(()),
        }
    }

    /// Ends the body with trailers. Every piece before must have been taken whole.
    pub fn encode_trailers(
        &mut self,
        stream: StreamKey,
        fields: &Fields,
        out: &mut Output,
    ) -> Result<(), EncodeError> {
        let state = self.sendable(stream)?;
        match state.send {
            Half::Head => return Err(EncodeError::OutOfStep),
            Half::Done => return Err(EncodeError::Closed),
            Half::Body if state.send_left != UNKNOWN && state.send_left > 0 => {
                return Err(EncodeError::BodyTooShort);
            }
            Half::Body => state.send = Half::Done,
        }
        self.header_frame(stream.id, true, out, |encoder, out| {
            encoder.fields(fields, h1::NEVER_TRAILERS, out);
        });
        self.forget_if_done(stream);
        Ok(())
    }

    /// The next stream that had to wait and can go on now: push its pieces again. Call it after the output was written and
    /// after [`Conn::receive`], until there is none.
    pub fn next_writable(&mut self, out: &Output) -> Option<StreamKey> {
        while self.send_window > 0 && out.remaining() < self.config.output_high {
            let key = self.waiting.pop_front()?;
            if let Some(stream) = self.streams.get_mut(key) {
                stream.waiting = false;
                return Some(key);
            }
        }
        None
    }

    /// Received data was used, so many bytes of it: the peer may send as much again. What came of a stream is to be released
    /// also when the stream has gone, whatever the reason: the connection's window bounds what the caller holds of all.
    pub fn release(&mut self, stream: StreamKey, bytes: usize, out: &mut Output) {
        let half = self.config.stream_window / 2;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Some(state) = self.streams.get_mut(stream) else {
            let bytes = bytes.min(self.orphaned);
            self.orphaned -= bytes;
            self.credit_connection(bytes, out);
            return;
        };
        let bytes = bytes.min(state.held);
        state.held -= bytes;
        if state.recv != Half::Done {
            state.credit += bytes;
            if state.credit > 0 && state.credit >= half {
                out.append(|out| {
                    frame::write_number(frame::WINDOW_UPDATE, stream.id, state.credit, out);
                });
                state.recv_window += i64::from(state.credit);
                state.credit = 0;
            }
        }
        self.credit_connection(bytes, out);
    }

    /// Ends a stream at once, in both directions. A server that has answered and wants no more of the request gives
    /// [`Reason::NO_ERROR`] (RFC 9113 §8.1). The key is void afterwards.
    pub fn reset(&mut self, stream: StreamKey, reason: Reason, out: &mut Output) {
        if self.phase != Phase::Failed && self.streams.get(stream).is_some() {
            self.reset_stream(stream, reason, out);
        }
    }

    /// Asks for a sign of life, which comes as [`Event::Pong`](super::Event::Pong).
    pub fn ping(&mut self, payload: [u8; 8], out: &mut Output) {
        out.append(|out| frame::write_ping(payload, 0, out));
    }

    /// Leaves in peace. A server first tells that it will, and names the last stream when the peer must have heard it
    /// (RFC 9113 §6.8), so that no request is lost; a client opens no further streams.
    pub fn shutdown(&mut self, out: &mut Output) {
        if self.leaving != Leaving::No || self.phase == Phase::Failed {
            return;
        }
        if !R::IS_SERVER {
            self.leaving = Leaving::Last(0);
            out.append(|out| frame::write_goaway(0, Reason::NO_ERROR, out));
            return;
        }
        self.leaving = Leaving::Announced;
        out.append(|out| {
            frame::write_goaway(frame::MAX_31, Reason::NO_ERROR, out);
            frame::write_ping(SHUTDOWN_PING, 0, out);
        });
    }

    /// Leaves now: write the output and close.
    pub fn abort(&mut self, reason: Reason, out: &mut Output) {
        if self.phase != Phase::Failed {
            self.phase = Phase::Failed;
            out.append(|out| frame::write_goaway(self.last_peer, reason, out));
        }
    }

    /// Sets how the body that follows a head goes out.
    fn begin_body(&mut self, stream: StreamKey, length: BodyLength, is_end: bool) {
        if let Some(state) = self.streams.get_mut(stream) {
            state.send = if is_end { Half::Done } else { Half::Body };
            state.send_left = match length {
                BodyLength::Exact(length) => length,
                BodyLength::Empty | BodyLength::Unknown | BodyLength::Tunnel => UNKNOWN,
            };
        }
        self.forget_if_done(stream);
    }
}

impl Conn<Server> {
    /// Sends an interim response (1xx).
    pub fn encode_informational(
        &mut self,
        stream: StreamKey,
        head: &ResponseHead,
        out: &mut Output,
    ) -> Result<(), EncodeError> {
        if self.sendable(stream)?.send != Half::Head {
            return Err(EncodeError::OutOfStep);
        }
        if !head.is_informational() {
            return Err(EncodeError::InvalidHead);
        }
        self.response_frame(stream, head, LengthField::None, false, out);
        Ok(())
    }

    /// Sends the head of the response; `length` is what [`Event::Head`](super::Event::Head) told of the body on the other side. The
    /// stream ends with it where there is no body: `Empty`, an answer to HEAD, 204 and 304.
    pub fn encode_head(
        &mut self,
        stream: StreamKey,
        head: &ResponseHead,
        length: BodyLength,
        out: &mut Output,
    ) -> Result<(), EncodeError> {
        let state = self.sendable(stream)?;
        if state.send != Half::Head {
            return Err(EncodeError::OutOfStep);
        }
        // RFC 9113 §8.6: there is no 101.
        if !(200..=999).contains(&head.status) {
            return Err(EncodeError::InvalidHead);
        }
        let bodiless = state.bodiless || matches!(head.status, 204 | 304);
        let is_end = bodiless || length == BodyLength::Empty;
        let field = match length {
            _ if head.status == 204 => LengthField::None,
            _ if bodiless => LengthField::Received,
            length => LengthField::of(length),
        };
        self.response_frame(stream, head, field, is_end, out);
        self.begin_body(stream, length, is_end);
        Ok(())
    }

    fn response_frame(
        &mut self,
        stream: StreamKey,
        head: &ResponseHead,
        length: LengthField,
        is_end: bool,
        out: &mut Output,
    ) {
        self.header_frame(stream.id, is_end, out, |encoder, out| {
            let mut digits = [0; 20];
            encoder.pseudo(Pseudo::Status, decimal(head.status.into(), &mut digits), out);
            encoder.fields(&head.fields, OWN, out);
            length.write(&head.fields, encoder, out);
        });
    }
}

impl Conn<Client> {
    /// Whether a stream can be opened now. `false` may change with the end of another one, unless
    /// [`Conn::is_leaving`].
    pub fn can_open(&self) -> bool {
        !self.is_leaving() && self.streams.len() < self.stream_limit() as usize
    }

    /// Whether no stream can be opened any more: one side is leaving, it has failed, or the identifiers are used up.
    pub fn is_leaving(&self) -> bool {
        self.going
            || self.phase == Phase::Failed
            || self.leaving != Leaving::No
            || self.next_own > frame::MAX_31
    }

    /// How many streams may be open at once, as far as both sides have said.
    pub fn stream_limit(&self) -> u32 {
        self.peer.max_streams.min(self.config.max_concurrent_streams)
    }

    /// Whether the server takes extended CONNECT (RFC 8441).
    pub fn allows_protocol(&self) -> bool {
        self.peer.connect_protocol
    }

    /// Sends the head of a request on a new stream. `scheme` is taken where the head has none. A request with `upgrade` whose
    /// length is [`BodyLength::Tunnel`] goes out as extended CONNECT.
    pub fn open(
        &mut self,
        head: &RequestHead,
        scheme: Scheme,
        length: BodyLength,
        out: &mut Output,
    ) -> Result<StreamKey, EncodeError> {
        if !self.can_open() {
            return Err(EncodeError::NoStream);
        }
        let protocol = match head.fields.get(Known::Upgrade) {
            Some(protocol) if length == BodyLength::Tunnel && head.method != Method::Connect => {
                Some(protocol)
            }
            _ => None,
        };
        if protocol.is_some() && !self.peer.connect_protocol {
            return Err(EncodeError::InvalidHead);
        }
        let is_connect = head.method == Method::Connect;
        let path = request_path(head, is_connect)?;
        let id = self.next_own;
        self.next_own += 2;
        let is_end = length == BodyLength::Empty;
        self.header_frame(id, is_end, out, |encoder, out| {
            let method = if protocol.is_some() {
                "CONNECT"
            } else {
                head.method.as_str()
            };
            encoder.pseudo(Pseudo::Method, method.as_bytes(), out);
            if let Some(protocol) = protocol {
                encoder.pseudo(Pseudo::Protocol, protocol, out);
            }
            if !is_connect {
                let scheme = head.scheme.unwrap_or(scheme);
                encoder.pseudo(Pseudo::Scheme, scheme.as_str().as_bytes(), out);
            }
            if !head.authority.is_empty() {
                encoder.pseudo(Pseudo::Authority, &head.authority, out);
            }
            if !is_connect {
                encoder.pseudo(Pseudo::Path, path, out);
            }
            encoder.fields(&head.fields, OWN, out);
            if head.fields.get(Known::Te) == Some(b"trailers") {
                encoder.field(b"te", Some(Known::Te), b"trailers", false, out);
            }
            LengthField::of(length).write(&head.fields, encoder, out);
        });
        let mut stream = Stream::new(id, Half::Head, Half::Head);
        stream.send_window = self.peer.initial_window.into();
        stream.recv_window = self.acked_window.into();
        stream.bodiless = head.method == Method::Head;
        let key = self.streams.insert(stream);
        self.begin_body(key, length, is_end);
        Ok(key)
    }
}

/// The checked path of a request that goes out.
fn request_path(head: &RequestHead, is_connect: bool) -> Result<&[u8], EncodeError> {
    let (path, authority) = (&head.path_and_query[..], &head.authority[..]);
    let is_valid = path.iter().fold(true, |valid, byte| valid & is_path_byte(*byte))
        && authority
            .iter()
            .fold(true, |valid, byte| valid & is_authority_byte(*byte));
    let is_target = if is_connect {
        !authority.is_empty() && (path.is_empty() || head.form != TargetForm::Authority)
    } else {
        matches!(path, [] | [b'/', ..]) || (path == b"*" && head.method == Method::Options)
    };
    if !is_valid || !is_target {
        return Err(EncodeError::InvalidHead);
    }
    Ok(if path.is_empty() { b"/" } else { path })
}

/// Which `content-length` a head has.
#[derive(Clone, Copy)]
enum LengthField {
    None,
    Exact(u64),
    /// The received one, as information (HEAD, 304).
    Received,
    /// The received one if it is 0.
    Zero,
}

impl LengthField {
    fn of(length: BodyLength) -> Self {
        match length {
            BodyLength::Empty => Self::Zero,
            BodyLength::Exact(length) => Self::Exact(length),
            BodyLength::Unknown | BodyLength::Tunnel => Self::None,
        }
    }

    fn write(self, fields: &Fields, encoder: &mut Encoder, out: &mut Vec<u8>) {
        let number = match self {
            Self::None => None,
            Self::Exact(length) => Some(length),
            Self::Received | Self::Zero => {
                let received = fields
                    .get(Known::ContentLength)
                    .and_then(|value| h1::content_length(value).ok());
                received.filter(|length| *length == 0 || matches!(self, Self::Received))
            }
        };
        if let Some(number) = number {
            let mut digits = [0; 20];
            let value = decimal(number, &mut digits);
            encoder.field(b"content-length", Some(Known::ContentLength), value, false, out);
        }
    }
}

/// Adds a DATA frame; a small payload is written behind its head.
fn write_data(stream: u32, data: Bytes, end: bool, out: &mut Output) {
    let head = FrameHead {
        len: data.len(),
        kind: frame::DATA,
        flags: if end { frame::END_STREAM } else { 0 },
        stream,
    };
    if data.len() <= COPY_UP_TO {
        out.append(|out| {
            out.extend_from_slice(&head.to_bytes());
            out.extend_from_slice(&data);
        });
    } else {
        out.push_slice(&head.to_bytes());
        out.push(data);
    }
}
