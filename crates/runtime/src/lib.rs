//! What every long-lived process of the mesh needs: a clock that tests can turn, drain, readiness, the environment
//! table, logging that changes its level while it runs, and the pause between attempts.
//!
//! Layer 1 of both walks (see `ARCHITECTURE.md`): programs build one of each and hand them down; nothing here knows
//! xDS, HTTP or certificates.
//!
//! | module | what |
//! | --- | --- |
//! | [`clock`] | monotonic and wall time, turned by hand in tests |
//! | [`drain`] | "stop taking new work, finish what is open", with a deadline |
//! | [`readiness`] | named gates that must all be open |
//! | [`env`] | the environment variables, read once from one table |
//! | [`logging`] | `tracing` to standard error, text or JSON, filter changed at run time |
//! | [`backoff`] | growing pauses with jitter |
//! | [`connector`] | a connection to a peer process, as a value |
//!
//! ```
//! use rajut_runtime::readiness::Readiness;
//!
//! let readiness = Readiness::default();
//! let gate = readiness.gate("first configuration");
//! assert_eq!(readiness.pending(), ["first configuration"]);
//! gate.open();
//! assert!(readiness.is_ready());
//! ```

pub mod backoff;
pub mod clock;
pub mod connector;
pub mod drain;
pub mod env;
pub mod logging;
pub mod readiness;

pub use backoff::Backoff;
pub use clock::Clock;
