//! The serving end: one machine per stream ([`ServerStream`]), the tonic service around it ([`AdsServer`]), and waiting
//! until clients have acknowledged a generation ([`acks`]).

pub mod acks;
mod serve;
mod stream;

pub use serve::{AdsServer, Connection, ResourceSource};
pub use stream::{Nack, ServerStream, StreamFault, StreamStatus, TypeStatus};
