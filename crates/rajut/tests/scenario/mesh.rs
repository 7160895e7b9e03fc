//! A mesh under test: started with the `rajut` command as a user would, stopped when dropped.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::runner::{Plane, Result};

/// Whether a program is on the path (or where its variable says).
pub fn have(program: &str) -> bool {
    let variable = format!("RAJUT_{}", program.to_uppercase());
    let runs = |path: &str| {
        Command::new(path)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok()
    };
    std::env::var(variable).is_ok_and(|path| runs(&path)) || runs(program)
}

/// Waits until `condition` gives something, looking often; `what` names it when the time is over.
pub fn eventually<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = condition() {
            return Ok(found);
        }
        if started.elapsed() > deadline {
            return Err(format!("not within {deadline:?}: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How a mesh is started.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// File name → text, written to a folder that `up` is given; empty: the built-in example.
    pub files: Vec<(String, String)>,
    /// More arguments for `up`.
    pub arguments: Vec<String>,
}

impl Setup {
    pub fn yaml(text: &str) -> Self {
        Self {
            files: vec![("mesh.yaml".into(), text.into())],
            arguments: Vec::new(),
        }
    }

    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|text| (*text).to_owned()));
        self
    }
}

/// A running mesh.
pub struct Mesh {
    plane: Plane,
    pub folder: PathBuf,
    pub state: PathBuf,
    stopped: bool,
}

static COUNTER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

impl Mesh {
    /// Starts a mesh and waits until everything is ready.
    pub fn up(plane: Plane, setup: &Setup) -> Result<Self> {
        let mesh = Self::prepare(plane, setup)?;
        let mut arguments = vec![
            "up".to_owned(),
            "--detach".into(),
            "--data-plane".into(),
            mesh.plane.name().into(),
        ];
        if !setup.files.is_empty() {
            arguments.push(mesh.folder.display().to_string());
        }
        arguments.extend(setup.arguments.iter().cloned());
        let output = mesh.command(&arguments).output()?;
        if !output.status.success() {
            return Err(format!("`rajut {}` failed:\n{}", arguments.join(" "), both(&output)).into());
        }
        Ok(mesh)
    }

    /// Writes the files, starts nothing.
    pub fn prepare(plane: Plane, setup: &Setup) -> Result<Self> {
        let number = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let base = std::env::temp_dir().join(format!("rajut-scenario-{}-{number}", std::process::id()));
        let (folder, state) = (base.join("files"), base.join("state"));
        fs::create_dir_all(&folder)?;
        fs::create_dir_all(&state)?;
        for (name, text) in &setup.files {
            fs::write(folder.join(name), text)?;
        }
        Ok(Self {
            plane,
            folder,
            state,
            stopped: false,
        })
    }

    /// The `rajut` command with this mesh's state.
    pub fn command(&self, arguments: &[impl AsRef<str>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rajut"));
        command
            .args(arguments.iter().map(AsRef::as_ref))
            .env("RAJUT_STATE_DIR", &self.state)
            .stdin(Stdio::null());
        command
    }

    /// Runs the command; an exit status other than 0 is an error.
    pub fn rajut(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!(
            "`rajut {}` ended with {}:\n{}",
            arguments.join(" "),
            output.status,
            both(&output)
        )
        .into())
    }

    /// Runs the command with `-o json`.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let text = self.rajut(&all)?;
        serde_json::from_str(&text)
            .map_err(|error| format!("`rajut {}`: {error}:\n{text}", all.join(" ")).into())
    }

    /// `status -o json`; a mesh that is not healthy still tells what there is.
    pub fn status(&self) -> Result<Value> {
        let output = self.command(&["status", "-o", "json"]).output()?;
        serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("`rajut status`: {error}:\n{}", both(&output)).into())
    }

    /// Runs a program inside a workload's network.
    pub fn exec(&self, workload: &str, program: &[&str]) -> Result<String> {
        let mut arguments = vec!["exec", workload, "--"];
        arguments.extend(program);
        self.rajut(&arguments)
    }

    /// Changes the configuration of the running mesh.
    pub fn apply(&self, yaml: &str) -> Result<Value> {
        self.configure("apply", yaml)
    }

    /// Takes resources out of the running mesh.
    pub fn delete(&self, yaml: &str) -> Result<Value> {
        self.configure("delete", yaml)
    }

    fn configure(&self, verb: &str, yaml: &str) -> Result<Value> {
        let file = self.folder.with_file_name(format!("{verb}.yaml"));
        fs::write(&file, yaml)?;
        self.json(&[verb, "-f", &file.display().to_string()])
    }

    /// The host address of a service, e.g. `127.0.0.1:18080`.
    pub fn host_address(&self, service: &str) -> Result<String> {
        let status = self.status()?;
        let rows = status["services"].as_array().cloned().unwrap_or_default();
        let found = rows.iter().find(|row| row["name"] == service);
        let address = found.and_then(|row| row["hostAddress"].as_str()).map(|url| {
            url.trim_start_matches("http://")
                .trim_start_matches("tcp://")
                .trim_end_matches('/')
                .to_owned()
        });
        address.ok_or_else(|| format!("`rajut status` has no host address for {service}:\n{status:#}").into())
    }

    /// One row of `status`'s workloads.
    pub fn workload(&self, name: &str) -> Result<Value> {
        let status = self.status()?;
        let rows = status["workloads"].as_array().cloned().unwrap_or_default();
        rows.into_iter()
            .find(|row| row["name"] == name)
            .ok_or_else(|| format!("`rajut status` has no workload {name}:\n{status:#}").into())
    }

    /// Stops the mesh and checks that nothing is left of it.
    pub fn down(mut self) -> Result {
        self.stopped = true;
        self.rajut(&["down"])?;
        let left = processes_of(&self.state);
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("`rajut down` left processes:\n{}", left.join("\n")).into())
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if !self.stopped {
            drop(self.command(&["down"]).output());
        }
        if std::env::var_os("RAJUT_TEST_KEEP").is_none() {
            drop(self.state.parent().map(fs::remove_dir_all));
        }
    }
}

/// Command lines of processes that name the state folder.
pub fn processes_of(state: &Path) -> Vec<String> {
    let wanted = state.display().to_string();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = std::process::id().to_string();
    entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.bytes().all(|byte| byte.is_ascii_digit()) && name != own
        })
        .filter_map(|entry| {
            let text = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
            let shown = String::from_utf8_lossy(&text("cmdline")).replace('\0', " ");
            let environment = String::from_utf8_lossy(&text("environ")).into_owned();
            let is_ours =
                shown.contains(&wanted) || environment.contains(&format!("RAJUT_STATE_DIR={wanted}"));
            (is_ours && !shown.is_empty()).then(|| format!("{} {shown}", entry.file_name().to_string_lossy()))
        })
        .collect()
}

fn both(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A mesh, or why it did not start: the next scenario need not wait for the same.
type Started = std::result::Result<Arc<Mesh>, String>;
type Shared = Mutex<HashMap<(&'static str, &'static str), Started>>;

static SHARED: std::sync::LazyLock<Shared> = std::sync::LazyLock::new(Shared::default);

/// A mesh that several scenarios look at without changing it; started on first use, stopped at the end.
pub fn shared(plane: Plane, name: &'static str, setup: impl FnOnce() -> Setup) -> Result<Arc<Mesh>> {
    let key = (plane.name(), name);
    let known = SHARED.lock().expect("not poisoned").get(&key).cloned();
    let started = known.unwrap_or_else(|| {
        let started = Mesh::up(plane, &setup())
            .map(Arc::new)
            .map_err(|error| error.to_string());
        SHARED.lock().expect("not poisoned").insert(key, started.clone());
        started
    });
    started.map_err(|error| format!("the mesh `{name}` did not start: {error}").into())
}

/// Stops the shared meshes.
pub fn stop_shared() {
    SHARED.lock().expect("not poisoned").clear();
}
