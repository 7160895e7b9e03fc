//! What continuous integration runs, in this order: seconds first, minutes last. Each stage prints how long it took.
//!
//! The tests wait more than they compute. What the stages behind them need is built meanwhile, at the lowest priority
//! ([`Aside`]), so that it takes nothing from a test but what nobody uses.

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
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
    stages.cargo(
        "clippy",
        &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
    )?;
    stages.cargo("test build", &["test", "--workspace", "--no-run"])?;
    let builds = Aside::start(stages.root)?;
    // The README's test command: unit, property, golden and scenario tests, the last on both data planes.
    stages.cargo("test", &["test", "--workspace"])?;
    stages.own("portable half", portable::check)?;
    stages.own("optimised builds, the rest", |_| builds.join())?;
    stages.own("instructions", |root| instructions::run(root, &[]))?;
    stages.own("benchmark: statistics", bench::test)?;
    stages.own("benchmark: smoke", |root| {
        bench::run(root, &["--smoke".to_owned()])
    })?;
    stages.script("first hour", "docs/tutorials/check.sh")
}

/// What the stages behind the tests run: the product with the pieces of work whose instructions are counted, so that both
/// come from one build, then the rig.
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

/// [`builds`] as a process of the lowest priority, beside other stages. It ends when this is dropped.
struct Aside {
    child: Child,
    /// What it printed.
    log: PathBuf,
}

impl Aside {
    fn start(root: &Path) -> Result<Self> {
        let log = root.join("target/ci-builds.log");
        let output = File::create(&log).with_context(|| log.display().to_string())?;
        let child = Command::new("nice")
            .args(["-n", "19"])
            .arg(std::env::current_exe()?)
            .arg("builds")
            .current_dir(root)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // With its compilers a group, which can be ended as one.
            .process_group(0)
            .spawn()
            .context("nice can't be started")?;
        Ok(Self { child, log })
    }

    /// Waits for its end.
    #[expect(clippy::print_stdout, reason = "a command-line tool talks to its terminal")]
    fn join(mut self) -> Result<()> {
        let status = self.child.wait()?;
        if status.success() {
            return Ok(());
        }
        println!("{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        bail!("the builds beside the tests: {status}")
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let group = format!("-{}", self.child.id());
            // Not there: it has just ended by itself.
            let _ = Command::new("kill").args(["--", &group]).status();
            let _ = self.child.wait();
        }
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
