//! What one forwarded request costs in this codec and in the usual way (httparse, then `http` types with a header map,
//! then written out line by line), as nanoseconds and as a ratio. Run with
//! `cargo run --release -p rajut-codec --example forward`; only the ratio carries over to another machine.
#![expect(clippy::disallowed_methods, reason = "an example that measures")]
#![expect(clippy::print_stdout, reason = "a program")]
#![expect(clippy::unwrap_used, reason = "its input is its own")]

use std::{hint::black_box, time::Instant};

use bytes::{Buf, BufMut, BytesMut};
use rajut_codec::{
    Known, Output,
    forward::{self, Upgrade},
    h1::{ClientConn, ClientNext, Limits, ServerConn, ServerNext},
};

const SMALL: &str =
    "GET /api/visits?id=42 HTTP/1.1\r\nHost: records.clinic\r\nUser-Agent: wrk\r\nAccept: */*\r\n\r\n";

const BROWSER: &str = "GET /api/visits?id=42 HTTP/1.1\r\nHost: records.clinic\r\nConnection: keep-alive\r\n\
    Cache-Control: max-age=0\r\nsec-ch-ua: \"Chromium\";v=\"142\", \"Not A;Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\nUpgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\n\
    Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=7f3b2c1d9e8a4f60; theme=dark; consent=1\r\n\r\n";

const RESPONSE: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 0\r\nServer: records\r\n\r\n";

/// One exchange through both of our machines, with the edits that a proxy makes.
struct Ours {
    server: ServerConn,
    client: ClientConn,
    from_client: BytesMut,
    from_server: BytesMut,
    out: Output,
}

impl Ours {
    #[inline(never)]
    fn exchange(&mut self, request: &[u8]) {
        self.from_client.extend_from_slice(request);
        let mut received = self.server.decode_head(&mut self.from_client).unwrap().unwrap();
        let fields = &mut received.head.fields;
        forward::strip_request(fields, Upgrade::Drop).unwrap();
        fields
            .set(Known::XRequestId, "0d8a9f4e-5c1b-4b7e-9f5e-2f6f1c3a7b11")
            .unwrap();
        fields.join(Known::XForwardedFor, "10.0.0.7").unwrap();
        fields.set(Known::XForwardedProto, "http").unwrap();
        self.client
            .encode_head(&received.head, received.body, &mut self.out)
            .unwrap();
        self.write();
        self.from_server.extend_from_slice(RESPONSE.as_bytes());
        let mut answer = self.client.decode_head(&mut self.from_server).unwrap().unwrap();
        forward::strip_response(&mut answer.head.fields, Upgrade::Drop).unwrap();
        answer
            .head
            .fields
            .set(Known::XEnvoyUpstreamServiceTime, "3")
            .unwrap();
        self.server
            .encode_head(&answer.head, answer.body, &mut self.out)
            .unwrap();
        self.write();
        assert_eq!(self.client.next_exchange(&self.from_server), ClientNext::Reusable);
        let _end = self.server.decode_body(&mut self.from_client).unwrap();
        assert_eq!(self.server.next_exchange(), ServerNext::Request);
    }

    fn write(&mut self) {
        black_box(self.out.chunk());
        self.out.advance(self.out.remaining());
    }
}

/// The usual way: a map is built and written out again.
#[derive(Default)]
struct WithMap {
    from_client: BytesMut,
    from_server: BytesMut,
    out: BytesMut,
}

impl WithMap {
    #[inline(never)]
    fn exchange(&mut self, request: &[u8]) {
        self.from_client.extend_from_slice(request);
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut parsed = httparse::Request::new(&mut headers);
        let len = parsed.parse(&self.from_client).unwrap().unwrap();
        let base = self.from_client.as_ptr().addr();
        let at = |part: &[u8]| part.as_ptr().addr() - base..part.as_ptr().addr() - base + part.len();
        let ranges: Vec<_> = parsed
            .headers
            .iter()
            .map(|h| (at(h.name.as_bytes()), at(h.value)))
            .collect();
        let target = at(parsed.path.unwrap().as_bytes());
        let method = http::Method::from_bytes(parsed.method.unwrap().as_bytes()).unwrap();
        let block = self.from_client.split_to(len).freeze();
        let uri = http::Uri::from_maybe_shared(block.slice(target)).unwrap();
        let mut request = http::Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let map = request.headers_mut();
        map.reserve(ranges.len());
        for (name, value) in ranges {
            let name = http::HeaderName::from_bytes(&block[name]).unwrap();
            map.append(
                name,
                http::HeaderValue::from_maybe_shared(block.slice(value)).unwrap(),
            );
        }
        map.remove("connection");
        map.remove("keep-alive");
        map.insert(
            "x-request-id",
            http::HeaderValue::from_static("0d8a9f4e-5c1b-4b7e-9f5e-2f6f1c3a7b11"),
        );
        map.insert("x-forwarded-for", http::HeaderValue::from_static("10.0.0.7"));
        map.insert("x-forwarded-proto", http::HeaderValue::from_static("http"));
        self.out.put_slice(request.method().as_str().as_bytes());
        self.out.put_u8(b' ');
        self.out
            .put_slice(request.uri().path_and_query().unwrap().as_str().as_bytes());
        self.out.put_slice(b" HTTP/1.1\r\n");
        for (name, value) in request.headers() {
            self.line(name.as_str().as_bytes(), value.as_bytes());
        }
        self.write();
        self.response();
    }

    fn response(&mut self) {
        self.from_server.extend_from_slice(RESPONSE.as_bytes());
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut parsed = httparse::Response::new(&mut headers);
        let len = parsed.parse(&self.from_server).unwrap().unwrap();
        let base = self.from_server.as_ptr().addr();
        let at = |part: &[u8]| part.as_ptr().addr() - base..part.as_ptr().addr() - base + part.len();
        let ranges: Vec<_> = parsed
            .headers
            .iter()
            .map(|h| (at(h.name.as_bytes()), at(h.value)))
            .collect();
        let mut response = http::Response::new(());
        *response.status_mut() = http::StatusCode::from_u16(parsed.code.unwrap()).unwrap();
        let block = self.from_server.split_to(len).freeze();
        let map = response.headers_mut();
        map.reserve(ranges.len());
        for (name, value) in ranges {
            let name = http::HeaderName::from_bytes(&block[name]).unwrap();
            map.append(
                name,
                http::HeaderValue::from_maybe_shared(block.slice(value)).unwrap(),
            );
        }
        map.remove("connection");
        map.insert(
            "x-envoy-upstream-service-time",
            http::HeaderValue::from_static("3"),
        );
        self.out.put_slice(b"HTTP/1.1 ");
        self.out.put_slice(response.status().as_str().as_bytes());
        self.out.put_slice(b" OK\r\n");
        for (name, value) in response.headers() {
            self.line(name.as_str().as_bytes(), value.as_bytes());
        }
        self.write();
    }

    fn line(&mut self, name: &[u8], value: &[u8]) {
        self.out.put_slice(name);
        self.out.put_slice(b": ");
        self.out.put_slice(value);
        self.out.put_slice(b"\r\n");
    }

    fn write(&mut self) {
        self.out.put_slice(b"\r\n");
        black_box(&self.out[..]);
        self.out.clear();
    }
}

/// The best of several rounds, in nanoseconds per call.
fn nanoseconds(calls: u32, mut exchange: impl FnMut()) -> f64 {
    let round = |exchange: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..calls).for_each(|_| exchange());
        start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
    };
    (0..15).map(|_| round(&mut exchange)).fold(f64::MAX, f64::min)
}

fn main() {
    // Few calls make it fit for an instruction count: `valgrind --tool=callgrind … forward 100`.
    let calls = std::env::args()
        .nth(1)
        .and_then(|calls| calls.parse().ok())
        .unwrap_or(20_000);
    for (what, request) in [("3 request headers", SMALL), ("16 request headers", BROWSER)] {
        let mut ours = Ours {
            server: ServerConn::new(Limits::default(), false),
            client: ClientConn::new(Limits::default()),
            from_client: BytesMut::with_capacity(8192),
            from_server: BytesMut::with_capacity(8192),
            out: Output::new(),
        };
        let mut with_map = WithMap {
            from_client: BytesMut::with_capacity(8192),
            from_server: BytesMut::with_capacity(8192),
            out: BytesMut::with_capacity(8192),
        };
        let own = nanoseconds(calls, || ours.exchange(black_box(request.as_bytes())));
        let map = nanoseconds(calls, || with_map.exchange(black_box(request.as_bytes())));
        println!(
            "{what}: this codec {own:.0} ns, with a header map {map:.0} ns per exchange, ratio {:.2}",
            own / map
        );
    }
}
