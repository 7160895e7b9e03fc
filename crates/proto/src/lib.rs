//! The one door to protobuf: every generated or hand-written message that the mesh exchanges is reached through here.
//!
//! - [`envoy`], [`google`], [`xds`]: the types that the package `envoy-types` carries, under their own names; the
//!   short modules ([`core`], [`listener`], …) are those that `ir`'s `wire` and `xds` use most.
//! - [`nds`], [`ca`], [`stats`]: the few messages of Istio that nobody packages, written by hand.
//! - [`recorder`]: our own service, which Envoy has no counterpart for.
//! - [`type_url`]: the type URLs of the resources.
//! - [`schema`]: constant tables of all messages and fields, to scan wire bytes (unknown fields, fields that are set)
//!   and to put maps in order; costs no heap.
//! - [`reflect`]: descriptors for JSON, loaded on first use (some megabytes).
//!
//! Nothing here knows what a message means; `ir::wire` does. No I/O.
//!
//! ```
//! use rajut_proto::{listener::Listener, schema};
//! use prost::Message;
//!
//! let listener = Listener { name: "a".into(), ..Default::default() };
//! let found = schema::set_fields("envoy.config.listener.v3.Listener", &listener.encode_to_vec()).unwrap();
//! assert_eq!(found[0].path, "name");
//! ```

pub mod ca;
pub mod nds;
pub mod recorder;
pub mod reflect;
pub mod schema;
pub mod stats;
pub mod type_url;

pub use envoy_types::pb::{envoy, google, opentelemetry, xds};
pub use google::protobuf::Any;

/// `envoy.config.core.v3`.
pub mod core {
    pub use envoy_types::pb::envoy::config::core::v3::*;
}
/// `envoy.config.listener.v3`.
pub mod listener {
    pub use envoy_types::pb::envoy::config::listener::v3::*;
}
/// `envoy.config.route.v3`.
pub mod route {
    pub use envoy_types::pb::envoy::config::route::v3::*;
}
/// `envoy.config.cluster.v3`.
pub mod cluster {
    pub use envoy_types::pb::envoy::config::cluster::v3::*;
}
/// `envoy.config.endpoint.v3`.
pub mod endpoint {
    pub use envoy_types::pb::envoy::config::endpoint::v3::*;
}
/// `envoy.config.bootstrap.v3`.
pub mod bootstrap {
    pub use envoy_types::pb::envoy::config::bootstrap::v3::*;
}
/// `envoy.config.accesslog.v3`.
pub mod accesslog {
    pub use envoy_types::pb::envoy::config::accesslog::v3::*;
}
/// `envoy.extensions.transport_sockets.tls.v3`.
pub mod tls {
    pub use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::*;
}
/// `envoy.extensions.filters.network.http_connection_manager.v3`.
pub mod hcm {
    pub use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::*;
}
/// `envoy.extensions.filters.network.tcp_proxy.v3`.
pub mod tcp_proxy {
    pub use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::*;
}
/// `envoy.type.matcher.v3`.
pub mod matcher {
    pub use envoy_types::pb::envoy::r#type::matcher::v3::*;
}
/// `envoy.type.v3`.
pub mod types {
    pub use envoy_types::pb::envoy::r#type::v3::*;
}
/// `envoy.service.discovery.v3`: requests, responses, the aggregated service.
pub mod discovery {
    pub use envoy_types::pb::envoy::service::discovery::v3::*;
}
/// `envoy.service.load_stats.v3`: what proxies report of their load.
pub mod load_stats {
    pub use envoy_types::pb::envoy::service::load_stats::v3::*;
}
/// `envoy.service.secret.v3`: SDS, as the agent serves it to Envoy.
pub mod sds {
    pub use envoy_types::pb::envoy::service::secret::v3::*;
}
/// `envoy.admin.v3`: the messages of `/config_dump` and its neighbours.
pub mod admin {
    pub use envoy_types::pb::envoy::admin::v3::*;
}
