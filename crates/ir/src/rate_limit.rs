//! Local rate limits: the filter's configuration, and the actions by which routes name what a request is counted under.
//!
//! A request's route (or the filter itself) has lists of actions; each list makes a descriptor of keys and values out of
//! the request, or none. The filter has token buckets for some descriptors and one for every request. Source: Envoy
//! `local_ratelimit.v3.LocalRateLimit`, `route.v3.RateLimit`.
//!
//! Pure and validated; the buckets themselves live in the proxy.

use std::time::Duration;

use rajut_types::{Percent, Text};

use crate::{matcher::HeaderMatcher, route::HeaderValue};

/// The filter. Source: Envoy `local_ratelimit.v3.LocalRateLimit`.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, as the message has them"
)]
pub struct LocalRateLimit {
    /// Prefix of statistics.
    pub stat_prefix: Text,
    /// The answer, 400 to 599; Envoy's default is 429.
    pub status: u16,
    /// For every request; `None` counts nothing (a filter that only routes configure).
    pub bucket: Option<TokenBucket>,
    /// Share of requests that are looked at; Envoy's default is none.
    pub enabled: Percent,
    /// Share of requests over the limit that are refused; Envoy's default is none.
    pub enforced: Percent,
    /// Set on requests over the limit that are not refused.
    pub request_headers_when_not_enforced: Vec<HeaderValue>,
    /// Set on refusals.
    pub response_headers: Vec<HeaderValue>,
    /// Buckets for some descriptors.
    pub descriptors: Vec<DescriptorLimit>,
    /// Only actions of this stage count.
    pub stage: u32,
    /// Each connection has buckets of its own.
    pub per_connection: bool,
    /// Responses carry `x-ratelimit-limit`, `-remaining` and `-reset`.
    pub x_ratelimit_headers: bool,
    /// Whether the virtual host's actions count.
    pub virtual_host: VirtualHostLimits,
    /// A request that a descriptor's bucket let pass takes from the one for every request too.
    pub always_consume_default: bool,
    /// A gRPC client gets `RESOURCE_EXHAUSTED` instead of `UNAVAILABLE`.
    pub resource_exhausted: bool,
    /// In place of the route's actions, where not empty.
    pub rate_limits: Vec<RateLimit>,
    /// Buckets that one descriptor with open values may have at a time; Envoy's default is 20.
    pub dynamic_max: u32,
    /// Refusals with the status 429 carry `retry-after`.
    pub retry_after: bool,
}

/// Envoy's default of [`LocalRateLimit::dynamic_max`].
pub const DYNAMIC_MAX: u32 = 20;

/// Whether the actions of a virtual host count beside those of the route. Source: Envoy `VhRateLimitsOptions`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VirtualHostLimits {
    /// Where the route has none.
    #[default]
    Override,
    /// Always.
    Include,
    /// Never.
    Ignore,
}

/// A token bucket. Source: Envoy `type.v3.TokenBucket`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    /// Tokens that it holds at most, and at first.
    pub max_tokens: u32,
    /// Tokens that come in each interval, at least 1.
    pub tokens_per_fill: u32,
    /// At least 50 ms.
    pub fill_interval: Duration,
}

/// A bucket for one descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescriptorLimit {
    /// Keys and values, all of them and in this order; no text is empty. `None`: any value, each with a bucket of its own.
    pub entries: Vec<(Text, Option<Text>)>,
    /// Its bucket.
    pub bucket: TokenBucket,
}

impl DescriptorLimit {
    /// Whether it has a bucket for each value of some entry.
    pub fn is_open(&self) -> bool {
        self.entries.iter().any(|(_, value)| value.is_none())
    }
}

/// A list of actions that makes one descriptor. Source: Envoy `route.v3.RateLimit`.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// For filters of this stage, 0 to 10.
    pub stage: u32,
    /// One entry each; at least one.
    pub actions: Vec<RateLimitAction>,
}

/// The one expression that an entry may be made of.
pub const PEER_IDENTITY: &str = "connection.uri_san_peer_certificate";

/// Makes an entry of a descriptor. Source: Envoy `route.v3.RateLimit.Action`.
#[derive(Debug, Clone, PartialEq)]
pub enum RateLimitAction {
    /// The value of a request header; without the header the whole descriptor falls away, or with `skip` this entry.
    RequestHeader {
        /// Lower case.
        name: Text,
        /// The entry's key.
        key: Text,
        /// Only this entry falls away.
        skip: bool,
    },
    /// `remote_address`: the client's address.
    RemoteAddress,
    /// The identity of the caller: the URI of its certificate. Without one the whole descriptor falls away, or with `skip` this
    /// entry. Source: Envoy `rate_limit_descriptors.expr.v3.Descriptor` with [`PEER_IDENTITY`].
    PeerIdentity {
        /// The entry's key.
        key: Text,
        /// Only this entry falls away.
        skip: bool,
    },
    /// `destination_cluster`: the cluster that the route names.
    DestinationCluster,
    /// A fixed entry.
    GenericKey {
        /// The entry's key; Envoy's default is `generic_key`.
        key: Text,
        /// Its value.
        value: Text,
    },
    /// A fixed entry, where the headers match (or, with `expect` false, do not).
    HeaderValueMatch {
        /// The entry's key; Envoy's default is `header_match`.
        key: Text,
        /// Its value.
        value: Text,
        /// Whether they must match.
        expect: bool,
        /// At least one.
        headers: Vec<HeaderMatcher>,
    },
}
