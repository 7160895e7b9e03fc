//! Choosing a host: priority, health, panic, then the balancing policy.
//!
//! With every host of the first priority in service (the common case) a pick takes no lock, allocates nothing and
//! looks at one or two hosts. Otherwise the usable hosts are counted anew, which is linear in their number.
//!
//! Bounds: a weighted round-robin schedule has at most [`SCHEDULE_MAX`] entries.

use std::{net::SocketAddr, sync::Arc};

use rajut_ir::{cluster::LbPolicy, endpoint::Health};

use super::{Cluster, Host};
use crate::{
    connection::Connection,
    failure::{Failure, FailureKind},
    worker::Worker,
};

/// Entries of a weighted schedule; larger weights are scaled down.
pub const SCHEDULE_MAX: usize = 4096;
/// Envoy's overprovisioning factor, percent.
const OVERPROVISIONING: u32 = 140;

/// What a pick depends on beside the cluster.
#[derive(Debug)]
pub struct PickContext<'a> {
    /// The worker: its random draws, its cursor.
    pub worker: &'a Worker,
    /// What consistent hashing hashes, if the route says so.
    pub hash: Option<u64>,
    /// Hosts that were tried, by [`Host::id`]; avoided while others are usable.
    pub exclude: &'a [u64],
    /// The address that the client dialled, for original-destination clusters.
    pub destination: Option<SocketAddr>,
    /// Priorities that were tried and are passed over while others have usable hosts.
    pub skip_priorities: u32,
}

impl<'a> PickContext<'a> {
    /// For an opaque connection: nothing is hashed but the client's address, nothing was tried.
    pub fn for_connection(worker: &'a Worker, connection: &Connection) -> Self {
        Self {
            worker,
            hash: Some(stable_hash(connection.remote.ip().to_string().as_bytes())),
            exclude: &[],
            destination: Some(connection.local),
            skip_priorities: 0,
        }
    }
}

/// The hosts of one priority, as the control plane tells their health.
#[derive(Debug, Default)]
pub(super) struct Priority {
    all: Vec<Arc<Host>>,
    healthy: Vec<Arc<Host>>,
    degraded: Vec<Arc<Host>>,
    /// Indexes into `healthy` in weighted order; `None` where all weights are equal.
    schedule: Option<Vec<u32>>,
    overprovisioning: u32,
}

/// Groups hosts by priority, the first first.
pub(super) fn priorities(
    hosts: &[Arc<Host>],
    policy: &LbPolicy,
    overprovisioning: Option<u32>,
) -> Vec<Priority> {
    let mut numbers: Vec<u32> = hosts.iter().map(|host| host.priority).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let group = |number: &u32| {
        let all: Vec<_> = hosts
            .iter()
            .filter(|host| host.priority == *number)
            .cloned()
            .collect();
        let of = |wanted: &[Health]| {
            all.iter()
                .filter(|host| wanted.contains(&host.health()))
                .cloned()
                .collect::<Vec<_>>()
        };
        let healthy = of(&[Health::Unknown, Health::Healthy]);
        Priority {
            degraded: of(&[Health::Degraded]),
            schedule: match policy {
                LbPolicy::RoundRobin | LbPolicy::Random | LbPolicy::LeastRequest { .. } => schedule(&healthy),
                LbPolicy::ClusterProvided | LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. } => None,
            },
            healthy,
            all,
            overprovisioning: overprovisioning.unwrap_or(OVERPROVISIONING),
        }
    };
    numbers.iter().map(group).collect()
}

/// Earliest-deadline-first order over the weights; `None` where they are equal.
fn schedule(hosts: &[Arc<Host>]) -> Option<Vec<u32>> {
    let first = hosts.first()?.share;
    if hosts.iter().all(|host| host.share == first) {
        return None;
    }
    let divisor = hosts.iter().fold(0, |divisor, host| gcd(divisor, host.share));
    let sum: u64 = hosts.iter().map(|host| u64::from(host.share / divisor)).sum();
    let scale = |weight: u32| {
        let weight = u64::from(weight / divisor);
        let limit = SCHEDULE_MAX as u64;
        let scaled = if sum > limit { weight * limit / sum } else { weight };
        scaled.max(1)
    };
    let weights: Vec<u64> = hosts.iter().map(|host| scale(host.share)).collect();
    let total: u64 = weights.iter().sum();
    // Smooth weighted round robin: each turn everybody earns its weight, the richest is taken and pays the sum.
    let mut credit = vec![0_i128; hosts.len()];
    let turn = |_| {
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            *credit += i128::from(*weight);
        }
        let best = (0..credit.len()).max_by_key(|index| (credit[*index], std::cmp::Reverse(*index)))?;
        credit[best] -= i128::from(total);
        u32::try_from(best).ok()
    };
    (0..total).map(turn).collect()
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Cluster {
    /// A host for the next try.
    pub fn pick(&self, context: &PickContext<'_>) -> Result<Arc<Host>, Failure> {
        if matches!(self.ir.lb_policy, LbPolicy::ClusterProvided) {
            return context
                .destination
                .map(|address| self.original.host(address))
                .ok_or_else(|| FailureKind::NoHealthyUpstream.into());
        }
        if context.skip_priorities > 0
            && let Some(host) = self.pick_elsewhere(context)
        {
            return Ok(host);
        }
        let all_in_service = self.outlier.active() == 0;
        if let [first, ..] = self.priorities.as_slice()
            && all_in_service
            && first.healthy.len() == first.all.len()
        {
            return self
                .choose(first, &first.healthy, true, context)
                .ok_or_else(|| FailureKind::NoHealthyUpstream.into());
        }
        self.pick_among_unhealthy(context)
            .ok_or_else(|| FailureKind::NoHealthyUpstream.into())
    }

    /// A host of a priority that was not tried yet (Envoy `previous_priorities`); round again after the last.
    fn pick_elsewhere(&self, context: &PickContext<'_>) -> Option<Arc<Host>> {
        let count = self.priorities.len();
        let skip = usize::try_from(context.skip_priorities).unwrap_or(0) % count.max(1);
        self.priorities[skip..]
            .iter()
            .find_map(|priority| self.choose(priority, &priority.healthy, true, context))
    }

    /// Envoy's rules: load is spread over the priorities by their share of healthy hosts; below the panic threshold
    /// every host of the priority is used.
    fn pick_among_unhealthy(&self, context: &PickContext<'_>) -> Option<Arc<Host>> {
        let usable = |hosts: &[Arc<Host>]| hosts.iter().filter(|host| !host.record.is_ejected()).count();
        let availability = |priority: &Priority| {
            let healthy = usable(&priority.healthy) + usable(&priority.degraded);
            let percent = healthy * priority.overprovisioning as usize / priority.all.len().max(1);
            percent.min(100)
        };
        let shares: Vec<usize> = self.priorities.iter().map(availability).collect();
        let sum: usize = shares.iter().sum();
        let threshold = u64::from(self.ir.panic_threshold.millionths());
        let panics = |priority: &Priority| {
            let healthy = (usable(&priority.healthy) + usable(&priority.degraded)) as u64;
            healthy * 1_000_000 < threshold * priority.all.len() as u64
        };
        let draw = usize::try_from(context.worker.random() >> 33).unwrap_or(0);
        let priority = if sum == 0 {
            self.priorities.first()?
        } else {
            let mut left = draw % sum.min(100);
            let taken = shares.iter().position(|share| {
                let hit = left < *share;
                left = left.saturating_sub(*share);
                hit
            });
            &self.priorities[taken?]
        };
        if sum < 100 && panics(priority) {
            return self.choose(priority, &priority.all, false, context);
        }
        self.choose(priority, &priority.healthy, true, context)
            .or_else(|| self.choose(priority, &priority.degraded, true, context))
    }

    /// A host of a list by the policy. `in_service`: ejected hosts are left out.
    fn choose(
        &self,
        priority: &Priority,
        hosts: &[Arc<Host>],
        in_service: bool,
        context: &PickContext<'_>,
    ) -> Option<Arc<Host>> {
        let usable = |host: &Host| !(in_service && host.record.is_ejected());
        let fresh = |host: &Host| usable(host) && !context.exclude.contains(&host.id);
        let schedule = priority
            .schedule
            .as_deref()
            .filter(|_| std::ptr::eq(hosts, priority.healthy.as_slice()));
        self.by_policy(hosts, schedule, &fresh, context)
            .or_else(|| {
                // Every usable host was tried: again any of them, rather than none.
                (!context.exclude.is_empty())
                    .then(|| self.by_policy(hosts, schedule, &usable, context))
                    .flatten()
            })
            .cloned()
    }

    fn by_policy<'h>(
        &self,
        hosts: &'h [Arc<Host>],
        schedule: Option<&[u32]>,
        eligible: &dyn Fn(&Host) -> bool,
        context: &PickContext<'_>,
    ) -> Option<&'h Arc<Host>> {
        if hosts.is_empty() {
            return None;
        }
        match &self.ir.lb_policy {
            LbPolicy::RoundRobin => {
                let length = schedule.map_or(hosts.len(), <[u32]>::len) as u64;
                (0..length).find_map(|_| {
                    let turn = self.cursor.add(context.worker.index, 0, 1) % length;
                    Some(at(hosts, schedule, turn)).filter(|host| eligible(host))
                })
            }
            LbPolicy::Random => random(hosts, schedule, eligible, context.worker),
            LbPolicy::LeastRequest { choices } => {
                let draws =
                    (0..(*choices).max(1)).filter_map(|_| random(hosts, schedule, eligible, context.worker));
                draws.min_by_key(|host| host.requests_active())
            }
            LbPolicy::ClusterProvided => None,
            LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. } => match context.hash {
                // Highest random weight: the same host for the same key, and a change of the set moves only the keys
                // of the hosts that changed, which is what a ring is for.
                Some(key) => hosts
                    .iter()
                    .filter(|host| eligible(host))
                    .max_by_key(|host| weighted_score(host, key)),
                None => random(hosts, schedule, eligible, context.worker),
            },
        }
    }
}

fn at<'h>(hosts: &'h [Arc<Host>], schedule: Option<&[u32]>, turn: u64) -> &'h Arc<Host> {
    let turn = usize::try_from(turn).unwrap_or(0);
    match schedule {
        Some(schedule) => &hosts[schedule[turn] as usize],
        None => &hosts[turn],
    }
}

/// A weighted draw; after a few misses the next eligible one from there.
fn random<'h>(
    hosts: &'h [Arc<Host>],
    schedule: Option<&[u32]>,
    eligible: &dyn Fn(&Host) -> bool,
    worker: &Worker,
) -> Option<&'h Arc<Host>> {
    let length = schedule.map_or(hosts.len(), <[u32]>::len) as u64;
    let mut turn = 0;
    for _ in 0..4 {
        turn = ((worker.random() >> 32) * length) >> 32;
        let host = at(hosts, schedule, turn);
        if eligible(host) {
            return Some(host);
        }
    }
    (0..length)
        .map(|step| at(hosts, schedule, (turn + step) % length))
        .find(|host| eligible(host))
}

/// A score whose highest bidder is a host with probability proportional to its weight, fixed by key and address.
#[expect(clippy::cast_precision_loss, reason = "a score, only compared")]
fn weighted_score(host: &Host, key: u64) -> u64 {
    let mixed = mix(key ^ mix(stable_hash(host.address.to_string().as_bytes())));
    let unit = (mixed >> 11) as f64 / (1_u64 << 53) as f64;
    // -weight / ln(u) is positive and finite for u in (0, 1).
    let score = -f64::from(host.share) / unit.max(f64::MIN_POSITIVE).ln();
    score.to_bits()
}

/// A hash that is the same in every process (FNV-1a), for consistent hashing.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

const fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}
