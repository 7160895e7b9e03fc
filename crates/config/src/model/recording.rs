//! What the recorder keeps of requests.

use rajut_types::{Percent, Text};

/// What is recorded of requests, and for how long. Source: `defaultConfig.proxyMetadata` of the mesh configuration, keys
/// [`Recording::KEYS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Requests that a policy refuses; default true.
    pub refused: bool,
    /// The share of all others; default none.
    pub share: Percent,
    /// Regular expressions of the segments of paths that are identifiers. Empty: those with a digit, but for versions (`v1`).
    pub identifiers: Vec<Text>,
    /// Headers whose digest is recorded, lower case.
    pub headers: Vec<Text>,
    /// How long it is kept; default 7.
    pub days: u32,
    /// How much is kept; default 256.
    pub megabytes: u32,
}

impl Recording {
    /// `off`, `refused`, `all`, or a percentage of those that are let through.
    pub const MODE_KEY: &str = "RAJUT_RECORD";
    /// Regular expressions with blanks between them.
    pub const IDENTIFIERS_KEY: &str = "RAJUT_RECORD_IDENTIFIERS";
    /// Names of headers with commas between them.
    pub const HEADERS_KEY: &str = "RAJUT_RECORD_HEADERS";
    /// A number of days.
    pub const DAYS_KEY: &str = "RAJUT_RECORD_DAYS";
    /// A number of megabytes.
    pub const MEGABYTES_KEY: &str = "RAJUT_RECORD_MEGABYTES";
    /// All of them.
    pub const KEYS: [&str; 5] = [
        Self::MODE_KEY,
        Self::IDENTIFIERS_KEY,
        Self::HEADERS_KEY,
        Self::DAYS_KEY,
        Self::MEGABYTES_KEY,
    ];

    /// Whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.refused || self.share != Percent::NONE
    }
}

impl Default for Recording {
    fn default() -> Self {
        Self {
            refused: true,
            share: Percent::NONE,
            identifiers: Vec::new(),
            headers: Vec::new(),
            days: 7,
            megabytes: 256,
        }
    }
}
