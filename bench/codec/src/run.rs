//! The run: both hops are up at once, and take turns under the same load.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

const FORMS: [&str; 2] = ["ours", "hyper"];
/// Names of `rajut-bench load`, and what they are.
const SHAPES: [(&str, &str); 2] = [("http1", "3 header fields"), ("http1-16", "16 header fields")];

/// Ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command) -> Result<(Running, String)> {
    let mut child = Running(command.stdout(Stdio::piped()).spawn()?);
    let output = child.0.stdout.take().context("its output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    Ok((child, line.trim().to_owned()))
}

/// Nanoseconds that the process's only thread has been on a processor.
fn cpu_ns(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let first = text.split_whitespace().next().context("schedstat is empty")?;
    Ok(first.parse()?)
}

pub(crate) fn option(words: &[String], name: &str, usual: u32) -> Result<u32> {
    match words.iter().position(|word| word == name) {
        None => Ok(usual),
        Some(at) => Ok(words
            .get(at + 1)
            .with_context(|| format!("{name} needs a number"))?
            .parse()?),
    }
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// Measures and prints.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let bench = words.first().context("the path of rajut-bench")?;
    let (rounds, secs) = (option(words, "--rounds", 5)?, option(words, "--secs", 3)?);
    let conns = option(words, "--conns", 32)?;
    let (_backend, ports) = start(Command::new(bench).arg("backend"))?;
    let ports: Value = serde_json::from_str(&ports)?;
    let backend = ports["http1"].as_u64().context("the backend's port")?.to_string();
    let me = std::env::current_exe()?;
    let mut hops = Vec::new();
    for form in FORMS {
        hops.push(start(Command::new(&me).args([form, &backend]))?);
    }
    println!(
        "CPU µs per request of one hop, medians of {rounds} rounds of {secs} s in turns, {conns} connections\n"
    );
    println!("| | ours | hyper | ratio | rounds (ours, hyper) |\n| --- | --- | --- | --- | --- |");
    for (shape, what) in SHAPES {
        let mut costs = [Vec::new(), Vec::new()];
        for round in 0..rounds as usize {
            // Who comes first changes, so that a drift of the machine meets both.
            for turn in 0..FORMS.len() {
                let at = (turn + round) % FORMS.len();
                let (hop, port) = &hops[at];
                costs[at].push(once(bench, shape, port, conns, secs, hop.0.id())?);
            }
        }
        let kept: Vec<String> = costs[0]
            .iter()
            .zip(&costs[1])
            .map(|(ours, hyper)| format!("{ours:.2} {hyper:.2}"))
            .collect();
        let [ours, hyper] = costs.map(|mut values| median(&mut values));
        println!(
            "| {what} | {ours:.2} | {hyper:.2} | {:.3} | {} |",
            ours / hyper,
            kept.join(", ")
        );
    }
    Ok(())
}

/// One load on one hop; µs per request.
fn once(bench: &str, shape: &str, port: &str, conns: u32, secs: u32, pid: u32) -> Result<f64> {
    let before = cpu_ns(pid)?;
    let output = Command::new(bench)
        .args(["load", "--proto", shape, "--port", port])
        .args(["--conns", &conns.to_string(), "--secs", &secs.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    let cpu = cpu_ns(pid)? - before;
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let total = said["total"].as_f64().filter(|total| *total > 0.0);
    if said["errors"].as_u64() != Some(0) {
        bail!("errors under load: {said}");
    }
    Ok(cpu as f64 / 1000.0 / total.context("nothing was answered")?)
}
