//! What a proxy tells the control plane of one request, so that past traffic can be judged again: a [`Tuple`]. No bodies, no query,
//! no header's value, no token; of the path's segments those that are identifiers are told as digests.
//!
//! ```text
//!  /patients/4711/records?x=1  ─►  /patients/{9c0f2d4be1a77f30}/records
//! ```
//!
//! **Digests** ([`Digester`]) are the first 64 bits of HMAC-SHA-256 under a key that only the mesh knows, with what is digested as a
//! prefix, so that equal values can be found equal (a policy's `/patients/4711` against the recorded segment) and nothing else can be
//! read. 64 bits of a few million values collide about once in a million such recordings.
//!
//! Bounds: [`PATH_MAX`], [`TEXT_MAX`], [`HEADERS_MAX`], [`TUPLE_BYTES_MAX`]; a path that is longer is not told at all, other texts are
//! cut. What the other end sends is held to the same bounds. Pure.

mod wire;

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::hmac;
use rajut_types::Text;

/// Longest path that is told, bytes.
pub const PATH_MAX: usize = 2048;
/// Longest other text, bytes.
pub const TEXT_MAX: usize = 512;
/// Most headers whose digests are told.
pub const HEADERS_MAX: usize = 16;
/// Most issuers of tokens.
pub const ISSUERS_MAX: usize = 4;
/// Longest encoded tuple, bytes: every field at its bound.
pub const TUPLE_BYTES_MAX: usize = 32 << 10;
/// Longest segment of a path that is told in clear.
pub const SEGMENT_MAX: usize = 64;
/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// One request, as it was at the workload that was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuple {
    /// Drawn; what a refusal is found by.
    pub id: u64,
    /// When it came, milliseconds since 1970.
    pub time_ms: u64,
    /// The called workload's namespace; the control plane writes it, from the reporter's certificate.
    pub namespace: Text,
    /// The called workload; the control plane writes it.
    pub workload: Text,
    /// The caller's identity, `spiffe://…`; empty: it has shown none.
    pub source: Text,
    /// The connection was TLS.
    pub tls: bool,
    /// The connection's other end.
    pub remote: Option<IpAddr>,
    /// A trusted proxy told another address of the client, which is not kept.
    pub forwarded: bool,
    /// What was dialled.
    pub local: Option<SocketAddr>,
    /// Of the client hello; may be empty.
    pub server_name: Text,
    /// The listener that took it.
    pub listener: Text,
    /// The route that took it.
    pub route: Text,
    /// `GET`
    pub method: Text,
    /// With the port if it had one.
    pub authority: Text,
    /// Without its query, see the module; `None`: too long.
    pub path: Option<Text>,
    /// Those that were asked for.
    pub headers: Vec<Header>,
    /// What is known of its tokens.
    pub token: Token,
    /// A policy refused it.
    pub refused: bool,
    /// Why, in Envoy's words.
    pub reason: Text,
    /// Of the answer; 0: there was none.
    pub status: u16,
    /// Bytes of its body.
    pub received: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// How long it took, microseconds.
    pub micros: u64,
}

/// A header that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Lower case.
    pub name: Text,
    /// How often it stood there.
    pub count: u32,
    /// Of its value, where it stood there once and was not too long; else 0.
    pub digest: u64,
}

/// What is known of a request's tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Token {
    /// Nobody looked.
    #[default]
    Unknown,
    /// There was none.
    None,
    /// One was missing or no good.
    Refused,
    /// There were good ones, of these issuers.
    Good(Vec<Text>),
}

/// What is digested: the same text in two places has two digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A segment of a path.
    Segment,
    /// The value of the header of that name, lower case.
    Header(&'a str),
}

/// Makes digests. `Debug` shows no key.
#[derive(Clone)]
pub struct Digester(hmac::Key);

impl std::fmt::Debug for Digester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digester")
    }
}

impl Digester {
    /// With that secret.
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The digest of a value.
    pub fn digest(&self, kind: Kind<'_>, value: &[u8]) -> u64 {
        let mut context = hmac::Context::with_key(&self.0);
        match kind {
            Kind::Segment => context.update(b"segment\0"),
            Kind::Header(name) => {
                context.update(b"header\0");
                context.update(name.as_bytes());
                context.update(b"\0");
            }
        }
        context.update(value);
        let tag = context.sign();
        let first = tag.as_ref().first_chunk().copied().unwrap_or_default();
        u64::from_be_bytes(first)
    }
}

/// A segment of a recorded path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment<'p> {
    /// As it was.
    Clear(&'p str),
    /// An identifier.
    Digest {
        /// Its digest.
        digest: u64,
        /// It held nothing but what templates of paths take for a segment.
        plain: bool,
    },
}

/// Writes the path of a request as it is recorded. `is_identifier` says it of a segment that could stand in clear. `None`: too long.
pub fn redact(path: &[u8], digester: &Digester, is_identifier: impl Fn(&str) -> bool) -> Option<Text> {
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#'));
    let path = &path[..end.unwrap_or(path.len())];
    if path.len() > PATH_MAX {
        return None;
    }
    let mut out = String::with_capacity(path.len() + 32);
    for (place, segment) in path.split(|byte| *byte == b'/').enumerate() {
        if place > 0 {
            out.push('/');
        }
        match clear(segment).filter(|text| !is_identifier(text)) {
            Some(text) => out.push_str(text),
            None => push_digest(&mut out, segment, digester),
        }
    }
    Some(out.into())
}

/// What may stand in clear at all: short, printable, unescaped, and nothing that looks like a digest or an address of mail.
fn clear(segment: &[u8]) -> Option<&str> {
    let takes =
        |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}' | b'%' | b'@' | b'"' | b'\\');
    let is_clear = segment.len() <= SEGMENT_MAX && segment.iter().all(takes);
    std::str::from_utf8(segment).ok().filter(|_| is_clear)
}

/// A segment has digits: what is an identifier where nobody says. Versions (`v1`, `v2beta1`) are none.
pub fn has_digits(segment: &str) -> bool {
    let is_version = segment.strip_prefix('v').is_some_and(|rest| {
        let number =
            |text: &str| text.len() <= 3 && !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        let parts = ["alpha", "beta"].iter().find_map(|word| rest.split_once(word));
        match parts {
            Some((major, minor)) => number(major) && number(minor),
            None => number(rest),
        }
    });
    !is_version && segment.bytes().any(|byte| byte.is_ascii_digit())
}

fn push_digest(out: &mut String, segment: &[u8], digester: &Digester) {
    use std::fmt::Write as _;
    let digest = digester.digest(Kind::Segment, segment);
    let odd = if is_template_segment(segment) { "" } else { "?" };
    // Writing to a string cannot fail.
    let _ = write!(out, "{{{digest:016x}{odd}}}");
}

/// What `*` of a path template takes. Source: Envoy `UriTemplateMatchConfig`.
pub fn is_template_segment(segment: &[u8]) -> bool {
    let takes = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;:@=".contains(byte);
    !segment.is_empty() && segment.iter().all(takes)
}

/// The segments of a recorded path.
pub fn segments(path: &str) -> impl DoubleEndedIterator<Item = Segment<'_>> + Clone {
    path.split('/').map(|text| {
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let Some(inner) = inner else {
            return Segment::Clear(text);
        };
        let (digits, plain) = match inner.strip_suffix('?') {
            Some(digits) => (digits, false),
            None => (inner, true),
        };
        match u64::from_str_radix(digits, 16) {
            Ok(digest) if digits.len() == 16 => Segment::Digest { digest, plain },
            _ => Segment::Clear(text),
        }
    })
}

/// As much of a text as is told, without control characters.
pub fn bounded(text: &str) -> Text {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let told = text.get(..end).unwrap_or_default();
    if told.chars().any(char::is_control) {
        return told.replace(char::is_control, "\u{fffd}").into();
    }
    told.into()
}

#[cfg(test)]
mod tests;
