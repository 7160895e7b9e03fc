//! Time as an argument: [`Clock`] is the machine's, or one that a test turns by hand.
//!
//! The only place that calls `Instant::now` and `SystemTime::now`. It does not sleep: waiting is tokio's.
#![expect(clippy::disallowed_methods, reason = "the one place that reads the clocks")]

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// Monotonic and wall time.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<Mutex<Manual>>>);

#[derive(Debug)]
struct Manual {
    instant: Instant,
    wall: SystemTime,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `wall` until [`Clock::advance`] turns it.
    pub fn manual(wall: SystemTime) -> Self {
        Self(Some(Arc::new(Mutex::new(Manual {
            instant: Instant::now(),
            wall,
        }))))
    }

    /// Monotonic time.
    pub fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(manual) => manual.lock().unwrap_or_else(PoisonError::into_inner).instant,
        }
    }

    /// Wall time.
    pub fn wall(&self) -> SystemTime {
        match &self.0 {
            None => SystemTime::now(),
            Some(manual) => manual.lock().unwrap_or_else(PoisonError::into_inner).wall,
        }
    }

    /// Turns a manual clock forward; the machine's clock does not care.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.0 {
            let mut manual = manual.lock().unwrap_or_else(PoisonError::into_inner);
            manual.instant += by;
            manual.wall += by;
        }
    }
}

/// A time as RFC 3339 text in UTC, to the second, as every interface of ours shows times.
pub fn rfc3339(time: SystemTime) -> String {
    let second = time::OffsetDateTime::from(time)
        .replace_millisecond(0)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    second
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_until_it_is_turned() {
        let clock = Clock::manual(SystemTime::UNIX_EPOCH);
        let before = clock.now();
        assert_eq!(clock.now(), before);
        clock.clone().advance(Duration::from_secs(3));
        assert_eq!(clock.now() - before, Duration::from_secs(3));
        assert_eq!(clock.wall(), SystemTime::UNIX_EPOCH + Duration::from_secs(3));
    }
}
