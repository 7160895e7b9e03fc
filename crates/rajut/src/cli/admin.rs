//! What the reading commands ask of a sidecar's admin port. The forms are Envoy's, so the same code reads both data
//! planes.

use std::{net::SocketAddr, time::Duration};

use anyhow::bail;
use rajut_local::client::{Ask, Target, ask};
use serde_json::Value;

/// An admin port is on this machine; a busy one may need a moment.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Requests by connection manager, as Envoy counts them.
const REQUESTS: &str = "envoy_http_downstream_rq_total";

/// The text of an admin page.
pub(crate) async fn text(admin: SocketAddr, path: &str) -> anyhow::Result<String> {
    let request = Ask {
        path,
        timeout: TIMEOUT,
        ..Ask::default()
    };
    let answer = ask(&Target::Tcp(admin), &request).await?;
    if !answer.status.is_success() {
        bail!("{admin}{path} answered {}", answer.status);
    }
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

/// The JSON of an admin page.
pub(crate) async fn json(admin: SocketAddr, path: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&text(admin, path).await?)?)
}

/// What a sidecar has done and what is wrong with its upstreams, from its counters.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Upstreams {
    /// (cluster, which limit): circuits that are open now.
    pub(crate) open_circuits: Vec<(String, String)>,
    /// (cluster, endpoints): ejected now.
    pub(crate) ejections: Vec<(String, u64)>,
    /// Requests taken, from its application and for it, since it was started.
    pub(crate) requests: u64,
}

/// Reads a Prometheus exposition.
pub(crate) fn upstreams(exposition: &str) -> Upstreams {
    let mut found = Upstreams::default();
    for line in exposition.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let Ok(value) = value.parse::<f64>() else { continue };
        if value <= 0.0 {
            continue;
        }
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let cluster = label(labels, "envoy_cluster_name").unwrap_or_default();
        if let Some(limit) = name
            .strip_prefix("envoy_cluster_circuit_breakers_default_")
            .and_then(|rest| rest.strip_suffix("_open"))
        {
            found.open_circuits.push((cluster, limit_name(limit).to_owned()));
        } else if name == "envoy_cluster_outlier_detection_ejections_active" {
            found.ejections.push((cluster, count(value)));
        } else if name == REQUESTS
            && label(labels, "envoy_http_conn_manager_prefix").as_deref() != Some("admin")
        {
            found.requests += count(value);
        }
    }
    found
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive count"
)]
fn count(value: f64) -> u64 {
    value as u64
}

/// The field of a `DestinationRule` that sets the limit.
fn limit_name(limit: &str) -> &str {
    match limit {
        "cx" => "maxConnections",
        "rq" => "http2MaxRequests",
        "rq_pending" => "http1MaxPendingRequests",
        "rq_retry" => "maxRetries",
        other => other,
    }
}

fn label(labels: &str, name: &str) -> Option<String> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_circuits_and_ejections_are_found_and_closed_ones_are_not() {
        let text = "\
# TYPE envoy_cluster_circuit_breakers_default_rq_open gauge
envoy_cluster_circuit_breakers_default_rq_open{envoy_cluster_name=\"outbound|8080||a\"} 1
envoy_cluster_circuit_breakers_default_cx_open{envoy_cluster_name=\"outbound|8080||a\"} 0
envoy_cluster_outlier_detection_ejections_active{envoy_cluster_name=\"outbound|8080||b\"} 2
envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix=\"inbound_0.0.0.0_8080\"} 40
envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix=\"outbound_0.0.0.0_8080\"} 2
envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix=\"admin\"} 7
envoy_server_live 1
";
        let found = upstreams(text);
        assert_eq!(
            found.open_circuits,
            [("outbound|8080||a".into(), "http2MaxRequests".into())]
        );
        assert_eq!(found.ejections, [("outbound|8080||b".into(), 2)]);
        assert_eq!(found.requests, 42);
    }
}
