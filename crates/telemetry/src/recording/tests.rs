use super::*;

fn digester() -> Digester {
    Digester::new(&[7; KEY_BYTES])
}

pub(crate) fn tuple() -> Tuple {
    Tuple {
        id: 0x1234_5678_9abc_def0,
        time_ms: 1_760_000_000_123,
        namespace: "clinic".into(),
        workload: "records".into(),
        source: "spiffe://cluster.local/ns/clinic/sa/nurse".into(),
        tls: true,
        remote: Some(IpAddr::from([10, 0, 0, 1])),
        forwarded: true,
        local: Some(SocketAddr::from(([10, 0, 0, 2], 8080))),
        server_name: "outbound_.80_._.records".into(),
        listener: "virtualInbound".into(),
        route: "default".into(),
        method: "GET".into(),
        authority: "records:80".into(),
        path: Some("/a/{0123456789abcdef}".into()),
        headers: vec![Header {
            name: "x-role".into(),
            count: 1,
            digest: 9,
        }],
        token: Token::Good(vec!["https://issuer".into()]),
        refused: true,
        reason: "rbac_access_denied_matched_policy[none]".into(),
        status: 403,
        received: 1,
        sent: 19,
        micros: 800,
    }
}

fn path(raw: &[u8]) -> String {
    redact(raw, &digester(), has_digits).expect("short").to_string()
}

#[test]
fn a_tuple_is_the_same_after_its_way_as_bytes() {
    let mut one = tuple();
    assert_eq!(Tuple::decode(&one.encode()), Some(one.clone()));
    for token in [Token::Unknown, Token::None, Token::Refused] {
        one.token = token;
        one.path = None;
        one.remote = None;
        assert_eq!(Tuple::decode(&one.encode()), Some(one.clone()));
    }
    assert_eq!(Tuple::decode(&[0xff; 20]), None);
}

#[test]
fn identifiers_are_told_as_digests_and_the_rest_as_it_is() {
    let (one, other) = (
        path(b"/patients/4711/records?name=x"),
        path(b"/patients/4712/records"),
    );
    assert!(
        one.starts_with("/patients/{") && one.ends_with("}/records"),
        "{one}"
    );
    assert!(!one.contains("4711") && !one.contains("name"), "{one}");
    assert_ne!(one, other);
    assert_eq!(path(b"/api/v1/v2beta1/list"), "/api/v1/v2beta1/list");
    let kinds: Vec<Segment<'_>> = segments(&one).collect();
    let digest = digester().digest(Kind::Segment, b"4711");
    let wanted = [
        Segment::Clear(""),
        Segment::Clear("patients"),
        Segment::Digest { digest, plain: true },
        Segment::Clear("records"),
    ];
    assert_eq!(kinds, wanted);
    assert_ne!(digest, digester().digest(Kind::Header("x"), b"4711"));
    assert_ne!(
        digest,
        Digester::new(&[8; KEY_BYTES]).digest(Kind::Segment, b"4711")
    );
    assert!(!format!("{:?}", digester()).contains('7'), "no key is shown");
}

#[test]
fn what_could_be_anything_is_never_told_in_clear() {
    let long = [b"/".as_slice(), &[b'x'; SEGMENT_MAX + 1]].concat();
    let hostile: [&[u8]; 7] = [
        b"/jane@example.org",
        b"/j%61ne",
        b"/{0123456789abcdef}",
        b"/a\x1b[2J",
        "/\u{e9}".as_bytes(),
        b"/\xff\xfe",
        &long,
    ];
    for raw in hostile {
        // Even where the operator says that nothing is an identifier.
        let told = redact(raw, &digester(), |_| false).expect("short");
        let kinds: Vec<Segment<'_>> = segments(&told).collect();
        assert!(
            matches!(kinds[..], [Segment::Clear(""), Segment::Digest { .. }]),
            "{told}"
        );
        assert!(told.bytes().all(|byte| byte.is_ascii_graphic()), "{told}");
    }
    let odd = path(b"/a\x1b1");
    assert!(odd.ends_with("?}"), "{odd}");
    assert_eq!(
        redact(&vec![b'/'; 65_536], &digester(), has_digits),
        None,
        "64 KiB"
    );
}

#[test]
fn what_another_end_sends_is_held_to_the_bounds() {
    let mut wild = tuple();
    wild.reason = "x".repeat(TEXT_MAX + 9).into();
    wild.route = "a\u{1b}[0m\n".into();
    wild.path = Some("/a\nb".into());
    wild.headers = vec![wild.headers[0].clone(); HEADERS_MAX + 3];
    wild.token = Token::Good(vec!["i".into(); ISSUERS_MAX + 1]);
    let taken = Tuple::decode(&wild.encode()).expect("a tuple");
    assert_eq!(taken.reason.len(), TEXT_MAX);
    assert_eq!(&*taken.route, "a\u{fffd}[0m\u{fffd}");
    assert_eq!((taken.path, taken.headers.len()), (None, HEADERS_MAX));
    assert_eq!(taken.token, Token::Good(vec!["i".into(); ISSUERS_MAX]));
    wild.reason = "x".repeat(TUPLE_BYTES_MAX).into();
    assert_eq!(Tuple::decode(&wild.encode()), None);
}
