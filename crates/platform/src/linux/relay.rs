//! [`crate::relay`] with `splice(2)`.

mod pipe;
mod splice;

pub use pipe::{CACHED_PIPES, PIPE_SIZE};
pub use splice::relay;

#[cfg(test)]
mod tests;
