//! Step 2: what does the client speak? Decided on bytes that are peeked at, never consumed, within a bounded time.
//!
//! ```text
//!            ┌────────── first byte 0x16 ──────────► TLS: hello parsed → server name, ALPN
//!  waiting ──┼────────── "PRI * HTTP/2.0" ─────────► h2c
//!            ├────────── a request line ───────────► http/1.0 | http/1.1
//!            ├────────── anything else ────────────► raw
//!            └────────── time is over ─────────────► raw (or closed, as the listener says)
//! ```
//!
//! A client of a server-first protocol (`MySQL`, SMTP) sends nothing: the wait ends it. Bounds: [`HELLO_MAX`] bytes are
//! looked at; a hello that is longer is served as TLS without a server name.

use std::{io, time::Duration};

use rajut_ir::listener::{self as ir, TransportProtocol};
use rajut_platform::socket::{TcpStream, peek_more};
use rajut_types::Text;

/// A client hello with a post-quantum key share and many extensions stays well below.
const HELLO_MAX: usize = 16 * 1024;

/// The longest request line that is waited for before the bytes count as raw.
const REQUEST_LINE_MAX: usize = 8 * 1024;

/// What the first bytes told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// TLS or not.
    pub transport: TransportProtocol,
    /// Server name of the hello.
    pub server_name: Option<Text>,
    /// ALPN of the hello, or `http/1.0`, `http/1.1`, `h2c`; empty for raw bytes.
    pub protocols: Vec<Text>,
}

impl Seen {
    fn raw() -> Self {
        Self {
            transport: TransportProtocol::RawBuffer,
            server_name: None,
            protocols: Vec::new(),
        }
    }

    fn http(protocol: &str) -> Self {
        Self {
            protocols: vec![protocol.into()],
            ..Self::raw()
        }
    }
}

/// What can be said of some first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// More bytes are needed.
    Undecided,
    /// Decided.
    Decided(Seen),
}

/// Looks at the first bytes as far as the listener asks for it. `None`: the time was over and the listener closes such
/// connections.
pub async fn inspect(tcp: &TcpStream, listener: &ir::Listener) -> io::Result<Option<Seen>> {
    if !listener.inspectors.tls && !listener.inspectors.http {
        return Ok(Some(Seen::raw()));
    }
    let looking = look(tcp, listener.inspectors);
    if listener.inspection_timeout == Duration::ZERO {
        return looking.await.map(Some);
    }
    match tokio::time::timeout(listener.inspection_timeout, looking).await {
        Ok(seen) => seen.map(Some),
        Err(_) if listener.continue_on_inspection_timeout => Ok(Some(Seen::raw())),
        Err(_) => Ok(None),
    }
}

async fn look(tcp: &TcpStream, inspectors: ir::Inspectors) -> io::Result<Seen> {
    let mut buffer = vec![0_u8; 1024];
    let mut seen = 0;
    loop {
        let peeked = peek_more(tcp, &mut buffer, seen).await?;
        match classify(&buffer[..peeked.length], inspectors) {
            Verdict::Decided(seen) => return Ok(seen),
            Verdict::Undecided if peeked.finished => return Ok(Seen::raw()),
            Verdict::Undecided if peeked.length == HELLO_MAX => {
                let transport = if buffer[0] == TLS_HANDSHAKE {
                    TransportProtocol::Tls
                } else {
                    TransportProtocol::RawBuffer
                };
                return Ok(Seen {
                    transport,
                    ..Seen::raw()
                });
            }
            Verdict::Undecided => {
                seen = peeked.length;
                if seen == buffer.len() {
                    buffer.resize((buffer.len() * 4).min(HELLO_MAX), 0);
                }
            }
        }
    }
}

/// The content type of a TLS handshake record (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// The HTTP/2 connection preface (RFC 9113 §3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the bytes so far tell.
pub fn classify(bytes: &[u8], inspectors: ir::Inspectors) -> Verdict {
    let Some(first) = bytes.first() else {
        return Verdict::Undecided;
    };
    if inspectors.tls && *first == TLS_HANDSHAKE {
        return classify_tls(bytes);
    }
    if inspectors.http {
        return classify_http(bytes);
    }
    Verdict::Decided(Seen::raw())
}

fn classify_tls(bytes: &[u8]) -> Verdict {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return Verdict::Decided(Seen::raw());
        }
    }
    match acceptor.accept() {
        Ok(None) => Verdict::Undecided,
        Ok(Some(accepted)) => {
            let hello = accepted.client_hello();
            let protocols = hello
                .alpn()
                .into_iter()
                .flatten()
                .filter_map(|p| std::str::from_utf8(p).ok());
            Verdict::Decided(Seen {
                transport: TransportProtocol::Tls,
                server_name: hello.server_name().map(|name| name.to_ascii_lowercase().into()),
                protocols: protocols.map(Text::from).collect(),
            })
        }
        // It looked like TLS and is not: for the chain it is raw, and no chain for raw means that it is closed.
        Err(_) => Verdict::Decided(Seen::raw()),
    }
}

fn classify_http(bytes: &[u8]) -> Verdict {
    if bytes.starts_with(H2_PREFACE) {
        return Verdict::Decided(Seen::http("h2c"));
    }
    if H2_PREFACE.starts_with(bytes) {
        return Verdict::Undecided;
    }
    let line = match bytes.iter().position(|b| *b == b'\n') {
        Some(end) => &bytes[..end],
        None if bytes.len() >= REQUEST_LINE_MAX => return Verdict::Decided(Seen::raw()),
        None => {
            return if may_begin_request_line(bytes) {
                Verdict::Undecided
            } else {
                Verdict::Decided(Seen::raw())
            };
        }
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let version = line.rsplit(|b| *b == b' ').next().unwrap_or_default();
    Verdict::Decided(match version {
        _ if !may_begin_request_line(line) => Seen::raw(),
        b"HTTP/1.1" => Seen::http("http/1.1"),
        b"HTTP/1.0" => Seen::http("http/1.0"),
        _ => Seen::raw(),
    })
}

/// Whether the bytes can be the beginning of `METHOD target HTTP/…`: a token of capital letters of bounded length,
/// then a space, then printable bytes. Anything else need not be waited for.
fn may_begin_request_line(bytes: &[u8]) -> bool {
    let method_end = bytes.iter().position(|b| *b == b' ').unwrap_or(bytes.len());
    let (method, rest) = bytes.split_at(method_end);
    (1..=32).contains(&method.len())
        && method
            .iter()
            .all(|b| b.is_ascii_alphabetic() || *b == b'-' || *b == b'_')
        && rest
            .iter()
            .all(|b| (0x20..0x7f).contains(b) || *b == b'\r' || *b >= 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: ir::Inspectors = ir::Inspectors {
        original_dst: false,
        tls: true,
        http: true,
    };

    #[test]
    fn request_lines_are_told_as_soon_as_they_are_whole() {
        for cut in 1.."GET / HTTP/1.1\r\n".len() {
            let verdict = classify(&b"GET / HTTP/1.1\r\n"[..cut], BOTH);
            assert_eq!(verdict, Verdict::Undecided, "after {cut} bytes");
        }
        assert_eq!(
            classify(b"GET / HTTP/1.1\r\nHost", BOTH),
            Verdict::Decided(Seen::http("http/1.1"))
        );
        assert_eq!(
            classify(b"GET / HTTP/1.0\r\n", BOTH),
            Verdict::Decided(Seen::http("http/1.0"))
        );
        assert_eq!(classify(H2_PREFACE, BOTH), Verdict::Decided(Seen::http("h2c")));
    }

    #[test]
    fn other_protocols_are_raw_without_waiting() {
        for bytes in [
            &b"\x00\x00\x00\x08"[..],
            b"*1\r\n$4\r\nPING\r\n",
            b"SSH-2.0-x\r\n",
            b"\xff",
            b"EHLO\tx",
            b"hello\r\n",
        ] {
            assert_eq!(classify(bytes, BOTH), Verdict::Decided(Seen::raw()), "{bytes:?}");
        }
    }

    #[test]
    fn a_byte_that_only_looks_like_tls_is_raw() {
        assert_eq!(
            classify(b"\x16\x09\x09\xff\xffxxxxxxxxxxxxxxxx", BOTH),
            Verdict::Decided(Seen::raw())
        );
        assert_eq!(classify(b"\x16", BOTH), Verdict::Undecided);
    }

    #[test]
    fn without_the_http_inspector_plaintext_is_raw_at_once() {
        let tls_only = ir::Inspectors { http: false, ..BOTH };
        assert_eq!(classify(b"GET", tls_only), Verdict::Decided(Seen::raw()));
    }
}
