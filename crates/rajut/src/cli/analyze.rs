//! `rajut analyze` and `rajut explain`: files and their relations, before anything runs.

use std::{path::PathBuf, process::ExitCode};

use super::OutputFormat;

/// `rajut analyze`
#[derive(Debug, clap::Args)]
pub(crate) struct AnalyzeArgs {
    /// Files and folders; `-` is standard input; without any the built-in example
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The namespace of documents without one
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    /// How the answer is written
    #[arg(short = 'o', long = "output", value_enum, default_value = "text")]
    format: Form,
}

/// `-o` of `analyze`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people
    Text,
    /// For programs
    Json,
    /// For code review tools
    Sarif,
}

/// `rajut explain`
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// A code such as RJ0101
    code: String,
    #[command(flatten)]
    output: OutputFormat,
}

pub(crate) fn analyze(_: &AnalyzeArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("later")
}

pub(crate) fn explain(_: &ExplainArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("later")
}
