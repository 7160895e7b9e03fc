//! [`crate::cpu`] without affinity.

use std::io;

use crate::Unsupported;

const PINNING: Unsupported = Unsupported {
    what: "way to keep a thread on a processor",
};

/// The numbers of the processors that the calling thread may run on; not known here.
pub fn allowed() -> io::Result<Vec<usize>> {
    Err(PINNING.into())
}

/// Keeps the calling thread on one processor; not possible here.
pub fn pin_current_thread(_place: usize) -> io::Result<usize> {
    Err(PINNING.into())
}
