//! All scenarios, in the order in which they run. Those that look at one shared mesh stand together.

mod clinic;
mod folders;
mod input;
mod lifecycle;
mod limits;
mod protocols;
mod resilience;
mod security;
mod traffic;
mod wiretap;
mod workers;

use crate::runner::Scenario;

pub fn all() -> Vec<Scenario> {
    [
        lifecycle::SCENARIOS,
        clinic::SCENARIOS,
        security::SCENARIOS,
        protocols::SCENARIOS,
        input::SCENARIOS,
        limits::SCENARIOS,
        workers::SCENARIOS,
        resilience::SCENARIOS,
        traffic::SCENARIOS,
        wiretap::SCENARIOS,
        folders::SCENARIOS,
    ]
    .concat()
}
