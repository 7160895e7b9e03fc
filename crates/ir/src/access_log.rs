//! Access logs as configured.

use rajut_types::Text;

/// One access log. Source: Envoy `access_loggers.file.v3.FileAccessLog` and `stream.v3.StdoutAccessLog`.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// Where lines go.
    pub sink: LogSink,
    /// How they look.
    pub format: LogFormat,
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogSink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to a file.
    File(Text),
}

/// How a log line looks; the operators (`%START_TIME%` …) are parsed by `telemetry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFormat {
    /// A text with operators; the line's end is part of it.
    Text(Text),
    /// One JSON object a line: key → text with operators, in this order.
    Json(Vec<(Text, Text)>),
    /// Envoy's default text format.
    Default,
}
