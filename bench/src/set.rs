//! The sets: what each measures, between which ends, and who takes part.

use anyhow::{Result, bail};

use crate::peer::Peer::{
    self, Direct, Envoy, EnvoyOff, Haproxy, HaproxySplice, Nginx, Rajut, RajutOff, Relay, RelaySplice,
};
use crate::shape;

/// How a set is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Requests: saturated, then at a fixed rate.
    Requests,
    /// Bulk bytes, then small messages as requests.
    Tcp,
    /// Started, one request answered, left alone.
    Idle,
    /// Many connections, each with one request behind it, left alone.
    Held,
    /// Each request on a connection of its own.
    Fresh,
    /// A mesh's whole configuration of which a little is used.
    Large,
}

/// What stands between the load and the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// One hop without TLS, HTTP (or opaque bytes) as the load speaks it.
    Plain,
    /// One hop that terminates mutual TLS.
    TlsIn,
    /// Two hops with mutual TLS between them; true: HTTP/2 inside.
    TlsBetween { http2: bool },
}

/// Where a set's requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// HTTP/1.1, 1 KiB.
    Http1,
    /// HTTP/1.1, no body.
    Empty,
    /// HTTP/1.1, 64 KiB.
    Big,
    Http2,
    Grpc,
    /// Opaque: bytes without end, and each byte back.
    Opaque,
}

/// One set. Compared by name.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) kind: Kind,
    pub(crate) way: Way,
    pub(crate) answers: Answers,
    /// What the load generator speaks (`--proto`).
    pub(crate) protocol: &'static str,
    pub(crate) connections: usize,
    /// Access rules that stand before the router; with any, everything else is on too.
    pub(crate) policies: usize,
    pub(crate) peers: &'static [Peer],
}

const HTTP: &[Peer] = &[Direct, Relay, Rajut, Envoy, Haproxy, Nginx];
/// nginx speaks no HTTP/2 to its backends; it is named as absent.
const TCP: &[Peer] = &[
    Direct,
    Relay,
    RelaySplice,
    Rajut,
    Envoy,
    Haproxy,
    HaproxySplice,
    Nginx,
];
/// Everything on, with the same hop with everything off in the same rounds.
const ON: &[Peer] = &[Direct, Relay, Rajut, RajutOff, Envoy, EnvoyOff, Haproxy, Nginx];
const IDLE: &[Peer] = &[Relay, Rajut, Envoy, Haproxy, Nginx];
const HELD: &[Peer] = &[Rajut, Envoy, Haproxy, Nginx];
const OURS: &[Peer] = &[Rajut, Envoy];

const PLAIN: Set = Set {
    name: "http1",
    title: "HTTP/1.1, one hop, 1 KiB, 3 request headers",
    kind: Kind::Requests,
    way: Way::Plain,
    answers: Answers::Http1,
    protocol: "http1",
    connections: 32,
    policies: 0,
    peers: HTTP,
};

/// All of them, in the order in which they run and are printed.
pub(crate) const ALL: &[Set] = &[
    PLAIN,
    Set {
        name: "http1-0",
        title: "HTTP/1.1, one hop, empty answers, 3 request headers",
        answers: Answers::Empty,
        ..PLAIN
    },
    Set {
        name: "http1-64k",
        title: "HTTP/1.1, one hop, 64 KiB, 3 request headers",
        answers: Answers::Big,
        ..PLAIN
    },
    Set {
        name: "http1-16",
        title: "HTTP/1.1, one hop, 1 KiB, 16 request headers as a browser sends them",
        protocol: "http1-16",
        ..PLAIN
    },
    Set {
        name: "all-on",
        title: "everything on: RBAC of 7 policies, local rate limit, JSON access log of 24 fields, tracing at 1 %, \
                statistics; HTTP/1.1, 1 KiB, 16 request headers (`-off`: the same hop without; HAProxy, nginx: plain)",
        protocol: "http1-16",
        policies: 7,
        peers: ON,
        ..PLAIN
    },
    Set {
        name: "all-on-500",
        title: "everything on with RBAC of 500 policies (`-off`: the same hop without; HAProxy, nginx: plain)",
        protocol: "http1-16",
        policies: 500,
        peers: ON,
        ..PLAIN
    },
    Set {
        name: "tls2",
        title: "two hops with mutual TLS 1.3 between them, HTTP/1.1, 1 KiB (both proxies together)",
        way: Way::TlsBetween { http2: false },
        ..PLAIN
    },
    Set {
        name: "tls2-h2",
        title: "two hops with mutual TLS 1.3 and HTTP/2 between them, HTTP/1.1 outside, 1 KiB (both proxies together)",
        way: Way::TlsBetween { http2: true },
        ..PLAIN
    },
    Set {
        name: "http2",
        title: "HTTP/2 without TLS, one hop, 1 KiB, 8 connections × 10 streams",
        answers: Answers::Http2,
        protocol: "http2",
        connections: 8,
        ..PLAIN
    },
    Set {
        name: "grpc",
        title: "gRPC unary calls, one hop, 64 B asked, 1 KiB answered, 8 connections × 10 streams",
        answers: Answers::Grpc,
        protocol: "grpc",
        connections: 8,
        ..PLAIN
    },
    Set {
        name: "grpc-stream",
        title: "gRPC streams of 32 messages each way (64 B asked, 1 KiB answered), one hop, 8 connections × 10 streams; \
                a request is one message and its answer",
        answers: Answers::Grpc,
        protocol: "grpc-stream",
        connections: 8,
        ..PLAIN
    },
    Set {
        name: "tcp",
        title: "opaque TCP without TLS: 4 bulk connections; 64-byte messages on 32 connections",
        kind: Kind::Tcp,
        answers: Answers::Opaque,
        protocol: "echo",
        peers: TCP,
        ..PLAIN
    },
    Set {
        name: "tcp-mtls",
        title: "opaque TCP, two hops with mutual TLS 1.3 between them (both proxies together): 4 bulk connections; \
                64-byte messages on 32 connections",
        kind: Kind::Tcp,
        way: Way::TlsBetween { http2: false },
        answers: Answers::Opaque,
        protocol: "echo",
        ..PLAIN
    },
    Set {
        name: "idle-memory",
        title: "started and idle: one listener, one cluster",
        kind: Kind::Idle,
        peers: IDLE,
        ..PLAIN
    },
    Set {
        name: "held",
        title: "idle HTTP/1.1 connections, each with one request behind it",
        kind: Kind::Held,
        peers: HELD,
        ..PLAIN
    },
    Set {
        name: "held-tls",
        title: "idle HTTP/1.1 connections under mutual TLS 1.3, each with one request behind it",
        kind: Kind::Held,
        way: Way::TlsIn,
        peers: HELD,
        ..PLAIN
    },
    Set {
        name: "fresh",
        title: "a new connection for each request, HTTP/1.1, 1 KiB, 32 at a time",
        kind: Kind::Fresh,
        ..PLAIN
    },
    Set {
        name: "fresh-tls",
        title: "a new connection with a full handshake of mutual TLS 1.3 for each request, HTTP/1.1, 1 KiB, 32 at a time",
        kind: Kind::Fresh,
        way: Way::TlsIn,
        peers: HELD,
        ..PLAIN
    },
    Set {
        name: "large",
        title: "1,000 services × 10 endpoints known, 300 with rules of their own; 10 used, then 50 others asked once each",
        kind: Kind::Large,
        protocol: "http1-large",
        peers: OURS,
        ..PLAIN
    },
];

/// The set of that name.
pub(crate) fn named(name: &str) -> Result<&'static Set> {
    let Some(set) = ALL.iter().find(|set| set.name == name) else {
        let names: Vec<&str> = ALL.iter().map(|set| set.name).collect();
        bail!("no set {name}; there are {}", names.join(", "));
    };
    Ok(set)
}

impl PartialEq for Set {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Set {
    /// Whether two hops lie one behind the other.
    pub(crate) fn two_hops(&self) -> bool {
        matches!(self.way, Way::TlsBetween { .. })
    }

    /// Whether the load generator itself speaks TLS.
    pub(crate) fn load_speaks_tls(&self) -> bool {
        self.way == Way::TlsIn
    }

    /// The body of every answer, in bytes (gRPC: a message with its prefix).
    pub(crate) fn body(&self) -> usize {
        match self.answers {
            Answers::Empty => 0,
            Answers::Big => shape::BIG_BYTES,
            Answers::Http1 | Answers::Http2 | Answers::Grpc | Answers::Opaque => shape::BODY_BYTES,
        }
    }

    /// Whether any certificate is needed.
    pub(crate) fn needs_certificates(&self) -> bool {
        self.way != Way::Plain
    }
}

/// The large configuration, the same on both ends: which addresses its services have, and which of them are used.
pub(crate) mod large {
    pub(crate) const SERVICES: usize = 1000;
    pub(crate) const ENDPOINTS: usize = 10;
    /// So many of the services have rules of their own, as a virtual service gives them.
    pub(crate) const RULED: usize = 300;

    /// The services that the load uses.
    pub(crate) fn used() -> impl Iterator<Item = usize> {
        (0..10).map(|n| n * 100)
    }

    /// Services that are asked once after the load.
    pub(crate) fn unused() -> impl Iterator<Item = usize> {
        (0..50).map(|n| 13 + n * 19)
    }

    pub(crate) fn host(service: usize) -> String {
        format!("service-{service}.bench.svc.cluster.local")
    }

    /// The address of one copy: each its own, all of this machine.
    pub(crate) fn address(service: usize, endpoint: usize) -> String {
        format!("127.{}.{}.{}", 10 + endpoint, service / 250, 1 + service % 250)
    }
}
