//! Listeners on local ports, each of which stands for one port of one service: workloads without a network namespace,
//! and the host's door into the mesh.

use std::sync::Arc;

use rajut_config::{
    codes,
    model::{Protocol, ServicePort},
    snapshot::{ClientView, ServiceView},
};
use rajut_ir::{
    http::RouteSource,
    listener::{ChainAction, Direction, FilterChainMatch, Inspectors},
};
use rajut_types::{Diagnostic, Origin, Severity, Text};

use super::{Outbound, Pieces, bytes};
use crate::{
    listener, names,
    proxy::ExplicitPort,
    virtual_host::{Domains, VirtualHostView},
};

/// Adds one bound listener per port, and its routes.
pub(crate) fn add_listeners(
    out: &mut Outbound,
    pieces: &mut Pieces,
    client: &ClientView,
    ports: &[ExplicitPort],
) {
    for wanted in ports {
        let found = client
            .find(&wanted.host)
            .and_then(|view| Some((view, view.service.port(wanted.port)?)));
        match found {
            Some((view, port)) if port.protocol != Protocol::Udp => {
                add_listener(out, pieces, client, wanted, view, port);
            }
            _ => {
                let message = format!(
                    "the local address {} stands for {}:{}, which this proxy can't see",
                    wanted.listen, wanted.host, wanted.port
                );
                let origin = Origin::built_in("explicit-port");
                out.diagnostics.push(Diagnostic::new(
                    codes::EXPLICIT_PORT_UNKNOWN,
                    Severity::Warning,
                    origin,
                    message,
                ));
            }
        }
    }
}

fn add_listener(
    out: &mut Outbound,
    pieces: &mut Pieces,
    client: &ClientView,
    wanted: &ExplicitPort,
    view: &ServiceView,
    port: &ServicePort,
) {
    let mesh = &client.mesh;
    let name = names::listener(wanted.listen.ip(), wanted.listen.port());
    let mut own = listener::bare(
        mesh,
        name,
        wanted.listen,
        Direction::Outbound,
        port.origin.clone(),
    );
    own.bind_to_port = true;
    let speaks_http = port.protocol.is_http();
    if speaks_http || port.protocol == Protocol::Detect {
        let route: Text = names::host_port(&view.service.host, port.number);
        let host = VirtualHostView::of_service(client, view, port.number, Domains::AnyRewritten);
        let host = pieces.virtual_host(host);
        out.put_routes(route.clone(), vec![host]);
        let stat_prefix = format!("outbound_{}", own.name).into();
        let manager = listener::manager(mesh, Direction::Outbound, stat_prefix, RouteSource::Rds(route));
        let matches = if speaks_http {
            FilterChainMatch::default()
        } else {
            FilterChainMatch {
                application_protocols: listener::texts(&listener::PLAIN_HTTP),
                ..FilterChainMatch::default()
            }
        };
        let chain = listener::chain("http", matches, None, ChainAction::Http(manager), &port.origin);
        if speaks_http {
            own.default_filter_chain = Some(chain);
        } else {
            own.filter_chains.push(chain);
        }
    }
    if !speaks_http {
        let opaque = bytes::chains(client, view, port);
        own.inspectors = Inspectors {
            original_dst: false,
            tls: !opaque.chains.is_empty() || port.protocol == Protocol::Detect,
            http: port.protocol == Protocol::Detect,
        };
        let chains = bytes::distinct(opaque.chains, &mut out.diagnostics);
        own.filter_chains.splice(0..0, chains);
        own.default_filter_chain = Some(Arc::clone(&opaque.rest));
    }
    out.put_listener(own);
}
