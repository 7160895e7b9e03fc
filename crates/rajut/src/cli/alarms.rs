//! `rajut alarms`: what the control plane noticed without a rule.

use std::process::ExitCode;

use serde_json::Value;

use super::{OutputFormat, block_on, mesh::Place, top::plain};
use crate::output::{self, Format, Table};

pub(crate) fn alarms(place: &Place, output: OutputFormat) -> anyhow::Result<ExitCode> {
    let control = place.control()?;
    let answer = block_on(async move { Ok(control.json("GET", "/v1/alarms", None).await?) })?;
    match output.format {
        Format::Json => output::print_json(&answer)?,
        Format::Text => output::print(&text(&answer))?,
    }
    Ok(ExitCode::SUCCESS)
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
        table.row([
            told(alarm, "/at"),
            told(alarm, "/kind"),
            match alarm.get("open").and_then(Value::as_bool) {
                Some(true) => "open".to_owned(),
                _ => told(alarm, "/endedAt"),
            },
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
