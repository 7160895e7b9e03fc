//! What is asked: two hundred requests, each on a connection of its own.

/// One probe.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    pub(super) name: String,
    /// What is sent; between two parts an answer is awaited (an interim one, where the proxy sends any).
    pub(super) parts: Vec<Vec<u8>>,
    /// Whether each answer has a body: those to HEAD have none.
    pub(super) answers: Vec<bool>,
}

/// Name, method and target, more fields (one a line), body.
type Plain = (&'static str, &'static str, &'static str, &'static str);

/// All have a host, the probe's name, and their body's length.
const PLAIN: &[Plain] = &[
    // Methods.
    ("get", "GET /", "", ""),
    ("head", "HEAD /", "", ""),
    ("post", "POST /", "content-type: text/plain", "hello"),
    (
        "put",
        "PUT /things/1",
        "content-type: application/json",
        "{\"a\":1}",
    ),
    ("patch", "PATCH /things/1", "", "x"),
    ("delete", "DELETE /things/1", "", ""),
    ("delete-with-body", "DELETE /things/1", "", "why"),
    ("options", "OPTIONS /things", "", ""),
    ("get-with-body", "GET /things", "", "unusual"),
    ("custom-method", "PURGE /things", "", ""),
    ("post-empty", "POST /", "content-length: 0", ""),
    ("post-without-length", "POST /", "", ""),
    // Paths.
    ("query", "GET /a?b=c&d=%20e+f", "", ""),
    ("query-empty", "GET /a?", "", ""),
    ("query-odd", "GET /a?b=c?d=/../e", "", ""),
    ("dots", "GET /a/../b/./c", "", ""),
    ("dots-beyond", "GET /../../b", "", ""),
    ("dots-encoded", "GET /a/%2e%2e/b", "", ""),
    ("slashes", "GET //a///b", "", ""),
    ("slash-encoded", "GET /a%2Fb%2fc", "", ""),
    ("backslash", "GET /a\\b", "", ""),
    ("backslash-encoded", "GET /a%5Cb", "", ""),
    ("percent-odd", "GET /a%zz", "", ""),
    ("percent-nul", "GET /a%00b", "", ""),
    ("percent-plain", "GET /%61%62c", "", ""),
    ("semicolon", "GET /a;v=1/b", "", ""),
    ("fragment", "GET /a#part", "", ""),
    ("unicode-encoded", "GET /%C3%A9t%C3%A9", "", ""),
    ("absolute", "GET http://bench.example/exact?x=1", "", ""),
    ("absolute-other-host", "GET http://narrow.example/only", "", ""),
    ("absolute-port", "GET http://bench.example:8080/exact", "", ""),
    ("trailing-slash", "GET /exact/", "", ""),
    // Matching.
    ("exact", "GET /exact", "", ""),
    ("exact-query", "GET /exact?a=1", "", ""),
    ("caseless", "GET /caseLESS", "", ""),
    ("separated", "GET /separated", "", ""),
    ("separated-below", "GET /separated/x", "", ""),
    ("separated-not", "GET /separatedx", "", ""),
    ("regex", "GET /regex/abc/123", "", ""),
    ("regex-not", "GET /regex/abc/1", "", ""),
    ("regex-query", "GET /regex/abc/1234?z", "", ""),
    ("match-exact", "GET /match", "x-way: one", ""),
    ("match-exact-case", "GET /match", "x-way: One", ""),
    ("match-prefix", "GET /match", "x-way: TWice", ""),
    ("match-range", "GET /match", "x-number: 10", ""),
    ("match-range-end", "GET /match", "x-number: 20", ""),
    ("match-range-odd", "GET /match", "x-number: 1x", ""),
    ("match-absent", "GET /match", "x-bold: 1", ""),
    ("match-not-absent", "GET /match", "x-bold: 1\nx-shy: 1", ""),
    ("match-query", "GET /match?color=red", "", ""),
    ("match-query-other", "GET /match?color=redder", "", ""),
    ("match-query-present", "GET /match?debug", "", ""),
    ("match-grpc", "POST /match", "content-type: application/grpc", ""),
    (
        "match-grpc-kind",
        "POST /match",
        "content-type: application/grpc+proto",
        "",
    ),
    ("match-none", "GET /match", "", ""),
    ("match-twice", "GET /match", "x-way: no\nx-way: one", ""),
    ("not-found", "GET /missing", "host: narrow.example", ""),
    ("not-found-post", "POST /missing", "host: narrow.example", "lost"),
    ("not-found-head", "HEAD /missing", "host: narrow.example", ""),
    (
        "not-found-grpc",
        "POST /missing",
        "host: narrow.example\ncontent-type: application/grpc",
        "",
    ),
    // Hosts.
    ("host-port", "GET /exact", "host: bench.example:8080", ""),
    ("host-other-port", "GET /exact", "host: bench.example:9090", ""),
    ("host-upper", "GET /exact", "host: BENCH.example", ""),
    (
        "host-upper-configured",
        "GET /exact",
        "host: bench-upper.example",
        "",
    ),
    ("host-unknown", "GET /exact", "host: stranger.example", ""),
    ("host-wild-suffix", "GET /", "host: a.b.wild.example", ""),
    ("host-wild-suffix-bare", "GET /", "host: wild.example", ""),
    ("host-wild-prefix", "GET /", "host: wild.card", ""),
    ("host-trailing-dot", "GET /exact", "host: bench.example.", ""),
    ("host-address", "GET /exact", "host: 127.0.0.1", ""),
    ("host-empty", "GET /exact", "host:", ""),
    // Redirections and answers of the proxy's own.
    ("redirect-host", "GET /redirect/host?a=1", "", ""),
    ("redirect-path", "GET /redirect/path?a=1", "", ""),
    ("redirect-prefix", "GET /redirect/prefix/below?a=1", "", ""),
    ("redirect-https", "GET /redirect/https", "", ""),
    (
        "redirect-https-port",
        "GET /redirect/https",
        "host: bench.example:8080",
        "",
    ),
    ("redirect-port", "GET /redirect/port", "", ""),
    ("redirect-strip", "GET /redirect/strip?a=1", "", ""),
    ("redirect-post", "POST /redirect/path", "", "body"),
    ("redirect-head", "HEAD /redirect/path", "", ""),
    ("direct-empty", "GET /direct/empty", "", ""),
    ("direct-teapot", "GET /direct/teapot", "", ""),
    ("direct-teapot-head", "HEAD /direct/teapot", "", ""),
    ("direct-headers", "GET /direct/headers", "", ""),
    (
        "direct-grpc",
        "POST /direct/teapot",
        "content-type: application/grpc",
        "",
    ),
    // Rewrites and edits.
    ("rewrite-prefix", "GET /rewrite/prefix/a/b?c=d", "", ""),
    ("rewrite-regex", "GET /rewrite/regex/a/b?c=d", "", ""),
    ("rewrite-host", "GET /rewrite/host", "", ""),
    (
        "rewrite-host-forwarded",
        "GET /rewrite/host",
        "x-forwarded-host: first.example",
        "",
    ),
    (
        "rewrite-by-header",
        "GET /rewrite/by-header",
        "x-new-host: from-header.example",
        "",
    ),
    ("rewrite-by-header-none", "GET /rewrite/by-header", "", ""),
    ("edits", "GET /edits", "", ""),
    (
        "edits-of-what-is-there",
        "GET /edits",
        "x-added: theirs\nx-appended: theirs\nx-overwritten: theirs\nx-if-absent: theirs\nx-if-there: theirs\nx-removed: 1\nuser-agent: probe/1",
        "",
    ),
    (
        "edits-twice",
        "GET /edits",
        "x-appended: 1\nx-appended: 2\nx-overwritten: 1\nx-overwritten: 2",
        "",
    ),
    ("weighted", "GET /weighted", "", ""),
    ("by-header", "GET /by-header", "x-cluster: origin", ""),
    ("by-header-none", "GET /by-header", "", ""),
    ("by-header-unknown", "GET /by-header", "x-cluster: who", ""),
    // Failures behind the proxy.
    ("nobody-listens", "GET /nowhere", "", ""),
    (
        "nobody-listens-grpc",
        "POST /nowhere",
        "content-type: application/grpc",
        "",
    ),
    ("no-endpoints", "GET /empty", "", ""),
    ("too-slow", "GET /slow/origin/slow", "", ""),
    (
        "too-slow-grpc",
        "POST /slow/origin/slow",
        "content-type: application/grpc",
        "",
    ),
    ("silent", "GET /origin/silent", "", ""),
    ("garbage", "GET /origin/garbage", "", ""),
    ("cut-short", "GET /origin/short", "", ""),
    ("big-field-back", "GET /origin/big-field", "", ""),
    ("both-lengths-back", "GET /origin/both-lengths", "", ""),
    ("retried-503", "GET /retried/origin/503", "", ""),
    ("retried-once", "GET /retried/a/origin/second-time", "", ""),
    ("retried-silent", "GET /retried/b/origin/second-silent", "", ""),
    ("retried-post", "POST /retried/c/origin/second-time", "", "again"),
    ("retried-429", "GET /retried-codes/origin/429", "", ""),
    ("retried-429-not-503", "GET /retried-codes/origin/503", "", ""),
    (
        "retried-by-header",
        "GET /x/origin/502",
        "x-envoy-retry-on: 5xx\nx-envoy-max-retries: 1",
        "",
    ),
    // Answers from behind it.
    ("back-chunked", "GET /origin/chunked", "", ""),
    ("back-chunked-head", "HEAD /origin/chunked", "", ""),
    ("back-trailers", "GET /origin/trailers", "", ""),
    ("back-trailers-wanted", "GET /origin/trailers", "te: trailers", ""),
    ("back-until-closed", "GET /origin/until-closed", "", ""),
    ("back-says-close", "GET /origin/says-close", "", ""),
    ("back-http10", "GET /origin/http10", "", ""),
    ("back-204", "GET /origin/no-content", "", ""),
    ("back-304", "GET /origin/not-modified", "if-none-match: \"1\"", ""),
    ("back-many", "GET /origin/many", "", ""),
    ("back-hop-by-hop", "GET /origin/hop-by-hop", "", ""),
    ("back-reason", "GET /origin/reason", "", ""),
    ("back-early", "GET /origin/early", "", ""),
    ("back-201", "POST /origin/201", "", "new"),
    ("back-301", "GET /origin/301", "", ""),
    ("back-400", "GET /origin/400", "", ""),
    ("back-404", "GET /origin/404", "", ""),
    ("back-418", "GET /origin/418", "", ""),
    ("back-500", "GET /origin/500", "", ""),
    ("back-503", "GET /origin/503", "", ""),
    ("back-599", "GET /origin/599", "", ""),
    ("back-999", "GET /origin/999", "", ""),
    (
        "back-grpc-error",
        "POST /origin/grpc-error",
        "content-type: application/grpc\nte: trailers",
        "",
    ),
    // Access rules.
    ("rbac-allowed", "GET /rbac/open", "", ""),
    ("rbac-denied-method", "DELETE /rbac/open", "", ""),
    ("rbac-denied-path", "GET /rbac/secret/1", "", ""),
    ("rbac-allowed-role", "GET /rbac/secret/1", "x-role: keeper", ""),
    ("rbac-denied-suffix", "GET /any/server.key", "", ""),
    ("rbac-suffix-with-query", "GET /any/server.key?a", "", ""),
    ("rbac-denied-tenant", "GET /exact", "x-tenant: b12", ""),
    ("rbac-tenant-not-whole", "GET /exact", "x-tenant: ab12", ""),
    (
        "rbac-denied-address",
        "GET /exact",
        "x-forwarded-for: 10.66.1.2",
        "",
    ),
    ("rbac-not-allowed", "GET /rbac/closed/x", "", ""),
    ("rbac-not-allowed-half", "GET /rbac/closed/x", "x-key: 1", ""),
    (
        "rbac-allowed-prefix",
        "GET /rbac/closed/x",
        "x-key: 1\nx-role: keeping",
        "",
    ),
    (
        "rbac-allowed-contains",
        "GET /rbac/closed/x",
        "x-key: 1\nx-role: an-admin-too",
        "",
    ),
    ("rbac-off-for-route", "GET /rbac/closed/open", "", ""),
    ("rbac-denied-head", "HEAD /rbac/closed/x", "", ""),
    ("rbac-denied-post", "POST /rbac/closed/x", "", "body"),
    (
        "rbac-denied-grpc",
        "POST /rbac/closed/x",
        "content-type: application/grpc",
        "",
    ),
    ("rbac-dots", "GET /x/../rbac/secret/1", "", ""),
    ("rbac-dots-encoded", "GET /x/%2e%2e/rbac/secret/1", "", ""),
    // A limit of two.
    ("limited-1", "GET /limited", "", ""),
    ("limited-2", "GET /limited", "", ""),
    ("limited-3", "GET /limited", "", ""),
    ("limited-head", "HEAD /limited", "", ""),
    ("limited-post", "POST /limited", "", "more"),
    (
        "limited-grpc",
        "POST /limited",
        "content-type: application/grpc",
        "",
    ),
    // What a request says of its way.
    ("forwarded-for", "GET /", "x-forwarded-for: 192.0.2.1", ""),
    (
        "forwarded-for-two",
        "GET /",
        "x-forwarded-for: 192.0.2.1, 198.51.100.7",
        "",
    ),
    ("forwarded-proto", "GET /", "x-forwarded-proto: https", ""),
    ("forwarded-proto-odd", "GET /", "x-forwarded-proto: gopher", ""),
    ("forwarded-host", "GET /", "x-forwarded-host: a.example", ""),
    ("request-id", "GET /", "x-request-id: mine", ""),
    (
        "request-id-uuid",
        "GET /",
        "x-request-id: 12345678-1234-4234-8234-123456789012",
        "",
    ),
    (
        "traceparent",
        "GET /",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "",
    ),
    (
        "envoy-internal",
        "GET /",
        "x-envoy-internal: true\nx-envoy-external-address: 1.2.3.4",
        "",
    ),
    (
        "envoy-timeout",
        "GET /origin/slow",
        "x-envoy-upstream-rq-timeout-ms: 200",
        "",
    ),
    (
        "envoy-original-path",
        "GET /",
        "x-envoy-original-path: /forged",
        "",
    ),
    ("envoy-attempt", "GET /", "x-envoy-attempt-count: 7", ""),
    ("te-trailers", "GET /", "te: trailers", ""),
    ("te-other", "GET /", "te: gzip, trailers", ""),
    ("connection-named", "GET /", "connection: x-mine\nx-mine: 1", ""),
    ("connection-close", "GET /", "connection: close", ""),
    (
        "connection-keep-alive",
        "GET /",
        "connection: keep-alive\nkeep-alive: timeout=5",
        "",
    ),
    ("proxy-connection", "GET /", "proxy-connection: keep-alive", ""),
    (
        "upgrade-h2c",
        "GET /",
        "connection: upgrade, http2-settings\nupgrade: h2c\nhttp2-settings: AAMAAABkAAQAAP__",
        "",
    ),
    (
        "upgrade-unknown",
        "GET /",
        "connection: upgrade\nupgrade: smoke-signals",
        "",
    ),
    (
        "upgrade-websocket-refused",
        "GET /no-upgrade",
        "connection: upgrade\nupgrade: websocket",
        "",
    ),
    (
        "upgrade-websocket-not-taken",
        "GET /exact",
        "connection: upgrade\nupgrade: websocket",
        "",
    ),
    ("expect-other", "POST /", "expect: miracles", "body"),
    ("cookies", "GET /", "cookie: a=1\ncookie: b=2", ""),
    ("field-case", "GET /", "X-MiXeD: Case", ""),
    ("field-empty", "GET /", "x-empty:", ""),
    ("field-spaces", "GET /", "x-spaces: \t  in between  \t ", ""),
    ("field-bytes", "GET /", "x-bytes: caf\u{e9}", ""),
    ("field-underscore", "GET /", "x_under_score: 1", ""),
    ("accept-encoding", "GET /", "accept-encoding: gzip, br", ""),
    ("authorization", "GET /", "authorization: Bearer abc.def.ghi", ""),
    ("range", "GET /", "range: bytes=0-3", ""),
];

/// Sent as they stand, `{h}` being a host and the probe's name.
const RAW: &[(&str, &str)] = &[
    ("http10", "GET / HTTP/1.0\r\n{h}\r\n\r\n"),
    ("http10-without-host", "GET / HTTP/1.0\r\n\r\n"),
    (
        "http10-keep-alive",
        "GET / HTTP/1.0\r\n{h}\r\nconnection: keep-alive\r\n\r\n",
    ),
    ("http09", "GET /\r\n\r\n"),
    ("http12", "GET / HTTP/1.2\r\n{h}\r\n\r\n"),
    ("http20-line", "GET / HTTP/2.0\r\n{h}\r\n\r\n"),
    ("without-host", "GET / HTTP/1.1\r\nx-probe: without-host\r\n\r\n"),
    (
        "two-hosts",
        "GET / HTTP/1.1\r\n{h}\r\nhost: other.example\r\n\r\n",
    ),
    (
        "host-invalid",
        "GET / HTTP/1.1\r\nhost: a b\r\nx-probe: host-invalid\r\n\r\n",
    ),
    ("lower-case-method", "get / HTTP/1.1\r\n{h}\r\n\r\n"),
    ("method-invalid", "G@T / HTTP/1.1\r\n{h}\r\n\r\n"),
    ("no-target", "GET  HTTP/1.1\r\n{h}\r\n\r\n"),
    ("two-spaces", "GET  / HTTP/1.1\r\n{h}\r\n\r\n"),
    ("target-relative", "GET exact HTTP/1.1\r\n{h}\r\n\r\n"),
    ("target-space", "GET /a b HTTP/1.1\r\n{h}\r\n\r\n"),
    ("options-star", "OPTIONS * HTTP/1.1\r\n{h}\r\n\r\n"),
    ("connect", "CONNECT bench.example:443 HTTP/1.1\r\n{h}\r\n\r\n"),
    ("leading-newline", "\r\nGET / HTTP/1.1\r\n{h}\r\n\r\n"),
    (
        "bare-newlines",
        "GET / HTTP/1.1\nhost: bench.example\nx-probe: bare-newlines\n\n",
    ),
    ("space-before-colon", "GET / HTTP/1.1\r\n{h}\r\nx-a : 1\r\n\r\n"),
    ("folded", "GET / HTTP/1.1\r\n{h}\r\nx-a: 1\r\n 2\r\n\r\n"),
    ("name-invalid", "GET / HTTP/1.1\r\n{h}\r\nx(a): 1\r\n\r\n"),
    ("name-empty", "GET / HTTP/1.1\r\n{h}\r\n: 1\r\n\r\n"),
    ("no-colon", "GET / HTTP/1.1\r\n{h}\r\nx-a\r\n\r\n"),
    ("nul-in-value", "GET / HTTP/1.1\r\n{h}\r\nx-a: 1\u{0}2\r\n\r\n"),
    ("return-in-value", "GET / HTTP/1.1\r\n{h}\r\nx-a: 1\r2\r\n\r\n"),
    (
        "length-twice",
        "POST / HTTP/1.1\r\n{h}\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
    ),
    (
        "length-differs",
        "POST / HTTP/1.1\r\n{h}\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
    ),
    (
        "length-list",
        "POST / HTTP/1.1\r\n{h}\r\ncontent-length: 2, 2\r\n\r\nok",
    ),
    (
        "length-negative",
        "POST / HTTP/1.1\r\n{h}\r\ncontent-length: -2\r\n\r\nok",
    ),
    (
        "length-plus",
        "POST / HTTP/1.1\r\n{h}\r\ncontent-length: +2\r\n\r\nok",
    ),
    (
        "length-word",
        "POST / HTTP/1.1\r\n{h}\r\ncontent-length: two\r\n\r\nok",
    ),
    (
        "length-huge",
        "POST / HTTP/1.1\r\n{h}\r\ncontent-length: 99999999999999999999\r\n\r\nok",
    ),
    (
        "both-lengths",
        "POST / HTTP/1.1\r\n{h}\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    (
        "coding-gzip",
        "POST / HTTP/1.1\r\n{h}\r\ntransfer-encoding: gzip\r\n\r\n",
    ),
    (
        "coding-gzip-chunked",
        "POST / HTTP/1.1\r\n{h}\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "coding-chunked-twice",
        "POST / HTTP/1.1\r\n{h}\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "coding-identity",
        "POST / HTTP/1.1\r\n{h}\r\ntransfer-encoding: identity\r\n\r\n",
    ),
    (
        "coding-case",
        "POST / HTTP/1.1\r\n{h}\r\ntransfer-encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    (
        "chunked-http10",
        "POST / HTTP/1.0\r\n{h}\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    (
        "chunked",
        "POST / HTTP/1.1\r\n{h}\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nA\r\n0123456789\r\n0\r\n\r\n",
    ),
    (
        "chunk-extension",
        "POST / HTTP/1.1\r\n{h}\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\n\r\n",
    ),
    (
        "chunked-trailers",
        "POST / HTTP/1.1\r\n{h}\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n",
    ),
    (
        "chunk-size-invalid",
        "POST / HTTP/1.1\r\n{h}\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
    ),
    (
        "chunk-size-huge",
        "POST / HTTP/1.1\r\n{h}\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nok\r\n0\r\n\r\n",
    ),
    (
        "chunk-without-end",
        "POST / HTTP/1.1\r\n{h}\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n",
    ),
    (
        "pipelined",
        "GET /exact HTTP/1.1\r\n{h}\r\n\r\nGET /direct/teapot HTTP/1.1\r\n{h}\r\n\r\n",
    ),
    (
        "pipelined-post",
        "POST /exact HTTP/1.1\r\n{h}\r\ncontent-length: 2\r\n\r\nokGET /direct/teapot HTTP/1.1\r\n{h}\r\n\r\n",
    ),
    ("not-http", "\u{1}\u{2}\u{3}\u{4}garbage\r\n\r\n"),
    (
        "websocket",
        "GET /origin/switch HTTP/1.1\r\n{h}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ),
];

/// Sent in two parts: the body after an interim answer.
const AWAITED: &[(&str, &str, &str)] = &[
    (
        "expect",
        "POST / HTTP/1.1\r\n{h}\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n",
        "ok",
    ),
    (
        "expect-case",
        "POST / HTTP/1.1\r\n{h}\r\nexpect: 100-Continue\r\ncontent-length: 2\r\n\r\n",
        "ok",
    ),
    (
        "expect-chunked",
        "POST / HTTP/1.1\r\n{h}\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n",
        "2\r\nok\r\n0\r\n\r\n",
    ),
];

/// Those that are sent twice on their connection.
const PIPELINED: &[&str] = &["pipelined", "pipelined-post"];

/// All probes, in order.
pub(super) fn all() -> Vec<Probe> {
    let mut probes: Vec<Probe> = PLAIN.iter().map(plain).collect();
    let with_head = |name: &str, text: &str| {
        let head = format!("host: bench.example\r\nx-probe: {name}");
        latin(&text.replace("{h}", &head))
    };
    for (name, text) in RAW {
        let answers = if PIPELINED.contains(name) { 2 } else { 1 };
        probes.push(Probe {
            name: (*name).to_owned(),
            parts: vec![with_head(name, text)],
            answers: vec![true; answers],
        });
    }
    for (name, head, body) in AWAITED {
        probes.push(Probe {
            name: (*name).to_owned(),
            parts: vec![with_head(name, head), latin(body)],
            answers: vec![true],
        });
    }
    probes.extend(sized());
    probes
}

/// Requests of certain sizes, around the limits.
fn sized() -> Vec<Probe> {
    let mut probes = Vec::new();
    let mut add = |name: &str, request: &str, fields: &str, body: &str| {
        probes.push(Probe {
            name: name.to_owned(),
            parts: vec![request_bytes(name, request, fields, body)],
            answers: vec![true],
        });
    };
    // Beside them stand host and x-probe, and in HTTP/1.1 nothing else that counts.
    for count in [98, 99, 100, 120] {
        let fields: Vec<String> = (0..count - 2).map(|n| format!("x-{n}: 1")).collect();
        add(
            &format!("fields-{count}"),
            "GET /direct/teapot",
            &fields.join("\n"),
            "",
        );
    }
    for kib in [8, 30, 58, 62, 100] {
        let field = format!("x-long: {}", "l".repeat(kib * 1024));
        add(&format!("head-of-{kib}k"), "GET /direct/teapot", &field, "");
    }
    let long = format!("GET /{}", "p".repeat(8000));
    add("path-of-8k", &long, "", "");
    for kib in [1, 64, 300] {
        add(&format!("body-of-{kib}k"), "POST /", "", &"b".repeat(kib * 1024));
    }
    add(
        "body-of-300k-answered-before",
        "POST /direct/teapot",
        "",
        &"b".repeat(300 * 1024),
    );
    probes
}

fn plain((name, request, fields, body): &Plain) -> Probe {
    Probe {
        name: (*name).to_owned(),
        parts: vec![request_bytes(name, request, fields, body)],
        answers: vec![!request.starts_with("HEAD ")],
    }
}

fn request_bytes(name: &str, request: &str, fields: &str, body: &str) -> Vec<u8> {
    let mut text = format!("{request} HTTP/1.1\r\n");
    if !fields.lines().any(|field| field.starts_with("host:")) {
        text.push_str("host: bench.example\r\n");
    }
    text.push_str(&format!("x-probe: {name}\r\n"));
    for field in fields.split('\n').filter(|field| !field.is_empty()) {
        text.push_str(field);
        text.push_str("\r\n");
    }
    if !body.is_empty() {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body);
    latin(&text)
}

/// One byte for each character.
fn latin(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_two_hundred_and_each_has_a_name_of_its_own() {
        let probes = all();
        let mut names: Vec<&str> = probes.iter().map(|probe| probe.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), probes.len());
        assert!(probes.len() >= 200, "{}", probes.len());
    }
}
