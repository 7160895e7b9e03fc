//! The serving end: one machine per stream ([`ServerStream`]), the tonic service around it ([`AdsServer`]), and waiting
//! until clients have acknowledged a generation ([`acks`]).

pub mod acks;
mod frames;
pub mod interests;
mod names;
mod requests;
mod serve;
mod stream;

pub use serve::{AdsServer, Connection, Feed, ResourceSource};
pub use stream::{Interest, Nack, ServerStream, StreamFault, StreamStatus, TypeStatus};
