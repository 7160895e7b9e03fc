//! What the proxy holds of its resources: listeners, routes and secrets as `ir` has them, clusters and endpoints encoded.
//!
//! A sidecar of a large mesh is told a thousand clusters and uses ten. All were decoded once, to be judged; what is kept is
//! what came. Listeners, policies, TLS and secrets are never lazy.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use rajut_ir::{
    NameTable, Resources,
    cluster::{Cluster, Discovery},
    endpoint::LoadAssignment,
    listener::Listener,
    route::RouteConfiguration,
    secret::Secret,
    wire,
};
use rajut_types::Text;

use crate::cluster::dns;

/// See the module.
#[derive(Debug, Default)]
pub struct Held {
    /// name → listener.
    pub listeners: BTreeMap<Text, Arc<Listener>>,
    /// name → route configuration.
    pub routes: BTreeMap<Text, Arc<RouteConfiguration>>,
    /// name → cluster.
    pub clusters: BTreeMap<Text, ClusterSource>,
    /// cluster's (or EDS service's) name → endpoints.
    pub assignments: BTreeMap<Text, Endpoints>,
    /// name → secret.
    pub secrets: BTreeMap<Text, Arc<Secret>>,
    /// What the sidecar's DNS answers by itself.
    pub names: Option<Arc<NameTable>>,
}

/// A cluster's resource.
#[derive(Debug, Clone)]
pub enum ClusterSource {
    /// Decoded: its names are looked up whether it is used or not.
    Kept(Arc<Cluster>),
    /// As it came.
    Encoded {
        /// The message.
        body: Bytes,
        /// Under which name its endpoints come by EDS.
        eds: Option<Text>,
        /// It has TLS, whose secrets and files are looked at when it arrives.
        tls: bool,
    },
}

impl PartialEq for ClusterSource {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Kept(one), Self::Kept(other)) => Arc::ptr_eq(one, other),
            (Self::Encoded { body: one, .. }, Self::Encoded { body: other, .. }) => same(one, other),
            (Self::Kept(_), Self::Encoded { .. }) | (Self::Encoded { .. }, Self::Kept(_)) => false,
        }
    }
}

impl ClusterSource {
    /// Keeps `cluster`, which was decoded from `body`.
    pub fn new(cluster: Cluster, body: Bytes) -> Self {
        if dns::is_needed(&cluster) {
            return Self::Kept(Arc::new(cluster));
        }
        Self::Encoded {
            body,
            eds: match cluster.discovery {
                Discovery::Eds { service_name } => Some(service_name),
                _ => None,
            },
            tls: cluster.tls.is_some() || !cluster.tls_matches.is_empty(),
        }
    }

    /// Under which name its endpoints come by EDS.
    pub fn eds(&self) -> Option<&Text> {
        match self {
            Self::Encoded { eds, .. } => eds.as_ref(),
            Self::Kept(cluster) => match &cluster.discovery {
                Discovery::Eds { service_name } => Some(service_name),
                _ => None,
            },
        }
    }

    /// Whether it has TLS.
    pub fn has_tls(&self) -> bool {
        match self {
            Self::Encoded { tls, .. } => *tls,
            Self::Kept(cluster) => cluster.tls.is_some() || !cluster.tls_matches.is_empty(),
        }
    }
}

/// Endpoints of a cluster.
#[derive(Debug, Clone)]
pub enum Endpoints {
    /// Decoded: answers of the resolver.
    Kept(Arc<LoadAssignment>),
    /// As they came.
    Encoded(Bytes),
}

impl PartialEq for Endpoints {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Kept(one), Self::Kept(other)) => Arc::ptr_eq(one, other) || one == other,
            (Self::Encoded(one), Self::Encoded(other)) => same(one, other),
            (Self::Kept(_), Self::Encoded(_)) | (Self::Encoded(_), Self::Kept(_)) => false,
        }
    }
}

/// Equal bytes; the same ones are not compared.
fn same(one: &Bytes, other: &Bytes) -> bool {
    (one.as_ptr() == other.as_ptr() && one.len() == other.len()) || one == other
}

impl From<Resources> for Held {
    /// What a bootstrap file gives. Its clusters are encoded anew, as they would have come.
    fn from(resources: Resources) -> Self {
        let clusters = resources.clusters.into_iter().map(|(name, cluster)| {
            let body = wire::encode_cluster(&cluster).value;
            // What the encoder can't say (it has no name on the wire) stays as it is.
            let faithful = wire::decode_cluster(&body).is_ok_and(|decoded| decoded.value == *cluster);
            let source = if faithful {
                ClusterSource::new(Arc::unwrap_or_clone(cluster), body)
            } else {
                ClusterSource::Kept(cluster)
            };
            (name, source)
        });
        Self {
            clusters: clusters.collect(),
            assignments: resources
                .assignments
                .into_iter()
                .map(|(name, assignment)| (name, Endpoints::Kept(assignment)))
                .collect(),
            listeners: resources.listeners,
            routes: resources.routes,
            secrets: resources.secrets,
            names: resources.names,
        }
    }
}
