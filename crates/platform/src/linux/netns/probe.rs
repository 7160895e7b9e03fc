//! What this kernel lets us do, found out by doing it: a forked child makes the namespaces, brings loopback up,
//! installs the rules, and vanishes with all of it.
//!
//! ```text
//!  child:  user namespace → uid_map, gid_map → network namespace → mount namespace → loopback up → nf_tables
//!             (only if rootless)                                                        │
//!  exit code 0, or through a pipe: the step that failed and its errno  ◄────────────────┘
//! ```
//!
//! Asking the kernel's version or reading settings would not do: container runtimes, security modules and missing modules
//! each refuse another step.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::pipe::PipeFlags;

use super::user::{IdMaps, user_namespace_refusal};
use crate::linux::fork;
use crate::linux::netlink::{self, NETFILTER, ROUTE, Request};
use crate::linux::{network, nftables};
use crate::netns::Capability;

/// The steps, in order; the numbers travel through the pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Step {
    User = 1,
    Ids = 2,
    Network = 3,
    Mount = 4,
    Loopback = 5,
    Rules = 6,
}

impl Step {
    const ALL: [Self; 6] = [
        Self::User,
        Self::Ids,
        Self::Network,
        Self::Mount,
        Self::Loopback,
        Self::Rules,
    ];

    fn reason(self, errno: i32, rootless: bool) -> String {
        let error = io::Error::from_raw_os_error(errno);
        match self {
            Self::User => user_namespace_refusal(&error),
            Self::Ids => match errno {
                libc::EPERM | libc::EACCES => user_namespace_refusal(&error),
                _ => format!("a user namespace can be made but not used: {error}"),
            },
            Self::Network if errno == libc::ENOSPC => {
                "no more network namespaces are allowed (sysctl user.max_net_namespaces)".into()
            }
            Self::Mount if errno == libc::ENOSPC => {
                "no more mount namespaces are allowed (sysctl user.max_mnt_namespaces)".into()
            }
            Self::Network if errno == libc::EPERM && rootless => user_namespace_refusal(&error),
            Self::Network if errno == libc::EPERM => {
                "network namespaces are refused although this is root (CAP_SYS_ADMIN is missing, as in an \
                 unprivileged container)"
                    .into()
            }
            Self::Network => format!("network namespaces are refused: {error}"),
            Self::Mount => format!("mount namespaces are refused: {error}"),
            Self::Loopback => format!("loopback can't be brought up in a new network namespace: {error}"),
            Self::Rules => nftables::refusal_of(errno),
        }
    }
}

/// Everything that the child needs, made before the fork.
struct Plan {
    maps: Option<IdMaps>,
    loopback: Request,
    rules: Request,
    report: OwnedFd,
}

/// Tries it. Takes some milliseconds and leaves nothing behind; prefers root's way where both work.
pub fn probe() -> Capability {
    // An ordinary user can't succeed without a user namespace: no need to try and to report that.
    let as_root = if rustix::process::geteuid().is_root() {
        Some(attempt(false))
    } else {
        None
    };
    match as_root {
        Some(Ok(())) => Capability::Root,
        refused => match (attempt(true), refused) {
            (Ok(()), _) => Capability::Rootless,
            // What stops root names the cause better than what stops its user namespace.
            (Err(_), Some(Err(reason))) | (Err(reason), _) => Capability::Refused { reason },
        },
    }
}

fn attempt(rootless: bool) -> Result<(), String> {
    let unexpected = |error: io::Error| format!("the kernel could not be asked: {error}");
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| unexpected(e.into()))?;
    let plan = Plan {
        maps: rootless.then(IdMaps::of_caller),
        loopback: network::loopback_up().finish().map_err(unexpected)?,
        rules: nftables::probe_request().map_err(unexpected)?,
        report: write,
    };
    // SAFETY: `child` only makes system calls on memory prepared above and on its stack.
    let child = unsafe { fork::fork(|| child(&plan)) }.map_err(unexpected)?;
    drop(plan);
    let mut report = [0_u8; 5];
    let length = rustix::io::read(&read, &mut report).map_err(|e| unexpected(e.into()))?;
    let code = child.wait().map_err(unexpected)?;
    if length == 0 && code == Some(0) {
        return Ok(());
    }
    let [step, errno @ ..] = report;
    let errno = i32::from_ne_bytes(errno);
    match Step::ALL.into_iter().find(|known| *known as u8 == step) {
        Some(step) if length == 5 => Err(step.reason(errno, rootless)),
        // Seccomp policies may kill instead of refusing.
        _ => Err("the process that tried to make namespaces was killed".into()),
    }
}

/// Runs after `fork`: system calls only.
fn child(plan: &Plan) -> i32 {
    match steps(plan) {
        Ok(()) => 0,
        Err((step, errno)) => {
            let mut report = [step as u8; 5];
            report[1..].copy_from_slice(&errno.to_ne_bytes());
            // SAFETY: the pointer and the length are those of a live array.
            unsafe { libc::write(plan.report.as_raw_fd(), report.as_ptr().cast(), report.len()) };
            1
        }
    }
}

fn steps(plan: &Plan) -> Result<(), (Step, i32)> {
    let unshare = |step: Step, flags: libc::c_int| {
        // SAFETY: a plain system call; this process has one thread.
        if unsafe { libc::unshare(flags) } == 0 {
            Ok(())
        } else {
            Err((step, fork::errno()))
        }
    };
    if let Some(maps) = &plan.maps {
        unshare(Step::User, libc::CLONE_NEWUSER)?;
        maps.write_after_fork().map_err(|errno| (Step::Ids, errno))?;
    }
    unshare(Step::Network, libc::CLONE_NEWNET)?;
    unshare(Step::Mount, libc::CLONE_NEWNS)?;
    ask(ROUTE, &plan.loopback).map_err(|errno| (Step::Loopback, errno))?;
    ask(NETFILTER, &plan.rules).map_err(|errno| (Step::Rules, errno))
}

/// [`netlink::exchange`] without an allocation.
fn ask(protocol: Option<rustix::net::Protocol>, request: &Request) -> Result<(), i32> {
    let failed = |errno: rustix::io::Errno| errno.raw_os_error();
    let socket = netlink::open(protocol).map_err(failed)?;
    netlink::send(&socket, &request.bytes).map_err(failed)?;
    let mut buffer = [0_u8; 8192];
    loop {
        let (length, _) =
            rustix::net::recv(&socket, &mut buffer, rustix::net::RecvFlags::empty()).map_err(failed)?;
        for answer in netlink::answers(buffer.get(..length).unwrap_or_default()) {
            if answer.errno != 0 {
                return Err(answer.errno);
            }
            if answer.sequence == request.last {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_or_rootless_works_or_the_reason_is_given() {
        match probe() {
            Capability::Refused { reason } => println!("skipped: {reason}"),
            Capability::Root => assert!(rustix::process::geteuid().is_root()),
            Capability::Rootless => {}
        }
    }

    #[test]
    fn the_rootless_way_is_tried_in_a_child_only() {
        let before = std::fs::read_link("/proc/self/ns/user").unwrap();
        if let Err(reason) = attempt(true) {
            println!("skipped: {reason}");
        }
        assert_eq!(std::fs::read_link("/proc/self/ns/user").unwrap(), before);
    }

    #[test]
    fn every_refusal_is_a_sentence() {
        for step in Step::ALL {
            for errno in [libc::EPERM, libc::EINVAL, libc::ENOENT, libc::ENOSPC, libc::EIO] {
                for rootless in [false, true] {
                    let reason = step.reason(errno, rootless);
                    assert!(reason.len() > 20 && !reason.ends_with('.'), "{reason}");
                }
            }
        }
    }
}
