//! The configuration of Istio's filter of standard metrics (`istio.stats`), HTTP and TCP alike.
//!
//! Source: Istio `stats.PluginConfig`. The descriptors come from `proto/istio/stats.proto`, which says the same.

use std::collections::BTreeMap;

use crate::google::protobuf::Duration;

/// `stats.PluginConfig`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PluginConfig {
    /// The host header does not stand in where the service is not known.
    #[prost(bool, tag = "6")]
    pub disable_host_header_fallback: bool,
    /// Time between two reports of an open TCP connection; Istio's default is 15 s.
    #[prost(message, optional, tag = "7")]
    pub tcp_reporting_duration: Option<Duration>,
    /// What differs from the standard, in order; later entries win.
    #[prost(message, repeated, tag = "8")]
    pub metrics: Vec<MetricConfig>,
    /// Metrics beside the standard ones.
    #[prost(message, repeated, tag = "9")]
    pub definitions: Vec<MetricDefinition>,
    /// 1: a shared gateway before its services.
    #[prost(int32, tag = "10")]
    pub reporter: i32,
    /// Time after which unused series go.
    #[prost(message, optional, tag = "11")]
    pub rescoping_duration: Option<Duration>,
    /// How long they still are told.
    #[prost(message, optional, tag = "12")]
    pub scope_grace_period_duration: Option<Duration>,
}

impl prost::Name for PluginConfig {
    const NAME: &'static str = "PluginConfig";
    const PACKAGE: &'static str = "stats";
}

/// `stats.MetricConfig`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MetricConfig {
    /// Label → expression; sorted, so that the encoding is the same each time.
    #[prost(btree_map = "string, string", tag = "1")]
    pub dimensions: BTreeMap<String, String>,
    /// The metric without `istio_`; empty is all.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Labels that go.
    #[prost(string, repeated, tag = "3")]
    pub tags_to_remove: Vec<String>,
    /// Not implemented anywhere.
    #[prost(string, tag = "4")]
    pub r#match: String,
    /// The metric goes.
    #[prost(bool, tag = "5")]
    pub drop: bool,
}

/// `stats.MetricDefinition`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct MetricDefinition {
    /// Its name without `istio_`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// An expression.
    #[prost(string, tag = "2")]
    pub value: String,
    /// 0 counter, 1 gauge, 2 histogram.
    #[prost(int32, tag = "3")]
    pub r#type: i32,
}
