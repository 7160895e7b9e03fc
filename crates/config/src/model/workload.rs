//! Workloads: what is deployed (a template with replicas) and what runs (instances with addresses).

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rajut_types::{Hostname, Labels, Locality, Origin, Principal, Text, TrustDomain};

/// What is to run: from a Deployment, StatefulSet, Compose service or `LocalWorkload`.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// `metadata.name`, or the Compose service.
    pub name: Text,
    /// Its namespace.
    pub namespace: Text,
    /// The kind it was written as.
    pub kind: Text,
    /// Copies; default 1.
    pub replicas: u32,
    /// Labels of each copy.
    pub labels: Labels,
    /// Default `default`.
    pub service_account: Text,
    /// Environment in the order written, references to config maps and secrets resolved.
    pub env: Vec<(Text, EnvValue)>,
    /// Container ports.
    pub ports: Vec<ContainerPort>,
    /// When it may take traffic.
    pub readiness: Option<Probe>,
    /// When it is restarted.
    pub liveness: Option<Probe>,
    /// What runs it locally; `None`: it is listed as not started.
    pub run: Option<RunCommand>,
    /// Where it is run, relative to the folder of its source; `None`: that folder.
    pub working_directory: Option<Text>,
    /// Container port → port of this machine that is forwarded to it.
    pub host_ports: Vec<(u16, u16)>,
    /// What its container would run: shown, and run only where the command line says so (`--run NAME`), since it may
    /// need what is in the image. A single text is a line for a shell.
    pub command: Vec<Text>,
    /// `args` without a `command`: given to the program that the image starts, which nothing here names.
    pub image_arguments: Vec<Text>,
    /// Container images, for messages only.
    pub image: Text,
    /// It is a gateway: a proxy at the mesh's edge, without an application.
    pub gateway: bool,
    /// `terminationGracePeriodSeconds`; default 30 s.
    pub grace_period: Duration,
    /// Names that must be ready first (Compose `depends_on`).
    pub depends_on: Vec<Text>,
    /// Where.
    pub origin: Origin,
}

/// The value of a variable: text, and between it what only a running copy knows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EnvValue {
    parts: Vec<EnvPart>,
    secret: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum EnvPart {
    Text(String),
    Instance(InstanceField),
}

/// What a copy of a deployment knows of itself when it runs. Source: Kubernetes, "Downward API".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceField {
    /// `metadata.name`.
    Name,
    /// `status.podIP`.
    Address,
    /// `spec.nodeName`: the machine.
    Node,
}

impl EnvValue {
    /// A value that is known already; `secret`: it came from a secret and is never shown.
    pub fn new(text: &str, secret: bool) -> Self {
        Self {
            parts: vec![EnvPart::Text(text.to_owned())],
            secret,
        }
    }

    /// Appends text.
    pub fn push_text(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(EnvPart::Text(last)) => last.push_str(text),
            _ => self.parts.push(EnvPart::Text(text.to_owned())),
        }
    }

    /// Appends what the copy will know.
    pub fn push_field(&mut self, field: InstanceField) {
        self.parts.push(EnvPart::Instance(field));
    }

    /// Appends another value; what a secret is part of is one.
    pub fn push(&mut self, other: &Self) {
        self.secret |= other.secret;
        for part in &other.parts {
            match part {
                EnvPart::Text(text) => self.push_text(text),
                EnvPart::Instance(field) => self.push_field(*field),
            }
        }
    }

    /// Bytes of what is known.
    pub fn len(&self) -> usize {
        self.parts
            .iter()
            .map(|part| match part {
                EnvPart::Text(text) => text.len(),
                EnvPart::Instance(_) => 0,
            })
            .sum()
    }

    /// Whether it is the empty text.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && !self.parts.iter().any(|part| matches!(part, EnvPart::Instance(_)))
    }

    /// The value for one copy.
    pub fn for_instance(&self, field: impl Fn(InstanceField) -> String) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                EnvPart::Text(text) => text.clone(),
                EnvPart::Instance(of) => field(*of),
            })
            .collect()
    }
}

impl fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.secret {
            return f.write_str("(a secret)");
        }
        fmt::Debug::fmt(&self.for_instance(|field| format!("({field:?})")), f)
    }
}

impl Deployment {
    /// What its container would run, as a line for a shell; shown with what to write where nothing says what to run.
    fn shown_command(&self) -> String {
        let line = |words: &[Text]| {
            words
                .iter()
                .map(|word| quoted(word))
                .collect::<Vec<_>>()
                .join(" ")
        };
        match &self.command[..] {
            [] if self.image_arguments.is_empty() => "COMMAND".to_owned(),
            [] => format!("COMMAND {}", line(&self.image_arguments)),
            // A single text with blanks is a line for a shell already.
            [line] => crate::read::shown(line),
            words => line(words),
        }
    }

    /// What its container would run, as a process of this machine.
    pub fn own_command(&self) -> Option<RunCommand> {
        match &self.command[..] {
            [] => None,
            [line] => Some(RunCommand::Shell(line.clone())),
            words => Some(RunCommand::Exec(words.to_vec())),
        }
    }

    /// What to add to `rajut up` so that it is started; `name` is its name there.
    pub fn run_option(&self, name: &str) -> String {
        format!("--run {name}='{}'", self.shown_command().replace('\'', "'\\''"))
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        crate::read::shown(word)
    } else {
        format!("\"{}\"", crate::read::shown(word).replace('"', "\\\""))
    }
}

/// A service account that somebody wrote down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its name.
    pub name: Text,
    /// Its namespace.
    pub namespace: Text,
    /// Where.
    pub origin: Origin,
}

/// A config map: what environments refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMap {
    /// Its name.
    pub name: Text,
    /// Its namespace.
    pub namespace: Text,
    /// Keys that hold text.
    pub data: BTreeMap<Text, Text>,
    /// Where.
    pub origin: Origin,
}

/// A port that a container listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPort {
    /// May be empty.
    pub name: Text,
    /// The number.
    pub number: u16,
}

/// How a workload is started on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunCommand {
    /// Through the shell, as in `--run NAME='node server.js'`.
    Shell(Text),
    /// Program and arguments.
    Exec(Vec<Text>),
    /// The sample server inside `rajut`.
    Sample,
}

/// A probe. Source: Kubernetes `core/v1.Probe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub check: ProbeCheck,
    /// Default 0 s.
    pub initial_delay: Duration,
    /// Default 10 s.
    pub period: Duration,
    /// Default 1 s.
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy; default 3.
    pub failure_threshold: u32,
    /// Successes in a row that make it healthy; default 1.
    pub success_threshold: u32,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeCheck {
    /// A status from 200 to 399.
    Http {
        /// The port.
        port: u16,
        /// With the leading slash.
        path: Text,
        /// Extra headers.
        headers: Vec<(Text, Text)>,
    },
    /// A connection.
    Tcp {
        /// The port.
        port: u16,
    },
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// The port.
        port: u16,
        /// Service name, may be empty.
        service: Text,
    },
    /// Exit status 0.
    Exec(Vec<Text>),
}

/// What runs: one instance with its address. It is told to the control plane by whoever runs it (`local`, Kubernetes).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Unique in the namespace, e.g. `encounter-service-0`.
    pub name: Text,
    /// The deployment it belongs to.
    pub deployment: Text,
    /// Its namespace.
    pub namespace: Text,
    /// Its labels.
    pub labels: Labels,
    /// Its service account.
    pub service_account: Text,
    /// Where other proxies reach it.
    pub address: IpAddr,
    /// Container port name → number, to resolve named target ports.
    pub named_ports: BTreeMap<Text, u16>,
    /// Container port → the port of `address` on which other proxies reach it, for those where that is another: where all
    /// workloads of a machine share one address.
    pub reached_ports: BTreeMap<u16, u16>,
    /// Of a gateway in a local mesh: port of its servers → where this machine's own clients reach it. `None`: no gateway.
    pub gateway: Option<BTreeMap<u16, SocketAddr>>,
    /// It has a sidecar that speaks mTLS (Istio label `security.istio.io/tlsMode: istio`).
    pub mesh: bool,
    /// Where it runs.
    pub locality: Locality,
    /// At least 1.
    pub weight: u32,
    /// Whether it may take new traffic.
    pub health: WorkloadHealth,
}

impl Workload {
    /// Where other proxies reach a container port.
    pub fn reached(&self, container_port: u16) -> SocketAddr {
        let port = self.reached_ports.get(&container_port).copied();
        SocketAddr::new(self.address, port.unwrap_or(container_port))
    }

    /// The container port that other proxies reach at `socket`; the inverse of [`Workload::reached`].
    pub fn container_port(&self, socket: SocketAddr) -> Option<u16> {
        if socket.ip() != self.address {
            return None;
        }
        let mapped = self
            .reached_ports
            .iter()
            .find(|(_, port)| **port == socket.port());
        match mapped {
            Some((container, _)) => Some(*container),
            None if self.reached_ports.is_empty() => Some(socket.port()),
            None => None,
        }
    }

    /// Its identity in `trust_domain`.
    pub fn principal(&self, trust_domain: &TrustDomain) -> Principal {
        Principal::new(trust_domain, &self.namespace, &self.service_account)
    }
}

/// Whether a workload may take new traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadHealth {
    /// Its probe says so.
    Ready,
    /// Not yet, or not any more.
    NotReady,
    /// On its way out: open requests finish, no new ones.
    Terminating,
}

/// The canonical service of a workload ([`Labels::canonical_service`]).
pub fn canonical_service<'a>(labels: &'a Labels, deployment: &'a str) -> &'a str {
    labels.canonical_service(deployment)
}

/// The canonical revision of a workload ([`Labels::canonical_revision`]).
pub fn canonical_revision(labels: &Labels) -> &str {
    labels.canonical_revision()
}

/// A host of the mesh that stands for a server on the machine outside the workloads' namespaces.
///
/// # Panics
/// Never: the name is a constant that is valid.
pub fn host_alias() -> Hostname {
    "host.rajut.internal"
        .parse()
        .expect("a constant that is a valid host name")
}
