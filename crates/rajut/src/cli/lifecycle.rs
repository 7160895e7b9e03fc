//! `rajut up` and `rajut down`.
//!
//! `up` decides how traffic is captured before any thread exists (an ordinary user has to enter a user namespace first),
//! reads the configuration, and becomes the supervisor. With `--detach` it starts itself again apart from the terminal
//! and shows what that process reports over a pipe, until everything is ready.

mod detach;
mod progress;
mod start;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use rajut_local::{process, state::StateError};

use super::{daemons::AlertmanagerArgs, mesh::Place};
use crate::output;

/// How long `down` waits for a supervisor: its applications, sidecars and control plane have bounds of their own,
/// which add up to less.
const DOWN_MAX: Duration = Duration::from_secs(25);

/// The host gateway's name and service account.
pub(crate) const GATEWAY_NAME: &str = "host-gateway";
/// The host gateway's namespace.
pub(crate) const GATEWAY_NAMESPACE: &str = "rajut-system";

pub(crate) use progress::state_text;

/// `rajut up`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rajut up                                       the built-in clinic example
  rajut up k8s/ -n shop --run web='npm start'    your manifests, and what runs `web`
  kustomize build . | rajut up -                 from standard input
  rajut up --detach && rajut status              in the background")]
pub(crate) struct UpArgs {
    /// Files and folders with Kubernetes, Istio, Compose and Rajut documents; `-` is standard input
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// The namespace of documents without one [default: default; for the example phoenix-guardian]
    #[arg(short = 'n', long)]
    pub(crate) namespace: Option<String>,
    /// What runs a workload, through the shell; without COMMAND what its own document says, which is that of its image
    /// [for a name in several namespaces NAME.NAMESPACE]
    #[arg(long = "run", value_name = "NAME[=COMMAND]", value_parser = assignment)]
    pub(crate) runs: Vec<(String, Option<String>)>,
    /// How a workload's traffic gets to its sidecar
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) capture: CaptureChoice,
    /// Whose sidecars carry the traffic
    #[arg(long, value_enum, default_value = "rajut")]
    pub(crate) data_plane: DataPlaneChoice,
    /// A server on this machine that workloads reach as host.rajut.internal:PORT; the name begins with the protocol
    #[arg(long = "host-port", value_name = "NAME=PORT", value_parser = host_port)]
    pub(crate) host_ports: Vec<(String, u16)>,
    /// Refuse whoever no AuthorizationPolicy lets through, in the whole mesh
    #[arg(long)]
    pub(crate) default_deny: bool,
    #[command(flatten)]
    pub(crate) alertmanager: AlertmanagerArgs,
    /// Return when everything is ready, and leave it running
    #[arg(short = 'd', long)]
    pub(crate) detach: bool,
    /// How long to wait for everything to be ready before saying what is not, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
    /// The first of the services' addresses on this host
    #[arg(long, value_name = "PORT", default_value_t = 18_080)]
    pub(crate) first_port: u16,
    /// This process is the background half of `--detach`
    #[arg(long, hide = true)]
    pub(crate) background: bool,
}

/// `--capture`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CaptureChoice {
    /// Namespaces where this machine allows them, else explicit
    Auto,
    /// A network namespace for each workload, whose only way out is its sidecar
    Netns,
    /// Local ports and environment variables; processes can bypass their sidecars
    Explicit,
}

/// `--data-plane`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DataPlaneChoice {
    /// Rajut's own proxy
    Rajut,
    /// Envoy, from `RAJUT_ENVOY` or `PATH`
    Envoy,
}

fn assignment(text: &str) -> Result<(String, Option<String>), String> {
    match text.split_once('=') {
        Some((name, command)) if !name.is_empty() && !command.trim().is_empty() => {
            Ok((name.to_owned(), Some(command.to_owned())))
        }
        None if !text.is_empty() && !text.contains(char::is_whitespace) => Ok((text.to_owned(), None)),
        _ => Err("NAME=COMMAND is expected, as in --run signer='node signer.js'".to_owned()),
    }
}

fn host_port(text: &str) -> Result<(String, u16), String> {
    let parsed = text
        .split_once('=')
        .and_then(|(name, port)| Some((name, port.parse::<u16>().ok().filter(|port| *port != 0)?)));
    match parsed {
        Some((name, port))
            if name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && !name.is_empty() =>
        {
            Ok((name.to_owned(), port))
        }
        _ => Err("NAME=PORT is expected, as in --host-port postgres=5432".to_owned()),
    }
}

/// Starts a mesh.
pub(crate) fn up(place: &Place, args: &UpArgs) -> anyhow::Result<ExitCode> {
    if args.detach && !args.background {
        return detach::front(place, args);
    }
    start::supervise(place, args)
}

/// Stops a mesh, or what is left of one.
pub(crate) fn down(place: &Place) -> anyhow::Result<ExitCode> {
    let state = &place.state;
    let mesh = match state.read_mesh() {
        Ok(mesh) => mesh,
        // Whatever is left is found by the records too.
        Err(StateError::Damaged { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let supervised = state.is_locked();
    let orderly = match &mesh {
        Some(mesh) if supervised => process::stop_supervisor(state, &mesh.supervisor, DOWN_MAX),
        _ => !supervised,
    };
    // The supervisor has stopped everything; what escaped it, or a killed one, is found here.
    let left = process::clean_up(state, mesh.as_ref().map(|mesh| mesh.run.as_str()))?;
    for file in [state.mesh_file(), state.control_socket()] {
        if file.exists() {
            std::fs::remove_file(file)?;
        }
    }
    let text = match (&mesh, orderly, left) {
        (None, _, 0) => "no mesh was running".to_owned(),
        (Some(mesh), true, 0) => format!("stopped {} workloads", mesh.workloads.len()),
        (_, _, count) => format!("cleaned up {count} processes that were left behind"),
    };
    output::print_line(&text)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_a_workload_may_hold_anything_behind_its_name() {
        assert_eq!(assignment("a=b=c d"), Ok(("a".into(), Some("b=c d".into()))));
        assert_eq!(assignment("a.shop"), Ok(("a.shop".into(), None)));
        for wrong in ["", "=b", "a=", "a= ", "npm start"] {
            assert!(assignment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn host_servers_have_a_name_and_a_port() {
        assert_eq!(host_port("postgres=5432"), Ok(("postgres".into(), 5432)));
        for wrong in ["5432", "a=0", "a=70000", "A=1", "=1"] {
            assert!(host_port(wrong).is_err(), "{wrong}");
        }
    }
}
