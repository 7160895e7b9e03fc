//! The state directory: the only place where a local mesh leaves anything.
//!
//! ```text
//! <state>/lock                 held by the supervisor while it lives
//!         mesh.json            what runs: the file that the reading commands use
//!         control.sock         the control plane's API
//!         ca/, …               the control plane's own state (authority, applied resources, addresses)
//!         run/*.pid            "<pid> <start time>" of each process, for cleaning up
//!         grpc/<pid>/          bootstrap and certificate of a proxyless gRPC process, while `exec --grpc-xds` runs it
//!         sidecars/<key>/      bootstrap.json, token, resolv.conf …
//!         logs/<key>.log       output of each process, and <key>.log.1
//! ```
//!
//! `mesh.json` is replaced as a whole (write, rename), so that a reader never sees half of it. What it does not do:
//! keep anything that could not be thrown away but the authority's key, which `down` leaves in place.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    bootstrap::DataPlane,
    plan::{CaptureMode, NotStarted},
};

/// Unix socket paths end at 107 bytes.
const SOCKET_PATH_MAX: usize = 107;
/// The longest name of a socket below the directory, for the check at the start.
const SOCKET_NAME_MAX: usize = 40;

/// Paths below one state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir(PathBuf);

/// Why the state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// No place for it.
    #[error("neither RAJUT_STATE_DIR, XDG_STATE_HOME nor HOME is set: say where the state may live")]
    NoPlace,
    /// Socket paths would be too long.
    #[error(
        "the state directory {} is too long for Unix sockets (at most {} bytes); set RAJUT_STATE_DIR to a shorter one",
        .path.display(), SOCKET_PATH_MAX - SOCKET_NAME_MAX
    )]
    TooLong {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else's mesh lives here.
    #[error("a mesh already runs with the state directory {} (`rajut status` shows it, `rajut down` stops it)", .path.display())]
    Running {
        /// The directory.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} is damaged: {source}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl StateDir {
    /// From the settings of the user: the given directory, else XDG's, else `~/.local/state/rajut`.
    pub fn locate(
        given: Option<&Path>,
        xdg_state_home: Option<&Path>,
        home: Option<&Path>,
    ) -> Result<Self, StateError> {
        let path = match (given, xdg_state_home, home) {
            (Some(given), _, _) => given.to_owned(),
            (None, Some(xdg), _) if xdg.is_absolute() => xdg.join("rajut"),
            (None, _, Some(home)) => home.join(".local/state/rajut"),
            (None, _, None) => return Err(StateError::NoPlace),
        };
        let path = std::path::absolute(&path).map_err(|source| StateError::File { path, source })?;
        if path.as_os_str().len() > SOCKET_PATH_MAX - SOCKET_NAME_MAX {
            return Err(StateError::TooLong { path });
        }
        Ok(Self(path))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The control plane's API socket.
    pub fn control_socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// The roots that the control plane's certificate and everybody's identity are judged by (PEM).
    pub fn roots_file(&self) -> PathBuf {
        self.0.join("ca/root-cert.pem")
    }

    /// What runs.
    pub fn mesh_file(&self) -> PathBuf {
        self.0.join("mesh.json")
    }

    /// A sidecar's files.
    pub fn sidecar_dir(&self, key: &str) -> PathBuf {
        self.0.join("sidecars").join(key)
    }

    /// Folders of proxyless gRPC processes, one for each, with their keys.
    pub fn grpc_dir(&self) -> PathBuf {
        self.0.join("grpc")
    }

    /// The logs of all processes.
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// The log of a process.
    pub fn log_file(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// The record of a process.
    pub fn pid_file(&self, name: &str) -> PathBuf {
        self.run_dir().join(format!("{name}.pid"))
    }

    /// The records of all processes.
    pub fn run_dir(&self) -> PathBuf {
        self.0.join("run")
    }

    /// Makes the directories, for the owner only.
    pub fn create(&self) -> Result<(), StateError> {
        for path in [
            self.0.clone(),
            self.run_dir(),
            self.logs(),
            self.0.join("sidecars"),
        ] {
            make_dir(&path)?;
        }
        Ok(())
    }

    /// Takes the lock for as long as the result lives.
    pub fn lock(&self) -> Result<Lock, StateError> {
        let path = self.0.join("lock");
        let error = |source| StateError::File {
            path: path.clone(),
            source,
        };
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(error)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(StateError::Running { path: self.0.clone() }),
            Err(fs::TryLockError::Error(source)) => Err(error(source)),
        }
    }

    /// Whether a supervisor holds the lock.
    pub fn is_locked(&self) -> bool {
        self.0.is_dir() && matches!(self.lock(), Err(StateError::Running { .. }))
    }

    /// What runs; `None` when nothing was started or all was stopped.
    pub fn read_mesh(&self) -> Result<Option<MeshRecord>, StateError> {
        let path = self.mesh_file();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| StateError::Damaged { path, source }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::File { path, source }),
        }
    }

    /// Replaces what is known to run.
    pub fn write_mesh(&self, mesh: &MeshRecord) -> Result<(), StateError> {
        let path = self.mesh_file();
        let bytes = serde_json::to_vec_pretty(mesh).map_err(|source| StateError::Damaged {
            path: path.clone(),
            source,
        })?;
        write_private(&path, &bytes)?;
        self.write_targets(mesh)
    }
}

/// Makes one directory (and its parents), for the owner only.
pub fn make_dir(path: &Path) -> Result<(), StateError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StateError::File {
            path: path.to_owned(),
            source,
        })
}

/// Replaces a file as a whole; only the owner may read it.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let error = |source| StateError::File {
        path: path.to_owned(),
        source,
    };
    let next = path.with_extension("next");
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&next)
        .map_err(error)?;
    io::Write::write_all(&mut file, bytes).map_err(error)?;
    drop(file);
    fs::rename(&next, path).map_err(error)
}

/// The claim to a state directory; given back on drop, also when the process is killed.
#[derive(Debug)]
pub struct Lock {
    _file: fs::File,
}

/// What a supervisor says about its mesh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshRecord {
    /// The supervisor's process (pid, start time, boot).
    pub supervisor: String,
    /// Marks every process of this run (environment variable `RAJUT_RUN`).
    pub run: String,
    /// How traffic is captured.
    pub capture: CaptureMode,
    /// Which data plane runs.
    pub data_plane: DataPlane,
    /// The namespace of documents without one.
    pub namespace: String,
    /// RFC 3339.
    pub started: String,
    /// Files and folders that the mesh was started from.
    pub sources: Vec<String>,
    /// The control plane.
    pub control: ProcessRecord,
    /// Where the control plane serves discovery.
    pub discovery: SocketAddr,
    /// The host gateway.
    pub gateway: ProcessRecord,
    /// What the host gateway is doing.
    pub gateway_state: WorkloadState,
    /// The host gateway's admin address.
    pub gateway_admin: SocketAddr,
    /// Sorted by namespace and name.
    pub workloads: Vec<WorkloadRecord>,
    /// Sorted by namespace and name.
    pub services: Vec<ServiceRecord>,
    /// Deployments without a command.
    pub not_started: Vec<NotStarted>,
}

/// One process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessRecord {
    /// 0 while it does not run.
    pub pid: u32,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended last, e.g. `exit status 1`; empty if it never did.
    pub last_exit: String,
}

/// One workload instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadRecord {
    /// Its name.
    pub name: String,
    /// Its deployment.
    pub deployment: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its SPIFFE identity.
    pub identity: String,
    /// When its certificate ended as of the last look, RFC 3339; empty before the first.
    pub certificate_until: String,
    /// Where the others reach it.
    pub address: String,
    /// Its sidecar's admin address.
    pub admin: SocketAddr,
    /// `/proc/<pid>/ns/net` of its namespace; empty in explicit mode.
    pub network_namespace: String,
    /// Container ports.
    pub ports: Vec<u16>,
    /// Container port → where others reach it, for those where that is another port.
    #[serde(default)]
    pub reached_ports: std::collections::BTreeMap<u16, u16>,
    /// The application.
    pub app: ProcessRecord,
    /// Its sidecar.
    pub sidecar: ProcessRecord,
    /// What it is doing.
    pub state: WorkloadState,
    /// Why it is not ready, one line; empty when it is.
    pub reason: String,
    /// The environment that its processes get, for `exec`.
    pub env: Vec<(String, String)>,
    /// Services that came after it was started and that it has no ports for (explicit mode), as `name.namespace:port`.
    #[serde(default)]
    pub late_services: Vec<String>,
}

/// What a workload is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadState {
    /// On its way.
    Starting,
    /// It takes traffic.
    Ready,
    /// It runs and its probe says no.
    NotReady,
    /// It ended and waits for its next start.
    Restarting,
    /// On its way out.
    Stopping,
}

/// A service's door on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRecord {
    /// Short name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The service's port.
    pub port: u16,
    /// e.g. `http://127.0.0.1:18080`.
    pub url: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_choice_comes_first_and_relative_xdg_paths_do_not_count() {
        let locate = |given: Option<&str>, xdg: Option<&str>, home: Option<&str>| {
            StateDir::locate(given.map(Path::new), xdg.map(Path::new), home.map(Path::new))
                .map(|state| state.0.display().to_string())
        };
        assert_eq!(locate(Some("/s"), Some("/x"), Some("/h")).unwrap(), "/s");
        assert_eq!(locate(None, Some("/x"), Some("/h")).unwrap(), "/x/rajut");
        assert_eq!(
            locate(None, Some("x"), Some("/h")).unwrap(),
            "/h/.local/state/rajut"
        );
        assert!(matches!(locate(None, None, None), Err(StateError::NoPlace)));
        let long = format!("/{}", "x".repeat(100));
        assert!(matches!(
            locate(Some(&long), None, None),
            Err(StateError::TooLong { .. })
        ));
    }

    #[test]
    fn a_state_directory_belongs_to_one_mesh_at_a_time() {
        let dir = std::env::temp_dir().join(format!("rajut-state-{}", std::process::id()));
        let state = StateDir(dir.clone());
        state.create().unwrap();
        let lock = state.lock().unwrap();
        assert!(state.is_locked());
        assert!(matches!(state.lock(), Err(StateError::Running { .. })));
        drop(lock);
        assert!(!state.is_locked());
        assert_eq!(state.read_mesh().unwrap(), None);
        fs::remove_dir_all(dir).unwrap();
    }
}
