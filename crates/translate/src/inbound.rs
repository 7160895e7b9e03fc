//! The inbound half of a sidecar: per container port, which connections it takes (peer authentication), and where they
//! go. [`InboundView`] is the key and the whole input.
//!
//! | port | STRICT | PERMISSIVE | DISABLE |
//! | --- | --- | --- | --- |
//! | declared HTTP | any TLS → mTLS, HTTP | the same, and plaintext → HTTP | HTTP |
//! | declared opaque | any TLS → mTLS, bytes | ALPN of the mesh → mTLS, bytes; all else as it is | bytes |
//! | detected | TLS by ALPN → mTLS, HTTP or bytes | as before, told from the application's own TLS by the mesh's ALPN or server name; plaintext detected; else bytes | detected |
//!
//! A declared HTTP port takes a mesh certificate whatever its ALPN says (Istio's PERMISSIVE would reset it), since
//! upstream Envoy offers what its pool speaks.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use rajut_config::{
    model::{ConnectionPool, MeshConfig, MtlsMode, Protocol, Service, ServicePort, Sidecar},
    snapshot::{Shared, WorkloadView},
};
use rajut_ir::{
    cluster::{Cluster, Discovery, Http1Options, Http2Options, UpstreamBind, UpstreamProtocol},
    endpoint::{Endpoint, EndpointAddress, Health, LoadAssignment, LocalityEndpoints},
    http::RouteSource,
    listener::{
        ChainAction, Direction, FilterChain, FilterChainMatch, Inspectors, Listener, ListenerAddress,
        TransportProtocol,
    },
    route::{HeaderMutations, Route, RouteActionKind, RouteConfiguration, Target, VirtualHost},
};
use rajut_types::{Labels, Locality, Origin, Text};

use crate::{
    access_log, assignment,
    authorization::Authorization,
    cluster, listener, names,
    policy::Effective,
    proxy::{Capture, Proxy, Role},
    rate_limit, retry, route, stats, tls, tokens,
    tracing::{self, Teller},
};

/// The source address that marks redirected inbound connections, so that they are not captured again.
pub(crate) const INBOUND_SOURCE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)), 0);

/// ALPN names of mesh clients that carry HTTP.
const MESH_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// ALPN names of mesh clients that carry bytes.
const MESH_BYTES: [&str; 2] = ["istio-peer-exchange", "istio"];
/// Standard ALPN names of HTTP.
const HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2"];

/// Everything that the inbound half is made from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct InboundView {
    workload: WorkloadView,
    capture: Capture,
    /// The workload's own address.
    own: Option<IpAddr>,
    /// Its listeners count Istio's metrics.
    counts: bool,
    /// Whose spans its listeners make, where the mesh traces.
    teller: Option<Teller>,
}

/// The inbound half.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    pub(crate) listeners: Vec<Arc<Listener>>,
    pub(crate) clusters: Vec<Arc<Cluster>>,
}

/// One container port with what services say about it.
struct Port<'a> {
    number: u16,
    protocol: Protocol,
    /// The oldest service that leads here, and its port.
    service: Option<(&'a Service, &'a ServicePort)>,
    /// Limits that its own namespace has for that service.
    policy: Effective,
    /// Where the application is, where a Sidecar says so.
    endpoint: Option<SocketAddr>,
}

impl InboundView {
    /// `None` for proxies that take no inbound traffic.
    pub(crate) fn new(workload: WorkloadView, proxy: &Proxy, teller: Option<Teller>) -> Option<Self> {
        (proxy.role == Role::Sidecar).then(|| Self {
            // Elsewhere the application has an address of its own.
            own: (proxy.capture == Capture::Redirect)
                .then(|| proxy.addresses.first().copied())
                .flatten(),
            workload,
            teller,
            counts: stats::counts(proxy),
            capture: match &proxy.capture {
                // What it dials is not part of what it serves.
                Capture::Explicit { inbound, .. } => Capture::Explicit {
                    outbound: Vec::new(),
                    inbound: inbound.clone(),
                },
                other => other.clone(),
            },
        })
    }

    fn mesh(&self) -> &MeshConfig {
        &self.workload.mesh
    }

    /// The ports of services by container port, the oldest service first.
    fn declared(&self) -> BTreeMap<u16, Port<'_>> {
        let mut declared = BTreeMap::new();
        for (service, rule) in &self.workload.services {
            for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
                let Some(number) = assignment::target_port(port, &self.workload.named_ports) else {
                    continue;
                };
                declared.entry(number).or_insert_with(|| Port {
                    number,
                    protocol: port.protocol,
                    service: Some((service, port)),
                    policy: Effective::new(self.mesh(), rule.as_deref(), None, port.number),
                    endpoint: None,
                });
            }
        }
        match &self.workload.sidecar {
            Some(sidecar) => under(sidecar, declared),
            None => declared,
        }
    }

    fn authorization(&self) -> Authorization<'_> {
        Authorization {
            mesh: self.mesh(),
            policies: &self.workload.authorization,
            knows_tokens: true,
            asks_others: true,
            judges_open: true,
        }
    }

    fn mode(&self, port: u16) -> (MtlsMode, &Origin) {
        (self.workload.mtls.mode(port), self.workload.mtls.origin(port))
    }
}

fn undeclared<'a>(number: u16) -> Port<'a> {
    Port {
        number,
        protocol: Protocol::Detect,
        service: None,
        policy: Effective::default(),
        endpoint: None,
    }
}

/// The ports as a Sidecar has them: its own in place of the services', with its limits.
fn under<'a>(sidecar: &Sidecar, declared: BTreeMap<u16, Port<'a>>) -> BTreeMap<u16, Port<'a>> {
    let limited = |mut port: Port<'a>, own: Option<&ConnectionPool>| {
        if let Some(pool) = own.or(sidecar.inbound_pool.as_ref()) {
            port.policy.pool = pool.clone();
        }
        (port.number, port)
    };
    if sidecar.ingress.is_empty() {
        return declared.into_values().map(|port| limited(port, None)).collect();
    }
    let mut services = declared;
    let ports = sidecar.ingress.iter().map(|listener| {
        let of_service = services.remove(&listener.port);
        let port = Port {
            protocol: listener.protocol,
            endpoint: listener.endpoint,
            ..of_service.unwrap_or_else(|| undeclared(listener.port))
        };
        limited(port, listener.pool.as_ref())
    });
    ports.collect()
}

/// Where the application of a port is whose workload has the address `own`, and without a Sidecar listens at `usual`.
fn application(port: &Port<'_>, own: IpAddr, usual: SocketAddr) -> SocketAddr {
    match port.endpoint {
        Some(endpoint) if endpoint.ip().is_unspecified() => SocketAddr::new(own, endpoint.port()),
        Some(endpoint) => endpoint,
        None => usual,
    }
}

/// The inbound half of a view.
pub(crate) fn build(view: &InboundView) -> Inbound {
    let mut declared = view.declared();
    let mut inbound = Inbound::default();
    match &view.capture {
        Capture::Redirect => redirected(view, &declared, &mut inbound),
        Capture::Netns {
            path,
            app_address,
            inbound: ports,
        } => {
            for (number, address) in ports {
                let port = declared.remove(number).unwrap_or_else(|| undeclared(*number));
                let usual = SocketAddr::new(*app_address, *number);
                let target = application(&port, *app_address, usual);
                let bind = UpstreamBind {
                    source: None,
                    netns: Some(path.clone()),
                };
                bound(view, &port, *address, (target, Some(bind)), &mut inbound);
            }
        }
        Capture::Explicit { inbound: ports, .. } => {
            for (number, (address, target)) in ports {
                let port = declared.remove(number).unwrap_or_else(|| undeclared(*number));
                // There the application's ports are others than the container's: the written one stands for its own.
                let meant = port.endpoint.and_then(|endpoint| ports.get(&endpoint.port()));
                let target = match meant {
                    Some((_, target)) => *target,
                    None => application(&port, target.ip(), *target),
                };
                bound(view, &port, *address, (target, None), &mut inbound);
            }
        }
    }
    let observed = &view.workload.observed;
    for listener in &mut inbound.listeners {
        *listener = access_log::observe(listener, observed, &view.mesh().redaction);
        *listener = tracing::observe(listener, observed, view.teller.as_ref(), view.mesh());
        if view.counts {
            *listener = stats::observe(listener, &observed.metrics);
        }
    }
    inbound
}

/// A listener of its own for one port, on the address on which other proxies reach it.
fn bound(
    view: &InboundView,
    port: &Port<'_>,
    address: SocketAddr,
    (target, bind): (SocketAddr, Option<UpstreamBind>),
    out: &mut Inbound,
) {
    let cluster = names::inbound_cluster(port.number);
    let (mode, origin) = view.mode(port.number);
    let name = names::listener(address.ip(), address.port());
    let mut own = listener::bare(view.mesh(), name, address, Direction::Inbound, origin.clone());
    own.bind_to_port = true;
    own.inspectors = inspectors(port.protocol, mode);
    own.filter_chains = chains(view, port, &cluster, mode, origin);
    out.listeners.push(Arc::new(own));
    out.clusters.push(Arc::new(to_application(
        view,
        port,
        Discovery::Static(at(&cluster, target)),
        bind,
    )));
}

/// `virtualInbound`: all ports of the workload on one socket, told apart by the dialled port.
fn redirected(view: &InboundView, declared: &BTreeMap<u16, Port<'_>>, out: &mut Inbound) {
    let mesh = view.mesh();
    let socket = names::wildcard(names::INBOUND_PORT);
    let origin = Origin::built_in("inbound-capture");
    let mut own = listener::bare(
        mesh,
        "virtualInbound".into(),
        socket,
        Direction::Inbound,
        origin.clone(),
    );
    own.bind_to_port = true;
    own.inspectors = Inspectors {
        original_dst: true,
        tls: true,
        http: true,
    };
    let loops = FilterChainMatch {
        destination_port: Some(names::INBOUND_PORT),
        ..FilterChainMatch::default()
    };
    let nowhere = listener::bytes_to(
        names::BLACK_HOLE.into(),
        vec![(names::BLACK_HOLE.into(), 1)],
        None,
    );
    own.filter_chains.push(listener::chain(
        "virtualInbound-blackhole",
        loops,
        None,
        nowhere,
        &origin,
    ));
    for port in declared.values() {
        let cluster = names::inbound_cluster(port.number);
        let (mode, origin) = view.mode(port.number);
        let on_port = chains(view, port, &cluster, mode, origin);
        own.filter_chains
            .extend(on_port.iter().map(|chain| at_port(chain, port.number)));
        let (discovery, bind) = dialled_or_told(view, port, &cluster);
        out.clusters
            .push(Arc::new(to_application(view, port, discovery, bind)));
    }
    // Ports that no service names, but a policy does; then all others.
    let catch_all: Text = names::INBOUND_PASSTHROUGH.into();
    for number in view
        .workload
        .mtls
        .ports
        .keys()
        .filter(|number| !declared.contains_key(number))
    {
        let (mode, origin) = view.mode(*number);
        let on_port = chains(view, &undeclared(*number), &catch_all, mode, origin);
        own.filter_chains
            .extend(on_port.iter().map(|chain| at_port(chain, *number)));
    }
    let (mode, origin) = (view.workload.mtls.mode, &view.workload.mtls.origin);
    own.filter_chains
        .extend(chains(view, &undeclared(0), &catch_all, mode, origin));
    out.clusters.push(Arc::new(cluster::inbound_passthrough(mesh)));
    out.listeners.push(Arc::new(own));
}

/// Where a captured connection goes: where it was dialled, or where a Sidecar says that the application is.
fn dialled_or_told(view: &InboundView, port: &Port<'_>, cluster: &Text) -> (Discovery, Option<UpstreamBind>) {
    let bind = UpstreamBind {
        source: Some(INBOUND_SOURCE),
        netns: None,
    };
    match (port.endpoint, view.own) {
        (Some(endpoint), own) if endpoint.ip().is_loopback() || own.is_some() => {
            let target = application(port, own.unwrap_or(endpoint.ip()), endpoint);
            let bind = (!endpoint.ip().is_loopback()).then_some(bind);
            (Discovery::Static(at(cluster, target)), bind)
        }
        _ => (Discovery::OriginalDst, Some(bind)),
    }
}

fn at_port(chain: &FilterChain, number: u16) -> Arc<FilterChain> {
    Arc::new(FilterChain {
        name: format!("{number}-{}", chain.name).into(),
        matches: FilterChainMatch {
            destination_port: Some(number),
            ..chain.matches.clone()
        },
        ..chain.clone()
    })
}

fn inspectors(protocol: Protocol, mode: MtlsMode) -> Inspectors {
    let detected = protocol == Protocol::Detect;
    Inspectors {
        original_dst: false,
        tls: mode != MtlsMode::Disable || detected,
        http: detected && mode != MtlsMode::Strict,
    }
}

/// One kind of connection on a port: how it is told, whether it is mTLS, whether it carries HTTP.
struct Variant {
    name: &'static str,
    transport: Option<TransportProtocol>,
    alpn: Vec<Text>,
    server_names: Vec<Text>,
    mtls: bool,
    http: bool,
}

impl Variant {
    fn mtls(name: &'static str, http: bool, alpn: &[&str]) -> Self {
        Self {
            name,
            transport: Some(TransportProtocol::Tls),
            alpn: listener::texts(alpn),
            server_names: Vec::new(),
            mtls: true,
            http,
        }
    }

    fn plain(name: &'static str, http: bool, alpn: &[&str]) -> Self {
        Self {
            name,
            transport: Some(TransportProtocol::RawBuffer),
            alpn: listener::texts(alpn),
            server_names: Vec::new(),
            mtls: false,
            http,
        }
    }

    /// TLS that is the application's own business.
    fn foreign_tls() -> Self {
        Self {
            transport: Some(TransportProtocol::Tls),
            ..Self::plain("tls-passthrough", false, &[])
        }
    }

    fn named(self, name: &'static str, server_names: &[Text]) -> Self {
        Self {
            name,
            server_names: server_names.to_vec(),
            ..self
        }
    }
}

/// The table of the module's documentation. `mesh_names` are server names that only mesh clients send to this port.
fn variants(protocol: Protocol, mode: MtlsMode, mesh_names: &[Text]) -> Vec<Variant> {
    if protocol.is_http() {
        return match mode {
            MtlsMode::Strict => vec![Variant::mtls("mtls-http", true, &[])],
            MtlsMode::Permissive => vec![
                Variant::mtls("mtls-http", true, &[]),
                Variant::plain("http", true, &[]),
            ],
            MtlsMode::Disable => vec![Variant {
                transport: None,
                ..Variant::plain("http", true, &[])
            }],
        };
    }
    if protocol != Protocol::Detect {
        return match mode {
            MtlsMode::Strict => vec![Variant::mtls("mtls", false, &[])],
            MtlsMode::Permissive => vec![
                Variant::mtls("mtls", false, &MESH_BYTES),
                Variant::foreign_tls(),
                Variant::plain("tcp", false, &[]),
            ],
            MtlsMode::Disable => vec![Variant {
                transport: None,
                ..Variant::plain("tcp", false, &[])
            }],
        };
    }
    let http_of_mesh: Vec<&str> = MESH_HTTP.iter().chain(&HTTP).copied().collect();
    match mode {
        MtlsMode::Strict => vec![
            Variant::mtls("mtls-http", true, &http_of_mesh),
            Variant::mtls("mtls", false, &[]),
        ],
        MtlsMode::Permissive => {
            let mut all = Vec::new();
            if !mesh_names.is_empty() {
                all.push(Variant::mtls("", true, &http_of_mesh).named("mtls-http-named", mesh_names));
                all.push(Variant::mtls("", false, &[]).named("mtls-named", mesh_names));
            }
            all.extend([
                Variant::mtls("mtls-http", true, &MESH_HTTP),
                Variant::mtls("mtls", false, &MESH_BYTES),
                Variant::foreign_tls(),
                Variant::plain("http", true, &listener::PLAIN_HTTP),
                Variant::plain("tcp", false, &[]),
            ]);
            all
        }
        // No transport in either: a chain that asks for one hides those that don't from what has it.
        MtlsMode::Disable => vec![
            Variant {
                transport: None,
                ..Variant::plain("http", true, &listener::PLAIN_HTTP)
            },
            Variant {
                transport: None,
                ..Variant::plain("tcp", false, &[])
            },
        ],
    }
}

/// The chains of one port.
fn chains(
    view: &InboundView,
    port: &Port<'_>,
    cluster: &Text,
    mode: MtlsMode,
    origin: &Origin,
) -> Vec<Arc<FilterChain>> {
    let mesh = view.mesh();
    let stat_prefix: Text = format!("inbound_0.0.0.0_{}", port.number).into();
    let guards = view
        .authorization()
        .at(Some(port.number).filter(|number| *number != 0));
    let verified = tokens::filter(&view.workload.tokens, &view.workload.key_sets, false);
    variants(port.protocol, mode, &mesh_names(view, port))
        .into_iter()
        .map(|variant| {
            let action = if variant.http {
                let routes = RouteSource::Inline(Arc::new(routes(port, cluster)));
                ChainAction::Http(listener::manager(
                    mesh,
                    Direction::Inbound,
                    stat_prefix.clone(),
                    routes,
                ))
            } else {
                let idle = port.policy.pool.tcp_idle_timeout;
                listener::bytes_to(stat_prefix.clone(), vec![(cluster.clone(), 1)], idle)
            };
            let matches = FilterChainMatch {
                transport_protocol: variant.transport,
                application_protocols: variant.alpn,
                server_names: variant.server_names,
                ..FilterChainMatch::default()
            };
            let tls = variant.mtls.then(|| tls::mesh_server(mesh, variant.http));
            let chain = listener::chain(variant.name, matches, tls, action, origin);
            // The last that is put before all others is the first that a request meets.
            let chain = guards.protect(rate_limit::limit(chain, &view.workload.rate_limits));
            guards.ask_first(tokens::verify(chain, verified.as_ref()))
        })
        .collect()
}

/// `*.<host>` of the services that lead to a detected port: mesh clients send `outbound_.<port>_.<subset>_.<host>`,
/// an application's own TLS client the host itself.
fn mesh_names(view: &InboundView, port: &Port<'_>) -> Vec<Text> {
    if port.protocol != Protocol::Detect {
        return Vec::new();
    }
    let leads_here = |service: &Service| {
        service
            .ports
            .iter()
            .any(|own| assignment::target_port(own, &view.workload.named_ports) == Some(port.number))
    };
    view.workload
        .services
        .iter()
        .filter(|(service, _)| leads_here(service) && !service.host.is_wildcard())
        .map(|(service, _)| Text::from(format!("*.{}", service.host)))
        .collect()
}

/// Every request goes to the application.
fn routes(port: &Port<'_>, cluster: &Text) -> RouteConfiguration {
    let (service_port, origin, decorator) = match port.service {
        Some((service, own)) => (
            own.number,
            own.origin.clone(),
            Text::from(format!("{}:{}/*", service.host, own.number)),
        ),
        None => (port.number, Origin::built_in("inbound-route"), Text::default()),
    };
    let forward = route::forward(
        Target::Cluster(cluster.clone()),
        None,
        retry::inbound(port.protocol),
    );
    let default = Route {
        filters: Vec::new(),
        name: "default".into(),
        matches: route::everything(),
        action: RouteActionKind::Forward(Box::new(forward)),
        headers: HeaderMutations::default(),
        decorator,
        origin: origin.clone(),
    };
    RouteConfiguration {
        filters: Vec::new(),
        name: cluster.clone(),
        virtual_hosts: vec![Arc::new(VirtualHost {
            filters: Vec::new(),
            rate_limits: Vec::new(),
            name: format!("inbound|http|{service_port}").into(),
            domains: vec!["*".into()],
            routes: vec![Arc::new(default)],
            retry_policy: None,
            headers: HeaderMutations::default(),
            include_request_attempt_count: false,
            origin,
        })],
        ignore_port_in_host_matching: false,
        headers: HeaderMutations::default(),
    }
}

/// The cluster that reaches the application, with the limits of its own namespace's destination rule.
fn to_application(
    view: &InboundView,
    port: &Port<'_>,
    discovery: Discovery,
    bind: Option<UpstreamBind>,
) -> Cluster {
    let http1 = Http1Options {
        enable_trailers: true,
        ..Http1Options::default()
    };
    let http2 = Http2Options {
        allow_connect: true,
        ..Http2Options::default()
    };
    let pool = &port.policy.pool;
    let origin = port.service.map_or_else(
        || Origin::built_in("inbound-cluster"),
        |(_, own)| own.origin.clone(),
    );
    let plain = cluster::plain(
        names::inbound_cluster(port.number),
        discovery,
        view.mesh(),
        origin,
    );
    Cluster {
        connect_timeout: pool.connect_timeout.unwrap_or(view.mesh().connect_timeout),
        circuit_breakers: cluster::circuit_breakers(&port.policy),
        protocol: match port.protocol {
            Protocol::Http2 | Protocol::Grpc => UpstreamProtocol::Http2(http2),
            Protocol::Detect => UpstreamProtocol::UseDownstream(http1, http2),
            _ => UpstreamProtocol::Http1(http1),
        },
        idle_timeout: pool
            .http_idle_timeout
            .or(pool.tcp_idle_timeout)
            .or(plain.idle_timeout),
        max_requests_per_connection: pool.max_requests_per_connection,
        max_connection_duration: pool.max_connection_duration,
        bind,
        service: port.service.map(|(service, _)| rajut_ir::cluster::ServiceRef {
            host: service.host.text(),
            name: service.name.clone(),
            namespace: service.namespace.clone(),
        }),
        ..plain
    }
}

fn at(cluster: &Text, target: SocketAddr) -> LoadAssignment {
    LoadAssignment {
        cluster_name: cluster.clone(),
        localities: vec![LocalityEndpoints {
            locality: Locality::default(),
            priority: 0,
            weight: None,
            endpoints: vec![Endpoint {
                address: EndpointAddress::Socket(target),
                health: Health::Healthy,
                weight: 1,
                hostname: Text::default(),
                tls_labels: Labels::default(),
                workload: Text::default(),
                lb_labels: Labels::default(),
            }],
        }],
        overprovisioning_percent: None,
    }
}

/// `virtualOutbound`: takes every connection of the workload and hands it to the listener of the dialled address.
pub(crate) fn capture(
    mesh: &Shared<MeshConfig>,
    netns: Option<&Text>,
    unknown: Arc<FilterChain>,
) -> Listener {
    let socket = match netns {
        Some(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, names::OUTBOUND_PORT)),
        None => names::wildcard(names::OUTBOUND_PORT),
    };
    let origin = Origin::built_in("outbound-capture");
    let mut own = listener::bare(
        mesh,
        "virtualOutbound".into(),
        socket,
        Direction::Outbound,
        origin.clone(),
    );
    own.address = ListenerAddress {
        socket,
        netns: netns.cloned(),
    };
    own.bind_to_port = true;
    own.use_original_dst = true;
    own.inspectors.original_dst = true;
    let loops = FilterChainMatch {
        destination_port: Some(names::OUTBOUND_PORT),
        ..FilterChainMatch::default()
    };
    let nowhere = listener::bytes_to(
        names::BLACK_HOLE.into(),
        vec![(names::BLACK_HOLE.into(), 1)],
        None,
    );
    own.filter_chains = vec![listener::chain(
        "virtualOutbound-blackhole",
        loops,
        None,
        nowhere,
        &origin,
    )];
    own.default_filter_chain = Some(unknown);
    own
}
