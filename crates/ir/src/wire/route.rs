//! Route configurations.
//!
//! Rejected: virtual hosts on demand (VHDS), matcher trees, cookies, TLS and metadata as conditions, cluster specifier
//! plugins, hedging, internal redirects, settings of filters that this proxy lacks.

mod decode;
mod encode;

use bytes::Bytes;
use rajut_proto::{route as pb, type_url};

use super::{DecodeResult, Encoded, read, write};
use crate::route::{RouteConfiguration, VirtualHost};

pub(super) use decode::{from_message, headers_to_add as decode_headers_to_add};
pub(super) use encode::{headers_to_add, to_message};

/// Encodes.
pub fn encode_route_configuration(routes: &RouteConfiguration) -> Encoded {
    write::resource(&routes.name, type_url::ROUTE_CONFIGURATION, &to_message(routes))
}

/// Encodes everything but the virtual hosts. With those of [`encode_virtual_host`] behind it, it is the whole message: fields may
/// stand in any order.
pub fn encode_route_head(routes: &RouteConfiguration) -> Encoded {
    let head = RouteConfiguration {
        name: routes.name.clone(),
        virtual_hosts: Vec::new(),
        ignore_port_in_host_matching: routes.ignore_port_in_host_matching,
        filters: routes.filters.clone(),
        headers: routes.headers.clone(),
    };
    encode_route_configuration(&head)
}

/// Encodes a virtual host as the field of a route configuration.
pub fn encode_virtual_host(host: &VirtualHost) -> Bytes {
    let alone = pb::RouteConfiguration {
        virtual_hosts: vec![encode::encode_host(host)],
        ..Default::default()
    };
    write::resource(&host.name, type_url::ROUTE_CONFIGURATION, &alone).value
}

/// Decodes.
pub fn decode_route_configuration(bytes: &[u8]) -> DecodeResult<RouteConfiguration> {
    read::resource(
        bytes,
        |message: &pb::RouteConfiguration| &message.name,
        |reader, message, place| Some(from_message(reader, place, &message)),
    )
}
