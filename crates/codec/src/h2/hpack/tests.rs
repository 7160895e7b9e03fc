//! The RFC's own examples (RFC 7541, appendix C), the rules of the format, and the encoder against the decoder.

use super::{Decoder, Encoder, decoder::Malformed, read_integer, write_integer};
use crate::{
    Fields, Known, KnownSet,
    h2::{
        DecodeError,
        hpack::tables::Pseudo,
        section::{Section, SectionLimits, SizeHint},
    },
};

const LIMITS: SectionLimits = SectionLimits {
    bytes: 16_384,
    fields: 100,
};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .bytes()
        .filter(u8::is_ascii_hexdigit)
        .map(|digit| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap())
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Malformed> {
    let mut section = Section::new(LIMITS, SizeHint::default());
    decoder.decode(block, &mut section)?;
    Ok(section.lines().0)
}

fn broken(block: &[u8]) -> Option<DecodeError> {
    let mut section = Section::new(LIMITS, SizeHint::default());
    Decoder::new().decode(block, &mut section).unwrap();
    section.lines().1
}

#[test]
fn integers() {
    // RFC 7541, appendix C.1.
    for (value, prefix, wanted) in [
        (10, 5, vec![10]),
        (1337, 5, vec![31, 154, 10]),
        (42, 8 - 1, vec![42]),
        (31, 5, vec![31, 0]),
        (127, 7, vec![127, 0]),
        (300_000, 4, vec![15, 209, 167, 18]),
    ] {
        let mut out = Vec::new();
        write_integer(value, prefix, 0, &mut out);
        assert_eq!(out, wanted);
        let mut input = &out[..];
        assert_eq!(read_integer(&mut input, prefix), Some(value));
        assert!(input.is_empty());
        for end in 0..out.len() {
            assert_eq!(read_integer(&mut &out[..end], prefix), None);
        }
    }
    assert_eq!(read_integer(&mut &[31, 0x80, 0x80, 0x80, 0x80, 0][..], 5), None);
}

#[test]
fn single_fields() {
    let mut decoder = Decoder::new();
    let literal = bytes("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572");
    assert_eq!(
        decode(&mut decoder, &literal).unwrap(),
        ["custom-key: custom-header"]
    );
    assert_eq!(decoder.table_size(), 55);
    let mut decoder = Decoder::new();
    let without = bytes("040c 2f73 616d 706c 652f 7061 7468");
    assert_eq!(decode(&mut decoder, &without).unwrap(), [":path: /sample/path"]);
    let never = bytes("1008 7061 7373 776f 7264 0673 6563 7265 74");
    assert_eq!(decode(&mut decoder, &never).unwrap(), ["password: secret"]);
    assert_eq!(decode(&mut decoder, &[0x82]).unwrap(), [":method: GET"]);
    assert_eq!(decoder.table_size(), 0);
}

#[test]
fn requests() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let huffman = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for blocks in [plain, huffman] {
        let mut decoder = Decoder::new();
        let mut next = |index: usize| {
            let lines = decode(&mut decoder, &bytes(blocks[index])).unwrap();
            (lines, decoder.table_size())
        };
        let (lines, size) = next(0);
        let begin = [
            ":method: GET",
            ":scheme: http",
            ":path: /",
            ":authority: www.example.com",
        ];
        assert_eq!((lines, size), (begin.map(str::to_owned).to_vec(), 57));
        let (lines, size) = next(1);
        assert_eq!(lines[..4], begin);
        assert_eq!((lines[4].as_str(), size), ("cache-control: no-cache", 110));
        let (lines, size) = next(2);
        let wanted = [
            ":method: GET",
            ":scheme: https",
            ":path: /index.html",
            ":authority: www.example.com",
            "custom-key: custom-value",
        ];
        assert_eq!((lines, size), (wanted.map(str::to_owned).to_vec(), 164));
    }
}

#[test]
fn responses_with_a_small_table() {
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d
         546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f
         6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b
         2076 6572 7369 6f6e 3d31",
    ];
    let huffman = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7
         8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335
         dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    for blocks in [plain, huffman] {
        let mut decoder = Decoder::with_table(256);
        let mut next = |index: usize| {
            let lines = decode(&mut decoder, &bytes(blocks[index])).unwrap();
            (lines, decoder.table_size())
        };
        let fields = [
            "cache-control: private",
            "date: Mon, 21 Oct 2013 20:13:21 GMT",
            "location: https://www.example.com",
        ];
        let (lines, size) = next(0);
        assert_eq!(
            (lines[0].as_str(), &lines[1..], size),
            (":status: 302", &fields.map(str::to_owned)[..], 222)
        );
        let (lines, size) = next(1);
        assert_eq!(
            (lines[0].as_str(), &lines[1..], size),
            (":status: 307", &fields.map(str::to_owned)[..], 222)
        );
        let (lines, size) = next(2);
        let wanted = [
            ":status: 200",
            "cache-control: private",
            "date: Mon, 21 Oct 2013 20:13:22 GMT",
            "location: https://www.example.com",
            "content-encoding: gzip",
            "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
        ];
        assert_eq!((lines, size), (wanted.map(str::to_owned).to_vec(), 215));
    }
}

#[test]
fn what_breaks_the_format() {
    for (what, block) in [
        ("index 0", "80"),
        ("an index beyond the tables", "be"),
        ("a name's index beyond the tables", "7e0161"),
        ("an index cut off", "ff"),
        ("a string cut off", "400a6375"),
        ("a string's length cut off", "4001617f"),
        ("a table larger than allowed", "3fe21f"),
        ("a change of the table behind a field", "8220"),
        ("wrong Huffman padding", "008161 0161"),
        ("an endless integer", "ff80808080808080"),
    ] {
        let result = decode(&mut Decoder::new(), &bytes(block));
        assert_eq!(result, Err(Malformed), "{what}");
    }
    // A change to 4,096 and back to 0 is right.
    assert_eq!(
        decode(&mut Decoder::new(), &bytes("3fe11f 20 82")).unwrap().len(),
        1
    );
    let mut decoder = Decoder::new();
    decoder.allow(100);
    assert_eq!(
        decode(&mut decoder, &[0x82]),
        Err(Malformed),
        "a smaller table must be announced"
    );
    assert_eq!(decode(&mut decoder, &bytes("3f45 82")).unwrap().len(), 1);
}

#[test]
fn what_breaks_the_message_leaves_the_table_right() {
    assert_eq!(broken(&bytes("00 0141 0162")), Some(DecodeError::HeaderName));
    assert_eq!(broken(&bytes("00 00 0162")), Some(DecodeError::HeaderName));
    assert_eq!(broken(&bytes("00 0161 0100")), Some(DecodeError::HeaderValue));
    assert_eq!(broken(&bytes("00 0161 022061")), Some(DecodeError::HeaderValue));
    assert_eq!(
        broken(&bytes("00 033a6162 0161")),
        Some(DecodeError::PseudoUnknown)
    );
    assert_eq!(broken(&bytes("82 82")), Some(DecodeError::PseudoDuplicate));
    assert_eq!(broken(&bytes("00 0161 0162 82")), Some(DecodeError::PseudoOrder));
    assert_eq!(
        broken(&bytes("00 0a636f6e6e656374696f6e 0161")),
        Some(DecodeError::ConnectionField)
    );
    // An invalid field that entered the table is invalid again when it is referred to; its valid name is not.
    let mut decoder = Decoder::new();
    let mut section = Section::new(LIMITS, SizeHint::default());
    decoder.decode(&bytes("40 0161 0100"), &mut section).unwrap();
    let mut section = Section::new(LIMITS, SizeHint::default());
    decoder.decode(&[0xbe], &mut section).unwrap();
    assert_eq!(section.lines().1, Some(DecodeError::HeaderValue));
    assert_eq!(decode(&mut decoder, &bytes("7e 0162")).unwrap(), ["a: b"]);
}

#[test]
fn limits_hold_and_the_table_is_kept() {
    let mut encoder = Encoder::new(false);
    let mut fields = Fields::new();
    for number in 0..200 {
        fields.append(format!("x-{number}").as_str(), "v").unwrap();
    }
    let mut block = Vec::new();
    encoder.begin(&mut block);
    encoder.fields(&fields, KnownSet::EMPTY, &mut block);
    block.extend(bytes(
        "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
    ));
    for (bytes, count, wanted) in [
        (100_000, 100, DecodeError::TooManyHeaders),
        (500, 1000, DecodeError::HeadTooLarge),
    ] {
        let mut decoder = Decoder::new();
        let limits = SectionLimits { bytes, fields: count };
        let mut section = Section::new(limits, SizeHint::default());
        decoder.decode(&block, &mut section).unwrap();
        let (lines, error) = section.lines();
        assert_eq!(error, Some(wanted));
        assert!(lines.len() <= 100);
        assert_eq!(
            decode(&mut decoder, &[0xbe]).unwrap(),
            ["custom-key: custom-header"]
        );
    }
}

/// One byte that stands for four thousand is counted as those.
#[test]
fn a_bomb_of_references_is_cut_off() {
    let mut decoder = Decoder::new();
    let mut block = bytes("40 0161");
    write_integer(4000, 7, 0, &mut block);
    block.extend([b'b'; 4000]);
    block.extend([0xbe; 10_000]);
    let mut section = Section::new(LIMITS, SizeHint::default());
    decoder.decode(&block, &mut section).unwrap();
    assert!(section.block_mut().capacity() < 40_000);
    assert_eq!(section.lines().1, Some(DecodeError::HeadTooLarge));
}

fn encoded(encoder: &mut Encoder, fields: &Fields) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    encoder.fields(fields, KnownSet::EMPTY, &mut out);
    out
}

#[test]
fn what_repeats_becomes_one_byte_and_what_does_not_stays_out() {
    for use_huffman in [false, true] {
        let (mut encoder, mut decoder) = (Encoder::new(use_huffman), Decoder::new());
        let mut sizes = Vec::new();
        for round in 0..20 {
            let mut fields = Fields::new();
            fields.append("User-Agent", "records/1.0").unwrap();
            fields.append("X-Tenant", "clinic").unwrap();
            fields.append("x-request-id", format!("id-{round}")).unwrap();
            let out = encoded(&mut encoder, &fields);
            let lines = decode(&mut decoder, &out).unwrap();
            assert_eq!(lines[..2], ["user-agent: records/1.0", "x-tenant: clinic"]);
            assert_eq!(lines[2], format!("x-request-id: id-{round}"));
            sizes.push(out.len());
        }
        // From the third time on two fields are a byte each; the id stands there with its name.
        assert!(sizes[2..].iter().all(|size| *size <= 2 + 20), "{sizes:?}");
        assert!(decoder.table_size() <= 120, "{}", decoder.table_size());
    }
}

#[test]
fn secrets_are_never_indexed_and_stay_so() {
    let mut encoder = Encoder::new(false);
    let mut fields = Fields::new();
    for name in ["authorization", "cookie", "set-cookie", "proxy-authorization"] {
        fields.append(name, "secret").unwrap();
    }
    for _ in 0..3 {
        let out = encoded(&mut encoder, &fields);
        let lines = decode(&mut Decoder::new(), &out).unwrap();
        assert_eq!(lines.len(), 4);
        let mut decoder = Decoder::new();
        decode(&mut decoder, &out).unwrap();
        assert_eq!(decoder.table_size(), 0);
        assert_eq!(out[0] & 0xf0, 0x10);
    }
    // As it was received, so it goes on, also with another value.
    let block = bytes("1008 7061 7373 776f 7264 0673 6563 7265 74");
    let mut section = Section::new(LIMITS, SizeHint::default());
    Decoder::new().decode(&block, &mut section).unwrap();
    let mut fields = section.into_trailers().unwrap();
    for _ in 0..3 {
        assert_eq!(encoded(&mut encoder, &fields), block);
    }
    fields.set("password", "another").unwrap();
    assert_eq!(encoded(&mut encoder, &fields)[0], 0x10);
}

#[test]
fn the_peers_table_size_is_kept_to_and_announced() {
    let (mut encoder, mut decoder) = (Encoder::new(false), Decoder::new());
    let mut fields = Fields::new();
    fields.append("x-a", "1").unwrap();
    for _ in 0..3 {
        decode(&mut decoder, &encoded(&mut encoder, &fields)).unwrap();
    }
    assert!(decoder.table_size() > 0);
    // Emptied and enlarged again between two blocks: both are told.
    encoder.resize(0);
    encoder.resize(200);
    let out = encoded(&mut encoder, &fields);
    assert_eq!(out[0], 0x20);
    decoder.allow(200);
    assert_eq!(decode(&mut decoder, &out).unwrap(), ["x-a: 1"]);
    assert_eq!(
        decoder.table_size(),
        36,
        "it was seen before, so it enters at once"
    );
    encoder.resize(0);
    decoder.allow(0);
    for _ in 0..3 {
        assert_eq!(
            decode(&mut decoder, &encoded(&mut encoder, &fields)).unwrap(),
            ["x-a: 1"]
        );
        assert_eq!(decoder.table_size(), 0);
    }
}

#[test]
fn many_different_fields_never_get_the_tables_out_of_step() {
    let (mut encoder, mut decoder) = (Encoder::new(true), Decoder::new());
    let mut state = 7_u64;
    for _ in 0..2_000 {
        let mut fields = Fields::new();
        for _ in 0..8 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (name, value) = (state >> 60, (state >> 50) % 97);
            fields
                .append(
                    format!("x-{name}").as_str(),
                    "v".repeat(usize::try_from(value).unwrap()),
                )
                .unwrap();
        }
        let mut out = Vec::new();
        encoder.begin(&mut out);
        encoder.pseudo(Pseudo::Path, format!("/{}", state >> 61).as_bytes(), &mut out);
        encoder.fields(&fields, KnownSet::EMPTY, &mut out);
        let lines = decode(&mut decoder, &out).unwrap();
        let wanted: Vec<String> = fields
            .iter()
            .map(|field| {
                format!(
                    "{}: {}",
                    String::from_utf8_lossy(field.name),
                    String::from_utf8_lossy(field.value)
                )
            })
            .collect();
        assert_eq!(lines[1..], wanted);
        if state.is_multiple_of(50) {
            let size = usize::try_from(state >> 52).unwrap();
            encoder.resize(size);
            decoder.allow(size.min(4096));
        }
        assert!(encoder.capacity() < 30_000 && decoder.capacity() < 30_000);
    }
    assert!(Known::classify(b"x-1").is_none());
}
