//! Environments with their config maps, and local workloads laid over deployments.

use std::collections::BTreeMap;

use rajut_types::{Diagnostic, ObjectRef, Origin, Severity, Text};

use super::collect::Collected;
use crate::{
    api::{
        deployment::{EnvItem, RawDeployment},
        local_workload::Overlay,
        probe::no_such_port,
    },
    codes,
    model::{ConfigMap, Deployment},
    read::{nearest, shown},
};

/// The longest value that `$(NAME)` may grow to; Linux takes 128 KiB per variable.
const MAX_VALUE: usize = 128 * 1024;

pub(super) fn resolve(
    all: &mut Collected,
    overlays: Vec<Overlay>,
    findings: &mut Vec<Diagnostic>,
) -> Vec<Deployment> {
    let mut raw = std::mem::take(&mut all.deployments);
    for overlay in overlays {
        lay_over(all, &mut raw, overlay, findings);
    }
    let maps: BTreeMap<(&str, &str), &ConfigMap> = all
        .config_maps
        .iter()
        .map(|map| ((&*map.namespace, &*map.name), map))
        .collect();
    raw.into_iter()
        .map(|raw| {
            let mut deployment = raw.deployment;
            let mut env = Environment {
                namespace: deployment.namespace.clone(),
                maps: &maps,
                all,
                values: Vec::new(),
                findings,
            };
            for item in raw.env {
                env.add(item);
            }
            deployment.env.append(&mut env.values);
            deployment
        })
        .collect()
}

fn lay_over(all: &Collected, raw: &mut [RawDeployment], overlay: Overlay, findings: &mut Vec<Diagnostic>) {
    let at = all.workload(&overlay.namespace, &overlay.deployment);
    let Some(target) = at.and_then(|at| raw.get_mut(at)) else {
        if broken(
            all,
            &["Deployment", "StatefulSet"],
            &overlay.namespace,
            &overlay.deployment,
        ) {
            return;
        }
        let here = || raw.iter().filter(|r| r.deployment.namespace == overlay.namespace);
        let elsewhere = raw.iter().find(|r| r.deployment.name == overlay.deployment);
        let hint = match (
            elsewhere,
            nearest(&overlay.deployment, here().map(|r| &*r.deployment.name)),
        ) {
            (Some(other), _) => format!(
                "there is one in the namespace `{}`; put the LocalWorkload there",
                other.deployment.namespace
            ),
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) => "add the Deployment, or take `deploymentRef` out".to_owned(),
        };
        let origin = overlay.origin.at("spec.deploymentRef.name", overlay.origin.line);
        let message = format!(
            "there is no deployment `{}` in `{}`",
            shown(&overlay.deployment),
            overlay.namespace
        );
        findings.push(
            all.index
                .diagnostic(codes::NO_DEPLOYMENT, Severity::Error, &origin, message)
                .hint(hint),
        );
        return;
    };
    let RawDeployment { deployment, env } = target;
    deployment.run = overlay.run.or_else(|| deployment.run.take());
    deployment.working_directory = overlay
        .working_directory
        .or_else(|| deployment.working_directory.take());
    deployment.host_ports.extend(overlay.host_ports);
    deployment.replicas = overlay.replicas.unwrap_or(deployment.replicas);
    for (own, late) in [
        (&mut deployment.readiness, overlay.readiness),
        (&mut deployment.liveness, overlay.liveness),
    ] {
        match late.map(|late| late.resolve(&deployment.ports)) {
            None => {}
            Some(Ok(probe)) => *own = Some(probe),
            Some(Err((name, origin))) => {
                let (message, hint) = no_such_port(&name, &deployment.ports);
                let found = all
                    .index
                    .diagnostic(codes::PORT_NOT_FOUND, Severity::Error, &origin, message);
                findings.push(found.hint(hint));
            }
        }
    }
    deployment.grace_period = overlay.grace_period.unwrap_or(deployment.grace_period);
    deployment.depends_on.extend(overlay.depends_on);
    env.extend(overlay.env);
}

/// Whether an object of one of the kinds and that name was left out, and has been reported.
pub(super) fn broken(all: &Collected, kinds: &[&str], namespace: &str, name: &str) -> bool {
    kinds
        .iter()
        .any(|kind| all.broken.contains(&ObjectRef::new(*kind, namespace, name)))
}

struct Environment<'a> {
    namespace: Text,
    maps: &'a BTreeMap<(&'a str, &'a str), &'a ConfigMap>,
    all: &'a Collected,
    values: Vec<(Text, Text)>,
    findings: &'a mut Vec<Diagnostic>,
}

impl<'a> Environment<'a> {
    fn add(&mut self, item: EnvItem) {
        match item {
            EnvItem::Value { name, value } => {
                let value = expand(&value, &self.values);
                self.set(name, value);
            }
            EnvItem::Key {
                name,
                map,
                key,
                optional,
                origin,
            } => {
                let Some(found) = self.map(&map, optional, &origin) else {
                    return;
                };
                match found.data.get(&key) {
                    Some(value) => self.set(name, value.clone()),
                    None if optional => {}
                    None => {
                        let hint = match nearest(&key, found.data.keys().map(|k| &**k)) {
                            Some(near) => format!("did you mean `{near}`?"),
                            None => "add the key to the ConfigMap, or write `optional: true`".to_owned(),
                        };
                        let message = format!(
                            "`{}` is not set: the ConfigMap `{}` has no key `{}`",
                            shown(&name),
                            shown(&map),
                            shown(&key)
                        );
                        self.warn(&origin, message, hint);
                    }
                }
            }
            EnvItem::All {
                map,
                prefix,
                optional,
                origin,
            } => {
                let Some(found) = self.map(&map, optional, &origin) else {
                    return;
                };
                for (key, value) in &found.data {
                    // As the kubelet does: keys that can't be names of variables are skipped.
                    if !key.is_empty() && !key.contains('=') {
                        self.set(format!("{prefix}{key}").into(), value.clone());
                    }
                }
            }
        }
    }

    fn map(&mut self, name: &str, optional: bool, origin: &Origin) -> Option<&'a ConfigMap> {
        let found = self.maps.get(&(&*self.namespace, name)).copied();
        if found.is_none() && !optional && !broken(self.all, &["ConfigMap"], &self.namespace, name) {
            let here = self
                .maps
                .keys()
                .filter(|(ns, _)| *ns == &*self.namespace)
                .map(|(_, name)| *name);
            let elsewhere = self.maps.keys().find(|(_, other)| *other == name);
            let hint = match (elsewhere, nearest(name, here)) {
                (Some((namespace, _)), _) => format!("there is one in the namespace `{namespace}`"),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => "add the ConfigMap, or write `optional: true`".to_owned(),
            };
            let message = format!(
                "variables are not set: there is no ConfigMap `{}` in `{}`",
                shown(name),
                self.namespace
            );
            self.warn(origin, message, hint);
        }
        found
    }

    fn set(&mut self, name: Text, value: Text) {
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.values.push((name, value)),
        }
    }

    fn warn(&mut self, origin: &Origin, message: String, hint: String) {
        let finding = self
            .all
            .index
            .diagnostic(codes::ENV_NOT_SET, Severity::Warning, origin, message);
        self.findings.push(finding.hint(hint));
    }
}

/// Kubernetes' `$(NAME)`: a variable set before; unknown ones stay as they are; `$$` is `$`.
fn expand(text: &str, values: &[(Text, Text)]) -> Text {
    if !text.contains('$') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match values.iter().find(|(known, _)| &**known == name) {
                Some((_, value)) if out.len() + value.len() <= MAX_VALUE => out.push_str(value),
                _ => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = tail;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn references_to_earlier_variables_are_replaced() {
        let values = [("A".into(), "1".into()), ("B".into(), "two".into())];
        assert_eq!(&*expand("x$(A)-$(B)$(C)$$(A)$", &values), "x1-two$(C)$(A)$");
        assert_eq!(&*expand("$(A", &values), "$(A");
    }
}
