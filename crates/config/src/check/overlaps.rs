//! Objects of which a workload has one: where several select it, the oldest counts.

use std::collections::BTreeMap;

use rajut_types::{Labels, Origin, Severity, Text};

use super::{Checker, field};
use crate::codes;

/// An object that selects workloads of its namespace.
struct Selecting<'a> {
    namespace: &'a Text,
    selector: &'a Labels,
    origin: &'a Origin,
    /// Where its selector stands.
    path: &'static str,
}

pub(super) fn check(checker: &mut Checker<'_>) {
    let loaded = checker.loaded;
    let sidecars = loaded.sidecars.iter().filter_map(|it| {
        Some(Selecting {
            namespace: &it.namespace,
            selector: it.selector.as_ref()?,
            origin: &it.origin,
            path: "spec.workloadSelector",
        })
    });
    let telemetries = loaded.telemetries.iter().filter_map(|it| {
        Some(Selecting {
            namespace: &it.namespace,
            selector: it.selector.as_ref()?,
            origin: &it.origin,
            path: "spec.selector",
        })
    });
    let authentications = loaded.peer_authentications.iter().filter_map(|it| {
        Some(Selecting {
            namespace: &it.namespace,
            selector: it.selector.as_ref()?,
            origin: &it.origin,
            path: "spec.selector",
        })
    });
    one_each(checker, sidecars.collect());
    one_each(checker, telemetries.collect());
    // Those of the root namespace are not used at all, which is said of each.
    let root = &loaded.mesh.root_namespace;
    one_each(
        checker,
        authentications.filter(|it| it.namespace != root).collect(),
    );
}

/// `objects`, of one kind, are sorted by age.
fn one_each(checker: &mut Checker<'_>, objects: Vec<Selecting<'_>>) {
    let mut by_namespace: BTreeMap<&Text, Vec<Selecting<'_>>> = BTreeMap::new();
    for object in objects {
        by_namespace.entry(object.namespace).or_default().push(object);
    }
    for (namespace, objects) in by_namespace.iter().filter(|(_, all)| all.len() > 1) {
        // (first, later) → the workloads that both select.
        let mut both: BTreeMap<(usize, usize), Vec<&Text>> = BTreeMap::new();
        for workload in checker.in_namespace(namespace) {
            let mut selecting = objects
                .iter()
                .enumerate()
                .filter(|(_, object)| workload.labels.matches(object.selector))
                .map(|(index, _)| index);
            let Some(first) = selecting.next() else { continue };
            for later in selecting {
                both.entry((first, later)).or_default().push(&workload.name);
            }
        }
        for ((first, later), workloads) in both {
            let (Some(first), Some(later)) = (objects.get(first), objects.get(later)) else {
                continue;
            };
            say(checker, first.origin, later, &workloads);
        }
    }
}

fn say(checker: &mut Checker<'_>, first: &Origin, later: &Selecting<'_>, workloads: &[&Text]) {
    let names = match workloads {
        [] => return,
        [one] => format!("`{one}`"),
        [one, rest @ ..] => format!("`{one}` and {} more", rest.len()),
    };
    checker.say(
        codes::POLICY_IGNORED,
        Severity::Warning,
        &field(later.origin, later.path),
        format!(
            "this object is not used for {names}: {} ({}:{}) comes first and selects the same",
            first.object, first.source, first.line
        ),
        "let each workload be selected by one of them",
    );
}
