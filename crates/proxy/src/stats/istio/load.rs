//! What this proxy tells the control plane of its edges: the clients' series added up by cluster, and what of that was not
//! told yet.
//!
//! Reads the counters that the scrape reads, once an interval, on the main thread; a request costs nothing more. What is
//! given out ([`LoadSource::collect`]) is given once: whoever sends it keeps it until it has arrived. Where metrics are
//! off (`Telemetry`), the edges are still told: that is about what Prometheus is shown.
//!
//! Bound: [`EDGES_MAX`] edges in one report, those that were told longest ago first; the others wait, counted on. What
//! found no room among the series is the edge `other`.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
};

use rajut_telemetry::load::{Detail, Load};
use rajut_types::Text;
use rajut_xds::load::{ClusterLoad, LoadSource};
use tokio::sync::watch;

use super::{Counts, Histogram, Key, Reporter, Store, TextId};
use crate::{
    epoch::Config,
    failure::{Flags, is_grpc_server_error},
};

/// Most edges of one report.
pub(crate) const EDGES_MAX: usize = 1000;

/// The edges of this proxy. See the module.
#[derive(Debug)]
pub(crate) struct EdgeLoads {
    store: Arc<Store>,
    config: watch::Receiver<Arc<Config>>,
    /// As they were told last; ≤ the clusters that were ever called, which are as many as there are texts.
    told: HashMap<TextId, Told>,
    /// Rises with every report.
    round: u64,
}

#[derive(Debug, Default)]
struct Told {
    sums: Sums,
    in_progress: u64,
    round: u64,
}

/// What was counted on an edge since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    succeeded: u64,
    failed: u64,
    detail: Detail,
    /// Connections that are over.
    closed: u64,
}

impl EdgeLoads {
    /// Those that `store` counts; what is under way is asked of the clusters in force.
    pub(crate) fn new(store: Arc<Store>, config: watch::Receiver<Arc<Config>>) -> Self {
        Self {
            store,
            config,
            told: HashMap::new(),
            round: 0,
        }
    }

    /// Requests that are under way, by cluster.
    fn active(&self) -> HashMap<TextId, u64> {
        let config = self.config.borrow();
        let running = config.clusters.values().filter_map(|slot| slot.running());
        running
            .map(|cluster| (cluster.name_id(), cluster.stats().requests_active()))
            .filter(|(_, active)| *active > 0)
            .collect()
    }
}

impl LoadSource for EdgeLoads {
    fn collect(&mut self) -> Vec<ClusterLoad> {
        let sums = self.store.edges();
        let active = self.active();
        self.round += 1;
        let clusters: HashSet<TextId> = sums.keys().chain(active.keys()).copied().collect();
        let mut news = Vec::new();
        for cluster in clusters {
            let sums = sums.get(&cluster).copied().unwrap_or_default();
            let open = sums.detail.connections.wrapping_sub(sums.closed);
            let in_progress = active.get(&cluster).copied().unwrap_or_default() + open;
            let told = self.told.entry(cluster).or_default();
            if told.sums != sums || in_progress > 0 || told.in_progress > 0 {
                news.push((told.round, cluster, sums, in_progress));
            }
        }
        news.sort_by_key(|(round, cluster, ..)| (*round, cluster.number()));
        news.truncate(EDGES_MAX);
        let round = self.round;
        news.into_iter()
            .map(|(_, cluster, sums, in_progress)| {
                let before = self.told.insert(
                    cluster,
                    Told {
                        sums,
                        in_progress,
                        round,
                    },
                );
                let load = sums.since(&before.unwrap_or_default().sums, in_progress);
                ClusterLoad {
                    cluster: name(cluster),
                    succeeded: load.succeeded,
                    failed: load.failed,
                    in_progress: load.in_progress,
                    metrics: load
                        .metrics()
                        .into_iter()
                        .map(|metric| (metric.name, metric.count, metric.total))
                        .collect(),
                }
            })
            .collect()
    }
}

/// No route led anywhere: there is no cluster to name.
const NO_CLUSTER: &str = "unknown";

fn name(cluster: TextId) -> Text {
    match cluster {
        TextId::UNKNOWN => NO_CLUSTER.into(),
        cluster => cluster.text(),
    }
}

impl Store {
    /// What clients' series come to by cluster.
    fn edges(&self) -> HashMap<TextId, Sums> {
        let mut edges: HashMap<TextId, Sums> = HashMap::new();
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        for series in series
            .iter()
            .filter(|series| series.context.reporter == Reporter::Source)
        {
            edges
                .entry(series.key.cluster)
                .or_default()
                .take(&series.key, &series.counts);
        }
        edges
    }
}

/// With one of these a call came to no upstream, or to one that nobody knows.
const UNREACHED: Flags = Flags::NO_HEALTHY_UPSTREAM
    .with(Flags::UPSTREAM_FAILURE)
    .with(Flags::UPSTREAM_OVERFLOW)
    .with(Flags::NO_ROUTE)
    .with(Flags::NO_CLUSTER)
    .with(Flags::DNS_FAILURE)
    .with(Flags::DOWNSTREAM_PROTOCOL)
    .with(Flags::DOWNSTREAM_TERMINATION)
    .with(Flags::OVERLOAD)
    .with(Flags::RATE_LIMITED)
    .with(Flags::FAULT_INJECTED);

fn add(sum: &mut u64, amount: u64) {
    *sum = sum.wrapping_add(amount);
}

fn sum_of(histogram: &Histogram) -> u64 {
    histogram.sum.load(Relaxed)
}

impl Sums {
    fn take(&mut self, key: &Key, counts: &Counts) {
        let is_mtls = key.ends.peer != TextId::UNKNOWN;
        let detail = &mut self.detail;
        let passed = match counts {
            Counts::Http(counts) => {
                let mut requests = 0;
                for (sum, bucket) in detail.times.buckets.iter_mut().zip(&counts.duration.buckets) {
                    let bucket = bucket.load(Relaxed);
                    add(sum, bucket);
                    add(&mut requests, bucket);
                }
                add(&mut detail.times.micros, sum_of(&counts.duration));
                add(&mut detail.request_bytes, sum_of(&counts.request));
                add(&mut detail.response_bytes, sum_of(&counts.response));
                let outcome = if has_failed(key) {
                    &mut self.failed
                } else {
                    &mut self.succeeded
                };
                add(outcome, requests);
                if was_denied(key) {
                    add(&mut detail.denied, requests);
                }
                requests
            }
            Counts::Tcp(counts) => {
                // Closed before opened is read: one that closes between the two reads is not counted as both.
                add(&mut self.closed, counts.closed.load(Relaxed));
                let opened = counts.opened.load(Relaxed);
                add(&mut detail.connections, opened);
                if key.flags != Flags::NONE {
                    add(&mut detail.connections_failed, opened);
                }
                // What the client's proxy received on the connection came from the client.
                add(&mut detail.request_bytes, counts.received.load(Relaxed));
                add(&mut detail.response_bytes, counts.sent.load(Relaxed));
                opened
            }
        };
        if is_mtls {
            add(&mut detail.mtls, passed);
        } else if key.flags.has(UNREACHED) {
            add(&mut detail.unreached, passed);
        }
    }

    /// What came since `before`.
    fn since(&self, before: &Self, in_progress: u64) -> Load {
        let (now, then) = (&self.detail, &before.detail);
        let mut detail = Detail {
            request_bytes: now.request_bytes.wrapping_sub(then.request_bytes),
            response_bytes: now.response_bytes.wrapping_sub(then.response_bytes),
            mtls: now.mtls.wrapping_sub(then.mtls),
            unreached: now.unreached.wrapping_sub(then.unreached),
            denied: now.denied.wrapping_sub(then.denied),
            connections: now.connections.wrapping_sub(then.connections),
            connections_failed: now.connections_failed.wrapping_sub(then.connections_failed),
            ..Detail::default()
        };
        detail.times.micros = now.times.micros.wrapping_sub(then.times.micros);
        let both = now.times.buckets.iter().zip(then.times.buckets);
        for (bucket, (now, then)) in detail.times.buckets.iter_mut().zip(both) {
            *bucket = now.wrapping_sub(then);
        }
        Load {
            succeeded: self.succeeded.wrapping_sub(before.succeeded),
            failed: self.failed.wrapping_sub(before.failed),
            in_progress,
            detail: Some(detail),
        }
    }
}

/// As Envoy judges an answer for its load reports; beyond that, no answer is a failure.
fn has_failed(key: &Key) -> bool {
    match (key.code, key.grpc) {
        (0 | 500.., _) => true,
        (_, status) => status.is_some_and(is_grpc_server_error),
    }
}

/// Refused by whoever judged the caller: the other end's policies or tokens, or its application.
fn was_denied(key: &Key) -> bool {
    const PERMISSION_DENIED: u8 = 7;
    const UNAUTHENTICATED: u8 = 16;
    matches!(key.code, 401 | 403) || matches!(key.grpc, Some(PERMISSION_DENIED | UNAUTHENTICATED))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rajut_ir::{listener::Direction, stats::IstioStats};

    use super::super::{Ends, Protocol, Seen, Table};
    use super::*;

    fn seen(millis: u64) -> Seen {
        Seen {
            duration: Duration::from_millis(millis),
            received: 10,
            sent: 100,
            messages_received: 0,
            messages_sent: 0,
        }
    }

    fn edges() -> (Arc<Store>, EdgeLoads) {
        let store = Arc::<Store>::default();
        let (_, config) = watch::channel(Arc::default());
        let edges = EdgeLoads::new(store.clone(), config);
        (store, edges)
    }

    /// A report as the other end reads it.
    fn read(reported: &[ClusterLoad], cluster: &str) -> Load {
        let told = reported
            .iter()
            .find(|told| &*told.cluster == cluster)
            .expect("told");
        let mut load = Load {
            succeeded: told.succeeded,
            failed: told.failed,
            in_progress: told.in_progress,
            detail: None,
        };
        for (name, count, total) in &told.metrics {
            load.take(&rajut_telemetry::load::LoadMetric {
                name: name.clone(),
                count: *count,
                total: *total,
            });
        }
        load
    }

    #[test]
    fn what_was_counted_is_told_once_by_cluster_and_only_by_the_client() {
        let (store, mut edges) = edges();
        let table = Table::default();
        let client = store.meter(Direction::Outbound, &IstioStats::default());
        let server = store.meter(Direction::Inbound, &IstioStats::default());
        let count = |cluster: &str, code, grpc| {
            let mut key = client.key(Protocol::Http);
            key.code = code;
            key.grpc = grpc;
            key.cluster = TextId::of(cluster);
            key.ends = Ends {
                peer: TextId::of("spiffe://a"),
                own: TextId::UNKNOWN,
            };
            table.request(&client, key, seen(3));
        };
        count("outbound|80||a", 200, None);
        count("outbound|80||a", 404, None);
        count("outbound|80||a", 503, None);
        count("outbound|80||a", 0, None);
        count("outbound|80||a", 200, Some(14));
        count("outbound|80||a", 200, Some(5));
        count("outbound|80||b", 200, None);
        table.request(&server, server.key(Protocol::Http), seen(1));

        let told = edges.collect();
        assert_eq!(
            told.len(),
            2,
            "what was served is no edge of the server's: {told:?}"
        );
        let load = read(&told, "outbound|80||a");
        assert_eq!((load.succeeded, load.failed), (3, 3));
        let detail = load.detail.expect("told");
        assert_eq!((detail.times.buckets[2], detail.times.micros), (6, 18_000));
        assert_eq!(
            (detail.request_bytes, detail.response_bytes, detail.mtls),
            (60, 600, 6)
        );

        assert_eq!(detail.unreached, 0);
        let mut nowhere = client.key(Protocol::Http);
        nowhere.code = 503;
        nowhere.cluster = TextId::of("outbound|80||a");
        for flags in [Flags::FAULT_INJECTED, Flags::NONE] {
            nowhere.flags = flags;
            table.request(&client, nowhere, seen(3));
        }
        let load = read(&edges.collect(), "outbound|80||a");
        let detail = load.detail.expect("told");
        assert_eq!(
            (load.failed, detail.mtls, detail.unreached),
            (2, 0, 1),
            "the other one was plain"
        );

        for (code, grpc) in [
            (401, None),
            (403, None),
            (200, Some(7)),
            (200, Some(16)),
            (404, None),
        ] {
            count("outbound|80||a", code, grpc);
        }
        let load = read(&edges.collect(), "outbound|80||a");
        assert_eq!((load.failed, load.detail.expect("told").denied), (0, 4));

        assert!(edges.collect().is_empty(), "nothing is told twice");
        count("outbound|80||b", 500, None);
        let told = edges.collect();
        assert_eq!(told.len(), 1);
        assert_eq!(read(&told, "outbound|80||b").failed, 1);
    }

    #[test]
    fn open_connections_are_under_way_until_they_are_told_as_closed() {
        let (store, mut edges) = edges();
        let table = Table::default();
        let client = store.meter(Direction::Outbound, &IstioStats::default());
        let mut key = client.key(Protocol::Tcp);
        key.cluster = TextId::of("outbound|5432||db");
        let open = table.connection(&client, key);
        open.opened();
        open.passed(7, 70);
        let load = read(&edges.collect(), "outbound|5432||db");
        let detail = load.detail.expect("told");
        assert_eq!((load.in_progress, detail.connections), (1, 1));
        assert_eq!((detail.request_bytes, detail.response_bytes), (7, 70));
        let load = read(&edges.collect(), "outbound|5432||db");
        assert_eq!((load.in_progress, load.is_idle()), (1, true));
        drop(open);
        assert_eq!(read(&edges.collect(), "outbound|5432||db").in_progress, 0);
        assert!(edges.collect().is_empty());
    }

    #[test]
    fn what_has_no_room_in_a_report_comes_with_the_next() {
        let (store, mut edges) = edges();
        let client = store.meter(Direction::Outbound, &IstioStats::default());
        let table = Table::default();
        let all = EDGES_MAX + 5;
        for cluster in 0..all {
            let mut key = client.key(Protocol::Http);
            key.code = 200;
            key.cluster = TextId::of(&format!("outbound|80||many-{cluster}"));
            table.request(&client, key, seen(1));
        }
        let first = edges.collect();
        assert_eq!(first.len(), EDGES_MAX);
        let rest = edges.collect();
        let names: HashSet<Text> = first
            .iter()
            .chain(&rest)
            .map(|told| told.cluster.clone())
            .collect();
        assert_eq!((rest.len(), names.len()), (5, all));
        assert!(edges.collect().is_empty());
    }
}
