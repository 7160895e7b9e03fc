//! To and from xDS v3: the only place that decodes it (walk two of `ARCHITECTURE.md`, on both sides of the network).
//!
//! **What is rejected.** The input is xDS as anybody sends it. For each message [`support`] has three lists: *supported*
//! fields, *ignorable* ones (enumerated, reported in [`Decoded::ignored`] so that the proxy counts them), and all
//! others, which are *refused* with the field's full path and what to do instead. Field numbers that this build has
//! never heard of are refused too (they are found in the wire tags, since prost drops them). Values out of range,
//! unknown enumerators, unsupported filters and dangling shapes each have a [`Fault`]. A resource reports **all** its
//! faults at once; nothing of a refused resource is used.
//!
//! **What is degraded.** Nothing silently: what is left out is in `ignored`.
//!
//! Defaults of Envoy are filled in here and nowhere else: a decoded value means what it says. Encoding is
//! deterministic (maps are sorted), so that equal resources have equal bytes and versions.
//!
//! [`Origin`](rajut_types::Origin) travels as filter metadata under `dev.rajut.origin` where Envoy has a metadata field
//! that it does not interpret: listener, filter chain, virtual host, route, cluster, and for a weighted cluster
//! `metadata_match`, of which Envoy reads the key `envoy.lb` only.

use std::fmt;

use bytes::Bytes;
use rajut_proto::{Any, type_url};
use rajut_types::Text;

use crate::{
    NameTable, ResourceKind, cluster::Cluster, endpoint::LoadAssignment, listener::Listener,
    route::RouteConfiguration, secret::Secret,
};

mod access_log;
pub mod bootstrap;
mod cluster;
mod cors;
mod endpoint;
mod error_statuses;
mod ext_authz;
mod fault;
mod filter;
mod health_check;
mod http;
mod jwt;
mod listener;
mod matcher;
mod names;
mod origin;
mod rate_limit;
mod rbac;
mod read;
mod route;
mod secret;
mod stats;
mod support;
mod tls;
mod tracing;
mod write;

/// An encoded resource: what stands in a discovery response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The resource's name.
    pub name: Text,
    /// Its type.
    pub type_url: &'static str,
    /// The message. Equal resources have equal bytes.
    pub value: Bytes,
}

/// A decoded resource and what was left out of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded<T> {
    /// The resource, with Envoy's defaults filled in.
    pub value: T,
    /// Ignorable fields and extensions that were set, in order of appearance; at most [`IGNORED_MAX`].
    pub ignored: Vec<Ignored>,
}

/// Something ignorable that was set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ignored {
    /// Where, e.g. `filter_chains[0].filters[0].typed_config.tracing`.
    pub path: String,
    /// What, for counting: the field's full name or the extension's name (a closed set, but for extensions that are
    /// marked as optional).
    pub what: Text,
}

/// Most ignored fields that are kept per resource; the rest is dropped.
pub const IGNORED_MAX: usize = 256;
/// Most faults that are reported per resource; decoding goes on silently after them.
pub const ERRORS_MAX: usize = 100;

/// One fault of a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{path}: {fault}", Prefix(resource))]
pub struct DecodeError {
    /// The resource's name, may be empty.
    pub resource: Text,
    /// The field's path inside the resource; empty for the resource as a whole.
    pub path: String,
    /// What is wrong there.
    pub fault: Fault,
}

struct Prefix<'a>(&'a str);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, "{}: ", self.0)
        }
    }
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not protobuf, or not this message.
    #[error("the bytes are not a valid message: {0}")]
    Malformed(String),
    /// JSON or YAML that can't be read.
    #[error("{0}")]
    Syntax(String),
    /// The type of the resource is not one of ours.
    #[error("`{0}` is not a resource type that this proxy takes")]
    UnknownType(String),
    /// A field number that this build does not know.
    #[error("field number {0} is not known to this build; the sender uses a newer xDS: leave the field out")]
    UnknownField(u32),
    /// A field that is known and not supported.
    #[error("`{field}` is not supported; {instead}")]
    Refused {
        /// Full name, e.g. `envoy.config.cluster.v3.Cluster.health_checks`.
        field: String,
        /// What to do.
        instead: &'static str,
    },
    /// A filter, transport socket or other extension that is not supported.
    #[error("{kind} `{name}` ({type_name}) is not supported; supported: {supported}")]
    Extension {
        /// `HTTP filter`, `network filter`, …
        kind: &'static str,
        /// Its name.
        name: String,
        /// Full name of its configuration's type.
        type_name: String,
        /// What there is.
        supported: &'static str,
    },
    /// A field that must be there is not.
    #[error("is required: {0}")]
    Missing(&'static str),
    /// A number or duration out of its range.
    #[error("{value} is out of range; allowed: {allowed}")]
    OutOfRange {
        /// As sent.
        value: String,
        /// The range.
        allowed: &'static str,
    },
    /// A text that does not parse.
    #[error("`{value}` is not {expected}")]
    Text {
        /// As sent.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// An expression that does not compile.
    #[error("{0}")]
    Regex(#[from] crate::matcher::InvalidRegex),
    /// A number that is not an enumerator.
    #[error("{0} is not a value of this enumeration in this build")]
    Enumerator(i32),
    /// A value that the field may have in Envoy and not here.
    #[error("the value {value} is not supported; {instead}")]
    Value {
        /// As sent.
        value: String,
        /// What to do.
        instead: &'static str,
    },
    /// A name that must be unique stands twice.
    #[error("`{0}` stands twice")]
    Duplicate(String),
}

/// All faults of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeErrors {
    /// The resource's name, as far as it could be read.
    pub resource: Text,
    /// At least one, at most [`ERRORS_MAX`].
    pub errors: Vec<DecodeError>,
}

impl fmt::Display for DecodeErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for DecodeErrors {}

impl IntoIterator for DecodeErrors {
    type Item = DecodeError;
    type IntoIter = std::vec::IntoIter<DecodeError>;

    fn into_iter(self) -> Self::IntoIter {
        self.errors.into_iter()
    }
}

/// The result of decoding.
pub type DecodeResult<T> = Result<Decoded<T>, DecodeErrors>;

pub use cluster::{decode_cluster, encode_cluster};
pub use endpoint::{decode_load_assignment, encode_load_assignment};
pub use listener::{decode_listener, encode_listener};
pub use names::{decode_name_table, encode_name_table, encode_names};
pub use route::{
    decode_route_configuration, encode_route_configuration, encode_route_head, encode_virtual_host,
};
pub use secret::{decode_secret, encode_secret};
pub use support::{Support, SupportRow, support_table};

impl ResourceKind {
    /// All of them, in the order in which they are pushed.
    pub const ALL: [Self; 6] = [
        Self::Cluster,
        Self::LoadAssignment,
        Self::Listener,
        Self::RouteConfiguration,
        Self::Secret,
        Self::NameTable,
    ];

    /// Its type URL on the wire.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => type_url::CLUSTER,
            Self::LoadAssignment => type_url::CLUSTER_LOAD_ASSIGNMENT,
            Self::Listener => type_url::LISTENER,
            Self::RouteConfiguration => type_url::ROUTE_CONFIGURATION,
            Self::Secret => type_url::SECRET,
            Self::NameTable => type_url::NAME_TABLE,
        }
    }

    /// The kind of that type URL.
    pub fn of_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }
}

/// A decoded resource of any kind.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once, never kept")]
pub enum Resource {
    /// CDS.
    Cluster(Cluster),
    /// EDS.
    LoadAssignment(LoadAssignment),
    /// LDS.
    Listener(Listener),
    /// RDS.
    RouteConfiguration(RouteConfiguration),
    /// SDS.
    Secret(Secret),
    /// NDS.
    NameTable(NameTable),
}

/// Decodes a resource of that kind.
pub fn decode(kind: ResourceKind, bytes: &[u8]) -> DecodeResult<Resource> {
    fn wrap<T>(decoded: Decoded<T>, into: fn(T) -> Resource) -> Decoded<Resource> {
        Decoded {
            value: into(decoded.value),
            ignored: decoded.ignored,
        }
    }
    Ok(match kind {
        ResourceKind::Cluster => wrap(decode_cluster(bytes)?, Resource::Cluster),
        ResourceKind::LoadAssignment => wrap(decode_load_assignment(bytes)?, Resource::LoadAssignment),
        ResourceKind::Listener => wrap(decode_listener(bytes)?, Resource::Listener),
        ResourceKind::RouteConfiguration => {
            wrap(decode_route_configuration(bytes)?, Resource::RouteConfiguration)
        }
        ResourceKind::Secret => wrap(decode_secret(bytes)?, Resource::Secret),
        ResourceKind::NameTable => wrap(decode_name_table(bytes)?, Resource::NameTable),
    })
}

impl Encoded {
    /// As an `Any`.
    pub fn to_any(&self) -> Any {
        Any {
            type_url: self.type_url.to_owned(),
            value: self.value.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests;
