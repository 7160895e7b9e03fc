//! Steps 4 to 12 of walk one for HTTP. [`serve`] reads top to bottom; `forward.rs` is its middle.

mod authorize;
mod deadline;
pub(crate) mod downstream;
pub mod filters;
mod forward;
mod grpc;
pub(crate) mod h1;
pub(crate) mod h2;
mod headers;
pub mod manager;
pub(crate) mod message;
pub(crate) mod mirror;
mod open;
mod pause;
pub(crate) mod record;
mod reply;
mod retry;
pub mod serve;
mod source;
#[cfg(test)]
mod tests;
pub(crate) mod timer;
pub(crate) mod trace;
pub(crate) mod transport;
pub(crate) mod view;
mod websocket;
