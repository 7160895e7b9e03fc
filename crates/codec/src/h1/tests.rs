//! Tables: each rule with its error variant, each framing, each end of an exchange. Smuggling vectors, properties and
//! the comparison with hyper are in the folder `tests/` of the crate.

use bytes::{Buf, Bytes, BytesMut};

use super::*;
use crate::{
    Known, Method, Output, RequestHead, ResponseHead, Scheme, TargetForm, Version,
    fields::Fields,
    forward::{self, Upgrade},
};

fn bytes_of(out: &mut Output) -> Vec<u8> {
    out.copy_to_bytes(out.remaining()).to_vec()
}

fn text_of(out: &mut Output) -> String {
    String::from_utf8(bytes_of(out)).unwrap()
}

fn server() -> ServerConn {
    ServerConn::new(Limits::default(), true)
}

fn request(input: impl AsRef<[u8]>) -> Result<Request, DecodeError> {
    let mut buf = BytesMut::from(input.as_ref());
    server()
        .decode_head(&mut buf)
        .map(|request| request.expect("a complete head"))
}

/// Decodes a request and its body; the error of either.
fn exchange(input: impl AsRef<[u8]>) -> Result<(Request, Vec<u8>, Option<Fields>), DecodeError> {
    let mut conn = server();
    let mut buf = BytesMut::from(input.as_ref());
    let request = conn.decode_head(&mut buf)?.expect("a complete head");
    let (mut body, mut trailers) = (Vec::new(), None);
    loop {
        match conn.decode_body(&mut buf)? {
            BodyEvent::Data(piece) => body.extend_from_slice(&piece),
            BodyEvent::Trailers(fields) => trailers = Some(fields),
            BodyEvent::End => return Ok((request, body, trailers)),
            BodyEvent::Pending => return conn.decode_eof(&buf).map(|_| (request, body, trailers)),
        }
    }
}

/// A client connection that has sent a request of this method.
fn client_after(method: Method, fields: &[(&str, &str)]) -> ClientConn {
    let mut conn = ClientConn::new(Limits::default());
    let mut head = RequestHead::new(method, "/");
    head.authority = Bytes::from_static(b"a:80");
    for (name, value) in fields {
        head.fields.append(*name, value).unwrap();
    }
    conn.encode_head(&head, BodyLength::Empty, &mut Output::new())
        .unwrap();
    conn
}

fn response(input: impl AsRef<[u8]>) -> Result<Response, DecodeError> {
    let mut buf = BytesMut::from(input.as_ref());
    client_after(Method::Get, &[])
        .decode_head(&mut buf)
        .map(|response| response.expect("a complete head"))
}

fn chunked(body: &str) -> Result<(Request, Vec<u8>, Option<Fields>), DecodeError> {
    exchange(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
    ))
}

/// Every error variant a server can meet, with the smallest input that shows it.
#[expect(clippy::too_many_lines, reason = "a table")]
fn refused_requests() -> Vec<(DecodeError, Vec<u8>)> {
    use DecodeError as E;
    let host = "Host: a\r\n";
    let with = |fields: &str| format!("POST / HTTP/1.1\r\n{host}{fields}\r\n").into_bytes();
    let chunks = |body: &str| [with("Transfer-Encoding: chunked\r\n"), body.as_bytes().to_vec()].concat();
    let raw = |text: &str| text.as_bytes().to_vec();
    vec![
        (
            E::HeadTooLarge,
            with(&format!("X: {}\r\n", "v".repeat(61 * 1024))),
        ),
        (E::TooManyHeaders, with(&"X: v\r\n".repeat(100))),
        (
            E::TargetTooLong,
            format!("GET /{} HTTP/1.1\r\n{host}\r\n", "p".repeat(61 * 1024)).into_bytes(),
        ),
        (
            E::EmptyLines,
            raw("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ),
        (E::RequestLine, raw("GET  / HTTP/1.1\r\nHost: a\r\n\r\n")),
        (E::RequestLine, raw("GET /\r\n\r\n")),
        (E::RequestLine, raw("GET / HTTP/1.1 \r\nHost: a\r\n\r\n")),
        (E::Method, raw("G(T / HTTP/1.1\r\nHost: a\r\n\r\n")),
        (E::Method, raw(" GET / HTTP/1.1\r\nHost: a\r\n\r\n")),
        (E::Method, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".to_vec()),
        (E::Target, raw("GET /<script> HTTP/1.1\r\nHost: a\r\n\r\n")),
        (E::Target, raw("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n")),
        (E::Target, b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        (E::Target, b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        (E::Target, raw("GET * HTTP/1.1\r\nHost: a\r\n\r\n")),
        (E::Target, raw("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n")),
        (E::Target, raw("GET path HTTP/1.1\r\nHost: a\r\n\r\n")),
        (E::Target, raw("GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n")),
        (E::HostInvalid, raw("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n")),
        (E::HostInvalid, raw("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n")),
        (E::HostInvalid, raw("CONNECT :80 HTTP/1.1\r\nHost: a\r\n\r\n")),
        (E::Scheme, raw("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n")),
        (E::Version, raw("GET / HTTP/2.0\r\nHost: a\r\n\r\n")),
        (E::Version, raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
        (E::Version, raw("GET / HTTP/0.9\r\nHost: a\r\n\r\n")),
        (E::Version, raw("GET / http/1.1\r\nHost: a\r\n\r\n")),
        (E::LineEnding, raw("GET / HTTP/1.1\nHost: a\r\n\r\n")),
        (E::LineEnding, raw("GET / HTTP/1.1\r\nHost: a\n\r\n")),
        (E::LineEnding, raw("GET / HTTP/1.1\r\nHost: a\r\n\n")),
        (E::LineEnding, raw("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n")),
        (E::LineEnding, raw("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n")),
        (E::LineEnding, raw("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")),
        (E::LineEnding, raw("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n")),
        (E::HeaderName, with("X Y: b\r\n")),
        (E::HeaderName, with(": b\r\n")),
        (E::HeaderName, with("no colon\r\n")),
        (
            E::HeaderName,
            b"GET / HTTP/1.1\r\nHost: a\r\nX\x00: b\r\n\r\n".to_vec(),
        ),
        (E::WhitespaceBeforeColon, with("X : b\r\n")),
        (E::WhitespaceBeforeColon, with("Content-Length\t: 5\r\n")),
        (E::ObsFold, with("X: a\r\n b\r\n")),
        (E::ObsFold, raw("GET / HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n")),
        (
            E::HeaderValue,
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n".to_vec(),
        ),
        (
            E::HeaderValue,
            b"GET / HTTP/1.1\r\nHost: a\r\nX: \x1b[0m\r\n\r\n".to_vec(),
        ),
        (
            E::HeaderValue,
            b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n".to_vec(),
        ),
        (E::HostMissing, raw("GET / HTTP/1.1\r\n\r\n")),
        (E::HostMissing, raw("GET http://a/ HTTP/1.1\r\n\r\n")),
        (
            E::HostDuplicate,
            raw("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"),
        ),
        (E::HostInvalid, raw("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n")),
        (E::HostInvalid, raw("GET / HTTP/1.1\r\nHost: a b\r\n\r\n")),
        (E::HostInvalid, raw("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n")),
        (E::HostInvalid, raw("GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n")),
        (E::HostInvalid, raw("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n")),
        (E::HostInvalid, raw("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n")),
        (E::HostInvalid, raw("GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n")),
        (E::HostInvalid, raw("GET / HTTP/1.1\r\nHost: :80\r\n\r\n")),
        (E::HostInvalid, raw("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n")),
        (
            E::HostInvalid,
            raw("GET http://u:p@a/x HTTP/1.1\r\nHost: a\r\n\r\n"),
        ),
        (
            E::LengthAndTransferEncoding,
            with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ),
        (E::ContentLength, with("Content-Length: +5\r\n")),
        (E::ContentLength, with("Content-Length: -5\r\n")),
        (E::ContentLength, with("Content-Length: 5 5\r\n")),
        (E::ContentLength, with("Content-Length: 0x5\r\n")),
        (E::ContentLength, with("Content-Length:\r\n")),
        (E::ContentLength, with("Content-Length: 18446744073709551616\r\n")),
        (E::ContentLengthDuplicate, with("Content-Length: 5, 5\r\n")),
        (
            E::ContentLengthDuplicate,
            with("Content-Length: 5\r\nContent-Length: 5\r\n"),
        ),
        (
            E::ContentLengthDuplicate,
            with("Content-Length: 5\r\ncontent-length: 6\r\n"),
        ),
        (E::TransferEncoding, with("Transfer-Encoding: identity\r\n")),
        (E::TransferEncoding, with("Transfer-Encoding: chunked, gzip\r\n")),
        (
            E::TransferEncoding,
            with("Transfer-Encoding: chunked, chunked\r\n"),
        ),
        (
            E::TransferEncoding,
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ),
        (E::TransferEncoding, with("Transfer-Encoding:\r\n")),
        (
            E::TransferEncodingUnsupported,
            with("Transfer-Encoding: gzip, chunked\r\n"),
        ),
        (
            E::TransferEncodingInHttp10,
            raw("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ),
        (
            E::ConnectBody,
            raw("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\n\r\n"),
        ),
        (
            E::ConnectBody,
            raw("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ),
        (E::Connection, with("Connection: close; x\r\n")),
        (
            E::Connection,
            with(&format!("Connection: {}\r\n", "a,".repeat(64))),
        ),
        (E::ChunkSize, chunks("x\r\n")),
        (E::ChunkSize, chunks("\r\n")),
        (E::ChunkSize, chunks("-5\r\n")),
        (E::ChunkSize, chunks(" 5\r\n")),
        (E::ChunkSize, chunks("5 \r\nhello\r\n0\r\n\r\n")),
        (E::ChunkSize, chunks("0x5\r\nhello\r\n0\r\n\r\n")),
        (E::ChunkSizeOverflow, chunks("fffffffffffffffff\r\n")),
        (E::ChunkSizeOverflow, chunks("00000000000000005\r\n")),
        (E::ChunkLineEnding, chunks("5\nhello")),
        (E::ChunkLineEnding, chunks("5;x\nhello")),
        (E::ChunkLineEnding, chunks("5\rxhello")),
        (E::ChunkLineEnding, chunks("5\r\nhelloX")),
        (E::ChunkLineEnding, chunks("5\r\nhello\n0\r\n\r\n")),
        (E::ChunkLineEnding, chunks("5\r\nhello\rX")),
        (E::ChunkExtension, chunks("5;a=\u{1}\r\nhello")),
        (
            E::ChunkExtensionTooLong,
            chunks(&format!("5;{}\r\nhello", "x".repeat(16 * 1024))),
        ),
        (
            E::ChunkExtensionTooLong,
            chunks(&"1;aaaaaaaaa\r\nx\r\n".repeat(1700)),
        ),
        (
            E::TrailersTooLarge,
            chunks(&format!("0\r\nX: {}\r\n\r\n", "v".repeat(17 * 1024))),
        ),
        (
            E::TrailersTooLarge,
            chunks(&format!("0\r\n{}\r\n", "X: v\r\n".repeat(65))),
        ),
        (E::TrailerForbidden, chunks("0\r\nContent-Length: 5\r\n\r\n")),
        (
            E::TrailerForbidden,
            chunks("0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ),
        (E::TrailerForbidden, chunks("0\r\nHost: b\r\n\r\n")),
        (E::LineEnding, chunks("0\r\nX: v\n\r\n")),
        (E::LineEnding, chunks("0\r\n\n")),
        (E::ObsFold, chunks("0\r\nX: v\r\n w\r\n\r\n")),
        (E::HeaderName, chunks("0\r\nno colon\r\n\r\n")),
        (E::Truncated, with("Content-Length: 5\r\n")),
        (E::Truncated, chunks("5\r\nhel")),
        (E::Truncated, chunks("5\r\nhello\r\n0\r\n")),
        (E::Truncated, chunks("0\r\nX: v\r\n")),
    ]
}

fn refused_responses() -> Vec<(DecodeError, Vec<u8>)> {
    use DecodeError as E;
    let with = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes();
    let raw = |text: &str| text.as_bytes().to_vec();
    vec![
        (E::StatusLine, raw("HTTP/1.1 20 OK\r\n\r\n")),
        (E::StatusLine, raw("HTTP/1.1 2000 OK\r\n\r\n")),
        (E::StatusLine, raw("HTTP/1.1 099 Low\r\n\r\n")),
        (E::StatusLine, raw("HTTP/1.1  200 OK\r\n\r\n")),
        (E::StatusLine, raw("\r\nHTTP/1.1 200 OK\r\n\r\n")),
        (E::StatusLine, raw("ICY 200 OK\r\n\r\n")),
        (E::StatusLine, b"HTTP/1.1 200 O\x00K\r\n\r\n".to_vec()),
        (E::Version, raw("HTTP/2.0 200 OK\r\n\r\n")),
        (E::Version, raw("HTTP/1.2 200 OK\r\n\r\n")),
        (E::LineEnding, raw("HTTP/1.1 200 OK\nX: y\r\n\r\n")),
        (E::LineEnding, with("X: y\n")),
        (E::HeaderName, with("no colon\r\n")),
        (E::WhitespaceBeforeColon, with("Content-Length : 5\r\n")),
        (E::ObsFold, with("X: a\r\n b\r\n")),
        (E::HeaderValue, b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n".to_vec()),
        (
            E::HeadTooLarge,
            with(&format!("X: {}\r\n", "v".repeat(61 * 1024))),
        ),
        (
            E::HeadTooLarge,
            format!("HTTP/1.1 200 {}\r\n\r\n", "v".repeat(61 * 1024)).into_bytes(),
        ),
        (E::TooManyHeaders, with(&"X: v\r\n".repeat(101))),
        (
            E::LengthAndTransferEncoding,
            with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ),
        (E::ContentLength, with("Content-Length: 5a\r\n")),
        (
            E::ContentLengthDuplicate,
            with("Content-Length: 5\r\nContent-Length: 5\r\n"),
        ),
        (E::TransferEncoding, with("Transfer-Encoding: gzip\r\n")),
        (
            E::TransferEncodingUnsupported,
            with("Transfer-Encoding: gzip, chunked\r\n"),
        ),
        (
            E::TransferEncodingInHttp10,
            raw("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ),
        (E::Connection, with("Connection: \"close\"\r\n")),
        (
            E::UnexpectedUpgrade,
            raw("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
        ),
    ]
}

#[test]
fn each_rule_for_requests_refuses_with_its_own_error() {
    for (error, input) in refused_requests() {
        let shown = String::from_utf8_lossy(&input[..input.len().min(200)]).into_owned();
        assert_eq!(exchange(&input).map(|_| ()).unwrap_err(), error, "{shown:?}");
        assert!(
            (400..=505).contains(&error.status()) && error.must_close(),
            "{error}"
        );
    }
}

#[test]
fn each_rule_for_responses_refuses_with_its_own_error() {
    for (error, input) in refused_responses() {
        let shown = String::from_utf8_lossy(&input[..input.len().min(200)]).into_owned();
        assert_eq!(response(&input).map(|_| ()).unwrap_err(), error, "{shown:?}");
    }
}

#[test]
fn the_remaining_errors_and_the_special_statuses() {
    let mut conn = ServerConn::new(Limits::default(), false);
    let mut buf = BytesMut::from("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(
        conn.decode_head(&mut buf).unwrap_err(),
        DecodeError::Http10Refused
    );
    assert_eq!(conn.decode_head(&mut buf).unwrap_err(), DecodeError::OutOfStep);
    let statuses = [
        (DecodeError::HeadTooLarge, 431),
        (DecodeError::TooManyHeaders, 431),
        (DecodeError::TrailersTooLarge, 431),
        (DecodeError::TargetTooLong, 414),
        (DecodeError::Version, 505),
        (DecodeError::Http10Refused, 426),
        (DecodeError::TransferEncodingUnsupported, 501),
        (DecodeError::ContentLength, 400),
    ];
    for (error, status) in statuses {
        assert_eq!(error.status(), status);
    }
    assert!(!DecodeError::Truncated.is_answerable() && DecodeError::Target.is_answerable());

    let mut idle = ClientConn::new(Limits::default());
    assert_eq!(
        idle.decode_head(&mut BytesMut::from("HTTP/1.1 408 x\r\n\r\n"))
            .unwrap_err(),
        DecodeError::UnexpectedData
    );

    let mut conn = client_after(Method::Get, &[]);
    let mut buf = BytesMut::from("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(17).as_str());
    for _ in 0..16 {
        assert!(
            conn.decode_head(&mut buf)
                .unwrap()
                .unwrap()
                .head
                .is_informational()
        );
    }
    assert_eq!(
        conn.decode_head(&mut buf).unwrap_err(),
        DecodeError::TooManyInformational
    );
}

#[test]
fn target_forms() {
    let head = |line: &str| {
        request(format!("{line} HTTP/1.1\r\nHost: b:1\r\n\r\n"))
            .unwrap()
            .head
    };
    let cases = [
        ("GET /", TargetForm::Origin, None, "b:1", "/"),
        ("GET /a?b=c/../d", TargetForm::Origin, None, "b:1", "/a?b=c/../d"),
        ("GET //x/y", TargetForm::Origin, None, "b:1", "//x/y"),
        (
            "GET /{\"a\"|[b]}^\\",
            TargetForm::Origin,
            None,
            "b:1",
            "/{\"a\"|[b]}^\\",
        ),
        (
            "GET http://c/p?q",
            TargetForm::Absolute,
            Some(Scheme::Http),
            "c",
            "/p?q",
        ),
        (
            "GET HTTPS://c:8/",
            TargetForm::Absolute,
            Some(Scheme::Https),
            "c:8",
            "/",
        ),
        ("GET http://c", TargetForm::Absolute, Some(Scheme::Http), "c", "/"),
        ("OPTIONS *", TargetForm::Asterisk, None, "b:1", "*"),
        (
            "OPTIONS http://c",
            TargetForm::Asterisk,
            Some(Scheme::Http),
            "c",
            "*",
        ),
        ("OPTIONS /o", TargetForm::Origin, None, "b:1", "/o"),
        ("CONNECT c:443", TargetForm::Authority, None, "c:443", ""),
        ("CONNECT [::1]:443", TargetForm::Authority, None, "[::1]:443", ""),
        ("PURGE /x", TargetForm::Origin, None, "b:1", "/x"),
    ];
    for (line, form, scheme, authority, path) in cases {
        let head = head(line);
        assert_eq!((head.form, head.scheme), (form, scheme), "{line}");
        assert_eq!(
            (head.authority_str(), head.path_and_query_str()),
            (authority, path),
            "{line}"
        );
        // RFC 9112 §3.2.2: what is forwarded says the same everywhere.
        assert_eq!(head.fields.get_str(Known::Host), Some(authority), "{line}");
    }
    let head = head("PURGE http://[2001:db8::1]:8080/p?q=1");
    assert_eq!(head.method, Method::from_bytes(b"PURGE").unwrap());
    assert_eq!(
        (head.host(), head.port()),
        (b"2001:db8::1".as_slice(), Some(8080))
    );
    assert_eq!(
        (head.path(), head.query()),
        (b"/p".as_slice(), Some(b"q=1".as_slice()))
    );
}

#[test]
fn http10_needs_no_host_and_closes_unless_asked() {
    for (input, persists) in [
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", false),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: foo\r\nConnection: x , close\r\n\r\n",
            false,
        ),
    ] {
        let mut conn = server();
        let request = conn.decode_head(&mut BytesMut::from(input)).unwrap().unwrap();
        assert_eq!(conn.persists(), persists, "{input}");
        let mut out = Output::new();
        conn.encode_head(&ResponseHead::new(204), BodyLength::Empty, &mut out)
            .unwrap();
        let text = text_of(&mut out);
        let old = request.head.version == Version::Http10;
        assert!(
            text.starts_with(if old {
                "HTTP/1.0 204 No Content\r\n"
            } else {
                "HTTP/1.1 204 "
            }),
            "{text}"
        );
        assert_eq!(text.contains("connection: close"), !persists, "{text}");
        assert_eq!(text.contains("connection: keep-alive"), persists && old, "{text}");
        assert_eq!(
            conn.next_exchange(),
            if persists {
                ServerNext::Request
            } else {
                ServerNext::Close
            }
        );
    }
}

#[test]
fn chunked_bodies_with_extensions_and_trailers() {
    let (request, body, trailers) =
        chunked("5;name=\"v;x\"\r\nhello\r\n006\r\n world\r\n0;last\r\nX-Sum: 1\r\nY:\r\n\r\n").unwrap();
    assert_eq!(request.body, BodyLength::Unknown);
    assert_eq!(body, b"hello world");
    let trailers = trailers.unwrap();
    assert_eq!(trailers.get("x-sum"), Some(b"1".as_slice()));
    assert_eq!(trailers.get("y"), Some(b"".as_slice()));
    assert_eq!(chunked("A\r\n0123456789\r\n0\r\n\r\n").unwrap().1, b"0123456789");
    assert_eq!(chunked("0\r\n\r\n").unwrap().1, b"");
    assert!(
        matches!(chunked("ffffffffffffffff\r\nx"), Err(DecodeError::Truncated)),
        "2^64-1 is a size"
    );
}

#[test]
fn body_pieces_are_slices_of_the_read_buffer() {
    let mut conn = server();
    let mut buf = BytesMut::from("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n");
    buf.extend_from_slice(&[b'x'; 4000]);
    let head_len = buf.len() - 4000;
    let start = buf.as_ptr().addr() + head_len;
    conn.decode_head(&mut buf).unwrap().unwrap();
    let BodyEvent::Data(piece) = conn.decode_body(&mut buf).unwrap() else {
        panic!("data expected")
    };
    assert_eq!((piece.as_ptr().addr(), piece.len()), (start, 4000));
    assert_eq!(conn.body_remaining(), Some(0));
}

#[test]
fn pipelined_requests_wait_for_their_turn() {
    let mut conn = server();
    let mut buf = BytesMut::from(
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HT",
    );
    let mut out = Output::new();
    let first = conn.decode_head(&mut buf).unwrap().unwrap();
    assert_eq!(first.head.path(), b"/1");
    assert!(
        conn.decode_head(&mut buf).unwrap().is_none(),
        "the response is due first"
    );
    assert_eq!(conn.next_exchange(), ServerNext::Busy);
    conn.encode_head(&ResponseHead::new(200), BodyLength::Empty, &mut out)
        .unwrap();
    assert_eq!(conn.next_exchange(), ServerNext::Drain);
    while conn.decode_body(&mut buf).unwrap() != BodyEvent::End {}
    assert_eq!(conn.next_exchange(), ServerNext::Request);
    assert_eq!(conn.decode_head(&mut buf).unwrap().unwrap().head.path(), b"/2");
    assert_eq!(conn.decode_body(&mut buf).unwrap(), BodyEvent::End);
    conn.encode_head(&ResponseHead::new(200), BodyLength::Empty, &mut out)
        .unwrap();
    assert_eq!(conn.next_exchange(), ServerNext::Request);
    assert!(conn.decode_head(&mut buf).unwrap().is_none());
    assert!(!conn.is_idle());
    assert_eq!(conn.decode_eof(&buf).unwrap_err(), DecodeError::Truncated);
}

#[test]
fn expect_continue() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n";
    let mut out = Output::new();
    let mut conn = server();
    let mut buf = BytesMut::from(head);
    assert!(conn.decode_head(&mut buf).unwrap().unwrap().expect_continue);
    conn.encode_informational(&ResponseHead::new(100), &mut out)
        .unwrap();
    assert_eq!(text_of(&mut out), "HTTP/1.1 100 Continue\r\n\r\n");
    conn.encode_head(&ResponseHead::new(200), BodyLength::Empty, &mut out)
        .unwrap();
    assert_eq!(
        conn.next_exchange(),
        ServerNext::Drain,
        "told to continue, so the body comes"
    );

    let mut conn = server();
    conn.decode_head(&mut BytesMut::from(head)).unwrap();
    conn.encode_head(&ResponseHead::new(413), BodyLength::Empty, &mut out)
        .unwrap();
    assert_eq!(
        conn.next_exchange(),
        ServerNext::Close,
        "nobody knows whether the body comes"
    );

    let old = request("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").unwrap();
    assert!(!old.expect_continue);
    assert!(
        !request("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n")
            .unwrap()
            .expect_continue
    );
    assert!(
        !request(head.replace("100-Continue", "rain"))
            .unwrap()
            .expect_continue
    );
}

#[test]
fn interim_responses_do_not_reach_old_clients() {
    let mut conn = server();
    let mut out = Output::new();
    conn.decode_head(&mut BytesMut::from("GET / HTTP/1.0\r\n\r\n"))
        .unwrap();
    conn.encode_informational(&ResponseHead::new(103), &mut out)
        .unwrap();
    assert!(out.is_empty());
    assert_eq!(
        conn.encode_informational(&ResponseHead::new(101), &mut out),
        Err(EncodeError::InvalidHead)
    );
    assert_eq!(
        conn.encode_head(&ResponseHead::new(100), BodyLength::Empty, &mut out),
        Err(EncodeError::InvalidHead)
    );
}

#[test]
fn response_framing_by_request_and_status() {
    let upstream_length = |length: &str| {
        let mut head = ResponseHead::new(200);
        head.fields.append("Content-Length", length).unwrap();
        head
    };
    let status = |status| ResponseHead {
        status,
        ..upstream_length("7")
    };
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    let cases = [
        (
            get,
            status(200),
            BodyLength::Exact(7),
            "Content-Length: 7\r\n\r\nseven77",
        ),
        (
            get,
            status(200),
            BodyLength::Unknown,
            "transfer-encoding: chunked\r\n\r\n7\r\nseven77\r\n0\r\n\r\n",
        ),
        (get, status(304), BodyLength::Empty, "Content-Length: 7\r\n\r\n"),
        (get, status(204), BodyLength::Empty, "\r\n\r\n"),
        (get, status(200), BodyLength::Empty, "content-length: 0\r\n\r\n"),
        (head, status(200), BodyLength::Empty, "Content-Length: 7\r\n\r\n"),
        (
            head,
            status(200),
            BodyLength::Exact(9),
            "content-length: 9\r\n\r\n",
        ),
        (
            head,
            ResponseHead::new(200),
            BodyLength::Unknown,
            "200 OK\r\n\r\n",
        ),
        (
            "GET / HTTP/1.0\r\n\r\n",
            status(200),
            BodyLength::Unknown,
            "connection: close\r\n\r\nseven77",
        ),
    ];
    for (request, head, length, end) in cases {
        let mut conn = server();
        let mut out = Output::new();
        conn.decode_head(&mut BytesMut::from(request)).unwrap();
        conn.encode_head(&head, length, &mut out).unwrap();
        if length != BodyLength::Empty {
            conn.encode_data(Bytes::from_static(b"seven77"), &mut out)
                .unwrap();
        }
        conn.encode_end(None, &mut out).unwrap();
        assert!(conn.response_finished());
        let text = text_of(&mut out);
        assert!(text.ends_with(end), "{request:?} {length:?}: {text:?}");
        assert!(
            text.to_ascii_lowercase().matches("content-length").count() <= 1,
            "{text}"
        );
        assert!(!(text.contains("chunked") && text.contains("ontent-")), "{text}");
    }
}

#[test]
fn a_body_must_be_as_long_as_announced() {
    let mut out = Output::new();
    let mut conn = server();
    conn.decode_head(&mut BytesMut::from("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
        .unwrap();
    assert_eq!(
        conn.encode_data("x".into(), &mut out),
        Err(EncodeError::OutOfStep)
    );
    conn.encode_head(&ResponseHead::new(200), BodyLength::Exact(3), &mut out)
        .unwrap();
    assert_eq!(
        conn.encode_data("four".into(), &mut out),
        Err(EncodeError::BodyTooLong)
    );
    conn.encode_data("no".into(), &mut out).unwrap();
    assert_eq!(conn.encode_end(None, &mut out), Err(EncodeError::BodyTooShort));
    assert_eq!(
        conn.encode_head(&ResponseHead::new(200), BodyLength::Empty, &mut out),
        Err(EncodeError::OutOfStep)
    );
    assert_eq!(conn.next_exchange(), ServerNext::Busy);
}

#[test]
fn trailers_go_out_with_chunks_only_and_never_frame() {
    let mut trailers = Fields::new();
    for (name, value) in [
        ("grpc-status", "0"),
        ("Content-Length", "5"),
        ("Connection", "x"),
        ("Host", "h"),
    ] {
        trailers.append(name, value).unwrap();
    }
    for (length, wrote) in [(BodyLength::Unknown, true), (BodyLength::Exact(0), false)] {
        let mut out = Output::new();
        let mut conn = server();
        conn.decode_head(&mut BytesMut::from("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
            .unwrap();
        conn.encode_head(&ResponseHead::new(200), length, &mut out)
            .unwrap();
        assert_eq!(conn.encode_end(Some(&trailers), &mut out), Ok(wrote));
        assert_eq!(conn.encode_end(Some(&trailers), &mut out), Ok(false));
        let text = text_of(&mut out);
        assert_eq!(
            text.ends_with("\r\n\r\n0\r\ngrpc-status: 0\r\n\r\n"),
            wrote,
            "{text}"
        );
    }
}

#[test]
fn requests_are_written_in_origin_form_with_one_host() {
    let write = |head: &RequestHead, length| {
        let mut out = Output::new();
        ClientConn::new(Limits::default())
            .encode_head(head, length, &mut out)
            .map(|()| text_of(&mut out))
    };
    let head = request("GET http://c/p HTTP/1.1\r\nX-A: 1\r\nHost: b\r\nContent-Length: 0\r\n\r\n")
        .unwrap()
        .head;
    assert_eq!(
        write(&head, BodyLength::Empty).unwrap(),
        "GET /p HTTP/1.1\r\nX-A: 1\r\nHost: c\r\n\r\n"
    );
    let mut head = RequestHead::new(Method::Post, "/x?y");
    head.authority = Bytes::from_static(b"h2.example");
    assert_eq!(
        write(&head, BodyLength::Empty).unwrap(),
        "POST /x?y HTTP/1.1\r\nhost: h2.example\r\ncontent-length: 0\r\n\r\n"
    );
    assert!(
        write(&head, BodyLength::Unknown)
            .unwrap()
            .ends_with("\r\ntransfer-encoding: chunked\r\n\r\n")
    );
    head.fields.append("te", "trailers").unwrap();
    assert!(
        write(&head, BodyLength::Exact(12))
            .unwrap()
            .ends_with("content-length: 12\r\nconnection: te\r\n\r\n")
    );
    head.fields.append("host", "one").unwrap();
    head.fields.append("host", "h2.example").unwrap();
    assert_eq!(
        write(&head, BodyLength::Empty)
            .unwrap()
            .matches("host: h2.example")
            .count(),
        1
    );
    assert!(!write(&head, BodyLength::Empty).unwrap().contains("one"));
    let options = request("OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n").unwrap().head;
    assert_eq!(
        write(&options, BodyLength::Empty).unwrap(),
        "OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n"
    );
    let connect = request("CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\n\r\n").unwrap().head;
    assert_eq!(
        write(&connect, BodyLength::Empty).unwrap(),
        "CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\n\r\n"
    );
    let mut out = Output::new();
    let mut to_proxy = ClientConn::new_to_proxy(Limits::default());
    let head = request("GET /p HTTP/1.1\r\nHost: b\r\n\r\n").unwrap().head;
    to_proxy.encode_head(&head, BodyLength::Empty, &mut out).unwrap();
    assert_eq!(text_of(&mut out), "GET http://b/p HTTP/1.1\r\nHost: b\r\n\r\n");
}

#[test]
fn heads_that_would_inject_are_not_written() {
    let mut out = Output::new();
    let mut refuse = |change: &dyn Fn(&mut RequestHead)| {
        let mut head = RequestHead::new(Method::Get, "/");
        head.authority = Bytes::from_static(b"a");
        change(&mut head);
        let mut conn = ClientConn::new(Limits::default());
        assert_eq!(
            conn.encode_head(&head, BodyLength::Empty, &mut out),
            Err(EncodeError::InvalidHead),
            "{head:?}"
        );
        assert!(out.is_empty());
    };
    for path in ["/a b", "/a\r\nX: y", "x", "*", "/\u{e4}", "/\0", "http://c/"] {
        refuse(&|head| head.path_and_query = Bytes::from_static(path.as_bytes()));
    }
    for authority in ["a b", "a\r\nX: y", "a/b", "u@a"] {
        refuse(&|head| head.authority = Bytes::from_static(authority.as_bytes()));
    }
    refuse(&|head| head.form = TargetForm::Authority);
    let mut conn = server();
    conn.decode_head(&mut BytesMut::from("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
        .unwrap();
    for (status, reason) in [(200, "a\r\nX: y"), (99, ""), (1000, ""), (200, "\0")] {
        let mut head = ResponseHead::new(status);
        head.reason = Bytes::from_static(reason.as_bytes());
        assert_eq!(
            conn.encode_head(&head, BodyLength::Empty, &mut out),
            Err(EncodeError::InvalidHead)
        );
        assert!(out.is_empty());
    }
    assert_eq!(Method::from_bytes(b"GET /x"), None);
    assert_eq!(Method::from_bytes(b""), None);
}

#[test]
fn upgrades_carry_raw_bytes_both_ways() {
    let head = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (mut server, mut out) = (server(), Output::new());
    let mut from_client = BytesMut::from(format!("{head}early").as_str());
    let mut request = server.decode_head(&mut from_client).unwrap().unwrap();
    assert!(request.upgrade);
    forward::strip_request(&mut request.head.fields, Upgrade::Keep).unwrap();
    let mut client = ClientConn::new(Limits::default());
    client.encode_head(&request.head, request.body, &mut out).unwrap();
    assert_eq!(
        text_of(&mut out),
        "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    );
    let switching =
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\nhello";
    let mut from_server = BytesMut::from(switching);
    let mut response = client.decode_head(&mut from_server).unwrap().unwrap();
    assert_eq!(
        (response.body, response.head.is_informational()),
        (BodyLength::Tunnel, false)
    );
    forward::strip_response(&mut response.head.fields, Upgrade::Keep).unwrap();
    server
        .encode_head(&response.head, response.body, &mut out)
        .unwrap();
    assert_eq!(
        client.decode_body(&mut from_server).unwrap(),
        BodyEvent::Data("hello".into())
    );
    server.encode_data("hello".into(), &mut out).unwrap();
    assert_eq!(
        text_of(&mut out),
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhello"
    );
    assert_eq!(
        server.decode_body(&mut from_client).unwrap(),
        BodyEvent::Data("early".into())
    );
    client.encode_data("early".into(), &mut out).unwrap();
    assert_eq!(text_of(&mut out), "early");
    assert!(server.is_tunnel() && client.is_tunnel());
    assert_eq!(server.next_exchange(), ServerNext::Busy);
    assert_eq!(server.decode_eof(&from_client), Ok(Eof::EndOfBody));
    assert_eq!(server.next_exchange(), ServerNext::Busy);
    server.encode_end(None, &mut out).unwrap();
    assert_eq!(server.next_exchange(), ServerNext::Close);
}

#[test]
fn tunnels_start_only_where_asked_for() {
    let mut out = Output::new();
    let tunnel = |input: &str, status: u16, length| {
        let mut conn = server();
        conn.decode_head(&mut BytesMut::from(input)).unwrap();
        conn.encode_head(&ResponseHead::new(status), length, &mut Output::new())
            .map(|()| conn.is_tunnel())
    };
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let h2c = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n";
    let unnamed = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
    let body = "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 5\r\n\r\n";
    let connect = "CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\n\r\n";
    for refused in [get, h2c, unnamed, body, connect] {
        assert_eq!(
            tunnel(refused, 101, BodyLength::Tunnel),
            Err(EncodeError::TunnelRefused),
            "{refused}"
        );
    }
    assert_eq!(
        tunnel(get, 200, BodyLength::Tunnel),
        Err(EncodeError::TunnelRefused)
    );
    assert_eq!(tunnel(connect, 200, BodyLength::Empty), Ok(true));
    assert_eq!(tunnel(connect, 407, BodyLength::Empty), Ok(false));
    assert_eq!(
        tunnel(connect, 407, BodyLength::Tunnel),
        Err(EncodeError::TunnelRefused)
    );

    let mut client = client_after(Method::Get, &[("upgrade", "h2c"), ("http2-settings", "AAMAAABk")]);
    let answer = "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    assert_eq!(
        client.decode_head(&mut BytesMut::from(answer)).unwrap_err(),
        DecodeError::UnexpectedUpgrade
    );
    let mut client = ClientConn::new(Limits::default());
    let mut head = RequestHead::new(Method::Get, "/");
    head.fields.append("Upgrade", "h2c").unwrap();
    head.fields.append("HTTP2-Settings", "AAMAAABk").unwrap();
    client.encode_head(&head, BodyLength::Empty, &mut out).unwrap();
    assert_eq!(
        text_of(&mut out),
        "GET / HTTP/1.1\r\nhost: \r\n\r\n",
        "h2c is never offered"
    );
}

#[test]
fn response_bodies_by_status_and_method() {
    let length = |method: Method, input: &str| {
        client_after(method, &[])
            .decode_head(&mut BytesMut::from(input))
            .map(|response| response.unwrap().body)
    };
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(length(Method::Get, ok), Ok(BodyLength::Exact(5)));
    assert_eq!(length(Method::Head, ok), Ok(BodyLength::Empty));
    assert_eq!(length(Method::Connect, ok), Ok(BodyLength::Tunnel));
    assert_eq!(
        length(Method::Get, &ok.replace("200", "304")),
        Ok(BodyLength::Empty)
    );
    assert_eq!(
        length(Method::Get, &ok.replace("200", "204")),
        Ok(BodyLength::Empty)
    );
    assert_eq!(
        length(Method::Get, &ok.replace("200", "103")),
        Ok(BodyLength::Empty)
    );
    assert_eq!(
        length(Method::Get, "HTTP/1.1 200\r\n\r\n"),
        Ok(BodyLength::Unknown)
    );
    assert_eq!(
        length(Method::Get, "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        Ok(BodyLength::Empty)
    );
    let odd = response(b"HTTP/1.1 299 Gut \xfc\r\nServer:x  \r\n\r\n")
        .unwrap()
        .head;
    assert_eq!((odd.status, &odd.reason[..]), (299, b"Gut \xfc".as_slice()));
    assert_eq!(odd.fields.get("server"), Some(b"x".as_slice()));
}

#[test]
fn client_reuse() {
    use ClientNext::{Busy, Close, Reusable};
    let after = |method: Method, input: &str, eof: bool| {
        let mut conn = client_after(method, &[]);
        let mut buf = BytesMut::from(input);
        loop {
            let response = conn.decode_head(&mut buf).unwrap().unwrap();
            if !response.head.is_informational() {
                break;
            }
        }
        loop {
            match conn.decode_body(&mut buf).unwrap() {
                BodyEvent::Pending if eof => assert_eq!(conn.decode_eof(&buf), Ok(Eof::EndOfBody)),
                BodyEvent::End | BodyEvent::Pending => break,
                _ => {}
            }
        }
        conn.next_exchange(&buf)
    };
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(after(Method::Get, ok, false), Reusable);
    assert_eq!(
        after(Method::Get, &format!("HTTP/1.1 100 Continue\r\n\r\n{ok}"), false),
        Reusable
    );
    assert_eq!(after(Method::Get, &ok.replace("hi", "h"), false), Busy);
    assert_eq!(
        after(Method::Get, &format!("{ok}!"), false),
        Close,
        "bytes of no request"
    );
    assert_eq!(
        after(
            Method::Get,
            &ok.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
            false
        ),
        Close
    );
    assert_eq!(after(Method::Get, &ok.replace("1.1", "1.0"), false), Close);
    assert_eq!(
        after(
            Method::Get,
            &ok.replace("1.1 200 OK", "1.0 200 OK\r\nConnection: keep-alive"),
            false
        ),
        Reusable
    );
    assert_eq!(
        after(Method::Get, "HTTP/1.1 200 OK\r\n\r\nuntil the end", true),
        Close
    );
    assert_eq!(
        after(
            Method::Head,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            false
        ),
        Reusable
    );

    let mut conn = client_after(Method::Get, &[]);
    assert_eq!(conn.decode_eof(&BytesMut::new()), Err(DecodeError::Truncated));
    assert_eq!(conn.next_exchange(&BytesMut::new()), Close);
    let mut conn = ClientConn::new(Limits::default());
    assert_eq!(conn.decode_eof(&BytesMut::new()), Ok(Eof::Clean));
}

#[test]
fn an_early_answer_leaves_the_connection_unusable_until_the_request_is_sent() {
    let mut conn = ClientConn::new(Limits::default());
    let mut out = Output::new();
    conn.encode_head(
        &RequestHead::new(Method::Post, "/"),
        BodyLength::Exact(5),
        &mut out,
    )
    .unwrap();
    let mut buf = BytesMut::from("HTTP/1.1 413 x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(
        conn.decode_head(&mut buf).unwrap().unwrap().body,
        BodyLength::Empty
    );
    assert!(conn.response_finished() && !conn.request_finished());
    assert_eq!(conn.next_exchange(&buf), ClientNext::Busy);
    conn.encode_data("hello".into(), &mut out).unwrap();
    conn.encode_end(None, &mut out).unwrap();
    assert_eq!(conn.next_exchange(&buf), ClientNext::Reusable);
}

#[test]
fn draining_says_close_on_the_next_head() {
    let mut conn = server();
    let mut out = Output::new();
    conn.decode_head(&mut BytesMut::from("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
        .unwrap();
    conn.close_after();
    conn.encode_head(&ResponseHead::new(200), BodyLength::Empty, &mut out)
        .unwrap();
    assert!(text_of(&mut out).contains("connection: close"));
    assert_eq!(conn.next_exchange(), ServerNext::Close);
    let mut client = ClientConn::new(Limits::default());
    client.close_after();
    client
        .encode_head(&RequestHead::new(Method::Get, "/"), BodyLength::Empty, &mut out)
        .unwrap();
    assert!(text_of(&mut out).contains("connection: close"));
}

#[test]
fn an_error_answer_works_in_every_state_before_a_response() {
    for (input, after_head) in [
        ("", false),
        ("GET / HT", false),
        ("GET / HTTP/9.9\r\n\r\n", false),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzzz",
            true,
        ),
    ] {
        let mut conn = server();
        let mut buf = BytesMut::from(input);
        let _error = conn.decode_head(&mut buf).map(drop);
        if after_head {
            assert_eq!(conn.decode_body(&mut buf), Err(DecodeError::ChunkSize));
        }
        let mut out = Output::new();
        conn.encode_head(&ResponseHead::new(400), BodyLength::Exact(3), &mut out)
            .unwrap();
        conn.encode_data("bad".into(), &mut out).unwrap();
        conn.encode_end(None, &mut out).unwrap();
        assert_eq!(
            text_of(&mut out),
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbad"
        );
        assert_eq!(conn.next_exchange(), ServerNext::Close);
    }
}

#[test]
fn the_end_of_input_between_messages_is_clean() {
    let mut conn = server();
    assert_eq!(conn.decode_eof(&BytesMut::new()), Ok(Eof::Clean));
    assert_eq!(conn.next_exchange(), ServerNext::Close);
    let mut conn = server();
    assert_eq!(conn.decode_eof(&BytesMut::from("\r\n")), Ok(Eof::Clean));
    // A client that closes its half after the request still gets its answer.
    let mut conn = server();
    let mut buf = BytesMut::from("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    conn.decode_head(&mut buf).unwrap();
    assert_eq!(conn.decode_eof(&buf), Ok(Eof::Clean));
    conn.encode_head(&ResponseHead::new(200), BodyLength::Empty, &mut Output::new())
        .unwrap();
    assert_eq!(conn.next_exchange(), ServerNext::Close);
}

#[test]
fn untouched_field_lines_go_out_byte_for_byte_in_one_piece() {
    let lines = "hOsT: a\r\nX-Case:   spaced\r\nAccept: */*\r\nX-Dup: 1\r\nx-dup: 2\r\nTail:x \r\n";
    let mut head = request(format!("GET / HTTP/1.1\r\n{lines}\r\n")).unwrap().head;
    let mut out = Vec::new();
    head.fields.write_lines(&mut out, crate::KnownSet::EMPTY);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        lines.replace("Tail:x ", "Tail: x")
    );
    head.fields.set("x-dup", "3").unwrap();
    head.fields.remove("accept");
    head.fields.append("Added", "now").unwrap();
    let mut out = Vec::new();
    head.fields.write_lines(&mut out, crate::KnownSet::EMPTY);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "hOsT: a\r\nX-Case:   spaced\r\nX-Dup: 3\r\nTail: x\r\nAdded: now\r\n"
    );
}

#[test]
fn limits_can_be_raised_and_lowered() {
    let limits = Limits {
        max_headers: 400,
        max_head_bytes: 200_000,
        max_target_bytes: 10,
        ..Limits::default()
    };
    let many = format!("GET /short HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: v\r\n".repeat(399));
    let mut conn = ServerConn::new(limits, false);
    let head = conn
        .decode_head(&mut BytesMut::from(many.as_str()))
        .unwrap()
        .unwrap()
        .head;
    assert_eq!((head.fields.len(), head.fields.count("x")), (400, 399));
    let mut conn = ServerConn::new(limits, false);
    let error = conn
        .decode_head(&mut BytesMut::from(
            many.replace("/short", "/not-so-short").as_str(),
        ))
        .unwrap_err();
    assert_eq!(error, DecodeError::TargetTooLong);
    let mut conn = ServerConn::new(limits, false);
    let over = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: v\r\n".repeat(400));
    assert_eq!(
        conn.decode_head(&mut BytesMut::from(over.as_str())).unwrap_err(),
        DecodeError::TooManyHeaders
    );
}

#[test]
fn hop_by_hop_fields_end_here() {
    let mut fields = Fields::new();
    for (name, value) in [
        ("Connection", "close, X-Hop , keep-alive"),
        ("connection", "x-other"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("X-Hop", "1"),
        ("x-HOP", "2"),
        ("X-Other", "3"),
        ("TE", "gzip, Trailers"),
        ("Upgrade", "websocket"),
        ("Stays", "4"),
    ] {
        fields.append(name, value).unwrap();
    }
    let mut kept = fields.clone();
    forward::strip_request(&mut fields, Upgrade::Drop).unwrap();
    assert_eq!(format!("{fields:?}"), r#"{"TE": "trailers", "Stays": "4"}"#);
    forward::strip_request(&mut kept, Upgrade::Keep).unwrap();
    assert!(kept.contains(Known::Upgrade));
    forward::strip_response(&mut kept, Upgrade::Drop).unwrap();
    assert_eq!(format!("{kept:?}"), r#"{"Stays": "4"}"#);
    for protected in [
        "Host",
        "authorization",
        "X-Forwarded-For",
        "content-length",
        "Cookie",
    ] {
        let mut fields = Fields::new();
        fields
            .append("connection", format!("close, {protected}"))
            .unwrap();
        assert_eq!(
            forward::strip_request(&mut fields, Upgrade::Drop),
            Err(forward::ProtectedField),
            "{protected}"
        );
    }
}
