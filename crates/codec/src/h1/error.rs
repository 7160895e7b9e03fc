//! Why received bytes are not HTTP/1 as we accept it. Each variant is one rule, so that a refusal can be counted and
//! explained; a table test makes each of them happen.

use thiserror::Error;

/// A rule that received bytes break. After any of these the connection is out of step: answer (a server, with
/// [`DecodeError::status`]) and close.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The head exceeds `Limits::max_head_bytes`.
    #[error("the head is too large")]
    HeadTooLarge,
    /// More fields than `Limits::max_headers`.
    #[error("too many header fields")]
    TooManyHeaders,
    /// The request target exceeds `Limits::max_target_bytes`, or the request line the whole head's limit.
    #[error("the request target is too long")]
    TargetTooLong,
    /// More than four empty lines before a request line (RFC 9112 §2.2).
    #[error("too many empty lines before the request line")]
    EmptyLines,
    /// The request line is not `method SP target SP version`.
    #[error("malformed request line")]
    RequestLine,
    /// The method is not a token.
    #[error("invalid method")]
    Method,
    /// The target has a forbidden character or a form that its method does not allow (RFC 9112 §3.2).
    #[error("invalid request target")]
    Target,
    /// An absolute target of a scheme other than http and https.
    #[error("unsupported scheme in the request target")]
    Scheme,
    /// The status line is not `version SP three digits SP reason`, or the code is under 100.
    #[error("malformed status line")]
    StatusLine,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    #[error("unsupported HTTP version")]
    Version,
    /// HTTP/1.0 where the listener does not accept it.
    #[error("HTTP/1.0 is not accepted here")]
    Http10Refused,
    /// A bare CR or bare LF where CRLF belongs (RFC 9112 §2.2).
    #[error("a line does not end in CRLF")]
    LineEnding,
    /// A field name that is empty or no token (RFC 9110 §5.1).
    #[error("invalid header field name")]
    HeaderName,
    /// White space between a field's name and its colon (RFC 9112 §5.1).
    #[error("white space before the colon of a header field")]
    WhitespaceBeforeColon,
    /// A line that continues the previous one, obs-fold (RFC 9112 §5.2).
    #[error("folded header field")]
    ObsFold,
    /// A control character in a field value (RFC 9110 §5.5).
    #[error("invalid character in a header field value")]
    HeaderValue,
    /// HTTP/1.1 without `host` (RFC 9112 §3.2).
    #[error("the host field is missing")]
    HostMissing,
    /// More than one `host` field.
    #[error("more than one host field")]
    HostDuplicate,
    /// `host` or the target's authority is no `host[:port]`; user information is refused too (RFC 9110 §4.2.4).
    #[error("invalid host")]
    HostInvalid,
    /// Both `content-length` and `transfer-encoding` (RFC 9112 §6.1): request smuggling.
    #[error("both content-length and transfer-encoding")]
    LengthAndTransferEncoding,
    /// `content-length` is not a plain decimal number of 64 bits.
    #[error("invalid content-length")]
    ContentLength,
    /// `content-length` more than once, as a list or as several fields, even if equal.
    #[error("more than one content-length")]
    ContentLengthDuplicate,
    /// `transfer-encoding` that is not `chunked` once and last (RFC 9112 §6.3).
    #[error("invalid transfer-encoding")]
    TransferEncoding,
    /// A transfer coding before `chunked`, which we do not implement (RFC 9112 §6.1).
    #[error("unsupported transfer-encoding")]
    TransferEncodingUnsupported,
    /// `transfer-encoding` in an HTTP/1.0 message (RFC 9112 §6.1).
    #[error("transfer-encoding in an HTTP/1.0 message")]
    TransferEncodingInHttp10,
    /// CONNECT with a body.
    #[error("CONNECT with a body")]
    ConnectBody,
    /// `connection` with more than 64 options or one that is no token.
    #[error("invalid connection field")]
    Connection,
    /// A chunk's size is not a hexadecimal number (RFC 9112 §7.1).
    #[error("invalid chunk size")]
    ChunkSize,
    /// A chunk's size has more than 16 digits.
    #[error("the chunk size is too large")]
    ChunkSizeOverflow,
    /// A line of the chunked coding does not end in CRLF, or a chunk is longer than it says.
    #[error("a chunk does not end in CRLF")]
    ChunkLineEnding,
    /// A control character in a chunk extension.
    #[error("invalid chunk extension")]
    ChunkExtension,
    /// More than `Limits::max_chunk_extension_bytes`.
    #[error("the chunk extensions are too long")]
    ChunkExtensionTooLong,
    /// The trailers exceed `Limits::max_trailer_bytes` or `Limits::max_trailers`.
    #[error("the trailers are too large")]
    TrailersTooLarge,
    /// A trailer that frames or routes: content-length, transfer-encoding, host (RFC 9110 §6.5.1).
    #[error("forbidden trailer field")]
    TrailerForbidden,
    /// The peer closed in the middle of a message.
    #[error("the connection ended within a message")]
    Truncated,
    /// Bytes from a server that was asked nothing.
    #[error("unexpected bytes from the server")]
    UnexpectedData,
    /// 101 without a request to upgrade, or before the request's body was sent.
    #[error("unexpected 101 response")]
    UnexpectedUpgrade,
    /// More interim responses than `Limits::max_informational`.
    #[error("too many interim responses")]
    TooManyInformational,
    /// The machine was asked to decode after it had failed or where nothing is to be decoded; a defect of the caller.
    #[error("decoding in a state that does not allow it")]
    OutOfStep,
}

impl DecodeError {
    /// The status with which a server answers. (A client side answers 502 downstream whatever the rule.)
    pub const fn status(self) -> u16 {
        match self {
            Self::HeadTooLarge | Self::TooManyHeaders | Self::TrailersTooLarge => 431,
            Self::TargetTooLong => 414,
            Self::Version => 505,
            // Envoy: what it answers when `accept_http_10` is off.
            Self::Http10Refused => 426,
            Self::TransferEncodingUnsupported => 501,
            Self::OutOfStep => 500,
            _ => 400,
        }
    }

    /// Whether the connection must be closed after the answer. Always: after a broken rule nobody knows where the
    /// next message starts (RFC 9112 §2.2, §6.3).
    pub const fn must_close(self) -> bool {
        true
    }

    /// Whether an answer makes sense: not when the peer is gone.
    pub const fn is_answerable(self) -> bool {
        !matches!(self, Self::Truncated)
    }

    /// A short stable name, for the response's detail and for counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyHeaders => "too_many_headers",
            Self::TargetTooLong => "target_too_long",
            Self::EmptyLines => "empty_lines",
            Self::RequestLine => "request_line",
            Self::Method => "method",
            Self::Target => "target",
            Self::Scheme => "scheme",
            Self::StatusLine => "status_line",
            Self::Version => "version",
            Self::Http10Refused => "http10_refused",
            Self::LineEnding => "line_ending",
            Self::HeaderName => "header_name",
            Self::WhitespaceBeforeColon => "whitespace_before_colon",
            Self::ObsFold => "obs_fold",
            Self::HeaderValue => "header_value",
            Self::HostMissing => "host_missing",
            Self::HostDuplicate => "host_duplicate",
            Self::HostInvalid => "host_invalid",
            Self::LengthAndTransferEncoding => "length_and_transfer_encoding",
            Self::ContentLength => "content_length",
            Self::ContentLengthDuplicate => "content_length_duplicate",
            Self::TransferEncoding => "transfer_encoding",
            Self::TransferEncodingUnsupported => "transfer_encoding_unsupported",
            Self::TransferEncodingInHttp10 => "transfer_encoding_in_http10",
            Self::ConnectBody => "connect_body",
            Self::Connection => "connection",
            Self::ChunkSize => "chunk_size",
            Self::ChunkSizeOverflow => "chunk_size_overflow",
            Self::ChunkLineEnding => "chunk_line_ending",
            Self::ChunkExtension => "chunk_extension",
            Self::ChunkExtensionTooLong => "chunk_extension_too_long",
            Self::TrailersTooLarge => "trailers_too_large",
            Self::TrailerForbidden => "trailer_forbidden",
            Self::Truncated => "truncated",
            Self::UnexpectedData => "unexpected_data",
            Self::UnexpectedUpgrade => "unexpected_upgrade",
            Self::TooManyInformational => "too_many_informational",
            Self::OutOfStep => "out_of_step",
        }
    }
}
