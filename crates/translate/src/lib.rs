//! Pure translation: a view of the snapshot and a proxy in, the proxy's [`rajut_ir::Resources`] out.
//!
//! Walk two of `ARCHITECTURE.md`. No clock, no randomness, no I/O; the same input gives the same bytes.

pub mod proxy;

pub use proxy::{Capture, DataPlane, Proxy, Role};
