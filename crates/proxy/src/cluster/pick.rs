//! Choosing a host: priority, health, panic ([`spread`]), the locality where those share load by weight, then the
//! balancing policy.
//!
//! With every host of the first priority in service (the common case) a pick takes no lock, allocates nothing and
//! looks at one or two hosts. Otherwise the usable hosts are counted anew, which is linear in their number.
//!
//! Bounds: a weighted round-robin schedule has at most [`SCHEDULE_MAX`] entries.

use std::{net::SocketAddr, sync::Arc};

use rajut_ir::{
    cluster::{Cluster as ClusterIr, LbPolicy},
    endpoint::{Health, LoadAssignment, LocalityEndpoints},
};

use super::{
    Cluster, Host,
    spread::{self, Hosts, Level},
};
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
    /// Where localities share load by their weights: those that have one.
    localities: Vec<LocalityHosts>,
}

/// Hosts of one locality in a priority.
#[derive(Debug)]
struct LocalityHosts {
    weight: u32,
    /// How many, whatever their health.
    all: usize,
    healthy: Vec<Arc<Host>>,
    degraded: Vec<Arc<Host>>,
    /// Indexes into `healthy` in weighted order.
    schedule: Option<Vec<u32>>,
}

/// Groups hosts by priority, the first first.
pub(super) fn priorities(hosts: &[Arc<Host>], ir: &ClusterIr, assignment: &LoadAssignment) -> Vec<Priority> {
    let policy = &ir.lb_policy;
    let mut numbers: Vec<u32> = hosts.iter().map(|host| host.priority).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let group = |number: &u32| {
        let all: Vec<_> = hosts
            .iter()
            .filter(|host| host.priority == *number)
            .cloned()
            .collect();
        let healthy = of(&all, &[Health::Unknown, Health::Healthy]);
        let by_turn = matches!(
            policy,
            LbPolicy::RoundRobin | LbPolicy::Random | LbPolicy::LeastRequest { .. }
        );
        // Who hashes has the weights of localities in the hosts' shares.
        let of_priority = |it: &LocalityEndpoints| ir.locality_weighted && by_turn && it.priority == *number;
        // Hosts stand in the order of the assignment's endpoints.
        let mut rest = hosts;
        let localities = assignment.localities.iter().map(|it| {
            let (own, others) = rest.split_at(it.endpoints.len().min(rest.len()));
            rest = others;
            (it, own)
        });
        let localities = localities.filter(|(it, _)| of_priority(it));
        Priority {
            degraded: of(&all, &[Health::Degraded]),
            schedule: by_turn.then(|| schedule(&healthy, |host| host.share)).flatten(),
            localities: localities.filter_map(|(it, hosts)| locality(it, hosts)).collect(),
            healthy,
            all,
            overprovisioning: assignment.overprovisioning_percent.unwrap_or(OVERPROVISIONING),
        }
    };
    numbers.iter().map(group).collect()
}

/// Those hosts whose health, as it was told, is one of `wanted`.
fn of(hosts: &[Arc<Host>], wanted: &[Health]) -> Vec<Arc<Host>> {
    let mut found = hosts.to_vec();
    found.retain(|host| wanted.contains(&host.health()));
    found
}

/// The hosts of one locality; `None`: it has no weight, and so no share.
fn locality(of_locality: &LocalityEndpoints, hosts: &[Arc<Host>]) -> Option<LocalityHosts> {
    let weight = of_locality.weight.filter(|weight| *weight > 0)?;
    let healthy = of(hosts, &[Health::Unknown, Health::Healthy]);
    Some(LocalityHosts {
        weight,
        all: hosts.len(),
        degraded: of(hosts, &[Health::Degraded]),
        schedule: schedule(&healthy, |host| host.weight),
        healthy,
    })
}

/// Earliest-deadline-first order over the weights; `None` where they are equal.
fn schedule(hosts: &[Arc<Host>], of: fn(&Host) -> u32) -> Option<Vec<u32>> {
    let first = of(hosts.first()?);
    if hosts.iter().all(|host| of(host) == first) {
        return None;
    }
    let divisor = hosts.iter().fold(0, |divisor, host| gcd(divisor, of(host)));
    let sum: u64 = hosts.iter().map(|host| u64::from(of(host) / divisor)).sum();
    let scale = |weight: u32| {
        let weight = u64::from(weight / divisor);
        let limit = SCHEDULE_MAX as u64;
        let scaled = if sum > limit { weight * limit / sum } else { weight };
        scaled.max(1)
    };
    let weights: Vec<u64> = hosts.iter().map(|host| scale(of(host))).collect();
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
        let all_in_service = self.outlier.is_empty();
        if let [first, ..] = self.priorities.as_slice()
            && all_in_service
            && first.healthy.len() == first.all.len()
        {
            return self
                .choose_in(first, Hosts::Healthy, context)
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
            .find_map(|priority| self.choose_in(priority, Hosts::Healthy, context))
    }

    /// As [`spread`] says; the usable hosts are counted.
    fn pick_among_unhealthy(&self, context: &PickContext<'_>) -> Option<Arc<Host>> {
        let levels: Vec<Level> = self
            .priorities
            .iter()
            .map(|priority| Level {
                all: priority.all.len(),
                healthy: self.usable(&priority.healthy),
                degraded: self.usable(&priority.degraded),
                overprovisioning: priority.overprovisioning,
            })
            .collect();
        let draw = usize::try_from(context.worker.random() >> 33).unwrap_or(0) % 100;
        let choice = spread::choose(&levels, self.ir.panic_threshold.millionths(), draw)?;
        self.choose_in(self.priorities.get(choice.level)?, choice.hosts, context)
    }

    /// How many of these are in service.
    fn usable(&self, hosts: &[Arc<Host>]) -> usize {
        if self.outlier.is_empty() {
            return hosts.len();
        }
        hosts.iter().filter(|host| !host.record.is_out()).count()
    }

    /// A host of a priority.
    fn choose_in(&self, priority: &Priority, hosts: Hosts, context: &PickContext<'_>) -> Option<Arc<Host>> {
        // While all hosts are in service their shares say the same, in turns or at random; not so to the least loaded.
        let flat = hosts == Hosts::Healthy
            && !matches!(self.ir.lb_policy, LbPolicy::LeastRequest { .. })
            && self.usable(&priority.healthy) == priority.all.len();
        if !priority.localities.is_empty() && hosts != Hosts::All && !flat {
            return self.choose_by_locality(priority, hosts, context);
        }
        let (list, schedule) = match hosts {
            Hosts::Healthy => (&priority.healthy, priority.schedule.as_deref()),
            Hosts::Degraded => (&priority.degraded, None),
            Hosts::All => (&priority.all, None),
        };
        let in_service = hosts != Hosts::All;
        self.choose(list, schedule, (in_service, true), context)
            .or_else(|| {
                // Every usable host was tried: again any of them, rather than none.
                (!context.exclude.is_empty())
                    .then(|| self.choose(list, schedule, (in_service, false), context))
                    .flatten()
            })
    }

    /// A host of a locality that is drawn by weight, or of another where all of it were tried.
    fn choose_by_locality(
        &self,
        priority: &Priority,
        hosts: Hosts,
        context: &PickContext<'_>,
    ) -> Option<Arc<Host>> {
        let weight = |it: &LocalityHosts| {
            let usable = match hosts {
                Hosts::Degraded => self.usable(&it.degraded),
                Hosts::Healthy | Hosts::All => self.usable(&it.healthy),
            };
            spread::effective_weight(it.weight, usable, it.all, priority.overprovisioning)
        };
        let sum: u64 = priority.localities.iter().map(weight).sum();
        let mut left = (context.worker.random() >> 11).checked_rem(sum)?;
        let drawn = priority.localities.iter().position(|it| {
            let weight = weight(it);
            let hit = left < weight;
            left = left.saturating_sub(weight);
            hit
        })?;
        let (before, after) = priority.localities.split_at(drawn);
        let of_locality = |it: &LocalityHosts, fresh: bool| match hosts {
            Hosts::Degraded => self.choose(&it.degraded, None, (true, fresh), context),
            Hosts::Healthy | Hosts::All => {
                self.choose(&it.healthy, it.schedule.as_deref(), (true, fresh), context)
            }
        };
        let fresh = after.iter().chain(before).find_map(|it| of_locality(it, true));
        fresh.or_else(|| of_locality(after.first()?, false))
    }

    /// A host of a list by the policy. `in_service`: those that are out are left out; `fresh`: those that were tried, too.
    fn choose(
        &self,
        hosts: &[Arc<Host>],
        schedule: Option<&[u32]>,
        (in_service, fresh): (bool, bool),
        context: &PickContext<'_>,
    ) -> Option<Arc<Host>> {
        let eligible = |host: &Host| {
            let out = in_service && host.record.is_out();
            let tried = fresh && context.exclude.contains(&host.id);
            !(out || tried)
        };
        self.by_policy(hosts, schedule, &eligible, context).cloned()
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
