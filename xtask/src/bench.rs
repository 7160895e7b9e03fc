//! `cargo xtask bench`: builds what is measured and the rig (`bench/`, a package outside the workspace), then runs it.
//! Everything else, its options too, is the rig's.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};

/// The profile that is built unless `--profile` names another one.
const PROFILE: &str = "release";

/// Runs the benchmark with these words of the command line.
pub(crate) fn run(root: &Path, words: &[String]) -> Result<()> {
    if let Some((first, words)) = words.split_first()
        && first == "control"
    {
        return control(root, words);
    }
    let at = words.iter().position(|word| word == "--profile");
    let profile = at
        .and_then(|at| words.get(at + 1))
        .map_or(PROFILE, String::as_str);
    if std::env::var_os("RAJUT_BIN").is_none() {
        cargo(root, &["build", "--profile", profile, "--package", "rajut"])?;
    }
    rig(root, &["build"])?;
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

/// The set `control`: the control plane under a mesh of any size. Its load is an example of the tool's package, since it
/// speaks with our own client machine, which the rig (outside the workspace) does not link.
fn control(root: &Path, words: &[String]) -> Result<()> {
    if std::env::var_os("RAJUT_BIN").is_none() {
        cargo(root, &["build", "--profile", PROFILE, "--package", "rajut"])?;
    }
    let example = ["--package", "rajut", "--example", "control_load"];
    cargo(root, &[&["build", "--profile", PROFILE], &example[..]].concat())?;
    let binary = std::env::var_os("RAJUT_BIN").unwrap_or_else(|| root.join("target/release/rajut").into());
    let load = root.join("target/release/examples/control_load");
    let status = Command::new(&load)
        .arg("--rajut")
        .arg(binary)
        .args(words)
        .current_dir(root)
        .status()
        .with_context(|| format!("{}", load.display()))?;
    if status.success() {
        Ok(())
    } else {
        bail!("the benchmark ended with {status}")
    }
}

/// Builds the rig and its tests, and runs neither.
pub(crate) fn build(root: &Path) -> Result<()> {
    rig(root, &["build"])?;
    rig(root, &["test", "--no-run"])
}

/// The rig's own tests: its statistics, and its processes. Optimised as the rig is: most of both is what they depend on.
pub(crate) fn test(root: &Path) -> Result<()> {
    rig(root, &["test"])
}

/// Cargo on the rig's package, optimised.
fn rig(root: &Path, words: &[&str]) -> Result<()> {
    let manifest = root.join("bench/Cargo.toml");
    let of_rig = [
        "--release",
        "--locked",
        "--manifest-path",
        &manifest.to_string_lossy(),
    ];
    cargo(root, &[words, &of_rig].concat())
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
