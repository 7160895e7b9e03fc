//! Frames in: each is taken when it is there as a whole.

use bytes::{Buf, BytesMut};

use super::{Conn, DecodedSection, Event, Leaving, Partial, Phase, Role, SHUTDOWN_PING};
use crate::{
    Output,
    fields::Fields,
    h2::{
        DecodeError, Reason, StreamKey,
        frame::{self, FrameHead, HEAD},
        hpack::tables::Pseudo,
        section::{Section, SectionLimits},
        streams::{Half, Stream, UNKNOWN},
    },
};

/// What a broken rule ends.
enum Fault {
    Connection(DecodeError),
    Stream(StreamKey, DecodeError),
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Self::Connection(error)
    }
}

type Taken<R> = Result<Option<Event<<R as Role>::Head>>, Fault>;

/// Output beyond what data may fill that a peer may leave unread while it makes us answer.
const UNREAD_MAX: usize = 1 << 20;

/// Settings in one frame that count as one control frame.
const SETTINGS_FREE: usize = 16;

impl<R: Role> Conn<R> {
    /// Takes frames out of the buffer until one is worth telling; none when more must be read first. What has to be
    /// answered is put into the output.
    ///
    /// # Errors
    /// The connection has failed: write the output (it has a GOAWAY) and close. Every stream has ended.
    pub fn receive(
        &mut self,
        buf: &mut BytesMut,
        out: &mut Output,
    ) -> Result<Option<Event<R::Head>>, DecodeError> {
        if self.refusing_above.is_some()
            && let Some(event) = self.next_refused()
        {
            return Ok(Some(event));
        }
        loop {
            let taken = match self.next_frame(buf) {
                Ok(Some(head)) if head.kind == frame::DATA => self.data(head, buf, out),
                Ok(Some(head)) => {
                    let taken = self.other(head, &buf[HEAD..HEAD + head.len], out);
                    buf.advance(HEAD + head.len);
                    taken
                }
                Ok(None) => return Ok(None),
                Err(error) => Err(error.into()),
            };
            match taken {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) => {}
                Err(fault) => return self.fault(&fault, out).map(Some),
            }
        }
    }

    /// The peer has closed its side.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] where a frame or a stream is not finished.
    pub fn receive_eof(&mut self, buf: &BytesMut) -> Result<(), DecodeError> {
        let finished = buf.is_empty() && self.partial.is_none() && self.streams.is_empty();
        if finished || self.phase == Phase::Failed {
            Ok(())
        } else {
            self.phase = Phase::Failed;
            Err(DecodeError::Truncated)
        }
    }

    /// How many bytes the buffer must have before the next frame can be taken, as far as its head tells.
    pub fn bytes_wanted(buf: &BytesMut) -> usize {
        FrameHead::parse(buf).map_or(HEAD, |head| HEAD + head.len)
    }

    #[cold]
    fn fault(&mut self, fault: &Fault, out: &mut Output) -> Result<Event<R::Head>, DecodeError> {
        let error = match *fault {
            Fault::Connection(error) => error,
            Fault::Stream(stream, error) => match self.budget.reset(&self.config) {
                Ok(()) => {
                    let reason = error.reason();
                    self.reset_stream(stream, reason, out);
                    return Ok(Event::Reset {
                        stream,
                        reason,
                        error: Some(error),
                    });
                }
                Err(flood) => flood,
            },
        };
        if self.phase != Phase::Failed {
            self.phase = Phase::Failed;
            out.append(|out| frame::write_goaway(self.last_peer, error.reason(), out));
            self.waiting.clear();
            self.partial = None;
        }
        Err(error)
    }

    /// The head of the next frame that is there as a whole and may come here.
    #[inline]
    fn next_frame(&mut self, buf: &mut BytesMut) -> Result<Option<FrameHead>, DecodeError> {
        if self.phase != Phase::Open && !self.preface(buf)? {
            return Ok(None);
        }
        let Some(head) = FrameHead::parse(buf) else {
            return Ok(None);
        };
        if head.len > self.config.max_frame_size as usize {
            return Err(DecodeError::FrameTooLarge);
        }
        if self.phase == Phase::Settings && (head.kind != frame::SETTINGS || head.has(frame::ACK)) {
            return Err(DecodeError::SettingsMissing);
        }
        if let Some(partial) = &self.partial
            && (head.kind != frame::CONTINUATION || head.stream != partial.stream)
        {
            return Err(DecodeError::Continuation);
        }
        Ok((buf.len() >= HEAD + head.len).then_some(head))
    }

    /// Whether frames may come: takes the preface.
    #[cold]
    fn preface(&mut self, buf: &mut BytesMut) -> Result<bool, DecodeError> {
        match self.phase {
            Phase::Failed => Err(DecodeError::OutOfStep),
            Phase::Preface => {
                let there = buf.len().min(frame::PREFACE.len());
                if buf[..there] != frame::PREFACE[..there] {
                    return Err(DecodeError::Preface);
                }
                if there < frame::PREFACE.len() {
                    return Ok(false);
                }
                buf.advance(there);
                self.phase = Phase::Settings;
                Ok(true)
            }
            Phase::Settings | Phase::Open => Ok(true),
        }
    }

    fn data(&mut self, head: FrameHead, buf: &mut BytesMut, out: &mut Output) -> Taken<R> {
        if head.stream == 0 {
            return Err(DecodeError::FrameStream.into());
        }
        // At most 2^24-1. Padding counts too.
        let charged = u32::try_from(head.len).unwrap_or(u32::MAX);
        if i64::from(charged) > self.recv_window {
            return Err(DecodeError::WindowExceeded.into());
        }
        let place = frame::unpadded(head, &buf[HEAD..HEAD + head.len])?;
        let Some(key) = self.streams.find(head.stream) else {
            self.check_not_idle(head.stream)?;
            self.budget.control(&self.config)?;
            buf.advance(HEAD + head.len);
            self.recv_window -= i64::from(charged);
            self.credit_connection(charged, out);
            return Ok(None);
        };
        self.recv_window -= i64::from(charged);
        let is_end = head.has(frame::END_STREAM);
        let size = place.len() as u64;
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(None);
        };
        let error = match stream.recv {
            Half::Head => Some(DecodeError::UnexpectedData),
            Half::Done => Some(DecodeError::StreamClosed),
            Half::Body if i64::from(charged) > stream.recv_window => Some(DecodeError::WindowExceeded),
            Half::Body => {
                let is_known = stream.recv_left != UNKNOWN;
                let is_wrong = size > stream.recv_left || (is_end && size != stream.recv_left);
                (is_known && is_wrong).then_some(DecodeError::ContentLengthMismatch)
            }
        };
        if let Some(error) = error {
            buf.advance(HEAD + head.len);
            self.credit_connection(charged, out);
            return Err(Fault::Stream(key, error));
        }
        if stream.recv_left != UNKNOWN {
            stream.recv_left -= size;
        }
        stream.recv_window -= i64::from(charged);
        stream.held += charged;
        if is_end {
            stream.recv = Half::Done;
        }
        // The caller releases what it sees.
        let padding = head.len - place.len();
        buf.advance(HEAD + place.start);
        let data = buf.split_to(place.len()).freeze();
        if padding > 0 {
            buf.advance(padding - place.start);
            self.release(key, padding, out);
        }
        if is_end {
            self.forget_if_done(key);
        } else if data.is_empty() {
            self.budget.control(&self.config)?;
            return Ok(None);
        }
        Ok(Some(Event::Data {
            stream: key,
            data,
            is_end,
        }))
    }

    /// Every frame but DATA.
    fn other(&mut self, head: FrameHead, payload: &[u8], out: &mut Output) -> Taken<R> {
        match head.kind {
            frame::HEADERS => self.headers(head, payload, out),
            frame::CONTINUATION => self.continuation(head, payload, out),
            frame::RST_STREAM => self.rst_stream(head, payload),
            frame::SETTINGS => self.settings(head, payload, out),
            frame::PUSH_PROMISE => Err(DecodeError::PushPromise.into()),
            frame::PING => self.ping_frame(head, payload, out),
            frame::GOAWAY => self.goaway(head, payload),
            frame::WINDOW_UPDATE => self.window_update(head, payload),
            frame::PRIORITY => {
                // A frame of a wrong size may end the connection too (RFC 9113 §5.4.1).
                if payload.len() != 5 {
                    return Err(DecodeError::FrameSize.into());
                }
                if head.stream == 0 {
                    return Err(DecodeError::FrameStream.into());
                }
                self.budget.control(&self.config)?;
                Ok(None)
            }
            _ => {
                self.budget.control(&self.config)?;
                Ok(None)
            }
        }
    }

    /// A stream that is not open must have been (RFC 9113 §5.1).
    fn check_not_idle(&self, id: u32) -> Result<(), DecodeError> {
        let was_used = if R::IS_SERVER {
            id % 2 == 1 && id <= self.last_peer
        } else {
            id % 2 == 1 && id < self.next_own
        };
        if was_used {
            Ok(())
        } else {
            Err(DecodeError::IdleStream)
        }
    }

    fn headers(&mut self, head: FrameHead, payload: &[u8], out: &mut Output) -> Taken<R> {
        if head.stream == 0 {
            return Err(DecodeError::FrameStream.into());
        }
        let mut place = frame::unpadded(head, payload)?;
        if head.has(frame::WITH_PRIORITY) {
            place.start += 5;
            if place.start > place.end {
                return Err(DecodeError::FrameSize.into());
            }
        }
        let (block, is_end) = (&payload[place], head.has(frame::END_STREAM));
        if head.has(frame::END_HEADERS) {
            return self.header_block(head.stream, is_end, block, out);
        }
        self.partial = Some(Box::new(Partial {
            stream: head.stream,
            is_end,
            block: block.to_vec(),
            frames: 1,
        }));
        Ok(None)
    }

    fn continuation(&mut self, head: FrameHead, payload: &[u8], out: &mut Output) -> Taken<R> {
        let Some(mut partial) = self.partial.take() else {
            return Err(DecodeError::Continuation.into());
        };
        partial.frames += 1;
        // A block is hardly ever longer than what it stands for, and frames of less than 1 KiB are nobody's habit.
        let bytes = self.config.max_head_bytes + 1024;
        if partial.block.len() + payload.len() > bytes || partial.frames > 8 + bytes / 1024 {
            return Err(DecodeError::HeaderFlood.into());
        }
        partial.block.extend_from_slice(payload);
        if head.has(frame::END_HEADERS) {
            return self.header_block(partial.stream, partial.is_end, &partial.block, out);
        }
        self.partial = Some(partial);
        Ok(None)
    }

    /// A whole header block: a new stream, a response's head, or trailers.
    fn header_block(&mut self, id: u32, is_end: bool, block: &[u8], out: &mut Output) -> Taken<R> {
        let key = self.streams.find(id);
        let known = key.and_then(|key| Some((key, *self.streams.get(key)?)));
        let is_trailers = known.is_some_and(|(_, stream)| stream.recv == Half::Body);
        if known.is_none() && (!R::IS_SERVER || id.is_multiple_of(2) || id <= self.last_peer) {
            self.check_late_headers(id)?;
        }
        let limits = if is_trailers {
            SectionLimits {
                bytes: self.config.max_trailer_bytes,
                fields: self.config.max_trailers,
            }
        } else {
            SectionLimits {
                bytes: self.config.max_head_bytes,
                fields: self.config.max_headers,
            }
        };
        let mut section = Section::new(limits, self.hint);
        self.decoder
            .decode(block, &mut section)
            .map_err(|_| DecodeError::Compression)?;
        if !is_trailers {
            self.hint = section.hint();
        }
        match known {
            Some((key, stream)) => match stream.recv {
                Half::Head => self.response(key, stream, section, is_end),
                Half::Body if !is_end => Err(Fault::Stream(key, DecodeError::TrailersNotLast)),
                Half::Body if stream.recv_left != UNKNOWN && stream.recv_left > 0 => {
                    Err(Fault::Stream(key, DecodeError::ContentLengthMismatch))
                }
                Half::Body => self.trailers(key, section),
                Half::Done => Err(Fault::Stream(key, DecodeError::StreamClosed)),
            },
            None if R::IS_SERVER && id > self.last_peer => self.new_stream(id, section, is_end, out),
            None => Ok(None),
        }
    }

    /// Headers of a stream that is not open and can't be opened: only of one that we have reset.
    #[cold]
    fn check_late_headers(&mut self, id: u32) -> Result<(), DecodeError> {
        if id.is_multiple_of(2) {
            return Err(DecodeError::StreamId);
        }
        self.check_not_idle(id)?;
        if !self.reset_ids.contains(&id) {
            return Err(DecodeError::StreamClosed);
        }
        self.budget.control(&self.config)
    }

    fn trailers(&mut self, key: StreamKey, section: Section) -> Taken<R> {
        let fields: Fields = section
            .into_trailers()
            .map_err(|error| Fault::Stream(key, error))?;
        if let Some(stream) = self.streams.get_mut(key) {
            stream.recv = Half::Done;
        }
        self.forget_if_done(key);
        Ok(Some(Event::Trailers { stream: key, fields }))
    }

    /// The head of a response, interim or final.
    fn response(&mut self, key: StreamKey, before: Stream, section: Section, is_end: bool) -> Taken<R> {
        let decoded = DecodedSection {
            section,
            is_end,
            bodiless: before.bodiless,
        };
        let broken = |error| Fault::Stream(key, error);
        let (head, facts) = R::head(decoded, false).map_err(broken)?;
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(None);
        };
        if facts.informational {
            stream.informational += 1;
            if is_end {
                return Err(broken(DecodeError::InformationalEnd));
            }
            if stream.informational > self.config.max_informational {
                return Err(broken(DecodeError::TooManyInformational));
            }
        } else {
            stream.recv = if is_end { Half::Done } else { Half::Body };
            stream.recv_left = facts.length.unwrap_or(UNKNOWN);
            self.forget_if_done(key);
        }
        Ok(Some(Event::Head {
            stream: key,
            head,
            is_end,
        }))
    }

    /// A request.
    fn new_stream(&mut self, id: u32, section: Section, is_end: bool, out: &mut Output) -> Taken<R> {
        self.last_peer = id;
        if let Leaving::Last(last) = self.leaving
            && id > last
        {
            self.note_reset(id);
            self.budget.control(&self.config)?;
            return Ok(None);
        }
        if self.streams.len() >= self.config.max_concurrent_streams as usize {
            return self.refuse(id, DecodeError::TooManyStreams, is_end, out);
        }
        let decoded = DecodedSection {
            section,
            is_end,
            bodiless: false,
        };
        let (head, facts) = match R::head(decoded, self.config.enable_connect_protocol) {
            Ok(head) => head,
            Err(error) => return self.refuse(id, error, is_end, out),
        };
        let mut stream = Stream::new(id, if is_end { Half::Done } else { Half::Body }, Half::Head);
        stream.send_window = self.peer.initial_window.into();
        stream.recv_window = self.acked_window.into();
        stream.recv_left = facts.length.unwrap_or(UNKNOWN);
        stream.bodiless = facts.bodiless;
        Ok(Some(Event::Head {
            stream: self.streams.insert(stream),
            head,
            is_end,
        }))
    }

    /// Turns a request away before it becomes a stream: one that is too large with 431, every other one with a reset.
    #[cold]
    fn refuse(&mut self, id: u32, error: DecodeError, is_end: bool, out: &mut Output) -> Taken<R> {
        self.budget.reset(&self.config)?;
        let mut reason = error.reason();
        if matches!(error, DecodeError::HeadTooLarge | DecodeError::TooManyHeaders) {
            reason = Reason::NO_ERROR;
            self.header_frame(id, true, out, |encoder, out| {
                encoder.pseudo(Pseudo::Status, b"431", out);
            });
        }
        if reason != Reason::NO_ERROR || !is_end {
            out.append(|out| frame::write_number(frame::RST_STREAM, id, reason.0, out));
        }
        if !is_end {
            self.note_reset(id);
        }
        Ok(Some(Event::Refused { id, error }))
    }

    fn rst_stream(&mut self, head: FrameHead, payload: &[u8]) -> Taken<R> {
        let reason = Reason(number(payload)?);
        if head.stream == 0 {
            return Err(DecodeError::FrameStream.into());
        }
        let Some(stream) = self.streams.find(head.stream) else {
            self.check_not_idle(head.stream)?;
            self.budget.control(&self.config)?;
            return Ok(None);
        };
        if R::IS_SERVER
            && self
                .streams
                .get(stream)
                .is_some_and(|stream| stream.send == Half::Head)
        {
            self.budget.reset(&self.config)?;
        }
        self.forget(stream);
        Ok(Some(Event::Reset {
            stream,
            reason,
            error: None,
        }))
    }

    fn settings(&mut self, head: FrameHead, payload: &[u8], out: &mut Output) -> Taken<R> {
        if head.stream != 0 {
            return Err(DecodeError::FrameStream.into());
        }
        if head.has(frame::ACK) {
            return self.settings_ack(payload).map(|()| None).map_err(Fault::from);
        }
        let (settings, []) = payload.as_chunks::<6>() else {
            return Err(DecodeError::FrameSize.into());
        };
        if self.phase == Phase::Settings {
            self.phase = Phase::Open;
            self.peer.max_streams = u32::MAX;
        } else {
            self.answerable(out)?;
        }
        for (index, [a, b, value @ ..]) in settings.iter().enumerate() {
            // A change of the window is work for each stream.
            if index >= SETTINGS_FREE {
                self.budget.control(&self.config)?;
            }
            self.setting(u16::from_be_bytes([*a, *b]), u32::from_be_bytes(*value))?;
        }
        out.append(|out| frame::write_settings(&[], frame::ACK, out));
        Ok(None)
    }

    fn setting(&mut self, name: u16, value: u32) -> Result<(), DecodeError> {
        match name {
            frame::SETTING_HEADER_TABLE_SIZE => self.encoder.resize(value as usize),
            frame::SETTING_ENABLE_PUSH if value > 1 || (!R::IS_SERVER && value != 0) => {
                return Err(DecodeError::Setting);
            }
            frame::SETTING_MAX_CONCURRENT_STREAMS => self.peer.max_streams = value,
            frame::SETTING_INITIAL_WINDOW_SIZE => {
                if value > frame::MAX_31 {
                    return Err(DecodeError::SettingWindow);
                }
                let change = i64::from(value) - i64::from(self.peer.initial_window);
                self.peer.initial_window = value;
                for (key, stream) in self.streams.iter_mut() {
                    stream.send_window += change;
                    if stream.send_window > i64::from(frame::MAX_31) {
                        return Err(DecodeError::SettingWindow);
                    }
                    if stream.starved && stream.send_window > 0 {
                        stream.starved = false;
                        stream.waiting = true;
                        self.waiting.push_back(key);
                    }
                }
            }
            frame::SETTING_MAX_FRAME_SIZE => {
                if !(16_384..=0xff_ffff).contains(&value) {
                    return Err(DecodeError::Setting);
                }
                self.peer.max_frame = value.min(super::SEND_FRAME_MAX);
            }
            frame::SETTING_ENABLE_CONNECT_PROTOCOL => {
                // It can't be taken back (RFC 8441 §3).
                if value > 1 || (self.peer.connect_protocol && value == 0) {
                    return Err(DecodeError::Setting);
                }
                self.peer.connect_protocol = value == 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// From here on the peer keeps to our settings.
    fn settings_ack(&mut self, payload: &[u8]) -> Result<(), DecodeError> {
        if !payload.is_empty() {
            return Err(DecodeError::FrameSize);
        }
        self.unacked = self.unacked.checked_sub(1).ok_or(DecodeError::SettingsAck)?;
        let change = i64::from(self.config.stream_window) - i64::from(self.acked_window);
        self.acked_window = self.config.stream_window;
        for (_, stream) in self.streams.iter_mut() {
            stream.recv_window += change;
        }
        self.decoder.allow(self.config.header_table_size.into());
        Ok(())
    }

    /// A frame that must be answered: not for ever, and not to a peer that does not read.
    fn answerable(&mut self, out: &Output) -> Result<(), DecodeError> {
        self.budget.control(&self.config)?;
        if out.remaining() > self.config.output_high.saturating_add(UNREAD_MAX) {
            return Err(DecodeError::OutputFlood);
        }
        Ok(())
    }

    fn ping_frame(&mut self, head: FrameHead, payload: &[u8], out: &mut Output) -> Taken<R> {
        let payload: [u8; 8] = payload.try_into().map_err(|_| DecodeError::FrameSize)?;
        if head.stream != 0 {
            return Err(DecodeError::FrameStream.into());
        }
        if !head.has(frame::ACK) {
            self.answerable(out)?;
            out.append(|out| frame::write_ping(payload, frame::ACK, out));
            return Ok(None);
        }
        if self.leaving == Leaving::Announced && payload == SHUTDOWN_PING {
            self.leaving = Leaving::Last(self.last_peer);
            out.append(|out| frame::write_goaway(self.last_peer, Reason::NO_ERROR, out));
            return Ok(None);
        }
        self.budget.control(&self.config)?;
        Ok(Some(Event::Pong { payload }))
    }

    fn goaway(&mut self, head: FrameHead, payload: &[u8]) -> Taken<R> {
        if head.stream != 0 {
            return Err(DecodeError::FrameStream.into());
        }
        let Some(([last, reason], _)) = payload
            .split_first_chunk::<8>()
            .map(|(numbers, debug)| (numbers.as_chunks::<4>().0, debug))
            .and_then(|(numbers, debug)| Some((<[[u8; 4]; 2]>::try_from(numbers).ok()?, debug)))
        else {
            return Err(DecodeError::FrameSize.into());
        };
        self.budget.control(&self.config)?;
        let last = u32::from_be_bytes(last) & frame::MAX_31;
        self.going = true;
        if !R::IS_SERVER {
            self.refusing_above = Some(self.refusing_above.map_or(last, |before| before.min(last)));
        }
        Ok(Some(Event::GoAway {
            last,
            reason: Reason(u32::from_be_bytes(reason)),
        }))
    }

    /// One of our streams that the leaving peer has not looked at.
    #[cold]
    fn next_refused(&mut self) -> Option<Event<R::Head>> {
        let above = self.refusing_above?;
        let Some(stream) = self.streams.highest().filter(|stream| stream.id > above) else {
            self.refusing_above = None;
            return None;
        };
        self.note_reset(stream.id);
        self.forget(stream);
        Some(Event::Reset {
            stream,
            reason: Reason::REFUSED_STREAM,
            error: None,
        })
    }

    fn window_update(&mut self, head: FrameHead, payload: &[u8]) -> Taken<R> {
        let increment = number(payload)? & frame::MAX_31;
        self.budget.control(&self.config)?;
        let largest = i64::from(frame::MAX_31);
        if head.stream == 0 {
            if increment == 0 {
                return Err(DecodeError::WindowUpdateZero.into());
            }
            self.send_window += i64::from(increment);
            if self.send_window > largest {
                return Err(DecodeError::WindowOverflow.into());
            }
            return Ok(None);
        }
        let Some(key) = self.streams.find(head.stream) else {
            return self
                .check_not_idle(head.stream)
                .map(|()| None)
                .map_err(Fault::from);
        };
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(None);
        };
        if increment == 0 {
            return Err(Fault::Stream(key, DecodeError::WindowUpdateZero));
        }
        stream.send_window += i64::from(increment);
        if stream.send_window > largest {
            return Err(Fault::Stream(key, DecodeError::WindowOverflow));
        }
        if stream.starved && stream.send_window > 0 {
            stream.starved = false;
            stream.waiting = true;
            self.waiting.push_back(key);
        }
        Ok(None)
    }
}

/// The payload of a frame that is one number.
fn number(payload: &[u8]) -> Result<u32, DecodeError> {
    payload
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| DecodeError::FrameSize)
}
