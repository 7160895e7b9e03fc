//! From bytes to a head: httparse does the lexing, this module what httparse leaves open (it accepts bare LF, any
//! visible target, leading empty lines) and the target's forms (RFC 9112 §3.2).
//!
//! A head that arrives in pieces is not lexed anew for every piece: up to 4 KiB yes (cheap, and errors show early),
//! above that only when its end is there or the bytes have doubled. So the work stays linear in the head's size.
//! Bounds: `Limits::max_head_bytes`, `max_headers`. What it does not do: the meaning of fields (`framing.rs`).

use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};

use super::{DecodeError, Limits};
use crate::{
    fields::{Fields, FieldsBuilder, Known, KnownSet, is_token_byte, is_value_byte},
    message::{
        Method, RequestHead, ResponseHead, Scheme, TargetForm, Version, is_authority_byte, is_path_byte,
    },
};

/// Fields for which the lexer has room on the stack; more need a list of their own.
const STACK_HEADERS: usize = 128;
/// Empty lines that are skipped before a request line.
const MAX_EMPTY_LINES: u8 = 4;
/// Up to this size a head is lexed at every piece that arrives.
const EAGER_BYTES: usize = 4096;

/// What is known about a head that has not arrived whole.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Bytes that were there when it was last lexed.
    lexed: usize,
    /// Bytes in which its end has been looked for.
    searched: usize,
    empty_lines: u8,
}

impl Progress {
    /// Whether lexing now can be worth it.
    fn worth_lexing(&mut self, buf: &[u8], limit: usize) -> bool {
        if self.lexed == 0 || buf.len() <= EAGER_BYTES || buf.len() >= limit || buf.len() >= 2 * self.lexed {
            return true;
        }
        let from = self.searched.saturating_sub(3).min(buf.len());
        self.searched = buf.len();
        has_end(&buf[from..])
    }

    fn partial(&mut self, len: usize) {
        self.lexed = len;
        self.searched = len;
    }

    /// Nothing of a head has arrived.
    pub(crate) fn is_fresh(self) -> bool {
        self.lexed == 0
    }
}

/// Whether an empty line ends here, properly or not.
fn has_end(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

/// A lexed head, its fields' meaning not judged yet.
pub(crate) struct Lexed<H> {
    pub(crate) head: H,
    /// Known names that stand on more than one line.
    pub(crate) repeated: KnownSet,
}

/// Takes the next request head off `buf` once it is complete.
pub(crate) fn request(
    buf: &mut BytesMut,
    limits: &Limits,
    progress: &mut Progress,
) -> Result<Option<Lexed<RequestHead>>, DecodeError> {
    skip_empty_lines(buf, progress)?;
    if buf.is_empty() || !progress.worth_lexing(buf, limits.max_head_bytes) {
        return Ok(None);
    }
    let window = &buf[..buf.len().min(limits.max_head_bytes)];
    let mut headers = [const { MaybeUninit::uninit() }; STACK_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let room = &mut headers[..limits.max_headers.min(STACK_HEADERS)];
    let lexed = match request.parse_with_uninit_headers(window, room) {
        Err(httparse::Error::TooManyHeaders) if limits.max_headers > STACK_HEADERS => {
            let mut headers = vec![httparse::EMPTY_HEADER; limits.max_headers];
            let mut request = httparse::Request::new(&mut headers);
            let status = request.parse(window);
            request_parts(status, &request, window, limits)
        }
        status => request_parts(status, &request, window, limits),
    };
    let Some(parts) = lexed? else {
        progress.partial(buf.len());
        return Ok(None);
    };
    *progress = Progress::default();
    let block = buf.split_to(parts.len).freeze();
    let target = parts.target;
    let slice = |(start, end): (usize, usize)| block.slice(start..end);
    let head = RequestHead {
        method: parts
            .method
            .unwrap_or_else(|| Method::from_checked(block.slice(..parts.method_len))),
        form: target.form,
        scheme: target.scheme,
        authority: target.authority.map(slice).unwrap_or_default(),
        path_and_query: match target.path {
            Path::Range(range) => slice(range),
            Path::Static(path) => bytes::Bytes::from_static(path),
        },
        version: parts.version,
        fields: parts.fields.finish(block.clone()),
    };
    Ok(Some(Lexed {
        head,
        repeated: parts.repeated,
    }))
}

/// Offsets of a request head, free of the borrow of the buffer.
struct RequestParts {
    len: usize,
    method: Option<Method>,
    method_len: usize,
    target: Target,
    version: Version,
    fields: FieldsBuilder,
    repeated: KnownSet,
}

fn request_parts(
    status: httparse::Result<usize>,
    request: &httparse::Request<'_, '_>,
    window: &[u8],
    limits: &Limits,
) -> Result<Option<RequestParts>, DecodeError> {
    let len = match status {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return incomplete(window, limits, true).map(|()| None),
        Err(error) => return Err(diagnose(error, window, Start::Request)),
    };
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(DecodeError::RequestLine);
    };
    let version = if version == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    let (fields, repeated) = collect(request.headers, window, len, Start::Request)?;
    if target.len() > limits.max_target_bytes {
        return Err(DecodeError::TargetTooLong);
    }
    let known = Method::known(method.as_bytes());
    let start = target.as_ptr().addr() - window.as_ptr().addr();
    let target = parse_target(target.as_bytes(), start, known.as_ref())?;
    Ok(Some(RequestParts {
        len,
        method: known,
        method_len: method.len(),
        target,
        version,
        fields,
        repeated,
    }))
}

/// Takes the next response head off `buf` once it is complete.
pub(crate) fn response(
    buf: &mut BytesMut,
    limits: &Limits,
    progress: &mut Progress,
) -> Result<Option<Lexed<ResponseHead>>, DecodeError> {
    // httparse would skip empty lines; a response has none before it (RFC 9112 §2.2 grants them to requests only).
    match buf.first() {
        None => return Ok(None),
        Some(b'H') => {}
        Some(_) => return Err(DecodeError::StatusLine),
    }
    if !progress.worth_lexing(buf, limits.max_head_bytes) {
        return Ok(None);
    }
    let window = &buf[..buf.len().min(limits.max_head_bytes)];
    let mut headers = [const { MaybeUninit::uninit() }; STACK_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let room = &mut headers[..limits.max_headers.min(STACK_HEADERS)];
    let config = httparse::ParserConfig::default();
    let lexed = match config.parse_response_with_uninit_headers(&mut response, window, room) {
        Err(httparse::Error::TooManyHeaders) if limits.max_headers > STACK_HEADERS => {
            let mut headers = vec![httparse::EMPTY_HEADER; limits.max_headers];
            let mut response = httparse::Response::new(&mut headers);
            let status = response.parse(window);
            response_parts(status, &response, window, limits)
        }
        status => response_parts(status, &response, window, limits),
    };
    let Some(parts) = lexed? else {
        progress.partial(buf.len());
        return Ok(None);
    };
    *progress = Progress::default();
    let block = buf.split_to(parts.len).freeze();
    let head = ResponseHead {
        status: parts.status,
        reason: block.slice(parts.reason.0..parts.reason.1),
        version: parts.version,
        fields: parts.fields.finish(block),
    };
    Ok(Some(Lexed {
        head,
        repeated: parts.repeated,
    }))
}

struct ResponseParts {
    len: usize,
    status: u16,
    reason: (usize, usize),
    version: Version,
    fields: FieldsBuilder,
    repeated: KnownSet,
}

fn response_parts(
    status: httparse::Result<usize>,
    response: &httparse::Response<'_, '_>,
    window: &[u8],
    limits: &Limits,
) -> Result<Option<ResponseParts>, DecodeError> {
    let len = match status {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return incomplete(window, limits, false).map(|()| None),
        Err(error) => return Err(diagnose(error, window, Start::Response)),
    };
    let (Some(version), Some(code)) = (response.version, response.code) else {
        return Err(DecodeError::StatusLine);
    };
    if code < 100 {
        return Err(DecodeError::StatusLine);
    }
    let version = if version == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    let (fields, repeated) = collect(response.headers, window, len, Start::Response)?;
    // `HTTP/1.1 200`, then a space and the phrase, or nothing (which many servers send).
    let line_end = window.iter().position(|byte| *byte == b'\r').unwrap_or(12);
    let reason = (13.min(line_end), line_end);
    Ok(Some(ResponseParts {
        len,
        status: code,
        reason,
        version,
        fields,
        repeated,
    }))
}

/// Takes a trailer section off `buf` once it is complete. The caller has seen that it is not empty.
pub(crate) fn trailers(
    buf: &mut BytesMut,
    limits: &Limits,
    progress: &mut Progress,
) -> Result<Option<Fields>, DecodeError> {
    if buf.is_empty() || !progress.worth_lexing(buf, limits.max_trailer_bytes) {
        return Ok(None);
    }
    let window = &buf[..buf.len().min(limits.max_trailer_bytes)];
    let mut headers = [httparse::EMPTY_HEADER; STACK_HEADERS];
    let room = &mut headers[..limits.max_trailers.min(STACK_HEADERS)];
    let (len, fields) = match httparse::parse_headers(window, room) {
        Ok(httparse::Status::Complete((len, lines))) => {
            (len, collect(lines, window, len, Start::Trailers)?.0)
        }
        Ok(httparse::Status::Partial) if window.len() >= limits.max_trailer_bytes => {
            return Err(DecodeError::TrailersTooLarge);
        }
        Ok(httparse::Status::Partial) => {
            progress.partial(buf.len());
            return Ok(None);
        }
        Err(httparse::Error::TooManyHeaders) => return Err(DecodeError::TrailersTooLarge),
        Err(error) => return Err(diagnose(error, window, Start::Trailers)),
    };
    *progress = Progress::default();
    Ok(Some(fields.finish(buf.split_to(len).freeze())))
}

/// RFC 9112 §2.2: a server ignores empty lines before a request line; a few, and only proper ones.
fn skip_empty_lines(buf: &mut BytesMut, progress: &mut Progress) -> Result<(), DecodeError> {
    while let Some(first) = buf.first() {
        match (first, buf.get(1)) {
            (b'\r', Some(b'\n')) => {
                progress.empty_lines += 1;
                if progress.empty_lines > MAX_EMPTY_LINES {
                    return Err(DecodeError::EmptyLines);
                }
                buf.advance(2);
            }
            (b'\r', None) => return Ok(()),
            (b'\r' | b'\n', _) => return Err(DecodeError::LineEnding),
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// An incomplete head: fine, unless it can't become complete within the limits.
fn incomplete(window: &[u8], limits: &Limits, request: bool) -> Result<(), DecodeError> {
    if window.len() < limits.max_head_bytes {
        Ok(())
    } else if request && !window.contains(&b'\n') {
        Err(DecodeError::TargetTooLong)
    } else {
        Err(DecodeError::HeadTooLarge)
    }
}

/// What stands before the first field line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    Request,
    Response,
    Trailers,
}

/// Turns the lexer's slices into offsets and checks what it let pass: every line must end in CRLF.
fn collect(
    headers: &[httparse::Header<'_>],
    window: &[u8],
    len: usize,
    start: Start,
) -> Result<(FieldsBuilder, KnownSet), DecodeError> {
    let base = window.as_ptr().addr();
    let crlf_before = |at: usize| at >= 2 && window[at - 2..at] == *b"\r\n";
    let mut fields = FieldsBuilder::with_capacity(headers.len() + SPARE_LINES);
    // The empty line itself.
    if !crlf_before(len) {
        return Err(DecodeError::LineEnding);
    }
    let last_end = len - 2;
    let mut next_start = headers
        .first()
        .map_or(last_end, |header| header.name.as_ptr().addr() - base);
    let first_of_trailers = start == Start::Trailers && next_start == 0;
    if !first_of_trailers && !crlf_before(next_start) {
        return Err(DecodeError::LineEnding);
    }
    for (index, header) in headers.iter().enumerate() {
        let line_start = next_start;
        next_start = headers
            .get(index + 1)
            .map_or(last_end, |next| next.name.as_ptr().addr() - base);
        if !crlf_before(next_start) {
            return Err(DecodeError::LineEnding);
        }
        // An empty value may be reported at any white space behind its colon, even outside the block.
        let value = if header.value.is_empty() {
            next_start - 2
        } else {
            header.value.as_ptr().addr() - base
        };
        if !fields.push(
            header.name.as_bytes(),
            line_start,
            value,
            header.value.len(),
            next_start,
        ) {
            return Err(if start == Start::Trailers {
                DecodeError::TrailersTooLarge
            } else {
                DecodeError::HeadTooLarge
            });
        }
    }
    let repeated = fields.repeated();
    Ok((fields, repeated))
}

/// Room for the fields that the proxy usually adds, so that the list is allocated once.
const SPARE_LINES: usize = 8;

/// The target of a request as offsets in the head.
struct Target {
    form: TargetForm,
    scheme: Option<Scheme>,
    authority: Option<(usize, usize)>,
    path: Path,
}

enum Path {
    Range((usize, usize)),
    Static(&'static [u8]),
}

/// RFC 9112 §3.2: the four forms, each only where its method allows it.
fn parse_target(target: &[u8], at: usize, method: Option<&Method>) -> Result<Target, DecodeError> {
    let end = at + target.len();
    let valid = target
        .iter()
        .fold(true, |valid, byte| valid & is_path_byte(*byte));
    if !valid {
        return Err(DecodeError::Target);
    }
    if method == Some(&Method::Connect) {
        // authority-form: host and port, both needed (RFC 9110 §9.3.6).
        check_authority(target, true)?;
        let authority = Some((at, end));
        return Ok(Target {
            form: TargetForm::Authority,
            scheme: None,
            authority,
            path: Path::Static(b""),
        });
    }
    match target {
        [b'/', ..] => Ok(Target {
            form: TargetForm::Origin,
            scheme: None,
            authority: None,
            path: Path::Range((at, end)),
        }),
        b"*" if method == Some(&Method::Options) => Ok(Target {
            form: TargetForm::Asterisk,
            scheme: None,
            authority: None,
            path: Path::Static(b"*"),
        }),
        _ => parse_absolute(target, at, method),
    }
}

fn parse_absolute(target: &[u8], at: usize, method: Option<&Method>) -> Result<Target, DecodeError> {
    let colon = target
        .windows(3)
        .position(|three| three == b"://")
        .ok_or(DecodeError::Target)?;
    let scheme = &target[..colon];
    if !scheme.first().is_some_and(u8::is_ascii_alphabetic)
        || !scheme
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
    {
        return Err(DecodeError::Target);
    }
    let scheme = Scheme::from_bytes(scheme).ok_or(DecodeError::Scheme)?;
    let rest = &target[colon + 3..];
    let authority_len = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    check_authority(&rest[..authority_len], false)?;
    if authority_len == 0 {
        // RFC 9110 §4.2.1: an http URI with an empty host is invalid.
        return Err(DecodeError::HostInvalid);
    }
    let start = at + colon + 3;
    let path = (start + authority_len, at + target.len());
    let path = match rest.get(authority_len) {
        Some(b'/') => Path::Range(path),
        // `http://host?query`: the path would need a byte that is not there.
        Some(_) => return Err(DecodeError::Target),
        // RFC 9112 §3.2.4: OPTIONS without a path means the server as a whole.
        None if method == Some(&Method::Options) => Path::Static(b"*"),
        None => Path::Static(b"/"),
    };
    let form = if matches!(path, Path::Static(b"*")) {
        TargetForm::Asterisk
    } else {
        TargetForm::Absolute
    };
    Ok(Target {
        form,
        scheme: Some(scheme),
        authority: Some((start, start + authority_len)),
        path,
    })
}

/// Whether the bytes are `host [":" port]` (RFC 3986 §3.2.2 without user information), the port present if needed.
pub(crate) fn check_authority(authority: &[u8], needs_port: bool) -> Result<(), DecodeError> {
    // Nearly all of them: a name or IPv4 address, perhaps with a port of up to four digits.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let name = match authority.iter().rposition(|byte| !byte.is_ascii_digit()) {
        Some(colon) if authority[colon] == b':' && (2..=5).contains(&(authority.len() - colon)) => {
            Some(&authority[..colon])
        }
        _ if needs_port => None,
        _ => Some(authority),
    };
    if name
        .is_some_and(|name| !name.is_empty() && name.iter().fold(true, |plain, byte| plain & is_plain(*byte)))
    {
        return Ok(());
    }
    if !authority
        .iter()
        .fold(true, |valid, byte| valid & is_authority_byte(*byte))
    {
        return Err(DecodeError::HostInvalid);
    }
    let (host, port) = if authority.first() == Some(&b'[') {
        let end = authority
            .iter()
            .position(|byte| *byte == b']')
            .ok_or(DecodeError::HostInvalid)?;
        let inner = &authority[1..end];
        let address = inner
            .first()
            .is_some_and(|first| *first == b'v' || *first == b'V')
            || std::str::from_utf8(inner).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
        if !address {
            return Err(DecodeError::HostInvalid);
        }
        match &authority[end + 1..] {
            [] => (inner, None),
            [b':', port @ ..] => (inner, Some(port)),
            _ => return Err(DecodeError::HostInvalid),
        }
    } else {
        match authority.iter().position(|byte| *byte == b':') {
            Some(colon) => (&authority[..colon], Some(&authority[colon + 1..])),
            None => (authority, None),
        }
    };
    let port_valid = match port {
        Some(port) => {
            port.iter().all(u8::is_ascii_digit)
                && port.len() <= 5
                && (port.is_empty() && !needs_port || crate::message::split_authority(authority).1.is_some())
        }
        None => !needs_port,
    };
    let bare_brackets =
        authority.first() != Some(&b'[') && host.iter().any(|byte| matches!(byte, b'[' | b']'));
    let empty_host = host.is_empty() && (needs_port || !authority.is_empty());
    if port_valid && !bare_brackets && !empty_host {
        Ok(())
    } else {
        Err(DecodeError::HostInvalid)
    }
}

/// Finds which rule a refused head breaks first. Only on the way to an error, so it may read the head again.
#[cold]
fn diagnose(error: httparse::Error, window: &[u8], start: Start) -> DecodeError {
    match error {
        httparse::Error::TooManyHeaders => return DecodeError::TooManyHeaders,
        httparse::Error::Version => return diagnose_version(window, start),
        httparse::Error::Status => return DecodeError::StatusLine,
        _ => {}
    }
    let mut lines = window.split_inclusive(|byte| *byte == b'\n');
    if start != Start::Trailers {
        let Some(first) = lines.next() else {
            return DecodeError::RequestLine;
        };
        let complete = first.ends_with(b"\r\n");
        let content = first
            .strip_suffix(b"\r\n")
            .or_else(|| first.strip_suffix(b"\r"))
            .unwrap_or(first);
        if first.ends_with(b"\n") && !complete || content.contains(&b'\r') {
            return DecodeError::LineEnding;
        }
        let in_fields = match error {
            httparse::Error::HeaderName | httparse::Error::HeaderValue => true,
            httparse::Error::NewLine => has_version(content, start),
            _ => false,
        };
        if !complete || !in_fields {
            return diagnose_start_line(content, start);
        }
    }
    for line in lines {
        if let Some(found) = diagnose_field_line(line) {
            return found;
        }
    }
    match error {
        httparse::Error::HeaderName => DecodeError::HeaderName,
        httparse::Error::HeaderValue => DecodeError::HeaderValue,
        _ => DecodeError::LineEnding,
    }
}

/// Tells another version from no version at all.
fn diagnose_version(window: &[u8], start: Start) -> DecodeError {
    let is_version = |part: &[u8]| {
        part.get(..5)
            .is_some_and(|name| name.eq_ignore_ascii_case(b"HTTP/"))
    };
    let line = window
        .split(|byte| matches!(byte, b'\r' | b'\n'))
        .next()
        .unwrap_or_default();
    let mut parts = line.split(|byte| *byte == b' ');
    match start {
        Start::Request if parts.nth(2).is_some_and(is_version) => DecodeError::Version,
        Start::Request => DecodeError::RequestLine,
        Start::Response if parts.next().is_some_and(is_version) => DecodeError::Version,
        Start::Response | Start::Trailers => DecodeError::StatusLine,
    }
}

/// Whether a start line is complete where its version belongs.
fn has_version(content: &[u8], start: Start) -> bool {
    let is_version = |part: &[u8]| part == b"HTTP/1.1" || part == b"HTTP/1.0";
    match start {
        Start::Request => content
            .rsplit(|byte| *byte == b' ')
            .next()
            .is_some_and(is_version),
        Start::Response => content.get(..8).is_some_and(is_version),
        Start::Trailers => true,
    }
}

fn diagnose_start_line(content: &[u8], start: Start) -> DecodeError {
    if start == Start::Response {
        return DecodeError::StatusLine;
    }
    let method = content.split(|byte| *byte == b' ').next().unwrap_or_default();
    if method.is_empty() || !method.iter().all(|byte| is_token_byte(*byte)) {
        return DecodeError::Method;
    }
    let target = content.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    if target.iter().all(|byte| is_path_byte(*byte)) {
        DecodeError::RequestLine
    } else {
        DecodeError::Target
    }
}

fn diagnose_field_line(line: &[u8]) -> Option<DecodeError> {
    let complete = line.ends_with(b"\n");
    if complete && !line.ends_with(b"\r\n") {
        return Some(DecodeError::LineEnding);
    }
    let content = line.strip_suffix(b"\r\n").unwrap_or(line);
    let content = if complete {
        content
    } else {
        content.strip_suffix(b"\r").unwrap_or(content)
    };
    if content.contains(&b'\r') {
        return Some(DecodeError::LineEnding);
    }
    if let [b' ' | b'\t', ..] = content {
        return Some(DecodeError::ObsFold);
    }
    let colon = content.iter().position(|byte| *byte == b':');
    let name = &content[..colon.unwrap_or(content.len())];
    if let (Some(_), [rest @ .., b' ' | b'\t']) = (colon, name)
        && !rest.is_empty()
        && rest
            .iter()
            .all(|byte| is_token_byte(*byte) || matches!(byte, b' ' | b'\t'))
    {
        return Some(DecodeError::WhitespaceBeforeColon);
    }
    if !name.iter().all(|byte| is_token_byte(*byte)) || (colon == Some(0)) {
        return Some(DecodeError::HeaderName);
    }
    let value = &content[colon.map_or(content.len(), |colon| colon + 1)..];
    if !value.iter().all(|byte| is_value_byte(*byte)) {
        return Some(DecodeError::HeaderValue);
    }
    (complete && colon.is_none() && !content.is_empty()).then_some(DecodeError::HeaderName)
}

/// Fields that must not stand in a trailer section: they frame or route (RFC 9110 §6.5.1).
pub(crate) const FORBIDDEN_TRAILERS: [Known; 3] =
    [Known::ContentLength, Known::TransferEncoding, Known::Host];
