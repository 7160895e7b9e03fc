//! [`crate::process`] through `/proc`, pidfds and namespaces.

mod child;
mod id;
mod isolation;
mod survey;

pub use child::{Child, spawn};
pub use id::ProcessId;
pub(crate) use isolation::isolation_of;
pub(crate) use survey::alive;
pub use survey::{become_subreaper, processes_in_namespace, processes_with_variable, reap_adopted, usage};

#[cfg(test)]
mod tests;
