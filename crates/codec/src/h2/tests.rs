//! Each rule of the connection by hand-made frames, for both roles.
#![expect(clippy::too_many_lines, reason = "tables of cases")]
#![expect(clippy::type_complexity, reason = "said once, in a table")]
#![expect(clippy::needless_for_each, reason = "shorter")]
#![expect(clippy::single_match, reason = "events that do not matter are named as such")]

use bytes::{Buf, Bytes, BytesMut};

use super::{
    BodyLength, ClientConn, Config, DecodeError, EncodeError, Event, Reason, Request, Response, ServerConn,
    StreamKey,
    frame::{self, FrameHead},
};
use crate::{Fields, Known, Method, Output, RequestHead, ResponseHead, Scheme};

/// GET / of scheme http and authority w: indexes 2, 6, 4 and a literal `:authority`.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'w'];
/// As GET, but POST.
const POST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 0x01, b'w'];
const END: u8 = frame::END_STREAM;
const WHOLE: u8 = frame::END_HEADERS;

fn frame_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let head = FrameHead {
        len: payload.len(),
        kind,
        flags,
        stream,
    };
    [&head.to_bytes()[..], payload].concat()
}

/// `name: value` as a literal that is not indexed.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0, u8::try_from(name.len()).unwrap()];
    out.extend_from_slice(name.as_bytes());
    out.push(u8::try_from(value.len()).unwrap());
    out.extend_from_slice(value.as_bytes());
    out
}

/// The frames in an output: (kind, flags, stream, payload).
fn frames(out: &mut Output) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let bytes = out.copy_to_bytes(out.remaining());
    let mut rest = bytes.strip_prefix(frame::PREFACE).unwrap_or(&bytes);
    let mut seen = Vec::new();
    while let Some(head) = FrameHead::parse(rest) {
        let end = frame::HEAD + head.len;
        seen.push((
            head.kind,
            head.flags,
            head.stream,
            rest[frame::HEAD..end].to_vec(),
        ));
        rest = &rest[end..];
    }
    assert!(rest.is_empty());
    seen
}

/// A machine with its output, past the handshake.
struct Side<C> {
    conn: C,
    out: Output,
    buf: BytesMut,
}

fn server_with(config: Config) -> Side<ServerConn> {
    let mut out = Output::new();
    let conn = ServerConn::new(config, &mut out);
    let mut side = Side {
        conn,
        out,
        buf: BytesMut::new(),
    };
    side.buf.extend_from_slice(frame::PREFACE);
    assert!(
        side.take(&frame_of(frame::SETTINGS, 0, 0, &[]))
            .unwrap()
            .is_none()
    );
    assert!(
        side.take(&frame_of(frame::SETTINGS, frame::ACK, 0, &[]))
            .unwrap()
            .is_none()
    );
    frames(&mut side.out);
    side
}

fn server() -> Side<ServerConn> {
    server_with(Config::default())
}

fn client_with(settings: &[u8]) -> Side<ClientConn> {
    let mut out = Output::new();
    let conn = ClientConn::new(Config::default(), &mut out);
    let mut side = Side {
        conn,
        out,
        buf: BytesMut::new(),
    };
    assert!(
        side.take(&frame_of(frame::SETTINGS, 0, 0, settings))
            .unwrap()
            .is_none()
    );
    assert!(
        side.take(&frame_of(frame::SETTINGS, frame::ACK, 0, &[]))
            .unwrap()
            .is_none()
    );
    frames(&mut side.out);
    side
}

fn client() -> Side<ClientConn> {
    client_with(&[])
}

impl Side<ServerConn> {
    fn take(&mut self, bytes: &[u8]) -> Result<Option<Event<Request>>, DecodeError> {
        self.buf.extend_from_slice(bytes);
        self.conn.receive(&mut self.buf, &mut self.out)
    }

    fn event(&mut self, bytes: &[u8]) -> Event<Request> {
        self.take(bytes).unwrap().expect("an event")
    }

    /// Opens a stream.
    fn request(&mut self, id: u32, flags: u8, block: &[u8]) -> StreamKey {
        match self.event(&frame_of(frame::HEADERS, flags | WHOLE, id, block)) {
            Event::Head { stream, .. } => stream,
            other => panic!("{other:?}"),
        }
    }

    /// The rule for which a request is refused.
    fn refused(block: &[u8]) -> DecodeError {
        let mut side = server();
        match side.event(&frame_of(frame::HEADERS, END | WHOLE, 1, block)) {
            Event::Refused { id: 1, error } => {
                let sent = frames(&mut side.out);
                let code = error.reason().0.to_be_bytes().to_vec();
                assert_eq!(sent, [(frame::RST_STREAM, 0, 1, code)]);
                assert_eq!(side.conn.stream_count(), 0);
                // The connection goes on.
                side.request(3, END, GET);
                error
            }
            other => panic!("{other:?}"),
        }
    }
}

impl Side<ClientConn> {
    fn take(&mut self, bytes: &[u8]) -> Result<Option<Event<Response>>, DecodeError> {
        self.buf.extend_from_slice(bytes);
        self.conn.receive(&mut self.buf, &mut self.out)
    }

    fn event(&mut self, bytes: &[u8]) -> Event<Response> {
        self.take(bytes).unwrap().expect("an event")
    }

    fn open(&mut self, method: Method, length: BodyLength) -> StreamKey {
        let mut head = RequestHead::new(method, "/");
        head.authority = Bytes::from_static(b"w");
        self.conn
            .open(&head, Scheme::Http, length, &mut self.out)
            .unwrap()
    }
}

/// What a server says to these frames after the handshake.
fn failure(bytes: &[u8]) -> DecodeError {
    let mut side = server();
    side.buf.extend_from_slice(bytes);
    loop {
        match side.conn.receive(&mut side.buf, &mut side.out) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("nothing is wrong"),
            Err(error) => {
                let last = frames(&mut side.out).pop().unwrap();
                assert_eq!(last.0, frame::GOAWAY);
                assert_eq!(last.3[4..], error.reason().0.to_be_bytes());
                let again = side.conn.receive(&mut side.buf, &mut side.out);
                assert_eq!(again.unwrap_err(), DecodeError::OutOfStep);
                assert!(side.out.is_empty());
                return error;
            }
        }
    }
}

#[test]
fn what_ends_a_connection() {
    let get = frame_of(frame::HEADERS, END | WHOLE, 1, GET);
    let big = vec![0; 16_385];
    let cases: &[(DecodeError, Vec<u8>)] = &[
        (DecodeError::FrameTooLarge, frame_of(frame::DATA, 0, 1, &big)),
        (DecodeError::FrameStream, frame_of(frame::DATA, 0, 0, b"x")),
        (DecodeError::FrameStream, frame_of(frame::HEADERS, WHOLE, 0, GET)),
        (
            DecodeError::FrameStream,
            frame_of(frame::RST_STREAM, 0, 0, &[0; 4]),
        ),
        (DecodeError::FrameStream, frame_of(frame::SETTINGS, 0, 1, &[])),
        (DecodeError::FrameStream, frame_of(frame::PING, 0, 1, &[0; 8])),
        (DecodeError::FrameStream, frame_of(frame::GOAWAY, 0, 1, &[0; 8])),
        (DecodeError::FrameStream, frame_of(frame::PRIORITY, 0, 0, &[0; 5])),
        (DecodeError::FrameSize, frame_of(frame::PRIORITY, 0, 1, &[0; 4])),
        (DecodeError::FrameSize, frame_of(frame::RST_STREAM, 0, 1, &[0; 3])),
        (DecodeError::FrameSize, frame_of(frame::SETTINGS, 0, 0, &[0; 5])),
        (
            DecodeError::FrameSize,
            frame_of(frame::SETTINGS, frame::ACK, 0, &[0; 6]),
        ),
        (DecodeError::FrameSize, frame_of(frame::PING, 0, 0, &[0; 7])),
        (DecodeError::FrameSize, frame_of(frame::GOAWAY, 0, 0, &[0; 7])),
        (
            DecodeError::FrameSize,
            frame_of(frame::WINDOW_UPDATE, 0, 0, &[0; 3]),
        ),
        (
            DecodeError::FrameSize,
            frame_of(frame::HEADERS, WHOLE | frame::WITH_PRIORITY, 1, &[0; 4]),
        ),
        (
            DecodeError::Padding,
            frame_of(frame::HEADERS, WHOLE | frame::PADDED, 1, &[9, 0x82]),
        ),
        (
            DecodeError::Continuation,
            frame_of(frame::CONTINUATION, WHOLE, 1, GET),
        ),
        (
            DecodeError::Continuation,
            [
                frame_of(frame::HEADERS, 0, 1, GET),
                frame_of(frame::PING, 0, 0, &[0; 8]),
            ]
            .concat(),
        ),
        (
            DecodeError::Continuation,
            [
                frame_of(frame::HEADERS, 0, 1, GET),
                frame_of(frame::CONTINUATION, WHOLE, 3, &[]),
            ]
            .concat(),
        ),
        (
            DecodeError::PushPromise,
            frame_of(frame::PUSH_PROMISE, WHOLE, 1, &[0, 0, 0, 2]),
        ),
        (
            DecodeError::Setting,
            frame_of(frame::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]),
        ),
        (
            DecodeError::Setting,
            frame_of(frame::SETTINGS, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff]),
        ),
        (
            DecodeError::SettingWindow,
            frame_of(frame::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
        ),
        (
            DecodeError::SettingsAck,
            frame_of(frame::SETTINGS, frame::ACK, 0, &[]),
        ),
        (DecodeError::IdleStream, frame_of(frame::DATA, 0, 1, b"x")),
        (
            DecodeError::IdleStream,
            frame_of(frame::RST_STREAM, 0, 1, &[0; 4]),
        ),
        (
            DecodeError::IdleStream,
            frame_of(frame::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        ),
        (
            DecodeError::IdleStream,
            frame_of(frame::WINDOW_UPDATE, 0, 2, &[0, 0, 0, 1]),
        ),
        (DecodeError::StreamId, frame_of(frame::HEADERS, WHOLE, 2, GET)),
        (
            DecodeError::StreamClosed,
            [
                frame_of(frame::HEADERS, WHOLE, 5, GET),
                frame_of(frame::HEADERS, WHOLE, 3, GET),
            ]
            .concat(),
        ),
        (
            DecodeError::WindowUpdateZero,
            frame_of(frame::WINDOW_UPDATE, 0, 0, &[0; 4]),
        ),
        (
            DecodeError::WindowOverflow,
            frame_of(frame::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        ),
        (
            DecodeError::Compression,
            frame_of(frame::HEADERS, WHOLE, 1, &[0xff]),
        ),
        (
            // A stream's window grows beyond its maximum by a setting.
            DecodeError::SettingWindow,
            [
                get,
                frame_of(frame::WINDOW_UPDATE, 0, 1, &[0x7f, 0xfe, 0, 0]),
                frame_of(frame::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0, 0]),
            ]
            .concat(),
        ),
    ];
    for (wanted, bytes) in cases {
        assert_eq!(failure(bytes), *wanted, "{bytes:?}");
    }
}

#[test]
fn a_connection_begins_with_the_preface_and_settings() {
    let mut out = Output::new();
    let mut conn = ServerConn::new(Config::default(), &mut out);
    let mut buf = BytesMut::from(&b"PRI * HTTP/2.0\r\n"[..]);
    assert!(conn.receive(&mut buf, &mut out).unwrap().is_none());
    buf.extend_from_slice(b"GET / HTTP/1.1\r\n");
    assert_eq!(
        conn.receive(&mut buf, &mut out).unwrap_err(),
        DecodeError::Preface
    );

    let mut conn = ServerConn::new(Config::default(), &mut out);
    let mut buf = BytesMut::from(&frame::PREFACE[..]);
    buf.extend_from_slice(&frame_of(frame::PING, 0, 0, &[0; 8]));
    assert_eq!(
        conn.receive(&mut buf, &mut out).unwrap_err(),
        DecodeError::SettingsMissing
    );

    let mut out = Output::new();
    let _client = ClientConn::new(Config::default(), &mut out);
    let bytes = out.copy_to_bytes(out.remaining());
    assert!(bytes.starts_with(frame::PREFACE));
}

#[test]
fn requests_that_are_none() {
    let with = |name: &str, value: &str| [GET, &literal(name, value)].concat();
    let path = |value: &str| {
        let mut block = vec![
            0x82,
            0x86,
            0x41,
            0x01,
            b'w',
            0x04,
            u8::try_from(value.len()).unwrap(),
        ];
        block.extend_from_slice(value.as_bytes());
        block
    };
    let cases: &[(DecodeError, Vec<u8>)] = &[
        (DecodeError::PseudoMissing, vec![0x86, 0x84, 0x41, 1, b'w']),
        (DecodeError::PseudoMissing, vec![0x82, 0x84, 0x41, 1, b'w']),
        (DecodeError::PseudoMissing, vec![0x82, 0x86, 0x41, 1, b'w']),
        (DecodeError::HostMissing, literal(":method", "CONNECT")),
        (
            DecodeError::HostInvalid,
            [&[0x82, 0x86, 0x84, 0x41, 3][..], b"a@b"].concat(),
        ),
        (
            DecodeError::HostDuplicate,
            [
                &[0x82, 0x86, 0x84][..],
                &literal("host", "w"),
                &literal("host", "w"),
            ]
            .concat(),
        ),
        (DecodeError::PseudoUnknown, [&[0x88][..], GET].concat()),
        (
            DecodeError::PseudoUnknown,
            [&literal(":protocol", "websocket")[..], GET].concat(),
        ),
        (DecodeError::PseudoDuplicate, [&[0x82][..], GET].concat()),
        (DecodeError::PseudoOrder, [&literal("a", "b")[..], GET].concat()),
        (DecodeError::Target, path("")),
        (DecodeError::Target, path("no-slash")),
        (DecodeError::Target, path("*")),
        (DecodeError::Target, path("/a b")),
        (DecodeError::Target, path("/a#b")),
        (
            DecodeError::Target,
            [&literal(":method", "CONNECT")[..], &GET[1..]].concat(),
        ),
        (
            DecodeError::Method,
            [&literal(":method", "G T")[..], &GET[1..]].concat(),
        ),
        (
            DecodeError::Scheme,
            [&[0x82, 0x84, 0x41, 1, b'w'][..], &literal(":scheme", "ftp")].concat(),
        ),
        (DecodeError::ConnectionField, with("connection", "close")),
        (DecodeError::ConnectionField, with("transfer-encoding", "chunked")),
        (DecodeError::ConnectionField, with("upgrade", "websocket")),
        (DecodeError::ConnectionField, with("keep-alive", "5")),
        (DecodeError::ConnectionField, with("proxy-connection", "close")),
        (DecodeError::Te, with("te", "gzip")),
        (DecodeError::HeaderName, with("A", "b")),
        (DecodeError::HeaderName, with("a b", "b")),
        (DecodeError::HeaderValue, with("a", "b\r\nc: d")),
        (DecodeError::HeaderValue, with("a", "b\0")),
        (DecodeError::HeaderValue, with("a", " b")),
        (DecodeError::ContentLength, with("content-length", "1, 1")),
        (DecodeError::ContentLength, with("content-length", "-1")),
        (
            DecodeError::ContentLength,
            [with("content-length", "1"), literal("content-length", "1")].concat(),
        ),
        (DecodeError::ContentLengthMismatch, with("content-length", "1")),
    ];
    for (wanted, block) in cases {
        assert_eq!(
            Side::<ServerConn>::refused(block),
            *wanted,
            "{}",
            String::from_utf8_lossy(block)
        );
    }
}

#[test]
fn a_request_is_taken_apart() {
    let mut block = POST.to_vec();
    for (name, value) in [
        ("cookie", "a=1"),
        ("content-length", "3"),
        ("cookie", "b=2"),
        ("te", "trailers"),
        ("host", "W"),
        ("x-custom", "v"),
        ("expect", "100-continue"),
    ] {
        block.extend(literal(name, value));
    }
    // Padded, with a priority.
    let padded = [&[3, 0, 0, 0, 0, 16][..], &block, &[0; 3]].concat();
    let mut side = server();
    let head = frame_of(
        frame::HEADERS,
        WHOLE | frame::PADDED | frame::WITH_PRIORITY,
        1,
        &padded,
    );
    let Event::Head {
        stream,
        head,
        is_end: false,
    } = side.event(&head)
    else {
        panic!()
    };
    assert_eq!((stream.id(), stream.slot()), (1, 0));
    assert_eq!(
        (&head.head.method, head.head.authority_str()),
        (&Method::Post, "w")
    );
    assert_eq!(
        (head.head.path(), head.head.scheme),
        (b"/".as_slice(), Some(Scheme::Http))
    );
    assert_eq!((head.body, head.expect_continue), (BodyLength::Exact(3), true));
    assert_eq!(head.head.fields.get(Known::Cookie), Some(b"a=1; b=2".as_slice()));
    assert!(!head.head.fields.contains(Known::Host));
    assert_eq!(head.head.fields.check_invariants(), Ok(()));

    // The body comes in pieces and ends with trailers.
    let piece = frame_of(frame::DATA, frame::PADDED, 1, b"\x02ab\0\0");
    let Event::Data {
        data, is_end: false, ..
    } = side.event(&piece)
    else {
        panic!()
    };
    assert_eq!(data, "ab");
    let last = frame_of(frame::DATA, 0, 1, b"c");
    assert!(matches!(side.event(&last), Event::Data { is_end: false, .. }));
    let trailers = frame_of(frame::HEADERS, END | WHOLE, 1, &literal("x-sum", "7"));
    let Event::Trailers { fields, .. } = side.event(&trailers) else {
        panic!()
    };
    assert_eq!(fields.get("x-sum"), Some(b"7".as_slice()));
    assert!(side.conn.is_open(stream), "the response is still to come");
}

#[test]
fn the_authority_comes_before_host_and_may_be_missing() {
    let without = [0x82, 0x86, 0x84];
    let cases: &[(&[u8], Vec<u8>)] = &[
        (
            b"w",
            [GET, &literal("host", "other"), &literal("host", "third")].concat(),
        ),
        (b"other", [&without[..], &literal("host", "other")].concat()),
        (b"", without.to_vec()),
        (b"", [&without[..], &[0x41, 0]].concat()),
    ];
    for (wanted, block) in cases {
        let mut side = server();
        let Event::Head { head, .. } = side.event(&frame_of(frame::HEADERS, END | WHOLE, 1, block)) else {
            panic!()
        };
        assert_eq!(
            (&head.head.authority[..], head.head.fields.contains(Known::Host)),
            (*wanted, false)
        );
    }
}

#[test]
fn a_head_in_many_frames_is_one() {
    let mut side = server();
    let block = [GET, &literal("a", "b")].concat();
    let mut bytes = frame_of(frame::HEADERS, END, 1, &block[..3]);
    for byte in &block[3..] {
        bytes.extend(frame_of(frame::CONTINUATION, 0, 1, &[*byte]));
    }
    bytes.extend(frame_of(frame::CONTINUATION, WHOLE, 1, &[]));
    // Byte by byte.
    let (last, before) = bytes.split_last().unwrap();
    for byte in before {
        assert!(side.take(&[*byte]).unwrap().is_none());
    }
    let Event::Head {
        head, is_end: true, ..
    } = side.event(&[*last])
    else {
        panic!()
    };
    assert_eq!(head.head.fields.get("a"), Some(b"b".as_slice()));
    assert_eq!(head.body, BodyLength::Empty);
}

/// The rule for which a stream is reset, after it was opened with POST and these fields.
fn broken_stream(fields: &[(&str, &str)], bytes: &[u8]) -> DecodeError {
    let mut side = server();
    let mut block = POST.to_vec();
    fields
        .iter()
        .for_each(|(name, value)| block.extend(literal(name, value)));
    let key = side.request(1, 0, &block);
    side.buf.extend_from_slice(bytes);
    loop {
        match side
            .conn
            .receive(&mut side.buf, &mut side.out)
            .unwrap()
            .expect("a reset")
        {
            Event::Reset {
                stream,
                reason,
                error,
            } => {
                let error = error.expect("for our reason");
                assert_eq!((stream, reason), (key, error.reason()));
                let code = reason.0.to_be_bytes().to_vec();
                assert_eq!(frames(&mut side.out).pop(), Some((frame::RST_STREAM, 0, 1, code)));
                assert!(!side.conn.is_open(key));
                // What was under way does no harm.
                assert!(
                    side.take(&frame_of(frame::DATA, 0, 1, b"late"))
                        .unwrap()
                        .is_none()
                );
                assert!(
                    side.take(&frame_of(frame::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]))
                        .unwrap()
                        .is_none()
                );
                assert!(
                    side.take(&frame_of(frame::RST_STREAM, 0, 1, &[0; 4]))
                        .unwrap()
                        .is_none()
                );
                side.request(3, END, GET);
                return error;
            }
            _ => {}
        }
    }
}

#[test]
fn what_resets_a_stream() {
    let data = |flags, bytes: &[u8]| frame_of(frame::DATA, flags, 1, bytes);
    let trailers = |flags, block: &[u8]| frame_of(frame::HEADERS, flags | WHOLE, 1, block);
    let long = literal("x", &"v".repeat(100));
    let cases: &[(DecodeError, &[(&str, &str)], Vec<u8>)] = &[
        (
            DecodeError::ContentLengthMismatch,
            &[("content-length", "3")],
            data(0, b"abcd"),
        ),
        (
            DecodeError::ContentLengthMismatch,
            &[("content-length", "3")],
            data(END, b"ab"),
        ),
        (
            DecodeError::ContentLengthMismatch,
            &[("content-length", "3")],
            trailers(END, &[]),
        ),
        (
            DecodeError::StreamClosed,
            &[],
            [data(END, b"a"), data(0, b"b")].concat(),
        ),
        (
            DecodeError::StreamClosed,
            &[],
            [data(END, b"a"), trailers(END, &[])].concat(),
        ),
        (DecodeError::TrailersNotLast, &[], trailers(0, &long)),
        (DecodeError::PseudoInTrailers, &[], trailers(END, &[0x82])),
        (
            DecodeError::TrailerForbidden,
            &[],
            trailers(END, &literal("content-length", "1")),
        ),
        (
            DecodeError::ConnectionField,
            &[],
            trailers(END, &literal("connection", "x")),
        ),
        (
            DecodeError::TrailersTooLarge,
            &[],
            trailers(END, &long.repeat(65)),
        ),
        (
            DecodeError::WindowUpdateZero,
            &[],
            frame_of(frame::WINDOW_UPDATE, 0, 1, &[0; 4]),
        ),
        (
            DecodeError::WindowOverflow,
            &[],
            frame_of(frame::WINDOW_UPDATE, 0, 1, &[0x7f, 255, 255, 255]),
        ),
    ];
    for (wanted, fields, bytes) in cases {
        assert_eq!(broken_stream(fields, bytes), *wanted, "{bytes:?}");
    }
}

#[test]
fn a_head_that_is_too_large_is_answered() {
    for (fields, wanted) in [
        (101, DecodeError::TooManyHeaders),
        (95, DecodeError::HeadTooLarge),
    ] {
        let mut side = server_with(Config {
            max_head_bytes: 10_000,
            ..Config::default()
        });
        let value = "v".repeat(if fields == 95 { 100 } else { 1 });
        let mut block = GET.to_vec();
        for number in 0..fields {
            block.extend(literal(&format!("x-{number}"), &value));
        }
        let got = side.event(&frame_of(frame::HEADERS, WHOLE, 1, &block));
        assert!(
            matches!(got, Event::Refused { id: 1, error } if error == wanted),
            "{got:?}"
        );
        let sent = frames(&mut side.out);
        assert_eq!((sent[0].0, sent[0].1), (frame::HEADERS, END | WHOLE));
        assert_eq!(sent[1], (frame::RST_STREAM, 0, 1, vec![0; 4]));
        // The body that was under way is passed over, with its trailers.
        assert!(side.take(&frame_of(frame::DATA, 0, 1, b"x")).unwrap().is_none());
        assert!(
            side.take(&frame_of(frame::HEADERS, END | WHOLE, 1, &literal("a", "b")))
                .unwrap()
                .is_none()
        );
    }
}

#[test]
fn streams_at_once_are_bounded() {
    let mut side = server_with(Config {
        max_concurrent_streams: 2,
        ..Config::default()
    });
    let first = side.request(1, END, GET);
    side.request(3, 0, GET);
    let got = side.event(&frame_of(frame::HEADERS, END | WHOLE, 5, GET));
    assert!(matches!(
        got,
        Event::Refused {
            id: 5,
            error: DecodeError::TooManyStreams
        }
    ));
    let code = Reason::REFUSED_STREAM.0.to_be_bytes().to_vec();
    assert_eq!(frames(&mut side.out), [(frame::RST_STREAM, 0, 5, code)]);
    side.conn
        .encode_head(first, &ResponseHead::new(204), BodyLength::Empty, &mut side.out)
        .unwrap();
    assert_eq!(side.request(7, END, GET).slot(), first.slot());
    assert_eq!(side.conn.encode_end(first, &mut side.out), Ok(()));
    let again = side
        .conn
        .encode_data(first, &mut Bytes::from_static(b"x"), false, &mut side.out);
    assert_eq!(again, Err(EncodeError::Closed), "the old key is void");
}

#[test]
fn floods_end_the_connection() {
    let mut reset = Vec::new();
    let (mut settings, mut pings, mut empty, mut unknown) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    empty.extend(frame_of(frame::HEADERS, WHOLE, 1, POST));
    for number in 0..5_000_u32 {
        let id = 2 * number + 1;
        reset.extend(frame_of(frame::HEADERS, END | WHOLE, id, GET));
        reset.extend(frame_of(frame::RST_STREAM, 0, id, &8_u32.to_be_bytes()));
        settings.extend(frame_of(frame::SETTINGS, 0, 0, &[]));
        pings.extend(frame_of(frame::PING, 0, 0, &[0; 8]));
        empty.extend(frame_of(frame::DATA, 0, 1, &[]));
        unknown.extend(frame_of(77, 0, number, b"?"));
    }
    assert_eq!(failure(&reset), DecodeError::ResetFlood);
    for flood in [&settings, &pings, &empty, &unknown] {
        assert_eq!(failure(flood), DecodeError::ControlFlood);
    }
    let mut continued = frame_of(frame::HEADERS, 0, 1, GET);
    for _ in 0..20_000 {
        continued.extend(frame_of(frame::CONTINUATION, 0, 1, &literal("a", "b")));
    }
    assert_eq!(failure(&continued), DecodeError::HeaderFlood);
    let wrong: Vec<u8> = (0..5_000_u32)
        .flat_map(|number| frame_of(frame::HEADERS, END | WHOLE, 2 * number + 1, &[0x82]))
        .collect();
    assert_eq!(failure(&wrong), DecodeError::ResetFlood);
    // Many settings in few frames are as many.
    let many = frame_of(frame::SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0].repeat(2_700)).repeat(3);
    assert_eq!(failure(&many), DecodeError::ControlFlood);
}

#[test]
fn what_floods_at_once_is_borne_over_time() {
    let mut side = server();
    for second in 0..100 {
        side.conn.note_time(second * 10);
        for _ in 0..1_000 {
            assert!(
                side.take(&frame_of(frame::PING, 0, 0, &[7; 8]))
                    .unwrap()
                    .is_none()
            );
        }
        assert_eq!(frames(&mut side.out).len(), 1_000);
    }
}

#[test]
fn the_windows_bind_the_peer_until_data_is_released() {
    let mut side = server_with(Config {
        stream_window: 1_000,
        connection_window: 70_000,
        ..Config::default()
    });
    let key = side.request(1, 0, POST);
    let data = |side: &mut Side<ServerConn>, size: usize| {
        let event = side.event(&frame_of(frame::DATA, 0, 1, &vec![0; size]));
        matches!(event, Event::Data { .. })
    };
    assert!(data(&mut side, 600));
    assert!(frames(&mut side.out).is_empty());
    side.conn.release(key, 499, &mut side.out);
    assert!(frames(&mut side.out).is_empty());
    side.conn.release(key, 1, &mut side.out);
    let update = (frame::WINDOW_UPDATE, 0, 1, 500_u32.to_be_bytes().to_vec());
    assert_eq!(frames(&mut side.out), [update]);
    // 400 were left, 500 given back. More than was received can't be released.
    side.conn.release(key, 10_000, &mut side.out);
    assert!(data(&mut side, 900));
    let event = side.event(&frame_of(frame::DATA, 0, 1, &[0]));
    assert!(
        matches!(
            event,
            Event::Reset {
                error: Some(DecodeError::WindowExceeded),
                ..
            }
        ),
        "{event:?}"
    );

    // The connection's window.
    let mut side = server_with(Config {
        stream_window: 100_000,
        connection_window: 70_000,
        ..Config::default()
    });
    side.request(1, 0, POST);
    for _ in 0..7 {
        assert!(data(&mut side, 10_000));
    }
    let error = side.take(&frame_of(frame::DATA, 0, 1, &[0])).unwrap_err();
    assert_eq!(error, DecodeError::WindowExceeded);
}

#[test]
fn what_a_stream_held_that_has_gone_counts_until_it_is_released() {
    let mut side = server_with(Config {
        connection_window: 65_535,
        ..Config::default()
    });
    for round in 0..100_u32 {
        let id = 2 * round + 1;
        let key = side.request(id, 0, POST);
        let piece = frame_of(frame::DATA, 0, id, &[0; 16_000]);
        assert!(matches!(side.event(&piece), Event::Data { .. }));
        match round % 3 {
            0 => side.conn.reset(key, Reason::CANCEL, &mut side.out),
            1 => drop(side.event(&frame_of(frame::RST_STREAM, 0, id, &[0; 4]))),
            _ => {
                side.conn
                    .encode_head(key, &ResponseHead::new(200), BodyLength::Empty, &mut side.out)
                    .unwrap();
                assert!(matches!(
                    side.event(&frame_of(frame::DATA, END, id, &[])),
                    Event::Data { is_end: true, .. }
                ));
            }
        }
        assert_eq!(side.conn.stream_count(), 0);
        side.conn.release(key, 16_000, &mut side.out);
        side.conn.release(key, 16_000, &mut side.out);
    }
    let taken = (100..110_u32)
        .take_while(|round| {
            let id = 2 * round + 1;
            let key = side.request(id, 0, POST);
            let taken = side.take(&frame_of(frame::DATA, 0, id, &[0; 16_000])).is_ok();
            side.conn.reset(key, Reason::CANCEL, &mut side.out);
            taken
        })
        .count();
    assert!((2..=4).contains(&taken), "{taken} pieces that nobody released");
}

#[test]
fn sending_waits_for_the_windows_and_goes_on() {
    let mut side = server_with(Config {
        output_high: usize::MAX,
        ..Config::default()
    });
    let one = side.request(1, END, GET);
    let two = side.request(3, END, GET);
    let head = ResponseHead::new(200);
    for key in [one, two] {
        side.conn
            .encode_head(key, &head, BodyLength::Unknown, &mut side.out)
            .unwrap();
    }
    frames(&mut side.out);
    // The connection and each stream may send 65,535.
    let mut piece = Bytes::from(vec![1; 60_000]);
    side.conn
        .encode_data(one, &mut piece, true, &mut side.out)
        .unwrap();
    assert!(piece.is_empty());
    let mut rest = Bytes::from(vec![2; 70_000]);
    side.conn
        .encode_data(two, &mut rest, true, &mut side.out)
        .unwrap();
    assert_eq!(rest.len(), 70_000 - 5_535);
    let sent = frames(&mut side.out);
    assert!(
        sent.iter()
            .all(|(kind, _, _, payload)| *kind == frame::DATA && payload.len() <= 16_384)
    );
    assert_eq!(
        sent.iter().map(|sent| sent.1).collect::<Vec<_>>(),
        [0, 0, 0, END, 0]
    );
    assert_eq!(side.conn.next_writable(&side.out), None);
    // The connection's window opens: the stream's own is used up in the middle.
    assert!(
        side.take(&frame_of(frame::WINDOW_UPDATE, 0, 0, &100_000_u32.to_be_bytes()))
            .unwrap()
            .is_none()
    );
    assert_eq!(side.conn.next_writable(&side.out), Some(two));
    assert_eq!(side.conn.next_writable(&side.out), None);
    side.conn
        .encode_data(two, &mut rest, true, &mut side.out)
        .unwrap();
    assert_eq!(rest.len(), 4_465);
    assert_eq!(side.conn.next_writable(&side.out), None);
    // A larger initial window reaches open streams.
    let settings = frame_of(frame::SETTINGS, 0, 0, &[0, 4, 0, 2, 0, 0]);
    assert!(side.take(&settings).unwrap().is_none());
    assert_eq!(side.conn.next_writable(&side.out), Some(two));
    side.conn
        .encode_data(two, &mut rest, true, &mut side.out)
        .unwrap();
    assert!(rest.is_empty());
    assert_eq!(side.conn.stream_count(), 0);
}

#[test]
fn a_smaller_initial_window_can_make_a_window_negative() {
    let mut side = server();
    let key = side.request(1, END, GET);
    side.conn
        .encode_head(key, &ResponseHead::new(200), BodyLength::Unknown, &mut side.out)
        .unwrap();
    let mut piece = Bytes::from(vec![0; 50_000]);
    side.conn
        .encode_data(key, &mut piece, false, &mut side.out)
        .unwrap();
    assert!(
        side.take(&frame_of(frame::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 100]))
            .unwrap()
            .is_none()
    );
    frames(&mut side.out);
    let mut more = Bytes::from_static(b"more");
    side.conn
        .encode_data(key, &mut more, true, &mut side.out)
        .unwrap();
    assert_eq!(more.len(), 4);
    let update = |bytes: u32| frame_of(frame::WINDOW_UPDATE, 0, 1, &bytes.to_be_bytes());
    assert!(side.take(&update(49_900)).unwrap().is_none());
    assert_eq!(side.conn.next_writable(&side.out), None);
    assert!(side.take(&update(1)).unwrap().is_none());
    assert_eq!(side.conn.next_writable(&side.out), Some(key));
    side.conn
        .encode_data(key, &mut more, true, &mut side.out)
        .unwrap();
    assert_eq!(more.len(), 3);
}

#[test]
fn room_in_the_output_bounds_what_is_taken_and_streams_take_turns() {
    let mut side = server();
    let update = frame_of(frame::WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes());
    let settings = frame_of(frame::SETTINGS, 0, 0, &[0, 4, 0, 0x10, 0, 0]);
    assert!(side.take(&[settings, update].concat()).unwrap().is_none());
    let keys = [side.request(1, END, GET), side.request(3, END, GET)];
    let mut pieces = [Bytes::from(vec![0; 200_000]), Bytes::from(vec![0; 200_000])];
    for (key, piece) in keys.iter().zip(&mut pieces) {
        side.conn
            .encode_head(*key, &ResponseHead::new(200), BodyLength::Unknown, &mut side.out)
            .unwrap();
        side.conn.encode_data(*key, piece, true, &mut side.out).unwrap();
    }
    let mut turns = Vec::new();
    loop {
        assert!(side.out.remaining() < 64 * 1024 + 17 * 1024);
        frames(&mut side.out);
        let Some(key) = side.conn.next_writable(&side.out) else {
            break;
        };
        turns.push(key.slot());
        side.conn
            .encode_data(key, &mut pieces[key.slot()], true, &mut side.out)
            .unwrap();
    }
    assert!(pieces.iter().all(Bytes::is_empty));
    assert_eq!(turns[..4], [0, 1, 0, 1], "{turns:?}");
}

#[test]
fn bodies_are_as_long_as_announced() {
    let mut side = client();
    let key = side.open(Method::Post, BodyLength::Exact(3));
    let out = &mut side.out;
    let too_long = side
        .conn
        .encode_data(key, &mut Bytes::from_static(b"abcd"), false, out);
    assert_eq!(too_long, Err(EncodeError::BodyTooLong));
    side.conn
        .encode_data(key, &mut Bytes::from_static(b"ab"), false, out)
        .unwrap();
    assert_eq!(side.conn.encode_end(key, out), Err(EncodeError::BodyTooShort));
    assert_eq!(
        side.conn.encode_trailers(key, &Fields::new(), out),
        Err(EncodeError::BodyTooShort)
    );
    side.conn
        .encode_data(key, &mut Bytes::from_static(b"c"), true, out)
        .unwrap();
    assert_eq!(side.conn.encode_end(key, out), Ok(()));
}

#[test]
fn responses_and_their_rules() {
    let status = |code: &str, fields: &[(&str, &str)]| {
        let mut block = vec![0x08, 3];
        block.extend_from_slice(code.as_bytes());
        fields
            .iter()
            .for_each(|(name, value)| block.extend(literal(name, value)));
        block
    };
    let head = |flags, block: &[u8]| frame_of(frame::HEADERS, flags | WHOLE, 1, block);
    let informational = |n: usize| {
        (0..n)
            .flat_map(|_| head(0, &status("103", &[])))
            .collect::<Vec<_>>()
    };
    let cases: &[(Method, Option<DecodeError>, Vec<u8>)] = &[
        (
            Method::Get,
            None,
            [informational(2), head(END, &status("200", &[]))].concat(),
        ),
        (
            Method::Get,
            Some(DecodeError::TooManyInformational),
            informational(17),
        ),
        (
            Method::Get,
            Some(DecodeError::InformationalEnd),
            head(END, &status("103", &[])),
        ),
        (
            Method::Get,
            Some(DecodeError::Status),
            head(END, &status("101", &[])),
        ),
        (
            Method::Get,
            Some(DecodeError::Status),
            head(END, &status("099", &[])),
        ),
        (
            Method::Get,
            Some(DecodeError::Status),
            head(END, &status("2x0", &[])),
        ),
        (Method::Get, Some(DecodeError::PseudoMissing), head(END, &[])),
        (
            Method::Get,
            Some(DecodeError::PseudoUnknown),
            head(END, &[0x88, 0x82]),
        ),
        (
            Method::Get,
            Some(DecodeError::UnexpectedData),
            frame_of(frame::DATA, 0, 1, b"x"),
        ),
        (
            Method::Get,
            Some(DecodeError::ContentLengthMismatch),
            head(END, &status("200", &[("content-length", "5")])),
        ),
        (
            Method::Head,
            None,
            head(END, &status("200", &[("content-length", "5")])),
        ),
        (
            Method::Get,
            None,
            head(END, &status("304", &[("content-length", "5")])),
        ),
        (
            Method::Head,
            Some(DecodeError::ContentLengthMismatch),
            [head(0, &status("200", &[])), frame_of(frame::DATA, END, 1, b"x")].concat(),
        ),
    ];
    for (method, wanted, bytes) in cases {
        let mut side = client();
        let key = side.open(method.clone(), BodyLength::Empty);
        side.buf.extend_from_slice(bytes);
        let mut error = None;
        while let Some(event) = side.conn.receive(&mut side.buf, &mut side.out).unwrap() {
            if let Event::Reset {
                error: Some(broken),
                stream,
                ..
            } = event
            {
                assert_eq!(stream, key);
                error = Some(broken);
            }
        }
        assert_eq!(error, *wanted, "{bytes:?}");
        assert_eq!(side.conn.stream_count(), 0);
    }
}

#[test]
fn a_server_that_leaves_gives_requests_back() {
    let mut side = client();
    let keys: Vec<_> = (0..3)
        .map(|_| side.open(Method::Get, BodyLength::Empty))
        .collect();
    let goaway = frame_of(frame::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    assert!(matches!(
        side.event(&goaway),
        Event::GoAway {
            last: 1,
            reason: Reason::NO_ERROR
        }
    ));
    assert!(!side.conn.can_open() && side.conn.is_leaving() && !side.conn.is_drained());
    for key in [keys[2], keys[1]] {
        let event = side.event(&[]);
        let Event::Reset {
            stream,
            reason,
            error: None,
        } = event
        else {
            panic!("{event:?}")
        };
        assert_eq!((stream, reason), (key, Reason::REFUSED_STREAM));
    }
    let response = frame_of(frame::HEADERS, END | WHOLE, 1, &[0x88]);
    assert!(matches!(side.event(&response), Event::Head { is_end: true, .. }));
    assert!(side.conn.is_drained());
}

#[test]
fn a_server_leaves_in_two_steps() {
    let mut side = server();
    let first = side.request(1, END, GET);
    side.conn.shutdown(&mut side.out);
    let sent = frames(&mut side.out);
    assert_eq!(
        (sent[0].0, &sent[0].3[..4]),
        (frame::GOAWAY, &[0x7f, 255, 255, 255][..])
    );
    // A request that was under way is taken; then the answer to the PING names the last one.
    side.request(3, END, GET);
    let pong = frame_of(frame::PING, frame::ACK, 0, &sent[1].3);
    assert!(side.take(&pong).unwrap().is_none());
    assert_eq!(frames(&mut side.out)[0].3[..4], [0, 0, 0, 3]);
    assert!(
        side.take(&frame_of(frame::HEADERS, END | WHOLE, 5, GET))
            .unwrap()
            .is_none()
    );
    assert!(!side.conn.is_drained());
    side.conn
        .encode_head(first, &ResponseHead::new(204), BodyLength::Empty, &mut side.out)
        .unwrap();
    assert!(matches!(
        side.event(&frame_of(frame::RST_STREAM, 0, 3, &[0; 4])),
        Event::Reset { .. }
    ));
    assert!(side.conn.is_drained());
}

#[test]
fn settings_of_the_server_bind_the_client() {
    let mut side = client_with(&[0, 3, 0, 0, 0, 1, 0, 8, 0, 0, 0, 1]);
    assert!(side.conn.can_open() && side.conn.allows_protocol());
    side.open(Method::Get, BodyLength::Empty);
    assert!(!side.conn.can_open());
    let refused = side.conn.open(
        &RequestHead::new(Method::Get, "/"),
        Scheme::Http,
        BodyLength::Empty,
        &mut side.out,
    );
    assert_eq!(refused, Err(EncodeError::NoStream));
    let push = side
        .take(&frame_of(frame::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 1]))
        .unwrap_err();
    assert_eq!(push, DecodeError::Setting);
}

#[test]
fn what_a_client_can_not_send() {
    let mut side = client();
    let mut open = |method, path: &'static str, authority: &'static str| {
        let mut head = RequestHead::new(method, path);
        head.authority = Bytes::from_static(authority.as_bytes());
        side.conn
            .open(&head, Scheme::Http, BodyLength::Empty, &mut side.out)
            .map(StreamKey::id)
    };
    for (path, authority) in [
        ("/a b", "w"),
        ("a", "w"),
        ("*", "w"),
        ("/", "a@b"),
        ("/\r\n", "w"),
    ] {
        assert_eq!(
            open(Method::Get, path, authority),
            Err(EncodeError::InvalidHead),
            "{path}"
        );
    }
    assert_eq!(open(Method::Connect, "", ""), Err(EncodeError::InvalidHead));
    assert_eq!(open(Method::Connect, "", "w:1"), Ok(1));
    assert_eq!(open(Method::Options, "*", "w"), Ok(3));
    assert_eq!(open(Method::Get, "", "w"), Ok(5));
}

#[test]
fn the_end_of_the_bytes() {
    let mut side = server();
    assert_eq!(side.conn.receive_eof(&side.buf), Ok(()));
    side.request(1, END, GET);
    assert_eq!(side.conn.receive_eof(&side.buf), Err(DecodeError::Truncated));
    let mut side = server();
    assert!(side.take(&[0, 0]).unwrap().is_none());
    assert_eq!(ServerConn::bytes_wanted(&side.buf), 9);
    assert_eq!(side.conn.receive_eof(&side.buf), Err(DecodeError::Truncated));
}

#[test]
fn an_extended_connect_is_an_upgrade() {
    let mut side = server_with(Config {
        enable_connect_protocol: true,
        ..Config::default()
    });
    let block = [
        &literal(":method", "CONNECT")[..],
        &literal(":protocol", "websocket"),
        &GET[1..],
    ]
    .concat();
    let Event::Head { head, stream, .. } = side.event(&frame_of(frame::HEADERS, WHOLE, 1, &block)) else {
        panic!()
    };
    assert!(head.upgrade && head.body == BodyLength::Tunnel);
    assert_eq!(
        head.head.fields.get(Known::Upgrade),
        Some(b"websocket".as_slice())
    );
    side.conn
        .encode_head(stream, &ResponseHead::new(200), BodyLength::Tunnel, &mut side.out)
        .unwrap();
    side.conn
        .encode_data(stream, &mut Bytes::from_static(b"hi"), false, &mut side.out)
        .unwrap();

    let mut side = client_with(&[0, 8, 0, 0, 0, 1]);
    let sent = side
        .conn
        .open(&head.head, Scheme::Http, BodyLength::Tunnel, &mut side.out)
        .unwrap();
    assert!(side.conn.is_open(sent));
    let mut other = server_with(Config {
        enable_connect_protocol: true,
        ..Config::default()
    });
    let bytes = side.out.copy_to_bytes(side.out.remaining());
    let Event::Head { head: again, .. } = other.event(&bytes) else {
        panic!()
    };
    assert_eq!(again.head, head.head);
}

#[test]
fn names_are_stable_and_different() {
    let mut names: Vec<_> = DecodeError::ALL.iter().map(|error| error.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), DecodeError::ALL.len());
    assert_eq!(Reason::ENHANCE_YOUR_CALM.name(), "enhance_your_calm");
    assert_eq!(Reason(99).name(), "unknown");
}

#[test]
fn an_idle_connection_is_small() {
    let mut side = server();
    for number in 0..500_u32 {
        let key = side.request(2 * number + 1, END, GET);
        side.conn
            .encode_head(key, &ResponseHead::new(204), BodyLength::Empty, &mut side.out)
            .unwrap();
        frames(&mut side.out);
    }
    let size = size_of_val(&side.conn) + side.conn.capacity();
    assert!(size < 8192, "{size}");
}
