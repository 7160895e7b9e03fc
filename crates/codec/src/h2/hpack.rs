//! Header compression (RFC 7541): a decoder that writes straight into a [`Section`](super::section::Section), and an encoder
//! that indexes what it has seen repeat.
//!
//! Bounds: both tables have at most the size that was agreed on (the encoder's never more than 4,096 bytes), a decoded
//! string is at most 8/5 of its coded form, and a section's own limits end what one block can make of references.

mod decoder;
mod encoder;
pub(crate) mod huffman;
pub(crate) mod tables;
#[cfg(test)]
mod tests;

pub(crate) use decoder::Decoder;
pub(crate) use encoder::Encoder;

/// The size of both tables before any settings (RFC 9113 §6.5.2).
pub(crate) const DEFAULT_TABLE: usize = 4096;

/// Reads an integer whose prefix has `prefix` bits (RFC 7541 §5.1); none when it is cut off or larger than any length or
/// index that can be right.
#[inline]
pub(crate) fn read_integer(input: &mut &[u8], prefix: u32) -> Option<usize> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    let mask = (1_u8 << prefix) - 1;
    let start = usize::from(first & mask);
    if start < usize::from(mask) {
        return Some(start);
    }
    read_long_integer(input, start)
}

#[cold]
fn read_long_integer(input: &mut &[u8], start: usize) -> Option<usize> {
    let mut value = start;
    // Four bytes hold 28 bits, more than any block has; more of them are refused, whatever they say.
    for shift in [0, 7, 14, 21] {
        let (next, rest) = input.split_first()?;
        *input = rest;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Writes an integer behind the bits `first` of its first byte.
#[expect(
    clippy::cast_possible_truncation,
    reason = "each cast is of a value below 256"
)]
#[inline]
pub(crate) fn write_integer(value: usize, prefix: u32, first: u8, out: &mut Vec<u8>) {
    let mask = (1_u8 << prefix) - 1;
    if value < usize::from(mask) {
        // Smaller than the mask, which is a byte.
        out.push(first | (value & 0xff) as u8);
        return;
    }
    out.push(first | mask);
    let mut rest = value - usize::from(mask);
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push((rest & 0x7f) as u8);
}
