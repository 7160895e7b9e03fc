//! `rajut exec`: a command where a workload is, or in its name as a proxyless gRPC process.

mod proxyless;

use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, bail};
use rajut_platform::process::{Isolation, spawn};

use super::mesh::{Place, workload};

/// `rajut exec`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rajut exec api-gateway -- curl -s http://encounter-service:8080/
  rajut exec --grpc-xds api-gateway -- python3 client.py xds:///encounter-service:8080")]
pub(crate) struct ExecArgs {
    /// NAME or NAME.NAMESPACE
    #[arg(value_name = "WORKLOAD")]
    workload: String,
    /// Outside the workload's network, as a proxyless gRPC process with the workload's identity: `GRPC_XDS_BOOTSTRAP`
    /// names the bootstrap with which gRPC libraries resolve xds:/// targets
    #[arg(long)]
    grpc_xds: bool,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command with the workload's environment; in a namespace, inside it, so that its traffic is the workload's.
pub(crate) fn exec(place: &Place, args: &ExecArgs) -> anyhow::Result<ExitCode> {
    let mesh = place.running()?;
    let workload = workload(&mesh, &args.workload)?;
    let [program, arguments @ ..] = &args.command[..] else {
        bail!("a command is expected behind --");
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(workload.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::inherit());
    if args.grpc_xds {
        return proxyless::run(place, &mesh, workload, command);
    }
    let isolation = if workload.network_namespace.is_empty() {
        Isolation::default()
    } else {
        if workload.app.pid == 0 {
            bail!("{} does not run now ({})", workload.name, workload.app.last_exit);
        }
        Isolation {
            die_with_parent: true,
            ..Isolation::of_process(workload.app.pid)
                .with_context(|| format!("can't enter the network of {}", workload.name))?
        }
    };
    let mut child = spawn(command, isolation).with_context(|| format!("can't run {program}"))?;
    let status = child.wait_blocking()?;
    Ok(code_of(status))
}

fn code_of(status: ExitStatus) -> ExitCode {
    // A command that a signal ended has no code; 128 + number is what shells say.
    let code = status
        .code()
        .or_else(|| std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| 128 + signal))
        .unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
