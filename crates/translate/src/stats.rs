//! Istio's standard metrics: which listeners count, and by what.
//!
//! Every listener of a sidecar counts what passes through it, without anybody asking for it (Istio). Only our own proxy does:
//! upstream Envoy has no such filter and would refuse the listener, so its listeners come without.

use std::{collections::BTreeMap, sync::Arc};

use rajut_config::model::{Ends, MetricChange};
use rajut_ir::{
    filter::{HttpFilter, HttpFilterKind},
    http::HttpConnectionManager,
    listener::{ChainAction, Direction, FilterChain, Listener, TcpProxy},
    stats::{IstioStats, Metric, MetricOverride},
};

use crate::proxy::{DataPlane, Proxy, Role};

/// Whether the listeners of a proxy count.
pub(crate) fn counts(proxy: &Proxy) -> bool {
    proxy.data_plane == DataPlane::Rajut && proxy.role != Role::Grpc
}

/// The listener with the filter before its routers and TCP proxies. `changes`: those of the workload's namespace and its
/// own.
pub(crate) fn observe(listener: &Arc<Listener>, changes: &[MetricChange]) -> Arc<Listener> {
    let other_end = match listener.direction {
        Direction::Inbound => Ends::Client,
        Direction::Outbound | Direction::Unspecified => Ends::Server,
    };
    let changes: Vec<_> = changes.iter().filter(|change| change.ends != other_end).collect();
    let stats = Arc::new(IstioStats {
        metrics: overrides(&changes),
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

/// What the changes come to, metric by metric: the last word on each counts.
fn overrides(changes: &[&MetricChange]) -> Vec<MetricOverride> {
    let of_one = |metric: Metric| {
        let of_it =
            |change: &&&MetricChange| change.metric.as_deref().is_none_or(|name| name == metric.name());
        let (mut drop, mut tags) = (false, BTreeMap::new());
        for change in changes.iter().filter(of_it) {
            drop = change.disabled.unwrap_or(drop);
            tags.extend(change.tags.iter().map(|(name, value)| (name, value.as_ref())));
        }
        let removed = tags.iter().filter(|(_, value)| value.is_none());
        let set = tags
            .iter()
            .filter_map(|(name, value)| Some(((*name).clone(), (*value)?.clone())));
        let over = MetricOverride {
            metric: Some(metric),
            drop,
            remove: removed.map(|(name, _)| (*name).clone()).collect(),
            set: set.collect(),
        };
        (over.drop || !over.remove.is_empty() || !over.set.is_empty()).then_some(over)
    };
    Metric::ALL.into_iter().filter_map(of_one).collect()
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
