//! What does not run on a data plane, each with its reason. A reason here is a fact about that data plane, not a test
//! that happens to fail.

use crate::runner::Plane;

const EXCEPTIONS: &[(&str, Plane, &str)] = &[
    (
        "node_replicas_end_under_load_unannounced_few_get_a_503_and_no_post_comes_twice",
        Plane::Envoy,
        "its inbound side answers 503 where the application refuses the connection, and can't say that nothing has seen \
         the request; Istio's default retries do not repeat a 503",
    ),
    (
        "what_is_refused_is_in_the_log_with_the_lines_that_let_it_through",
        Plane::Envoy,
        "it writes what it refuses to its access log only, without what to configure",
    ),
];

/// Why `scenario` does not run on `plane`.
pub fn reason(scenario: &str, plane: Plane) -> Option<&'static str> {
    EXCEPTIONS
        .iter()
        .find(|(name, on, _)| *name == scenario && *on == plane)
        .map(|(.., reason)| *reason)
}
