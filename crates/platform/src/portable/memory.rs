//! [`crate::memory::forget_startup_code`] where nobody tells which pages of a program are unchanged.

use std::io;

use crate::Unsupported;

/// Unmaps pages of the program's file that only the start needed; not possible here.
pub fn forget_startup_code() -> io::Result<usize> {
    Err(Unsupported {
        what: "list of a process's mapped pages",
    }
    .into())
}
