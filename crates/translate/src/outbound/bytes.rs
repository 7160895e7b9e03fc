//! Routing of opaque bytes and of TLS that is not terminated: by address and server name, to clusters by weight.

use std::sync::Arc;

use ipnet::IpNet;
use rajut_config::{
    model::{RouteDestination, ServicePort},
    snapshot::{ClientView, ServiceView},
};
use rajut_ir::listener::{FilterChain, FilterChainMatch, TransportProtocol};
use rajut_types::{Hostname, Origin, Text};

use crate::{
    listener, names,
    policy::Effective,
    route::{destination_port, is_for_client},
};

/// Chains of one service port for bytes.
pub(super) struct ByteChains {
    /// With a match on address or server name, most of them from virtual services.
    pub(super) chains: Vec<Arc<FilterChain>>,
    /// For everything else.
    pub(super) rest: Arc<FilterChain>,
}

/// The chains of a service port: TLS routes by server name, then TCP routes by address, then the service's own cluster.
pub(super) fn chains(client: &ClientView, view: &ServiceView, port: &ServicePort) -> ByteChains {
    let mut chains = tls_chains(client, view, port);
    let mut rest = None;
    let vs = view.virtual_service.as_deref();
    'routes: for (position, route) in vs.into_iter().flat_map(|vs| &vs.tcp).enumerate() {
        let mut subnets = Vec::new();
        let mut applies = route.matches.is_empty();
        for alternative in &route.matches {
            let for_port = alternative.port.is_none_or(|wanted| wanted == port.number);
            if !for_port || !for_client(client, &alternative.gateways, alternative) {
                continue;
            }
            applies = true;
            if alternative.destination_subnets.is_empty() {
                subnets.clear();
                break;
            }
            subnets.extend(alternative.destination_subnets.iter().copied());
        }
        if !applies {
            continue;
        }
        let everywhere = subnets.is_empty();
        let name = format!("{}-tcp-{position}", view.service.host);
        let chain = to(
            client,
            view,
            port,
            (&name, by_address(subnets)),
            &route.destinations,
            &route.origin,
        );
        if everywhere {
            rest = Some(chain);
            break 'routes;
        }
        chains.push(chain);
    }
    let rest = rest.unwrap_or_else(|| {
        let cluster = names::outbound_cluster(port.number, "", &view.service.host);
        to_clusters(
            client,
            view,
            port,
            ("", FilterChainMatch::default()),
            vec![(cluster, 1)],
            &port.origin,
        )
    });
    ByteChains { chains, rest }
}

fn for_client(client: &ClientView, gateways: &[Text], l4: &rajut_config::model::L4Match) -> bool {
    is_for_client(
        gateways,
        &l4.source_labels,
        l4.source_namespace.as_ref(),
        &client.namespace,
        &client.labels,
    )
}

fn by_address(prefix_ranges: Vec<IpNet>) -> FilterChainMatch {
    FilterChainMatch {
        prefix_ranges,
        ..FilterChainMatch::default()
    }
}

/// Chains of a virtual service's TLS routes for a service port.
fn tls_chains(client: &ClientView, view: &ServiceView, port: &ServicePort) -> Vec<Arc<FilterChain>> {
    let mut chains = Vec::new();
    let vs = view.virtual_service.as_deref();
    for (position, route) in vs.into_iter().flat_map(|vs| &vs.tls).enumerate() {
        for (alternative, wanted) in route.matches.iter().enumerate() {
            let for_port = wanted.l4.port.is_none_or(|number| number == port.number);
            if !for_port || !for_client(client, &wanted.l4.gateways, &wanted.l4) {
                continue;
            }
            let matches = FilterChainMatch {
                server_names: server_names(&wanted.sni_hosts),
                transport_protocol: Some(TransportProtocol::Tls),
                ..by_address(wanted.l4.destination_subnets.clone())
            };
            let name = format!("{}-tls-{position}-{alternative}", view.service.host);
            chains.push(to(
                client,
                view,
                port,
                (&name, matches),
                &route.destinations,
                &route.origin,
            ));
        }
    }
    chains
}

/// Chains by server name for a service without an address of its own: its virtual service's, and its host's.
pub(super) fn by_server_name(
    client: &ClientView,
    view: &ServiceView,
    port: &ServicePort,
) -> Vec<Arc<FilterChain>> {
    let mut chains = tls_chains(client, view, port);
    if chains.is_empty() {
        let matches = FilterChainMatch {
            server_names: server_names(std::slice::from_ref(&view.service.host)),
            transport_protocol: Some(TransportProtocol::Tls),
            ..FilterChainMatch::default()
        };
        let cluster = names::outbound_cluster(port.number, "", &view.service.host);
        let name = view.service.host.as_str();
        chains.push(to_clusters(
            client,
            view,
            port,
            (name, matches),
            vec![(cluster, 1)],
            &port.origin,
        ));
    }
    chains
}

/// Exact names and `*.suffix`; `*` asks nothing.
fn server_names(hosts: &[Hostname]) -> Vec<Text> {
    if hosts.iter().any(|host| host.as_str() == "*") {
        return Vec::new();
    }
    hosts.iter().map(Hostname::text).collect()
}

fn to(
    client: &ClientView,
    view: &ServiceView,
    port: &ServicePort,
    chain: (&str, FilterChainMatch),
    destinations: &[RouteDestination],
    origin: &Origin,
) -> Arc<FilterChain> {
    let single = destinations.len() == 1;
    let clusters = destinations
        .iter()
        .filter(|entry| single || entry.weight > 0)
        .map(|entry| {
            let destination = &entry.destination;
            let service = client.find(&destination.host).map(|view| &*view.service);
            let number = destination_port(destination, service, port.number);
            let name = names::outbound_cluster(number, &destination.subset, &destination.host);
            (name, if single { 1 } else { entry.weight })
        })
        .collect();
    to_clusters(client, view, port, chain, clusters, origin)
}

fn to_clusters(
    client: &ClientView,
    view: &ServiceView,
    port: &ServicePort,
    (name, matches): (&str, FilterChainMatch),
    clusters: Vec<(Text, u32)>,
    origin: &Origin,
) -> Arc<FilterChain> {
    let policy = Effective::new(&client.mesh, view.rule.as_deref(), None, port.number);
    let stat_prefix = names::outbound_cluster(port.number, "", &view.service.host);
    let action = listener::bytes_to(&client.mesh, stat_prefix, clusters, policy.pool.tcp_idle_timeout);
    listener::chain(name, matches, None, action, origin)
}
