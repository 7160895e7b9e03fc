//! Pure translation: a view of the snapshot and a proxy in, the proxy's [`rajut_ir::Resources`] out.
//!
//! Walk two of `ARCHITECTURE.md`, between `config/snapshot` and `ir/wire`. [`translate`] is the whole for one proxy;
//! [`Translator`] has its two halves apart (what proxies of one [`Scope`] share, and a proxy's own) and remembers them
//! between snapshots, so that a change costs what it touches. Each generator receives a view whose fields are its key (`ClusterView`,
//! `AssignmentView`, `VirtualHostView`, `InboundView`) and never the snapshot.
//!
//! | module | makes |
//! | --- | --- |
//! | `outbound` | what a client's namespace sees: listeners by capture, route configurations |
//! | `virtual_host`, `route`, `retry` | HTTP routing of one host |
//! | `cluster`, `policy`, `tls` | one cluster with the destination rule's layers |
//! | `assignment` | endpoints of one cluster |
//! | `inbound` | the workload's own ports under its peer authentication; the capturing listener |
//! | `authorization` | what a port enforces of the workload's authorization policies |
//! | `ext_authz` | who else is asked about calls |
//! | `rate_limit` | how many requests a port takes, by the workload's rate limit policies |
//! | `dns` | the names that the sidecar answers |
//! | `gateway` | listeners, routes and secrets of a gateway workload |
//! | `grpc` | all of that for proxyless gRPC |
//!
//! No clock, no randomness, no I/O; the same input gives the same output. What is wrong never stops the rest: it is left
//! out and told as a [`rajut_types::Diagnostic`]. Identities are not made here: they
//! belong to the issuer.

mod access_log;
mod assignment;
mod authorization;
mod cluster;
mod dns;
mod ext_authz;
mod gateway;
pub mod grpc;
mod inbound;
mod listener;
mod memo;
pub mod names;
mod outbound;
mod policy;
mod preference;
pub mod proxy;
mod rate_limit;
mod retry;
mod route;
mod stats;
mod tls;
mod tokens;
mod tracing;
mod translator;
mod virtual_host;

pub use authorization::{access_controls, rule_name};
pub use ext_authz::{POLICY_PREFIX as ASKED_NAME, SHADOW_PREFIX as ASKED_PREFIX};
pub use outbound::Outbound;
pub use proxy::{Capture, DataPlane, ExplicitPort, Proxy, Role};
pub use translator::{Scope, Translator, translate};

#[cfg(test)]
mod tests;
