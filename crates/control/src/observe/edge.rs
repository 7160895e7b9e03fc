//! Who calls whom. Pure.

use rajut_types::Text;
use serde::{Deserialize, Serialize};

/// Clusters that stand for no service and yet lead somewhere, or for what a proxy could not name.
const NAMED_BY_THEMSELVES: [&str; 4] = ["PassthroughCluster", "BlackHoleCluster", "unknown", "other"];

/// The workload that calls, all of its instances together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// Its namespace.
    pub namespace: Text,
    /// Its deployment.
    pub workload: Text,
    /// Its verified identity.
    pub principal: Text,
}

/// What is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The service's host, or the name of a cluster that stands for none.
    pub host: Text,
    /// The service's port; 0 where there is no service.
    pub port: u16,
    /// The subset, may be empty.
    pub subset: Text,
}

/// See [`Caller`] and [`Target`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeKey {
    /// Who.
    pub caller: Caller,
    /// Whom.
    pub target: Target,
}

impl Target {
    /// Of a cluster's name in Istio's form `outbound|port|subset|host`; `None` for those that are no edge of the mesh (the
    /// proxy's own, and the inbound ones, whose calls the client's proxy reports).
    pub fn of_cluster(name: &str) -> Option<Self> {
        if NAMED_BY_THEMSELVES.contains(&name) {
            return Some(Self {
                host: name.into(),
                port: 0,
                subset: Text::default(),
            });
        }
        let mut parts = name.strip_prefix("outbound|")?.splitn(3, '|');
        let port = parts.next()?.parse().ok()?;
        let subset = parts.next()?;
        let host = parts.next().filter(|host| !host.is_empty())?;
        Some(Self {
            host: host.into(),
            port,
            subset: subset.into(),
        })
    }

    /// The namespace in a host of Kubernetes' form.
    pub fn namespace(&self) -> Option<&str> {
        let mut parts = self.host.split('.');
        let (_, namespace, kind) = (parts.next()?, parts.next()?, parts.next()?);
        (kind == "svc").then_some(namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_of_services_are_edges_and_a_proxys_own_are_none() {
        let target = Target::of_cluster("outbound|8080|v1|api.clinic.svc.cluster.local").expect("an edge");
        assert_eq!(
            (&*target.host, target.port, &*target.subset, target.namespace()),
            ("api.clinic.svc.cluster.local", 8080, "v1", Some("clinic"))
        );
        let outside = Target::of_cluster("outbound|443||lab.example.org").expect("an edge");
        assert_eq!((&*outside.subset, outside.namespace()), ("", None));
        assert_eq!(
            Target::of_cluster("BlackHoleCluster").map(|target| target.port),
            Some(0)
        );
        for none in [
            "inbound|8080||",
            "xds-grpc",
            "outbound|x||a",
            "outbound|80|a",
            "outbound|80||",
            "outbound|99999||a",
            "",
        ] {
            assert_eq!(Target::of_cluster(none), None, "{none}");
        }
    }
}
