//! Access logs as they run: which requests and connections a log has, how its lines look, where they go.
//!
//! A line is made when a request or a connection is over, by its record ([`crate::http::record`], [`crate::tcp::record`]),
//! on the worker's thread and into its buffer; the writer's thread does the rest. A filter is asked before anything of a
//! line is made.
//!
//! Does not: gRPC and OpenTelemetry as sinks.

use std::{path::PathBuf, sync::Arc};

use rajut_ir::access_log::{AccessLog, JsonFormat, LogFilter, LogFormat, LogSink};
use rajut_telemetry::{
    format::{ENVOY_DEFAULT, Format, FormatError, Json, Record},
    log::{Sink, Writer},
};
use rajut_types::condition::{Condition, Facts};

use crate::stats::Registry;

/// Why a log can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its format has an operator that is not supported.
    #[error("access_log: {0}")]
    Format(#[from] FormatError),
    /// Its sink can't be opened.
    #[error("access_log: {path}: {source}")]
    Sink {
        /// The sink.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    format: Format,
    writer: Arc<Writer>,
    filter: Option<Condition>,
}

impl Log {
    /// Parses the format, opens the sink.
    fn open(log: &AccessLog, registry: &Registry) -> Result<Self, OpenError> {
        let format = match &log.format {
            LogFormat::Text(text) => Format::text(text)?,
            LogFormat::Json(fields) => Format::Json(json_object(fields)?),
            LogFormat::Default => Format::text(ENVOY_DEFAULT)?,
        };
        let sink = match &log.sink {
            LogSink::Stdout => Sink::Stdout,
            LogSink::Stderr => Sink::Stderr,
            LogSink::File(path) => match &**path {
                "/dev/stdout" => Sink::Stdout,
                "/dev/stderr" => Sink::Stderr,
                path => Sink::File(PathBuf::from(path)),
            },
        };
        let writer = registry.writers().open(&sink, registry.workers());
        Ok(Self {
            format,
            writer: writer.map_err(|source| OpenError::Sink {
                path: format!("{sink:?}"),
                source,
            })?,
            filter: match &log.filter {
                Some(LogFilter::Condition(condition)) => Some(condition.clone()),
                // Its owner asks it for nothing else.
                Some(LogFilter::NoRoute) | None => None,
            },
        })
    }

    /// Writes the line of a request or connection that is over, if the log has it.
    pub(crate) fn write(&self, worker: usize, record: &(impl Record + Facts)) {
        if self.filter.as_ref().is_none_or(|filter| filter.holds(record)) {
            self.writer.line(worker, |out| self.format.render(record, out));
        }
    }
}

/// Opens the logs of a connection manager, a TCP proxy or a listener.
pub(crate) fn open_all(logs: &[AccessLog], registry: &Registry) -> Result<Vec<Log>, OpenError> {
    logs.iter().map(|log| Log::open(log, registry)).collect()
}

fn json_object(fields: &[(rajut_types::Text, JsonFormat)]) -> Result<Json, FormatError> {
    let values: Result<Vec<_>, _> = fields
        .iter()
        .map(|(key, value)| Ok((&**key, json_value(value)?)))
        .collect();
    values.map(Json::object)
}

fn json_value(value: &JsonFormat) -> Result<Json, FormatError> {
    Ok(match value {
        JsonFormat::Text(text) => Json::text(text)?,
        JsonFormat::Number(number) => Json::Literal(serde_json::Value::from(*number).to_string().into()),
        JsonFormat::Truth(truth) => Json::Literal(truth.to_string().into()),
        JsonFormat::Null => Json::Literal("null".into()),
        JsonFormat::Object(fields) => json_object(fields)?,
        JsonFormat::List(items) => Json::List(items.iter().map(json_value).collect::<Result<_, _>>()?),
    })
}
