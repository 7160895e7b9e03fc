//! One measurement: a peer is started, loaded as its set says, read, and ended.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::peer::{Installed, Peer, Places};
use crate::process::{self, Process};
use crate::run::{Figures, LOAD_CORE, Options, PROXY_CORE, own_command};
use crate::set::{Kind, Set, large};
use crate::{load, stats};

/// A proxy gets so long to answer first.
const START_WAIT: Duration = Duration::from_secs(15);
/// It is left alone so long before its idle memory is read and before it is loaded: what a start leaves to do is done.
const SETTLE: Duration = Duration::from_millis(2500);
/// The same where idle memory is what the set is about.
const IDLE_REST: Duration = Duration::from_secs(5);
/// Held connections are left alone so long before memory is read.
const HELD_REST: Duration = Duration::from_secs(2);
/// After they are gone the proxy is left alone for at least so long.
const CLOSED_REST: Duration = Duration::from_secs(10);

/// One set's measurements.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) set: &'static Set,
    pub(crate) options: &'a Options,
    pub(crate) places: &'a Places,
    /// The backend's process.
    pub(crate) backend: u32,
}

/// A started peer.
#[derive(Debug)]
struct Running {
    processes: Vec<Process>,
    pids: Vec<u32>,
    start_ms: f64,
}

impl Bench<'_> {
    /// Starts a peer, measures it once, ends it.
    pub(crate) fn round(&self, installed: &Installed, last: bool) -> Result<Figures> {
        let mut running = self.start(installed)?;
        let figures = self.measure(installed.peer, &running, last);
        for process in &mut running.processes {
            if let Some(ended) = process.ended() {
                bail!("it ended while it was measured: {ended}");
            }
        }
        figures.with_context(|| {
            running
                .processes
                .iter()
                .map(Process::last_words)
                .collect::<Vec<_>>()
                .join(" || ")
        })
    }

    fn start(&self, installed: &Installed) -> Result<Running> {
        let commands = installed.commands(self.set, self.places)?;
        let log = self
            .places
            .dir
            .join(format!("{}-{}.log", self.set.name, installed.peer.name()));
        let begin = Instant::now();
        let mut processes = Vec::new();
        for command in &commands {
            processes.push(Process::start(command, PROXY_CORE, &log)?);
        }
        let port = self.places.target(self.set, installed.peer);
        loop {
            let Err(why) = self.probe(port) else {
                break;
            };
            if let Some(ended) = processes.iter_mut().find_map(Process::ended) {
                bail!("it ended before it answered: {ended}");
            }
            if begin.elapsed() > START_WAIT {
                bail!(
                    "no answer after {START_WAIT:?}: {why:#}: {}",
                    processes.last().map_or_else(String::new, Process::last_words)
                );
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let pids = processes.iter().map(Process::pid).collect();
        Ok(Running {
            processes,
            pids,
            start_ms: begin.elapsed().as_secs_f64() * 1e3,
        })
    }

    fn probe(&self, port: u16) -> Result<()> {
        let tls = self.set.load_speaks_tls().then_some(self.places.dir.as_path());
        load::probe(self.set.protocol, port, self.set.body(), tls)
    }

    fn measure(&self, peer: Peer, running: &Running, last: bool) -> Result<Figures> {
        let mut figures = Figures::new();
        let proxied = !running.pids.is_empty();
        if proxied {
            figures.insert("start_ms", running.start_ms);
            self.idle(running, &mut figures);
        }
        if self.set.kind == Kind::Idle {
            return Ok(figures);
        }
        let port = self.places.target(self.set, peer);
        if self.options.realtime {
            process::realtime(&[&running.pids[..], &[self.backend]].concat(), true)?;
        }
        let loaded = self.loads(peer, port, running, &mut figures);
        if self.options.realtime {
            process::realtime(&[self.backend], false)?;
        }
        loaded?;
        if proxied && self.set.kind != Kind::Held {
            if last {
                std::thread::sleep(self.options.rest);
            }
            let memory = process::memory(&running.pids);
            figures.insert("rss_load_mib", memory.rss);
            figures.insert("pss_load_mib", memory.pss);
        }
        if self.set.kind == Kind::Large {
            self.unused(running, &mut figures, last)?;
        }
        Ok(figures)
    }

    fn loads(&self, peer: Peer, port: u16, running: &Running, figures: &mut Figures) -> Result<()> {
        if self.set.kind == Kind::Held {
            return self.held(port, running, figures);
        }
        // Connections to the backend come up, caches fill.
        self.load(port, 0.3, 0.0)?;
        if self.set.kind == Kind::Tcp {
            self.bulk(peer, running, figures)?;
        }
        self.saturated(port, running, figures)?;
        if self.options.smoke {
            return Ok(());
        }
        self.fixed_rate(port, running, figures)
    }

    /// Opens connections, has each used once and left open, and reads the memory before, with and without them.
    fn held(&self, port: u16, running: &Running, figures: &mut Figures) -> Result<()> {
        let held = self.options.held;
        let mut words = self.words(port, held);
        words.extend(["--hold", "--secs", "300"].map(str::to_owned));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let log = self.places.dir.join("hold.log");
        let window = Window::open(&running.pids);
        let (process, line) = process::start_and_read_line(&own_command(&words)?, LOAD_CORE, &log)?;
        let (cpu, ..) = window.close(&running.pids);
        let out: Value = serde_json::from_str(&line)
            .with_context(|| format!("the connections were not opened: {}", process.last_words()))?;
        check(&out)?;
        std::thread::sleep(HELD_REST);
        let with = process::memory(&running.pids);
        let window = Window::open(&running.pids);
        std::thread::sleep(SETTLE);
        let (idle, wall, _) = window.close(&running.pids);
        drop(process);
        std::thread::sleep(if self.options.smoke {
            HELD_REST
        } else {
            CLOSED_REST.max(self.options.rest)
        });
        let after = process::memory(&running.pids);
        let before = figures.get("pss_idle_mib").copied().unwrap_or_default();
        figures.insert("held", held as f64);
        figures.insert("held_kib_each", (with.pss - before) * 1024.0 / held as f64);
        figures.insert("pss_held_mib", with.pss);
        figures.insert("pss_freed_mib", after.pss);
        figures.insert("held_cpu_us", cpu.total * 1e6 / held as f64);
        figures.insert("held_idle_cpu_ms_per_s", idle.total * 1e3 / wall);
        Ok(())
    }

    /// One request to each of the services that were never asked, then the memory with them and after disuse.
    fn unused(&self, running: &Running, figures: &mut Figures, last: bool) -> Result<()> {
        let mut waits = Vec::new();
        for service in large::unused() {
            let host = large::host(service);
            let wait = load::ask(self.places.front, &host)
                .with_context(|| format!("the first request to {host}"))?;
            waits.push(wait.as_secs_f64() * 1e3);
        }
        figures.insert("unused_first_ms", waits[0]);
        figures.insert("unused_worst_ms", waits.iter().copied().fold(0.0, f64::max));
        figures.insert("unused_median_ms", stats::median(&waits).unwrap_or_default());
        figures.insert("pss_unused_mib", process::memory(&running.pids).pss);
        if last {
            std::thread::sleep(self.options.rest);
        }
        figures.insert("pss_disused_mib", process::memory(&running.pids).pss);
        Ok(())
    }

    /// Memory after the first answer, and what an idle proxy still does.
    fn idle(&self, running: &Running, figures: &mut Figures) {
        let before = process::cpu(&running.pids).total;
        let begin = Instant::now();
        std::thread::sleep(match self.set.kind {
            _ if self.options.smoke => SETTLE / 50,
            Kind::Idle | Kind::Held | Kind::Large => IDLE_REST,
            _ => SETTLE,
        });
        let used = process::cpu(&running.pids).total - before;
        figures.insert("idle_cpu_ms_per_s", used * 1e3 / begin.elapsed().as_secs_f64());
        let memory = process::memory(&running.pids);
        figures.insert("rss_idle_mib", memory.rss);
        figures.insert("pss_idle_mib", memory.pss);
    }

    fn bulk(&self, peer: Peer, running: &Running, figures: &mut Figures) -> Result<()> {
        let port = if peer == Peer::Direct {
            self.places.backends.source
        } else {
            self.places.front
        };
        let seconds = self.options.seconds.to_string();
        let window = Window::open(&running.pids);
        let out = self.generate(&["bulk", "--port", &port.to_string(), "--secs", &seconds])?;
        let (cpu, wall, _) = window.close(&running.pids);
        let gib = number(&out, "bytes")? / f64::from(1 << 30);
        figures.insert("bulk_gib_per_s", gib / number(&out, "secs")?);
        if !running.pids.is_empty() {
            figures.insert("bulk_cpu_ms_per_gib", cpu.total * 1e3 / gib);
            figures.insert("bulk_use", cpu.total / wall);
        }
        Ok(())
    }

    fn saturated(&self, port: u16, running: &Running, figures: &mut Figures) -> Result<()> {
        let window = Window::open(&running.pids);
        let out = self.load(port, self.options.seconds, 0.0)?;
        let (cpu, wall, other) = window.close(&running.pids);
        figures.insert("requests_per_s", number(&out, "per_second")?);
        if !running.pids.is_empty() {
            let requests = number(&out, "total")?;
            figures.insert("cpu_us", cpu.total * 1e6 / requests);
            figures.insert("cpu_system_us", cpu.system * 1e6 / requests);
            figures.insert("use", cpu.total / wall);
            figures.insert("other_use", other);
        }
        Ok(())
    }

    fn fixed_rate(&self, port: u16, running: &Running, figures: &mut Figures) -> Result<()> {
        let window = Window::open(&running.pids);
        // A handshake costs a thousandfold of a request's work.
        let rate = if self.set.kind == Kind::Fresh {
            self.options.rate / 8.0
        } else {
            self.options.rate
        };
        let out = self.load(port, self.options.seconds, rate)?;
        let (cpu, _, other) = window.close(&running.pids);
        for (name, key) in [
            ("rate_p50_us", "p50_us"),
            ("rate_p90_us", "p90_us"),
            ("rate_p99_us", "p99_us"),
        ] {
            figures.insert(name, number(&out, key)?);
        }
        if !running.pids.is_empty() {
            figures.insert("rate_cpu_us", cpu.total * 1e6 / number(&out, "total")?);
            figures.insert("rate_other_use", other);
        }
        Ok(())
    }

    /// Runs the load generator; any error in an answer fails the round.
    fn load(&self, port: u16, seconds: f64, rate: f64) -> Result<Value> {
        let mut words = self.words(port, self.set.connections);
        words.extend([
            "--secs".to_owned(),
            seconds.to_string(),
            "--rate".to_owned(),
            rate.to_string(),
        ]);
        if self.set.kind == Kind::Fresh {
            words.push("--fresh".to_owned());
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let out = self.generate(&words)?;
        check(&out)?;
        Ok(out)
    }

    fn words(&self, port: u16, connections: usize) -> Vec<String> {
        let (body, connections, port) = (self.set.body(), connections.to_string(), port.to_string());
        let mut words = [
            "load",
            "--proto",
            self.set.protocol,
            "--port",
            &port,
            "--conns",
            &connections,
        ]
        .map(str::to_owned)
        .to_vec();
        words.extend(["--expect".to_owned(), body.to_string()]);
        if self.set.load_speaks_tls() {
            words.extend(["--tls".to_owned(), self.places.dir.to_string_lossy().into_owned()]);
        }
        words
    }

    fn generate(&self, words: &[&str]) -> Result<Value> {
        let mut command = own_command(words)?;
        if self.options.realtime {
            command.splice(0..0, ["chrt", "-f", "1"].map(str::to_owned));
        }
        Ok(serde_json::from_str(&process::output(&command, LOAD_CORE)?)?)
    }
}

fn check(out: &Value) -> Result<()> {
    if number(out, "errors")? > 0.0 || number(out, "total")? < 1.0 {
        bail!("wrong or missing answers: {out}");
    }
    Ok(())
}

fn number(out: &Value, key: &str) -> Result<f64> {
    out[key].as_f64().with_context(|| format!("no {key} in {out}"))
}

/// CPU time between two moments.
#[derive(Debug)]
struct Window {
    cpu: process::Cpu,
    busy: f64,
    begin: Instant,
}

impl Window {
    fn open(pids: &[u32]) -> Self {
        Self {
            cpu: process::cpu(pids),
            busy: process::core_busy(PROXY_CORE),
            begin: Instant::now(),
        }
    }

    /// CPU time of the processes, the wall time, and the share of the proxy's core that others used.
    fn close(&self, pids: &[u32]) -> (process::Cpu, f64, f64) {
        let wall = self.begin.elapsed().as_secs_f64();
        let now = process::cpu(pids);
        let cpu = process::Cpu {
            total: now.total - self.cpu.total,
            system: now.system - self.cpu.system,
        };
        let other = (process::core_busy(PROXY_CORE) - self.busy - cpu.total).max(0.0) / wall;
        (cpu, wall, other)
    }
}
