//! Route configurations.
//!
//! Rejected: virtual hosts on demand (VHDS), matcher trees, cookies, TLS and metadata as conditions, cluster specifier
//! plugins, hedging, internal redirects, settings of filters that this proxy lacks.

mod decode;
mod encode;

use rajut_proto::{route as pb, type_url};

use super::{DecodeResult, Encoded, read, write};
use crate::route::RouteConfiguration;

pub(super) use decode::{from_message, headers_to_add as decode_headers_to_add};
pub(super) use encode::{headers_to_add, to_message};

/// Encodes.
pub fn encode_route_configuration(routes: &RouteConfiguration) -> Encoded {
    write::resource(&routes.name, type_url::ROUTE_CONFIGURATION, &to_message(routes))
}

/// Decodes.
pub fn decode_route_configuration(bytes: &[u8]) -> DecodeResult<RouteConfiguration> {
    read::resource(
        bytes,
        |message: &pb::RouteConfiguration| &message.name,
        |reader, message, place| Some(from_message(reader, place, &message)),
    )
}
