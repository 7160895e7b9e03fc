//! Steps 8 and 9 of walk one: pooled connections and the exchange on them.

pub mod connect;
pub(crate) mod exchange;
pub mod namespace;
pub mod pool;
