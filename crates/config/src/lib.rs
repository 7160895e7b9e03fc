//! What people wrote: Istio's kinds, Kubernetes', Compose's and ours — parsed, validated, merged — and the immutable
//! [`Snapshot`] that everything else reads.
//!
//! Walk two of `ARCHITECTURE.md`: `parse` → `api` (raw to typed) → `merge` → `snapshot`; [`load`] does the first three,
//! [`check`] judges relations, [`Report`] says it to people. Pure: no I/O, no clock.

mod analyze;
mod api;
mod check;
pub mod codes;
mod index;
pub mod key_set;
mod merge;
pub mod model;
mod parse;
pub mod policy_test;
mod read;
pub mod snapshot;

pub use analyze::Report;
pub use check::check;
pub use index::Index;
pub use merge::{Counts, LoadOptions, Loaded, Reader, load};
pub use parse::{MAX_SOURCE_BYTES, Source};
pub use read::nearest;
pub use snapshot::Snapshot;
