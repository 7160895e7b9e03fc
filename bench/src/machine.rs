//! What the figures were measured on, in words.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// The machine, the commit and the time.
pub(crate) fn describe(root: &Path) -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        cpuinfo
            .lines()
            .find(|l| l.starts_with(name))
            .and_then(|l| l.split_once(':'))
            .map(|(_, v)| v.trim().to_owned())
    };
    let cores = cpuinfo.lines().filter(|l| l.starts_with("processor")).count();
    let virtual_machine = field("flags").is_some_and(|f| f.split(' ').any(|flag| flag == "hypervisor"));
    let memory_kib = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        text.lines()
            .next()?
            .split_whitespace()
            .nth(1)?
            .parse::<f64>()
            .ok()
    });
    json!({
        "processor": field("model name"),
        "cores": cores,
        "virtual": virtual_machine,
        "memory_gib": memory_kib.map(|kib| (kib / 1024.0 / 1024.0).round()),
        "kernel": said("uname", &["-sr"], root),
        "load_before": fs::read_to_string("/proc/loadavg").ok().map(|t| t.split(' ').next().unwrap_or("").to_owned()),
        "commit": said("git", &["describe", "--always", "--dirty"], root),
        "time": said("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"], root),
    })
}

/// [`describe`] as one line.
pub(crate) fn line(machine: &Value) -> String {
    let text = |key: &str| match &machine[key] {
        Value::String(text) => text.clone(),
        Value::Null => "unknown".to_owned(),
        other => other.to_string(),
    };
    let virtual_machine = if machine["virtual"] == json!(true) {
        ", virtual"
    } else {
        ""
    };
    format!(
        "{} × {}{virtual_machine}, {} GiB, {}, load {} before, commit {}, {}",
        text("cores"),
        text("processor"),
        text("memory_gib"),
        text("kernel"),
        text("load_before"),
        text("commit"),
        text("time")
    )
}

/// What a command prints, or nothing.
pub(crate) fn said(program: &str, words: &[&str], dir: &Path) -> Option<String> {
    let output = Command::new(program).args(words).current_dir(dir).output().ok()?;
    let text = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    let text = String::from_utf8(text).ok()?;
    Some(text.lines().next()?.trim().to_owned()).filter(|line| !line.is_empty())
}
