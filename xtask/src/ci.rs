//! What continuous integration runs, in this order: seconds first, minutes last. Each stage prints how long it took.
//!
//! Most of it is compiling, so each thing is compiled once: the tests are built by clippy's compiler, which lints what it
//! builds ([`Stages::linted`]), instead of being checked by clippy and built again, dependencies and all. And since most
//! of the rest is waiting (a scenario for a process, a linker for a crate), what is built optimised is built meanwhile,
//! of what processor time nobody else wants ([`Ahead`]).

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{bench, instructions, layers, portable, tidy};

/// Everything, in order; stops at the first stage that fails.
pub(crate) fn run(root: &Path) -> Result<()> {
    let mut stages = Stages {
        root,
        done: Vec::new(),
    };
    let outcome = all(&mut stages);
    // Also when a stage failed: its time counts among the others'.
    stages.print();
    outcome
}

fn all(stages: &mut Stages<'_>) -> Result<()> {
    stages.cargo("format", &["fmt", "--all", "--check"])?;
    stages.own("layers", layers::check)?;
    stages.own("tidy", tidy::check)?;
    let ahead = Ahead::start(stages.root)?;
    stages.linted("lints and test build", &["test", "--workspace", "--no-run"])?;
    // The README's test command: unit, property, golden and scenario tests, the last on both data planes.
    stages.linted("test", &["test", "--workspace"])?;
    stages.own("portable half", portable::check)?;
    stages.own("optimised builds", |root| {
        ahead.finish()?;
        builds(root)
    })?;
    stages.own("instructions", |root| instructions::run(root, &[]))?;
    stages.own("benchmark: statistics", bench::test)?;
    stages.own("benchmark: smoke", |root| {
        bench::run(root, &["--smoke".to_owned()])
    })?;
    stages.script("first hour", "docs/tutorials/check.sh")
}

/// The optimised builds, begun while something else is to be waited for.
///
/// They run under the scheduler's idle policy: a process of any other policy that wants a core takes it at once, so that
/// no test is the slower for it. Where that policy can't be had nothing is built ahead. Ended when a stage fails; after a
/// signal it ends by itself, when it has built.
struct Ahead(Option<Child>);

impl Ahead {
    const LOG: &str = "target/ci-ahead.log";

    fn start(root: &Path) -> Result<Self> {
        let idle = ["--idle", "0"];
        let possible = Command::new("chrt")
            .args(idle)
            .arg("true")
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !possible {
            return Ok(Self(None));
        }
        let log = root.join(Self::LOG);
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder)?;
        }
        let log = fs::File::create(&log).with_context(|| format!("{}", log.display()))?;
        let child = Command::new("chrt")
            .args(idle)
            .arg(std::env::current_exe()?)
            .arg(BUILDS)
            .current_dir(root)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A group of its own, to be ended whole.
            .process_group(0)
            .spawn()?;
        Ok(Self(Some(child)))
    }

    /// Waits for its end. Whether it was a good one does not matter: what follows builds the rest, and says what is wrong.
    fn finish(mut self) -> Result<()> {
        if let Some(mut child) = self.0.take() {
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let group = format!("-{}", child.id());
            // Nobody is left to tell if it fails; it ends by itself when it has built.
            let ended = Command::new("kill").args(["-TERM", "--", &group]).status();
            if ended.is_ok() {
                let _ = child.wait();
            }
        }
    }
}

/// The command that is [`builds`] alone.
pub(crate) const BUILDS: &str = "builds";

/// The product with the pieces of work whose instructions are counted, so that both come from one build, then the rig.
pub(crate) fn builds(root: &Path) -> Result<()> {
    let release = ["build", "--release", "--package", "rajut", "--package", "counted"];
    let status = Command::new(env!("CARGO"))
        .args(release)
        .current_dir(root)
        .status()?;
    if !status.success() {
        bail!("cargo {}: {status}", release.join(" "));
    }
    bench::build(root)
}

/// The compiler that has clippy's lints, of the toolchain that is in use.
fn linting_compiler() -> Result<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output()?;
    let sysroot = String::from_utf8(output.stdout).context("the toolchain's path is not text")?;
    let driver = Path::new(sysroot.trim()).join("bin/clippy-driver");
    if driver.exists() {
        Ok(driver)
    } else {
        bail!("there is no clippy: `rustup component add clippy`")
    }
}

/// Format, and what clippy can mend.
pub(crate) fn fix(root: &Path) -> Result<()> {
    let mut stages = Stages {
        root,
        done: Vec::new(),
    };
    stages.cargo(
        "clippy --fix",
        &["clippy", "--fix", "--allow-dirty", "--workspace", "--all-targets"],
    )?;
    stages.cargo("format", &["fmt", "--all"])
}

/// Runs the golden tests and accepts what they print now; the change is then reviewed like code.
pub(crate) fn golden(root: &Path) -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .args(["test", "-p", "rajut-translate", "-p", "rajut-config"])
        .env("INSTA_UPDATE", "always")
        .current_dir(root)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        bail!("the golden tests fail for another reason than their snapshots")
    }
}

struct Stages<'a> {
    root: &'a Path,
    done: Vec<(&'static str, Duration)>,
}

impl Stages<'_> {
    fn cargo(&mut self, name: &'static str, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(env!("CARGO"));
        command.args(arguments);
        self.command(name, command)
    }

    /// Cargo with clippy's compiler for the workspace's own crates; a warning fails. What `cargo clippy` does, but that
    /// the crates are built, too. Such a build differs from rustc's in that MIR is not optimised (it hardly is without
    /// optimisation) and that raw pointers are not checked for alignment and null when they are used.
    fn linted(&mut self, name: &'static str, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(arguments)
            .env("RUSTC_WORKSPACE_WRAPPER", linting_compiler()?)
            // The form in which clippy's compiler takes its arguments.
            .env("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__");
        self.command(name, command)
    }

    fn script(&mut self, name: &'static str, path: &str) -> Result<()> {
        let mut command = Command::new("bash");
        command.arg(path);
        self.command(name, command)
    }

    fn command(&mut self, name: &'static str, mut command: Command) -> Result<()> {
        let root = self.root;
        self.own(name, |_| {
            let status = command
                .current_dir(root)
                .status()
                .context("it can't be started")?;
            if status.success() {
                Ok(())
            } else {
                bail!("{status}")
            }
        })
    }

    #[expect(clippy::print_stdout, reason = "a command-line tool talks to its terminal")]
    fn own(&mut self, name: &'static str, stage: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        println!("== {name}");
        let started = Instant::now();
        let outcome = stage(self.root).with_context(|| format!("stage `{name}`"));
        self.done.push((name, started.elapsed()));
        outcome
    }

    #[expect(clippy::print_stdout, reason = "a command-line tool talks to its terminal")]
    fn print(&self) {
        println!("\nminutes by stage:");
        for (name, took) in &self.done {
            println!("  {:5.1}  {name}", took.as_secs_f64() / 60.0);
        }
        let all: Duration = self.done.iter().map(|(_, took)| took).sum();
        println!("  {:5.1}  together", all.as_secs_f64() / 60.0);
    }
}
