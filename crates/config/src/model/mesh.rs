//! Mesh-wide settings and namespaces.

use std::time::Duration;

use rajut_types::{Hostname, Labels, Origin, Percent, Text, TrustDomain};

use super::{Authorizer, ConnectionPool, LocalitySetting, Recording, Retries, SpanTag};

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
    /// What a client's place means where no `DestinationRule` says; default: nearer places first.
    pub locality: LocalitySetting,
    /// The file of every proxy's access log; `None` is off.
    pub access_log: Option<Text>,
    /// How lines look where a log does not say.
    pub log_format: LogFormat,
    /// Places for logs and spans, by name. Source: `extensionProviders`.
    pub providers: Vec<Provider>,
    /// Logs of workloads that nothing else says anything of.
    pub default_logging: Vec<Text>,
    /// The same of traces; the first counts.
    pub default_tracing: Vec<Text>,
    /// Source: `enableTracing`; default true (without a provider nothing is traced).
    pub tracing: bool,
    /// Of requests whose trace begins in the mesh, where no `Telemetry` says; default 1 % (Istio).
    pub sampling: Percent,
    /// Attributes of spans where no `Telemetry` says.
    pub span_tags: Vec<(Text, SpanTag)>,
    /// Bytes of the path in `http.url`; default 256.
    pub max_path_length: u32,
    /// What logs and spans never show.
    pub redaction: Redaction,
    /// What the recorder keeps of requests.
    pub recording: Recording,
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
            locality: LocalitySetting::Nearest,
            access_log: None,
            log_format: LogFormat::default(),
            providers: Vec::new(),
            default_logging: Vec::new(),
            default_tracing: Vec::new(),
            tracing: true,
            sampling: Percent::from_millionths(10_000),
            span_tags: Vec::new(),
            max_path_length: 256,
            redaction: Redaction::default(),
            recording: Recording::default(),
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

/// How log lines look. Source: Istio `accessLogFormat`, `accessLogEncoding`, `logFormat` of a provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct LogFormat {
    /// A text with operators, or a JSON object of such texts; empty is Istio's default.
    pub text: Text,
    /// JSON instead of text.
    pub json: bool,
}

/// A log that is a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogFile {
    /// A path; `/dev/stdout` is standard output.
    pub path: Text,
    /// How its lines look.
    pub format: LogFormat,
}

/// A named place for logs or spans. Source: Istio `MeshConfig.ExtensionProvider`.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    /// Its name.
    pub name: Text,
    /// What it is.
    pub kind: ProviderKind,
}

/// What a provider is.
#[derive(Debug, Clone, PartialEq)]
pub enum ProviderKind {
    /// `envoyFileAccessLog`; no format: that of the mesh for the provider `envoy`, else Istio's default.
    File {
        /// The file.
        path: Text,
        /// How its lines look.
        format: Option<LogFormat>,
    },
    /// `opentelemetry`.
    OpenTelemetry {
        /// The collector.
        collector: Collector,
        /// Bytes of the path in `http.url`.
        max_path_length: Option<u32>,
    },
    /// `envoyExtAuthzHttp` or `envoyExtAuthzGrpc`.
    ExtAuthz(Box<Authorizer>),
    /// `prometheus`, which needs no telling.
    Prometheus,
    /// Known, and not followed: what names it gets nothing.
    NotFollowed,
}

/// Takes spans by OTLP over gRPC.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Collector {
    /// The service's full name.
    pub host: Hostname,
    /// Its port.
    pub port: u16,
    /// For one export.
    pub timeout: Option<Duration>,
}

/// What logs and spans never show, whatever their formats ask for; beside credentials ([`Redaction::ALWAYS`]).
/// Source: `defaultConfig.proxyMetadata`, keys [`Redaction::HEADERS_KEY`] and [`Redaction::QUERY_KEY`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redaction {
    /// Headers, lower case.
    pub headers: Vec<Text>,
    /// Parameters of queries.
    pub query: Vec<Text>,
}

impl Redaction {
    /// Headers that are credentials.
    pub const ALWAYS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];
    /// Names of headers, with commas between them.
    pub const HEADERS_KEY: &str = "RAJUT_REDACT_HEADERS";
    /// Names of parameters, with commas between them.
    pub const QUERY_KEY: &str = "RAJUT_REDACT_QUERY";

    /// Whether a header's value may not be shown.
    pub fn hides(&self, header: &str) -> bool {
        let is = |name: &str| name.eq_ignore_ascii_case(header);
        Self::ALWAYS.into_iter().any(is) || self.headers.iter().any(|name| is(name))
    }
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

/// The annotation of a namespace whose workloads refuse whoever no policy lets through.
pub const DEFAULT_DENY: &str = "mesh.rajut.dev/default-deny";

/// A namespace that somebody wrote down.
#[derive(Debug, Clone, PartialEq)]
pub struct Namespace {
    /// Its name.
    pub name: Text,
    /// Its labels.
    pub labels: Labels,
    /// Its workloads (those of the root namespace: all) refuse whoever no policy lets through. Annotation
    /// `mesh.rajut.dev/default-deny`.
    pub default_deny: bool,
    /// Where.
    pub origin: Origin,
}
