//! The proxy's own time: how long a request and its answer were in this process, apart from what the upstream took.
//!
//! ```text
//!  head read ─► filters, routing, a connection ─► head and what there is of the body written     the way there
//!               (the upstream's time: not counted)
//!  answer's head read ─► filters ─► head and what there is of the body written                   the way back
//! ```
//!
//! Retries count as the upstream's time: the way there ends with the first try. One request in [`SAMPLED`] is measured, with
//! clock readings of its own: those of [`crate::clock`] stand still within one turn of the reactor, and what is measured here
//! is usually shorter than one.
//!
//! Bounds: [`BOUNDS`] buckets and a sum for each worker and connection manager's prefix.

use std::{num::NonZeroU32, time::Duration};

use rajut_telemetry::names;
use rajut_types::Text;
use tokio::time::Instant;

use super::{PerWorker, Row};

/// One request in so many is measured; the first one is.
pub(crate) const SAMPLED: u64 = 16;
/// Upper bounds of buckets, microseconds, and as a scraper reads them, in milliseconds.
const BOUNDS: [(u64, &str); 15] = [
    (25, "0.025"),
    (50, "0.05"),
    (100, "0.1"),
    (250, "0.25"),
    (500, "0.5"),
    (1_000, "1"),
    (2_500, "2.5"),
    (5_000, "5"),
    (10_000, "10"),
    (15_000, "15"),
    (25_000, "25"),
    (50_000, "50"),
    (100_000, "100"),
    (500_000, "500"),
    (1_000_000, "1000"),
];
/// Behind the buckets: what is above them all, then the sum in microseconds.
const ABOVE: usize = BOUNDS.len();
const SUM: usize = ABOVE + 1;

/// The measured requests of one prefix of connection managers.
#[derive(Debug)]
pub(super) struct OwnTimes(PerWorker<{ SUM + 1 }>);

impl OwnTimes {
    pub(super) fn new(workers: usize) -> Self {
        Self(PerWorker::new(workers))
    }

    pub(super) fn add(&self, worker: usize, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|(bound, _)| *bound < micros);
        self.0.add(worker, bucket, 1);
        self.0.add(worker, SUM, micros);
    }

    pub(super) fn rows(&self, prefix: &Text, out: &mut Vec<Row>) {
        let label = (names::LABEL_HTTP_PREFIX, prefix.clone());
        let mut count = 0;
        let bounds = BOUNDS.iter().map(|(_, text)| *text).chain(["+Inf"]);
        for (index, bound) in bounds.enumerate() {
            count += self.0.sum(index);
            let labels = [label.clone(), ("le", bound.into())];
            out.push(Row::histogram(names::OWN_TIME, "_bucket", &labels, count.into()));
        }
        let sum = super::Number::Thousandths(self.0.sum(SUM));
        let labels = [label];
        out.push(Row::histogram(names::OWN_TIME, "_sum", &labels, sum));
        out.push(Row::histogram(names::OWN_TIME, "_count", &labels, count.into()));
    }
}

/// One measured request under way. Every request has room for one, so that it is kept small.
#[derive(Debug)]
pub(crate) struct OwnTime {
    /// The beginning of the way there or back.
    since: Instant,
    /// The way there, microseconds; over an hour counts as one.
    there: Option<NonZeroU32>,
    is_answered: bool,
}

impl OwnTime {
    /// Its head was read.
    pub(crate) fn begin() -> Self {
        Self {
            since: Instant::now(),
            there: None,
            is_answered: false,
        }
    }

    /// It was written to an upstream; the first time counts.
    pub(crate) fn sent(&mut self) {
        if self.there.is_none() {
            let micros = u32::try_from(self.since.elapsed().as_micros()).unwrap_or(u32::MAX);
            self.there = Some(NonZeroU32::new(micros).unwrap_or(NonZeroU32::MIN));
        }
    }

    /// The answer's head was read.
    pub(crate) fn answered(&mut self) {
        self.since = Instant::now();
        self.is_answered = true;
    }

    /// The answer's head was written: the whole, where it had been sent and answered.
    pub(crate) fn finish(self) -> Option<Duration> {
        let there = self.there.filter(|_| self.is_answered)?;
        Some(Duration::from_micros(there.get().into()) + self.since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_a_histogram_of_milliseconds() {
        let times = OwnTimes::new(2);
        for (worker, micros) in [(0, 25), (1, 26), (0, 4_999), (1, 2_000_000)] {
            times.add(worker, Duration::from_micros(micros));
        }
        let mut rows = Vec::new();
        times.rows(&"inbound".into(), &mut rows);
        let text = super::super::prometheus_text(&rows, super::super::Exposition::Prometheus);
        let name = "rajut_proxy_own_time_milliseconds";
        assert!(text.contains(&format!("# TYPE {name} histogram\n")), "{text}");
        assert_eq!(text.matches("# TYPE").count(), 1, "{text}");
        for (bound, count) in [
            ("0.025", 1),
            ("0.05", 2),
            ("2.5", 2),
            ("5", 3),
            ("1000", 3),
            ("+Inf", 4),
        ] {
            let line = format!(
                "{name}_bucket{{envoy_http_conn_manager_prefix=\"inbound\",le=\"{bound}\"}} {count}\n"
            );
            assert!(text.contains(&line), "{line}: {text}");
        }
        assert!(
            text.contains(&format!(
                "{name}_sum{{envoy_http_conn_manager_prefix=\"inbound\"}} 2005.050\n"
            )),
            "{text}"
        );
        assert!(
            text.contains(&format!(
                "{name}_count{{envoy_http_conn_manager_prefix=\"inbound\"}} 4\n"
            )),
            "{text}"
        );
    }

    #[test]
    fn what_was_not_answered_is_not_told() {
        assert!(OwnTime::begin().finish().is_none());
        let mut sent = OwnTime::begin();
        sent.sent();
        assert!(sent.finish().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_upstreams_time_is_not_in_it_and_neither_is_a_retry() {
        let of = |millis| tokio::time::advance(Duration::from_millis(millis));
        let mut time = OwnTime::begin();
        of(2).await;
        time.sent();
        of(100).await;
        time.sent();
        of(100).await;
        time.answered();
        of(3).await;
        assert_eq!(time.finish(), Some(Duration::from_millis(5)));
    }
}
