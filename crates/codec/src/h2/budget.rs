//! How much of what costs us and brings nothing a peer may send. The machine has no clock: the caller tells it the time in
//! seconds, and every ten of them the counts begin anew.

use super::{Config, DecodeError};

/// Seconds after which the counts begin anew.
const PERIOD: u64 = 10;

/// Counts of one period.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Budget {
    control: u32,
    resets: u32,
    since: u64,
}

impl Budget {
    /// The time in seconds since any fixed moment.
    pub(crate) fn note_time(&mut self, seconds: u64) {
        if seconds.saturating_sub(self.since) >= PERIOD {
            *self = Self {
                since: seconds,
                ..Self::default()
            };
        }
    }

    /// A frame that carries nothing.
    pub(crate) fn control(&mut self, config: &Config) -> Result<(), DecodeError> {
        self.control += 1;
        if self.control > config.max_control_frames {
            return Err(DecodeError::ControlFlood);
        }
        Ok(())
    }

    /// We sent a head or a DATA frame, which the peer may answer with two window updates, a PING by which it measures, and the
    /// reset of a stream that has just ended.
    pub(crate) fn sent(&mut self) {
        self.control = self.control.saturating_sub(4);
    }

    /// A stream that was reset before it was of use.
    pub(crate) fn reset(&mut self, config: &Config) -> Result<(), DecodeError> {
        self.resets += 1;
        if self.resets > config.max_resets {
            return Err(DecodeError::ResetFlood);
        }
        Ok(())
    }
}
