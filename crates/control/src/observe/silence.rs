//! Silences: alarms that nobody is to be told of for a while, by which caller, service and kind, who said so and why. Pure; times are
//! Unix seconds.
//!
//! A silence keeps an alarm from being sent ([`notify`](crate::notify)), never from being raised, listed or logged. One whose time is
//! over, or that was ended, stays in the list for [`SHOWN_FOR`] seconds.
//!
//! Bounds: [`SILENCES_MAX`], none longer than [`LONGEST`] seconds, texts of [`TEXT_MAX`] bytes.

use rajut_types::Text;
use serde::{Deserialize, Serialize};

use super::alarm::{Alarm, Kind};

/// Most silences that are kept.
pub const SILENCES_MAX: usize = 500;
/// The longest, seconds.
pub const LONGEST: u64 = 30 * 86_400;
/// How long one that is over is shown, seconds.
pub const SHOWN_FOR: u64 = 3 * 86_400;
/// Most bytes of what people write.
pub const TEXT_MAX: usize = 500;
/// Stands for every caller or service.
pub const ANY: &str = "*";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Silence {
    /// Rises by one with each.
    pub id: u64,
    /// `None`: all kinds.
    pub kind: Option<Kind>,
    /// `WORKLOAD`, `WORKLOAD.NAMESPACE`, a SPIFFE identity, or [`ANY`].
    pub caller: Text,
    /// A host, its beginning up to a dot, or [`ANY`].
    pub service: Text,
    /// When it was said.
    pub from: u64,
    /// When it is over.
    pub until: u64,
    /// Who said so.
    pub by: Text,
    /// Why.
    pub why: Text,
}

/// What is asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wish {
    /// See [`Silence::kind`].
    #[serde(default)]
    pub kind: Option<Kind>,
    /// See [`Silence::caller`].
    pub caller: Text,
    /// See [`Silence::service`].
    pub service: Text,
    /// How long.
    pub seconds: u64,
    /// Why.
    pub why: Text,
}

/// Why there is no silence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSilence {
    /// Nobody would know.
    #[error("a silence needs a reason (`why`) of 1 to {TEXT_MAX} bytes")]
    Reason,
    /// It is none.
    #[error("a silence lasts from a second to 30 days")]
    Time,
    /// It would be about nothing, or about what nobody can name.
    #[error("`{0}` is neither `*` nor a name")]
    Name(Text),
    /// Everything for everybody is no silence.
    #[error("a silence of every caller, service and kind would hide everything: say which")]
    Everything,
    /// Too many.
    #[error("there are {SILENCES_MAX} silences: end one")]
    TooMany,
}

/// All that are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Silences {
    last: u64,
    kept: Vec<Silence>,
}

impl Silence {
    /// Whether it is about this alarm, whenever that is.
    pub fn is_about(&self, alarm: &Alarm) -> bool {
        let caller = &alarm.caller;
        let named = |name: &str| {
            name == ANY
                || name == &*caller.workload
                || name == &*caller.principal
                || name
                    .strip_prefix(&*caller.workload)
                    .and_then(|rest| rest.strip_prefix('.'))
                    .is_some_and(|namespace| namespace == &*caller.namespace)
        };
        let service = &*self.service;
        let is_service = service == ANY
            || alarm.target.as_ref().is_some_and(|target| {
                target
                    .host
                    .strip_prefix(service)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            });
        self.kind.is_none_or(|kind| kind == alarm.kind) && named(&self.caller) && is_service
    }

    /// Whether it holds.
    pub const fn holds(&self, now: u64) -> bool {
        now >= self.from && now < self.until
    }
}

impl Silences {
    /// One more.
    pub fn add(&mut self, wish: Wish, by: Text, now: u64) -> Result<&Silence, NoSilence> {
        let Wish {
            kind,
            caller,
            service,
            seconds,
            why,
        } = wish;
        if why.trim().is_empty() || why.len() > TEXT_MAX || by.len() > TEXT_MAX {
            return Err(NoSilence::Reason);
        }
        if seconds == 0 || seconds > LONGEST {
            return Err(NoSilence::Time);
        }
        for name in [&caller, &service] {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:/".contains(&byte);
            if &**name != ANY && (name.is_empty() || name.len() > TEXT_MAX || !name.bytes().all(is_name)) {
                return Err(NoSilence::Name(name.clone()));
            }
        }
        if &*caller == ANY && &*service == ANY && kind.is_none() {
            return Err(NoSilence::Everything);
        }
        self.forget(now);
        if self.kept.len() >= SILENCES_MAX {
            return Err(NoSilence::TooMany);
        }
        self.last += 1;
        self.kept.push(Silence {
            id: self.last,
            kind,
            caller,
            service,
            from: now,
            until: now.saturating_add(seconds),
            by,
            why,
        });
        // It was pushed just now.
        Ok(&self.kept[self.kept.len() - 1])
    }

    /// Ends one; `None`: there is none of that number that holds.
    pub fn end(&mut self, id: u64, now: u64) -> Option<&Silence> {
        let silence = self
            .kept
            .iter_mut()
            .find(|silence| silence.id == id && silence.holds(now))?;
        silence.until = now;
        Some(silence)
    }

    /// The one by which an alarm is silent.
    pub fn of(&self, alarm: &Alarm, now: u64) -> Option<&Silence> {
        self.kept
            .iter()
            .find(|silence| silence.holds(now) && silence.is_about(alarm))
    }

    /// All that are kept, the newest last.
    pub fn all(&self) -> &[Silence] {
        &self.kept
    }

    /// Forgets what has been over for long, and whatever a file holds beyond the bound.
    pub fn forget(&mut self, now: u64) {
        self.kept
            .retain(|silence| now < silence.until.saturating_add(SHOWN_FOR));
        let beyond = self.kept.len().saturating_sub(SILENCES_MAX);
        self.kept.drain(..beyond);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::edge::{Caller, Target},
        *,
    };

    fn alarm(kind: Kind, cluster: Option<&str>) -> Alarm {
        Alarm {
            number: 1,
            kind,
            at: 0,
            ended: None,
            caller: Caller {
                namespace: "lab".into(),
                workload: "nurse".into(),
                principal: "spiffe://cluster.local/ns/lab/sa/nurse".into(),
            },
            target: cluster.map(|name| Target::of_cluster(name).expect("an edge")),
            evidence: None,
            acknowledged: None,
        }
    }

    fn wish(caller: &str, service: &str) -> Wish {
        Wish {
            kind: None,
            caller: caller.into(),
            service: service.into(),
            seconds: 60,
            why: "a rehearsal".into(),
        }
    }

    #[test]
    fn a_silence_is_about_what_it_names_and_nothing_else() {
        let web = alarm(Kind::Rate, Some("outbound|80||web.lab.svc.cluster.local"));
        let fan_out = alarm(Kind::FanOut, None);
        let is_about = |caller: &str, service: &str, alarm: &Alarm| {
            let mut silences = Silences::default();
            silences
                .add(wish(caller, service), "me".into(), 5)
                .expect("a silence")
                .is_about(alarm)
        };
        for (caller, service) in [
            ("nurse", "web"),
            ("nurse.lab", "web.lab"),
            ("nurse", "*"),
            (
                "spiffe://cluster.local/ns/lab/sa/nurse",
                "web.lab.svc.cluster.local",
            ),
            ("*", "web"),
        ] {
            assert!(is_about(caller, service, &web), "{caller} {service}");
        }
        for (caller, service) in [
            ("nurse.bank", "web"),
            ("nur", "web"),
            ("nurse.la", "*"),
            ("nurse", "we"),
            ("nurse", "web.l"),
            ("clerk", "*"),
        ] {
            assert!(!is_about(caller, service, &web), "{caller} {service}");
        }
        assert!(is_about("nurse", "*", &fan_out) && !is_about("nurse", "web", &fan_out));
    }

    #[test]
    fn a_silence_holds_for_its_time_or_until_it_is_ended() {
        let mut silences = Silences::default();
        let web = alarm(Kind::Rate, Some("outbound|80||web"));
        let id = silences
            .add(wish("nurse", "web"), "me".into(), 100)
            .expect("one")
            .id;
        let of = |silences: &Silences, now| silences.of(&web, now).map(|silence| silence.id);
        assert_eq!(
            [99, 100, 159, 160].map(|now| of(&silences, now)),
            [None, Some(id), Some(id), None]
        );
        assert!(silences.end(id, 120).is_some());
        assert_eq!((of(&silences, 120), silences.end(id, 121)), (None, None));
        let mut errors = wish("nurse", "*");
        errors.kind = Some(Kind::Errors);
        silences.add(errors, "me".into(), 130).expect("one");
        assert_eq!(of(&silences, 140), None, "another kind");
        assert_eq!(silences.all().len(), 2);
        silences.forget(120 + SHOWN_FOR);
        assert_eq!(silences.all().len(), 1);
    }

    #[test]
    fn a_silence_has_a_reason_an_end_and_a_bound() {
        let mut silences = Silences::default();
        let mut refused = |wish: Wish| silences.add(wish, "me".into(), 0).expect_err("no silence");
        let mut one = wish("nurse", "*");
        one.why = " ".into();
        assert_eq!(refused(one.clone()), NoSilence::Reason);
        one.why = "x".into();
        for seconds in [0, LONGEST + 1] {
            one.seconds = seconds;
            assert_eq!(refused(one.clone()), NoSilence::Time);
        }
        assert_eq!(refused(wish("*", "*")), NoSilence::Everything);
        for name in ["", "a b", "a*", "\u{1b}[2J"] {
            assert_eq!(refused(wish(name, "*")), NoSilence::Name(name.into()));
        }
        for _ in 0..SILENCES_MAX {
            silences.add(wish("nurse", "*"), "me".into(), 0).expect("room");
        }
        assert_eq!(
            silences.add(wish("nurse", "*"), "me".into(), 0),
            Err(NoSilence::TooMany)
        );
    }
}
