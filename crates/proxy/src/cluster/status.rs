//! What `/clusters` and the scrape tell of a cluster, in Envoy's words.

use std::fmt::Write as _;

use rajut_ir::endpoint::{EndpointAddress, Health};
use rajut_types::Text;
use serde_json::{Value, json};

use super::{Cluster, Host, Slot};
use crate::stats::Row;
use rajut_telemetry::names;

/// The gauges of a cluster.
pub(super) fn gauges(cluster: &Cluster, name: &Text, out: &mut Vec<Row>) {
    let label = [(names::LABEL_CLUSTER, name.clone())];
    let usable = cluster.hosts().iter().filter(|host| host.is_usable()).count();
    let [connections, pending, requests] = cluster.breakers().open();
    for (name, value) in [
        (names::CLUSTER_EJECTIONS_ACTIVE, u64::from(cluster.ejected())),
        (names::CLUSTER_MEMBERSHIP_TOTAL, cluster.hosts().len() as u64),
        (names::CLUSTER_MEMBERSHIP_HEALTHY, usable as u64),
        (names::CLUSTER_CX_OPEN, u64::from(connections)),
        (names::CLUSTER_PENDING_OPEN, u64::from(pending)),
        (names::CLUSTER_RQ_OPEN, u64::from(requests)),
    ] {
        out.push(Row::gauge(name, &label, value));
    }
}

/// Envoy's health flags; `healthy` without any.
fn health_flags(host: &Host) -> String {
    let mut flags = String::new();
    for (set, flag) in [
        (host.record.is_unwell(), "/failed_active_hc"),
        (host.record.is_ejected(), "/failed_outlier_check"),
        (
            matches!(host.health(), Health::Unhealthy | Health::Draining),
            "/failed_eds_health",
        ),
        (host.health() == Health::Degraded, "/degraded_eds_health"),
    ] {
        if set {
            flags.push_str(flag);
        }
    }
    if flags.is_empty() {
        flags.push_str("healthy");
    }
    flags
}

impl Cluster {
    /// The lines of Envoy's `/clusters`.
    pub fn status_text(&self, out: &mut String) {
        let name = self.name();
        let ir = self.ir();
        let limits = &ir.circuit_breakers;
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name}::observability_name::{name}");
        for (key, value) in [
            ("max_connections", limits.max_connections),
            ("max_pending_requests", limits.max_pending_requests),
            ("max_requests", limits.max_requests),
            ("max_retries", limits.max_retries),
        ] {
            let _ = writeln!(out, "{name}::default_priority::{key}::{value}");
        }
        for host in self.hosts() {
            let address = &host.address;
            let counts = host.counts();
            for (key, value) in [
                ("cx_active", counts.cx_active),
                ("cx_connect_fail", counts.cx_connect_fail),
                ("cx_total", counts.cx_total),
                ("rq_active", counts.rq_active),
                ("rq_error", counts.rq_error),
                ("rq_success", counts.rq_success),
                ("rq_timeout", counts.rq_timeout),
                ("rq_total", counts.rq_total),
            ] {
                let _ = writeln!(out, "{name}::{address}::{key}::{value}");
            }
            let _ = writeln!(out, "{name}::{address}::hostname::{}", host.hostname);
            let _ = writeln!(out, "{name}::{address}::health_flags::{}", health_flags(host));
            if host.record.is_unwell() {
                let why = host.record.why_unwell();
                let _ = writeln!(out, "{name}::{address}::health_check_failure::{why}");
            }
            let _ = writeln!(out, "{name}::{address}::weight::{}", host.weight);
            let _ = writeln!(out, "{name}::{address}::region::{}", host.locality.region);
            let _ = writeln!(out, "{name}::{address}::zone::{}", host.locality.zone);
            let _ = writeln!(out, "{name}::{address}::sub_zone::{}", host.locality.sub_zone);
            let _ = writeln!(out, "{name}::{address}::canary::false");
            let _ = writeln!(out, "{name}::{address}::priority::{}", host.priority);
            let _ = writeln!(out, "{name}::{address}::success_rate::-1");
            let _ = writeln!(out, "{name}::{address}::local_origin_success_rate::-1");
        }
    }

    /// One `cluster_statuses` entry of Envoy's `/clusters?format=json`.
    pub fn status_json(&self) -> Value {
        let limits = &self.ir().circuit_breakers;
        let hosts: Vec<Value> = self.hosts().iter().map(|host| host_json(host)).collect();
        json!({
            "name": &**self.name(),
            "observability_name": &**self.name(),
            "added_via_api": true,
            "circuit_breakers": { "thresholds": [{
                "max_connections": limits.max_connections,
                "max_pending_requests": limits.max_pending_requests,
                "max_requests": limits.max_requests,
                "max_retries": limits.max_retries,
            }]},
            "host_statuses": hosts,
        })
    }
}

fn host_json(host: &Host) -> Value {
    let address = match &host.address {
        EndpointAddress::Socket(socket) => {
            json!({"socket_address": {"address": socket.ip().to_string(), "port_value": socket.port()}})
        }
        EndpointAddress::Dns { host, port } => {
            json!({"socket_address": {"address": &**host, "port_value": port}})
        }
        EndpointAddress::Pipe(path) => json!({"pipe": {"path": &**path}}),
    };
    let counts = host.counts();
    let stat = |name: &str, value: u64, gauge: bool| {
        if gauge {
            json!({"name": name, "value": value.to_string(), "type": "GAUGE"})
        } else {
            json!({"name": name, "value": value.to_string()})
        }
    };
    let eds = match host.health() {
        Health::Unknown | Health::Healthy => "HEALTHY",
        Health::Unhealthy => "UNHEALTHY",
        Health::Draining => "DRAINING",
        Health::Degraded => "DEGRADED",
    };
    let mut health = json!({"eds_health_status": eds});
    if host.record.is_ejected() {
        health["failed_outlier_check"] = Value::Bool(true);
    }
    if host.record.is_unwell() {
        health["failed_active_health_check"] = Value::Bool(true);
        // Ours: what the check said.
        health["rajut_health_check_failure"] = Value::String(host.record.why_unwell().into());
    }
    json!({
        "address": address,
        "hostname": &*host.hostname,
        "weight": host.weight,
        "priority": host.priority,
        "locality": {
            "region": &*host.locality.region,
            "zone": &*host.locality.zone,
            "sub_zone": &*host.locality.sub_zone,
        },
        "health_status": health,
        "stats": [
            stat("cx_connect_fail", counts.cx_connect_fail, false),
            stat("cx_total", counts.cx_total, false),
            stat("rq_error", counts.rq_error, false),
            stat("rq_success", counts.rq_success, false),
            stat("rq_timeout", counts.rq_timeout, false),
            stat("rq_total", counts.rq_total, false),
            stat("cx_active", counts.cx_active, true),
            stat("rq_active", counts.rq_active, true),
        ],
    })
}

/// Envoy's `/clusters` of an epoch, as text.
pub fn clusters_text(config: &crate::epoch::Config) -> String {
    let mut out = String::new();
    for slot in sorted(config) {
        if let Some(cluster) = slot.view() {
            cluster.status_text(&mut out);
        }
    }
    out
}

/// Envoy's `/clusters?format=json` of an epoch.
pub fn clusters_json(config: &crate::epoch::Config) -> Value {
    let statuses: Vec<Value> = sorted(config)
        .filter_map(|slot| Some(slot.view()?.status_json()))
        .collect();
    json!({"cluster_statuses": statuses})
}

/// All that are known, used or not.
fn sorted(config: &crate::epoch::Config) -> impl Iterator<Item = &Slot> {
    let mut slots: Vec<&Slot> = config.clusters.values().map(std::sync::Arc::as_ref).collect();
    slots.sort_by(|a, b| a.name().cmp(b.name()));
    slots.into_iter()
}
