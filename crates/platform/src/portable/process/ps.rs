//! Asking `ps`, in the words that POSIX, macOS and the BSDs share.
//!
//! Bounds: one short-lived process per question, whatever the number of processes asked about.

use std::io;
use std::process::{Command, Stdio};

use super::ProcessId;

/// What `ps` says about one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) id: ProcessId,
    /// It has ended and waits to be collected.
    zombie: bool,
}

/// Those of the pids that exist.
pub(super) fn look(pids: &[u32]) -> io::Result<Vec<Seen>> {
    if pids.is_empty() {
        return Ok(Vec::new());
    }
    let list = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    // It fails when none of them exists.
    let text = run(&["-o", "pid=,stat=,lstart=", "-p", &list])?;
    Ok(text.lines().filter_map(parse).collect())
}

/// Those of the processes that still run; none when `ps` can't be asked.
pub(crate) fn alive(processes: &[ProcessId]) -> Vec<ProcessId> {
    let pids: Vec<u32> = processes.iter().map(|process| process.pid()).collect();
    let seen = look(&pids).unwrap_or_default();
    let runs = |process: &ProcessId| seen.iter().any(|seen| seen.id.is_same(*process) && !seen.zombie);
    processes.iter().copied().filter(runs).collect()
}

/// Processes that were started with `NAME=value` in their environment, or whose ancestor was: how `down` finds what
/// a killed supervisor left behind. `ps` shows the environment of one's own processes; macOS hides that of
/// programs which belong to the system.
pub fn processes_with_variable(name: &str, value: &str) -> io::Result<Vec<ProcessId>> {
    let words: &[&str] = if cfg!(target_os = "macos") {
        &["-axww", "-E", "-o", "pid=,stat=,lstart=,command="]
    } else {
        &["axewwo", "pid=,stat=,lstart=,command="]
    };
    let wanted = format!("{name}={value}");
    let me = std::process::id();
    let text = run(words)?;
    Ok(text
        .lines()
        .filter(|line| line.split_ascii_whitespace().any(|word| word == wanted))
        .filter_map(parse)
        .filter(|seen| seen.id.pid() != me && !seen.zombie)
        .map(|seen| seen.id)
        .collect())
}

fn run(words: &[&str]) -> io::Result<String> {
    let output = Command::new("ps")
        .args(words)
        // English names of months, and dates that do not jump twice a year.
        .env("LC_ALL", "C")
        .env("TZ", "UTC0")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A line `123 Ss Sat Nov 21 21:06:24 2026 …`.
pub(super) fn parse(line: &str) -> Option<Seen> {
    let mut words = line.split_ascii_whitespace();
    let pid = words.next()?.parse().ok()?;
    let zombie = words.next()?.starts_with('Z');
    let (_weekday, month, day) = (words.next()?, words.next()?, words.next()?);
    let (time, year) = (words.next()?, words.next()?);
    let start = seconds(year.parse().ok()?, month, day.parse().ok()?, time)?;
    Some(Seen {
        id: ProcessId::new(pid, start),
        zombie,
    })
}

/// Seconds since 1970 of a date in UTC, in the proleptic Gregorian calendar.
fn seconds(year: u64, month: &str, day: u64, time: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    const DAYS_BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let month = MONTHS.iter().position(|name| *name == month)?;
    if !(1970..10_000).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    let leap_days = |before: u64| before / 4 - before / 100 + before / 400;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
        + DAYS_BEFORE.get(month)?
        + u64::from(leap && month > 1)
        + (day - 1);
    let mut parts = time.split(':');
    let mut part = |limit: u64| parts.next()?.parse().ok().filter(|value: &u64| *value < limit);
    let (hours, minutes, seconds) = (part(24)?, part(60)?, part(61)?);
    Some(days * 86_400 + hours * 3_600 + minutes * 60 + seconds)
}
