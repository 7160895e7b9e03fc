//! Known ways to make two servers frame one stream of bytes differently (CL.TE, TE.CL, TE.TE, CL.0 and relatives).
//! For each: the attack is refused before anything is passed on, or both readings are the same by construction.

use rajut_codec::h1::{DecodeError, Limits};

use crate::h1::{Seen, read_requests, read_responses};

/// The hidden request that a victim behind us must never see as one of its own.
const HIDDEN: &str = "GET /admin HTTP/1.1\r\nHost: internal\r\n\r\n";

#[track_caller]
fn refused(request: &str, error: DecodeError) {
    let input = format!("{request}{HIDDEN}");
    let seen = read_requests(input.as_bytes(), Limits::default(), || usize::MAX);
    assert_eq!(seen.last(), Some(&Seen::Error(error)), "{input:?}");
    let hidden = |one: &Seen| matches!(one, Seen::Request(head, ..) if head.path() == b"/admin");
    assert!(!seen.iter().any(hidden), "the hidden request was read: {input:?}");
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

macro_rules! vectors {
    ($($name:ident: $request:expr => $error:ident;)*) => {
        $(#[test]
        fn $name() {
            refused(&$request, DecodeError::$error);
        })*
    };
}

vectors! {
    cl_te: post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nX") => LengthAndTransferEncoding;
    te_cl: post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "5c\r\n") => LengthAndTransferEncoding;
    te_te_second_is_unknown:
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n", "0\r\n\r\n") => TransferEncoding;
    te_te_first_is_unknown:
        post("Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n") => TransferEncoding;
    te_prefixed: post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n") => TransferEncoding;
    te_quoted: post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n") => TransferEncoding;
    te_with_parameter: post("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n") => TransferEncoding;
    te_list_with_empty: post("Transfer-Encoding: ,chunked\r\n", "0\r\n\r\n") => TransferEncoding;
    te_identity_then_chunked:
        post("Transfer-Encoding: identity, chunked\r\n", "0\r\n\r\n") => TransferEncodingUnsupported;
    te_chunked_not_last: post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n") => TransferEncoding;
    te_vertical_tab: post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n") => HeaderValue;
    te_name_with_space: post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n") => WhitespaceBeforeColon;
    te_name_with_tab: post("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n") => WhitespaceBeforeColon;
    te_name_with_leading_space: post(" Transfer-Encoding: chunked\r\n", "0\r\n\r\n") => ObsFold;
    te_folded: post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n") => ObsFold;
    te_behind_bare_lf: post("X: y\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n") => LineEnding;
    te_behind_bare_cr: post("X: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n") => LineEnding;
    te_behind_nul: post("X: y\0Transfer-Encoding: chunked\r\n", "0\r\n\r\n") => HeaderValue;
    te_in_http10:
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned() => TransferEncodingInHttp10;
    cl_cl_different: post("Content-Length: 0\r\nContent-Length: 40\r\n", "") => ContentLengthDuplicate;
    cl_cl_equal: post("Content-Length: 0\r\nContent-Length: 0\r\n", "") => ContentLengthDuplicate;
    cl_list: post("Content-Length: 0, 40\r\n", "") => ContentLengthDuplicate;
    cl_plus: post("Content-Length: +40\r\n", "") => ContentLength;
    cl_minus: post("Content-Length: -1\r\n", "") => ContentLength;
    cl_hexadecimal: post("Content-Length: 0x28\r\n", "") => ContentLength;
    cl_fraction: post("Content-Length: 4.0\r\n", "") => ContentLength;
    cl_inner_space: post("Content-Length: 4 0\r\n", "") => ContentLength;
    cl_overflow: post("Content-Length: 18446744073709551656\r\n", "") => ContentLength;
    cl_empty: post("Content-Length: \r\n", "") => ContentLength;
    cl_name_with_space: post("Content-Length : 40\r\n", "") => WhitespaceBeforeColon;
    cl_folded: post("Content-Length: 0\r\n 40\r\n", "") => ObsFold;
    cl_underscore_is_another_name_but_te_rules:
        post("Content_Length: 40\r\nTransfer-Encoding: gzip\r\n", "") => TransferEncoding;
    chunk_size_with_prefix: post("Transfer-Encoding: chunked\r\n", "0x0\r\n\r\n") => ChunkSize;
    chunk_size_negative: post("Transfer-Encoding: chunked\r\n", "-1\r\n\r\n") => ChunkSize;
    chunk_size_wraps: post("Transfer-Encoding: chunked\r\n", "10000000000000000\r\n\r\n") => ChunkSizeOverflow;
    chunk_size_underscore: post("Transfer-Encoding: chunked\r\n", "0_2e\r\n\r\n") => ChunkSize;
    chunk_line_bare_lf: post("Transfer-Encoding: chunked\r\n", "0\n\r\n") => ChunkLineEnding;
    chunk_line_bare_cr: post("Transfer-Encoding: chunked\r\n", "0\rX\r\n") => ChunkLineEnding;
    chunk_extension_bare_lf: post("Transfer-Encoding: chunked\r\n", "2;\nxx\r\n0\r\n\r\n") => ChunkLineEnding;
    chunk_extension_nul: post("Transfer-Encoding: chunked\r\n", "2;\0\r\nxx\r\n0\r\n\r\n") => ChunkExtension;
    chunk_data_too_long: post("Transfer-Encoding: chunked\r\n", "2\r\nxxx\r\n0\r\n\r\n") => ChunkLineEnding;
    chunk_end_spilled: post("Transfer-Encoding: chunked\r\n", "2\r\nxxGET0\r\n\r\n") => ChunkLineEnding;
    trailer_frames: post("Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 40\r\n\r\n") => TrailerForbidden;
    trailer_bare_lf: post("Transfer-Encoding: chunked\r\n", "0\r\nX: y\n\r\n") => LineEnding;
    host_twice: "GET / HTTP/1.1\r\nHost: a\r\nHost: internal\r\n\r\n".to_owned() => HostDuplicate;
    host_folded: "GET / HTTP/1.1\r\nHost: a\r\n\tinternal\r\n\r\n".to_owned() => ObsFold;
    host_with_path: "GET / HTTP/1.1\r\nHost: a/../internal\r\n\r\n".to_owned() => HostInvalid;
    host_with_user: "GET / HTTP/1.1\r\nHost: internal@a\r\n\r\n".to_owned() => HostInvalid;
    request_line_bare_lf: "GET / HTTP/1.1\nHost: a\r\n\r\n".to_owned() => LineEnding;
    request_line_two_spaces: "GET /  HTTP/1.1\r\nHost: a\r\n\r\n".to_owned() => RequestLine;
    request_line_tab: "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned() => Method;
    request_line_cr_in_target: "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n".to_owned() => LineEnding;
    http09: "GET /\r\n\r\n".to_owned() => RequestLine;
    http2_preface: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned() => Version;
    connect_with_length:
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 40\r\n\r\n".to_owned() => ConnectBody;
    absolute_with_user: "GET http://internal@a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned() => HostInvalid;
}

/// CL.0: a body on a GET is read as a body, so what is hidden in it stays in it.
#[test]
fn cl_zero_a_body_on_get_is_a_body() {
    let input = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{HIDDEN}",
        HIDDEN.len()
    );
    let seen = read_requests(input.as_bytes(), Limits::default(), || usize::MAX);
    assert!(matches!(seen[0], Seen::Request(..)));
    assert_eq!(seen[1], Seen::Data(HIDDEN.as_bytes().to_vec()));
    assert_eq!(seen.len(), 4, "{seen:?}");
}

/// An upgrade to h2c would carry HTTP/2 requests past us: it is never an upgrade for us.
#[test]
fn h2c_upgrade_is_ignored() {
    for protocols in ["h2c", "H2C", "websocket, h2c", "h2c, websocket", "HTTP/2.0", "h2"] {
        let input = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocols}\r\n\
             HTTP2-Settings: AAMAAABkAARAAAAA\r\n\r\n"
        );
        let seen = read_requests(input.as_bytes(), Limits::default(), || usize::MAX);
        assert!(matches!(seen[0], Seen::Request(_, _, _, false)), "{protocols}");
    }
}

/// A desync from the other side: a server that frames its response twice.
#[test]
fn responses_that_frame_twice_are_refused() {
    let request = rajut_codec::RequestHead::new(rajut_codec::Method::Get, "/");
    for (fields, error) in [
        (
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            DecodeError::LengthAndTransferEncoding,
        ),
        (
            "Content-Length: 0\r\nContent-Length: 9\r\n",
            DecodeError::ContentLengthDuplicate,
        ),
        ("Content-Length : 0\r\n", DecodeError::WhitespaceBeforeColon),
        ("Content-Length: 0\nX: y\r\n", DecodeError::LineEnding),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
            DecodeError::TransferEncoding,
        ),
    ] {
        let input = format!("HTTP/1.1 200 OK\r\n{fields}\r\nHTTP/1.1 200 OK\r\n\r\n");
        let seen = read_responses(&request, input.as_bytes(), Limits::default(), || usize::MAX);
        assert_eq!(seen, [Seen::Error(error)], "{fields:?}");
    }
}
