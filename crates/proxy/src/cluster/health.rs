//! Active health checks: every endpoint of a used cluster is asked at an interval whether it is well.
//!
//! ```text
//!            first answer bad, n failures in a row, or an answer that says so
//!  in service ────────────────────────────────────────────────────────────► out
//!            ◄──────────────────────────────────────────────────────────── n successes in a row
//! ```
//!
//! Worker 0 checks for the whole proxy: one task per endpoint, whose verdict stands in the host's record, where every worker's
//! picks find it. Until its first answer an endpoint is in service. Each check has a connection of its own (so it tells whether
//! one can be made), with the cluster's TLS, and stands in no breaker's books: a flood is no illness.
//!
//! Bounds: as many tasks as endpoints of running clusters that ask for checks, each with at most one question under way, no
//! longer than its timeout, not oftener than [`INTERVAL_MIN`]; [`ANSWER_MAX`] bytes of an answer are kept. What it does not do:
//! check a cluster that nothing has used yet, or addresses that clients dial ([`rajut_ir::cluster::Discovery::OriginalDst`]).

use std::{
    cell::RefCell,
    collections::HashMap,
    future::poll_fn,
    ops::Range,
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use rajut_codec::{
    Fields, Known, Method, RequestHead, Scheme,
    h1::{BodyLength, ClientConn, Limits},
    h2::Client,
};
use rajut_ir::cluster::{HealthCheck, HealthQuestion, Http2Options};
use rajut_types::Text;
use tokio::task::{JoinHandle, spawn_local};

use super::{Cluster, Host, outlier::Ejections};
use crate::{
    http::{
        h2::{self, Driver, Stream as H2Stream},
        message::Piece,
        transport::Transport,
    },
    stats::ClusterCounter,
    stream::Stream,
    upstream::connect,
    worker::Worker,
};

/// Longest time until an endpoint that is new is checked.
const LOOK: Duration = Duration::from_secs(1);
/// Shortest time between two checks of an endpoint, whatever is configured.
pub const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Bytes of an answer's body: a gRPC answer has a handful.
pub const ANSWER_MAX: usize = 4096;
/// Bytes of an answer's head.
const HEAD_MAX: usize = 64 * 1024;
/// What asks. Source: Envoy's is `Envoy/HC`.
const USER_AGENT: &str = "rajut-health-check";
/// `grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u8 = 1;

/// A check that was not passed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unwell {
    why: Text,
    /// The endpoint has said so itself: no second opinion is asked.
    certain: bool,
}

impl Unwell {
    fn perhaps(why: impl Into<Text>) -> Self {
        Self {
            why: why.into(),
            certain: false,
        }
    }

    fn certainly(why: impl Into<Text>) -> Self {
        Self {
            why: why.into(),
            certain: true,
        }
    }
}

/// What the checks of an endpoint have said so far.
#[derive(Debug, Default)]
struct Streak {
    known: bool,
    unwell: bool,
    /// Answers in a row that contradict the verdict.
    contrary: u32,
}

impl Streak {
    /// Takes an answer in; `true` where the verdict changes (or is the first).
    fn step(&mut self, check: &HealthCheck, answer: &Result<(), Unwell>) -> bool {
        let (fails, certain) = match answer {
            Ok(()) => (false, false),
            Err(unwell) => (true, unwell.certain),
        };
        if self.known && fails == self.unwell {
            self.contrary = 0;
            return false;
        }
        self.contrary = self.contrary.saturating_add(1);
        let needed = if fails {
            check.unhealthy_threshold
        } else {
            check.healthy_threshold
        };
        if self.known && !certain && self.contrary < needed {
            return false;
        }
        *self = Self {
            known: true,
            unwell: fails,
            contrary: 0,
        };
        true
    }
}

/// After an update: a cluster without checks has no unwell hosts.
pub(super) fn recount(out: &Ejections, hosts: &[Arc<Host>], check: Option<&HealthCheck>) {
    if check.is_none() {
        for host in hosts.iter().filter(|host| host.record.is_unwell()) {
            host.record.set_unwell(None);
        }
    }
    out.recount_unwell(hosts);
}

/// An endpoint that is checked, as the latest epoch has it.
type Target = Rc<RefCell<(Arc<Cluster>, Arc<Host>)>>;

/// The task that checks an endpoint; it ends with this.
#[derive(Debug)]
struct Checker {
    target: Target,
    task: JoinHandle<()>,
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The checkers of one cluster.
#[derive(Debug)]
struct Checked {
    cluster: Arc<Cluster>,
    /// The number of a host's record → who checks it.
    hosts: HashMap<u64, Checker>,
}

/// Checks every endpoint of the worker's running clusters that ask for it. Worker 0 runs it, for the whole proxy.
pub async fn check_forever(worker: Rc<Worker>) {
    // A cluster's number → its checkers.
    let mut checked: HashMap<u64, Checked> = HashMap::new();
    let mut adoptions = worker.adoptions();
    loop {
        look(&worker, &mut checked);
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            adopted = adoptions.changed() => if adopted.is_err() { return },
        }
    }
}

/// Starts the checks that are missing and ends those whose endpoint is gone.
fn look(worker: &Rc<Worker>, checked: &mut HashMap<u64, Checked>) {
    let epoch = worker.epoch();
    let running = epoch.config.clusters.values().filter_map(|slot| slot.running());
    let asked: HashMap<u64, &Arc<Cluster>> = running
        .filter(|cluster| cluster.ir().health_check.is_some())
        .map(|cluster| (cluster.id(), cluster))
        .collect();
    checked.retain(|id, _| asked.contains_key(id));
    for (id, cluster) in asked {
        let known = checked.entry(id).or_insert_with(|| Checked {
            cluster: cluster.clone(),
            hosts: HashMap::new(),
        });
        if Arc::ptr_eq(&known.cluster, cluster) && !known.hosts.is_empty() {
            continue;
        }
        known.cluster = cluster.clone();
        let mut before = std::mem::take(&mut known.hosts);
        for host in cluster.hosts() {
            let record = host.record.id();
            let checker = match before.remove(&record) {
                Some(checker) => {
                    *checker.target.borrow_mut() = (cluster.clone(), host.clone());
                    checker
                }
                None => start(worker, cluster, host),
            };
            known.hosts.insert(record, checker);
        }
    }
}

fn start(worker: &Rc<Worker>, cluster: &Arc<Cluster>, host: &Arc<Host>) -> Checker {
    let target = Rc::new(RefCell::new((cluster.clone(), host.clone())));
    Checker {
        task: spawn_local(watch(worker.clone(), target.clone())),
        target,
    }
}

/// Asks one endpoint at its interval.
async fn watch(worker: Rc<Worker>, target: Target) {
    let mut streak = Streak::default();
    loop {
        let (cluster, host) = target.borrow().clone();
        let Some(check) = &cluster.ir().health_check else {
            return;
        };
        let answer = tokio::time::timeout(check.timeout, ask(&worker, &cluster, &host, &check.question))
            .await
            .unwrap_or_else(|_| Err(Unwell::perhaps(format!("no answer within {:?}", check.timeout))));
        cluster.stats().add(worker.index, ClusterCounter::HealthChecks);
        if answer.is_err() {
            cluster
                .stats()
                .add(worker.index, ClusterCounter::HealthCheckFailures);
        }
        let was_known = streak.known;
        if streak.step(check, &answer) {
            // Of the epoch of now: the hosts that are counted are those that are picked from.
            let (cluster, host) = target.borrow().clone();
            publish(&cluster, &host, was_known, answer);
        }
        let jitter = check.interval_jitter.mul_f64(f64::from(worker.draw()) / 1e6);
        tokio::time::sleep((check.interval + jitter).max(INTERVAL_MIN)).await;
    }
}

/// Takes a host out of service, or brings it back.
fn publish(cluster: &Cluster, host: &Host, was_known: bool, answer: Result<(), Unwell>) {
    let name = cluster.name();
    match answer {
        Ok(()) => {
            let was_out = host.record.is_unwell();
            host.record.set_unwell(None);
            if was_known || was_out {
                tracing::info!(cluster = %name, endpoint = %host.address, "endpoint back: it passes its health checks");
            }
        }
        Err(unwell) => {
            host.record.set_unwell(Some(&unwell.why));
            tracing::warn!(cluster = %name, endpoint = %host.address, reason = %unwell.why, "endpoint out: health check failed");
        }
    }
    cluster.outlier.recount_unwell(&cluster.hosts);
}

/// One check. The caller bounds the time.
async fn ask(
    worker: &Rc<Worker>,
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    question: &HealthQuestion,
) -> Result<(), Unwell> {
    let authority: &Text = match question {
        HealthQuestion::Http { host, .. } => host,
        HealthQuestion::Grpc { authority, .. } => authority,
        HealthQuestion::Tcp => cluster.name(),
    };
    let authority = if authority.is_empty() {
        cluster.name()
    } else {
        authority
    };
    let stream = connect::dial(worker, cluster, host, Some(authority))
        .await
        .map_err(|failure| {
            let why = failure
                .reason
                .unwrap_or_else(|| format!("{:?}", failure.kind).into());
            Unwell::perhaps(format!("no connection: {why}"))
        })?;
    match question {
        HealthQuestion::Tcp => Ok(()),
        HealthQuestion::Http {
            path,
            http2,
            expected,
            retriable,
            ..
        } => {
            let head = request(Method::Get, path, authority)?;
            let status = if *http2 {
                over_http2(stream, &head, None).await?.status
            } else {
                over_http1(stream, &head).await?
            };
            judge(status, expected, retriable)
        }
        HealthQuestion::Grpc { service, .. } => {
            let mut head = request(Method::Post, "/grpc.health.v1.Health/Check", authority)?;
            for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
                head.fields.append(name, value).map_err(|_| unaskable())?;
            }
            serving(&over_http2(stream, &head, Some(grpc_question(service))).await?)
        }
    }
}

fn unaskable() -> Unwell {
    Unwell::perhaps("the question can't be written")
}

fn request(method: Method, path: &str, authority: &str) -> Result<RequestHead, Unwell> {
    let mut head = RequestHead::new(method, Bytes::copy_from_slice(path.as_bytes()));
    let mut fields = Fields::new();
    for (name, value) in [("host", authority), ("user-agent", USER_AGENT)] {
        fields.append(name, value).map_err(|_| unaskable())?;
    }
    head.fields = fields;
    head.set_authority(Bytes::copy_from_slice(authority.as_bytes()))
        .map_err(|_| unaskable())?;
    Ok(head)
}

/// Whether a status is that of an endpoint that is well.
fn judge(status: u16, expected: &[Range<u16>], retriable: &[Range<u16>]) -> Result<(), Unwell> {
    let is_in = |ranges: &[Range<u16>]| ranges.iter().any(|range| range.contains(&status));
    if is_in(expected) {
        return Ok(());
    }
    Err(Unwell {
        why: format!("it answered {status}").into(),
        certain: !is_in(retriable),
    })
}

/// The status of the answer to a request without a body.
async fn over_http1(stream: Stream, head: &RequestHead) -> Result<u16, Unwell> {
    let broken = |error: &dyn std::fmt::Display| Unwell::perhaps(format!("no answer: {error}"));
    let mut transport = Transport::new(stream);
    let mut machine = ClientConn::new(Limits::default());
    machine.close_after();
    machine
        .encode_head(head, BodyLength::Empty, &mut transport.output)
        .map_err(|_| unaskable())?;
    poll_fn(|cx| {
        let _ = transport.poll_flush(cx).map_err(|error| broken(&error))?;
        loop {
            match machine.decode_head(&mut transport.read) {
                Ok(Some(response)) if response.head.is_informational() => continue,
                Ok(Some(response)) => return Poll::Ready(Ok(response.head.status)),
                Ok(None) => {}
                Err(error) => {
                    return Poll::Ready(Err(Unwell::perhaps(format!("it did not speak HTTP: {error}"))));
                }
            }
            if ready!(transport.poll_read(cx)).map_err(|error| broken(&error))? == 0 {
                return Poll::Ready(Err(Unwell::perhaps("it closed the connection")));
            }
        }
    })
    .await
}

/// An answer over HTTP/2.
#[derive(Debug, Default)]
struct Answer {
    status: u16,
    grpc_status: Option<Text>,
    body: Vec<u8>,
}

impl Answer {
    fn note(&mut self, fields: &Fields) {
        if let Some(status) = fields.get_str(Known::GrpcStatus) {
            self.grpc_status = Some(status.into());
        }
    }
}

/// A request and its answer: to the end where there is a body to send, else the head.
async fn over_http2(stream: Stream, head: &RequestHead, body: Option<Bytes>) -> Result<Answer, Unwell> {
    let broken = |why: &dyn std::fmt::Debug| Unwell::perhaps(format!("no answer over HTTP/2: {why:?}"));
    let mut driver: Driver<Client> = Driver::new(
        stream,
        BytesMut::new(),
        h2::config(&Http2Options::default(), HEAD_MAX),
    );
    let length = body
        .as_ref()
        .map_or(BodyLength::Empty, |body| BodyLength::Exact(body.len() as u64));
    let whole = body.is_some();
    let mut exchange: H2Stream<Client> = driver
        .link()
        .open(head, Scheme::Http, length)
        .map_err(|_| unaskable())?;
    if let Some(body) = body {
        exchange
            .push(Piece::Data(body))
            .and_then(|()| exchange.push(Piece::End))
            .map_err(|lost| broken(&lost))?;
    }
    let (mut answer, mut answered) = (Answer::default(), false);
    poll_fn(|cx| {
        // What has come is looked at first: a server may answer and close.
        loop {
            let driven = driver.poll_drive(cx);
            if let Poll::Ready(Err(lost)) = exchange.poll_flush(cx) {
                return Poll::Ready(Err(broken(&lost)));
            }
            let step = advance(&mut exchange, &mut answer, &mut answered, whole, cx);
            match (step, driven) {
                (Poll::Ready(Ok(true)), _) => return Poll::Ready(Ok(std::mem::take(&mut answer))),
                (Poll::Ready(Ok(false)), _) => {}
                (Poll::Ready(Err(lost)), _) => return Poll::Ready(Err(lost)),
                (Poll::Pending, Poll::Ready(ended)) => return Poll::Ready(Err(broken(&ended))),
                (Poll::Pending, Poll::Pending) => return Poll::Pending,
            }
        }
    })
    .await
}

/// One step of reading an answer; `true` when it is read.
fn advance(
    exchange: &mut H2Stream<Client>,
    answer: &mut Answer,
    answered: &mut bool,
    whole: bool,
    cx: &mut std::task::Context<'_>,
) -> Poll<Result<bool, Unwell>> {
    let lost = |lost| Unwell::perhaps(format!("no answer over HTTP/2: {lost:?}"));
    if !*answered {
        let response = ready!(exchange.poll_head(cx)).map_err(lost)?;
        if response.head.is_informational() {
            return Poll::Ready(Ok(false));
        }
        *answered = true;
        answer.status = response.head.status;
        answer.note(&response.head.fields);
        return Poll::Ready(Ok(!whole));
    }
    match ready!(exchange.poll_piece(cx)).map_err(lost)? {
        Piece::Data(bytes) => {
            if answer.body.len() + bytes.len() > ANSWER_MAX {
                return Poll::Ready(Err(Unwell::perhaps(format!(
                    "it answered more than {ANSWER_MAX} bytes"
                ))));
            }
            answer.body.extend_from_slice(&bytes);
        }
        Piece::Trailers(fields) => answer.note(&fields),
        Piece::End => return Poll::Ready(Ok(true)),
    }
    Poll::Ready(Ok(false))
}

/// `HealthCheckRequest { service = 1 }` in gRPC's framing.
fn grpc_question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length > 0x7f {
            message.put_u8(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
            length >>= 7;
        }
        message.put_u8(u8::try_from(length).unwrap_or(0));
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(0));
    framed.put(message);
    framed.freeze()
}

/// Reads `HealthCheckResponse { status = 1 }`.
fn serving(answer: &Answer) -> Result<(), Unwell> {
    match (answer.status, answer.grpc_status.as_deref()) {
        (200, Some("0")) => match answer.body.as_slice() {
            [0, _, _, _, _, 0x08, SERVING, ..] => Ok(()),
            _ => Err(Unwell::certainly("it says that it is not serving")),
        },
        (200, Some(status)) => Err(Unwell::certainly(format!("it answered gRPC status {status}"))),
        (200, None) => Err(Unwell::perhaps("it answered without a gRPC status")),
        (status, _) => Err(Unwell::certainly(format!("it answered {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> HealthCheck {
        HealthCheck {
            timeout: Duration::from_secs(1),
            interval: Duration::from_secs(1),
            interval_jitter: Duration::ZERO,
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            question: HealthQuestion::Tcp,
        }
    }

    #[test]
    fn the_first_answer_decides_and_then_the_thresholds_do() {
        let (check, mut streak) = (check(), Streak::default());
        let bad = || Err(Unwell::perhaps("no"));
        let answers = [
            (Ok(()), true),
            (bad(), false),
            (bad(), false),
            (Ok(()), false),
            (bad(), false),
            (bad(), false),
            (bad(), true),
            (Ok(()), false),
            (bad(), false),
            (Ok(()), false),
            (Ok(()), true),
            (Err(Unwell::certainly("said so")), true),
        ];
        for (at, (answer, changes)) in answers.into_iter().enumerate() {
            assert_eq!(streak.step(&check, &answer), changes, "answer {at}");
        }
        let mut first = Streak::default();
        assert!(first.step(&check, &bad()));
        assert!(first.unwell);
    }

    #[test]
    fn statuses_are_well_or_count_or_decide() {
        let judged = |status| judge(status, &[200..300, 404..405], std::slice::from_ref(&(500..600)));
        assert_eq!(judged(204), Ok(()));
        assert_eq!(judged(404), Ok(()));
        assert_eq!(judged(503), Err(Unwell::perhaps("it answered 503")));
        assert_eq!(judged(401), Err(Unwell::certainly("it answered 401")));
    }

    #[test]
    fn grpc_questions_and_answers_are_framed() {
        assert_eq!(&grpc_question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&grpc_question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = grpc_question(&"x".repeat(200));
        assert_eq!(&long[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
        let answer = |body: &[u8], status: &str| Answer {
            status: 200,
            grpc_status: Some(status.into()),
            body: body.to_vec(),
        };
        assert_eq!(serving(&answer(&[0, 0, 0, 0, 2, 8, 1], "0")), Ok(()));
        assert!(serving(&answer(&[0, 0, 0, 0, 2, 8, 2], "0")).is_err_and(|it| it.certain));
        assert!(serving(&answer(&[], "0")).is_err());
        assert!(serving(&answer(&[], "12")).is_err_and(|it| it.why.contains("12")));
        assert!(serving(&Answer::default()).is_err());
    }
}
