//! Tracing: which requests are traced, the context that goes on with them, and the span that each leaves.
//!
//! The decision is Envoy's: it is made once for a request, where its `x-request-id` is issued, and told to the next
//! proxies in the id itself (the fifteenth digit of the UUID). So all proxies that a request meets agree, whatever
//! share each of them is configured with. A `traceparent` (or B3, or Jaeger's) context is continued; the flag that it carries does
//! not decide, since anybody may send it.
//!
//! A span is written into the exporter's buffer when the request's record is closed ([`export`]); nothing of it is
//! built for requests that are not traced, but for the context's identifiers.
//!
//! Does not: a span of its own for each try.

pub(crate) mod export;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rajut_codec::{Fields, Known};
use rajut_ir::{
    listener::Direction,
    tracing::{TagValue, Tracing},
};
use rajut_telemetry::{
    format::write_number,
    otlp::{Attributes, Span, SpanKind},
    trace::Context,
};
use rajut_types::Text;

use self::export::Exporter;
use super::{record::Record, view::client_address};
use crate::stats::Registry;

/// Where the decision stands in a UUID.
const REASON_AT: usize = 14;
const UUID_BYTES: usize = 36;
/// Jaeger's header.
const UBER: &str = "uber-trace-id";

/// Tracing as a connection manager does it.
#[derive(Debug)]
pub(crate) struct Tracer {
    ir: Tracing,
    exporter: Option<Arc<Exporter>>,
    node: Text,
}

impl Tracer {
    /// Compiles; managers that send spans to one collector share an exporter.
    pub(crate) fn new(ir: &Tracing, registry: &Registry) -> Self {
        Self {
            exporter: ir.provider.as_ref().map(|it| registry.exporter(it)),
            ir: ir.clone(),
            node: registry.node(),
        }
    }
}

/// A request's place in its trace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trace {
    /// Its own span; what the upstream is told.
    pub(crate) context: Context,
    /// The caller's span; 0 for none.
    parent: u64,
}

/// Why a request is traced, as its id tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    None,
    Sampled,
    Forced,
    Client,
}

impl Reason {
    const fn digit(self) -> u8 {
        match self {
            Self::None => b'4',
            Self::Sampled => b'9',
            Self::Forced => b'a',
            Self::Client => b'b',
        }
    }

    /// `None`: the id is no UUID, which tells nothing and is left alone.
    fn of(id: &[u8]) -> Option<Self> {
        let is_uuid = id.len() == UUID_BYTES && id[8] == b'-' && id[13] == b'-';
        is_uuid.then(|| match id[REASON_AT] {
            b'9' => Self::Sampled,
            b'a' => Self::Forced,
            b'b' => Self::Client,
            _ => Self::None,
        })
    }
}

/// Decides about a request whose head was accepted, and sets what its upstream is told.
pub(crate) fn begin(record: &mut Record) {
    let shared = record.shared.clone();
    let manager = record.manager.clone();
    let Some(tracer) = manager.tracer() else {
        return;
    };
    let traced = decide(record, tracer) != Reason::None;
    let Some(exporter) = &tracer.exporter else { return };
    if traced {
        exporter.expect(&shared.worker);
    }
    let fields = &mut record.head.fields;
    let parent = received(fields);
    let random = || shared.worker.random();
    let context = Context {
        trace_id: parent.map_or_else(
            || u128::from(random()) << 64 | u128::from(random() | 1),
            |parent| parent.trace_id,
        ),
        span_id: random() | 1,
        sampled: Some(traced),
    };
    // A head that has reached its bound on edits goes without.
    if fields.contains("x-b3-traceid")
        && let Some(parent) = parent
    {
        let _ = fields.set("x-b3-parentspanid", parent.span_id_text());
    }
    write(fields, &context);
    record.trace = Some(Trace {
        context,
        parent: parent.map_or(0, |parent| parent.span_id),
    });
}

/// Tells an upstream the context, in each form that the request carries.
fn write(fields: &mut Fields, context: &Context) {
    let _ = fields.set(Known::Traceparent, context.traceparent());
    if fields.contains(Known::B3) {
        let _ = fields.set(Known::B3, context.b3());
    }
    if fields.contains("x-b3-traceid") {
        let sampled = context.sampled == Some(true);
        let _ = fields.set("x-b3-spanid", context.span_id_text());
        let _ = fields.set("x-b3-sampled", if sampled { "1" } else { "0" });
    }
    if fields.contains(UBER) {
        let _ = fields.set(UBER, context.uber());
    }
}

/// Tells whoever gets a copy of the request that nobody wants its spans.
pub(crate) fn untrace(trace: &Trace, fields: &mut Fields) {
    let sampled = Some(false);
    write(
        fields,
        &Context {
            sampled,
            ..trace.context
        },
    );
}

/// The caller's context.
fn received(fields: &Fields) -> Option<Context> {
    if let Some(text) = fields.get(Known::Traceparent) {
        return Context::from_traceparent(text);
    }
    if let Some(text) = fields.get(Known::B3) {
        return Context::from_b3(text);
    }
    if let Some(trace) = fields.get("x-b3-traceid") {
        return Context::from_b3_parts(trace, fields.get("x-b3-spanid")?, fields.get("x-b3-sampled"));
    }
    Context::from_uber(fields.get(UBER)?)
}

/// Source: Envoy `ConnectionManagerUtility::mutateTracingRequestHeader`, in our words: a decision that the id carries
/// stays; else a client that asks, a trusted caller that forces, or the draw decide; the overall share comes last.
fn decide(record: &mut Record, tracer: &Tracer) -> Reason {
    let worker = record.worker().clone();
    if record.head.fields.contains("x-envoy-force-trace") && !is_internal(record) {
        record.head.fields.remove("x-envoy-force-trace");
    }
    let fields = &record.head.fields;
    let Some(id) = fields.get(Known::XRequestId) else {
        return Reason::None;
    };
    let told = Reason::of(id);
    let ir = &tracer.ir;
    let mut reason = told.unwrap_or(Reason::None);
    if reason == Reason::None {
        if fields.contains("x-client-trace-id") && ir.client.includes(worker.draw()) {
            reason = Reason::Client;
        } else if fields.contains("x-envoy-force-trace") {
            reason = Reason::Forced;
        } else if told.is_some() && ir.random.includes(worker.draw()) {
            reason = Reason::Sampled;
        }
    }
    if reason != Reason::None && !ir.overall.includes(worker.draw()) {
        reason = Reason::None;
    }
    if let Some(told) = told
        && told != reason
        && let Some(mut id) = record.head.fields.get(Known::XRequestId).map(<[u8]>::to_vec)
    {
        id[REASON_AT] = reason.digit();
        let _ = record.head.fields.set(Known::XRequestId, id);
    }
    reason
}

/// Envoy's internal request: `x-forwarded-for` holds one address, and it is a private one.
fn is_internal(record: &Record) -> bool {
    let fields = &record.head.fields;
    let alone = fields.count(Known::XForwardedFor) == 1
        && fields
            .get(Known::XForwardedFor)
            .is_some_and(|it| !it.contains(&b','));
    alone && super::headers::is_private(client_address(record).ip())
}

/// Leaves the span of a request that is over.
pub(crate) fn finish(record: &Record) {
    let Some(trace) = record.trace.filter(|it| it.context.sampled == Some(true)) else {
        return;
    };
    let Some(tracer) = record.manager.tracer() else {
        return;
    };
    let Some(exporter) = &tracer.exporter else { return };
    let egress = record.shared.connection.direction == Direction::Outbound;
    let name: &[u8] = match (&record.decorator, egress) {
        (Some(decorator), _) if !decorator.is_empty() => decorator.as_bytes(),
        (_, true) => b"egress",
        (_, false) => b"ingress",
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "only a span that is exported pays for the calendar"
    )]
    let end = SystemTime::now();
    let span = Span {
        context: trace.context,
        parent: trace.parent,
        state: record.head.fields.get("tracestate").unwrap_or_default(),
        name,
        kind: if egress {
            SpanKind::Client
        } else {
            SpanKind::Server
        },
        start_ns: nanoseconds(end - record.start.elapsed()),
        end_ns: nanoseconds(end),
        is_error: record.response.status >= 500 || !record.has_response,
    };
    exporter.push(record.worker().index, &span, |out| {
        attributes(record, tracer, out);
    });
}

fn nanoseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Envoy's attributes of a span.
fn attributes(record: &Record, tracer: &Tracer, out: &mut Attributes<'_, '_>) {
    let head = &record.head;
    let or_dash = |name: &str| head.fields.get(name).unwrap_or(b"-");
    let mut number = Vec::with_capacity(20);
    let mut count = |out: &mut Attributes<'_, '_>, key, value| {
        number.clear();
        write_number(value, &mut number);
        out.text(key, &number);
    };
    out.text("node_id", tracer.node.as_bytes());
    out.text("zone", b"");
    if let Some(id) = head.fields.get(Known::XRequestId) {
        out.text("guid:x-request-id", id);
    }
    if let Some(id) = head.fields.get("x-client-trace-id") {
        out.text("guid:x-client-trace-id", id);
    }
    let path = head
        .fields
        .get("x-envoy-original-path")
        .unwrap_or(&head.path_and_query);
    let longest = usize::try_from(tracer.ir.max_path_length).unwrap_or(usize::MAX);
    let path = &path[..path.len().min(longest)];
    let scheme = head.fields.get(Known::XForwardedProto).unwrap_or(b"http");
    // An attribute of the operator's takes the place of one of these.
    if !tracer.ir.tags.iter().any(|tag| &*tag.tag == "http.url") {
        out.text("http.url", &[scheme, b"://", &head.authority[..], path].concat());
    }
    out.text("http.method", head.method.as_str().as_bytes());
    out.text(
        "downstream_cluster",
        or_dash("x-envoy-downstream-service-cluster"),
    );
    out.text("user_agent", or_dash("user-agent"));
    out.text("http.protocol", head.version.as_str().as_bytes());
    out.text("peer.address", client_address(record).ip().to_string().as_bytes());
    count(out, "request_size", record.bytes_received);
    count(out, "response_size", record.bytes_sent);
    let status = if record.has_response {
        record.response.status
    } else {
        0
    };
    count(out, "http.status_code", status.into());
    out.text("component", b"proxy");
    if let Some(cluster) = &record.cluster {
        out.text("upstream_cluster", cluster.name().as_bytes());
        out.text("upstream_cluster.name", cluster.name().as_bytes());
    }
    let mut flags = Vec::with_capacity(4);
    record.flags.write_short(&mut flags);
    out.text("response_flags", &flags);
    if status >= 500 || status == 0 {
        out.text("error", b"true");
    }
    for tag in &tracer.ir.tags {
        let value = match &tag.value {
            TagValue::Literal(value) => value.as_bytes(),
            TagValue::RequestHeader { name, default } => {
                head.fields.get(&**name).unwrap_or(default.as_bytes())
            }
        };
        if !value.is_empty() {
            out.text(&tag.tag, value);
        }
    }
}
