//! What people wrote: Istio's kinds, Kubernetes', Compose's and ours — parsed, validated, merged — and the immutable
//! [`Snapshot`] that everything else reads.
//!
//! Walk two of `ARCHITECTURE.md`: `parse` → `validate` → `merge` → `snapshot`. Pure: no I/O, no clock.

pub mod model;
pub mod snapshot;

pub use snapshot::Snapshot;
