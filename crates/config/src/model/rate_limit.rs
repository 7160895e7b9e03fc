//! How many requests a workload takes.

use std::time::Duration;

use rajut_types::{Labels, Origin, Text};

use super::{PathPattern, Wild};

/// Our `RateLimitPolicy`: limits that each of the workload's sidecars keeps for itself.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimitPolicy {
    /// Its name.
    pub name: Text,
    /// Its namespace; the root namespace makes it mesh-wide.
    pub namespace: Text,
    /// `None`: the whole namespace (or mesh).
    pub selector: Option<Labels>,
    /// What is over a limit is counted and let through.
    pub shadow: bool,
    /// All of them hold, each for the requests that it is about.
    pub limits: Vec<RateLimit>,
    /// Where.
    pub origin: Origin,
    /// Smaller is older.
    pub age: u64,
}

/// A number of requests in a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Unique in the policy.
    pub name: Text,
    /// How many requests pass in each window, at least 1.
    pub requests: u32,
    /// The window, 1 s to 24 h. What is used up comes back evenly over it.
    pub per: Duration,
    /// How many may come at once, at least 1.
    pub burst: u32,
    /// Every value has a count of its own; empty: one count.
    pub keys: Vec<LimitKey>,
    /// Which requests are counted.
    pub matched: LimitedRequests,
}

/// By what requests are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitKey {
    /// The caller's identity; callers without one share a count.
    Identity,
    /// The caller's address.
    Address,
    /// The value of a header, lower case; requests without it share a count.
    Header(Text),
}

/// Requests for which everything holds that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitedRequests {
    /// One of these; empty: any.
    pub methods: Vec<Text>,
    /// One of these, query aside; empty: any.
    pub paths: Vec<PathPattern>,
    /// All of these, by their names in lower case.
    pub headers: Vec<(Text, Wild)>,
}
