//! The alarms: what was noticed without anybody writing a rule, when it began and ended, and by which figures. First calls are
//! decided here, the rest by [`anomaly`](super::anomaly). Pure; the time now is the number of seconds since the store began, the times of
//! an alarm, which may be older than that, are Unix seconds.
//!
//! A first call: a workload calls a service which it has never called before. What is called while the control plane learns (from
//! its start, [`LEARNING`] unless said otherwise) is ordinary, the first call of any other pair after that is an alarm, once. A
//! service is its host here: its ports and subsets are one. Pairs are known as long as the process lives. Of one caller,
//! [`EACH_MAX`] first calls a minute are alarms; more are one alarm together, a fan-out, which counts them.
//!
//! Bounds: [`PAIRS_MAX`] pairs; with more, first calls are counted and no alarms ([`Alarms::unwatched`]). [`ALARMS_MAX`] alarms,
//! the newest.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use rajut_types::Text;
use serde::{Deserialize, Serialize};

use super::{
    edge::{Caller, Target},
    kept::Kept,
    silence::{NoSilence, Silence, Silences, Wish},
};

/// How long it learns.
pub const LEARNING: Duration = Duration::from_mins(10);
/// Most pairs that are known.
pub const PAIRS_MAX: usize = 50_000;
/// Most alarms that are kept.
pub const ALARMS_MAX: usize = 1_000;
/// First calls of one caller in a minute that are alarms of their own.
pub const EACH_MAX: u32 = 5;
/// Most services that an alarm names.
pub const HOSTS_MAX: usize = 10;
/// Seconds that a first call is open: it is an event, and whoever is told of it has to have the time to look.
pub const FIRST_CALL_LASTS: u32 = 3_600;

/// What was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A pair that was never seen.
    FirstCall,
    /// A caller that suddenly calls many services.
    FanOut,
    /// A caller that is refused again and again.
    Denials,
    /// Far more calls, or far fewer.
    Rate,
    /// A far greater share of calls fails.
    Errors,
    /// Answers take far longer.
    Latency,
    /// Far more bytes.
    Bytes,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 7] = [
        Self::FirstCall,
        Self::FanOut,
        Self::Denials,
        Self::Rate,
        Self::Errors,
        Self::Latency,
        Self::Bytes,
    ];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstCall => "first-call",
            Self::FanOut => "fan-out",
            Self::Denials => "denials",
            Self::Rate => "rate",
            Self::Errors => "errors",
            Self::Latency => "latency",
            Self::Bytes => "bytes",
        }
    }

    /// What to do.
    pub const fn runbook(self) -> &'static str {
        match self {
            Self::FirstCall => "docs/runbooks/first-call.md",
            Self::FanOut => "docs/runbooks/fan-out.md",
            Self::Denials => "docs/runbooks/refused-calls.md",
            Self::Rate => "docs/runbooks/rate.md",
            Self::Errors => "docs/runbooks/errors.md",
            Self::Latency => "docs/runbooks/latency.md",
            Self::Bytes => "docs/runbooks/bytes.md",
        }
    }

    /// What its figures are of.
    pub const fn measure(self) -> &'static str {
        match self {
            Self::FirstCall => "",
            Self::FanOut => "services called",
            Self::Denials => "calls refused per second",
            Self::Rate => "calls per second",
            Self::Errors => "share of calls that fail",
            Self::Latency => "milliseconds of response time (p75, at least)",
            Self::Bytes => "bytes per second",
        }
    }
}

/// The figures that made it an alarm.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evidence {
    /// The middle of the own recent past.
    pub before: f64,
    /// Nine of ten values of it lay between these two.
    pub usual: (f64, f64),
    /// When it was noticed.
    pub now: f64,
    /// The seconds that it is of.
    pub window: u32,
    /// Of a caller's alarm: services, those that never were called before first; at most [`HOSTS_MAX`].
    pub hosts: Vec<Text>,
    /// First calls that are part of it.
    pub first_calls: u32,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Alarm {
    /// Rises by one with each.
    pub number: u64,
    /// What was noticed.
    pub kind: Kind,
    /// When it was noticed.
    pub at: u64,
    /// When it was over; `None`: it is not.
    pub ended: Option<u64>,
    /// Who called.
    pub caller: Caller,
    /// What; `None` where it is about all that it called.
    pub target: Option<Target>,
    /// By which figures.
    pub evidence: Option<Evidence>,
    /// Who has seen it.
    pub acknowledged: Option<Acknowledged>,
}

/// Somebody has seen an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Acknowledged {
    /// When.
    pub at: u64,
    /// Who.
    pub by: Text,
    /// What they say of it; may be empty.
    pub why: Text,
}

/// First calls of a caller in the minute that runs.
#[derive(Debug, Clone, Default)]
struct Firsts {
    minute: u32,
    count: u32,
    /// Those without an alarm of their own, since anybody asked.
    folded: u32,
    hosts: Vec<Text>,
}

/// See the module.
#[derive(Debug)]
pub struct Alarms {
    learning_ends: u32,
    known: HashSet<(Caller, Text)>,
    /// ≤ callers with a first call; swept when they are more than those of the last minute.
    firsts: HashMap<Caller, Firsts>,
    kept: VecDeque<Alarm>,
    raised: [u64; Kind::ALL.len()],
    numbers: u64,
    /// Of the second 0.
    epoch: u64,
    /// Rises with every change of what is kept.
    changes: u64,
    silences: Silences,
    /// First calls that nobody was told of, since there were too many pairs.
    pub unwatched: u64,
}

impl Alarms {
    /// Learns for so many seconds.
    pub fn new(learning: u32) -> Self {
        Self {
            learning_ends: learning,
            known: HashSet::new(),
            firsts: HashMap::new(),
            kept: VecDeque::new(),
            raised: [0; Kind::ALL.len()],
            numbers: 0,
            epoch: 0,
            changes: 0,
            silences: Silences::default(),
            unwatched: 0,
        }
    }

    /// Goes on from what another process kept; the second 0 was at `epoch`. What was open is over: whoever watched it is gone.
    pub fn go_on(&mut self, kept: Kept, epoch: u64) {
        let Kept {
            last,
            alarms,
            silences,
            ..
        } = kept;
        self.numbers = last;
        self.epoch = epoch;
        self.silences = silences;
        self.silences.forget(epoch);
        let beyond = alarms.len().saturating_sub(ALARMS_MAX);
        self.kept = alarms.into_iter().skip(beyond).collect();
        for alarm in &mut self.kept {
            alarm.ended.get_or_insert(epoch);
        }
    }

    /// Rises with every change of what is kept.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// What is to outlive the process.
    pub fn to_keep(&self) -> Kept {
        Kept::new(
            self.numbers,
            self.kept.iter().cloned().collect(),
            self.silences.clone(),
        )
    }

    /// All silences.
    pub fn silences(&self) -> &Silences {
        &self.silences
    }

    /// One more silence.
    pub fn silence(&mut self, wish: Wish, by: Text, now: u32) -> Result<Silence, NoSilence> {
        let now = self.unix(now);
        let silence = self.silences.add(wish, by, now)?.clone();
        self.changes += 1;
        Ok(silence)
    }

    /// Ends a silence; `None`: none of that number holds.
    pub fn end_silence(&mut self, id: u64, now: u32) -> Option<Silence> {
        let now = self.unix(now);
        let silence = self.silences.end(id, now)?.clone();
        self.changes += 1;
        Some(silence)
    }

    /// When a second was.
    pub fn unix(&self, second: u32) -> u64 {
        self.epoch.saturating_add(second.into())
    }

    /// Somebody has seen an alarm; a first call is over by that. `None`: it is not kept.
    pub fn acknowledge(&mut self, number: u64, by: Text, why: Text, now: u32) -> Option<&Alarm> {
        let at = self.unix(now);
        let alarm = self.of_number(number)?;
        alarm.acknowledged = Some(Acknowledged { at, by, why });
        if alarm.kind == Kind::FirstCall {
            alarm.ended.get_or_insert(at);
        }
        Some(alarm)
    }

    /// When learning ends, or has ended.
    pub fn learning_ends(&self) -> u32 {
        self.learning_ends
    }

    /// A call; gives the alarm that it raises.
    pub fn called(&mut self, caller: &Caller, target: &Target, now: u32) -> Option<&Alarm> {
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
        let firsts = self.firsts.entry(caller.clone()).or_default();
        if firsts.minute != now / 60 {
            firsts.minute = now / 60;
            firsts.count = 0;
            firsts.hosts.clear();
        }
        firsts.count += 1;
        if firsts.hosts.len() < HOSTS_MAX {
            firsts.hosts.push(target.host.clone());
        }
        if firsts.count > EACH_MAX {
            firsts.folded += 1;
            return None;
        }
        Some(self.raise(Kind::FirstCall, caller, Some(target), None, now))
    }

    /// (first calls of a caller beyond those with an alarm of their own since the last time that this was asked, the services of the
    /// newest). Nothing where there were none.
    pub fn folded(&mut self, caller: &Caller) -> (u32, Vec<Text>) {
        let Some(firsts) = self.firsts.get_mut(caller) else {
            return (0, Vec::new());
        };
        let folded = std::mem::take(&mut firsts.folded);
        (
            folded,
            if folded > 0 {
                firsts.hosts.clone()
            } else {
                Vec::new()
            },
        )
    }

    /// One more alarm.
    pub fn raise(
        &mut self,
        kind: Kind,
        caller: &Caller,
        target: Option<&Target>,
        evidence: Option<Evidence>,
        now: u32,
    ) -> &Alarm {
        self.numbers += 1;
        self.changes += 1;
        self.raised[kind as usize] += 1;
        if self.kept.len() >= ALARMS_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Alarm {
            number: self.numbers,
            kind,
            at: self.epoch.saturating_add(now.into()),
            ended: None,
            caller: caller.clone(),
            target: target.cloned(),
            evidence,
            acknowledged: None,
        });
        // It was pushed just now.
        &self.kept[self.kept.len() - 1]
    }

    /// An alarm that is kept, to be changed.
    pub fn of_number(&mut self, number: u64) -> Option<&mut Alarm> {
        let place = self
            .kept
            .binary_search_by_key(&number, |alarm| alarm.number)
            .ok()?;
        self.changes += 1;
        self.kept.get_mut(place)
    }

    /// Ends what is an event and was open long enough, and forgets who had first calls long ago.
    pub fn sweep(&mut self, now: u32) {
        let at = self.unix(now);
        let events = self.kept.iter_mut();
        for alarm in events.filter(|alarm| alarm.kind == Kind::FirstCall && alarm.ended.is_none()) {
            if at >= alarm.at.saturating_add(FIRST_CALL_LASTS.into()) {
                alarm.ended = Some(at);
                self.changes += 1;
            }
        }
        self.firsts
            .retain(|_, firsts| firsts.folded > 0 || firsts.minute == now / 60);
    }

    /// All that are kept, the newest last.
    pub fn all(&self) -> impl Iterator<Item = &Alarm> {
        self.kept.iter()
    }

    /// How many there were of each kind.
    pub fn raised(&self) -> [u64; Kind::ALL.len()] {
        self.raised
    }

    /// How many of each kind, of those that are kept, are not over.
    pub fn open(&self) -> [u64; Kind::ALL.len()] {
        let mut open = [0; Kind::ALL.len()];
        for alarm in self.kept.iter().filter(|alarm| alarm.ended.is_none()) {
            open[alarm.kind as usize] += 1;
        }
        open
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
        let db = target("outbound|5432||db");
        let alarm = alarms.called(&web, &db, 62).expect("never before");
        assert_eq!(
            (alarm.number, alarm.at, alarm.kind, &alarm.target),
            (1, 62, Kind::FirstCall, &Some(db.clone()))
        );
        assert_eq!(alarms.called(&web, &db, 63), None);
        assert!(
            alarms.called(&caller("job"), &api, 64).is_some(),
            "another caller"
        );
        assert_eq!(
            (alarms.all().count(), alarms.raised()[0], alarms.open()[0]),
            (2, 2, 2)
        );
        alarms.sweep(62 + FIRST_CALL_LASTS);
        assert_eq!(alarms.open()[0], 1, "an event is open for a while");
    }

    #[test]
    fn of_many_first_calls_of_a_caller_the_first_are_told_and_the_rest_are_counted() {
        let mut alarms = Alarms::new(0);
        let web = caller("web");
        for host in 0..EACH_MAX + 20 {
            alarms.called(&web, &target(&format!("outbound|80||a-{host}")), 30);
        }
        assert_eq!(alarms.raised()[0], u64::from(EACH_MAX));
        let (folded, hosts) = alarms.folded(&web);
        assert_eq!((folded, hosts.len()), (20, HOSTS_MAX));
        assert_eq!(alarms.folded(&web), (0, Vec::new()), "told once");
        assert!(
            alarms.called(&web, &target("outbound|80||next"), 60).is_some(),
            "in the next minute"
        );
    }

    #[test]
    fn alarms_and_pairs_have_a_bound_and_each_is_found_by_its_number() {
        let mut alarms = Alarms::new(0);
        let count = u32::try_from(PAIRS_MAX).expect("small") + 3;
        for host in 0..count {
            // Five a minute of each of ten callers.
            let caller = caller(&format!("web-{}", host % 10));
            alarms.called(
                &caller,
                &target(&format!("outbound|80||a-{host}")),
                host / 50 * 60,
            );
        }
        assert_eq!((alarms.all().count(), alarms.unwatched), (ALARMS_MAX, 3));
        let last = alarms.all().last().map(|alarm| alarm.number);
        assert_eq!(last, Some(PAIRS_MAX as u64));
        assert_eq!(alarms.of_number(PAIRS_MAX as u64).map(|alarm| alarm.number), last);
        assert!(alarms.of_number(1).is_none() && alarms.of_number(PAIRS_MAX as u64 + 1).is_none());
        alarms.sweep(u32::MAX);
        assert_eq!((alarms.firsts.len(), alarms.open()[0]), (0, 0));
    }
}
