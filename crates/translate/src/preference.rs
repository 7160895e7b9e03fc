//! What a client's place means for the order and the weights of a service's endpoints.
//!
//! Source: Istio's `localityLbSetting` and `trafficDistribution`. Envoy and ours know priorities and weights of
//! localities; the place of the client is known here alone, so each place has endpoint sets of its own.

use std::collections::BTreeMap;

use rajut_config::model::{Failover, LocalitySetting, MeshConfig, Service, TrafficDistribution};
use rajut_ir::endpoint::{Endpoint, LocalityEndpoints};
use rajut_types::{Labels, Locality, Text};

use crate::policy::Effective;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Preference {
    /// All endpoints alike.
    None,
    /// Nearer ones first, the others for failures.
    Near {
        /// The client's place.
        from: Locality,
        /// What is near.
        failover: Failover,
        /// The client's labels that matter.
        labels: Labels,
    },
    /// Localities share the load: by these percentages, or by their endpoints where none are for the client's place.
    Shares(Option<Vec<(Text, u32)>>),
}

impl Preference {
    /// What holds for a client at `place` with these labels.
    pub(crate) fn new(
        mesh: &MeshConfig,
        service: &Service,
        policy: &Effective,
        place: &Locality,
        labels: &Labels,
    ) -> Self {
        let setting = setting(mesh, service, policy);
        let failover = match setting {
            LocalitySetting::Off => return Self::None,
            LocalitySetting::Distribute(all) => {
                let own = all
                    .into_iter()
                    .find(|distribution| place.is_in(&distribution.from));
                return Self::Shares(own.map(|distribution| distribution.to));
            }
            LocalitySetting::Nearest => Failover::default(),
            LocalitySetting::Failover(failover) => failover,
        };
        // Without ejections nobody would ever leave the first priority; a client of nowhere is near to nothing.
        if !(failover.forced || policy.outlier.is_some())
            || (failover.labels.is_empty() && place.region.is_empty())
        {
            return Self::None;
        }
        let asked = |key: &str| failover.labels.iter().any(|(asked, _)| **asked == *key);
        Self::Near {
            from: place.clone(),
            labels: labels.iter().filter(|(key, _)| asked(key)).collect(),
            failover,
        }
    }

    /// Where an endpoint with these labels stands: 0 is nearest.
    pub(crate) fn distance(&self, place: &Locality, labels: &Labels) -> u32 {
        let Self::Near {
            from,
            failover,
            labels: own,
        } = self
        else {
            return 0;
        };
        let by_label = failover.labels.iter().position(|(key, value)| {
            let near = value
                .as_deref()
                .or_else(|| from.label(own, key))
                .unwrap_or_default();
            near != place.label(labels, key).unwrap_or_default()
        });
        let missed = by_label.map_or(0, |first| failover.labels.len() - first);
        let missed = u32::try_from(missed).unwrap_or(u32::MAX / 8);
        if failover.labels.is_empty() || !failover.regions.is_empty() {
            // Five steps of places between two of labels.
            missed * 5 + by_place(from, place, &failover.regions)
        } else {
            missed
        }
    }

    /// Localities in the order of their distance, with their weights.
    pub(crate) fn localities(
        &self,
        places: BTreeMap<(u32, Locality), Vec<Endpoint>>,
    ) -> Vec<LocalityEndpoints> {
        let mut priority = 0;
        let mut before = None;
        let mut localities: Vec<LocalityEndpoints> = places
            .into_iter()
            .map(|((distance, locality), endpoints)| {
                // Compacted to 0..N, as Envoy wants it.
                if before.is_some_and(|before| before != distance) {
                    priority += 1;
                }
                before = Some(distance);
                LocalityEndpoints {
                    priority,
                    locality,
                    weight: None,
                    endpoints,
                }
            })
            .collect();
        if let Self::Shares(shares) = self {
            weigh(&mut localities, shares.as_deref());
        }
        localities
    }
}

/// What holds for traffic to a service: the rule's setting, the service's own, the mesh's.
pub(crate) fn setting(mesh: &MeshConfig, service: &Service, policy: &Effective) -> LocalitySetting {
    let of_rule = policy.load_balancer.as_ref().and_then(|lb| lb.locality.clone());
    let of_service = || service.traffic_distribution.map(forced);
    of_rule
        .or_else(of_service)
        .unwrap_or_else(|| mesh.locality.clone())
}

/// Kubernetes' distribution in Istio's terms.
fn forced(distribution: TrafficDistribution) -> LocalitySetting {
    const SAME_ZONE: &[&str] = &[
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "topology.istio.io/subzone",
    ];
    let node: &[&str] = match distribution {
        TrafficDistribution::SameZone => &[],
        TrafficDistribution::SameNode => &["kubernetes.io/hostname"],
    };
    LocalitySetting::Failover(Failover {
        regions: Vec::new(),
        labels: SAME_ZONE
            .iter()
            .chain(node)
            .map(|key| (Text::from(*key), None))
            .collect(),
        forced: true,
    })
}

/// Same sub-zone, zone, region, another region, one that the failover does not name.
fn by_place(from: &Locality, place: &Locality, regions: &[(Text, Text)]) -> u32 {
    if place.region != from.region {
        let next = regions.iter().find(|(own, _)| *own == from.region);
        3 + u32::from(next.is_some_and(|(_, next)| *next != place.region))
    } else if place.zone != from.zone {
        2
    } else {
        u32::from(place.sub_zone != from.sub_zone)
    }
}

/// Gives each locality its weight. With shares, places that none names get nothing.
fn weigh(localities: &mut Vec<LocalityEndpoints>, shares: Option<&[(Text, u32)]>) {
    let own = |locality: &LocalityEndpoints| -> u64 {
        let weights = locality
            .endpoints
            .iter()
            .map(|endpoint| u64::from(endpoint.weight));
        weights.sum()
    };
    let Some(shares) = shares else {
        for locality in localities {
            locality.weight = u32::try_from(own(locality)).ok();
        }
        return;
    };
    for (place, share) in shares {
        let named =
            |locality: &LocalityEndpoints| locality.weight.is_none() && locality.locality.is_in(place);
        let all: u64 = localities.iter().filter(|it| named(it)).map(own).sum();
        for locality in localities.iter_mut() {
            if named(locality) {
                let weight = (own(locality) * u64::from(*share)).div_ceil(all.max(1));
                locality.weight = u32::try_from(weight.max(1)).ok();
            }
        }
    }
    localities.retain(|locality| locality.weight.is_some());
}

#[cfg(test)]
mod tests;
