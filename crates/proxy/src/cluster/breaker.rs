//! Circuit breakers: what may be under way towards a cluster at once, counted for the whole proxy.
//!
//! Envoy's terms: at `max_connections` requests queue and nothing fails; too many queued or in flight are answered
//! 503. Each count is an atomic on a cache line of its own; requests, pending requests and retries are only counted
//! where a limit is configured, connections always.
//!
//! A waiter at the connection cap is noted here, so that a worker that would park an idle connection gives its place
//! up ([`Breakers::is_wanted`]), and workers with idle connections are woken to give one up.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use rajut_ir::cluster::{CircuitBreakers, RetryBudget};
use tokio::sync::{Notify, futures::Notified};

#[derive(Debug)]
#[repr(align(64))]
struct Gauge {
    now: AtomicU32,
    max: AtomicU32,
}

impl Default for Gauge {
    fn default() -> Self {
        Self {
            now: AtomicU32::new(0),
            max: AtomicU32::new(u32::MAX),
        }
    }
}

impl Gauge {
    fn limited(&self) -> bool {
        self.max.load(Ordering::Relaxed) != u32::MAX
    }

    fn acquire(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        if self.now.fetch_add(1, Ordering::AcqRel) < max {
            return true;
        }
        self.now.fetch_sub(1, Ordering::AcqRel);
        false
    }

    fn release(&self) {
        self.now.fetch_sub(1, Ordering::AcqRel);
    }

    fn is_open(&self) -> bool {
        self.now.load(Ordering::Relaxed) >= self.max.load(Ordering::Relaxed)
    }
}

/// The limits of a cluster and what counts against them.
#[derive(Debug, Default)]
pub struct Breakers {
    connections: Gauge,
    pending: Gauge,
    requests: Gauge,
    retries: Gauge,
    /// Share of active requests in millionths, and the least number; 0 and 0 without a budget.
    budget_share: AtomicU32,
    budget_min: AtomicU32,
    has_budget: AtomicU32,
    /// Requests that wait at the connection cap.
    waiting: AtomicU32,
    /// Wakes one waiter: a connection's place is free.
    freed: Notify,
    /// Wakes every pool: a waiter wants a place that an idle connection may hold.
    wanted: Notify,
}

/// Which count a permit is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    Connections,
    Pending,
    Requests,
    Retries,
}

/// A place under a limit, given back when dropped.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    breakers: Option<Arc<Breakers>>,
    count: Count,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(breakers) = &self.breakers else { return };
        breakers.gauge(self.count).release();
        if self.count == Count::Connections && breakers.is_wanted() {
            breakers.freed.notify_one();
        }
    }
}

impl Breakers {
    /// Takes limits over; what is under way stays counted.
    pub(super) fn set_limits(&self, limits: &CircuitBreakers) {
        let store = |gauge: &Gauge, max: u32| gauge.max.store(max, Ordering::Relaxed);
        store(&self.connections, limits.max_connections);
        store(&self.pending, limits.max_pending_requests);
        store(&self.retries, limits.max_retries);
        // A budget needs the number of active requests: count them even without a limit of their own.
        let requests = if limits.retry_budget.is_some() {
            limits.max_requests.min(u32::MAX - 1)
        } else {
            limits.max_requests
        };
        store(&self.requests, requests);
        let (share, min) = match &limits.retry_budget {
            Some(RetryBudget {
                percent,
                min_concurrency,
            }) => (percent.millionths(), *min_concurrency),
            None => (0, 0),
        };
        self.budget_share.store(share, Ordering::Relaxed);
        self.budget_min.store(min, Ordering::Relaxed);
        self.has_budget
            .store(u32::from(limits.retry_budget.is_some()), Ordering::Relaxed);
        // A higher cap lets waiters in.
        if self.is_wanted() {
            self.freed.notify_waiters();
        }
    }

    const fn gauge(&self, count: Count) -> &Gauge {
        match count {
            Count::Connections => &self.connections,
            Count::Pending => &self.pending,
            Count::Requests => &self.requests,
            Count::Retries => &self.retries,
        }
    }

    fn permit(self: &Arc<Self>, count: Count) -> Option<Permit> {
        self.gauge(count).acquire().then(|| Permit {
            breakers: Some(self.clone()),
            count,
        })
    }

    fn permit_if_limited(self: &Arc<Self>, count: Count) -> Option<Permit> {
        if self.gauge(count).limited() {
            self.permit(count)
        } else {
            Some(Permit {
                breakers: None,
                count,
            })
        }
    }

    /// A place for a connection; `None` at the cap.
    pub fn connection(self: &Arc<Self>) -> Option<Permit> {
        self.permit(Count::Connections)
    }

    /// A place for a request that waits for a connection; `None` at the cap.
    pub fn pending(self: &Arc<Self>) -> Option<Permit> {
        self.permit_if_limited(Count::Pending)
    }

    /// A place for a request in flight; `None` at the cap.
    pub fn request(self: &Arc<Self>) -> Option<Permit> {
        self.permit_if_limited(Count::Requests)
    }

    /// A place for a retry; `None` at the cap or beyond the budget.
    pub fn retry(self: &Arc<Self>) -> Option<Permit> {
        if self.has_budget.load(Ordering::Relaxed) == 0 {
            return self.permit_if_limited(Count::Retries);
        }
        let active =
            u64::from(self.requests.now.load(Ordering::Relaxed) + self.pending.now.load(Ordering::Relaxed));
        let share = active * u64::from(self.budget_share.load(Ordering::Relaxed)) / 1_000_000;
        let allowed = share.max(u64::from(self.budget_min.load(Ordering::Relaxed)));
        if u64::from(self.retries.now.fetch_add(1, Ordering::AcqRel)) < allowed {
            return Some(Permit {
                breakers: Some(self.clone()),
                count: Count::Retries,
            });
        }
        self.retries.release();
        None
    }

    /// Whether a request waits at the connection cap: who would park a connection closes it instead.
    pub fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Notes a waiter at the cap and wakes the pools that may hold idle connections.
    pub fn wait(self: &Arc<Self>) -> Waiter {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.wanted.notify_waiters();
        Waiter(self.clone())
    }

    /// Resolves when a waiter has been noted since; a pool gives an idle connection up then.
    pub fn wanted(&self) -> Notified<'_> {
        self.wanted.notified()
    }

    /// Whether `max_connections` can be reached at all.
    pub fn limits_connections(&self) -> bool {
        self.connections.limited()
    }

    /// Which of connections, pending requests and requests are at their limit.
    pub fn open(&self) -> [bool; 3] {
        [
            self.connections.is_open(),
            self.pending.is_open(),
            self.requests.is_open(),
        ]
    }

    /// Connections that are open.
    pub fn connections_now(&self) -> u32 {
        self.connections.now.load(Ordering::Relaxed)
    }
}

/// A request that waits at the connection cap.
#[derive(Debug)]
pub struct Waiter(Arc<Breakers>);

impl Waiter {
    /// Resolves when a place may be free; try again then. Take it before looking, so that no wake-up is lost.
    pub fn freed(&self) -> Notified<'_> {
        self.0.freed.notified()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        // A wake-up that was meant for this waiter goes to the next.
        if self.0.is_wanted() && !self.0.connections.is_open() {
            self.0.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breakers(limits: &CircuitBreakers) -> Arc<Breakers> {
        let breakers = Arc::new(Breakers::default());
        breakers.set_limits(limits);
        breakers
    }

    #[test]
    fn a_limit_holds_and_a_dropped_permit_gives_its_place_back() {
        let breakers = breakers(&CircuitBreakers {
            max_requests: 2,
            ..CircuitBreakers::ENVOY
        });
        let first = breakers.request().unwrap();
        let _second = breakers.request().unwrap();
        assert!(breakers.request().is_none());
        drop(first);
        assert!(breakers.request().is_some());
    }

    #[test]
    fn a_budget_follows_the_active_requests_and_never_falls_below_its_minimum() {
        let breakers = breakers(&CircuitBreakers {
            retry_budget: Some(RetryBudget {
                percent: rajut_types::Percent::new(20.0).unwrap(),
                min_concurrency: 1,
            }),
            ..CircuitBreakers::UNLIMITED
        });
        let _one = breakers.retry().unwrap();
        assert!(breakers.retry().is_none());
        let _active: Vec<_> = (0..10).map(|_| breakers.request().unwrap()).collect();
        let _two = breakers.retry().unwrap();
        assert!(breakers.retry().is_none());
    }

    #[tokio::test]
    async fn a_freed_place_wakes_a_waiter() {
        let breakers = breakers(&CircuitBreakers {
            max_connections: 1,
            ..CircuitBreakers::ENVOY
        });
        let permit = breakers.connection().unwrap();
        let waiter = breakers.wait();
        let freed = waiter.freed();
        assert!(breakers.connection().is_none());
        drop(permit);
        freed.await;
        assert!(breakers.connection().is_some());
    }
}
