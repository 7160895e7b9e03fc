//! One edge over time: seconds for some minutes, minutes for hours, quarters of an hour for days. Pure; time is the number
//! of seconds since the store began.
//!
//! Every amount goes into the newest slot of all three tiers; a slot exists only for a time in which something happened,
//! and goes when it is older than its tier keeps ([`TIERS`]).

use std::collections::VecDeque;

use rajut_telemetry::load::{BOUNDS, BUCKETS, Load};

/// Seconds of a slot, and slots that are kept: 5 minutes, 2 hours, 3 days.
pub const TIERS: [(u32, u32); 3] = [(1, 300), (60, 120), (900, 288)];

/// What happened in some time. 136 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Requests that were answered well.
    pub succeeded: u32,
    /// Requests that failed.
    pub failed: u32,
    /// Of all requests, those that were refused (401, 403).
    pub denied: u32,
    /// Opaque connections.
    pub connections: u32,
    /// Of these, failed ones.
    pub connections_failed: u32,
    /// Requests and connections that came to an upstream, of reporters that tell more than how they ended.
    pub detailed: u32,
    /// Of these, those with mutual TLS.
    pub mtls: u32,
    /// Requests by response time.
    pub times: [u32; BUCKETS],
    /// Sum of the response times, microseconds.
    pub micros: u64,
    /// Bytes towards the server.
    pub request_bytes: u64,
    /// Bytes towards the client.
    pub response_bytes: u64,
}

fn narrow(amount: u64) -> u32 {
    u32::try_from(amount).unwrap_or(u32::MAX)
}

impl From<&Load> for Amounts {
    fn from(load: &Load) -> Self {
        let mut amounts = Self {
            succeeded: narrow(load.succeeded),
            failed: narrow(load.failed),
            ..Self::default()
        };
        if let Some(detail) = &load.detail {
            amounts.denied = narrow(detail.denied);
            amounts.connections = narrow(detail.connections);
            amounts.connections_failed = narrow(detail.connections_failed);
            let told = amounts.requests().saturating_add(amounts.connections);
            amounts.detailed = told.saturating_sub(narrow(detail.unreached));
            amounts.mtls = narrow(detail.mtls);
            amounts.times = detail.times.buckets.map(narrow);
            amounts.micros = detail.times.micros;
            amounts.request_bytes = detail.request_bytes;
            amounts.response_bytes = detail.response_bytes;
        }
        amounts
    }
}

impl Amounts {
    /// Requests, however they ended.
    pub fn requests(&self) -> u32 {
        self.succeeded.saturating_add(self.failed)
    }

    /// Adds; what does not fit stays at the most.
    pub fn add(&mut self, other: &Self) {
        let Self {
            succeeded,
            failed,
            denied,
            connections,
            connections_failed,
            detailed,
            mtls,
            times,
            micros,
            request_bytes,
            response_bytes,
        } = self;
        for (sum, amount) in [
            (succeeded, other.succeeded),
            (failed, other.failed),
            (denied, other.denied),
            (connections, other.connections),
            (connections_failed, other.connections_failed),
            (detailed, other.detailed),
            (mtls, other.mtls),
        ] {
            *sum = sum.saturating_add(amount);
        }
        for (sum, amount) in times.iter_mut().zip(other.times) {
            *sum = sum.saturating_add(amount);
        }
        *micros = micros.saturating_add(other.micros);
        *request_bytes = request_bytes.saturating_add(other.request_bytes);
        *response_bytes = response_bytes.saturating_add(other.response_bytes);
    }

    /// The response time that a share of requests (in thousandths) stays below, milliseconds: between the bounds of its
    /// bucket by its place in it, as Prometheus has it. `None` where no time is known.
    pub fn quantile(&self, thousandths: u32) -> Option<f64> {
        let all: u64 = self.times.iter().copied().map(u64::from).sum();
        if all == 0 {
            return None;
        }
        let rank = f64_of(all) * f64::from(thousandths) / 1000.0;
        let mut below = 0_u64;
        for (bucket, count) in self.times.iter().copied().map(u64::from).enumerate() {
            if count == 0 || f64_of(below + count) < rank {
                below += count;
                continue;
            }
            let bound = |bucket: usize| BOUNDS.get(bucket).map(|bound| f64_of(*bound) / 1000.0);
            let from = bucket.checked_sub(1).and_then(bound).unwrap_or_default();
            // The last one has no upper bound: at least so long.
            let Some(to) = bound(bucket) else {
                return Some(from);
            };
            return Some(from + (to - from) * ((rank - f64_of(below)) / f64_of(count)).max(0.0));
        }
        None
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of requests; 2^53 of them are not met"
)]
fn f64_of(amount: u64) -> f64 {
    amount as f64
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Series([VecDeque<(u32, Amounts)>; TIERS.len()]);

impl Series {
    /// Adds what happened at second `now`. Gives how many slots more there are.
    pub fn add(&mut self, amounts: &Amounts, now: u32) -> usize {
        let mut more = 0;
        for (slots, (width, _)) in self.0.iter_mut().zip(TIERS) {
            let at = now / width;
            match slots.back_mut() {
                Some((last, sum)) if *last >= at => sum.add(amounts),
                _ => {
                    slots.push_back((at, *amounts));
                    more += 1;
                }
            }
        }
        more
    }

    /// Forgets what is older than kept: `kept` slots of each tier. Gives how many slots have gone.
    pub fn trim(&mut self, kept: [u32; TIERS.len()], now: u32) -> usize {
        let mut gone = 0;
        for ((slots, (width, _)), kept) in self.0.iter_mut().zip(TIERS).zip(kept) {
            let before = slots.len();
            while slots.front().is_some_and(|(at, _)| at + kept <= now / width) {
                slots.pop_front();
            }
            gone += before - slots.len();
            if slots.is_empty() {
                *slots = VecDeque::new();
            }
        }
        gone
    }

    /// Slots.
    pub fn slots(&self) -> usize {
        self.0.iter().map(VecDeque::len).sum()
    }

    /// The slots of a tier in which something happened, with their numbers, the newest first.
    pub fn of_tier(&self, tier: usize) -> impl Iterator<Item = (u32, &Amounts)> {
        let slots = self.0.get(tier).into_iter().flatten().rev();
        slots.map(|(at, amounts)| (*at, amounts))
    }

    /// What happened in the last `slots` slots of a tier, the one that has begun among them.
    pub fn sum(&self, tier: usize, slots: u32, now: u32) -> Amounts {
        let mut sum = Amounts::default();
        let Some((of_tier, (width, _))) = self.0.get(tier).zip(TIERS.get(tier)) else {
            return sum;
        };
        let after = i64::from(now / width) - i64::from(slots);
        for (_, amounts) in of_tier.iter().rev().take_while(|(at, _)| i64::from(*at) > after) {
            sum.add(amounts);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(succeeded: u32) -> Amounts {
        Amounts {
            succeeded,
            ..Amounts::default()
        }
    }

    #[test]
    fn a_series_is_summed_by_its_windows_and_forgets_tier_by_tier() {
        let kept = TIERS.map(|(_, kept)| kept);
        let mut series = Series::default();
        for second in 0..1_000 {
            series.add(&of(1), second);
            series.trim(kept, second);
        }
        let now = 999;
        assert_eq!(series.sum(0, 10, now).succeeded, 10);
        assert_eq!(series.sum(0, 300, now).succeeded, 300);
        assert_eq!(series.sum(0, 900, now).succeeded, 300, "no more is kept");
        assert_eq!(series.sum(1, 120, now).succeeded, 1_000);
        assert_eq!(series.sum(2, 288, now).succeeded, 1_000);
        assert_eq!(series.slots(), 300 + 17 + 2);

        assert_eq!(
            series.sum(0, 10, now + 100).succeeded,
            0,
            "nothing happened since"
        );
        series.trim(kept, now + 7_300);
        assert_eq!(series.sum(1, 120, now + 7_300).succeeded, 0);
        assert_eq!(series.sum(2, 288, now + 7_300).succeeded, 1_000);
        series.trim(kept, now + 4 * 86_400);
        assert_eq!(series.slots(), 0);
    }

    #[test]
    fn quantiles_lie_in_their_bucket_and_nothing_known_is_none() {
        let mut amounts = Amounts::default();
        assert_eq!(amounts.quantile(500), None);
        // 90 between 1 and 5 ms, 10 between 50 and 100 ms.
        amounts.times[2] = 90;
        amounts.times[6] = 10;
        let near = |thousandths, expected: f64| {
            let found = amounts.quantile(thousandths).expect("known");
            assert!((found - expected).abs() < 1e-6, "{thousandths}: {found}");
        };
        near(500, 1.0 + 4.0 * 50.0 / 90.0);
        near(900, 5.0);
        near(990, 50.0 + 50.0 * 0.9);
        let mut long = Amounts::default();
        long.times[BUCKETS - 1] = 1;
        assert_eq!(long.quantile(990), Some(3_600_000.0));
    }

    #[test]
    fn amounts_stop_at_the_most() {
        let mut amounts = of(u32::MAX);
        amounts.add(&of(5));
        assert_eq!((amounts.succeeded, amounts.requests()), (u32::MAX, u32::MAX));
        let load = Load {
            succeeded: 1 << 40,
            ..Load::default()
        };
        assert_eq!(Amounts::from(&load).succeeded, u32::MAX);
    }

    #[test]
    fn what_came_to_no_upstream_was_neither_encrypted_nor_plain() {
        let mut load = Load {
            succeeded: 3,
            failed: 4,
            ..Load::default()
        };
        load.detail = Some(rajut_telemetry::load::Detail {
            mtls: 3,
            unreached: 4,
            ..Default::default()
        });
        let amounts = Amounts::from(&load);
        assert_eq!((amounts.detailed, amounts.mtls), (3, 3));
    }
}
