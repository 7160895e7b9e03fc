//! What a gateway workload runs on: listeners for the ports of the gateways that select it, route tables of the virtual
//! services that are bound to those, the secrets that their servers name. [`GatewayView`] is the whole input.
//!
//! ```text
//!  servers of all gateways ─► by port ─┬─ without TLS: one route table `http.<port>`, or bytes
//!                                      └─ with TLS: a filter chain for each server's names ─┬─ ended: `https.<port>.<name>.<gateway>.<namespace>`
//!                                                                                            └─ passed through: `tls` routes
//! ```
//!
//! The first server of a port says whether it is with TLS; one that says otherwise is left out (`analyze` names it), and so
//! is one whose certificate is not there: its connections are closed. A request on a connection for another server's name is
//! answered 421, so that a client which reuses connections asks again on a new one.
//!
//! Clusters and endpoints are not made here: they are those of any client of the gateway's namespace.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use rajut_config::{
    model::{
        Credential, Gateway, GatewayProtocol, GatewayServer, L4Match, RouteDestination, ServerTls,
        ServerTlsMode, TlsProtocol, VirtualService,
    },
    snapshot::{GatewayView, intersection},
};
use rajut_ir::{
    Resources,
    http::{ClientCertDetails, ForwardClientCert, HttpConnectionManager, RouteSource, ServerHeader},
    listener::{ChainAction, Direction, FilterChain, FilterChainMatch, Inspectors, TransportProtocol},
    matcher::StringMatcher,
    route::{
        DirectResponse, HeaderMutations, Redirect, Route, RouteActionKind, RouteConfiguration, VirtualHost,
    },
    secret::{Secret, SecretValue},
    tls::{
        CertificatePin, CommonTls, DataSource, DownstreamTls, SanKind, SanMatcher, SecretSource,
        TlsCertificate, TlsVersion, Validation, ValidationContext,
    },
};
use rajut_types::{Hostname, Origin, Text};

use crate::{
    access_log, assignment,
    authorization::{Authorization, Guards},
    listener, names,
    outbound::{distinct, server_names},
    rate_limit,
    route::{self, RouteContext, destination_port},
    stats, tls, tokens,
    tracing::{self, Teller},
};

/// The port that browsers take for `https`.
const HTTPS: u16 = 443;

/// A server with its gateway.
type Served<'a> = (&'a Gateway, &'a GatewayServer);

/// Everything of a gateway's own.
pub(crate) fn build(view: &GatewayView, counts: bool, teller: Option<&Teller>) -> Resources {
    let mut resources = Resources::default();
    let mut ports: BTreeMap<_, Vec<Served<'_>>> = BTreeMap::new();
    for gateway in &view.gateways {
        for server in &gateway.servers {
            ports
                .entry((server.port, server.bind))
                .or_default()
                .push((gateway, server));
        }
    }
    for servers in ports.values() {
        let port = Port::new(view, servers);
        let chains = port.chains(&mut resources);
        let Some((_, first)) = servers.first() else {
            continue;
        };
        for socket in view.sockets(first, port.target) {
            port.listen(socket, &chains, &mut resources);
        }
    }
    let observed = &view.workload.observed;
    for listener in resources.listeners.values_mut() {
        *listener = access_log::observe(listener, observed, &view.workload.mesh.redaction);
        *listener = tracing::observe(listener, observed, teller, &view.workload.mesh);
        if counts {
            *listener = stats::observe(listener, &observed.metrics);
        }
    }
    resources
}

/// The chains of a port: by server name, or one for all connections.
#[derive(Default)]
struct Chains {
    by_name: Vec<Arc<FilterChain>>,
    rest: Option<Arc<FilterChain>>,
}

/// One port of a gateway workload.
struct Port<'a> {
    view: &'a GatewayView,
    /// Those that agree with the first on TLS.
    servers: Vec<Served<'a>>,
    number: u16,
    /// The workload's own port, behind its service.
    target: Option<u16>,
    guards: Guards,
}

impl<'a> Port<'a> {
    fn new(view: &'a GatewayView, servers: &[Served<'a>]) -> Self {
        let first = servers.first().map(|(_, server)| *server);
        let agrees = |server: &GatewayServer| {
            first.is_some_and(|first| {
                first.is_tls() == server.is_tls() && (first.is_tls() || first.protocol == server.protocol)
            })
        };
        let number = first.map_or(0, |server| server.port);
        let ports = view
            .workload
            .services
            .iter()
            .flat_map(|(service, _)| &service.ports);
        let target = ports
            .filter(|port| port.number == number)
            .find_map(|port| assignment::target_port(port, &view.workload.named_ports));
        let authorization = Authorization {
            mesh: &view.workload.mesh,
            policies: &view.workload.authorization,
            knows_tokens: true,
            asks_others: true,
            judges_open: false,
        };
        Self {
            view,
            servers: servers
                .iter()
                .copied()
                .filter(|(_, server)| agrees(server))
                .collect(),
            number,
            target,
            guards: authorization.at(Some(target.unwrap_or(number))),
        }
    }

    fn chains(&self, resources: &mut Resources) -> Chains {
        let mut chains = Chains::default();
        let Some((_, first)) = self.servers.first() else {
            return chains;
        };
        if !first.is_tls() {
            chains.rest = if first.protocol == GatewayProtocol::Http {
                let name = Text::from(format!("http.{}", self.number));
                let origin = first.origin.clone();
                put_routes(resources, &name, self.table(&self.servers, &[]));
                Some(self.http(name, FilterChainMatch::default(), None, &origin))
            } else {
                self.opaque()
            };
            return chains;
        }
        let mut by_name = Vec::new();
        for (at, served) in self.servers.iter().enumerate() {
            by_name.extend(self.with_tls(at, *served, resources));
        }
        // `analyze` names what is claimed twice.
        chains.by_name = distinct(by_name, &mut Vec::new());
        chains
    }

    /// The chains of a server with TLS.
    fn with_tls(
        &self,
        at: usize,
        (gateway, server): Served<'a>,
        resources: &mut Resources,
    ) -> Vec<Arc<FilterChain>> {
        let Some(wanted) = &server.tls else {
            return Vec::new();
        };
        if wanted.mode == ServerTlsMode::Passthrough {
            return self.passed_through((gateway, server));
        }
        let hosts: Vec<Hostname> = server.hosts.iter().map(|one| one.host.clone()).collect();
        let http = server.serves_http();
        let (Some(server_names), Some(tls)) = (
            server_names(&hosts),
            downstream(self.view, wanted, http, resources),
        ) else {
            return Vec::new();
        };
        let matches = FilterChainMatch {
            server_names,
            transport_protocol: Some(TransportProtocol::Tls),
            ..FilterChainMatch::default()
        };
        if !http {
            return self
                .routed((gateway, server), matches, Some(tls))
                .into_iter()
                .collect();
        }
        let name = Text::from(format!(
            "https.{}.{}.{}.{}",
            self.number, server.port_name, gateway.name, gateway.namespace
        ));
        let others = self.servers.iter().enumerate().filter(|(other, _)| *other != at);
        let others: Vec<Served<'_>> = others
            .map(|(_, served)| *served)
            .filter(|(_, other)| other.serves_http())
            .collect();
        put_routes(resources, &name, self.table(&[(gateway, server)], &others));
        vec![self.http(name, matches, Some(tls), &server.origin)]
    }

    fn http(
        &self,
        routes: Text,
        matches: FilterChainMatch,
        tls: Option<DownstreamTls>,
        origin: &Origin,
    ) -> Arc<FilterChain> {
        let mesh = &self.view.workload.mesh;
        let stat_prefix = format!("outbound_0.0.0.0_{}", self.number).into();
        let source = RouteSource::Rds(routes.clone());
        let manager = listener::manager(mesh, Direction::Outbound, stat_prefix, source);
        let manager = Arc::new(HttpConnectionManager {
            use_remote_address: true,
            forward_client_cert: ForwardClientCert::SanitizeSet,
            client_cert_details: ClientCertDetails {
                subject: true,
                uri: true,
                dns: true,
            },
            server_name: "istio-envoy".into(),
            server_header: ServerHeader::Overwrite,
            ..Arc::unwrap_or_clone(manager)
        });
        let chain = listener::chain(routes, matches, tls, ChainAction::Http(manager), origin);
        let chain = self
            .guards
            .protect(rate_limit::limit(chain, &self.view.workload.rate_limits));
        let verified = tokens::filter(&self.view.workload.tokens, &self.view.workload.key_sets, true);
        self.guards.ask_first(tokens::verify(chain, verified.as_ref()))
    }

    /// Bytes of the first server that some virtual service has a route for.
    fn opaque(&self) -> Option<Arc<FilterChain>> {
        let mut servers = self.servers.iter();
        servers.find_map(|served| self.routed(*served, FilterChainMatch::default(), None))
    }

    /// The bytes of a server, by the first `tcp` route that is for it.
    fn routed(
        &self,
        served: Served<'a>,
        matches: FilterChainMatch,
        tls: Option<DownstreamTls>,
    ) -> Option<Arc<FilterChain>> {
        let applies = |one: &L4Match| self.applies(one, served.0);
        let route = self
            .bound(served)
            .flat_map(|(vs, _)| &vs.tcp)
            .find(|route| route.matches.is_empty() || route.matches.iter().any(applies))?;
        let name = format!("tcp.{}.{}.{}", self.number, served.1.port_name, served.0.key());
        Some(self.bytes(&name, matches, tls, &route.destinations, &route.origin))
    }

    /// TLS that the application ends: by server name, to where `tls` routes say.
    fn passed_through(&self, served: Served<'a>) -> Vec<Arc<FilterChain>> {
        let (gateway, server) = served;
        let mut chains = Vec::new();
        for (vs, _) in self.bound(served) {
            for (position, route) in vs.tls.iter().enumerate() {
                for (alternative, wanted) in route.matches.iter().enumerate() {
                    if !self.applies(&wanted.l4, gateway) {
                        continue;
                    }
                    let within = |sni: &Hostname| {
                        let mut hosts = server.hosts.iter();
                        hosts.find_map(|one| intersection(&one.host, sni).cloned())
                    };
                    let hosts: Vec<Hostname> = wanted.sni_hosts.iter().filter_map(within).collect();
                    if hosts.is_empty() {
                        continue;
                    }
                    let Some(server_names) = server_names(&hosts) else {
                        continue;
                    };
                    let matches = FilterChainMatch {
                        server_names,
                        transport_protocol: Some(TransportProtocol::Tls),
                        ..FilterChainMatch::default()
                    };
                    let name = format!("{}/{}-tls-{position}-{alternative}", vs.namespace, vs.name);
                    chains.push(self.bytes(&name, matches, None, &route.destinations, &route.origin));
                }
            }
        }
        chains
    }

    fn bytes(
        &self,
        name: &str,
        matches: FilterChainMatch,
        tls: Option<DownstreamTls>,
        destinations: &[RouteDestination],
        origin: &Origin,
    ) -> Arc<FilterChain> {
        let single = destinations.len() == 1;
        let clusters: Vec<(Text, u32)> = destinations
            .iter()
            .filter(|entry| single || entry.weight > 0)
            .map(|entry| {
                let to = &entry.destination;
                let service = self
                    .view
                    .destinations
                    .get(&to.host)
                    .map(|(service, _)| &**service);
                let number = destination_port(to, service, self.number);
                let cluster = names::outbound_cluster(number, &to.subset, &to.host);
                (cluster, if single { 1 } else { entry.weight })
            })
            .collect();
        let prefix = clusters
            .first()
            .map_or_else(|| name.into(), |(cluster, _)| cluster.clone());
        let action = listener::bytes_to(prefix, clusters, None);
        let chain = listener::chain(name, matches, tls, action, origin);
        self.guards.protect(chain)
    }

    fn applies(&self, one: &L4Match, gateway: &Gateway) -> bool {
        one.port.is_none_or(|port| port == self.number)
            && route::is_for_client(
                &one.gateways,
                &one.source_labels,
                one.source_namespace.as_ref(),
                (&self.view.workload.namespace, &self.view.labels),
                &[gateway.key()],
            )
    }

    /// The virtual services that are bound to a server's gateway and share hosts with it, and those hosts.
    fn bound(
        &self,
        (gateway, server): Served<'a>,
    ) -> impl Iterator<Item = (&'a VirtualService, Vec<Hostname>)> {
        let key = gateway.key();
        let all = self.view.virtual_services.iter();
        all.filter(move |vs| vs.gateways.contains(&key)).filter_map(|vs| {
            let hosts = shared_hosts(server, vs);
            (!hosts.is_empty()).then_some((&**vs, hosts))
        })
    }

    /// The virtual hosts of servers that share a route table. `others`: servers of the same port, whose hosts are asked
    /// for on connections of their own.
    fn table(&self, servers: &[Served<'a>], others: &[Served<'_>]) -> Vec<VirtualHost> {
        let mut table = Table::default();
        for served in servers {
            let (gateway, server) = *served;
            for (vs, hosts) in self.bound(*served) {
                if vs.http.is_empty() {
                    continue;
                }
                let routes = self.routes(vs, gateway);
                for host in hosts {
                    table.add(gateway, vs, host, &routes);
                }
            }
            if server.https_redirect {
                for one in &server.hosts {
                    table.redirect(&one.host, self.https_port(), &server.origin);
                }
            }
        }
        for (_, other) in others {
            for one in &other.hosts {
                table.misdirected(&one.host, &other.origin);
            }
        }
        table.finish(self.number)
    }

    fn routes(&self, vs: &VirtualService, gateway: &Gateway) -> Vec<Arc<Route>> {
        let host_port = self.view.host_addresses.get(&self.number).map(SocketAddr::port);
        route::of_virtual_service(
            vs,
            RouteContext {
                mesh: &self.view.workload.mesh,
                port: self.number,
                seen_port: host_port.unwrap_or(self.number),
                client_namespace: &self.view.workload.namespace,
                client_labels: &self.view.labels,
                gateways: &[gateway.key()],
                destinations: &self.view.destinations,
                host: None,
                default_retries: true,
            },
        )
    }

    /// Where clients of this machine find the server for `https`, where that is not where browsers look.
    fn https_port(&self) -> Option<u16> {
        let servers = || self.view.gateways.iter().flat_map(|gateway| &gateway.servers);
        let is_https = |server: &&GatewayServer| server.protocol == GatewayProtocol::Https;
        let found = servers()
            .filter(is_https)
            .find(|server| server.port == HTTPS)
            .or_else(|| servers().find(is_https))?;
        let port = self.view.host_addresses.get(&found.port).map(SocketAddr::port);
        Some(port.unwrap_or(found.port)).filter(|port| *port != HTTPS)
    }

    fn listen(&self, socket: SocketAddr, chains: &Chains, resources: &mut Resources) {
        if chains.by_name.is_empty() && chains.rest.is_none() {
            return;
        }
        let Some((_, first)) = self.servers.first() else {
            return;
        };
        let name = names::listener(socket.ip(), socket.port());
        let mut own = listener::bare(
            &self.view.workload.mesh,
            name.clone(),
            socket,
            Direction::Outbound,
            first.origin.clone(),
        );
        own.bind_to_port = true;
        own.inspectors = Inspectors {
            original_dst: false,
            tls: !chains.by_name.is_empty(),
            http: false,
        };
        own.filter_chains.clone_from(&chains.by_name);
        own.default_filter_chain.clone_from(&chains.rest);
        resources.listeners.insert(name, Arc::new(own));
    }
}

/// The narrower of each pair of hosts of a server and a virtual service that the server lets in.
fn shared_hosts(server: &GatewayServer, vs: &VirtualService) -> Vec<Hostname> {
    let mut shared = Vec::new();
    for host in &vs.hosts {
        for one in &server.hosts {
            if one
                .namespace
                .as_ref()
                .is_some_and(|namespace| *namespace != vs.namespace)
            {
                continue;
            }
            if let Some(narrower) = intersection(&one.host, host)
                && !shared.contains(narrower)
            {
                shared.push(narrower.clone());
            }
        }
    }
    shared
}

/// A route table in the making.
#[derive(Default)]
struct Table {
    hosts: BTreeMap<Hostname, Vec<Arc<Route>>>,
    origins: BTreeMap<Hostname, Origin>,
    seen: HashSet<(Text, Text, Hostname)>,
    /// Patterns whose requests are sent to HTTPS.
    redirects: Vec<(Hostname, Option<u16>, Origin)>,
}

impl Table {
    fn add(&mut self, gateway: &Gateway, vs: &VirtualService, host: Hostname, routes: &[Arc<Route>]) {
        let key = format!("{}/{}", vs.namespace, vs.name).into();
        if !self.seen.insert((gateway.key(), key, host.clone())) {
            return;
        }
        self.origins
            .entry(host.clone())
            .or_insert_with(|| vs.origin.clone());
        self.hosts.entry(host).or_default().extend(routes.iter().cloned());
    }

    fn redirect(&mut self, host: &Hostname, port: Option<u16>, origin: &Origin) {
        self.redirects.push((host.clone(), port, origin.clone()));
        self.origins.entry(host.clone()).or_insert_with(|| origin.clone());
        self.hosts.entry(host.clone()).or_default();
    }

    fn misdirected(&mut self, host: &Hostname, origin: &Origin) {
        if self.hosts.contains_key(host) || host.as_str() == "*" {
            return;
        }
        let refusal = DirectResponse {
            status: 421,
            body: Vec::new().into(),
        };
        let route = plain_route("misdirected", RouteActionKind::DirectResponse(refusal), origin);
        self.origins.insert(host.clone(), origin.clone());
        self.hosts.insert(host.clone(), vec![route]);
    }

    fn finish(self, port: u16) -> Vec<VirtualHost> {
        let Self {
            hosts,
            origins,
            redirects,
            ..
        } = self;
        let mut built: Vec<VirtualHost> = Vec::new();
        for (host, mut routes) in hosts {
            let redirect = redirects
                .iter()
                .find(|(pattern, ..)| intersection(pattern, &host) == Some(&host));
            if let Some((_, port, origin)) = redirect {
                routes = vec![to_https(*port, origin)];
            }
            // Routes of several virtual services: those that take everything come last (Istio).
            routes.sort_by_key(|route| route::is_everything(&route.matches));
            let origin = origins.get(&host).cloned();
            built.push(virtual_host(
                names::host_port(&host, port),
                host.text(),
                routes,
                origin.unwrap_or_else(|| Origin::built_in("gateway")),
            ));
        }
        if built.is_empty() {
            let name = format!("blackhole:{port}").into();
            built.push(virtual_host(
                name,
                "*".into(),
                Vec::new(),
                Origin::built_in("gateway"),
            ));
        }
        built
    }
}

fn virtual_host(name: Text, domain: Text, routes: Vec<Arc<Route>>, origin: Origin) -> VirtualHost {
    VirtualHost {
        filters: Vec::new(),
        rate_limits: Vec::new(),
        name,
        domains: vec![domain],
        routes,
        retry_policy: None,
        headers: HeaderMutations::default(),
        include_request_attempt_count: true,
        origin,
    }
}

fn plain_route(name: &str, action: RouteActionKind, origin: &Origin) -> Arc<Route> {
    Arc::new(Route {
        filters: Vec::new(),
        name: name.into(),
        matches: route::everything(),
        action,
        headers: HeaderMutations::default(),
        decorator: Text::default(),
        origin: origin.clone(),
    })
}

fn to_https(port: Option<u16>, origin: &Origin) -> Arc<Route> {
    let redirect = Redirect {
        scheme: Some("https".into()),
        host: None,
        port,
        path: None,
        status: 301,
        strip_query: false,
    };
    plain_route(
        "https-redirect",
        RouteActionKind::Redirect(Box::new(redirect)),
        origin,
    )
}

fn put_routes(resources: &mut Resources, name: &Text, hosts: Vec<VirtualHost>) {
    let configuration = RouteConfiguration {
        filters: Vec::new(),
        name: name.clone(),
        virtual_hosts: hosts.into_iter().map(Arc::new).collect(),
        ignore_port_in_host_matching: true,
        headers: HeaderMutations::default(),
    };
    resources.routes.insert(name.clone(), Arc::new(configuration));
}

/// The TLS of a server, with the secrets that it names; `None` where they are not there.
fn downstream(
    view: &GatewayView,
    wanted: &ServerTls,
    http: bool,
    resources: &mut Resources,
) -> Option<DownstreamTls> {
    let names: Vec<SanMatcher> = wanted
        .subject_alt_names
        .iter()
        .map(|name| SanMatcher {
            kind: SanKind::Any,
            matcher: StringMatcher::exact(name.clone()),
        })
        .collect();
    let keys = wanted
        .key_pins
        .iter()
        .filter_map(|text| CertificatePin::key(text));
    let certificates = wanted
        .certificate_pins
        .iter()
        .filter_map(|text| CertificatePin::certificate(text));
    let pins: Vec<CertificatePin> = keys.chain(certificates).collect();
    if wanted.mode == ServerTlsMode::IstioMutual {
        let mut tls = tls::mesh_server(&view.workload.mesh, http);
        if let Some(validation) = tls.common.validation.as_mut() {
            if !names.is_empty() {
                validation.context.subject_alt_names = names;
            }
            validation.context.pins = pins;
        }
        return Some(tls);
    }
    let asks = wanted.mode != ServerTlsMode::Simple;
    let (certificate, roots) = match wanted.credential.as_ref()? {
        Credential::Secret { name, roots } => {
            let certificate = put_certificate(view, name, resources)?;
            let roots = if asks {
                Some(put_roots(view, name, roots.as_ref(), resources)?)
            } else {
                None
            };
            (certificate, roots)
        }
        Credential::Files { chain, key, roots } => {
            let roots = roots.as_ref().filter(|_| asks);
            let roots = roots.map(|path| Text::from(format!("file-root:{path}")));
            (Text::from(format!("file-cert:{chain}~{key}")), roots)
        }
    };
    // Without them every certificate would be taken for a good one.
    if asks && roots.is_none() {
        return None;
    }
    let alpn: &[&str] = if http { &["h2", "http/1.1"] } else { &[] };
    Some(DownstreamTls {
        common: CommonTls {
            certificates: vec![SecretSource::Sds(certificate)],
            validation: roots.map(|roots| Validation {
                sds: Some(roots),
                context: ValidationContext {
                    subject_alt_names: names,
                    pins,
                    ..ValidationContext::default()
                },
            }),
            alpn: listener::texts(alpn),
            min_version: Some(version(wanted.min_version.unwrap_or(TlsProtocol::V1_2))),
            max_version: Some(version(wanted.max_version.unwrap_or(TlsProtocol::V1_3))),
            groups: Vec::new(),
            certificate_provider: None,
        },
        require_client_certificate: wanted.mode == ServerTlsMode::Mutual,
        // A resumed session would pass with a certificate that was judged by roots of the past.
        disable_resumption: asks,
    })
}

const fn version(version: TlsProtocol) -> TlsVersion {
    match version {
        TlsProtocol::V1_2 => TlsVersion::V1_2,
        TlsProtocol::V1_3 => TlsVersion::V1_3,
    }
}

fn put_certificate(view: &GatewayView, name: &Text, resources: &mut Resources) -> Option<Text> {
    let (chain, key) = view.secrets.get(name)?.key_pair()?;
    let certificate = TlsCertificate {
        chain: DataSource::Inline(chain.clone()),
        key: DataSource::Inline(key.clone()),
    };
    Some(put_secret(
        format!("kubernetes://{name}").into(),
        SecretValue::Certificate(certificate),
        resources,
    ))
}

/// The roots that clients are judged by: of the named secret, else beside the certificate, else of the companion.
fn put_roots(
    view: &GatewayView,
    name: &Text,
    named: Option<&Text>,
    resources: &mut Resources,
) -> Option<Text> {
    let of = |name: &str| view.secrets.get(name)?.roots();
    let roots = match named {
        Some(named) => of(named),
        None => of(name).or_else(|| of(&format!("{name}-cacert"))),
    };
    let context = ValidationContext {
        trusted_ca: Some(DataSource::Inline(roots?.clone())),
        ..ValidationContext::default()
    };
    let name = named.unwrap_or(name);
    Some(put_secret(
        format!("kubernetes://{name}-cacert").into(),
        SecretValue::Validation(context),
        resources,
    ))
}

fn put_secret(name: Text, value: SecretValue, resources: &mut Resources) -> Text {
    let secret = Secret {
        name: name.clone(),
        value,
    };
    resources.secrets.insert(name.clone(), Arc::new(secret));
    name
}
