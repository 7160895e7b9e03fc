//! Growing pauses between attempts, with full jitter so that a thousand proxies do not return in one instant.
//!
//! A pure machine: it says how long to wait and never waits. The n-th pause is drawn evenly from
//! `[half, whole]` of `base · 2ⁿ`, capped at `max`.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Says how long to wait before the next attempt.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    attempt: u32,
    state: u64,
}

impl Backoff {
    /// Pauses from `base` to `max`; the seed makes the jitter.
    pub fn new(base: Duration, max: Duration, seed: u64) -> Self {
        Self {
            base,
            max,
            attempt: 0,
            state: seed | 1,
        }
    }

    /// As [`Backoff::new`], seeded by the process's randomness.
    pub fn seeded(base: Duration, max: Duration) -> Self {
        Self::new(base, max, RandomState::new().hash_one(0))
    }

    /// The next pause; each is about twice the one before.
    pub fn pause(&mut self) -> Duration {
        let whole = self
            .base
            .saturating_mul(1_u32.checked_shl(self.attempt).unwrap_or(u32::MAX))
            .min(self.max);
        self.attempt = self.attempt.saturating_add(1).min(30);
        whole / 2 + (whole / 2).mul_f64(self.draw())
    }

    /// It worked: the next pause is the shortest again.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// An even draw from `0.0..1.0`, for other jitter of the same owner.
    pub fn draw(&mut self) -> f64 {
        // xorshift64*: enough for jitter, never for secrets.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        // The upper half of 64 bits always fits.
        let high = u32::try_from(self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32).unwrap_or(u32::MAX);
        f64::from(high) / f64::from(u32::MAX).next_up()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_start_again_after_a_reset() {
        let (base, max) = (Duration::from_millis(100), Duration::from_secs(5));
        for seed in 0..200 {
            let mut backoff = Backoff::new(base, max, seed);
            for attempt in 0..40 {
                let whole = base.saturating_mul(1 << attempt.min(20)).min(max);
                let pause = backoff.pause();
                assert!(
                    pause >= whole / 2 && pause <= whole,
                    "{attempt}: {pause:?} of {whole:?}"
                );
            }
            backoff.reset();
            assert!(backoff.pause() <= base);
        }
    }
}
