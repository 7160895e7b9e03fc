//! Access logs as configured.

use rajut_types::{Text, condition::Condition};

/// One access log. Source: Envoy `access_loggers.file.v3.FileAccessLog` and `stream.v3.StdoutAccessLog`.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// Where lines go.
    pub sink: LogSink,
    /// How they look.
    pub format: LogFormat,
    /// What is written; `None`: everything.
    pub filter: Option<LogFilter>,
}

/// Which requests and connections a log has. Source: Envoy `config.accesslog.v3.AccessLogFilter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFilter {
    /// Connections that no filter chain takes (`NR`): Istio's filter of a listener's own log.
    NoRoute,
    /// Those that a condition holds for. Source: Envoy `access_loggers.filters.cel.v3.ExpressionFilter`.
    Condition(Condition),
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LogSink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to a file.
    File(Text),
}

/// How a log line looks; the operators (`%START_TIME%` …) are parsed by `telemetry`.
#[derive(Debug, Clone, PartialEq)]
pub enum LogFormat {
    /// A text with operators; the line's end is part of it.
    Text(Text),
    /// One JSON object a line, its keys in this order.
    Json(Vec<(Text, JsonFormat)>),
    /// Envoy's default text format.
    Default,
}

/// A value of a JSON format.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonFormat {
    /// A text with operators; an operator alone keeps its type.
    Text(Text),
    /// As it stands.
    Number(f64),
    /// As it stands.
    Truth(bool),
    /// As it stands.
    Null,
    /// An object inside, its keys in this order.
    Object(Vec<(Text, Self)>),
    /// A list.
    List(Vec<Self>),
}

/// How deep objects and lists may stand in each other.
pub const JSON_DEPTH_MAX: usize = 16;
