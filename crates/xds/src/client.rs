//! The asking end: the machine ([`ClientMachine`]) and the task that keeps it connected ([`spawn`]).

mod machine;
mod run;

pub use machine::{ClientMachine, Refusal, Ticket, Update};
pub use run::{ClientOptions, Event, Handle, spawn};
