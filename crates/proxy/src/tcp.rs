//! The opaque branch of walk one: bytes from a connection to a cluster's endpoint and back.

pub(crate) mod record;
pub mod serve;

use std::sync::Arc;

use rajut_ir::listener::{Direction, TcpProxy};

use crate::{
    access_log::{self, Log, OpenError},
    stats::{Registry, istio::Meter},
};

/// A running TCP proxy.
#[derive(Debug)]
pub struct Proxy {
    /// As configured.
    pub ir: Arc<TcpProxy>,
    /// Sum of the clusters' weights, at least 1.
    total_weight: u64,
    /// What it counts Istio's metrics by.
    meter: Option<Meter>,
    logs: Vec<Log>,
}

impl Proxy {
    /// Prepares a configured TCP proxy, opens its logs.
    pub fn compile(ir: Arc<TcpProxy>, direction: Direction, registry: &Registry) -> Result<Self, OpenError> {
        let total_weight = ir
            .clusters
            .iter()
            .map(|(_, weight)| u64::from(*weight))
            .sum::<u64>()
            .max(1);
        let meter = ir.stats.as_ref().map(|stats| registry.meter(direction, stats));
        Ok(Self {
            logs: access_log::open_all(&ir.access_logs, registry)?,
            ir,
            total_weight,
            meter,
        })
    }

    /// Writes the lines of a connection that is over.
    pub(crate) fn log(&self, worker: usize, record: &record::Record<'_>) {
        for log in &self.logs {
            log.write(worker, record);
        }
    }

    /// The cluster for a random `draw`.
    pub fn cluster_for(&self, draw: u64) -> Option<&str> {
        let mut rest = draw % self.total_weight;
        for (name, weight) in &self.ir.clusters {
            match rest.checked_sub(u64::from(*weight)) {
                Some(less) => rest = less,
                None => return Some(name),
            }
        }
        self.ir.clusters.first().map(|(name, _)| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_chosen_in_proportion_to_their_weights() {
        let ir = TcpProxy {
            stat_prefix: "t".into(),
            clusters: vec![("a".into(), 3), ("none".into(), 0), ("b".into(), 1)],
            idle_timeout: None,
            max_downstream_connection_duration: None,
            max_connect_attempts: 1,
            access_logs: Vec::new(),
            stats: None,
        };
        let proxy = Proxy::compile(Arc::new(ir), Direction::Outbound, &Registry::new(1)).unwrap();
        let chosen: Vec<_> = (0..8)
            .map(|draw| proxy.cluster_for(draw).expect("there are clusters"))
            .collect();
        assert_eq!(chosen, ["a", "a", "a", "b", "a", "a", "a", "b"]);
    }
}
