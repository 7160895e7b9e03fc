//! Mesh-wide settings and namespaces.

use std::time::Duration;

use rajut_types::{Labels, Origin, Text, TrustDomain};

use super::{ConnectionPool, Retries};

/// Settings of the whole mesh. Source: Istio `MeshConfig` (ConfigMap `istio`, key `mesh`).
#[derive(Debug, Clone, PartialEq)]
pub struct MeshConfig {
    /// Default `cluster.local`.
    pub trust_domain: TrustDomain,
    /// Also accepted as the local trust domain.
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// Where mesh-wide policies live; default `istio-system`.
    pub root_namespace: Text,
    /// DNS suffix of services; default `cluster.local`.
    pub domain: Text,
    /// Default `ALLOW_ANY`.
    pub outbound_policy: OutboundPolicy,
    /// Clients use mTLS where the endpoint speaks it; default true.
    pub auto_mtls: bool,
    /// Default 10 s.
    pub connect_timeout: Duration,
    /// How long a server-first protocol is waited for; Istio's default 0 waits for ever, ours is short and bounded.
    pub protocol_detection_timeout: Duration,
    /// Default `DO_NOT_UPGRADE`.
    pub h2_upgrade: bool,
    /// Retries where a route has none.
    pub default_retries: Option<Retries>,
    /// Default under every `DestinationRule`.
    pub default_connection_pool: Option<ConnectionPool>,
    /// Access log of every proxy; `None` is off.
    pub access_log: Option<AccessLogSettings>,
    /// Default exports of services, virtual services and destination rules.
    pub default_export: [Visibility; 3],
    /// Path normalisation; default BASE.
    pub path_normalization: PathNormalization,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            trust_domain_aliases: Vec::new(),
            root_namespace: "istio-system".into(),
            domain: "cluster.local".into(),
            outbound_policy: OutboundPolicy::AllowAny,
            auto_mtls: true,
            connect_timeout: Duration::from_secs(10),
            protocol_detection_timeout: Duration::from_secs(1),
            h2_upgrade: false,
            default_retries: None,
            default_connection_pool: None,
            access_log: None,
            default_export: [Visibility::All, Visibility::All, Visibility::All],
            path_normalization: PathNormalization::Base,
        }
    }
}

/// What happens to traffic whose destination the mesh does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboundPolicy {
    /// It goes to the dialled address.
    AllowAny,
    /// HTTP is answered 502, TCP is closed.
    RegistryOnly,
}

/// Istio `MeshConfig.pathNormalization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathNormalization {
    /// As received.
    None,
    /// RFC 3986 dot segments and backslashes.
    Base,
    /// Also `//`.
    MergeSlashes,
    /// Also `%2F` and `%5C`.
    DecodeAndMergeSlashes,
}

/// Istio `accessLogFile`, `accessLogFormat`, `accessLogEncoding`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogSettings {
    /// A path; `/dev/stdout` is standard output.
    pub file: Text,
    /// Empty is Istio's default.
    pub format: Text,
    /// JSON instead of text.
    pub json: bool,
}

/// Who may see an object (`exportTo`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    /// `*`
    All,
    /// `~`
    Nobody,
    /// These namespaces (`.` is already resolved).
    Namespaces(Vec<Text>),
}

impl Visibility {
    /// Whether a client in `namespace` may see it.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Nobody => false,
            Self::Namespaces(names) => names.iter().any(|name| &**name == namespace),
        }
    }
}

/// A namespace that somebody wrote down.
#[derive(Debug, Clone, PartialEq)]
pub struct Namespace {
    /// Its name.
    pub name: Text,
    /// Its labels.
    pub labels: Labels,
    /// Where.
    pub origin: Origin,
}
