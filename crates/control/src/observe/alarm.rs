//! First calls: a workload that calls a service which it has never called before. Pure; time is the number of seconds since
//! the store began.
//!
//! Nobody writes a rule: what is called while the control plane learns (from its start, [`LEARNING`] unless said otherwise) is
//! ordinary, the first call of any other pair after that is an alarm, once. A service is its host here: its ports and subsets
//! are one. Pairs are known as long as the process lives.
//!
//! Bounds: [`PAIRS_MAX`] pairs; with more, first calls are counted and no alarms ([`Alarms::unwatched`]). [`ALARMS_MAX`] alarms,
//! the newest.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use rajut_types::Text;

use super::edge::{Caller, Target};

/// How long it learns.
pub const LEARNING: Duration = Duration::from_mins(10);
/// Most pairs that are known.
pub const PAIRS_MAX: usize = 50_000;
/// Most alarms that are kept.
pub const ALARMS_MAX: usize = 1_000;

/// A first call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// Rises by one with each.
    pub number: u64,
    /// When it was reported, seconds.
    pub at: u32,
    /// Who called.
    pub caller: Caller,
    /// What.
    pub target: Target,
}

/// See the module.
#[derive(Debug)]
pub struct Alarms {
    learning_ends: u32,
    known: HashSet<(Caller, Text)>,
    kept: VecDeque<Alarm>,
    raised: u64,
    /// First calls that nobody was told of, since there were too many pairs.
    pub unwatched: u64,
}

impl Alarms {
    /// Learns for so many seconds.
    pub fn new(learning: u32) -> Self {
        Self {
            learning_ends: learning,
            known: HashSet::new(),
            kept: VecDeque::new(),
            raised: 0,
            unwatched: 0,
        }
    }

    /// When learning ends, or has ended.
    pub fn learning_ends(&self) -> u32 {
        self.learning_ends
    }

    /// A call; gives the alarm that it raises.
    pub fn called(&mut self, caller: &Caller, target: &Target, now: u32) -> Option<Alarm> {
        let pair = (caller.clone(), target.host.clone());
        if self.known.contains(&pair) {
            return None;
        }
        if self.known.len() >= PAIRS_MAX {
            self.unwatched += 1;
            return None;
        }
        self.known.insert(pair);
        if now < self.learning_ends {
            return None;
        }
        self.raised += 1;
        let alarm = Alarm {
            number: self.raised,
            at: now,
            caller: caller.clone(),
            target: target.clone(),
        };
        self.kept.push_back(alarm.clone());
        if self.kept.len() > ALARMS_MAX {
            self.kept.pop_front();
        }
        Some(alarm)
    }

    /// All that are kept, the newest last.
    pub fn all(&self) -> impl Iterator<Item = &Alarm> {
        self.kept.iter()
    }

    /// How many there were.
    pub fn raised(&self) -> u64 {
        self.raised
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(workload: &str) -> Caller {
        Caller {
            namespace: "clinic".into(),
            workload: workload.into(),
            principal: "cluster.local/ns/clinic/sa/web".into(),
        }
    }

    fn target(cluster: &str) -> Target {
        Target::of_cluster(cluster).expect("an edge")
    }

    #[test]
    fn what_was_called_while_it_learned_is_ordinary_and_another_call_is_an_alarm_once() {
        let mut alarms = Alarms::new(60);
        let (web, api) = (caller("web"), target("outbound|80|v1|api"));
        assert_eq!(alarms.called(&web, &api, 59), None);
        assert_eq!(alarms.called(&web, &api, 60), None);
        assert_eq!(
            alarms.called(&web, &target("outbound|81|v2|api"), 61),
            None,
            "its other door"
        );
        let alarm = alarms
            .called(&web, &target("outbound|5432||db"), 62)
            .expect("never before");
        assert_eq!((alarm.number, alarm.at, &*alarm.target.host), (1, 62, "db"));
        assert_eq!(alarms.called(&web, &target("outbound|5432||db"), 63), None);
        assert!(
            alarms.called(&caller("job"), &api, 64).is_some(),
            "another caller"
        );
        assert_eq!((alarms.all().count(), alarms.raised()), (2, 2));
    }

    #[test]
    fn alarms_and_pairs_have_a_bound() {
        let mut alarms = Alarms::new(0);
        let web = caller("web");
        for host in 0..PAIRS_MAX + 3 {
            alarms.called(&web, &target(&format!("outbound|80||a-{host}")), 1);
        }
        assert_eq!((alarms.all().count(), alarms.unwatched), (ALARMS_MAX, 3));
        assert_eq!(
            alarms.all().last().map(|alarm| alarm.number),
            Some(PAIRS_MAX as u64)
        );
    }
}
