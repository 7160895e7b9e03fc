//! The time of this wake-up: one reading of the clock serves everything that one turn of a worker's reactor set off.
//!
//! Deadlines, idle times and the durations in logs are kept in milliseconds and longer, and reading the clock is felt
//! when every request does it eight times. A worker's runtime calls [`woke`] whenever it comes back from waiting; the
//! first [`now`] after that reads. Where nothing calls it (another thread, a test) every call reads.
//!
//! Bounds: a reading serves at most [`USES_MAX`] calls, so that a worker that never waits still sees time pass.

use std::cell::Cell;

use tokio::time::Instant;

/// A few requests' worth: a tenth of a millisecond of work or so.
const USES_MAX: u32 = 16;

thread_local! {
    // Calls that the reading still serves, and the reading.
    static READING: Cell<Option<(u32, Instant)>> = const { Cell::new(None) };
    static KEEPS: Cell<bool> = const { Cell::new(false) };
}

/// The thread's runtime came back from waiting (and will say so each time).
pub(crate) fn woke() {
    KEEPS.set(true);
    READING.set(None);
}

/// The time, as of this wake-up.
pub(crate) fn now() -> Instant {
    if let Some((left, reading)) = READING.get()
        && let Some(left) = left.checked_sub(1)
    {
        READING.set(Some((left, reading)));
        return reading;
    }
    let reading = Instant::now();
    if KEEPS.get() {
        READING.set(Some((USES_MAX, reading)));
    }
    reading
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own: what a thread keeps stays with it.
    fn on_a_thread(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn a_thread_that_nobody_wakes_reads_each_time() {
        on_a_thread(|| {
            let first = now();
            while Instant::now() == first {}
            assert!(now() > first);
        });
    }

    #[test]
    fn a_reading_lasts_until_the_next_wake_up_and_not_for_ever() {
        on_a_thread(|| {
            woke();
            let first = now();
            while Instant::now() == first {}
            assert_eq!(now(), first);
            woke();
            let second = now();
            assert!(second > first);
            while Instant::now() == second {}
            let same = (0..2 * USES_MAX).filter(|_| now() == second).count();
            assert_eq!(same, USES_MAX as usize, "then it was read again");
        });
    }
}
