//! Properties over generated messages: any segmentation reads the same, what is encoded decodes to itself, an edit
//! changes the field it names and no other.

use bytes::{Buf, Bytes};
use proptest::prelude::*;
use rajut_codec::{
    Fields, KnownSet, Method, Output, RequestHead,
    h1::{BodyLength, ClientConn, Limits},
};

use crate::h1::{Numbers, Seen, read_requests};

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z][A-Za-z0-9-]{0,12}",
        Just("Accept".to_owned()),
        Just("x-request-id".to_owned())
    ]
    .prop_filter("names that frame are the encoder's own", |name| {
        let own = [
            "connection",
            "te",
            "upgrade",
            "host",
            "expect",
            "keep-alive",
            "trailer",
            "via",
        ];
        !own.contains(&name.to_ascii_lowercase().as_str())
    })
}

fn value() -> impl Strategy<Value = String> {
    "([!-~]([ -~]{0,20}[!-~])?)?"
}

fn section() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec((name(), value()), 0..20)
}

fn fields_of(pairs: &[(String, String)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in pairs {
        fields.append(name.as_str(), value).unwrap();
    }
    fields
}

fn pairs_of(fields: &Fields) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    fields
        .iter()
        .map(|field| (text(field.name), text(field.value)))
        .collect()
}

/// An edit, as (which operation, name, value).
type Edit = (u8, String, String);

/// The plain model that [`Fields`] must behave like.
fn apply_to_model(model: &mut Vec<(String, String)>, (operation, name, value): &Edit) {
    let same = |one: &(String, String)| one.0.eq_ignore_ascii_case(name);
    let first = model.iter().position(same);
    match (operation % 4, first) {
        (0, Some(first)) => {
            model[first].1.clone_from(value);
            let mut index = 0;
            model.retain(|one| {
                index += 1;
                index - 1 <= first || !same(one)
            });
        }
        (1, _) | (0, None) => model.push((name.clone(), value.clone())),
        (2, _) => model.retain(|one| !same(one)),
        (_, _) => match model.iter().rposition(same) {
            Some(_) if value.is_empty() => {}
            Some(last) if model[last].1.is_empty() => model[last].1.clone_from(value),
            Some(last) => model[last].1 = format!("{}, {value}", model[last].1),
            None => model.push((name.clone(), value.clone())),
        },
    }
}

fn apply(fields: &mut Fields, (operation, name, value): &Edit) {
    match operation % 4 {
        0 => fields.set(name.as_str(), value).unwrap(),
        1 => fields.append(name.as_str(), value).unwrap(),
        2 => drop(fields.remove(name.as_str())),
        _ => fields.join(name.as_str(), value).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_segmentation_reads_the_same(
        pairs in section(),
        body in prop::collection::vec(any::<u8>(), 0..200),
        chunk in 1_usize..50,
        chunked in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let (mut conn, mut out) = (ClientConn::new(Limits::default()), Output::new());
        let mut head = RequestHead::new(Method::Put, "/some/path?with=query");
        head.authority = Bytes::from_static(b"service.example:8080");
        head.fields = fields_of(&pairs);
        let length = match body.len() as u64 {
            _ if chunked => BodyLength::Unknown,
            0 => BodyLength::Empty,
            length => BodyLength::Exact(length),
        };
        conn.encode_head(&head, length, &mut out).unwrap();
        if length != BodyLength::Empty {
            for piece in body.chunks(chunk) {
                conn.encode_data(Bytes::copy_from_slice(piece), &mut out).unwrap();
            }
        }
        conn.encode_end(None, &mut out).unwrap();
        let mut bytes = out.copy_to_bytes(out.remaining()).to_vec();
        bytes.extend_from_slice(b"GET /next HTTP/1.1\r\nHost: b\r\n\r\n");

        let whole = read_requests(&bytes, Limits::default(), || usize::MAX);
        let mut numbers = Numbers::new(seed);
        let cut = read_requests(&bytes, Limits::default(), || 1 + numbers.below(30));
        prop_assert_eq!(&whole, &cut);
        let Seen::Request(second, second_length, _, _) = &whole[0] else { panic!("{whole:?}") };
        prop_assert_eq!(*second_length, length);
        let mut kept = second.fields.clone();
        for own in ["host", "content-length", "transfer-encoding"] {
            kept.remove(own);
        }
        prop_assert_eq!(pairs_of(&kept), pairs);
        let read_body = whole.iter().find_map(|one| if let Seen::Data(data) = one { Some(data.clone()) } else { None });
        prop_assert_eq!(read_body.unwrap_or_default(), body);
        let is_next = |one: &Seen| matches!(one, Seen::Request(head, ..) if head.path() == b"/next");
        prop_assert!(whole.iter().any(is_next));
    }

    #[test]
    fn edits_do_what_a_plain_list_does(
        pairs in section(),
        edits in prop::collection::vec((any::<u8>(), name(), value()), 0..12),
        received in any::<bool>(),
        aim in any::<u64>(),
    ) {
        let mut model = pairs.clone();
        let mut fields = if received {
            // The same section as a received block.
            let lines: String = pairs.iter().map(|(name, value)| format!("{name}:  {value}\r\n")).collect();
            let bytes = format!("GET / HTTP/1.0\r\n{lines}\r\n");
            match read_requests(bytes.as_bytes(), Limits::default(), || usize::MAX).into_iter().next() {
                Some(Seen::Request(head, ..)) => head.fields,
                other => panic!("{other:?}"),
            }
        } else {
            fields_of(&pairs)
        };
        let mut numbers = Numbers::new(aim);
        for mut edit in edits {
            // Half of the edits meet a field that is there.
            if !model.is_empty() && numbers.below(2) == 0 {
                edit.1 = model[numbers.below(model.len())].0.to_ascii_uppercase();
            }
            apply(&mut fields, &edit);
            apply_to_model(&mut model, &edit);
            prop_assert_eq!(pairs_of(&fields), model.clone());
            prop_assert_eq!(fields.check_invariants(), Ok(()));
            prop_assert_eq!(fields.len(), model.len());
            for (name, _) in &model {
                let wanted = model.iter().find(|one| one.0.eq_ignore_ascii_case(name)).map(|one| one.1.as_bytes());
                prop_assert_eq!(fields.get(name.as_str()), wanted);
                let count = model.iter().filter(|one| one.0.eq_ignore_ascii_case(name)).count();
                prop_assert_eq!(fields.count(name.as_str()), count);
            }
        }
        let mut written = Vec::new();
        fields.write_lines(&mut written, KnownSet::EMPTY);
        let again = format!("GET / HTTP/1.0\r\n{}\r\n", String::from_utf8(written).unwrap());
        let Some(Seen::Request(head, ..)) =
            read_requests(again.as_bytes(), Limits::default(), || usize::MAX).into_iter().next() else { panic!("{again}") };
        prop_assert_eq!(pairs_of(&head.fields), model);
    }
}
