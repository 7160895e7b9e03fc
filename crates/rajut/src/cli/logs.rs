//! `rajut logs`: what the processes of the mesh wrote.
#![expect(clippy::disallowed_methods, reason = "a command has its thread for itself")]

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use rajut_local::logs::{follow, tail};

use super::mesh::{Place, workload};
use crate::output;

/// `rajut logs`
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// A workload (NAME or NAME.NAMESPACE), or one of: control, host-gateway, supervisor
    #[arg(value_name = "WORKLOAD")]
    name: String,
    /// What its sidecar wrote, access log included
    #[arg(long)]
    sidecar: bool,
    /// What the agent beside its Envoy wrote
    #[arg(long, conflicts_with = "sidecar")]
    agent: bool,
    /// Go on as it writes
    #[arg(short = 'f', long)]
    follow: bool,
    /// How many of the last lines
    #[arg(short = 'n', long, default_value_t = 100)]
    lines: usize,
}

pub(crate) fn logs(place: &Place, args: &LogsArgs) -> anyhow::Result<ExitCode> {
    let path = place.state.log_file(&name(place, args)?);
    if !path.exists() {
        bail!("{} has written nothing yet", args.name);
    }
    let (text, mut position) = tail(&path, args.lines)?;
    output::print(&text)?;
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    // Until Ctrl-C, or until nobody reads.
    loop {
        let (bytes, end) = follow(&path, position)?;
        position = end;
        if !bytes.is_empty() && !output::print_while_read(&String::from_utf8_lossy(&bytes))? {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn name(place: &Place, args: &LogsArgs) -> anyhow::Result<String> {
    match args.name.as_str() {
        "control" | "supervisor" => Ok(args.name.clone()),
        "host-gateway" => Ok(format!(
            "{}.{}.sidecar",
            super::lifecycle::GATEWAY_NAME,
            super::lifecycle::GATEWAY_NAMESPACE
        )),
        name => {
            // Logs outlive the mesh: the record is enough, it need not run.
            let Some(mesh) = place.state.read_mesh()? else {
                bail!(
                    "no mesh runs here ({}); start one with `rajut up`",
                    place.state.path().display()
                );
            };
            let workload = workload(&mesh, name)?;
            let key = format!("{}.{}", workload.name, workload.namespace);
            Ok(match (args.sidecar, args.agent) {
                (true, _) => format!("{key}.sidecar"),
                (_, true) => format!("{key}.agent"),
                _ => key,
            })
        }
    }
}
