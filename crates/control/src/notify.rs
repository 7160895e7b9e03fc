//! Alarms to an Alertmanager: its API version 2, `POST …/api/v2/alerts`.
//!
//! ```text
//!  Observer ─► open, or ended not long ago, and not silenced ─► due? ─► batches ─► POST ──2xx──► told; again after RESEND
//!                                                                          └── else ─► the same, newer, after 1 s, 2 s … RETRY_MAX
//! ```
//!
//! An alert is what its labels are: kind, caller and service; the same edge in the same alarm again is the same alert with another
//! begin. An open one is told with an end a few minutes ahead and told again before that, as Prometheus does it, so that it ends
//! by itself when nobody tells any more; one that is over is told with its end. **Silenced alarms** are not told; what was told before
//! lapses at that end. Acknowledged ones are told with the name of who did it.
//!
//! Nothing is queued: what is due is computed from the alarms that are kept, so a receiver that is away costs no memory, and when it is
//! back it is told how things are, not how they were. Alarms that were pushed out before they could be told are counted.
//!
//! TLS is verified with the machine's own roots or a file's. What the header `authorization` is to be stands in a file, read for each
//! request and told to nobody; of the URL only scheme, host and port are logged.
//!
//! Bounds: [`BATCH`] alerts in a request, one request at a time, [`TIMEOUT`] for each, an answer of [`ANSWER_MAX`] bytes.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    ca::unix_seconds,
    observe::{
        Noticed, Observer,
        alarm::{Alarm, Kind},
    },
    outside::{Outside, OutsideError},
    time::rfc3339,
};

/// Alerts in one request.
const BATCH: usize = 100;
/// After so long an open alarm is told again.
const RESEND: Duration = Duration::from_mins(1);
/// How far ahead the end of an open alarm is told, seconds.
const AHEAD: u64 = 240;
/// An alarm that ended longer ago is news to nobody, seconds.
const OLD: u64 = 600;
/// For a request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait after failures.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const ANSWER_MAX: usize = 64 << 10;
/// Bytes of the file with the header.
const HEADER_MAX: usize = 8 << 10;

/// Where it is.
#[derive(Debug, Clone)]
pub struct Alertmanager {
    alerts: Uri,
    /// Scheme, host and port.
    shown: String,
    outside: Outside,
    authorization: Option<PathBuf>,
}

/// Why that is no Alertmanager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// It is none.
    #[error("it is not a URL like https://alertmanager.example:9093")]
    NoUrl,
    /// It would be in process lists and logs.
    #[error(
        "a URL holds no credentials: write the header into a file and name that (--alertmanager-authorization FILE)"
    )]
    Credentials,
    /// It is the beginning of one.
    #[error("it has a query: the URL of an Alertmanager ends before /api/v2/alerts")]
    Query,
}

impl Alertmanager {
    /// At this URL, to which `/api/v2/alerts` is added. `roots`: who vouches for it (PEM), else the machine's own. `authorization`: a file
    /// with the value of that header.
    pub fn new(
        url: &str,
        roots: Option<PathBuf>,
        authorization: Option<PathBuf>,
    ) -> Result<Self, InvalidUrl> {
        let parsed: Uri = url.parse().map_err(|_| InvalidUrl::NoUrl)?;
        let (Some(scheme), Some(authority)) = (parsed.scheme_str(), parsed.authority()) else {
            return Err(InvalidUrl::NoUrl);
        };
        if !["http", "https"].contains(&scheme) || authority.host().is_empty() {
            return Err(InvalidUrl::NoUrl);
        }
        if authority.as_str().contains('@') {
            return Err(InvalidUrl::Credentials);
        }
        if parsed.query().is_some() || url.contains('#') {
            return Err(InvalidUrl::Query);
        }
        let shown = format!("{scheme}://{authority}");
        let path = parsed.path().trim_end_matches('/');
        Ok(Self {
            alerts: format!("{shown}{path}/api/v2/alerts")
                .parse()
                .map_err(|_| InvalidUrl::NoUrl)?,
            shown,
            outside: Outside::with_roots(roots),
            authorization,
        })
    }
}

/// Why it was not told.
#[derive(Debug, thiserror::Error)]
enum NotTold {
    #[error(transparent)]
    Outside(#[from] OutsideError),
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
    /// Its body may repeat what it was sent and is not shown.
    #[error("it answers {0}")]
    Status(u16),
    #[error("the file with the authorization can't be used: {0}")]
    Authorization(String),
}

/// What was counted.
#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// What was counted so far: requests that were taken, requests that were not, alarms that nobody could be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotifierCounts {
    /// Requests that were taken.
    pub sent: u64,
    /// Requests that were not.
    pub failed: u64,
    /// Alarms that went before they could be told.
    pub dropped: u64,
}

/// See the module. Cloned freely.
#[derive(Debug, Clone)]
pub struct Notifier {
    to: Arc<Alertmanager>,
    counters: Arc<Counters>,
}

/// What was told of an alarm.
#[derive(Debug, Clone, Copy)]
struct Told {
    at: Instant,
    is_over: bool,
}

/// What was told of all; ≤ the alarms that are kept.
#[derive(Debug, Default)]
struct Book {
    told: BTreeMap<u64, Told>,
    /// Alarms up to this one were looked at.
    seen: u64,
}

impl Book {
    /// The alarms that are to be told now, and how many went without.
    fn due<'a>(&mut self, noticed: &'a Noticed, now: Instant) -> (Vec<&'a Alarm>, u64) {
        let unix = unix_seconds(noticed.now);
        let first = noticed
            .alarms
            .first()
            .map_or(self.seen + 1, |(alarm, _)| alarm.number);
        let mut dropped = if self.seen > 0 {
            first.saturating_sub(self.seen + 1)
        } else {
            0
        };
        let mut gone = self.told.split_off(&first);
        std::mem::swap(&mut self.told, &mut gone);
        // Told as open, and never as over: it lapses; not told at all: lost.
        dropped += gone.values().filter(|told| !told.is_over).count() as u64;
        if let Some((last, _)) = noticed.alarms.last() {
            self.seen = self.seen.max(last.number);
        }
        let is_due = |alarm: &Alarm| match (self.told.get(&alarm.number), alarm.ended) {
            (None, None) => true,
            (None, Some(ended)) => unix <= ended.saturating_add(OLD),
            (Some(told), None) => told.is_over || now >= told.at + RESEND,
            (Some(told), Some(_)) => !told.is_over,
        };
        let due = noticed
            .alarms
            .iter()
            .filter(|(alarm, silence)| silence.is_none() && is_due(alarm))
            .map(|(alarm, _)| alarm);
        (due.collect(), dropped)
    }

    fn told(&mut self, alarms: &[&Alarm], now: Instant) {
        for alarm in alarms {
            let told = Told {
                at: now,
                is_over: alarm.ended.is_some(),
            };
            self.told.insert(alarm.number, told);
        }
    }
}

impl Notifier {
    /// Tells that one.
    pub fn new(to: Alertmanager) -> Self {
        Self {
            to: Arc::new(to),
            counters: Arc::default(),
        }
    }

    /// What was counted so far.
    pub fn counts(&self) -> NotifierCounts {
        NotifierCounts {
            sent: self.counters.sent.load(Relaxed),
            failed: self.counters.failed.load(Relaxed),
            dropped: self.counters.dropped.load(Relaxed),
        }
    }

    /// Tells what is due, looking every second, for ever.
    pub async fn keep_telling(self, observer: Observer) {
        let mut book = Book::default();
        let mut failures = 0_u32;
        let mut every = tokio::time::interval(Duration::from_secs(1));
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let noticed = observer.noticed();
            let (due, dropped) = book.due(&noticed, Instant::now());
            self.counters.dropped.fetch_add(dropped, Relaxed);
            let unix = unix_seconds(noticed.now);
            let mut failed = None;
            for batch in due.chunks(BATCH) {
                match Box::pin(self.post(batch, unix)).await {
                    Ok(()) => {
                        self.counters.sent.fetch_add(1, Relaxed);
                        book.told(batch, Instant::now());
                    }
                    Err(error) => {
                        self.counters.failed.fetch_add(1, Relaxed);
                        failed = Some(error);
                        break;
                    }
                }
            }
            match failed {
                None if due.is_empty() => {}
                None => {
                    if failures > 0 {
                        tracing::info!(alertmanager = self.to.shown, "alarms are told again");
                    }
                    failures = 0;
                }
                Some(error) => {
                    if failures == 0 {
                        tracing::warn!(alertmanager = self.to.shown, %error, "alarms are not told; it is tried again");
                    }
                    let wait = Duration::from_secs(1 << failures.min(5)).min(RETRY_MAX);
                    failures = failures.saturating_add(1);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    async fn post(&self, alarms: &[&Alarm], now: u64) -> Result<(), NotTold> {
        let body: Vec<Value> = alarms.iter().map(|alarm| alert(alarm, now)).collect();
        let mut request = Request::post(self.to.alerts.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(Value::Array(body).to_string())))
            .map_err(|_| OutsideError::Url)?;
        if let Some(path) = &self.to.authorization {
            let path = path.clone();
            let read = tokio::task::spawn_blocking(move || authorization(&path)).await;
            let value = read
                .unwrap_or_else(|error| Err(error.to_string()))
                .map_err(NotTold::Authorization)?;
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let exchange = self.to.outside.exchange(request, ANSWER_MAX);
        let answer = Box::pin(tokio::time::timeout(TIMEOUT, exchange))
            .await
            .map_err(|_| NotTold::Timeout)??;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(NotTold::Status(answer.status().as_u16()))
    }
}

/// The header's value; what is wrong with it is said without it.
fn authorization(path: &std::path::Path) -> Result<HeaderValue, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let text = text.trim();
    if text.is_empty() || text.len() > HEADER_MAX {
        return Err(format!(
            "{}: one line like `Bearer …` is expected",
            path.display()
        ));
    }
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| format!("{}: that is no value of a header", path.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What people are called by it, as in the rules for Prometheus, and how urgent it is.
const fn name(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::FirstCall => ("MeshFirstCall", "page"),
        Kind::FanOut => ("MeshFanOut", "page"),
        Kind::Denials => ("MeshDenialsBurst", "page"),
        Kind::Rate => ("MeshRateChanged", "ticket"),
        Kind::Errors => ("MeshErrorsRose", "page"),
        Kind::Latency => ("MeshLatencyRose", "ticket"),
        Kind::Bytes => ("MeshBytesRose", "page"),
    }
}

/// Source: `postableAlert` of Alertmanager's description of its API.
fn alert(alarm: &Alarm, now: u64) -> Value {
    let Alarm { caller, target, .. } = alarm;
    let (name, severity) = name(alarm.kind);
    let mut labels = json!({
        "alertname": name,
        "severity": severity,
        "kind": alarm.kind.name(),
        "source_workload": &*caller.workload,
        "source_namespace": &*caller.namespace,
        "source_principal": &*caller.principal,
    });
    if let Some(target) = target {
        labels["destination_service"] = json!(&*target.host);
        if target.port != 0 {
            labels["destination_port"] = json!(target.port.to_string());
        }
        // A label without a value is none.
        if !target.subset.is_empty() {
            labels["destination_subset"] = json!(&*target.subset);
        }
    }
    let to = target
        .as_ref()
        .map_or_else(String::new, |target| format!(" → {}", target.host));
    let mut annotations = json!({
        "summary": format!("{}.{}{to}: {}", caller.workload, caller.namespace, alarm.kind.name()),
        "alarm": alarm.number.to_string(),
        "runbook": alarm.kind.runbook(),
    });
    if let Some(found) = &alarm.evidence {
        annotations["description"] = json!(format!(
            "{:.3} before (usually {:.3} to {:.3}), {:.3} now, over {} s: {}",
            found.before,
            found.usual.0,
            found.usual.1,
            found.now,
            found.window,
            alarm.kind.measure()
        ));
        if found.hosts.len() > 1 {
            annotations["services"] = json!(found.hosts.join(", "));
        }
    }
    if let Some(seen) = &alarm.acknowledged {
        annotations["acknowledged"] = json!(format!("{} at {}", seen.by, rfc3339(seen.at)));
    }
    json!({
        "labels": labels,
        "annotations": annotations,
        "startsAt": rfc3339(alarm.at),
        "endsAt": rfc3339(alarm.ended.unwrap_or(now.saturating_add(AHEAD))),
    })
}

#[cfg(test)]
mod tests;
