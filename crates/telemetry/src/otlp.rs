//! Spans as OTLP bytes (`opentelemetry.proto.collector.trace.v1`), written by hand: no package carries these messages
//! and a span is a few fields. Appends to the caller's buffer and allocates nothing else.
//!
//! Does not: send anything.

/// A writer of protobuf fields.
#[derive(Debug)]
pub struct Message<'o>(&'o mut Vec<u8>);

impl<'o> Message<'o> {
    /// Writes to the end of `out`.
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        Self(out)
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
            number >>= 7;
        }
        self.0.push(u8::try_from(number).unwrap_or(0));
    }

    fn key(&mut self, field: u32, wire_type: u64) {
        self.varint(u64::from(field) << 3 | wire_type);
    }

    fn number(&mut self, field: u32, number: u64) {
        self.key(field, 0);
        self.varint(number);
    }

    fn fixed(&mut self, field: u32, number: u64) {
        self.key(field, 1);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A text; what is no UTF-8 becomes U+FFFD.
    fn text(&mut self, field: u32, text: &[u8]) {
        match std::str::from_utf8(text) {
            Ok(_) => self.bytes(field, text),
            Err(_) => self.bytes(field, String::from_utf8_lossy(text).as_bytes()),
        }
    }

    /// A message inside: room for its length is kept and filled when it is known.
    fn inside(&mut self, field: u32, write: impl FnOnce(&mut Message<'_>)) {
        self.key(field, 2);
        let start = self.0.len();
        // A varint may be longer than its number needs.
        self.0.extend_from_slice(&[0x80, 0x80, 0x80, 0]);
        write(&mut Message(self.0));
        let mut length = self.0.len() - start - 4;
        for at in 0..4 {
            let more = if at < 3 { 0x80 } else { 0 };
            self.0[start + at] = u8::try_from(length & 0x7f).unwrap_or(0) | more;
            length >>= 7;
        }
    }
}

/// Which side of a call a span is. Source: OTLP `Span.SpanKind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// The call was received.
    Server = 2,
    /// The call was made.
    Client = 3,
}

/// A span, but for its attributes.
#[derive(Debug, Clone, Copy)]
pub struct Span<'s> {
    /// The trace and the span itself.
    pub context: super::trace::Context,
    /// The span that caused it; 0 where it is the first.
    pub parent: u64,
    /// `tracestate`, may be empty.
    pub state: &'s [u8],
    /// What is done.
    pub name: &'s [u8],
    /// Which side.
    pub kind: SpanKind,
    /// Nanoseconds since 1970.
    pub start_ns: u64,
    /// Nanoseconds since 1970.
    pub end_ns: u64,
    /// It failed.
    pub is_error: bool,
}

/// Writes attributes.
#[derive(Debug)]
pub struct Attributes<'m, 'o>(&'m mut Message<'o>, u32);

impl Attributes<'_, '_> {
    /// A text; an empty one is written too.
    pub fn text(&mut self, key: &str, value: &[u8]) {
        self.0.inside(self.1, |pair| {
            pair.bytes(1, key.as_bytes());
            pair.inside(2, |any| any.text(1, value));
        });
    }
}

/// Appends a span, as an item of `ScopeSpans.spans`.
pub fn write_span(span: &Span<'_>, attributes: impl FnOnce(&mut Attributes<'_, '_>), out: &mut Vec<u8>) {
    Message::new(out).inside(2, |message| {
        message.bytes(1, &span.context.trace_id.to_be_bytes());
        message.bytes(2, &span.context.span_id.to_be_bytes());
        if !span.state.is_empty() {
            message.text(3, span.state);
        }
        if span.parent != 0 {
            message.bytes(4, &span.parent.to_be_bytes());
        }
        message.text(5, span.name);
        message.number(6, span.kind as u64);
        message.fixed(7, span.start_ns);
        message.fixed(8, span.end_ns);
        attributes(&mut Attributes(message, 9));
        if span.is_error {
            // STATUS_CODE_ERROR.
            message.inside(15, |status| status.number(3, 2));
        }
    });
}

/// A whole `ExportTraceServiceRequest` as a gRPC message: `spans` as [`write_span`] left them, and whose they are.
pub fn write_request(service: &str, spans: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 5]);
    Message::new(out).inside(1, |resource_spans| {
        resource_spans.inside(1, |resource| {
            Attributes(resource, 1).text("service.name", service.as_bytes());
        });
        resource_spans.inside(2, |scope_spans| scope_spans.0.extend_from_slice(spans));
    });
    let length = u32::try_from(out.len() - start - 5).unwrap_or(u32::MAX);
    out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::{super::trace::Context, *};

    /// A span's own bytes, read back by hand: key, length, content.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut number = 0;
            for shift in (0..).step_by(7) {
                let (first, rest) = bytes.split_first().unwrap();
                *bytes = rest;
                number |= u64::from(first & 0x7f) << shift;
                if first & 0x80 == 0 {
                    break;
                }
            }
            number
        }
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let content = match key & 7 {
                0 => varint(&mut bytes).to_string().into_bytes(),
                1 => {
                    let (number, rest) = bytes.split_at(8);
                    bytes = rest;
                    number.to_vec()
                }
                _ => {
                    let length = usize::try_from(varint(&mut bytes)).unwrap();
                    let (content, rest) = bytes.split_at(length);
                    bytes = rest;
                    content.to_vec()
                }
            };
            out.push((key >> 3, content));
        }
        out
    }

    #[test]
    fn a_request_holds_the_service_and_its_spans() {
        let span = Span {
            context: Context {
                trace_id: 0xabc,
                span_id: 7,
                sampled: Some(true),
            },
            parent: 3,
            state: b"",
            name: b"ingress",
            kind: SpanKind::Server,
            start_ns: 1,
            end_ns: 2,
            is_error: true,
        };
        let mut spans = Vec::new();
        write_span(&span, |it| it.text("component", b"proxy"), &mut spans);
        write_span(&span, |it| it.text("long", &[b'x'; 300]), &mut spans);
        let mut request = Vec::new();
        write_request("records.clinic", &spans, &mut request);
        assert_eq!(
            usize::from(request[4]) + (usize::from(request[3]) << 8),
            request.len() - 5
        );
        let resource_spans = fields(&fields(&request[5..])[0].1);
        let service = fields(&resource_spans[0].1)[0].1.clone();
        assert!(service.windows(14).any(|it| it == b"records.clinic"));
        let spans = fields(&resource_spans[1].1);
        assert_eq!(spans.len(), 2);
        let first = fields(&spans[0].1);
        assert_eq!(first[0], (1, 0xabc_u128.to_be_bytes().to_vec()));
        assert_eq!(first[2], (4, 3_u64.to_be_bytes().to_vec()));
        assert_eq!(first[3], (5, b"ingress".to_vec()));
        assert_eq!(first[4], (6, b"2".to_vec()));
        assert_eq!(fields(&first[8].1), [(3, b"2".to_vec())]);
    }
}
