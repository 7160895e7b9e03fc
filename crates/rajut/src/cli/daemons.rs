//! The daemons as commands: `rajut control`, `rajut proxy`, `rajut agent`. The supervisor starts them with the arguments
//! of `rajut_local::commands`, which the test below holds against this command line.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::bail;

/// `rajut control`
#[derive(Debug, clap::Args)]
pub(crate) struct ControlArgs {
    /// Where proxies find discovery and the certificate service
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15012")]
    pub(crate) listen: SocketAddr,
    /// The namespace of documents without one
    #[arg(short = 'n', long, default_value = "default")]
    pub(crate) namespace: String,
    /// Files and folders, read again when they change
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
}

/// What `proxy` and `agent` share: how the workload's identity is obtained, and its names.
#[derive(Debug, clap::Args)]
pub(crate) struct IdentityArgs {
    /// Who signs the workload's certificate
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ca_address: Option<String>,
    /// By which roots the signer is judged (PEM)
    #[arg(long, value_name = "FILE", requires = "ca_address")]
    pub(crate) ca_roots: Option<PathBuf>,
    /// The token with which the workload proves who it is
    #[arg(long, value_name = "FILE", requires = "ca_address")]
    pub(crate) token_file: Option<PathBuf>,
    /// Where names are answered
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns_listen: Option<SocketAddr>,
    /// The network namespace in which they are
    #[arg(long, value_name = "PATH", requires = "dns_listen")]
    pub(crate) netns: Option<PathBuf>,
}

/// `rajut proxy`
#[derive(Debug, clap::Args)]
pub(crate) struct ProxyArgs {
    /// An Envoy bootstrap, YAML or JSON
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub(crate) config: PathBuf,
    #[command(flatten)]
    pub(crate) identity: IdentityArgs,
}

/// `rajut agent`
#[derive(Debug, clap::Args)]
pub(crate) struct AgentArgs {
    /// The bootstrap of the Envoy beside it
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The Unix socket on which that Envoy finds discovery
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: PathBuf,
    #[command(flatten)]
    pub(crate) identity: IdentityArgs,
}

pub(crate) fn control(_: &ControlArgs) -> anyhow::Result<ExitCode> {
    bail!("later")
}

pub(crate) fn proxy(_: &ProxyArgs) -> anyhow::Result<ExitCode> {
    bail!("later")
}

pub(crate) fn agent(_: &AgentArgs) -> anyhow::Result<ExitCode> {
    bail!("later")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rajut_local::{
        commands::{self, ControlCommand, SidecarCommand},
        state::StateDir,
    };

    use crate::cli::{Cli, Command};

    fn parse(arguments: Vec<String>) -> Command {
        let words = std::iter::once("rajut".to_owned()).chain(arguments);
        Cli::try_parse_from(words).unwrap().command
    }

    #[test]
    fn the_daemons_understand_what_the_supervisor_says() {
        let state = StateDir::locate(Some("/s".as_ref()), None, None).unwrap();
        let control = ControlCommand {
            listen: "127.10.255.1:15012".parse().unwrap(),
            sources: vec!["/a".into(), "-odd".into()],
            namespace: "clinic".into(),
        };
        let Command::Control(parsed) = parse(commands::control(&control, &state)) else { panic!() };
        assert_eq!((parsed.listen, &parsed.paths), (control.listen, &control.sources));
        let sidecar = SidecarCommand {
            folder: "/s/sidecars/a.b".into(),
            control: control.listen,
            namespace: Some("/proc/1/ns/net".into()),
        };
        let Command::Proxy(parsed) = parse(commands::proxy(&sidecar, &state)) else { panic!() };
        assert_eq!(parsed.config, sidecar.bootstrap());
        assert_eq!(parsed.identity.netns, sidecar.namespace);
        let Command::Agent(parsed) = parse(commands::agent(&sidecar, &state)) else { panic!() };
        assert_eq!(parsed.socket, sidecar.agent_socket());
    }
}
