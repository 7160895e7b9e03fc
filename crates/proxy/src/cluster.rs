//! Steps 7 of walk one: a cluster's hosts, limits, ejection, balancing.

/// A running cluster, shared by all workers.
#[derive(Debug)]
pub struct Cluster {}
