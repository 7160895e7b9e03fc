//! Istio's standard metrics: which listeners count, and by what.
//!
//! Every listener of a sidecar counts what passes through it, without anybody asking for it (Istio). Only our own proxy does:
//! upstream Envoy has no such filter and would refuse the listener, so its listeners come without.

use std::sync::Arc;

use rajut_ir::{
    filter::{HttpFilter, HttpFilterKind},
    http::HttpConnectionManager,
    listener::{ChainAction, Direction, FilterChain, Listener, TcpProxy},
    stats::IstioStats,
};

use crate::proxy::{DataPlane, Proxy, Role};

/// Whether the listeners of a proxy count.
pub(crate) fn counts(proxy: &Proxy) -> bool {
    proxy.data_plane == DataPlane::Rajut && proxy.role != Role::Grpc
}

/// The listener with the filter before its routers and TCP proxies.
pub(crate) fn observe(listener: &Arc<Listener>) -> Arc<Listener> {
    let stats = Arc::new(IstioStats {
        // Who calls a workload from outside says what it likes.
        host_fallback: listener.direction == Direction::Outbound,
        ..IstioStats::default()
    });
    Arc::new(Listener {
        filter_chains: listener
            .filter_chains
            .iter()
            .map(|chain| observe_chain(chain, &stats))
            .collect(),
        default_filter_chain: listener
            .default_filter_chain
            .as_ref()
            .map(|chain| observe_chain(chain, &stats)),
        ..(**listener).clone()
    })
}

fn observe_chain(chain: &FilterChain, stats: &Arc<IstioStats>) -> Arc<FilterChain> {
    let action = match &chain.action {
        ChainAction::Http(manager) => ChainAction::Http(observe_manager(manager, stats)),
        ChainAction::Tcp(proxy) => ChainAction::Tcp(Arc::new(TcpProxy {
            stats: Some(stats.clone()),
            ..(**proxy).clone()
        })),
    };
    Arc::new(FilterChain {
        action,
        ..chain.clone()
    })
}

fn observe_manager(manager: &HttpConnectionManager, stats: &Arc<IstioStats>) -> Arc<HttpConnectionManager> {
    let mut filters = manager.filters.clone();
    let is_router = |filter: &HttpFilter| matches!(filter.kind, HttpFilterKind::Router(_));
    let before = filters.iter().position(is_router).unwrap_or(filters.len());
    filters.insert(before, HttpFilter::istio_stats(stats.clone()));
    Arc::new(HttpConnectionManager {
        filters,
        ..manager.clone()
    })
}
