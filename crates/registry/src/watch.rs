//! Reload when files change: 100 ms of quiet after a change, at most 1 s after the first of a series.
//!
//! The folder that holds a file is watched rather than the file: editors and mounted `ConfigMap`s replace files by renaming.
//! Where watching fails (no inotify left), it says so once, and the files stay as they were read.

use std::{path::PathBuf, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{sync::mpsc, time::Instant};

use crate::Registry;

/// No change for so long, then it is read.
pub const QUIET: Duration = Duration::from_millis(100);
/// Read after this in any case.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Watches the registry's paths until it is dropped elsewhere (the task holds one clone of it).
pub fn spawn(registry: Registry, paths: &[PathBuf]) {
    if paths.is_empty() {
        return;
    }
    // One waiting note is enough: it means "something changed".
    let (changed, changes) = mpsc::channel(1);
    let watcher = match start(paths, changed) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "files are not watched: restart to read changes");
            return;
        }
    };
    tokio::spawn(follow(registry, watcher, changes));
}

fn start(paths: &[PathBuf], changed: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let concerns = event.as_ref().map_or(true, |event| !event.kind.is_access());
        if concerns {
            // Full means that a note waits already.
            let _ = changed.try_send(());
        }
    })?;
    for path in paths {
        if path.is_dir() {
            watcher.watch(path, RecursiveMode::Recursive)?;
        } else {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            watcher.watch(folder.unwrap_or(".".as_ref()), RecursiveMode::NonRecursive)?;
        }
    }
    Ok(watcher)
}

async fn follow(registry: Registry, watcher: RecommendedWatcher, mut changes: mpsc::Receiver<()>) {
    while changes.recv().await.is_some() {
        let latest = Instant::now() + PATIENCE;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            match tokio::time::timeout_at(quiet, changes.recv()).await {
                Ok(Some(())) => {}
                Ok(None) => return,
                Err(_) => break,
            }
        }
        let registry = registry.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || registry.reload()).await {
            tracing::error!(%error, "reading the configuration failed");
        }
    }
    drop(watcher);
}
