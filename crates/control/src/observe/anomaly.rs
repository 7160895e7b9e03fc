//! Whether what passes on an edge, or what a caller does, is far from its own recent past. Pure; time is the number of seconds
//! since the store began.
//!
//! ```text
//!  Series ─► windows of 5 s (the last 5 minutes) ┐ median, 5 % and 95 % quantile
//!         └► minutes (the last 2 hours)          ┘         │
//!            the last 5 s, or 30 s where that is too little ┴► Measure::limits ─► Phase ─► raised, ended
//!
//!  quiet ── beyond ──► open ── CALM_FOR within half-way, or OPEN_MAX ──► over ── AGAIN ──► quiet
//!                        ▲──────────────── beyond ───────────────────────┘   (the same alarm goes on)
//! ```
//!
//! Quantiles and not means, so that a spike in the past neither hides the next one nor makes one; both time scales, so that what comes
//! every minute or every half-hour is ordinary. Limits are a multiple of the past **and** a distance that chance does not
//! come to at that amount of traffic **and** a least amount. An alarm ends against the past that it was raised against; what lasts for
//! [`OPEN_MAX`] seconds is the new past.
//!
//! Does not: learn days or weeks. A batch once a day is an alarm every day; that is what silences are for.
//!
//! Bounds: for an edge the figures of four measures (about 500 bytes), for a caller [`PAST_WINDOWS`] windows and [`PAST_MINUTES`]
//! minutes (1.2 KB); the past of an edge is its series, which is there anyway.

use std::collections::VecDeque;

use super::{
    alarm::{EACH_MAX, Kind},
    series::{Amounts, Series},
};

/// Seconds that are looked at: a great change shows in the first, a small one on an edge with few calls in the second.
pub const WINDOWS: [u32; 2] = [5, 30];
/// Seconds of a window of the past.
const WINDOW: u32 = 5;
/// Windows of the past.
pub const PAST_WINDOWS: usize = 60;
/// Minutes of the past.
pub const PAST_MINUTES: usize = 120;
/// The past ends so many seconds before now, so that what begins is not part of it.
const GAP: u32 = 7;
/// Windows (or minutes) that are the least of a past.
const WINDOWS_MIN: usize = 12;
const MINUTES_MIN: usize = 5;
/// Seconds that it has to be calm for before an alarm ends.
pub const CALM_FOR: u32 = 30;
/// Seconds after which what lasts is ordinary.
pub const OPEN_MAX: u32 = 900;
/// Seconds after an alarm's end in which the same goes on instead of another one.
pub const AGAIN: u32 = 300;

/// Calls in a window that are no change of rate, however few there were.
const RATE_MIN: f64 = 30.0;
/// Calls that are usual in a window, for fewer to say something.
const FALL_MIN: f64 = 40.0;
/// Between the middle and one of twenty values lie 1.6 deviations of what varies by chance; six are asked for, upwards, where rare
/// batches lie far from the middle, eight.
const SPREADS_DOWN: f64 = 3.6;
const SPREADS_UP: f64 = 5.0;
/// Calls in a window, for a share to say something; and of these, failed ones.
const SHARE_MIN: u32 = 20;
const FAILED_MIN: f64 = 5.0;
/// The share of failures that is none to speak of.
const SHARE_FLOOR: f64 = 0.05;
/// Response times in a window, for a quantile to say something.
const TIMES_MIN: u32 = 30;
/// Milliseconds more that nobody waits for.
const LATENCY_FLOOR: f64 = 20.0;
/// Bytes in a window that are no change.
const BYTES_MIN: f64 = 8.0 * 1024.0 * 1024.0;
/// Refused calls in a window that are no burst.
pub const DENIED_MIN: u32 = 10;
/// Services called at once that are no fan-out.
pub const SERVICES_MIN: u32 = 8;

/// What is measured of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Requests that were not refused, and connections. Refused ones are [`Kind::Denials`].
    Rate,
    /// Share of failures.
    Errors,
    /// The time that three of four answers stay below: one slow answer of ten is no change.
    Latency,
    /// In both directions.
    Bytes,
}

/// The own recent past of a value.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usual {
    /// The middle.
    pub median: f64,
    /// One of twenty values is below.
    pub low: f64,
    /// One of twenty values is above.
    pub high: f64,
}

/// A value, and what it may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    /// Now.
    pub value: f64,
    /// The seconds that it is of.
    pub window: u32,
    /// Below is an alarm.
    least: f64,
    /// Above is an alarm.
    most: f64,
    median: f64,
}

impl Judged {
    /// An alarm.
    pub fn is_beyond(&self) -> bool {
        self.value > self.most || self.value < self.least
    }

    /// Nearer to the past than to an alarm.
    pub fn is_calm(&self) -> bool {
        let half = |limit: f64| f64::midpoint(limit, self.median);
        self.value <= half(self.most) && (self.least <= 0.0 || self.value >= half(self.least))
    }
}

impl Measure {
    /// All.
    pub const ALL: [Self; 4] = [Self::Rate, Self::Errors, Self::Latency, Self::Bytes];

    /// The alarm that it may be.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Rate => Kind::Rate,
            Self::Errors => Kind::Errors,
            Self::Latency => Kind::Latency,
            Self::Bytes => Kind::Bytes,
        }
    }

    /// Whether a report that comes late makes it wrong.
    pub const fn is_by_time(self) -> bool {
        matches!(self, Self::Rate | Self::Bytes)
    }

    /// `None`: too little happened.
    fn of(self, amounts: &Amounts, seconds: u32) -> Option<f64> {
        let calls = calls(amounts);
        match self {
            Self::Rate => Some(f64::from(calls - amounts.denied.min(calls)) / f64::from(seconds)),
            Self::Errors => (calls >= SHARE_MIN).then(|| f64::from(failed(amounts)) / f64::from(calls)),
            Self::Latency => (timed(amounts) >= TIMES_MIN)
                .then(|| amounts.quantile(750))
                .flatten(),
            Self::Bytes => Some(bytes(amounts) / f64::from(seconds)),
        }
    }

    /// The last 5 s, where they are beyond the past, or the last 30; `None`: too little happened to tell.
    pub fn judge_now(self, usual: &Usual, now: &[Amounts; WINDOWS.len()]) -> Option<Judged> {
        let both = WINDOWS.iter().zip(now);
        let mut judged = both.filter_map(|(seconds, amounts)| self.judge(usual, amounts, *seconds));
        let first = judged.next()?;
        if first.is_beyond() {
            return Some(first);
        }
        Some(judged.next_back().unwrap_or(first))
    }

    /// `None`: too little happened to tell.
    fn judge(self, usual: &Usual, amounts: &Amounts, seconds: u32) -> Option<Judged> {
        let mut value = self.of(amounts, seconds)?;
        if self == Self::Latency {
            // Of few answers some are slow by chance: three deviations below, so that it is at least so.
            let by_chance = 1_299 / timed(amounts).isqrt();
            value = amounts.quantile(750_u32.saturating_sub(by_chance))?;
        }
        let Usual { median, low, high } = *usual;
        let span = f64::from(seconds);
        // What chance adds to a count: three times its deviation above a limit that is itself several deviations away.
        let by_chance = |count: f64| count + 3.0 * count.sqrt();
        let mut least = 0.0;
        let most = match self {
            Self::Rate => {
                // Calls that come in batches vary more than single ones: their own spread says by how much.
                let longer = (f64::from(WINDOW) / span).sqrt();
                let spread = |from: f64, times: f64| median + times * (from - median) * longer;
                if median * span >= FALL_MIN {
                    least = (low / 2.0).min(median / 4.0).min(spread(low, SPREADS_DOWN));
                }
                let calls = by_chance((3.0 * median).max(2.0 * high) * span).max(RATE_MIN);
                (calls / span).max(spread(high, SPREADS_UP))
            }
            Self::Errors => {
                let calls = f64::from(calls(amounts));
                // Three times the usual share, and where that is great, half of the way to all.
                let near = |share: f64, times: f64| (share * times).min(f64::midpoint(share, 1.0));
                let share = near(median, 3.0).max(near(high, 2.0)).max(SHARE_FLOOR);
                by_chance(share * calls).max(FAILED_MIN) / calls
            }
            Self::Latency => (4.0 * median).max(2.5 * high).max(median + LATENCY_FLOOR),
            Self::Bytes => (5.0 * median).max(3.0 * high) + BYTES_MIN / span,
        };
        Some(Judged {
            value,
            window: seconds,
            least,
            most,
            median,
        })
    }

    /// The past of this measure; `None`: there is too little.
    fn usual(self, past: &Past) -> Option<Usual> {
        let values = |amounts: &[Amounts], seconds| -> Vec<f64> {
            amounts
                .iter()
                .filter_map(|amounts| self.of(amounts, seconds))
                .collect()
        };
        usual(values(&past.windows, WINDOW), values(&past.minutes, 60))
    }
}

/// Of the windows and the minutes together: the middle of the former, the widest bounds.
fn usual(windows: Vec<f64>, minutes: Vec<f64>) -> Option<Usual> {
    let of = |mut values: Vec<f64>, least: usize| {
        if values.len() < least {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let at = |hundredths: usize| values.get((values.len() - 1) * hundredths / 100).copied();
        Some(Usual {
            median: at(50)?,
            low: at(5)?,
            high: at(95)?,
        })
    };
    match (of(windows, WINDOWS_MIN), of(minutes, MINUTES_MIN)) {
        (Some(near), Some(far)) => Some(Usual {
            median: near.median,
            low: near.low.min(far.low),
            high: near.high.max(far.high),
        }),
        (near, far) => near.or(far),
    }
}

fn calls(amounts: &Amounts) -> u32 {
    amounts.requests().saturating_add(amounts.connections)
}

fn failed(amounts: &Amounts) -> u32 {
    amounts.failed.saturating_add(amounts.connections_failed)
}

fn timed(amounts: &Amounts) -> u32 {
    amounts
        .times
        .iter()
        .fold(0, |sum: u32, count| sum.saturating_add(*count))
}

#[expect(clippy::cast_precision_loss, reason = "exact below 8 PiB")]
fn bytes(amounts: &Amounts) -> f64 {
    amounts.request_bytes.saturating_add(amounts.response_bytes) as f64
}

/// The slots of an edge's series, the empty ones among them.
struct Past {
    windows: Vec<Amounts>,
    minutes: Vec<Amounts>,
}

impl Past {
    /// `since`: nothing is known of before.
    fn of(series: &Series, since: u32, now: u32) -> Self {
        // Windows end with `end`; the newest is the first.
        let end = (now + 1).saturating_sub(GAP);
        let count = (end.saturating_sub(since) / WINDOW) as usize;
        let mut windows = vec![Amounts::default(); count.min(PAST_WINDOWS)];
        for (second, amounts) in series.of_tier(0) {
            let Some(before) = end.checked_sub(second + 1) else {
                continue;
            };
            let Some(window) = windows.get_mut((before / WINDOW) as usize) else {
                break;
            };
            window.add(amounts);
        }
        let end = end / 60;
        let count = end.saturating_sub(since.div_ceil(60)) as usize;
        let mut minutes = vec![Amounts::default(); count.min(PAST_MINUTES - 2)];
        for (minute, amounts) in series.of_tier(1) {
            let Some(before) = end.checked_sub(minute + 1) else {
                continue;
            };
            let Some(place) = minutes.get_mut(before as usize) else {
                break;
            };
            *place = *amounts;
        }
        Self { windows, minutes }
    }
}

/// Where an alarm of one kind stands. See the module's picture.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Phase {
    /// There is none.
    #[default]
    Quiet,
    /// It was raised.
    Open {
        /// Which.
        number: u64,
        /// When.
        since: u32,
        /// When it was last no calm.
        restless: u32,
        /// The past that it was raised against.
        usual: Usual,
    },
    /// It has ended.
    Over {
        /// Which.
        number: u64,
        /// When.
        at: u32,
    },
}

/// What has become of an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Raised,
    /// It has ended.
    Ended(u64),
    /// It goes on, after an end.
    Again(u64),
}

impl Phase {
    /// The past to judge against.
    pub const fn past(&self, newest: Usual) -> Usual {
        match self {
            Self::Open { usual, .. } => *usual,
            Self::Quiet | Self::Over { .. } => newest,
        }
    }

    /// The next second. `is_beyond`, `is_calm`: of what is now, if it can be told. After [`Change::Raised`] the caller says which
    /// number it has.
    pub fn step(&mut self, is_beyond: bool, is_calm: bool, usual: Usual, now: u32) -> Option<Change> {
        match *self {
            Self::Quiet => is_beyond.then_some(Change::Raised),
            Self::Over { number, at } if is_beyond => {
                if now < at.saturating_add(AGAIN) {
                    *self = Self::open(number, usual, now);
                    return Some(Change::Again(number));
                }
                *self = Self::Quiet;
                Some(Change::Raised)
            }
            Self::Over { at, .. } => {
                if now >= at.saturating_add(AGAIN) {
                    *self = Self::Quiet;
                }
                None
            }
            Self::Open {
                number,
                since,
                ref mut restless,
                ..
            } => {
                if !is_calm {
                    *restless = now;
                }
                let is_over =
                    now >= restless.saturating_add(CALM_FOR) || now >= since.saturating_add(OPEN_MAX);
                if !is_over {
                    return None;
                }
                *self = Self::Over { number, at: now };
                Some(Change::Ended(number))
            }
        }
    }

    /// It was raised as this number.
    pub const fn open(number: u64, usual: Usual, now: u32) -> Self {
        Self::Open {
            number,
            since: now,
            restless: now,
            usual,
        }
    }

    /// Whether there is anything to end.
    pub const fn is_quiet(&self) -> bool {
        matches!(self, Self::Quiet)
    }
}

/// What is known of an edge's past.
#[derive(Debug, Clone, Default)]
pub struct EdgeWatch {
    usual: [Option<Usual>; Measure::ALL.len()],
    /// As they stand; in the order of [`Measure::ALL`].
    pub phases: [Phase; Measure::ALL.len()],
    looked: u32,
}

/// Seconds after which an edge's past is looked at again.
const LOOK_EVERY: u32 = 20;

impl EdgeWatch {
    /// Whether its past is to be looked at.
    pub const fn is_stale(&self, now: u32) -> bool {
        now >= self.looked.saturating_add(LOOK_EVERY)
    }

    /// Looks at the past, which began at `since`.
    pub fn look(&mut self, series: &Series, since: u32, now: u32) {
        self.looked = now;
        let past = Past::of(series, since, now);
        self.usual = Measure::ALL.map(|measure| measure.usual(&past));
    }

    /// The newest past of a measure.
    pub fn usual(&self, measure: Measure) -> Option<Usual> {
        self.usual[measure as usize]
    }

    /// Whether all is quiet.
    pub fn is_quiet(&self) -> bool {
        self.phases.iter().all(Phase::is_quiet)
    }
}

/// What a caller's proxies told, second by second.
#[derive(Debug, Clone, Default)]
pub struct CallerWatch {
    /// Refused calls in windows of the past, the newest last; ≤ [`PAST_WINDOWS`].
    denied: VecDeque<u32>,
    /// (most refused calls in a window, services called) in minutes of the past; ≤ [`PAST_MINUTES`].
    minutes: VecDeque<(u32, u32)>,
    /// Of the minute that runs.
    most_denied: u32,
    last: u32,
    /// The alarm of refused calls.
    pub denials: Phase,
    /// The alarm of many services.
    pub fan_out: Phase,
}

/// What a caller does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Doing {
    /// Calls that were refused in the last 5 s.
    pub denied: u32,
    /// Services that were called in the last 30 s.
    pub services: u32,
    /// The same in the last minute.
    pub services_minute: u32,
    /// First calls that have no alarm of their own.
    pub first_calls: u32,
}

impl CallerWatch {
    /// Whether there is nothing to judge: too little for an alarm, and none that could end.
    pub const fn is_idle(&self, doing: &Doing) -> bool {
        doing.denied < DENIED_MIN
            && doing.services < SERVICES_MIN
            && doing.first_calls == 0
            && self.denials.is_quiet()
            && self.fan_out.is_quiet()
    }

    /// Refused calls, and the past that they are judged against, both of a window.
    pub fn judge_denials(&self, doing: &Doing) -> (Judged, Usual) {
        let floats = |counts: &mut dyn Iterator<Item = u32>| counts.map(f64::from).collect::<Vec<_>>();
        // Without the newest two: what begins is not the past.
        let windows = floats(&mut self.denied.iter().rev().skip(2).copied());
        let minutes = floats(&mut self.minutes.iter().map(|(denied, _)| *denied));
        // Of a caller that nobody knows nothing is usual.
        let newest = usual(windows, minutes).unwrap_or_default();
        let past = self.denials.past(newest);
        let most = (3.0 * past.median).max(2.0 * past.high);
        let judged = Judged {
            value: f64::from(doing.denied),
            window: WINDOW,
            least: 0.0,
            most: (most + 3.0 * most.sqrt()).max(f64::from(DENIED_MIN) - 1.0),
            median: past.median,
        };
        (judged, past)
    }

    /// Services that were called, and the past that they are judged against.
    pub fn judge_services(&self, doing: &Doing) -> (Judged, Usual) {
        let minutes: Vec<f64> = self
            .minutes
            .iter()
            .map(|(_, services)| f64::from(*services))
            .collect();
        let newest = usual(minutes, Vec::new());
        let past = self.fan_out.past(newest.unwrap_or_default());
        let many = (2.0 * past.high)
            .max(past.high + f64::from(EACH_MAX))
            .max(f64::from(SERVICES_MIN) - 1.0);
        let most = match newest {
            // More first calls in a minute than have alarms of their own.
            _ if doing.first_calls > 0 => 0.0,
            None if self.fan_out.is_quiet() => f64::INFINITY,
            _ => many,
        };
        let judged = Judged {
            value: f64::from(doing.services),
            window: WINDOWS[1],
            least: 0.0,
            most,
            median: past.median,
        };
        (judged, past)
    }

    /// The second is over.
    pub fn remember(&mut self, doing: &Doing, now: u32) {
        self.most_denied = self.most_denied.max(doing.denied);
        let last = std::mem::replace(&mut self.last, now);
        if now / WINDOW != last / WINDOW {
            if self.denied.len() >= PAST_WINDOWS {
                self.denied.pop_front();
            }
            self.denied.push_back(doing.denied);
        }
        if now / 60 != last / 60 {
            if self.minutes.len() >= PAST_MINUTES {
                self.minutes.pop_front();
            }
            let denied = std::mem::take(&mut self.most_denied);
            self.minutes.push_back((denied, doing.services_minute));
        }
    }
}
