//! The protocol's messages to and from protobuf. Resources stay bytes.

use std::collections::BTreeMap;

use rajut_proto::{core, discovery, google};
use rajut_types::{Locality, Text};
use serde_json::Value;

use crate::{
    Resource,
    message::{Node, Request, Response},
    resource::name_of,
};

/// `google.rpc.Code.INVALID_ARGUMENT`: the code of every NACK.
const INVALID_ARGUMENT: i32 = 3;
/// A state-of-the-world resource may be wrapped in this type, which then carries its name.
const WRAPPER: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

pub(crate) fn decode_delta_request(message: discovery::DeltaDiscoveryRequest) -> Request {
    Request {
        node: message.node.map(decode_node),
        type_url: message.type_url.into(),
        subscribe: texts(message.resource_names_subscribe),
        unsubscribe: texts(message.resource_names_unsubscribe),
        initial_versions: message
            .initial_resource_versions
            .into_iter()
            .map(|(name, version)| (name.into(), version.into()))
            .collect(),
        version: Text::default(),
        nonce: message.response_nonce.into(),
        error: message.error_detail.map(|status| status.message),
    }
}

pub(crate) fn encode_delta_request(request: Request) -> discovery::DeltaDiscoveryRequest {
    discovery::DeltaDiscoveryRequest {
        node: request.node.map(encode_node),
        type_url: request.type_url.to_string(),
        resource_names_subscribe: strings(&request.subscribe),
        resource_names_unsubscribe: strings(&request.unsubscribe),
        initial_resource_versions: request
            .initial_versions
            .iter()
            .map(|(name, version)| (name.to_string(), version.to_string()))
            .collect(),
        response_nonce: request.nonce.to_string(),
        error_detail: request.error.map(refusal),
        ..Default::default()
    }
}

pub(crate) fn decode_world_request(message: discovery::DiscoveryRequest) -> Request {
    Request {
        node: message.node.map(decode_node),
        type_url: message.type_url.into(),
        subscribe: texts(message.resource_names),
        unsubscribe: Vec::new(),
        initial_versions: BTreeMap::new(),
        version: message.version_info.into(),
        nonce: message.response_nonce.into(),
        error: message.error_detail.map(|status| status.message),
    }
}

pub(crate) fn encode_world_request(request: Request) -> discovery::DiscoveryRequest {
    discovery::DiscoveryRequest {
        version_info: request.version.to_string(),
        node: request.node.map(encode_node),
        resource_names: strings(&request.subscribe),
        type_url: request.type_url.to_string(),
        response_nonce: request.nonce.to_string(),
        error_detail: request.error.map(refusal),
        ..Default::default()
    }
}

pub(crate) fn decode_delta_response(message: discovery::DeltaDiscoveryResponse) -> Response {
    Response {
        type_url: message.type_url.into(),
        version: message.system_version_info.into(),
        nonce: message.nonce.into(),
        resources: message
            .resources
            .into_iter()
            .map(|resource| Resource {
                name: resource.name.into(),
                version: resource.version.into(),
                body: resource.resource.unwrap_or_default().value.into(),
            })
            .collect(),
        removed: texts(message.removed_resources),
    }
}

/// In this variant a resource carries no version of its own: the response's stands for it.
pub(crate) fn decode_world_response(message: discovery::DiscoveryResponse) -> Response {
    let version = Text::from(message.version_info);
    let resources = message.resources.into_iter().map(|any| {
        let wrapped = if any.type_url == WRAPPER {
            <discovery::Resource as prost::Message>::decode(&*any.value).ok()
        } else {
            None
        };
        match wrapped {
            Some(resource) => Resource {
                name: resource.name.into(),
                version: version.clone(),
                body: resource.resource.unwrap_or_default().value.into(),
            },
            None => Resource {
                name: name_of(&any.value).unwrap_or_default().into(),
                version: version.clone(),
                body: any.value.into(),
            },
        }
    });
    Response {
        type_url: message.type_url.into(),
        nonce: message.nonce.into(),
        resources: resources.collect(),
        removed: Vec::new(),
        version: version.clone(),
    }
}

fn refusal(message: String) -> google::rpc::Status {
    google::rpc::Status {
        code: INVALID_ARGUMENT,
        message,
        ..Default::default()
    }
}

fn texts(strings: Vec<String>) -> Vec<Text> {
    strings.into_iter().map(Text::from).collect()
}

fn strings(texts: &[Text]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

pub(crate) fn decode_node(node: core::Node) -> Node {
    let locality = node.locality.unwrap_or_default();
    Node {
        id: node.id.into(),
        cluster: node.cluster.into(),
        metadata: node
            .metadata
            .map_or(Value::Null, |metadata| decode_struct(metadata, 0)),
        locality: Locality {
            region: locality.region.into(),
            zone: locality.zone.into(),
            sub_zone: locality.sub_zone.into(),
        },
        user_agent: node.user_agent_name.into(),
    }
}

pub(crate) fn encode_node(node: Node) -> core::Node {
    core::Node {
        id: node.id.to_string(),
        cluster: node.cluster.to_string(),
        metadata: match node.metadata {
            Value::Object(members) => Some(encode_struct(members)),
            _ => None,
        },
        locality: (!node.locality.is_empty()).then(|| core::Locality {
            region: node.locality.region.to_string(),
            zone: node.locality.zone.to_string(),
            sub_zone: node.locality.sub_zone.to_string(),
        }),
        user_agent_name: node.user_agent.to_string(),
        ..Default::default()
    }
}

/// Deeper metadata is cut off; prost itself refuses a message of more than 100 levels.
const METADATA_DEPTH_MAX: u32 = 32;

fn decode_struct(message: google::protobuf::Struct, depth: u32) -> Value {
    let members = message.fields.into_iter();
    Value::Object(
        members
            .map(|(key, value)| (key, decode_value(value, depth)))
            .collect(),
    )
}

fn decode_value(value: google::protobuf::Value, depth: u32) -> Value {
    use google::protobuf::value::Kind;
    if depth > METADATA_DEPTH_MAX {
        return Value::Null;
    }
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => number_value(number),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::BoolValue(flag)) => Value::Bool(flag),
        Some(Kind::StructValue(members)) => decode_struct(members, depth + 1),
        Some(Kind::ListValue(list)) => {
            let values = list.values.into_iter();
            Value::Array(values.map(|value| decode_value(value, depth + 1)).collect())
        }
    }
}

/// Whole numbers as such, since JSON readers ask for ports as integers; `Struct` has doubles only.
fn number_value(number: f64) -> Value {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only whole numbers in range are converted"
    )]
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}

fn encode_struct(members: serde_json::Map<String, Value>) -> google::protobuf::Struct {
    google::protobuf::Struct {
        fields: members
            .into_iter()
            .map(|(key, value)| (key, encode_value(value)))
            .collect(),
    }
}

fn encode_value(value: Value) -> google::protobuf::Value {
    use google::protobuf::value::Kind;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(values) => Kind::ListValue(google::protobuf::ListValue {
            values: values.into_iter().map(encode_value).collect(),
        }),
        Value::Object(members) => Kind::StructValue(encode_struct(members)),
    };
    google::protobuf::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use rajut_proto::Any;

    use super::*;

    #[test]
    fn a_node_survives_the_wire() {
        let node = Node {
            id: "sidecar~10.0.0.1~a-0.ns~ns.svc.cluster.local".into(),
            cluster: "a.ns".into(),
            metadata: serde_json::json!({
                "NAMESPACE": "ns", "LABELS": {"app": "a"}, "PORTS": [8080, 1.5], "X": null, "Y": true
            }),
            locality: Locality::parse("r/z/s"),
            user_agent: "rajut".into(),
        };
        assert_eq!(decode_node(encode_node(node.clone())), node);
    }

    #[test]
    fn a_wrapped_resource_gives_its_name() {
        let wrapped = discovery::Resource {
            name: "outer".into(),
            resource: Some(Any {
                type_url: "t".into(),
                value: vec![0x0a, 1, b'i'],
            }),
            ..Default::default()
        };
        let response = decode_world_response(discovery::DiscoveryResponse {
            version_info: "7".into(),
            resources: vec![
                Any {
                    type_url: WRAPPER.into(),
                    value: prost::Message::encode_to_vec(&wrapped),
                },
                Any {
                    type_url: "t".into(),
                    value: vec![0x0a, 1, b'i'],
                },
            ],
            ..Default::default()
        });
        let names: Vec<_> = response
            .resources
            .iter()
            .map(|resource| &*resource.name)
            .collect();
        assert_eq!(names, ["outer", "i"]);
        assert_eq!(response.resources[0].body, response.resources[1].body);
    }
}
