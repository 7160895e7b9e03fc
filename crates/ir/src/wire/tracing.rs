//! Tracing of a connection manager.
//!
//! Rejected: tracers other than OpenTelemetry over gRPC, samplers and resource detectors, tags from metadata and from
//! the environment.

use rajut_proto::{
    core::{GrpcService, grpc_service},
    envoy::{
        config::trace::v3::{OpenTelemetryConfig, tracing as provider},
        r#type::tracing::v3::{
            CustomTag as TagMessage,
            custom_tag::{Header, Literal, Type},
        },
    },
    hcm::http_connection_manager::Tracing as Message,
    type_url,
};
use rajut_types::{Percent, Text};

use super::{
    Fault,
    matcher::lower,
    read::{Place, Reader, is_true, number},
    write,
};
use crate::tracing::{CustomTag, OpenTelemetry, TagValue, Tracing};

const NAME: &str = "envoy.tracers.opentelemetry";
/// Envoy: `max_path_tag_length`.
const PATH_LENGTH: u32 = 256;
const SERVICE: &str = "unknown_service:envoy";

pub(super) fn encode(tracing: &Tracing) -> Message {
    Message {
        client_sampling: Some(write::percent(tracing.client)),
        random_sampling: Some(write::percent(tracing.random)),
        overall_sampling: Some(write::percent(tracing.overall)),
        max_path_tag_length: Some(write::number(tracing.max_path_length)),
        custom_tags: tracing.tags.iter().map(encode_tag).collect(),
        provider: tracing.provider.as_ref().map(encode_provider),
        ..Default::default()
    }
}

fn encode_tag(tag: &CustomTag) -> TagMessage {
    TagMessage {
        tag: tag.tag.to_string(),
        r#type: Some(match &tag.value {
            TagValue::Literal(value) => Type::Literal(Literal {
                value: value.to_string(),
            }),
            TagValue::RequestHeader { name, default } => Type::RequestHeader(Header {
                name: name.to_string(),
                default_value: default.to_string(),
            }),
        }),
    }
}

fn encode_provider(provider: &OpenTelemetry) -> provider::Http {
    let config = OpenTelemetryConfig {
        grpc_service: Some(GrpcService {
            timeout: provider.timeout.map(write::duration),
            target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(
                grpc_service::EnvoyGrpc {
                    cluster_name: provider.cluster.to_string(),
                    authority: provider.authority.to_string(),
                    ..Default::default()
                },
            )),
            ..Default::default()
        }),
        service_name: provider.service_name.to_string(),
        ..Default::default()
    };
    provider::Http {
        name: NAME.to_owned(),
        config_type: Some(provider::http::ConfigType::TypedConfig(write::any(
            type_url::OPENTELEMETRY,
            &config,
        ))),
    }
}

pub(super) fn decode(reader: &mut Reader, place: &Place<'_>, message: &Message) -> Tracing {
    let share = |reader: &mut Reader, name, value: Option<&rajut_proto::types::Percent>| {
        value.map_or(Percent::ALL, |it| reader.percent(&place.field(name), it.value))
    };
    if is_true(message.spawn_upstream_span.as_ref()) {
        reader.value(
            &place.field("spawn_upstream_span"),
            "true",
            "a request has one span in each proxy: leave the field out",
        );
    }
    Tracing {
        client: share(reader, "client_sampling", message.client_sampling.as_ref()),
        random: share(reader, "random_sampling", message.random_sampling.as_ref()),
        overall: share(reader, "overall_sampling", message.overall_sampling.as_ref()),
        max_path_length: number(message.max_path_tag_length.as_ref()).unwrap_or(PATH_LENGTH),
        tags: message
            .custom_tags
            .iter()
            .enumerate()
            .filter_map(|(at, tag)| decode_tag(reader, &place.item("custom_tags", at), tag))
            .collect(),
        provider: message
            .provider
            .as_ref()
            .and_then(|it| decode_provider(reader, &place.field("provider"), it)),
    }
}

fn decode_tag(reader: &mut Reader, place: &Place<'_>, tag: &TagMessage) -> Option<CustomTag> {
    let value = match tag.r#type.as_ref() {
        Some(Type::Literal(literal)) => {
            let place = place.field("literal");
            TagValue::Literal(reader.named(&place.field("value"), &literal.value, "the tag's value"))
        }
        Some(Type::RequestHeader(header)) => {
            let place = place.field("request_header");
            let name = reader.named(&place.field("name"), &header.name, "the header's name");
            TagValue::RequestHeader {
                name: lower(&name),
                default: header.default_value.as_str().into(),
            }
        }
        // Refused by the list of supported fields.
        Some(_) => return None,
        None => return reader.required(place, None, "literal or request_header"),
    };
    Some(CustomTag {
        tag: reader.named(&place.field("tag"), &tag.tag, "the tag's key"),
        value,
    })
}

fn decode_provider(
    reader: &mut Reader,
    place: &Place<'_>,
    provider: &provider::Http,
) -> Option<OpenTelemetry> {
    let config = provider
        .config_type
        .as_ref()
        .map(|provider::http::ConfigType::TypedConfig(config)| config);
    let place = place.field("typed_config");
    let Some(config) = config.filter(|it| it.type_url == type_url::OPENTELEMETRY) else {
        reader.extension(&place, "tracer", &provider.name, config, NAME);
        return None;
    };
    let message: OpenTelemetryConfig = reader.unpack(&place, config)?;
    let service_place = place.field("grpc_service");
    let service = reader.required(&service_place, message.grpc_service.as_ref(), "the collector")?;
    let timeout = reader.bound(&service_place.field("timeout"), service.timeout.as_ref(), None);
    let Some(grpc_service::TargetSpecifier::EnvoyGrpc(envoy)) = &service.target_specifier else {
        reader.fault(
            &service_place,
            Fault::Missing("envoy_grpc with the name of the collector's cluster"),
        );
        return None;
    };
    let name_place = service_place.field("envoy_grpc");
    Some(OpenTelemetry {
        cluster: reader.named(
            &name_place.field("cluster_name"),
            &envoy.cluster_name,
            "the collector's cluster",
        ),
        authority: envoy.authority.as_str().into(),
        timeout,
        service_name: if message.service_name.is_empty() {
            Text::from(SERVICE)
        } else {
            message.service_name.as_str().into()
        },
    })
}
