//! Differences between us and Envoy that are known, each with its reason. All others fail the run.

/// A probe (`*`: any), how the difference begins, and why it is there.
const KNOWN: &[(&str, &str, &str)] = &[];

/// Why this difference is there, if it is known.
pub(super) fn reason(probe: &str, difference: &str) -> Option<&'static str> {
    KNOWN
        .iter()
        .find(|(which, begins, _)| (*which == "*" || *which == probe) && difference.starts_with(begins))
        .map(|(_, _, reason)| *reason)
}
