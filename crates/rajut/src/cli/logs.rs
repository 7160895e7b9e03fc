//! `rajut logs`: what the processes of the mesh wrote.
#![expect(clippy::disallowed_methods, reason = "a command has its thread for itself")]

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use rajut_local::logs::{follow, request, tail};
use serde_json::json;

use super::{
    OutputFormat,
    mesh::{Place, workload},
};
use crate::output::{self, Format};

/// `rajut logs`
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// A workload (NAME or NAME.NAMESPACE), or one of: control, host-gateway, supervisor
    #[arg(value_name = "WORKLOAD", required_unless_present = "request")]
    name: Option<String>,
    /// The whole chain of one request: the access log's lines of every sidecar that have this `x-request-id`, in the order
    /// in which it passed them
    #[arg(long, value_name = "ID", conflicts_with_all = ["name", "sidecar", "agent", "follow", "lines"])]
    request: Option<String>,
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
    #[command(flatten)]
    output: OutputFormat,
}

pub(crate) fn logs(place: &Place, args: &LogsArgs) -> anyhow::Result<ExitCode> {
    if let Some(id) = &args.request {
        return chain(place, id, args.output.format);
    }
    if args.output.format == Format::Json {
        bail!("logs are printed as they were written; `-o json` goes with `--request ID`");
    }
    let asked = args.name.as_deref().unwrap_or_default();
    let path = place.state.log_file(&name(place, asked, args)?);
    if !path.exists() {
        bail!("{asked} has written nothing yet");
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

/// What every sidecar wrote about one request.
fn chain(place: &Place, id: &str, format: Format) -> anyhow::Result<ExitCode> {
    let lines = request::of_request(&place.state.logs(), id)?;
    if format == Format::Json {
        let rows: Vec<_> = lines
            .iter()
            .map(|line| json!({"workload": line.workload, "started": line.started, "line": line.text}))
            .collect();
        output::print_json(&json!({ "request": id, "lines": rows }))?;
    } else {
        let width = lines.iter().map(|line| line.workload.len()).max().unwrap_or(0);
        for line in &lines {
            output::print_line(&format!("{:width$}  {}", line.workload, line.text))?;
        }
    }
    if lines.is_empty() {
        output::warn(&format!(
            "no sidecar's log has the request {id}. Access logs are written where Telemetry or the mesh's settings ask for \
             them, to standard output, in a format that has %REQ(X-REQUEST-ID)%; those of other files are in those files."
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn name(place: &Place, asked: &str, args: &LogsArgs) -> anyhow::Result<String> {
    match asked {
        "control" | "supervisor" => Ok(asked.to_owned()),
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
