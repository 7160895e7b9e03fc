//! What is noticed, how soon, once, and how often it is wrong.

use rajut_telemetry::load::{Detail, Load, Times};

use super::{
    super::super::{
        alarm::{EACH_MAX, FIRST_CALL_LASTS},
        anomaly::{CALM_FOR, OPEN_MAX},
    },
    *,
};

const LEARNING: u32 = 600;

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

/// xorshift64*: the seed says all.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 to 1, without 0.
    fn share(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).expect("32 bits") | 1) / f64::from(u32::MAX)
    }

    /// How many come in a second where so many come on average.
    fn poisson(&mut self, mean: f64) -> u32 {
        if mean > 60.0 {
            // A product of so many shares would be 0; two halves are two draws.
            return self.poisson(mean / 2.0) + self.poisson(mean / 2.0);
        }
        let (floor, mut product, mut count) = ((-mean).exp(), self.share(), 0);
        while product > floor {
            product *= self.share();
            count += 1;
        }
        count
    }

    fn binomial(&mut self, of: u32, share: f64) -> u32 {
        (0..of).map(|_| u32::from(self.share() < share)).sum()
    }
}

/// One caller of one service: what it does on average.
#[derive(Clone, Copy)]
struct Habit {
    /// Times a second that it begins to call.
    rate: f64,
    /// Calls that come together.
    batch: u32,
    /// By how much midday is more than midnight.
    swing: f64,
    errors: f64,
    denied: f64,
    /// Chances of the buckets of response times from the first on; the rest falls into the one after.
    slow: [f64; 6],
    bytes: u64,
    /// Seconds between jobs, how long each is, and how many times more it calls then; 0: none.
    job: (u32, u32, f64),
}

const PLAIN: Habit = Habit {
    rate: 20.0,
    batch: 1,
    swing: 0.0,
    errors: 0.002,
    denied: 0.005,
    slow: [0.05, 0.1, 0.45, 0.2, 0.12, 0.05],
    bytes: 4_000,
    job: (0, 0, 0.0),
};

impl Habit {
    fn second(&self, random: &mut Random, now: u32) -> Load {
        let day = f64::from(now % 86_400) / 86_400.0;
        let swing = 1.0 + self.swing * (1.0 - (day * std::f64::consts::TAU).cos()) / 2.0;
        let (every, long, times) = self.job;
        let job = if every > 0 && now % every < long {
            times
        } else {
            1.0
        };
        let calls = random.poisson(self.rate * swing * job) * self.batch;
        let failed = random.binomial(calls, self.errors);
        let mut detail = Detail {
            denied: random.binomial(calls - failed, self.denied).into(),
            mtls: calls.into(),
            response_bytes: u64::from(calls) * self.bytes / 2
                + random.next() % (self.bytes * u64::from(calls) + 1),
            ..Detail::default()
        };
        detail.times = self.times(random, calls);
        Load {
            succeeded: (calls - failed).into(),
            failed: failed.into(),
            in_progress: 0,
            detail: Some(detail),
        }
    }

    fn times(&self, random: &mut Random, calls: u32) -> Times {
        let mut times = Times::default();
        for _ in 0..calls {
            let mut share = random.share();
            let bucket = self.slow.iter().position(|chance| {
                share -= chance;
                share < 0.0
            });
            times.buckets[bucket.unwrap_or(self.slow.len())] += 1;
        }
        times
    }
}

/// A store with callers that do as they do.
struct World {
    store: Store,
    random: Random,
    edges: Vec<(Caller, Target, Habit)>,
    now: u32,
}

impl World {
    fn new(habits: &[Habit]) -> Self {
        let mut store = Store::learning_for(LEARNING);
        let mut edges = Vec::new();
        for (number, habit) in habits.iter().enumerate() {
            let caller = caller(&format!("web-{number}"));
            store
                .opened(&caller, &Text::from(format!("web-{number}")), 0)
                .expect("room");
            edges.push((caller, target("api"), *habit));
        }
        Self {
            store,
            random: Random(0x5eed),
            edges,
            now: 0,
        }
    }

    fn add(&mut self, edge: usize, load: &Load) {
        let (caller, target, _) = &self.edges[edge];
        self.store
            .add(caller, target.clone(), load, self.now)
            .expect("room");
    }

    /// A second in which all do as they do but the first, which may be strange.
    fn second(&mut self, strange: Option<&Load>) {
        self.now += 1;
        for edge in 0..self.edges.len() {
            let load = match strange {
                Some(load) if edge == 0 => *load,
                _ => self.edges[edge].2.second(&mut self.random, self.now),
            };
            if !load.is_empty() {
                self.add(edge, &load);
            }
        }
        self.store.watch(self.now);
    }

    fn until(&mut self, end: u32) {
        while self.now < end {
            self.second(None);
        }
    }

    fn alarms(&self) -> Vec<Alarm> {
        self.store.alarms().all().cloned().collect()
    }
}

fn ok(calls: u64) -> Load {
    let mut load = Load {
        succeeded: calls,
        detail: Some(Detail {
            mtls: calls,
            response_bytes: calls * 4_000,
            ..Detail::default()
        }),
        ..Load::default()
    };
    if let Some(detail) = &mut load.detail {
        detail.times.buckets[2] = calls;
    }
    load
}

/// Goes on with `load` for so long; the seconds until there is an alarm, and it.
fn noticed(load: Load, seconds: u32) -> (u32, Alarm, World) {
    let mut world = World::new(&[PLAIN]);
    world.until(1_500);
    assert_eq!(world.alarms(), []);
    let mut after = None;
    for second in 1..=seconds {
        world.second(Some(&load));
        if after.is_none() && !world.alarms().is_empty() {
            after = Some(second);
        }
    }
    let alarms = world.alarms();
    assert_eq!(alarms.len(), 1, "exactly one: {alarms:#?}");
    (after.expect("an alarm"), alarms[0].clone(), world)
}

#[test]
fn each_kind_is_noticed_within_seconds_once_with_its_figures() {
    let mut failing = ok(16);
    failing.failed = 4;
    let mut slow = ok(20);
    let mut big = ok(20);
    let mut denied = ok(30);
    if let (Some(slow), Some(big), Some(denied)) = (&mut slow.detail, &mut big.detail, &mut denied.detail) {
        slow.times = Times::default();
        slow.times.buckets[9] = 20;
        big.response_bytes = 50 << 20;
        denied.denied = 12;
    }
    let cases = [
        (Kind::Rate, ok(160), 20.0),
        (Kind::Rate, Load::default(), 20.0),
        (Kind::Errors, failing, 0.0),
        (Kind::Latency, slow, 5.0),
        (Kind::Bytes, big, 80_000.0),
        (Kind::Denials, denied, 0.1),
    ];
    for (kind, load, before) in cases {
        let (after, alarm, mut world) = noticed(load, 20);
        let found = alarm.evidence.clone().expect("figures");
        println!(
            "{:10} after {after} s: {:.2} → {:.2} {}",
            kind.name(),
            found.before,
            found.now,
            kind.measure()
        );
        assert_eq!((alarm.kind, alarm.ended), (kind, None));
        // A report is a second on its way.
        assert!(after <= 5, "{kind:?} after {after} s");
        assert!((found.before - before).abs() < before.max(0.5), "{found:?}");
        assert!(found.window == 5 && (found.now - found.before).abs() > found.before / 2.0);
        assert_eq!(alarm.target, Some(target("api")));

        // It ends once it is calm, and stays so.
        let end = world.now + 60 + CALM_FOR;
        world.until(end);
        let ended = world.alarms()[0].ended.expect("it is over");
        assert!(ended >= alarm.at + u64::from(CALM_FOR));
        world.until(end + 600);
        assert_eq!(world.alarms().len(), 1, "{:#?}", world.alarms());
    }
}

#[test]
fn what_comes_and_goes_is_one_alarm_and_what_stays_is_ordinary_in_the_end() {
    let mut world = World::new(&[PLAIN]);
    world.until(1_500);
    // Eight seconds of every fifty.
    for _ in 0..6 {
        for _ in 0..8 {
            world.second(Some(&ok(150)));
        }
        world.until(world.now + 42);
    }
    assert_eq!(world.alarms().len(), 1, "{:#?}", world.alarms());

    let mut world = World::new(&[PLAIN]);
    world.until(1_500);
    for _ in 0..OPEN_MAX + 1_200 {
        world.second(Some(&ok(120)));
    }
    let alarms = world.alarms();
    assert_eq!(alarms.len(), 1, "{alarms:#?}");
    assert!(
        alarms[0]
            .ended
            .is_some_and(|ended| ended <= alarms[0].at + u64::from(OPEN_MAX))
    );
}

#[test]
fn an_edge_with_few_calls_is_looked_at_for_longer() {
    let mut world = World::new(&[Habit { rate: 1.0, ..PLAIN }]);
    world.until(1_800);
    let mut failing = ok(0);
    failing.failed = 1;
    let begun = world.now;
    while world.alarms().is_empty() && world.now < begun + 60 {
        world.second(Some(&failing));
    }
    let alarm = world.alarms()[0].clone();
    assert_eq!(
        (alarm.kind, alarm.evidence.expect("figures").window),
        (Kind::Errors, 30)
    );
}

#[test]
fn what_comes_late_at_once_and_a_caller_that_is_silent_are_no_change_of_rate() {
    let mut world = World::new(&[PLAIN]);
    world.until(1_500);
    let instance = Text::from("web-0");
    let web = caller("web-0");
    // The control plane was not reached for half a minute: nothing is known, then all of it comes.
    world.store.closed(&web, &instance, world.now);
    for _ in 0..30 {
        world.second(Some(&Load::default()));
    }
    world.store.opened(&web, &instance, world.now).expect("room");
    world.second(Some(&ok(600)));
    world.until(world.now + 120);
    assert_eq!(world.alarms(), []);
    // The control plane itself stood still.
    world.now += 40;
    world.second(Some(&ok(800)));
    world.until(world.now + 120);
    assert_eq!(world.alarms(), []);
}

#[test]
fn a_caller_that_looks_around_raises_some_first_calls_and_one_fan_out() {
    let mut world = World::new(&[PLAIN]);
    world.until(1_500);
    let web = caller("web-0");
    let begun = world.now;
    world.now += 1;
    for host in 0..200 {
        let refused = Load {
            succeeded: 1,
            ..Load::default()
        };
        world
            .store
            .add(&web, target(&format!("secret-{host}")), &refused, world.now);
    }
    world.store.watch(world.now);
    let alarms = world.alarms();
    let of = |kind| alarms.iter().filter(|alarm| alarm.kind == kind).count();
    assert_eq!((of(Kind::FirstCall), of(Kind::FanOut)), (EACH_MAX as usize, 1));
    let fan_out = alarms
        .iter()
        .find(|alarm| alarm.kind == Kind::FanOut)
        .expect("one");
    let found = fan_out.evidence.as_ref().expect("figures");
    assert_eq!((fan_out.at - u64::from(begun), found.first_calls), (1, 195));
    assert_eq!(
        (found.hosts.len(), found.now, found.before),
        (HOSTS_MAX, 201.0, 1.0)
    );
    assert!(found.hosts.iter().all(|host| host.starts_with("secret-")));

    // Known services alone, but many at once, are a fan-out too.
    world.until(world.now + FIRST_CALL_LASTS + 60);
    assert_eq!(world.store.alarms().open(), [0; 7]);
    world.now += 1;
    for host in 0..12 {
        let one = Load {
            succeeded: 1,
            ..Load::default()
        };
        world
            .store
            .add(&web, target(&format!("secret-{host}")), &one, world.now);
    }
    world.store.watch(world.now);
    assert_eq!(world.store.alarms().open()[Kind::FanOut as usize], 1);
}

#[test]
fn a_destination_that_the_mesh_does_not_know_is_a_refusal_and_learning_is_silent() {
    let black_hole = |store: &mut Store, now: u32| {
        let target = Target::of_cluster(BLACK_HOLE).expect("an edge");
        let load = Load {
            failed: 30,
            ..Load::default()
        };
        store.add(&caller("web-0"), target, &load, now);
        store.watch(now);
    };
    let mut world = World::new(&[PLAIN]);
    world.until(300);
    black_hole(&mut world.store, 301);
    world.now += 1;
    assert_eq!(world.alarms(), [], "it learns");
    world.until(1_500);
    black_hole(&mut world.store, 1_501);
    let alarms = world.alarms();
    assert_eq!((alarms.len(), alarms[0].kind), (1, Kind::Denials));
}

fn rate(alarms: usize, edges: usize) -> f64 {
    let small = |count: usize| f64::from(u32::try_from(count).expect("small"));
    small(alarms) / small(edges)
}

/// A day of edges as they are found: few calls and many, single and in batches, even and by the time of day, with jobs every some
/// minutes, with failures and refusals of their own. Nothing of it is an alarm.
#[test]
fn a_day_of_ordinary_traffic_raises_next_to_nothing() {
    let day = |rate: f64, batch: u32, swing: f64| Habit {
        rate,
        batch,
        swing,
        ..PLAIN
    };
    let habits = [
        day(0.05, 1, 0.0),
        day(0.5, 1, 4.0),
        day(3.0, 1, 0.0),
        day(3.0, 1, 9.0),
        day(12.0, 1, 3.0),
        // A page that asks for eight things at once.
        day(0.3, 8, 4.0),
        Habit {
            errors: 0.03,
            denied: 0.1,
            ..day(8.0, 1, 2.0)
        },
        // Every ten minutes, for one minute, twenty times as much.
        Habit {
            job: (600, 60, 20.0),
            ..day(1.0, 1, 0.0)
        },
        Habit {
            job: (60, 5, 10.0),
            ..day(2.0, 1, 0.0)
        },
        // Answers that are slow by chance.
        Habit {
            slow: [0.1, 0.2, 0.2, 0.1, 0.1, 0.1],
            ..day(6.0, 1, 2.0)
        },
    ];
    let mut world = World::new(&habits);
    world.until(86_400);
    let alarms = world.alarms();
    let calls: u64 = world
        .store
        .edges
        .values()
        .map(|edge| u64::from(edge.series.sum(2, 96, world.now).requests()))
        .sum();
    // A job every ten minutes is known when it has come three times.
    let (early, late): (Vec<&Alarm>, Vec<&Alarm>) = alarms.iter().partition(|alarm| alarm.at < 2_400);
    println!(
        "{} false alarms in the first 40 minutes, {} in the rest of a day of {} edges with {calls} calls: {:.2} for an edge and day",
        early.len(),
        late.len(),
        habits.len(),
        rate(alarms.len(), habits.len()),
    );
    for alarm in &alarms {
        println!("{alarm:?}");
    }
    assert!(
        early.len() <= 3 && late.is_empty(),
        "what is ordinary is no alarm"
    );
}
