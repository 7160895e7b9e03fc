//! Trace contexts: which trace a request belongs to, as the headers of W3C, B3 and Jaeger say it.
//!
//! Pure: reads texts, writes texts. What is malformed is no context (the trace begins anew), as the W3C recommendation
//! has it. `tracestate` and `baggage` are passed on untouched by whoever forwards headers.
//!
//! Does not: choose identifiers or decide about sampling.

/// A request's place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace; never 0.
    pub trace_id: u128,
    /// The span that the headers name; never 0.
    pub span_id: u64,
    /// Whether the trace is recorded; `None`: the caller leaves it open (B3 only).
    pub sampled: Option<bool>,
}

/// Length of a `traceparent`.
pub const TRACEPARENT_BYTES: usize = 55;

impl Context {
    /// From `traceparent`. Source: W3C Trace Context §3.2; a newer version is read as far as this one reaches.
    pub fn from_traceparent(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii();
        let (head, rest) = text.split_at_checked(TRACEPARENT_BYTES)?;
        let version = hex(&head[..2])?;
        let dashes = [2, 35, 52].iter().all(|at| head[*at] == b'-');
        let whole = rest.is_empty() || (version != 0 && rest.starts_with(b"-"));
        if !dashes || version == 0xff || !whole {
            return None;
        }
        Some(Self {
            trace_id: hex(&head[3..35]).filter(|id| *id != 0)?,
            span_id: small_hex(&head[36..52])?,
            sampled: Some(hex(&head[53..55])? & 1 == 1),
        })
    }

    /// From B3's single header `b3`. A bare sampling decision (`0`, `1`, `d`) is no context.
    pub fn from_b3(text: &[u8]) -> Option<Self> {
        let mut parts = text.trim_ascii().split(|byte| *byte == b'-');
        let (trace, span) = (parts.next()?, parts.next()?);
        Self::from_b3_parts(trace, span, parts.next())
    }

    /// From B3's headers `x-b3-traceid`, `x-b3-spanid` and `x-b3-sampled` (or the same parts of `b3`).
    pub fn from_b3_parts(trace: &[u8], span: &[u8], sampled: Option<&[u8]>) -> Option<Self> {
        if !matches!(trace.len(), 16 | 32) || span.len() != 16 {
            return None;
        }
        Some(Self {
            trace_id: hex(&trace.to_ascii_lowercase()).filter(|id| *id != 0)?,
            span_id: small_hex(&span.to_ascii_lowercase())?,
            sampled: match sampled {
                Some(b"1" | b"d" | b"true") => Some(true),
                Some(b"0" | b"false") => Some(false),
                _ => None,
            },
        })
    }

    /// From Jaeger's `uber-trace-id`: `trace:span:parent:flags`, whose colons may be written `%3A`. Leading zeros may be
    /// missing.
    pub fn from_uber(text: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(text)
            .to_ascii_lowercase()
            .replace("%3a", ":");
        let mut parts = text.trim().split(':');
        let (trace, span) = (parts.next()?, parts.next()?);
        let (_parent, flags) = (parts.next()?, parts.next()?);
        let fits = |text: &str, digits: usize| (1..=digits).contains(&text.len());
        if !fits(trace, 32) || !fits(span, 16) || !fits(flags, 2) || parts.next().is_some() {
            return None;
        }
        Some(Self {
            trace_id: hex(trace.as_bytes()).filter(|id| *id != 0)?,
            span_id: small_hex(span.as_bytes())?,
            sampled: Some(hex(flags.as_bytes())? & 1 == 1),
        })
    }

    /// The value of `uber-trace-id`.
    pub fn uber(&self) -> Vec<u8> {
        let flags: &[u8] = if self.sampled == Some(true) {
            b":0:1"
        } else {
            b":0:0"
        };
        [&self.trace_id_text()[..], b":", &self.span_id_text(), flags].concat()
    }

    /// The value of `traceparent`.
    pub fn traceparent(&self) -> [u8; TRACEPARENT_BYTES] {
        let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(self.trace_id, &mut out[3..35]);
        write_hex(self.span_id.into(), &mut out[36..52]);
        if self.sampled == Some(true) {
            out[54] = b'1';
        }
        out
    }

    /// The value of `b3`.
    pub fn b3(&self) -> Vec<u8> {
        let mut out = self.traceparent()[3..53].to_vec();
        match self.sampled {
            Some(sampled) => out.push(if sampled { b'1' } else { b'0' }),
            None => out.truncate(49),
        }
        out
    }

    /// The trace's identifier, 32 digits.
    pub fn trace_id_text(&self) -> [u8; 32] {
        let mut out = [0; 32];
        write_hex(self.trace_id, &mut out);
        out
    }

    /// The span's identifier, 16 digits.
    pub fn span_id_text(&self) -> [u8; 16] {
        let mut out = [0; 16];
        write_hex(self.span_id.into(), &mut out);
        out
    }
}

/// Lower-case digits only, at most 32.
fn hex(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0, |number: u128, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

fn small_hex(text: &[u8]) -> Option<u64> {
    u64::try_from(hex(text)?).ok().filter(|id| *id != 0)
}

fn write_hex(mut number: u128, out: &mut [u8]) {
    for place in out.iter_mut().rev() {
        *place = b"0123456789abcdef"[usize::try_from(number & 15).unwrap_or(0)];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const W3C: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_written() {
        let context = Context::from_traceparent(W3C).unwrap();
        assert_eq!(context.sampled, Some(true));
        assert_eq!(context.traceparent(), W3C);
        assert_eq!(&context.span_id_text(), b"b7ad6b7169203331");
    }

    #[test]
    fn what_is_malformed_is_no_context() {
        for wrong in [
            &b""[..],
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
            b"00-00000000000000000000000000000000-b7ad6b7169203331-01",
            b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_eq!(Context::from_traceparent(wrong), None, "{}", wrong.escape_ascii());
        }
        let newer = [&b"01"[..], &W3C[2..], b"-more"].concat();
        assert!(Context::from_traceparent(&newer).is_some());
    }

    #[test]
    fn jaegers_header_is_read_and_written() {
        let context = Context::from_traceparent(W3C).unwrap();
        assert_eq!(
            context.uber(),
            b"0af7651916cd43dd8448eb211c80319c:b7ad6b7169203331:0:1"
        );
        assert_eq!(Context::from_uber(&context.uber()), Some(context));
        let short = Context::from_uber(b"AF%3A7%3a0%3A2").unwrap();
        assert_eq!(
            (short.trace_id, short.span_id, short.sampled),
            (0xaf, 7, Some(false))
        );
        for wrong in [
            &b""[..],
            b"a:b:0",
            b"0:7:0:1",
            b"a:0:0:1",
            b"a:7:0:1:2",
            b"x:7:0:1",
            b"a::0:1",
        ] {
            assert_eq!(Context::from_uber(wrong), None, "{}", wrong.escape_ascii());
        }
        let long = [b'a'; 33];
        assert_eq!(Context::from_uber(&[&long[..], b":7:0:1"].concat()), None);
    }

    #[test]
    fn both_forms_of_b3_are_read() {
        let single = Context::from_b3(b"0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1").unwrap();
        assert_eq!(single, Context::from_traceparent(W3C).unwrap());
        assert_eq!(
            single.b3(),
            b"0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1"
        );
        let short = Context::from_b3_parts(b"8448eb211c80319c", b"b7ad6b7169203331", None).unwrap();
        assert_eq!((short.trace_id, short.sampled), (0x8448_eb21_1c80_319c, None));
        assert_eq!(Context::from_b3(b"0"), None);
    }
}
