//! A run as lines, as JSON and as Markdown.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::measure::{Changes, Run};

/// Counters of work that every change is charged with.
const WORK: [(&str, &str); 5] = [
    ("rajut_control_generated_total", "generator calls"),
    ("rajut_control_encoded_bytes_total", "bytes encoded"),
    ("rajut_control_resources_sent_total", "resources sent"),
    ("rajut_control_proxies_woken_total", "proxies woken"),
    ("rajut_control_pushes_total", "responses"),
];

pub(crate) fn print(run: &Run) {
    for (name, value) in rows(run) {
        println!("{name:<44} {value}");
    }
    println!();
}

/// Columns are runs.
pub(crate) fn markdown(runs: &[Run]) -> String {
    let columns: Vec<Vec<(String, String)>> = runs.iter().map(rows).collect();
    let Some(first) = columns.first() else {
        return String::new();
    };
    let mut text = String::new();
    for (position, (name, _)) in first.iter().enumerate() {
        let values: Vec<&str> = columns
            .iter()
            .filter_map(|column| column.get(position).map(|(_, value)| value.as_str()))
            .collect();
        let _ = writeln!(text, "| {name} | {} |", values.join(" | "));
        if position == 0 {
            let _ = writeln!(text, "| --- |{}", " --- |".repeat(runs.len()));
        }
    }
    text
}

fn rows(run: &Run) -> Vec<(String, String)> {
    let size = run.size;
    let mut rows = vec![
        (
            "form of subscription".to_owned(),
            format!("{:?}", run.form).to_lowercase(),
        ),
        (
            "services × endpoints, proxies".to_owned(),
            format!("{} × {}, {}", size.services, size.endpoints, size.proxies),
        ),
        ("serving after".to_owned(), format!("{:.2} s", run.ready)),
        (
            "memory (PSS), nobody connected".to_owned(),
            format!("{:.1} MiB", run.memory[0]),
        ),
        (
            "memory (PSS), all acknowledged".to_owned(),
            format!("{:.1} MiB", run.memory[1]),
        ),
        (
            "memory (resident), highest".to_owned(),
            format!("{:.1} MiB", run.memory[2]),
        ),
        (
            "full start until the last answer".to_owned(),
            format!(
                "{:.2} s ({:.2} s CPU, {} MB of resources)",
                run.start[0],
                run.start[1],
                run.started_bytes / 1_000_000
            ),
        ),
    ];
    changes(&mut rows, "endpoint", &run.endpoint);
    changes(&mut rows, "policy (DestinationRule)", &run.policy);
    changes(&mut rows, "policy (PeerAuthentication)", &run.peer);
    rows.push((
        "50 changes/s".to_owned(),
        format!(
            "{} in {:.1} s, {:.2} cores, {:.2} updates/s and proxy, the last one answered after {:.0} ms",
            run.sustained.written,
            run.sustained.seconds,
            run.sustained.cpu,
            run.sustained.updates,
            run.sustained.tail
        ),
    ));
    rows.push((
        "reconnect storm".to_owned(),
        format!(
            "{:.2} s ({:.2} s CPU, {:.0} MiB at most)",
            run.storm.seconds, run.storm.cpu, run.storm.peak
        ),
    ));
    rows
}

fn changes(rows: &mut Vec<(String, String)>, kind: &str, changes: &Changes) {
    let quantile = |share: usize| {
        let last = changes.milliseconds.len().saturating_sub(1);
        changes
            .milliseconds
            .get(last * share / 100)
            .copied()
            .unwrap_or(f64::NAN)
    };
    rows.push((format!("{kind}: proxies touched"), changes.touched.to_string()));
    rows.push((
        format!("{kind}: write to last answer"),
        format!("p50 {:.1} ms, p99 {:.1} ms", quantile(50), quantile(99)),
    ));
    rows.push((
        format!("{kind}: CPU per change"),
        format!("{:.2} ms", changes.cpu),
    ));
    for (counter, what) in WORK {
        let value = changes
            .work
            .get(counter)
            .map_or_else(|| "no data".to_owned(), |value| format!("{value:.2}"));
        rows.push((format!("{kind}: {what}"), value));
    }
}

pub(crate) fn json(runs: &[Run]) -> Value {
    let changes = |changes: &Changes| {
        json!({
            "proxiesTouched": changes.touched,
            "milliseconds": changes.milliseconds,
            "cpuMilliseconds": changes.cpu,
            "work": changes.work,
        })
    };
    let one = |run: &Run| {
        json!({
            "form": format!("{:?}", run.form).to_lowercase(),
            "services": run.size.services,
            "endpointsPerService": run.size.endpoints,
            "proxies": run.size.proxies,
            "readySeconds": run.ready,
            "memoryMib": {"idle": run.memory[0], "connected": run.memory[1], "highestResident": run.memory[2]},
            "start": {"seconds": run.start[0], "cpuSeconds": run.start[1], "resourceBytes": run.started_bytes},
            "endpoint": changes(&run.endpoint),
            "policy": changes(&run.policy),
            "peer": changes(&run.peer),
            "sustained": {
                "changes": run.sustained.written,
                "seconds": run.sustained.seconds,
                "cpuCores": run.sustained.cpu,
                "updatesPerSecondAndProxy": run.sustained.updates,
                "tailMilliseconds": run.sustained.tail,
            },
            "storm": {
                "seconds": run.storm.seconds,
                "cpuSeconds": run.storm.cpu,
                "highestResidentMib": run.storm.peak,
            },
        })
    };
    json!({ "runs": runs.iter().map(one).collect::<Vec<_>>() })
}
