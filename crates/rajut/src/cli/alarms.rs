//! `rajut alarms`: workloads that called a service which they had not called before.

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
    let mut table = Table::new(&["AT", "ALARM", "CALLER", "IDENTITY", "SERVICE"]);
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
            caller,
            told(alarm, "/source/principal"),
            service,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn alarms_stand_newest_first_and_learning_is_said() {
        let alarm = |number: u64, host: &str| {
            json!({
                "number": number, "kind": "first-call", "at": "2026-11-22T10:00:00Z",
                "source": {"namespace": "clinic", "workload": "web\u{1b}[2J", "principal": "p"},
                "destination": {"host": host, "port": 3306},
            })
        };
        let answer = json!({
            "now": "2026-11-22T10:00:05Z", "learningUntil": "2026-11-22T09:00:00Z",
            "alarms": [alarm(1, "first"), alarm(2, "second")],
        });
        let text = text(&answer);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].ends_with("second:3306") && lines[2].ends_with("first:3306"));
        assert!(!text.contains('\u{1b}'));
        let learning =
            json!({"now": "2026-11-22T10:00:05Z", "learningUntil": "2026-11-22T10:10:00Z", "alarms": []});
        assert_eq!(
            super::text(&learning),
            "no alarms\nwhat is called until 2026-11-22T10:10:00Z is taken for ordinary\n"
        );
    }
}
