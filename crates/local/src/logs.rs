//! Logs of the mesh's processes: bounded files in the state directory.
//!
//! Each file holds at most [`LOG_SIZE_MAX`] bytes; when it is full it becomes `<name>.log.1`, replacing the one before.
//! So a process never has more than twice that. A line is written as it comes, with no stamp of ours.

use std::{
    fs, io,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

pub mod request;

/// Of one file, in bytes.
pub const LOG_SIZE_MAX: u64 = 8 << 20;

/// A file that turns over.
#[derive(Debug)]
pub struct RotatingLog {
    path: PathBuf,
    file: fs::File,
    written: u64,
    size_max: u64,
}

impl RotatingLog {
    /// Opens or goes on with the file.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_size(path, LOG_SIZE_MAX)
    }

    fn with_size(path: &Path, size_max: u64) -> io::Result<Self> {
        let file = fs::OpenOptions::new().create(true).append(true).open(path)?;
        let written = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            written,
            size_max,
        })
    }

    /// Appends; turns the file over when it is full.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.written > 0 && self.written + length(bytes) > self.size_max {
            fs::rename(&self.path, older(&self.path))?;
            self.file = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.path)?;
            self.written = 0;
        }
        self.file.write_all(bytes)?;
        self.written += length(bytes);
        Ok(())
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// The file that holds what came before.
pub fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// The last `lines` lines of a log, and where it ends (for following it).
pub fn tail(path: &Path, lines: usize) -> io::Result<(String, u64)> {
    let mut text = String::new();
    let mut end = 0;
    for part in [older(path), path.to_owned()] {
        match fs::read(&part) {
            Ok(bytes) => {
                end = length(&bytes);
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => end = 0,
            Err(error) => return Err(error),
        }
    }
    let keep: Vec<&str> = text.lines().collect();
    let mut kept = keep[keep.len().saturating_sub(lines)..].join("\n");
    if !kept.is_empty() {
        kept.push('\n');
    }
    Ok((kept, end))
}

/// What was appended after `position`; starts again when the file was turned over.
pub fn follow(path: &Path, position: u64) -> io::Result<(Vec<u8>, u64)> {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error),
    };
    let from = if file.metadata()?.len() < position {
        0
    } else {
        position
    };
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let end = from + length(&bytes);
    Ok((bytes, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_turns_over_and_reading_goes_across_the_turn() {
        let dir = std::env::temp_dir().join(format!("rajut-logs-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a.log");
        let mut log = RotatingLog::with_size(&path, 20).unwrap();
        for number in 0..5 {
            log.append(format!("line {number}\n").as_bytes()).unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() <= 20);
        let (text, end) = tail(&path, 3).unwrap();
        assert_eq!(text, "line 2\nline 3\nline 4\n");
        log.append(b"x\n").unwrap();
        assert_eq!(follow(&path, end).unwrap().0, b"x\n");
        fs::remove_dir_all(dir).unwrap();
    }
}
