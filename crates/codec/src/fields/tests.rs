use super::*;

fn of(pairs: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in pairs {
        fields.append(*name, value).unwrap();
    }
    fields
}

fn show(fields: &Fields) -> String {
    let mut out = Vec::new();
    fields.write_lines(&mut out, KnownSet::EMPTY);
    String::from_utf8(out).unwrap()
}

#[test]
fn names_are_found_in_any_case_known_or_not() {
    let fields = of(&[
        ("Host", "a"),
        ("X-Thing", "b"),
        ("x-thing", "c"),
        ("ACCEPT", "d"),
        ("accept", "e"),
    ]);
    assert_eq!(fields.get(Known::Host), Some(b"a".as_slice()));
    assert_eq!(fields.get_str("hOST"), Some("a"));
    assert_eq!(fields.get("x-thing"), Some(b"b".as_slice()));
    assert_eq!(fields.get_all("X-THING").collect::<Vec<_>>(), [b"b", b"c"]);
    assert_eq!(fields.get_all(Known::Accept).collect::<Vec<_>>(), [b"d", b"e"]);
    assert_eq!(
        (fields.count("accept"), fields.count("none"), fields.len()),
        (2, 0, 5)
    );
    assert!(fields.contains(b"x-thing") && !fields.contains("x-thin") && !fields.contains(""));
}

#[test]
fn set_keeps_place_and_case_and_removes_the_others() {
    let mut fields = of(&[("A", "1"), ("X-Dup", "2"), ("B", "3"), ("x-dup", "4")]);
    fields.set("x-DUP", " new ").unwrap();
    assert_eq!(show(&fields), "A: 1\r\nX-Dup: new\r\nB: 3\r\n");
    fields.set("c", "5").unwrap();
    fields.set_number("A", u64::MAX).unwrap();
    assert_eq!(
        show(&fields),
        "A: 18446744073709551615\r\nX-Dup: new\r\nB: 3\r\nc: 5\r\n"
    );
    assert_eq!(fields.set_default("c", "6"), Ok(false));
    assert_eq!(fields.set_default("d", "7"), Ok(true));
    assert_eq!(fields.remove("b"), 1);
    assert_eq!(fields.remove("b"), 0);
    assert_eq!(
        show(&fields),
        "A: 18446744073709551615\r\nX-Dup: new\r\nc: 5\r\nd: 7\r\n"
    );
}

#[test]
fn join_extends_the_last_field_of_the_name() {
    let mut fields = of(&[("X-Forwarded-For", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")]);
    fields.join(Known::XForwardedFor, "3.3.3.3").unwrap();
    fields.join(Known::XForwardedFor, "4.4.4.4").unwrap();
    assert_eq!(
        show(&fields),
        "X-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2, 3.3.3.3, 4.4.4.4\r\n"
    );
    fields.join("via", "1.1 rajut").unwrap();
    fields.set("via", "").unwrap();
    fields.join("via", "1.1 b").unwrap();
    assert_eq!(fields.get_str(Known::Via), Some("1.1 b"));
}

#[test]
fn what_would_break_out_of_a_line_is_refused_and_nothing_changes() {
    let mut fields = of(&[("a", "1")]);
    let before = fields.clone();
    for value in ["x\r\nEvil: 1", "x\n", "\0", "\x1b[", "\x7f", "x\ry"] {
        assert_eq!(fields.set("a", value), Err(FieldError::InvalidValue), "{value:?}");
        assert_eq!(
            fields.append("b", value),
            Err(FieldError::InvalidValue),
            "{value:?}"
        );
        assert_eq!(
            fields.join("a", value),
            Err(FieldError::InvalidValue),
            "{value:?}"
        );
        assert_eq!(
            fields.join("new", value),
            Err(FieldError::InvalidValue),
            "{value:?}"
        );
        assert_eq!(
            fields.set_default("b", value),
            Err(FieldError::InvalidValue),
            "{value:?}"
        );
    }
    let long = "n".repeat(70_000);
    for name in ["", "a b", "a:", ":path", "a\r\n", "\u{e4}", "a\0", long.as_str()] {
        assert_eq!(fields.set(name, "v"), Err(FieldError::InvalidName), "{name:?}");
        assert_eq!(fields.append(name, "v"), Err(FieldError::InvalidName), "{name:?}");
    }
    assert_eq!(fields, before);
    fields.set("a", b"tab\tand \xe4 obs-text").unwrap();
    assert_eq!(fields.get_str("a"), None, "not UTF-8");
}

#[test]
fn the_bounds_hold() {
    let mut fields = Fields::new();
    for _ in 0..MAX_LINES {
        fields.lines.push(Line {
            start: 0,
            value: 3,
            value_len: 0,
            name_len: 1,
            known: 0,
            flags: EDITED | EXACT,
        });
    }
    fields.edits.extend_from_slice(b"a: \r\n");
    assert_eq!(fields.append("b", ""), Err(FieldError::TooLarge));
    let mut fields = Fields::new();
    let big = "v".repeat(300_000);
    let mut grown = 0;
    while fields.set("a", &big).is_ok() {
        grown += 1;
        assert!(grown < 10);
    }
    assert_eq!(fields.set("a", &big), Err(FieldError::TooLarge));
    assert_eq!(fields.get("a").unwrap().len(), 300_000);
}

#[test]
fn slots_beyond_one_byte_are_searched() {
    let mut fields = Fields::new();
    for _ in 0..300 {
        fields.append("x", "y").unwrap();
    }
    fields.append("Host", "far").unwrap();
    fields.append("host", "farther").unwrap();
    assert_eq!(fields.get(Known::Host), Some(b"far".as_slice()));
    fields.retain(|field| field.value != b"far" && field.value != b"y");
    assert_eq!(fields.get(Known::Host), Some(b"farther".as_slice()));
    fields.remove(Known::Host);
    assert!(fields.is_empty() && fields.get(Known::Host).is_none());
}

#[test]
fn received_values_are_shared_and_edited_ones_copied() {
    let block = Bytes::from_static(b"start\r\nHost: a\r\nX-Y:bc \r\n\r\n");
    let mut builder = FieldsBuilder::with_capacity(2);
    assert!(builder.push(b"Host", 7, 13, 1, 16));
    assert!(builder.push(b"X-Y", 16, 20, 2, 25));
    let mut fields = builder.finish(block.clone());
    let shared = fields.get_shared("x-y").unwrap();
    assert_eq!(shared.as_ptr(), block[20..].as_ptr());
    assert_eq!(show(&fields), "Host: a\r\nX-Y: bc\r\n");
    fields.set("x-y", "d").unwrap();
    assert_eq!(fields.get_shared("x-y").unwrap(), "d");
    assert_eq!(shared, "bc");
    assert_eq!(fields.wire_len(), show(&fields).len());
    fields.clear();
    assert!(fields.is_empty());
    assert_eq!(fields.check_invariants(), Ok(()));
}

#[test]
fn skipped_names_are_left_out_of_the_copy() {
    let fields = of(&[("a", "1"), ("Host", "h"), ("b", "2"), ("te", "t")]);
    let mut out = Vec::new();
    fields.write_lines(&mut out, KnownSet::of(&[Known::Host, Known::Te]));
    assert_eq!(out, b"a: 1\r\nb: 2\r\n");
}

#[test]
fn numbers() {
    for number in [0, 9, 10, 12_345, u64::MAX] {
        assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
    }
}

#[test]
fn the_invariant_check_sees_damage() {
    let mut fields = of(&[("Host", "a")]);
    fields.first[usize::from(Known::Host.number())] = 0;
    assert!(fields.check_invariants().is_err());
    let mut fields = of(&[("a", "b")]);
    fields.edits[0] = b'\n';
    assert!(fields.check_invariants().is_err());
    let mut fields = of(&[("a", "b")]);
    fields.removed = 1;
    assert!(fields.check_invariants().is_err());
}

#[test]
fn values_are_judged_alike_byte_by_byte_and_eight_at_a_time() {
    for length in [1, 7, 8, 9, 16, 21] {
        for at in 0..length {
            for byte in 0..=u8::MAX {
                let mut value = vec![b'v'; length];
                value[at] = byte;
                let allowed = is_value_byte(byte);
                assert_eq!(is_value(&value), allowed, "{byte} at {at} of {length}");
            }
        }
    }
}

fn received(pairs: &[(&str, &str)]) -> Fields {
    let mut received = Received::with_capacity(pairs.len(), 64);
    for (name, value) in pairs {
        let start = received.block_mut().len();
        let line = format!("{name}: {value}\r\n");
        received.block_mut().extend_from_slice(line.as_bytes());
        assert!(received.note_line(start, name.len(), Known::classify(name.as_bytes()), false));
    }
    received.finish()
}

#[test]
fn pairs_become_a_block_that_is_shared_and_written_in_one_piece() {
    let mut fields = received(&[("accept", "a"), ("x-own", ""), ("accept", "b")]);
    assert_eq!(show(&fields), "accept: a\r\nx-own: \r\naccept: b\r\n");
    assert_eq!(fields.get_all(Known::Accept).count(), 2);
    assert!(fields.edits.is_empty());
    assert_eq!(fields.get_shared("accept"), Some(Bytes::from_static(b"a")));
    fields.set("x-own", "edited").unwrap();
    assert_eq!(show(&fields), "accept: a\r\nx-own: edited\r\naccept: b\r\n");
    assert_eq!(fields.part(8..9), "a");
}
