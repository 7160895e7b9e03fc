//! Damaged and invented bytes: whatever comes, both machines answer, go on or fail, and stay small.

use bytes::{Buf, Bytes, BytesMut};
use proptest::prelude::*;
use rajut_codec::{
    Method, Output, RequestHead, ResponseHead, Scheme,
    h2::{BodyLength, ClientConn, Config, Conn, Event, Role, ServerConn},
};

use crate::{
    ours::Cuts,
    plan::{Exchange, exchange, fields_of},
};

/// What a machine may hold, its windows' worth of data not counted (the test drops data at once).
const HELD_MAX: usize = 200_000;

/// What our client sends for a plan, up to the windows that every connection begins with.
fn recorded(plan: &[Exchange]) -> Vec<u8> {
    let mut out = Output::new();
    let config = Config {
        use_huffman: true,
        ..Config::default()
    };
    let mut client = ClientConn::new(config, &mut out);
    let mut bytes = Vec::new();
    for exchange in plan {
        let method = Method::from_bytes(exchange.method.as_bytes()).unwrap();
        let mut head = RequestHead::new(method, "/records");
        head.authority = Bytes::from_static(b"clinic");
        head.fields = fields_of(&exchange.request.fields);
        let key = client
            .open(&head, Scheme::Http, BodyLength::Unknown, &mut out)
            .unwrap();
        for mut piece in exchange.request.pieces() {
            client.encode_data(key, &mut piece, false, &mut out).unwrap();
        }
        if let Some(trailers) = &exchange.request.trailers {
            client
                .encode_trailers(key, &fields_of(trailers), &mut out)
                .unwrap();
        }
        bytes.extend_from_slice(&out.copy_to_bytes(out.remaining()));
    }
    bytes
}

fn feed<R: Role>(
    conn: &mut Conn<R>,
    out: &mut Output,
    bytes: &[u8],
    seed: u64,
    mut on: impl FnMut(&mut Conn<R>, Event<R::Head>, &mut Output),
) {
    let (mut cuts, mut buf, mut rest) = (Cuts(seed), BytesMut::new(), bytes);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(cuts.next(3_000).min(rest.len()));
        buf.extend_from_slice(now);
        rest = later;
        loop {
            match conn.receive(&mut buf, out) {
                Ok(Some(event)) => on(conn, event, out),
                Ok(None) => break,
                Err(error) => {
                    assert!(!error.name().is_empty() && !out.is_empty());
                    return;
                }
            }
            assert!(conn.capacity() < HELD_MAX, "{}", conn.capacity());
        }
        assert!(out.remaining() < 2_000_000 && buf.len() <= 20_000);
        if cuts.next(4) == 1 {
            out.advance(out.remaining());
        }
    }
    // Either way is right, in the middle of something or not.
    let _ = conn.receive_eof(&buf);
}

fn feed_server(bytes: &[u8], seed: u64) {
    let mut out = Output::new();
    let mut server = ServerConn::new(Config::default(), &mut out);
    feed(
        &mut server,
        &mut out,
        bytes,
        seed,
        |server, event, out| match event {
            Event::Head { stream, head, .. } => {
                assert_eq!(head.head.fields.check_invariants(), Ok(()));
                // Some of the keys are void; that is told, never a panic.
                let _ = server.encode_head(stream, &ResponseHead::new(200), BodyLength::Unknown, out);
                let _ = server.encode_data(
                    stream,
                    &mut Bytes::from(vec![0; 5_000]),
                    seed.is_multiple_of(2),
                    out,
                );
            }
            Event::Data { stream, data, .. } => server.release(stream, data.len(), out),
            _ => {}
        },
    );
}

fn feed_client(bytes: &[u8], seed: u64) {
    let mut out = Output::new();
    let mut client = ClientConn::new(Config::default(), &mut out);
    for _ in 0..4 {
        let mut head = RequestHead::new(Method::Get, "/");
        head.authority = Bytes::from_static(b"w");
        client
            .open(&head, Scheme::Http, BodyLength::Unknown, &mut out)
            .unwrap();
    }
    feed(&mut client, &mut out, bytes, seed, |client, event, out| {
        if let Event::Data { stream, data, .. } = event {
            client.release(stream, data.len(), out);
        }
    });
}

/// A change of a sequence of bytes.
#[derive(Clone, Debug)]
enum Damage {
    Flip(usize, u8),
    Cut(usize, usize),
    Repeat(usize, usize),
    Insert(usize, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        (any::<usize>(), 0..200_usize).prop_map(|(at, size)| Damage::Cut(at, size)),
        (any::<usize>(), 0..200_usize).prop_map(|(at, size)| Damage::Repeat(at, size)),
        (any::<usize>(), prop::collection::vec(any::<u8>(), 0..30))
            .prop_map(|(at, new)| Damage::Insert(at, new)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    // The preface and the first settings stay, or nothing behind them would be looked at.
    let first = 80.min(bytes.len());
    let place = |at: usize| first + at % (bytes.len() - first + 1);
    match damage {
        Damage::Flip(at, bits) => {
            let at = place(*at);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= bits;
            }
        }
        Damage::Cut(at, size) => {
            let at = place(*at);
            drop(bytes.drain(at..(at + size).min(bytes.len())));
        }
        Damage::Repeat(at, size) => {
            let at = place(*at);
            let part = bytes[at..(at + size).min(bytes.len())].to_vec();
            drop(bytes.splice(at..at, part));
        }
        Damage::Insert(at, new) => {
            let at = place(*at);
            drop(bytes.splice(at..at, new.iter().copied()));
        }
    }
}

/// A frame of any kind with any content, most often of a size that its kind has.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(
            prop_oneof![Just(0x82_u8), Just(0x86), Just(0x84), Just(0x88), Just(0xbe)],
            0..8
        ),
        Just(vec![0x82, 0x86, 0x84, 0x41, 1, b'w']),
        prop::collection::vec(any::<u8>(), 4),
        prop::collection::vec(any::<u8>(), 8),
        Just(vec![0, 0, 0, 1]),
    ];
    let flags = prop_oneof![Just(0_u8), Just(1), Just(4), Just(5), any::<u8>()];
    (0..11_u8, flags, 0..10_u32, payload).prop_map(|(kind, flags, stream, payload)| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&payload);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_requests(
        plan in prop::collection::vec(exchange(), 1..6),
        damages in prop::collection::vec(damage(), 1..5),
        seed in any::<u64>(),
    ) {
        let mut bytes = recorded(&plan);
        for damage in &damages {
            apply(&mut bytes, damage);
        }
        feed_server(&bytes, seed);
        // A client takes the same frames for a server's.
        feed_client(&bytes[24..], seed);
    }

    #[test]
    fn invented_frames(frames in prop::collection::vec(any_frame(), 0..60), seed in any::<u64>()) {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let frames = frames.concat();
        feed_server(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &frames].concat(), seed);
        feed_client(&[&settings[..], &frames].concat(), seed);
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), seed in any::<u64>()) {
        feed_server(&bytes, seed);
        feed_client(&bytes, seed);
    }
}
