//! Connection pools of one worker.

/// The pools of one worker, by cluster.
#[derive(Debug, Default)]
pub struct Pools {}

impl Pools {
    /// Drops what does not serve `config` any more.
    pub fn retain(&self, _: &crate::epoch::Config) {}
}
