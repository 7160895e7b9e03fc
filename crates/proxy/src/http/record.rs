//! The record of one request: what its access-log lines and counters are made of. Emitted on drop, so that no early
//! return loses a line.
//!
//! It owns the heads (they are needed for retries and for the log anyway) and is the source of values for every
//! format string: log lines and header values alike.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rajut_codec::{Fields, Known, Method, RequestHead, ResponseHead, Version};
use rajut_ir::{decide::RequestView as _, endpoint::EndpointAddress, route::HeaderMutations};
use rajut_telemetry::{
    format::{self, Section, Template, Value, write_number},
    workload::VALUE_MAX,
};
use rajut_types::{
    Text,
    condition::{Attribute, Facts},
    tag::TagValue,
};
use tokio::time::Instant;

use super::{
    filters::{self, local_rate_limit::ConnectionLimits},
    grpc::Messages,
    headers,
    manager::Manager,
    trace::{self, Trace},
    view::{View, client_address},
};
use crate::{
    clock,
    cluster::{Cluster, Host},
    connection::{Connection, Peer},
    failure::{Failure, Flags, grpc_status_of},
    stats::{
        ManagerCounter,
        istio::{Ends, Meter, Protocol, SEPARATOR, Seen},
        own_time::{OwnTime, SAMPLED},
        texts::TextId,
    },
    worker::Worker,
};

/// What all streams of a connection share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) worker: Rc<Worker>,
    pub(crate) connection: Rc<Connection>,
    /// As it was when the connection was accepted: what holds for the connection as a whole.
    pub(crate) manager: Arc<Manager>,
    pub(crate) current: RefCell<Current>,
    /// The connection is encrypted.
    pub(crate) is_tls: bool,
    /// Its own rate limits.
    pub(crate) limits: RefCell<ConnectionLimits>,
    /// Who its two ends have proven to be.
    pub(crate) ends: Ends,
    /// The workload that the client says it is, once it has.
    pub(crate) client: Cell<TextId>,
}

/// The connection manager that serves a connection's requests now. A connection may live for hours; rules about requests must not
/// wait for its end.
#[derive(Debug)]
pub(crate) struct Current {
    /// The configuration that was looked at last.
    version: u64,
    manager: Arc<Manager>,
    /// Its filter chain is there no more.
    is_retired: bool,
    /// The peer's certificate was revoked since.
    is_revoked: bool,
}

impl Current {
    /// As it is when the connection is accepted. It is looked at again for the first request.
    pub(crate) fn new(manager: Arc<Manager>) -> Self {
        Self {
            version: 0,
            manager,
            is_retired: false,
            is_revoked: false,
        }
    }
}

impl Shared {
    /// The connection manager of the connection's filter chain as it is configured now; the last one if that chain is there no
    /// more.
    pub(crate) fn manager_now(&self) -> Arc<Manager> {
        let mut current = self.current.borrow_mut();
        let epoch = self.worker.epoch();
        if current.version != epoch.config.version {
            current.version = epoch.config.version;
            let listener = epoch.config.listeners.get(&self.connection.listener);
            let found = listener.and_then(|listener| listener.manager(self.connection.chain.as_deref()));
            current.is_revoked = epoch.config.revokes(&self.connection.peer);
            current.is_retired = found.is_none() || current.is_revoked;
            if let Some(found) = found {
                current.manager = found.clone();
            }
        }
        current.manager.clone()
    }

    /// Whether the certificate that the connection was opened with has been revoked since.
    pub(crate) fn is_revoked(&self) -> bool {
        self.manager_now();
        self.current.borrow().is_revoked
    }

    /// Whether the connection should end after the request that it has: nobody would accept it any more.
    pub(crate) fn is_retired(&self) -> bool {
        self.manager_now();
        self.current.borrow().is_retired
    }
}

/// `%RESPONSE_CODE_DETAILS%`.
#[derive(Debug, Clone)]
pub(crate) enum Details {
    /// One of Envoy's words.
    Fixed(&'static str),
    /// One that a filter made.
    Text(Text),
}

impl Details {
    /// As it is written.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Fixed(text) => text,
            Self::Text(text) => text,
        }
    }
}

/// One request, from its head to its last byte.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) shared: Rc<Shared>,
    /// By whose rules it is served, from its head to its end.
    pub(crate) manager: Arc<Manager>,
    /// As it is sent on.
    pub(crate) head: RequestHead,
    /// As it was sent, or would have been.
    pub(crate) response: ResponseHead,
    /// Whether `response` was set.
    pub(crate) has_response: bool,
    pub(crate) trailers: Option<Fields>,
    pub(crate) start: Instant,
    pub(crate) flags: Flags,
    pub(crate) details: Details,
    /// Its place in a trace.
    pub(crate) trace: Option<Trace>,
    /// The route's name of the operation.
    pub(crate) decorator: Option<Text>,
    /// What filters remember until the response.
    pub(crate) filters: filters::State,
    pub(crate) failure_reason: Option<Text>,
    /// What its route changes in answers that are made here, the most specific first; empty for an answer of the upstream.
    pub(crate) edits: Box<[HeaderMutations]>,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    /// Whether it came as a gRPC call.
    pub(crate) is_grpc: bool,
    /// Messages of a gRPC call.
    pub(crate) messages_received: u64,
    /// Messages of a gRPC call's answer.
    pub(crate) messages_sent: Messages,
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) host: Option<Arc<Host>>,
    pub(crate) upstream_local: Option<SocketAddr>,
    /// Who the two ends of the connection to the host have proven to be.
    pub(crate) upstream_ends: Ends,
    pub(crate) route: Text,
    pub(crate) virtual_host: Text,
    pub(crate) attempts: u32,
    /// When the request's last byte was read.
    pub(crate) request_end: Option<Instant>,
    /// When the response's head arrived.
    pub(crate) response_start: Option<Instant>,
    /// Of those whose time in this process is measured.
    pub(crate) own_time: Option<OwnTime>,
}

impl Record {
    /// Opens the record of a request.
    pub(crate) fn open(shared: Rc<Shared>, head: RequestHead, start: Instant) -> Self {
        let manager = shared.manager_now();
        let worker = shared.worker.index;
        let stats = manager.stats();
        let before = stats.add_request(worker);
        let own_time = before.is_multiple_of(SAMPLED).then(OwnTime::begin);
        stats.add(
            worker,
            if head.version == Version::Http2 {
                ManagerCounter::RqHttp2
            } else {
                ManagerCounter::RqHttp1
            },
        );
        Self {
            is_grpc: head.method == Method::Post && headers::is_grpc(&head.fields),
            messages_received: 0,
            messages_sent: Messages::default(),
            head,
            response: ResponseHead::default(),
            has_response: false,
            trailers: None,
            start,
            flags: Flags::NONE,
            details: Details::Fixed(""),
            trace: None,
            decorator: None,
            filters: filters::State::default(),
            failure_reason: None,
            edits: Box::default(),
            bytes_received: 0,
            bytes_sent: 0,
            cluster: None,
            host: None,
            upstream_local: None,
            upstream_ends: Ends::default(),
            route: EMPTY.with(Text::clone),
            virtual_host: EMPTY.with(Text::clone),
            attempts: 0,
            request_end: None,
            response_start: None,
            own_time,
            manager,
            shared,
        }
    }

    /// The worker.
    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.shared.worker
    }

    /// The request was written to an upstream, as far as it had come.
    pub(crate) fn sent(&mut self) {
        if let Some(time) = &mut self.own_time {
            time.sent();
        }
    }

    /// The head of the upstream's answer was read.
    pub(crate) fn answered(&mut self) {
        if let Some(time) = &mut self.own_time {
            time.answered();
        }
    }

    /// The answer was written, as far as it had come.
    pub(crate) fn passed_on(&mut self) {
        if let Some(time) = self.own_time.take().and_then(OwnTime::finish) {
            self.manager.stats().add_own_time(self.shared.worker.index, time);
        }
    }

    /// Notes a failure: its flag, details and reason.
    pub(crate) fn note(&mut self, failure: &Failure) {
        let spec = failure.spec();
        self.flags = self.flags.with(spec.flag);
        self.details = match &failure.details {
            Some(details) => Details::Text(details.clone()),
            None => Details::Fixed(spec.details),
        };
        if failure.reason.is_some() {
            self.failure_reason.clone_from(&failure.reason);
        }
    }

    /// The value of a text with operators, empty where one is missing (as Envoy's header formatter has it).
    pub(crate) fn expand(&self, text: &Text) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 32);
        if !text.contains('%') {
            out.extend_from_slice(text.as_bytes());
            return out;
        }
        TEMPLATES.with_borrow_mut(|templates| {
            if templates.len() >= TEMPLATES_MAX {
                templates.clear();
            }
            let template = templates
                .entry(text.clone())
                .or_insert_with(|| Template::parse(text).ok());
            match template {
                Some(template) => template.render(self, "", &mut out),
                // The decoder lets only known operators through; text stays text.
                None => out.extend_from_slice(text.as_bytes()),
            }
        });
        out
    }

    /// Counts it by Istio's metrics.
    fn measure(&self, meter: &Meter) {
        let protocol = if self.is_grpc {
            Protocol::Grpc
        } else {
            Protocol::Http
        };
        let mut key = meter.key(protocol);
        key.grpc = self.is_grpc.then(|| self.grpc_status()).flatten();
        key.code = if self.has_response {
            self.response.status
        } else {
            0
        };
        key.flags = self.flags;
        if let Some(cluster) = &self.cluster {
            key.service = cluster.service();
            key.cluster = cluster.name_id();
        }
        let knows_service = self
            .cluster
            .as_ref()
            .is_some_and(|cluster| cluster.ir().service.is_some());
        if meter.context.ir.host_fallback && !knows_service {
            // What is no text is nobody's name.
            let host = std::str::from_utf8(&self.head.authority).unwrap_or_default();
            key.host = TextId::of(host);
        }
        if meter.is_client() {
            key.peer = self
                .host
                .as_ref()
                .map_or(TextId::UNKNOWN, |host| host.workload_id);
            key.ends = self.upstream_ends;
        } else {
            key.peer = self.shared.client.get();
            key.ends = self.shared.ends;
        }
        if !meter.context.attributes.is_empty() {
            key.extra = self.attributes(&meter.context.attributes);
        }
        let seen = Seen {
            duration: clock::now().duration_since(self.start),
            received: self.bytes_received,
            sent: self.bytes_sent,
            messages_received: self.messages_received,
            messages_sent: self.messages_sent.count(),
        };
        self.shared.worker.metrics.request(meter, key, seen);
    }

    /// What labels ask for beside the standard. Writes text, where somebody has configured that.
    fn attributes(&self, asked: &[TagValue]) -> TextId {
        ATTRIBUTES.with_borrow_mut(|text| {
            text.clear();
            for value in asked {
                let start = text.len();
                match value {
                    TagValue::RequestHost => text.push_str(&String::from_utf8_lossy(&self.head.authority)),
                    TagValue::RequestMethod => text.push_str(self.head.method.as_str()),
                    TagValue::RequestPath => {
                        let path = self.head.path_and_query.split(|byte| *byte == b'?').next();
                        text.push_str(&String::from_utf8_lossy(path.unwrap_or_default()));
                    }
                    TagValue::RequestHeader(name) => {
                        text.push_str(self.head.fields.get_str(&**name).unwrap_or_default());
                    }
                    TagValue::ResponseCode if self.has_response => {
                        text.push_str(&self.response.status.to_string());
                    }
                    TagValue::DestinationPort => {
                        text.push_str(&self.shared.connection.local.port().to_string());
                    }
                    TagValue::ResponseCode | TagValue::Literal(_) => {}
                }
                let mut end = text.len().min(start + VALUE_MAX);
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                text.truncate(end);
                text.push(SEPARATOR);
            }
            TextId::of(text)
        })
    }

    /// The status of a gRPC call: as its answer says, else as the HTTP status means; `None` where there was no answer.
    fn grpc_status(&self) -> Option<u8> {
        let told = |fields: &Fields| fields.get_str(Known::GrpcStatus)?.parse().ok();
        self.trailers
            .as_ref()
            .and_then(told)
            .or_else(|| told(&self.response.fields))
            .or_else(|| self.has_response.then(|| grpc_status_of(self.response.status)))
    }

    fn emit(&self) {
        let worker = self.shared.worker.index;
        let stats = self.manager.stats();
        stats.add(worker, ManagerCounter::RqCompleted);
        if self.has_response {
            stats.add_status(worker, self.response.status);
        }
        trace::finish(self);
        if let Some(meter) = self.manager.meter() {
            self.measure(meter);
        }
        if let Some(recorder) = self.manager.recorder() {
            recorder.request(self);
        }
        for log in self.manager.logs() {
            log.write(worker, self);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.emit();
    }
}

/// Templates of header values that a worker remembers; a full table is emptied.
const TEMPLATES_MAX: usize = 1024;

thread_local! {
    // text → its template; `None` where it is none.
    static TEMPLATES: RefCell<HashMap<Text, Option<Template>>> = RefCell::default();
    // What `attributes` writes into.
    static ATTRIBUTES: RefCell<String> = const { RefCell::new(String::new()) };
    static EMPTY: Text = Text::default();
    static HOSTNAME: OnceCell<String> = const { OnceCell::new() };
}

fn text(out: &mut Vec<u8>, value: &str) -> bool {
    out.extend_from_slice(value.as_bytes());
    !value.is_empty()
}

fn shown(out: &mut Vec<u8>, value: impl std::fmt::Display) -> bool {
    use std::io::Write as _;
    // Writing to a vector cannot fail.
    write!(out, "{value}").is_ok()
}

fn millis(out: &mut Vec<u8>, duration: Duration) -> bool {
    write_number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), out);
    true
}

fn joined<'a>(out: &mut Vec<u8>, values: impl Iterator<Item = &'a Text>) -> bool {
    let before = out.len();
    for value in values {
        if out.len() > before {
            out.push(b',');
        }
        out.extend_from_slice(value.as_bytes());
    }
    out.len() > before
}

/// What the client's certificate says.
pub(crate) fn peer_value(peer: &Peer, value: Value, out: &mut Vec<u8>) -> bool {
    let Peer::Verified(peer) = peer else {
        return false;
    };
    match value {
        Value::DownstreamPeerUriSan => joined(out, peer.uris.iter()),
        Value::DownstreamPeerDnsSan => joined(out, peer.dns_names.iter()),
        Value::DownstreamPeerSubject => text(out, &peer.subject),
        Value::DownstreamPeerFingerprint256 => text(out, &peer.sha256),
        Value::DownstreamLocalUriSan => text(out, &peer.own_uri),
        _ => false,
    }
}

impl Record {
    fn time_value(&self, value: Value, out: &mut Vec<u8>) -> bool {
        let since = |at: Option<Instant>| at.map(|at| at.duration_since(self.start));
        let duration = match value {
            Value::Duration => Some(self.start.elapsed()),
            // A request is passed on as it is read.
            Value::RequestDuration | Value::RequestTxDuration => since(self.request_end),
            Value::ResponseDuration => since(self.response_start),
            Value::ResponseTxDuration => self.response_start.map(|at| at.elapsed()),
            _ => None,
        };
        duration.is_some_and(|duration| millis(out, duration))
    }

    fn upstream_socket(&self) -> Option<SocketAddr> {
        match &self.host.as_ref()?.address {
            EndpointAddress::Socket(address) => Some(*address),
            _ => None,
        }
    }

    fn address_value(&self, value: Value, out: &mut Vec<u8>) -> bool {
        let connection = &self.shared.connection;
        match value {
            Value::DownstreamLocalAddress => shown(out, connection.local),
            Value::DownstreamLocalAddressWithoutPort => shown(out, connection.local.ip()),
            Value::DownstreamLocalPort => shown(out, connection.local.port()),
            Value::DownstreamRemoteAddress => shown(out, client_address(self)),
            Value::DownstreamRemoteAddressWithoutPort => shown(out, client_address(self).ip()),
            Value::DownstreamRemotePort => shown(out, client_address(self).port()),
            Value::DownstreamDirectRemoteAddress => shown(out, connection.remote),
            Value::DownstreamDirectRemoteAddressWithoutPort => shown(out, connection.remote.ip()),
            Value::UpstreamHost => self.host.as_ref().is_some_and(|host| shown(out, &host.address)),
            Value::UpstreamHostWithoutPort => self.upstream_socket().is_some_and(|it| shown(out, it.ip())),
            Value::UpstreamHostPort => self.upstream_socket().is_some_and(|it| shown(out, it.port())),
            Value::UpstreamLocalAddress => self.upstream_local.is_some_and(|address| shown(out, address)),
            _ => false,
        }
    }
}

/// The names of gRPC's statuses, by number.
const GRPC_STATUSES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

fn write_grpc_status(form: Value, status: u8, out: &mut Vec<u8>) -> bool {
    match (form, GRPC_STATUSES.get(usize::from(status))) {
        (Value::GrpcStatus, Some((camel, _))) => text(out, camel),
        (Value::GrpcStatusSnake, Some((_, snake))) => text(out, snake),
        // A status that gRPC does not name stays a number.
        _ => {
            write_number(status.into(), out);
            true
        }
    }
}

impl format::Record for Record {
    #[expect(clippy::too_many_lines, reason = "one table")]
    fn value(&self, value: Value, out: &mut Vec<u8>) -> bool {
        match value {
            Value::Protocol => text(out, self.head.version.as_str()),
            Value::ResponseCode => {
                write_number(
                    if self.has_response {
                        self.response.status.into()
                    } else {
                        0
                    },
                    out,
                );
                true
            }
            Value::ResponseCodeDetails => text(out, self.details.as_str()),
            Value::ResponseFlags => {
                self.flags.write_short(out);
                true
            }
            Value::ResponseFlagsLong => {
                self.flags.write_long(out);
                true
            }
            Value::ConnectionTerminationDetails => false,
            Value::UpstreamTransportFailureReason => self
                .failure_reason
                .as_ref()
                .is_some_and(|reason| text(out, reason)),
            Value::BytesReceived | Value::UpstreamWireBytesSent => {
                write_number(self.bytes_received, out);
                true
            }
            Value::BytesSent | Value::UpstreamWireBytesReceived => {
                write_number(self.bytes_sent, out);
                true
            }
            Value::UpstreamCluster => self
                .cluster
                .as_ref()
                .is_some_and(|cluster| text(out, cluster.name())),
            Value::UpstreamRequestAttemptCount => {
                write_number(self.attempts.into(), out);
                true
            }
            Value::RequestedServerName => self
                .shared
                .connection
                .sni
                .as_ref()
                .is_some_and(|sni| text(out, sni)),
            Value::RouteName => text(out, &self.route),
            Value::VirtualHost => text(out, &self.virtual_host),
            Value::TraceId => self.trace.is_some_and(|trace| {
                out.extend_from_slice(&trace.context.trace_id_text());
                true
            }),
            Value::ConnectionId => {
                write_number(self.shared.connection.id, out);
                true
            }
            Value::Hostname => HOSTNAME.with(|name| {
                let name = name.get_or_init(rajut_platform::host::hostname);
                text(out, name)
            }),
            Value::StreamId => format::Record::header(self, Section::Request, "x-request-id", out),
            Value::QueryParams => {
                let path = &self.head.path_and_query;
                let query = path.splitn(2, |byte| *byte == b'?').nth(1);
                out.extend_from_slice(query.unwrap_or_default());
                query.is_some()
            }
            Value::GrpcStatus | Value::GrpcStatusSnake | Value::GrpcStatusNumber => {
                let is_grpc = headers::is_grpc(&self.head.fields);
                let status = is_grpc.then(|| self.grpc_status()).flatten();
                status.is_some_and(|status| write_grpc_status(value, status, out))
            }
            Value::Duration
            | Value::RequestDuration
            | Value::RequestTxDuration
            | Value::ResponseDuration
            | Value::ResponseTxDuration => self.time_value(value, out),
            Value::DownstreamPeerUriSan
            | Value::DownstreamPeerDnsSan
            | Value::DownstreamPeerSubject
            | Value::DownstreamPeerFingerprint256
            | Value::DownstreamLocalUriSan => peer_value(&self.shared.connection.peer, value, out),
            Value::UpstreamHost
            | Value::UpstreamHostWithoutPort
            | Value::UpstreamHostPort
            | Value::UpstreamLocalAddress
            | Value::DownstreamLocalAddress
            | Value::DownstreamLocalAddressWithoutPort
            | Value::DownstreamLocalPort
            | Value::DownstreamRemoteAddress
            | Value::DownstreamRemoteAddressWithoutPort
            | Value::DownstreamRemotePort
            | Value::DownstreamDirectRemoteAddress
            | Value::DownstreamDirectRemoteAddressWithoutPort => self.address_value(value, out),
        }
    }

    fn header(&self, section: Section, name: &str, out: &mut Vec<u8>) -> bool {
        let fields = match section {
            Section::Request => {
                let pseudo: Option<&[u8]> = match name {
                    ":method" => Some(self.head.method.as_str().as_bytes()),
                    ":path" => Some(&self.head.path_and_query),
                    ":authority" | "host" => Some(&self.head.authority),
                    ":scheme" => Some(if self.shared.is_tls { b"https" } else { b"http" }),
                    _ => None,
                };
                if let Some(value) = pseudo {
                    out.extend_from_slice(value);
                    return !value.is_empty();
                }
                &self.head.fields
            }
            Section::Response if name == ":status" => {
                write_number(self.response.status.into(), out);
                return self.has_response;
            }
            Section::Response => &self.response.fields,
            Section::Trailers => match &self.trailers {
                Some(trailers) => trailers,
                None => return false,
            },
        };
        match fields.get(name) {
            Some(value) => {
                out.extend_from_slice(value);
                true
            }
            None => false,
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "only a log that is written asks, and pays for the calendar"
    )]
    fn start(&self) -> SystemTime {
        SystemTime::now() - self.start.elapsed()
    }
}

impl Facts for Record {
    fn text(&self, attribute: &Attribute, out: &mut Vec<u8>) -> bool {
        let view = View { record: self };
        let header = |name: &str, out: &mut Vec<u8>| {
            if let Some(value) = view.header(name) {
                out.extend_from_slice(&value);
                return true;
            }
            format::Record::header(self, Section::Request, name, out)
        };
        let of_value = |value: Value, out: &mut Vec<u8>| format::Record::value(self, value, out);
        let path = &self.head.path_and_query[..];
        let query = path.iter().position(|byte| *byte == b'?').unwrap_or(path.len());
        let bytes: &[u8] = match attribute {
            Attribute::RequestPath => path,
            Attribute::RequestUrlPath => &path[..query],
            Attribute::RequestQuery => path.get(query + 1..).unwrap_or_default(),
            Attribute::RequestHost => &self.head.authority,
            Attribute::RequestScheme => view.scheme(),
            Attribute::RequestMethod => self.head.method.as_str().as_bytes(),
            Attribute::RequestProtocol => self.head.version.as_str().as_bytes(),
            Attribute::RequestId => return header("x-request-id", out),
            Attribute::RequestReferer => return header("referer", out),
            Attribute::RequestUserAgent => return header("user-agent", out),
            Attribute::RequestHeader(name) => return header(name, out),
            Attribute::ResponseHeader(name) => {
                return format::Record::header(self, Section::Response, name, out);
            }
            Attribute::ResponseCodeDetails => return of_value(Value::ResponseCodeDetails, out),
            Attribute::UpstreamAddress => return of_value(Value::UpstreamHost, out),
            Attribute::ClusterName => return of_value(Value::UpstreamCluster, out),
            Attribute::RouteName => return of_value(Value::RouteName, out),
            Attribute::SourceAddress => return of_value(Value::DownstreamRemoteAddress, out),
            Attribute::DestinationAddress => return of_value(Value::DownstreamLocalAddress, out),
            Attribute::ConnectionServerName => return of_value(Value::RequestedServerName, out),
            Attribute::ConnectionPeerUri => {
                return self.shared.connection.peer.first_uri(out);
            }
            _ => return false,
        };
        out.extend_from_slice(bytes);
        true
    }

    fn number(&self, attribute: &Attribute) -> Option<i64> {
        match attribute {
            Attribute::ResponseCode => self.has_response.then(|| self.response.status.into()),
            Attribute::ResponseFlags => Some(self.flags.envoy_bits().into()),
            Attribute::ResponseGrpcStatus => self.grpc_status().map(Into::into),
            Attribute::SourcePort => Some(client_address(self).port().into()),
            Attribute::DestinationPort => Some(self.shared.connection.local.port().into()),
            _ => None,
        }
    }

    fn truth(&self, attribute: &Attribute) -> Option<bool> {
        let is_mtls = *attribute == Attribute::ConnectionMtls;
        is_mtls.then_some(matches!(self.shared.connection.peer, Peer::Verified(_)))
    }

    fn duration(&self, attribute: &Attribute) -> Option<Duration> {
        (*attribute == Attribute::RequestDuration).then(|| self.start.elapsed())
    }
}
