//! Heads of requests and responses, the same for every HTTP version.
//!
//! The target of a request is taken apart once: authority, path with query, scheme. An HTTP/1 head keeps slices of
//! the received block (no copy); HTTP/2 puts its pseudo header fields here. The rest of the head is [`Fields`].
//!
//! What this module does not do: normalise paths, decide routes, parse or write any wire format (`h1` does).

use bytes::Bytes;

use crate::fields::{FieldError, Fields, Known, is_token_byte};

/// The protocol version of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2
    Http2,
}

impl Version {
    /// As it is written in a start line or a log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// A request method. Methods are case-sensitive (RFC 9110 §9.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    #[default]
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `CONNECT`
    Connect,
    /// `OPTIONS`
    Options,
    /// `TRACE`
    Trace,
    /// `PATCH`
    Patch,
    /// Any other token.
    Other(OtherMethod),
}

/// A method that has no variant of its own; always a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OtherMethod(Bytes);

impl Method {
    /// The method of these bytes, unless they are no token.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::known(bytes).or_else(|| {
            let token = !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte));
            token.then(|| Self::Other(OtherMethod(Bytes::copy_from_slice(bytes))))
        })
    }

    /// The method that has a variant, if these bytes name one.
    #[inline]
    pub(crate) fn known(bytes: &[u8]) -> Option<Self> {
        Some(match bytes {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => return None,
        })
    }

    /// A method whose bytes the lexer has found to be a token.
    pub(crate) fn from_checked(bytes: Bytes) -> Self {
        Self::Other(OtherMethod(bytes))
    }

    /// As it is written.
    #[expect(clippy::missing_panics_doc, reason = "a token is always ASCII")]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other(other) => std::str::from_utf8(&other.0).expect("a token is ASCII"),
        }
    }

    /// Whether a repeated request has the effect of one (RFC 9110 §9.2.2).
    pub const fn is_idempotent(&self) -> bool {
        matches!(
            self,
            Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace
        )
    }

    /// Whether the request only reads (RFC 9110 §9.2.1).
    pub const fn is_safe(&self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// Whether a body is usual, so that an empty one is announced by `content-length: 0` (RFC 9110 §8.6).
    pub(crate) const fn expects_body(&self) -> bool {
        matches!(self, Self::Post | Self::Put | Self::Patch)
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The scheme of a request's target, where it has one (absolute-form, HTTP/2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// The scheme of these bytes, in any case. Others than http and https are none that a mesh forwards.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.eq_ignore_ascii_case(b"http") {
            Some(Self::Http)
        } else if bytes.eq_ignore_ascii_case(b"https") {
            Some(Self::Https)
        } else {
            None
        }
    }

    /// In lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The form in which the target of a request was received (RFC 9112 §3.2) and will be written to HTTP/1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TargetForm {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://authority/path?query`; what a client sends to a proxy it was configured with. Forwarded as origin
    /// form, see [`RequestHead::form`].
    Absolute,
    /// `host:port`, with CONNECT only.
    Authority,
    /// `*`, with OPTIONS only.
    Asterisk,
}

/// The head of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The form in which the target was received. A head of the form `Absolute` is written to HTTP/1 in origin
    /// form (the next hop is an origin for us) unless the caller leaves `Absolute` and sets `scheme`, and the
    /// encoder is told to keep it; see `h1::ClientOptions::absolute_form`.
    pub form: TargetForm,
    /// `http` or `https` where the target named it.
    pub scheme: Option<Scheme>,
    /// Host and port as the target or else `host` named it; empty when there is none. Change it with
    /// [`RequestHead::set_authority`].
    pub authority: Bytes,
    /// Path and query, starting with `/`; `*` for the asterisk form, empty for the authority form.
    pub path_and_query: Bytes,
    /// The version of the protocol in which it arrived.
    pub version: Version,
    /// The header fields. In HTTP/1 form they hold `host` at its place.
    pub fields: Fields,
}

impl RequestHead {
    /// A request in origin form.
    pub fn new(method: Method, path_and_query: impl Into<Bytes>) -> Self {
        Self {
            method,
            path_and_query: path_and_query.into(),
            ..Self::default()
        }
    }

    /// The path without the query.
    pub fn path(&self) -> &[u8] {
        let all = &self.path_and_query;
        all.iter()
            .position(|byte| *byte == b'?')
            .map_or(all, |at| &all[..at])
    }

    /// The query without its question mark, if there is one.
    pub fn query(&self) -> Option<&[u8]> {
        let all = &self.path_and_query;
        all.iter().position(|byte| *byte == b'?').map(|at| &all[at + 1..])
    }

    /// The path and query as text; empty if it is not UTF-8, which no decoder lets through.
    pub fn path_and_query_str(&self) -> &str {
        std::str::from_utf8(&self.path_and_query).unwrap_or_default()
    }

    /// The authority as text; empty if it is not UTF-8, which no decoder lets through.
    pub fn authority_str(&self) -> &str {
        std::str::from_utf8(&self.authority).unwrap_or_default()
    }

    /// The host of the authority: without port, IPv6 addresses without brackets.
    pub fn host(&self) -> &[u8] {
        split_authority(&self.authority).0
    }

    /// The port of the authority, if it names a valid one.
    pub fn port(&self) -> Option<u16> {
        split_authority(&self.authority).1
    }

    /// Replaces the authority, and the `host` field where there is one.
    pub fn set_authority(&mut self, authority: Bytes) -> Result<(), FieldError> {
        if !authority.iter().all(|byte| is_authority_byte(*byte)) {
            return Err(FieldError::InvalidValue);
        }
        if self.fields.contains(Known::Host) {
            self.fields.set(Known::Host, &authority)?;
        }
        self.authority = authority;
        Ok(())
    }
}

/// Splits `host[:port]`; the brackets of an IPv6 address are taken off. An invalid port is `None`.
pub fn split_authority(authority: &[u8]) -> (&[u8], Option<u16>) {
    let (host, port) = if let Some(rest) = authority.strip_prefix(b"[") {
        match rest.iter().position(|byte| *byte == b']') {
            Some(end) => (&rest[..end], rest[end + 1..].strip_prefix(b":")),
            None => (authority, None),
        }
    } else {
        match authority.iter().rposition(|byte| *byte == b':') {
            Some(colon) => (&authority[..colon], Some(&authority[colon + 1..])),
            None => (authority, None),
        }
    };
    let digits = port.filter(|port| !port.is_empty() && port.iter().all(u8::is_ascii_digit));
    (
        host,
        digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse().ok()),
    )
}

/// Whether a byte may stand in an authority without user information (RFC 3986 §3.2).
pub(crate) const fn is_authority_byte(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\''
        | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b'%' | b'[' | b']' | b':')
}

/// Whether a byte may stand in a path with query as we accept it: RFC 3986 §3.3 and what browsers and libraries send
/// beside it (`"`, `[`, `\`, `]`, `^`, `{`, `|`, `}`). Never white space, controls, `#`, `<`, `>`, the backquote or
/// bytes above ASCII.
pub(crate) const fn is_path_byte(byte: u8) -> bool {
    byte > b' ' && byte < 0x7f && !matches!(byte, b'#' | b'<' | b'>' | b'`')
}

/// The head of a response.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResponseHead {
    /// The status code, 100 to 999 (RFC 9110 §15 gives meaning to 100 to 599).
    pub status: u16,
    /// The reason phrase as received; empty where there was none. HTTP/1 then gets the customary phrase.
    pub reason: Bytes,
    /// The version of the protocol in which it arrived.
    pub version: Version,
    /// The header fields.
    pub fields: Fields,
}

impl ResponseHead {
    /// A response without fields.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// Whether it is an interim response (1xx other than 101, which ends the HTTP exchange).
    pub const fn is_informational(&self) -> bool {
        self.status >= 100 && self.status < 200 && self.status != 101
    }
}

/// The customary reason phrase of a status code (RFC 9110 §15 and the registry); empty for an unknown one.
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400..=499 => client_error_phrase(status),
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "",
    }
}

const fn client_error_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        _ => "",
    }
}
