//! Istio's standard metrics of a listener: who is told about what passes through it.
//!
//! The filter only looks on; it stands before the router of a connection manager, or before the TCP proxy of a chain.
//! Which reporter it is follows from the listener's direction.

use std::time::Duration;

use rajut_types::{Text, tag::TagValue};

/// Source: Istio `stats.PluginConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IstioStats {
    /// Where the service is not known, the host that the client asked for stands in.
    pub host_fallback: bool,
    /// Time between two reports of an open TCP connection; Istio's default is 15 s.
    pub tcp_reporting: Duration,
    /// What differs from the standard, in order; later entries win.
    pub metrics: Vec<MetricOverride>,
}

/// What differs of one metric, or of all. Source: Istio `stats.MetricConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricOverride {
    /// `None`: all of them.
    pub metric: Option<Metric>,
    /// It is not told.
    pub drop: bool,
    /// Labels that go.
    pub remove: Vec<Text>,
    /// Labels that come, or get another value; sorted by name.
    pub set: Vec<(Text, TagValue)>,
}

/// The standard metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is Istio's metric of that name")]
pub enum Metric {
    Requests,
    Duration,
    RequestBytes,
    ResponseBytes,
    RequestMessages,
    ResponseMessages,
    TcpOpened,
    TcpClosed,
    TcpSent,
    TcpReceived,
}

impl Metric {
    /// All, in the order in which they are told.
    pub const ALL: [Self; 10] = [
        Self::Requests,
        Self::Duration,
        Self::RequestBytes,
        Self::ResponseBytes,
        Self::RequestMessages,
        Self::ResponseMessages,
        Self::TcpOpened,
        Self::TcpClosed,
        Self::TcpSent,
        Self::TcpReceived,
    ];

    /// Its name without `istio_`, as configurations write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests_total",
            Self::Duration => "request_duration_milliseconds",
            Self::RequestBytes => "request_bytes",
            Self::ResponseBytes => "response_bytes",
            Self::RequestMessages => "request_messages_total",
            Self::ResponseMessages => "response_messages_total",
            Self::TcpOpened => "tcp_connections_opened_total",
            Self::TcpClosed => "tcp_connections_closed_total",
            Self::TcpSent => "tcp_sent_bytes_total",
            Self::TcpReceived => "tcp_received_bytes_total",
        }
    }

    /// The metric of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }
}

impl IstioStats {
    /// The values of labels that depend on the request, each once.
    pub fn attributes(&self) -> Vec<TagValue> {
        let mut all: Vec<TagValue> = self
            .metrics
            .iter()
            .flat_map(|metric| &metric.set)
            .map(|(_, value)| value.clone())
            .filter(|value| !matches!(value, TagValue::Literal(_)))
            .collect();
        all.sort();
        all.dedup();
        all
    }
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
            metrics: Vec::new(),
        }
    }
}
