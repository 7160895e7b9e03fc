//! `cargo xtask bench`: builds what is measured and the rig (`bench/`, a package outside the workspace), then runs it.
//! Everything else, its options too, is the rig's.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};

/// The profile that is built unless `--profile` names another one.
const PROFILE: &str = "release";

/// Runs the benchmark with these words of the command line.
pub(crate) fn run(root: &Path, words: &[String]) -> Result<()> {
    let at = words.iter().position(|word| word == "--profile");
    let profile = at
        .and_then(|at| words.get(at + 1))
        .map_or(PROFILE, String::as_str);
    if std::env::var_os("RAJUT_BIN").is_none() {
        cargo(root, &["build", "--profile", profile, "--package", "rajut"])?;
    }
    let manifest = root.join("bench/Cargo.toml");
    let manifest = manifest.to_string_lossy();
    cargo(
        root,
        &["build", "--release", "--locked", "--manifest-path", &manifest],
    )?;
    let rig = root.join("bench/target/release/rajut-bench");
    let status = Command::new(&rig)
        .arg("run")
        .args(words)
        .arg("--root")
        .arg(root)
        .current_dir(root)
        .status()
        .with_context(|| format!("{}", rig.display()))?;
    if status.success() {
        Ok(())
    } else {
        bail!("the benchmark ended with {status}")
    }
}

/// The rig's own tests: its statistics, and its processes.
pub(crate) fn test(root: &Path) -> Result<()> {
    let manifest = root.join("bench/Cargo.toml");
    cargo(
        root,
        &["test", "--locked", "--manifest-path", &manifest.to_string_lossy()],
    )
}

fn cargo(root: &Path, words: &[&str]) -> Result<()> {
    let mut command = Command::new(env!("CARGO"));
    // Where the rig's binary lies must not depend on the caller's settings.
    command
        .args(words)
        .current_dir(root)
        .env_remove("CARGO_TARGET_DIR");
    let status = command.status().context("cargo can't be started")?;
    if status.success() {
        Ok(())
    } else {
        bail!("cargo {}: {status}", words.join(" "))
    }
}
