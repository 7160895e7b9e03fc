//! From tables to nfnetlink transactions. Numbers are those of `linux/netfilter/nf_tables.h` and
//! `linux/netfilter/nfnetlink.h`.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::linux::netlink::{ACK, APPEND, CREATE, Messages, Request};
use crate::linux::network::LOOPBACK_INDEX;
use crate::nftables::TABLE;
use crate::nftables::rules::{Chain, ChainKind, Condition, Family, Hook, Rule, Table, Transport, Verdict};

impl Transport {
    /// `IPPROTO_TCP`, `IPPROTO_UDP`.
    const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl Hook {
    /// `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_OUT`.
    const fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Output => 3,
        }
    }
}

const SUBSYSTEM_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_NUMBER: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEMENT: u16 = 1;
const NFTA_EXPRESSION_NAME: u16 = 1;
const NFTA_EXPRESSION_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;

/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;
/// The register for verdicts.
const VERDICT_REGISTER: u32 = 0;
/// The 16-byte register that all expressions here use.
const REGISTER: u32 = 1;

const META_OIF: u32 = 5;
const META_UID: u32 = 10;
const META_GID: u32 = 11;
const META_TRANSPORT: u32 = 16;

const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;

const COMPARE_EQUAL: u32 = 0;
const COMPARE_DIFFERENT: u32 = 1;

const REJECT_ICMP: u32 = 0;
const REJECT_RESET: u32 = 1;

impl Family {
    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
    const fn number(self) -> u8 {
        match self {
            Self::Ip => 2,
            Self::Ip6 => 10,
        }
    }

    /// The code for "port unreachable" in `ICMP` and `ICMPv6`.
    const fn port_unreachable(self) -> u8 {
        match self {
            Self::Ip => 3,
            Self::Ip6 => 4,
        }
    }
}

/// A transaction: nothing of it happens unless all of it can.
struct Batch {
    messages: Messages,
}

impl Batch {
    fn new() -> Self {
        let mut batch = Self {
            messages: Messages::default(),
        };
        batch.bracket(BATCH_BEGIN);
        batch
    }

    fn bracket(&mut self, kind: u16) {
        let [high, low] = SUBSYSTEM_NFTABLES.to_be_bytes();
        self.messages.message(kind, 0, &[0, 0, high, low], |_| {});
    }

    fn add(&mut self, operation: u16, flags: u16, family: Family, body: impl FnOnce(&mut Messages)) {
        let kind = (SUBSYSTEM_NFTABLES << 8) | operation;
        self.messages
            .message(kind, flags, &[family.number(), 0, 0, 0], body);
    }

    /// Ends the transaction. The kernel answers the last operation, which must ask for it: `BATCH_END` itself
    /// is never answered.
    fn finish(mut self) -> io::Result<Request> {
        let last = self.messages.count();
        self.bracket(BATCH_END);
        let request = self.messages.finish()?;
        Ok(Request { last, ..request })
    }

    fn new_table(&mut self, family: Family, flags: u16) {
        self.add(NEW_TABLE, CREATE | flags, family, |message| {
            message.text(NFTA_TABLE_NAME, TABLE);
        });
    }

    fn delete_table(&mut self, family: Family, flags: u16) {
        self.add(DELETE_TABLE, flags, family, |message| {
            message.text(NFTA_TABLE_NAME, TABLE);
        });
    }
}

/// Replaces our table of that family, whether or not it exists.
pub(crate) fn replace_table(table: &Table) -> io::Result<Request> {
    let mut batch = Batch::new();
    batch.new_table(table.family, 0);
    batch.delete_table(table.family, 0);
    batch.new_table(table.family, 0);
    for chain in &table.chains {
        new_chain(&mut batch, table.family, chain);
        for rule in &chain.rules {
            new_rule(&mut batch, table.family, chain.name, rule);
        }
    }
    // Creating what exists does nothing; it is here to be answered.
    batch.new_table(table.family, ACK);
    batch.finish()
}

/// Removes our table of that family, whether or not it exists.
pub(crate) fn remove_table(family: Family) -> io::Result<Request> {
    let mut batch = Batch::new();
    batch.new_table(family, 0);
    batch.delete_table(family, ACK);
    batch.finish()
}

/// A transaction that needs everything that the real ones need, for asking the kernel whether it can.
pub(crate) fn probe_request() -> io::Result<Request> {
    let redirect = |transport| Rule {
        conditions: vec![
            Condition::Transport(transport),
            Condition::Port {
                port: 53,
                equal: true,
            },
        ],
        verdict: Verdict::Redirect(crate::nftables::DNS_PORT),
    };
    replace_table(&Table {
        family: Family::Ip,
        chains: vec![
            Chain {
                name: "capture-outbound",
                kind: ChainKind::Nat,
                hook: Hook::Output,
                rules: vec![redirect(Transport::Tcp), redirect(Transport::Udp)],
            },
            Chain {
                name: "isolate",
                kind: ChainKind::Filter,
                hook: Hook::Output,
                rules: vec![
                    Rule {
                        conditions: vec![Condition::Transport(Transport::Tcp)],
                        verdict: Verdict::Reset,
                    },
                    Rule {
                        conditions: Vec::new(),
                        verdict: Verdict::Unreachable,
                    },
                ],
            },
        ],
    })
}

fn new_chain(batch: &mut Batch, family: Family, chain: &Chain) {
    batch.add(NEW_CHAIN, CREATE, family, |message| {
        message.text(NFTA_CHAIN_TABLE, TABLE);
        message.text(NFTA_CHAIN_NAME, chain.name);
        message.nested(NFTA_CHAIN_HOOK, |hook| {
            hook.be32(NFTA_HOOK_NUMBER, chain.hook.number());
            hook.be32(NFTA_HOOK_PRIORITY, chain.kind.priority().cast_unsigned());
        });
        message.be32(NFTA_CHAIN_POLICY, ACCEPT);
        message.text(NFTA_CHAIN_TYPE, chain.kind.name());
    });
}

fn new_rule(batch: &mut Batch, family: Family, chain: &str, rule: &Rule) {
    batch.add(NEW_RULE, CREATE | APPEND, family, |message| {
        message.text(NFTA_RULE_TABLE, TABLE);
        message.text(NFTA_RULE_CHAIN, chain);
        message.nested(NFTA_RULE_EXPRESSIONS, |list| {
            for condition in &rule.conditions {
                write_condition(list, *condition);
            }
            write_verdict(list, family, rule.verdict);
        });
    });
}

fn expression(list: &mut Messages, name: &str, data: impl FnOnce(&mut Messages)) {
    list.nested(NFTA_LIST_ELEMENT, |element| {
        element.text(NFTA_EXPRESSION_NAME, name);
        element.nested(NFTA_EXPRESSION_DATA, data);
    });
}

fn meta(list: &mut Messages, key: u32) {
    expression(list, "meta", |data| {
        data.be32(1, REGISTER); // NFTA_META_DREG
        data.be32(2, key); // NFTA_META_KEY
    });
}

fn payload(list: &mut Messages, base: u32, offset: u32, length: u32) {
    expression(list, "payload", |data| {
        data.be32(1, REGISTER); // NFTA_PAYLOAD_DREG
        data.be32(2, base); // NFTA_PAYLOAD_BASE
        data.be32(3, offset); // NFTA_PAYLOAD_OFFSET
        data.be32(4, length); // NFTA_PAYLOAD_LEN
    });
}

fn compare(list: &mut Messages, operation: u32, value: &[u8]) {
    expression(list, "cmp", |data| {
        data.be32(1, REGISTER); // NFTA_CMP_SREG
        data.be32(2, operation); // NFTA_CMP_OP
        data.nested(3, |compared| compared.attribute(NFTA_DATA_VALUE, value)); // NFTA_CMP_DATA
    });
}

fn mask(list: &mut Messages, length: u32, mask: &[u8]) {
    expression(list, "bitwise", |data| {
        data.be32(1, REGISTER); // NFTA_BITWISE_SREG
        data.be32(2, REGISTER); // NFTA_BITWISE_DREG
        data.be32(3, length); // NFTA_BITWISE_LEN
        data.nested(4, |value| value.attribute(NFTA_DATA_VALUE, mask)); // NFTA_BITWISE_MASK
        data.nested(5, |value| value.attribute(NFTA_DATA_VALUE, &vec![0; mask.len()])); // NFTA_BITWISE_XOR
    });
}

const fn comparison(equal: bool) -> u32 {
    if equal { COMPARE_EQUAL } else { COMPARE_DIFFERENT }
}

/// An address's bytes as they are in a packet.
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Loads the source or destination address; returns its length.
fn load_address(list: &mut Messages, v4: bool, destination: bool) -> u32 {
    // Offsets in the headers of RFC 791 and RFC 8200.
    let (offset, length) = match (v4, destination) {
        (true, false) => (12, 4),
        (true, true) => (16, 4),
        (false, false) => (8, 16),
        (false, true) => (24, 16),
    };
    payload(list, BASE_NETWORK, offset, length);
    length
}

fn write_destination(list: &mut Messages, network: IpNet, equal: bool) {
    let length = load_address(list, network.addr().is_ipv4(), true);
    if network.prefix_len() < network.max_prefix_len() {
        mask(list, length, &octets(network.netmask()));
    }
    compare(list, comparison(equal), &octets(network.network()));
}

fn write_condition(list: &mut Messages, condition: Condition) {
    match condition {
        Condition::Transport(transport) => {
            meta(list, META_TRANSPORT);
            compare(list, COMPARE_EQUAL, &[transport.number()]);
        }
        Condition::Port { port, equal } => {
            payload(list, BASE_TRANSPORT, 2, 2);
            compare(list, comparison(equal), &port.to_be_bytes());
        }
        Condition::Destination { network, equal } => write_destination(list, network, equal),
        Condition::Source(address) => {
            load_address(list, address.is_ipv4(), false);
            compare(list, COMPARE_EQUAL, &octets(address));
        }
        // These three are numbers of the kernel's own, so in the machine's order.
        Condition::ToLoopback => {
            meta(list, META_OIF);
            compare(list, COMPARE_EQUAL, &LOOPBACK_INDEX.to_ne_bytes());
        }
        Condition::Uid(id) => {
            meta(list, META_UID);
            compare(list, COMPARE_EQUAL, &id.to_ne_bytes());
        }
        Condition::Gid(id) => {
            meta(list, META_GID);
            compare(list, COMPARE_EQUAL, &id.to_ne_bytes());
        }
    }
}

fn write_verdict(list: &mut Messages, family: Family, verdict: Verdict) {
    match verdict {
        Verdict::Accept => expression(list, "immediate", |data| {
            data.be32(1, VERDICT_REGISTER); // NFTA_IMMEDIATE_DREG
            // NFTA_IMMEDIATE_DATA
            data.nested(2, |value| {
                value.nested(NFTA_DATA_VERDICT, |verdict| {
                    verdict.be32(NFTA_VERDICT_CODE, ACCEPT);
                });
            });
        }),
        Verdict::Redirect(port) => {
            expression(list, "immediate", |data| {
                data.be32(1, REGISTER);
                data.nested(2, |value| value.attribute(NFTA_DATA_VALUE, &port.to_be_bytes()));
            });
            expression(list, "redir", |data| data.be32(1, REGISTER)); // NFTA_REDIR_REG_PROTO_MIN
        }
        Verdict::Reset => expression(list, "reject", |data| data.be32(1, REJECT_RESET)),
        Verdict::Unreachable => expression(list, "reject", |data| {
            data.be32(1, REJECT_ICMP); // NFTA_REJECT_TYPE
            data.attribute(2, &[family.port_unreachable()]); // NFTA_REJECT_ICMP_CODE
        }),
    }
}
