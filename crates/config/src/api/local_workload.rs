//! Our `LocalWorkload` (`mesh.rajut.dev/v1alpha1`): a process on this machine that is a workload of the mesh.
//!
//! Either it says how a deployment of the same files is run here (`deploymentRef`), or it is a workload of its own.
//!
//! ```yaml
//! apiVersion: mesh.rajut.dev/v1alpha1
//! kind: LocalWorkload
//! metadata:
//!   name: signer
//! spec:
//!   deploymentRef: {name: signer}
//!   run: node signer.js        # or `exec: [node, signer.js]`, or `sample: {}`
//!   workingDir: services/signer
//!   hostPorts: [{containerPort: 4601, hostPort: 14601}]
//! ```

use std::{collections::BTreeSet, time::Duration};

use rajut_types::{Labels, Origin, Severity, Text};

use super::{
    deployment::{self, EnvItem, RawDeployment},
    meta::{self, NameForm},
    probe::{self, LateProbe},
};
use crate::{
    codes,
    model::RunCommand,
    read::{Field, Object},
};

/// A local workload: of its own, or laid over a deployment.
#[derive(Debug, Clone)]
pub(crate) enum RawLocalWorkload {
    Own(Box<RawDeployment>),
    Over(Box<Overlay>),
}

/// What a local workload says about a deployment.
#[derive(Debug, Clone)]
pub(crate) struct Overlay {
    pub(crate) deployment: Text,
    pub(crate) namespace: Text,
    pub(crate) run: Option<RunCommand>,
    pub(crate) working_directory: Option<Text>,
    pub(crate) host_ports: Vec<(u16, u16)>,
    pub(crate) replicas: Option<u32>,
    pub(crate) readiness: Option<LateProbe>,
    pub(crate) liveness: Option<LateProbe>,
    pub(crate) grace_period: Option<Duration>,
    pub(crate) depends_on: Vec<Text>,
    pub(crate) env: Vec<EnvItem>,
    pub(crate) origin: Origin,
}

#[expect(clippy::too_many_lines, reason = "one field after the other")]
pub(crate) fn read(root: &Object<'_>) -> Option<RawLocalWorkload> {
    let meta = meta::read(root, NameForm::Subdomain);
    let spec = root
        .required("spec", "add `spec:` with `run:`, `exec:` or `sample: {}`")?
        .object()?;
    let reference = spec.get("deploymentRef");
    let deployment = reference.as_ref().and_then(|field| {
        let object = field.clone().object()?;
        object.required("name", "the deployment's name")?.non_empty_text()
    });
    let run = run(&spec);
    let ports = deployment::container_ports(&spec);
    let labels = spec.labels("labels");
    let account = spec.text("serviceAccount");
    if reference.is_some() {
        refuse_own(&spec);
    }
    let replicas = spec.count("replicas");
    let probe = |name| {
        let object = spec.object(name)?;
        // The ports of a deployment may be written anywhere.
        if reference.is_some() {
            probe::read_late(&object)
        } else {
            probe::read(&object, &ports).map(LateProbe::from)
        }
    };
    let (readiness, liveness) = (probe("readinessProbe"), probe("livenessProbe"));
    let grace = spec.get("terminationGracePeriodSeconds").and_then(|f| f.u32());
    let grace = grace.map(|s| Duration::from_secs(s.into()));
    let depends_on = spec.texts("dependsOn");
    let env = deployment::environment(&spec);
    let working_directory = spec.text("workingDir").filter(|d| !d.is_empty());
    let host_ports = host_ports(&spec);
    let origin = root.field().origin();
    let meta = meta?;
    if reference.is_some() {
        return Some(RawLocalWorkload::Over(Box::new(Overlay {
            deployment: deployment?,
            namespace: meta.namespace,
            run,
            working_directory,
            host_ports,
            replicas,
            readiness,
            liveness,
            grace_period: grace,
            depends_on,
            env,
            origin,
        })));
    }
    let mut own = deployment::empty(origin);
    own.labels = if labels.is_empty() {
        Labels::from_iter([("app", meta.name.clone())])
    } else {
        labels
    };
    own.name = meta.name;
    own.namespace = meta.namespace;
    own.kind = "LocalWorkload".into();
    own.replicas = replicas.unwrap_or(1);
    own.service_account = account
        .filter(|a| !a.is_empty())
        .unwrap_or_else(|| "default".into());
    own.ports = ports;
    own.readiness = readiness.and_then(|late| late.resolve(&own.ports).ok());
    own.liveness = liveness.and_then(|late| late.resolve(&own.ports).ok());
    own.run = run;
    own.working_directory = working_directory;
    own.host_ports = host_ports;
    own.grace_period = grace.unwrap_or(own.grace_period);
    own.depends_on = depends_on;
    Some(RawLocalWorkload::Own(Box::new(RawDeployment {
        deployment: own,
        env,
    })))
}

/// What belongs to the deployment and can't be said about it here.
fn refuse_own(spec: &Object<'_>) {
    let names = [
        ("ports", "ports"),
        ("labels", "labels"),
        ("serviceAccount", "service account"),
    ];
    for (name, what) in names {
        if let Some(field) = spec.get(name) {
            field.say_key(
                Severity::Error,
                codes::EXCLUSIVE,
                format!("`{name}` can't stand beside `deploymentRef`: the deployment's {what} count"),
                "take it out, or take `deploymentRef` out",
            );
        }
    }
}

fn run(spec: &Object<'_>) -> Option<RunCommand> {
    let set = spec.one_of(&["run", "exec", "sample"]);
    match set.first().copied()? {
        "run" => spec.get("run")?.non_empty_text().map(RunCommand::Shell),
        "exec" => {
            let field = spec.get("exec")?;
            let arguments = field.texts();
            if arguments.first().is_none_or(|program| program.is_empty()) {
                field.error(
                    codes::MISSING_FIELD,
                    "`exec` needs a program",
                    "e.g. `exec: [node, server.js]`",
                );
                return None;
            }
            Some(RunCommand::Exec(arguments))
        }
        _ => spec.object("sample").map(|_| RunCommand::Sample),
    }
}

/// Container port → port of this machine.
fn host_ports(spec: &Object<'_>) -> Vec<(u16, u16)> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for field in spec.list("hostPorts") {
        let Some(object) = field.clone().object() else {
            continue;
        };
        let container = object.required("containerPort", "the port of the application");
        let container = container.as_ref().and_then(Field::port);
        let host_field = object.required("hostPort", "the port on this machine");
        let host = host_field.as_ref().and_then(Field::port);
        let (Some(container), Some(host), Some(host_field)) = (container, host, host_field) else {
            continue;
        };
        if seen.insert(host) {
            all.push((container, host));
        } else {
            host_field.error(
                codes::DUPLICATE_NAME,
                format!("the port {host} is listed twice"),
                "",
            );
        }
    }
    all
}
