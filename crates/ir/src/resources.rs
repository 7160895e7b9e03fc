//! All resources of one proxy, by kind and name.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

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
///
/// Made of parts that many tables share: the names of one service are the same for the clients of all namespaces but its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameTable {
    /// No name stands in two of them.
    parts: Vec<Arc<Names>>,
}

/// Names, sorted, and the addresses of each. Lower case, without a trailing dot; a left-most `*` is a wildcard.
pub type Names = [(Text, Arc<[IpAddr]>)];

impl NameTable {
    /// A table of one part.
    pub fn new(names: impl IntoIterator<Item = (Text, Arc<[IpAddr]>)>) -> Self {
        let names: BTreeMap<Text, Arc<[IpAddr]>> = names.into_iter().collect();
        Self::of_parts(vec![names.into_iter().collect()])
    }

    /// A table of parts, each sorted, in which no name stands twice.
    pub fn of_parts(parts: Vec<Arc<Names>>) -> Self {
        Self { parts }
    }

    /// The parts.
    pub fn parts(&self) -> &[Arc<Names>] {
        &self.parts
    }

    /// The addresses of exactly this name.
    pub fn find(&self, name: &str) -> Option<&[IpAddr]> {
        self.parts.iter().find_map(|part| {
            let at = part.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
            part.get(at).map(|(_, addresses)| &**addresses)
        })
    }

    /// All names, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Text, &[IpAddr])> {
        let all = self.parts.iter().flat_map(|part| part.iter());
        all.map(|(name, addresses)| (name, &**addresses))
    }
}
