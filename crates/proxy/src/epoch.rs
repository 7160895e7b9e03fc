//! One epoch: configuration, endpoints, secrets and trust as one immutable, versioned object.
//!
//! Built once per change on the main thread ([`Config`]), sent to every worker, which wraps it with its own pools
//! ([`Epoch`]) and adopts it between polls. A request takes the worker's epoch once, when it is decided.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use rajut_types::Text;

use crate::{cluster::Cluster, upstream::pool::Pools};

/// What all workers share of one epoch. Never changed.
#[derive(Debug, Default)]
pub struct Config {
    /// Rises by one with every change that the proxy adopts.
    pub version: u64,
    /// name → cluster with its hosts, breakers and TLS.
    pub clusters: HashMap<Text, Arc<Cluster>>,
}

/// One worker's epoch.
#[derive(Debug)]
pub struct Epoch {
    /// The shared part.
    pub config: Arc<Config>,
    /// This worker's connection pools, one per cluster that was used; carried over where the cluster is unchanged.
    pub pools: Rc<Pools>,
}

impl Epoch {
    /// The cluster of that name.
    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.config.clusters.get(name)
    }
}
