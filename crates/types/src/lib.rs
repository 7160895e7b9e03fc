//! The mesh's nouns, and the two things that every configured value carries: where it came from
//! ([`Origin`]) and how to complain about it ([`Diagnostic`]).
//!
//! This crate is layer 0 of both walks (see `ARCHITECTURE.md`): it names no runtime, no clock and no I/O.
//!
//! ```
//! use rajut_types::{Hostname, Principal, TrustDomain};
//!
//! let host: Hostname = "Encounter-Service.clinic.svc.cluster.local".parse().unwrap();
//! assert_eq!(host.as_str(), "encounter-service.clinic.svc.cluster.local");
//! let who = Principal::new(&TrustDomain::default(), "clinic", "default");
//! assert_eq!(who.spiffe_id(), "spiffe://cluster.local/ns/clinic/sa/default");
//! ```

pub mod condition;
mod diagnostic;
mod hostname;
mod identity;
mod labels;
mod locality;
pub mod operator;
mod origin;
mod percent;
mod persistent_map;
pub mod tag;
mod text;

pub use diagnostic::{Code, Diagnostic, Severity, Span};
pub use hostname::{Hostname, InvalidHostname};
pub use identity::{InvalidPrincipal, Principal, TrustDomain};
pub use labels::Labels;
pub use locality::Locality;
pub use origin::{ObjectRef, Origin};
pub use percent::{InvalidPercent, Percent};
pub use persistent_map::{Iter as PersistentIter, PersistentMap};
pub use text::Text;
