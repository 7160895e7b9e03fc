//! The validated form of what people wrote: every field checked, every default filled, every value with its [`Origin`].
//!
//! Third column of the table in `ARCHITECTURE.md` ("three forms"): raw specs live in `api`, running forms in `ir`.
//! Nothing here can be invalid; what is wrong never gets this far and stands in a `Diagnostic` instead.

mod authorizer;
mod destination;
pub mod gateway;
pub mod mesh;
pub mod rate_limit;
pub mod recording;
pub mod security;
pub mod service;
mod sidecar;
mod telemetry;
mod tokens;
pub mod traffic;
pub mod workload;

pub use authorizer::*;
pub use destination::*;
pub use gateway::*;
pub use mesh::*;
pub use rate_limit::*;
pub use recording::Recording;
pub use security::*;
pub use service::*;
pub use sidecar::*;
pub use telemetry::*;
pub use tokens::*;
pub use traffic::*;
pub use workload::*;
