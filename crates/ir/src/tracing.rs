//! Tracing of a connection manager: which requests are traced, what their spans tell, where spans go.

use std::time::Duration;

use rajut_types::{Percent, Text};

/// Source: Envoy `HttpConnectionManager.Tracing`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// Of requests that ask for it with `x-client-trace-id`; Envoy's default is all.
    pub client: Percent,
    /// Of all requests; Envoy's default is all.
    pub random: Percent,
    /// Of those chosen by the two others or forced; Envoy's default is all.
    pub overall: Percent,
    /// Bytes of the path in `http.url`; Envoy's default is 256.
    pub max_path_length: u32,
    /// Attributes of every span.
    pub tags: Vec<CustomTag>,
    /// Where spans go; `None`: only the decision is made, and told in `x-request-id`.
    pub provider: Option<OpenTelemetry>,
}

/// An attribute of spans. Source: Envoy `type.tracing.v3.CustomTag`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomTag {
    /// Its key.
    pub tag: Text,
    /// Its value.
    pub value: TagValue,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagValue {
    /// Fixed.
    Literal(Text),
    /// That of a request header.
    RequestHeader {
        /// Lower case.
        name: Text,
        /// Where the header is missing; empty leaves the attribute out.
        default: Text,
    },
}

/// Spans by OTLP over gRPC. Source: Envoy `config.trace.v3.OpenTelemetryConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OpenTelemetry {
    /// The collector.
    pub cluster: Text,
    /// `:authority` of the export; empty is the cluster's name.
    pub authority: Text,
    /// For one export; `None` is no bound of its own.
    pub timeout: Option<Duration>,
    /// `service.name`; Envoy's default is `unknown_service:envoy`.
    pub service_name: Text,
}
