//! What the supervisor of a local mesh is to do: follow the configuration in force, and start workloads anew on request.
//!
//! The control plane starts no processes; the supervisor asks (`GET /v1/supervision`, see `admin/route.rs`) and is
//! answered when there is something to do. Bounds: [`RESTARTS_MAX`] orders are kept, the newest; they end with the
//! process.

use std::collections::VecDeque;

use rajut_types::Text;
use tokio::sync::watch;

/// Orders that are kept for a supervisor that asks late.
pub const RESTARTS_MAX: usize = 10_000;

/// One workload that is to be started anew.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Restart {
    /// Rises by one with every order of a process.
    pub number: u64,
    /// Its namespace.
    pub namespace: Text,
    /// Its name.
    pub name: Text,
}

/// All orders so far. Cloned freely.
#[derive(Debug, Clone, Default)]
pub struct Orders(watch::Sender<VecDeque<Restart>>);

impl Orders {
    /// Adds an order and returns its number.
    pub fn restart(&self, namespace: &str, name: &str) -> u64 {
        let mut number = 0;
        self.0.send_modify(|orders| {
            number = orders.back().map_or(0, |last| last.number) + 1;
            orders.push_back(Restart {
                number,
                namespace: namespace.into(),
                name: name.into(),
            });
            if orders.len() > RESTARTS_MAX {
                orders.pop_front();
            }
        });
        number
    }

    /// Those above `seen`.
    pub fn after(&self, seen: u64) -> Vec<Restart> {
        let orders = self.0.borrow();
        orders
            .iter()
            .filter(|order| order.number > seen)
            .cloned()
            .collect()
    }

    /// Waits for one above `seen`.
    pub async fn arrived(&self, seen: u64) {
        let newer = |orders: &VecDeque<Restart>| orders.back().is_some_and(|last| last.number > seen);
        // The sender lives in `self`, so the wait can't fail.
        let _ = self.0.subscribe().wait_for(newer).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_is_told_to_whoever_has_not_seen_it() {
        let orders = Orders::default();
        assert_eq!(orders.restart("a", "b"), 1);
        assert_eq!(orders.restart("a", "c"), 2);
        orders.arrived(1).await;
        assert_eq!(orders.after(1).len(), 1);
        assert_eq!(&*orders.after(1)[0].name, "c");
        assert!(orders.after(2).is_empty());
        let late = tokio::time::timeout(std::time::Duration::from_millis(5), orders.arrived(2));
        assert!(late.await.is_err());
    }
}
