//! TLS of both sides of a proxied connection.

pub mod originate;
