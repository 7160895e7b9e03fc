//! HTTP filters: the chain of a connection manager, and what routes say about it.
//!
//! Rejected: filters that are not in [`HttpFilterKind`] (refused by name, unless they are marked as optional, disabled,
//! or only look on), a configuration of a route that is not one of its filter's.

use std::{collections::HashMap, sync::Arc};

use rajut_proto::{
    Any,
    envoy::extensions::filters::http::{
        cors::v3::Cors as CorsFilter, ext_authz::v3::ExtAuthzPerRoute,
        local_ratelimit::v3::LocalRateLimit as LocalRateLimitMessage, rbac::v3::RbacPerRoute,
        router::v3::Router,
    },
    hcm::{self as pb, http_filter},
    route::FilterConfig,
    type_url,
};

use super::{
    Fault, cors, ext_authz, fault, jwt, rate_limit, rbac,
    read::{Place, Reader},
    stats, write,
};
use crate::{
    filter::{
        CORS, EXT_AUTHZ, FAULT, FilterOverride, FilterOverrides, HttpFilter, HttpFilterKind, JWT_AUTHN,
        LOCAL_RATE_LIMIT, RBAC, ROUTER,
    },
    http::RouterFilter,
};

const SUPPORTED: &str = "envoy.filters.http.jwt_authn, envoy.filters.http.rbac, envoy.filters.http.ext_authz, envoy.filters.http.local_ratelimit, envoy.filters.http.fault, \
     envoy.filters.http.cors, istio.stats, envoy.filters.http.router";

// --- encode ---

pub(super) fn encode_filter(filter: &HttpFilter) -> pb::HttpFilter {
    let config = match &filter.kind {
        HttpFilterKind::JwtAuthn(jwt) => write::any(type_url::JWT_AUTHN, &jwt::encode(jwt)),
        HttpFilterKind::Rbac(rbac) => write::any(type_url::HTTP_RBAC, &rbac::encode_http(rbac)),
        HttpFilterKind::ExtAuthz(authz) => write::any(type_url::HTTP_EXT_AUTHZ, &ext_authz::encode(authz)),
        HttpFilterKind::LocalRateLimit(limit) => {
            write::any(type_url::LOCAL_RATE_LIMIT, &rate_limit::encode_filter(limit))
        }
        HttpFilterKind::Fault(it) => write::any(type_url::HTTP_FAULT, &fault::encode(it)),
        HttpFilterKind::Cors => write::empty_any(type_url::CORS),
        HttpFilterKind::IstioStats(it) => stats::encode(it),
        HttpFilterKind::Router(router) => {
            let config = Router {
                suppress_envoy_headers: router.suppress_envoy_headers,
                ..Default::default()
            };
            write::any(type_url::ROUTER, &config)
        }
    };
    pb::HttpFilter {
        name: filter.name.to_string(),
        disabled: filter.disabled,
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

pub(super) fn encode_overrides(overrides: &FilterOverrides) -> HashMap<String, Any> {
    let encoded = overrides.iter().map(|(name, over)| {
        let config = match over {
            FilterOverride::Disabled => write::any(
                type_url::FILTER_CONFIG,
                &FilterConfig {
                    disabled: true,
                    ..Default::default()
                },
            ),
            FilterOverride::Enabled => write::empty_any(type_url::FILTER_CONFIG),
            FilterOverride::Rbac(rbac) => {
                let rbac = Some(rbac::encode_http(rbac));
                write::any(type_url::HTTP_RBAC_PER_ROUTE, &RbacPerRoute { rbac })
            }
            FilterOverride::LocalRateLimit(limit) => {
                write::any(type_url::LOCAL_RATE_LIMIT, &rate_limit::encode_filter(limit))
            }
            FilterOverride::Fault(it) => write::any(type_url::HTTP_FAULT, &fault::encode(it)),
            FilterOverride::Cors(it) => write::any(type_url::CORS_POLICY, &cors::encode(it)),
        };
        (name.to_string(), config)
    });
    encoded.collect()
}

// --- decode ---

/// HTTP filters that only look on: the type's full name.
const IGNORABLE_TYPES: [&str; 4] = [
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "io.istio.http.peer_metadata.Config",
    "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    "envoy.config.filter.http.peak_ewma.v2alpha1.PeakEwmaConfig",
];

/// The same filters by name, where their configuration is a `TypedStruct`.
const IGNORABLE_NAMES: [&str; 5] = [
    "envoy.filters.http.grpc_stats",
    "istio.alpn",
    "istio.metadata_exchange",
    "istio.stats",
    "istio_authn",
];

fn is_ignorable(name: &str, config: Option<&Any>) -> bool {
    let message = config.map_or("", |it| type_url::message_name(&it.type_url));
    IGNORABLE_TYPES.contains(&message)
        || (IGNORABLE_NAMES.contains(&name) && (message.is_empty() || message.ends_with(".TypedStruct")))
}

pub(super) fn decode_filters(
    reader: &mut Reader,
    place: &Place<'_>,
    filters: &[pb::HttpFilter],
) -> Vec<HttpFilter> {
    let mut decoded: Vec<HttpFilter> = Vec::with_capacity(filters.len());
    for (at, filter) in filters.iter().enumerate() {
        let place = place.item("http_filters", at);
        let config = match &filter.config_type {
            Some(http_filter::ConfigType::TypedConfig(config)) => Some(config),
            // Refused by the list of supported fields.
            Some(http_filter::ConfigType::ConfigDiscovery(_)) => continue,
            None => None,
        };
        let Some(kind) = decode_kind(reader, &place, filter, config) else {
            continue;
        };
        if matches!(kind, HttpFilterKind::Router(_)) && at + 1 < filters.len() {
            reader.value(
                &place.field("typed_config"),
                ROUTER,
                "the router must be the last filter",
            );
        }
        // Envoy takes two filters of one name; what routes say under it is said to each whose kind it is.
        decoded.push(HttpFilter {
            name: filter.name.as_str().into(),
            disabled: filter.disabled && !matches!(kind, HttpFilterKind::Router(_)),
            kind,
        });
    }
    if !matches!(decoded.last().map(|it| &it.kind), Some(HttpFilterKind::Router(_))) {
        reader.fault(
            &place.field("http_filters"),
            Fault::Missing("envoy.filters.http.router as the last filter"),
        );
    }
    decoded
}

fn decode_kind(
    reader: &mut Reader,
    place: &Place<'_>,
    filter: &pb::HttpFilter,
    config: Option<&Any>,
) -> Option<HttpFilterKind> {
    let config_place = place.field("typed_config");
    // Envoy finds an extension by its type, and by its name where there is no configuration.
    match (config, &*filter.name) {
        (Some(config), _) if config.type_url == type_url::ROUTER => {
            let router: Router = reader.unpack(&config_place, config)?;
            Some(HttpFilterKind::Router(RouterFilter {
                suppress_envoy_headers: router.suppress_envoy_headers,
            }))
        }
        (None, ROUTER) => Some(HttpFilterKind::Router(RouterFilter::default())),
        (Some(config), _) if config.type_url == type_url::JWT_AUTHN => {
            let message = reader.unpack(&config_place, config)?;
            let jwt = jwt::decode(reader, &config_place, &message);
            Some(HttpFilterKind::JwtAuthn(Arc::new(jwt)))
        }
        (Some(config), _) if config.type_url == type_url::HTTP_RBAC => {
            let message = reader.unpack(&config_place, config)?;
            let rbac = rbac::decode_http(reader, &config_place, &message);
            Some(HttpFilterKind::Rbac(Arc::new(rbac)))
        }
        (Some(config), _) if config.type_url == type_url::HTTP_EXT_AUTHZ => {
            let message = reader.unpack(&config_place, config)?;
            let authz = ext_authz::decode(reader, &config_place, &message)?;
            Some(HttpFilterKind::ExtAuthz(Arc::new(authz)))
        }
        (Some(config), _) if config.type_url == type_url::LOCAL_RATE_LIMIT => {
            let message = reader.unpack(&config_place, config)?;
            let limit = rate_limit::decode_filter(reader, &config_place, &message);
            Some(HttpFilterKind::LocalRateLimit(Arc::new(limit)))
        }
        (Some(config), _) if config.type_url == type_url::HTTP_FAULT => {
            let message = reader.unpack(&config_place, config)?;
            let fault = fault::decode(reader, &config_place, &message);
            Some(HttpFilterKind::Fault(Arc::new(fault)))
        }
        (Some(config), _) if config.type_url == type_url::CORS => {
            let _: CorsFilter = reader.unpack(&config_place, config)?;
            Some(HttpFilterKind::Cors)
        }
        (Some(config), _) if config.type_url == type_url::ISTIO_STATS => {
            let stats = stats::decode(reader, &config_place, config)?;
            Some(HttpFilterKind::IstioStats(Arc::new(stats)))
        }
        (config, name) => {
            if filter.disabled || filter.is_optional || is_ignorable(name, config) {
                reader.ignore(place.to_string(), name);
            } else {
                reader.extension(&config_place, "HTTP filter", name, config, SUPPORTED);
            }
            None
        }
    }
}

/// What a route configuration, virtual host, route or weighted cluster says about filters, by name.
pub(super) fn decode_overrides(
    reader: &mut Reader,
    place: &Place<'_>,
    settings: &HashMap<String, Any>,
) -> FilterOverrides {
    let mut sorted: Vec<_> = settings.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let mut overrides = FilterOverrides::new();
    for (name, config) in sorted {
        let place = place.key("typed_per_filter_config", name);
        let over = decode_override(reader, &place, name, config);
        overrides.extend(over.map(|over| (name.as_str().into(), over)));
    }
    overrides
}

fn decode_override(
    reader: &mut Reader,
    place: &Place<'_>,
    name: &str,
    config: &Any,
) -> Option<FilterOverride> {
    match &*config.type_url {
        type_url::FILTER_CONFIG => {
            let wrapped: FilterConfig = reader.unpack(place, config)?;
            let is_ours = [JWT_AUTHN, RBAC, EXT_AUTHZ, LOCAL_RATE_LIMIT, FAULT, CORS].contains(&name);
            if wrapped.disabled && is_ours {
                return Some(FilterOverride::Disabled);
            }
            match &wrapped.config {
                Some(config) if is_known(config) => {
                    decode_override(reader, &place.field("config"), name, config)
                }
                // What a filter that is left out is told may be left out too; what is not there cannot be disabled.
                Some(config) if is_ignorable(name, Some(config)) => {
                    reader.ignore(place.to_string(), name);
                    None
                }
                _ if wrapped.is_optional || wrapped.disabled => {
                    reader.ignore(place.to_string(), name);
                    None
                }
                None if is_ours => Some(FilterOverride::Enabled),
                config => {
                    let config = config.as_ref();
                    reader.extension(&place.field("config"), "HTTP filter", name, config, SUPPORTED);
                    None
                }
            }
        }
        type_url::HTTP_RBAC_PER_ROUTE => {
            let message: RbacPerRoute = reader.unpack(place, config)?;
            let rbac = rbac::decode_per_route(reader, place, &message);
            Some(rbac.map_or(FilterOverride::Disabled, |rbac| {
                FilterOverride::Rbac(Arc::new(rbac))
            }))
        }
        type_url::HTTP_EXT_AUTHZ_PER_ROUTE => {
            let message: ExtAuthzPerRoute = reader.unpack(place, config)?;
            ext_authz::decode_per_route(reader, place, &message).then_some(FilterOverride::Disabled)
        }
        type_url::LOCAL_RATE_LIMIT => {
            let message: LocalRateLimitMessage = reader.unpack(place, config)?;
            let limit = rate_limit::decode_filter(reader, place, &message);
            Some(FilterOverride::LocalRateLimit(Arc::new(limit)))
        }
        type_url::HTTP_FAULT => {
            let message = reader.unpack(place, config)?;
            let fault = fault::decode(reader, place, &message);
            Some(FilterOverride::Fault(Arc::new(fault)))
        }
        type_url::CORS_POLICY => {
            let message = reader.unpack(place, config)?;
            Some(FilterOverride::Cors(Arc::new(cors::decode(
                reader, place, &message,
            ))))
        }
        _ if is_ignorable(name, Some(config)) => {
            reader.ignore(place.to_string(), name);
            None
        }
        _ => {
            reader.extension(place, "HTTP filter", name, Some(config), SUPPORTED);
            None
        }
    }
}

fn is_known(config: &Any) -> bool {
    [
        type_url::FILTER_CONFIG,
        type_url::HTTP_RBAC_PER_ROUTE,
        type_url::HTTP_EXT_AUTHZ_PER_ROUTE,
        type_url::LOCAL_RATE_LIMIT,
        type_url::HTTP_FAULT,
        type_url::CORS_POLICY,
    ]
    .contains(&&*config.type_url)
}
