//! The proxy as a process: what it uses, whether it has its control plane, how long its certificate lives. The names of a process
//! are those of Prometheus' own libraries.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use rajut_identity::IdentityStore;
use rajut_platform::process;
use rajut_telemetry::names;

use super::{Number, Row};

/// The way to the control plane, as far as it is up.
#[derive(Debug, Default)]
pub struct ControlLink(Mutex<Option<Link>>);

#[derive(Debug)]
struct Link {
    /// `None`: it is up.
    away_since: Option<Instant>,
    /// How long it was down, until it was up last.
    away: Duration,
}

impl ControlLink {
    /// There is none, or none yet.
    pub fn lost(&self, now: Instant) {
        let mut link = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let link = link.get_or_insert(Link {
            away_since: None,
            away: Duration::ZERO,
        });
        link.away_since.get_or_insert(now);
    }

    /// It is up.
    pub fn connected(&self, now: Instant) {
        let mut link = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = &mut *link
            && let Some(since) = link.away_since.take()
        {
            link.away += now.saturating_duration_since(since);
        }
    }

    /// Whether it is up, and how long it was not; `None` where nobody wants a control plane.
    fn state(&self, now: Instant) -> Option<(bool, Duration)> {
        let link = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let link = link.as_ref()?;
        let going_on = link.away_since.map(|since| now.saturating_duration_since(since));
        Some((going_on.is_none(), link.away + going_on.unwrap_or_default()))
    }
}

/// The rows of a scrape.
pub(crate) fn rows(
    link: &ControlLink,
    identity: Option<&IdentityStore>,
    now: Instant,
    started: SystemTime,
) -> Vec<Row> {
    let mut rows = Vec::new();
    // A process that can't be looked at tells nothing of itself, rather than something wrong.
    if let Ok(used) = process::usage(std::process::id()) {
        rows.push(Row::counter(names::PROCESS_CPU, &[], used.cpu));
        rows.push(Row::gauge(names::PROCESS_MEMORY, &[], used.resident));
    }
    rows.push(Row::gauge(names::PROCESS_START, &[], since_epoch(started)));
    if let Some((connected, away)) = link.state(now) {
        rows.push(Row::gauge(names::CONTROL_CONNECTED, &[], u64::from(connected)));
        rows.push(Row::counter(names::CONTROL_AWAY, &[], away));
    }
    let Some(store) = identity else {
        return rows;
    };
    for (result, count) in [
        ("success", store.attempts().received()),
        ("failure", store.attempts().failed()),
    ] {
        let labels = [(names::LABEL_RESULT, result.into())];
        rows.push(Row::counter(names::CERTIFICATE_ROTATIONS, &labels, count));
    }
    if let Some(identity) = store.current() {
        let ends = since_epoch(identity.not_after);
        rows.push(Row::gauge(names::CERTIFICATE_EXPIRY, &[], ends));
    }
    rows
}

fn since_epoch(time: SystemTime) -> Number {
    Number::Whole(
        time.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs(),
    )
}

#[cfg(test)]
mod tests {
    use rajut_runtime::Clock;

    use super::*;

    #[test]
    fn time_without_a_control_plane_adds_up() {
        let link = ControlLink::default();
        let start = Clock::system().now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(link.state(at(1)), None, "nobody wants one");
        link.connected(at(1));
        assert_eq!(link.state(at(1)), None);
        link.lost(at(2));
        link.lost(at(4));
        assert_eq!(link.state(at(5)), Some((false, Duration::from_secs(3))));
        link.connected(at(6));
        assert_eq!(link.state(at(9)), Some((true, Duration::from_secs(4))));
        link.lost(at(10));
        assert_eq!(link.state(at(11)), Some((false, Duration::from_secs(5))));
    }

    #[test]
    fn a_process_tells_what_it_uses() {
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let rows = rows(&ControlLink::default(), None, Clock::system().now(), started);
        let of = |name: &str| rows.iter().find(|row| row.name == name).map(|row| row.value);
        assert!(matches!(of(names::PROCESS_MEMORY), Some(Number::Whole(bytes)) if bytes > 1 << 20));
        assert!(matches!(of(names::PROCESS_CPU), Some(Number::Thousandths(_))));
        assert_eq!(of(names::PROCESS_START), Some(Number::Whole(7)));
        assert_eq!(of(names::CONTROL_CONNECTED), None);
    }
}
