//! The serving end: one machine per stream ([`ServerStream`]), the tonic service around it ([`AdsServer`]), and waiting
//! until clients have acknowledged a generation ([`acks`]).

pub mod acks;
pub(crate) mod frames;
pub mod interests;
mod names;
pub(crate) mod requests;
mod serve;
mod stream;

pub use serve::{AdsServer, Connection, Feed, ResourceSource};
pub use stream::{Interest, Nack, ServerStream, StreamFault, StreamStatus, TypeStatus};
