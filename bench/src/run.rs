//! The orchestrator: sets, rounds, measurements.
//!
//! In each round each peer is started, measured and ended, one after the other (so that all can use the same ports,
//! and we and Envoy the same bootstrap bytes), beginning with another one each round. The load generator and the
//! backend run on core 0, the proxies on core 1. Everything is bounded in time; what was started is ended by its id.

use std::collections::BTreeMap;
use std::fs;
use std::io::IsTerminal;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::args::Args;
use crate::load;
use crate::peer::{Backends, Installed, Peer, Places, Set, certificates};
use crate::process::{self, Process};
use crate::{machine, report};

/// Core of the load generator and the backend.
const LOAD_CORE: usize = 0;
/// Core of the proxies.
const PROXY_CORE: usize = 1;
/// A proxy gets so long to answer first.
const START_WAIT: Duration = Duration::from_secs(15);
/// It is left alone so long before its idle memory is read.
const SETTLE: Duration = Duration::from_millis(500);

/// One round's figures of one peer, by name.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// What one peer gave in one set.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) installed: Installed,
    pub(crate) rounds: Vec<Figures>,
    pub(crate) failed: Option<String>,
}

/// What one set gave.
#[derive(Debug)]
pub(crate) struct SetResult {
    pub(crate) set: Set,
    pub(crate) rows: Vec<Row>,
    /// Who took no part, and why.
    pub(crate) absent: Vec<(Peer, String)>,
    pub(crate) bootstraps: Vec<(String, String)>,
}

/// How it is measured.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) rate: f64,
    pub(crate) realtime: bool,
    pub(crate) profile: String,
    pub(crate) smoke: bool,
    sets: Vec<Set>,
    peers: Option<Vec<String>>,
    root: PathBuf,
}

impl Options {
    fn parse(args: &Args) -> Result<Self> {
        let smoke = args.flag("smoke");
        let (rounds, seconds) = match (smoke, args.flag("short"), args.flag("full")) {
            (true, ..) => (1, 0.5),
            (_, true, false) => (3, 1.0),
            (_, false, true) => (5, 10.0),
            (_, false, false) => (3, 4.0),
            _ => bail!("either --short or --full"),
        };
        let mut sets = Vec::new();
        for word in args.words() {
            let Some(set) = Set::ALL.into_iter().find(|set| set.name() == word) else {
                let names: Vec<&str> = Set::ALL.iter().map(|set| set.name()).collect();
                bail!("no set {word}; there are {}", names.join(", "));
            };
            sets.push(set);
        }
        if sets.is_empty() {
            sets = Set::ALL.to_vec();
        }
        let options = Self {
            rounds: args.number("rounds", rounds)?,
            seconds: args.number("secs", seconds)?,
            rate: args.number("rate", 2000.0)?,
            realtime: args.flag("rt"),
            profile: args.text("profile").unwrap_or("release").to_owned(),
            smoke,
            sets,
            peers: args
                .text("peers")
                .map(|list| list.split(',').map(str::to_owned).collect()),
            root: args.text("root").unwrap_or(".").into(),
        };
        if !(1..=20).contains(&options.rounds) || !(0.2..=60.0).contains(&options.seconds) {
            bail!("--rounds 1 to 20, --secs 0.2 to 60");
        }
        Ok(options)
    }

    /// Whether the command line leaves it in.
    fn wants(&self, peer: Peer) -> bool {
        self.peers
            .as_ref()
            .is_none_or(|list| peer == Peer::Direct || list.iter().any(|name| name == peer.name()))
    }

    pub(crate) fn describe(&self) -> Value {
        json!({
            "rounds": self.rounds, "seconds": self.seconds, "rate": self.rate, "realtime": self.realtime,
            "profile": self.profile, "load_core": LOAD_CORE, "proxy_core": PROXY_CORE,
        })
    }
}

/// Everything is removed with it.
#[derive(Debug)]
struct WorkDir(PathBuf);

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the sets; prints and writes what they gave. The smoke form writes nothing and fails when a proxy does.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let options = Options::parse(args)?;
    process::pin(PROXY_CORE).context("the benchmark needs two cores")?;
    process::pin(LOAD_CORE)?;
    let machine = machine::describe(&options.root);
    println!("{}", machine::line(&machine));
    let work = WorkDir(std::env::temp_dir().join(format!("rajut-bench-{}", std::process::id())));
    fs::create_dir_all(&work.0)?;
    let (backend, backends) = start_backend(&work.0)?;
    let mut failed = false;
    for set in &options.sets {
        let result = measure_set(*set, &options, &work.0, backends, backend.pid())?;
        failed |= result.rows.iter().any(|row| row.failed.is_some());
        report::print(&result, &options);
        if !options.smoke {
            report::write(&result, &options, &machine, &options.root)?;
        }
    }
    if !options.smoke {
        report::write_markdown(&options.root)?;
    }
    if failed {
        eprintln!("rajut-bench: some proxies failed; see above");
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn own_command(words: &[&str]) -> Result<Vec<String>> {
    let own = std::env::current_exe()?.to_string_lossy().into_owned();
    Ok(std::iter::once(own)
        .chain(words.iter().map(|w| (*w).to_owned()))
        .collect())
}

fn start_backend(dir: &Path) -> Result<(Process, Backends)> {
    let command = own_command(&["backend"])?;
    let (process, line) = process::start_and_read_line(&command, LOAD_CORE, &dir.join("backend.log"))?;
    let ports: Value = serde_json::from_str(&line).context("the backend's ports")?;
    let port = |name: &str| -> Result<u16> {
        let port = ports[name].as_u64().and_then(|p| u16::try_from(p).ok());
        port.with_context(|| format!("the backend's port for {name}"))
    };
    let backends = Backends {
        http1: port("http1")?,
        http2: port("http2")?,
        echo: port("echo")?,
        source: port("source")?,
    };
    Ok((process, backends))
}

fn measure_set(
    set: Set,
    options: &Options,
    dir: &Path,
    backends: Backends,
    backend: u32,
) -> Result<SetResult> {
    let [front, second, middle] = free_ports()?;
    let places = Places {
        dir: dir.to_owned(),
        front,
        second,
        middle,
        backends,
    };
    let mut result = SetResult {
        set,
        rows: Vec::new(),
        absent: Vec::new(),
        bootstraps: Vec::new(),
    };
    if set == Set::Tls2 {
        certificates::make(dir)?;
    }
    for (file, hash) in places.write_bootstraps(set)? {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        result.bootstraps.push((name, hash));
    }
    for &peer in set.peers().iter().filter(|peer| options.wants(**peer)) {
        let found = peer.find(&options.root, &options.profile, dir);
        let found = found.and_then(|installed| installed.commands(set, &places).map(|_| installed));
        match found {
            Ok(installed) => result.rows.push(Row {
                installed,
                rounds: Vec::new(),
                failed: None,
            }),
            Err(why) => result.absent.push((peer, format!("{why:#}"))),
        }
    }
    let bench = Bench {
        set,
        options,
        places: &places,
        backend,
    };
    let count = result.rows.len();
    for round in 0..options.rounds {
        for place in 0..count {
            let row = &mut result.rows[(round + place) % count];
            if row.failed.is_some() {
                continue;
            }
            let name = row.installed.peer.name();
            progress(&format!(
                "{}: round {} of {}, {name}",
                set.name(),
                round + 1,
                options.rounds
            ));
            match bench.round(&row.installed) {
                Ok(figures) => row.rounds.push(figures),
                Err(error) => row.failed = Some(format!("{error:#}")),
            }
        }
    }
    progress("");
    Ok(result)
}

/// One line that replaces the last one, on a terminal only.
fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}

/// Ports that nobody listens on now, below the range from which the kernel takes the ports of clients. Each peer of
/// the set listens on them in its turn.
fn free_ports() -> Result<[u16; 3]> {
    let mut free = (19_000..30_000).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let mut next = || free.next().context("no free port from 19000 to 30000");
    Ok([next()?, next()?, next()?])
}

/// One set's measurements.
#[derive(Debug)]
struct Bench<'a> {
    set: Set,
    options: &'a Options,
    places: &'a Places,
    backend: u32,
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
    fn round(&self, installed: &Installed) -> Result<Figures> {
        let mut running = self.start(installed)?;
        let figures = self.measure(installed.peer, &running);
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
            .join(format!("{}-{}.log", self.set.name(), installed.peer.name()));
        let begin = Instant::now();
        let mut processes = Vec::new();
        for command in &commands {
            processes.push(Process::start(command, PROXY_CORE, &log)?);
        }
        let port = self.places.target(self.set, installed.peer);
        loop {
            let Err(why) = load::probe(self.set.protocol(), port) else {
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

    fn measure(&self, peer: Peer, running: &Running) -> Result<Figures> {
        let mut figures = Figures::new();
        let proxied = !running.pids.is_empty();
        if proxied {
            figures.insert("start_ms", running.start_ms);
            self.idle(running, &mut figures);
        }
        if self.set == Set::IdleMemory {
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
        if proxied {
            let memory = process::memory(&running.pids);
            figures.insert("rss_load_mib", memory.rss);
            figures.insert("pss_load_mib", memory.pss);
        }
        Ok(figures)
    }

    fn loads(&self, peer: Peer, port: u16, running: &Running, figures: &mut Figures) -> Result<()> {
        // Connections to the backend come up, caches fill.
        self.load(port, 0.3, 0.0)?;
        if self.set == Set::Tcp {
            self.bulk(peer, running, figures)?;
        }
        self.saturated(port, running, figures)?;
        self.fixed_rate(port, running, figures)
    }

    /// Memory after the first answer, and what an idle proxy still does.
    fn idle(&self, running: &Running, figures: &mut Figures) {
        let before = process::cpu(&running.pids).total;
        let begin = Instant::now();
        std::thread::sleep(SETTLE);
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
        let out = self.load(port, self.options.seconds, self.options.rate)?;
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
        let connections = if self.set == Set::Http2 { "8" } else { "32" };
        let (port, seconds, rate) = (port.to_string(), seconds.to_string(), rate.to_string());
        let words = [
            "load",
            "--proto",
            self.set.protocol(),
            "--port",
            &port,
            "--conns",
            connections,
        ];
        let out = self.generate(&[&words[..], &["--secs", &seconds, "--rate", &rate]].concat())?;
        if number(&out, "errors")? > 0.0 || number(&out, "total")? < 1.0 {
            bail!("wrong or missing answers: {out}");
        }
        Ok(out)
    }

    fn generate(&self, words: &[&str]) -> Result<Value> {
        let mut command = own_command(words)?;
        if self.options.realtime {
            command.splice(0..0, ["chrt", "-f", "1"].map(str::to_owned));
        }
        Ok(serde_json::from_str(&process::output(&command, LOAD_CORE)?)?)
    }
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
