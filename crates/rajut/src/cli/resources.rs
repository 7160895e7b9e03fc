//! `rajut apply`, `delete` and `get`: changing and reading the live configuration.
//!
//! A change is done when every proxy that it affects has acknowledged it; the control plane waits, this module tells.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use rajut_config::Source;
use rajut_local::client::{ClientError, query_escape};
use rajut_types::Severity;
use serde_json::{Value, json};

use super::{OutputFormat, WrongUsage, answer, block_on, mesh::Place, sources};
use crate::output::{self, Format, Table};

/// How long acknowledgements are waited for by the control plane, and a little more.
const CHANGE_MAX: Duration = Duration::from_secs(45);

/// `rajut apply`, `rajut delete`
#[derive(Debug, clap::Args)]
pub(crate) struct ApplyArgs {
    /// A file, a folder, or `-` for standard input; may be repeated
    #[arg(short = 'f', long = "filename", required = true, value_name = "PATH")]
    files: Vec<PathBuf>,
    /// The namespace of documents without one [default: that of `up`]
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    #[command(flatten)]
    output: OutputFormat,
}

/// `rajut get`
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    /// A kind, as `VirtualService`; without it everything
    kind: Option<String>,
    /// One resource's name
    name: Option<String>,
    /// Only this namespace
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    #[command(flatten)]
    output: OutputFormat,
}

/// What is done with the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Create or replace.
    Apply,
    /// Remove.
    Delete,
}

pub(crate) fn apply(place: &Place, args: &ApplyArgs, change: Change) -> anyhow::Result<ExitCode> {
    let mesh = place.running()?;
    let verb = match change {
        Change::Apply => "apply",
        Change::Delete => "delete",
    };
    let namespace = args.namespace.as_deref().unwrap_or(&mesh.namespace);
    let sources = sources::read(&args.files)?;
    // What is wrong by itself is told here, where files have names; the control plane judges the rest.
    let loaded = rajut_config::load(&sources, &sources::options(namespace));
    let wrong: Vec<_> = loaded
        .diagnostics
        .iter()
        .filter(|found| found.severity == Severity::Error)
        .collect();
    if !wrong.is_empty() && change == Change::Apply {
        match args.output.format {
            Format::Json => output::print_json(&json!({"objects": [], "diagnostics": wrong}))?,
            Format::Text => {
                for found in wrong {
                    output::print(&found.to_string())?;
                }
                output::print_line("nothing was changed")?;
            }
        }
        return Ok(ExitCode::from(1));
    }
    let documents = joined(&sources)?;
    let path = format!("/v1/{verb}?namespace={}", query_escape(namespace));
    let control = place.control()?;
    let outcome: Value = block_on(async {
        match control.call("POST", &path, documents, CHANGE_MAX).await {
            Ok(body) => Ok(serde_json::from_slice(&body)?),
            // Refused for what it says: the findings are the answer.
            Err(ClientError::Status { body, text, .. }) => {
                let found: Value = serde_json::from_slice(&body).unwrap_or_default();
                if list(&found, "diagnostics").is_empty() {
                    Err(anyhow::anyhow!(text))
                } else {
                    Ok(found)
                }
            }
            Err(error) => Err(error.into()),
        }
    })?;
    let refused = !list(&outcome, "rejected").is_empty();
    let wrong = list(&outcome, "diagnostics")
        .iter()
        .any(|diagnostic| diagnostic.get("severity").and_then(Value::as_str) == Some("error"));
    match args.output.format {
        Format::Json => output::print_json(&outcome)?,
        Format::Text => output::print(&outcome_text(&outcome, change))?,
    }
    Ok(answer(!refused && !wrong))
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value
        .get(name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn text_of<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// How many a count or a list is.
fn count(value: &Value, name: &str) -> u64 {
    match value.get(name) {
        Some(Value::Array(items)) => items.len() as u64,
        Some(number) => number.as_u64().unwrap_or(0),
        None => 0,
    }
}

fn outcome_text(outcome: &Value, change: Change) -> String {
    let mut text = String::new();
    for diagnostic in list(outcome, "diagnostics") {
        text.push_str(&diagnostic_text(diagnostic));
    }
    for object in list(outcome, "objects") {
        let name = match object {
            Value::String(name) => name.clone(),
            _ => format!(
                "{} {}/{}",
                text_of(object, "kind"),
                text_of(object, "namespace"),
                text_of(object, "name")
            ),
        };
        let done = match (text_of(object, "action"), change) {
            ("", Change::Apply) => "applied",
            ("", Change::Delete) => "deleted",
            (action, _) => action,
        };
        append!(text, "{name}: {done}\n");
    }
    if outcome.get("affected").is_none() {
        return text + "nothing was changed\n";
    }
    let (affected, acknowledged) = (count(outcome, "affected"), count(outcome, "acknowledged"));
    append!(
        text,
        "{acknowledged} of {affected} affected proxies acknowledged in {} ms",
        count(outcome, "milliseconds")
    );
    match count(outcome, "onUse") {
        0 => text.push('\n'),
        others => append!(text, "; {others} more will fetch on use\n"),
    }
    for rejected in list(outcome, "rejected") {
        append!(
            text,
            "{} refused {}: {}\n",
            text_of(rejected, "proxy"),
            text_of(rejected, "resource"),
            text_of(rejected, "reason")
        );
    }
    text
}

/// A diagnostic that came as JSON, in the form in which `analyze` shows one.
fn diagnostic_text(diagnostic: &Value) -> String {
    let origin = diagnostic.get("origin").unwrap_or(&Value::Null);
    let mut text = format!(
        "{}[{}]: {}\n  --> {}",
        text_of(diagnostic, "severity"),
        text_of(diagnostic, "code"),
        text_of(diagnostic, "message"),
        text_of(origin, "source"),
    );
    if let Some(line) = origin
        .get("line")
        .and_then(Value::as_u64)
        .filter(|line| *line > 0)
    {
        append!(text, ":{line}");
    }
    text.push('\n');
    let hint = text_of(diagnostic, "hint");
    if !hint.is_empty() {
        append!(text, "  help: {hint}\n");
    }
    text
}

/// All documents as one stream; files are separated so that each begins a document.
fn joined(sources: &[Source]) -> anyhow::Result<String> {
    let mut all = String::new();
    for source in sources {
        let text =
            std::str::from_utf8(&source.bytes).with_context(|| format!("{} is not UTF-8", source.name))?;
        if !all.is_empty() {
            all.push_str("\n---\n");
        }
        all.push_str(text);
    }
    Ok(all)
}

/// kubectl's short names.
fn full_kind(kind: &str) -> &str {
    match kind.to_ascii_lowercase().as_str() {
        "vs" => "VirtualService",
        "dr" => "DestinationRule",
        "ap" => "AuthorizationPolicy",
        "pa" => "PeerAuthentication",
        "ra" => "RequestAuthentication",
        "se" => "ServiceEntry",
        "svc" => "Service",
        "deploy" => "Deployment",
        "sts" => "StatefulSet",
        "sa" => "ServiceAccount",
        "cm" => "ConfigMap",
        "ns" => "Namespace",
        "lw" => "LocalWorkload",
        "rlp" => "RateLimitPolicy",
        "gw" => "Gateway",
        _ => kind,
    }
}

pub(crate) fn read(place: &Place, args: &GetArgs) -> anyhow::Result<ExitCode> {
    if args.name.is_some() && args.kind.is_none() {
        return Err(WrongUsage("a name needs a kind before it".to_owned()).into());
    }
    let mut query = Vec::new();
    for (name, value) in [
        ("kind", args.kind.as_deref().map(full_kind)),
        ("namespace", args.namespace.as_deref()),
        ("name", args.name.as_deref()),
    ] {
        if let Some(value) = value {
            query.push(format!("{name}={}", query_escape(value)));
        }
    }
    let path = format!("/v1/resources?{}", query.join("&"));
    let control = place.control()?;
    let found = block_on(async { Ok(control.json("GET", &path, None).await?) })?;
    let resources = list(&found, "resources");
    match args.output.format {
        Format::Json => output::print_json(&found)?,
        Format::Text => {
            let mut table = Table::new(&["KIND", "NAMESPACE", "NAME", "WHERE"]);
            for resource in resources {
                let metadata = resource.get("metadata").unwrap_or(resource);
                let line = resource
                    .get("line")
                    .and_then(Value::as_u64)
                    .filter(|line| *line > 0);
                let place = text_of(resource, "source").to_owned()
                    + &line.map_or_else(String::new, |line| format!(":{line}"));
                table.row([
                    text_of(resource, "kind").to_owned(),
                    text_of(metadata, "namespace").to_owned(),
                    text_of(metadata, "name").to_owned(),
                    place,
                ]);
            }
            output::print(&table.render())?;
        }
    }
    Ok(answer(!resources.is_empty() || args.name.is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_names_who_refused_and_why() {
        let outcome = serde_json::json!({
            "objects": ["VirtualService phoenix-guardian/api-gateway"],
            "affected": 3, "acknowledged": 2, "onUse": 1, "milliseconds": 41,
            "rejected": [{"proxy": "sidecar~x", "resource": "8080", "reason": "no such cluster"}],
            "diagnostics": [{"code": "RJ0101", "severity": "warning", "message": "m", "hint": "h",
                "origin": {"source": "a.yaml", "line": 3}}],
        });
        let text = outcome_text(&outcome, Change::Apply);
        assert_eq!(
            text,
            "warning[RJ0101]: m\n  --> a.yaml:3\n  help: h\n\
             VirtualService phoenix-guardian/api-gateway: applied\n\
             2 of 3 affected proxies acknowledged in 41 ms; 1 more will fetch on use\n\
             sidecar~x refused 8080: no such cluster\n"
        );
    }
}
