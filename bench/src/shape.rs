//! What is sent and answered: the same bytes for every proxy.

/// The body of an HTTP answer, in bytes, unless the set says otherwise.
pub(crate) const BODY_BYTES: usize = 1024;
/// The body of a big one.
pub(crate) const BIG_BYTES: usize = 64 * 1024;
/// One message of the `echo` protocol, each way, in bytes.
pub(crate) const ECHO_BYTES: usize = 64;
/// Path of every request.
pub(crate) const PATH: &str = "/bench/item?id=42";
/// Host of every request.
pub(crate) const HOST: &str = "bench.example";
/// Header fields of a plain request beside `host`: three in all.
pub(crate) const FEW: &[(&str, &str)] = &[("user-agent", "rajut-bench"), ("accept", "*/*")];
/// Header fields as a browser sends them, beside `host`: sixteen in all.
pub(crate) const MANY: &[(&str, &str)] = &[
    ("connection", "keep-alive"),
    ("cache-control", "max-age=0"),
    ("sec-ch-ua", "\"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\""),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", "\"Linux\""),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    ("accept", "application/json, text/plain, */*"),
    ("origin", "https://app.bench.example"),
    ("sec-fetch-site", "same-site"),
    ("sec-fetch-mode", "cors"),
    ("sec-fetch-dest", "empty"),
    (
        "referer",
        "https://app.bench.example/patients/4711/encounters?page=2",
    ),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "de-CH,de;q=0.9,en;q=0.8,id;q=0.7"),
    (
        "cookie",
        "session=6f1d0c9a7be34c2f8d3e5a1b; theme=dark; consent=necessary",
    ),
];

/// A whole HTTP/1.1 request without a body.
pub(crate) fn http1_request(host: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("GET {PATH} HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in fields {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// A whole HTTP/1.1 answer with a body of `body` bytes.
pub(crate) fn http1_response(body: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nserver: bench\r\ncontent-type: application/json\r\ncontent-length: {body}\r\n\r\n"
    );
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + body, b'x');
    bytes
}
