//! Environments with their config maps and secrets, and local workloads laid over deployments.

use std::collections::BTreeMap;

use rajut_types::{Code, Diagnostic, ObjectRef, Origin, Severity, Text};

use super::collect::Collected;
use crate::{
    api::{
        deployment::{EnvItem, EnvKind, EnvSource, PodField, RawDeployment},
        local_workload::Overlay,
        probe::no_such_port,
    },
    codes,
    model::{Deployment, EnvValue},
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
    let maps = all
        .config_maps
        .iter()
        .map(|map| ((EnvKind::ConfigMap, &*map.namespace, &*map.name), &map.data));
    let secrets = all
        .secrets
        .iter()
        .map(|it| ((EnvKind::Secret, &*it.namespace, &*it.name), &it.texts));
    let sources: Sources<'_> = maps.chain(secrets).collect();
    raw.into_iter()
        .map(|raw| {
            let mut deployment = raw.deployment;
            let mut env = Environment {
                deployment: &deployment,
                sources: &sources,
                all,
                values: Vec::new(),
                findings,
            };
            for item in raw.env {
                env.add(item);
            }
            deployment.env = env.values;
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

/// What environments may refer to: kind, namespace, name.
type Sources<'a> = BTreeMap<(EnvKind, &'a str, &'a str), &'a BTreeMap<Text, Text>>;

struct Environment<'a> {
    deployment: &'a Deployment,
    sources: &'a Sources<'a>,
    all: &'a Collected,
    values: Vec<(Text, EnvValue)>,
    findings: &'a mut Vec<Diagnostic>,
}

impl<'a> Environment<'a> {
    fn add(&mut self, item: EnvItem) {
        match item {
            EnvItem::Value { name, value } => {
                let value = expand(&value, &self.values);
                self.set(name, value);
            }
            EnvItem::Key { name, from, key } => self.add_key(name, &from, &key),
            EnvItem::All { from, prefix } => {
                let Some(found) = self.source(&from) else {
                    return;
                };
                for (key, value) in found {
                    // As the kubelet does: keys that can't be names of variables are skipped.
                    if !key.is_empty() && !key.contains('=') {
                        let value = EnvValue::new(value, from.kind == EnvKind::Secret);
                        self.set(format!("{prefix}{key}").into(), value);
                    }
                }
            }
            EnvItem::Field { name, field } => {
                let known = |text: &Text| EnvValue::new(text, false);
                let value = match field {
                    PodField::Namespace => known(&self.deployment.namespace),
                    PodField::ServiceAccount => known(&self.deployment.service_account),
                    PodField::Label(label) => {
                        EnvValue::new(self.deployment.labels.find(&label).unwrap_or_default(), false)
                    }
                    PodField::Instance(field) => {
                        let mut value = EnvValue::default();
                        value.push_field(field);
                        value
                    }
                    // Put in where the template is read, which alone has them.
                    PodField::Annotation(_) => return,
                };
                self.set(name, value);
            }
        }
    }

    fn add_key(&mut self, name: Text, from: &EnvSource, key: &str) {
        let Some(found) = self.source(from) else {
            return;
        };
        match found.get(key) {
            Some(value) => {
                let value = EnvValue::new(value, from.kind == EnvKind::Secret);
                self.set(name, value);
            }
            None if from.optional => {}
            None => {
                let kind = from.kind.name();
                let hint = match nearest(key, found.keys().map(|k| &**k)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("add the key to the {kind}, or write `optional: true`"),
                };
                let what = match from.kind {
                    EnvKind::ConfigMap => "no key",
                    EnvKind::Secret => "no text under the key",
                };
                let message = format!(
                    "`{}` is not set: the {kind} `{}` has {what} `{}`",
                    shown(&name),
                    shown(&from.name),
                    shown(key)
                );
                self.say(codes::ENV_NOT_SET, Severity::Warning, &from.origin, message, hint);
            }
        }
    }

    fn source(&mut self, from: &EnvSource) -> Option<&'a BTreeMap<Text, Text>> {
        let (kind, name) = (from.kind, &*from.name);
        let namespace = &*self.deployment.namespace;
        let found = self.sources.get(&(kind, namespace, name)).copied();
        if found.is_some() || from.optional || broken(self.all, &[kind.name()], namespace, name) {
            return found;
        }
        let of_kind = || self.sources.keys().filter(|(of, ..)| *of == kind);
        let here = of_kind().filter(|(_, ns, _)| *ns == namespace);
        let elsewhere = of_kind().find(|(.., other)| *other == name);
        let hint = match (elsewhere, nearest(name, here.map(|(.., name)| *name)), kind) {
            (Some((_, namespace, _)), ..) => format!("there is one in the namespace `{namespace}`"),
            (None, Some(near), _) => format!("did you mean `{near}`?"),
            (None, None, EnvKind::ConfigMap) => "add the ConfigMap, or write `optional: true`".to_owned(),
            (None, None, EnvKind::Secret) => {
                "add the Secret, or set what the application needs in a LocalWorkload's `env`".to_owned()
            }
        };
        let message = format!(
            "variables are not set: there is no {} `{}` in `{namespace}`",
            kind.name(),
            shown(name),
        );
        // Secrets are seldom kept with the other files.
        let (code, severity) = match kind {
            EnvKind::ConfigMap => (codes::ENV_NOT_SET, Severity::Warning),
            EnvKind::Secret => (codes::SECRET, Severity::Note),
        };
        self.say(code, severity, &from.origin, message, hint);
        None
    }

    fn set(&mut self, name: Text, value: EnvValue) {
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.values.push((name, value)),
        }
    }

    fn say(&mut self, code: Code, severity: Severity, origin: &Origin, message: String, hint: String) {
        let finding = self.all.index.diagnostic(code, severity, origin, message);
        self.findings.push(finding.hint(hint));
    }
}

/// Kubernetes' `$(NAME)`: a variable set before; unknown ones stay as they are; `$$` is `$`.
fn expand(text: &str, values: &[(Text, EnvValue)]) -> EnvValue {
    if !text.contains('$') {
        return EnvValue::new(text, false);
    }
    let mut out = EnvValue::default();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_text(before);
        rest = after;
        if let Some(tail) = after.strip_prefix('$') {
            out.push_text("$");
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match values.iter().find(|(known, _)| &**known == name) {
                Some((_, value)) if out.len() + value.len() <= MAX_VALUE => out.push(value),
                _ => out.push_text(&format!("$({name})")),
            }
            rest = tail;
        } else {
            out.push_text("$");
        }
    }
    out.push_text(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::{EnvValue, expand};
    use crate::model::InstanceField;

    #[test]
    fn references_to_earlier_variables_are_replaced() {
        let mut address = EnvValue::default();
        address.push_field(InstanceField::Address);
        let values = [
            ("A".into(), EnvValue::new("1", false)),
            ("B".into(), EnvValue::new("two", true)),
            ("IP".into(), address),
        ];
        let expanded = |text: &str| expand(text, &values).for_instance(|_| "10.0.0.1".into());
        assert_eq!(expanded("x$(A)-$(B)$(C)$$(A)$"), "x1-two$(C)$(A)$");
        assert_eq!(expanded("$(A"), "$(A");
        assert_eq!(expanded("http://$(IP):80"), "http://10.0.0.1:80");
        assert_eq!(
            format!("{:?}", expand("x$(B)", &values)),
            "(a secret)",
            "what a secret is part of is not shown"
        );
        assert_eq!(format!("{:?}", expand("$(IP):$(A)", &values)), "\"(Address):1\"");
    }
}
