//! Readiness: a process is ready when every named gate is open; a gate may close again.
//!
//! Bounds: gates are made at start-up by the program's own code, a handful per process.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// All gates of a process; cloned freely.
#[derive(Debug, Clone)]
pub struct Readiness {
    gates: Arc<Mutex<Vec<(&'static str, bool)>>>,
    changed: watch::Sender<()>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            gates: Arc::default(),
            changed: watch::Sender::new(()),
        }
    }
}

/// One condition.
#[derive(Debug, Clone)]
pub struct Gate {
    index: usize,
    readiness: Readiness,
}

impl Readiness {
    /// Adds a closed gate.
    pub fn gate(&self, name: &'static str) -> Gate {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.push((name, false));
        Gate {
            index: gates.len() - 1,
            readiness: self.clone(),
        }
    }

    /// Whether every gate is open.
    pub fn is_ready(&self) -> bool {
        self.pending().is_empty()
    }

    /// The names of the closed gates.
    pub fn pending(&self) -> Vec<&'static str> {
        let gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates
            .iter()
            .filter(|(_, open)| !open)
            .map(|(name, _)| *name)
            .collect()
    }

    /// Waits until every gate is open.
    pub async fn ready(&self) {
        let mut changed = self.changed.subscribe();
        // The sender lives in `self`, so the wait can't fail.
        let _ = changed.wait_for(|()| self.is_ready()).await;
    }
}

impl Gate {
    /// The condition holds.
    pub fn open(&self) {
        self.set(true);
    }

    /// The condition does not hold any more.
    pub fn close(&self) {
        self.set(false);
    }

    fn set(&self, open: bool) {
        if let Some((_, state)) = self
            .readiness
            .gates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(self.index)
        {
            *state = open;
        }
        self.readiness.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_waits_for_the_last_gate() {
        let readiness = Readiness::default();
        let (first, second) = (readiness.gate("first"), readiness.gate("second"));
        first.open();
        assert_eq!(readiness.pending(), ["second"]);
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        second.open();
        waiting.await.expect("the task ends");
        first.close();
        assert!(!readiness.is_ready());
    }
}
