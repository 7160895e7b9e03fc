//! The control plane.

pub mod accept;
pub mod ca;
