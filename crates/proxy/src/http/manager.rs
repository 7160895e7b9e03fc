//! A compiled HTTP connection manager: everything about a listener's HTTP that does not change from request to request.

use std::{path::PathBuf, sync::Arc};

use rajut_ir::{
    access_log::{AccessLog, LogFormat, LogSink},
    filter::HttpFilterKind,
    http::{HttpConnectionManager, RouteSource},
    listener::Direction,
};
use rajut_telemetry::{
    format::{ENVOY_DEFAULT, Format, FormatError},
    log::{Sink, Writer},
};

use super::{
    filters::{Chain, Routes},
    trace::Tracer,
};
use crate::{
    epoch::Config,
    stats::{ManagerStats, Registry, istio::Meter},
};

/// Why a connection manager can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A format has an operator that is not supported.
    #[error("access_log: {0}")]
    Format(#[from] FormatError),
    /// A log can't be opened.
    #[error("access_log: {path}: {source}")]
    Sink {
        /// The sink.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A connection manager as it runs; shared by all workers.
#[derive(Debug)]
pub struct Manager {
    ir: Arc<HttpConnectionManager>,
    stats: Arc<ManagerStats>,
    logs: Vec<(Format, Arc<Writer>)>,
    inline: Option<Arc<Routes>>,
    filters: Chain,
    tracer: Option<Tracer>,
    meter: Option<Meter>,
    suppresses_envoy_headers: bool,
}

impl Manager {
    /// Parses formats, opens logs, compiles routes that are given in place.
    pub fn compile(
        ir: Arc<HttpConnectionManager>,
        direction: Direction,
        registry: &Registry,
    ) -> Result<Arc<Self>, CompileError> {
        let logs = ir
            .access_logs
            .iter()
            .map(|log| open_log(log, registry))
            .collect::<Result<_, _>>()?;
        let stats = registry.manager(&ir.stat_prefix);
        let inline = match &ir.routes {
            RouteSource::Inline(routes) => Some(Arc::new(Routes::compile(routes, registry))),
            RouteSource::Rds(_) => None,
        };
        let suppresses_envoy_headers = ir.filters.iter().any(|filter| match &filter.kind {
            HttpFilterKind::Router(router) => router.suppress_envoy_headers,
            HttpFilterKind::Rbac(_) | HttpFilterKind::LocalRateLimit(_) | HttpFilterKind::IstioStats(_) => {
                false
            }
        });
        let meter = ir.filters.iter().find_map(|filter| match &filter.kind {
            HttpFilterKind::IstioStats(stats) if !filter.disabled => Some(registry.meter(direction, stats)),
            _ => None,
        });
        let filters = Chain::compile(&ir.filters, &ir.stat_prefix, registry);
        Ok(Arc::new(Self {
            stats,
            logs,
            inline,
            filters,
            tracer: ir.tracing.as_ref().map(|it| Tracer::new(it, registry)),
            meter,
            suppresses_envoy_headers,
            ir,
        }))
    }

    /// As configured.
    pub const fn ir(&self) -> &Arc<HttpConnectionManager> {
        &self.ir
    }

    /// Its counters.
    pub fn stats(&self) -> &ManagerStats {
        &self.stats
    }

    /// Its HTTP filters.
    pub(crate) const fn filters(&self) -> &Chain {
        &self.filters
    }

    /// Its tracing.
    pub(crate) const fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_ref()
    }

    /// What it counts Istio's metrics by.
    pub(crate) const fn meter(&self) -> Option<&Meter> {
        self.meter.as_ref()
    }

    /// Its access logs.
    pub fn logs(&self) -> &[(Format, Arc<Writer>)] {
        &self.logs
    }

    /// Whether `x-envoy-*` fields are left out.
    pub const fn suppresses_envoy_headers(&self) -> bool {
        self.suppresses_envoy_headers
    }

    /// The routes: its own, or those of the epoch under its name.
    pub fn routes<'e>(&'e self, config: &'e Config) -> Option<&'e Arc<Routes>> {
        match &self.ir.routes {
            RouteSource::Inline(_) => self.inline.as_ref(),
            RouteSource::Rds(name) => config.routes.get(name),
        }
    }

    /// The name under which it takes routes from the epoch; `None` where they are given in place.
    pub fn route_name(&self) -> Option<&str> {
        match &self.ir.routes {
            RouteSource::Rds(name) => Some(name),
            RouteSource::Inline(_) => None,
        }
    }
}

/// A parsed format and the writer of its sink.
pub fn open_log(log: &AccessLog, registry: &Registry) -> Result<(Format, Arc<Writer>), CompileError> {
    let format = match &log.format {
        LogFormat::Text(text) => Format::text(text)?,
        LogFormat::Json(fields) => Format::json(fields.iter().map(|(key, value)| (&**key, &**value)))?,
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
    let writer = registry
        .writers()
        .open(&sink, registry.workers())
        .map_err(|source| CompileError::Sink {
            path: format!("{sink:?}"),
            source,
        })?;
    Ok((format, writer))
}
