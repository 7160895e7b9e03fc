//! TLS of both sides of a proxied connection. Configurations are built by `rajut-identity`; this module runs
//! handshakes and reads identities.

pub mod ahead;
pub mod originate;
pub mod peer;
pub mod secrets;
pub mod terminate;
