//! All scenarios, in the order in which they run, in two lanes. Those that look at one shared mesh stand together in one lane.

mod alarms;
mod authorization;
mod bulk;
mod checks;
mod clinic;
mod console;
mod egress;
mod external;
mod folders;
mod gateways;
mod input;
mod lifecycle;
mod limits;
mod locality;
mod logs;
mod metrics;
mod monitoring;
mod node;
mod observe;
mod on_demand;
mod operation;
mod protocols;
mod rate_limits;
mod recording;
mod resilience;
mod rootless;
mod roots;
mod routes;
mod scaling;
mod security;
mod sidecars;
mod streams;
mod tokens;
mod tracing;
mod traffic;
mod wiretap;
mod withdrawn;
mod workers;
mod xds_grpc;

use crate::runner::Scenario;

/// What runs at once on each data plane; a lane's own scenarios run one after the other.
pub fn lanes() -> [Vec<Scenario>; 2] {
    [working(), waiting()]
}

/// What keeps the machine busy, or looks at a mesh that others look at too.
fn working() -> Vec<Scenario> {
    [
        lifecycle::SCENARIOS,
        operation::SCENARIOS,
        scaling::SCENARIOS,
        rootless::SCENARIOS,
        clinic::SCENARIOS,
        metrics::SCENARIOS,
        logs::SCENARIOS,
        security::SCENARIOS,
        authorization::SCENARIOS,
        external::SCENARIOS,
        rate_limits::SCENARIOS,
        tokens::SCENARIOS,
        protocols::SCENARIOS,
        xds_grpc::SCENARIOS,
        input::SCENARIOS,
        limits::SCENARIOS,
        workers::SCENARIOS,
        resilience::SCENARIOS,
        checks::SCENARIOS,
        routes::SCENARIOS,
        gateways::SCENARIOS,
        wiretap::SCENARIOS,
        withdrawn::SCENARIOS,
        bulk::SCENARIOS,
        egress::SCENARIOS,
        // Last, when the other lane is over: it judges every second after a change.
        traffic::SCENARIOS,
    ]
    .concat()
}

/// What waits most of its time: for an idle timeout, for disuse, for a certificate's half life. These start meshes of their own.
fn waiting() -> Vec<Scenario> {
    [
        node::SCENARIOS,
        on_demand::SCENARIOS,
        observe::SCENARIOS,
        alarms::SCENARIOS,
        locality::SCENARIOS,
        sidecars::SCENARIOS,
        streams::SCENARIOS,
        roots::SCENARIOS,
        tracing::SCENARIOS,
        folders::SCENARIOS,
        console::SCENARIOS,
        monitoring::SCENARIOS,
        recording::SCENARIOS,
    ]
    .concat()
}
