//! A compiled HTTP connection manager: everything about a listener's HTTP that does not change from request to request.

use std::sync::Arc;

use rajut_ir::{
    filter::HttpFilterKind,
    http::{HttpConnectionManager, RouteSource},
    listener::Direction,
};

use super::{
    filters::{Chain, Routes},
    trace::Tracer,
};
use crate::{
    access_log::{self, Log, OpenError},
    epoch::Config,
    recorder::Recorder,
    stats::{ManagerStats, Registry, istio::Meter},
};

/// A connection manager as it runs; shared by all workers.
#[derive(Debug)]
pub struct Manager {
    ir: Arc<HttpConnectionManager>,
    stats: Arc<ManagerStats>,
    logs: Vec<Log>,
    inline: Option<Arc<Routes>>,
    filters: Chain,
    tracer: Option<Tracer>,
    meter: Option<Meter>,
    recorder: Option<Arc<Recorder>>,
    suppresses_envoy_headers: bool,
}

impl Manager {
    /// Parses formats, opens logs, compiles routes that are given in place.
    pub fn compile(
        ir: Arc<HttpConnectionManager>,
        direction: Direction,
        registry: &Registry,
    ) -> Result<Arc<Self>, OpenError> {
        let logs = access_log::open_all(&ir.access_logs, registry)?;
        let stats = registry.manager(&ir.stat_prefix);
        let inline = match &ir.routes {
            RouteSource::Inline(routes) => Some(Arc::new(Routes::compile(routes, registry))),
            RouteSource::Rds(_) => None,
        };
        let suppresses_envoy_headers = ir.filters.iter().any(|filter| match &filter.kind {
            HttpFilterKind::Router(router) => router.suppress_envoy_headers,
            HttpFilterKind::JwtAuthn(_)
            | HttpFilterKind::Rbac(_)
            | HttpFilterKind::ExtAuthz(_)
            | HttpFilterKind::LocalRateLimit(_)
            | HttpFilterKind::Fault(_)
            | HttpFilterKind::Cors
            | HttpFilterKind::IstioStats(_) => false,
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
            recorder: (direction == Direction::Inbound).then(|| registry.recorder()),
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

    /// What its requests are recorded by.
    pub(crate) const fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.recorder.as_ref()
    }

    /// Its access logs.
    pub fn logs(&self) -> &[Log] {
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
