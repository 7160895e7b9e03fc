//! Istio's standard metrics of a listener: who is told about what passes through it.
//!
//! The filter only looks on; it stands before the router of a connection manager, or before the TCP proxy of a chain.
//! Which reporter it is follows from the listener's direction.

use std::time::Duration;

/// Source: Istio `stats.PluginConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IstioStats {
    /// Where the service is not known, the host that the client asked for stands in.
    pub host_fallback: bool,
    /// Time between two reports of an open TCP connection; Istio's default is 15 s.
    pub tcp_reporting: Duration,
}

/// Istio: `PluginConfig.tcp_reporting_duration`.
pub const TCP_REPORTING: Duration = Duration::from_secs(15);

/// The shortest time between two reports that is taken; shorter ones are this.
pub const TCP_REPORTING_MIN: Duration = Duration::from_millis(100);

impl Default for IstioStats {
    fn default() -> Self {
        Self {
            host_fallback: true,
            tcp_reporting: TCP_REPORTING,
        }
    }
}
