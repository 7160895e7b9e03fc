//! Routing of opaque bytes and of TLS that is not terminated: by address and server name, to clusters by weight.

use std::sync::Arc;

use ipnet::IpNet;
use rajut_config::{
    codes,
    model::{RouteDestination, ServicePort},
    snapshot::{ClientView, ServiceView},
};
use rajut_ir::listener::{FilterChain, FilterChainMatch, TransportProtocol};
use rajut_types::{Diagnostic, Hostname, Origin, Severity, Text};

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
        (&client.namespace, &client.labels),
        &[names::MESH.into()],
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
            let Some(server_names) = server_names(&wanted.sni_hosts) else {
                continue;
            };
            let matches = FilterChainMatch {
                server_names,
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
    if chains.is_empty()
        && let Some(server_names) = server_names(std::slice::from_ref(&view.service.host))
    {
        let matches = FilterChainMatch {
            server_names,
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

/// Exact names and `*.suffix`; `*` asks nothing. `None` where no name is left that a filter chain can ask about:
/// wildcards inside a label (`*-a.example`) can't be told there.
pub(crate) fn server_names(hosts: &[Hostname]) -> Option<Vec<Text>> {
    if hosts.is_empty() || hosts.iter().any(|host| host.as_str() == "*") {
        return Some(Vec::new());
    }
    let names: Vec<Text> = hosts
        .iter()
        .filter(|host| !host.is_wildcard() || host.as_str().starts_with("*."))
        .map(Hostname::text)
        .collect();
    (!names.is_empty()).then_some(names)
}

/// Chains whose matches can be told apart: a listener in which two chains claim the same is refused as a whole. What an
/// earlier chain claims is taken from the later one, which is dropped when nothing is left of it.
pub(crate) fn distinct(
    chains: Vec<Arc<FilterChain>>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Arc<FilterChain>> {
    let mut kept: Vec<Arc<FilterChain>> = Vec::new();
    for chain in chains {
        let mut matches = chain.matches.clone();
        let mut dropped = false;
        for known in &kept {
            dropped |= !subtract(&mut matches, &known.matches);
        }
        if matches != chain.matches {
            let message = "an earlier route of the same port claims some of these server names or addresses";
            let origin = chain.origin.clone();
            diagnostics.push(Diagnostic::new(
                codes::LISTENER_CLASH,
                Severity::Warning,
                origin,
                message,
            ));
        }
        if dropped {
            continue;
        }
        kept.push(if matches == chain.matches {
            chain
        } else {
            Arc::new(FilterChain {
                matches,
                ..(*chain).clone()
            })
        });
    }
    kept
}

/// Takes what `known` claims from `later`; `false` where nothing is left.
fn subtract(later: &mut FilterChainMatch, known: &FilterChainMatch) -> bool {
    if later == known {
        later.server_names.clear();
        later.prefix_ranges.clear();
        return false;
    }
    if later.prefix_ranges == known.prefix_ranges && !later.server_names.is_empty() {
        later
            .server_names
            .retain(|name| !known.server_names.contains(name));
        return !later.server_names.is_empty();
    }
    if later.server_names == known.server_names && !later.prefix_ranges.is_empty() {
        later
            .prefix_ranges
            .retain(|range| !known.prefix_ranges.contains(range));
        return !later.prefix_ranges.is_empty();
    }
    true
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
    let mut clusters: Vec<(Text, u32)> = destinations
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
    if clusters.is_empty() {
        // All weights are zero, which validation refuses.
        clusters.push((names::BLACK_HOLE.into(), 1));
    }
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
    let action = listener::bytes_to(stat_prefix, clusters, policy.pool.tcp_idle_timeout);
    listener::chain(name, matches, None, action, origin)
}
