//! The data plane: accepts connections, decides, forwards. This list is walk one of `ARCHITECTURE.md`; each step is a
//! module that can be read alone, and [`http::serve`] reads it top to bottom.
//!
//! ```text
//!  bytes   1 listener/accept.rs      accept, original destination                       → Connection
//!    |     2 listener/detect.rs      first bytes: TLS? HTTP/1? HTTP/2? opaque?          → Detected
//!    |     3 listener/chain.rs       filter-chain match (ir::chain)
//!    |       tls/terminate.rs        handshake, the peer's certificate                  → Peer::{None, Verified}
//!    |     4 http/serve.rs           head, limits, path; access record                  → RequestHead
//!    |       tcp/serve.rs            opaque branch: cluster, then copy or splice
//!    v     5 ir::decide              → route, target, retry plan
//!          6 http::filters: access control, local rate limits, in the listener's order; unknown ones are refused by ir::wire
//!          7 cluster/pick.rs         outlier state, breaker, balancer                   → Host
//!          8 upstream/pool.rs        reuse, or upstream/connect.rs (tls/originate.rs)   → Exchange
//!          9 upstream/exchange.rs    send, retry, stream bodies both ways               → Response
//!         10 http/forward.rs         the answer on its way back
//!         11 failure.rs              any error of 1-9 → status, gRPC code, response flag
//!         12 http/serve.rs           write the response; the access record is emitted on drop
//! ```
//!
//! Thread per core: every worker ([`worker::Worker`]) is one thread with a single-threaded runtime, its own accept
//! sockets and its own pools. Configuration reaches it as a message that replaces its [`epoch::Epoch`] between polls.

pub mod access_log;
pub mod admin;
pub mod agent;
pub mod assemble;
mod clock;
pub mod cluster;
pub mod connection;
pub mod discovery;
pub mod dns;
pub mod enrol;
pub mod epoch;
pub mod failure;
pub mod held;
pub mod http;
pub mod last_known;
pub mod listener;
pub mod on_demand;
mod recorder;
pub mod resolver;
pub mod run;
pub mod sockets;
pub mod stats;
pub mod stream;
pub mod tcp;
pub mod tls;
mod unknown;
pub mod upstream;
pub mod worker;
pub mod workers;
