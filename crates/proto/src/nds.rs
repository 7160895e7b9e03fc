//! Istio's name discovery: the table of names that a sidecar's DNS answers by itself.
//!
//! Source: Istio `istio.networking.nds.v1`.

use std::collections::BTreeMap;

/// `istio.networking.nds.v1.NameTable`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NameTable {
    /// Host name → what is known of it; sorted, so that the encoding is the same each time.
    #[prost(btree_map = "string, message", tag = "1")]
    pub table: BTreeMap<String, NameInfo>,
}

impl prost::Name for NameTable {
    const NAME: &'static str = "NameTable";
    const PACKAGE: &'static str = "istio.networking.nds.v1";
}

/// `istio.networking.nds.v1.NameTable.NameInfo`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct NameInfo {
    /// Addresses.
    #[prost(string, repeated, tag = "1")]
    pub ips: Vec<String>,
    /// `Kubernetes` or `External`.
    #[prost(string, tag = "2")]
    pub registry: String,
    /// The service's short name, for Kubernetes services.
    #[prost(string, tag = "3")]
    pub shortname: String,
    /// The service's namespace, for Kubernetes services.
    #[prost(string, tag = "4")]
    pub namespace: String,
}
