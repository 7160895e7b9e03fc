use rajut_config::{model::*, snapshot::Configuration};
use rajut_ir::{
    filter::HttpFilterKind,
    listener::{ChainAction, Direction, FilterChain, Listener},
    stats::{IstioStats, Metric, MetricOverride},
};
use rajut_types::{Text, tag::TagValue};

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

fn change(
    ends: Ends,
    metric: Option<&str>,
    disabled: Option<bool>,
    tags: &[(&str, Option<&str>)],
) -> MetricChange {
    let tag = |(name, value): &(&str, Option<&str>)| {
        let value = value.map(|value| TagValue::parse(value).expect("valid"));
        (Text::from(*name), value)
    };
    MetricChange {
        ends,
        metric: metric.map(Into::into),
        disabled,
        tags: tags.iter().map(tag).collect(),
    }
}

fn telemetry(namespace: &str, overrides: Vec<MetricChange>) -> Telemetry {
    Telemetry {
        name: "default".into(),
        namespace: namespace.into(),
        selector: None,
        targeted: false,
        overrides,
        logging: Vec::new(),
        tracing: Vec::new(),
        origin: origin("Telemetry", namespace, "default"),
        age: 0,
    }
}

#[test]
fn changes_of_metrics_reach_the_ends_that_they_are_meant_for() {
    let sizes = Some("request_bytes");
    let configuration = Configuration {
        services: vec![service("web", 1, 80, Protocol::Http)],
        telemetries: vec![
            telemetry(
                "istio-system",
                vec![
                    change(Ends::Both, sizes, Some(true), &[]),
                    change(
                        Ends::Both,
                        None,
                        None,
                        &[("source_cluster", None), ("team", Some("'a'"))],
                    ),
                ],
            ),
            telemetry(
                "clinic",
                vec![
                    change(Ends::Server, sizes, Some(false), &[]),
                    change(
                        Ends::Client,
                        Some("requests_total"),
                        None,
                        &[("team", Some("request.host"))],
                    ),
                ],
            ),
        ],
        ..Configuration::default()
    };
    let snapshot = snapshot(configuration, vec![workload("web", 1, "v1")]);
    let found = resources(&snapshot, &proxy("web", netns()));
    let of = |direction: Direction, metric: Metric| -> MetricOverride {
        let listener = found.listeners.values().find(|listener| {
            listener.direction == direction && listener.filter_chains.iter().any(|it| counted(it).is_some())
        });
        let stats = listener
            .and_then(|it| counted(&it.filter_chains[0]))
            .expect("it counts");
        let over = stats.metrics.iter().find(|over| over.metric == Some(metric));
        over.expect("it is changed").clone()
    };
    assert!(of(Direction::Outbound, Metric::RequestBytes).drop);
    assert!(
        !of(Direction::Inbound, Metric::RequestBytes).drop,
        "the namespace takes it back for servers"
    );
    let team = |direction, metric| of(direction, metric).set;
    assert_eq!(
        team(Direction::Outbound, Metric::Requests),
        [("team".into(), TagValue::RequestHost)]
    );
    assert_eq!(
        team(Direction::Inbound, Metric::Requests),
        [("team".into(), TagValue::Literal("a".into()))]
    );
    assert_eq!(
        of(Direction::Inbound, Metric::Duration).remove,
        ["source_cluster".into()]
    );
}
