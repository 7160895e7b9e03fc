//! Keeping one process running: start, wait for its end, pause, start again, until its turn to stop has come.
//!
//! ```text
//!   start ─► running ─┬─ it ended ───────────┬─► pause (0.2 s … 10 s, doubled each time) ─► start
//!                     ├─ its watcher says so ┘        (back to the shortest after 10 s of running)
//!                     └─ the phase is reached ─► stop ─► done
//! ```

use std::time::Duration;

use rajut_runtime::Backoff;
use tokio::{sync::watch, time::Instant};

use super::{Context, Phase, reached};
use crate::{
    process::{Process, Spawn},
    state::ProcessRecord,
};

const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// After running so long a process counts as healthy again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// What happened to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// It runs.
    Started(u32),
    /// It ended, or did not start: how.
    Ended(String),
    /// It was stopped on purpose.
    Stopped,
}

impl Change {
    /// Writes it into a record.
    pub(super) fn apply(&self, record: &mut ProcessRecord) {
        match self {
            Self::Started(pid) => record.pid = *pid,
            Self::Ended(how) => {
                record.pid = 0;
                record.restarts += 1;
                record.last_exit.clone_from(how);
            }
            Self::Stopped => record.pid = 0,
        }
    }
}

/// Keeps the process of `spawn` running until that phase is reached. `beside` runs as long as the process does; when it ends, its
/// text is why the process is started anew.
pub(super) async fn keep<F>(
    context: &Context,
    (phases, phase): (&watch::Receiver<Phase>, Phase),
    grace: Duration,
    spawn: impl Fn() -> Spawn,
    beside: impl Fn() -> F,
    on: impl Fn(Change),
) where
    F: Future<Output = String>,
{
    let mut backoff = Backoff::seeded(PAUSE_FIRST, PAUSE_MAX);
    loop {
        let started = Instant::now();
        match Process::start(spawn(), &context.options.state) {
            Ok(mut process) => {
                on(Change::Started(process.pid()));
                let end = tokio::select! {
                    how = process.wait() => how,
                    why = beside() => {
                        process.stop(context.grace(grace)).await;
                        why
                    }
                    () = reached(phases, phase) => {
                        process.stop(context.grace(grace)).await;
                        on(Change::Stopped);
                        return;
                    }
                };
                on(Change::Ended(end));
            }
            Err(error) => on(Change::Ended(crate::process::causes(&error))),
        }
        if started.elapsed() > HEALTHY_AFTER {
            backoff.reset();
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.pause()) => {}
            () = reached(phases, phase) => {
                on(Change::Stopped);
                return;
            }
        }
    }
}
