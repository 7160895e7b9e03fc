//! A run as lines, as JSON and as Markdown.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::{
    measure::{Changes, Run},
    mesh::Size,
};

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

/// What issue and design ask for, and whether it is so: (goal, measured, met).
pub(crate) fn goals(runs: &[Run]) -> String {
    let mut text = "| mesh and form | goal | measured | met |\n| --- | --- | --- | --- |\n".to_owned();
    for run in runs {
        let Size {
            services, proxies, ..
        } = run.size;
        let mesh = format!("{services} services, {proxies} proxies, {}", form(run));
        let mut goal = |goal: &str, measured: String, met: bool| {
            let met = if met { "yes" } else { "no" };
            let _ = writeln!(text, "| {mesh} | {goal} | {measured} | {met} |");
        };
        let memory = run.memory[1] * 1_048_576.0 / 1e6;
        goal(
            "memory (PSS) under 150 MB",
            format!("{memory:.0} MB"),
            memory < 150.0,
        );
        for (kind, changes) in [
            ("an endpoint's change", &run.endpoint),
            ("a policy's change", &run.policy),
        ] {
            let p99 = quantile(changes, 99);
            let what = format!("{kind}, write to last answer: p99 under 1 s");
            goal(&what, format!("{p99:.0} ms"), p99 < 1e3);
        }
        let sustained = &run.sustained;
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let rate = sustained.written as f64 / sustained.seconds;
        let kept = rate > 49.0 && sustained.tail < 1e3;
        let measured = format!(
            "{rate:.1}/s, the last one answered after {:.0} ms",
            sustained.tail
        );
        goal("50 changes/s sustained", measured, kept);
        let updates = sustained.updates;
        goal(
            "at most 5 pushes/s and proxy",
            format!("{updates:.2}"),
            updates <= 5.0,
        );
    }
    doubled(runs, &mut text);
    text
}

/// The same changes in a mesh of half the size and in the whole one.
fn doubled(runs: &[Run], text: &mut String) {
    for pair in runs.windows(2) {
        let [half, whole] = pair else { continue };
        let same_use = half.form == whole.form && half.size.pool == whole.size.pool;
        if !same_use || half.size.services * 2 != whole.size.services {
            continue;
        }
        let kinds = [
            ("an endpoint's change", &half.endpoint, &whole.endpoint),
            ("a policy's change", &half.policy, &whole.policy),
        ];
        for (kind, small, large) in kinds {
            let ratio = large.cpu / small.cpu;
            let _ = writeln!(
                text,
                "| {} to {} services, {} | {kind}: CPU within 1.2 | {:.2} to {:.2} ms: {ratio:.2} | {} |",
                half.size.services,
                whole.size.services,
                form(whole),
                small.cpu,
                large.cpu,
                if ratio <= 1.2 { "yes" } else { "no" },
            );
        }
    }
}

fn form(run: &Run) -> String {
    format!("{:?}", run.form).to_lowercase()
}

fn quantile(changes: &Changes, share: usize) -> f64 {
    let last = changes.milliseconds.len().saturating_sub(1);
    let at = (last * share).div_ceil(100);
    changes.milliseconds.get(at).copied().unwrap_or(f64::NAN)
}

fn rows(run: &Run) -> Vec<(String, String)> {
    let size = run.size;
    let mut rows = vec![
        ("form of subscription".to_owned(), form(run)),
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
    rows.push((format!("{kind}: proxies touched"), changes.touched.to_string()));
    rows.push((
        format!("{kind}: write to last answer"),
        format!(
            "p50 {:.1} ms, p99 {:.1} ms",
            quantile(changes, 50),
            quantile(changes, 99)
        ),
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
