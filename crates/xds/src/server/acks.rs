//! Waiting until clients have answered everything up to a generation.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

use super::StreamStatus;

/// How the wait for one client ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It has answered (accepted or refused) everything up to the generation.
    Settled(StreamStatus),
    /// It disconnected; it will get the newest state when it returns.
    Gone(StreamStatus),
    /// The time was up.
    Late(StreamStatus),
}

impl Outcome {
    /// The last that was known of the client.
    pub fn status(&self) -> &StreamStatus {
        match self {
            Self::Settled(status) | Self::Gone(status) | Self::Late(status) => status,
        }
    }
}

/// Waits for every client, at most until `bound` has passed; the outcomes stand in the order of the clients.
pub async fn wait_settled(
    clients: Vec<watch::Receiver<StreamStatus>>,
    generation: u64,
    bound: Duration,
) -> Vec<Outcome> {
    let deadline = Instant::now() + bound;
    let mut outcomes = Vec::with_capacity(clients.len());
    // One after the other is enough: all are waited for, and the deadline is common.
    for mut client in clients {
        let waited =
            tokio::time::timeout_at(deadline, client.wait_for(|status| status.settled >= generation))
                .await
                .map(|settled| settled.map(|status| status.clone()));
        outcomes.push(match waited {
            Ok(Ok(status)) => Outcome::Settled(status),
            Ok(Err(_)) => Outcome::Gone(client.borrow().clone()),
            Err(_) => Outcome::Late(client.borrow().clone()),
        });
    }
    outcomes
}
