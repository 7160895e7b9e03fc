//! Proxyless gRPC: a generator of its own, since its clients read other fields than proxies do.
//!
//! What it keeps to: a listener is named exactly as dialled (`xds:///host:port`) and has an `api_listener`; a virtual
//! host answers that very `host:port`; clusters are EDS (or one DNS name) with round robin or a ring; localities carry
//! weights, since gRPC leaves out those without; TLS comes by certificate provider with exact SPIFFE names, since there
//! is no `transport_socket_matches`. What gRPC has no means for (header operations, rewrites, redirections) is left out
//! and told. Sources: gRFC A27, A28, A29, A31, A36, A37, A44.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use rajut_config::{
    codes,
    model::{MtlsMode, Protocol, Resolution, ServicePort},
    snapshot::{ClientView, Members, ServiceView, Shared, WorkloadView},
};
use rajut_ir::{
    Resources,
    cluster::{Cluster, Discovery, LbPolicy},
    endpoint::LoadAssignment,
    filter::{FilterOverride, HttpFilter},
    http::{HttpConnectionManager, RouteSource, RouterFilter},
    listener::{ChainAction, Direction, FilterChainMatch, Listener},
    route::{
        Forward, HeaderMutations, RetryOn, RetryPolicy, Route, RouteActionKind, RouteConfiguration,
        VirtualHost,
    },
    tls::{CommonTls, DownstreamTls, SanKind, SanMatcher, UpstreamTls, Validation, ValidationContext},
};
use rajut_types::{Diagnostic, Locality, Origin, Severity, Text};

use crate::{
    assignment,
    authorization::Authorization,
    listener, names,
    outbound::{self, Outbound, Pieces},
    proxy::Proxy,
    route, tls,
    virtual_host::{Domains, VirtualHostView},
};

/// The certificate provider instance that the bootstrap written by `rajut` defines.
pub const CERTIFICATE_PROVIDER: &str = "default";
/// What precedes `<ip>:<port>` in the names of servers' listeners (Istio's `server_listener_resource_name_template`).
pub const SERVER_LISTENER_PREFIX: &str = "xds.istio.io/grpc/lds/inbound/";

/// The region of endpoints whose place nobody told.
const NOWHERE: &str = "default";

/// The retry conditions that gRPC knows (gRFC A44); it never retries on others.
const GRPC_CONDITIONS: RetryOn = RetryOn::CANCELLED
    .with(RetryOn::DEADLINE_EXCEEDED)
    .with(RetryOn::INTERNAL)
    .with(RetryOn::RESOURCE_EXHAUSTED)
    .with(RetryOn::UNAVAILABLE);

/// Adds everything that a proxyless client may dial.
pub(crate) fn add_clients(out: &mut Outbound, pieces: &mut Pieces, client: &ClientView, locality: &Locality) {
    outbound::add_clusters(out, pieces, client, false, locality);
    for view in client.services.iter() {
        for port in &view.service.ports {
            add_port(out, pieces, client, view, port);
        }
    }
    let weighted = out
        .assignments
        .iter()
        .map(|(name, assignment)| (name.clone(), Arc::new(weighted(assignment))));
    out.assignments = weighted.collect();
}

fn add_port(
    out: &mut Outbound,
    pieces: &mut Pieces,
    client: &ClientView,
    view: &ServiceView,
    port: &ServicePort,
) {
    let prefix = format!("outbound|{}|", port.number);
    let suffix = format!("|{}", view.service.host);
    let own: Vec<Text> = out
        .clusters
        .keys()
        .filter(|name| name.starts_with(&*prefix) && name.ends_with(&*suffix))
        .cloned()
        .collect();
    let speaks_it = port.protocol.is_http() || port.protocol == Protocol::Detect;
    for name in own {
        let adapted = out
            .clusters
            .remove(&name)
            .filter(|_| speaks_it)
            .and_then(|cluster| adapt_cluster(&cluster, client, view, port));
        match adapted {
            Some(cluster) => out.put_cluster(cluster),
            None => {
                out.assignments.remove(&name);
            }
        }
    }
    let name = names::outbound_cluster(port.number, "", &view.service.host);
    if !out.clusters.contains_key(&name) {
        return;
    }
    let host = VirtualHostView::of_service(client, view, port.number, Domains::Dialled);
    let host = pieces.virtual_host(host);
    let host = adapt_host(&host, &mut out.diagnostics);
    let dialled: Vec<Text> = host
        .domains
        .iter()
        .filter(|domain| domain.contains(':'))
        .cloned()
        .collect();
    out.put_routes(name.clone(), vec![Arc::new(host)]);
    for dialled in dialled {
        let source = RouteSource::Rds(name.clone());
        let listener = client_listener(client, dialled, source, &port.origin);
        if !out.listeners.contains_key(&listener.name) {
            out.put_listener(listener);
        }
    }
}

fn client_listener(client: &ClientView, name: Text, routes: RouteSource, origin: &Origin) -> Listener {
    let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    Listener {
        api_listener: Some(manager(client, name.clone(), routes)),
        bind_to_port: true,
        access_logs: Vec::new(),
        ..listener::bare(&client.mesh, name, nowhere, Direction::Outbound, origin.clone())
    }
}

fn manager(client: &ClientView, name: Text, routes: RouteSource) -> Arc<HttpConnectionManager> {
    Arc::new(HttpConnectionManager {
        access_logs: Vec::new(),
        upgrades: Vec::new(),
        filters: vec![HttpFilter::fault(), HttpFilter::router(RouterFilter::default())],
        ..(*listener::manager(&client.mesh, Direction::Outbound, name, routes)).clone()
    })
}

/// A cluster as gRPC can read it; `None` where its endpoints can't be found by any of gRPC's means.
fn adapt_cluster(
    cluster: &Cluster,
    client: &ClientView,
    view: &ServiceView,
    port: &ServicePort,
) -> Option<Cluster> {
    let discovery = match &cluster.discovery {
        Discovery::Eds { .. } => cluster.discovery.clone(),
        Discovery::StrictDns(names) | Discovery::LogicalDns(names) if names.endpoints().count() == 1 => {
            Discovery::LogicalDns(names.clone())
        }
        _ => return None,
    };
    let lb_policy = match &cluster.lb_policy {
        LbPolicy::RingHash { minimum_ring_size } => LbPolicy::RingHash {
            minimum_ring_size: *minimum_ring_size,
        },
        LbPolicy::Maglev { .. } => LbPolicy::RingHash {
            minimum_ring_size: 1024,
        },
        _ => LbPolicy::RoundRobin,
    };
    // A rule may have asked for mTLS or for plaintext; else it follows from what the servers take.
    let by_rule = cluster.tls_matches.is_empty();
    let mtls = if by_rule {
        cluster.tls.is_some()
    } else {
        takes_mtls(&view.members, port)
    };
    Some(Cluster {
        discovery,
        lb_policy,
        tls: (mtls && !view.service.external).then(|| client_tls(client, &view.members)),
        tls_matches: Vec::new(),
        tcp_keepalive: None,
        health_check: None,
        ..cluster.clone()
    })
}

/// Whether every endpoint accepts a mesh certificate from a client that sends none of the mesh's ALPN names.
fn takes_mtls(members: &Shared<Members>, port: &ServicePort) -> bool {
    !members.list.is_empty()
        && members.list.iter().all(|member| {
            let workload = &member.workload;
            let mode =
                assignment::target_port(port, &workload.named_ports).map(|number| member.mtls.mode(number));
            workload.mesh
                && match mode {
                    Some(MtlsMode::Strict) => true,
                    Some(MtlsMode::Permissive) => port.protocol.is_http(),
                    Some(MtlsMode::Disable) | None => false,
                }
        })
}

fn by_provider(subject_alt_names: Vec<SanMatcher>) -> CommonTls {
    CommonTls {
        validation: Some(Validation {
            sds: None,
            context: ValidationContext {
                subject_alt_names,
                ..ValidationContext::default()
            },
        }),
        certificate_provider: Some(CERTIFICATE_PROVIDER.into()),
        ..CommonTls::default()
    }
}

/// gRPC reads the untyped list of names (`match_subject_alt_names`).
fn untyped(names: Vec<SanMatcher>) -> Vec<SanMatcher> {
    names
        .into_iter()
        .map(|name| SanMatcher {
            kind: SanKind::Any,
            ..name
        })
        .collect()
}

fn client_tls(client: &ClientView, members: &Shared<Members>) -> UpstreamTls {
    UpstreamTls {
        common: by_provider(untyped(tls::expected_identities(
            &client.mesh,
            &members.principals,
        ))),
        ..UpstreamTls::default()
    }
}

/// gRPC refuses endpoints without a locality and leaves out localities without a weight; ours share by what stands in
/// them.
fn weighted(assignment: &LoadAssignment) -> LoadAssignment {
    let mut weighted = assignment.clone();
    for place in &mut weighted.localities {
        let sum = place
            .endpoints
            .iter()
            .fold(0_u32, |sum, endpoint| sum.saturating_add(endpoint.weight));
        place.weight = place.weight.or(Some(sum.max(1)));
        if place.locality.is_empty() {
            place.locality.region = NOWHERE.into();
        }
    }
    weighted
}

fn adapt_host(host: &VirtualHost, diagnostics: &mut Vec<Diagnostic>) -> VirtualHost {
    VirtualHost {
        routes: host
            .routes
            .iter()
            .map(|route| Arc::new(adapt_route(route, diagnostics)))
            .collect(),
        include_request_attempt_count: false,
        ..host.clone()
    }
}

fn adapt_route(route: &Route, diagnostics: &mut Vec<Diagnostic>) -> Route {
    let mut lost = Vec::new();
    if !route.headers.is_empty() {
        lost.push("header operations");
    }
    let action = match &route.action {
        RouteActionKind::Forward(forward) => {
            if forward.path_rewrite.is_some() || forward.host_rewrite.is_some() {
                lost.push("rewrites");
            }
            if !forward.mirrors.is_empty() {
                lost.push("mirrors");
            }
            RouteActionKind::Forward(Box::new(adapt_forward(forward)))
        }
        other => {
            // Kept: such calls then fail in the client instead of taking the next route.
            if !matches!(other, RouteActionKind::NonForwarding) {
                lost.push("redirections and answers in place");
            }
            other.clone()
        }
    };
    if !lost.is_empty() {
        let message = format!("proxyless gRPC clients have no {}", lost.join(" and no "));
        diagnostics.push(
            Diagnostic::new(
                codes::NOT_ON_THIS_PROXY,
                Severity::Warning,
                route.origin.clone(),
                message,
            )
            .hint("give these clients a sidecar, or do without on this route"),
        );
    }
    Route {
        action,
        headers: HeaderMutations::default(),
        filters: route
            .filters
            .iter()
            .filter(|said| is_for_grpc(said))
            .cloned()
            .collect(),
        ..route.clone()
    }
}

/// gRPC knows faults. Cross-origin rules are for browsers, and it would refuse the table for them.
fn is_for_grpc((_, over): &(Text, FilterOverride)) -> bool {
    matches!(over, FilterOverride::Fault(_))
}

fn adapt_forward(forward: &Forward) -> Forward {
    Forward {
        path_rewrite: None,
        host_rewrite: None,
        append_x_forwarded_host: false,
        mirrors: Vec::new(),
        max_stream_duration: forward.timeout,
        timeout: None,
        retry: forward.retry.as_ref().and_then(adapt_retry),
        ..forward.clone()
    }
}

/// Conditions that gRPC knows; a policy that has none of them is dropped.
fn adapt_retry(retry: &RetryPolicy) -> Option<RetryPolicy> {
    let on = RetryOn(retry.on.0 & GRPC_CONDITIONS.0);
    (on != RetryOn::default() && retry.num_retries > 0).then(|| RetryPolicy {
        on,
        status_codes: Vec::new(),
        avoid_previous_hosts_attempts: 0,
        previous_priorities_update: None,
        ..retry.clone()
    })
}

/// Adds the listeners of a proxyless server: one per container port and address. STRICT asks for mTLS; a server without
/// a sidecar can't tell plaintext from TLS, so PERMISSIVE is plaintext there.
pub(crate) fn add_servers(resources: &mut Resources, workload: &WorkloadView, proxy: &Proxy) {
    let mut ports: BTreeMap<u16, &Origin> = BTreeMap::new();
    for (service, _) in &workload.services {
        for port in &service.ports {
            if let Some(number) = assignment::target_port(port, &workload.named_ports)
                && service.resolution == Resolution::Static
            {
                ports.entry(number).or_insert(&port.origin);
            }
        }
    }
    let any = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    ];
    for (number, origin) in ports {
        for address in proxy.addresses.iter().chain(&any) {
            let server = server_listener(workload, SocketAddr::new(*address, number), origin);
            resources.listeners.insert(server.name.clone(), Arc::new(server));
        }
    }
}

fn server_listener(workload: &WorkloadView, address: SocketAddr, origin: &Origin) -> Listener {
    let mesh = &workload.mesh;
    let strict = workload.mtls.mode(address.port()) == MtlsMode::Strict;
    let tls = strict.then(|| DownstreamTls {
        common: by_provider(Vec::new()),
        require_client_certificate: true,
        disable_resumption: false,
    });
    let routes = RouteConfiguration {
        filters: Vec::new(),
        name: names::inbound_cluster(address.port()),
        virtual_hosts: vec![Arc::new(VirtualHost {
            filters: Vec::new(),
            rate_limits: Vec::new(),
            name: format!("inbound|http|{}", address.port()).into(),
            domains: vec!["*".into()],
            routes: vec![Arc::new(Route {
                filters: Vec::new(),
                name: "default".into(),
                matches: route::everything(),
                action: RouteActionKind::NonForwarding,
                headers: HeaderMutations::default(),
                decorator: Text::default(),
                origin: origin.clone(),
            })],
            retry_policy: None,
            headers: HeaderMutations::default(),
            include_request_attempt_count: false,
            origin: origin.clone(),
        })],
        ignore_port_in_host_matching: false,
        headers: HeaderMutations::default(),
    };
    let name = Text::from(format!("{SERVER_LISTENER_PREFIX}{address}"));
    let source = RouteSource::Inline(Arc::new(routes));
    let manager = HttpConnectionManager {
        access_logs: Vec::new(),
        upgrades: Vec::new(),
        ..(*listener::manager(mesh, Direction::Inbound, name.clone(), source)).clone()
    };
    let action = ChainAction::Http(Arc::new(manager));
    let authorization = Authorization {
        mesh,
        policies: &workload.authorization,
        // gRPC verifies none, and has no matcher of metadata: a rule that asks for one lets nothing through, or refuses more.
        knows_tokens: false,
        asks_others: false,
        judges_open: false,
    };
    let chain = listener::chain("", FilterChainMatch::default(), tls, action, origin);
    let guards = authorization.at(Some(address.port()));
    let chain = guards.ask_first(guards.protect(chain));
    Listener {
        bind_to_port: true,
        filter_chains: vec![chain],
        access_logs: Vec::new(),
        ..listener::bare(mesh, name, address, Direction::Inbound, origin.clone())
    }
}
