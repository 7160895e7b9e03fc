//! Processes of the mesh: started with their output in a bounded log, stopped in order, and never forgotten.
//!
//! Three nets below each other see to it that nothing is left behind: the supervisor stops what it started; the kernel
//! kills the children of a supervisor that dies (`PR_SET_PDEATHSIG`); and whatever escaped both (grandchildren of a
//! killed application) is found by the next `up` or `down`: through its record in `run/*.pid`, and because every process
//! inherits `RAJUT_RUN=<id>` ([`RUN_VARIABLE`]).
//!
//! Every process leads a session of its own, so that Ctrl-C reaches the supervisor alone, which stops the others in
//! order, and so that stopping a shell also stops what it started.

use std::{
    cell::RefCell,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    rc::Rc,
    time::Duration,
};

use rajut_platform::process::{
    Child, Isolation, ProcessId, Signal, SpawnError, kill_all, processes_with_variable, spawn,
};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{
    logs::RotatingLog,
    state::{StateDir, StateError},
};

/// Marks every process of one run of a mesh.
pub const RUN_VARIABLE: &str = "RAJUT_RUN";
/// How long what a killed supervisor left behind may take to end by itself.
const LEFTOVER_GRACE: Duration = Duration::from_secs(3);

/// What is to be started.
#[derive(Debug)]
pub struct Spawn {
    /// The name in records and of the log file.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// On top of the supervisor's environment.
    pub env: Vec<(String, String)>,
    /// Where it is started; `None`: where the supervisor was.
    pub directory: Option<PathBuf>,
    /// Its namespaces; the ties to the supervisor are added.
    pub isolation: Isolation,
}

/// Why a process did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file of the state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The process itself.
    #[error("can't start {program}: {}", causes(.source))]
    Spawn {
        /// Which program.
        program: String,
        /// What failed.
        source: SpawnError,
    },
    /// Its output can't be read.
    #[error("can't read the output of {program}: {source}")]
    Output {
        /// Which program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
}

/// An error and what caused it, on one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A running child, with its record.
#[derive(Debug)]
pub struct Process {
    child: Child,
    record: PathBuf,
}

impl Process {
    /// Starts it. Its output goes to `logs/<name>.log` until its last writer has closed it.
    ///
    /// Call it on the main thread only: the child dies with the thread that started it.
    pub fn start(what: Spawn, state: &StateDir) -> Result<Self, StartError> {
        let program = what.program.display().to_string();
        let log_path = state.log_file(&what.name);
        let log = RotatingLog::open(&log_path).map_err(|source| StateError::File {
            path: log_path,
            source,
        })?;
        let mut command = Command::new(&what.program);
        command
            .args(&what.arguments)
            .envs(what.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(directory) = &what.directory {
            command.current_dir(directory);
        }
        let isolation = Isolation {
            new_session: true,
            die_with_parent: true,
            ..what.isolation
        };
        let mut child = spawn(command, isolation).map_err(|source| StartError::Spawn {
            program: program.clone(),
            source,
        })?;
        let log = Rc::new(RefCell::new(log));
        for output in [child.take_stdout(), child.take_stderr()].into_iter().flatten() {
            let output = output.map_err(|source| StartError::Output {
                program: program.clone(),
                source,
            })?;
            tokio::task::spawn_local(copy(output, Rc::clone(&log)));
        }
        let record = state.pid_file(&what.name);
        fs::write(&record, format!("{}\n", child.id())).map_err(|source| StateError::File {
            path: record.clone(),
            source,
        })?;
        Ok(Self { child, record })
    }

    /// Its process id.
    pub const fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Waits for its end and says how it ended. Can be dropped and called again.
    pub async fn wait(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => format!("it can't be waited for: {error}"),
        }
    }

    /// Asks it to end (SIGTERM to its group), waits, and kills the group after `grace`. Tells whether it had to.
    pub async fn stop(mut self, grace: Duration) -> bool {
        // Signals fail only when the group has ended.
        let _ = self.child.signal_group(Signal::TERM);
        let killed = tokio::time::timeout(grace, self.child.wait()).await.is_err();
        if killed {
            let _ = self.child.signal_group(Signal::KILL);
            // A process in uninterruptible sleep ends with its system call.
            let _ = tokio::time::timeout(Duration::from_secs(2), self.child.wait()).await;
        }
        killed
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What it has started in its group belongs to it and goes with it.
        let _ = self.child.signal_group(Signal::KILL);
        let _ = fs::remove_file(&self.record);
    }
}

async fn copy(mut output: impl AsyncRead + Unpin, log: Rc<RefCell<RotatingLog>>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = output.read(&mut buffer).await {
        // A full disk must not stop the application: what can't be written is lost.
        let _ = log.borrow_mut().append(&buffer[..length]);
    }
}

/// Ends what a supervisor that was killed has left behind, by records and by mark; blocks for some seconds at most.
/// Returns how many processes it were.
pub fn clean_up(state: &StateDir, run: Option<&str>) -> Result<usize, StateError> {
    let mut left = recorded(state)?;
    let marked = |run: &str| processes_with_variable(RUN_VARIABLE, run).unwrap_or_default();
    if let Some(run) = run {
        for process in marked(run) {
            if !left.contains(&process) {
                left.push(process);
            }
        }
    }
    let count = left.len();
    kill_all(&left, LEFTOVER_GRACE);
    if let Some(run) = run {
        // What was started while the others ended.
        kill_all(&marked(run), Duration::ZERO);
    }
    remove_records(state);
    Ok(count)
}

/// Processes whose records still name them.
fn recorded(state: &StateDir) -> Result<Vec<ProcessId>, StateError> {
    let dir = state.run_dir();
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(StateError::File { path: dir, source }),
    };
    Ok(entries
        .filter_map(Result::ok)
        .filter_map(|entry| read_record(&entry.path()))
        .filter(|process| process.is_alive())
        .collect())
}

fn read_record(path: &Path) -> Option<ProcessId> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn remove_records(state: &StateDir) {
    if let Ok(entries) = fs::read_dir(state.run_dir()) {
        for entry in entries.filter_map(Result::ok) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Asks the supervisor to stop its mesh and waits until it has ended, blocking; after `limit` it is killed. Tells
/// whether it stopped by itself.
pub fn stop_supervisor(state: &StateDir, supervisor: &str, limit: Duration) -> bool {
    let Ok(supervisor) = supervisor.parse::<ProcessId>() else {
        return false;
    };
    let _ = supervisor.signal(Signal::TERM);
    let pause = Duration::from_millis(20);
    let mut waited = Duration::ZERO;
    while waited < limit {
        // It lets go of the lock some time before it has ended, and who asked wants nothing to be left.
        if !state.is_locked() && !supervisor.is_alive() {
            return true;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "a command waits for another process on a thread of its own"
        )]
        std::thread::sleep(pause);
        waited += pause;
    }
    let _ = supervisor.signal(Signal::KILL);
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: &str) -> (StateDir, PathBuf) {
        let dir = std::env::temp_dir().join(format!("rajut-process-{name}-{}", std::process::id()));
        let state = StateDir::locate(Some(&dir), None, None).unwrap();
        state.create().unwrap();
        (state, dir)
    }

    fn shell(name: &str, script: &str, env: &[(&str, &str)]) -> Spawn {
        Spawn {
            name: name.into(),
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            env: env
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
            directory: None,
            isolation: Isolation::default(),
        }
    }

    fn local<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, future)
    }

    #[test]
    fn a_supervisor_has_ended_when_it_is_said_to_be_stopped() {
        let (state, dir) = state("supervisor");
        // No lock is held, as by one that has let go of it and still ends.
        let mut child = Command::new("/bin/sh")
            .args([
                "-c",
                "trap 'sleep 0.3; exit 0' TERM; echo; while :; do sleep 0.05; done",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let supervisor = ProcessId::of(child.id()).unwrap();
        let mut trapped = [0];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut trapped).unwrap();
        assert!(stop_supervisor(
            &state,
            &supervisor.to_string(),
            Duration::from_secs(10)
        ));
        assert!(!supervisor.is_alive());
        child.wait().unwrap();
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn output_is_logged_and_the_end_is_told() {
        let (state, dir) = state("output");
        local(async {
            let mut process =
                Process::start(shell("a", "echo out; echo err >&2; exit 3", &[]), &state).unwrap();
            assert_eq!(process.wait().await, "exit status: 3");
            for _ in 0..200 {
                if fs::read_to_string(state.log_file("a")).unwrap().lines().count() == 2 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("the log is {:?}", fs::read_to_string(state.log_file("a")));
        });
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_group_that_ignores_the_order_is_killed_with_its_children() {
        let (state, dir) = state("group");
        local(async {
            let script = "trap '' TERM; sleep 100 & echo $! > \"$OUT\"; while :; do sleep 0.05; done";
            let out = dir.join("pid");
            let process =
                Process::start(shell("a", script, &[("OUT", out.to_str().unwrap())]), &state).unwrap();
            let child = loop {
                if let Ok(text) = fs::read_to_string(&out)
                    && let Ok(pid) = text.trim().parse()
                {
                    break ProcessId::of(pid).unwrap();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            assert!(process.stop(Duration::from_millis(100)).await);
            for _ in 0..200 {
                if !child.is_alive() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("the child of the killed shell still runs");
        });
        assert!(!state.pid_file("a").exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_a_killed_supervisor_left_is_found_by_its_mark() {
        let (state, dir) = state("mark");
        let run = format!("test-{}", std::process::id());
        let mut child = Command::new("/bin/sleep")
            .arg("100")
            .env(RUN_VARIABLE, &run)
            .spawn()
            .unwrap();
        assert_eq!(clean_up(&state, Some(&run)).unwrap(), 1);
        assert!(!child.wait().unwrap().success());
        fs::remove_dir_all(dir).unwrap();
    }
}
