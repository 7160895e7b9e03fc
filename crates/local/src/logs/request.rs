//! One request's lines, out of the logs of every sidecar, in the order in which the request passed them.
//!
//! A sidecar's log holds its access log where that goes to standard output, in whatever format the operator has chosen: a
//! line belongs to the request when it has its `x-request-id` as a word of its own. Lines are put in order by what Istio's
//! two formats (and any with `%START_TIME%`) say; the rest stand at the end as they were found. Bounds: [`LINES_MAX`] lines.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    fs,
    io::{self, BufRead},
    net::SocketAddr,
    path::Path,
};

use super::older;

/// Lines that one request may have; the rest are left out.
pub const LINES_MAX: usize = 10_000;

/// The end of the names of sidecars' logs.
const SUFFIX: &str = ".sidecar.log";

/// A line of a sidecar's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Whose sidecar: `NAME.NAMESPACE`.
    pub workload: String,
    /// When the request came to this sidecar, as the line has it (RFC 3339, UTC); a format need not have it.
    pub started: Option<String>,
    /// The line.
    pub text: String,
    duration: u64,
    end: Option<End>,
}

/// Which end of a hop has written a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Client,
    Server,
}

/// The lines of the request with the id `id`, out of all sidecars' logs in the folder.
///
/// # Errors
///
/// Where the folder or a log can't be read. That there is none is not an error.
pub fn of_request(folder: &Path, id: &str) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (workload, path) in logs(folder)? {
        for part in [older(&path), path] {
            let file = match fs::File::open(&part) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for bytes in io::BufReader::new(file).split(b'\n') {
                let bytes = bytes?;
                let text = String::from_utf8_lossy(&bytes);
                if lines.len() < LINES_MAX && has_word(&text, id) {
                    lines.push(Line::new(&workload, text.trim_end()));
                }
            }
        }
    }
    Ok(in_order(lines))
}

/// The sidecars' logs by workload.
fn logs(folder: &Path) -> io::Result<BTreeMap<String, std::path::PathBuf>> {
    let mut found = BTreeMap::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        // A log that was only just turned over may have its older half alone.
        if let Some(workload) = name.strip_suffix(".1").unwrap_or(name).strip_suffix(SUFFIX) {
            found.insert(workload.to_owned(), folder.join(format!("{workload}{SUFFIX}")));
        }
    }
    Ok(found)
}

/// Whether `id` stands in the text by itself: an id that goes on is another one.
fn has_word(text: &str, id: &str) -> bool {
    let goes_on = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !id.is_empty()
        && text
            .match_indices(id)
            .any(|(at, _)| !text[..at].ends_with(goes_on) && !text[at + id.len()..].starts_with(goes_on))
}

impl Line {
    fn new(workload: &str, text: &str) -> Self {
        Self {
            workload: workload.to_owned(),
            started: started(text).map(str::to_owned),
            duration: duration(text).unwrap_or_default(),
            end: if text.contains("outbound|") {
                Some(End::Client)
            } else if text.contains("inbound|") {
                Some(End::Server)
            } else {
                None
            },
            text: text.to_owned(),
        }
    }

    /// Whether the request passed here before it passed `other`, both having begun in the same millisecond.
    fn comes_before(&self, other: &Self) -> bool {
        match (self.end, other.end) {
            // In one sidecar it comes in before it goes on.
            (Some(End::Server), Some(End::Client)) => self.workload == other.workload,
            // It leaves a sidecar before it comes to the next, over a connection that both lines name.
            (Some(End::Client), Some(End::Server)) => {
                self.workload != other.workload && !addresses(&self.text).is_disjoint(&addresses(&other.text))
            }
            _ => false,
        }
    }
}

fn in_order(mut lines: Vec<Line>) -> Vec<Line> {
    // What began earlier is further out; of what began in one millisecond, what sent it on; of what has no such relation, what lasted
    // longer. That alone is no sign: the inner end of a hop may be done with its writing after the outer one.
    lines.sort_by_key(|line| {
        (
            line.started.is_none(),
            line.started.clone(),
            Reverse(line.duration),
        )
    });
    let mut ordered = Vec::with_capacity(lines.len());
    for alike in lines.chunk_by(|one, other| one.started == other.started) {
        let mut left: Vec<&Line> = alike.iter().collect();
        while !left.is_empty() {
            let first = left
                .iter()
                .position(|line| !left.iter().any(|other| other.comes_before(line)))
                .unwrap_or_default();
            ordered.push(left.remove(first).clone());
        }
    }
    ordered
}

/// The first time of the line, as `%START_TIME%` writes it: `2026-11-21T18:34:56.123Z`.
fn started(text: &str) -> Option<&str> {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00.000Z";
    let bytes = text.as_bytes();
    let at = bytes.windows(SHAPE.len()).position(|window| {
        window.iter().zip(SHAPE).all(|(byte, shape)| {
            if *shape == b'0' {
                byte.is_ascii_digit()
            } else {
                byte == shape
            }
        })
    })?;
    text.get(at..at + SHAPE.len())
}

/// `%DURATION%` of Istio's formats, in milliseconds.
fn duration(text: &str) -> Option<u64> {
    if text.starts_with('{') {
        let fields: serde_json::Value = serde_json::from_str(text).ok()?;
        return fields.get("duration")?.as_u64();
    }
    // [time] "request" code flags details termination "reason" received sent duration …
    text.split('"')
        .nth(4)?
        .split_ascii_whitespace()
        .nth(2)?
        .parse()
        .ok()
}

/// Addresses with ports that a line names.
fn addresses(text: &str) -> HashSet<SocketAddr> {
    text.split(|c: char| c.is_ascii_whitespace() || c == '"' || c == ',')
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests;
