//! What a client's proxy tells the control plane of the calls on one edge (itself → a cluster), and the buckets that
//! response times fall into.
//!
//! It travels in Envoy's Load Reporting Service. What that has no field for goes as its named metrics
//! ([`Load::metrics`]): Envoy sends none of them, so that their absence says "not known", never zero. Amounts are those of
//! one interval; [`Load::in_progress`] is a level.
//!
//! Bound: [`BUCKETS`] counts and eight numbers for an edge, whatever passes on it. Unknown names are left out. Pure.

/// Buckets of a response time; the last one has no upper bound.
pub const BUCKETS: usize = 20;

/// Upper bounds of the buckets in thousandths (of a millisecond, of a byte). Source: Envoy's default buckets.
pub const BOUNDS: [u64; BUCKETS - 1] = [
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

/// The same, as they are told.
pub const BOUND_TEXTS: [&str; BUCKETS] = [
    "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000",
    "60000", "300000", "600000", "1800000", "3600000", "+Inf",
];

/// Before a bucket's upper bound in milliseconds: requests of the interval whose response time fell into it alone.
const BUCKET: &str = "rajut.time_ms.le.";
/// Requests whose time was taken, and the sum of the times in microseconds.
const TIME: &str = "rajut.time_us";
const REQUEST_BYTES: &str = "rajut.request_bytes";
const RESPONSE_BYTES: &str = "rajut.response_bytes";
/// Requests (or connections) on which both ends had shown a certificate of the mesh.
const MTLS: &str = "rajut.mtls";
/// Requests (or connections) that came to no upstream, so that nothing is known of their encryption.
const UNREACHED: &str = "rajut.unreached";
/// Requests that somebody refused: 401, 403 and their gRPC statuses.
const DENIED: &str = "rajut.denied";
/// Opaque connections that were opened.
const CONNECTIONS: &str = "rajut.connections";
/// Of these, the ones that came to no upstream.
const CONNECTIONS_FAILED: &str = "rajut.connections_failed";

/// A named metric of the Load Reporting Service.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadMetric {
    /// Its name.
    pub name: String,
    /// How often it was measured.
    pub count: u64,
    /// The sum of what was measured.
    pub total: f64,
}

/// Response times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// By bucket; each time in exactly one.
    pub buckets: [u64; BUCKETS],
    /// Their sum, microseconds.
    pub micros: u64,
}

/// What our proxy knows beyond Envoy's report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Detail {
    /// Of requests.
    pub times: Times,
    /// Bytes of requests' bodies, and those sent on opaque connections.
    pub request_bytes: u64,
    /// Bytes of answers' bodies, and those received on opaque connections.
    pub response_bytes: u64,
    /// Requests and connections with mutual TLS.
    pub mtls: u64,
    /// Requests and connections that came to no upstream: they were neither encrypted nor plain.
    pub unreached: u64,
    /// Requests that were refused: 401 and 403, gRPC `PERMISSION_DENIED` and `UNAUTHENTICATED`.
    pub denied: u64,
    /// Opaque connections.
    pub connections: u64,
    /// Of these, failed ones.
    pub connections_failed: u64,
}

/// One edge in one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that were answered, with anything but a failure of the server.
    pub succeeded: u64,
    /// Requests without an answer, or with a 5xx (gRPC: a status that means one).
    pub failed: u64,
    /// Requests and opaque connections that are under way now.
    pub in_progress: u64,
    /// `None`: the reporter can't tell.
    pub detail: Option<Detail>,
}

impl Load {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.in_progress == 0 && self.is_idle()
    }

    /// Whether nothing has happened, whatever is under way.
    pub fn is_idle(&self) -> bool {
        self.succeeded == 0 && self.failed == 0 && self.detail.unwrap_or_default() == Detail::default()
    }

    /// What the service has no fields for; zeroes are left out but for the first, which says that the rest are zero.
    pub fn metrics(&self) -> Vec<LoadMetric> {
        let Some(detail) = &self.detail else {
            return Vec::new();
        };
        let times = &detail.times;
        let metric = |name: &str, count, total: u64| LoadMetric {
            name: name.to_owned(),
            count,
            total: float(total),
        };
        let timed = times
            .buckets
            .iter()
            .fold(0, |sum: u64, one| sum.wrapping_add(*one));
        let mut all = vec![metric(TIME, timed, times.micros)];
        for (bound, count) in BOUND_TEXTS.iter().zip(times.buckets) {
            if count > 0 {
                all.push(metric(&format!("{BUCKET}{bound}"), count, 0));
            }
        }
        let counts = [
            (MTLS, detail.mtls),
            (UNREACHED, detail.unreached),
            (DENIED, detail.denied),
            (CONNECTIONS, detail.connections),
            (CONNECTIONS_FAILED, detail.connections_failed),
        ];
        let bytes = [
            (REQUEST_BYTES, detail.request_bytes),
            (RESPONSE_BYTES, detail.response_bytes),
        ];
        all.extend(
            counts
                .iter()
                .filter(|one| one.1 > 0)
                .map(|one| metric(one.0, one.1, 0)),
        );
        all.extend(
            bytes
                .iter()
                .filter(|one| one.1 > 0)
                .map(|one| metric(one.0, timed, one.1)),
        );
        all
    }

    /// Takes a metric that came; what is not known is left out.
    pub fn take(&mut self, metric: &LoadMetric) {
        let LoadMetric { name, count, total } = metric;
        let mut detail = self.detail.unwrap_or_default();
        let whole = whole(*total);
        match &**name {
            TIME => detail.times.micros = whole,
            MTLS => detail.mtls = *count,
            UNREACHED => detail.unreached = *count,
            DENIED => detail.denied = *count,
            CONNECTIONS => detail.connections = *count,
            CONNECTIONS_FAILED => detail.connections_failed = *count,
            REQUEST_BYTES => detail.request_bytes = whole,
            RESPONSE_BYTES => detail.response_bytes = whole,
            other => {
                let bound = other.strip_prefix(BUCKET);
                let place = bound.and_then(|bound| BOUND_TEXTS.iter().position(|known| *known == bound));
                let Some(bucket) = place.and_then(|place| detail.times.buckets.get_mut(place)) else {
                    return;
                };
                *bucket = *count;
            }
        }
        self.detail = Some(detail);
    }
}

/// Exact below 2^53: 285 years of microseconds, 8 PiB.
#[expect(clippy::cast_precision_loss, reason = "see above")]
const fn float(amount: u64) -> f64 {
    amount as f64
}

/// What is negative, no number or beyond counts as none, or as the most.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from a float stops at the ends of the range, and makes 0 of what is no number"
)]
const fn whole(total: f64) -> u64 {
    total as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_end_tells_the_other_takes_and_silence_is_not_zero() {
        let mut times = Times {
            micros: 77_000_001,
            ..Times::default()
        };
        times.buckets[0] = 3;
        times.buckets[19] = 1;
        let load = Load {
            succeeded: 3,
            failed: 1,
            in_progress: 2,
            detail: Some(Detail {
                times,
                request_bytes: 1 << 40,
                response_bytes: 7,
                mtls: 4,
                unreached: 1,
                denied: 2,
                connections: 5,
                connections_failed: 6,
            }),
        };
        let mut taken = Load { detail: None, ..load };
        for metric in load.metrics() {
            taken.take(&metric);
        }
        assert_eq!(taken, load);

        let quiet = Load {
            detail: Some(Detail::default()),
            ..Load::default()
        };
        let mut taken = Load::default();
        quiet.metrics().iter().for_each(|metric| taken.take(metric));
        assert_eq!(taken.detail, Some(Detail::default()));
        assert!(Load::default().metrics().is_empty(), "Envoy can't tell");
    }

    #[test]
    fn foreign_metrics_and_amounts_that_are_none_do_no_harm() {
        let mut load = Load::default();
        for name in ["named_metrics.cpu", "rajut.time_ms.le.7", "", "rajut."] {
            load.take(&LoadMetric {
                name: name.to_owned(),
                count: 9,
                total: 1.0,
            });
        }
        assert_eq!(load, Load::default());
        for (total, taken) in [(f64::NAN, 0), (-1.0, 0), (f64::INFINITY, u64::MAX)] {
            load.take(&LoadMetric {
                name: TIME.to_owned(),
                count: 1,
                total,
            });
            assert_eq!(load.detail.expect("known").times.micros, taken);
        }
    }

    #[test]
    fn bounds_rise_and_are_told_as_they_are() {
        assert!(BOUNDS.is_sorted());
        for (bound, text) in BOUNDS.iter().zip(BOUND_TEXTS) {
            let told: f64 = text.parse().expect("a number");
            assert!((float(*bound) / 1000.0 - told).abs() < 1e-9, "{text}");
        }
    }
}
