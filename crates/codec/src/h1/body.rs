//! Bodies coming in: fixed length, chunked, until the connection closes, or a tunnel. Pieces are split off the read
//! buffer without copying.
//!
//! ```text
//!              Length(n) ──n bytes──────────────────────────────────────────────┐
//!              UntilClose, Tunnel ──eof───────────────────────────────────────┐ │
//!                                                                             v v
//!  Chunked:  Size ─';'─► Extension ─CR─┐                                      Done
//!             ├──────────CR────────────┴► SizeLf ─n>0─► Data ─n bytes─► DataCr ─► DataLf ─► Size
//!             │                              └──n=0──► Trailers ─CRLF─► Done
//! ```
//!
//! Bounds: a chunk's size has at most 16 digits, extensions and trailers as `Limits` say; nothing is buffered here.
//! Extensions are read over (RFC 9112 §7.1.1 lets a recipient ignore them) and never forwarded.

use bytes::{Buf, Bytes, BytesMut};

use super::{DecodeError, Limits, head};
use crate::fields::Fields;

/// What reading a body yields.
#[derive(Debug, PartialEq)]
pub enum BodyEvent {
    /// The next bytes of the body, never empty.
    Data(Bytes),
    /// The trailer section of a chunked body; `End` comes next.
    Trailers(Fields),
    /// The body is complete. Asked again, the answer is the same.
    End,
    /// More bytes must be read first.
    Pending,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum BodyDecoder {
    Length(u64),
    Chunked(Chunked),
    /// Lasts until the connection ends.
    UntilClose,
    /// Likewise, but no HTTP any more.
    Tunnel,
    Done,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunked {
    state: ChunkState,
    /// The chunk's size while it is read, then what is left of it.
    left: u64,
    digits: u8,
    extension_bytes: u32,
    progress: head::Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
}

/// 64 bits in hexadecimal.
const MAX_SIZE_DIGITS: u8 = 16;

impl BodyDecoder {
    pub(crate) fn chunked() -> Self {
        Self::Chunked(Chunked {
            state: ChunkState::Size,
            left: 0,
            digits: 0,
            extension_bytes: 0,
            progress: head::Progress::default(),
        })
    }

    pub(crate) const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Bytes of the body that are still to come, where the length is known.
    pub(crate) const fn remaining(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Done => Some(0),
            Self::Chunked(_) | Self::UntilClose | Self::Tunnel => None,
        }
    }

    pub(crate) fn decode(&mut self, buf: &mut BytesMut, limits: &Limits) -> Result<BodyEvent, DecodeError> {
        match self {
            Self::Done => Ok(BodyEvent::End),
            Self::UntilClose | Self::Tunnel => Ok(if buf.is_empty() {
                BodyEvent::Pending
            } else {
                BodyEvent::Data(buf.split().freeze())
            }),
            Self::Length(left) => {
                let event = take(buf, left);
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(event)
            }
            Self::Chunked(chunked) => {
                let event = chunked.decode(buf, limits)?;
                if chunked.state == ChunkState::Trailers
                    && matches!(event, BodyEvent::End | BodyEvent::Trailers(_))
                {
                    *self = Self::Done;
                }
                Ok(event)
            }
        }
    }

    /// The peer sends nothing more. True when that ends the body, false when there is none left to end.
    pub(crate) fn eof(&mut self) -> Result<bool, DecodeError> {
        match self {
            Self::UntilClose | Self::Tunnel => {
                *self = Self::Done;
                Ok(true)
            }
            Self::Done => Ok(false),
            Self::Length(_) | Self::Chunked(_) => Err(DecodeError::Truncated),
        }
    }
}

/// Splits off what the buffer has of `left` bytes.
fn take(buf: &mut BytesMut, left: &mut u64) -> BodyEvent {
    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
    if n == 0 {
        return BodyEvent::Pending;
    }
    *left -= n as u64;
    BodyEvent::Data(buf.split_to(n).freeze())
}

impl Chunked {
    fn decode(&mut self, buf: &mut BytesMut, limits: &Limits) -> Result<BodyEvent, DecodeError> {
        loop {
            match self.state {
                ChunkState::Data => {
                    let event = take(buf, &mut self.left);
                    if self.left == 0 {
                        self.state = ChunkState::DataCr;
                    }
                    return Ok(event);
                }
                ChunkState::Trailers => return self.trailers(buf, limits),
                ChunkState::Size
                | ChunkState::Extension
                | ChunkState::SizeLf
                | ChunkState::DataCr
                | ChunkState::DataLf => {
                    if !self.framing(buf, limits)? {
                        return Ok(BodyEvent::Pending);
                    }
                }
            }
        }
    }

    /// Reads framing until data or trailers follow. False when the bytes ran out before.
    fn framing(&mut self, buf: &mut BytesMut, limits: &Limits) -> Result<bool, DecodeError> {
        let mut read = 0;
        let mut reached = false;
        for byte in buf.iter() {
            read += 1;
            match (self.state, *byte) {
                (ChunkState::DataCr, b'\r') => self.state = ChunkState::DataLf,
                (ChunkState::DataLf, b'\n') => {
                    self.state = ChunkState::Size;
                    self.digits = 0;
                }
                (ChunkState::Size, digit) if digit.is_ascii_hexdigit() => self.digit(digit)?,
                (ChunkState::Size, b'\r') if self.digits > 0 => self.state = ChunkState::SizeLf,
                (ChunkState::Size, b';') if self.digits > 0 => {
                    self.state = ChunkState::Extension;
                    self.extension_byte(limits)?;
                }
                (ChunkState::Size, b'\n') if self.digits > 0 => return Err(DecodeError::ChunkLineEnding),
                (ChunkState::Size, _) => return Err(DecodeError::ChunkSize),
                (ChunkState::Extension, b'\r') => self.state = ChunkState::SizeLf,
                (ChunkState::Extension, b'\n') => return Err(DecodeError::ChunkLineEnding),
                (ChunkState::Extension, byte) if crate::fields::is_value_byte(byte) => {
                    self.extension_byte(limits)?;
                }
                (ChunkState::Extension, _) => return Err(DecodeError::ChunkExtension),
                (ChunkState::SizeLf, b'\n') => {
                    self.state = if self.left == 0 {
                        ChunkState::Trailers
                    } else {
                        ChunkState::Data
                    };
                    reached = true;
                    break;
                }
                (ChunkState::SizeLf | ChunkState::DataCr | ChunkState::DataLf, _) => {
                    return Err(DecodeError::ChunkLineEnding);
                }
                (ChunkState::Data | ChunkState::Trailers, _) => return Err(DecodeError::OutOfStep),
            }
        }
        buf.advance(read);
        Ok(reached)
    }

    fn digit(&mut self, digit: u8) -> Result<(), DecodeError> {
        if self.digits == MAX_SIZE_DIGITS {
            return Err(DecodeError::ChunkSizeOverflow);
        }
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            _ => (digit | 0x20) - b'a' + 10,
        };
        self.digits += 1;
        // Sixteen digits of four bits fit. The first digit of a chunk finds zero left of the one before.
        self.left = self.left << 4 | u64::from(value);
        Ok(())
    }

    fn extension_byte(&mut self, limits: &Limits) -> Result<(), DecodeError> {
        self.extension_bytes += 1;
        if self.extension_bytes > limits.max_chunk_extension_bytes {
            return Err(DecodeError::ChunkExtensionTooLong);
        }
        Ok(())
    }

    fn trailers(&mut self, buf: &mut BytesMut, limits: &Limits) -> Result<BodyEvent, DecodeError> {
        match buf[..] {
            [b'\r', b'\n', ..] if self.progress.is_fresh() => {
                buf.advance(2);
                return Ok(BodyEvent::End);
            }
            [] | [b'\r'] => return Ok(BodyEvent::Pending),
            _ => {}
        }
        let Some(fields) = head::trailers(buf, limits, &mut self.progress)? else {
            return Ok(BodyEvent::Pending);
        };
        if head::FORBIDDEN_TRAILERS.iter().any(|name| fields.contains(*name)) {
            return Err(DecodeError::TrailerForbidden);
        }
        Ok(BodyEvent::Trailers(fields))
    }
}
