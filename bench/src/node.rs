//! The set `node`: the Node example (`examples/child-welfare`) as `rajut up` runs it, under a steady load on its front
//! service: what each sidecar uses as a share of its application's, from `rajut status -o json` before and after. Once on
//! our proxy, and once on Envoy (`--data-plane envoy`; its agent is not counted).
//!
//! The whole mesh runs on both cores (five services of Node use more than one). Everything is bounded in time; the
//! mesh is ended with its supervisor.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::process::{self, Process};
use crate::run::{LOAD_CORE, PROXY_CORE, own_command};

/// Requests per second: the requirement's figure.
const RATE: f64 = 500.0;
/// The mesh gets so long to be healthy.
const START_WAIT: Duration = Duration::from_secs(90);
/// What the load asks for: a page that two services make together.
const PATH: &str = "http1:/overview/c-1";
/// The service that the load asks.
const FRONT: &str = "portal";
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

struct Mesh {
    program: PathBuf,
    state: PathBuf,
    _process: Process,
}

/// Runs the example on a data plane (`rajut` or `envoy`) and measures it for so many seconds.
pub(crate) fn measure(root: &Path, program: &Path, plane: &str, dir: &Path, seconds: f64) -> Result<Value> {
    let example = root.join("examples/child-welfare");
    if process::find("node").is_none() {
        bail!("node is not on PATH");
    }
    if !example.join("dist/portal.js").is_file() {
        bail!("{} is not built: npm install && npm run build", example.display());
    }
    let mesh = start(program, &example, plane, dir)?;
    let port = mesh.front()?;
    // Until its code is compiled Node is several times as slow.
    load(port, RATE / 5.0, 3.0).context("the first requests")?;
    let before = mesh.status()?;
    let begin = Instant::now();
    let out = load(port, RATE, seconds)?;
    let wall = begin.elapsed().as_secs_f64();
    let after = mesh.status()?;
    let services: Vec<Value> = list(&before["workloads"])
        .iter()
        .zip(list(&after["workloads"]))
        .map(|(before, after)| service(before, after, wall))
        .collect();
    Ok(json!({
        "rate": RATE, "seconds": seconds, "answered": out["total"], "unanswered": out["errors"], "p50_us": out["p50_us"], "p99_us": out["p99_us"],
        "services": services,
    }))
}

fn start(program: &Path, example: &Path, plane: &str, dir: &Path) -> Result<Mesh> {
    let state = dir.join(format!("mesh-{plane}"));
    let mut command = vec!["env".to_owned(), format!("RAJUT_STATE_DIR={}", state.display())];
    if process::find("taskset").is_some() {
        command.extend(["taskset", "-c", &format!("{LOAD_CORE},{PROXY_CORE}")].map(str::to_owned));
    }
    let (program_name, example) = (program.to_string_lossy(), example.to_string_lossy());
    command.extend([&*program_name, "up", &*example, "--data-plane", plane].map(str::to_owned));
    let process = Process::start(&command, PROXY_CORE, &dir.join(format!("mesh-{plane}.log")))?;
    let mut mesh = Mesh {
        program: program.to_owned(),
        state,
        _process: process,
    };
    let begin = Instant::now();
    loop {
        let status = mesh.status();
        if status.as_ref().is_ok_and(|status| status["health"] == "healthy") {
            return Ok(mesh);
        }
        if let Some(ended) = mesh._process.ended() {
            bail!("the mesh ended: {ended}");
        }
        if begin.elapsed() > START_WAIT {
            let reasons = status.map(|status| status["reasons"].to_string());
            bail!("not healthy after {START_WAIT:?}: {reasons:?}");
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

impl Mesh {
    fn status(&self) -> Result<Value> {
        let output = std::process::Command::new(&self.program)
            .args(["status", "-o", "json"])
            .env("RAJUT_STATE_DIR", &self.state)
            .output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn front(&self) -> Result<u16> {
        let status = self.status()?;
        let service = list(&status["services"])
            .iter()
            .find(|service| service["name"] == FRONT);
        let address = service.and_then(|service| service["hostAddress"].as_str());
        let port = address.and_then(|address| address.rsplit_once(':')?.1.trim_end_matches('/').parse().ok());
        port.with_context(|| format!("no address of {FRONT} in {status}"))
    }
}

/// What can't be answered in time is counted, not a failure: a busy machine may be too slow for Node at this rate.
fn load(port: u16, rate: f64, seconds: f64) -> Result<Value> {
    let (port, seconds, rate) = (port.to_string(), seconds.to_string(), rate.to_string());
    let words = [
        "load", "--proto", PATH, "--port", &port, "--conns", "32", "--secs", &seconds, "--rate", &rate,
    ];
    let out: Value = serde_json::from_str(&process::output(&own_command(&words)?, LOAD_CORE)?)?;
    if out["total"].as_f64() < Some(1.0) {
        bail!("no answers: {out}");
    }
    Ok(out)
}

/// What a workload used between two looks.
fn service(before: &Value, after: &Value, wall: f64) -> Value {
    let spent = |who: &str| {
        let seconds = |status: &Value| status["usage"][who]["cpuSeconds"].as_f64();
        seconds(after)
            .zip(seconds(before))
            .map(|(after, before)| after - before)
    };
    let memory = |who: &str| after["usage"][who]["memoryBytes"].as_f64();
    let requests = |status: &Value| status["usage"]["requests"].as_f64();
    let (application, sidecar) = (spent("application"), spent("sidecar"));
    let rate = requests(after)
        .zip(requests(before))
        .map(|(after, before)| (after - before) / wall);
    let share = |part: Option<f64>, whole: Option<f64>| {
        let (part, whole) = part.zip(whole)?;
        (whole > 0.0).then(|| part / whole)
    };
    let thousands = rate.map(|rate| rate / 1000.0);
    json!({
        "name": after["name"],
        "requests_per_s": rate,
        "application_cpu": application.map(|cpu| cpu / wall),
        "sidecar_cpu": sidecar.map(|cpu| cpu / wall),
        "sidecar_cpu_share": share(sidecar, application),
        "application_mib": memory("application").map(|bytes| bytes / 1024.0 / 1024.0),
        "sidecar_mib": memory("sidecar").map(|bytes| bytes / 1024.0 / 1024.0),
        "sidecar_memory_share": share(memory("sidecar"), memory("application")),
        "vcpu_per_1000": share(sidecar.map(|cpu| cpu / wall), thousands),
        "gib_per_1000": share(memory("sidecar").map(|bytes| bytes / GIB), thousands),
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
