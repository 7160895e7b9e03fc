//! Listeners, filter chains, the TCP proxy.
//!
//! Rejected: UDP, internal listeners, additional addresses, filter-chain matcher trees, network filters other than access
//! control, the HTTP connection manager and the TCP proxy (Istio's statistics and metadata-exchange filters are ignorable).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use rajut_proto::{
    Any,
    core::{CidrRange, SocketOption, address, socket_option},
    listener::{self as pb, filter::ConfigType, listener_filter},
    tcp_proxy::{
        self as tcp, tcp_proxy::ClusterSpecifier, tcp_proxy::WeightedCluster,
        tcp_proxy::weighted_cluster::ClusterWeight,
    },
    type_url,
};
use rajut_types::Text;

use super::{
    DecodeResult, Encoded, Fault, access_log, ext_authz, http, origin, rbac,
    read::{self, Place, Reader, is_true, number},
    stats, tls, write,
};
use crate::chain::COMBINATIONS_MAX;
use crate::listener::{
    ChainAction, Direction, FilterChain, FilterChainMatch, Inspectors, Listener, ListenerAddress, TcpProxy,
    TransportProtocol,
};
use crate::{ext_authz::NetworkExtAuthz, rbac::Rbac};

const ORIGINAL_DST: &str = "envoy.filters.listener.original_dst";
const TLS_INSPECTOR: &str = "envoy.filters.listener.tls_inspector";
const HTTP_INSPECTOR: &str = "envoy.filters.listener.http_inspector";
const HTTP: &str = "envoy.filters.network.http_connection_manager";
const RBAC: &str = "envoy.filters.network.rbac";
const JUDGES_OPEN: &str = "judges-open";
const EXT_AUTHZ: &str = "envoy.filters.network.ext_authz";
const TCP: &str = "envoy.filters.network.tcp_proxy";
const DIRECTION_KEY: &str = "traffic_direction";

/// Envoy: `Listener.listener_filters_timeout`.
const INSPECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// Envoy: `TcpProxy.idle_timeout`.
const TCP_IDLE_TIMEOUT: Duration = Duration::from_hours(1);

// --- encode ---

/// Encodes.
pub fn encode_listener(listener: &Listener) -> Encoded {
    write::resource(&listener.name, type_url::LISTENER, &to_message(listener))
}

pub(super) fn to_message(listener: &Listener) -> pb::Listener {
    let bare = listener.api_listener.is_some() && listener.address == unspecified();
    let socket = write::socket(listener.address.socket, listener.address.netns.as_deref());
    pb::Listener {
        name: listener.name.to_string(),
        address: (!bare).then(|| write::socket_address(socket)),
        filter_chains: listener.filter_chains.iter().map(|it| encode_chain(it)).collect(),
        default_filter_chain: listener.default_filter_chain.as_ref().map(|it| encode_chain(it)),
        use_original_dst: write::set(listener.use_original_dst),
        per_connection_buffer_limit_bytes: listener.per_connection_buffer_limit.map(write::number),
        metadata: write::metadata([Some(origin::encode(&listener.origin))]),
        listener_filters: encode_inspectors(listener.inspectors),
        listener_filters_timeout: Some(write::duration(listener.inspection_timeout)),
        continue_on_listener_filters_timeout: listener.continue_on_inspection_timeout,
        traffic_direction: match listener.direction {
            Direction::Unspecified => 0,
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        },
        api_listener: listener.api_listener.as_ref().map(|manager| pb::ApiListener {
            api_listener: Some(write::any(
                type_url::HTTP_CONNECTION_MANAGER,
                &http::to_message(manager),
            )),
        }),
        access_log: access_log::encode(&listener.access_logs),
        bind_to_port: (!listener.bind_to_port).then(|| write::boolean(false)),
        ..Default::default()
    }
}

fn unspecified() -> ListenerAddress {
    ListenerAddress {
        socket: SocketAddr::from(([0, 0, 0, 0], 0)),
        netns: None,
    }
}

fn encode_inspectors(inspectors: Inspectors) -> Vec<pb::ListenerFilter> {
    let Inspectors {
        original_dst,
        tls,
        http,
    } = inspectors;
    [
        (original_dst, ORIGINAL_DST, type_url::ORIGINAL_DST),
        (tls, TLS_INSPECTOR, type_url::TLS_INSPECTOR),
        (http, HTTP_INSPECTOR, type_url::HTTP_INSPECTOR),
    ]
    .into_iter()
    .filter(|(wanted, ..)| *wanted)
    .map(|(_, name, url)| pb::ListenerFilter {
        name: name.to_owned(),
        filter_disabled: None,
        config_type: Some(listener_filter::ConfigType::TypedConfig(write::empty_any(url))),
    })
    .collect()
}

fn encode_chain(chain: &FilterChain) -> pb::FilterChain {
    let (name, config) = match &chain.action {
        ChainAction::Http(manager) => (
            HTTP,
            write::any(type_url::HTTP_CONNECTION_MANAGER, &http::to_message(manager)),
        ),
        ChainAction::Tcp(proxy) => (TCP, write::any(type_url::TCP_PROXY, &encode_tcp(proxy))),
    };
    let filter = |name: &str, config| pb::Filter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(config)),
    };
    let access = chain.rbac.iter().map(|it| {
        let config = write::any(type_url::NETWORK_RBAC, &rbac::encode_network(it));
        filter(RBAC, config)
    });
    let mut access: Vec<_> = access.collect();
    if let Some((after, authz)) = &chain.ext_authz {
        let config = write::any(type_url::NETWORK_EXT_AUTHZ, &ext_authz::encode_network(authz));
        access.insert((*after).min(access.len()), filter(EXT_AUTHZ, config));
    }
    let metrics = match &chain.action {
        ChainAction::Tcp(proxy) => proxy.stats.as_ref(),
        ChainAction::Http(_) => None,
    };
    let metrics = metrics.map(|it| filter(stats::NAME, stats::encode(it)));
    pb::FilterChain {
        filter_chain_match: encode_match(&chain.matches),
        filters: access
            .into_iter()
            .chain(metrics)
            .chain([filter(name, config)])
            .collect(),
        metadata: write::metadata([
            Some(origin::encode(&chain.origin)),
            chain
                .judges_open
                .then(|| (FilterChain::METADATA_KEY, write::texts([(JUDGES_OPEN, "true")]))),
        ]),
        transport_socket: chain.tls.as_ref().map(tls::encode_downstream_socket),
        transport_socket_connect_timeout: (!chain.transport_connect_timeout.is_zero())
            .then(|| write::duration(chain.transport_connect_timeout)),
        name: chain.name.to_string(),
        ..Default::default()
    }
}

fn encode_match(matches: &FilterChainMatch) -> Option<pb::FilterChainMatch> {
    (*matches != FilterChainMatch::default()).then(|| pb::FilterChainMatch {
        destination_port: matches.destination_port.map(|port| write::number(port.into())),
        prefix_ranges: matches.prefix_ranges.iter().map(encode_range).collect(),
        server_names: matches.server_names.iter().map(ToString::to_string).collect(),
        transport_protocol: match matches.transport_protocol {
            None => "",
            Some(TransportProtocol::Tls) => "tls",
            Some(TransportProtocol::RawBuffer) => "raw_buffer",
        }
        .to_owned(),
        application_protocols: matches
            .application_protocols
            .iter()
            .map(ToString::to_string)
            .collect(),
        source_prefix_ranges: matches.source_prefix_ranges.iter().map(encode_range).collect(),
        source_ports: matches.source_ports.iter().map(|port| u32::from(*port)).collect(),
        ..Default::default()
    })
}

fn encode_range(range: &IpNet) -> CidrRange {
    CidrRange {
        address_prefix: range.addr().to_string(),
        prefix_len: Some(write::number(range.prefix_len().into())),
    }
}

fn encode_tcp(proxy: &TcpProxy) -> tcp::TcpProxy {
    let cluster = match &proxy.clusters[..] {
        [(name, 1)] => ClusterSpecifier::Cluster(name.to_string()),
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several
                .iter()
                .map(|(name, weight)| ClusterWeight {
                    name: name.to_string(),
                    weight: *weight,
                    metadata_match: None,
                })
                .collect(),
        }),
    };
    tcp::TcpProxy {
        stat_prefix: proxy.stat_prefix.to_string(),
        cluster_specifier: Some(cluster),
        idle_timeout: Some(write::bound(proxy.idle_timeout)),
        access_log: access_log::encode(&proxy.access_logs),
        max_connect_attempts: Some(write::number(proxy.max_connect_attempts)),
        max_downstream_connection_duration: proxy.max_downstream_connection_duration.map(write::duration),
        ..Default::default()
    }
}

// --- decode ---

/// Decodes.
pub fn decode_listener(bytes: &[u8]) -> DecodeResult<Listener> {
    read::resource(
        bytes,
        |message: &pb::Listener| &message.name,
        |reader, message, place| from_message(reader, place, &message),
    )
}

pub(super) fn from_message(
    reader: &mut Reader,
    place: &Place<'_>,
    message: &pb::Listener,
) -> Option<Listener> {
    let chains: Vec<_> = message
        .filter_chains
        .iter()
        .enumerate()
        .filter_map(|(at, chain)| decode_chain(reader, &place.item("filter_chains", at), chain))
        .map(Arc::new)
        .collect();
    let default = message
        .default_filter_chain
        .as_ref()
        .and_then(|chain| decode_chain(reader, &place.field("default_filter_chain"), chain));
    let api = message
        .api_listener
        .as_ref()
        .and_then(|api| decode_api(reader, &place.field("api_listener"), api));
    if message.filter_chains.is_empty()
        && message.default_filter_chain.is_none()
        && message.api_listener.is_none()
        && !is_true(message.use_original_dst.as_ref())
    {
        reader.fault(
            &place.field("filter_chains"),
            Fault::Missing("at least one filter chain"),
        );
    }
    unique_chains(reader, place, &chains);
    decode_socket_options(reader, place, &message.socket_options);
    let timeout_place = place.field("listener_filters_timeout");
    let timeout = reader.duration(&timeout_place, message.listener_filters_timeout.as_ref());
    let inspectors = decode_inspectors(reader, place, &message.listener_filters);
    let access_logs = access_log::decode(reader, place, &message.access_log, true);
    let address = decode_address(reader, &place.field("address"), message);
    let direction = decode_direction(reader, place, message.traffic_direction);
    Some(Listener {
        name: message.name.as_str().into(),
        address: address?,
        bind_to_port: message.bind_to_port.as_ref().is_none_or(|it| it.value),
        use_original_dst: is_true(message.use_original_dst.as_ref()),
        inspectors,
        inspection_timeout: timeout.unwrap_or(INSPECTION_TIMEOUT),
        continue_on_inspection_timeout: message.continue_on_listener_filters_timeout,
        filter_chains: chains,
        default_filter_chain: default.map(Arc::new),
        direction,
        access_logs,
        per_connection_buffer_limit: number(message.per_connection_buffer_limit_bytes.as_ref()),
        api_listener: api,
        origin: origin::decode(message.metadata.as_ref(), "Listener", &message.name),
    })
}

fn decode_direction(reader: &mut Reader, place: &Place<'_>, value: i32) -> Direction {
    use rajut_proto::core::TrafficDirection;
    match reader.enumerator(&place.field(DIRECTION_KEY), value) {
        TrafficDirection::Unspecified => Direction::Unspecified,
        TrafficDirection::Inbound => Direction::Inbound,
        TrafficDirection::Outbound => Direction::Outbound,
    }
}

fn decode_address(reader: &mut Reader, place: &Place<'_>, message: &pb::Listener) -> Option<ListenerAddress> {
    let address = message.address.as_ref().and_then(|it| it.address.as_ref());
    match address {
        None if message.api_listener.is_some() => Some(unspecified()),
        None => reader.required(place, None, "the address to listen on"),
        Some(address::Address::SocketAddress(socket)) => {
            let (socket, netns) = reader.socket(&place.field("socket_address"), socket, true)?;
            Some(ListenerAddress { socket, netns })
        }
        Some(address::Address::Pipe(pipe)) => {
            reader.value(
                &place.field("pipe"),
                &pipe.path,
                "listen on an IP address and port",
            );
            None
        }
        Some(address::Address::EnvoyInternalAddress(_)) => {
            reader.value(
                &place.field("envoy_internal_address"),
                "internal listener",
                "listen on an IP address and port",
            );
            None
        }
    }
}

/// Socket options (Linux) that are set anyway, or that say nothing about who gets the traffic: level, name.
const HARMLESS_OPTIONS: [(i64, i64); 10] = [
    (1, 2),  // SOL_SOCKET, SO_REUSEADDR
    (1, 9),  // SOL_SOCKET, SO_KEEPALIVE
    (1, 15), // SOL_SOCKET, SO_REUSEPORT
    (6, 1),  // IPPROTO_TCP, TCP_NODELAY
    (6, 4),  // IPPROTO_TCP, TCP_KEEPIDLE
    (6, 5),  // IPPROTO_TCP, TCP_KEEPINTVL
    (6, 6),  // IPPROTO_TCP, TCP_KEEPCNT
    (6, 9),  // IPPROTO_TCP, TCP_DEFER_ACCEPT
    (6, 18), // IPPROTO_TCP, TCP_USER_TIMEOUT
    (6, 23), // IPPROTO_TCP, TCP_FASTOPEN
];

/// Options that only tune are ignorable; others (marks, devices, transparency) would change what is reached.
pub(super) fn decode_socket_options(reader: &mut Reader, place: &Place<'_>, options: &[SocketOption]) {
    for (at, option) in options.iter().enumerate() {
        let place = place.item("socket_options", at);
        if HARMLESS_OPTIONS.contains(&(option.level, option.name)) {
            reader.ignore(place.to_string(), "envoy.config.core.v3.SocketOption");
            continue;
        }
        let value = match &option.value {
            Some(socket_option::Value::IntValue(value)) => value.to_string(),
            Some(socket_option::Value::BufValue(_)) => "bytes".to_owned(),
            None => "nothing".to_owned(),
        };
        reader.value(
            &place,
            format_args!("level {} name {} = {value}", option.level, option.name),
            "leave the option out",
        );
    }
}

fn unique_chains(reader: &mut Reader, place: &Place<'_>, chains: &[Arc<FilterChain>]) {
    for (at, chain) in chains.iter().enumerate() {
        let before = &chains[..at];
        let place = place.item("filter_chains", at);
        if !chain.name.is_empty() && before.iter().any(|other| other.name == chain.name) {
            reader.fault(&place.field("name"), Fault::Duplicate(chain.name.to_string()));
        }
        if before.iter().any(|other| other.matches == chain.matches) {
            reader.fault(
                &place.field("filter_chain_match"),
                Fault::Duplicate("filter_chain_match".to_owned()),
            );
        }
    }
}

fn decode_inspectors(reader: &mut Reader, place: &Place<'_>, filters: &[pb::ListenerFilter]) -> Inspectors {
    let mut inspectors = Inspectors::default();
    for (at, filter) in filters.iter().enumerate() {
        let place = place.item("listener_filters", at);
        let config = match &filter.config_type {
            Some(listener_filter::ConfigType::TypedConfig(config)) => Some(config),
            // Refused by the list of supported fields.
            Some(listener_filter::ConfigType::ConfigDiscovery(_)) => continue,
            None => None,
        };
        // Envoy finds an extension by its type, and by its name where there is no configuration.
        let url = config.map_or("", |it| &*it.type_url);
        match (url, &*filter.name) {
            (type_url::ORIGINAL_DST, _) | ("", ORIGINAL_DST) => inspectors.original_dst = true,
            (type_url::TLS_INSPECTOR, _) | ("", TLS_INSPECTOR) => inspectors.tls = true,
            (type_url::HTTP_INSPECTOR, _) | ("", HTTP_INSPECTOR) => inspectors.http = true,
            _ => reader.extension(
                &place.field("typed_config"),
                "listener filter",
                &filter.name,
                config,
                "envoy.filters.listener.original_dst, .tls_inspector, .http_inspector",
            ),
        }
    }
    inspectors
}

fn decode_api(
    reader: &mut Reader,
    place: &Place<'_>,
    api: &pb::ApiListener,
) -> Option<Arc<crate::http::HttpConnectionManager>> {
    let place = place.field("api_listener");
    let config = reader.required(&place, api.api_listener.as_ref(), "an HTTP connection manager")?;
    if config.type_url == type_url::HTTP_CONNECTION_MANAGER {
        http::decode(reader, &place, config).map(Arc::new)
    } else {
        reader.extension(&place, "API listener", "", Some(config), HTTP);
        None
    }
}

fn decode_chain(reader: &mut Reader, place: &Place<'_>, chain: &pb::FilterChain) -> Option<FilterChain> {
    let matches = decode_match(
        reader,
        &place.field("filter_chain_match"),
        chain.filter_chain_match.as_ref(),
    );
    let tls = chain
        .transport_socket
        .as_ref()
        .and_then(|socket| tls::decode_downstream_socket(reader, place, socket));
    let timeout_place = place.field("transport_socket_connect_timeout");
    let timeout = reader.duration(&timeout_place, chain.transport_socket_connect_timeout.as_ref());
    let mut judges = Judges::default();
    let action = decode_filters(reader, place, &chain.filters, &mut judges);
    Some(FilterChain {
        name: chain.name.as_str().into(),
        matches,
        tls,
        transport_connect_timeout: timeout.unwrap_or_default(),
        rbac: judges.rbac,
        ext_authz: judges.ext_authz,
        judges_open: read::metadata(chain.metadata.as_ref(), FilterChain::METADATA_KEY)
            .is_some_and(|fields| read::text_in(fields, JUDGES_OPEN) == "true"),
        action: action?,
        origin: origin::decode(chain.metadata.as_ref(), "FilterChain", &chain.name),
    })
}

/// Network filters that only look on: the type's full name.
const IGNORABLE_TYPES: [&str; 2] = [
    "envoy.tcp.metadataexchange.config.MetadataExchange",
    "io.istio.tcp.metadata_exchange.v1.MetadataExchange",
];

/// The same filters by name, where their configuration is a `TypedStruct`.
const IGNORABLE_NAMES: [&str; 3] = [
    "istio.metadata_exchange",
    "istio.stats",
    "envoy.filters.network.metadata_exchange",
];

/// Whether a network filter (of a chain or a cluster) may be left out.
pub(super) fn is_ignorable_filter(name: &str, config: Option<&Any>) -> bool {
    let message = config.map_or("", |it| type_url::message_name(&it.type_url));
    IGNORABLE_TYPES.contains(&message)
        || (IGNORABLE_NAMES.contains(&name) && (message.is_empty() || message.ends_with(".TypedStruct")))
}

/// The filters of a chain that judge connections.
#[derive(Default)]
struct Judges {
    rbac: Vec<Arc<Rbac>>,
    ext_authz: Option<(usize, Arc<NetworkExtAuthz>)>,
}

/// What judges connections goes into `judges`.
fn decode_filters(
    reader: &mut Reader,
    place: &Place<'_>,
    filters: &[pb::Filter],
    judges: &mut Judges,
) -> Option<ChainAction> {
    let (mut action, mut metrics) = (None, None);
    for (at, filter) in filters.iter().enumerate() {
        let place = place.item("filters", at);
        let config = match &filter.config_type {
            Some(ConfigType::TypedConfig(config)) => Some(config),
            // Refused by the list of supported fields.
            Some(ConfigType::ConfigDiscovery(_)) => return None,
            None => None,
        };
        if is_ignorable_filter(&filter.name, config) {
            reader.ignore(place.to_string(), filter.name.as_str());
            continue;
        }
        let is_last = at + 1 == filters.len();
        let place = place.field("typed_config");
        action = match config {
            Some(config) if config.type_url == type_url::HTTP_CONNECTION_MANAGER && is_last => {
                Some(ChainAction::Http(Arc::new(http::decode(reader, &place, config)?)))
            }
            Some(config) if config.type_url == type_url::TCP_PROXY && is_last => {
                let proxy = decode_tcp(reader, &place, config)?;
                Some(ChainAction::Tcp(Arc::new(TcpProxy {
                    stats: metrics.take(),
                    ..proxy
                })))
            }
            Some(config) if config.type_url == type_url::ISTIO_STATS && !is_last => {
                metrics = stats::decode(reader, &place, config).map(Arc::new);
                continue;
            }
            Some(config) if config.type_url == type_url::NETWORK_RBAC && !is_last => {
                let message = reader.unpack(&place, config)?;
                let rbac = rbac::decode_network(reader, &place, &message);
                judges.rbac.push(Arc::new(rbac));
                continue;
            }
            Some(config) if config.type_url == type_url::NETWORK_EXT_AUTHZ && !is_last => {
                let message = reader.unpack(&place, config)?;
                let authz = ext_authz::decode_network(reader, &place, &message)?;
                let asked = (judges.rbac.len(), Arc::new(authz));
                if judges.ext_authz.replace(asked).is_some() {
                    reader.value(&place, "a second one", "one provider is asked about a connection");
                }
                continue;
            }
            _ => {
                reader.extension(&place, "network filter", &filter.name, config, SUPPORTED_FILTERS);
                return None;
            }
        };
    }
    reader.required(
        &place.field("filters"),
        action,
        "an HTTP connection manager or a TCP proxy as the last filter",
    )
}

const SUPPORTED_FILTERS: &str = "envoy.filters.network.rbac, envoy.filters.network.ext_authz, istio.stats, and as the last one \
                                 envoy.filters.network.http_connection_manager or envoy.filters.network.tcp_proxy";

fn decode_match(
    reader: &mut Reader,
    place: &Place<'_>,
    matches: Option<&pb::FilterChainMatch>,
) -> FilterChainMatch {
    let Some(matches) = matches else {
        return FilterChainMatch::default();
    };
    let mut ranges = |name, ranges: &[CidrRange]| {
        ranges
            .iter()
            .enumerate()
            .filter_map(|(at, range)| reader.range(&place.item(name, at), range))
            .collect::<Vec<_>>()
    };
    let prefix_ranges = ranges("prefix_ranges", &matches.prefix_ranges);
    let source_prefix_ranges = ranges("source_prefix_ranges", &matches.source_prefix_ranges);
    for (at, name) in matches.server_names.iter().enumerate() {
        // Envoy refuses partial wildcards like `a*.b` and a lone `*`.
        if name.strip_prefix("*.").unwrap_or(name).contains('*') {
            reader.bad_text(
                &place.item("server_names", at),
                name,
                "a server name, or `*.` and one",
            );
        }
    }
    let port_place = place.field("destination_port");
    let destination_port =
        number(matches.destination_port.as_ref()).map(|port| reader.port(&port_place, port));
    if destination_port == Some(0) {
        reader.out_of_range(&port_place, 0, "1 to 65535");
    }
    bound_combinations(reader, place, matches);
    FilterChainMatch {
        destination_port,
        prefix_ranges,
        server_names: matches
            .server_names
            .iter()
            .map(|it| it.to_ascii_lowercase().into())
            .collect(),
        transport_protocol: match &*matches.transport_protocol {
            "" => None,
            "tls" => Some(TransportProtocol::Tls),
            "raw_buffer" => Some(TransportProtocol::RawBuffer),
            other => {
                reader.bad_text(&place.field("transport_protocol"), other, "`tls` or `raw_buffer`");
                None
            }
        },
        application_protocols: texts(&matches.application_protocols),
        source_prefix_ranges,
        source_ports: matches
            .source_ports
            .iter()
            .enumerate()
            .map(|(at, port)| reader.port(&place.item("source_ports", at), *port))
            .collect(),
    }
}

/// The matcher has a leaf for each combination.
fn bound_combinations(reader: &mut Reader, place: &Place<'_>, matches: &pb::FilterChainMatch) {
    let lengths = [
        matches.prefix_ranges.len(),
        matches.server_names.len(),
        matches.application_protocols.len(),
        matches.source_prefix_ranges.len(),
        matches.source_ports.len(),
    ];
    let combinations = lengths.iter().fold(1, |product: usize, length| {
        product.saturating_mul((*length).max(1))
    });
    if combinations > COMBINATIONS_MAX {
        reader.out_of_range(
            place,
            format_args!("{combinations} combinations"),
            "at most 65536 combinations of prefixes, names, protocols and ports",
        );
    }
}

fn texts(values: &[String]) -> Vec<Text> {
    values.iter().map(|it| it.as_str().into()).collect()
}

fn decode_tcp(reader: &mut Reader, place: &Place<'_>, config: &Any) -> Option<TcpProxy> {
    let message: tcp::TcpProxy = reader.unpack(place, config)?;
    let clusters = match &message.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            vec![(
                reader.named(&place.field("cluster"), name, "the cluster's name"),
                1,
            )]
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            decode_weights(reader, &place.field("weighted_clusters"), weighted)
        }
        None => return reader.required(place, None, "cluster or weighted_clusters"),
    };
    let attempts = number(message.max_connect_attempts.as_ref()).unwrap_or(1);
    if attempts == 0 {
        reader.out_of_range(&place.field("max_connect_attempts"), 0, "1 or more");
    }
    let idle_place = place.field("idle_timeout");
    let idle_timeout = reader.bound(&idle_place, message.idle_timeout.as_ref(), Some(TCP_IDLE_TIMEOUT));
    let longest_place = place.field("max_downstream_connection_duration");
    let longest = reader.duration(
        &longest_place,
        message.max_downstream_connection_duration.as_ref(),
    );
    Some(TcpProxy {
        stat_prefix: message.stat_prefix.as_str().into(),
        clusters,
        idle_timeout,
        max_downstream_connection_duration: longest,
        max_connect_attempts: attempts,
        access_logs: access_log::decode(reader, place, &message.access_log, false),
        stats: None,
    })
}

fn decode_weights(reader: &mut Reader, place: &Place<'_>, weighted: &WeightedCluster) -> Vec<(Text, u32)> {
    if weighted.clusters.is_empty() {
        reader.fault(&place.field("clusters"), Fault::Missing("at least one cluster"));
    }
    let mut clusters = Vec::with_capacity(weighted.clusters.len());
    for (at, cluster) in weighted.clusters.iter().enumerate() {
        let place = place.item("clusters", at);
        if cluster.weight == 0 {
            reader.out_of_range(&place.field("weight"), 0, "1 or more");
        }
        let name = reader.named(&place.field("name"), &cluster.name, "the cluster's name");
        clusters.push((name, cluster.weight));
    }
    clusters
}
