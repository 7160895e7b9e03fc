//! As much of HTTP/2 (RFC 9113) as a benchmark's client and server need: frames, and header blocks that are written
//! but never read but for the status. It is no implementation to use elsewhere: it sends one fixed message and does
//! not judge its peer beyond what counting right needs.
//!
//! Header fields are indexed on their first use, as real clients and servers do, so that the proxy's HPACK decoder
//! has its usual work.

use anyhow::{Result, bail};

use crate::shape;

/// What a client sends first (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
/// Default of SETTINGS_MAX_FRAME_SIZE; we never raise it.
pub(crate) const FRAME_MAX: usize = 16_384;
/// Default window of a connection and a stream.
pub(crate) const WINDOW: i64 = 65_535;

/// Frame types (RFC 9113 §6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
}

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// Settings (RFC 9113 §6.5.2).
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
}

/// One frame, its payload borrowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: &'a [u8],
}

/// Cuts what arrives into frames; keeps at most one incomplete frame.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    rest: Vec<u8>,
}

impl Frames {
    /// Hands each complete frame of `rest + bytes` to `each`.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Frame<'_>) -> Result<()>) -> Result<()> {
        let mut held = std::mem::take(&mut self.rest);
        let mut input = if held.is_empty() {
            bytes
        } else {
            held.extend_from_slice(bytes);
            &held
        };
        while let Some((frame, rest)) = cut(input)? {
            each(frame)?;
            input = rest;
        }
        self.rest = input.to_vec();
        Ok(())
    }
}

fn cut(input: &[u8]) -> Result<Option<(Frame<'_>, &[u8])>> {
    let Some((head, rest)) = input.split_first_chunk::<FRAME_HEAD>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    if length > FRAME_MAX {
        bail!("a frame of {length} bytes");
    }
    let Some((payload, rest)) = rest.split_at_checked(length) else {
        return Ok(None);
    };
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
    Ok(Some((
        Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        },
        rest,
    )))
}

/// Appends a frame.
pub(crate) fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends a SETTINGS frame.
pub(crate) fn put_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let payload: Vec<u8> = settings
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
        .collect();
    put(out, kind::SETTINGS, 0, 0, &payload);
}

/// Appends a WINDOW_UPDATE frame.
pub(crate) fn put_window(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    put(out, kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
}

/// The settings of a SETTINGS frame.
pub(crate) fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> + '_ {
    payload.chunks_exact(6).map(|c| {
        (
            u16::from_be_bytes([c[0], c[1]]),
            u32::from_be_bytes([c[2], c[3], c[4], c[5]]),
        )
    })
}

/// The increment of a WINDOW_UPDATE frame.
pub(crate) fn increment(payload: &[u8]) -> i64 {
    payload
        .first_chunk::<4>()
        .map_or(0, |b| i64::from(u32::from_be_bytes(*b) & 0x7fff_ffff))
}

/// Whether a HEADERS frame of a response says 200. The status comes first and has its own static index, so that only
/// a change of the table's size can stand before it.
pub(crate) fn is_200(frame: &Frame<'_>) -> bool {
    let mut block = frame.payload;
    if frame.flags & PADDED != 0 {
        block = block.get(1..).unwrap_or_default();
    }
    if frame.flags & PRIORITY != 0 {
        block = block.get(5..).unwrap_or_default();
    }
    while let Some((&first, rest)) = block.split_first() {
        if first & 0xe0 != 0x20 {
            return first == 0x88;
        }
        block = rest;
        if first & 0x1f == 0x1f {
            let end = block
                .iter()
                .position(|b| b & 0x80 == 0)
                .map_or(block.len(), |p| p + 1);
            block = &block[end..];
        }
    }
    false
}

/// A header block in two forms: the first message of a connection, which enters its fields into the peer's table,
/// and the later ones, which refer to them.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) first: Vec<u8>,
    pub(crate) later: Vec<u8>,
}

/// The block of the benchmark's request.
pub(crate) fn request_block() -> Block {
    // :method GET and :scheme http have static indexes; paths vary in life, so :path is never entered (index 4).
    let mut fixed = vec![0x82, 0x86, 0x04];
    put_text(&mut fixed, shape::PATH);
    let mut entered: Vec<(&str, &str)> = vec![(":authority", shape::HOST)];
    entered.extend_from_slice(shape::FEW);
    block(fixed, &entered)
}

/// The block of the benchmark's answer.
pub(crate) fn response_block(body: usize) -> Block {
    let length = body.to_string();
    block(
        vec![0x88],
        &[
            ("server", "bench"),
            ("content-type", "application/json"),
            ("content-length", &length),
        ],
    )
}

/// `fixed`, then `entered`: literals with incremental indexing first, dynamic indexes (62 is the newest) later.
pub(crate) fn block(fixed: Vec<u8>, entered: &[(&str, &str)]) -> Block {
    let (mut first, mut later) = (fixed.clone(), fixed);
    for (place, (name, value)) in entered.iter().enumerate() {
        first.push(0x40);
        put_text(&mut first, name);
        put_text(&mut first, value);
        let index = 62 + (entered.len() - 1 - place);
        later.push(0x80 | u8::try_from(index).expect("few fields are entered"));
    }
    Block { first, later }
}

/// A string of at most 126 bytes, not Huffman coded.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(
        u8::try_from(text.len())
            .ok()
            .filter(|n| *n < 127)
            .expect("the texts of a benchmark are short"),
    );
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut wire = Vec::new();
        put_settings(&mut wire, &[(setting::INITIAL_WINDOW_SIZE, 7)]);
        put(&mut wire, kind::DATA, END_STREAM, 5, b"hello");
        for cut in 0..=wire.len() {
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for part in [&wire[..cut], &wire[cut..]] {
                frames
                    .feed(part, |f| {
                        seen.push((f.kind, f.flags, f.stream, f.payload.to_vec()));
                        Ok(())
                    })
                    .expect("well-formed");
            }
            assert_eq!(seen.len(), 2, "cut at {cut}");
            assert_eq!(
                settings(&seen[0].3).collect::<Vec<_>>(),
                [(setting::INITIAL_WINDOW_SIZE, 7)]
            );
            assert_eq!(seen[1], (kind::DATA, END_STREAM, 5, b"hello".to_vec()));
        }
    }

    #[test]
    fn the_status_is_read_behind_a_table_size() {
        let says = |payload: &[u8]| {
            is_200(&Frame {
                kind: kind::HEADERS,
                flags: 0,
                stream: 1,
                payload,
            })
        };
        assert!(says(&[0x88, 0xbe]));
        assert!(says(&[0x20, 0x88]));
        assert!(says(&[0x3f, 0xe1, 0x1f, 0x88]), "a size of several bytes");
        assert!(!says(&[0x8d]), "404");
        assert!(!says(&[]));
    }
}
