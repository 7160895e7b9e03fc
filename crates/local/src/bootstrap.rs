//! The bootstrap of a sidecar: an ordinary Envoy bootstrap, in JSON.
//!
//! The node's metadata tells the control plane whom it serves and how it gets its traffic (`translate::Capture` on the
//! other side). Pure.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use rajut_config::model::canonical_service;
use serde_json::{Map, Value, json};

use crate::{
    address::ADMIN_PORT,
    plan::{CaptureMode, Instance, OutboundPort},
};

/// Where scrapers find a sidecar's metrics, at its own address. Source: Istio.
pub const STATS_PORT: u16 = 15_090;

/// Which data plane runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataPlane {
    /// Ours.
    Rajut,
    /// Upstream Envoy with `rajut agent` beside it.
    Envoy,
}

/// Where a sidecar finds its control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// TLS to the control plane itself; our proxy knows its roots and its own identity from its arguments.
    Direct(SocketAddr),
    /// Through the agent's Unix socket.
    Agent(PathBuf),
}

/// The bootstrap of the sidecar of `instance`.
pub fn sidecar(
    instance: &Instance,
    mode: CaptureMode,
    namespace_path: Option<&Path>,
    data_plane: DataPlane,
    discovery: &Discovery,
) -> Value {
    let mut metadata = Map::new();
    metadata.insert("NAMESPACE".into(), json!(instance.namespace));
    metadata.insert("NAME".into(), json!(instance.name));
    metadata.insert("LABELS".into(), json!(instance.labels));
    metadata.insert("SERVICE_ACCOUNT".into(), json!(instance.service_account));
    metadata.insert("WORKLOAD_NAME".into(), json!(instance.deployment));
    metadata.insert("INSTANCE_IPS".into(), json!(instance.address.to_string()));
    metadata.insert("RAJUT_DATA_PLANE".into(), json!(data_plane));
    let kind = if instance.gateway.is_some() {
        "router"
    } else {
        metadata.insert("RAJUT_CAPTURE".into(), capture(instance, mode, namespace_path));
        "sidecar"
    };
    let id = node_id(kind, instance.address, &instance.name, &instance.namespace);
    let cluster = format!(
        "{}.{}",
        canonical_service(&instance.labels, &instance.deployment),
        instance.namespace
    );
    bootstrap(&id, &cluster, &metadata, instance.admin(), data_plane, discovery)
}

/// Who the host gateway is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Its own address.
    pub address: Ipv4Addr,
    /// Its admin address.
    pub admin_address: SocketAddr,
    /// Its name.
    pub name: String,
    /// Its service account.
    pub service_account: String,
    /// Its namespace.
    pub namespace: String,
    /// What it listens on for which service.
    pub outbound: Vec<OutboundPort>,
}

impl Gateway {
    /// Another one beside this, number `number` (from 1), for services that came later: one that listens on more would
    /// have to be started anew, and connections with it. It has the next address for itself and its admin port; where
    /// a whole mesh has one address, the same one and an admin port from `free_port`.
    pub fn another(
        &self,
        number: u8,
        outbound: Vec<OutboundPort>,
        free_port: impl FnOnce() -> io::Result<u16>,
    ) -> io::Result<Self> {
        let [first, second, third, fourth] = self.address.octets();
        let (address, admin_address) = if self.address == Ipv4Addr::LOCALHOST {
            (self.address, (self.address, free_port()?).into())
        } else {
            let next = Ipv4Addr::new(first, second, third, fourth.saturating_add(number));
            (next, (next, self.admin_address.port()).into())
        };
        Ok(Self {
            address,
            admin_address,
            name: format!("{}-{}", self.name, number.saturating_add(1)),
            outbound,
            ..self.clone()
        })
    }

    /// Its admin address.
    pub const fn admin(&self) -> SocketAddr {
        self.admin_address
    }
}

/// The bootstrap of the host gateway.
pub fn gateway(gateway: &Gateway, data_plane: DataPlane, discovery: &Discovery) -> Value {
    let mut metadata = Map::new();
    metadata.insert("NAMESPACE".into(), json!(gateway.namespace));
    metadata.insert("NAME".into(), json!(gateway.name));
    metadata.insert("LABELS".into(), json!({"app": gateway.service_account}));
    metadata.insert("SERVICE_ACCOUNT".into(), json!(gateway.service_account));
    metadata.insert("WORKLOAD_NAME".into(), json!(gateway.service_account));
    metadata.insert("INSTANCE_IPS".into(), json!(gateway.address.to_string()));
    metadata.insert("RAJUT_DATA_PLANE".into(), json!(data_plane));
    metadata.insert("RAJUT_ROLE".into(), json!("host-gateway"));
    metadata.insert(
        "RAJUT_CAPTURE".into(),
        json!({"mode": "explicit", "outbound": outbound(&gateway.outbound), "inbound": {}}),
    );
    let id = node_id("sidecar", gateway.address, &gateway.name, &gateway.namespace);
    let cluster = format!("{}.{}", gateway.name, gateway.namespace);
    bootstrap(&id, &cluster, &metadata, gateway.admin(), data_plane, discovery)
}

/// Istio's form: `sidecar~<ip>~<name>.<namespace>~<namespace>.svc.cluster.local`; `router` in front for gateways.
pub fn node_id(kind: &str, address: Ipv4Addr, name: &str, namespace: &str) -> String {
    format!("{kind}~{address}~{name}.{namespace}~{namespace}.svc.cluster.local")
}

fn capture(instance: &Instance, mode: CaptureMode, namespace_path: Option<&Path>) -> Value {
    match mode {
        CaptureMode::Netns => {
            let inbound: Map<String, Value> = instance
                .ports
                .iter()
                .map(|port| {
                    let outside = instance.inbound_socket(port.container);
                    (port.container.to_string(), json!(outside.to_string()))
                })
                .collect();
            json!({
                "mode": "netns",
                "path": namespace_path.map(|path| path.display().to_string()),
                "appAddress": instance.app_address.to_string(),
                "inbound": inbound,
            })
        }
        CaptureMode::Explicit => {
            let inbound: Map<String, Value> = instance
                .ports
                .iter()
                .map(|port| {
                    let app = SocketAddr::from((Ipv4Addr::LOCALHOST, port.app));
                    let listen = instance.inbound_socket(port.container);
                    (
                        port.container.to_string(),
                        json!({"listen": listen.to_string(), "app": app.to_string()}),
                    )
                })
                .collect();
            json!({"mode": "explicit", "outbound": outbound(&instance.outbound), "inbound": inbound})
        }
    }
}

fn outbound(ports: &[OutboundPort]) -> Value {
    ports
        .iter()
        .map(|port| json!({"host": port.host, "port": port.port, "listen": port.listen.to_string()}))
        .collect()
}

fn bootstrap(
    id: &str,
    cluster: &str,
    metadata: &Map<String, Value>,
    admin: SocketAddr,
    data_plane: DataPlane,
    discovery: &Discovery,
) -> Value {
    // Upstream Envoy stays with the state of the world, which more control planes have proven with it.
    let api_type = match data_plane {
        DataPlane::Rajut => "DELTA_GRPC",
        DataPlane::Envoy => "GRPC",
    };
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    let source = |api_type: &str| {
        json!({
            "api_type": api_type,
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
        })
    };
    let mut bootstrap = json!({
        "node": {"id": id, "cluster": cluster, "metadata": metadata},
        "admin": {"address": socket_address(admin)},
        "dynamic_resources": {
            "ads_config": source(api_type),
            "lds_config": ads,
            "cds_config": ads,
        },
        "cluster_manager": {"load_stats_config": source("GRPC")},
        "static_resources": {"clusters": [discovery_cluster(discovery)]},
    });
    // Where a whole mesh has one address, each admin port is one that was free, and scrapers go there.
    if admin.port() == ADMIN_PORT {
        let fixed = &mut bootstrap["static_resources"];
        fixed["listeners"] = json!([stats_listener(SocketAddr::new(admin.ip(), STATS_PORT))]);
        if let Some(clusters) = fixed["clusters"].as_array_mut() {
            clusters.push(stats_cluster(admin));
        }
    }
    if data_plane == DataPlane::Envoy {
        bootstrap["stats_config"] = json!({"use_all_default_tags": false, "stats_tags": stats_tags()});
    }
    bootstrap
}

/// How Envoy takes the names of clusters and connection managers out of its counters' names: a service's full name holds
/// dots, which Envoy's own expression takes for the end. Source: Istio's bootstrap for the sidecar.
fn stats_tags() -> Value {
    let tag = |name: &str, expression: &str| json!({"tag_name": name, "regex": expression});
    json!([
        tag(
            "envoy.cluster_name",
            r"^cluster\.((.+?(\..+?\.svc\.cluster\.local)?)\.)"
        ),
        tag("envoy.http_conn_manager_prefix", r"^http\.((.+?)\.)downstream_"),
        tag("envoy.response_code", r"_rq(_(\d{3}))$"),
        tag("envoy.response_code_class", r"_rq(_(\dxx))$"),
    ])
}

fn discovery_cluster(discovery: &Discovery) -> Value {
    let address = match discovery {
        Discovery::Direct(address) => socket_address(*address),
        Discovery::Agent(path) => json!({"pipe": {"path": path.display().to_string()}}),
    };
    json!({
        "name": "xds-grpc",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
        "load_assignment": {
            "cluster_name": "xds-grpc",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    })
}

/// Passes a scraper on to the admin port, and nobody else. Source: Istio's bootstrap for the sidecar.
fn stats_listener(address: SocketAddr) -> Value {
    let filters = "type.googleapis.com/envoy.extensions.filters";
    json!({
        "name": "stats",
        "address": socket_address(address),
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": format!("{filters}.network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "stats",
                "route_config": {
                    "virtual_hosts": [{
                        "name": "backend",
                        "domains": ["*"],
                        "routes": [{"match": {"path": "/stats/prometheus"}, "route": {"cluster": "prometheus_stats"}}],
                    }],
                },
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": format!("{filters}.http.router.v3.Router")},
                }],
            },
        }]}],
    })
}

fn stats_cluster(admin: SocketAddr) -> Value {
    json!({
        "name": "prometheus_stats",
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "load_assignment": {
            "cluster_name": "prometheus_stats",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket_address(admin)}}]}],
        },
    })
}

fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(address: Ipv4Addr) -> Gateway {
        Gateway {
            address,
            admin_address: (address, 15_000).into(),
            name: "host-gateway".to_owned(),
            service_account: "host-gateway".to_owned(),
            namespace: "rajut-system".to_owned(),
            outbound: Vec::new(),
        }
    }

    #[test]
    fn a_further_gateway_has_an_admin_address_of_its_own() {
        let own = gateway(Ipv4Addr::new(127, 17, 255, 2));
        let further = own
            .another(1, Vec::new(), || panic!("it has an address"))
            .unwrap();
        assert_eq!(further.admin().to_string(), "127.17.255.3:15000");
        assert_eq!(further.name, "host-gateway-2");
        let shared = gateway(Ipv4Addr::LOCALHOST);
        let further = shared.another(1, Vec::new(), || Ok(19_001)).unwrap();
        assert_eq!(further.admin().to_string(), "127.0.0.1:19001");
        assert!(
            shared
                .another(1, Vec::new(), || Err(io::Error::other("none")))
                .is_err()
        );
    }
}
