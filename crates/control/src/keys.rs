//! Key sets of token issuers: fetched here, once for the whole mesh, and told to proxies in place of their URLs. No data plane ever asks
//! an issuer.
//!
//! ```text
//!  snapshot names a URL ─► fetch ──ok──► key set into the next snapshot ─► fetch again after REFRESH, or as soon as the answer says
//!                            └──no──► the last good set stays ─► fetch again after 1 s, 2 s, … RETRY_MAX
//! ```
//!
//! **Where an issuer can't be reached** the last good keys stay in force, also over a restart ([`FILE`]); one that never answered has no keys,
//! and every token of it is refused. Requests without a token are not concerned. Either is said once in the log, and again when it is over.
//!
//! Bounds: [`SOURCES_MAX`] URLs, [`AT_ONCE`] fetches at one time, answers of [`ANSWER_MAX`]. Redirections are not followed: an issuer's
//! keys come from where the operator says. `https` is verified with the machine's own roots.
//!
//! Does not: go through the mesh (a URL of a service of the mesh is not reached from here), ask with credentials.

mod fetch;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use rajut_config::{Snapshot, model::KeySource, snapshot::KeySets};
use rajut_registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::Instant};

use self::fetch::{Fetched, Fetcher};

/// How old keys become before they are fetched again. Source: Istio `PILOT_JWT_PUB_KEY_REFRESH_INTERVAL`.
const REFRESH: Duration = Duration::from_mins(20);
/// The most often that an answer's `cache-control: max-age` is heeded.
const REFRESH_MIN: Duration = Duration::from_secs(5);
/// The longest wait after failures.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// URLs that are fetched from; those of further ones have no keys.
const SOURCES_MAX: usize = 256;
/// Fetches at one time.
const AT_ONCE: usize = 8;
/// An answer's length.
const ANSWER_MAX: usize = rajut_config::key_set::KEY_SET_BYTES_MAX;
/// What is remembered over a restart, within the state folder.
const FILE: &str = "key-sets.json";

/// One place that keys come from.
#[derive(Debug)]
struct Entry {
    timeout: Duration,
    due: Instant,
    failures: u32,
    fetching: bool,
}

/// Keeps the key sets of the registry's snapshots fetched, until it is aborted.
pub(crate) async fn keep(registry: Registry, state_dir: PathBuf) {
    let mut keeper = Keeper {
        path: state_dir.join(FILE),
        known: registry.snapshot().key_sets.as_ref().clone(),
        entries: BTreeMap::new(),
        fetcher: Fetcher::default(),
        registry,
    };
    let mut snapshots = keeper.registry.snapshots();
    let mut running = JoinSet::new();
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        keeper.follow(&snapshot);
        let next = keeper.start(&mut running);
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            Some(done) = running.join_next() => match done {
                Ok((source, fetched)) => keeper.take(source, fetched).await,
                Err(error) => tracing::error!(%error, "fetching keys failed"),
            },
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

/// What was known when the control plane stopped, for its first snapshot.
pub(crate) fn remembered(state_dir: &Path) -> KeySets {
    let path = state_dir.join(FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return KeySets::new(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "remembered keys can't be read");
            return KeySets::new();
        }
    };
    let entries: Vec<Remembered> = serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "remembered keys can't be read");
        Vec::new()
    });
    let known = entries.into_iter().filter_map(|entry| {
        // Whoever wrote it, only what is of use is told on.
        let keys = rajut_config::key_set::usable(&entry.keys).ok()?;
        let source = if entry.discovery {
            KeySource::Discovery(entry.url.into())
        } else {
            KeySource::Url(entry.url.into())
        };
        Some((source, keys))
    });
    known.collect()
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    url: String,
    discovery: bool,
    keys: String,
}

struct Keeper {
    registry: Registry,
    path: PathBuf,
    /// The last good sets.
    known: KeySets,
    entries: BTreeMap<KeySource, Entry>,
    fetcher: Fetcher,
}

impl Keeper {
    /// Takes up what the snapshot names, forgets the rest.
    fn follow(&mut self, snapshot: &Snapshot) {
        let mut wanted: BTreeMap<&KeySource, Duration> = BTreeMap::new();
        for rule in snapshot.request_authentications.iter().flat_map(|it| &it.rules) {
            if !matches!(rule.keys, KeySource::Inline(_)) {
                let timeout = wanted.entry(&rule.keys).or_insert(rule.timeout);
                *timeout = rule.timeout.max(*timeout);
            }
        }
        self.entries.retain(|source, _| wanted.contains_key(source));
        for (source, timeout) in wanted {
            if let Some(entry) = self.entries.get_mut(source) {
                entry.timeout = timeout;
            } else if self.entries.len() < SOURCES_MAX {
                let entry = Entry {
                    timeout,
                    due: Instant::now(),
                    failures: 0,
                    fetching: false,
                };
                self.entries.insert(source.clone(), entry);
            } else {
                tracing::warn!(url = url(source), "too many issuers: its tokens are refused");
            }
        }
        let before = self.known.len();
        self.known.retain(|source, _| self.entries.contains_key(source));
        if self.known.len() != before {
            self.registry.set_key_sets(self.known.clone());
        }
    }

    /// Starts what is due; returns when something is next.
    fn start(&mut self, running: &mut JoinSet<(KeySource, Fetched)>) -> Instant {
        let now = Instant::now();
        let mut next = now + REFRESH;
        for (source, entry) in &mut self.entries {
            if entry.fetching {
                continue;
            }
            if entry.due > now || running.len() >= AT_ONCE {
                next = next.min(entry.due.max(now + Duration::from_millis(50)));
                continue;
            }
            entry.fetching = true;
            let (fetcher, source, timeout) = (self.fetcher.clone(), source.clone(), entry.timeout);
            running.spawn(async move {
                let fetched = fetcher.key_set(&source, timeout).await;
                (source, fetched)
            });
        }
        next
    }

    async fn take(&mut self, source: KeySource, fetched: Fetched) {
        let Some(entry) = self.entries.get_mut(&source) else {
            return;
        };
        entry.fetching = false;
        match fetched {
            Ok((keys, max_age)) => {
                if entry.failures > 0 {
                    tracing::info!(url = url(&source), "keys of tokens are fetched again");
                }
                entry.failures = 0;
                let age = max_age.map_or(REFRESH, |age| age.clamp(REFRESH_MIN, REFRESH));
                entry.due = Instant::now() + age;
                if self.known.get(&source) != Some(&keys) {
                    self.known.insert(source, keys);
                    // First remembered, so that what was told once is not lost by a restart.
                    self.remember().await;
                    self.registry.set_key_sets(self.known.clone());
                }
            }
            Err(error) => {
                if entry.failures == 0 {
                    let effect = if self.known.contains_key(&source) {
                        "the last good ones stay"
                    } else {
                        "there are none: tokens of this issuer are refused"
                    };
                    tracing::warn!(url = url(&source), %error, "keys of tokens can't be fetched, {effect}");
                }
                let wait = Duration::from_secs(1 << entry.failures.min(5));
                entry.due = Instant::now() + wait.min(RETRY_MAX);
                entry.failures = entry.failures.saturating_add(1);
            }
        }
    }

    /// Keys are public; the file is small.
    async fn remember(&self) {
        let entries = self.known.iter().map(|(source, keys)| Remembered {
            url: url(source).to_owned(),
            discovery: matches!(source, KeySource::Discovery(_)),
            keys: keys.to_string(),
        });
        let entries: Vec<_> = entries.collect();
        let (path, fresh) = (self.path.clone(), self.path.with_extension("json.new"));
        let written = tokio::task::spawn_blocking(move || {
            let text = serde_json::to_vec(&entries).map_err(std::io::Error::other)?;
            std::fs::write(&fresh, text)?;
            std::fs::rename(&fresh, &path)
        });
        let written = written.await.map_err(std::io::Error::other).flatten();
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "keys are not remembered");
        }
    }
}

fn url(source: &KeySource) -> &str {
    match source {
        KeySource::Url(url) | KeySource::Discovery(url) => url,
        KeySource::Inline(_) => "",
    }
}

#[cfg(test)]
mod tests;
