//! User namespaces: how an ordinary user gets the right to make network namespaces.

use std::io;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::thread::UnshareFlags;

use crate::netns::UserNamespaceError;

/// The contents of the map files: the caller becomes uid and gid 0 of the new namespace, nobody else exists.
#[derive(Debug, Clone)]
pub(crate) struct IdMaps {
    pub(crate) uid_map: String,
    pub(crate) gid_map: String,
}

impl IdMaps {
    /// For the effective ids of the calling process. Read them *before* entering the namespace.
    pub(crate) fn of_caller() -> Self {
        Self {
            uid_map: format!("0 {} 1\n", rustix::process::geteuid().as_raw()),
            gid_map: format!("0 {} 1\n", rustix::process::getegid().as_raw()),
        }
    }

    /// Writes the map files of the calling process. No allocation.
    pub(crate) fn write_after_fork(&self) -> Result<(), i32> {
        // The order matters: gid_map is refused until setgroups is denied.
        for (file, contents) in [
            (c"/proc/self/setgroups", "deny"),
            (c"/proc/self/uid_map", self.uid_map.as_str()),
            (c"/proc/self/gid_map", self.gid_map.as_str()),
        ] {
            let failed = |errno: rustix::io::Errno| errno.raw_os_error();
            let file =
                rustix::fs::open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
            rustix::io::write(&file, contents.as_bytes()).map_err(failed)?;
        }
        Ok(())
    }
}

/// Moves the process into a new user namespace in which the caller is root: below it the process may make and
/// configure network and mount namespaces, and nothing outside changes (files are still the caller's own, the
/// host's network namespace stays usable but not configurable).
///
/// A program that has threads already can start itself again with [`crate::process::UserNamespace::New`] instead.
///
/// Call it before any thread exists, and start everything else below it; supplementary groups are given up for
/// good (`setgroups` is denied, the kernel's condition for mapping a group without privileges).
pub fn unshare_user() -> Result<(), UserNamespaceError> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(UserNamespaceError::Threads { threads });
    }
    let maps = IdMaps::of_caller();
    // SAFETY: neither memory nor the file table is unshared, which is what the function's contract is about.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }.map_err(|errno| {
        UserNamespaceError::Refused {
            reason: user_namespace_refusal(&errno.into()),
            source: errno.into(),
        }
    })?;
    // The order matters: gid_map is refused until setgroups is denied.
    for (file, contents) in [
        ("setgroups", "deny"),
        ("uid_map", maps.uid_map.as_str()),
        ("gid_map", maps.gid_map.as_str()),
    ] {
        let path = PathBuf::from("/proc/self").join(file);
        std::fs::write(&path, contents).map_err(|source| UserNamespaceError::Map { file: path, source })?;
    }
    Ok(())
}

/// Why this machine refuses user namespaces, in one sentence that names the setting to change.
pub fn user_namespace_refusal(error: &io::Error) -> String {
    let setting = |path: &str| {
        std::fs::read_to_string(path)
            .ok()
            .map(|text| text.trim().to_owned())
    };
    if setting("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        return "user namespaces are switched off (sysctl user.max_user_namespaces is 0)".into();
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return "user namespaces are for root only here (sysctl kernel.unprivileged_userns_clone is 0)"
            .into();
    }
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return "AppArmor restricts user namespaces to programs with a profile \
                (sysctl kernel.apparmor_restrict_unprivileged_userns is 1)"
            .into();
    }
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EUSERS) => {
            "too many user namespaces exist or are nested (sysctl user.max_user_namespaces)".into()
        }
        Some(libc::EINVAL) => "this kernel has no user namespaces".into(),
        Some(libc::EPERM) => "user namespaces are refused, as container runtimes do by default (seccomp); \
             in Docker: --security-opt seccomp=unconfined"
            .into(),
        _ => format!("user namespaces are refused: {error}"),
    }
}
