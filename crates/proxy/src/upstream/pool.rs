//! Connection pools of one worker.

/// The pools of one worker, by cluster.
#[derive(Debug, Default)]
pub struct Pools {}
