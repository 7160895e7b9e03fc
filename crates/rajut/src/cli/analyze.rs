//! `rajut analyze` and `rajut explain`: files and their relations, before anything runs.

use std::{path::PathBuf, process::ExitCode};

use rajut_config::{Report, Source, codes};
use serde_json::json;

use super::{OutputFormat, WrongUsage, answer, sources};
use crate::{
    examples,
    output::{self, Format},
};

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

/// Exit status 1 when something is wrong; warnings are no errors.
pub(crate) fn analyze(args: &AnalyzeArgs) -> anyhow::Result<ExitCode> {
    let (sources, namespace) = if args.paths.is_empty() {
        let sources = examples::CLINIC
            .iter()
            .map(|(name, text)| Source::new(*name, *text))
            .collect();
        (sources, examples::CLINIC_NAMESPACE)
    } else {
        (sources::read(&args.paths)?, "default")
    };
    let namespace = args.namespace.as_deref().unwrap_or(namespace);
    let report = Report::new(&rajut_config::load(&sources, &sources::options(namespace)));
    match args.format {
        Form::Text => output::print(&report.to_string())?,
        Form::Json => output::print_json(&report.json())?,
        Form::Sarif => output::print_json(&report.sarif())?,
    }
    Ok(answer(!report.failed()))
}

/// Exit status 2 for what is no code, 1 for a code that does not exist.
pub(crate) fn explain(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let code = codes::parse(&args.code)
        .ok_or_else(|| WrongUsage(format!("{} is not a code; codes look like RJ0101", args.code)))?;
    let Some(entry) = codes::find(code) else {
        anyhow::bail!("there is no {code}");
    };
    if args.output.format == Format::Json {
        output::print_json(&json!({
            "code": code, "title": entry.title, "explanation": entry.explanation,
            "wrong": entry.wrong, "right": entry.right,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("{code}: {}\n\n{}\n", entry.title, entry.explanation);
    if !entry.wrong.is_empty() {
        append!(
            text,
            "\nWrong:\n\n{}\nRight:\n\n{}",
            indented(entry.wrong),
            indented(entry.right)
        );
    }
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |all, line| {
        if line.is_empty() {
            all + "\n"
        } else {
            all + "    " + line + "\n"
        }
    })
}
