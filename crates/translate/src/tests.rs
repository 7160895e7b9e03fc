//! The rules of translation on small meshes made of model values; whole outputs stand in the golden files.

mod authorization;
pub(crate) mod fixtures;
mod grpc;
mod inbound;
mod logs;
mod outbound;
mod rate_limits;
mod routes;
mod sharing;
mod sidecars;
mod stats;
mod tokens;
mod tracing;
