//! Logging of a process: `tracing` to standard error, as text or JSON, with a filter that can be changed while the
//! process runs (the admin port's `/logging`).
//!
//! Access logs do not pass here; they are written by `telemetry`.

use std::sync::OnceLock;

use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

/// How lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not in `tracing`'s directive syntax.
    #[error("`{filter}` is not a log filter: {reason}")]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another subscriber was installed before.
    #[error("logging is already set up in this process")]
    AlreadySet,
    /// [`set_filter`] before [`init`].
    #[error("logging is not set up in this process")]
    NotSet,
}

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Installs the process's subscriber.
pub fn init(filter: &str, format: Format) -> Result<(), LoggingError> {
    let (filter, handle) = reload::Layer::new(parse_filter(filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        Format::Text => lines.with_ansi(false).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|_| LoggingError::AlreadySet)?;
    FILTER.set(handle).map_err(|_| LoggingError::AlreadySet)
}

/// Changes the filter of the running process.
pub fn set_filter(filter: &str) -> Result<(), LoggingError> {
    let filter = parse_filter(filter)?;
    FILTER
        .get()
        .ok_or(LoggingError::NotSet)?
        .reload(filter)
        .map_err(|_| LoggingError::NotSet)
}

/// The filter in force.
pub fn filter() -> Option<String> {
    FILTER.get()?.with_current(ToString::to_string).ok()
}

fn parse_filter(text: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::try_new(text).map_err(|error| LoggingError::Filter {
        filter: text.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_changes_while_the_process_runs_and_nonsense_is_refused() {
        assert!(matches!(set_filter("info"), Err(LoggingError::NotSet)));
        init("warn", Format::Json).expect("the first subscriber of this process");
        assert!(!tracing::enabled!(tracing::Level::DEBUG));
        set_filter("debug").expect("a valid filter");
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        assert_eq!(filter().as_deref(), Some("debug"));
        assert!(matches!(set_filter("a=b=c"), Err(LoggingError::Filter { .. })));
        assert!(matches!(
            init("info", Format::Text),
            Err(LoggingError::AlreadySet)
        ));
    }
}
