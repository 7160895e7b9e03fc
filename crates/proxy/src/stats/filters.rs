//! Counters of filters: access control, local rate limits, faults and origins, by the prefixes that the configuration
//! gives them.
//!
//! Bounds: as many as [`super::PREFIXES_MAX`] of each kind; further ones share one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rajut_telemetry::names;
use rajut_types::Text;

use super::{PREFIXES_MAX, PerWorker, Row};

counters! {
    /// What is counted per filter of access control.
    RbacCounter {
        /// Calls that passed.
        Allowed,
        /// Calls that were refused.
        Denied,
        /// Calls that would have passed.
        ShadowAllowed,
        /// Calls that would have been refused.
        ShadowDenied,
    }
}

counters! {
    /// What is counted per connection manager of tokens.
    JwtCounter {
        /// Requests that passed.
        Allowed,
        /// Requests that were refused.
        Denied,
        /// Preflights, which need no token.
        PreflightBypassed,
    }
}

/// The counters of one connection manager's tokens.
#[derive(Debug)]
pub struct JwtStats(PerWorker<{ JwtCounter::COUNT }>);

impl JwtStats {
    /// Counts one.
    pub fn add(&self, worker: usize, counter: JwtCounter) {
        self.0.add(worker, counter as usize, 1);
    }

    /// The sum of a counter.
    pub fn sum(&self, counter: JwtCounter) -> u64 {
        self.0.sum(counter as usize)
    }

    fn rows(&self, prefix: &Text, out: &mut Vec<Row>) {
        let label = [(names::LABEL_HTTP_PREFIX, prefix.clone())];
        let all = [
            (names::HTTP_JWT_ALLOWED, JwtCounter::Allowed),
            (names::HTTP_JWT_DENIED, JwtCounter::Denied),
            (names::HTTP_JWT_PREFLIGHTS, JwtCounter::PreflightBypassed),
        ];
        out.extend(all.map(|(name, counter)| Row::counter(name, &label, self.sum(counter))));
    }
}

counters! {
    /// What is counted per filter of external authorization.
    ExtAuthzCounter {
        /// Calls that the provider allowed.
        Ok,
        /// Calls that it refused.
        Denied,
        /// Calls about which it did not answer.
        Error,
        /// Of those, calls about which it did not answer in time.
        Timeout,
        /// Calls about which nobody was asked.
        Disabled,
        /// Calls that passed without an answer.
        FailureModeAllowed,
        /// Answers that could not be followed.
        Invalid,
    }
}

/// The counters of a filter of external authorization.
#[derive(Debug)]
pub struct ExtAuthzStats(PerWorker<{ ExtAuthzCounter::COUNT }>);

impl ExtAuthzStats {
    /// Counts one.
    pub fn add(&self, worker: usize, counter: ExtAuthzCounter) {
        self.0.add(worker, counter as usize, 1);
    }

    /// The sum of a counter.
    pub fn sum(&self, counter: ExtAuthzCounter) -> u64 {
        self.0.sum(counter as usize)
    }

    fn rows(&self, key: &ExtAuthzKey, out: &mut Vec<Row>) {
        use ExtAuthzCounter as C;
        let mut labels = Vec::new();
        if !key.own.is_empty() {
            labels.push((names::LABEL_EXT_AUTHZ_PREFIX, key.own.clone()));
        }
        let names = if key.http {
            labels.push((names::LABEL_HTTP_PREFIX, key.prefix.clone()));
            names::HTTP_EXT_AUTHZ
        } else {
            names::EXT_AUTHZ
        };
        let counters = [
            C::Ok,
            C::Denied,
            C::Error,
            C::Timeout,
            C::Disabled,
            C::FailureModeAllowed,
            C::Invalid,
        ];
        for (name, counter) in names.into_iter().zip(counters) {
            out.push(Row::counter(name, &labels, self.sum(counter)));
        }
    }
}

/// Whose counters of external authorization.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct ExtAuthzKey {
    http: bool,
    /// The connection manager's prefix; empty for connections.
    prefix: Text,
    /// The filter's own; may be empty.
    own: Text,
}

counters! {
    /// What is counted per local rate limit.
    RateLimitCounter {
        /// Requests that were looked at.
        Enabled,
        /// Requests within the limit.
        Ok,
        /// Requests over the limit.
        RateLimited,
        /// Requests that were refused.
        Enforced,
    }
}

counters! {
    /// What is counted per connection manager of the filters that only routes configure.
    OnRouteCounter {
        /// Requests that had to wait.
        DelaysInjected,
        /// Requests that were answered with an error on purpose.
        AbortsInjected,
        /// Requests that had no fault, because too many others had.
        FaultsOverflow,
        /// Requests of allowed origins.
        OriginValid,
        /// Requests of other origins.
        OriginInvalid,
    }
}

/// The counters of one connection manager's faults and origins.
#[derive(Debug)]
pub struct OnRouteStats {
    counts: PerWorker<{ OnRouteCounter::COUNT }>,
    /// Requests that have a fault now.
    pub(crate) active_faults: AtomicU64,
}

impl OnRouteStats {
    /// Counts one.
    pub fn add(&self, worker: usize, counter: OnRouteCounter) {
        self.counts.add(worker, counter as usize, 1);
    }

    /// The sum of a counter.
    pub fn sum(&self, counter: OnRouteCounter) -> u64 {
        self.counts.sum(counter as usize)
    }

    fn rows(&self, prefix: &Text, out: &mut Vec<Row>) {
        use OnRouteCounter as C;
        let label = [(names::LABEL_HTTP_PREFIX, prefix.clone())];
        let faults = [
            (names::HTTP_FAULT_DELAYS, C::DelaysInjected),
            (names::HTTP_FAULT_ABORTS, C::AbortsInjected),
            (names::HTTP_FAULT_OVERFLOW, C::FaultsOverflow),
        ];
        let origins = [
            (names::HTTP_CORS_VALID, C::OriginValid),
            (names::HTTP_CORS_INVALID, C::OriginInvalid),
        ];
        // Each filter's are told once it has counted something.
        for group in [&faults[..], &origins] {
            if group.iter().any(|(_, counter)| self.sum(*counter) > 0) {
                let rows = group
                    .iter()
                    .map(|(name, counter)| Row::counter(name, &label, self.sum(*counter)));
                out.extend(rows);
            }
        }
        if faults.iter().any(|(_, counter)| self.sum(*counter) > 0) {
            let active = self.active_faults.load(Ordering::Relaxed);
            out.push(Row::gauge(names::HTTP_FAULT_ACTIVE, &label, active));
        }
    }
}

/// Counters that are made when something is first counted: every outbound chain has these filters, few ever use them.
#[derive(Debug)]
pub struct LateStats {
    known: OnceLock<Arc<OnRouteStats>>,
    all: Arc<FilterStats>,
    workers: usize,
    prefix: Text,
}

impl LateStats {
    pub(super) fn new(all: Arc<FilterStats>, workers: usize, prefix: &Text) -> Self {
        Self {
            known: OnceLock::new(),
            all,
            workers,
            prefix: prefix.clone(),
        }
    }

    /// The counters.
    pub fn get(&self) -> &Arc<OnRouteStats> {
        self.known
            .get_or_init(|| self.all.on_routes(self.workers, &self.prefix))
    }
}

/// The counters of one filter of access control.
#[derive(Debug)]
pub struct RbacStats(PerWorker<{ RbacCounter::COUNT }>);

impl RbacStats {
    /// Counts one.
    pub fn add(&self, worker: usize, counter: RbacCounter) {
        self.0.add(worker, counter as usize, 1);
    }

    /// The sum of a counter.
    pub fn sum(&self, counter: RbacCounter) -> u64 {
        self.0.sum(counter as usize)
    }
}

/// The counters of one prefix of local rate limits.
#[derive(Debug)]
pub struct RateLimitStats(PerWorker<{ RateLimitCounter::COUNT }>);

impl RateLimitStats {
    /// Counts one.
    pub fn add(&self, worker: usize, counter: RateLimitCounter) {
        self.0.add(worker, counter as usize, 1);
    }

    /// The sum of a counter.
    pub fn sum(&self, counter: RateLimitCounter) -> u64 {
        self.0.sum(counter as usize)
    }
}

/// Whose counters of access control they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RbacKey {
    /// Of a connection manager's filter, not of a network filter.
    http: bool,
    prefix: Text,
    rules: Text,
    shadow: Text,
}

impl RbacKey {
    fn rows(&self, stats: &RbacStats, out: &mut Vec<Row>) {
        let (prefix, all) = if self.http {
            (
                names::LABEL_HTTP_PREFIX,
                [
                    (names::HTTP_RBAC_ALLOWED, RbacCounter::Allowed),
                    (names::HTTP_RBAC_DENIED, RbacCounter::Denied),
                    (names::HTTP_RBAC_SHADOW_ALLOWED, RbacCounter::ShadowAllowed),
                    (names::HTTP_RBAC_SHADOW_DENIED, RbacCounter::ShadowDenied),
                ],
            )
        } else {
            (
                names::LABEL_RBAC_PREFIX,
                [
                    (names::RBAC_ALLOWED, RbacCounter::Allowed),
                    (names::RBAC_DENIED, RbacCounter::Denied),
                    (names::RBAC_SHADOW_ALLOWED, RbacCounter::ShadowAllowed),
                    (names::RBAC_SHADOW_DENIED, RbacCounter::ShadowDenied),
                ],
            )
        };
        for (name, counter) in all {
            let of_shadow = matches!(counter, RbacCounter::ShadowAllowed | RbacCounter::ShadowDenied);
            let own = if of_shadow { &self.shadow } else { &self.rules };
            let mut labels = vec![(prefix, self.prefix.clone())];
            if !own.is_empty() {
                labels.insert(0, (names::LABEL_RBAC_RULES, own.clone()));
            }
            out.push(Row::counter(name, &labels, stats.sum(counter)));
        }
    }
}

/// All counters of filters.
#[derive(Debug, Default)]
pub(super) struct FilterStats {
    rbac: Mutex<BTreeMap<RbacKey, Arc<RbacStats>>>,
    limits: Mutex<BTreeMap<Text, Arc<RateLimitStats>>>,
    on_routes: Mutex<BTreeMap<Text, Arc<OnRouteStats>>>,
    jwt: Mutex<BTreeMap<Text, Arc<JwtStats>>>,
    ext_authz: Mutex<BTreeMap<ExtAuthzKey, Arc<ExtAuthzStats>>>,
}

impl FilterStats {
    pub(super) fn http_rbac(
        &self,
        workers: usize,
        prefix: &Text,
        rules: &Text,
        shadow: &Text,
    ) -> Arc<RbacStats> {
        self.rbac(
            workers,
            RbacKey {
                http: true,
                prefix: prefix.clone(),
                rules: rules.clone(),
                shadow: shadow.clone(),
            },
        )
    }

    pub(super) fn network_rbac(&self, workers: usize, prefix: &Text, shadow: &Text) -> Arc<RbacStats> {
        self.rbac(
            workers,
            RbacKey {
                http: false,
                prefix: prefix
                    .strip_suffix('.')
                    .map_or_else(|| prefix.clone(), Text::from),
                rules: Text::default(),
                shadow: shadow.clone(),
            },
        )
    }

    fn rbac(&self, workers: usize, mut key: RbacKey) -> Arc<RbacStats> {
        let mut known = self.rbac.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= PREFIXES_MAX && !known.contains_key(&key) {
            key = RbacKey {
                http: key.http,
                prefix: names::PREFIX_OVERFLOW.into(),
                rules: Text::default(),
                shadow: Text::default(),
            };
        }
        known
            .entry(key)
            .or_insert_with(|| Arc::new(RbacStats(PerWorker::new(workers))))
            .clone()
    }

    pub(super) fn rate_limit(&self, workers: usize, prefix: &Text) -> Arc<RateLimitStats> {
        let mut known = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let key = if known.len() < PREFIXES_MAX || known.contains_key(prefix) {
            prefix.clone()
        } else {
            names::PREFIX_OVERFLOW.into()
        };
        known
            .entry(key)
            .or_insert_with(|| Arc::new(RateLimitStats(PerWorker::new(workers))))
            .clone()
    }

    pub(super) fn jwt(&self, workers: usize, prefix: &Text) -> Arc<JwtStats> {
        let mut known = self.jwt.lock().unwrap_or_else(PoisonError::into_inner);
        let key = if known.len() < PREFIXES_MAX || known.contains_key(prefix) {
            prefix.clone()
        } else {
            names::PREFIX_OVERFLOW.into()
        };
        known
            .entry(key)
            .or_insert_with(|| Arc::new(JwtStats(PerWorker::new(workers))))
            .clone()
    }

    pub(super) fn ext_authz(
        &self,
        workers: usize,
        http: bool,
        prefix: &Text,
        own: &Text,
    ) -> Arc<ExtAuthzStats> {
        let mut known = self.ext_authz.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = ExtAuthzKey {
            http,
            prefix: prefix.clone(),
            own: own.strip_suffix('.').unwrap_or(own).into(),
        };
        if known.len() >= PREFIXES_MAX && !known.contains_key(&key) {
            key.prefix = names::PREFIX_OVERFLOW.into();
            key.own = Text::default();
        }
        let made = || Arc::new(ExtAuthzStats(PerWorker::new(workers)));
        known.entry(key).or_insert_with(made).clone()
    }

    fn on_routes(&self, workers: usize, prefix: &Text) -> Arc<OnRouteStats> {
        let mut known = self.on_routes.lock().unwrap_or_else(PoisonError::into_inner);
        let key = if known.len() < PREFIXES_MAX || known.contains_key(prefix) {
            prefix.clone()
        } else {
            names::PREFIX_OVERFLOW.into()
        };
        let made = || {
            Arc::new(OnRouteStats {
                counts: PerWorker::new(workers),
                active_faults: AtomicU64::new(0),
            })
        };
        known.entry(key).or_insert_with(made).clone()
    }

    pub(super) fn rows(&self, out: &mut Vec<Row>) {
        let rbac = self.rbac.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, stats) in rbac.iter() {
            key.rows(stats, out);
        }
        let jwt = self.jwt.lock().unwrap_or_else(PoisonError::into_inner);
        for (prefix, stats) in jwt.iter() {
            stats.rows(prefix, out);
        }
        let ext_authz = self.ext_authz.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, stats) in ext_authz.iter() {
            stats.rows(key, out);
        }
        let on_routes = self.on_routes.lock().unwrap_or_else(PoisonError::into_inner);
        for (prefix, stats) in on_routes.iter() {
            stats.rows(prefix, out);
        }
        let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        for (prefix, stats) in limits.iter() {
            let label = [(names::LABEL_RATE_LIMIT_PREFIX, prefix.clone())];
            for (name, counter) in [
                (names::HTTP_RATE_LIMIT_ENABLED, RateLimitCounter::Enabled),
                (names::HTTP_RATE_LIMIT_ENFORCED, RateLimitCounter::Enforced),
                (names::HTTP_RATE_LIMIT_OK, RateLimitCounter::Ok),
                (names::HTTP_RATE_LIMIT_LIMITED, RateLimitCounter::RateLimited),
            ] {
                out.push(Row::counter(name, &label, stats.sum(counter)));
            }
        }
    }
}
