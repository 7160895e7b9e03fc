//! `cargo xtask bench control`: what the control plane costs at scale.
//!
//! It makes a mesh (`mesh.rs`) of files and workloads, starts the real `rajut control` on it (`plane.rs`), connects proxies over
//! real gRPC with mutual TLS (`proxies.rs`: our own xDS client machine, many on one thread) and measures from outside
//! (`measure.rs`): memory from `smaps_rollup`, CPU from the scheduler's count, work from the control plane's own counters.
//!
//! Options: `--services N` `--endpoints N` (per service) `--proxies N` `--forms full,world,demand` `--changes N`
//! `--double` (the same changes at half the services) `--storm` `--short`. Bounds: every wait ends after [`measure::BOUND`].
#![expect(clippy::disallowed_methods, reason = "an example that measures")]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::large_futures,
    reason = "a program of the command line, which runs each future once"
)]

mod measure;
mod mesh;
mod plane;
mod proxies;
mod report;

use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::{measure::Run, mesh::Size, proxies::Form};

/// The command line.
struct Wanted {
    rajut: PathBuf,
    results: PathBuf,
    size: Size,
    forms: Vec<Form>,
    changes: usize,
    halves: bool,
}

fn main() -> anyhow::Result<()> {
    let wanted = Wanted::parse(std::env::args().skip(1))?;
    let mut runs = Vec::new();
    for form in &wanted.forms {
        let mut sizes = vec![Size {
            pool: wanted.size.services,
            ..wanted.size
        }];
        if wanted.halves {
            let half = wanted.size.services / 2;
            // The proxies stay, and what they use: the change must cost the same in the smaller mesh.
            let larger = Size {
                pool: half,
                ..wanted.size
            };
            let smaller = Size {
                services: half,
                ..larger
            };
            sizes = vec![smaller, larger];
        }
        for size in sizes {
            let run = measure::run(&wanted.rajut, size, *form, wanted.changes)
                .with_context(|| format!("{form:?} with {} services", size.services))?;
            report::print(&run);
            runs.push(run);
        }
    }
    finish(&wanted, &runs)
}

fn finish(wanted: &Wanted, runs: &[Run]) -> anyhow::Result<()> {
    std::fs::create_dir_all(&wanted.results)?;
    let path = wanted.results.join("control.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&report::json(runs))?)?;
    println!("\n{}\n{}", report::goals(runs), report::markdown(runs));
    println!("rounds: {}", path.display());
    Ok(())
}

impl Wanted {
    fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut wanted = Self {
            rajut: "target/release/rajut".into(),
            results: "bench/results".into(),
            size: Size {
                services: 1_000,
                endpoints: 10,
                proxies: 1_000,
                pool: 1_000,
            },
            forms: vec![Form::Full, Form::Demand],
            changes: 50,
            halves: false,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--rajut" => wanted.rajut = value()?.into(),
                "--results" => wanted.results = value()?.into(),
                "--services" => wanted.size.services = value()?.parse()?,
                "--endpoints" => wanted.size.endpoints = value()?.parse()?,
                "--proxies" => wanted.size.proxies = value()?.parse()?,
                "--changes" => wanted.changes = value()?.parse()?,
                "--forms" => {
                    wanted.forms = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?;
                }
                "--double" => wanted.halves = true,
                "--short" => {
                    wanted.size = Size {
                        services: 200,
                        endpoints: 10,
                        proxies: 100,
                        pool: 200,
                    };
                    wanted.changes = 20;
                }
                other => bail!("unknown option {other}"),
            }
        }
        Ok(wanted)
    }
}
