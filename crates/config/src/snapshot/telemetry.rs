//! Which changes of metrics hold for a workload: mesh, then namespace, then workload; later ones win.
//!
//! Source: Istio `Telemetries.applicableTelemetries`. One object per level, the oldest.

use std::sync::Arc;

use rajut_types::Labels;

use crate::model::{MetricChange, Telemetry};

/// The changes that hold for a workload, in the order of their levels.
pub(super) fn of(
    sorted: &[Arc<Telemetry>],
    root_namespace: &str,
    namespace: &str,
    labels: &Labels,
) -> Vec<MetricChange> {
    let wide = |namespace: &str| {
        sorted
            .iter()
            .find(|one| &*one.namespace == namespace && one.selector.is_none())
    };
    let own = sorted.iter().find(|one| {
        &*one.namespace == namespace
            && one
                .selector
                .as_ref()
                .is_some_and(|selector| labels.matches(selector))
    });
    let levels = [
        wide(root_namespace),
        (namespace != root_namespace).then(|| wide(namespace)).flatten(),
        own,
    ];
    levels
        .into_iter()
        .flatten()
        .flat_map(|one| one.overrides.iter().cloned())
        .collect()
}

#[cfg(test)]
mod tests {
    use rajut_types::{ObjectRef, Origin};

    use super::*;
    use crate::model::Ends;

    fn telemetry(namespace: &str, selector: Option<&str>, metric: &str) -> Arc<Telemetry> {
        Arc::new(Telemetry {
            name: metric.into(),
            namespace: namespace.into(),
            selector: selector.map(|app| [("app", app)].into_iter().collect()),
            targeted: false,
            overrides: vec![MetricChange {
                ends: Ends::Both,
                metric: Some(metric.into()),
                disabled: Some(true),
                tags: Vec::new(),
            }],
            origin: Origin::new("t.yaml", ObjectRef::new("Telemetry", namespace, metric)),
            age: 0,
        })
    }

    #[test]
    fn levels_follow_one_another_and_the_oldest_of_each_counts() {
        let all = [
            telemetry("a", Some("web"), "workload"),
            telemetry("istio-system", None, "mesh"),
            telemetry("a", None, "namespace"),
            telemetry("a", None, "younger"),
            telemetry("istio-system", Some("web"), "of the root alone"),
        ];
        let found = |namespace: &str, app: &str| -> Vec<String> {
            let labels = [("app", app)].into_iter().collect();
            of(&all, "istio-system", namespace, &labels)
                .iter()
                .map(|change| change.metric.as_deref().unwrap_or_default().to_owned())
                .collect()
        };
        assert_eq!(found("a", "web"), ["mesh", "namespace", "workload"]);
        assert_eq!(found("a", "db"), ["mesh", "namespace"]);
        assert_eq!(found("b", "web"), ["mesh"]);
        assert_eq!(found("istio-system", "web"), ["mesh", "of the root alone"]);
    }
}
