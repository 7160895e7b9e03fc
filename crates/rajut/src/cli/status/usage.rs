//! What a sidecar uses, and what that is of its application: CPU time and memory of both from `/proc`, requests from the
//! sidecar's counters, all since they were started. Linux only; what can't be read (another user's process) is left out.

use std::{fs, path::Path};

use serde_json::{Value, json};

/// Processes of one application that are looked at; a tree that is larger is cut off.
const PROCESSES_MAX: usize = 256;
/// Ticks of `/proc/<pid>/stat` per second: `USER_HZ`, which is 100 on every architecture that Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// CPU time and memory of a process and its descendants.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    /// User and system, seconds; of processes that are gone only what their parents have counted.
    pub(crate) cpu_seconds: f64,
    /// Proportional set size, bytes (resident where the system does not say).
    pub(crate) memory_bytes: u64,
    /// Since the first of them was started, seconds.
    pub(crate) seconds: f64,
}

/// Reads a process; `None` where there is none that can be read.
pub(crate) fn of_process(pid: u32) -> Option<Usage> {
    if pid == 0 {
        return None;
    }
    let mut sum: Option<Usage> = None;
    let mut pids = vec![pid];
    let mut next = 0;
    while let Some(pid) = pids.get(next).copied() {
        next += 1;
        let folder = format!("/proc/{pid}");
        let folder = Path::new(&folder);
        let Some((cpu, age)) = fs::read_to_string(folder.join("stat"))
            .ok()
            .and_then(|stat| times(&stat, uptime()?))
        else {
            continue;
        };
        // In its first hundredth of a second a process has no age yet, or one just below nothing.
        let sum = sum.get_or_insert_default();
        sum.cpu_seconds += cpu;
        sum.seconds = sum.seconds.max(age);
        sum.memory_bytes += memory(folder);
        let room = PROCESSES_MAX.saturating_sub(pids.len());
        pids.extend(children(folder).into_iter().take(room));
    }
    sum
}

/// CPU seconds, with those of children that have ended, and the age (fields 14 to 17 and 22 of `/proc/<pid>/stat`).
fn times(stat: &str, uptime: f64) -> Option<(f64, f64)> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let cpu = ticks(14)? + ticks(15)? + ticks(16)? + ticks(17)?;
    Some((cpu / TICKS_PER_SECOND, uptime - ticks(22)? / TICKS_PER_SECOND))
}

/// Seconds since boot.
fn uptime() -> Option<f64> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

fn memory(folder: &Path) -> u64 {
    let kib = |file: &str, key: &str| -> Option<u64> {
        let text = fs::read_to_string(folder.join(file)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let kib = kib("smaps_rollup", "Pss:").or_else(|| kib("status", "VmRSS:"));
    kib.unwrap_or_default() * 1024
}

fn children(folder: &Path) -> Vec<u32> {
    let threads = fs::read_dir(folder.join("task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

/// The two beside each other, as `rajut status -o json` says it.
pub(crate) fn shares(application: Option<Usage>, sidecar: Option<Usage>, requests: Option<u64>) -> Value {
    let one = |usage: Option<Usage>| {
        usage.map(|usage| json!({ "cpuSeconds": usage.cpu_seconds, "memoryBytes": usage.memory_bytes, "seconds": usage.seconds }))
    };
    let both = sidecar.zip(application);
    let cpu = both.and_then(|(sidecar, application)| over(sidecar.cpu_seconds, application.cpu_seconds));
    let memory = both.and_then(|(sidecar, application)| {
        over(bytes(sidecar.memory_bytes), bytes(application.memory_bytes))
    });
    let thousands = requests.map(|requests| bytes(requests) / 1000.0);
    let rate = sidecar
        .zip(thousands)
        .and_then(|(sidecar, thousands)| over(thousands, sidecar.seconds));
    json!({
        "application": one(application),
        "sidecar": one(sidecar),
        "requests": requests,
        "sidecarCpuShare": cpu,
        "sidecarMemoryShare": memory,
        "vcpuPer1000RequestsPerSecond": sidecar.zip(thousands).and_then(|(sidecar, thousands)| over(sidecar.cpu_seconds, thousands)),
        "gibPer1000RequestsPerSecond": sidecar.zip(rate).and_then(|(sidecar, rate)| over(bytes(sidecar.memory_bytes) / GIB, rate)),
    })
}

fn over(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
fn bytes(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test waits for a process of its own")]
    fn a_process_is_read_with_its_children() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 20 & read line; kill $!"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("sh starts");
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let folder = format!("/proc/{}", child.id());
        while children(Path::new(&folder)).is_empty() {
            assert!(std::time::Instant::now() < until, "sh starts its child");
            std::thread::yield_now();
        }
        let usage = of_process(child.id()).expect("it can be read");
        drop(child.stdin.take());
        child.wait().expect("it ends");
        assert!(usage.memory_bytes > 100 * 1024, "{usage:?}");
        assert!(usage.seconds >= 0.0 && usage.seconds < 60.0, "{usage:?}");
        assert_eq!(of_process(0), None);
    }

    #[test]
    fn times_are_read_behind_a_name_with_brackets() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 20 30 20 0 1 0 1000 1 1";
        assert_eq!(times(stat, 25.0), Some((2.5, 15.0)));
        assert_eq!(times("7 (a", 25.0), None);
    }

    #[test]
    fn shares_are_of_the_application_and_per_thousand_requests() {
        let usage = |cpu_seconds, memory_bytes| Usage {
            cpu_seconds,
            memory_bytes,
            seconds: 10.0,
        };
        let shares = shares(Some(usage(5.0, 1 << 30)), Some(usage(0.5, 1 << 28)), Some(20_000));
        assert_eq!(shares["sidecarCpuShare"], json!(0.1));
        assert_eq!(shares["sidecarMemoryShare"], json!(0.25));
        assert_eq!(shares["vcpuPer1000RequestsPerSecond"], json!(0.025));
        assert_eq!(
            shares["gibPer1000RequestsPerSecond"],
            json!(0.125),
            "2,000 requests/s"
        );
        let none = super::shares(None, Some(usage(1.0, 1)), Some(0));
        assert_eq!(none["sidecarCpuShare"], Value::Null);
        assert_eq!(none["vcpuPer1000RequestsPerSecond"], Value::Null);
    }
}
