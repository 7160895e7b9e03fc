//! [`crate::host`] by the standard library and `uname`.

use std::io;
use std::path::PathBuf;

use crate::host::System;

/// This program's file.
pub fn executable() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// What this machine runs.
pub fn system() -> System {
    System::of_name(&rustix::system::uname().sysname().to_string_lossy())
}

/// Elsewhere 127.0.0.1 is the only address of its kind until somebody adds others.
pub const fn whole_loopback() -> bool {
    false
}
