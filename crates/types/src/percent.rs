//! Shares of a whole.

/// A share between 0 and 100 %, kept in millionths so that Istio's `0.0001` is exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Percent(u32);

/// A number outside `0..=100`.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} is not a percentage: write a number from 0 to 100")]
pub struct InvalidPercent(pub f64);

impl std::fmt::Display for Percent {
    /// `12.5 %`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} %", f64::from(self.0) / 10_000.0)
    }
}

impl Percent {
    /// None of it.
    pub const NONE: Self = Self(0);
    /// All of it.
    pub const ALL: Self = Self(1_000_000);

    /// From a number between 0 and 100.
    pub fn new(percent: f64) -> Result<Self, InvalidPercent> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(InvalidPercent(percent));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded by the check above"
        )]
        Ok(Self((percent * 10_000.0).round() as u32))
    }

    /// From a numerator out of a million; more counts as all of it.
    pub fn from_millionths(millionths: u32) -> Self {
        Self(millionths.min(1_000_000))
    }

    /// The numerator out of a million.
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// Whether a draw, uniform in `0..1_000_000`, falls inside the share.
    pub fn includes(self, draw: u32) -> bool {
        draw < self.0
    }
}
