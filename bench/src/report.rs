//! What a run gave, in words: the terminal, `results/SET.json` (every round), `RESULTS.md` from all of these files, and
//! the summary between the marks in the README, where it has them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::alike::Alike;
use crate::bootstrap::LIMITS;
use crate::goals::{self, Line};
use crate::machine;
use crate::peer::Peer;
use crate::run::{Figures, Options, Row, SetResult};
use crate::set::{self, Kind, Set};
use crate::stats::{median, range};

/// Marks in the README around the summary.
const README_MARKS: (&str, &str) = ("<!-- bench:begin -->", "<!-- bench:end -->");
/// Peers in the README's summary.
const SUMMARY_PEERS: [&str; 2] = ["envoy", "haproxy"];

/// What is summed up of a set: the first of its columns that is one of these.
const SUMMARY: &[&str] = &[
    "cpu_us",
    "bulk_cpu_ms_per_gib",
    "pss_idle_mib",
    "held_kib_each",
    "pss_load_mib",
];

/// A column of a table. A smaller figure is better unless it says so.
#[derive(Debug, Clone, Copy)]
struct Column {
    key: &'static str,
    title: &'static str,
    digits: usize,
    /// The round's figure of the direct way is taken off.
    added: bool,
}

const fn column(key: &'static str, title: &'static str, digits: usize) -> Column {
    Column {
        key,
        title,
        digits,
        added: false,
    }
}

const fn added(key: &'static str, title: &'static str) -> Column {
    Column {
        key,
        title,
        digits: 0,
        added: true,
    }
}

const HTTP: &[Column] = &[
    column("cpu_us", "CPU µs/request", 1),
    column("rate_cpu_us", "CPU µs/request at the fixed rate", 1),
    column("requests_per_s", "requests/s", 0),
    added("rate_p50_us", "added p50 µs"),
    added("rate_p99_us", "added p99 µs"),
    column("pss_load_mib", "memory after load MiB", 1),
];

const TCP: &[Column] = &[
    column("bulk_cpu_ms_per_gib", "bulk: CPU ms/GiB", 0),
    column("bulk_gib_per_s", "bulk: GiB/s", 2),
    column("cpu_us", "small: CPU µs/message", 1),
    column("rate_cpu_us", "small: CPU µs/message at the fixed rate", 1),
    column("requests_per_s", "small: messages/s", 0),
    added("rate_p50_us", "added p50 µs"),
    added("rate_p99_us", "added p99 µs"),
    column("pss_load_mib", "memory after load MiB", 1),
];

const IDLE: &[Column] = &[
    column("pss_idle_mib", "memory (PSS) MiB", 1),
    column("rss_idle_mib", "resident MiB", 1),
    column("start_ms", "first answer ms", 0),
    column("idle_cpu_ms_per_s", "CPU ms per idle second", 2),
];

const HELD: &[Column] = &[
    column("held", "connections", 0),
    column("held_kib_each", "KiB per connection", 1),
    column("pss_idle_mib", "memory before MiB", 1),
    column("pss_held_mib", "with them MiB", 1),
    column("pss_freed_mib", "after they are closed MiB", 1),
    column("held_cpu_us", "CPU µs to open each", 0),
    column("held_idle_cpu_ms_per_s", "CPU ms per idle second", 2),
];

const FRESH: &[Column] = &[
    column("cpu_us", "CPU µs/connection", 1),
    column(
        "rate_cpu_us",
        "CPU µs/connection at an eighth of the fixed rate",
        1,
    ),
    column("requests_per_s", "connections/s", 0),
    added("rate_p50_us", "added p50 µs"),
    added("rate_p99_us", "added p99 µs"),
    column("pss_load_mib", "memory after load MiB", 1),
];

const LARGE: &[Column] = &[
    column("pss_load_mib", "memory with 10 services used MiB", 1),
    column("unused_first_ms", "first request to an unused service ms", 1),
    column("unused_worst_ms", "worst of 50 ms", 1),
    column("pss_unused_mib", "memory with 50 more used MiB", 1),
    column("pss_disused_mib", "memory after disuse MiB", 1),
    column("cpu_us", "CPU µs/request", 1),
    column("start_ms", "first answer ms", 0),
];

/// What is kept in the file beside the table's columns.
const MORE: &[Column] = &[
    column("cpu_system_us", "system part of CPU µs/request", 1),
    column("use", "share of its core, saturated", 2),
    column("other_use", "share of its core that others used, saturated", 2),
    column("rate_other_use", "the same at the fixed rate", 2),
    column("pss_idle_mib", "memory idle MiB", 1),
    column("start_ms", "first answer ms", 0),
    column("rss_idle_mib", "resident memory idle MiB", 1),
    column("rss_load_mib", "resident memory after load MiB", 1),
];

fn columns(set: &Set) -> &'static [Column] {
    match set.kind {
        Kind::Requests => HTTP,
        Kind::Tcp => TCP,
        Kind::Idle => IDLE,
        Kind::Held => HELD,
        Kind::Fresh => FRESH,
        Kind::Large => LARGE,
    }
}

/// A column's figure of each round.
fn values(column: Column, row: &Row, direct: Option<&Row>) -> Vec<f64> {
    let of = |figures: &Figures| figures.get(column.key).copied();
    if !column.added {
        return row.rounds.iter().filter_map(of).collect();
    }
    if row.installed.peer == Peer::Direct {
        return Vec::new();
    }
    let without = |round: usize| direct?.rounds.get(round).and_then(of);
    let rounds = row.rounds.iter().enumerate();
    rounds
        .filter_map(|(round, figures)| Some(of(figures)? - without(round)?))
        .collect()
}

fn direct(result: &SetResult) -> Option<&Row> {
    result.rows.iter().find(|row| row.installed.peer == Peer::Direct)
}

/// Prints whether we answer as Envoy does and keeps it; whether all is well.
pub(crate) fn alike(alike: Result<Alike>, options: &Options) -> Result<bool> {
    println!("\n== alike: answers, edited requests and log lines, rajut against envoy");
    let (text, well) = match alike {
        Ok(alike) => {
            println!("   bootstrap of both: probes.yaml, fnv {}", alike.bootstrap);
            println!(
                "{} probes, {} without any difference; {} log lines of {} fields",
                alike.probes, alike.same, alike.log_lines, alike.log_fields
            );
            for (reason, probes) in &alike.known {
                println!("   known, {} probes: {reason}", probes.len());
            }
            for difference in &alike.differences {
                println!("   DIFFERS: {difference}");
            }
            (alike.describe(), alike.differences.is_empty())
        }
        Err(why) => {
            println!("   FAILED: {why:#}");
            (json!({ "failed": format!("{why:#}") }), false)
        }
    };
    if !options.smoke {
        keep(&options.root, "alike", &text)?;
    }
    Ok(well)
}

/// Prints what the Node example's sidecars used on each data plane and keeps it.
pub(crate) fn node(
    measured: &[(&'static str, Result<Value>)],
    options: &Options,
    machine: &Value,
) -> Result<()> {
    println!("\n== node: the Node example under a steady load, shares of its sidecars");
    let mut peers = json!({});
    for (plane, measured) in measured {
        let measured = match measured {
            Ok(measured) => measured,
            Err(why) => {
                println!("   {plane} FAILED: {why:#}");
                peers[plane] = json!({ "failed": format!("{why:#}") });
                continue;
            }
        };
        println!("   {plane}: {}", node_load(measured));
        let services = list(&measured["services"]);
        for service in services {
            println!("   {}", node_line(service));
        }
        // A service that nobody asked has no share to speak of.
        let shares = services
            .iter()
            .filter(|service| service["requests_per_s"].as_f64() > Some(1.0));
        let largest = shares
            .filter_map(|service| service["sidecar_cpu_share"].as_f64())
            .reduce(f64::max);
        let figures = json!({ "sidecar_cpu_share": { "median": largest, "rounds": [largest] } });
        peers[plane] = json!({ "failed": null, "figures": figures, "measured": measured });
    }
    if !options.smoke {
        let whole = json!({ "set": "node", "machine": machine, "peers": peers });
        keep(&options.root, "node", &whole)?;
    }
    Ok(())
}

/// What was asked and answered.
fn node_load(measured: &Value) -> String {
    format!(
        "{}/s for {} s: {} answered, {} not, p50 {} µs, p99 {} µs",
        measured["rate"],
        measured["seconds"],
        measured["answered"],
        measured["unanswered"],
        measured["p50_us"],
        measured["p99_us"]
    )
}

fn node_line(service: &Value) -> String {
    let number =
        |key: &str, digits: usize, times: f64| cell(service[key].as_f64().map(|n| n * times), digits);
    format!(
        "| {} | {} | {} | {} | {} % | {} | {} | {} % | {} | {} |",
        text(&service["name"]),
        number("requests_per_s", 0, 1.0),
        number("application_cpu", 3, 1.0),
        number("sidecar_cpu", 3, 1.0),
        number("sidecar_cpu_share", 1, 100.0),
        number("application_mib", 1, 1.0),
        number("sidecar_mib", 1, 1.0),
        number("sidecar_memory_share", 1, 100.0),
        number("vcpu_per_1000", 3, 1.0),
        number("gib_per_1000", 3, 1.0),
    )
}

/// Writes `bench/results/NAME.json`.
fn keep(root: &Path, name: &str, whole: &Value) -> Result<()> {
    let dir = root.join("bench/results");
    fs::create_dir_all(&dir)?;
    let file = dir.join(format!("{name}.json"));
    fs::write(&file, serde_json::to_string_pretty(whole)? + "\n").with_context(|| file.display().to_string())
}

/// Prints a set's figures with their spread, and who is absent.
pub(crate) fn print(result: &SetResult, options: &Options) {
    println!("\n== {}: {}", result.set.name, result.set.title);
    for (file, hash) in &result.bootstraps {
        println!("   bootstrap of rajut and envoy alike: {file}, fnv {hash}");
    }
    for row in &result.rows {
        let name = row.installed.peer.name();
        match &row.failed {
            Some(why) => println!("{name}: FAILED: {why}"),
            None => println!("{name}: {} rounds, {}", row.rounds.len(), row.installed.version),
        }
        if options.smoke {
            continue;
        }
        for column in columns(result.set).iter().chain(MORE) {
            let values = values(*column, row, direct(result));
            if let (Some(middle), Some((least, most))) = (median(&values), range(&values)) {
                let digits = column.digits;
                println!(
                    "   {:45} {middle:.digits$} [{least:.digits$}..{most:.digits$}]",
                    column.title
                );
            }
        }
    }
    for (peer, why) in &result.absent {
        println!("{}: absent: {why}", peer.name());
    }
}

/// Writes `bench/results/SET.json`.
pub(crate) fn write(result: &SetResult, options: &Options, machine: &Value, root: &Path) -> Result<()> {
    let mut peers = Map::new();
    for row in &result.rows {
        let mut figures = Map::new();
        for column in columns(result.set).iter().chain(MORE) {
            let values = values(*column, row, direct(result));
            let Some((least, most)) = range(&values) else {
                continue;
            };
            let name = if column.added {
                format!("added_{}", column.key)
            } else {
                column.key.to_owned()
            };
            figures.insert(
                name,
                json!({ "median": median(&values), "least": least, "most": most, "rounds": values }),
            );
        }
        let about = json!({ "version": row.installed.version, "failed": row.failed, "figures": figures });
        peers.insert(row.installed.peer.name().to_owned(), about);
    }
    let absent: Map<String, Value> = result
        .absent
        .iter()
        .map(|(peer, why)| (peer.name().to_owned(), json!(why)))
        .collect();
    let table: Vec<Value> = columns(result.set)
        .iter()
        .map(|c| {
            let key = if c.added {
                format!("added_{}", c.key)
            } else {
                c.key.to_owned()
            };
            json!({ "key": key, "title": c.title, "digits": c.digits })
        })
        .collect();
    let bootstraps: Map<String, Value> = result
        .bootstraps
        .iter()
        .map(|(file, hash)| (file.clone(), json!(hash)))
        .collect();
    let whole = json!({
        "set": result.set.name, "title": result.set.title, "machine": machine, "options": options.describe(),
        "bootstraps": bootstraps, "columns": table, "peers": peers, "absent": absent,
    });
    keep(root, result.set.name, &whole)
}

/// Writes `bench/RESULTS.md` from all results that there are, and the README's summary.
pub(crate) fn write_markdown(root: &Path) -> Result<()> {
    let read = |name: &str| -> Result<Option<Value>> {
        match fs::read_to_string(root.join(format!("bench/results/{name}.json"))) {
            Ok(text) => Ok(Some(serde_json::from_str(&text)?)),
            Err(_) => Ok(None),
        }
    };
    let mut results = Vec::new();
    for set in set::ALL {
        results.extend(read(set.name)?);
    }
    let (alike, node) = (read("alike")?, read("node")?);
    let mut page = String::from(
        "# What a hop costs\n\n\
         Written by `cargo xtask bench`; how it measures stands in [README.md](README.md), what we learned in \
         [NOTES.md](NOTES.md).\nMedians over interleaved rounds. **Only ratios within one run carry over** to other \
         machines. Added latency is\nopen loop, from the moment each request was due, less the same round's figure \
         without a proxy.\n",
    );
    let lines = goals::judge(&results.iter().chain(&node).cloned().collect::<Vec<_>>());
    write_goals(&mut page, &lines)?;
    if let Some(alike) = &alike {
        write_alike(&mut page, alike)?;
    }
    write_limits(&mut page)?;
    for result in &results {
        write_set(&mut page, result)?;
    }
    if let Some(node) = &node {
        write_node(&mut page, node)?;
    }
    fs::write(root.join("bench/RESULTS.md"), page)?;
    let readme = root.join("README.md");
    let Ok(text) = fs::read_to_string(&readme) else {
        return Ok(());
    };
    if let Some(text) = between_marks(&text, &summary(&results, &lines)) {
        fs::write(readme, text)?;
    }
    Ok(())
}

fn write_goals(page: &mut String, lines: &[Line]) -> Result<()> {
    writeln!(page, "\n## Goals\n\n{}\n", counted(lines))?;
    writeln!(page, "| | goal | measured | met |\n| --- | --- | --- | --- |")?;
    for line in lines {
        let met = match line.met {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "not measured",
        };
        writeln!(
            page,
            "| {} | {} | {} | {met} |",
            line.what,
            line.goal,
            cell(line.measured, 2)
        )?;
    }
    Ok(())
}

fn counted(lines: &[Line]) -> String {
    let met = |wanted| lines.iter().filter(|line| line.met == wanted).count();
    format!(
        "{} of {} goals are met, {} are not, {} were not measured (a ratio is the median of the rounds' own).",
        met(Some(true)),
        lines.len(),
        met(Some(false)),
        met(None)
    )
}

fn write_alike(page: &mut String, alike: &Value) -> Result<()> {
    writeln!(page, "\n## Answers alike\n")?;
    if let Value::String(why) = &alike["failed"] {
        writeln!(page, "Not shown: {}", why.replace('\n', " "))?;
        return Ok(());
    }
    writeln!(
        page,
        "{} probes through rajut and Envoy from the same bytes (fnv {}): {} without any difference in status, fields, body, \
         what the server behind saw,\nand {} log lines of {} fields; {} unknown differences. Known ones:\n",
        alike["probes"],
        text(&alike["bootstrap"]),
        alike["same"],
        alike["log_lines"],
        alike["log_fields"],
        list(&alike["differences"]).len()
    )?;
    for (reason, probes) in alike["known"].as_object().cloned().unwrap_or_default() {
        writeln!(page, "- {reason} ({} probes)", list(&probes).len())?;
    }
    for difference in list(&alike["differences"]) {
        writeln!(
            page,
            "- **unknown**: {}",
            text(difference).replace(['`', '|'], " ")
        )?;
    }
    Ok(())
}

fn write_limits(page: &mut String) -> Result<()> {
    writeln!(
        page,
        "\n## Limits and timers\n\nOn in every set, written into the bootstrap that rajut and Envoy share; HAProxy and nginx have \
         their own limit of connections\n(4,096; more where connections are held), 10 s to connect and 60 s of silence.\n"
    )?;
    for (field, value) in LIMITS {
        writeln!(page, "- `{field}`: {value}")?;
    }
    Ok(())
}

fn write_node(page: &mut String, node: &Value) -> Result<()> {
    writeln!(
        page,
        "\n## node: the Node example (five services, `rajut up`) under requests on its front service\n\n{}.\n\
         CPU in cores; a sidecar's requests are those for and from its application.",
        machine::line(&node["machine"]),
    )?;
    for (plane, result) in node["peers"].as_object().into_iter().flatten() {
        let measured = &result["measured"];
        if measured.is_null() {
            writeln!(page, "\nOn {plane} not measured: {}.", text(&result["failed"]))?;
            continue;
        }
        writeln!(
            page,
            "\nOn {plane}, {}.\n\n\
             | | requests/s | application CPU | sidecar CPU | share | application MiB | sidecar MiB | share | vCPU per 1,000/s | GiB per 1,000/s |\n\
             |{}",
            node_load(measured),
            " --- |".repeat(10)
        )?;
        for service in list(&measured["services"]) {
            writeln!(page, "{}", node_line(service))?;
        }
    }
    Ok(())
}

fn write_set(page: &mut String, result: &Value) -> Result<()> {
    let options = &result["options"];
    writeln!(
        page,
        "\n## {}: {}\n",
        text(&result["set"]),
        text(&result["title"])
    )?;
    writeln!(
        page,
        "{}.\n{} rounds of {} s{}; fixed rate {}/s; memory {} s after the load; our build: profile `{}`.\n",
        machine::line(&result["machine"]),
        options["rounds"],
        options["seconds"],
        if options["realtime"] == json!(true) {
            ", under the real-time scheduler"
        } else {
            ""
        },
        options["rate"],
        options["rest"],
        text(&options["profile"]),
    )?;
    let columns = list(&result["columns"]);
    let titles: Vec<String> = columns.iter().map(|c| text(&c["title"])).collect();
    writeln!(
        page,
        "| | {} |\n| --- |{}",
        titles.join(" | "),
        " --- |".repeat(titles.len())
    )?;
    let peers = result["peers"].as_object().cloned().unwrap_or_default();
    for (name, about) in &peers {
        if let Value::String(why) = &about["failed"] {
            writeln!(page, "| {name} | failed: {} |", why.replace(['|', '\n'], " "))?;
            continue;
        }
        let cells: Vec<String> = columns
            .iter()
            .map(|c| cell(middle(about, c), digits(c)))
            .collect();
        writeln!(page, "| {name} | {} |", cells.join(" | "))?;
    }
    if let Some(ours) = peers.get("rajut").filter(|about| about["failed"].is_null()) {
        for (name, about) in peers
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "rajut" | "direct"))
        {
            let ratio = |c: &Value| ratio(middle(ours, c), middle(about, c));
            let cells: Vec<String> = columns.iter().map(|c| cell(ratio(c), 2)).collect();
            writeln!(page, "| **rajut / {name}** | {} |", cells.join(" | "))?;
        }
    }
    for (name, why) in result["absent"].as_object().cloned().unwrap_or_default() {
        writeln!(page, "\nNot measured: {name}: {}.", text(&why))?;
    }
    let versions: Vec<String> = peers
        .iter()
        .filter(|(name, about)| *name != "direct" && !text(&about["version"]).is_empty())
        .map(|(name, about)| format!("{name}: {}", text(&about["version"])))
        .collect();
    writeln!(page, "\n{}.", versions.join("; "))?;
    Ok(())
}

/// Ours against the main peers, one line per set: CPU (or memory) as figures and ratio; then how many goals are met.
fn summary(results: &[Value], goals: &[Line]) -> String {
    let mut page = String::from("| | rajut |");
    for peer in SUMMARY_PEERS {
        let _ = write!(page, " {peer} | ratio |");
    }
    page.push_str("\n| --- | --- |");
    page.push_str(&" --- | --- |".repeat(SUMMARY_PEERS.len()));
    for result in results {
        for column in list(&result["columns"])
            .iter()
            .filter(|column| column["key"].as_str().is_some_and(|key| SUMMARY.contains(&key)))
            .take(1)
        {
            let ours = middle(&result["peers"]["rajut"], column);
            let title = text(&column["title"]);
            let _ = write!(
                page,
                "\n| {}: {title} | {} |",
                text(&result["set"]),
                cell(ours, digits(column))
            );
            for peer in SUMMARY_PEERS {
                let theirs = middle(&result["peers"][peer], column);
                let ratio = ratio(ours, theirs);
                let _ = write!(page, " {} | {} |", cell(theirs, digits(column)), cell(ratio, 2));
            }
        }
    }
    let _ = write!(
        page,
        "\n\n{} Every figure: [bench/RESULTS.md](bench/RESULTS.md).",
        counted(goals)
    );
    page.push('\n');
    page
}

/// The text with what stands between the marks replaced; `None` without marks.
fn between_marks(text: &str, new: &str) -> Option<String> {
    let (begin, end) = README_MARKS;
    let from = text.find(begin)? + begin.len();
    let to = from + text[from..].find(end)?;
    Some(format!("{}\n{new}{}", &text[..from], &text[to..]))
}

/// Ours over theirs, where both are more than nothing.
fn ratio(ours: Option<f64>, theirs: Option<f64>) -> Option<f64> {
    let (ours, theirs) = ours.zip(theirs)?;
    (ours > 0.0 && theirs > 0.0).then(|| ours / theirs)
}

fn middle(about: &Value, column: &Value) -> Option<f64> {
    about["figures"][column["key"].as_str()?]["median"].as_f64()
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{v:.digits$}"))
}

fn digits(column: &Value) -> usize {
    column["digits"].as_u64().map_or(1, |d| d as usize)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_keeps_what_is_outside_the_marks() {
        let text = "a\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nb\n";
        let new = between_marks(text, "new\n").expect("it has marks");
        assert_eq!(new, "a\n<!-- bench:begin -->\nnew\n<!-- bench:end -->\nb\n");
        assert_eq!(
            between_marks(&new, "new\n"),
            Some(new.clone()),
            "writing twice changes nothing"
        );
        assert_eq!(between_marks("no marks", "new"), None);
    }
}
