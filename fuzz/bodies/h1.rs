//! What the HTTP/1 fuzz targets do with their input, apart from the fuzzer, so that the tests of `crates/codec` run
//! the same on seeded mutations. Each function panics when a property does not hold.
//!
//! Properties: no panic; invariants hold after every step; how the bytes are cut into reads changes nothing; what was
//! decoded and encoded again decodes to the same.

use bytes::{Buf, Bytes, BytesMut};
use rajut_codec::{
    Fields, Known, Method, Output, RequestHead, ResponseHead,
    forward::{self, Upgrade},
    h1::{BodyEvent, BodyLength, ClientConn, ClientNext, DecodeError, Eof, Limits, ServerConn, ServerNext},
};

/// One thing that a reader of bytes saw.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// A request: head, announced body, wants 100, wants an upgrade.
    Request(RequestHead, BodyLength, bool, bool),
    /// A response.
    Response(ResponseHead, BodyLength),
    /// Neighbouring pieces of a body.
    Data(Vec<u8>),
    Trailers(Fields),
    EndOfBody,
    Error(DecodeError),
    Eof(Eof),
}

/// Small deterministic numbers (xorshift64*).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

/// Limits small enough for short inputs to meet them.
pub fn small_limits() -> Limits {
    Limits {
        max_head_bytes: 2048,
        max_headers: 24,
        max_target_bytes: 512,
        max_trailer_bytes: 512,
        max_trailers: 4,
        max_chunk_extension_bytes: 64,
        max_informational: 3,
    }
}

fn data(seen: &mut Vec<Seen>, piece: &Bytes) {
    assert!(!piece.is_empty());
    match seen.last_mut() {
        Some(Seen::Data(data)) => data.extend_from_slice(piece),
        _ => seen.push(Seen::Data(piece.to_vec())),
    }
}

/// Feeds `input` in the cuts that `size` gives to a server that answers every request with an empty 200.
pub fn read_requests(input: &[u8], limits: Limits, mut size: impl FnMut() -> usize) -> Vec<Seen> {
    let mut conn = ServerConn::new(limits, true);
    let (mut buf, mut rest, mut out, mut seen) = (BytesMut::new(), input, Output::new(), Vec::new());
    let mut in_body = false;
    loop {
        loop {
            assert_eq!(conn.check_invariants(), Ok(()));
            if !in_body {
                match conn.decode_head(&mut buf) {
                    Err(error) => {
                        seen.push(Seen::Error(error));
                        return seen;
                    }
                    Ok(None) => break,
                    Ok(Some(request)) => {
                        assert_eq!(request.head.fields.check_invariants(), Ok(()));
                        seen.push(Seen::Request(
                            request.head,
                            request.body,
                            request.expect_continue,
                            request.upgrade,
                        ));
                        in_body = true;
                    }
                }
                continue;
            }
            match conn.decode_body(&mut buf) {
                Err(error) => {
                    seen.push(Seen::Error(error));
                    return seen;
                }
                Ok(BodyEvent::Pending) => break,
                Ok(BodyEvent::Data(piece)) => data(&mut seen, &piece),
                Ok(BodyEvent::Trailers(fields)) => seen.push(Seen::Trailers(fields)),
                Ok(BodyEvent::End) => {
                    seen.push(Seen::EndOfBody);
                    // 400 and not 200, so that CONNECT opens no tunnel.
                    conn.encode_head(&ResponseHead::new(400), BodyLength::Empty, &mut out)
                        .expect("a response is due");
                    if conn.next_exchange() != ServerNext::Request {
                        return seen;
                    }
                    in_body = false;
                }
            }
        }
        if rest.is_empty() {
            seen.push(conn.decode_eof(&buf).map_or_else(Seen::Error, Seen::Eof));
            assert_eq!(conn.check_invariants(), Ok(()));
            return seen;
        }
        let (piece, left) = rest.split_at(size().clamp(1, rest.len()));
        buf.extend_from_slice(piece);
        rest = left;
    }
}

/// Feeds `input` to a client that has sent `request`.
pub fn read_responses(
    request: &RequestHead,
    input: &[u8],
    limits: Limits,
    mut size: impl FnMut() -> usize,
) -> Vec<Seen> {
    let mut conn = ClientConn::new(limits);
    let (mut buf, mut rest, mut seen) = (BytesMut::new(), input, Vec::new());
    conn.encode_head(request, BodyLength::Empty, &mut Output::new())
        .expect("the request is valid");
    let mut in_body = false;
    loop {
        loop {
            assert_eq!(conn.check_invariants(), Ok(()));
            if !in_body {
                match conn.decode_head(&mut buf) {
                    Err(error) => {
                        seen.push(Seen::Error(error));
                        return seen;
                    }
                    Ok(None) => break,
                    Ok(Some(response)) => {
                        assert_eq!(response.head.fields.check_invariants(), Ok(()));
                        in_body = !response.head.is_informational();
                        seen.push(Seen::Response(response.head, response.body));
                    }
                }
                continue;
            }
            match conn.decode_body(&mut buf) {
                Err(error) => {
                    seen.push(Seen::Error(error));
                    return seen;
                }
                Ok(BodyEvent::Pending) => break,
                Ok(BodyEvent::Data(piece)) => data(&mut seen, &piece),
                Ok(BodyEvent::Trailers(fields)) => seen.push(Seen::Trailers(fields)),
                Ok(BodyEvent::End) => {
                    seen.push(Seen::EndOfBody);
                    let next = conn.next_exchange(&buf);
                    assert!(buf.is_empty() || next != ClientNext::Reusable);
                    return seen;
                }
            }
        }
        if rest.is_empty() {
            match conn.decode_eof(&buf) {
                Ok(Eof::EndOfBody) => seen.push(Seen::EndOfBody),
                Ok(eof) => seen.push(Seen::Eof(eof)),
                Err(error) => seen.push(Seen::Error(error)),
            }
            return seen;
        }
        let (piece, left) = rest.split_at(size().clamp(1, rest.len()));
        buf.extend_from_slice(piece);
        rest = left;
    }
}

/// Two readings of the same bytes agree; only which rule a refusal names may depend on how much had arrived.
pub fn assert_same(whole: &[Seen], cut: &[Seen], input: &[u8]) {
    let without_rule = |seen: &[Seen]| {
        let rule = |one: &Seen| {
            if let Seen::Error(_) = one {
                Seen::Error(DecodeError::OutOfStep)
            } else {
                one.clone()
            }
        };
        seen.iter().map(rule).collect::<Vec<_>>()
    };
    assert_eq!(
        without_rule(whole),
        without_rule(cut),
        "{:?}",
        String::from_utf8_lossy(input)
    );
}

/// The body (pieces, trailers, whether it ended) that follows index `at`.
fn body_after(seen: &[Seen], at: usize) -> (Vec<u8>, Option<Fields>, bool) {
    let (mut body, mut trailers) = (Vec::new(), None);
    for one in &seen[at + 1..] {
        match one {
            Seen::Data(piece) => body.extend_from_slice(piece),
            Seen::Trailers(fields) => trailers = Some(fields.clone()),
            Seen::EndOfBody => return (body, trailers, true),
            _ => return (body, trailers, false),
        }
    }
    (body, trailers, false)
}

/// The fields that must survive forwarding.
fn end_to_end(fields: &Fields) -> Vec<(String, Vec<u8>)> {
    let framing = [
        Known::Connection,
        Known::KeepAlive,
        Known::ProxyConnection,
        Known::TransferEncoding,
        Known::ContentLength,
        Known::Upgrade,
        Known::Http2Settings,
        Known::Host,
        Known::Te,
    ];
    fields
        .iter()
        .filter(|field| field.known.is_none_or(|known| !framing.contains(&known)))
        .map(|field| {
            (
                String::from_utf8_lossy(field.name).into_owned(),
                field.value.to_vec(),
            )
        })
        .collect()
}

/// Trailers that survive forwarding.
fn end_to_end_trailers(fields: Option<&Fields>) -> Vec<(String, Vec<u8>)> {
    let never = [
        Known::Trailer,
        Known::Authorization,
        Known::SetCookie,
        Known::Cookie,
        Known::Expect,
    ];
    let is_never = |name: &str| {
        never
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known.as_str()))
    };
    fields
        .map(end_to_end)
        .unwrap_or_default()
        .into_iter()
        .filter(|(name, _)| !is_never(name))
        .collect()
}

fn taken(out: &mut Output) -> Vec<u8> {
    assert_eq!(out.check_invariants(), Ok(()));
    out.copy_to_bytes(out.remaining()).to_vec()
}

/// `data`: a seed byte for the cuts, then the bytes of a client.
pub fn h1_request(data: &[u8]) {
    let Some((seed, input)) = data.split_first() else {
        return;
    };
    let whole = read_requests(input, small_limits(), || usize::MAX);
    let mut numbers = Numbers::new(u64::from(*seed) * 7919 + 1);
    let cut = read_requests(input, small_limits(), || 1 + numbers.below(40));
    assert_same(&whole, &cut, input);
    assert_same(&whole, &read_requests(input, small_limits(), || 1), input);
    for (index, one) in whole.iter().enumerate() {
        if let Seen::Request(head, length, _, upgrade) = one {
            let (body, trailers, complete) = body_after(&whole, index);
            if complete {
                forward_request(head, *length, *upgrade, &body, trailers.as_ref());
            }
        }
    }
}

fn forward_request(
    received: &RequestHead,
    length: BodyLength,
    upgrade: bool,
    body: &[u8],
    trailers: Option<&Fields>,
) {
    let mut head = received.clone();
    let keep = if upgrade { Upgrade::Keep } else { Upgrade::Drop };
    if forward::strip_request(&mut head.fields, keep).is_err() {
        return;
    }
    let (mut conn, mut out) = (ClientConn::new(small_limits()), Output::new());
    conn.encode_head(&head, length, &mut out)
        .expect("a decoded head can be encoded");
    if length != BodyLength::Empty {
        conn.encode_data(Bytes::copy_from_slice(body), &mut out)
            .expect("the body has its length");
    }
    conn.encode_end(trailers, &mut out).expect("the body is complete");
    let bytes = taken(&mut out);
    let limits = Limits {
        max_head_bytes: 8192,
        max_headers: 64,
        ..Limits::default()
    };
    let again = read_requests(&bytes, limits, || usize::MAX);
    let Some(Seen::Request(second, second_length, _, second_upgrade)) = again.first() else {
        panic!(
            "not a request any more: {:?} {again:?}",
            String::from_utf8_lossy(&bytes)
        );
    };
    assert_eq!(
        (&second.method, &second.authority),
        (&head.method, &head.authority)
    );
    assert_eq!(
        (&second.path_and_query, *second_length),
        (&head.path_and_query, length)
    );
    assert_eq!(*second_upgrade, upgrade);
    assert_eq!(end_to_end(&second.fields), end_to_end(&head.fields));
    let (second_body, second_trailers, complete) = body_after(&again, 0);
    assert!(complete && second_body == body);
    assert_eq!(
        end_to_end_trailers(second_trailers.as_ref()),
        end_to_end_trailers(trailers)
    );
}

/// `data`: a byte for the request and the cuts, then the bytes of a server.
pub fn h1_response(data: &[u8]) {
    let Some((seed, input)) = data.split_first() else {
        return;
    };
    let mut request = RequestHead::new(Method::Get, "/");
    request.authority = Bytes::from_static(b"a:80");
    match seed % 4 {
        0 => request.method = Method::Head,
        1 => request.method = Method::Connect,
        2 => request
            .fields
            .append(Known::Upgrade, "websocket")
            .expect("a valid field"),
        _ => {}
    }
    let whole = read_responses(&request, input, small_limits(), || usize::MAX);
    let mut numbers = Numbers::new(u64::from(*seed) * 104_729 + 1);
    let cut = read_responses(&request, input, small_limits(), || 1 + numbers.below(40));
    assert_same(&whole, &cut, input);
    assert_same(
        &whole,
        &read_responses(&request, input, small_limits(), || 1),
        input,
    );
    for (index, one) in whole.iter().enumerate() {
        if let Seen::Response(head, length) = one {
            let (body, trailers, complete) = body_after(&whole, index);
            if complete && !head.is_informational() && *length != BodyLength::Tunnel {
                forward_response(&request, head, *length, &body, trailers.as_ref());
            }
        }
    }
}

fn forward_response(
    request: &RequestHead,
    received: &ResponseHead,
    length: BodyLength,
    body: &[u8],
    trailers: Option<&Fields>,
) {
    let mut head = received.clone();
    if forward::strip_response(&mut head.fields, Upgrade::Drop).is_err() {
        return;
    }
    // A server that has read that request.
    let mut out = Output::new();
    let mut client = ClientConn::new(small_limits());
    client
        .encode_head(request, BodyLength::Empty, &mut out)
        .expect("the request is valid");
    let mut server = ServerConn::new(small_limits(), true);
    server
        .decode_head(&mut BytesMut::from(&taken(&mut out)[..]))
        .expect("valid")
        .expect("complete");
    server
        .encode_head(&head, length, &mut out)
        .expect("a decoded head can be encoded");
    if length != BodyLength::Empty {
        server
            .encode_data(Bytes::copy_from_slice(body), &mut out)
            .expect("the body has its length");
    }
    server
        .encode_end(trailers, &mut out)
        .expect("the body is complete");
    let bytes = taken(&mut out);
    let limits = Limits {
        max_head_bytes: 8192,
        max_headers: 64,
        ..Limits::default()
    };
    let again = read_responses(request, &bytes, limits, || usize::MAX);
    let Some(Seen::Response(second, _)) = again.first() else {
        panic!(
            "not a response any more: {:?} {again:?}",
            String::from_utf8_lossy(&bytes)
        );
    };
    assert_eq!(second.status, head.status);
    if !head.reason.is_empty() {
        assert_eq!(second.reason, head.reason);
    }
    let (mut first_fields, mut second_fields) = (end_to_end(&head.fields), end_to_end(&second.fields));
    first_fields.retain(|(name, _)| !name.eq_ignore_ascii_case("host"));
    second_fields.retain(|(name, _)| !name.eq_ignore_ascii_case("host"));
    assert_eq!(second_fields, first_fields);
    let (second_body, second_trailers, complete) = body_after(&again, 0);
    assert!(
        complete && second_body == body,
        "{:?}",
        String::from_utf8_lossy(&bytes)
    );
    assert_eq!(
        end_to_end_trailers(second_trailers.as_ref()),
        end_to_end_trailers(trailers)
    );
}

/// Seeds for mutation: what clients send.
pub const REQUESTS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a?b=c HTTP/1.1\r\nHost: a.example:8080\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-T: 1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://b/p HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\n\r\n",
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "PUT /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\nHEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
    "CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n",
];

/// Seeds for mutation: what servers send.
pub const RESPONSES: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: x\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.0 200 OK\r\n\r\nuntil the end",
    "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 7\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw bytes",
    "HTTP/1.1 200\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nX-Dup: a\r\nx-dup: b\r\n\r\nbody",
];

/// Pieces that mutations insert.
const TOKENS: &[&[u8]] = &[
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Host: b\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\n",
    b"X: y\r\n",
    b"x: z\r\n",
    b"0\r\n\r\n",
    b"5\r\n",
    b"ffffffffffffffff",
    b"chunked",
    b"/",
    b"*",
    b"http://",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"\xff",
];

/// A mutation of a seed: a few bytes changed, removed, doubled, or a piece inserted.
pub fn mutate(seed: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(bytes.len() + 1);
        let end = (at + 1 + numbers.below(4)).min(bytes.len());
        match numbers.below(6) {
            0 if at < bytes.len() => bytes[at] = u8::try_from(numbers.below(256)).unwrap_or_default(),
            1 if at < bytes.len() => bytes[at] ^= 0x20,
            2 => drop(bytes.drain(at..end.max(at))),
            3 => {
                let copy = bytes[at..end.max(at)].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                // Mostly where lines start, where it means something.
                let starts: Vec<usize> = bytes
                    .windows(2)
                    .enumerate()
                    .filter(|(_, two)| two == b"\r\n")
                    .map(|(at, _)| at + 2)
                    .collect();
                let at = if starts.is_empty() || numbers.below(3) == 0 {
                    at
                } else {
                    starts[numbers.below(starts.len())]
                };
                let token = TOKENS[numbers.below(TOKENS.len())];
                bytes.splice(at..at, token.iter().copied());
            }
        }
    }
    bytes
}
