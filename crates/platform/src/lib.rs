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
//! | [`terminal`] | keys as they are pressed, how large it is |
//! | [`allocations`] | counted, for tests |
//! | [`cpu`] | how many processors, which thread on which |
//! | [`host`] | which system this is, its name, this program's file |
//!
//! The public modules are the same on every system. What a system does behind them is one of two private halves with
//! the same items, chosen in this file and nowhere else: `linux`, and `portable` for macOS and the BSDs, where
//! namespaces, redirection, splicing and pinning are answered with [`Unsupported`] and everything else works.
//! `--cfg rajut_portable` chooses the portable half on Linux too, which is how CI checks it.
//!
//! ```
//! use rajut_platform::socket::{ListenOptions, listen};
//!
//! let listener = listen("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
//! assert_ne!(listener.local_addr().unwrap().port(), 0);
//! ```

pub mod allocations;
pub mod cpu;
pub mod host;
pub mod memory;
pub mod netns;
pub mod network;
pub mod nftables;
pub mod process;
pub mod relay;
pub mod signals;
pub mod socket;
pub mod terminal;

#[cfg(all(target_os = "linux", not(rajut_portable)))]
mod linux;
#[cfg(all(target_os = "linux", not(rajut_portable)))]
use linux as system;
#[cfg(not(all(target_os = "linux", not(rajut_portable))))]
mod portable;
#[cfg(not(all(target_os = "linux", not(rajut_portable))))]
use portable as system;

/// This system does not have what was asked for. Inside an [`std::io::Error`] its kind is
/// [`std::io::ErrorKind::Unsupported`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this system has no {what}")]
pub struct Unsupported {
    /// What is missing, in the plural: "network namespaces".
    pub what: &'static str,
}

impl From<Unsupported> for std::io::Error {
    fn from(missing: Unsupported) -> Self {
        Self::new(std::io::ErrorKind::Unsupported, missing)
    }
}
