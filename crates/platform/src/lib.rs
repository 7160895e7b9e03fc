//! What Rajut asks of the operating system: sockets and their options, network namespaces, redirection rules,
//! processes, signals, processors.
//!
//! Layer 0: everything that touches a descriptor goes through here. It is the only crate with `unsafe` code (each
//! block states its proof) and the only one that names `tokio::net`; the others use the types that
//! [`socket`] re-exports.
//!
//! | module | what |
//! | --- | --- |
//! | [`socket`] | listeners, connections, original destination, peeking, descriptor passing |
//! | [`netns`] | network and user namespaces, threads that live in them, what this kernel allows |
//! | [`network`] | a workload's loopback, address and default route (rtnetlink) |
//! | [`nftables`] | redirection of a workload's traffic to its sidecar (nfnetlink) |
//! | [`process`] | children in namespaces, process identity, usage, clean-up |
//! | [`relay`] | bytes between two connections, spliced or copied |
//! | [`memory`] | giving back what is not needed |
//! | [`signals`] | asked to end, asked to reload |
//! | [`allocations`] | counted, for tests |
//! | [`cpu`] | how many processors, which thread on which |
//!
//! ```
//! use rajut_platform::socket::{ListenOptions, listen};
//!
//! let listener = listen("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
//! assert_ne!(listener.local_addr().unwrap().port(), 0);
//! ```

pub mod allocations;
pub mod cpu;
mod fork;
pub mod memory;
mod netlink;
pub mod netns;
pub mod network;
pub mod nftables;
pub mod process;
pub mod relay;
pub mod signals;
pub mod socket;
mod sys;
