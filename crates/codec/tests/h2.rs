//! HTTP/2 from outside: agreement with the crate `h2` on generated conversations in any segmentation, and damaged bytes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "h2/agreement.rs"]
mod agreement;
#[path = "h2/damage.rs"]
mod damage;
#[path = "h2/ours.rs"]
mod ours;
#[path = "h2/plan.rs"]
mod plan;
