//! Clusters.
//!
//! Rejected: subset load balancing, slow start, custom cluster types, typed load-balancing policies,
//! partial enforcement of outlier detection. Limits of the HIGH priority are ignored: this proxy has one priority.
//! Success-rate ejection, which Envoy does by default on large clusters, is not done; asking for it is refused.

use std::time::Duration;

use rajut_proto::{
    cluster::{
        self as pb, CircuitBreakers as Breakers, OutlierDetection as Outlier, UpstreamConnectionOptions,
        circuit_breakers::{Thresholds, thresholds::RetryBudget as Budget},
        cluster::{
            ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbConfig,
            LbPolicy as LbPolicyNumber, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig,
            TransportSocketMatch, common_lb_config::LocalityConfigSpecifier,
            common_lb_config::LocalityWeightedLbConfig,
        },
    },
    core::{BindConfig, RoutingPriority, TcpKeepalive as Keepalive},
    google::protobuf::{ListValue, Struct, UInt32Value, Value, value},
    type_url,
};
use rajut_types::Percent;

use super::{
    DecodeResult, Encoded, endpoint, health_check, http, listener, origin,
    read::{self, Place, Reader, number},
    tls, write,
};
use crate::{
    cluster::{
        CircuitBreakers, Cluster, Discovery, DnsSettings, LbPolicy, OutlierDetection, RetryBudget,
        ServiceRef, TcpKeepalive, TlsMatch, UpstreamBind,
    },
    endpoint::EndpointAddress,
};

/// Envoy: `Cluster.connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Istio's key of the metadata that names a cluster's services.
const ISTIO: &str = "istio";

// --- encode ---

/// Encodes.
pub fn encode_cluster(cluster: &Cluster) -> Encoded {
    write::resource(&cluster.name, type_url::CLUSTER, &to_message(cluster))
}

pub(super) fn to_message(cluster: &Cluster) -> pb::Cluster {
    let mut message = pb::Cluster {
        name: cluster.name.to_string(),
        alt_stat_name: cluster.alt_stat_name.to_string(),
        connect_timeout: Some(write::duration(cluster.connect_timeout)),
        per_connection_buffer_limit_bytes: cluster.per_connection_buffer_limit.map(write::number),
        circuit_breakers: Some(encode_breakers(&cluster.circuit_breakers)),
        typed_extension_protocol_options: [(
            type_url::message_name(type_url::HTTP_PROTOCOL_OPTIONS).to_owned(),
            write::any(
                type_url::HTTP_PROTOCOL_OPTIONS,
                &http::encode_upstream_options(cluster),
            ),
        )]
        .into(),
        outlier_detection: cluster.outlier_detection.as_ref().map(encode_outlier),
        health_checks: cluster
            .health_check
            .iter()
            .map(health_check::to_message)
            .collect(),
        // Who leaves gets no new request, whatever it answers (this proxy does so anyhow).
        ignore_health_on_host_removal: cluster.health_check.is_some(),
        upstream_bind_config: cluster.bind.as_ref().map(encode_bind),
        common_lb_config: Some(CommonLbConfig {
            healthy_panic_threshold: Some(write::percent(cluster.panic_threshold)),
            locality_config_specifier: cluster.locality_weighted.then_some(
                LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {}),
            ),
            ..Default::default()
        }),
        transport_socket: cluster
            .tls
            .as_ref()
            .map(|tls| tls::encode_upstream_socket(Some(tls))),
        transport_socket_matches: cluster.tls_matches.iter().map(encode_tls_match).collect(),
        metadata: write::metadata([
            Some(origin::encode(&cluster.origin)),
            cluster
                .service
                .as_ref()
                .map(|service| (ISTIO, encode_service(service))),
        ]),
        upstream_connection_options: cluster.tcp_keepalive.as_ref().map(|keepalive| {
            UpstreamConnectionOptions {
                tcp_keepalive: Some(encode_keepalive(keepalive)),
                ..Default::default()
            }
        }),
        close_connections_on_host_health_failure: cluster.close_connections_on_host_health_failure,
        ..Default::default()
    };
    encode_lb(&cluster.lb_policy, &mut message);
    encode_discovery(&cluster.discovery, &mut message);
    encode_dns(&cluster.dns, &mut message);
    message
}

fn encode_discovery(discovery: &Discovery, message: &mut pb::Cluster) {
    let (kind, assignment) = match discovery {
        Discovery::Static(assignment) => (DiscoveryType::Static, Some(assignment)),
        Discovery::StrictDns(assignment) => (DiscoveryType::StrictDns, Some(assignment)),
        Discovery::LogicalDns(assignment) => (DiscoveryType::LogicalDns, Some(assignment)),
        Discovery::OriginalDst => (DiscoveryType::OriginalDst, None),
        Discovery::Eds { service_name } => {
            message.eds_cluster_config = Some(EdsClusterConfig {
                eds_config: Some(write::ads()),
                service_name: if **service_name == *message.name {
                    String::new()
                } else {
                    service_name.to_string()
                },
            });
            (DiscoveryType::Eds, None)
        }
    };
    message.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind.into()));
    message.load_assignment = assignment.map(endpoint::to_message);
}

#[expect(
    deprecated,
    reason = "the typed DNS cluster is younger than proxies in the field"
)]
fn encode_dns(dns: &DnsSettings, message: &mut pb::Cluster) {
    let default = DnsSettings::default();
    if dns.refresh != default.refresh {
        message.dns_refresh_rate = Some(write::duration(dns.refresh));
    }
    message.respect_dns_ttl = dns.respect_ttl;
    if dns.v4_only {
        message.dns_lookup_family = DnsLookupFamily::V4Only.into();
    }
}

fn encode_lb(policy: &LbPolicy, message: &mut pb::Cluster) {
    let (number, config) = match policy {
        LbPolicy::RoundRobin => (LbPolicyNumber::RoundRobin, None),
        LbPolicy::LeastRequest { choices } => (
            LbPolicyNumber::LeastRequest,
            Some(LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                choice_count: Some(write::number(*choices)),
                ..Default::default()
            })),
        ),
        LbPolicy::Random => (LbPolicyNumber::Random, None),
        LbPolicy::ClusterProvided => (LbPolicyNumber::ClusterProvided, None),
        LbPolicy::RingHash { minimum_ring_size } => (
            LbPolicyNumber::RingHash,
            Some(LbConfig::RingHashLbConfig(RingHashLbConfig {
                minimum_ring_size: Some(write::long(*minimum_ring_size)),
                ..Default::default()
            })),
        ),
        LbPolicy::Maglev { table_size } => (
            LbPolicyNumber::Maglev,
            Some(LbConfig::MaglevLbConfig(MaglevLbConfig {
                table_size: Some(write::long(*table_size)),
            })),
        ),
    };
    message.lb_policy = number.into();
    message.lb_config = config;
}

fn encode_breakers(breakers: &CircuitBreakers) -> Breakers {
    Breakers {
        thresholds: vec![Thresholds {
            priority: RoutingPriority::Default.into(),
            max_connections: Some(write::number(breakers.max_connections)),
            max_pending_requests: Some(write::number(breakers.max_pending_requests)),
            max_requests: Some(write::number(breakers.max_requests)),
            max_retries: Some(write::number(breakers.max_retries)),
            retry_budget: breakers.retry_budget.as_ref().map(|budget| Budget {
                budget_percent: Some(write::percent(budget.percent)),
                min_retry_concurrency: Some(write::number(budget.min_concurrency)),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn encode_outlier(outlier: &OutlierDetection) -> Outlier {
    let enforced = |count: Option<u32>| Some(write::number(if count.is_some() { 100 } else { 0 }));
    // Zero is never reached. Left out it would be Envoy's 5, and an unenforced detection of 5xx answers holds up the
    // enforced one of gateway failures (seen on Envoy 1.40). Istio sends zero as well.
    let never = |count: Option<u32>| Some(write::number(count.unwrap_or(0)));
    let split = outlier.split_external_local_origin_errors;
    Outlier {
        consecutive_5xx: never(outlier.consecutive_5xx),
        enforcing_consecutive_5xx: enforced(outlier.consecutive_5xx),
        consecutive_gateway_failure: never(outlier.consecutive_gateway_failure),
        enforcing_consecutive_gateway_failure: enforced(outlier.consecutive_gateway_failure),
        split_external_local_origin_errors: split,
        consecutive_local_origin_failure: never(outlier.consecutive_local_origin_failure),
        enforcing_consecutive_local_origin_failure: enforced(outlier.consecutive_local_origin_failure),
        enforcing_success_rate: Some(write::number(0)),
        enforcing_local_origin_success_rate: split.then(|| write::number(0)),
        interval: Some(write::duration(outlier.interval)),
        base_ejection_time: Some(write::duration(outlier.base_ejection_time)),
        max_ejection_time: Some(write::duration(outlier.max_ejection_time)),
        max_ejection_percent: Some(write::number(outlier.max_ejection_percent.millionths() / 10_000)),
        ..Default::default()
    }
}

fn encode_bind(bind: &UpstreamBind) -> BindConfig {
    let any = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    BindConfig {
        source_address: Some(write::socket(bind.source.unwrap_or(any), bind.netns.as_deref())),
        ..Default::default()
    }
}

fn encode_keepalive(keepalive: &TcpKeepalive) -> Keepalive {
    let seconds = |value: Duration| write::number(u32::try_from(value.as_secs()).unwrap_or(u32::MAX));
    Keepalive {
        keepalive_probes: keepalive.probes.map(write::number),
        keepalive_time: keepalive.time.map(seconds),
        keepalive_interval: keepalive.interval.map(seconds),
    }
}

fn encode_tls_match(entry: &TlsMatch) -> TransportSocketMatch {
    TransportSocketMatch {
        name: entry.name.to_string(),
        r#match: Some(write::labels(&entry.labels)),
        transport_socket: Some(tls::encode_upstream_socket(entry.tls.as_ref())),
    }
}

fn encode_service(service: &ServiceRef) -> Struct {
    let fields = write::texts([
        ("host", &*service.host),
        ("name", &service.name),
        ("namespace", &service.namespace),
    ]);
    let list = value::Kind::ListValue(ListValue {
        values: vec![Value {
            kind: Some(value::Kind::StructValue(fields)),
        }],
    });
    Struct {
        fields: [("services".to_owned(), Value { kind: Some(list) })].into(),
    }
}

// --- decode ---

/// Decodes.
pub fn decode_cluster(bytes: &[u8]) -> DecodeResult<Cluster> {
    read::resource(
        bytes,
        |message: &pb::Cluster| &message.name,
        |reader, message, place| from_message(reader, place, &message),
    )
}

pub(super) fn from_message(reader: &mut Reader, place: &Place<'_>, message: &pb::Cluster) -> Option<Cluster> {
    let name = reader.named(&place.field("name"), &message.name, "the cluster's name");
    let timeout_place = place.field("connect_timeout");
    let connect_timeout = reader.duration(&timeout_place, message.connect_timeout.as_ref());
    if connect_timeout.is_some_and(|it| it.is_zero()) {
        reader.out_of_range(&timeout_place, "0s", "more than 0s");
    }
    let mut socket = message
        .transport_socket
        .as_ref()
        .and_then(|socket| tls::decode_upstream_socket(reader, place, socket));
    let mut tls_matches = decode_tls_matches(reader, place, &message.transport_socket_matches);
    let options = http::decode_upstream_options(reader, place, message);
    let sockets = socket
        .iter_mut()
        .chain(tls_matches.iter_mut().filter_map(|it| it.tls.as_mut()));
    for tls in sockets {
        tls.auto_sni |= options.auto_sni;
        tls.auto_san_validation |= options.auto_san_validation;
    }
    for (at, filter) in message.filters.iter().enumerate() {
        let place = place.item("filters", at);
        if listener::is_ignorable_filter(&filter.name, filter.typed_config.as_ref()) {
            reader.ignore(place.to_string(), filter.name.as_str());
        } else {
            reader.extension(
                &place,
                "upstream filter",
                &filter.name,
                filter.typed_config.as_ref(),
                "none",
            );
        }
    }
    let discovery = decode_discovery(reader, place, message);
    Some(Cluster {
        alt_stat_name: message.alt_stat_name.as_str().into(),
        discovery: discovery?,
        connect_timeout: connect_timeout.unwrap_or(CONNECT_TIMEOUT),
        lb_policy: decode_lb(reader, place, message),
        panic_threshold: decode_panic_threshold(reader, place, message.common_lb_config.as_ref()),
        locality_weighted: is_locality_weighted(message.common_lb_config.as_ref()),
        circuit_breakers: decode_breakers(reader, place, message.circuit_breakers.as_ref()),
        outlier_detection: decode_outlier(reader, place, message.outlier_detection.as_ref()).map(|outlier| {
            OutlierDetection {
                error_statuses: options.error_statuses.clone(),
                ..outlier
            }
        }),
        health_check: health_check::from_messages(reader, place, &message.health_checks),
        tls: socket,
        tls_matches,
        protocol: options.protocol,
        idle_timeout: options.idle_timeout,
        max_requests_per_connection: options.max_requests_per_connection,
        max_connection_duration: options.max_connection_duration,
        tcp_keepalive: message
            .upstream_connection_options
            .as_ref()
            .and_then(|it| it.tcp_keepalive.as_ref())
            .map(decode_keepalive),
        bind: decode_bind(reader, place, message.upstream_bind_config.as_ref()),
        per_connection_buffer_limit: number(message.per_connection_buffer_limit_bytes.as_ref()),
        close_connections_on_host_health_failure: message.close_connections_on_host_health_failure,
        dns: decode_dns(reader, place, message),
        service: decode_service(read::metadata(message.metadata.as_ref(), ISTIO)),
        origin: origin::decode(message.metadata.as_ref(), "Cluster", &name),
        name,
    })
}

fn decode_panic_threshold(
    reader: &mut Reader,
    place: &Place<'_>,
    common: Option<&CommonLbConfig>,
) -> Percent {
    let place = place.field("common_lb_config");
    match common.and_then(|it| it.healthy_panic_threshold.as_ref()) {
        Some(percent) => reader.percent(&place.field("healthy_panic_threshold"), percent.value),
        // Envoy's default.
        None => Percent::from_millionths(500_000),
    }
}

fn is_locality_weighted(common: Option<&CommonLbConfig>) -> bool {
    matches!(
        common.and_then(|it| it.locality_config_specifier.as_ref()),
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_))
    )
}

fn decode_discovery(reader: &mut Reader, place: &Place<'_>, message: &pb::Cluster) -> Option<Discovery> {
    let kind = match message.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) => kind,
        // Refused by the list of supported fields.
        Some(ClusterDiscoveryType::ClusterType(_)) => return None,
        None => DiscoveryType::Static.into(),
    };
    let kind = reader.enumerator(&place.field("type"), kind);
    let place = place.field("load_assignment");
    let assignment = |reader: &mut Reader| {
        let assignment = reader.required(&place, message.load_assignment.as_ref(), "the endpoints")?;
        Some(endpoint::from_message(reader, &place, assignment))
    };
    Some(match kind {
        DiscoveryType::Static => {
            let assignment = assignment(reader)?;
            if let Some(name) = assignment.endpoints().find_map(|it| match &it.address {
                EndpointAddress::Dns { host, .. } => Some(host),
                EndpointAddress::Socket(_) | EndpointAddress::Pipe(_) => None,
            }) {
                reader.bad_text(&place, name, "an IP address (use the type STRICT_DNS for names)");
            }
            Discovery::Static(assignment)
        }
        DiscoveryType::StrictDns => Discovery::StrictDns(assignment(reader)?),
        DiscoveryType::LogicalDns => {
            let assignment = assignment(reader)?;
            if assignment.endpoints().count() != 1 {
                let count = assignment.endpoints().count();
                reader.out_of_range(
                    &place,
                    format_args!("{count} endpoints"),
                    "exactly 1 with LOGICAL_DNS",
                );
            }
            Discovery::LogicalDns(assignment)
        }
        DiscoveryType::Eds => {
            let config = message.eds_cluster_config.clone().unwrap_or_default();
            let place = place_of_eds(&place);
            reader.config_source(&place, config.eds_config.as_ref());
            let name = if config.service_name.is_empty() {
                &message.name
            } else {
                &config.service_name
            };
            Discovery::Eds {
                service_name: name.as_str().into(),
            }
        }
        DiscoveryType::OriginalDst => Discovery::OriginalDst,
    })
}

/// `load_assignment`'s neighbour.
fn place_of_eds<'a>(place: &Place<'a>) -> Place<'a> {
    match place {
        Place::Field(parent, _) => Place::Field(parent, "eds_cluster_config.eds_config"),
        other => *other,
    }
}

#[expect(deprecated, reason = "what is deprecated is what everybody sends")]
fn decode_dns(reader: &mut Reader, place: &Place<'_>, message: &pb::Cluster) -> DnsSettings {
    let default = DnsSettings::default();
    let family_place = place.field("dns_lookup_family");
    let family: DnsLookupFamily = reader.enumerator(&family_place, message.dns_lookup_family);
    if family == DnsLookupFamily::V6Only {
        reader.value(&family_place, "V6_ONLY", "write AUTO or V4_ONLY");
    }
    let refresh_place = place.field("dns_refresh_rate");
    let refresh = reader.duration(&refresh_place, message.dns_refresh_rate.as_ref());
    if refresh.is_some_and(|it| it < Duration::from_millis(1)) {
        reader.out_of_range(&refresh_place, "less than 1 ms", "1ms or more");
    }
    DnsSettings {
        refresh: refresh.unwrap_or(default.refresh),
        respect_ttl: message.respect_dns_ttl,
        v4_only: family == DnsLookupFamily::V4Only,
    }
}

fn decode_lb(reader: &mut Reader, place: &Place<'_>, message: &pb::Cluster) -> LbPolicy {
    match reader.enumerator(&place.field("lb_policy"), message.lb_policy) {
        LbPolicyNumber::RoundRobin => LbPolicy::RoundRobin,
        LbPolicyNumber::Random => LbPolicy::Random,
        LbPolicyNumber::ClusterProvided => LbPolicy::ClusterProvided,
        LbPolicyNumber::LeastRequest => {
            let choices = match &message.lb_config {
                Some(LbConfig::LeastRequestLbConfig(config)) => number(config.choice_count.as_ref()),
                _ => None,
            };
            let choices = choices.unwrap_or(2);
            if choices < 2 {
                let place = place.field("least_request_lb_config");
                reader.out_of_range(&place.field("choice_count"), choices, "2 or more");
            }
            LbPolicy::LeastRequest { choices }
        }
        LbPolicyNumber::RingHash => LbPolicy::RingHash {
            minimum_ring_size: match &message.lb_config {
                Some(LbConfig::RingHashLbConfig(config)) => {
                    config.minimum_ring_size.as_ref().map_or(1024, |it| it.value)
                }
                _ => 1024,
            },
        },
        LbPolicyNumber::Maglev => LbPolicy::Maglev {
            table_size: match &message.lb_config {
                Some(LbConfig::MaglevLbConfig(config)) => {
                    config.table_size.as_ref().map_or(65_537, |it| it.value)
                }
                _ => 65_537,
            },
        },
        LbPolicyNumber::LoadBalancingPolicyConfig => {
            reader.value(
                &place.field("lb_policy"),
                "LOAD_BALANCING_POLICY_CONFIG",
                "name one of the built-in policies",
            );
            LbPolicy::RoundRobin
        }
    }
}

fn decode_breakers(reader: &mut Reader, place: &Place<'_>, breakers: Option<&Breakers>) -> CircuitBreakers {
    let place = place.field("circuit_breakers");
    let mut decoded = None;
    for (at, thresholds) in breakers.iter().flat_map(|it| it.thresholds.iter().enumerate()) {
        let place = place.item("thresholds", at);
        match reader.enumerator(&place.field("priority"), thresholds.priority) {
            RoutingPriority::Default => {}
            RoutingPriority::High => {
                reader.ignore(place.to_string(), "envoy.config.core.v3.RoutingPriority.HIGH");
                continue;
            }
        }
        let limit = |value: &Option<UInt32Value>, default| number(value.as_ref()).unwrap_or(default);
        let envoy = CircuitBreakers::ENVOY;
        let retry_budget = thresholds.retry_budget.as_ref().map(|budget| {
            let place = place.field("retry_budget");
            let percent = budget.budget_percent.as_ref();
            RetryBudget {
                percent: percent.map_or(Percent::from_millionths(200_000), |it| {
                    reader.percent(&place.field("budget_percent"), it.value)
                }),
                min_concurrency: limit(&budget.min_retry_concurrency, 3),
            }
        });
        // Envoy: of several thresholds of a priority the first is used.
        decoded.get_or_insert(CircuitBreakers {
            max_connections: limit(&thresholds.max_connections, envoy.max_connections),
            max_pending_requests: limit(&thresholds.max_pending_requests, envoy.max_pending_requests),
            max_requests: limit(&thresholds.max_requests, envoy.max_requests),
            max_retries: limit(&thresholds.max_retries, envoy.max_retries),
            retry_budget,
        });
    }
    decoded.unwrap_or(CircuitBreakers::ENVOY)
}

fn decode_outlier(
    reader: &mut Reader,
    place: &Place<'_>,
    outlier: Option<&Outlier>,
) -> Option<OutlierDetection> {
    let outlier = outlier?;
    let place = place.field("outlier_detection");
    refuse_success_rate(reader, &place, outlier);
    let mut detector =
        |name, count: &Option<UInt32Value>, enforcing: &Option<UInt32Value>, default| match number(
            enforcing.as_ref(),
        )
        .unwrap_or(default)
        {
            0 => None,
            100 => Some(number(count.as_ref()).unwrap_or(5)).filter(|count| *count > 0),
            other => {
                reader.value(&place.field(name), other, "write 0 (off) or 100 (on)");
                None
            }
        };
    let consecutive_5xx = detector(
        "enforcing_consecutive_5xx",
        &outlier.consecutive_5xx,
        &outlier.enforcing_consecutive_5xx,
        100,
    );
    let gateway = detector(
        "enforcing_consecutive_gateway_failure",
        &outlier.consecutive_gateway_failure,
        &outlier.enforcing_consecutive_gateway_failure,
        0,
    );
    let local = detector(
        "enforcing_consecutive_local_origin_failure",
        &outlier.consecutive_local_origin_failure,
        &outlier.enforcing_consecutive_local_origin_failure,
        100,
    );
    let mut time = |name, value, default| {
        let place = place.field(name);
        reader
            .duration(&place, value)
            .unwrap_or(Duration::from_secs(default))
    };
    let interval = time("interval", outlier.interval.as_ref(), 10);
    let base = time("base_ejection_time", outlier.base_ejection_time.as_ref(), 30);
    let longest = time("max_ejection_time", outlier.max_ejection_time.as_ref(), 300);
    if interval.is_zero() {
        reader.out_of_range(&place.field("interval"), "0s", "more than 0s");
    }
    let percent = number(outlier.max_ejection_percent.as_ref()).unwrap_or(10);
    let split = outlier.split_external_local_origin_errors;
    Some(OutlierDetection {
        consecutive_5xx,
        consecutive_gateway_failure: gateway,
        // Without the split Envoy counts local failures with the others.
        consecutive_local_origin_failure: local.filter(|_| split),
        split_external_local_origin_errors: split,
        interval,
        base_ejection_time: base,
        max_ejection_time: longest.max(base),
        max_ejection_percent: reader.percent(&place.field("max_ejection_percent"), percent.into()),
        error_statuses: Vec::new(),
    })
}

/// Ejection by success rate and failure percentage: only "off" is taken.
fn refuse_success_rate(reader: &mut Reader, place: &Place<'_>, outlier: &Outlier) {
    let statistical = [
        ("enforcing_success_rate", &outlier.enforcing_success_rate),
        (
            "enforcing_local_origin_success_rate",
            &outlier.enforcing_local_origin_success_rate,
        ),
        (
            "enforcing_failure_percentage",
            &outlier.enforcing_failure_percentage,
        ),
        (
            "enforcing_failure_percentage_local_origin",
            &outlier.enforcing_failure_percentage_local_origin,
        ),
    ];
    for (name, enforcing) in statistical {
        if let Some(percent) = number(enforcing.as_ref()).filter(|it| *it > 0) {
            reader.value(
                &place.field(name),
                percent,
                "write 0: endpoints are ejected by consecutive failures only",
            );
        }
    }
    if outlier.enforcing_success_rate.is_none() {
        reader.ignore(
            place.field("enforcing_success_rate").to_string(),
            "envoy.config.cluster.v3.OutlierDetection.enforcing_success_rate (default)",
        );
    }
}

fn decode_tls_matches(
    reader: &mut Reader,
    place: &Place<'_>,
    matches: &[TransportSocketMatch],
) -> Vec<TlsMatch> {
    let mut decoded = Vec::with_capacity(matches.len());
    for (at, entry) in matches.iter().enumerate() {
        let place = place.item("transport_socket_matches", at);
        decoded.push(TlsMatch {
            name: reader.named(&place.field("name"), &entry.name, "the entry's name"),
            labels: endpoint::labels(entry.r#match.as_ref()),
            tls: entry
                .transport_socket
                .as_ref()
                .and_then(|socket| tls::decode_upstream_socket(reader, &place, socket)),
        });
    }
    decoded
}

fn decode_keepalive(keepalive: &Keepalive) -> TcpKeepalive {
    let seconds = |value: &UInt32Value| Duration::from_secs(value.value.into());
    TcpKeepalive {
        probes: number(keepalive.keepalive_probes.as_ref()),
        time: keepalive.keepalive_time.as_ref().map(seconds),
        interval: keepalive.keepalive_interval.as_ref().map(seconds),
    }
}

fn decode_bind(reader: &mut Reader, place: &Place<'_>, bind: Option<&BindConfig>) -> Option<UpstreamBind> {
    let bind = bind?;
    let place = place.field("upstream_bind_config");
    listener::decode_socket_options(reader, &place, &bind.socket_options);
    let Some(source) = &bind.source_address else {
        return None;
    };
    let (socket, netns) = reader.socket(&place.field("source_address"), source, true)?;
    let source = (!socket.ip().is_unspecified() || socket.port() != 0).then_some(socket);
    (source.is_some() || netns.is_some()).then_some(UpstreamBind { source, netns })
}

/// The first of Istio's `services`.
fn decode_service(fields: Option<&Struct>) -> Option<ServiceRef> {
    let Some(value::Kind::ListValue(list)) = fields?.fields.get("services")?.kind.as_ref() else {
        return None;
    };
    let Some(value::Kind::StructValue(service)) = list.values.first()?.kind.as_ref() else {
        return None;
    };
    Some(ServiceRef {
        host: read::text_in(service, "host").into(),
        name: read::text_in(service, "name").into(),
        namespace: read::text_in(service, "namespace").into(),
    })
}
