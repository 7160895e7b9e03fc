//! `rajut why`: what a request meets on its way, decided by the same code that the proxies run.

use std::{process::ExitCode, time::Duration};

use serde_json::{Value, json};

use super::{
    OutputFormat, admin, answer, block_on,
    mesh::{Place, workload},
    proxies::endpoints_out,
};
use crate::output::{self, Format};

const TIMEOUT: Duration = Duration::from_secs(10);

/// `rajut why`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  rajut why --from api-gateway --to http://encounter-service:8080/visits")]
pub(crate) struct WhyArgs {
    /// Who asks: a workload (NAME or NAME.NAMESPACE) or a SPIFFE identity
    #[arg(long)]
    from: String,
    /// What is asked for
    #[arg(long, value_name = "URL")]
    to: String,
    /// The request's method
    #[arg(long, default_value = "GET")]
    method: String,
    /// A header of the request; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    #[command(flatten)]
    output: OutputFormat,
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_ascii_lowercase(), value.to_owned())),
        _ => Err("NAME=VALUE is expected".to_owned()),
    }
}

/// Exit status 0 when the request would reach somebody.
pub(crate) fn why(place: &Place, args: &WhyArgs) -> anyhow::Result<ExitCode> {
    let headers: serde_json::Map<String, Value> = args
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    let question = json!({
        "from": args.from, "to": args.to, "method": args.method, "headers": headers,
    });
    let control = place.control()?;
    let found: Value = block_on(async {
        let body = control
            .call("POST", "/v1/why", question.to_string(), TIMEOUT)
            .await?;
        Ok(serde_json::from_slice(&body)?)
    })?;
    let mut found = found;
    add_what_is_out(place, args, &mut found);
    match args.output.format {
        Format::Json => output::print_json(&found)?,
        Format::Text => output::print(&explanation(&found))?,
    }
    Ok(answer(
        found
            .get("reached")
            .and_then(Value::as_bool)
            .or_else(|| found.get("allowed").and_then(Value::as_bool))
            .unwrap_or(false),
    ))
}

/// Which endpoints the caller's sidecar has taken out, where it can be asked: the control plane does not know.
fn add_what_is_out(place: &Place, args: &WhyArgs, found: &mut Value) {
    let Some(cluster) = found.get("cluster").and_then(Value::as_str).map(str::to_owned) else {
        return;
    };
    let Ok(mesh) = place.running() else { return };
    let Ok(admin) = workload(&mesh, &args.from).map(|it| it.admin) else {
        return;
    };
    let asked = block_on(async { admin::json(admin, "/clusters?format=json").await });
    let Ok(statuses) = asked else { return };
    let steps = found.get_mut("steps").and_then(Value::as_array_mut);
    if let Some(steps) = steps {
        let out = endpoints_out(&statuses, &cluster);
        steps.extend(
            out.into_iter()
                .map(|text| json!({"stage": "out of service", "text": text})),
        );
    }
}

/// One line per step, with where it is written; then the verdict.
fn explanation(found: &Value) -> String {
    let text = |value: &Value, name: &str| {
        value
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let mut lines = String::new();
    for step in found.get("steps").and_then(Value::as_array).into_iter().flatten() {
        let mut line = format!("{:<14} {}", text(step, "stage"), text(step, "text"));
        let place = text(step, "where");
        if !place.is_empty() {
            append!(line, "   ({place})");
        }
        lines.push_str(line.trim_end());
        lines.push('\n');
    }
    let verdict = text(found, "verdict");
    if !verdict.is_empty() {
        append!(lines, "=> {verdict}\n");
    }
    lines
}
