//! Peer authentication and authorization.

use std::collections::BTreeMap;

use ipnet::IpNet;
use rajut_types::{Labels, Origin, Text};

/// How a workload's sidecar takes connections. Source: Istio `PeerAuthentication`.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerAuthentication {
    /// Its name.
    pub name: Text,
    /// Its namespace; the root namespace makes it mesh-wide.
    pub namespace: Text,
    /// `None`: the whole namespace (or mesh).
    pub selector: Option<Labels>,
    /// `None` inherits.
    pub mode: Option<MtlsMode>,
    /// By the workload's port; `None` inherits the mode of this policy.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
    /// Where.
    pub origin: Origin,
    /// Smaller is older.
    pub age: u64,
}

/// Whether mTLS is asked of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MtlsMode {
    /// Plaintext only.
    Disable,
    /// Both.
    Permissive,
    /// mTLS only.
    Strict,
}

/// Which calls a workload's sidecar lets through. Source: Istio `AuthorizationPolicy`.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthorizationPolicy {
    /// Its name.
    pub name: Text,
    /// Its namespace; the root namespace makes it mesh-wide.
    pub namespace: Text,
    /// `None`: the whole namespace (or mesh).
    pub selector: Option<Labels>,
    /// What happens to calls for which a rule holds.
    pub action: AuthorizationAction,
    /// Whom to ask, by its name among the mesh's providers. Of the action `Custom` alone, which needs one.
    pub provider: Option<Text>,
    /// It is only counted (`istio.io/dry-run: "true"`).
    pub dry_run: bool,
    /// What is open and would be refused after a change of the rules is ended (`mesh.rajut.dev/close-open: "true"`). Of the actions
    /// `Allow` and `Deny`; one such policy of a workload is enough for all of them.
    pub closes_open: bool,
    /// One must hold. Without any, no call is meant: `Allow` then refuses everything.
    pub rules: Vec<AuthorizationRule>,
    /// Where.
    pub origin: Origin,
    /// Smaller is older.
    pub age: u64,
}

/// What happens to calls for which a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthorizationAction {
    /// Somebody else is asked whether they pass.
    Custom,
    /// They are noted.
    Audit,
    /// They are refused.
    Deny,
    /// They pass; a workload that has such a policy refuses all others.
    Allow,
}

/// Holds if one source, one operation and all conditions do; an empty list holds always.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthorizationRule {
    /// Who calls.
    pub sources: Vec<AuthorizationSource>,
    /// What is asked for.
    pub operations: Vec<AuthorizationOperation>,
    /// What else must hold.
    pub conditions: Vec<AuthorizationCondition>,
    /// In its policy's source.
    pub line: u32,
}

/// Values of which one must hold, and values of which none may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values<T> {
    /// One must hold; empty: anything.
    pub any: Vec<T>,
    /// None may hold.
    pub none: Vec<T>,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self {
            any: Vec::new(),
            none: Vec::new(),
        }
    }
}

impl<T> Values<T> {
    /// Whether nothing is asked.
    pub const fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }
}

/// A text with at most one wildcard, at one of its ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Wild {
    /// The text itself.
    Exact(Text),
    /// `text*`
    Prefix(Text),
    /// `*text`
    Suffix(Text),
    /// `*`: any, but there must be one.
    Present,
}

/// A path: a text with a wildcard, or a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// A text.
    Wild(Wild),
    /// `/a/{*}/b/{**}`, as written.
    Template(Text),
}

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccountName {
    /// Its namespace.
    pub namespace: Text,
    /// Its name.
    pub name: Text,
}

/// Who calls; all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthorizationSource {
    /// Identities, without `spiffe://`.
    pub principals: Values<Wild>,
    /// Namespaces of identities, whatever their trust domain.
    pub namespaces: Values<Wild>,
    /// Service accounts of identities, whatever their trust domain.
    pub service_accounts: Values<ServiceAccountName>,
    /// Trust domains of identities.
    pub trust_domains: Values<Wild>,
    /// Addresses of the connection's other end.
    pub ip_blocks: Values<IpNet>,
    /// Addresses of the client, as trusted proxies tell it.
    pub remote_ip_blocks: Values<IpNet>,
    /// `ISSUER/SUBJECT` of the token that was verified. HTTP only.
    pub request_principals: Values<Wild>,
}

/// What is asked for; all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthorizationOperation {
    /// `:authority`, letter case aside. HTTP only.
    pub hosts: Values<Wild>,
    /// The workload's port.
    pub ports: Values<u16>,
    /// HTTP only.
    pub methods: Values<Wild>,
    /// Without the query. HTTP only.
    pub paths: Values<PathPattern>,
}

/// A condition of `when`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthorizationCondition {
    /// A request header, by its name in lower case. HTTP only.
    Header(Text, Values<Wild>),
    /// As [`AuthorizationSource::ip_blocks`].
    SourceIp(Values<IpNet>),
    /// As [`AuthorizationSource::remote_ip_blocks`].
    RemoteIp(Values<IpNet>),
    /// As [`AuthorizationSource::namespaces`].
    SourceNamespace(Values<Wild>),
    /// As [`AuthorizationSource::principals`].
    SourcePrincipal(Values<Wild>),
    /// As [`AuthorizationSource::service_accounts`].
    SourceServiceAccount(Values<ServiceAccountName>),
    /// As [`AuthorizationSource::trust_domains`].
    SourceTrustDomain(Values<Wild>),
    /// The address that was dialled.
    DestinationIp(Values<IpNet>),
    /// As [`AuthorizationOperation::ports`].
    DestinationPort(Values<u16>),
    /// The server name of the TLS client hello.
    ServerName(Values<Wild>),
    /// As [`AuthorizationSource::request_principals`].
    RequestPrincipal(Values<Wild>),
    /// A claim of the token that was verified, by the names that lead to it: a text, or a list with such a text. HTTP only.
    Claim(Vec<Text>, Values<Wild>),
}
