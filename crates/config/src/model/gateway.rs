//! Gateways: what a proxy at the mesh's edge listens on, for whom, and with which certificates.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use bytes::Bytes;
use rajut_types::{Hostname, Labels, Origin, Text};

/// What gateway workloads serve. Source: Istio `Gateway`.
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// Its name.
    pub name: Text,
    /// Its namespace.
    pub namespace: Text,
    /// Labels of the gateway workloads, in any namespace; empty is every gateway workload.
    pub selector: Labels,
    /// In order.
    pub servers: Vec<GatewayServer>,
    /// Where.
    pub origin: Origin,
    /// Smaller is older.
    pub age: u64,
}

impl Gateway {
    /// `namespace/name`, as virtual services name it.
    pub fn key(&self) -> Text {
        format!("{}/{}", self.namespace, self.name).into()
    }
}

/// A port of a gateway with the hosts that are served there.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayServer {
    /// May be empty; for people.
    pub name: Text,
    /// The port that clients dial: that of the gateway's service.
    pub port: u16,
    /// The port's name.
    pub port_name: Text,
    /// What is spoken there.
    pub protocol: GatewayProtocol,
    /// Listens on this address alone.
    pub bind: Option<IpAddr>,
    /// At least one.
    pub hosts: Vec<GatewayHost>,
    /// `None`: plaintext.
    pub tls: Option<ServerTls>,
    /// Plaintext requests are answered 301 with the `https` form of their address.
    pub https_redirect: bool,
    /// Where.
    pub origin: Origin,
}

impl GatewayServer {
    /// Whether requests are told apart here, with TLS ended first or without TLS.
    pub fn serves_http(&self) -> bool {
        match (self.protocol, &self.tls) {
            (GatewayProtocol::Http, _) => true,
            (GatewayProtocol::Https, Some(tls)) => tls.mode != ServerTlsMode::Passthrough,
            _ => false,
        }
    }

    /// Whether connections begin with TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

/// What is spoken at a gateway's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GatewayProtocol {
    /// HTTP of any version without TLS (`HTTP`, `HTTP2`, `GRPC`, `GRPC-WEB`).
    Http,
    /// HTTP over TLS.
    Https,
    /// Bytes over TLS.
    Tls,
    /// Bytes.
    Tcp,
}

/// A host of a server, and whose virtual services may serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayHost {
    /// `None`: those of every namespace.
    pub namespace: Option<Text>,
    /// Exact, or with a wildcard at the left end.
    pub host: Hostname,
}

/// The TLS of a server. Source: Istio `ServerTLSSettings`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerTls {
    /// What is done with it.
    pub mode: ServerTlsMode,
    /// Where certificate, key and roots come from; `None` for PASSTHROUGH and the mesh's own certificate.
    pub credential: Option<Credential>,
    /// The client's certificate must have one of these names.
    pub subject_alt_names: Vec<Text>,
    /// SHA-256 of clients' public keys that are taken, in base64; with those of certificates empty: any.
    pub key_pins: Vec<Text>,
    /// SHA-256 of clients' certificates that are taken, in hexadecimal, perhaps with colons.
    pub certificate_pins: Vec<Text>,
    /// Lowest version; `None` is 1.2.
    pub min_version: Option<TlsProtocol>,
    /// Highest version; `None` is 1.3.
    pub max_version: Option<TlsProtocol>,
    /// Where.
    pub origin: Origin,
}

/// What a server does with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerTlsMode {
    /// Ends it with the server's certificate.
    Simple,
    /// Ends it, and asks for the client's certificate.
    Mutual,
    /// Ends it, and judges the client's certificate where there is one.
    OptionalMutual,
    /// Ends it with the gateway's own mesh identity, for clients of the mesh.
    IstioMutual,
    /// Leaves it as it is; the server name says where it goes.
    Passthrough,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsProtocol {
    /// 1.2.
    V1_2,
    /// 1.3.
    V1_3,
}

/// Where a server's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A `Secret` of the gateway workload's namespace.
    Secret {
        /// Its name.
        name: Text,
        /// The secret with the roots for clients; `None`: the same, or `<name>-cacert`.
        roots: Option<Text>,
    },
    /// Files that the gateway's proxy reads.
    Files {
        /// PEM, leaf first.
        chain: Text,
        /// PEM.
        key: Text,
        /// PEM, for MUTUAL.
        roots: Option<Text>,
    },
}

/// A Kubernetes `Secret`, as far as gateways and environments use it: never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub name: Text,
    /// Its namespace.
    pub namespace: Text,
    /// Those of [`Secret::KEYS`] that it has, for gateways.
    pub data: BTreeMap<Text, Bytes>,
    /// Every key whose value is text, for environments.
    pub texts: BTreeMap<Text, Text>,
    /// Where.
    pub origin: Origin,
}

impl Secret {
    /// The keys that gateways read.
    pub const KEYS: [&'static str; 6] = ["tls.crt", "tls.key", "ca.crt", "cert", "key", "cacert"];

    /// Certificate chain and key, PEM: of `kubernetes.io/tls`, or of a generic secret.
    pub fn key_pair(&self) -> Option<(&Bytes, &Bytes)> {
        let pair = |chain, key| Some((self.data.get(chain)?, self.data.get(key)?));
        pair("cert", "key").or_else(|| pair("tls.crt", "tls.key"))
    }

    /// Roots that clients are judged by, PEM.
    pub fn roots(&self) -> Option<&Bytes> {
        self.data.get("cacert").or_else(|| self.data.get("ca.crt"))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("name", &self.name)
            .field("namespace", &self.namespace)
            .field("keys", &self.texts.keys())
            .finish_non_exhaustive()
    }
}
