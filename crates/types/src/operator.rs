//! The operators of Envoy's format strings by name: `%START_TIME%`, `%REQ(X?Y):20%`. For those who must know whether a format
//! can be used, or what it asks for, without rendering it; `telemetry` has the same names with their meaning.

/// All that there are; the arguments of each are judged where it is rendered.
pub const OPERATORS: [&str; 56] = [
    "REQ",
    "RESP",
    "TRAILER",
    "REQ_WITHOUT_QUERY",
    "PATH",
    "QUERY_PARAM",
    "QUERY_PARAMS",
    "START_TIME",
    "PROTOCOL",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "CONNECTION_TERMINATION_DETAILS",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "DURATION",
    "REQUEST_DURATION",
    "REQUEST_TX_DURATION",
    "RESPONSE_DURATION",
    "RESPONSE_TX_DURATION",
    "UPSTREAM_HOST",
    "UPSTREAM_HOST_NAME",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_REMOTE_PORT",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_CLUSTER_RAW",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "UPSTREAM_WIRE_BYTES_SENT",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "REQUESTED_SERVER_NAME",
    "ROUTE_NAME",
    "CONNECTION_ID",
    "HOSTNAME",
    "TRACE_ID",
    "STREAM_ID",
    "GRPC_STATUS",
    "GRPC_STATUS_NUMBER",
];

/// A part of a format string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'f> {
    /// Text; `%%` stands for `%` in it.
    Literal(&'f str),
    /// What stands between two `%`.
    Operator(&'f str),
    /// From a `%` that has no partner to the end.
    Unterminated(&'f str),
}

/// The parts of a format string, in order.
pub fn parts(format: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = format;
    std::iter::from_fn(move || {
        let Some(at) = rest.find('%') else {
            let literal = std::mem::take(&mut rest);
            return (!literal.is_empty()).then_some(Part::Literal(literal));
        };
        if at > 0 {
            let (literal, after) = rest.split_at(at);
            rest = after;
            return Some(Part::Literal(literal));
        }
        let inner = rest.strip_prefix('%').unwrap_or_default();
        if let Some(after) = inner.strip_prefix('%') {
            let (literal, _) = rest.split_at(2);
            rest = after;
            return Some(Part::Literal(literal));
        }
        let Some(end) = operator_end(inner) else {
            return Some(Part::Unterminated(std::mem::take(&mut rest)));
        };
        let (operator, after) = inner.split_at(end);
        rest = after.strip_prefix('%').unwrap_or_default();
        Some(Part::Operator(operator))
    })
}

/// What of a format can't be used.
pub fn unknown(format: &str) -> Option<String> {
    parts(format).find_map(|part| match part {
        Part::Literal(_) => None,
        Part::Unterminated(_) => Some("a % sign has no partner (write %% for one)".to_owned()),
        Part::Operator(operator) => {
            let name = operator.split(['(', ':']).next().unwrap_or_default();
            let is_known = OPERATORS.contains(&name)
                && (name != "REQ_WITHOUT_QUERY" || path_without_query(operator).is_some());
            (!is_known).then(|| format!("%{operator}% is not a supported operator"))
        }
    })
}

/// `%REQ_WITHOUT_QUERY(…)%` and `%REQ(…)%` of the path as `%PATH(…)%` without the query, which Envoy has without an extension;
/// `None` where it is of another header.
pub fn path_without_query(operator: &str) -> Option<String> {
    let (_, rest) = operator.split_once('(')?;
    let (arguments, length) = rest.split_once(')')?;
    let form = match &*arguments.to_ascii_lowercase() {
        ":path" => "NQ:PATH",
        "x-envoy-original-path" => "NQ:ORIG",
        "x-envoy-original-path?:path" => "NQ",
        _ => return None,
    };
    Some(format!("PATH({form}){length}"))
}

/// The end of an operator: the next `%` outside of parentheses (a time's format has its own).
fn operator_end(rest: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'%' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_comes_apart() {
        let found: Vec<_> = parts("a %START_TIME(%s %%)% 5%% %REQ(X)%%").collect();
        assert_eq!(
            found,
            [
                Part::Literal("a "),
                Part::Operator("START_TIME(%s %%)"),
                Part::Literal(" 5"),
                Part::Literal("%%"),
                Part::Literal(" "),
                Part::Operator("REQ(X)"),
                Part::Unterminated("%"),
            ]
        );
        assert_eq!(unknown("%PROTOCOL% %REQ(X?Y):3%"), None);
        assert!(unknown("%FOO(x)%").is_some_and(|why| why.contains("%FOO(x)%")));
        assert!(unknown("100%").is_some());
        assert_eq!(
            unknown("%REQ_WITHOUT_QUERY(X-Envoy-Original-Path?:PATH):9%"),
            None
        );
        assert!(unknown("%REQ_WITHOUT_QUERY(REFERER)%").is_some());
        assert_eq!(
            path_without_query("REQ(:PATH):9").as_deref(),
            Some("PATH(NQ:PATH):9")
        );
    }
}
