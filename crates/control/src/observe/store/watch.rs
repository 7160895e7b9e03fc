//! Once a second: every edge and every caller against its own recent past ([`anomaly`](super::super::anomaly)), and the alarms
//! that come of it.
//!
//! Not judged: anything while the control plane learns; an edge that is younger than that; amounts by time where a stream of the
//! caller's proxies began or ended just now, or where the control plane itself stood still ([`STEADY_AFTER`]), since what comes late
//! comes at once; a caller whose proxies do not report.
//!
//! Bounds: [`LOOKS_MAX`] pasts are looked at in a second; an edge that rests costs a comparison.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use rajut_types::Text;

use super::{
    super::{
        alarm::{Alarm, Alarms, Evidence, HOSTS_MAX, Kind},
        anomaly::{Change, Doing, EdgeWatch, Judged, Measure, Phase, Usual, WINDOWS},
        edge::{Caller, EdgeKey, Target},
        series::Amounts,
    },
    Edge, Reporting, Store,
};

/// Pasts that are looked at in a second.
const LOOKS_MAX: usize = 500;
/// Seconds after which reports come evenly again.
const STEADY_AFTER: u32 = 15;
/// Seconds without a look after which time was lost.
const LOST_AFTER: u32 = 3;
/// Where calls go that lead nowhere because the destination is not known to the mesh: each is refused.
const BLACK_HOLE: &str = "BlackHoleCluster";

/// What a caller does, and where.
#[derive(Default)]
struct Now<'a> {
    services: HashSet<&'a Text>,
    services_minute: HashSet<&'a Text>,
    denied: u32,
    /// (refused, which) on its edges.
    denied_by: Vec<(u32, &'a Target)>,
}

impl Store {
    /// Looks at everything. Called once a second.
    pub fn watch(&mut self, now: u32) {
        if now <= self.watched {
            return;
        }
        if now > self.watched + LOST_AFTER {
            self.unsteady_until = now + STEADY_AFTER;
        }
        self.watched = now;
        self.alarms.sweep(now);
        self.watch_edges(now);
        self.watch_callers(now);
    }

    fn watch_edges(&mut self, now: u32) {
        let mut looks = 0;
        let learning = self.alarms.learning_ends();
        let span = learning;
        for (key, edge) in &mut self.edges {
            let rests = now > edge.last_seen + 60 && edge.watch.is_quiet();
            if rests {
                continue;
            }
            let Some(reporting) = self.callers.get(&key.caller).filter(|known| known.open > 0) else {
                continue;
            };
            let since = edge.first_seen.max(reporting.since);
            if looks < LOOKS_MAX && edge.watch.is_stale(now) {
                looks += 1;
                edge.watch.look(&edge.series, since, now);
            }
            if now < learning || now < since.saturating_add(span) {
                continue;
            }
            let is_steady = now >= self.unsteady_until && now >= reporting.changed + STEADY_AFTER;
            judge_edge(&mut self.alarms, key, edge, is_steady, now);
        }
    }

    fn watch_callers(&mut self, now: u32) {
        let Self {
            edges,
            callers,
            alarms,
            ..
        } = self;
        let mut doing: HashMap<&Caller, Now<'_>> = HashMap::new();
        for (key, edge) in edges.iter().filter(|(_, edge)| edge.last_seen + 60 > now) {
            let of_caller = doing.entry(&key.caller).or_default();
            of_caller.services_minute.insert(&key.target.host);
            if edge.last_seen + WINDOWS[1] > now {
                of_caller.services.insert(&key.target.host);
            }
            let denied = denied(&key.target, &edge.series.sum(0, WINDOWS[0], now));
            if denied > 0 {
                of_caller.denied = of_caller.denied.saturating_add(denied);
                of_caller.denied_by.push((denied, &key.target));
            }
        }
        let is_learning = now < alarms.learning_ends();
        let nothing = Now::default();
        for (caller, reporting) in callers.iter_mut().filter(|(_, known)| known.edges > 0) {
            let current = doing.get(caller).unwrap_or(&nothing);
            judge_caller(alarms, caller, reporting, current, is_learning, now);
        }
    }
}

/// Requests that were refused, by whoever was called or on the way.
fn denied(target: &Target, amounts: &Amounts) -> u32 {
    if &*target.host == BLACK_HOLE {
        return amounts.requests().saturating_add(amounts.connections);
    }
    amounts.denied
}

fn judge_edge(alarms: &mut Alarms, key: &EdgeKey, edge: &mut Edge, is_steady: bool, now: u32) {
    let amounts = WINDOWS.map(|window| edge.series.sum(0, window, now));
    let EdgeWatch { phases, .. } = &edge.watch;
    let mut next = *phases;
    for (measure, phase) in Measure::ALL.into_iter().zip(&mut next) {
        if measure.is_by_time() && !is_steady {
            continue;
        }
        let newest = edge.watch.usual(measure);
        let Some(past) = newest.or((!phase.is_quiet()).then(Usual::default)) else {
            continue;
        };
        let past = phase.past(past);
        let judged = measure.judge_now(&past, &amounts);
        // Where too little happens to tell, nothing is wrong; where no past is known, nothing begins.
        let is_beyond = newest.is_some() && judged.is_some_and(|judged| judged.is_beyond());
        let is_calm = judged.is_none_or(|judged| judged.is_calm());
        let change = phase.step(is_beyond, is_calm, past, now);
        let evidence = judged.map(|judged| evidence(&judged, past));
        let target = Some(&key.target);
        turn(
            alarms,
            phase,
            change,
            (measure.kind(), &key.caller, target),
            evidence,
            past,
            now,
        );
    }
    edge.watch.phases = next;
}

fn judge_caller(
    alarms: &mut Alarms,
    caller: &Caller,
    reporting: &mut Reporting,
    current: &Now<'_>,
    is_learning: bool,
    now: u32,
) {
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let (first_calls, mut hosts) = alarms.folded(caller);
    let doing = Doing {
        denied: current.denied,
        services: count(current.services.len()),
        services_minute: count(current.services_minute.len()),
        first_calls,
    };
    let watch = &mut reporting.watch;
    if !is_learning && !watch.is_idle(&doing) {
        let (judged, past) = watch.judge_denials(&doing);
        let change = watch
            .denials
            .step(judged.is_beyond(), judged.is_calm(), past, now);
        let mut found = evidence(&judged, past);
        let window = f64::from(judged.window);
        for value in [
            &mut found.before,
            &mut found.usual.0,
            &mut found.usual.1,
            &mut found.now,
        ] {
            *value /= window;
        }
        let mut by = current.denied_by.clone();
        by.sort_by(|a, b| b.cmp(a));
        found.hosts = hosts_of(by.iter().map(|(_, target)| &target.host));
        let most = by.first().map(|(_, target)| *target);
        let what = (Kind::Denials, caller, most);
        turn(alarms, &mut watch.denials, change, what, Some(found), past, now);

        let (judged, past) = watch.judge_services(&doing);
        let change = watch
            .fan_out
            .step(judged.is_beyond(), judged.is_calm(), past, now);
        let mut found = evidence(&judged, past);
        found.first_calls = first_calls;
        hosts.extend(current.services.iter().map(|host| (*host).clone()));
        found.hosts = hosts_of(hosts.iter());
        if first_calls > 0
            && let Phase::Open { number, .. } = watch.fan_out
            && let Some(known) = alarms.of_number(number)
            && let Some(known) = &mut known.evidence
        {
            known.first_calls = known.first_calls.saturating_add(first_calls);
        }
        let what = (Kind::FanOut, caller, None);
        turn(alarms, &mut watch.fan_out, change, what, Some(found), past, now);
    }
    watch.remember(&doing, now);
}

/// At most [`HOSTS_MAX`], each once, in their order.
fn hosts_of<'a>(all: impl Iterator<Item = &'a Text>) -> Vec<Text> {
    let mut hosts: Vec<Text> = Vec::new();
    for host in all {
        if hosts.len() >= HOSTS_MAX {
            break;
        }
        if !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    hosts
}

fn evidence(judged: &Judged, past: Usual) -> Evidence {
    Evidence {
        before: past.median,
        usual: (past.low, past.high),
        now: judged.value,
        window: judged.window,
        ..Evidence::default()
    }
}

/// Writes down what has become of an alarm.
fn turn(
    alarms: &mut Alarms,
    phase: &mut Phase,
    change: Option<Change>,
    (kind, caller, target): (Kind, &Caller, Option<&Target>),
    evidence: Option<Evidence>,
    past: Usual,
    now: u32,
) {
    match change {
        None => {}
        Some(Change::Raised) => {
            let alarm = alarms.raise(kind, caller, target, evidence, now);
            log(alarm);
            *phase = Phase::open(alarm.number, past, now);
        }
        Some(Change::Ended(number)) => {
            let at = alarms.unix(now);
            if let Some(alarm) = alarms.of_number(number) {
                alarm.ended = Some(at);
                tracing::info!(
                    alarm = number, kind = kind.name(), caller = %caller.workload, namespace = %caller.namespace,
                    "the alarm is over"
                );
            }
        }
        Some(Change::Again(number)) => {
            if let Some(alarm) = alarms.of_number(number) {
                alarm.ended = None;
                tracing::warn!(
                    alarm = number, kind = kind.name(), caller = %caller.workload, namespace = %caller.namespace,
                    "the alarm goes on"
                );
            }
        }
    }
}

/// Into the control plane's log.
pub(super) fn log(alarm: &Alarm) {
    let Alarm {
        number,
        kind,
        caller,
        target,
        evidence,
        ..
    } = alarm;
    let (service, port) = target
        .as_ref()
        .map_or(("", 0), |target| (&*target.host, target.port));
    let Some(found) = evidence else {
        tracing::warn!(
            alarm = number, kind = kind.name(), caller = %caller.workload, namespace = %caller.namespace,
            principal = %caller.principal, service, port, runbook = kind.runbook(),
            "first call: this workload has not called this service before"
        );
        return;
    };
    tracing::warn!(
        alarm = number, kind = kind.name(), caller = %caller.workload, namespace = %caller.namespace,
        principal = %caller.principal, service, port, measure = kind.measure(), before = found.before, now = found.now,
        window_seconds = found.window, runbook = kind.runbook(),
        "alarm: this is far from its own recent past"
    );
}
