//! Which system this is, what works on it, its name, and this program's file.
//!
//! Bounds: a handful of system calls, nothing cached.

use std::fmt;

pub use crate::system::host::{executable, system, whole_loopback};

/// The systems that differ for a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum System {
    /// Linux, whatever it runs in: what it allows is found out by [`crate::netns::probe`].
    Linux,
    /// Linux inside Windows (WSL2): all of Linux, and Windows forwards its own `localhost` to it.
    Wsl2,
    /// Linux system calls that Windows itself answers (WSL1): no namespaces, no `nf_tables`.
    Wsl1,
    /// macOS.
    MacOs,
    /// Another system of the Unix family, by the name that it gives itself.
    Other(String),
}

impl System {
    /// From a Linux kernel's release (`uname -r`, `/proc/sys/kernel/osrelease`): WSL2 kernels end in
    /// `-microsoft-standard-WSL2`, those of WSL1 in `-Microsoft`. A kernel that somebody built for WSL2 may be called
    /// anything, but keeps `microsoft` or `WSL` by Microsoft's own configuration (`CONFIG_LOCALVERSION`).
    pub fn of_linux(release: &str) -> Self {
        if release.ends_with("-Microsoft") {
            return Self::Wsl1;
        }
        let release = release.to_ascii_lowercase();
        if release.contains("microsoft") || release.contains("wsl") {
            Self::Wsl2
        } else {
            Self::Linux
        }
    }

    /// From the name that the kernel gives itself (`uname -s`), off Linux.
    pub fn of_name(name: &str) -> Self {
        match name {
            "Darwin" => Self::MacOs,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linux => "Linux",
            Self::Wsl2 => "WSL2",
            Self::Wsl1 => "WSL1",
            Self::MacOs => "macOS",
            Self::Other(name) => name,
        })
    }
}

/// This machine's name.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_kernels_are_told_by_their_release() {
        for (release, system) in [
            ("5.15.153.1-microsoft-standard-WSL2", System::Wsl2),
            ("6.6.87.2-microsoft-standard-WSL2+", System::Wsl2),
            ("4.19.128-microsoft-standard", System::Wsl2),
            ("6.1.21.2-custom-WSL2", System::Wsl2),
            ("4.4.0-19041-Microsoft", System::Wsl1),
            ("6.8.0-45-generic", System::Linux),
            ("6.10.14-linuxkit", System::Linux),
            ("5.15.0-1064-azure", System::Linux),
            ("", System::Linux),
        ] {
            assert_eq!(System::of_linux(release), system, "{release}");
        }
    }

    #[test]
    fn other_systems_keep_their_name() {
        assert_eq!(System::of_name("Darwin"), System::MacOs);
        assert_eq!(System::of_name("FreeBSD").to_string(), "FreeBSD");
    }

    #[test]
    fn this_program_and_this_machine_are_found() {
        assert!(executable().unwrap().canonicalize().unwrap().is_file());
        assert!(!hostname().is_empty());
    }
}
