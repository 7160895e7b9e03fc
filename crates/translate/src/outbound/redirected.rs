//! Listeners for redirected traffic. None of them binds: `virtualOutbound` hands connections over by the address that
//! was dialled, `<address>_<port>` before `0.0.0.0_<port>`.
//!
//! HTTP ports share one listener per number, told apart by host. Opaque and undeclared ports have a listener per virtual
//! address; services without one have a listener per endpoint (headless) or the shared one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use rajut_config::{
    codes,
    model::{MeshConfig, OutboundPolicy, Protocol, ServicePort},
    snapshot::{ClientView, ServiceView},
};
use rajut_ir::{
    http::RouteSource,
    listener::{ChainAction, Direction, FilterChain, FilterChainMatch, Inspectors, TransportProtocol},
};
use rajut_types::{Diagnostic, Origin, Severity, Text};

use super::{Outbound, Pieces, bytes};
use crate::{
    listener, names,
    virtual_host::{self, Domains, VirtualHostView},
};

/// What shares the listener of one port number.
#[derive(Debug, Default)]
struct SharedPort {
    http: bool,
    by_server_name: Vec<Arc<FilterChain>>,
    rest: Option<Arc<FilterChain>>,
    origin: Option<Origin>,
}

/// Adds listeners and route configurations for everything that the client sees.
pub(crate) fn add_listeners(out: &mut Outbound, pieces: &mut Pieces, client: &ClientView) {
    let mut shared: BTreeMap<u16, SharedPort> = BTreeMap::new();
    for view in client.services.iter() {
        for port in &view.service.ports {
            add_port(out, pieces, client, &mut shared, view, port);
        }
    }
    for (number, port) in shared {
        if port.http {
            add_routes(out, pieces, client, number);
        }
        add_shared(out, client, number, port);
    }
}

fn add_port(
    out: &mut Outbound,
    pieces: &mut Pieces,
    client: &ClientView,
    shared: &mut BTreeMap<u16, SharedPort>,
    view: &ServiceView,
    port: &ServicePort,
) {
    if port.protocol == Protocol::Udp {
        return;
    }
    if port.protocol.is_http() {
        let entry = shared.entry(port.number).or_default();
        entry.http = true;
        entry.origin.get_or_insert_with(|| port.origin.clone());
        return;
    }
    let own = own_addresses(view);
    if !own.is_empty() || view.service.headless {
        for address in own {
            add_own(out, pieces, client, view, port, address);
        }
        return;
    }
    let entry = shared.entry(port.number).or_default();
    entry.origin.get_or_insert_with(|| port.origin.clone());
    if port.protocol.is_tls() {
        entry
            .by_server_name
            .extend(bytes::by_server_name(client, view, port));
        return;
    }
    entry.http |= port.protocol == Protocol::Detect;
    if entry.rest.is_some() {
        out.diagnostics
            .push(clash(view, port, "another service without an address"));
    } else {
        entry.rest = Some(bytes::chains(client, view, port).rest);
    }
}

fn clash(view: &ServiceView, port: &ServicePort, with: &str) -> Diagnostic {
    let message = format!(
        "port {} of {} gets no listener of its own: {with} has it already",
        port.number, view.service.host
    );
    Diagnostic::new(
        codes::LISTENER_CLASH,
        Severity::Warning,
        port.origin.clone(),
        message,
    )
    .hint("give the service an address, or declare the port's protocol as HTTP or TLS")
}

/// Virtual addresses, or those of the endpoints of a headless service.
fn own_addresses(view: &ServiceView) -> BTreeSet<IpAddr> {
    if !view.service.headless {
        return view.service.addresses.iter().copied().collect();
    }
    let given = view
        .service
        .endpoints
        .iter()
        .filter_map(|endpoint| endpoint.address.parse().ok());
    view.members
        .list
        .iter()
        .map(|member| member.workload.address)
        .chain(given)
        .collect()
}

fn add_own(
    out: &mut Outbound,
    pieces: &mut Pieces,
    client: &ClientView,
    view: &ServiceView,
    port: &ServicePort,
    address: IpAddr,
) {
    let name = names::listener(address, port.number);
    if out.listeners.contains_key(&name) {
        out.diagnostics
            .push(clash(view, port, "another service of the same address"));
        return;
    }
    let socket = SocketAddr::new(address, port.number);
    let mut own = listener::bare(
        &client.mesh,
        name,
        socket,
        Direction::Outbound,
        port.origin.clone(),
    );
    let opaque = bytes::chains(client, view, port);
    own.filter_chains = bytes::distinct(opaque.chains, &mut out.diagnostics);
    own.default_filter_chain = Some(opaque.rest);
    own.inspectors.tls = !own.filter_chains.is_empty();
    if port.protocol == Protocol::Detect {
        let route = names::host_port(&view.service.host, port.number);
        let host = VirtualHostView::of_service(client, view, port.number, Domains::Any);
        let host = pieces.virtual_host(host);
        out.put_routes(route.clone(), vec![host]);
        own.filter_chains
            .push(http_chain(&client.mesh, &own.name, route, &port.origin));
        own.inspectors = Inspectors {
            original_dst: false,
            tls: true,
            http: true,
        };
    }
    out.put_listener(own);
}

/// The chain of plaintext HTTP whose routes are `route`.
fn http_chain(mesh: &MeshConfig, listener: &str, route: Text, origin: &Origin) -> Arc<FilterChain> {
    let matches = FilterChainMatch {
        transport_protocol: Some(TransportProtocol::RawBuffer),
        application_protocols: listener::texts(&listener::PLAIN_HTTP),
        ..FilterChainMatch::default()
    };
    let stat_prefix = format!("outbound_{listener}").into();
    let manager = listener::manager(mesh, Direction::Outbound, stat_prefix, RouteSource::Rds(route));
    listener::chain("http", matches, None, ChainAction::Http(manager), origin)
}

/// The routes of an HTTP port: every service that has it, by host.
fn add_routes(out: &mut Outbound, pieces: &mut Pieces, client: &ClientView, number: u16) {
    let mut hosts = Vec::new();
    for view in client.services.iter() {
        let port = view.service.port(number);
        if port.is_some_and(|port| port.protocol.is_http() || port.protocol == Protocol::Detect) {
            let host = VirtualHostView::of_service(client, view, number, Domains::Names);
            hosts.push(pieces.virtual_host(host));
        }
    }
    if number == 80 {
        for (host, vs) in &client.unserved {
            let view = VirtualHostView::unserved(client, host, vs, number);
            hosts.push(pieces.virtual_host(view));
        }
    }
    let mut hosts = virtual_host::without_clashes(hosts);
    if !hosts
        .iter()
        .any(|host| host.domains.iter().any(|domain| &**domain == "*"))
    {
        hosts.push(Arc::new(virtual_host::unknown_hosts(&client.mesh)));
    }
    out.put_routes(number.to_string().into(), hosts);
}

fn add_shared(out: &mut Outbound, client: &ClientView, number: u16, port: SharedPort) {
    let socket = names::wildcard(number);
    let name = names::listener(socket.ip(), number);
    let origin = port
        .origin
        .unwrap_or_else(|| Origin::built_in("outbound-listener"));
    let mut own = listener::bare(&client.mesh, name, socket, Direction::Outbound, origin.clone());
    own.inspectors = Inspectors {
        original_dst: false,
        tls: port.http || !port.by_server_name.is_empty(),
        http: port.http,
    };
    own.filter_chains = bytes::distinct(port.by_server_name, &mut out.diagnostics);
    if port.http {
        let route = Text::from(number.to_string());
        own.filter_chains
            .push(http_chain(&client.mesh, &own.name, route, &origin));
    }
    own.default_filter_chain = Some(port.rest.unwrap_or_else(|| unknown_chain(&client.mesh)));
    out.put_listener(own);
}

/// Where bytes to unknown destinations go: on to the dialled address, or nowhere.
pub(crate) fn unknown_chain(mesh: &MeshConfig) -> Arc<FilterChain> {
    let cluster = match mesh.outbound_policy {
        OutboundPolicy::AllowAny => names::PASSTHROUGH,
        OutboundPolicy::RegistryOnly => names::BLACK_HOLE,
    };
    let action = listener::bytes_to(cluster.into(), vec![(cluster.into(), 1)], None);
    let origin = Origin::built_in("outbound-traffic-policy");
    listener::chain(
        "virtualOutbound-catchall-tcp",
        FilterChainMatch::default(),
        None,
        action,
        &origin,
    )
}
