//! All edges, their callers, and which reports have come. Pure; time is the number of seconds since the store began.
//!
//! Bounds: [`EDGES_MAX`] edges, [`CALLER_EDGES_MAX`] of one caller, [`SLOTS_MAX`] slots of 144 bytes together (about 200 MB
//! at worst; an edge that never rests has 708, 0.1 MB). Where slots run out, the tiers are shortened for all, and the answer
//! says by how much; where edges do, the calls on further ones are counted ([`Counts`]) and not kept. Proxies are
//! remembered for [`REMEMBERED`] seconds after their stream ended, at most [`REPORTERS_MAX`] of them.

mod watch;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use rajut_telemetry::load::Load;
use rajut_types::Text;
use rajut_xds::load::ReportNumber;
use tonic::Status;

use super::{
    alarm::{Alarms, Kind, LEARNING},
    anomaly::{CallerWatch, EdgeWatch},
    edge::{Caller, EdgeKey, Target},
    series::{Amounts, Series, TIERS},
};

/// Most edges.
pub const EDGES_MAX: usize = 10_000;
/// Most edges of one caller.
pub const CALLER_EDGES_MAX: usize = 2_000;
/// Most slots of all edges' series.
pub const SLOTS_MAX: usize = 1_500_000;
/// Most proxies that report, or have reported not long ago.
pub const REPORTERS_MAX: usize = 20_000;
/// Seconds that a proxy is remembered whose stream has ended, so that a report that it sends again is known.
pub const REMEMBERED: u32 = 600;
/// Subsets of a history; those that come later are not in it.
pub const HISTORY_SUBSETS_MAX: usize = 20;
/// Slots that each tier keeps at least.
const KEPT_MIN: u32 = 30;

/// What was counted beside the edges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Edges that are kept.
    pub edges: usize,
    /// Proxies whose stream is open.
    pub reporters: usize,
    /// Reports that were taken.
    pub reports: u64,
    /// Reports that had come before.
    pub repeated: u64,
    /// Requests and connections on edges that found no room.
    pub unplaced: u64,
    /// Clusters of reports that named too many.
    pub left_out: u64,
    /// Streams that were refused.
    pub refused: u64,
    /// Alarms by kind, in the order of [`Kind::ALL`].
    pub alarms: [u64; Kind::ALL.len()],
    /// Of these, those that are not over.
    pub alarms_open: [u64; Kind::ALL.len()],
    /// First calls beyond what is watched.
    pub first_calls_unwatched: u64,
}

/// One edge, for whoever asks.
#[derive(Debug, Clone)]
pub struct EdgeView {
    /// Which.
    pub key: Arc<EdgeKey>,
    /// When it was first called, as far as is known; seconds.
    pub first_seen: u32,
    /// When it was called last.
    pub last_seen: u32,
    /// A proxy of the caller reports now.
    pub reporting: bool,
    /// Seconds of the window in which the caller's proxies reported; 0: nothing is known of it.
    pub covered: u32,
    /// In the window.
    pub amounts: Amounts,
    /// Requests and connections under way; `None` where nobody reports.
    pub under_way: Option<u64>,
}

/// Edges over time, added up by the subset that was called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// When the first slot begins, seconds.
    pub begin: u32,
    /// Seconds of a slot.
    pub width: u32,
    /// Subset → a point for each slot, the oldest first; at most [`HISTORY_SUBSETS_MAX`].
    pub subsets: BTreeMap<Text, Vec<Point>>,
}

/// One slot of a [`History`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Point {
    /// Seconds of it in which a caller's proxies reported; 0: nothing is known.
    pub covered: u32,
    /// What happened.
    pub amounts: Amounts,
}

#[derive(Debug)]
struct Edge {
    series: Series,
    first_seen: u32,
    last_seen: u32,
    under_way: u64,
    watch: EdgeWatch,
}

/// What is known of a caller's proxies.
#[derive(Debug, Default)]
struct Reporting {
    /// Open streams.
    open: usize,
    since: u32,
    /// The last stream ended then.
    until: u32,
    /// When a stream began or ended last: what comes late then comes at once.
    changed: u32,
    edges: usize,
    watch: CallerWatch,
}

#[derive(Debug)]
struct Instance {
    last: Option<ReportNumber>,
    open: usize,
    until: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Store {
    edges: HashMap<Arc<EdgeKey>, Edge>,
    /// ≤ callers of edges and of open streams.
    callers: HashMap<Caller, Reporting>,
    instances: HashMap<Text, Instance>,
    slots: usize,
    slots_max: usize,
    /// Slots that each tier keeps now.
    kept: [u32; TIERS.len()],
    swept: u32,
    counts: Counts,
    alarms: Alarms,
    /// When it was watched last, and until when what passes says nothing since time was lost.
    watched: u32,
    unsteady_until: u32,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            edges: HashMap::new(),
            callers: HashMap::new(),
            instances: HashMap::new(),
            slots: 0,
            slots_max: SLOTS_MAX,
            kept: TIERS.map(|(_, kept)| kept),
            swept: 0,
            counts: Counts::default(),
            alarms: Alarms::new(u32::try_from(LEARNING.as_secs()).unwrap_or(u32::MAX)),
            watched: 0,
            unsteady_until: 0,
        }
    }
}

/// Seconds between two looks at what is too old.
const SWEEP_EVERY: u32 = 30;

impl Store {
    /// First calls are ordinary for so many seconds.
    pub fn learning_for(seconds: u32) -> Self {
        Self {
            alarms: Alarms::new(seconds),
            ..Self::default()
        }
    }

    /// What was noticed.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// The same, to be acknowledged and silenced.
    pub fn alarms_mut(&mut self) -> &mut Alarms {
        &mut self.alarms
    }

    /// A proxy begins to report.
    pub fn opened(&mut self, caller: &Caller, instance: &Text, now: u32) -> Result<(), Status> {
        if self.instances.len() >= REPORTERS_MAX && !self.instances.contains_key(instance) {
            self.sweep(now);
            if self.instances.len() >= REPORTERS_MAX {
                return Err(Status::resource_exhausted("too many proxies report"));
            }
        }
        let known = self.instances.entry(instance.clone()).or_insert(Instance {
            last: None,
            open: 0,
            until: now,
        });
        known.open += 1;
        let reporting = self.callers.entry(caller.clone()).or_insert_with(|| Reporting {
            since: now,
            ..Reporting::default()
        });
        reporting.open += 1;
        reporting.changed = now;
        Ok(())
    }

    /// A proxy's stream has ended.
    pub fn closed(&mut self, caller: &Caller, instance: &Text, now: u32) {
        if let Some(known) = self.instances.get_mut(instance) {
            known.open = known.open.saturating_sub(1);
            known.until = now;
        }
        if let Some(reporting) = self.callers.get_mut(caller) {
            reporting.open = reporting.open.saturating_sub(1);
            reporting.until = now;
            reporting.changed = now;
        }
    }

    /// A stream was refused.
    pub fn refused(&mut self) {
        self.counts.refused += 1;
    }

    /// A report was taken. `clusters`: those that it had too many.
    pub fn reported(&mut self, clusters: usize) {
        self.counts.reports += 1;
        self.counts.left_out += u64::try_from(clusters).unwrap_or(u64::MAX);
    }

    /// Whether this report of a proxy has not come before; from then on it has.
    pub fn is_new(&mut self, instance: &Text, number: &ReportNumber) -> bool {
        let Some(known) = self.instances.get_mut(instance) else {
            return true;
        };
        let is_new = known
            .last
            .as_ref()
            .is_none_or(|last| last.process != number.process || last.number < number.number);
        if is_new {
            known.last = Some(number.clone());
        } else {
            self.counts.repeated += 1;
        }
        is_new
    }

    /// The key of an edge that is kept.
    pub fn key(&self, caller: &Caller, target: &Target) -> Option<Arc<EdgeKey>> {
        let key = EdgeKey {
            caller: caller.clone(),
            target: target.clone(),
        };
        self.edges.get_key_value(&key).map(|(key, _)| Arc::clone(key))
    }

    /// Adds what happened on an edge; `None` where there is no room for it.
    pub fn add(&mut self, caller: &Caller, target: Target, load: &Load, now: u32) -> Option<Arc<EdgeKey>> {
        self.sweep_at(now);
        let amounts = Amounts::from(load);
        let Some(key) = self
            .key(caller, &target)
            .or_else(|| self.place(caller, target, now))
        else {
            let passed = u64::from(amounts.requests()) + u64::from(amounts.connections);
            self.counts.unplaced = self.counts.unplaced.saturating_add(passed);
            return None;
        };
        if let Some(edge) = self.edges.get_mut(&key)
            && !load.is_idle()
        {
            edge.last_seen = now;
            self.slots += edge.series.add(&amounts, now);
            self.slots -= edge.series.trim(self.kept, now);
        }
        if self.slots > self.slots_max {
            self.shorten(now);
        }
        Some(key)
    }

    /// Another edge.
    fn place(&mut self, caller: &Caller, target: Target, now: u32) -> Option<Arc<EdgeKey>> {
        if let Some(alarm) = self.alarms.called(caller, &target, now) {
            watch::log(alarm);
        }
        let of_caller = self.callers.get(caller).map_or(0, |reporting| reporting.edges);
        if self.edges.len() >= EDGES_MAX || of_caller >= CALLER_EDGES_MAX {
            return None;
        }
        self.callers.entry(caller.clone()).or_default().edges += 1;
        let key = Arc::new(EdgeKey {
            caller: caller.clone(),
            target,
        });
        let edge = Edge {
            series: Series::default(),
            first_seen: now,
            last_seen: now,
            under_way: 0,
            watch: EdgeWatch::default(),
        };
        self.edges.insert(Arc::clone(&key), edge);
        Some(key)
    }

    /// A proxy says that another amount is under way on an edge.
    pub fn under_way(&mut self, key: &EdgeKey, before: u64, level: u64) {
        if let Some(edge) = self.edges.get_mut(key) {
            edge.under_way = edge.under_way.saturating_sub(before).saturating_add(level);
        }
    }

    /// Too many slots: the longest tier keeps half of what it kept.
    fn shorten(&mut self, now: u32) {
        while self.slots > self.slots_max {
            let Some(longest) = self.kept.iter_mut().max() else {
                return;
            };
            if *longest <= KEPT_MIN {
                return;
            }
            *longest = (*longest / 2).max(KEPT_MIN);
            tracing::warn!(kept = ?self.kept, "too much happens to keep it for long");
            self.sweep(now);
        }
    }

    fn sweep_at(&mut self, now: u32) {
        if now >= self.swept.saturating_add(SWEEP_EVERY) {
            self.sweep(now);
        }
    }

    /// Forgets what is older than kept.
    fn sweep(&mut self, now: u32) {
        self.swept = now;
        let Self {
            edges,
            callers,
            slots,
            kept,
            ..
        } = self;
        edges.retain(|key, edge| {
            *slots -= edge.series.trim(*kept, now);
            // The longest tier says how long an edge is known.
            let stays = edge.series.slots() > 0 || edge.under_way > 0 || now < edge.last_seen + REMEMBERED;
            if !stays && let Some(reporting) = callers.get_mut(&key.caller) {
                reporting.edges -= 1;
            }
            stays
        });
        callers.retain(|_, reporting| reporting.edges > 0 || reporting.open > 0);
        self.instances
            .retain(|_, known| known.open > 0 || now < known.until + REMEMBERED);
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        Counts {
            edges: self.edges.len(),
            reporters: self.instances.values().filter(|known| known.open > 0).count(),
            alarms: self.alarms.raised(),
            alarms_open: self.alarms.open(),
            first_calls_unwatched: self.alarms.unwatched,
            ..self.counts
        }
    }

    /// (tier, seconds of its slots, how many of them) for the last `window` seconds.
    fn resolution(&self, window: u32) -> (usize, u32, u32) {
        let reach = |tier: &usize| window <= TIERS[*tier].0 * self.kept[*tier];
        let tier = (0..TIERS.len()).find(reach).unwrap_or(TIERS.len() - 1);
        let width = TIERS[tier].0;
        (tier, width, window.div_ceil(width).clamp(1, self.kept[tier]))
    }

    /// What was called on a host, or on all of them, slot by slot over the last `window` seconds, or as much as is kept.
    pub fn history(&mut self, host: Option<&str>, window: u32, now: u32) -> History {
        self.sweep(now);
        let (tier, width, slots) = self.resolution(window);
        let first = (now / width + 1).saturating_sub(slots);
        let count = (now / width + 1 - first) as usize;
        let mut subsets: BTreeMap<Text, Vec<Point>> = BTreeMap::new();
        for (key, edge) in &self.edges {
            if host.is_some_and(|host| *host != *key.target.host) {
                continue;
            }
            let subset = &key.target.subset;
            if !subsets.contains_key(subset) && subsets.len() >= HISTORY_SUBSETS_MAX {
                continue;
            }
            let points = subsets
                .entry(subset.clone())
                .or_insert_with(|| vec![Point::default(); count]);
            if let Some(reporting) = self.callers.get(&key.caller) {
                for (at, point) in (first..).zip(points.iter_mut()) {
                    let until = if reporting.open > 0 {
                        now + 1
                    } else {
                        reporting.until
                    };
                    let end = until.min((at + 1) * width);
                    let covered = end.saturating_sub(reporting.since.max(at * width));
                    point.covered = point.covered.max(covered);
                }
            }
            for (at, amounts) in edge.series.of_tier(tier) {
                let point = at.checked_sub(first).and_then(|at| points.get_mut(at as usize));
                let Some(point) = point else { break };
                point.amounts.add(amounts);
            }
        }
        History {
            begin: first * width,
            width,
            subsets,
        }
    }

    /// (window in seconds, resolution in seconds, edges): the last `window` seconds, or as much as is kept, in the finest
    /// resolution that reaches so far.
    pub fn view(&mut self, window: u32, now: u32) -> (u32, u32, Vec<EdgeView>) {
        self.sweep(now);
        let (tier, width, slots) = self.resolution(window);
        let window = slots * width;
        // The slot that has begun is not over: what it lacks was no time in which something could happen.
        let begin = (now / width + 1).saturating_sub(slots) * width;
        let mut views: Vec<EdgeView> = self
            .edges
            .iter()
            .map(|(key, edge)| {
                let reporting = self.callers.get(&key.caller);
                let covered = reporting.map_or(0, |reporting| {
                    let until = if reporting.open > 0 {
                        now + 1
                    } else {
                        reporting.until
                    };
                    until.saturating_sub(begin.max(reporting.since))
                });
                let is_open = reporting.is_some_and(|reporting| reporting.open > 0);
                EdgeView {
                    key: Arc::clone(key),
                    first_seen: edge.first_seen,
                    last_seen: edge.last_seen,
                    reporting: is_open,
                    covered,
                    amounts: edge.series.sum(tier, slots, now),
                    under_way: is_open.then_some(edge.under_way),
                }
            })
            .collect();
        views.sort_by(|a, b| a.key.cmp(&b.key));
        (window, width, views)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(workload: &str) -> Caller {
        Caller {
            namespace: "clinic".into(),
            workload: workload.into(),
            principal: "spiffe://cluster.local/ns/clinic/sa/web".into(),
        }
    }

    fn target(host: &str) -> Target {
        Target::of_cluster(&format!("outbound|80||{host}")).expect("an edge")
    }

    fn requests(succeeded: u64, failed: u64) -> Load {
        Load {
            succeeded,
            failed,
            ..Load::default()
        }
    }

    fn opened(store: &mut Store, workload: &str, now: u32) -> (Caller, Text) {
        let (caller, instance) = (caller(workload), Text::from(format!("{workload}-0")));
        store.opened(&caller, &instance, now).expect("room");
        (caller, instance)
    }

    #[test]
    fn a_rate_is_of_the_time_in_which_somebody_reported_and_nothing_known_is_no_zero() {
        let mut store = Store::default();
        let (web, instance) = opened(&mut store, "web", 100);
        store
            .add(&web, target("api"), &requests(9, 1), 104)
            .expect("room");
        let (window, resolution, edges) = store.view(60, 109);
        assert_eq!((window, resolution, edges.len()), (60, 1, 1));
        let edge = &edges[0];
        assert_eq!((edge.amounts.requests(), edge.amounts.failed), (10, 1));
        assert_eq!(edge.covered, 10, "from its begin at 100 to the end of second 109");
        assert_eq!(edge.under_way, Some(0));

        store.closed(&web, &instance, 110);
        let (_, _, edges) = store.view(60, 200);
        assert_eq!(
            (edges[0].covered, edges[0].under_way, edges[0].reporting),
            (0, None, false)
        );
        let (_, _, edges) = store.view(300, 200);
        assert_eq!((edges[0].covered, edges[0].amounts.requests()), (10, 10));
    }

    #[test]
    fn a_report_that_comes_again_is_known_and_another_process_begins_anew() {
        let mut store = Store::default();
        let (_, instance) = opened(&mut store, "web", 0);
        let number = |process: &str, number| ReportNumber {
            process: process.into(),
            number,
        };
        assert!(store.is_new(&instance, &number("a", 0)));
        assert!(store.is_new(&instance, &number("a", 1)));
        assert!(!store.is_new(&instance, &number("a", 1)));
        assert!(store.is_new(&instance, &number("a", 2)));
        assert!(store.is_new(&instance, &number("b", 0)));
        assert_eq!(store.counts().repeated, 1);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut store = Store::default();
        let (web, _) = opened(&mut store, "web", 0);
        for host in 0..CALLER_EDGES_MAX {
            store
                .add(&web, target(&format!("a-{host}")), &requests(1, 0), 0)
                .expect("room");
        }
        assert!(store.add(&web, target("one-more"), &requests(3, 4), 0).is_none());
        assert_eq!(store.counts().unplaced, 7);
        let (other, _) = opened(&mut store, "other", 0);
        assert!(
            store.add(&other, target("a-0"), &requests(1, 0), 0).is_some(),
            "others have theirs"
        );
        for caller in 0..EDGES_MAX / CALLER_EDGES_MAX {
            let (caller, _) = opened(&mut store, &format!("many-{caller}"), 0);
            for host in 0..CALLER_EDGES_MAX {
                store.add(&caller, target(&format!("a-{host}")), &requests(1, 0), 0);
            }
        }
        assert_eq!(store.counts().edges, EDGES_MAX);
        // Three days later all is forgotten and there is room again.
        assert!(
            store
                .add(&web, target("late"), &requests(1, 0), 4 * 86_400)
                .is_some()
        );
        assert_eq!(store.counts().edges, 1);
        assert_eq!(store.slots, TIERS.len());
    }

    #[test]
    fn a_history_has_a_point_for_each_slot_by_subset_and_says_where_nothing_is_known() {
        let mut store = Store::default();
        let (web, instance) = opened(&mut store, "web", 100);
        let subset = |name: &str| Target::of_cluster(&format!("outbound|80|{name}|api")).expect("an edge");
        for (second, succeeded) in [(101, 9), (103, 2)] {
            store
                .add(&web, subset("v1"), &requests(succeeded, 0), second)
                .expect("room");
        }
        store.add(&web, subset("v2"), &requests(0, 1), 104).expect("room");
        store
            .add(&web, target("other"), &requests(5, 0), 104)
            .expect("room");
        let history = store.history(Some("api"), 10, 104);
        assert_eq!((history.begin, history.width), (95, 1));
        let of = |subset: &str| -> Vec<(u32, u32)> {
            let points = &history.subsets[subset];
            points
                .iter()
                .map(|point| (point.covered, point.amounts.requests()))
                .collect()
        };
        assert_eq!(
            of("v1"),
            [
                (0, 0),
                (0, 0),
                (0, 0),
                (0, 0),
                (0, 0),
                (1, 0),
                (1, 9),
                (1, 0),
                (1, 2),
                (1, 0)
            ]
        );
        assert_eq!(of("v2")[9], (1, 1));
        assert_eq!(history.subsets.len(), 2, "the other host is not in it");
        assert_eq!(store.history(None, 10, 104).subsets.len(), 3);

        store.closed(&web, &instance, 105);
        let later = store.history(Some("api"), 10, 110);
        let covered: Vec<u32> = later.subsets["v1"].iter().map(|point| point.covered).collect();
        assert_eq!(covered, [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn where_slots_run_out_the_past_becomes_shorter_and_what_was_counted_last_stays() {
        let mut store = Store {
            slots_max: 2_000,
            ..Store::default()
        };
        let (web, _) = opened(&mut store, "web", 0);
        for second in 0..300 {
            for host in 0..20 {
                store
                    .add(&web, target(&format!("a-{host}")), &requests(1, 0), second)
                    .expect("room");
            }
        }
        assert!(store.slots <= 2_000, "{}", store.slots);
        let held: usize = store.edges.values().map(|edge| edge.series.slots()).sum();
        assert_eq!(store.slots, held);
        let (window, _, edges) = store.view(30, 299);
        assert_eq!(window, 30);
        assert!(edges.iter().all(|edge| edge.amounts.succeeded == 30));
        let (_, resolution, edges) = store.view(300, 299);
        assert_eq!(resolution, 60, "seconds do not reach so far any more");
        assert!(edges.iter().all(|edge| edge.amounts.succeeded == 300));
    }

    #[test]
    fn what_is_under_way_is_the_sum_over_those_who_report() {
        let mut store = Store::default();
        let (web, _) = opened(&mut store, "web", 0);
        let load = Load {
            in_progress: 3,
            ..Load::default()
        };
        let key = store.add(&web, target("api"), &load, 0).expect("room");
        store.under_way(&key, 0, 3);
        store.under_way(&key, 0, 2);
        store.under_way(&key, 3, 1);
        assert_eq!(store.view(10, 0).2[0].under_way, Some(3));
        assert_eq!(
            store.view(10, 0).2[0].amounts,
            Amounts::default(),
            "nothing has ended"
        );
    }
}
