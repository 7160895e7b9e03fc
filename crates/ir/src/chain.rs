//! Which filter chain takes a connection (step 3 of walk one).
//!
//! Envoy's precedence, level by level: destination port, destination address (longest prefix), server name (exact, then
//! the longest `*.` wildcard), transport protocol, application protocols (in the client's order), source address
//! (longest prefix), source port. At each level the most specific entry that fits is taken and **never left again**: a
//! chain that would fit at a less specific entry of an earlier level is not looked at. That is how Envoy does it, and
//! how its users have learned to write chains.
//!
//! Pure; [`ChainMatcher::select`] allocates nothing. [`ChainMatcher::explain`] is the same walk with a record of each level.
//! Bounds: one leaf per combination of a chain's lists; the decoder refuses chains with more than [`COMBINATIONS_MAX`].

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use rajut_types::Text;

use crate::{
    decide::lower_case,
    listener::{FilterChainMatch, TransportProtocol},
};

/// Most combinations of prefixes, names, protocols and ports in one chain's conditions.
pub const COMBINATIONS_MAX: usize = 65_536;

/// What is known of a connection before a chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionView<'a> {
    /// The (original) destination.
    pub destination: SocketAddr,
    /// The client.
    pub source: SocketAddr,
    /// The server name of a TLS client hello.
    pub server_name: Option<&'a str>,
    /// What an inspector saw; a raw buffer where none looked.
    pub transport: TransportProtocol,
    /// ALPN of a client hello in its order, or what the HTTP inspector tells.
    pub application_protocols: &'a [Text],
}

/// The compiled conditions of a listener's chains.
#[derive(Debug, Default)]
pub struct ChainMatcher {
    ports: HashMap<u16, ByAddress<ByName>>,
    any_port: Option<ByAddress<ByName>>,
}

/// Longest prefix first; IPv4 and IPv6 apart.
#[derive(Debug)]
struct ByAddress<T> {
    v4: Vec<(u8, HashMap<IpAddr, T>)>,
    v6: Vec<(u8, HashMap<IpAddr, T>)>,
}

#[derive(Debug, Default)]
struct ByName {
    exact: HashMap<Box<[u8]>, ByTransport>,
    /// `.example.com` for `*.example.com`.
    wildcards: HashMap<Box<[u8]>, ByTransport>,
    any: Option<ByTransport>,
}

#[derive(Debug, Default)]
struct ByTransport {
    tls: Option<ByProtocol>,
    raw: Option<ByProtocol>,
    any: Option<ByProtocol>,
}

#[derive(Debug, Default)]
struct ByProtocol {
    exact: Vec<(Box<[u8]>, ByAddress<BySourcePort>)>,
    any: Option<ByAddress<BySourcePort>>,
}

#[derive(Debug, Default)]
struct BySourcePort {
    exact: HashMap<u16, usize>,
    any: Option<usize>,
}

impl<T> Default for ByAddress<T> {
    fn default() -> Self {
        Self {
            v4: Vec::new(),
            v6: Vec::new(),
        }
    }
}

impl<T: Default> ByAddress<T> {
    fn entry(&mut self, net: IpNet) -> &mut T {
        let (lengths, length) = match net {
            IpNet::V4(_) => (&mut self.v4, net.prefix_len()),
            IpNet::V6(_) => (&mut self.v6, net.prefix_len()),
        };
        let at = lengths.partition_point(|(known, _)| *known > length);
        if lengths.get(at).is_none_or(|(known, _)| *known != length) {
            lengths.insert(at, (length, HashMap::new()));
        }
        lengths[at].1.entry(net.network()).or_default()
    }
}

impl<T> ByAddress<T> {
    fn find(&self, address: IpAddr) -> Option<(&T, u8)> {
        let address = address.to_canonical();
        let lengths = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        lengths.iter().find_map(|(length, nets)| {
            let net = IpNet::new(address, *length).ok()?.network();
            Some((nets.get(&net)?, *length))
        })
    }
}

/// The whole address space, where a chain names no prefix.
fn or_all(nets: &[IpNet]) -> Vec<IpNet> {
    if nets.is_empty() {
        let all = |address: IpAddr| IpNet::new(address, 0).expect("a prefix of length 0 is valid");
        vec![all(IpAddr::from([0; 4])), all(IpAddr::from([0u16; 8]))]
    } else {
        nets.iter().map(IpNet::trunc).collect()
    }
}

impl ChainMatcher {
    /// Compiles conditions; [`ChainMatcher::select`] returns positions in their order. Of two chains that ask for
    /// exactly the same the first is taken.
    pub fn compile<'a>(conditions: impl IntoIterator<Item = &'a FilterChainMatch>) -> Self {
        let mut matcher = Self::default();
        for (at, condition) in conditions.into_iter().enumerate() {
            matcher.add(at, condition);
        }
        matcher
    }

    fn add(&mut self, at: usize, condition: &FilterChainMatch) {
        let addresses = match condition.destination_port {
            Some(port) => self.ports.entry(port).or_default(),
            None => self.any_port.get_or_insert_default(),
        };
        for net in or_all(&condition.prefix_ranges) {
            let names = addresses.entry(net);
            if condition.server_names.is_empty() {
                names.any.get_or_insert_default().add(at, condition);
            }
            for name in &condition.server_names {
                let name = name.to_ascii_lowercase();
                let transport = match name.strip_prefix('*') {
                    Some(wildcard) => names.wildcards.entry(wildcard.as_bytes().into()).or_default(),
                    None => names.exact.entry(name.as_bytes().into()).or_default(),
                };
                transport.add(at, condition);
            }
        }
    }

    /// The position of the chain that takes the connection; `None`: the default chain, if there is one.
    pub fn select(&self, connection: &ConnectionView<'_>) -> Option<usize> {
        self.walk(connection, &mut |_| {})
    }

    /// The same choice, and what decided on each level.
    pub fn explain(&self, connection: &ConnectionView<'_>) -> (Option<usize>, Vec<String>) {
        let mut levels = Vec::new();
        let chosen = self.walk(connection, &mut |level| levels.push(level.to_string()));
        (chosen, levels)
    }

    fn walk(&self, connection: &ConnectionView<'_>, tell: &mut dyn FnMut(Level<'_>)) -> Option<usize> {
        let port = connection.destination.port();
        let exact = self.ports.get(&port);
        tell(Level::Port(
            "destination",
            port,
            exact.is_some(),
            self.any_port.is_some(),
        ));
        let addresses = exact.or(self.any_port.as_ref())?;
        let address = connection.destination.ip();
        let found = addresses.find(address);
        tell(Level::Address(
            "destination",
            address,
            found.as_ref().map(|it| it.1),
        ));
        let transports = found?
            .0
            .find(connection.server_name.unwrap_or_default().as_bytes(), tell)?;
        let protocols = transports.find(connection.transport, tell)?;
        let sources = protocols.find(connection.application_protocols, tell)?;
        let found = sources.find(connection.source.ip());
        tell(Level::Address(
            "source",
            connection.source.ip(),
            found.as_ref().map(|it| it.1),
        ));
        let ports = found?.0;
        let port = connection.source.port();
        let exact = ports.exact.get(&port).copied();
        tell(Level::Port("source", port, exact.is_some(), ports.any.is_some()));
        exact.or(ports.any)
    }
}

impl ByName {
    fn find(&self, name: &[u8], tell: &mut dyn FnMut(Level<'_>)) -> Option<&ByTransport> {
        let mut buffer = [0; 320];
        let lower = lower_case(name, &mut buffer).unwrap_or_default();
        if let Some(found) = self.exact.get(lower).filter(|_| !lower.is_empty()) {
            tell(Level::Name(name, Some(lower)));
            return Some(found);
        }
        // `.example.com`, then `.com`, for `www.example.com`.
        let mut rest = lower;
        while let Some(dot) = rest.iter().skip(1).position(|byte| *byte == b'.') {
            rest = &rest[dot + 1..];
            if let Some(found) = self.wildcards.get(rest) {
                tell(Level::Name(name, Some(rest)));
                return Some(found);
            }
        }
        tell(Level::Name(name, self.any.as_ref().map(|_| &b""[..])));
        self.any.as_ref()
    }
}

impl ByTransport {
    fn add(&mut self, at: usize, condition: &FilterChainMatch) {
        let slot = match condition.transport_protocol {
            Some(TransportProtocol::Tls) => &mut self.tls,
            Some(TransportProtocol::RawBuffer) => &mut self.raw,
            None => &mut self.any,
        };
        slot.get_or_insert_default().add(at, condition);
    }

    fn find(&self, transport: TransportProtocol, tell: &mut dyn FnMut(Level<'_>)) -> Option<&ByProtocol> {
        let exact = match transport {
            TransportProtocol::Tls => self.tls.as_ref(),
            TransportProtocol::RawBuffer => self.raw.as_ref(),
        };
        tell(Level::Transport(transport, exact.is_some(), self.any.is_some()));
        exact.or(self.any.as_ref())
    }
}

impl ByProtocol {
    fn add(&mut self, at: usize, condition: &FilterChainMatch) {
        if condition.application_protocols.is_empty() {
            add_sources(self.any.get_or_insert_default(), at, condition);
        }
        for protocol in &condition.application_protocols {
            let known = self.exact.iter().position(|(it, _)| **it == *protocol.as_bytes());
            let slot = known.unwrap_or_else(|| {
                self.exact
                    .push((protocol.as_bytes().into(), ByAddress::default()));
                self.exact.len() - 1
            });
            add_sources(&mut self.exact[slot].1, at, condition);
        }
    }

    fn find(&self, protocols: &[Text], tell: &mut dyn FnMut(Level<'_>)) -> Option<&ByAddress<BySourcePort>> {
        let exact = protocols
            .iter()
            .find_map(|wanted| self.exact.iter().find(|(known, _)| **known == *wanted.as_bytes()));
        if let Some((protocol, sources)) = exact {
            tell(Level::Protocol(Some(protocol)));
            return Some(sources);
        }
        tell(Level::Protocol(self.any.as_ref().map(|_| &b""[..])));
        self.any.as_ref()
    }
}

fn add_sources(sources: &mut ByAddress<BySourcePort>, at: usize, condition: &FilterChainMatch) {
    for net in or_all(&condition.source_prefix_ranges) {
        let ports = sources.entry(net);
        if condition.source_ports.is_empty() {
            ports.any.get_or_insert(at);
        }
        for port in &condition.source_ports {
            ports.exact.entry(*port).or_insert(at);
        }
    }
}

/// What decided on one level.
#[derive(Debug)]
enum Level<'a> {
    /// Side, port, exact entry, entry for any.
    Port(&'static str, u16, bool, bool),
    /// Side, address, length of the prefix.
    Address(&'static str, IpAddr, Option<u8>),
    /// Name, entry (empty: any).
    Name(&'a [u8], Option<&'a [u8]>),
    /// Protocol, exact entry, entry for any.
    Transport(TransportProtocol, bool, bool),
    /// Entry (empty: any).
    Protocol(Option<&'a [u8]>),
}

impl std::fmt::Display for Level<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let choice = |exact: bool, any: bool| match (exact, any) {
            (true, _) => "chains for it",
            (false, true) => "chains for any",
            (false, false) => "no chain",
        };
        match self {
            Self::Port(side, port, exact, any) => {
                write!(f, "{side} port {port}: {}", choice(*exact, *any))
            }
            Self::Address(side, address, Some(0)) => write!(f, "{side} address {address}: chains for any"),
            Self::Address(side, address, Some(length)) => {
                write!(f, "{side} address {address}: chains for its /{length}")
            }
            Self::Address(side, address, None) => write!(f, "{side} address {address}: no chain"),
            Self::Name(name, entry) => {
                let name = match name {
                    [] => "no server name".into(),
                    name => format!("server name {}", String::from_utf8_lossy(name)),
                };
                match entry {
                    None => write!(f, "{name}: no chain"),
                    Some([]) => write!(f, "{name}: chains for any"),
                    Some(entry) if entry.starts_with(b".") => {
                        write!(f, "{name}: chains for *{}", String::from_utf8_lossy(entry))
                    }
                    Some(_) => write!(f, "{name}: chains for it"),
                }
            }
            Self::Transport(protocol, exact, any) => {
                let protocol = match protocol {
                    TransportProtocol::Tls => "tls",
                    TransportProtocol::RawBuffer => "raw_buffer",
                };
                write!(f, "transport {protocol}: {}", choice(*exact, *any))
            }
            Self::Protocol(None) => f.write_str("application protocol: no chain"),
            Self::Protocol(Some([])) => f.write_str("application protocol: chains for any"),
            Self::Protocol(Some(protocol)) => {
                write!(
                    f,
                    "application protocol {}: chains for it",
                    String::from_utf8_lossy(protocol)
                )
            }
        }
    }
}

#[cfg(test)]
mod tests;
