//! Whether we answer as Envoy does, shown before anything is timed: two hundred probes through the same bootstrap
//! bytes, compared in status, header fields, body, what the server behind saw, whether the connection stays, and in
//! the access log's lines.
//!
//! Values that are made anew each time (times, ids, ports of clients) are compared for being there. Differences that
//! are known stand in [`known`] with their reason and are printed; any other fails the run.

mod answer;
mod known;
mod probes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::bootstrap::{self, LOG_FIELDS};
use crate::origin;
use crate::peer::{Installed, Places};
use crate::process::{self, Process};
use crate::run::{LOAD_CORE, PROXY_CORE, own_command};
use answer::Answer;

/// A proxy gets so long to listen.
const START_WAIT: Duration = Duration::from_secs(15);
/// The field of the log that says which probe a line is of.
const PROBE_FIELD: &str = "probe";

/// What the comparison gave.
#[derive(Debug, Default)]
pub(crate) struct Alike {
    pub(crate) bootstrap: String,
    pub(crate) probes: usize,
    pub(crate) log_lines: usize,
    pub(crate) log_fields: usize,
    /// Probes without any difference.
    pub(crate) same: usize,
    /// Reason of a known difference, with the probes that show it.
    pub(crate) known: BTreeMap<&'static str, BTreeSet<String>>,
    /// What else differs, one line each.
    pub(crate) differences: Vec<String>,
}

/// One side's answers and log.
#[derive(Debug)]
struct Side {
    answers: Vec<(String, Vec<Answer>)>,
    /// Log lines by probe; `-` for those that say none.
    log: BTreeMap<String, Vec<Map<String, Value>>>,
}

/// Runs the probes through both and compares.
pub(crate) fn compare(ours: &Installed, theirs: &Installed, places: &Places) -> Result<Alike> {
    let command = own_command(&["origin"])?;
    let log = places.dir.join("origin.log");
    let (_origin, line) = process::start_and_read_line(&command, LOAD_CORE, &log)?;
    let port: Value = serde_json::from_str(&line).context("the origin's port")?;
    let port = port["origin"].as_u64().and_then(|port| u16::try_from(port).ok());
    let port = port.context("the origin's port")?;
    let mut fields = vec![(PROBE_FIELD, "%REQ(X-PROBE)%")];
    fields.extend(LOG_FIELDS);
    let file = bootstrap::probes(places, port, &fields);
    let (path, hash) = places.write_text("probes.yaml", &file)?;
    let path = path.to_string_lossy().into_owned();
    let our_command = [&*ours.program.to_string_lossy(), "proxy", "-c", &path].map(str::to_owned);
    let their_command = [
        &*theirs.program.to_string_lossy(),
        "-c",
        &path,
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "-l",
        "error",
    ]
    .map(str::to_owned);
    let ours = side(&our_command, places, port).context("rajut")?;
    let theirs = side(&their_command, places, port).context("envoy")?;
    let mut alike = Alike {
        bootstrap: hash,
        log_fields: fields.len(),
        ..Alike::default()
    };
    judge(&ours, &theirs, &mut alike);
    Ok(alike)
}

/// Starts one, asks everything, ends it, reads its log.
fn side(command: &[String], places: &Places, origin: u16) -> Result<Side> {
    let log = places.file("probes.log");
    let _ = fs::remove_file(&log);
    reset(origin)?;
    let mut process = Process::start(command, PROXY_CORE, &places.dir.join("probes-proxy.log"))?;
    let begin = Instant::now();
    while TcpStream::connect(("127.0.0.1", places.front)).is_err() {
        if let Some(ended) = process.ended() {
            bail!("it ended before it listened: {ended}");
        }
        if begin.elapsed() > START_WAIT {
            bail!("it does not listen: {}", process.last_words());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut answers = Vec::new();
    for probe in probes::all() {
        let got = answer::ask(places.front, &probe);
        if let Some(ended) = process.ended() {
            bail!("it ended at the probe {}: {ended}", probe.name);
        }
        answers.push((probe.name, got));
    }
    settle(&log);
    // What it still holds of the log it writes when it ends.
    drop(process);
    let text = fs::read_to_string(&log).with_context(|| format!("no access log at {log}"))?;
    let mut lines: BTreeMap<String, Vec<Map<String, Value>>> = BTreeMap::new();
    for line in text.lines() {
        let line: Map<String, Value> = serde_json::from_str(line)
            .with_context(|| format!("the log has a line that is no JSON object: {line}"))?;
        let probe = line.get(PROBE_FIELD).and_then(Value::as_str).unwrap_or("-");
        lines.entry(probe.to_owned()).or_default().push(steady(&line));
    }
    Ok(Side { answers, log: lines })
}

/// Waits until a file has not grown for a moment, two seconds at most.
fn settle(file: &str) {
    let length = || fs::metadata(file).map_or(0, |about| about.len());
    let begin = Instant::now();
    let (mut last, mut since) = (length(), Instant::now());
    while since.elapsed() < Duration::from_millis(300) && begin.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(20));
        if length() != last {
            (last, since) = (length(), Instant::now());
        }
    }
}

fn reset(port: u16) -> Result<()> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.write_all(format!("GET {} HTTP/1.1\r\nhost: o\r\n\r\n", origin::RESET).as_bytes())?;
    let mut buffer = [0; 1024];
    if socket.read(&mut buffer)? == 0 {
        bail!("the origin closed the connection");
    }
    Ok(())
}

/// A log line with what is made anew each time replaced by whether it is there.
fn steady(line: &Map<String, Value>) -> Map<String, Value> {
    let there = |value: &Value| if value.is_null() { Value::Null } else { json!("*") };
    line.iter()
        .map(|(name, value)| {
            let value = match name.as_str() {
                "start_time" | "duration" | "upstream_service_time" => there(value),
                "request_id" if value.as_str().is_some_and(|id| id.len() >= 32) => json!("*"),
                "upstream_local_address" | "downstream_remote_address" => match value.as_str() {
                    Some(address) => json!(address.rsplit_once(':').map_or(address, |(host, _)| host)),
                    None => Value::Null,
                },
                _ => value.clone(),
            };
            (name.clone(), value)
        })
        .collect()
}

fn judge(ours: &Side, theirs: &Side, alike: &mut Alike) {
    alike.log_lines = theirs.log.values().map(Vec::len).sum();
    for ((name, our), (_, their)) in ours.answers.iter().zip(&theirs.answers) {
        alike.probes += 1;
        let mut differences = answer::differences(our, their);
        let body_differs = differences
            .iter()
            .any(|it| it.starts_with("body:") || it.starts_with("refusal:"));
        let none = Vec::new();
        let logged = |side: &Side| side.log.get(name).unwrap_or(&none).clone();
        let mut log = log_differences(&logged(ours), &logged(theirs));
        // The length follows from the body.
        log.retain(|difference| !(body_differs && difference.starts_with("log: bytes_sent")));
        differences.extend(log);
        alike.note(name, differences);
    }
    let none = Vec::new();
    let nameless = |side: &Side| side.log.get("-").unwrap_or(&none).clone();
    alike.note(
        "(requests that could not be read)",
        log_differences(&nameless(ours), &nameless(theirs)),
    );
}

impl Alike {
    fn note(&mut self, probe: &str, differences: Vec<String>) {
        if differences.is_empty() {
            self.same += 1;
        }
        for difference in differences {
            match known::reason(probe, &difference) {
                Some(reason) => {
                    self.known.entry(reason).or_default().insert(probe.to_owned());
                }
                None => self.differences.push(format!("{probe}: {difference}")),
            }
        }
    }

    /// As it is kept beside the other results.
    pub(crate) fn describe(&self) -> Value {
        json!({
            "bootstrap": self.bootstrap, "probes": self.probes, "same": self.same, "log_lines": self.log_lines,
            "log_fields": self.log_fields, "known": self.known, "differences": self.differences,
        })
    }
}

fn log_differences(ours: &[Map<String, Value>], theirs: &[Map<String, Value>]) -> Vec<String> {
    if ours.len() != theirs.len() {
        return vec![format!("log: {} lines, envoy {}", ours.len(), theirs.len())];
    }
    let mut differences = Vec::new();
    for (our, their) in ours.iter().zip(theirs) {
        let names: BTreeSet<&String> = our.keys().chain(their.keys()).collect();
        for name in names {
            let show = |value: Option<&Value>| value.map_or("no such field".to_owned(), Value::to_string);
            if our.get(name) != their.get(name) {
                differences.push(format!(
                    "log: {name}: {}, envoy {}",
                    show(our.get(name)),
                    show(their.get(name))
                ));
            }
        }
    }
    differences
}
