//! Local rate limits: token buckets that all workers share.
//!
//! A bucket is one atomic, the time at which it was (or would have been) empty: tokens come continuously, as in Envoy,
//! so that no timer fills anything. It is touched only where a limit is configured. A request takes from the buckets of
//! the descriptors that its route makes and the filter knows, slowest first, then from the one for every request.
//!
//! Bounds: buckets are made when the configuration arrives, but those per connection, which a connection makes on
//! first use (one set for each limit that it meets), and those of descriptors with open values (`open.rs`). Nothing is
//! allocated per request, but what a joined header and an open value need.

mod open;

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rajut_ir::{
    decide::{Chosen, ChosenCluster, RequestView, header_matches},
    hash::{ByHash, Fnv},
    rate_limit::{LocalRateLimit, RateLimit, RateLimitAction, TokenBucket, VirtualHostLimits},
    route::{Forward, RouteActionKind},
};
use tokio::time::Instant;

use self::open::Open;
use super::drawn;
use crate::{
    failure::{Failure, FailureKind},
    http::{
        headers::{self, Half},
        record::Record,
        view::{View, client_address},
    },
    stats::{RateLimitCounter, RateLimitStats, Registry},
};

/// A limit with its buckets.
#[derive(Debug)]
pub(crate) struct Limiter {
    ir: Arc<LocalRateLimit>,
    stats: Arc<RateLimitStats>,
    buckets: Arc<Buckets>,
    /// Hash of a descriptor's entries → positions in `ir.descriptors`.
    by_entries: HashMap<u64, Vec<usize>, ByHash>,
    /// Positions of descriptors with open values.
    open: Vec<usize>,
}

/// One set of buckets.
#[derive(Debug)]
pub(crate) struct Buckets {
    opened: Instant,
    whole: Option<Bucket>,
    /// One for each of the limit's descriptors.
    descriptors: Vec<OfDescriptor>,
}

#[derive(Debug)]
enum OfDescriptor {
    One(Bucket),
    /// One for each of its values.
    Open(Open),
}

/// The bucket that a descriptor of a request leads to.
#[derive(Debug, Clone)]
enum Found {
    /// The only one of the descriptor at that position.
    One(usize),
    /// That of its values.
    Own(Arc<Bucket>),
}

impl Buckets {
    fn new(ir: &LocalRateLimit) -> Self {
        Self {
            opened: Instant::now(),
            whole: ir.bucket.map(Bucket::new),
            descriptors: ir
                .descriptors
                .iter()
                .map(|it| {
                    if it.is_open() {
                        OfDescriptor::Open(Open::new(it.bucket, ir.dynamic_max))
                    } else {
                        OfDescriptor::One(Bucket::new(it.bucket))
                    }
                })
                .collect(),
        }
    }

    fn get<'b>(&'b self, found: &'b Found) -> Option<&'b Bucket> {
        match found {
            Found::Own(bucket) => Some(bucket),
            Found::One(at) => match self.descriptors.get(*at)? {
                OfDescriptor::One(bucket) => Some(bucket),
                OfDescriptor::Open(_) => None,
            },
        }
    }

    /// Seconds since the set was opened.
    fn at(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.opened).as_secs_f64()
    }
}

/// A token bucket. Aligned, so that buckets of different limits share no cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Bucket {
    max: f64,
    /// Tokens per second.
    rate: f64,
    /// The bits of the time in seconds since the set was opened at which the bucket was empty; negative at first.
    empty_at: AtomicU64,
}

impl Bucket {
    fn new(ir: TokenBucket) -> Self {
        let max = f64::from(ir.max_tokens);
        let rate = f64::from(ir.tokens_per_fill) / ir.fill_interval.as_secs_f64().max(1e-9);
        Self {
            max,
            rate,
            empty_at: AtomicU64::new((-max / rate).to_bits()),
        }
    }

    fn tokens(&self, now: f64) -> f64 {
        let empty_at = f64::from_bits(self.empty_at.load(Ordering::Relaxed));
        ((now - empty_at) * self.rate).clamp(0.0, self.max)
    }

    /// Takes a token if there is one.
    fn take(&self, now: f64) -> bool {
        let mut before = self.empty_at.load(Ordering::Relaxed);
        loop {
            let tokens = ((now - f64::from_bits(before)) * self.rate).clamp(0.0, self.max);
            // What rounding took is not held against the caller.
            if tokens < 1.0 - 1e-9 {
                return false;
            }
            let after = (now - (tokens - 1.0) / self.rate).to_bits();
            match self
                .empty_at
                .compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(other) => before = other,
            }
        }
    }

    fn told(&self, now: f64) -> Told {
        let tokens = self.tokens(now) + 1e-9;
        let wait = if tokens >= 1.0 {
            0.0
        } else {
            ((1.0 - tokens) / self.rate).ceil()
        };
        Told {
            limit: whole(self.max),
            remaining: whole(tokens),
            reset_s: whole(wait),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tokens and seconds are positive and far below 2^53; a float saturates"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// A bucket that the response tells of.
#[derive(Debug)]
pub(crate) struct Telling {
    limiter: Arc<Limiter>,
    buckets: Arc<Buckets>,
    /// Of a descriptor; `None` for the one for every request.
    found: Option<Found>,
    refused: bool,
}

impl Telling {
    fn told(&self) -> Option<Told> {
        let bucket = match &self.found {
            Some(found) => self.buckets.get(found),
            None => self.buckets.whole.as_ref(),
        };
        bucket.map(|bucket| bucket.told(self.buckets.at(Instant::now())))
    }

    /// Of several limits that a request meets, the response tells of the one that refused it, or has least left.
    fn or_tighter(self, known: Option<Self>) -> Option<Self> {
        let Some(own) = self.told() else { return known };
        let known = known.filter(|known| {
            !self.refused && known.told().is_some_and(|known| known.remaining <= own.remaining)
        });
        known.or(Some(self))
    }
}

/// What `x-ratelimit-*` tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    limit: u64,
    remaining: u64,
    reset_s: u64,
}

impl Limiter {
    pub(super) fn new(ir: Arc<LocalRateLimit>, registry: &Registry) -> Self {
        let mut by_entries: HashMap<u64, Vec<usize>, ByHash> = HashMap::default();
        let mut open = Vec::new();
        for (at, descriptor) in ir.descriptors.iter().enumerate() {
            if descriptor.is_open() {
                open.push(at);
                continue;
            }
            let mut hash = Fnv::default();
            for (key, value) in &descriptor.entries {
                add_entry(&mut hash, key, value.as_deref().unwrap_or_default().as_bytes());
            }
            by_entries.entry(hash.value()).or_default().push(at);
        }
        Self {
            stats: registry.rate_limit(&ir.stat_prefix),
            buckets: Arc::new(Buckets::new(&ir)),
            by_entries,
            open,
            ir,
        }
    }

    /// The bucket that a list of actions leads to: of a descriptor without open values, else of one with.
    fn find(&self, buckets: &Buckets, limit: &RateLimit, call: &Call<'_, '_>, now: f64) -> Option<Found> {
        let candidates = self.candidates(limit, call)?;
        if let Some(at) = candidates.iter().find(|at| self.is_made_of(**at, limit, call)) {
            return Some(Found::One(*at));
        }
        let at = self.open.iter().find(|at| self.is_made_of(**at, limit, call))?;
        let OfDescriptor::Open(open) = buckets.descriptors.get(*at)? else {
            return None;
        };
        let mut values = Vec::with_capacity(64);
        let mut entries = self.ir.descriptors[*at].entries.iter();
        for action in &limit.actions {
            if let Entry::Is(_, value) = call.entry(action)
                && entries.next().is_some_and(|(_, fixed)| fixed.is_none())
            {
                // No value can be mistaken for the end of another.
                values.extend_from_slice(&value.len().to_le_bytes());
                values.extend_from_slice(&value);
            }
        }
        Some(Found::Own(open.bucket(&values, now)))
    }

    /// Positions of the descriptors without open values that a list of actions may lead to; `None` if it makes none.
    fn candidates<'l>(&'l self, limit: &RateLimit, call: &Call<'_, '_>) -> Option<&'l [usize]> {
        let mut hash = Fnv::default();
        for action in &limit.actions {
            match call.entry(action) {
                Entry::Is(key, value) => add_entry(&mut hash, key, &value),
                Entry::Skipped => {}
                Entry::Missing => return None,
            }
        }
        Some(self.by_entries.get(&hash.value()).map_or(&[], Vec::as_slice))
    }

    fn is_made_of(&self, at: usize, limit: &RateLimit, call: &Call<'_, '_>) -> bool {
        let mut entries = self.ir.descriptors[at].entries.iter();
        for action in &limit.actions {
            if let Entry::Is(key, value) = call.entry(action) {
                let same = entries
                    .next()
                    .is_some_and(|(k, v)| **k == *key && v.as_ref().is_none_or(|v| v.as_bytes() == &*value));
                if !same {
                    return false;
                }
            }
        }
        entries.next().is_none()
    }
}

/// Separators that no text holds keep `a`, `bc` apart from `ab`, `c`.
fn add_entry(hash: &mut Fnv, key: &str, value: &[u8]) {
    hash.update(key.as_bytes());
    hash.update(&[0xff]);
    hash.update(value);
    hash.update(&[0xfe]);
}

/// A request as actions see it.
struct Call<'c, 'd> {
    record: &'c Record,
    chosen: Option<&'c Chosen<'d>>,
}

enum Entry<'e> {
    Is(&'e str, Cow<'e, [u8]>),
    /// It falls away, the others stay.
    Skipped,
    /// The whole descriptor falls away.
    Missing,
}

impl Call<'_, '_> {
    fn entry<'e>(&'e self, action: &'e RateLimitAction) -> Entry<'e> {
        match action {
            RateLimitAction::RequestHeader { name, key, skip } => match self.header(name) {
                Some(value) => Entry::Is(key, Cow::Borrowed(value)),
                None if *skip => Entry::Skipped,
                None => Entry::Missing,
            },
            RateLimitAction::RemoteAddress => {
                let address = client_address(self.record).ip().to_string();
                Entry::Is("remote_address", Cow::Owned(address.into_bytes()))
            }
            RateLimitAction::PeerIdentity { key, skip } => {
                let mut uri = Vec::new();
                if self.record.shared.connection.peer.first_uri(&mut uri) {
                    Entry::Is(key, Cow::Owned(uri))
                } else if *skip {
                    Entry::Skipped
                } else {
                    Entry::Missing
                }
            }
            RateLimitAction::DestinationCluster => {
                let cluster = self.chosen.and_then(|chosen| match &chosen.cluster {
                    ChosenCluster::Header(name) => self.header(name),
                    named => named.name().map(|name| name.as_bytes()),
                });
                cluster.map_or(Entry::Missing, |name| {
                    Entry::Is("destination_cluster", Cow::Borrowed(name))
                })
            }
            RateLimitAction::GenericKey { key, value } => Entry::Is(key, Cow::Borrowed(value.as_bytes())),
            RateLimitAction::HeaderValueMatch {
                key,
                value,
                expect,
                headers,
            } => {
                let view = View { record: self.record };
                if headers.iter().all(|header| header_matches(header, &view)) == *expect {
                    Entry::Is(key, Cow::Borrowed(value.as_bytes()))
                } else {
                    Entry::Missing
                }
            }
        }
    }

    /// The first value, as Envoy takes it.
    fn header(&self, name: &str) -> Option<&[u8]> {
        let view = View { record: self.record };
        let head = &self.record.head;
        let pseudo: &[u8] = match name {
            ":method" => head.method.as_str().as_bytes(),
            ":path" => &head.path_and_query,
            ":authority" | "host" => &head.authority,
            ":scheme" if view.scheme() == b"https" => b"https",
            ":scheme" => b"http",
            name => return head.fields.get(name),
        };
        (!pseudo.is_empty()).then_some(pseudo)
    }
}

fn forward_of<'c>(chosen: &Chosen<'c>) -> Option<&'c Forward> {
    match &chosen.route.action {
        RouteActionKind::Forward(forward) => Some(forward),
        RouteActionKind::Redirect(_)
        | RouteActionKind::DirectResponse(_)
        | RouteActionKind::NonForwarding => None,
    }
}

/// The lists of actions that count: the filter's own, or those of the route and its virtual host.
fn limits<'c>(ir: &'c LocalRateLimit, chosen: Option<&Chosen<'c>>) -> [&'c [RateLimit]; 2] {
    if !ir.rate_limits.is_empty() {
        return [&ir.rate_limits, &[]];
    }
    let Some(chosen) = chosen else {
        return [&[], &[]];
    };
    // Envoy knows the actions of a route only where it forwards.
    let Some(forward) = forward_of(chosen) else {
        return [&[], &[]];
    };
    let of_host: &[RateLimit] = &chosen.virtual_host.rate_limits;
    let of_route: &[RateLimit] = &forward.rate_limits;
    let with_host = forward.include_virtual_host_limits
        || match ir.virtual_host {
            VirtualHostLimits::Include => true,
            VirtualHostLimits::Override => of_route.is_empty(),
            VirtualHostLimits::Ignore => false,
        };
    [of_route, if with_host { of_host } else { &[] }]
}

/// Most descriptors that one request may take from.
const DESCRIPTORS_MAX: usize = 16;

/// Takes tokens; `Err` refuses the request.
pub(super) fn take(
    limiter: &Arc<Limiter>,
    record: &mut Record,
    chosen: Option<&Chosen<'_>>,
) -> Result<(), Failure> {
    let ir = &limiter.ir;
    if !drawn(ir.enabled, record) {
        return Ok(());
    }
    let worker = record.shared.worker.index;
    limiter.stats.add(worker, RateLimitCounter::Enabled);
    let own = ir
        .per_connection
        .then(|| record.shared.limits.borrow_mut().of(limiter));
    let buckets = own.as_ref().unwrap_or(&limiter.buckets);
    let (allowed, found) = take_from(buckets, limiter, record, chosen);
    let enforced = allowed || drawn(ir.enforced, record);
    if ir.x_ratelimit_headers || (ir.retry_after && !allowed && enforced) {
        let telling = Telling {
            limiter: limiter.clone(),
            buckets: buckets.clone(),
            found,
            refused: !allowed && enforced,
        };
        record.filters.limit = telling.or_tighter(record.filters.limit.take());
    }
    if allowed {
        limiter.stats.add(worker, RateLimitCounter::Ok);
        return Ok(());
    }
    limiter.stats.add(worker, RateLimitCounter::RateLimited);
    if !enforced {
        for header in &ir.request_headers_when_not_enforced {
            headers::set(record, header, Half::Request);
        }
        return Ok(());
    }
    limiter.stats.add(worker, RateLimitCounter::Enforced);
    record.filters.refused_by = Some(limiter.clone());
    Err(FailureKind::RateLimited {
        status: ir.status,
        exhausted: ir.resource_exhausted,
    }
    .into())
}

/// Whether there were tokens, and the bucket that decided, if it was a descriptor's.
fn take_from(
    buckets: &Buckets,
    limiter: &Limiter,
    record: &Record,
    chosen: Option<&Chosen<'_>>,
) -> (bool, Option<Found>) {
    let now = buckets.at(record.start);
    let mut found = [const { None }; DESCRIPTORS_MAX];
    let mut count = 0;
    if !limiter.ir.descriptors.is_empty() {
        let call = Call { record, chosen };
        let stage = limiter.ir.stage;
        let lists = limits(&limiter.ir, chosen);
        for limit in lists.into_iter().flatten().filter(|limit| limit.stage == stage) {
            if let Some(place) = found.get_mut(count)
                && let Some(bucket) = limiter.find(buckets, limit, &call, now)
            {
                *place = Some(bucket);
                count += 1;
            }
        }
    }
    let found = &mut found[..count];
    found.sort_by(|a, b| {
        let rate = |found: &Option<Found>| {
            let bucket = found.as_ref().and_then(|found| buckets.get(found));
            bucket.map_or(f64::MAX, |bucket| bucket.rate)
        };
        rate(a).total_cmp(&rate(b))
    });
    for one in found.iter().flatten() {
        if buckets.get(one).is_some_and(|bucket| !bucket.take(now)) {
            return (false, Some(one.clone()));
        }
    }
    let slowest = found.first_mut().and_then(Option::take);
    if (slowest.is_none() || limiter.ir.always_consume_default)
        && let Some(whole) = &buckets.whole
        && !whole.take(now)
    {
        return (false, None);
    }
    (true, slowest)
}

/// Sets what a response tells of limits.
pub(super) fn tell(record: &mut Record) {
    if let Some(limiter) = record.filters.refused_by.take() {
        for header in &limiter.ir.response_headers {
            headers::set(record, header, Half::Response);
        }
    }
    let Some(telling) = record.filters.limit.take() else {
        return;
    };
    let Some(told) = telling.told() else { return };
    let fields = &mut record.response.fields;
    let ir = &telling.limiter.ir;
    // A head that has reached its bound on edits goes without them.
    if ir.x_ratelimit_headers {
        let _ = fields.set_number("x-ratelimit-limit", told.limit);
        let _ = fields.set_number("x-ratelimit-remaining", told.remaining);
        let _ = fields.set_number("x-ratelimit-reset", told.reset_s);
    }
    if ir.retry_after && telling.refused && ir.status == 429 && fields.get("retry-after").is_none() {
        let _ = fields.set_number("retry-after", told.reset_s.max(1));
    }
}

/// The buckets of one connection: limit → its set, made on first use.
#[derive(Debug, Default)]
pub(crate) struct ConnectionLimits(Vec<(Arc<Limiter>, Arc<Buckets>)>);

impl ConnectionLimits {
    fn of(&mut self, limiter: &Arc<Limiter>) -> Arc<Buckets> {
        if let Some((_, buckets)) = self.0.iter().find(|(known, _)| Arc::ptr_eq(known, limiter)) {
            return buckets.clone();
        }
        let buckets = Arc::new(Buckets::new(&limiter.ir));
        if self.0.len() >= LIMITS_MAX {
            self.0.remove(0);
        }
        self.0.push((limiter.clone(), buckets.clone()));
        buckets
    }
}

/// Limits of which a connection keeps buckets; the oldest is forgotten.
const LIMITS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn bucket(max_tokens: u32, tokens_per_fill: u32, seconds: u64) -> Bucket {
        Bucket::new(TokenBucket {
            max_tokens,
            tokens_per_fill,
            fill_interval: Duration::from_secs(seconds),
        })
    }

    #[test]
    fn a_bucket_begins_full_and_fills_continuously_to_its_size() {
        let bucket = bucket(3, 2, 1);
        let taken = |now| {
            std::iter::repeat_with(|| bucket.take(now))
                .take_while(|it| *it)
                .count()
        };
        assert_eq!(taken(0.0), 3);
        assert_eq!(taken(0.4), 0);
        assert_eq!(taken(0.5), 1);
        assert_eq!(taken(100.0), 3);
    }

    #[test]
    fn what_is_told_is_what_is_left_and_when_there_is_more() {
        let bucket = bucket(2, 2, 3600);
        assert!(bucket.take(0.0));
        let told = bucket.told(0.0);
        assert_eq!((told.limit, told.remaining, told.reset_s), (2, 1, 0));
        assert!(bucket.take(0.0));
        let told = bucket.told(0.5);
        assert_eq!((told.limit, told.remaining, told.reset_s), (2, 0, 1800));
    }

    #[test]
    fn workers_together_take_no_more_than_there_is() {
        let bucket = bucket(1000, 1, 3600);
        let taken: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| bucket.take(0.0)).count()))
                .collect();
            workers.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }
}
