//! All resources of one proxy, by kind and name.

use std::{collections::BTreeMap, sync::Arc};

use rajut_types::Text;

use crate::{
    cluster::Cluster, endpoint::LoadAssignment, listener::Listener, route::RouteConfiguration, secret::Secret,
};

/// The kinds of xDS resources that the two planes exchange, in the order in which they are pushed (make before break:
/// clusters and endpoints exist before a route names them).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKind {
    /// CDS.
    Cluster,
    /// EDS.
    LoadAssignment,
    /// LDS.
    Listener,
    /// RDS.
    RouteConfiguration,
    /// SDS.
    Secret,
    /// NDS: Istio's table of names for the sidecar's DNS.
    NameTable,
}

/// What one proxy runs on. Shared by counting: an unchanged resource is the same allocation from one snapshot to the next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources {
    /// name → listener.
    pub listeners: BTreeMap<Text, Arc<Listener>>,
    /// name → route configuration (those that are fetched by RDS).
    pub routes: BTreeMap<Text, Arc<RouteConfiguration>>,
    /// name → cluster.
    pub clusters: BTreeMap<Text, Arc<Cluster>>,
    /// cluster's (or EDS service's) name → endpoints.
    pub assignments: BTreeMap<Text, Arc<LoadAssignment>>,
    /// name → secret.
    pub secrets: BTreeMap<Text, Arc<Secret>>,
    /// What the sidecar's DNS answers by itself.
    pub names: Option<Arc<NameTable>>,
}

/// Names that the sidecar's DNS answers by itself; every other name is forwarded.
/// Source: Istio `networking.nds.v1.NameTable`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameTable {
    /// Lower-case name without a trailing dot → addresses; a left-most `*` is a wildcard.
    pub names: BTreeMap<Text, Vec<std::net::IpAddr>>,
}
