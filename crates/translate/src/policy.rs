//! Which traffic policy holds for one cluster: the destination rule's, the subset's and the port's layers, and the
//! mesh's defaults under them.
//!
//! Source: Istio `MergeTrafficPolicy`. Subset blocks replace destination blocks one by one; an entry for the port
//! replaces all four blocks wholesale, so a block that it leaves out falls to the built-in default.

use std::time::Duration;

use rajut_config::model::{
    ClientTls, ConnectionPool, DestinationRule, HashKey, LbAlgorithm, LoadBalancer, MeshConfig,
    OutlierDetection, SubsetRule, TrafficPolicy,
};
use rajut_ir::route::HashPolicy;
use rajut_types::Percent;

/// The blocks that hold for one cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Effective {
    pub(crate) load_balancer: Option<LoadBalancer>,
    pub(crate) pool: ConnectionPool,
    pub(crate) outlier: Option<OutlierDetection>,
    pub(crate) tls: Option<ClientTls>,
    pub(crate) retry_budget: Option<(Percent, u32)>,
}

/// Idle time of pooled HTTP and TCP connections where nobody says otherwise (Istio and Envoy: 1 h).
pub(crate) const IDLE_DEFAULT: Duration = Duration::from_hours(1);

impl Effective {
    /// The policy of a cluster of `rule` (or of none).
    pub(crate) fn new(
        mesh: &MeshConfig,
        rule: Option<&DestinationRule>,
        subset: Option<&SubsetRule>,
        port: u16,
    ) -> Self {
        let mut blocks = rule.map(|rule| at_port(&rule.policy, port)).unwrap_or_default();
        if let Some(subset) = subset {
            blocks = over(blocks, &subset.policy, port);
        }
        Self {
            load_balancer: blocks.load_balancer,
            pool: blocks
                .connection_pool
                .or_else(|| mesh.default_connection_pool.clone())
                .unwrap_or_default(),
            outlier: blocks.outlier_detection,
            tls: blocks.tls,
            retry_budget: blocks.retry_budget,
        }
    }

    /// The algorithm; least request where nothing is said.
    pub(crate) fn algorithm(&self) -> LbAlgorithm {
        self.load_balancer
            .as_ref()
            .and_then(|lb| lb.algorithm.clone())
            .unwrap_or(LbAlgorithm::LeastRequest)
    }

    /// What routes hash for this cluster, where it hashes consistently.
    pub(crate) fn hash_policy(&self) -> Option<HashPolicy> {
        let LbAlgorithm::ConsistentHash { key, .. } = self.algorithm() else {
            return None;
        };
        Some(match key {
            HashKey::Header(name) => HashPolicy::Header(name.to_ascii_lowercase().into()),
            HashKey::Cookie { name, path, ttl } => HashPolicy::Cookie { name, ttl, path },
            HashKey::SourceIp => HashPolicy::SourceIp,
            HashKey::QueryParameter(name) => HashPolicy::QueryParameter(name),
        })
    }
}

/// One level's blocks for a port: the port's entry wholesale, or the level's own.
fn at_port(policy: &TrafficPolicy, port: u16) -> TrafficPolicy {
    match policy.ports.iter().find(|(number, _)| *number == port) {
        Some((_, entry)) => TrafficPolicy {
            ports: Vec::new(),
            retry_budget: None,
            ..entry.clone()
        },
        None => TrafficPolicy {
            ports: Vec::new(),
            ..policy.clone()
        },
    }
}

/// A subset's policy over the destination's blocks.
fn over(base: TrafficPolicy, subset: &TrafficPolicy, port: u16) -> TrafficPolicy {
    if subset.ports.iter().any(|(number, _)| *number == port) {
        return TrafficPolicy {
            retry_budget: base.retry_budget,
            ..at_port(subset, port)
        };
    }
    TrafficPolicy {
        load_balancer: subset.load_balancer.clone().or(base.load_balancer),
        connection_pool: subset.connection_pool.clone().or(base.connection_pool),
        outlier_detection: subset.outlier_detection.clone().or(base.outlier_detection),
        tls: subset.tls.clone().or(base.tls),
        ports: Vec::new(),
        retry_budget: subset.retry_budget.or(base.retry_budget),
    }
}

#[cfg(test)]
mod tests {
    use rajut_config::model::{ClientTlsMode, Visibility};
    use rajut_types::{Labels, ObjectRef, Origin};

    use super::*;

    fn pool(limit: u32) -> ConnectionPool {
        ConnectionPool {
            max_connections: Some(limit),
            ..ConnectionPool::default()
        }
    }

    fn tls() -> ClientTls {
        ClientTls {
            mode: ClientTlsMode::Disable,
            client_certificate: None,
            ca_certificates: None,
            subject_alt_names: Vec::new(),
            sni: None,
            insecure_skip_verify: false,
        }
    }

    fn rule(policy: TrafficPolicy, subset: TrafficPolicy) -> DestinationRule {
        let origin = Origin::new("t.yaml", ObjectRef::new("DestinationRule", "a", "r"));
        DestinationRule {
            name: "r".into(),
            namespace: "a".into(),
            host: "h.x".parse().expect("valid"),
            policy,
            subsets: vec![SubsetRule {
                name: "v1".into(),
                labels: Labels::default(),
                policy: subset,
                origin: origin.clone(),
            }],
            health_check: None,
            export_to: Visibility::All,
            workload_selector: None,
            origin,
            age: 0,
        }
    }

    fn effective(rule: &DestinationRule, with_subset: bool, port: u16) -> Effective {
        let subset = rule.subsets.first().filter(|_| with_subset);
        Effective::new(&MeshConfig::default(), Some(rule), subset, port)
    }

    #[test]
    fn subset_blocks_replace_destination_blocks_one_by_one() {
        let rule = rule(
            TrafficPolicy {
                connection_pool: Some(pool(1)),
                tls: Some(tls()),
                ..TrafficPolicy::default()
            },
            TrafficPolicy {
                connection_pool: Some(pool(2)),
                ..TrafficPolicy::default()
            },
        );
        assert_eq!(effective(&rule, true, 80).pool.max_connections, Some(2));
        assert!(effective(&rule, true, 80).tls.is_some());
        assert_eq!(effective(&rule, false, 80).pool.max_connections, Some(1));
    }

    #[test]
    fn an_entry_for_the_port_replaces_all_blocks_and_the_retry_budget() {
        let at_port = TrafficPolicy {
            connection_pool: Some(pool(9)),
            ..TrafficPolicy::default()
        };
        let rule = rule(
            TrafficPolicy {
                tls: Some(tls()),
                retry_budget: Some((Percent::ALL, 1)),
                ports: vec![(80, at_port)],
                ..TrafficPolicy::default()
            },
            TrafficPolicy::default(),
        );
        let found = effective(&rule, false, 80);
        assert_eq!(
            (found.pool.max_connections, found.tls, found.retry_budget),
            (Some(9), None, None)
        );
        assert!(effective(&rule, false, 81).tls.is_some());
    }

    #[test]
    fn a_subsets_entry_for_the_port_keeps_the_destinations_retry_budget_only() {
        let at_port = TrafficPolicy {
            connection_pool: Some(pool(9)),
            ..TrafficPolicy::default()
        };
        let rule = rule(
            TrafficPolicy {
                tls: Some(tls()),
                retry_budget: Some((Percent::ALL, 1)),
                ..TrafficPolicy::default()
            },
            TrafficPolicy {
                ports: vec![(80, at_port)],
                ..TrafficPolicy::default()
            },
        );
        let found = effective(&rule, true, 80);
        assert_eq!((found.tls, found.retry_budget), (None, Some((Percent::ALL, 1))));
    }

    #[test]
    fn the_meshs_pool_lies_under_every_rule() {
        let mesh = MeshConfig {
            default_connection_pool: Some(pool(5)),
            ..MeshConfig::default()
        };
        assert_eq!(
            Effective::new(&mesh, None, None, 80).pool.max_connections,
            Some(5)
        );
    }
}
