//! What is different for a child process: its namespaces, the files that it sees, its ties to its parent.
//!
//! [`Isolation`] is a description; [`Prepared`] is the same with everything allocated and opened, whose
//! [`Prepared::enter`] runs in the child between `fork` and `exec`, where only system calls are allowed.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::linux::fork::errno;
use crate::linux::netns::{IdMaps, NetNs};
use crate::process::{Isolation, Mounts, UserNamespace};

/// [`Isolation::of_process`].
pub(crate) fn isolation_of(pid: u32) -> io::Result<Isolation> {
    let open = |kind: &str| -> io::Result<Option<OwnedFd>> {
        let theirs = File::open(format!("/proc/{pid}/ns/{kind}"))?;
        let ours = std::fs::metadata(format!("/proc/self/ns/{kind}"))?;
        let metadata = theirs.metadata()?;
        // Entering the namespace in which one is needs rights that an ordinary user lacks, for nothing.
        let same = (metadata.dev(), metadata.ino()) == (ours.dev(), ours.ino());
        Ok((!same).then(|| theirs.into()))
    };
    let network = NetNs::of_process(pid)?;
    Ok(Isolation {
        user: open("user")?.map(UserNamespace::Existing),
        network: (network.id() != NetNs::current()?.id()).then_some(network),
        mounts: open("mnt")?.map_or(Mounts::Inherit, Mounts::Existing),
        ..Isolation::default()
    })
}

impl Isolation {
    /// Opens and allocates everything. `folder` is where the child is to start; a mount namespace that is entered
    /// forgets it.
    pub(super) fn prepare(self, folder: Option<&Path>) -> io::Result<Prepared> {
        let mut mounts = Vec::new();
        if let Mounts::Private(files) = &self.mounts {
            for file in files {
                if !file.required && !file.target.exists() {
                    continue;
                }
                mounts.push((c_path(&file.source.canonicalize()?)?, c_path(&file.target)?));
            }
        }
        let folder = match (&self.mounts, folder) {
            (Mounts::Existing(_), Some(folder)) => Some(c_path(folder)?),
            (Mounts::Existing(_), None) => Some(c_path(&std::env::current_dir()?)?),
            _ => None,
        };
        Ok(Prepared {
            maps: IdMaps::of_caller(),
            parent: rustix::process::getpid().as_raw_nonzero().get(),
            isolation: self,
            mounts,
            folder,
        })
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

/// A step of [`Prepared::enter`]. The number travels from child to parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Session,
    UserNamespace,
    IdMaps,
    NetworkNamespace,
    MountNamespace,
    /// The index of the mount.
    Mount(u8),
    Folder,
    Inherit,
    DieWithParent,
}

impl Step {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Session => 1,
            Self::UserNamespace => 2,
            Self::IdMaps => 3,
            Self::NetworkNamespace => 4,
            Self::MountNamespace => 5,
            Self::Folder => 6,
            Self::Inherit => 7,
            Self::DieWithParent => 8,
            Self::Mount(index) => 100_u8.saturating_add(index),
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Prepared {
    isolation: Isolation,
    maps: IdMaps,
    mounts: Vec<(CString, CString)>,
    folder: Option<CString>,
    parent: i32,
}

/// Capabilities by their numbers in linux/capability.h.
const DROPPED: [libc::c_ulong; 5] = [
    12, // CAP_NET_ADMIN
    16, // CAP_SYS_MODULE
    19, // CAP_SYS_PTRACE
    21, // CAP_SYS_ADMIN
    39, // CAP_BPF
];

type Outcome = Result<(), (Step, i32)>;

/// A system call's result as an outcome of the step.
fn done(step: Step, result: libc::c_int) -> Outcome {
    if result < 0 { Err((step, errno())) } else { Ok(()) }
}

impl Prepared {
    /// What a step's number means, for people.
    pub(super) fn describe(&self, number: u8) -> String {
        match number {
            1 => "start a session".into(),
            2 => "enter the user namespace".into(),
            3 => "map the ids of the user namespace".into(),
            4 => "enter the network namespace".into(),
            5 => "enter the mount namespace".into(),
            6 => "enter the working folder inside the mount namespace".into(),
            7 => "inherit a descriptor".into(),
            8 => "tie the process to its parent".into(),
            _ => match self.mounts.get(usize::from(number.wrapping_sub(100))) {
                Some((source, target)) => {
                    format!(
                        "mount {} over {}",
                        source.to_string_lossy(),
                        target.to_string_lossy()
                    )
                }
                None => format!("take step {number}"),
            },
        }
    }

    /// Runs in the child between `fork` and `exec`: system calls on what was prepared, no allocation.
    pub(super) fn enter(&self) -> Outcome {
        if self.isolation.new_session {
            // SAFETY: a plain system call.
            done(Step::Session, unsafe { libc::setsid() })?;
        }
        self.enter_user_namespace()?;
        if let Some(network) = &self.isolation.network {
            set_namespace(
                Step::NetworkNamespace,
                rustix::fd::AsFd::as_fd(network).as_raw_fd(),
                libc::CLONE_NEWNET,
            )?;
        }
        self.enter_mounts()?;
        for fd in &self.isolation.inherit {
            // SAFETY: a plain system call on a descriptor that is open in parent and child.
            done(Step::Inherit, unsafe {
                libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0)
            })?;
        }
        if self.isolation.drop_capabilities {
            for capability in DROPPED {
                // Fails for capabilities that the kernel does not know and for processes that may not drop them because
                // they have none: both are as good as dropped. The bounding set takes effect at `exec`.
                // SAFETY: a plain system call.
                unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
            }
        }
        self.tie_to_parent()
    }

    fn enter_user_namespace(&self) -> Outcome {
        match &self.isolation.user {
            None => Ok(()),
            Some(UserNamespace::Existing(file)) => {
                set_namespace(Step::UserNamespace, file.as_raw_fd(), libc::CLONE_NEWUSER)
            }
            Some(UserNamespace::New) => {
                // SAFETY: a plain system call; the child has one thread.
                done(Step::UserNamespace, unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
                self.maps
                    .write_after_fork()
                    .map_err(|errno| (Step::IdMaps, errno))
            }
        }
    }

    fn enter_mounts(&self) -> Outcome {
        match &self.isolation.mounts {
            Mounts::Inherit => return Ok(()),
            Mounts::Existing(file) => {
                set_namespace(Step::MountNamespace, file.as_raw_fd(), libc::CLONE_NEWNS)?;
            }
            Mounts::Private(_) => {
                // SAFETY: a plain system call; the child has one thread.
                done(Step::MountNamespace, unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
                // Without this our mounts would appear in the parent's namespace too.
                mount(Step::MountNamespace, None, c"/", libc::MS_REC | libc::MS_PRIVATE)?;
                for (index, (source, target)) in self.mounts.iter().enumerate() {
                    let step = Step::Mount(u8::try_from(index).unwrap_or(u8::MAX));
                    mount(step, Some(source), target, libc::MS_BIND)?;
                }
            }
        }
        match &self.folder {
            None => Ok(()),
            // SAFETY: a NUL-terminated path that lives until after the call.
            Some(folder) => done(Step::Folder, unsafe { libc::chdir(folder.as_ptr()) }),
        }
    }

    fn tie_to_parent(&self) -> Outcome {
        if !self.isolation.die_with_parent {
            return Ok(());
        }
        // Late, since changes of credentials clear it.
        // SAFETY: a plain system call.
        done(Step::DieWithParent, unsafe {
            libc::prctl(
                libc::PR_SET_PDEATHSIG,
                libc::c_ulong::try_from(libc::SIGKILL).unwrap_or(9),
                0,
                0,
                0,
            )
        })?;
        // The parent may have died before the call above.
        // SAFETY: a plain system call.
        if unsafe { libc::getppid() } == self.parent {
            Ok(())
        } else {
            Err((Step::DieWithParent, libc::ESRCH))
        }
    }
}

fn set_namespace(step: Step, file: RawFd, kind: libc::c_int) -> Outcome {
    // SAFETY: a plain system call; the child has one thread.
    done(step, unsafe { libc::setns(file, kind) })
}

fn mount(step: Step, source: Option<&CString>, target: &std::ffi::CStr, flags: libc::c_ulong) -> Outcome {
    let source = source.map_or(std::ptr::null(), |source| source.as_ptr());
    // SAFETY: the strings are NUL-terminated and live until after the call; a null source, type or data is allowed for
    // these flags.
    done(step, unsafe {
        libc::mount(source, target.as_ptr(), std::ptr::null(), flags, std::ptr::null())
    })
}
