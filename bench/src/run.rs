//! The orchestrator: what is asked for, sets, rounds.
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
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::args::Args;
use crate::measure::Bench;
use crate::peer::{Backends, Installed, Peer, Places, certificates};
use crate::process::{self, Process};
use crate::set::{self, Set};
use crate::{alike, machine, node, report};

/// Core of the load generator and the backend.
pub(crate) const LOAD_CORE: usize = 0;
/// Core of the proxies.
pub(crate) const PROXY_CORE: usize = 1;
/// Who takes part in the smoke form, where it is not the plain set: who runs from the same bytes.
const SMOKE_PEERS: [Peer; 4] = [Peer::Rajut, Peer::RajutOff, Peer::Envoy, Peer::EnvoyOff];

/// Open files of a proxy beside two for each connection.
const FILES_SPARE: u64 = 2000;

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
    pub(crate) set: &'static Set,
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
    /// Connections of the sets that hold them open.
    pub(crate) held: usize,
    /// How long after the load memory is read (in the last round; the others do not wait).
    pub(crate) rest: Duration,
    /// Whether answers are compared first.
    alike: bool,
    /// Whether the Node example is run last.
    node: bool,
    sets: Vec<&'static Set>,
    peers: Option<Vec<String>>,
    pub(crate) root: PathBuf,
}

impl Options {
    fn parse(args: &Args) -> Result<Self> {
        let smoke = args.flag("smoke");
        let (rounds, seconds, rest) = match (smoke, args.flag("short"), args.flag("full")) {
            (true, ..) => (1, 0.2, 0),
            (_, true, false) => (2, 1.0, 1),
            (_, false, true) => (5, 10.0, 60),
            (_, false, false) => (3, 4.0, 5),
            _ => bail!("either --short or --full"),
        };
        let mut sets = Vec::new();
        let mut alike = args.words().is_empty();
        let mut node = alike && !smoke;
        for word in args.words() {
            if word == "alike" || word == "node" {
                alike |= word == "alike";
                node |= word == "node";
                continue;
            }
            sets.push(set::named(word)?);
        }
        if args.words().is_empty() {
            sets = set::ALL.iter().collect();
        }
        let options = Self {
            rounds: args.number("rounds", rounds)?,
            seconds: args.number("secs", seconds)?,
            rate: args.number("rate", 2000.0)?,
            realtime: args.flag("rt"),
            profile: args.text("profile").unwrap_or("release").to_owned(),
            smoke,
            held: args.number("held", if smoke { 200 } else { 10_000 })?,
            rest: Duration::from_secs(args.number("rest", rest)?),
            alike,
            node,
            sets,
            peers: args
                .text("peers")
                .map(|list| list.split(',').map(str::to_owned).collect()),
            root: args.text("root").unwrap_or(".").into(),
        };
        if !(1..=20).contains(&options.rounds) || !(0.2..=60.0).contains(&options.seconds) {
            bail!("--rounds 1 to 20, --secs 0.2 to 60");
        }
        if !(1..=10_000).contains(&options.held) || options.rest.as_secs() > 600 {
            bail!("--held 1 to 10000, --rest 0 to 600");
        }
        Ok(options)
    }

    /// Whether the command line leaves it in.
    fn wants(&self, set: &Set, peer: Peer) -> bool {
        if self.smoke && set.name != set::ALL[0].name && !SMOKE_PEERS.contains(&peer) {
            return false;
        }
        self.peers
            .as_ref()
            .is_none_or(|list| peer == Peer::Direct || list.iter().any(|name| name == peer.name()))
    }

    /// Whether the Node example is to run on that data plane; the smoke form looks at ours alone.
    fn wants_plane(&self, plane: &str) -> bool {
        let named = self
            .peers
            .as_ref()
            .map(|list| list.iter().any(|name| name == plane));
        named.unwrap_or(!self.smoke || plane == "rajut")
    }

    pub(crate) fn describe(&self) -> Value {
        json!({
            "rounds": self.rounds, "seconds": self.seconds, "rate": self.rate, "realtime": self.realtime,
            "profile": self.profile, "held": self.held, "rest": self.rest.as_secs(), "load_core": LOAD_CORE, "proxy_core": PROXY_CORE,
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
    if let Err(why) = process::allow_files(2 * options.held as u64 + FILES_SPARE) {
        println!("held connections: {why:#}: a proxy that opens another for each may fail; then say --held");
    }
    let machine = machine::describe(&options.root);
    println!("{}", machine::line(&machine));
    let work = WorkDir(std::env::temp_dir().join(format!("rajut-bench-{}", std::process::id())));
    fs::create_dir_all(&work.0)?;
    let (backend, backends) = start_backend(&work.0)?;
    let mut failed = options.alike && !answers_alike(&options, &work.0, backends)?;
    for set in &options.sets {
        let result = measure_set(set, &options, &work.0, backends, backend.pid())?;
        failed |= result.rows.iter().any(|row| row.failed.is_some());
        report::print(&result, &options);
        if !options.smoke {
            report::write(&result, &options, &machine, &options.root)?;
        }
    }
    if options.node {
        let ours = Peer::Rajut.find(&options.root, &options.profile, &work.0)?;
        let seconds = options.seconds.clamp(5.0, 30.0);
        let mut measured = Vec::new();
        for plane in ["rajut", "envoy"] {
            if options.wants_plane(plane) {
                let figures = node::measure(&options.root, &ours.program, plane, &work.0, seconds);
                failed |= figures.is_err() && plane == "rajut";
                measured.push((plane, figures));
            }
        }
        report::node(&measured, &options, &machine)?;
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

pub(crate) fn own_command(words: &[&str]) -> Result<Vec<String>> {
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
        empty: port("empty")?,
        big: port("big")?,
        grpc: port("grpc")?,
        collector: port("collector")?,
        wide: port("wide")?,
        http2: port("http2")?,
        echo: port("echo")?,
        source: port("source")?,
    };
    Ok((process, backends))
}

/// Before anything is timed: whether we answer as Envoy does.
fn answers_alike(options: &Options, dir: &Path, backends: Backends) -> Result<bool> {
    let [front, second, middle, middle_small] = free_ports()?;
    let places = Places {
        dir: dir.to_owned(),
        front,
        second,
        middle,
        middle_small,
        backends,
    };
    let found = |peer: Peer| peer.find(&options.root, &options.profile, dir);
    let ours = found(Peer::Rajut)?;
    let alike = match found(Peer::Envoy) {
        Ok(theirs) => alike::compare(&ours, &theirs, &places),
        Err(why) => {
            println!("\n== alike: not shown, Envoy is absent: {why:#}");
            return Ok(true);
        }
    };
    report::alike(alike, options)
}

fn measure_set(
    set: &'static Set,
    options: &Options,
    dir: &Path,
    backends: Backends,
    backend: u32,
) -> Result<SetResult> {
    let [front, second, middle, middle_small] = free_ports()?;
    let places = Places {
        dir: dir.to_owned(),
        front,
        second,
        middle,
        middle_small,
        backends,
    };
    let mut result = SetResult {
        set,
        rows: Vec::new(),
        absent: Vec::new(),
        bootstraps: Vec::new(),
    };
    if set.needs_certificates() {
        certificates::make(dir)?;
    }
    for (file, hash) in places.write_bootstraps(set, false)? {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        result.bootstraps.push((name, hash));
    }
    for &peer in set.peers.iter().filter(|peer| options.wants(set, **peer)) {
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
                set.name,
                round + 1,
                options.rounds
            ));
            match bench.round(&row.installed, round + 1 == options.rounds) {
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
fn free_ports() -> Result<[u16; 4]> {
    // Each run begins elsewhere: two at a time, or an earlier one's late process, must not share a port.
    let from = 19_000 + u16::try_from(std::process::id() % 100).unwrap_or_default() * 100;
    let mut free = (from..from + 1000).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let mut next = || free.next().context("no free port among a thousand");
    Ok([next()?, next()?, next()?, next()?])
}
