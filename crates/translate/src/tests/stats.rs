use rajut_config::{model::*, snapshot::Configuration};
use rajut_ir::{
    filter::HttpFilterKind,
    listener::{ChainAction, Direction, FilterChain, Listener},
    stats::IstioStats,
};

use super::fixtures::*;
use crate::{Capture, proxy::DataPlane};

fn listeners(data_plane: DataPlane, capture: Capture) -> Vec<Listener> {
    let configuration = Configuration {
        services: vec![
            service("web", 1, 80, Protocol::Http),
            service("db", 2, 5432, Protocol::Tcp),
        ],
        ..Configuration::default()
    };
    let workloads = vec![workload("web", 1, "v1"), workload("db", 2, "v1")];
    let mut proxy = proxy("web", capture);
    proxy.data_plane = data_plane;
    let found = resources(&snapshot(configuration, workloads), &proxy);
    found
        .listeners
        .values()
        .map(|listener| (**listener).clone())
        .collect()
}

/// By what each chain counts; `None` where it does not. The filter stands right before the router.
fn counted(chain: &FilterChain) -> Option<IstioStats> {
    match &chain.action {
        ChainAction::Tcp(proxy) => proxy.stats.as_deref().cloned(),
        ChainAction::Http(manager) => match &manager.filters[..] {
            [.., before, _] => match &before.kind {
                HttpFilterKind::IstioStats(stats) => Some((**stats).clone()),
                _ => None,
            },
            _ => None,
        },
    }
}

fn chains(listener: &Listener) -> impl Iterator<Item = &FilterChain> {
    listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain)
        .map(|chain| &**chain)
}

#[test]
fn every_chain_of_our_proxy_counts_and_none_of_envoy() {
    for capture in [netns(), explicit(&[("db", 5432), ("web", 80)]), Capture::Redirect] {
        let own = listeners(DataPlane::Rajut, capture.clone());
        assert!(own.len() >= 3, "{}", own.len());
        for listener in &own {
            for chain in chains(listener) {
                let stats = counted(chain);
                let stats = stats.unwrap_or_else(|| panic!("{} {}", listener.name, chain.name));
                // What a caller from outside writes into its head names no service.
                assert_eq!(stats.host_fallback, listener.direction == Direction::Outbound);
            }
        }
        for listener in &listeners(DataPlane::Envoy, capture) {
            assert!(
                chains(listener).all(|chain| counted(chain).is_none()),
                "{}",
                listener.name
            );
        }
    }
}
