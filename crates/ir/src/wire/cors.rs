//! Cross-origin rules of routes. Nothing of the message is rejected.

use rajut_proto::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use rajut_types::Percent;

use super::{
    matcher,
    read::{Place, Reader},
    write,
};
use crate::cors::Cors;

pub(super) fn encode(cors: &Cors) -> CorsPolicy {
    let share = |share: Percent, default| (share != default).then(|| write::runtime_fraction(share));
    CorsPolicy {
        allow_origin_string_match: cors.allow_origins.iter().map(matcher::encode_string).collect(),
        allow_methods: cors.allow_methods.to_string(),
        allow_headers: cors.allow_headers.to_string(),
        expose_headers: cors.expose_headers.to_string(),
        max_age: cors.max_age.to_string(),
        allow_credentials: cors.allow_credentials.map(write::boolean),
        filter_enabled: share(cors.enabled, Percent::ALL),
        shadow_enabled: share(cors.shadow, Percent::NONE),
        allow_private_network_access: cors.allow_private_network.map(write::boolean),
        forward_not_matching_preflights: cors.forward_not_matching.map(write::boolean),
    }
}

pub(super) fn decode(reader: &mut Reader, place: &Place<'_>, message: &CorsPolicy) -> Cors {
    let allow_origins = message
        .allow_origin_string_match
        .iter()
        .enumerate()
        .filter_map(|(at, it)| {
            matcher::decode_string(reader, &place.item("allow_origin_string_match", at), it)
        })
        .collect();
    let enabled = message.filter_enabled.as_ref().map_or(Percent::ALL, |it| {
        reader.runtime_fraction(&place.field("filter_enabled"), it)
    });
    let shadow = message.shadow_enabled.as_ref().map_or(Percent::NONE, |it| {
        reader.runtime_fraction(&place.field("shadow_enabled"), it)
    });
    Cors {
        allow_origins,
        allow_methods: message.allow_methods.as_str().into(),
        allow_headers: message.allow_headers.as_str().into(),
        expose_headers: message.expose_headers.as_str().into(),
        max_age: message.max_age.as_str().into(),
        allow_credentials: message.allow_credentials.as_ref().map(|it| it.value),
        allow_private_network: message.allow_private_network_access.as_ref().map(|it| it.value),
        forward_not_matching: message
            .forward_not_matching_preflights
            .as_ref()
            .map(|it| it.value),
        enabled,
        shadow,
    }
}
