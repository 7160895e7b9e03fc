//! `rajut why`: what a request meets on its way, decided by the code that the proxies run (`ir::chain`, `ir::decide`) on the
//! very resources that `translate` makes for the asking proxy.
//!
//! Pure: the proxy's resources and the snapshot in, steps and a verdict out. It opens no connection: it says what the
//! configuration means, not whether an application answers. Where weights draw, it shows the draw of zero and the shares.

mod policies;

use std::{borrow::Cow, collections::BTreeMap, net::SocketAddr, sync::Arc};

use rajut_config::{
    Snapshot,
    model::{MtlsMode, OutboundPolicy, Service, Sidecar, Workload},
};
use rajut_ir::{
    Resources,
    chain::{ChainMatcher, ConnectionView},
    cluster::{Cluster, Discovery, HealthCheck, HealthQuestion},
    decide::{Chosen, ChosenCluster, Decision, RequestView, RouteTable, Step as Tried, explain},
    endpoint::{Endpoint, EndpointAddress, LoadAssignment, LocalityEndpoints},
    fault::AbortStatus,
    filter::FilterOverride,
    http::{HttpConnectionManager, RouteSource},
    listener::{ChainAction, FilterChain, Listener, TransportProtocol},
    path,
    route::{RouteActionKind, RouteConfiguration},
};
use rajut_translate::{Capture, DataPlane, Proxy, Role};
use rajut_types::{Hostname, Origin, Principal, Text};

use crate::judge;

/// What is asked.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// A workload (`NAME` or `NAME.NAMESPACE`, instance or deployment) or a SPIFFE identity.
    pub from: String,
    /// A URL.
    pub to: String,
    /// The request's method.
    #[serde(default = "get")]
    pub method: String,
    /// Headers by name.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

fn get() -> String {
    "GET".to_owned()
}

/// What it meets.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// In the order of the way.
    pub steps: Vec<Step>,
    /// One sentence.
    pub verdict: String,
    /// The request finds an endpoint that takes it.
    pub reached: bool,
    /// The chosen listener.
    pub listener: Option<Text>,
    /// The chosen route's name.
    pub route: Option<Text>,
    /// The chosen cluster.
    pub cluster: Option<Text>,
    /// Its subset, empty without one.
    pub subset: Option<Text>,
    /// What the policies of the workload that is called make of it; `None` where it does not get there.
    pub access: Option<judge::Verdict>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// Where on the way.
    pub stage: &'static str,
    /// What happens.
    pub text: String,
    /// File, line and object that say so; empty where nobody wrote anything.
    #[serde(rename = "where")]
    pub place: String,
}

/// Why a question can't be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswerable {
    /// Nobody of that name.
    #[error("there is no workload `{0}`")]
    From(String),
    /// Not a URL.
    #[error("`{0}` is not a URL like http://service:8080/path")]
    To(String),
}

/// What the caller's proxy asks the endpoints, and what follows.
fn checked(check: &HealthCheck) -> String {
    let question = match &check.question {
        HealthQuestion::Http { path, .. } => format!("GET {path}"),
        HealthQuestion::Tcp => "a connection".to_owned(),
        HealthQuestion::Grpc { service, .. } if service.is_empty() => "gRPC health".to_owned(),
        HealthQuestion::Grpc { service, .. } => format!("gRPC health of {service}"),
    };
    format!(
        "{question} every {:?}: out after {} failures, back after {} successes",
        check.interval, check.unhealthy_threshold, check.healthy_threshold
    )
}

/// Localities that a line names.
const PLACES_SHOWN: usize = 8;

/// In which order, or by which weights, places get requests; `None` where all are alike.
fn places(assignment: &LoadAssignment) -> Option<String> {
    let alike = |it: &LocalityEndpoints| it.priority == 0 && it.weight.is_none();
    if assignment.localities.iter().all(alike) {
        return None;
    }
    let shown = assignment.localities.iter().take(PLACES_SHOWN).map(|it| {
        let usable = it.endpoints.iter().filter(|endpoint| endpoint.health.is_usable());
        let counts = format!("{} of {}", usable.count(), it.endpoints.len());
        let place = if it.locality.is_empty() {
            "nowhere".to_owned()
        } else {
            it.locality.to_string().trim_end_matches('/').to_owned()
        };
        match it.weight {
            Some(weight) => format!("{place} with weight {weight} ({counts})"),
            None => format!("priority {}: {place} ({counts})", it.priority),
        }
    });
    let shown: Vec<String> = shown.collect();
    Some(format!("by the caller's place: {}", shown.join(", ")))
}

/// The proxy of whoever is meant: that of `connected` where there is one, else as it would stand in a network namespace of
/// its own.
pub fn find_proxy(snapshot: &Snapshot, connected: &[Arc<Proxy>], from: &str) -> Result<Proxy, Unanswerable> {
    let identity = from
        .starts_with("spiffe://")
        .then(|| from.parse::<Principal>().ok())
        .flatten();
    let is_meant = |workload: &Workload| match &identity {
        Some(principal) => workload.principal(&snapshot.mesh.trust_domain) == *principal,
        None => [&workload.name, &workload.deployment]
            .into_iter()
            .any(|name| *from == **name || *from == format!("{name}.{}", workload.namespace)),
    };
    let workload = snapshot.workloads.values().find(|workload| is_meant(workload));
    let of_workload = |proxy: &&Arc<Proxy>| match (workload, &identity) {
        (Some(workload), _) => proxy.workload == workload.name && proxy.namespace == workload.namespace,
        (None, Some(principal)) => proxy.principal == *principal,
        (None, None) => {
            *from == *proxy.workload || *from == format!("{}.{}", proxy.workload, proxy.namespace)
        }
    };
    if let Some(proxy) = connected.iter().find(of_workload) {
        return Ok((**proxy).clone());
    }
    let workload = workload.ok_or_else(|| Unanswerable::From(from.to_owned()))?;
    Ok(sidecar_of(snapshot, workload))
}

/// The sidecar of a workload as it would stand in a network namespace of its own.
pub(crate) fn sidecar_of(snapshot: &Snapshot, workload: &Workload) -> Proxy {
    Proxy {
        id: format!(
            "why~{}~{}.{}~",
            workload.address, workload.name, workload.namespace
        )
        .into(),
        role: Role::Sidecar,
        data_plane: DataPlane::Rajut,
        principal: workload.principal(&snapshot.mesh.trust_domain),
        workload: workload.name.clone(),
        namespace: workload.namespace.clone(),
        labels: workload.labels.clone(),
        addresses: vec![workload.address],
        locality: workload.locality.clone(),
        capture: Capture::Redirect,
    }
}

/// Follows a request of `proxy`, which runs on `resources`.
pub fn follow(
    snapshot: &Snapshot,
    proxy: &Proxy,
    resources: &Resources,
    question: &Question,
) -> Result<Explanation, Unanswerable> {
    let mut way = Way {
        snapshot,
        proxy,
        resources,
        request: Call::parse(question)?,
        sent: None,
        found: Explanation::default(),
    };
    way.walk();
    Ok(way.found)
}

/// The request as `ir` looks at it.
#[derive(Debug)]
struct Call {
    method: String,
    secure: bool,
    plain_bytes: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
    headers: BTreeMap<String, String>,
}

impl Call {
    fn parse(question: &Question) -> Result<Self, Unanswerable> {
        let wrong = || Unanswerable::To(question.to.clone());
        let uri: http::Uri = question.to.parse().map_err(|_| wrong())?;
        let scheme = uri.scheme_str().ok_or_else(wrong)?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let (secure, plain_bytes) = match scheme {
            "http" | "grpc" => (false, false),
            "https" => (true, false),
            "tcp" => (false, true),
            _ => return Err(wrong()),
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let headers = question
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
            .collect::<BTreeMap<_, _>>();
        let dialled = uri.authority().map(ToString::to_string).unwrap_or_default();
        Ok(Self {
            method: question.method.clone(),
            secure,
            plain_bytes,
            host: host.trim_matches(['[', ']']).to_ascii_lowercase(),
            port,
            authority: headers.get("host").cloned().unwrap_or(dialled),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            headers,
        })
    }
}

impl RequestView for Call {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }

    fn scheme(&self) -> &[u8] {
        if self.secure { b"https" } else { b"http" }
    }

    fn authority(&self) -> &[u8] {
        self.authority.as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.headers
            .get(name)
            .map(|value| Cow::Borrowed(value.as_bytes()))
    }
}

struct Way<'a> {
    snapshot: &'a Snapshot,
    proxy: &'a Proxy,
    resources: &'a Resources,
    request: Call,
    /// The request as the route sends it on; `None`: bytes.
    sent: Option<judge::Request>,
    found: Explanation,
}

impl Way<'_> {
    fn say(&mut self, stage: &'static str, text: impl Into<String>, origin: Option<&Origin>) {
        self.found.steps.push(Step {
            stage,
            text: text.into(),
            place: origin.map(ToString::to_string).unwrap_or_default(),
        });
    }

    fn end(&mut self, reached: bool, verdict: impl Into<String>) {
        self.found.reached = reached;
        self.found.verdict = verdict.into();
    }

    fn walk(&mut self) {
        let Some((service, destination)) = self.resolve() else {
            return;
        };
        let Some(listener) = self.listener(service.as_deref(), destination) else {
            self.end(false, format!("nothing listens for {destination} at this proxy"));
            return;
        };
        let chain = self.chain(&listener, destination);
        let Some(chain) = chain else {
            self.end(false, "no filter chain takes the connection: it is closed");
            return;
        };
        let cluster = match &chain.action {
            ChainAction::Tcp(tcp) => {
                let names: Vec<&str> = tcp.clusters.iter().map(|(name, _)| &**name).collect();
                self.say(
                    "bytes",
                    format!("passed on unread to {}", names.join(", ")),
                    Some(&chain.origin),
                );
                tcp.clusters.first().map(|(name, _)| name.clone())
            }
            ChainAction::Http(http) => self.route(&Arc::clone(http)),
        };
        if let Some(cluster) = cluster {
            self.cluster(&cluster);
        }
    }

    /// The name as the sidecar's DNS answers it.
    fn resolve(&mut self) -> Option<(Option<Arc<Service>>, SocketAddr)> {
        let (host, port) = (self.request.host.clone(), self.request.port);
        if let Ok(address) = host.parse() {
            let service = self
                .snapshot
                .services
                .values()
                .find(|service| service.addresses.contains(&address));
            return Some((service.cloned(), SocketAddr::new(address, port)));
        }
        let domain = &self.snapshot.mesh.domain;
        let namespace = &self.proxy.namespace;
        let candidates = [
            host.clone(),
            format!("{host}.{namespace}.svc.{domain}"),
            format!("{host}.svc.{domain}"),
            format!("{host}.{domain}"),
        ];
        let service = candidates
            .iter()
            .filter_map(|name| name.parse::<Hostname>().ok())
            .find_map(|name| self.snapshot.find_service(namespace, &name).cloned());
        let Some(service) = service else {
            self.unknown_host(&host);
            return None;
        };
        if self.is_hidden(&host, &service) {
            self.end_outside(&host);
            return None;
        }
        let address = service.addresses.first().copied();
        let at = address.map_or_else(
            || "without an address of its own".to_owned(),
            |ip| format!("at {ip}"),
        );
        self.say(
            "name",
            format!("{host} is {} {at}", service.host),
            Some(&service.origin),
        );
        if service.port(port).is_none() {
            let known: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
            self.say(
                "port",
                format!("{} has no port {port}, but {}", service.host, known.join(", ")),
                Some(&service.origin),
            );
        }
        // A headless service is dialled at its endpoints; any address of its listener's wildcard will do.
        let address = address.unwrap_or_else(|| SocketAddr::from(([240, 240, 255, 254], 0)).ip());
        Some((Some(service), SocketAddr::new(address, port)))
    }

    /// The Sidecar that limits what the caller sees.
    fn sidecar(&self) -> Option<&Arc<Sidecar>> {
        let limited = matches!(self.proxy.role, Role::Sidecar | Role::Grpc);
        let found = self
            .snapshot
            .sidecar_of(&self.proxy.namespace, &self.proxy.labels);
        found.filter(|_| limited)
    }

    /// Whether a Sidecar keeps the service from the caller, which is said.
    fn is_hidden(&mut self, host: &str, service: &Service) -> bool {
        let hidden = self.sidecar().filter(|sidecar| !sidecar.sees(service)).cloned();
        if let Some(sidecar) = &hidden {
            let text = format!(
                "{host} is {}, which the caller does not see: the Sidecar `{}` of {} names neither it nor `{}/*` under `egress`",
                service.host, sidecar.name, sidecar.namespace, service.namespace
            );
            self.say("sidecar", text, Some(&sidecar.origin));
        }
        hidden.is_some()
    }

    fn unknown_host(&mut self, host: &str) {
        self.say("name", format!("no service of the mesh is called {host}"), None);
        self.end_outside(host);
    }

    /// What becomes of a host that the caller does not know.
    fn end_outside(&mut self, host: &str) {
        let text = match self.snapshot.settings_under(self.sidecar()).outbound_policy {
            OutboundPolicy::AllowAny => {
                format!(
                    "{host} is outside the mesh: ALLOW_ANY passes the connection on to wherever it resolves"
                )
            }
            OutboundPolicy::RegistryOnly => {
                format!("{host} is not in the registry, and REGISTRY_ONLY refuses everything else")
            }
        };
        self.end(false, text);
    }

    fn listener(&mut self, service: Option<&Service>, destination: SocketAddr) -> Option<Arc<Listener>> {
        let outbound = |address: SocketAddr| {
            self.resources
                .listeners
                .values()
                .find(|listener| listener.address.socket == address && listener.api_listener.is_none())
                .cloned()
        };
        let found = match &self.proxy.capture {
            Capture::Explicit { outbound: ports, .. } => {
                let port = ports.iter().find(|port| {
                    port.port == destination.port()
                        && service.is_some_and(|service| service.host == port.host)
                })?;
                outbound(port.listen)
            }
            Capture::Redirect | Capture::Netns { .. } => outbound(destination)
                .or_else(|| outbound(SocketAddr::from(([0, 0, 0, 0], destination.port()))))
                .or_else(|| {
                    self.resources
                        .listeners
                        .values()
                        .find(|listener| listener.use_original_dst)
                        .cloned()
                }),
        }?;
        self.say(
            "listener",
            format!("{} takes {destination}", found.name),
            Some(&found.origin),
        );
        self.found.listener = Some(found.name.clone());
        Some(found)
    }

    fn chain(&mut self, listener: &Listener, destination: SocketAddr) -> Option<Arc<FilterChain>> {
        let matcher = ChainMatcher::compile(listener.filter_chains.iter().map(|chain| &chain.matches));
        let tls = self.request.secure && listener.inspectors.tls;
        let protocols: Vec<Text> = match (tls, listener.inspectors.http && !self.request.plain_bytes) {
            (true, _) => vec!["h2".into(), "http/1.1".into()],
            (false, true) if !self.request.secure => vec!["http/1.1".into()],
            (false, _) => Vec::new(),
        };
        let source = self.proxy.addresses.first().copied().unwrap_or(destination.ip());
        let view = ConnectionView {
            destination,
            source: SocketAddr::new(source, 40_000),
            server_name: tls.then_some(&*self.request.host),
            transport: if tls {
                TransportProtocol::Tls
            } else {
                TransportProtocol::RawBuffer
            },
            application_protocols: &protocols,
        };
        let chosen = matcher
            .select(&view)
            .and_then(|at| listener.filter_chains.get(at));
        let chain = chosen.or(listener.default_filter_chain.as_ref())?;
        if listener.filter_chains.len() > 1 || !chain.name.is_empty() {
            let name = if chain.name.is_empty() {
                "the unnamed one"
            } else {
                &chain.name
            };
            self.say("filter chain", name, Some(&chain.origin));
        }
        Some(Arc::clone(chain))
    }

    fn route(&mut self, http: &HttpConnectionManager) -> Option<Text> {
        let routes: Option<Arc<RouteConfiguration>> = match &http.routes {
            RouteSource::Inline(routes) => Some(Arc::clone(routes)),
            RouteSource::Rds(name) => self.resources.routes.get(name).cloned(),
        };
        let Some(routes) = routes else {
            self.end(false, "the listener's routes are not known");
            return None;
        };
        self.say("routes", routes.name.to_string(), None);
        match path::normalize(http, self.request.path.as_bytes()) {
            Ok(None) => {}
            Ok(Some(normal)) => {
                self.request.path = String::from_utf8_lossy(&normal).into_owned();
                self.say("path", format!("becomes {}", self.request.path), None);
            }
            Err(path::BadPath) => {
                self.end(false, "the path holds an escaped NUL: answered 400");
                return None;
            }
        }
        let table = RouteTable::compile(&routes);
        let (decision, tried) = explain(&table, &self.request, 0);
        for step in tried {
            self.tried(step);
        }
        match decision {
            Decision::NoVirtualHost => {
                self.end(
                    false,
                    format!("no virtual host for `{}`: answered 404", self.request.authority),
                );
                None
            }
            Decision::NoRoute { virtual_host } => {
                self.end(
                    false,
                    format!("no route of {} takes it: answered 404", virtual_host.name),
                );
                None
            }
            Decision::Route(chosen) => {
                self.found.route = Some(chosen.route.name.clone());
                self.filters_of(&chosen);
                self.sent = policies::sent(&self.request, &table, &chosen);
                let cluster = match chosen.cluster {
                    ChosenCluster::Named(name) => Some(name.clone()),
                    ChosenCluster::Weighted(cluster) => Some(cluster.name.clone()),
                    ChosenCluster::Header(_) | ChosenCluster::None => None,
                };
                if cluster.is_none() {
                    let answer = match &chosen.route.action {
                        RouteActionKind::Redirect(_) => "answered with a redirection",
                        RouteActionKind::DirectResponse(_) => "answered in place",
                        RouteActionKind::Forward(_) => "sent where a header says",
                        RouteActionKind::NonForwarding => "answered by the workload itself",
                    };
                    self.end(false, answer);
                }
                cluster
            }
        }
    }

    /// What the route does to a request before it is sent on, or beside that.
    fn filters_of(&mut self, chosen: &Chosen<'_>) {
        let origin = Some(&chosen.route.origin);
        for (_, over) in &chosen.route.filters {
            let FilterOverride::Fault(fault) = over else {
                continue;
            };
            if let Some(delay) = fault.delay {
                self.say(
                    "fault",
                    format!("{} of the requests wait {:?}", delay.share, delay.fixed),
                    origin,
                );
            }
            if let Some(abort) = fault.abort {
                let with = match abort.status {
                    AbortStatus::Http(status) => status.to_string(),
                    AbortStatus::Grpc(status) => format!("gRPC status {status}"),
                };
                self.say(
                    "fault",
                    format!("{} of the requests are answered {with}", abort.share),
                    origin,
                );
            }
        }
        if let RouteActionKind::Forward(forward) = &chosen.route.action {
            for mirror in &forward.mirrors {
                self.say(
                    "mirror",
                    format!(
                        "copies of {} of the requests go to {}",
                        mirror.fraction, mirror.cluster
                    ),
                    origin,
                );
            }
        }
    }

    fn tried(&mut self, step: Tried) {
        match step {
            Tried::VirtualHost {
                host,
                found: Some((name, origin)),
            } => {
                self.say("virtual host", format!("{name} has `{host}`"), Some(&origin));
            }
            Tried::VirtualHost { host, found: None } => {
                self.say("virtual host", format!("none has `{host}`"), None);
            }
            Tried::Route {
                position,
                name,
                origin,
                mismatch,
            } => {
                let name = if name.is_empty() {
                    format!("number {}", position + 1)
                } else {
                    name.to_string()
                };
                let text = match mismatch {
                    Some(mismatch) => format!("{name} is passed over: {mismatch}"),
                    None => format!("{name} takes it"),
                };
                self.say("route", text, Some(&origin));
            }
            Tried::Weight {
                cluster,
                weight,
                total,
                origin,
            } => {
                self.say(
                    "weight",
                    format!("{cluster} gets {weight} of {total} requests"),
                    Some(&origin),
                );
            }
        }
    }

    fn cluster(&mut self, name: &Text) {
        self.found.cluster = Some(name.clone());
        if let [_, _, subset, _] = name.splitn(4, '|').collect::<Vec<_>>()[..] {
            self.found.subset = Some(subset.into());
        }
        let Some(cluster) = self.resources.clusters.get(name).cloned() else {
            self.say("cluster", format!("{name} does not exist"), None);
            self.end(false, format!("the cluster {name} does not exist: answered 503"));
            return;
        };
        self.say("cluster", name.to_string(), Some(&cluster.origin));
        let assignment = match &cluster.discovery {
            Discovery::Static(assignment)
            | Discovery::StrictDns(assignment)
            | Discovery::LogicalDns(assignment) => Some(assignment),
            Discovery::Eds { service_name } => {
                self.resources.assignments.get(service_name).map(|known| &**known)
            }
            Discovery::OriginalDst => {
                self.end(true, "passed on to the address that was dialled");
                return;
            }
        };
        let endpoints: Vec<Endpoint> = assignment
            .map(|all| all.endpoints().cloned().collect())
            .unwrap_or_default();
        let usable: Vec<&Endpoint> = endpoints
            .iter()
            .filter(|endpoint| endpoint.health.is_usable())
            .collect();
        let shown: Vec<String> = usable
            .iter()
            .take(8)
            .map(|endpoint| endpoint.address.to_string())
            .collect();
        let text = format!(
            "{} of {} can be used: {}",
            usable.len(),
            endpoints.len(),
            shown.join(", ")
        );
        self.say("endpoints", text, None);
        if let Some(check) = &cluster.health_check {
            self.say("health check", checked(check), None);
        }
        if let Some(text) = assignment.and_then(places) {
            self.say("places", text, None);
        }
        let Some(first) = usable.first() else {
            self.end(
                false,
                format!("{name} has no endpoint that takes requests: answered 503"),
            );
            return;
        };
        self.peer(&cluster, first);
    }

    /// TLS on the hop, what the other side's peer authentication makes of it, and what its policies do.
    fn peer(&mut self, cluster: &Cluster, endpoint: &Endpoint) {
        let claimed = cluster
            .tls_matches
            .iter()
            .find(|entry| endpoint.tls_labels.matches(&entry.labels));
        let tls = claimed.map_or(&cluster.tls, |entry| &entry.tls).as_ref();
        let how = if tls.is_some() { "TLS" } else { "plaintext" };
        self.say("transport", format!("{how} to {}", endpoint.address), None);
        let reaches = format!("reaches {} over {how}", endpoint.address);
        let Some((workload, port)) = self.server(endpoint) else {
            self.end(true, reaches);
            return;
        };
        let view = self
            .snapshot
            .workload_view(&workload.namespace, &workload.name, &workload.labels);
        let mode = view.mtls.mode(port);
        self.say(
            "peer auth",
            format!("the server's mode is {mode:?}"),
            Some(view.mtls.origin(port)),
        );
        if mode == MtlsMode::Strict && tls.is_none() {
            let text = format!("{} takes mTLS only and refuses plaintext", endpoint.address);
            self.end(false, text);
            return;
        }
        let server_name = tls.map(|tls| tls.sni.clone());
        self.policies(&workload, port, server_name, &reaches);
    }

    /// The workload behind an endpoint, and its port.
    fn server(&self, endpoint: &Endpoint) -> Option<(Arc<Workload>, u16)> {
        let EndpointAddress::Socket(address) = &endpoint.address else {
            return None;
        };
        self.snapshot
            .workloads
            .values()
            .find_map(|workload| Some((Arc::clone(workload), workload.container_port(*address)?)))
    }
}

#[cfg(test)]
mod tests;
