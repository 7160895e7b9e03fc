//! One epoch: configuration, endpoints, secrets and trust as one immutable, versioned object.
//!
//! Built once per change on the main thread ([`Config`]), sent to every worker, which wraps it with its own pools
//! ([`Epoch`]) and adopts it between polls. A request takes the worker's epoch once, when it is decided.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use rajut_identity::Revoked;
use rajut_types::Text;

use crate::{
    cluster::{Cluster, Clusters, demand::Demand},
    connection::Peer,
    http::filters::Routes,
    listener::Listener,
    upstream::pool::Pools,
};

/// What all workers share of one epoch. Never changed.
#[derive(Debug, Default)]
pub struct Config {
    /// Rises by one with every change that the proxy adopts.
    pub version: u64,
    /// name → listener.
    pub listeners: HashMap<Text, Arc<Listener>>,
    /// Address → the listener without a socket that takes connections to it; an unspecified IP takes every address.
    pub redirected: HashMap<SocketAddr, Arc<Listener>>,
    /// name → compiled routes of RDS; routes in place belong to their connection manager.
    pub routes: HashMap<Text, Arc<Routes>>,
    /// name → cluster with its hosts, breakers and TLS.
    pub clusters: Clusters,
    /// Where a cluster that is not there is asked for; `None` where the control plane tells all.
    pub demand: Option<Demand>,
    /// Clusters that were asked for and do not exist.
    pub absent: HashSet<Text>,
    /// What the mesh has revoked.
    pub revoked: Option<Arc<Revoked>>,
}

impl Config {
    /// Whether a peer's certificate has been revoked, maybe after its handshake.
    pub fn revokes(&self, peer: &Peer) -> bool {
        match (&self.revoked, peer) {
            (Some(revoked), Peer::Verified(identity)) => revoked.serials().contains(&*identity.serial),
            _ => false,
        }
    }

    /// The listener that redirected connections to `destination` go to: that address, else its port on any address.
    pub fn listener_at(&self, destination: SocketAddr) -> Option<&Arc<Listener>> {
        let any: IpAddr = match destination {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.redirected
            .get(&destination)
            .or_else(|| self.redirected.get(&SocketAddr::new(any, destination.port())))
    }
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
    /// The first of a worker: no pools yet.
    pub fn first(config: Arc<Config>) -> Self {
        Self {
            config,
            pools: Rc::default(),
        }
    }

    /// The next, with the pools of this one as far as they still serve it.
    #[must_use]
    pub fn next(&self, config: Arc<Config>) -> Self {
        self.pools.retain(&config);
        Self {
            config,
            pools: self.pools.clone(),
        }
    }

    /// The cluster of that name, compiled now where no request has needed it so far.
    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.config.clusters.get(name)?.get()
    }
}
