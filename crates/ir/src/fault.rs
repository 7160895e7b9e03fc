//! Faults on purpose: some requests wait, some are answered with an error. Source: Envoy `fault.v3.HTTPFault`.
//!
//! Pure and validated; who waits and who counts is in the proxy. Delay and refusal are drawn apart from each other; a
//! request that meets both waits first.

use std::time::Duration;

use rajut_types::{Percent, Text};

use crate::matcher::HeaderMatcher;

/// What the filter does. The default does nothing: a filter that only routes configure.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaultInjection {
    /// Requests wait.
    pub delay: Option<Delay>,
    /// Requests are answered in place.
    pub abort: Option<Abort>,
    /// Only requests for this cluster; empty is any.
    pub upstream_cluster: Text,
    /// Only requests whose headers match all of these.
    pub headers: Vec<HeaderMatcher>,
    /// Only requests whose `x-envoy-downstream-service-node` is one of these; empty is any.
    pub downstream_nodes: Vec<Text>,
    /// Faults under way at most, in all of the connection manager; `None` is the proxy's own bound.
    pub max_active: Option<u32>,
}

/// Requests wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// How long; more than nothing.
    pub fixed: Duration,
    /// How many.
    pub share: Percent,
}

/// Requests are answered in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abort {
    /// With what.
    pub status: AbortStatus,
    /// How many.
    pub share: Percent,
}

/// The answer to a request that is refused on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortStatus {
    /// An HTTP status, 200 to 599.
    Http(u16),
    /// A gRPC status; whoever does not speak gRPC gets a 200.
    Grpc(u8),
}

impl FaultInjection {
    /// Whether it can do nothing at all.
    pub const fn is_nothing(&self) -> bool {
        self.delay.is_none() && self.abort.is_none()
    }
}
