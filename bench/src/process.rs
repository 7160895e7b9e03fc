//! Processes under measurement: started on a given core, read through `/proc`, ended by id when dropped.
//!
//! Where util-linux's `setpriv` is there, a process also ends when the orchestrator is killed outright.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::thread::CpuSet;

/// A process gets so long to end by itself.
const END_WAIT: Duration = Duration::from_secs(3);

/// A started process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

/// Memory of processes, in MiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) rss: f64,
    pub(crate) pss: f64,
}

/// CPU time of processes, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// User and system together, from the scheduler's own count (nanoseconds) where the kernel has it.
    pub(crate) total: f64,
    /// The system's share, in clock ticks.
    pub(crate) system: f64,
}

impl Process {
    /// Starts `command` on `core`; its output goes to `log`.
    pub(crate) fn start(command: &[String], core: usize, log: &Path) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let mut child = prepare(command, core)?;
        child.stdout(out.try_clone()?).stderr(out);
        Ok(Self {
            child: spawn(child, core)?,
            log: log.to_owned(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Why it is no longer there, if it is not.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(format!("{status}: {}", self.last_words()))
    }

    /// The last lines of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let mut lines: Vec<&str> = text
            .lines()
            .rev()
            .filter(|l| !l.trim().is_empty())
            .take(6)
            .collect();
        lines.reverse();
        lines.join(" | ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let start = Instant::now();
        while start.elapsed() < END_WAIT {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `command` on `core` to its end and gives what it printed.
pub(crate) fn output(command: &[String], core: usize) -> Result<String> {
    let mut child = prepare(command, core)?;
    child.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawn(child, core)?.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}: {}", name(&command[0]), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first line that a process prints, which then stays up.
pub(crate) fn start_and_read_line(command: &[String], core: usize, log: &Path) -> Result<(Process, String)> {
    use std::io::{BufRead, BufReader};
    let out = File::options().create(true).append(true).open(log)?;
    let mut child = prepare(command, core)?;
    child.stdout(Stdio::piped()).stderr(out);
    let mut child = spawn(child, core)?;
    let pipe = child.stdout.take().context("its output is piped")?;
    let process = Process {
        child,
        log: log.to_owned(),
    };
    let mut line = String::new();
    BufReader::new(pipe).read_line(&mut line)?;
    Ok((process, line))
}

fn prepare(command: &[String], core: usize) -> Result<Command> {
    let Some((program, rest)) = command.split_first() else {
        bail!("no command for core {core}")
    };
    let mut prepared = match find("setpriv") {
        Some(setpriv) => {
            let mut wrapped = Command::new(setpriv);
            // It executes the program in its place, so that the process id stays.
            wrapped.args(["--pdeathsig", "KILL", "--"]).arg(program);
            wrapped
        }
        None => Command::new(program),
    };
    prepared.args(rest).stdin(Stdio::null());
    Ok(prepared)
}

/// A child inherits the affinity of the thread that starts it.
fn spawn(mut command: Command, core: usize) -> Result<Child> {
    let own = rustix::thread::sched_getaffinity(None)?;
    pin(core)?;
    let child = command.spawn();
    rustix::thread::sched_setaffinity(None, &own)?;
    child.with_context(|| format!("starting {:?}", command.get_program()))
}

/// Moves this thread to a core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("core {core}"))
}

/// Lets this process and those that it starts open so many files, as far as it may.
pub(crate) fn allow_files(files: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= files) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(files));
    let raised = Rlimit {
        current: Some(files),
        maximum,
    };
    setrlimit(Resource::Nofile, raised)
        .with_context(|| format!("no more than {:?} open files are allowed", limit.maximum))
}

/// A program on `PATH`, also in the folders for administrators, where Debian puts proxies.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Path::new(program).is_file().then(|| program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

fn name(program: &str) -> &str {
    Path::new(program)
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or(program)
}

/// CPU time that these processes have used, all their threads.
pub(crate) fn cpu(pids: &[u32]) -> Cpu {
    let mut sum = Cpu::default();
    for pid in pids {
        let (user, system) = ticks(*pid);
        let precise = run_seconds(*pid);
        sum.total += if precise > 0.0 { precise } else { user + system };
        sum.system += system;
    }
    sum
}

/// User and system seconds of a process (`/proc/PID/stat`, fields 14 and 15).
fn ticks(pid: u32) -> (f64, f64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |n| {
        after_name
            .split_whitespace()
            .nth(n)
            .and_then(|v: &str| v.parse::<f64>().ok())
    };
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    (
        field(11).unwrap_or_default() / per_second,
        field(12).unwrap_or_default() / per_second,
    )
}

/// Seconds that the threads of a process have run (`schedstat`, first field, nanoseconds).
fn run_seconds(pid: u32) -> f64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0.0;
    };
    let of = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    tasks.flatten().filter_map(of).sum::<f64>() / 1e9
}

/// Seconds that a core has been busy, whoever used it (`/proc/stat` without idle and wait).
pub(crate) fn core_busy(core: usize) -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let label = format!("cpu{core} ");
    let Some(line) = stat.lines().find_map(|l| l.strip_prefix(&label)) else {
        return 0.0;
    };
    let ticks: Vec<f64> = line.split_whitespace().filter_map(|v| v.parse().ok()).collect();
    [0, 1, 2, 5, 6, 7]
        .iter()
        .filter_map(|i| ticks.get(*i))
        .sum::<f64>()
        / rustix::param::clock_ticks_per_second() as f64
}

/// What these processes hold in memory now.
pub(crate) fn memory(pids: &[u32]) -> Memory {
    let mut sum = Memory::default();
    for pid in pids {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let kib = |key: &str| {
            let line = rollup.lines().find_map(|l| l.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        sum.rss += kib("Rss:").unwrap_or_default() / 1024.0;
        sum.pss += kib("Pss:").unwrap_or_default() / 1024.0;
    }
    sum
}

/// Puts every thread of these processes under the real-time scheduler, or back.
pub(crate) fn realtime(pids: &[u32], on: bool) -> Result<()> {
    for pid in pids {
        let policy = if on { ["-f", "1"] } else { ["-o", "0"] };
        let pid = pid.to_string();
        let done = Command::new("chrt")
            .args(["-a", policy[0], "-p", policy[1], &pid])
            .output()?;
        if !done.status.success() {
            bail!("--rt: chrt: {}", String::from_utf8_lossy(&done.stderr).trim());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_and_ends_with_its_owner() {
        let dir = std::env::temp_dir().join(format!("rajut-bench-test-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder for the test");
        let spin = ["sh", "-c", "while :; do :; done"].map(String::from);
        let process = Process::start(&spin, 0, &dir.join("log")).expect("sh starts");
        let pid = process.pid();
        let deadline = Instant::now() + Duration::from_secs(20);
        while cpu(&[pid]).total < 0.05 {
            assert!(Instant::now() < deadline, "a busy process uses CPU time");
        }
        assert!(memory(&[pid]).rss > 0.1);
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        fs::remove_dir_all(&dir).expect("the folder of the test");
    }
}
