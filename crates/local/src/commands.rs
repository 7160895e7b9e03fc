//! How the supervisor calls the daemons: the arguments of `rajut control`, `rajut proxy` and `rajut agent`. Their other
//! half is the command line of the tool, which a test there holds against these.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::state::StateDir;

/// Where names are answered inside a workload's namespace; Istio's port for captured DNS.
pub const DNS_LISTEN: &str = "127.0.0.1:15053";

/// The name in the control plane's certificate.
pub const CONTROL_SERVER_NAME: &str = "rajut-control";

/// What the control plane is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlCommand {
    /// Where it serves discovery and issues identities.
    pub listen: SocketAddr,
    /// Files and folders; `-` is not among them.
    pub sources: Vec<PathBuf>,
    /// The namespace of documents without one.
    pub namespace: String,
    /// Who is told of alarms.
    pub alertmanager: Option<AlertmanagerCommand>,
}

/// Who is told of alarms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertmanagerCommand {
    /// Its URL.
    pub url: String,
    /// Who vouches for it.
    pub roots: Option<PathBuf>,
    /// The file with the header `authorization`.
    pub authorization: Option<PathBuf>,
}

/// The port of the control plane's own metrics; Istio's.
pub const METRICS_PORT: u16 = 15014;

impl ControlCommand {
    /// Where its own metrics are.
    pub fn metrics(&self) -> SocketAddr {
        metrics_of(self.listen)
    }
}

/// Where the own metrics of the control plane are that serves discovery there.
pub fn metrics_of(discovery: SocketAddr) -> SocketAddr {
    SocketAddr::new(discovery.ip(), METRICS_PORT)
}

/// `rajut control …`
pub fn control(command: &ControlCommand, state: &StateDir) -> Vec<String> {
    let mut arguments = vec![
        "control".to_owned(),
        "--state-dir".to_owned(),
        text(state.path()),
        "--listen".to_owned(),
        command.listen.to_string(),
        "--metrics".to_owned(),
        command.metrics().to_string(),
        "--namespace".to_owned(),
        command.namespace.clone(),
        "--await-workloads".to_owned(),
    ];
    if let Some(AlertmanagerCommand {
        url,
        roots,
        authorization,
    }) = &command.alertmanager
    {
        arguments.extend(["--alertmanager".to_owned(), url.clone()]);
        for (option, path) in [
            ("--alertmanager-ca", roots),
            ("--alertmanager-authorization", authorization),
        ] {
            arguments.extend(path.iter().flat_map(|path| [option.to_owned(), text(path)]));
        }
    }
    arguments.push("--".to_owned());
    arguments.extend(command.sources.iter().map(|path| text(path)));
    arguments
}

/// What stands beside a workload is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SidecarCommand {
    /// Its folder: bootstrap and token.
    pub folder: PathBuf,
    /// The control plane.
    pub control: SocketAddr,
    /// The workload's network namespace, where it answers names.
    pub namespace: Option<PathBuf>,
}

impl SidecarCommand {
    /// Its bootstrap.
    pub fn bootstrap(&self) -> PathBuf {
        self.folder.join("bootstrap.json")
    }

    /// Its token.
    pub fn token(&self) -> PathBuf {
        self.folder.join("token")
    }

    /// The last configuration that it was given.
    pub fn last_known(&self) -> PathBuf {
        self.folder.join("last-known")
    }

    /// The agent's socket (Envoy).
    pub fn agent_socket(&self) -> PathBuf {
        self.folder.join("agent.sock")
    }

    fn identity(&self, state: &StateDir) -> Vec<String> {
        let mut arguments = vec![
            "--ca-address".to_owned(),
            self.control.to_string(),
            "--ca-roots".to_owned(),
            text(&state.roots_file()),
            "--token-file".to_owned(),
            text(&self.token()),
        ];
        if let Some(namespace) = &self.namespace {
            arguments.extend([
                "--dns-listen".to_owned(),
                DNS_LISTEN.to_owned(),
                "--netns".to_owned(),
                text(namespace),
            ]);
        }
        arguments
    }
}

/// `rajut proxy …`
pub fn proxy(command: &SidecarCommand, state: &StateDir) -> Vec<String> {
    let mut arguments = vec![
        "proxy".to_owned(),
        "-c".to_owned(),
        text(&command.bootstrap()),
        "--last-known".to_owned(),
        text(&command.last_known()),
        "--on-demand".to_owned(),
    ];
    arguments.extend(command.identity(state));
    arguments
}

/// `rajut agent …`, beside Envoy.
pub fn agent(command: &SidecarCommand, state: &StateDir) -> Vec<String> {
    let mut arguments = vec![
        "agent".to_owned(),
        "--socket".to_owned(),
        text(&command.agent_socket()),
    ];
    arguments.extend(command.identity(state));
    arguments
}

/// `envoy …`: one worker, as our sidecars have.
pub fn envoy(command: &SidecarCommand) -> Vec<String> {
    // Hot restart would need a memory segment of its own for each; the supervisor starts anew instead.
    vec![
        "-c".to_owned(),
        text(&command.bootstrap()),
        "--concurrency".to_owned(),
        "1".to_owned(),
        "--disable-hot-restart".to_owned(),
        // Envoy keeps lines of access logs for 10 s; Istio's agent asks for the same.
        "--file-flush-interval-msec".to_owned(),
        "1000".to_owned(),
        "--drain-time-s".to_owned(),
        "5".to_owned(),
        // Connections that are older than a listener end with their next answer, not some time within those seconds: a
        // policy that was changed holds for what comes after it.
        "--drain-strategy".to_owned(),
        "immediate".to_owned(),
        "--parent-shutdown-time-s".to_owned(),
        "6".to_owned(),
    ]
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
