//! `rajut policy`: authorization before it bites. Tables of requests and verdicts, who may call whom, and policies for what was seen.
//!
//! All of it judges with `rajut_control::judge`, which is what the proxy runs.

mod matrix;
mod replay;
mod suggest;
mod test;

use std::{path::PathBuf, process::ExitCode};

use rajut_config::{Loaded, Report, Source};
use rajut_control::judge::Because;
use rajut_types::{Diagnostic, Origin, Severity};
use serde_json::Value;

use super::{WrongUsage, block_on, mesh::Place, sources};
use crate::output;

/// `rajut policy`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum PolicyCommand {
    /// Judge a table of requests by the policies in files, without a mesh
    Test(test::TestArgs),
    /// Who may call whom: every identity, workload, port and path that a policy names
    Matrix(matrix::MatrixArgs),
    /// Judge what was recorded of the running mesh by other policies: what would newly be refused or allowed
    Replay(replay::ReplayArgs),
    /// Write the least policies that let through what was seen in the running mesh
    Suggest(suggest::SuggestArgs),
}

pub(crate) fn policy(place: &Place, command: &PolicyCommand) -> anyhow::Result<ExitCode> {
    match command {
        PolicyCommand::Test(args) => test::test(args),
        PolicyCommand::Matrix(args) => matrix::matrix(place, args),
        PolicyCommand::Replay(args) => replay::replay(place, args),
        PolicyCommand::Suggest(args) => suggest::suggest(place, args),
    }
}

/// Files that are judged.
#[derive(Debug, clap::Args)]
struct PolicyFiles {
    /// Files and folders with workloads, services and policies; may be repeated; `-` is standard input
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// The namespace of documents and names without one
    #[arg(short = 'n', long, default_value = "default")]
    namespace: String,
}

impl PolicyFiles {
    fn load(&self) -> anyhow::Result<Loaded> {
        load(&self.files, &self.namespace)
    }
}

/// What the files say; what is wrong in them is told with its place, and nothing is judged by half of them.
pub(super) fn load(paths: &[PathBuf], namespace: &str) -> anyhow::Result<Loaded> {
    let sources = sources::read(paths).map_err(|error| WrongUsage(format!("{error:#}")))?;
    let loaded = rajut_config::load(&sources, &sources::options(namespace));
    refuse_errors(&Report::new(&loaded).diagnostics)?;
    Ok(loaded)
}

/// What the running mesh reads.
pub(super) fn running(place: &Place) -> anyhow::Result<Loaded> {
    let namespace = place.running()?.namespace;
    let control = place.control()?;
    let answer = block_on(async move { Ok(control.json("GET", "/v1/supervision", None).await?) })?;
    let texts = answer.get("sources").and_then(Value::as_array);
    let text = |source: &Value, field: &str| source.get(field)?.as_str().map(ToOwned::to_owned);
    let sources: Vec<Source> = texts
        .into_iter()
        .flatten()
        .filter_map(|source| Some(Source::new(text(source, "name")?, text(source, "text")?)))
        .collect();
    Ok(rajut_config::load(&sources, &sources::options(&namespace)))
}

/// Exit status 2 with the findings, where one is an error.
fn refuse_errors(findings: &[Diagnostic]) -> anyhow::Result<()> {
    let errors: Vec<&Diagnostic> = findings
        .iter()
        .filter(|found| found.severity == Severity::Error)
        .collect();
    if errors.is_empty() {
        return Ok(());
    }
    for error in &errors {
        output::warn(&error.to_string());
    }
    let noun = if errors.len() == 1 { "error" } else { "errors" };
    Err(WrongUsage(format!("{} {noun}; nothing was judged", errors.len())).into())
}

/// With the lines of the very rules.
fn placed(because: &Because, loaded: &Loaded) -> Because {
    because.clone().at(|origin| loaded.index.placed(origin))
}

/// `FILE:LINE` of what somebody wrote.
fn place_of(origin: &Origin) -> String {
    if origin.line > 0 {
        format!("{}:{}", origin.source, origin.line)
    } else {
        origin.source.to_string()
    }
}
