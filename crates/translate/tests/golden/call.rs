//! Simulated calls: what becomes of a connection or request, decided by the very code of the proxy.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use rajut_ir::{
    Resources,
    chain::{ChainMatcher, ConnectionView},
    decide::{DRAW_END, Decision, RequestView, RouteTable, decide},
    http::RouteSource,
    listener::{ChainAction, FilterChain, Listener, TransportProtocol},
    route::{RouteActionKind, RouteConfiguration},
};
use rajut_types::Text;

type Call = BTreeMap<String, String>;

struct Request<'a> {
    call: &'a Call,
    method: &'a str,
    authority: &'a str,
    path: &'a str,
}

impl RequestView for Request<'_> {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }

    fn scheme(&self) -> &[u8] {
        b"http"
    }

    fn authority(&self) -> &[u8] {
        self.call
            .get("host")
            .map_or(self.authority, String::as_str)
            .as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.call
            .get(&format!("header {name}"))
            .map(|value| Cow::Borrowed(value.as_bytes()))
    }
}

/// What becomes of a call. Its forms:
/// `call: GET http://api:80/x` (with `host: …`, `header x-a: …`), `connect: db:3306` (with `sni: …`, or `alpn: …` as told
/// by an inspector), `inbound: "8080"` (with `tls: yes`, `alpn: a,b`, `sni: …`).
pub(super) fn outcome(resources: &Resources, call: &Call) -> String {
    if let Some(text) = call.get("call") {
        let (method, url) = text.split_once(' ').expect("METHOD URL");
        let rest = url.strip_prefix("http://").expect("an http URL");
        let slash = rest.find('/').expect("a path");
        let (authority, path) = rest.split_at(slash);
        let (name, port) = authority
            .rsplit_once(':')
            .map_or((authority, 80), |(name, port)| {
                (name, port.parse().expect("a port"))
            });
        let request = Request {
            call,
            method,
            authority,
            path,
        };
        let Some(address) = resolve(resources, name) else {
            return "no such name".to_owned();
        };
        return dial(resources, SocketAddr::new(address, port), call, Some(&request));
    }
    if let Some(target) = call.get("connect") {
        let (name, port) = target.rsplit_once(':').expect("host:port");
        let Some(address) = resolve(resources, name) else {
            return "no such name".to_owned();
        };
        return dial(
            resources,
            SocketAddr::new(address, port.parse().expect("a port")),
            call,
            None,
        );
    }
    inbound(resources, call)
}

fn resolve(resources: &Resources, name: &str) -> Option<IpAddr> {
    name.parse()
        .ok()
        .or_else(|| resources.names.as_ref()?.find(name)?.first().copied())
}

fn dial(resources: &Resources, to: SocketAddr, call: &Call, request: Option<&Request<'_>>) -> String {
    let find = |name: String| resources.listeners.get(&Text::from(name));
    let listener = find(format!("{}_{}", to.ip(), to.port()))
        .or_else(|| find(format!("0.0.0.0_{}", to.port())))
        .or_else(|| find("virtualOutbound".to_owned()));
    let Some(listener) = listener else {
        return "connection refused".to_owned();
    };
    let plain_http = [Text::from("http/1.1")];
    let told: &[Text] = match request {
        Some(_) if listener.inspectors.http => &plain_http,
        _ => &[],
    };
    let transport = if call.contains_key("sni") {
        TransportProtocol::Tls
    } else {
        TransportProtocol::RawBuffer
    };
    match select(listener, to, transport, told, call) {
        None => "reset".to_owned(),
        Some(chain) => act(resources, chain, request),
    }
}

fn inbound(resources: &Resources, call: &Call) -> String {
    let port: u16 = call["inbound"].parse().expect("a port");
    let bound = resources
        .listeners
        .values()
        .find(|listener| listener.address.socket.port() == port && listener.bind_to_port);
    let listener = bound
        .or_else(|| resources.listeners.get("virtualInbound"))
        .expect("an inbound listener");
    let transport = if call.contains_key("tls") {
        TransportProtocol::Tls
    } else {
        TransportProtocol::RawBuffer
    };
    let alpn: Vec<Text> = call
        .get("alpn")
        .map(|list| list.split(',').map(Text::from).collect())
        .unwrap_or_default();
    let to = SocketAddr::new(listener.address.socket.ip(), port);
    let Some(chain) = select(listener, to, transport, &alpn, call) else {
        return "reset".to_owned();
    };
    let security = if chain.tls.is_some() { "mTLS" } else { "as it is" };
    let (protocol, cluster) = match &chain.action {
        ChainAction::Http(manager) => {
            let routes = match &manager.routes {
                RouteSource::Inline(routes) => routes,
                RouteSource::Rds(name) => &resources.routes[name],
            };
            (
                "HTTP",
                routed(
                    resources,
                    routes,
                    &Request {
                        call,
                        method: "GET",
                        authority: "x",
                        path: "/",
                    },
                ),
            )
        }
        ChainAction::Tcp(proxy) => ("bytes", weights(resources, &proxy.clusters)),
    };
    format!("{security}, {protocol} to {cluster}")
}

fn select<'a>(
    listener: &'a Listener,
    to: SocketAddr,
    transport: TransportProtocol,
    protocols: &[Text],
    call: &Call,
) -> Option<&'a Arc<FilterChain>> {
    let matcher = ChainMatcher::compile(listener.filter_chains.iter().map(|chain| &chain.matches));
    let view = ConnectionView {
        destination: to,
        source: SocketAddr::from(([10, 9, 9, 9], 40_000)),
        server_name: call.get("sni").map(String::as_str),
        transport,
        application_protocols: protocols,
    };
    match matcher.select(&view) {
        Some(at) => listener.filter_chains.get(at),
        None => listener.default_filter_chain.as_ref(),
    }
}

fn act(resources: &Resources, chain: &FilterChain, request: Option<&Request<'_>>) -> String {
    match (&chain.action, request) {
        (ChainAction::Tcp(proxy), _) => format!("bytes to {}", weights(resources, &proxy.clusters)),
        (ChainAction::Http(manager), Some(request)) => {
            let routes = match &manager.routes {
                RouteSource::Inline(routes) => routes,
                RouteSource::Rds(name) => &resources.routes[name],
            };
            routed(resources, routes, request)
        }
        (ChainAction::Http(_), None) => "HTTP".to_owned(),
    }
}

fn routed(resources: &Resources, routes: &Arc<RouteConfiguration>, request: &Request<'_>) -> String {
    let table = RouteTable::compile(routes);
    let mut shares: BTreeMap<String, u32> = BTreeMap::new();
    let step = DRAW_END / 100;
    for draw in 0..100 {
        let outcome = match decide(&table, request, draw * step) {
            Decision::NoVirtualHost | Decision::NoRoute { .. } => return "404".to_owned(),
            Decision::Route(chosen) => match (&chosen.route.action, chosen.cluster.name()) {
                (_, Some(cluster)) => existing(resources, cluster),
                (RouteActionKind::DirectResponse(answer), _) => format!("answer {}", answer.status),
                (RouteActionKind::Redirect(redirect), _) => format!("redirection {}", redirect.status),
                _ => "nothing".to_owned(),
            },
        };
        *shares.entry(outcome).or_default() += 1;
    }
    join(shares)
}

fn weights(resources: &Resources, clusters: &[(Text, u32)]) -> String {
    let sum: u32 = clusters.iter().map(|(_, weight)| weight).sum();
    join(
        clusters
            .iter()
            .map(|(name, weight)| (existing(resources, name), weight * 100 / sum))
            .collect(),
    )
}

fn join(shares: BTreeMap<String, u32>) -> String {
    if shares.len() == 1 {
        return shares.into_keys().collect();
    }
    let parts: Vec<_> = shares
        .iter()
        .map(|(name, share)| format!("{name} {share}%"))
        .collect();
    parts.join(", ")
}

/// The cluster's name, and what is wrong with it: requests to an unknown one are answered 503.
fn existing(resources: &Resources, name: &Text) -> String {
    if resources.clusters.contains_key(name) {
        name.to_string()
    } else {
        format!("503 NC ({name})")
    }
}
