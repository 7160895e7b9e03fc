//! The frames' format (RFC 9113 §4.1, §6): heads, padding, and the few bytes of the small ones.

use std::ops::Range;

use super::{DecodeError, Reason};

/// Bytes of a frame's head.
pub(crate) const HEAD: usize = 9;
/// What a client sends first (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest window, and the largest stream identifier.
pub(crate) const MAX_31: u32 = 0x7fff_ffff;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const WITH_PRIORITY: u8 = 0x20;

pub(crate) const SETTING_HEADER_TABLE_SIZE: u16 = 1;
pub(crate) const SETTING_ENABLE_PUSH: u16 = 2;
pub(crate) const SETTING_MAX_CONCURRENT_STREAMS: u16 = 3;
pub(crate) const SETTING_INITIAL_WINDOW_SIZE: u16 = 4;
pub(crate) const SETTING_MAX_FRAME_SIZE: u16 = 5;
pub(crate) const SETTING_MAX_HEADER_LIST_SIZE: u16 = 6;
pub(crate) const SETTING_ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    /// Bytes of the payload.
    pub(crate) len: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl FrameHead {
    /// The head at the start of the bytes, if it is there whole.
    #[inline]
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let [high, middle, low, kind, flags, stream @ ..] = *bytes.first_chunk::<HEAD>()?;
        Some(Self {
            len: u32::from_be_bytes([0, high, middle, low]) as usize,
            kind,
            flags,
            // The first bit is reserved and ignored.
            stream: u32::from_be_bytes(stream) & MAX_31,
        })
    }

    /// As it stands on the wire.
    #[inline]
    pub(crate) fn to_bytes(self) -> [u8; HEAD] {
        // Frames that we make are at most 2^24-1 long.
        let [_, high, middle, low] = u32::try_from(self.len).unwrap_or(u32::MAX).to_be_bytes();
        let stream = self.stream.to_be_bytes();
        [
            high, middle, low, self.kind, self.flags, stream[0], stream[1], stream[2], stream[3],
        ]
    }

    pub(crate) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The payload without padding (RFC 9113 §6.1).
#[inline]
pub(crate) fn unpadded(head: FrameHead, payload: &[u8]) -> Result<Range<usize>, DecodeError> {
    if !head.has(PADDED) {
        return Ok(0..payload.len());
    }
    let padding = usize::from(*payload.first().ok_or(DecodeError::FrameSize)?);
    let end = payload.len().checked_sub(padding).filter(|end| *end >= 1);
    Ok(1..end.ok_or(DecodeError::Padding)?)
}

/// Adds a frame whose payload is one number.
pub(crate) fn write_number(kind: u8, stream: u32, number: u32, out: &mut Vec<u8>) {
    let head = FrameHead {
        len: 4,
        kind,
        flags: 0,
        stream,
    };
    out.extend_from_slice(&head.to_bytes());
    out.extend_from_slice(&number.to_be_bytes());
}

pub(crate) fn write_ping(payload: [u8; 8], flags: u8, out: &mut Vec<u8>) {
    let head = FrameHead {
        len: 8,
        kind: PING,
        flags,
        stream: 0,
    };
    out.extend_from_slice(&head.to_bytes());
    out.extend_from_slice(&payload);
}

pub(crate) fn write_goaway(last: u32, reason: Reason, out: &mut Vec<u8>) {
    let head = FrameHead {
        len: 8,
        kind: GOAWAY,
        flags: 0,
        stream: 0,
    };
    out.extend_from_slice(&head.to_bytes());
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&reason.0.to_be_bytes());
}

pub(crate) fn write_settings(settings: &[(u16, u32)], flags: u8, out: &mut Vec<u8>) {
    let head = FrameHead {
        len: settings.len() * 6,
        kind: SETTINGS,
        flags,
        stream: 0,
    };
    out.extend_from_slice(&head.to_bytes());
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Makes frames of a header block that stands at the end of `out` behind room for one head, at `start`.
pub(crate) fn frame_block(start: usize, stream: u32, end_stream: bool, max: usize, out: &mut Vec<u8>) {
    let flags = if end_stream { END_STREAM } else { 0 };
    let len = out.len() - start - HEAD;
    if len <= max {
        let head = FrameHead {
            len,
            kind: HEADERS,
            flags: flags | END_HEADERS,
            stream,
        };
        out[start..start + HEAD].copy_from_slice(&head.to_bytes());
        return;
    }
    let block = out.split_off(start + HEAD);
    out.truncate(start);
    let last = block.len().div_ceil(max) - 1;
    for (index, part) in block.chunks(max).enumerate() {
        let (kind, flags) = if index == 0 {
            (HEADERS, flags)
        } else {
            (CONTINUATION, 0)
        };
        let head = FrameHead {
            len: part.len(),
            kind,
            flags: if index == last { flags | END_HEADERS } else { flags },
            stream,
        };
        out.extend_from_slice(&head.to_bytes());
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_and_the_reserved_bit_is_ignored() {
        let head = FrameHead {
            len: 0x01_0203,
            kind: 9,
            flags: 0x2d,
            stream: 0x7fff_fffe,
        };
        let mut bytes = head.to_bytes();
        assert_eq!(FrameHead::parse(&bytes), Some(head));
        bytes[5] |= 0x80;
        assert_eq!(FrameHead::parse(&bytes), Some(head));
        assert_eq!(FrameHead::parse(&bytes[..8]), None);
    }

    #[test]
    fn padding() {
        let head = |flags| FrameHead {
            len: 0,
            kind: DATA,
            flags,
            stream: 1,
        };
        assert_eq!(unpadded(head(0), b"abc"), Ok(0..3));
        assert_eq!(unpadded(head(PADDED), b"\x01ab\0"), Ok(1..3));
        assert_eq!(unpadded(head(PADDED), b"\x03abc"), Ok(1..1));
        assert_eq!(unpadded(head(PADDED), b"\x04abc"), Err(DecodeError::Padding));
        assert_eq!(unpadded(head(PADDED), b""), Err(DecodeError::FrameSize));
    }

    #[test]
    fn a_long_block_is_continued() {
        let mut out = b"before".to_vec();
        out.extend_from_slice(&[0; HEAD]);
        out.extend((0..25).collect::<Vec<u8>>());
        frame_block(6, 3, true, 10, &mut out);
        let mut rest = &out[6..];
        let mut seen = Vec::new();
        while let Some(head) = FrameHead::parse(rest) {
            seen.push((head.kind, head.flags, head.len));
            rest = &rest[HEAD + head.len..];
        }
        assert_eq!(
            seen,
            [
                (HEADERS, END_STREAM, 10),
                (CONTINUATION, 0, 10),
                (CONTINUATION, END_HEADERS, 5)
            ]
        );
    }
}
