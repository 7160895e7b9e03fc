//! Differences between us and Envoy that are known, each with its reason. All others fail the run.

/// Probes (`*`: any), how the difference begins, and why it is there.
type Known = (&'static [&'static str], &'static [&'static str], &'static str);

/// Where we mean to differ.
const MEANT: &[Known] = &[
    (
        &[
            "two-spaces",
            "bare-newlines",
            "folded",
            "return-in-value",
            "two-hosts",
            "host-empty",
            "chunk-without-end",
        ],
        &[""],
        "refused with 400, as RFC 9112 lets a server do with what intermediaries read differently; Envoy mends it",
    ),
    (
        &["*"],
        &["phrase:"],
        "the reason phrase is passed on as it came (and left out where we answer with a status that has none); Envoy \
         writes its own",
    ),
    (
        &["*"],
        &["refusal:"],
        "a request that can't be read is refused without a body; Envoy says the reason phrase once more",
    ),
    (
        &[
            "http10",
            "http10-without-host",
            "http10-keep-alive",
            "chunked-http10",
        ],
        &["version:"],
        "HTTP/1.0 is answered in HTTP/1.0",
    ),
    (
        &["http09", "http12", "http20-line"],
        &["status:"],
        "an unknown version is refused with 505, a line without one with 400; Envoy asks for an upgrade (426)",
    ),
    (
        &["coding-gzip", "coding-chunked-twice", "coding-identity"],
        &["status:"],
        "a coding that ends in anything but one `chunked` is refused with 400, Envoy says 501",
    ),
    (
        &["lower-case-method"],
        &[""],
        "methods are tokens (RFC 9110): an unknown one is forwarded",
    ),
    (
        &["back-trailers", "back-trailers-wanted", "chunked-trailers"],
        &["body: only rajut: trailer"],
        "trailers pass, also over HTTP/1.1; Envoy drops them there",
    ),
    (
        &["back-hop-by-hop"],
        &["field: only envoy: x-hop"],
        "a field that `connection` names ends at this hop (RFC 9110)",
    ),
    (
        &["te-trailers", "te-other"],
        &["body: only rajut: connection: te"],
        "`te` is announced in `connection` (RFC 9110)",
    ),
    (&["back-early"], &["interim:"], "103 passes; Envoy drops it"),
    (
        &[
            "not-found-post",
            "redirect-post",
            "limited-post",
            "rbac-denied-post",
            "connect",
            "upgrade-unknown",
            "upgrade-websocket-refused",
            "body-of-300k-answered-before",
        ],
        &[
            "field: only envoy: connection: close",
            "answer: stays(true)",
            "log: 0 lines",
        ],
        "answered early: the rest of the body is read and the connection stays; Envoy closes it",
    ),
    (
        &["*"],
        &["field: only envoy: transfer-encoding: chunked"],
        "an answer to HEAD has no body, so it announces none",
    ),
    (
        &["retried-silent"],
        &[
            "body: only rajut: x-envoy-attempt-count",
            "body: only envoy: x-envoy-attempt-count",
        ],
        "a reused connection that dies unanswered is not counted as an attempt",
    ),
    (
        &["upgrade-websocket-not-taken"],
        &[""],
        "a server that declines an upgrade is heard; Envoy makes 502 of its answer",
    ),
    (
        &["websocket"],
        &[
            "field: only rajut: sec-websocket-accept",
            "field: only rajut: x-envoy-upstream",
            "log:",
        ],
        "an upgrade that the server ends at once: the flags of its end differ",
    ),
    (
        &["big-field-back"],
        &[""],
        "the answer's head is limited to 60 KiB like the request's; Envoy takes 80",
    ),
    (
        &["options", "custom-method"],
        &["body: only envoy: content-length: 0"],
        "a request without a body stays without its length",
    ),
    (
        &["rewrite-host-forwarded"],
        &[
            "body: only rajut: x-forwarded-host",
            "body: only envoy: x-forwarded-host",
        ],
        "lists are joined with a comma and a space",
    ),
    (
        &["too-slow-grpc"],
        &["field:"],
        "a gRPC call whose time is over ends with DEADLINE_EXCEEDED, as gRPC's own libraries end it; Envoy says UNAVAILABLE",
    ),
];

/// Where we do not mean to differ and still do: to be mended.
const OPEN: &[Known] = &[
    (
        &[
            "by-header-unknown",
            "nobody-listens",
            "nobody-listens-grpc",
            "garbage",
            "both-lengths-back",
        ],
        &[
            "body:",
            "field: only rajut: grpc-message",
            "field: only envoy: grpc-message",
            "log: response_code_details",
            "log: upstream_transport_failure_reason",
        ],
        "OPEN: the cause of a broken connection behind us stands in the body and is written differently in the log",
    ),
    (
        &["cut-short"],
        &["log:"],
        "OPEN: an answer that is cut short is logged as if it had not begun",
    ),
    (
        &["retried-by-header", "envoy-internal", "envoy-timeout"],
        &["body: only rajut: x-envoy-"],
        "OPEN: Envoy's own request fields are passed on",
    ),
    (
        &["chunk-size-huge"],
        &["log: upstream_local_address"],
        "OPEN: an address that Envoy leaves out",
    ),
    (
        &[
            "fragment",
            "without-host",
            "body-of-300k",
            "(requests that could not be read)",
        ],
        &["log:"],
        "OPEN: what could not be read is logged once more or less, and without what was read",
    ),
];

/// Why this difference is there, if it is known.
pub(super) fn reason(probe: &str, difference: &str) -> Option<&'static str> {
    MEANT
        .iter()
        .chain(OPEN)
        .find(|(probes, begins, _)| {
            probes.iter().any(|which| *which == "*" || *which == probe)
                && begins.iter().any(|begin| difference.starts_with(begin))
        })
        .map(|(_, _, reason)| *reason)
}
