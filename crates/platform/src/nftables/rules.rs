//! From [`CaptureRules`] to tables, chains and rules: pure, and readable in nft's syntax.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{CaptureRules, TABLE};

/// Istio's source address for connections from the inbound listener to the application (`127.0.0.6`, `::6`).
const INBOUND_SOURCE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
const INBOUND_SOURCE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));
/// The tunnel's port (HBONE), which is encrypted already.
const TUNNEL_PORT: u16 = 15008;

/// An address family with a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Ip,
    Ip6,
}

impl Family {
    const fn loopback(self) -> IpAddr {
        match self {
            Self::Ip => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::Ip6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        }
    }

    fn loopback_network(self) -> IpNet {
        match self {
            // 127.0.0.0/8
            Self::Ip => ipnet::Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
            Self::Ip6 => IpNet::from(self.loopback()),
        }
    }

    const fn inbound_source(self) -> IpAddr {
        match self {
            Self::Ip => INBOUND_SOURCE_V4,
            Self::Ip6 => INBOUND_SOURCE_V6,
        }
    }

    const fn has(self, address: IpAddr) -> bool {
        matches!(
            (self, address),
            (Self::Ip, IpAddr::V4(_)) | (Self::Ip6, IpAddr::V6(_))
        )
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        })
    }
}

/// Transport protocols that rules name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One condition of a rule; all must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Transport(Transport),
    /// Needs a [`Condition::Transport`] before it: only then is there a port.
    Port {
        port: u16,
        equal: bool,
    },
    Destination {
        network: IpNet,
        equal: bool,
    },
    Source(IpAddr),
    /// The packet goes out through loopback.
    ToLoopback,
    Uid(u32),
    Gid(u32),
}

/// How a rule ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    /// To this port of the machine itself.
    Redirect(u16),
    /// With a TCP reset.
    Reset,
    /// With "port unreachable"; a UDP client's `send` fails with `EPERM`.
    Unreachable,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) verdict: Verdict,
}

/// A base chain's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChainKind {
    Nat,
    Filter,
}

impl ChainKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }

    /// `NF_IP_PRI_NAT_DST` and `NF_IP_PRI_FILTER`.
    pub(crate) const fn priority(self) -> i32 {
        match self {
            Self::Nat => -100,
            Self::Filter => 0,
        }
    }
}

/// Where a base chain hooks in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Prerouting,
    Output,
}

impl Hook {
    const fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Output => "output",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) kind: ChainKind,
    pub(crate) hook: Hook,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) family: Family,
    pub(crate) chains: Vec<Chain>,
}

/// The tables that [`super::install`] installs. `to_string` gives them in nft's syntax.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    pub(crate) tables: Vec<Table>,
}

/// The rules of one family.
pub(crate) fn compile(wanted: &CaptureRules) -> Ruleset {
    let mut tables = vec![table(wanted, Family::Ip)];
    if wanted.ipv6 || wanted.isolate {
        tables.push(table(wanted, Family::Ip6));
    }
    Ruleset { tables }
}

fn table(wanted: &CaptureRules, family: Family) -> Table {
    let mut chains = Vec::new();
    if family == Family::Ip || wanted.ipv6 {
        chains.push(Chain {
            name: "capture-outbound",
            kind: ChainKind::Nat,
            hook: Hook::Output,
            rules: outbound(wanted, family),
        });
        if let Some(port) = wanted.inbound_port {
            chains.push(Chain {
                name: "capture-inbound",
                kind: ChainKind::Nat,
                hook: Hook::Prerouting,
                rules: inbound(wanted, port),
            });
        }
    }
    if wanted.isolate {
        chains.push(Chain {
            name: "isolate",
            kind: ChainKind::Filter,
            hook: Hook::Output,
            rules: isolation(wanted, family),
        });
    }
    Table { family, chains }
}

/// A list of rules under construction.
#[derive(Default)]
struct Rules(Vec<Rule>);

impl Rules {
    fn add(&mut self, conditions: &[Condition], verdict: Verdict) {
        self.0.push(Rule {
            conditions: conditions.to_vec(),
            verdict,
        });
    }
}

const TCP: Condition = Condition::Transport(Transport::Tcp);
const UDP: Condition = Condition::Transport(Transport::Udp);

const fn to_port(port: u16) -> Condition {
    Condition::Port { port, equal: true }
}

const fn to(network: IpNet) -> Condition {
    Condition::Destination { network, equal: true }
}

fn exempt(wanted: &CaptureRules) -> impl Iterator<Item = Condition> {
    wanted
        .exempt_uid
        .map(Condition::Uid)
        .into_iter()
        .chain(wanted.exempt_gid.map(Condition::Gid))
}

fn of_family(networks: &[IpNet], family: Family) -> impl Iterator<Item = IpNet> {
    networks
        .iter()
        .copied()
        .filter(move |network| family.has(network.addr()))
}

fn own(wanted: &CaptureRules, family: Family) -> impl Iterator<Item = IpNet> {
    wanted
        .own_addresses
        .iter()
        .filter(move |address| family.has(**address))
        .map(|address| (*address).into())
}

fn outbound(wanted: &CaptureRules, family: Family) -> Vec<Rule> {
    let mut rules = Rules::default();
    if let Some(inbound) = wanted.inbound_port {
        // From the inbound listener to the application: home.
        rules.add(
            &[Condition::Source(family.inbound_source()), Condition::ToLoopback],
            Verdict::Accept,
        );
        // The sidecar calls its own workload through its service's address: that is an arrival, policies apply.
        let elsewhere = Condition::Destination {
            network: family.loopback().into(),
            equal: false,
        };
        for who in exempt(wanted) {
            let tunnel = Condition::Port {
                port: TUNNEL_PORT,
                equal: false,
            };
            rules.add(
                &[TCP, tunnel, Condition::ToLoopback, elsewhere, who],
                Verdict::Redirect(inbound),
            );
        }
    }
    for who in exempt(wanted) {
        rules.add(&[who], Verdict::Accept);
    }
    for &port in &wanted.exclude_outbound_ports {
        rules.add(&[TCP, to_port(port)], Verdict::Accept);
    }
    if let Some(port) = wanted.dns_port {
        // Before the exclusion of 127.0.0.0/8: a resolver on 127.0.0.53 is a resolver.
        for transport in [UDP, TCP] {
            if wanted.dns_servers.is_empty() {
                rules.add(&[transport, to_port(53)], Verdict::Redirect(port));
            }
            for &server in wanted.dns_servers.iter().filter(|server| family.has(**server)) {
                rules.add(
                    &[transport, to_port(53), to(server.into())],
                    Verdict::Redirect(port),
                );
            }
        }
    }
    for address in own(wanted, family) {
        rules.add(&[to(address)], Verdict::Accept);
    }
    let redirect = Verdict::Redirect(wanted.outbound_port);
    for network in of_family(&wanted.exclude_outbound, family) {
        rules.add(&[to(network)], Verdict::Accept);
    }
    for network in of_family(&wanted.capture_loopback, family) {
        rules.add(&[TCP, to(network)], redirect);
    }
    rules.add(&[to(family.loopback_network())], Verdict::Accept);
    if wanted.include_outbound.is_empty() {
        rules.add(&[TCP], redirect);
    }
    for network in of_family(&wanted.include_outbound, family) {
        rules.add(&[TCP, to(network)], redirect);
    }
    rules.0
}

fn inbound(wanted: &CaptureRules, port: u16) -> Vec<Rule> {
    let mut rules = Rules::default();
    for &excluded in &wanted.exclude_inbound_ports {
        rules.add(&[TCP, to_port(excluded)], Verdict::Accept);
    }
    match &wanted.include_inbound_ports {
        None => rules.add(&[TCP], Verdict::Redirect(port)),
        Some(included) => {
            for &included in included {
                rules.add(&[TCP, to_port(included)], Verdict::Redirect(port));
            }
        }
    }
    rules.0
}

fn isolation(wanted: &CaptureRules, family: Family) -> Vec<Rule> {
    let mut rules = Rules::default();
    for who in exempt(wanted) {
        rules.add(&[who], Verdict::Accept);
    }
    // What was redirected has a loopback destination by now.
    rules.add(&[to(family.loopback_network())], Verdict::Accept);
    for address in own(wanted, family) {
        rules.add(&[to(address)], Verdict::Accept);
    }
    rules.add(&[TCP], Verdict::Reset);
    rules.add(&[], Verdict::Unreachable);
    rules.0
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = |equal: bool| if equal { "" } else { "!= " };
        match *self {
            Self::Transport(transport) => write!(formatter, "meta l4proto {transport}"),
            Self::Port { port, equal } => write!(formatter, "th dport {}{port}", operator(equal)),
            Self::Destination { network, equal } => {
                let family = if network.addr().is_ipv4() {
                    Family::Ip
                } else {
                    Family::Ip6
                };
                write!(formatter, "{family} daddr {}{network}", operator(equal))
            }
            Self::Source(address) => {
                let family = if address.is_ipv4() {
                    Family::Ip
                } else {
                    Family::Ip6
                };
                write!(formatter, "{family} saddr {address}")
            }
            Self::ToLoopback => formatter.write_str("oif \"lo\""),
            Self::Uid(id) => write!(formatter, "meta skuid {id}"),
            Self::Gid(id) => write!(formatter, "meta skgid {id}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => formatter.write_str("accept"),
            Self::Redirect(port) => write!(formatter, "redirect to :{port}"),
            Self::Reset => formatter.write_str("reject with tcp reset"),
            Self::Unreachable => formatter.write_str("reject"),
        }
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            writeln!(formatter, "table {} {TABLE} {{", table.family)?;
            for chain in &table.chains {
                writeln!(formatter, "\tchain {} {{", chain.name)?;
                writeln!(
                    formatter,
                    "\t\ttype {} hook {} priority {}; policy accept;",
                    chain.kind.name(),
                    chain.hook.name(),
                    chain.kind.priority()
                )?;
                for rule in &chain.rules {
                    formatter.write_str("\t\t")?;
                    for condition in &rule.conditions {
                        write!(formatter, "{condition} ")?;
                    }
                    writeln!(formatter, "{}", rule.verdict)?;
                }
                writeln!(formatter, "\t}}")?;
            }
            writeln!(formatter, "}}")?;
        }
        Ok(())
    }
}
