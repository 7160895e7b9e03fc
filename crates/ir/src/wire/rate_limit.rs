//! Local rate limits, and the actions of routes that make descriptors.
//!
//! Rejected: limits shared by a cluster of proxies, tokens that are not whole requests, actions
//! beyond [`RateLimitAction`].

use rajut_proto::{
    core::TypedExtensionConfig,
    envoy::extensions::{
        common::ratelimit::v3::{
            LocalRateLimitDescriptor, VhRateLimitsOptions, XRateLimitHeadersRfcVersion,
            rate_limit_descriptor::Entry,
        },
        filters::http::local_ratelimit::v3::LocalRateLimit as Message,
        rate_limit_descriptors::expr::v3 as expr,
    },
    route::{
        self as pb,
        rate_limit::{
            Action,
            action::{self, ActionSpecifier},
        },
    },
    type_url, types,
};
use rajut_types::{Percent, Text};

use super::{
    Fault,
    matcher::{self, lower},
    read::{Place, Reader, number},
    route, write,
};
use crate::rate_limit::{
    DYNAMIC_MAX, DescriptorLimit, LocalRateLimit, PEER_IDENTITY, RateLimit, RateLimitAction, TokenBucket,
    VirtualHostLimits,
};

const EXPR: &str = "envoy.rate_limit_descriptors.expr";
const GENERIC_KEY: &str = "generic_key";
const HEADER_MATCH: &str = "header_match";
/// Envoy: the shortest `fill_interval`.
const FILL_INTERVAL_MIN: std::time::Duration = std::time::Duration::from_millis(50);
/// Envoy: the highest stage.
const STAGE_MAX: u32 = 10;

// --- encode ---

pub(super) fn encode_filter(limit: &LocalRateLimit) -> Message {
    Message {
        stat_prefix: limit.stat_prefix.to_string(),
        status: (limit.status != 429).then(|| types::HttpStatus {
            code: limit.status.into(),
        }),
        token_bucket: limit.bucket.map(encode_bucket),
        filter_enabled: Some(write::runtime_fraction(limit.enabled)),
        filter_enforced: Some(write::runtime_fraction(limit.enforced)),
        request_headers_to_add_when_not_enforced: route::headers_to_add(
            &limit.request_headers_when_not_enforced,
        ),
        response_headers_to_add: route::headers_to_add(&limit.response_headers),
        descriptors: limit.descriptors.iter().map(encode_descriptor).collect(),
        stage: limit.stage,
        local_rate_limit_per_downstream_connection: limit.per_connection,
        enable_x_ratelimit_headers: if limit.x_ratelimit_headers {
            XRateLimitHeadersRfcVersion::DraftVersion03
        } else {
            XRateLimitHeadersRfcVersion::Off
        }
        .into(),
        vh_rate_limits: match limit.virtual_host {
            VirtualHostLimits::Override => VhRateLimitsOptions::Override,
            VirtualHostLimits::Include => VhRateLimitsOptions::Include,
            VirtualHostLimits::Ignore => VhRateLimitsOptions::Ignore,
        }
        .into(),
        always_consume_default_token_bucket: Some(write::boolean(limit.always_consume_default)),
        rate_limited_as_resource_exhausted: limit.resource_exhausted,
        rate_limits: encode_limits(&limit.rate_limits),
        max_dynamic_descriptors: (limit.dynamic_max != DYNAMIC_MAX).then(|| write::number(limit.dynamic_max)),
        enable_retry_after_header: limit.retry_after,
        ..Default::default()
    }
}

fn encode_bucket(bucket: TokenBucket) -> types::TokenBucket {
    types::TokenBucket {
        max_tokens: bucket.max_tokens,
        tokens_per_fill: Some(write::number(bucket.tokens_per_fill)),
        fill_interval: Some(write::duration(bucket.fill_interval)),
    }
}

fn encode_descriptor(descriptor: &DescriptorLimit) -> LocalRateLimitDescriptor {
    LocalRateLimitDescriptor {
        entries: descriptor
            .entries
            .iter()
            .map(|(key, value)| Entry {
                key: key.to_string(),
                value: value.as_deref().unwrap_or_default().to_owned(),
            })
            .collect(),
        token_bucket: Some(encode_bucket(descriptor.bucket)),
        shadow_mode: false,
    }
}

pub(super) fn encode_limits(limits: &[RateLimit]) -> Vec<pb::RateLimit> {
    limits
        .iter()
        .map(|limit| pb::RateLimit {
            stage: (limit.stage > 0).then(|| write::number(limit.stage)),
            actions: limit
                .actions
                .iter()
                .map(|action| Action {
                    action_specifier: Some(encode_action(action)),
                })
                .collect(),
            ..Default::default()
        })
        .collect()
}

fn encode_action(action: &RateLimitAction) -> ActionSpecifier {
    match action {
        RateLimitAction::RequestHeader { name, key, skip } => {
            ActionSpecifier::RequestHeaders(action::RequestHeaders {
                header_name: name.to_string(),
                descriptor_key: key.to_string(),
                skip_if_absent: *skip,
            })
        }
        RateLimitAction::RemoteAddress => ActionSpecifier::RemoteAddress(action::RemoteAddress {}),
        RateLimitAction::PeerIdentity { key, skip } => {
            let descriptor = expr::Descriptor {
                descriptor_key: key.to_string(),
                skip_if_error: *skip,
                expr_specifier: Some(expr::descriptor::ExprSpecifier::Text(PEER_IDENTITY.to_owned())),
            };
            ActionSpecifier::Extension(TypedExtensionConfig {
                name: EXPR.to_owned(),
                typed_config: Some(write::any(type_url::RATE_LIMIT_EXPR, &descriptor)),
            })
        }
        RateLimitAction::DestinationCluster => {
            ActionSpecifier::DestinationCluster(action::DestinationCluster {})
        }
        RateLimitAction::GenericKey { key, value } => ActionSpecifier::GenericKey(action::GenericKey {
            descriptor_value: value.to_string(),
            descriptor_key: key.to_string(),
            default_value: String::new(),
        }),
        RateLimitAction::HeaderValueMatch {
            key,
            value,
            expect,
            headers,
        } => ActionSpecifier::HeaderValueMatch(action::HeaderValueMatch {
            descriptor_value: value.to_string(),
            descriptor_key: key.to_string(),
            expect_match: (!expect).then(|| write::boolean(false)),
            headers: headers.iter().map(matcher::encode_header).collect(),
            default_value: String::new(),
        }),
    }
}

// --- decode ---

pub(super) fn decode_filter(reader: &mut Reader, place: &Place<'_>, message: &Message) -> LocalRateLimit {
    let headers = |reader: &mut Reader, field, headers: &[rajut_proto::core::HeaderValueOption]| {
        route::decode_headers_to_add(reader, place, field, headers)
    };
    let stage = stage(reader, &place.field("stage"), message.stage);
    let bucket_place = place.field("token_bucket");
    let bucket = message
        .token_bucket
        .as_ref()
        .and_then(|it| decode_bucket(reader, &bucket_place, it));
    let fraction =
        |reader: &mut Reader, field, value: Option<&rajut_proto::core::RuntimeFractionalPercent>| {
            value.map_or(Percent::NONE, |it| {
                reader.runtime_fraction(&place.field(field), it)
            })
        };
    let descriptors = message
        .descriptors
        .iter()
        .enumerate()
        .filter_map(|(at, it)| decode_descriptor(reader, &place.item("descriptors", at), it))
        .collect();
    let status = message.status.map_or(429, |status| status.code);
    let limit = LocalRateLimit {
        stat_prefix: reader.named(
            &place.field("stat_prefix"),
            &message.stat_prefix,
            "a prefix of statistics",
        ),
        // Envoy takes its default for what is no error.
        status: u16::try_from(status)
            .ok()
            .filter(|status| (400..600).contains(status))
            .unwrap_or(429),
        bucket,
        enabled: fraction(reader, "filter_enabled", message.filter_enabled.as_ref()),
        enforced: fraction(reader, "filter_enforced", message.filter_enforced.as_ref()),
        request_headers_when_not_enforced: headers(
            reader,
            "request_headers_to_add_when_not_enforced",
            &message.request_headers_to_add_when_not_enforced,
        ),
        response_headers: headers(
            reader,
            "response_headers_to_add",
            &message.response_headers_to_add,
        ),
        descriptors,
        stage,
        per_connection: message.local_rate_limit_per_downstream_connection,
        x_ratelimit_headers: reader.enumerator::<XRateLimitHeadersRfcVersion>(
            &place.field("enable_x_ratelimit_headers"),
            message.enable_x_ratelimit_headers,
        ) == XRateLimitHeadersRfcVersion::DraftVersion03,
        virtual_host: match reader.enumerator(&place.field("vh_rate_limits"), message.vh_rate_limits) {
            VhRateLimitsOptions::Override => VirtualHostLimits::Override,
            VhRateLimitsOptions::Include => VirtualHostLimits::Include,
            VhRateLimitsOptions::Ignore => VirtualHostLimits::Ignore,
        },
        always_consume_default: message
            .always_consume_default_token_bucket
            .as_ref()
            .is_none_or(|it| it.value),
        resource_exhausted: message.rate_limited_as_resource_exhausted,
        rate_limits: decode_limits(reader, place, &message.rate_limits),
        dynamic_max: dynamic_max(reader, place, number(message.max_dynamic_descriptors.as_ref())),
        retry_after: message.enable_retry_after_header,
    };
    check_intervals(reader, place, &limit);
    limit
}

fn dynamic_max(reader: &mut Reader, place: &Place<'_>, told: Option<u32>) -> u32 {
    if told == Some(0) {
        reader.out_of_range(&place.field("max_dynamic_descriptors"), 0, "1 or more");
    }
    told.unwrap_or(DYNAMIC_MAX)
}

fn stage(reader: &mut Reader, place: &Place<'_>, stage: u32) -> u32 {
    if stage > STAGE_MAX {
        reader.out_of_range(place, stage, "0 to 10");
    }
    stage
}

/// Envoy: a descriptor's bucket is filled in a multiple of the time in which the one for every request is.
fn check_intervals(reader: &mut Reader, place: &Place<'_>, limit: &LocalRateLimit) {
    let Some(whole) = limit.bucket else { return };
    for (at, descriptor) in limit.descriptors.iter().enumerate() {
        let interval = descriptor.bucket.fill_interval.as_nanos();
        if !interval.is_multiple_of(whole.fill_interval.as_nanos().max(1)) {
            reader.value(
                &place
                    .item("descriptors", at)
                    .field("token_bucket")
                    .field("fill_interval"),
                format_args!("{:?}", descriptor.bucket.fill_interval),
                "write a multiple of the filter's own fill_interval",
            );
        }
    }
}

fn decode_bucket(reader: &mut Reader, place: &Place<'_>, bucket: &types::TokenBucket) -> Option<TokenBucket> {
    if bucket.max_tokens == 0 {
        reader.out_of_range(&place.field("max_tokens"), 0, "1 or more");
    }
    let tokens = number(bucket.tokens_per_fill.as_ref()).unwrap_or(1);
    if tokens == 0 {
        reader.out_of_range(&place.field("tokens_per_fill"), 0, "1 or more");
    }
    let interval_place = place.field("fill_interval");
    let interval = reader.duration(&interval_place, bucket.fill_interval.as_ref());
    let interval = reader.required(&interval_place, interval, "the time between two fills")?;
    if interval < FILL_INTERVAL_MIN {
        reader.out_of_range(&interval_place, format_args!("{interval:?}"), "50ms or more");
    }
    Some(TokenBucket {
        max_tokens: bucket.max_tokens,
        tokens_per_fill: tokens,
        fill_interval: interval,
    })
}

fn decode_descriptor(
    reader: &mut Reader,
    place: &Place<'_>,
    descriptor: &LocalRateLimitDescriptor,
) -> Option<DescriptorLimit> {
    if descriptor.entries.is_empty() {
        reader.fault(&place.field("entries"), Fault::Missing("at least one entry"));
    }
    let entries = descriptor.entries.iter().enumerate().map(|(at, entry)| {
        let place = place.item("entries", at);
        let key = reader.named(&place.field("key"), &entry.key, "the entry's key");
        (
            key,
            (!entry.value.is_empty()).then(|| entry.value.as_str().into()),
        )
    });
    let entries = entries.collect();
    let place = place.field("token_bucket");
    let bucket = reader.required(&place, descriptor.token_bucket.as_ref(), "the bucket")?;
    Some(DescriptorLimit {
        entries,
        bucket: decode_bucket(reader, &place, bucket)?,
    })
}

/// The lists of actions in the repeated field `rate_limits`.
pub(super) fn decode_limits(
    reader: &mut Reader,
    place: &Place<'_>,
    limits: &[pb::RateLimit],
) -> Vec<RateLimit> {
    let mut decoded = Vec::with_capacity(limits.len());
    for (at, limit) in limits.iter().enumerate() {
        let place = place.item("rate_limits", at);
        if limit.actions.is_empty() {
            reader.fault(&place.field("actions"), Fault::Missing("at least one action"));
        }
        let actions = limit
            .actions
            .iter()
            .enumerate()
            .filter_map(|(at, action)| decode_action(reader, &place.item("actions", at), action))
            .collect();
        decoded.push(RateLimit {
            stage: stage(
                reader,
                &place.field("stage"),
                number(limit.stage.as_ref()).unwrap_or(0),
            ),
            actions,
        });
    }
    decoded
}

fn decode_action(reader: &mut Reader, place: &Place<'_>, action: &Action) -> Option<RateLimitAction> {
    match action.action_specifier.as_ref() {
        Some(ActionSpecifier::RequestHeaders(header)) => {
            let place = place.field("request_headers");
            let name = reader.named(
                &place.field("header_name"),
                &header.header_name,
                "the header's name",
            );
            let key = place.field("descriptor_key");
            Some(RateLimitAction::RequestHeader {
                name: lower(&name),
                key: reader.named(&key, &header.descriptor_key, "the entry's key"),
                skip: header.skip_if_absent,
            })
        }
        Some(ActionSpecifier::RemoteAddress(_)) => Some(RateLimitAction::RemoteAddress),
        Some(ActionSpecifier::Extension(extension)) => {
            decode_expression(reader, &place.field("extension"), extension)
        }
        Some(ActionSpecifier::DestinationCluster(_)) => Some(RateLimitAction::DestinationCluster),
        Some(ActionSpecifier::GenericKey(generic)) => {
            let place = place.field("generic_key");
            Some(RateLimitAction::GenericKey {
                key: or(&generic.descriptor_key, GENERIC_KEY),
                value: reader.named(
                    &place.field("descriptor_value"),
                    &generic.descriptor_value,
                    "the entry's value",
                ),
            })
        }
        Some(ActionSpecifier::HeaderValueMatch(matching)) => {
            let place = place.field("header_value_match");
            if matching.headers.is_empty() {
                reader.fault(&place.field("headers"), Fault::Missing("at least one header"));
            }
            let headers = matching.headers.iter().enumerate();
            Some(RateLimitAction::HeaderValueMatch {
                key: or(&matching.descriptor_key, HEADER_MATCH),
                value: reader.named(
                    &place.field("descriptor_value"),
                    &matching.descriptor_value,
                    "the entry's value",
                ),
                expect: matching.expect_match.as_ref().is_none_or(|it| it.value),
                headers: headers
                    .filter_map(|(at, header)| {
                        matcher::decode_header(reader, &place.item("headers", at), header)
                    })
                    .collect(),
            })
        }
        None => reader.required(place, None, "an action"),
        // Refused by the list of supported fields.
        Some(_) => None,
    }
}

/// An entry made of an expression, of which there is one.
fn decode_expression(
    reader: &mut Reader,
    place: &Place<'_>,
    extension: &TypedExtensionConfig,
) -> Option<RateLimitAction> {
    let config = extension.typed_config.as_ref();
    let Some(config) = config.filter(|it| it.type_url == type_url::RATE_LIMIT_EXPR) else {
        reader.extension(place, "entry of a rate limit", &extension.name, config, EXPR);
        return None;
    };
    let message: expr::Descriptor = reader.unpack(place, config)?;
    match &message.expr_specifier {
        Some(expr::descriptor::ExprSpecifier::Text(text)) if text == PEER_IDENTITY => {
            Some(RateLimitAction::PeerIdentity {
                key: reader.named(
                    &place.field("descriptor_key"),
                    &message.descriptor_key,
                    "the entry's key",
                ),
                skip: message.skip_if_error,
            })
        }
        Some(expr::descriptor::ExprSpecifier::Text(text)) => {
            reader.value(
                &place.field("text"),
                text,
                "write connection.uri_san_peer_certificate",
            );
            None
        }
        _ => reader.required(&place.field("text"), None, "the expression"),
    }
}

fn or(text: &str, default: &str) -> Text {
    if text.is_empty() {
        default.into()
    } else {
        text.into()
    }
}
