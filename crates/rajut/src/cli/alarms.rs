//! `rajut alarms`: what the control plane noticed without a rule, and what people say to it.

use std::{process::ExitCode, time::Duration};

use rajut_runtime::env::parse_duration;
use serde_json::{Value, json};

use super::{OutputFormat, block_on, mesh::Place, top::plain};
use crate::output::{self, Format, Table};

/// `rajut alarms`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rajut alarms ack 17 --why 'the import of this morning'
  rajut alarms silence --edge import.clinic:records --for 2h --why 'migration, ticket 4711'
  rajut alarms silences
  rajut alarms expire 3")]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AlarmsArgs {
    #[command(subcommand)]
    command: Option<AlarmsCommand>,
    #[command(flatten)]
    output: OutputFormat,
}

#[derive(Debug, clap::Subcommand)]
enum AlarmsCommand {
    /// Say that somebody has seen an alarm; a first call is over by that
    Ack {
        /// The alarm's number
        number: u64,
        /// What is known of it
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
        /// Your name, beside the user that the system knows
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        #[command(flatten)]
        output: OutputFormat,
    },
    /// Tell nobody of some alarms for a while; they are raised, listed and logged as ever
    Silence {
        /// Who calls whom: WORKLOAD[.NAMESPACE] (or a SPIFFE identity) and a service's host or its beginning; `*` is any
        #[arg(long, value_name = "CALLER:SERVICE", default_value = "*:*", value_parser = edge)]
        edge: (String, String),
        /// Only of this kind
        #[arg(long, value_name = "KIND", value_parser = ["first-call", "fan-out", "denials", "rate", "errors", "latency", "bytes"])]
        kind: Option<String>,
        /// How long, such as 30m or 2h, at most 720h
        #[arg(long = "for", value_name = "TIME", value_parser = time)]
        time: Duration,
        /// Why
        #[arg(long, value_name = "TEXT")]
        why: String,
        /// Your name, beside the user that the system knows
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        #[command(flatten)]
        output: OutputFormat,
    },
    /// List the silences, also those that were over in the last three days
    Silences(OutputFormat),
    /// End a silence
    Expire {
        /// The silence's number
        id: u64,
        #[command(flatten)]
        output: OutputFormat,
    },
}

/// The last colon: identities have some of their own.
fn edge(text: &str) -> Result<(String, String), String> {
    match text.rsplit_once(':') {
        Some((caller, service))
            if !caller.is_empty() && !service.is_empty() && !service.starts_with("//") =>
        {
            Ok((caller.to_owned(), service.to_owned()))
        }
        _ => Err(
            "CALLER:SERVICE is expected, as in --edge import.clinic:records or --edge 'import:*'".to_owned(),
        ),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "a time with its unit is expected, as in --for 2h".to_owned())
}

pub(crate) fn alarms(place: &Place, args: &AlarmsArgs) -> anyhow::Result<ExitCode> {
    let control = place.control()?;
    let mut told: fn(&Value) -> String = text;
    let (method, path, body, output) = match &args.command {
        None => ("GET", "/v1/alarms".to_owned(), None, args.output),
        Some(AlarmsCommand::Silences(output)) => {
            told = silences;
            ("GET", "/v1/alarms".to_owned(), None, *output)
        }
        Some(AlarmsCommand::Ack {
            number,
            why,
            by,
            output,
        }) => {
            told = acknowledged;
            let body = json!({"why": why, "by": by});
            let path = format!("/v1/alarms/{number}/acknowledge");
            ("POST", path, Some(body), *output)
        }
        Some(AlarmsCommand::Silence {
            edge: (caller, service),
            kind,
            time,
            why,
            by,
            output,
        }) => {
            told = silenced;
            let body = json!({
                "caller": caller, "service": service, "kind": kind, "seconds": time.as_secs(), "why": why, "by": by,
            });
            ("POST", "/v1/silences".to_owned(), Some(body), *output)
        }
        Some(AlarmsCommand::Expire { id, output }) => {
            told = silenced;
            ("DELETE", format!("/v1/silences/{id}"), None, *output)
        }
    };
    let answer = block_on(async move { Ok(control.json(method, &path, body.as_ref()).await?) })?;
    match output.format {
        Format::Json => output::print_json(&answer)?,
        Format::Text => output::print(&told(&answer))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn of<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn acknowledged(alarm: &Value) -> String {
    let (number, by) = (
        alarm["number"].as_u64().unwrap_or_default(),
        of(alarm, "/acknowledged/by"),
    );
    format!("alarm {number} is acknowledged by {}\n", plain(by))
}

fn silenced(silence: &Value) -> String {
    let (id, until) = (
        silence["id"].as_u64().unwrap_or_default(),
        plain(of(silence, "/until")),
    );
    if silence["holds"] == true {
        format!("silence {id} holds until {until}; rajut alarms expire {id} ends it\n")
    } else {
        format!("silence {id} is over\n")
    }
}

fn silences(answer: &Value) -> String {
    let mut table = Table::new(&[
        "ID", "FROM", "UNTIL", "STATE", "KIND", "CALLER", "SERVICE", "BY", "WHY",
    ]);
    let silences = answer.get("silences").and_then(Value::as_array);
    let mut rows = 0;
    for silence in silences.into_iter().flatten().rev() {
        rows += 1;
        let told = |pointer: &str| plain(of(silence, pointer));
        let state = if silence["holds"] == true { "holds" } else { "over" };
        let kind = Some(told("/kind")).filter(|kind| !kind.is_empty());
        table.row([
            silence["id"].as_u64().unwrap_or_default().to_string(),
            told("/from"),
            told("/until"),
            state.to_owned(),
            kind.unwrap_or_else(|| "*".to_owned()),
            told("/caller"),
            told("/service"),
            told("/by"),
            told("/why"),
        ]);
    }
    if rows > 0 {
        table.render()
    } else {
        "no silences\n".to_owned()
    }
}

/// Open, or since when not; who has seen it, and what keeps it quiet.
fn state(alarm: &Value) -> String {
    let mut text = match alarm.get("open").and_then(Value::as_bool) {
        Some(true) => "open".to_owned(),
        _ => plain(of(alarm, "/endedAt")),
    };
    let by = of(alarm, "/acknowledged/by");
    if !by.is_empty() {
        append!(text, ", seen by {}", plain(by));
    }
    if let Some(silence) = alarm.get("silence").and_then(Value::as_u64) {
        append!(text, ", silence {silence}");
    }
    text
}

fn text(answer: &Value) -> String {
    let told = |value: &Value, pointer: &str| {
        plain(value.pointer(pointer).and_then(Value::as_str).unwrap_or_default())
    };
    let alarms = answer.get("alarms").and_then(Value::as_array);
    let mut table = Table::new(&[
        "AT",
        "ALARM",
        "UNTIL",
        "CALLER",
        "IDENTITY",
        "SERVICE",
        "BEFORE → NOW",
    ]);
    let mut rows = 0;
    // The newest first.
    for alarm in alarms.into_iter().flatten().rev() {
        rows += 1;
        let mut service = told(alarm, "/destination/host");
        if let Some(port) = alarm.pointer("/destination/port").and_then(Value::as_u64) {
            append!(service, ":{port}");
        }
        let caller = format!(
            "{}.{}",
            told(alarm, "/source/workload"),
            told(alarm, "/source/namespace")
        );
        let number = alarm.get("number").and_then(Value::as_u64);
        table.row([
            number.unwrap_or_default().to_string(),
            told(alarm, "/at"),
            told(alarm, "/kind"),
            state(alarm),
            caller,
            told(alarm, "/source/principal"),
            service,
            figures(alarm),
        ]);
    }
    let mut text = if rows > 0 {
        table.render()
    } else {
        "no alarms\n".to_owned()
    };
    let (now, until) = (told(answer, "/now"), told(answer, "/learningUntil"));
    if now < until {
        append!(text, "what is called until {until} is taken for ordinary\n");
    }
    text
}

/// What it was, what it is, and of what; of a caller's alarm, which services.
fn figures(alarm: &Value) -> String {
    let Some(found) = alarm.get("evidence").filter(|found| found.is_object()) else {
        return String::new();
    };
    let number = |name: &str| found.get(name).and_then(Value::as_f64).unwrap_or_default();
    let measure = plain(found.get("measure").and_then(Value::as_str).unwrap_or_default());
    let mut text = format!("{} → {} {measure}", short(number("before")), short(number("now")));
    let hosts = found.get("hosts").and_then(Value::as_array);
    let hosts: Vec<String> = hosts
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(plain)
        .collect();
    if hosts.len() > 1 {
        append!(text, ": {}", hosts.join(", "));
    }
    text
}

/// Three figures that count.
fn short(number: f64) -> String {
    match number.abs() {
        size if size >= 10_000.0 => format!("{:.0}k", number / 1000.0),
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 1.0 => format!("{number:.1}"),
        _ => format!("{number:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn alarms_stand_newest_first_and_learning_is_said() {
        let alarm = |number: u64, host: &str| {
            json!({
                "number": number, "kind": "rate", "at": "2026-11-22T10:00:00Z", "open": true, "endedAt": null,
                "source": {"namespace": "clinic", "workload": "web\u{1b}[2J", "principal": "p"},
                "destination": {"host": host, "port": 3306},
                "evidence": {"measure": "calls per second", "before": 3.25, "now": 41_000.0, "hosts": []},
            })
        };
        let answer = json!({
            "now": "2026-11-22T10:00:05Z", "learningUntil": "2026-11-22T09:00:00Z",
            "alarms": [alarm(1, "first"), alarm(2, "second")],
        });
        let text = text(&answer);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].contains("second:3306") && lines[2].contains("first:3306"));
        assert!(lines[1].ends_with("3.2 → 41k calls per second") && lines[1].contains("  open  "));
        assert!(!text.contains('\u{1b}'));
        let learning =
            json!({"now": "2026-11-22T10:00:05Z", "learningUntil": "2026-11-22T10:10:00Z", "alarms": []});
        assert_eq!(
            super::text(&learning),
            "no alarms\nwhat is called until 2026-11-22T10:10:00Z is taken for ordinary\n"
        );
    }
}
