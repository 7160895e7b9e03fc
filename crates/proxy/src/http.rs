//! Steps 4 to 12 of walk one for HTTP.

pub mod manager;
pub mod serve;
