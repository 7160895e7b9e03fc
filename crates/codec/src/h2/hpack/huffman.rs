//! The Huffman code of RFC 7541, appendix B. It is canonical: codes of one length are consecutive numbers in the order of
//! their symbols, so that the symbols sorted by length are the whole code, and every table is computed from them.
//!
//! Decoding looks ten bits ahead at a time; that finds every symbol of ordinary text. The longer codes are found by their
//! length. Bounds: the output is at most 8/5 of the input.

/// The symbols in the order of their codes; 256 is the end of the string.
#[rustfmt::skip]
const SYMBOLS: [u16; 257] = [
    // 5 bits
    48, 49, 50, 97, 99, 101, 105, 111, 115, 116,
    // 6 bits
    32, 37, 45, 46, 47, 51, 52, 53, 54, 55, 56, 57, 61, 65, 95, 98, 100, 102, 103, 104, 108, 109, 110, 112, 114, 117,
    // 7 bits
    58, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 89, 106, 107, 113, 118,
    119, 120, 121, 122,
    // 8 bits, 10 bits, 11 bits, 12 bits
    38, 42, 44, 59, 88, 90, 33, 34, 40, 41, 63, 39, 43, 124, 35, 62,
    // 13 bits, 14 bits, 15 bits
    0, 36, 64, 91, 93, 126, 94, 125, 60, 96, 123,
    // 19 bits, 20 bits
    92, 195, 208, 128, 130, 131, 162, 184, 194, 224, 226,
    // 21 bits
    153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230,
    // 22 bits
    129, 132, 133, 134, 136, 146, 154, 156, 160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190, 196, 198,
    228, 232, 233,
    // 23 bits
    1, 135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175, 180, 182, 183,
    188, 191, 197, 231, 239,
    // 24 bits
    9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237,
    // 25 bits, 26 bits
    199, 207, 234, 235, 192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255,
    // 27 bits
    203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245, 246, 247, 248, 250, 251, 252, 253, 254,
    // 28 bits
    2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28, 29, 30, 31, 127, 220, 249,
    // 30 bits
    10, 13, 22, 256,
];

/// How many codes have that many bits.
const COUNTS: [u32; LONGEST + 1] = [
    0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4,
];
const LONGEST: usize = 30;
const END_OF_STRING: u16 = 256;
/// Bits that one look into the table takes.
const AHEAD: usize = 10;

/// The codes of one length.
#[derive(Clone, Copy)]
struct Length {
    first_code: u32,
    /// Where its first symbol stands in `SYMBOLS`.
    first_symbol: usize,
}

const LENGTHS: [Length; LONGEST + 1] = {
    let mut lengths = [Length {
        first_code: 0,
        first_symbol: 0,
    }; LONGEST + 1];
    let (mut code, mut symbol, mut bits) = (0, 0, 1);
    while bits <= LONGEST {
        code <<= 1;
        lengths[bits] = Length {
            first_code: code,
            first_symbol: symbol,
        };
        code += COUNTS[bits];
        symbol += COUNTS[bits] as usize;
        bits += 1;
    }
    assert!(
        symbol == SYMBOLS.len() && code == 1 << LONGEST,
        "the code is complete"
    );
    lengths
};

/// Per byte: its code and how many bits that has.
#[expect(clippy::cast_possible_truncation, reason = "at most 30")]
static CODES: [(u32, u8); 256] = {
    let mut codes = [(0, 0); 256];
    let mut bits = 1;
    while bits <= LONGEST {
        let mut index = 0;
        while index < COUNTS[bits] {
            let symbol = SYMBOLS[LENGTHS[bits].first_symbol + index as usize];
            if symbol != END_OF_STRING {
                codes[symbol as usize] = (LENGTHS[bits].first_code + index, bits as u8);
            }
            index += 1;
        }
        bits += 1;
    }
    codes
};

/// Per ten bits: the symbol with whose code they begin and that code's length, 0 for a longer code.
#[expect(clippy::cast_possible_truncation, reason = "at most 255")]
static TABLE: [(u8, u8); 1 << AHEAD] = {
    let mut table = [(0, 0); 1 << AHEAD];
    let mut byte = 0;
    while byte < 256 {
        let (code, bits) = CODES[byte];
        if bits as usize <= AHEAD {
            let start = (code as usize) << (AHEAD - bits as usize);
            let end = (code as usize + 1) << (AHEAD - bits as usize);
            let mut at = start;
            while at < end {
                table[at] = (byte as u8, bits);
                at += 1;
            }
        }
        byte += 1;
    }
    table
};

/// The string is not Huffman coded as it should be: it holds the end of the string, or its padding is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Appends the decoded bytes.
pub(crate) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    // No code has fewer than five bits.
    out.reserve(input.len() * 8 / 5 + 1);
    // The next bits, from the top down; `left` of them are valid, the others are 0.
    let (mut bits, mut left, mut rest) = (0_u64, 0_u32, input);
    loop {
        if left < 32 {
            if let Some((word, after)) = rest.split_first_chunk::<4>() {
                bits |= u64::from(u32::from_be_bytes(*word)) << (32 - left);
                left += 32;
                rest = after;
            } else {
                for byte in std::mem::take(&mut rest) {
                    bits |= u64::from(*byte) << (56 - left);
                    left += 8;
                }
            }
        }
        let (symbol, length) = match TABLE[(bits >> (64 - AHEAD)) as usize] {
            (_, 0) => find_long(bits).unwrap_or((0, u32::MAX)),
            (symbol, length) => (symbol, u32::from(length)),
        };
        if length > left {
            break;
        }
        out.push(symbol);
        bits <<= length;
        left -= length;
    }
    // What is left must be the beginning of the end of the string, all ones, and less than a byte.
    let padding = bits >> 56;
    if left < 8 && padding == (0xff00_u64 >> left) & 0xff {
        Ok(())
    } else {
        Err(Malformed)
    }
}

/// The symbol of a code longer than the table's; none for the end of the string.
#[expect(clippy::cast_possible_truncation, reason = "at most 30 bits")]
#[cold]
fn find_long(bits: u64) -> Option<(u8, u32)> {
    for (length, codes) in LENGTHS.iter().enumerate().skip(AHEAD + 1) {
        let code = (bits >> (64 - length)) as u32;
        let index = code.wrapping_sub(codes.first_code);
        if index < COUNTS[length] {
            let symbol = SYMBOLS[codes.first_symbol + index as usize];
            let length = u32::try_from(length).ok()?;
            return u8::try_from(symbol).ok().map(|symbol| (symbol, length));
        }
    }
    None
}

/// How many bytes `encode` makes of it.
pub(crate) fn encoded_len(input: &[u8]) -> usize {
    let bits: usize = input
        .iter()
        .map(|byte| usize::from(CODES[usize::from(*byte)].1))
        .sum();
    bits.div_ceil(8)
}

/// Appends the code of a string.
pub(crate) fn encode(input: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut held) = (0_u64, 0_u32);
    for byte in input {
        let (code, length) = CODES[usize::from(*byte)];
        bits = bits << length | u64::from(code);
        held += u32::from(length);
        while held >= 8 {
            held -= 8;
            out.push((bits >> held & 0xff) as u8);
        }
    }
    if held > 0 {
        let padded = bits << (8 - held) | (0xff >> held);
        out.push((padded & 0xff) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(input: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::new();
        decode(input, &mut out).map(|()| out)
    }

    #[test]
    fn the_rfcs_examples() {
        // RFC 7541, appendix C.4.1, C.4.3, C.6.1.
        let examples: [(&[u8], &[u8]); 4] = [
            (
                b"www.example.com",
                &[
                    0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
                ],
            ),
            (
                b"custom-value",
                &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf],
            ),
            (b"302", &[0x64, 0x02]),
            (b"", &[]),
        ];
        for (text, code) in examples {
            let mut out = Vec::new();
            encode(text, &mut out);
            assert_eq!(out, code);
            assert_eq!(encoded_len(text), code.len());
            assert_eq!(decoded(code).unwrap(), text);
        }
    }

    #[test]
    fn every_byte_in_every_place_survives() {
        for byte in 0..=255_u8 {
            for before in 0..9 {
                let mut text = vec![b'1'; before];
                text.extend([byte, byte, b'z']);
                let mut out = Vec::new();
                encode(&text, &mut out);
                assert_eq!(out.len(), encoded_len(&text));
                assert_eq!(decoded(&out).unwrap(), text);
            }
        }
    }

    #[test]
    fn wrong_endings_are_refused() {
        // Eight bits of padding, padding that is not ones, the end of the string, a code cut off.
        assert_eq!(decoded(&[0xff]), Err(Malformed));
        assert_eq!(decoded(&[0x64, 0x02, 0xff]), Err(Malformed));
        assert_eq!(decoded(&[0x00]), Err(Malformed));
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), Err(Malformed));
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xfc]), Err(Malformed));
        // `0` (00000) with three ones behind it is right.
        assert_eq!(decoded(&[0x07]).unwrap(), b"0");
    }

    #[test]
    fn any_bytes_are_decoded_or_refused() {
        let mut state = 1_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bytes = (state >> 8).to_be_bytes();
            let length = (state >> 60) as usize % 9;
            if let Ok(text) = decoded(&bytes[..length]) {
                let mut again = Vec::new();
                encode(&text, &mut again);
                assert_eq!(again, bytes[..length]);
            }
        }
    }
}
