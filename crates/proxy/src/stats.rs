//! Counters of clusters and connection managers: one slot per worker, one writer per slot, summed when scraped.
//!
//! A worker writes its own cache lines with a load and a store (no locked instruction); the admin thread sums the
//! slots. Names are Envoy's ([`rajut_telemetry::names`]), so that dashboards and Envoy's own oracle carry over.
//!
//! Bounds: one slot per worker and cluster; prefixes of connection managers ≤ [`PREFIXES_MAX`], further ones share one.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rajut_ir::{listener::Direction, stats::IstioStats};
use rajut_telemetry::{log::Writers, names, workload::Workload};
use rajut_types::Text;
use tokio::sync::watch;

use crate::{
    http::trace::export::{Exporter, Exporters},
    recorder::Recorder,
};

/// Most distinct prefixes of connection managers.
pub const PREFIXES_MAX: usize = 4096;

/// Counters of one worker, on cache lines of their own.
#[derive(Debug)]
#[repr(align(64))]
struct Slot<const N: usize>([AtomicU64; N]);

/// `N` counters per worker.
#[derive(Debug)]
pub struct PerWorker<const N: usize> {
    slots: Box<[Slot<N>]>,
}

impl<const N: usize> PerWorker<N> {
    /// Zeroes for that many workers (at least one).
    pub fn new(workers: usize) -> Self {
        let slots = (0..workers.max(1)).map(|_| Slot(std::array::from_fn(|_| AtomicU64::new(0))));
        Self {
            slots: slots.collect(),
        }
    }

    /// Adds to the worker's own counter and returns what it was. Only that worker's thread may call it.
    pub fn add(&self, worker: usize, index: usize, n: u64) -> u64 {
        let slot = &self.slots[worker % self.slots.len()].0[index];
        let before = slot.load(Ordering::Relaxed);
        slot.store(before.wrapping_add(n), Ordering::Relaxed);
        before
    }

    /// The sum over the workers.
    pub fn sum(&self, index: usize) -> u64 {
        self.slots.iter().fold(0, |sum, slot| {
            sum.wrapping_add(slot.0[index].load(Ordering::Relaxed))
        })
    }
}

macro_rules! counters {
    ($(#[$outer:meta])* $type:ident { $($(#[$doc:meta])* $variant:ident,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum $type { $($(#[$doc])* $variant,)* }
        impl $type {
            const COUNT: usize = [$(Self::$variant),*].len();
        }
    };
}

mod filters;
pub(crate) mod istio;
pub(crate) mod own_time;
pub(crate) mod texts;
pub(crate) mod vitals;

use filters::FilterStats;
pub use filters::{
    ExtAuthzCounter, ExtAuthzStats, JwtCounter, JwtStats, LateStats, OnRouteCounter, OnRouteStats,
    RateLimitCounter, RateLimitStats, RbacCounter, RbacStats,
};
use own_time::OwnTimes;
pub use vitals::ControlLink;

counters! {
    /// What is counted per cluster.
    ClusterCounter {
        /// Connections made.
        CxTotal,
        /// HTTP/1 ones.
        CxHttp1,
        /// HTTP/2 ones.
        CxHttp2,
        /// Connections closed.
        CxDestroy,
        /// Attempts that failed.
        CxConnectFail,
        /// Of these, timeouts.
        CxConnectTimeout,
        /// Connections refused by the breaker.
        CxOverflow,
        /// Requests sent.
        RqTotal,
        /// Requests over, one way or the other.
        RqCompleted,
        /// Requests that waited for a connection.
        RqPendingTotal,
        /// Of these, those that wait no more.
        RqPendingDone,
        /// Requests refused because too many waited.
        RqPendingOverflow,
        /// Waited for a connection that failed.
        RqPendingFailure,
        /// Requests refused because too many were in flight.
        RqOverflow,
        /// Retries sent.
        RqRetry,
        /// Retries after which the request succeeded.
        RqRetrySuccess,
        /// Retries refused by the breaker.
        RqRetryOverflow,
        /// Requests whose retries were used up.
        RqRetryLimit,
        /// Requests that timed out.
        RqTimeout,
        /// Tries that timed out.
        RqPerTryTimeout,
        /// Streams reset by the upstream.
        RqRxReset,
        /// Streams reset by us.
        RqTxReset,
        /// Requests without a healthy endpoint.
        NoneHealthy,
        /// Answers by class.
        Rq1xx,
        /// 2xx.
        Rq2xx,
        /// 3xx.
        Rq3xx,
        /// 4xx.
        Rq4xx,
        /// 5xx.
        Rq5xx,
        /// Endpoints ejected.
        Ejections,
        /// Active health checks.
        HealthChecks,
        /// Those that an endpoint did not pass.
        HealthCheckFailures,
        /// Bytes received.
        RxBytes,
        /// Bytes sent.
        TxBytes,
    }
}

/// The counters of one cluster; they outlive its updates.
#[derive(Debug)]
pub struct ClusterStats(PerWorker<{ ClusterCounter::COUNT }>);

impl ClusterStats {
    /// Zeroes.
    pub fn new(workers: usize) -> Self {
        Self(PerWorker::new(workers))
    }

    /// Counts one.
    pub fn add(&self, worker: usize, counter: ClusterCounter) {
        self.0.add(worker, counter as usize, 1);
    }

    /// Counts several.
    pub fn add_n(&self, worker: usize, counter: ClusterCounter, n: u64) {
        self.0.add(worker, counter as usize, n);
    }

    /// Counts an answer by its class.
    pub fn add_status(&self, worker: usize, status: u16) {
        let counter = match status {
            100..=199 => ClusterCounter::Rq1xx,
            200..=299 => ClusterCounter::Rq2xx,
            300..=399 => ClusterCounter::Rq3xx,
            400..=499 => ClusterCounter::Rq4xx,
            _ => ClusterCounter::Rq5xx,
        };
        self.add(worker, counter);
    }

    /// The sum of a counter.
    pub fn sum(&self, counter: ClusterCounter) -> u64 {
        self.0.sum(counter as usize)
    }

    /// Connections that are open.
    pub fn connections_active(&self) -> u64 {
        self.sum(ClusterCounter::CxTotal)
            .saturating_sub(self.sum(ClusterCounter::CxDestroy))
    }

    /// Requests in flight.
    pub fn requests_active(&self) -> u64 {
        self.sum(ClusterCounter::RqTotal)
            .saturating_sub(self.sum(ClusterCounter::RqCompleted))
    }

    /// Requests that wait for a connection.
    pub fn requests_pending(&self) -> u64 {
        self.sum(ClusterCounter::RqPendingTotal)
            .saturating_sub(self.sum(ClusterCounter::RqPendingDone))
    }

    /// The rows of a scrape.
    pub fn rows(&self, cluster: &Text, out: &mut Vec<Row>) {
        use ClusterCounter as C;
        let label = [(names::LABEL_CLUSTER, cluster.clone())];
        for (name, counter) in [
            (names::CLUSTER_CX_TOTAL, C::CxTotal),
            (names::CLUSTER_CX_HTTP1_TOTAL, C::CxHttp1),
            (names::CLUSTER_CX_HTTP2_TOTAL, C::CxHttp2),
            (names::CLUSTER_CX_DESTROY, C::CxDestroy),
            (names::CLUSTER_CX_CONNECT_FAIL, C::CxConnectFail),
            (names::CLUSTER_CX_CONNECT_TIMEOUT, C::CxConnectTimeout),
            (names::CLUSTER_CX_OVERFLOW, C::CxOverflow),
            (names::CLUSTER_RQ_TOTAL, C::RqTotal),
            (names::CLUSTER_RQ_COMPLETED, C::RqCompleted),
            (names::CLUSTER_RQ_PENDING_TOTAL, C::RqPendingTotal),
            (names::CLUSTER_RQ_PENDING_OVERFLOW, C::RqPendingOverflow),
            (names::CLUSTER_RQ_PENDING_FAILURE, C::RqPendingFailure),
            (names::CLUSTER_RQ_OVERFLOW, C::RqOverflow),
            (names::CLUSTER_RQ_RETRY, C::RqRetry),
            (names::CLUSTER_RQ_RETRY_SUCCESS, C::RqRetrySuccess),
            (names::CLUSTER_RQ_RETRY_OVERFLOW, C::RqRetryOverflow),
            (names::CLUSTER_RQ_RETRY_LIMIT, C::RqRetryLimit),
            (names::CLUSTER_RQ_TIMEOUT, C::RqTimeout),
            (names::CLUSTER_RQ_PER_TRY_TIMEOUT, C::RqPerTryTimeout),
            (names::CLUSTER_RQ_RX_RESET, C::RqRxReset),
            (names::CLUSTER_RQ_TX_RESET, C::RqTxReset),
            (names::CLUSTER_NONE_HEALTHY, C::NoneHealthy),
            (names::CLUSTER_EJECTIONS_TOTAL, C::Ejections),
            (names::CLUSTER_HEALTH_CHECKS, C::HealthChecks),
            (names::CLUSTER_HEALTH_CHECK_FAILURES, C::HealthCheckFailures),
            (names::CLUSTER_RX_BYTES, C::RxBytes),
            (names::CLUSTER_TX_BYTES, C::TxBytes),
        ] {
            out.push(Row::counter(name, &label, self.sum(counter)));
        }
        for (class, counter) in [
            ("1", C::Rq1xx),
            ("2", C::Rq2xx),
            ("3", C::Rq3xx),
            ("4", C::Rq4xx),
            ("5", C::Rq5xx),
        ] {
            let labels = [(names::LABEL_CODE_CLASS, class.into()), label[0].clone()];
            out.push(Row::counter(names::CLUSTER_RQ_XX, &labels, self.sum(counter)));
        }
        for (name, value) in [
            (names::CLUSTER_CX_ACTIVE, self.connections_active()),
            (names::CLUSTER_RQ_ACTIVE, self.requests_active()),
            (names::CLUSTER_RQ_PENDING_ACTIVE, self.requests_pending()),
        ] {
            out.push(Row::gauge(name, &label, value));
        }
    }
}

counters! {
    /// What is counted per connection manager.
    ManagerCounter {
        /// Connections.
        CxTotal,
        /// HTTP/1 ones.
        CxHttp1,
        /// HTTP/2 ones.
        CxHttp2,
        /// Connections closed.
        CxDestroy,
        /// Connections closed because the bytes were no HTTP.
        CxProtocolError,
        /// Connections closed by the idle timeout.
        CxIdleTimeout,
        /// Connections closed because the proxy drained.
        CxDrainClose,
        /// Requests.
        RqTotal,
        /// Requests over.
        RqCompleted,
        /// HTTP/1 ones.
        RqHttp1,
        /// HTTP/2 ones.
        RqHttp2,
        /// Answers by class.
        Rq1xx,
        /// 2xx.
        Rq2xx,
        /// 3xx.
        Rq3xx,
        /// 4xx.
        Rq4xx,
        /// 5xx.
        Rq5xx,
        /// Requests whose client reset them.
        RqRxReset,
        /// Requests whose answer we reset.
        RqTxReset,
        /// Heads over the limit.
        RqTooLarge,
        /// Heads that did not come in time.
        RqHeaderTimeout,
        /// Requests that did not come in time.
        RqTimeout,
        /// Streams that were idle for too long.
        RqIdleTimeout,
        /// Requests without a route.
        NoRoute,
        /// Upgrades and CONNECT tunnels.
        UpgradesTotal,
    }
}

/// The counters of one prefix of connection managers.
#[derive(Debug)]
pub struct ManagerStats {
    counters: PerWorker<{ ManagerCounter::COUNT }>,
    own_times: OwnTimes,
}

impl ManagerStats {
    fn new(workers: usize) -> Self {
        Self {
            counters: PerWorker::new(workers),
            own_times: OwnTimes::new(workers),
        }
    }

    /// Counts one.
    pub fn add(&self, worker: usize, counter: ManagerCounter) {
        self.counters.add(worker, counter as usize, 1);
    }

    /// Counts a request; how many the worker had counted before.
    pub fn add_request(&self, worker: usize) -> u64 {
        self.counters.add(worker, ManagerCounter::RqTotal as usize, 1)
    }

    /// Takes how long a request and its answer were in this process.
    pub(crate) fn add_own_time(&self, worker: usize, time: Duration) {
        self.own_times.add(worker, time);
    }

    /// Counts an answer by its class.
    pub fn add_status(&self, worker: usize, status: u16) {
        let counter = match status {
            100..=199 => ManagerCounter::Rq1xx,
            200..=299 => ManagerCounter::Rq2xx,
            300..=399 => ManagerCounter::Rq3xx,
            400..=499 => ManagerCounter::Rq4xx,
            _ => ManagerCounter::Rq5xx,
        };
        self.add(worker, counter);
    }

    /// The sum of a counter.
    pub fn sum(&self, counter: ManagerCounter) -> u64 {
        self.counters.sum(counter as usize)
    }

    /// The rows of a scrape.
    pub fn rows(&self, prefix: &Text, out: &mut Vec<Row>) {
        use ManagerCounter as M;
        let label = [(names::LABEL_HTTP_PREFIX, prefix.clone())];
        for (name, counter) in [
            (names::HTTP_CX_TOTAL, M::CxTotal),
            (names::HTTP_CX_HTTP1_TOTAL, M::CxHttp1),
            (names::HTTP_CX_HTTP2_TOTAL, M::CxHttp2),
            (names::HTTP_CX_DESTROY, M::CxDestroy),
            (names::HTTP_CX_PROTOCOL_ERROR, M::CxProtocolError),
            (names::HTTP_CX_IDLE_TIMEOUT, M::CxIdleTimeout),
            (names::HTTP_CX_DRAIN_CLOSE, M::CxDrainClose),
            (names::HTTP_RQ_TOTAL, M::RqTotal),
            (names::HTTP_RQ_COMPLETED, M::RqCompleted),
            (names::HTTP_RQ_HTTP1_TOTAL, M::RqHttp1),
            (names::HTTP_RQ_HTTP2_TOTAL, M::RqHttp2),
            (names::HTTP_RQ_RX_RESET, M::RqRxReset),
            (names::HTTP_RQ_TX_RESET, M::RqTxReset),
            (names::HTTP_RQ_TOO_LARGE, M::RqTooLarge),
            (names::HTTP_RQ_HEADER_TIMEOUT, M::RqHeaderTimeout),
            (names::HTTP_RQ_TIMEOUT, M::RqTimeout),
            (names::HTTP_RQ_IDLE_TIMEOUT, M::RqIdleTimeout),
            (names::HTTP_NO_ROUTE, M::NoRoute),
            (names::HTTP_UPGRADES_TOTAL, M::UpgradesTotal),
        ] {
            out.push(Row::counter(name, &label, self.sum(counter)));
        }
        for (class, counter) in [
            ("1", M::Rq1xx),
            ("2", M::Rq2xx),
            ("3", M::Rq3xx),
            ("4", M::Rq4xx),
            ("5", M::Rq5xx),
        ] {
            let labels = [(names::LABEL_CODE_CLASS, class.into()), label[0].clone()];
            out.push(Row::counter(names::HTTP_RQ_XX, &labels, self.sum(counter)));
        }
        let cx = self.sum(M::CxTotal).saturating_sub(self.sum(M::CxDestroy));
        let rq = self.sum(M::RqTotal).saturating_sub(self.sum(M::RqCompleted));
        out.push(Row::gauge(names::HTTP_CX_ACTIVE, &label, cx));
        out.push(Row::gauge(names::HTTP_RQ_ACTIVE, &label, rq));
        self.own_times.rows(prefix, out);
    }
}

/// Whether a value only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// It does.
    Counter,
    /// It may fall.
    Gauge,
    /// It is one value of a histogram.
    Histogram,
}

/// A value as a scraper reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// A whole number.
    Whole(u64),
    /// So many thousandths.
    Thousandths(u64),
}

impl From<u64> for Number {
    fn from(whole: u64) -> Self {
        Self::Whole(whole)
    }
}

impl From<Duration> for Number {
    /// Seconds.
    fn from(time: Duration) -> Self {
        Self::Thousandths(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(whole) => write!(f, "{whole}"),
            Self::Thousandths(all) => write!(f, "{}.{:03}", all / 1000, all % 1000),
        }
    }
}

/// One value of a scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// A constant of [`names`].
    pub name: &'static str,
    /// Which value of a histogram, `_bucket`, `_sum` or `_count`; empty for what has one value.
    pub suffix: &'static str,
    /// Name and value.
    pub labels: Vec<(&'static str, Text)>,
    /// The value.
    pub value: Number,
    /// Its kind.
    pub kind: RowKind,
}

impl Row {
    /// A counter.
    pub fn counter(name: &'static str, labels: &[(&'static str, Text)], value: impl Into<Number>) -> Self {
        Self {
            name,
            suffix: "",
            labels: labels.to_vec(),
            value: value.into(),
            kind: RowKind::Counter,
        }
    }

    /// A gauge.
    pub fn gauge(name: &'static str, labels: &[(&'static str, Text)], value: impl Into<Number>) -> Self {
        Self {
            kind: RowKind::Gauge,
            ..Self::counter(name, labels, value)
        }
    }

    fn histogram(
        name: &'static str,
        suffix: &'static str,
        labels: &[(&'static str, Text)],
        value: Number,
    ) -> Self {
        Self {
            kind: RowKind::Histogram,
            suffix,
            ..Self::counter(name, labels, value)
        }
    }
}

/// What outlives every configuration of the process: the number of workers, the counters of connection managers by
/// prefix, the writers of access logs by sink. Only locked when configuration is built or scraped.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    managers: Mutex<BTreeMap<Text, Arc<ManagerStats>>>,
    filters: Arc<FilterStats>,
    exporters: Exporters,
    node: OnceLock<Text>,
    istio: Arc<istio::Store>,
    writers: Writers,
    control: ControlLink,
    recorder: Arc<Recorder>,
}

impl Registry {
    /// For that many workers.
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            workers: workers.max(1),
            managers: Mutex::default(),
            filters: Arc::default(),
            exporters: Exporters::default(),
            node: OnceLock::new(),
            istio: Arc::default(),
            writers: Writers::default(),
            control: ControlLink::default(),
            recorder: Arc::new(Recorder::new(workers)),
        })
    }

    /// The number of workers.
    pub const fn workers(&self) -> usize {
        self.workers
    }

    /// Whether there is a control plane.
    pub const fn control(&self) -> &ControlLink {
        &self.control
    }

    /// The writers of access logs.
    pub const fn writers(&self) -> &Writers {
        &self.writers
    }

    /// The counters of a prefix.
    pub fn manager(&self, prefix: &Text) -> Arc<ManagerStats> {
        let mut managers = self.managers.lock().unwrap_or_else(PoisonError::into_inner);
        let key = if managers.len() < PREFIXES_MAX {
            prefix.clone()
        } else {
            names::PREFIX_OVERFLOW.into()
        };
        managers
            .entry(key)
            .or_insert_with(|| Arc::new(ManagerStats::new(self.workers)))
            .clone()
    }

    /// Says which node this is, once, before any configuration.
    pub fn set_node(&self, id: &str) {
        // A second name would be a second process.
        let _ = self.node.set(id.into());
    }

    /// The node's id; empty where nobody said it.
    pub fn node(&self) -> Text {
        self.node.get().cloned().unwrap_or_default()
    }

    /// Says whom this proxy stands beside, once, before any configuration.
    pub fn set_workload(&self, own: Workload) {
        self.istio.set_own(own);
    }

    /// What listeners of that direction count Istio's metrics by.
    pub(crate) fn meter(&self, direction: Direction, ir: &IstioStats) -> istio::Meter {
        self.istio.meter(direction, ir)
    }

    /// What the control plane is told of this proxy's edges.
    pub(crate) fn edges(&self, config: watch::Receiver<Arc<crate::epoch::Config>>) -> istio::EdgeLoads {
        istio::EdgeLoads::new(self.istio.clone(), config)
    }

    /// What requests are recorded by.
    pub(crate) fn recorder(&self) -> Arc<Recorder> {
        self.recorder.clone()
    }

    /// The way to a collector of spans.
    pub(crate) fn exporter(&self, ir: &rajut_ir::tracing::OpenTelemetry) -> Arc<Exporter> {
        self.exporters.open(ir, self.workers)
    }

    /// The counters of a connection manager's access control.
    pub fn http_rbac(&self, prefix: &Text, rules: &Text, shadow: &Text) -> Arc<RbacStats> {
        self.filters.http_rbac(self.workers, prefix, rules, shadow)
    }

    /// The counters of access control of connections.
    pub fn network_rbac(&self, prefix: &Text, shadow: &Text) -> Arc<RbacStats> {
        self.filters.network_rbac(self.workers, prefix, shadow)
    }

    /// The counters of a connection manager's tokens.
    pub fn jwt(&self, prefix: &Text) -> Arc<JwtStats> {
        self.filters.jwt(self.workers, prefix)
    }

    /// The counters of a connection manager's external authorization; `own`: the filter's own prefix.
    pub fn ext_authz(&self, prefix: &Text, own: &Text) -> Arc<ExtAuthzStats> {
        self.filters.ext_authz(self.workers, true, prefix, own)
    }

    /// The counters of external authorization of connections.
    pub fn network_ext_authz(&self, own: &Text) -> Arc<ExtAuthzStats> {
        self.filters.ext_authz(self.workers, false, &Text::default(), own)
    }

    /// The counters of a prefix of local rate limits.
    pub fn rate_limit(&self, prefix: &Text) -> Arc<RateLimitStats> {
        self.filters.rate_limit(self.workers, prefix)
    }

    /// The counters of a connection manager's filters that only routes configure.
    pub(crate) fn on_routes(&self, prefix: &Text) -> LateStats {
        LateStats::new(self.filters.clone(), self.workers, prefix)
    }

    /// Every value of a scrape: connection managers, their filters, then clusters, then the access logs' losses.
    pub fn rows(&self, config: &crate::epoch::Config) -> Vec<Row> {
        let mut out = Vec::new();
        for (prefix, stats) in self
            .managers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            stats.rows(prefix, &mut out);
        }
        self.filters.rows(&mut out);
        let (sent, dropped) = self.exporters.counts();
        out.push(Row::counter(names::TRACE_SENT, &[], sent));
        out.push(Row::counter(names::TRACE_DROPPED, &[], dropped));
        // Those that no request has needed count nothing.
        let mut clusters: Vec<_> = config
            .clusters
            .values()
            .filter_map(|slot| slot.running())
            .collect();
        clusters.sort_by(|a, b| a.name().cmp(b.name()));
        for cluster in clusters {
            cluster.rows(&mut out);
        }
        out.push(Row::counter(
            names::ACCESS_LOG_DROPPED,
            &[],
            self.writers.dropped(),
        ));
        let (recorded, dropped) = self.recorder.counts();
        out.push(Row::counter(names::RECORDED, &[], recorded));
        out.push(Row::counter(names::RECORDER_DROPPED, &[], dropped));
        out.push(Row::counter(names::METRICS_FOLDED, &[], self.istio.folded()));
        out.push(Row::counter(
            names::CLUSTER_FIRST_USE_FAILURES,
            &[],
            crate::cluster::slot::FIRST_USE_FAILURES.load(Ordering::Relaxed),
        ));
        out
    }
}

/// A form of exposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus' text format 0.0.4.
    Prometheus,
    /// `OpenMetrics` 1.0.0.
    OpenMetrics,
}

impl Exposition {
    /// The form that a scraper asks for: `OpenMetrics` where its `Accept` names it, without a weight of zero.
    pub fn asked(accept: &str) -> Self {
        let wants = accept.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts.next() == Some("application/openmetrics-text");
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            named && !weight.is_some_and(|weight| weight.bytes().all(|digit| matches!(digit, b'0' | b'.')))
        });
        if wants {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Appends a label's value. What is a control character and no end of a line would end some readers' input.
fn escape_label(value: &str, out: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            control if control.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            character => out.push(character),
        }
    }
}

/// Appends a metric's help text and type. `OpenMetrics` names a counter without its `_total`, and knows no counter without one.
fn type_line(out: &mut String, full: &str, kind: &str, open: bool) {
    let (name, kind) = match full.strip_suffix("_total") {
        Some(stem) if open && kind == "counter" => (stem, kind),
        None if open && kind == "counter" => (full, "unknown"),
        _ => (full, kind),
    };
    let help = names::help(full);
    if !help.is_empty() {
        for part in ["# HELP ", name, " ", help, "\n"] {
            out.push_str(part);
        }
    }
    for part in ["# TYPE ", name, " ", kind, "\n"] {
        out.push_str(part);
    }
}

impl Registry {
    /// Everything that is measured: `rows`, which the caller has added to, then Istio's metrics.
    pub fn exposition(&self, rows: &[Row], form: Exposition) -> String {
        let open = form == Exposition::OpenMetrics;
        let mut out = prometheus_text(rows, form);
        self.istio.write(&mut out, open);
        if open {
            out.push_str("# EOF\n");
        }
        out
    }
}

/// Rows as Prometheus reads them, one `# TYPE` line per name; without `OpenMetrics`' last line.
fn prometheus_text(rows: &[Row], form: Exposition) -> String {
    use std::fmt::Write as _;
    let mut by_name: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        by_name.entry(row.name).or_default().push(row);
    }
    let mut out = String::new();
    for (name, rows) in by_name {
        let kind = match rows[0].kind {
            RowKind::Counter => "counter",
            RowKind::Gauge => "gauge",
            RowKind::Histogram => "histogram",
        };
        type_line(&mut out, name, kind, form == Exposition::OpenMetrics);
        for row in rows {
            out.push_str(name);
            out.push_str(row.suffix);
            out.push('{');
            for (index, (label, value)) in row.labels.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                out.push_str(label);
                out.push_str("=\"");
                escape_label(value, &mut out);
                out.push('"');
            }
            // Writing to a string cannot fail.
            let _ = writeln!(out, "}} {}", row.value);
        }
    }
    out
}

/// Rows in Envoy's plain form: `name{labels}: value` a line, in the order given.
pub fn plain_text(rows: &[Row]) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for row in rows {
        let labels: Vec<String> = row
            .labels
            .iter()
            .map(|(label, value)| format!("{label}={value}"))
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{}{}.{}: {}",
            row.name,
            row.suffix,
            labels.join("."),
            row.value
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_all_workers_are_summed() {
        let stats = ClusterStats::new(3);
        for worker in 0..3 {
            stats.add_n(worker, ClusterCounter::CxTotal, 2);
            stats.add(worker, ClusterCounter::CxDestroy);
        }
        assert_eq!(stats.connections_active(), 3);
        stats.add_status(0, 503);
        assert_eq!(stats.sum(ClusterCounter::Rq5xx), 1);
    }

    #[test]
    fn a_scrape_escapes_labels_and_names_a_type_once() {
        let rows = [
            Row::counter("a_total", &[("x", "q\"\\\n\u{0}\u{1b}[0m".into())], 1),
            Row::counter("a_total", &[("x", "b".into())], 2),
            Row::counter("odd", &[], Number::Whole(3)),
        ];
        let lines = "a_total{x=\"q\\\"\\\\\\n\u{fffd}\u{fffd}[0m\"} 1\na_total{x=\"b\"} 2\n";
        assert_eq!(
            prometheus_text(&rows, Exposition::Prometheus),
            format!("# TYPE a_total counter\n{lines}# TYPE odd counter\nodd{{}} 3\n")
        );
        assert_eq!(
            prometheus_text(&rows, Exposition::OpenMetrics),
            format!("# TYPE a counter\n{lines}# TYPE odd unknown\nodd{{}} 3\n")
        );
    }

    #[test]
    fn a_scraper_gets_openmetrics_where_it_asks_for_it() {
        let of_prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert_eq!(Exposition::asked(of_prometheus), Exposition::OpenMetrics);
        for other in [
            "",
            "*/*",
            "text/plain;version=0.0.4",
            "application/openmetrics-text;q=0.0",
        ] {
            assert_eq!(Exposition::asked(other), Exposition::Prometheus, "{other}");
        }
    }
}
