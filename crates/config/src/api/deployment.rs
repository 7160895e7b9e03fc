//! Kubernetes `Deployment` and `StatefulSet`: what is to run, as far as a mesh and a local run need it.
//!
//! Of a pod with several containers the first is the application; the ports of all are its ports.

use std::{collections::BTreeSet, time::Duration};

use rajut_types::{Labels, Origin, Severity, Text};

use super::{
    meta::{self, NameForm},
    probe,
};
use crate::{
    codes,
    model::{ContainerPort, Deployment, InstanceField},
    parse::{Style, Value},
    read::{Field, Object, shown},
};

/// A deployment whose environment may still refer to config maps, secrets and the pod's own fields.
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
    /// One key of a config map or a secret.
    Key { name: Text, from: EnvSource, key: Text },
    /// All keys of a config map or a secret.
    All { from: EnvSource, prefix: Text },
    /// What the pod says of itself.
    Field { name: Text, field: PodField },
}

/// Where values come from.
#[derive(Debug, Clone)]
pub(crate) struct EnvSource {
    pub(crate) kind: EnvKind,
    pub(crate) name: Text,
    /// Nothing is amiss when it is not there.
    pub(crate) optional: bool,
    pub(crate) origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EnvKind {
    ConfigMap,
    Secret,
}

impl EnvKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// A field of the Downward API. Source: Kubernetes, "Downward API", fields that `fieldRef` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PodField {
    Namespace,
    ServiceAccount,
    Label(Text),
    Annotation(Text),
    /// Known when it runs.
    Instance(InstanceField),
}

impl PodField {
    /// `None`: only a cluster knows it, or nobody.
    fn parse(path: &str) -> Option<Self> {
        let inner = |field: &str| -> Option<Text> {
            let key = path.strip_prefix(field)?.strip_prefix("['")?.strip_suffix("']")?;
            (!key.is_empty()).then(|| key.into())
        };
        Some(match path {
            "metadata.name" => Self::Instance(InstanceField::Name),
            "metadata.namespace" => Self::Namespace,
            "spec.serviceAccountName" => Self::ServiceAccount,
            "spec.nodeName" => Self::Instance(InstanceField::Node),
            "status.podIP" | "status.podIPs" => Self::Instance(InstanceField::Address),
            _ => match (inner("metadata.labels"), inner("metadata.annotations")) {
                (Some(label), _) => Self::Label(label),
                (_, Some(annotation)) => Self::Annotation(annotation),
                _ => return None,
            },
        })
    }
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
    let (labels, annotations) = template_meta
        .map(|m| (m.labels, m.annotations))
        .unwrap_or_default();
    if let Some(selector) = selector.and_then(Field::object) {
        check_selector(&selector, &labels);
    }
    let pod = template
        .required("spec", "add the pod's `spec:` with `containers:`")?
        .object()?;
    let mut raw = pod_spec(&pod)?;
    write_annotations(&mut raw.env, &annotations);
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

fn check_selector(selector: &Object<'_>, labels: &Labels) {
    selector.ignore(&["matchExpressions"]);
    let Some(field) = selector.get("matchLabels") else {
        return;
    };
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

/// Of the template nothing but its labels is kept: what refers to its annotations gets them here.
fn write_annotations(env: &mut [EnvItem], annotations: &Labels) {
    for item in env {
        if let EnvItem::Field {
            name,
            field: PodField::Annotation(key),
        } = item
        {
            let value = literal(annotations.find(key).unwrap_or_default());
            *item = EnvItem::Value {
                name: name.clone(),
                value,
            };
        }
    }
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
        labels: Labels::default(),
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
        let from = env_source(&field, &object, ["configMapRef", "secretRef"]);
        items.extend(from.map(|(from, _)| EnvItem::All { from, prefix }));
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
    let not_set = |reference: &Field<'_>, what: &str| {
        reference.say_key(
            Severity::Note,
            codes::ENV_NOT_SET,
            format!(
                "`{}` comes from the cluster (`{what}`) and is not set here",
                shown(&name.clone().unwrap_or_default())
            ),
            "set it in a LocalWorkload if the application needs it",
        );
    };
    for unknown in ["resourceFieldRef", "fileKeyRef"] {
        if let Some(reference) = from.get(unknown) {
            not_set(&reference, unknown);
        }
    }
    if let Some(reference) = from.object("fieldRef") {
        reference.ignore(&["apiVersion"]);
        let path = reference.required("fieldPath", "the pod's field, for example `metadata.name`")?;
        let text = path.text()?;
        let known = PodField::parse(&text);
        if known.is_none() {
            not_set(&path, &shown(&text));
        }
        return Some(EnvItem::Field {
            name: name?,
            field: known?,
        });
    }
    let (source, reference) = env_source(field, &from, ["configMapKeyRef", "secretKeyRef"])?;
    let key = reference
        .required("key", "the key whose value it is")
        .and_then(|f| f.text());
    Some(EnvItem::Key {
        name: name?,
        from: source,
        key: key?,
    })
}

/// The config map or secret that one of the two references names, and the reference.
fn env_source<'a>(
    entry: &Field<'_>,
    object: &Object<'a>,
    [map, secret]: [&'static str; 2],
) -> Option<(EnvSource, Object<'a>)> {
    let (kind, reference) = match (object.object(map), object.object(secret)) {
        (Some(reference), _) => (EnvKind::ConfigMap, reference),
        (None, Some(reference)) => (EnvKind::Secret, reference),
        (None, None) => return None,
    };
    let optional = reference.bool("optional").unwrap_or(false);
    let name = reference
        .required("name", "the name of what the values come from")
        .and_then(|f| f.text())?;
    let source = EnvSource {
        kind,
        name,
        optional,
        origin: entry.origin(),
    };
    Some((source, reference))
}

/// A text in which nothing refers to another variable.
pub(crate) fn literal(text: &str) -> Text {
    text.replace('$', "$$").into()
}

/// A value of the environment: the API server takes text only, and the usual mistake is a number without quotes.
fn env_value(field: &Field<'_>) -> Text {
    match &field.node.value {
        Value::Scalar(scalar) if scalar.style == Style::Block => scalar.text.clone(),
        _ => field.text().unwrap_or_default(),
    }
}
