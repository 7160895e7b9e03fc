//! What a data plane does: listeners, filter chains, routes, clusters, endpoints, secrets.
//!
//! The same types stand on both sides of the wire (walk two of `ARCHITECTURE.md`): `translate` builds them,
//! [`wire`] encodes them to xDS v3 and is the only place that decodes xDS, and the proxy compiles them into
//! matchers. The input of [`wire`] is xDS as anybody sends it (a hand-written Envoy bootstrap, Istio's control
//! plane), not what our `translate` happens to build.
//!
//! Pure: no clock, no randomness, no I/O. Draws and times are arguments.

pub mod access_log;
pub mod chain;
pub mod cluster;
pub mod cors;
pub mod decide;
pub mod endpoint;
pub mod ext_authz;
pub mod fault;
pub mod filter;
pub mod hash;
pub mod http;
pub mod jwt;
pub mod listener;
pub mod matcher;
pub mod path;
pub mod rate_limit;
pub mod rbac;
pub mod resources;
pub mod route;
pub mod secret;
pub mod stats;
pub mod tls;
pub mod tracing;
pub mod wire;

pub use resources::{NameTable, Names, ResourceKind, Resources};
