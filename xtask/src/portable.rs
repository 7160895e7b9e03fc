//! The half of crate `platform` that is for systems other than Linux, built on Linux.
//!
//! `--cfg rajut_portable` chooses it. The flag goes to the workspace's own crates alone, through cargo's
//! `RUSTC_WORKSPACE_WRAPPER`: this very program, called with a compiler as its first argument, adds it. So the
//! dependencies of an ordinary build are used as they are, and the crates' own results are kept apart.
//!
//! What it can't tell: whether a call exists on macOS at all. CONTRIBUTING has the recipe of a check against macOS's
//! own standard library.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Result, bail};

/// The compiler, when cargo has called this program as its wrapper.
pub(crate) fn called_as_wrapper() -> Option<OsString> {
    std::env::args_os()
        .nth(1)
        .filter(|first| Path::new(first).file_stem().is_some_and(|stem| stem == "rustc"))
}

/// Becomes the compiler, with the flag.
#[expect(clippy::print_stderr, reason = "a command-line tool talks to its terminal")]
pub(crate) fn compile(compiler: &OsString) -> ExitCode {
    let error = Command::new(compiler)
        .args(std::env::args_os().skip(2))
        .args(["--cfg", "rajut_portable", "-D", "warnings"])
        .exec();
    eprintln!("cargo xtask: {}: {error}", compiler.display());
    ExitCode::FAILURE
}

/// The tests of `platform`, then everything that is built on it at work: the clinic, and meshes on explicit ports.
///
/// Built as `cargo test --workspace` builds, so that its dependencies are used; what is optimised here nobody needs twice.
pub(crate) fn check(root: &Path) -> Result<()> {
    cargo(root, &["test", "-p", "rajut-platform", "--lib"])?;
    let mut scenarios = vec![
        "test",
        "--workspace",
        "--test",
        "scenario",
        "--",
        "--plane",
        "rajut",
    ];
    scenarios.extend(SCENARIOS);
    cargo(root, &scenarios)
}

/// What needs no namespaces, by parts of the names.
const SCENARIOS: [&str; 4] = [
    "clinic_is_ready",
    "clinic_canary",
    "with_explicit_ports",
    "where_users_get_no_namespaces",
];

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .env("RUSTC_WORKSPACE_WRAPPER", std::env::current_exe()?)
        .current_dir(root)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        bail!("cargo {} with the portable half: {status}", arguments.join(" "))
    }
}
