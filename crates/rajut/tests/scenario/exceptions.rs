//! What does not run on a data plane, each with its reason. A reason here is a fact about that data plane, not a test
//! that happens to fail.

use crate::runner::Plane;

const EXCEPTIONS: &[(&str, Plane, &str)] = &[];

/// Why `scenario` does not run on `plane`.
pub fn reason(scenario: &str, plane: Plane) -> Option<&'static str> {
    EXCEPTIONS
        .iter()
        .find(|(name, on, _)| *name == scenario && *on == plane)
        .map(|(.., reason)| *reason)
}
