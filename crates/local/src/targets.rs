//! Where a Prometheus beside the mesh finds what to scrape: a file in the form of its `file_sd_configs`, which it reads anew
//! whenever it changes. Written with the record of the mesh, where it differs.
//!
//! Sidecars and gateways are scraped at Istio's port of their own address, where nothing but metrics is served. Where all
//! share an address it is the admin port.

use std::{fs, net::SocketAddr, path::PathBuf};

use serde_json::{Value, json};

use crate::{
    address::ADMIN_PORT,
    bootstrap::STATS_PORT,
    commands,
    state::{MeshRecord, StateDir, StateError, write_private},
};

impl StateDir {
    /// What a Prometheus scrapes.
    pub fn targets_file(&self) -> PathBuf {
        self.path().join("prometheus.json")
    }

    /// Writes it, where it is not the same.
    pub(crate) fn write_targets(&self, mesh: &MeshRecord) -> Result<(), StateError> {
        let path = self.targets_file();
        let bytes = format!("{:#}\n", targets(mesh)).into_bytes();
        if fs::read(&path).is_ok_and(|old| old == bytes) {
            return Ok(());
        }
        write_private(&path, &bytes)
    }
}

/// Groups of targets with their labels.
fn targets(mesh: &MeshRecord) -> Value {
    let group = |address: SocketAddr, path: &str, labels: &[(&str, &str)]| {
        let mut all = json!({"__metrics_path__": path});
        for (name, value) in labels {
            all[*name] = json!(value);
        }
        json!({"targets": [address.to_string()], "labels": all})
    };
    let sidecar = |admin: SocketAddr| match admin.port() {
        ADMIN_PORT => SocketAddr::new(admin.ip(), STATS_PORT),
        _ => admin,
    };
    let control = group(
        commands::metrics_of(mesh.discovery),
        "/metrics",
        &[("component", "control-plane")],
    );
    let workloads = mesh.workloads.iter().map(|workload| {
        group(
            sidecar(workload.admin),
            "/stats/prometheus",
            &[
                ("component", "proxy"),
                ("namespace", &workload.namespace),
                ("workload", &workload.deployment),
                ("pod", &workload.name),
            ],
        )
    });
    std::iter::once(control).chain(workloads).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_every_process_that_tells_metrics() {
        let mesh = |admin: &str| -> MeshRecord {
            serde_json::from_value(json!({
                "supervisor": "", "run": "", "capture": "netns", "dataPlane": "rajut", "namespace": "clinic",
                "started": "", "sources": [], "control": {"pid": 1, "restarts": 0, "lastExit": ""},
                "discovery": "127.10.255.1:15012", "gateway": {"pid": 1, "restarts": 0, "lastExit": ""},
                "gatewayState": "ready", "gatewayAdmin": "127.10.255.2:15000",
                "workloads": [{
                    "name": "web-0", "deployment": "web", "namespace": "clinic", "serviceAccount": "web",
                    "identity": "", "certificateUntil": "", "address": "127.10.0.1", "admin": admin,
                    "networkNamespace": "", "ports": [], "app": {"pid": 1, "restarts": 0, "lastExit": ""},
                    "sidecar": {"pid": 1, "restarts": 0, "lastExit": ""}, "state": "ready", "reason": "", "env": [],
                }],
                "services": [], "notStarted": [],
            }))
            .expect("a record")
        };
        let found = targets(&mesh("127.10.0.1:15000"));
        assert_eq!(found[0]["targets"][0], "127.10.255.1:15014");
        assert_eq!(found[0]["labels"]["__metrics_path__"], "/metrics");
        assert_eq!(found[1]["targets"][0], "127.10.0.1:15090");
        assert_eq!(found[1]["labels"]["workload"], "web");
        assert_eq!(found[1]["labels"]["__metrics_path__"], "/stats/prometheus");
        assert_eq!(found.as_array().map(Vec::len), Some(2));
        assert_eq!(
            targets(&mesh("127.0.0.1:40123"))[1]["targets"][0],
            "127.0.0.1:40123"
        );
    }
}
