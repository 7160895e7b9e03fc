//! Kubernetes `Deployment` and `StatefulSet`: what is to run, as far as a mesh and a local run need it.
//!
//! Of a pod with several containers the first is the application; the ports of all are its ports.

use std::{collections::BTreeSet, time::Duration};

use rajut_types::{Origin, Severity, Text};

use super::{
    meta::{self, NameForm},
    probe,
};
use crate::{
    codes,
    model::{ContainerPort, Deployment},
    parse::{Style, Value},
    read::{Field, Object, shown},
};

/// A deployment whose environment may still refer to config maps.
#[derive(Debug, Clone)]
pub(crate) struct RawDeployment {
    /// Its `env` is empty.
    pub(crate) deployment: Deployment,
    /// In the order in which later ones win.
    pub(crate) env: Vec<EnvItem>,
}

/// One entry of an environment.
#[derive(Debug, Clone)]
pub(crate) enum EnvItem {
    /// As written; `$(NAME)` refers to entries before it.
    Value { name: Text, value: Text },
    /// One key of a config map.
    Key {
        name: Text,
        map: Text,
        key: Text,
        optional: bool,
        origin: Origin,
    },
    /// All keys of a config map.
    All {
        map: Text,
        prefix: Text,
        optional: bool,
        origin: Origin,
    },
}

/// Fields of a pod that are Kubernetes' business alone.
const POD_IGNORED: &[&str] = &[
    "activeDeadlineSeconds",
    "affinity",
    "automountServiceAccountToken",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "ephemeralContainers",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers",
    "hostname",
    "hostnameOverride",
    "imagePullSecrets",
    "initContainers",
    "nodeName",
    "nodeSelector",
    "os",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "readinessGates",
    "resourceClaims",
    "resources",
    "restartPolicy",
    "runtimeClassName",
    "schedulerName",
    "schedulingGates",
    "securityContext",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "subdomain",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
];

/// Fields of a container that are Kubernetes' business alone, or of the image that is not run here.
const CONTAINER_IGNORED: &[&str] = &[
    "imagePullPolicy",
    "lifecycle",
    "resizePolicy",
    "resources",
    "restartPolicy",
    "restartPolicyRules",
    "securityContext",
    "startupProbe",
    "stdin",
    "stdinOnce",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];

pub(crate) fn read(root: &Object<'_>, kind: &str) -> Option<RawDeployment> {
    let meta = meta::read(root, NameForm::Subdomain);
    let spec = root
        .required("spec", "add `spec:` with `selector:` and `template:`")?
        .object()?;
    spec.ignore(&[
        "strategy",
        "minReadySeconds",
        "revisionHistoryLimit",
        "paused",
        "progressDeadlineSeconds",
    ]);
    if kind == "StatefulSet" {
        spec.ignore(&[
            "serviceName",
            "podManagementPolicy",
            "updateStrategy",
            "volumeClaimTemplates",
            "persistentVolumeClaimRetentionPolicy",
            "ordinals",
        ]);
    }
    let replicas = spec.count("replicas");
    let selector = spec.required("selector", "add `selector: {matchLabels: {app: …}}`");
    let template = spec.required("template", "add the pod's `template:`")?.object()?;
    let template_meta = template.object("metadata").map(|o| meta::read_metadata(&o));
    let is_gateway = template_meta.as_ref().is_some_and(|m| {
        let templates = m
            .annotations
            .find("inject.istio.io/templates")
            .unwrap_or_default();
        templates.split(',').any(|template| template.trim() == "gateway")
    });
    let labels = template_meta.map(|m| m.labels).unwrap_or_default();
    if let Some(selector) = selector.and_then(Field::object) {
        selector.ignore(&["matchExpressions"]);
        if let Some(field) = selector.get("matchLabels") {
            let wanted = field.labels();
            if let Some((name, value)) = wanted
                .iter()
                .find(|(name, value)| labels.find(name) != Some(value))
            {
                field.error(
                    codes::SELECTOR_EMPTY,
                    format!(
                        "the selector asks for `{}: {}`, which the template's labels lack",
                        shown(name),
                        shown(value)
                    ),
                    "put the same label under `spec.template.metadata.labels`",
                );
            }
        }
    }
    let pod = template
        .required("spec", "add the pod's `spec:` with `containers:`")?
        .object()?;
    let mut raw = pod_spec(&pod)?;
    let meta = meta?;
    let deployment = &mut raw.deployment;
    deployment.name = meta.name;
    deployment.namespace = meta.namespace;
    deployment.kind = kind.into();
    deployment.replicas = replicas.unwrap_or(1);
    deployment.labels = labels;
    deployment.gateway = is_gateway || &*deployment.image == "auto";
    deployment.origin = root.field().origin();
    Some(raw)
}

fn pod_spec(pod: &Object<'_>) -> Option<RawDeployment> {
    pod.ignore(POD_IGNORED);
    let account = pod
        .text("serviceAccountName")
        .or_else(|| pod.text("serviceAccount"));
    pod.ignore(&["serviceAccount"]);
    let grace = pod.get("terminationGracePeriodSeconds").and_then(|f| f.u32());
    let containers_field = pod.required("containers", "add the pod's `containers:`")?;
    let containers = containers_field.list();
    if containers.is_empty() {
        containers_field.error(codes::MISSING_FIELD, "a pod needs at least one container", "");
        return None;
    }
    let mut deployment = empty(pod.field().origin());
    let mut env = Vec::new();
    for (index, field) in containers.iter().enumerate() {
        let Some(container) = field.clone().object() else {
            continue;
        };
        container.ignore(CONTAINER_IGNORED);
        let name = container
            .required("name", "every container needs a name")
            .and_then(|f| f.text());
        let image = container.text("image").unwrap_or_default();
        let mut command = container.texts("command");
        let mut arguments = container.texts("args");
        if !command.is_empty() {
            command.append(&mut arguments);
        }
        let ports = container_ports(&container);
        let readiness = container
            .object("readinessProbe")
            .and_then(|o| probe::read(&o, &ports));
        let liveness = container
            .object("livenessProbe")
            .and_then(|o| probe::read(&o, &ports));
        let own_env = environment(&container);
        if index == 0 {
            deployment.image = image;
            deployment.command = command;
            deployment.image_arguments = arguments;
            env = own_env;
        } else if !own_env.is_empty() {
            field.note(
                codes::NO_EFFECT,
                format!(
                    "the environment of the container `{}` is not used: the pod's first container is the application",
                    shown(&name.unwrap_or_default())
                ),
                "",
            );
        }
        deployment.readiness = deployment.readiness.or(readiness);
        deployment.liveness = deployment.liveness.or(liveness);
        deployment.ports.extend(ports);
    }
    deployment.service_account = account
        .filter(|a| !a.is_empty())
        .unwrap_or_else(|| "default".into());
    deployment.grace_period = grace.map_or(Duration::from_secs(30), |s| Duration::from_secs(s.into()));
    Some(RawDeployment { deployment, env })
}

/// A deployment of which nothing is known yet.
pub(crate) fn empty(origin: Origin) -> Deployment {
    Deployment {
        name: Text::default(),
        namespace: Text::default(),
        kind: Text::default(),
        replicas: 1,
        labels: rajut_types::Labels::default(),
        service_account: "default".into(),
        env: Vec::new(),
        ports: Vec::new(),
        readiness: None,
        liveness: None,
        run: None,
        working_directory: None,
        host_ports: Vec::new(),
        command: Vec::new(),
        image_arguments: Vec::new(),
        image: Text::default(),
        gateway: false,
        grace_period: Duration::from_secs(30),
        depends_on: Vec::new(),
        origin,
    }
}

pub(crate) fn container_ports(container: &Object<'_>) -> Vec<ContainerPort> {
    let mut names = BTreeSet::new();
    let mut ports = Vec::new();
    for field in container.list("ports") {
        let Some(object) = field.clone().object() else {
            continue;
        };
        object.ignore(&["hostPort", "hostIP", "protocol"]);
        let name = object.text("name").unwrap_or_default();
        let number = object.required("containerPort", "the number that the application listens on");
        if !name.is_empty() && !names.insert(name.clone()) {
            field.error(
                codes::DUPLICATE_NAME,
                format!("two ports are named `{}`", shown(&name)),
                "",
            );
        }
        if let Some(number) = number.and_then(|f| f.port()) {
            ports.push(ContainerPort { name, number });
        }
    }
    ports
}

/// `envFrom`, then `env`: later ones win.
pub(crate) fn environment(container: &Object<'_>) -> Vec<EnvItem> {
    let mut items = Vec::new();
    for field in container.list("envFrom") {
        let Some(object) = field.clone().object() else {
            continue;
        };
        object.one_of(&["configMapRef", "secretRef"]);
        let prefix = object.text("prefix").unwrap_or_default();
        if let Some(reference) = object.object("configMapRef") {
            let optional = reference.bool("optional").unwrap_or(false);
            let map = reference
                .required("name", "the config map's name")
                .and_then(|f| f.text());
            items.extend(map.map(|map| EnvItem::All {
                map,
                prefix,
                optional,
                origin: field.origin(),
            }));
        } else if let Some(secret) = object.get("secretRef") {
            note_secret(&secret);
        }
    }
    for field in container.list("env") {
        items.extend(env_entry(&field));
    }
    items
}

fn env_entry(field: &Field<'_>) -> Option<EnvItem> {
    let object = field.clone().object()?;
    object.one_of(&["value", "valueFrom"]);
    let name = object
        .required("name", "the variable's name")
        .and_then(|f| f.non_empty_text());
    if let Some(name) = &name
        && (name.contains('=') || name.contains('\0'))
    {
        field.error(
            codes::BAD_NAME,
            format!("`{}` can't be a variable's name", shown(name)),
            "",
        );
    }
    let Some(from) = object.object("valueFrom") else {
        let value = match object.get("value") {
            Some(field) => env_value(&field),
            None => Text::default(),
        };
        return name.map(|name| EnvItem::Value { name, value });
    };
    from.one_of(&[
        "configMapKeyRef",
        "secretKeyRef",
        "fieldRef",
        "resourceFieldRef",
        "fileKeyRef",
    ]);
    for unknown in ["fieldRef", "resourceFieldRef", "fileKeyRef"] {
        if let Some(reference) = from.get(unknown) {
            reference.say_key(
                Severity::Note,
                codes::ENV_NOT_SET,
                format!(
                    "`{}` comes from the cluster (`{unknown}`) and is not set here",
                    shown(&name.clone().unwrap_or_default())
                ),
                "set it in a LocalWorkload if the application needs it",
            );
        }
    }
    if let Some(secret) = from.get("secretKeyRef") {
        note_secret(&secret);
    }
    let reference = from.object("configMapKeyRef")?;
    let optional = reference.bool("optional").unwrap_or(false);
    let map = reference
        .required("name", "the config map's name")
        .and_then(|f| f.text());
    let key = reference
        .required("key", "the key in the config map")
        .and_then(|f| f.text());
    Some(EnvItem::Key {
        name: name?,
        map: map?,
        key: key?,
        optional,
        origin: field.origin(),
    })
}

/// A value of the environment: the API server takes text only, and the usual mistake is a number without quotes.
fn env_value(field: &Field<'_>) -> Text {
    match &field.node.value {
        Value::Scalar(scalar) if scalar.style == Style::Block => scalar.text.clone(),
        _ => field.text().unwrap_or_default(),
    }
}

fn note_secret(field: &Field<'_>) {
    let name = field
        .node
        .get("name")
        .and_then(crate::parse::Node::text)
        .unwrap_or_default();
    field.say_key(
        Severity::Note,
        codes::SECRET,
        format!(
            "the secret `{}` is not read: its values are not set here",
            shown(name)
        ),
        "set what the application needs in a LocalWorkload's `env`, or in the shell that starts `rajut up`",
    );
}
