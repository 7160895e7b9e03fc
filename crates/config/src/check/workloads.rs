//! Services and what they select, subsets and what they select, what is not told what to run.

use rajut_types::{Labels, Severity};

use super::{Checker, field};
use crate::{
    api::protocol,
    codes,
    model::{Deployment, Protocol, Service, TargetPort},
};

pub(super) fn check(checker: &mut Checker<'_>) {
    let loaded = checker.loaded;
    for service in &loaded.services {
        selector(checker, service);
        target_ports(checker, service);
    }
    for rule in &loaded.destination_rules {
        subsets(checker, rule);
        h2_upgrade(checker, rule);
    }
    for deployment in &loaded.deployments {
        run(checker, deployment);
    }
    for deployment in &loaded.deployments {
        dependencies(checker, deployment);
    }
}

/// Whether nothing can be said of what runs in the namespace: none is given, or one was left out.
fn unknown(checker: &Checker<'_>, namespace: &str) -> bool {
    checker.loaded.deployments.is_empty()
        || checker.loaded.broken.iter().any(|object| {
            matches!(
                &*object.kind,
                "Deployment" | "StatefulSet" | "LocalWorkload" | "Compose"
            ) && &*object.namespace == namespace
        })
}

fn selector(checker: &mut Checker<'_>, service: &Service) {
    let Some(selector) = &service.selector else { return };
    if !service.endpoints.is_empty()
        || unknown(checker, &service.namespace)
        || !checker.selected(service).is_empty()
    {
        return;
    }
    let hint = nearest_labels(checker, &service.namespace, selector);
    let path = if &*service.origin.object.kind == "Service" {
        "spec.selector"
    } else {
        "spec.workloadSelector"
    };
    checker.say(
        codes::SELECTOR_EMPTY,
        Severity::Warning,
        &field(&service.origin, path),
        format!(
            "the service `{}` selects no workload of the namespace `{}`",
            service.name, service.namespace
        ),
        hint,
    );
}

/// What to write instead of a selector that selects nothing.
fn nearest_labels(checker: &Checker<'_>, namespace: &str, selector: &Labels) -> String {
    let here = checker.in_namespace(namespace);
    for (key, value) in selector.iter() {
        let values = here.iter().filter_map(|d| d.labels.find(key));
        if here.iter().any(|d| d.labels.find(key) == Some(value)) {
            continue;
        }
        if let Some(near) = checker.nearest(value, values) {
            return format!("did you mean `{key}: {near}`?");
        }
    }
    for (namespace, deployments) in &checker.deployments {
        if let Some(found) = deployments.iter().find(|d| d.labels.matches(selector)) {
            return format!(
                "the workload `{}` in the namespace `{namespace}` has these labels; a selector sees its own namespace only",
                found.name
            );
        }
    }
    let all: Vec<String> = here
        .iter()
        .take(5)
        .map(|d| {
            let labels: Vec<String> = d.labels.iter().map(|(k, v)| format!("{k}: {v}")).collect();
            format!("{} has {{{}}}", d.name, labels.join(", "))
        })
        .collect();
    if all.is_empty() {
        return "add a Deployment with these labels to the namespace".to_owned();
    }
    format!("labels of its workloads: {}", all.join("; "))
}

fn target_ports(checker: &mut Checker<'_>, service: &Service) {
    for (index, port) in service.ports.iter().enumerate() {
        let TargetPort::Name(name) = &port.target else {
            continue;
        };
        let selected = checker.selected(service);
        let lacking: Vec<&Deployment> = selected
            .iter()
            .copied()
            .filter(|d| !d.ports.iter().any(|p| p.name == *name))
            .collect();
        let Some(first) = lacking.first() else { continue };
        let names: Vec<&str> = first
            .ports
            .iter()
            .map(|p| &*p.name)
            .filter(|n| !n.is_empty())
            .collect();
        let hint = match checker.nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.is_empty() => {
                "name the port in the container's `ports`, or write the number".to_owned()
            }
            None => format!("its ports are named {}", names.join(", ")),
        };
        checker.say(
            codes::PORT_NOT_FOUND,
            Severity::Error,
            &field(&service.origin, format!("spec.ports[{index}].targetPort")),
            format!("the workload `{}` has no port named `{name}`", first.name),
            hint,
        );
    }
}

fn subsets(checker: &mut Checker<'_>, rule: &crate::model::DestinationRule) {
    let Some(service) = checker.service(&rule.host, &rule.namespace) else {
        return;
    };
    if unknown(checker, &service.namespace) {
        return;
    }
    let selected = checker.selected(service);
    if selected.is_empty() && service.endpoints.is_empty() {
        return;
    }
    for (index, subset) in rule.subsets.iter().enumerate() {
        let some = selected.iter().any(|d| d.labels.matches(&subset.labels))
            || service.endpoints.iter().any(|e| e.labels.matches(&subset.labels));
        if some {
            continue;
        }
        let near = subset.labels.iter().find_map(|(key, value)| {
            let values = selected.iter().filter_map(|d| d.labels.find(key));
            checker
                .nearest(value, values)
                .map(|near| format!("did you mean `{key}: {near}`?"))
        });
        let wanted: Vec<String> = subset.labels.iter().map(|(k, v)| format!("{k}: {v}")).collect();
        checker.say(
            codes::SUBSET_EMPTY,
            Severity::Warning,
            &field(&rule.origin, format!("spec.subsets[{index}].labels")),
            format!(
                "the subset `{}` selects nothing: no workload of the service `{}` has {{{}}}",
                subset.name,
                service.name,
                wanted.join(", ")
            ),
            near.unwrap_or_else(|| "add a Deployment with these labels, or correct them".to_owned()),
        );
    }
}

/// An upgrade to HTTP/2 on a port whose protocol is only detected.
fn h2_upgrade(checker: &mut Checker<'_>, rule: &crate::model::DestinationRule) {
    let upgrades = |policy: &crate::model::TrafficPolicy| {
        policy
            .connection_pool
            .as_ref()
            .is_some_and(|pool| pool.h2_upgrade == Some(true))
    };
    let path = "trafficPolicy.connectionPool.http.h2UpgradePolicy";
    let place = if upgrades(&rule.policy) {
        format!("spec.{path}")
    } else if let Some(index) = rule.subsets.iter().position(|s| upgrades(&s.policy)) {
        format!("spec.subsets[{index}].{path}")
    } else {
        return;
    };
    let Some(service) = checker.service(&rule.host, &rule.namespace) else {
        return;
    };
    let ports: Vec<_> = service
        .ports
        .iter()
        .filter(|p| p.protocol == Protocol::Detect)
        .collect();
    let Some(first) = ports.first() else { return };
    let numbers: Vec<String> = ports.iter().map(|p| p.number.to_string()).collect();
    let (what, verb) = match numbers.len() {
        1 => ("port", "declares"),
        _ => ("ports", "declare"),
    };
    let instead = match (protocol::near_miss(&first.name), first.name.is_empty()) {
        (Some(instead), _) => instead,
        (None, true) => "http".to_owned(),
        (None, false) => format!("http-{}", first.name),
    };
    checker.say(
        codes::H2_UNDECLARED,
        Severity::Warning,
        &field(&rule.origin, place),
        format!(
            "the {what} {} of `{}` {verb} no protocol: with UPGRADE the application itself must speak HTTP/2",
            numbers.join(", "),
            service.name
        ),
        format!(
            "name the port {} `{instead}` in the {}",
            first.number, service.origin.object
        ),
    );
}

fn run(checker: &mut Checker<'_>, deployment: &Deployment) {
    if deployment.run.is_some() || deployment.gateway {
        return;
    }
    let name = if checker.names.get(&*deployment.name).is_some_and(|n| *n > 1) {
        format!("{}.{}", deployment.name, deployment.namespace)
    } else {
        deployment.name.to_string()
    };
    let instead = if &*deployment.kind == "LocalWorkload" {
        "or `run:` to its `spec`".to_owned()
    } else {
        format!(
            "or a LocalWorkload with `deploymentRef: {{name: {}}}`",
            deployment.name
        )
    };
    checker.say(
        codes::NO_RUN_COMMAND,
        Severity::Note,
        &deployment.origin,
        format!(
            "nothing says how to run `{}` on this machine: it is not started",
            deployment.name
        ),
        format!("add `{}`, {instead}", deployment.run_option(&name)),
    );
}

/// `dependsOn` of local workloads; Compose's were checked inside their file.
fn dependencies(checker: &mut Checker<'_>, deployment: &Deployment) {
    if &*deployment.kind == "ComposeService" || unknown(checker, &deployment.namespace) {
        return;
    }
    for wanted in &deployment.depends_on {
        let here = checker.in_namespace(&deployment.namespace);
        if here.iter().any(|d| d.name == *wanted) {
            continue;
        }
        let hint = match checker.nearest(wanted, here.iter().map(|d| &*d.name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "take it out, or add the workload".to_owned(),
        };
        checker.say(
            codes::NO_DEPLOYMENT,
            Severity::Error,
            &deployment.origin,
            format!(
                "`{}` depends on `{wanted}`, which does not exist in `{}`",
                deployment.name, deployment.namespace
            ),
            hint,
        );
    }
}
