//! Compose files: each service becomes a workload and, if its ports are known, a service of the mesh.
//!
//! What is read is what a mesh and a local run need; what else changes how a service runs is named (code `RJ0054`),
//! and the rest (volumes, limits, logging, build) is the container's business.

mod healthcheck;
mod ports;

use std::collections::BTreeMap;

use rajut_types::{Hostname, Labels, Severity, Text};

use super::{
    deployment::{self, EnvItem, RawDeployment},
    meta::{self, NameForm},
    service,
};
use crate::{
    codes,
    merge::Defaults,
    model::{ContainerPort, Protocol, Resolution, RunCommand, Service, ServicePort, TargetPort},
    parse::Value,
    read::{Field, Object, shown},
};
use ports::Ports;

/// Keys of a service that are the container's business alone.
const IGNORED: &[&str] = &[
    "annotations",
    "attach",
    "blkio_config",
    "build",
    "cap_add",
    "cap_drop",
    "cgroup",
    "cgroup_parent",
    "configs",
    "container_name",
    "cpu_count",
    "cpu_percent",
    "cpu_period",
    "cpu_quota",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "cpu_shares",
    "cpus",
    "cpuset",
    "credential_spec",
    "develop",
    "device_cgroup_rules",
    "devices",
    "dns",
    "dns_opt",
    "dns_search",
    "domainname",
    "extra_hosts",
    "gpus",
    "group_add",
    "hostname",
    "image",
    "init",
    "ipc",
    "isolation",
    "label_file",
    "links",
    "logging",
    "mac_address",
    "mem_limit",
    "mem_reservation",
    "mem_swappiness",
    "memswap_limit",
    "models",
    "network_mode",
    "oom_kill_disable",
    "oom_score_adj",
    "pid",
    "pids_limit",
    "platform",
    "post_start",
    "pre_stop",
    "privileged",
    "profiles",
    "pull_policy",
    "pull_refresh_after",
    "read_only",
    "restart",
    "runtime",
    "secrets",
    "security_opt",
    "shm_size",
    "stdin_open",
    "stop_signal",
    "storage_opt",
    "sysctls",
    "tmpfs",
    "tty",
    "ulimits",
    "use_api_socket",
    "user",
    "userns_mode",
    "uts",
    "volumes",
    "volumes_from",
    "working_dir",
];

/// A service as it is read, before what other services say about its ports is known.
struct Draft<'a> {
    field: Field<'a>,
    raw: RawDeployment,
    ports: Ports,
    aliases: Vec<Hostname>,
    probe_port: Option<u16>,
}

/// All services of the file that are good.
pub(crate) fn read(root: &Object<'_>, defaults: &Defaults) -> Vec<(RawDeployment, Option<Service>)> {
    root.ignore(&[
        "version", "name", "networks", "volumes", "secrets", "configs", "models",
    ]);
    extensions(root);
    if let Some(include) = root.get("include") {
        not_followed(
            &include,
            "`include` is not followed: the included files are not read",
            "give them as paths of their own",
        );
    }
    let Some(services) = root.required("services", "add `services:`") else {
        return Vec::new();
    };
    let services = services.map();
    let names: Vec<Text> = services.iter().map(|(name, _)| mesh_name(name)).collect();
    let mut drafts = Vec::new();
    for (name, field) in services {
        if name.starts_with("x-") {
            continue;
        }
        let before = field.scope().errors();
        let draft = draft(&name, &field, &names);
        if field.scope().errors() == before {
            drafts.extend(draft);
        }
    }

    let mentioned = mentioned_ports(&drafts);
    drafts
        .into_iter()
        .map(|draft| {
            let ports = known_ports(&draft, &mentioned);
            let service = mesh_service(&draft, &ports, defaults);
            let mut raw = draft.raw;
            raw.deployment.ports = ports
                .iter()
                .filter(|p| p.protocol != Protocol::Udp)
                .map(|port| ContainerPort {
                    name: port.name.clone(),
                    number: port.number,
                })
                .collect();
            raw.deployment.host_ports = draft.ports.host;
            (raw, service)
        })
        .collect()
}

/// `x-…`: anyone's own.
fn extensions(root: &Object<'_>) {
    if root
        .field()
        .node
        .entries()
        .iter()
        .any(|e| e.key.text.starts_with("x-"))
    {
        root.ignore_prefix("x-");
    }
}

fn not_followed(field: &Field<'_>, message: &str, hint: &str) {
    field.say_key(Severity::Note, codes::COMPOSE, message, hint);
}

fn draft<'a>(name: &Text, field: &Field<'a>, names: &[Text]) -> Option<Draft<'a>> {
    let lower = mesh_name(name);
    let object = field.clone().object()?;
    object.ignore(IGNORED);
    extensions(&object);
    if let Some(extends) = object.get("extends") {
        not_followed(
            &extends,
            "`extends` is not followed",
            "render the file first: `docker compose config | rajut analyze -`",
        );
    }
    if let Some(file) = object.get("env_file") {
        not_followed(
            &file,
            "`env_file` is not read: its variables are not set",
            "put them under `environment:`, or in a LocalWorkload's `env`",
        );
    }
    let mut deployment = deployment::empty(field.origin());
    deployment.labels = labels(&object, &lower);
    deployment.image = object
        .get("image")
        .and_then(|f| f.loose_text())
        .unwrap_or_default();
    if let Some(deploy) = object.object("deploy") {
        deploy.ignore_rest();
        deployment.replicas = deploy.count("replicas").unwrap_or(1);
    }
    if let Some(scale) = object.count("scale") {
        deployment.replicas = scale;
    }
    if let Some(grace) = object.get("stop_grace_period").and_then(|f| f.duration()) {
        deployment.grace_period = grace;
    }
    deployment.depends_on = depends_on(&object, names);
    let env = environment(&object);
    let command = command(&object);
    let ports = ports::read(&object);
    let (readiness, probe_port) = healthcheck::read(&object);
    deployment.readiness = readiness;
    if !meta::check_name(field, &lower, NameForm::Label) {
        return None;
    }
    // A command beside an image is the image's: what it needs may be there alone. It is run where the command line says so
    // (`--run NAME`); without an image there is nothing else that it could be meant for.
    let own = deployment.image.is_empty() && !object.has("build");
    match command {
        Some(command) if own => deployment.run = Some(command),
        Some(RunCommand::Exec(words)) => deployment.command = words,
        Some(RunCommand::Shell(line)) => deployment.command = vec![line],
        _ => {}
    }
    note_name(name, &lower, field);
    let aliases = aliases(&object, name, &lower);
    deployment.name = lower;
    deployment.namespace = field.scope().namespace().clone();
    deployment.kind = "ComposeService".into();
    Some(Draft {
        field: field.clone(),
        raw: RawDeployment { deployment, env },
        ports,
        aliases,
        probe_port,
    })
}

/// Names in a mesh are DNS labels.
fn note_name(written: &str, lower: &str, field: &Field<'_>) {
    if written != lower {
        field.say_key(
            Severity::Note,
            codes::COMPOSE,
            format!("the workload is called `{lower}`, since names in a mesh have no `_` and no capitals"),
            format!("clients reach it as `{}` all the same", shown(written)),
        );
    }
}

fn labels(object: &Object<'_>, name: &str) -> Labels {
    let mut labels = Labels::from_iter([("app", name)]);
    for (key, value) in object.get("labels").map_or_else(Vec::new, |f| pairs(&f)) {
        labels.insert(key, value.unwrap_or_default());
    }
    // The service is selected by this label, so it is not the user's to change.
    labels.insert("com.docker.compose.service", name);
    labels
}

/// A mapping, or a list of `NAME=VALUE`; a value of `None` is one that is not given.
fn pairs(field: &Field<'_>) -> Vec<(Text, Option<Text>)> {
    match &field.node.value {
        Value::Mapping(_) => field
            .map()
            .into_iter()
            .filter_map(|(name, value)| {
                if value.node.is_null() {
                    return Some((name, None));
                }
                value.loose_text().map(|text| (name, Some(text)))
            })
            .collect(),
        Value::Sequence(_) => field
            .list()
            .iter()
            .filter_map(Field::loose_text)
            .map(|text| match text.split_once('=') {
                Some((name, value)) => (name.into(), Some(value.into())),
                None => (text, None),
            })
            .collect(),
        Value::Scalar(_) => field.map().into_iter().map(|(name, _)| (name, None)).collect(),
    }
}

fn environment(object: &Object<'_>) -> Vec<EnvItem> {
    let Some(field) = object.get("environment") else {
        return Vec::new();
    };
    let mut items = Vec::new();
    let mut from_shell: Vec<String> = Vec::new();
    for (name, value) in pairs(&field) {
        match value {
            Some(text) => {
                let (value, complete) = ports::interpolate(&text);
                if complete {
                    // `$` stands for itself from here on.
                    let value = deployment::literal(&value);
                    items.push(EnvItem::Value { name, value });
                } else {
                    from_shell.push(shown(&name));
                }
            }
            None => from_shell.push(shown(&name)),
        }
    }
    if !from_shell.is_empty() {
        field.say_key(
            Severity::Note,
            codes::ENV_NOT_SET,
            format!(
                "not set here, since the values come from the shell or from `.env`: {}",
                from_shell.join(", ")
            ),
            "give a default (`${NAME:-value}`), or set them in a LocalWorkload's `env`",
        );
    }
    items
}

/// One of `entrypoint` and `command`, with Compose's variables as if none were set.
enum Words {
    /// A text: the shell of this machine splits it into words, and sets what variables it has.
    Line(Text),
    /// A list.
    List(Vec<Text>),
}

impl Words {
    fn read(object: &Object<'_>, name: &'static str) -> Option<Self> {
        let field = object.get(name)?;
        if field.node.is_null() {
            return None;
        }
        let mut unset = Vec::new();
        let mut text = |written: Text, by_shell: bool| {
            let (text, complete) = ports::interpolate(&written);
            if complete {
                return text;
            }
            if !by_shell {
                unset.push(shown(&written));
            }
            written
        };
        let words = match &field.node.value {
            Value::Sequence(_) => Self::List(
                field
                    .list()
                    .iter()
                    .filter_map(Field::loose_text)
                    .map(|word| text(word, false))
                    .collect(),
            ),
            _ => Self::Line(text(field.loose_text()?, true)),
        };
        if !unset.is_empty() {
            not_followed(
                &field,
                &format!("variables of a list are not filled in: {}", unset.join(", ")),
                "give a default (`${NAME:-value}`), or write the command as one text",
            );
        }
        Some(words)
    }

    /// As a line for a shell, which hands on each word of a list as it is.
    fn line(&self) -> String {
        match self {
            Self::Line(text) => text.to_string(),
            Self::List(words) => {
                let quoted = |word: &Text| format!("'{}'", word.replace('\'', "'\\''"));
                words.iter().map(quoted).collect::<Vec<_>>().join(" ")
            }
        }
    }
}

/// `entrypoint` and behind it `command`, in either form each.
fn command(object: &Object<'_>) -> Option<RunCommand> {
    match (Words::read(object, "entrypoint"), Words::read(object, "command")) {
        (None, None) => None,
        (None, Some(Words::Line(line))) | (Some(Words::Line(line)), None) => {
            (!line.trim().is_empty()).then_some(RunCommand::Shell(line))
        }
        (None, Some(Words::List(words))) | (Some(Words::List(words)), None) => {
            (!words.is_empty()).then_some(RunCommand::Exec(words))
        }
        (Some(Words::List(mut words)), Some(Words::List(more))) => {
            words.extend(more);
            (!words.is_empty()).then_some(RunCommand::Exec(words))
        }
        (Some(first), Some(second)) => {
            let line = format!("{} {}", first.line(), second.line());
            (!line.trim().is_empty()).then(|| RunCommand::Shell(line.trim().into()))
        }
    }
}

/// A list of names, or a mapping with conditions.
fn depends_on(object: &Object<'_>, names: &[Text]) -> Vec<Text> {
    let Some(field) = object.get("depends_on") else {
        return Vec::new();
    };
    let wanted: Vec<(Text, Field<'_>)> = match &field.node.value {
        Value::Sequence(_) => field
            .list()
            .into_iter()
            .filter_map(|f| Some((f.text()?, f)))
            .collect(),
        _ => field.map(),
    };
    let mut all = Vec::new();
    for (name, place) in wanted {
        let name = mesh_name(&name);
        if !names.contains(&name) {
            let hint = match crate::read::nearest(&name, names.iter().map(|n| &**n)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => String::new(),
            };
            place.say_key(
                Severity::Error,
                codes::NO_DEPLOYMENT,
                format!("`{}` is not a service of this file", shown(&name)),
                hint,
            );
        }
        if matches!(place.node.value, Value::Mapping(_))
            && let Some(condition) = place.object()
        {
            condition.ignore(&["restart", "required"]);
            if let Some(field) = condition.get("condition") {
                field.choice(&[
                    ("service_started", ()),
                    ("service_healthy", ()),
                    ("service_completed_successfully", ()),
                ]);
            }
        }
        all.push(name);
    }
    all
}

/// Names in a mesh are DNS labels: no capitals, no `_`.
fn mesh_name(name: &str) -> Text {
    name.to_ascii_lowercase().replace('_', "-").into()
}

/// `networks: {backend: {aliases: […]}}`.
fn aliases(object: &Object<'_>, written: &str, lower: &str) -> Vec<Hostname> {
    let mut all: Vec<Hostname> = Vec::new();
    if written != lower {
        all.extend(written.parse::<Hostname>());
    }
    for name in ["container_name", "hostname"] {
        let alias = object.get(name).and_then(|f| f.loose_text());
        all.extend(
            alias
                .and_then(|text| text.parse::<Hostname>().ok())
                .filter(|h| h.as_str() != lower),
        );
    }
    let networks = object
        .get("networks")
        .filter(|f| matches!(f.node.value, Value::Mapping(_)));
    for (_, network) in networks.map_or_else(Vec::new, |f| f.map()) {
        if network.node.is_null() {
            continue;
        }
        if let Some(network) = network.object() {
            network.ignore_rest();
            all.extend(network.list("aliases").iter().filter_map(Field::hostname));
        }
    }
    all.sort();
    all.dedup();
    all
}

/// Ports of services by name, as addresses in other services' environments have them (`http://api:3000/`).
fn mentioned_ports(drafts: &[Draft<'_>]) -> BTreeMap<Text, Vec<u16>> {
    let mut found: BTreeMap<Text, Vec<u16>> = BTreeMap::new();
    for draft in drafts {
        for item in &draft.raw.env {
            let EnvItem::Value { value, .. } = item else {
                continue;
            };
            for other in drafts {
                let name = &other.raw.deployment.name;
                for port in ports::mentioned(value, name) {
                    let known = found.entry(name.clone()).or_default();
                    if !known.contains(&port) {
                        known.push(port);
                    }
                }
            }
        }
    }
    found
}

fn known_ports(draft: &Draft<'_>, mentioned: &BTreeMap<Text, Vec<u16>>) -> Vec<ServicePort> {
    let name = &draft.raw.deployment.name;
    let port = |number: u16, app: Option<&Text>, protocol: Protocol| ServicePort {
        name: app.cloned().unwrap_or_default(),
        number,
        target: TargetPort::Number(number),
        protocol,
        origin: draft.field.origin(),
    };
    let mut all: Vec<ServicePort> = Vec::new();
    for known in &draft.ports.container {
        if !all.iter().any(|p| p.number == known.number) {
            all.push(port(known.number, known.name.as_ref(), known.protocol));
        }
    }
    for number in mentioned.get(name).into_iter().flatten().copied() {
        if !all.iter().any(|p| p.number == number) {
            all.push(port(
                number,
                None,
                super::protocol::of_port("TCP", None, "", number),
            ));
        }
    }
    if all.is_empty() {
        for number in ports::of_image(&draft.raw.deployment.image) {
            all.push(port(
                *number,
                None,
                super::protocol::of_port("TCP", None, "", *number),
            ));
        }
    }
    if let (true, Some(number)) = (all.is_empty(), draft.probe_port) {
        all.push(port(
            number,
            None,
            super::protocol::of_port("TCP", None, "", number),
        ));
    }
    // Several ports need names to be told apart.
    if all.len() > 1 {
        for port in &mut all {
            if port.name.is_empty() {
                port.name = format!("port-{}", port.number).into();
            }
        }
    }
    all
}

fn mesh_service(draft: &Draft<'_>, ports: &[ServicePort], defaults: &Defaults) -> Option<Service> {
    let deployment = &draft.raw.deployment;
    if ports.is_empty() {
        draft.field.say_key(
            Severity::Note,
            codes::COMPOSE_PORT,
            format!(
                "no port of `{}` is known, so other services can't reach it through the mesh",
                deployment.name
            ),
            "add the port that it listens on, e.g. `expose: [\"8080\"]`",
        );
        return None;
    }
    let [export_to, ..] = &defaults.mesh.default_export;
    Some(Service {
        host: service::host(&deployment.name, &deployment.namespace, defaults)?,
        name: deployment.name.clone(),
        namespace: deployment.namespace.clone(),
        ports: ports.to_vec(),
        selector: Some(Labels::from_iter([(
            "com.docker.compose.service",
            deployment.name.clone(),
        )])),
        resolution: Resolution::Static,
        addresses: Vec::new(),
        headless: false,
        external: false,
        endpoints: Vec::new(),
        subject_alt_names: Vec::new(),
        export_to: export_to.clone(),
        aliases: draft.aliases.clone(),
        traffic_distribution: None,
        origin: draft.field.origin(),
        age: u64::MAX,
    })
}

#[cfg(test)]
mod tests;
