//! Clusters whose endpoints are names: looked up here, published as assignments with addresses.
//!
//! One task per cluster ([`watch`]), on the main thread. A failed lookup keeps the last answer (fail static); until
//! the first answer the cluster has no endpoints. What it does not do: respect a record's time to live, which the
//! system's resolver does not tell; `refresh` bounds the age of every answer.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use rajut_ir::{
    cluster::{Cluster as ClusterIr, Discovery},
    endpoint::{Endpoint, EndpointAddress, LoadAssignment},
};
use rajut_platform::socket::lookup_host;
use rajut_types::Text;

/// How long one lookup may take.
const LOOKUP: Duration = Duration::from_secs(5);
/// Shortest time between two lookups of a name, whatever is configured.
const REFRESH_MIN: Duration = Duration::from_millis(100);
/// Most addresses that are taken of one name.
const ADDRESSES_MAX: usize = 256;

/// Whether the cluster needs [`watch`].
pub const fn is_needed(cluster: &ClusterIr) -> bool {
    matches!(
        cluster.discovery,
        Discovery::StrictDns(_) | Discovery::LogicalDns(_)
    )
}

/// Looks the cluster's names up for ever and publishes every answer that differs from the one before. Returns at once
/// where the cluster has none.
pub async fn watch(cluster: Arc<ClusterIr>, mut publish: impl FnMut(Arc<LoadAssignment>)) {
    let (named, logical) = match &cluster.discovery {
        Discovery::StrictDns(named) => (named, false),
        Discovery::LogicalDns(named) => (named, true),
        Discovery::Static(_) | Discovery::Eds { .. } | Discovery::OriginalDst => return,
    };
    let mut last: Option<Arc<LoadAssignment>> = None;
    loop {
        let resolved = resolve(named, logical, cluster.dns.v4_only, last.as_deref()).await;
        if last.as_deref() != Some(&resolved) {
            let resolved = Arc::new(resolved);
            publish(resolved.clone());
            last = Some(resolved);
        }
        tokio::time::sleep(cluster.dns.refresh.max(REFRESH_MIN)).await;
    }
}

async fn resolve(
    named: &LoadAssignment,
    logical: bool,
    v4_only: bool,
    last: Option<&LoadAssignment>,
) -> LoadAssignment {
    let mut resolved = named.clone();
    for locality in &mut resolved.localities {
        let mut endpoints = Vec::new();
        for endpoint in &locality.endpoints {
            let EndpointAddress::Dns { host, port } = &endpoint.address else {
                endpoints.push(endpoint.clone());
                continue;
            };
            match lookup(host, *port, v4_only).await {
                Some(addresses) => {
                    let count = if logical { 1 } else { ADDRESSES_MAX };
                    endpoints.extend(
                        addresses
                            .into_iter()
                            .take(count)
                            .map(|address| at(endpoint, host, address)),
                    );
                }
                // Keep what the name stood for.
                None => endpoints.extend(
                    last.into_iter()
                        .flat_map(LoadAssignment::endpoints)
                        .filter(|known| {
                            known.hostname == name_of(endpoint, host) && port_of(known) == Some(*port)
                        })
                        .cloned(),
                ),
            }
        }
        locality.endpoints = endpoints;
    }
    resolved
}

fn name_of(endpoint: &Endpoint, host: &Text) -> Text {
    if endpoint.hostname.is_empty() {
        host.clone()
    } else {
        endpoint.hostname.clone()
    }
}

const fn port_of(endpoint: &Endpoint) -> Option<u16> {
    match &endpoint.address {
        EndpointAddress::Socket(address) => Some(address.port()),
        EndpointAddress::Dns { .. } | EndpointAddress::Pipe(_) => None,
    }
}

fn at(endpoint: &Endpoint, host: &Text, address: SocketAddr) -> Endpoint {
    Endpoint {
        address: EndpointAddress::Socket(address),
        hostname: name_of(endpoint, host),
        ..endpoint.clone()
    }
}

/// The addresses of a name, sorted, IPv4 first; `None` where there is no answer.
async fn lookup(host: &str, port: u16, v4_only: bool) -> Option<Vec<SocketAddr>> {
    let found = tokio::time::timeout(LOOKUP, lookup_host((host, port))).await;
    let addresses: BTreeSet<SocketAddr> = match found {
        Ok(Ok(addresses)) => addresses
            .filter(|address| !v4_only || address.is_ipv4())
            .collect(),
        Ok(Err(error)) => {
            tracing::warn!(host, %error, "name not resolved");
            return None;
        }
        Err(_) => {
            tracing::warn!(host, "name not resolved in time");
            return None;
        }
    };
    (!addresses.is_empty()).then(|| addresses.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_becomes_addresses_and_a_failed_lookup_keeps_the_last_answer() {
        let endpoint = |host: &str| Endpoint {
            address: EndpointAddress::Dns {
                host: host.into(),
                port: 80,
            },
            health: rajut_ir::endpoint::Health::Unknown,
            weight: 1,
            hostname: Text::default(),
            tls_labels: rajut_types::Labels::default(),
            workload: Text::default(),
            lb_labels: rajut_types::Labels::default(),
        };
        let named = |host: &str| LoadAssignment {
            cluster_name: "c".into(),
            localities: vec![rajut_ir::endpoint::LocalityEndpoints {
                locality: rajut_types::Locality::default(),
                priority: 0,
                weight: None,
                endpoints: vec![endpoint(host)],
            }],
            overprovisioning_percent: None,
        };
        let found = resolve(&named("127.0.0.1"), false, false, None).await;
        let addresses: Vec<_> = found
            .endpoints()
            .map(|endpoint| endpoint.address.to_string())
            .collect();
        assert_eq!(addresses, ["127.0.0.1:80"]);
        let mut last = found;
        last.localities[0].endpoints[0].hostname = "nowhere.invalid".into();
        let kept = resolve(&named("nowhere.invalid"), false, false, Some(&last)).await;
        assert_eq!(kept.endpoints().count(), 1);
    }
}
