//! What is measured, logged and traced, beside the standard.

use rajut_types::{Labels, Origin, Percent, Text, condition::Condition, tag::TagValue};

use super::LogFile;

/// What is told of calls. Source: Istio `Telemetry`.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// Its name.
    pub name: Text,
    /// Its namespace; the root namespace makes it mesh-wide.
    pub namespace: Text,
    /// `None`: the whole namespace (or mesh).
    pub selector: Option<Labels>,
    /// It is meant for one target (`targetRefs`), which nothing follows: it must not hold for all.
    pub targeted: bool,
    /// In order; later ones win.
    pub overrides: Vec<MetricChange>,
    /// In order; later ones win.
    pub logging: Vec<LogRule>,
    /// In order; later ones win.
    pub tracing: Vec<TraceRule>,
    /// Where.
    pub origin: Origin,
    /// Smaller is older.
    pub age: u64,
}

/// A change of one metric, or of all. Source: Istio `MetricsOverrides`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MetricChange {
    /// At which ends.
    pub ends: Ends,
    /// Its name without `istio_`; `None`: all.
    pub metric: Option<Text>,
    /// Whether it is left out; `None` leaves that to the wider levels.
    pub disabled: Option<bool>,
    /// Label → its value; `None` takes the label out.
    pub tags: Vec<(Text, Option<TagValue>)>,
}

/// Which end of a call is meant. Source: Istio `WorkloadMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ends {
    /// Both.
    Both,
    /// The client's.
    Client,
    /// The server's.
    Server,
}

impl Ends {
    /// Whether the client's (or the server's) end is meant.
    pub const fn includes(self, client: bool) -> bool {
        match self {
            Self::Both => true,
            Self::Client => client,
            Self::Server => !client,
        }
    }
}

/// What is said of access logs. Source: Istio `AccessLogging`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRule {
    /// At which ends.
    pub ends: Ends,
    /// Names of providers; none: those of the wider level.
    pub providers: Vec<Text>,
    /// Nothing is logged.
    pub disabled: bool,
    /// What is logged; `None` leaves that to the wider levels.
    pub filter: Option<Condition>,
    /// Where.
    pub origin: Origin,
}

/// What is said of traces; each field that is set wins over wider levels. Source: Istio `Tracing`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceRule {
    /// At which ends.
    pub ends: Ends,
    /// Name of the provider.
    pub provider: Option<Text>,
    /// Of requests whose trace begins here.
    pub sampling: Option<Percent>,
    /// No spans are reported.
    pub disabled: Option<bool>,
    /// Attributes of spans; replaces those of wider levels.
    pub tags: Vec<(Text, SpanTag)>,
    /// Whether spans have the attributes `istio.*`.
    pub has_istio_tags: Option<bool>,
    /// Where.
    pub origin: Origin,
}

/// The value of a span's attribute. Source: Istio `Tracing.CustomTag`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SpanTag {
    /// Fixed.
    Literal(Text),
    /// A header of the request.
    Header {
        /// Lower case.
        name: Text,
        /// Where it is missing; empty leaves the attribute out.
        default: Text,
    },
}

/// What is told of a workload's calls, levels and mesh-wide settings merged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Observed {
    /// Changes of its metrics; later ones win.
    pub metrics: Vec<MetricChange>,
    /// Access logs of calls that it makes.
    pub client_logs: Vec<Logged>,
    /// Access logs of calls that it serves.
    pub server_logs: Vec<Logged>,
    /// Spans of calls that it makes.
    pub client_traces: Option<Traced>,
    /// Spans of calls that it serves.
    pub server_traces: Option<Traced>,
}

/// One access log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Logged {
    /// Where lines go and how they look.
    pub log: LogFile,
    /// What is logged; `None`: everything.
    pub filter: Option<Condition>,
}

/// How calls are traced.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Traced {
    /// Where spans go.
    pub collector: super::Collector,
    /// Of requests whose trace begins here.
    pub sampling: Percent,
    /// Attributes of spans.
    pub tags: Vec<(Text, SpanTag)>,
    /// Whether spans have the attributes `istio.*`.
    pub has_istio_tags: bool,
    /// Bytes of the path in `http.url`.
    pub max_path_length: u32,
}
