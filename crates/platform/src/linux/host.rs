//! [`crate::host`] by `/proc`.

use std::io;
use std::path::PathBuf;

use crate::host::System;

/// This program's file; stays right when the file has been replaced meanwhile.
pub fn executable() -> io::Result<PathBuf> {
    Ok(PathBuf::from("/proc/self/exe"))
}

/// What this machine runs.
pub fn system() -> System {
    let release = rustix::system::uname();
    System::of_linux(&release.release().to_string_lossy())
}

/// Linux answers on all of 127.0.0.0/8.
pub const fn whole_loopback() -> bool {
    true
}
