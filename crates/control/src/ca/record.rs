//! The record of issued certificates: one JSON object per line, appended before a certificate leaves the issuer.
//!
//! Bounds: expired entries are dropped when the record is opened; at most [`KEPT_MAX`] are kept in memory, the oldest go
//! first (the file keeps them until the next start).

use std::{
    collections::VecDeque,
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use super::{KeystoreError, unix_seconds};

/// Entries in memory: a mesh of 10,000 workloads for some days.
const KEPT_MAX: usize = 50_000;

/// One issued certificate.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issued {
    /// Hexadecimal.
    pub serial: String,
    /// The SPIFFE id.
    pub principal: String,
    /// The workload that the caller named; empty where unknown.
    pub workload: String,
    /// Seconds since 1970.
    pub not_before: u64,
    /// Seconds since 1970.
    pub not_after: u64,
}

#[derive(Debug)]
pub(super) struct Record(Mutex<State>);

#[derive(Debug)]
struct State {
    file: fs::File,
    kept: VecDeque<Issued>,
    total: u64,
}

impl Record {
    pub(super) fn open(path: &Path, now: SystemTime) -> Result<Self, KeystoreError> {
        let at = |source| KeystoreError::File {
            path: path.to_owned(),
            source,
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(at(error)),
        };
        let now = unix_seconds(now);
        // A torn last line (a crash while writing) is no entry.
        let kept: VecDeque<Issued> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|entry: &Issued| entry.not_after > now)
            .collect();
        let fresh = path.with_extension("new");
        let rewrite = || {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)?;
            for entry in &kept {
                write_line(&mut file, entry)?;
            }
            fs::rename(&fresh, path)?;
            fs::OpenOptions::new().append(true).open(path)
        };
        let file = rewrite().map_err(at)?;
        Ok(Self(Mutex::new(State { file, kept, total: 0 })))
    }

    pub(super) fn add(&self, entry: Issued) -> io::Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        write_line(&mut state.file, &entry)?;
        state.total += 1;
        state.kept.push_back(entry);
        if state.kept.len() > KEPT_MAX {
            state.kept.pop_front();
        }
        Ok(())
    }

    pub(super) fn list(&self) -> Vec<Issued> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.kept.iter().cloned().collect()
    }

    pub(super) fn total(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

fn write_line(file: &mut fs::File, entry: &Issued) -> io::Result<()> {
    let mut line = serde_json::to_vec(entry).map_err(io::Error::other)?;
    line.push(b'\n');
    file.write_all(&line)
}
