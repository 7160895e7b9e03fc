//! Load reports to and from protobuf.

use std::time::Duration;

use rajut_proto::{endpoint, google, load_stats};

use super::{CLUSTERS_MAX, ClusterLoad, METRICS_MAX, NAME_BYTES_MAX};
use crate::{message::Node, wire};

/// What a server wants. Source: Envoy `load_stats.v3.LoadStatsResponse`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) interval: Duration,
    /// `None`: all.
    pub(super) clusters: Option<Vec<String>>,
}

pub(super) fn decode_settings(message: load_stats::LoadStatsResponse) -> Settings {
    let interval = message.load_reporting_interval.unwrap_or_default();
    let seconds = u64::try_from(interval.seconds).unwrap_or_default();
    let nanos = u32::try_from(interval.nanos).unwrap_or_default().min(999_999_999);
    Settings {
        interval: Duration::new(seconds, nanos),
        clusters: (!message.send_all_clusters).then_some(message.clusters),
    }
}

pub(super) fn encode_settings(interval: Duration) -> load_stats::LoadStatsResponse {
    load_stats::LoadStatsResponse {
        send_all_clusters: true,
        load_reporting_interval: Some(duration(interval)),
        ..Default::default()
    }
}

fn duration(duration: Duration) -> google::protobuf::Duration {
    google::protobuf::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

/// A stream's first message: who reports.
pub(super) fn encode_first(node: Node) -> load_stats::LoadStatsRequest {
    load_stats::LoadStatsRequest {
        node: Some(wire::encode_node(node)),
        cluster_stats: Vec::new(),
    }
}

/// `interval`: the time that it is about.
pub(super) fn encode_report(loads: &[ClusterLoad], interval: Duration) -> load_stats::LoadStatsRequest {
    let one = |load: &ClusterLoad| {
        let metric = |(name, count, total): &(String, u64, f64)| endpoint::EndpointLoadMetricStats {
            metric_name: name.clone(),
            num_requests_finished_with_metric: *count,
            total_metric_value: *total,
        };
        endpoint::ClusterStats {
            cluster_name: load.cluster.to_string(),
            upstream_locality_stats: vec![endpoint::UpstreamLocalityStats {
                total_successful_requests: load.succeeded,
                total_error_requests: load.failed,
                total_requests_in_progress: load.in_progress,
                total_issued_requests: load.succeeded.saturating_add(load.failed),
                load_metric_stats: load.metrics.iter().map(metric).collect(),
                ..Default::default()
            }],
            load_report_interval: Some(duration(interval)),
            ..Default::default()
        }
    };
    load_stats::LoadStatsRequest {
        node: None,
        cluster_stats: loads.iter().map(one).collect(),
    }
}

/// Who reports, where the message says it; the clusters; how many were too many or had too long a name.
pub(super) fn decode(message: load_stats::LoadStatsRequest) -> (Option<Node>, Vec<ClusterLoad>, usize) {
    let all = message.cluster_stats.len();
    let is_short = |stats: &endpoint::ClusterStats| stats.cluster_name.len() <= NAME_BYTES_MAX;
    let taken = message
        .cluster_stats
        .into_iter()
        .filter(is_short)
        .take(CLUSTERS_MAX);
    let loads: Vec<ClusterLoad> = taken.map(decode_cluster).collect();
    let left_out = all - loads.len();
    (message.node.map(wire::decode_node), loads, left_out)
}

fn decode_cluster(stats: endpoint::ClusterStats) -> ClusterLoad {
    let mut load = ClusterLoad {
        cluster: stats.cluster_name.into(),
        // What the breakers turned away was no answer.
        failed: stats.total_dropped_requests,
        ..ClusterLoad::default()
    };
    for locality in stats.upstream_locality_stats {
        load.succeeded = load.succeeded.saturating_add(locality.total_successful_requests);
        load.failed = load.failed.saturating_add(locality.total_error_requests);
        load.in_progress = load
            .in_progress
            .saturating_add(locality.total_requests_in_progress);
        let room = METRICS_MAX.saturating_sub(load.metrics.len());
        let metrics = locality.load_metric_stats.into_iter().take(room);
        load.metrics.extend(metrics.map(|metric| {
            let count = metric.num_requests_finished_with_metric;
            (metric.metric_name, count, metric.total_metric_value)
        }));
    }
    load
}
