//! What is measured, beside the standard.

use rajut_types::{Labels, Origin, Text, tag::TagValue};

/// Changes of the standard metrics. Source: Istio `Telemetry`.
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
