//! Steps 4 to 12 of walk one: HTTP connections, and each request on them.
//!
//! [`serve_request`] is the walk itself. An HTTP/1 connection serves its requests one after the other in one task; an
//! HTTP/2 connection (`serve/http2.rs`) has a task per stream. What it does not do: accept connections or TLS (`listener/`, `tls/`).
//!
//! Bounds: heads as the connection manager says, pipelined bytes 64 KiB, what is read and thrown away after an early
//! answer [`DISCARD_MAX`] within [`LINGER`], streams as `h2.rs` of this folder says.

mod http2;

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use rajut_codec::{
    Fields, Known, Method, RequestHead, ResponseHead,
    h1::{BodyLength, Limits, ServerNext},
};
use rajut_ir::{
    decide::{Chosen, Decision, decide},
    http::Codec,
    route::{Forward, HeaderMutations, RouteActionKind},
};
use tokio::{io::AsyncReadExt, time::Instant};

use super::{
    authorize,
    deadline::Deadlines,
    downstream::Downstream,
    filters::{
        Passed, Resume, Routes,
        ext_authz::{Refusal, Verdict},
    },
    forward::{self, Ended, Forwarding},
    h1::{self, HeadError},
    headers,
    manager::Manager,
    message::Request,
    open::{self, Watch},
    pause::Waiting,
    record::{Current, Details, Record, Shared},
    reply,
    source::Source,
    timer::Timer,
    trace,
    view::View,
};
use crate::{
    clock,
    cluster::Cluster,
    connection::Connection,
    epoch::Epoch,
    failure::{Failure, FailureKind},
    stats::ManagerCounter,
    stream::Stream,
    unknown::{self, Spoke},
    worker::Worker,
};

/// Bytes of a request's body that are read and thrown away so that its connection can go on.
pub const DISCARD_MAX: usize = 256 * 1024;
/// How long a connection that is closed may still send, so that our last answer is not lost to a reset.
pub const LINGER: Duration = Duration::from_secs(1);
/// What an HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves the connection to its end.
pub async fn serve_connection(
    worker: Rc<Worker>,
    stream: Stream,
    connection: Rc<Connection>,
    manager: Arc<Manager>,
) {
    let ends = connection.peer.ends();
    let shared = Rc::new(Shared {
        is_tls: matches!(stream, Stream::Tls(_)),
        ends,
        client: Cell::default(),
        worker,
        connection,
        current: RefCell::new(Current::new(manager.clone())),
        manager,
        limits: RefCell::default(),
    });
    let stats = shared.manager.stats();
    let index = shared.worker.index;
    stats.add(index, ManagerCounter::CxTotal);
    let mut stream = stream;
    let mut first = BytesMut::new();
    if speaks_http2(&shared, &mut stream, &mut first).await {
        stats.add(index, ManagerCounter::CxHttp2);
        // Boxed, as is the other: the task of a connection carries only what its version needs.
        Box::pin(http2::serve_http2(&shared, stream, first)).await;
    } else {
        stats.add(index, ManagerCounter::CxHttp1);
        Box::pin(serve_http1(&shared, stream, first)).await;
    }
    stats.add(index, ManagerCounter::CxDestroy);
}

/// Whether the client speaks HTTP/2: as configured, by ALPN, else by its first bytes, which are left in `first`.
async fn speaks_http2(shared: &Shared, stream: &mut Stream, first: &mut BytesMut) -> bool {
    match shared.manager.ir().codec {
        Codec::Http1 => return false,
        Codec::Http2 => return true,
        Codec::Auto => {}
    }
    if let Some(protocol) = stream.alpn() {
        match protocol {
            b"h2" | b"istio-h2" => return true,
            b"http/1.1" | b"http/1.0" | b"istio-http/1.1" | b"istio-http/1.0" => return false,
            _ => {}
        }
    }
    let ir = shared.manager.ir();
    let limit = ir.request_headers_timeout.or(ir.idle_timeout);
    let look = async {
        while first.len() < PREFACE.len() {
            if !PREFACE.starts_with(first) {
                return false;
            }
            first.reserve(4096);
            match stream.read_buf(first).await {
                Ok(0) | Err(_) => return false,
                Ok(_) => {}
            }
        }
        first.starts_with(PREFACE)
    };
    match limit {
        Some(limit) => tokio::time::timeout(limit, look).await.unwrap_or(false),
        None => look.await,
    }
}

/// What ended the wait for a request.
#[expect(
    clippy::large_enum_variant,
    reason = "lives for one match; a box would be an allocation per request"
)]
enum Waited {
    Request(rajut_codec::h1::Request),
    Malformed(rajut_codec::h1::DecodeError),
    HeadersTimeout,
    /// No byte came for as long as the caller wanted to wait.
    Quiet,
    Idle,
    Drained,
    Gone,
}

/// How long a connection that has served a request is kept ready for the next before it becomes small again: long enough
/// that busy connections never pay for it, short enough that ten thousand idle ones cost little.
const READY: Duration = Duration::from_secs(1);

/// An HTTP/1 connection between two requests. What a request needs beyond this lives in a box of its own, which goes back
/// when the connection has been quiet for [`READY`].
struct Http1 {
    server: h1::Server,
    timer: Timer,
    opened: Instant,
    served: u32,
}

async fn serve_http1(shared: &Rc<Shared>, stream: Stream, first: BytesMut) {
    let ir = shared.manager.ir();
    let limits = Limits {
        max_head_bytes: usize::try_from(ir.max_request_headers_kb)
            .unwrap_or(60)
            .saturating_mul(1024),
        max_headers: usize::try_from(ir.max_request_headers_count)
            .unwrap_or(100)
            .min(4096),
        ..Limits::default()
    };
    let mut connection = Http1 {
        server: h1::Server::new(stream, limits, ir.http1.accept_http_10),
        timer: Timer::default(),
        opened: Instant::now(),
        served: 0,
    };
    connection.server.transport.read = first;
    loop {
        match wait_for_request(shared, &mut connection, None).await {
            Waited::Request(request) => {
                if !Box::pin(serve_while_busy(shared, &mut connection, request)).await {
                    return;
                }
            }
            other => return Box::pin(end_without_request(shared, &mut connection.server, other)).await,
        }
    }
}

/// Serves requests as long as they follow each other; `false` when the connection has ended.
async fn serve_while_busy(
    shared: &Rc<Shared>,
    connection: &mut Http1,
    first: rajut_codec::h1::Request,
) -> bool {
    let ir = shared.manager.ir();
    let mut request = first;
    loop {
        connection.served = connection.served.saturating_add(1);
        let used_up = ir
            .max_requests_per_connection
            .is_some_and(|max| max > 0 && connection.served >= max);
        let old = ir
            .max_connection_duration
            .is_some_and(|longest| connection.opened.elapsed() >= longest);
        let Http1 { server, timer, .. } = &mut *connection;
        if used_up || old || shared.worker.draining() || shared.is_retired() {
            server.machine.close_after();
        }
        let received = Request {
            head: request.head,
            body: request.body,
            expect_continue: request.expect_continue,
            upgrade: request.upgrade,
        };
        let complete = serve_request(shared, timer, &mut Downstream::H1(server), received).await;
        let next = server.machine.next_exchange();
        let goes_on = complete
            && (next == ServerNext::Request || (next == ServerNext::Drain && discard_body(server).await));
        if !goes_on {
            linger(server).await;
            return false;
        }
        request = match wait_for_request(shared, connection, Some(READY)).await {
            Waited::Request(request) => request,
            Waited::Quiet => {
                connection.server.transport.rest();
                return true;
            }
            other => {
                end_without_request(shared, &mut connection.server, other).await;
                return false;
            }
        };
    }
}

/// Ends a connection on which no further request came.
async fn end_without_request(shared: &Rc<Shared>, server: &mut h1::Server, why: Waited) {
    let count = |counter| shared.manager.stats().add(shared.worker.index, counter);
    match why {
        Waited::Malformed(error) => {
            count(ManagerCounter::CxProtocolError);
            let status = error.status();
            if status == 431 {
                count(ManagerCounter::RqTooLarge);
            }
            refuse(shared, server, FailureKind::MalformedRequest { status }).await;
        }
        Waited::HeadersTimeout => {
            count(ManagerCounter::RqHeaderTimeout);
            refuse(shared, server, FailureKind::RequestHeadersTimeout).await;
        }
        Waited::Idle => count(ManagerCounter::CxIdleTimeout),
        Waited::Drained => count(ManagerCounter::CxDrainClose),
        Waited::Gone | Waited::Quiet | Waited::Request(_) => {}
    }
}

/// Waits for the next request; with `quiet` no longer than that for its first byte.
async fn wait_for_request(shared: &Shared, connection: &mut Http1, quiet: Option<Duration>) -> Waited {
    let ir = shared.manager.ir();
    let Http1 { server, timer, .. } = connection;
    let since = clock::now();
    let idle = ir.idle_timeout;
    let until = match (quiet, idle) {
        (Some(quiet), Some(idle)) => Some(quiet.min(idle)),
        (one, None) | (None, one) => one,
    };
    let is_quiet = quiet.is_some_and(|quiet| idle.is_none_or(|idle| quiet < idle));
    let mut began = server.has_begun().then_some(since);
    let mut drain = pin!(shared.worker.drain_started());
    poll_fn(|cx| {
        match server.poll_request(cx) {
            Poll::Ready(Ok(Some(request))) => return Poll::Ready(Waited::Request(request)),
            Poll::Ready(Ok(None) | Err(HeadError::Gone)) => return Poll::Ready(Waited::Gone),
            Poll::Ready(Err(HeadError::Malformed(error))) => return Poll::Ready(Waited::Malformed(error)),
            Poll::Pending => {}
        }
        if began.is_none() && server.has_begun() {
            began = Some(clock::now());
        }
        let deadline = match began {
            Some(began) => ir.request_headers_timeout.map(|limit| began + limit),
            None => until.map(|limit| since + limit),
        };
        if timer.poll(cx, deadline) {
            return Poll::Ready(if began.is_some() {
                Waited::HeadersTimeout
            } else if is_quiet {
                Waited::Quiet
            } else {
                Waited::Idle
            });
        }
        if began.is_none() && drain.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Waited::Drained);
        }
        Poll::Pending
    })
    .await
}

/// Answers what is no request, and closes.
async fn refuse(shared: &Rc<Shared>, server: &mut h1::Server, kind: FailureKind) {
    let mut record = Record::open(shared.clone(), RequestHead::default(), Instant::now());
    let failure = kind.into();
    record.note(&failure);
    let mut downstream = Downstream::H1(server);
    let answered = reply::failure(&mut record, &mut downstream, &failure, false).is_ok();
    drop(record);
    if answered {
        linger(server).await;
    }
}

/// Reads the rest of a request's body, within bounds, so that the connection can go on; `false` where it can't.
async fn discard_body(server: &mut h1::Server) -> bool {
    let discard = async {
        let mut left = DISCARD_MAX;
        loop {
            match poll_fn(|cx| server.poll_piece(cx)).await {
                Ok(super::message::Piece::Data(bytes)) => match left.checked_sub(bytes.len()) {
                    Some(rest) => left = rest,
                    None => return false,
                },
                Ok(super::message::Piece::Trailers(_)) => {}
                Ok(super::message::Piece::End) => return true,
                Err(_) => return false,
            }
        }
    };
    let discarded = tokio::time::timeout(LINGER, discard).await.unwrap_or(false);
    discarded && server.machine.next_exchange() == ServerNext::Request
}

/// Writes what waits, says that nothing follows, and reads on for a moment: closing with unread bytes would reset the
/// connection and take our answer with it.
async fn linger(server: &mut h1::Server) {
    let close = async {
        if poll_fn(|cx| server.transport.poll_shutdown(cx)).await.is_err() {
            return;
        }
        let mut most = DISCARD_MAX;
        poll_fn(|cx| server.poll_discard(cx, &mut most)).await;
    };
    // A peer that neither reads nor closes is not waited for.
    let _ = tokio::time::timeout(LINGER, close).await;
}

/// One request: steps 4 to 12. `false`: its connection can't go on.
async fn serve_request(
    shared: &Rc<Shared>,
    timer: &mut Timer,
    downstream: &mut Downstream<'_>,
    request: Request,
) -> bool {
    let mut record = Record::open(shared.clone(), request.head, clock::now());
    let received = Received {
        body: request.body,
        expect_continue: request.expect_continue,
        upgrade: request.upgrade,
    };
    let ended = walk(&mut record, timer, downstream, received).await;
    let mut whole = true;
    if let Err(Ended { failure, retried }) = ended {
        record.note(&failure);
        count_failure(&record, failure.kind);
        let started = downstream.response_started();
        if started || reply::failure(&mut record, downstream, &failure, retried).is_err() {
            downstream.abort();
            whole = false;
        }
    }
    if whole {
        whole = flush(shared, timer, downstream).await;
    }
    drop(record);
    whole
}

/// What came with the head.
pub(super) struct Received {
    pub(super) body: BodyLength,
    pub(super) expect_continue: bool,
    pub(super) upgrade: bool,
}

async fn walk(
    record: &mut Record,
    timer: &mut Timer,
    downstream: &mut Downstream<'_>,
    mut received: Received,
) -> Result<(), Ended> {
    // As they came: what is added here is not the client's.
    let limit = record.manager.ir().max_request_headers_count;
    if record.head.fields.len() > usize::try_from(limit).unwrap_or(usize::MAX) {
        return Err(FailureKind::MalformedRequest { status: 431 }.into());
    }
    if record.shared.is_revoked() {
        return Err(open::revoked().into());
    }
    headers::accept_request(record, received.upgrade)?;
    trace::begin(record);
    let epoch = record.worker().epoch();
    let manager = record.manager.clone();
    let table = manager.routes(&epoch.config);
    let draw = record.worker().draw();
    let mut source = Source::new(received.body, record.is_grpc);
    let mut place = At {
        resume: Resume::default(),
        since: record.start,
    };
    loop {
        let decision = table.map(|table| decide(table, &View { record: &*record }, draw));
        let chosen = match &decision {
            Some(Decision::Route(chosen)) => Some(chosen),
            Some(Decision::NoVirtualHost | Decision::NoRoute { .. }) | None => None,
        };
        note_route(record, chosen);
        let routed = Routed {
            epoch: &epoch,
            table,
            chosen,
        };
        let passing = pass(
            record,
            downstream,
            timer,
            &mut received,
            &mut source,
            routed,
            &mut place,
        );
        let onward = match passing.await {
            Ok(Passage::Answered) => return Ok(()),
            Ok(Passage::Reroute) => continue,
            Ok(Passage::Onward(onward)) => onward,
            Err(ended) => {
                record.edits = routed.response_edits();
                return Err(ended);
            }
        };
        let mut forwarding = Forwarding {
            deadlines: deadlines(record, &onward, source.is_ended()),
            record,
            downstream,
            timer,
            source,
            body: received.body,
            wants_continue: onward.wants_continue,
            cookie: None,
            watch: Watch::default(),
            version: epoch.config.version,
        };
        return forwarding
            .run(&epoch, onward.table, onward.chosen, onward.forward)
            .await;
    }
}

/// What the log says of the route.
fn note_route(record: &mut Record, chosen: Option<&Chosen<'_>>) {
    let Some(chosen) = chosen else { return };
    record.route = chosen.route.name.clone();
    record.virtual_host = chosen.virtual_host.name.clone();
    if record.trace.is_some() {
        record.decorator = Some(chosen.route.decorator.clone());
    }
}

/// Where a request is on its way through step six.
struct At {
    resume: Resume,
    /// Its start, or the end of its last wait.
    since: Instant,
}

/// How step six ends.
enum Passage<'t> {
    /// Something here has answered.
    Answered,
    /// Its head is another: step five again, and on from where it was.
    Reroute,
    /// It goes on.
    Onward(Onward<'t>),
}

/// A request that goes on to an upstream.
struct Onward<'t> {
    table: &'t Routes,
    chosen: &'t Chosen<'t>,
    forward: &'t Forward,
    wants_continue: bool,
    /// The router had it from then on: its start, or the end of its last wait at a filter.
    since: Instant,
}

/// What step five has found.
#[derive(Clone, Copy)]
struct Routed<'t> {
    epoch: &'t Epoch,
    table: Option<&'t Arc<Routes>>,
    chosen: Option<&'t Chosen<'t>>,
}

impl<'t> Routed<'t> {
    fn forward(&self) -> Option<&'t Forward> {
        match &self.chosen?.route.action {
            RouteActionKind::Forward(forward) => Some(forward),
            _ => None,
        }
    }

    /// The cluster that a request would have gone to, for the log.
    fn cluster(&self, record: &Record) -> Option<Arc<Cluster>> {
        self.chosen
            .and_then(|chosen| cluster_of(record, self.epoch, chosen))
    }

    /// What the route changes in answers that are made here.
    fn response_edits(&self) -> Box<[HeaderMutations]> {
        match self.table.zip(self.chosen) {
            Some((table, chosen)) => headers::response_edits(table, chosen),
            None => Box::default(),
        }
    }
}

/// Step six, with its waits, and what the route says.
async fn pass<'t>(
    record: &mut Record,
    downstream: &mut Downstream<'_>,
    timer: &mut Timer,
    received: &mut Received,
    source: &mut Source,
    routed: Routed<'t>,
    at: &mut At,
) -> Result<Passage<'t>, Ended> {
    let manager = record.manager.clone();
    loop {
        let table = routed.table.map(|it| &**it);
        let passed = manager
            .filters()
            .on_request(record, table, routed.chosen, at.resume);
        let passed = passed.inspect_err(|_| record.cluster = routed.cluster(record))?;
        if matches!(passed, Passed::All) {
            return act(record, downstream, received, routed, at.since);
        }
        if let Passed::Reroute(resume) = passed {
            at.resume = resume;
            return Ok(Passage::Reroute);
        }
        if let Passed::Preflight(fields) = passed {
            record.details = Details::Fixed("cors_response");
            record.cluster = routed.cluster(record);
            return answer(record, downstream, 200, Bytes::new(), fields).map(|()| Passage::Answered);
        }
        let waiting = Waiting {
            deadlines: of_stream(record, routed.forward(), None),
            downstream,
            timer,
            source,
        };
        // Boxed: few requests wait.
        let verdict = Box::pin(wait(record, waiting, received, passed, at)).await;
        record.bytes_received = source.received();
        at.since = clock::now();
        match verdict {
            Ok(Verdict::Pass { reroute: false }) => {}
            Ok(Verdict::Pass { reroute: true }) => return Ok(Passage::Reroute),
            Ok(Verdict::Refused(refusal)) => {
                record.cluster = routed.cluster(record);
                record.edits = routed.response_edits();
                let Refusal { status, fields, body } = *refusal;
                return answer(record, downstream, status, body, fields).map(|()| Passage::Answered);
            }
            Err(failure) => {
                record.cluster = routed.cluster(record);
                return Err(failure.into());
            }
        }
    }
}

/// Waits for what a filter wants to wait for.
async fn wait(
    record: &mut Record,
    mut waiting: Waiting<'_, '_>,
    received: &mut Received,
    passed: Passed,
    at: &mut At,
) -> Result<Verdict, Failure> {
    let passes = Verdict::Pass { reroute: false };
    match passed {
        Passed::Wait(wait) => {
            waiting.pause(wait.pause).await?;
            at.resume = Resume::after(wait);
            Ok(passes)
        }
        Passed::Ask(asker, resume) => {
            at.resume = resume;
            authorize::ask(record, waiting, received, &asker).await
        }
        Passed::All | Passed::Preflight(_) | Passed::Reroute(_) => Ok(passes),
    }
}

/// What the route says.
fn act<'t>(
    record: &mut Record,
    downstream: &mut Downstream<'_>,
    received: &Received,
    routed: Routed<'t>,
    since: Instant,
) -> Result<Passage<'t>, Ended> {
    let (Some(table), Some(chosen)) = (routed.table, routed.chosen) else {
        return Err(FailureKind::NoRoute.into());
    };
    let forward = match &chosen.route.action {
        RouteActionKind::Forward(forward) => forward,
        RouteActionKind::Redirect(redirect) => {
            let mut fields = Fields::new();
            let location = reply::location(record, redirect, &chosen.route.matches.path);
            // A location that holds control characters is left out.
            let _ = fields.set(Known::Location, location);
            record.details = Details::Fixed("direct_response");
            record.edits = headers::response_edits(table, chosen);
            return answer(record, downstream, redirect.status, Bytes::new(), fields)
                .map(|()| Passage::Answered);
        }
        RouteActionKind::DirectResponse(direct) => {
            record.details = Details::Fixed("direct_response");
            if *chosen.virtual_host.name == *unknown::BLOCK_ALL {
                let authority = String::from_utf8_lossy(&record.head.authority);
                unknown::say(&authority, record.shared.connection.local, Spoke::Http);
            }
            let body = direct.body.clone();
            record.edits = headers::response_edits(table, chosen);
            return answer(record, downstream, direct.status, body, Fields::new())
                .map(|()| Passage::Answered);
        }
        RouteActionKind::NonForwarding => return Err(FailureKind::NoRoute.into()),
    };
    if received.upgrade || record.head.method == Method::Connect {
        allow_upgrade(record, &forward.upgrades).inspect_err(|_| {
            record.cluster = cluster_of(record, routed.epoch, chosen);
        })?;
    }
    let wants_continue = expect(record, downstream, received.expect_continue)?;
    Ok(Passage::Onward(Onward {
        table,
        chosen,
        forward,
        wants_continue,
        since,
    }))
}

/// The cluster that a refused request would have gone to, for the log.
fn cluster_of(record: &Record, epoch: &Epoch, chosen: &Chosen<'_>) -> Option<Arc<Cluster>> {
    if !matches!(chosen.route.action, RouteActionKind::Forward(_)) {
        return None;
    }
    let name = forward::cluster_name(&chosen.cluster, record);
    epoch.cluster(&name).cloned()
}

/// The deadlines of an exchange.
fn deadlines(record: &mut Record, onward: &Onward<'_>, complete: bool) -> Deadlines {
    let forward = onward.forward;
    let mut deadlines = of_stream(record, Some(forward), forward.timeout);
    if complete {
        deadlines.request_ended(onward.since);
        record.request_end = Some(onward.since);
    }
    deadlines.touch(onward.since);
    deadlines
}

/// The deadlines that the route and the connection manager set for the whole stream, and the route's timeout.
fn of_stream(record: &Record, forward: Option<&Forward>, timeout: Option<Duration>) -> Deadlines {
    let ir = record.manager.ir();
    let start = record.start;
    let mut deadlines = Deadlines::new(timeout);
    deadlines.idle = forward
        .and_then(|forward| forward.idle_timeout)
        .or(ir.stream_idle_timeout)
        .filter(|idle| !idle.is_zero());
    deadlines.request = ir.request_timeout.map(|limit| start + limit);
    deadlines.touch(start);
    let Some(forward) = forward else {
        return deadlines;
    };
    deadlines.stream = forward.max_stream_duration.map(|longest| start + longest);
    if let Some(most) = forward.grpc_timeout_max
        && let Some(asked) = headers::grpc_timeout(&record.head.fields)
    {
        let bounded = if most.is_zero() { asked } else { asked.min(most) };
        deadlines.grpc = Some(start + bounded);
    }
    deadlines
}

/// Answers `Expect: 100-continue` here, or leaves it to the upstream.
fn expect(record: &mut Record, downstream: &mut Downstream<'_>, expected: bool) -> Result<bool, Ended> {
    if !expected {
        return Ok(false);
    }
    if record.manager.ir().proxy_100_continue {
        return Ok(true);
    }
    record.head.fields.remove(Known::Expect);
    downstream
        .push_informational(&ResponseHead::new(100))
        .map_err(|_| Ended::from(FailureKind::DownstreamGone))?;
    Ok(false)
}

/// Whether the upgrade (or CONNECT) is on: the route's word counts before the connection manager's.
fn allow_upgrade(record: &Record, of_route: &[(rajut_types::Text, bool)]) -> Result<(), Ended> {
    let asked = record.head.fields.get(Known::Upgrade).unwrap_or(b"connect");
    let matching = |(name, _): &&(rajut_types::Text, bool)| name.as_bytes().eq_ignore_ascii_case(asked);
    let of_manager = &record.manager.ir().upgrades;
    let found = of_route
        .iter()
        .find(matching)
        .or_else(|| of_manager.iter().find(matching));
    if found.is_some_and(|(_, on)| *on) {
        record
            .shared
            .manager
            .stats()
            .add(record.shared.worker.index, ManagerCounter::UpgradesTotal);
        Ok(())
    } else {
        Err(FailureKind::UpgradeRefused.into())
    }
}

/// An answer that the configuration gives.
fn answer(
    record: &mut Record,
    downstream: &mut Downstream<'_>,
    status: u16,
    body: Bytes,
    fields: Fields,
) -> Result<(), Ended> {
    reply::send(record, downstream, status, None, body, fields)
        .map_err(|_| Ended::from(FailureKind::DownstreamGone))
}

fn count_failure(record: &Record, kind: FailureKind) {
    let counter = match kind {
        FailureKind::NoRoute => ManagerCounter::NoRoute,
        FailureKind::DownstreamGone => ManagerCounter::RqRxReset,
        FailureKind::RequestTimeout => ManagerCounter::RqTimeout,
        FailureKind::StreamIdleTimeout { .. } => ManagerCounter::RqIdleTimeout,
        FailureKind::MalformedRequest { status: 431 } => ManagerCounter::RqTooLarge,
        _ => return,
    };
    record.manager.stats().add(record.shared.worker.index, counter);
}

/// Writes what waits; `false` where the client is gone or takes nothing for as long as a connection may be idle.
async fn flush(shared: &Shared, timer: &mut Timer, downstream: &mut Downstream<'_>) -> bool {
    let mut deadline = None;
    poll_fn(|cx| match downstream.poll_flush(cx) {
        Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
        Poll::Pending => {
            let ir = shared.manager.ir();
            let limit = ir.stream_idle_timeout.or(ir.idle_timeout);
            let deadline = *deadline.get_or_insert_with(|| limit.map(|limit| Instant::now() + limit));
            if timer.poll(cx, deadline) {
                return Poll::Ready(false);
            }
            Poll::Pending
        }
    })
    .await
}
