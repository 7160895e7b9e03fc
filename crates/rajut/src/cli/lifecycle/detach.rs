//! `up --detach`: the front half shows what the background half reports, and returns when everything is ready.
//!
//! The background half writes its lines to a file of the state directory, ended by one of the marks below; a file, not
//! a pipe, so that it never waits for, or dies of, a front half that has gone.
#![expect(clippy::disallowed_methods, reason = "a command has its thread for itself")]

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::Context;
use rajut_local::{
    logs::follow,
    state::{StateError, make_dir},
};
use rajut_platform::{host, process::spawn_daemon};

use super::{Place, UpArgs, progress::Progress};
use crate::{cli::answer, output};

/// Everything is ready.
const READY: &str = "\u{4}ready\n";
/// What follows, up to the last word, is an error.
const ERROR: &str = "\u{5}";
/// Something is not ready in time, or nothing could be started.
const FAILED: &str = "\u{4}failed\n";
const POLL: Duration = Duration::from_millis(15);

/// The background half's end of the reports.
#[derive(Debug)]
pub(super) struct Reports {
    file: fs::File,
}

fn report_file(place: &Place) -> PathBuf {
    place.state.path().join("up.txt")
}

impl Reports {
    pub(super) fn open(place: &Place) -> anyhow::Result<Self> {
        let file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(report_file(place))?;
        Ok(Self { file })
    }

    pub(super) fn text(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(std::io::Write::write_all(&mut self.file, text.as_bytes())?)
    }

    /// Why there is no mesh.
    pub(super) fn error(&mut self, text: &str) -> anyhow::Result<()> {
        self.text(&format!("{ERROR}{text}"))
    }

    /// The last word.
    pub(super) fn end(&mut self, ready: bool) -> anyhow::Result<()> {
        self.text(if ready { READY } else { FAILED })
    }
}

/// Starts the background half and shows its reports.
pub(super) fn front(place: &Place, args: &UpArgs) -> anyhow::Result<ExitCode> {
    if place.state.is_locked() {
        return Err(StateError::Running {
            path: place.state.path().to_owned(),
        }
        .into());
    }
    place.state.create()?;
    make_dir(&place.state.path().join("logs"))?;
    let reports = report_file(place);
    fs::write(&reports, "")?;
    let mut command = Command::new(host::executable().context("can't find this program")?);
    command
        .args(std::env::args_os().skip(1))
        .arg("--background")
        .env("RAJUT_STATE_DIR", place.state.path());
    // Standard input does not follow it there.
    super::start::keep_input(place, args)?;
    fs::write(place.state.log_file("supervisor"), "")?;
    let mut child = spawn_daemon(command, &place.state.log_file("supervisor"))
        .context("can't start in the background")?;
    let mut progress = Progress::new(output::is_terminal());
    let mut position = 0;
    let mut pending = String::new();
    loop {
        let ended = child.try_wait()?.is_some();
        let (bytes, end) = follow(&reports, position)?;
        position = end;
        pending.push_str(&String::from_utf8_lossy(&bytes));
        for (mark, ready) in [(READY, true), (FAILED, false)] {
            if let Some(text) = pending.strip_suffix(mark) {
                progress.clear();
                let (text, error) = text.split_once(ERROR).unwrap_or((text, ""));
                output::print(text)?;
                if !error.is_empty() {
                    output::warn(error.trim_end());
                }
                // Nobody reads it any more.
                let _ = fs::remove_file(&reports);
                return Ok(answer(ready));
            }
        }
        if ended {
            progress.clear();
            output::print(&pending)?;
            let (log, _) = rajut_local::logs::tail(&place.state.log_file("supervisor"), 20)?;
            anyhow::bail!("it ended before everything was ready:\n{log}");
        }
        if let Ok(Some(mesh)) = place.state.read_mesh() {
            progress.show(&mesh);
        }
        std::thread::sleep(POLL);
    }
}
