//! How load is spread over a cluster's priorities, and over the localities of one. Pure.
//!
//! Source: Envoy's rules. A priority takes the part of the load that its hosts in service, with the overprovisioning factor
//! (140 %), can carry; what is left goes to the next. Degraded hosts of all priorities come after healthy ones of all. Below
//! the panic threshold, and only where all together can't carry the load, all hosts of a priority are used.

/// Hosts of one priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level {
    /// All, whatever their state.
    pub(super) all: usize,
    /// Healthy and not ejected.
    pub(super) healthy: usize,
    /// Degraded and not ejected.
    pub(super) degraded: usize,
    /// Envoy's factor, percent.
    pub(super) overprovisioning: u32,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    /// Which priority, by its position.
    pub(super) level: usize,
    /// Which of its hosts.
    pub(super) hosts: Hosts,
}

/// Which hosts of a priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hosts {
    Healthy,
    Degraded,
    /// Panic: all, in whatever state.
    All,
}

impl Level {
    /// How much of the load `hosts` of it can carry, percent.
    fn carries(&self, hosts: usize) -> usize {
        let percent = hosts * self.overprovisioning as usize / self.all.max(1);
        percent.min(100)
    }

    /// Whether so few are in service that panic is better; `threshold` in millionths.
    fn panics(&self, threshold: u32) -> bool {
        let in_service = (self.healthy + self.degraded) as u64;
        in_service * 1_000_000 < u64::from(threshold) * self.all as u64
    }
}

/// Where a request goes whose draw is `draw`, 0 to 99; `threshold` is that of panic in millionths. `None`: there is no priority.
pub(super) fn choose(levels: &[Level], threshold: u32, draw: usize) -> Option<Choice> {
    let carried = |hosts: Hosts| {
        levels.iter().map(move |level| {
            level.carries(match hosts {
                Hosts::Healthy => level.healthy,
                Hosts::Degraded | Hosts::All => level.degraded,
            })
        })
    };
    let together: usize = carried(Hosts::Healthy).chain(carried(Hosts::Degraded)).sum();
    let normal = together.min(100);
    let panics = |level: &Level| normal < 100 && level.panics(threshold);
    if levels.iter().any(|level| level.all > 0) && levels.iter().all(|level| level.all == 0 || panics(level))
    {
        let sum: usize = levels.iter().map(|level| level.all).sum();
        let due = levels.iter().enumerate().map(|(level, it)| {
            let hosts = Hosts::All;
            (Choice { level, hosts }, 100 * it.all / sum.max(1))
        });
        return taken(due, draw);
    }
    if normal == 0 {
        // Nothing is in service, and nobody wants panic: the first priority answers that it has none.
        let hosts = Hosts::Healthy;
        return (!levels.is_empty()).then_some(Choice { level: 0, hosts });
    }
    let mut left = 100;
    let kinds = [Hosts::Healthy, Hosts::Degraded].into_iter();
    let due = kinds.flat_map(|hosts| {
        let all = carried(hosts).zip(levels).enumerate();
        all.map(move |(level, (carried, it))| {
            let hosts = if panics(it) { Hosts::All } else { hosts };
            (Choice { level, hosts }, carried * 100 / normal)
        })
    });
    let due = due.map(|(choice, due)| {
        let share = left.min(due);
        left -= share;
        (choice, share)
    });
    taken(due, draw)
}

/// Whose share `draw` falls into; the first that has one also gets what rounding left over.
fn taken(due: impl Iterator<Item = (Choice, usize)>, draw: usize) -> Option<Choice> {
    let mut left = draw.min(99);
    let mut first = None;
    for (choice, share) in due.filter(|(_, share)| *share > 0) {
        first.get_or_insert(choice);
        if left < share {
            return Some(choice);
        }
        left -= share;
    }
    first
}

/// A locality's weight, less where fewer of its hosts are in service than overprovisioning makes up for; in
/// thousandths, so that small weights keep their proportions.
pub(super) fn effective_weight(weight: u32, usable: usize, all: usize, overprovisioning: u32) -> u64 {
    let carried = usable as u64 * u64::from(overprovisioning) * 10 / (all as u64).max(1);
    u64::from(weight) * carried.min(1000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn level(all: usize, healthy: usize, degraded: usize) -> Level {
        Level {
            all,
            healthy,
            degraded,
            overprovisioning: 140,
        }
    }

    fn shares(levels: &[Level], threshold: u32) -> Vec<(Choice, usize)> {
        let mut counted: Vec<(Choice, usize)> = Vec::new();
        for draw in 0..100 {
            let Some(choice) = choose(levels, threshold, draw) else {
                continue;
            };
            match counted.iter_mut().find(|(known, _)| *known == choice) {
                Some((_, count)) => *count += 1,
                None => counted.push((choice, 1)),
            }
        }
        counted
    }

    fn at(level: usize, hosts: Hosts) -> Choice {
        Choice { level, hosts }
    }

    #[test]
    fn envoys_own_examples() {
        // The table of Envoy's page on priority levels: P=0 healthy endpoints → share of P=0 and P=1.
        for (healthy, first) in [(100, 100), (72, 100), (71, 99), (50, 70), (25, 35), (0, 0)] {
            let found = shares(&[level(100, healthy, 0), level(100, 100, 0)], 0);
            let share = |at: usize| {
                let of = found.iter().filter(|(choice, _)| choice.level == at);
                of.map(|(_, count)| count).sum::<usize>()
            };
            assert_eq!((share(0), share(1)), (first, 100 - first), "{healthy} healthy");
        }
        // Together they can't carry everything: what they can carry is made 100 %.
        let found = shares(&[level(100, 20, 0), level(100, 20, 0)], 0);
        assert_eq!(found, [(at(0, Hosts::Healthy), 50), (at(1, Hosts::Healthy), 50)]);
    }

    #[test]
    fn degraded_hosts_come_after_the_healthy_ones_of_every_priority() {
        let found = shares(&[level(2, 0, 2), level(2, 1, 0)], 0);
        assert_eq!(found, [(at(1, Hosts::Healthy), 70), (at(0, Hosts::Degraded), 30)]);
    }

    #[test]
    fn panic_is_for_those_who_cannot_carry_the_load_together() {
        let half = 500_000;
        assert_eq!(
            shares(&[level(10, 1, 0), level(10, 10, 0)], half),
            [(at(0, Hosts::Healthy), 14), (at(1, Hosts::Healthy), 86)],
            "the second priority carries what the first can't"
        );
        assert_eq!(shares(&[level(10, 1, 0)], half), [(at(0, Hosts::All), 100)]);
        assert_eq!(
            shares(&[level(30, 1, 0), level(10, 1, 0)], half),
            [(at(0, Hosts::All), 75), (at(1, Hosts::All), 25)]
        );
        assert_eq!(shares(&[level(10, 0, 0)], 0), [(at(0, Hosts::Healthy), 100)]);
        assert_eq!(shares(&[], 0), []);
    }

    #[test]
    fn a_locality_that_lost_hosts_weighs_less() {
        assert_eq!(effective_weight(80, 10, 10, 140), 80_000);
        assert_eq!(
            effective_weight(80, 8, 10, 140),
            80_000,
            "overprovisioning makes up for two"
        );
        assert_eq!(effective_weight(80, 5, 10, 140), 56_000);
        assert_eq!(effective_weight(80, 0, 10, 140), 0);
    }

    /// The load of each priority and kind, handed out point by point: each goes to the first that can still carry it.
    fn obvious(levels: &[Level]) -> Vec<(Choice, usize)> {
        let percent = |hosts: usize, level: &Level| {
            let can = |percent: &usize| percent * level.all <= hosts * level.overprovisioning as usize;
            (1..=100).take_while(can).count()
        };
        let mut takers: Vec<(Choice, usize)> = Vec::new();
        for (at_level, level) in levels.iter().enumerate() {
            takers.push((at(at_level, Hosts::Healthy), percent(level.healthy, level)));
        }
        for (at_level, level) in levels.iter().enumerate() {
            takers.push((at(at_level, Hosts::Degraded), percent(level.degraded, level)));
        }
        let sum: usize = takers.iter().map(|(_, share)| share).sum();
        if sum == 0 {
            return vec![(at(0, Hosts::Healthy), 100)];
        }
        if sum < 100 {
            for (_, share) in &mut takers {
                *share = *share * 100 / sum;
            }
        }
        let mut given: Vec<(Choice, usize)> = takers.iter().map(|(choice, _)| (*choice, 0)).collect();
        for _ in 0..100 {
            let open = (0..takers.len()).find(|at| given[*at].1 < takers[*at].1);
            // The first that takes anything also gets what rounding left.
            let first = takers.iter().position(|(_, share)| *share > 0).unwrap_or(0);
            given[open.unwrap_or(first)].1 += 1;
        }
        given.retain(|(_, count)| *count > 0);
        given
    }

    fn any_level() -> impl Strategy<Value = Level> {
        (1_usize..40, 0_usize..40, 0_usize..40, 100_u32..200).prop_map(|(all, healthy, degraded, factor)| {
            let healthy = healthy.min(all);
            Level {
                all,
                healthy,
                degraded: degraded.min(all - healthy),
                overprovisioning: factor,
            }
        })
    }

    proptest! {
        #[test]
        fn shares_are_those_of_the_obvious_model(levels in proptest::collection::vec(any_level(), 1..6)) {
            let mut found = shares(&levels, 0);
            let mut wanted = obvious(&levels);
            let order = |(choice, _): &(Choice, usize)| (choice.hosts == Hosts::Degraded, choice.level);
            found.sort_by_key(order);
            wanted.sort_by_key(order);
            prop_assert_eq!(found, wanted);
        }
    }
}
