//! Endpoints of a cluster.
//!
//! Rejected: named endpoints, LEDS, drop policies, additional addresses, internal listeners.

use rajut_proto::{
    core::HealthStatus,
    endpoint::{self as pb, cluster_load_assignment::Policy, lb_endpoint::HostIdentifier},
    google::protobuf::{Struct, value},
    type_url,
};
use rajut_types::Labels;

use super::{
    DecodeResult, Encoded,
    read::{self, Place, Reader, number},
    write,
};
use crate::endpoint::{Endpoint, Health, LoadAssignment, LocalityEndpoints};

const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";
const LB: &str = "envoy.lb";
const ISTIO: &str = "istio";
const WORKLOAD: &str = "workload";

/// Encodes.
pub fn encode_load_assignment(assignment: &LoadAssignment) -> Encoded {
    write::resource(
        &assignment.cluster_name,
        type_url::CLUSTER_LOAD_ASSIGNMENT,
        &to_message(assignment),
    )
}

pub(super) fn to_message(assignment: &LoadAssignment) -> pb::ClusterLoadAssignment {
    pb::ClusterLoadAssignment {
        cluster_name: assignment.cluster_name.to_string(),
        endpoints: assignment.localities.iter().map(encode_locality).collect(),
        policy: assignment.overprovisioning_percent.map(|percent| Policy {
            overprovisioning_factor: Some(write::number(percent)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn encode_locality(locality: &LocalityEndpoints) -> pb::LocalityLbEndpoints {
    pb::LocalityLbEndpoints {
        locality: write::locality(&locality.locality),
        lb_endpoints: locality.endpoints.iter().map(encode_endpoint).collect(),
        load_balancing_weight: locality.weight.map(write::number),
        priority: locality.priority,
        ..Default::default()
    }
}

fn encode_endpoint(endpoint: &Endpoint) -> pb::LbEndpoint {
    let labels = |key, labels: &Labels| (!labels.is_empty()).then(|| (key, write::labels(labels)));
    let workload =
        (!endpoint.workload.is_empty()).then(|| (ISTIO, write::texts([(WORKLOAD, &*endpoint.workload)])));
    pb::LbEndpoint {
        health_status: match endpoint.health {
            Health::Unknown => HealthStatus::Unknown,
            Health::Healthy => HealthStatus::Healthy,
            Health::Unhealthy => HealthStatus::Unhealthy,
            Health::Draining => HealthStatus::Draining,
            Health::Degraded => HealthStatus::Degraded,
        }
        .into(),
        metadata: write::metadata([
            labels(TRANSPORT_SOCKET_MATCH, &endpoint.tls_labels),
            labels(LB, &endpoint.lb_labels),
            workload,
        ]),
        load_balancing_weight: Some(write::number(endpoint.weight)),
        host_identifier: Some(HostIdentifier::Endpoint(pb::Endpoint {
            address: Some(write::endpoint_address(&endpoint.address)),
            hostname: endpoint.hostname.to_string(),
            ..Default::default()
        })),
    }
}

/// Decodes.
pub fn decode_load_assignment(bytes: &[u8]) -> DecodeResult<LoadAssignment> {
    read::resource(
        bytes,
        |message: &pb::ClusterLoadAssignment| &message.cluster_name,
        |reader, message, place| {
            reader.named(
                &place.field("cluster_name"),
                &message.cluster_name,
                "the cluster's name",
            );
            Some(from_message(reader, place, &message))
        },
    )
}

/// Also of a cluster's own `load_assignment`.
pub(super) fn from_message(
    reader: &mut Reader,
    place: &Place<'_>,
    message: &pb::ClusterLoadAssignment,
) -> LoadAssignment {
    let factor = message
        .policy
        .as_ref()
        .and_then(|policy| number(policy.overprovisioning_factor.as_ref()));
    if factor == Some(0) {
        let place = place.field("policy");
        reader.out_of_range(&place.field("overprovisioning_factor"), 0, "1 or more");
    }
    LoadAssignment {
        cluster_name: message.cluster_name.as_str().into(),
        localities: message
            .endpoints
            .iter()
            .enumerate()
            .map(|(at, locality)| decode_locality(reader, &place.item("endpoints", at), locality))
            .collect(),
        overprovisioning_percent: factor,
    }
}

/// Envoy: `LocalityLbEndpoints.priority`.
const PRIORITY_MAX: u32 = 128;

fn decode_locality(
    reader: &mut Reader,
    place: &Place<'_>,
    message: &pb::LocalityLbEndpoints,
) -> LocalityEndpoints {
    if message.priority > PRIORITY_MAX {
        reader.out_of_range(&place.field("priority"), message.priority, "0 to 128");
    }
    LocalityEndpoints {
        locality: read::locality(message.locality.as_ref()),
        priority: message.priority,
        weight: number(message.load_balancing_weight.as_ref()),
        endpoints: message
            .lb_endpoints
            .iter()
            .enumerate()
            .filter_map(|(at, endpoint)| decode_endpoint(reader, &place.item("lb_endpoints", at), endpoint))
            .collect(),
    }
}

fn decode_endpoint(reader: &mut Reader, place: &Place<'_>, message: &pb::LbEndpoint) -> Option<Endpoint> {
    let endpoint = match &message.host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        // Refused by the list of supported fields.
        Some(HostIdentifier::EndpointName(_)) => return None,
        None => return reader.required(&place.field("endpoint"), None, "the endpoint"),
    };
    let health = match reader.enumerator(&place.field("health_status"), message.health_status) {
        HealthStatus::Unknown => Health::Unknown,
        HealthStatus::Healthy => Health::Healthy,
        HealthStatus::Unhealthy | HealthStatus::Timeout => Health::Unhealthy,
        HealthStatus::Draining => Health::Draining,
        HealthStatus::Degraded => Health::Degraded,
    };
    let weight = number(message.load_balancing_weight.as_ref()).unwrap_or(1);
    if weight == 0 {
        reader.out_of_range(&place.field("load_balancing_weight"), 0, "1 or more");
    }
    let metadata = message.metadata.as_ref();
    let address_place = place.field("endpoint");
    Some(Endpoint {
        address: reader.endpoint_address(&address_place.field("address"), endpoint.address.as_ref())?,
        health,
        weight,
        hostname: endpoint.hostname.as_str().into(),
        tls_labels: labels(read::metadata(metadata, TRANSPORT_SOCKET_MATCH)),
        workload: read::metadata(metadata, ISTIO)
            .map_or("", |fields| read::text_in(fields, WORKLOAD))
            .into(),
        lb_labels: labels(read::metadata(metadata, LB)),
    })
}

/// The texts, numbers and booleans of a `Struct`; labels know nothing else.
pub(super) fn labels(fields: Option<&Struct>) -> Labels {
    fields
        .into_iter()
        .flat_map(|it| &it.fields)
        .filter_map(|(key, value)| {
            let text = match value.kind.as_ref()? {
                value::Kind::StringValue(text) => text.clone(),
                value::Kind::BoolValue(flag) => flag.to_string(),
                value::Kind::NumberValue(number) => number.to_string(),
                value::Kind::NullValue(_) | value::Kind::StructValue(_) | value::Kind::ListValue(_) => {
                    return None;
                }
            };
            Some((key.as_str(), text))
        })
        .collect()
}
