//! All scenarios, in the order in which they run. Those that look at one shared mesh stand together.

mod authorization;
mod bulk;
mod clinic;
mod console;
mod egress;
mod folders;
mod gateways;
mod input;
mod lifecycle;
mod limits;
mod logs;
mod metrics;
mod node;
mod observe;
mod on_demand;
mod operation;
mod protocols;
mod rate_limits;
mod resilience;
mod rootless;
mod routes;
mod scaling;
mod security;
mod streams;
mod tokens;
mod tracing;
mod traffic;
mod wiretap;
mod workers;
mod xds_grpc;

use crate::runner::Scenario;

pub fn all() -> Vec<Scenario> {
    [
        lifecycle::SCENARIOS,
        operation::SCENARIOS,
        scaling::SCENARIOS,
        rootless::SCENARIOS,
        clinic::SCENARIOS,
        metrics::SCENARIOS,
        logs::SCENARIOS,
        tracing::SCENARIOS,
        security::SCENARIOS,
        authorization::SCENARIOS,
        rate_limits::SCENARIOS,
        protocols::SCENARIOS,
        observe::SCENARIOS,
        console::SCENARIOS,
        xds_grpc::SCENARIOS,
        input::SCENARIOS,
        limits::SCENARIOS,
        workers::SCENARIOS,
        resilience::SCENARIOS,
        tokens::SCENARIOS,
        traffic::SCENARIOS,
        routes::SCENARIOS,
        wiretap::SCENARIOS,
        folders::SCENARIOS,
        node::SCENARIOS,
        on_demand::SCENARIOS,
        bulk::SCENARIOS,
        egress::SCENARIOS,
        streams::SCENARIOS,
        gateways::SCENARIOS,
    ]
    .concat()
}
