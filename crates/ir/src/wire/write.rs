//! What all encoders share.

use std::{net::SocketAddr, time::Duration};

use prost::{Message, Name};
use rajut_proto::{
    Any,
    core::{self as pb, address, config_source, data_source, socket_address},
    google::protobuf::{self as wkt, value},
    schema, types,
};
use rajut_types::{Labels, Locality, Percent, Text};

use super::Encoded;
use crate::{endpoint::EndpointAddress, tls::DataSource};

/// A resource as it goes on the wire, maps in order.
pub(super) fn resource<M: Message + Name>(name: &Text, type_url: &'static str, message: &M) -> Encoded {
    Encoded {
        name: name.clone(),
        type_url,
        value: schema::in_order(&M::full_name(), message.encode_to_vec()).into(),
    }
}

/// A packed message.
pub(super) fn any<M: Message>(type_url: &str, message: &M) -> Any {
    Any {
        type_url: type_url.to_owned(),
        value: message.encode_to_vec(),
    }
}

/// A packed message without fields.
pub(super) fn empty_any(type_url: &str) -> Any {
    Any {
        type_url: type_url.to_owned(),
        value: Vec::new(),
    }
}

pub(super) fn duration(value: Duration) -> wkt::Duration {
    // A duration of the configuration is far below protobuf's own limit.
    wkt::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(value.subsec_nanos()).unwrap_or(0),
    }
}

/// A duration whose zero means "none".
pub(super) fn bound(value: Option<Duration>) -> wkt::Duration {
    duration(value.unwrap_or_default())
}

pub(super) fn boolean(value: bool) -> wkt::BoolValue {
    wkt::BoolValue { value }
}

/// `Some(true)`, or left out.
pub(super) fn set(value: bool) -> Option<wkt::BoolValue> {
    value.then(|| boolean(true))
}

pub(super) fn number(value: u32) -> wkt::UInt32Value {
    wkt::UInt32Value { value }
}

pub(super) fn long(value: u64) -> wkt::UInt64Value {
    wkt::UInt64Value { value }
}

pub(super) fn percent(value: Percent) -> types::Percent {
    types::Percent {
        value: f64::from(value.millionths()) / 10_000.0,
    }
}

pub(super) fn fraction(value: Percent) -> types::FractionalPercent {
    types::FractionalPercent {
        numerator: value.millionths(),
        denominator: types::fractional_percent::DenominatorType::Million.into(),
    }
}

pub(super) fn runtime_fraction(value: Percent) -> pb::RuntimeFractionalPercent {
    pb::RuntimeFractionalPercent {
        default_value: Some(fraction(value)),
        runtime_key: String::new(),
    }
}

pub(super) fn text(value: &str) -> wkt::Value {
    wkt::Value {
        kind: Some(value::Kind::StringValue(value.to_owned())),
    }
}

/// A `Struct` of texts.
pub(super) fn texts<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> wkt::Struct {
    wkt::Struct {
        fields: pairs
            .into_iter()
            .map(|(key, value)| (key.to_owned(), text(value)))
            .collect(),
    }
}

pub(super) fn labels(value: &Labels) -> wkt::Struct {
    texts(value.iter())
}

/// Filter metadata of those keys; nothing where there is none.
pub(super) fn metadata(
    entries: impl IntoIterator<Item = Option<(&'static str, wkt::Struct)>>,
) -> Option<pb::Metadata> {
    let filter_metadata: std::collections::HashMap<_, _> = entries
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    (!filter_metadata.is_empty()).then(|| pb::Metadata {
        filter_metadata,
        typed_filter_metadata: std::collections::HashMap::new(),
    })
}

pub(super) fn socket(value: SocketAddr, netns: Option<&str>) -> pb::SocketAddress {
    host_and_port(value.ip().to_string(), value.port(), netns)
}

fn host_and_port(address: String, port: u16, netns: Option<&str>) -> pb::SocketAddress {
    pb::SocketAddress {
        address,
        port_specifier: Some(socket_address::PortSpecifier::PortValue(port.into())),
        network_namespace_filepath: netns.unwrap_or_default().to_owned(),
        ..Default::default()
    }
}

pub(super) fn socket_address(value: pb::SocketAddress) -> pb::Address {
    pb::Address {
        address: Some(address::Address::SocketAddress(value)),
    }
}

pub(super) fn endpoint_address(value: &EndpointAddress) -> pb::Address {
    match value {
        EndpointAddress::Socket(address) => socket_address(socket(*address, None)),
        EndpointAddress::Dns { host, port } => socket_address(host_and_port(host.to_string(), *port, None)),
        EndpointAddress::Pipe(path) => pb::Address {
            address: Some(address::Address::Pipe(pb::Pipe {
                path: path.to_string(),
                mode: 0,
            })),
        },
    }
}

pub(super) fn data_source(value: &DataSource) -> pb::DataSource {
    pb::DataSource {
        specifier: Some(match value {
            DataSource::File(path) => data_source::Specifier::Filename(path.to_string()),
            DataSource::Inline(bytes) => data_source::Specifier::InlineBytes(bytes.to_vec()),
        }),
        watched_directory: None,
    }
}

/// The aggregated stream that the resource itself came from.
pub(super) fn ads() -> pb::ConfigSource {
    pb::ConfigSource {
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(
            pb::AggregatedConfigSource {},
        )),
        resource_api_version: pb::ApiVersion::V3.into(),
        ..Default::default()
    }
}

pub(super) fn locality(value: &Locality) -> Option<pb::Locality> {
    (!value.is_empty()).then(|| pb::Locality {
        region: value.region.to_string(),
        zone: value.zone.to_string(),
        sub_zone: value.sub_zone.to_string(),
    })
}
