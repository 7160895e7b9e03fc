//! What is to run: instances with names, addresses, ports and environment, computed from the validated model.
//!
//! Pure but for the ports that explicit mode needs from the operating system, which come through an argument. The
//! order is that of names, so that the same files give the same addresses each time.
//!
//! Bounds: [`WORKLOADS_MAX`] instances, [`OUTBOUND_MAX`] service ports in explicit mode.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use rajut_config::model::{
    ContainerPort, Deployment, EnvValue, InstanceField, Probe, Protocol, RunCommand, Service, TargetPort,
};
use rajut_types::{Hostname, Labels, Text};

use crate::{
    address::{self, ADMIN_PORT, AddressBlock, OUTBOUND_PORT_FIRST, WORKLOADS_MAX},
    env,
};

/// Service ports that explicit mode can give a listener each; the control plane takes no more of one node.
pub const OUTBOUND_MAX: usize = 4_096;

/// Whether workloads live in namespaces of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureMode {
    /// A network namespace each.
    Netns,
    /// Local ports and environment variables.
    Explicit,
}

/// One instance of a workload.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// Its number in the mesh's addresses; kept as long as it runs.
    pub index: usize,
    /// Unique in the namespace: the deployment's name and a number.
    pub name: Text,
    /// The deployment's name.
    pub deployment: Text,
    /// Its namespace.
    pub namespace: Text,
    /// Its labels.
    pub labels: Labels,
    /// Its service account.
    pub service_account: Text,
    /// Where other proxies reach it.
    pub address: Ipv4Addr,
    /// Its address inside its namespace (netns mode).
    pub app_address: Ipv4Addr,
    /// Its ports, ascending.
    pub ports: Vec<InstancePort>,
    /// Its sidecar's admin address.
    pub admin_address: SocketAddr,
    /// Environment in order; later entries win.
    pub env: Vec<(String, String)>,
    /// What its manifest says of it.
    pub declared_env: Vec<(Text, EnvValue)>,
    /// Outbound listeners (explicit mode).
    pub outbound: Vec<OutboundPort>,
    /// What is started.
    pub run: RunCommand,
    /// When it may take traffic.
    pub readiness: Option<Probe>,
    /// When it is restarted.
    pub liveness: Option<Probe>,
    /// How long it may take to end.
    pub grace_period: Duration,
    /// Deployments that must be ready first.
    pub depends_on: Vec<Text>,
    /// Where it is started; `None`: where `up` was.
    pub directory: Option<PathBuf>,
    /// Container port → port of this machine that is forwarded to it, past its sidecar.
    pub host_ports: Vec<(u16, u16)>,
    /// A gateway, which is a proxy alone: port of its servers → where this machine's clients reach it. [`plan`] leaves that
    /// empty; whoever gives out addresses of the machine fills it.
    pub gateway: Option<BTreeMap<u16, SocketAddr>>,
}

impl Instance {
    /// `<name>.<namespace>`, the key in files and messages.
    pub fn key(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }

    /// Whether its processes need not be started anew to become `next`. What follows from the services around it (in
    /// explicit mode ports and variables for those it may call) is as it was when it started.
    pub fn runs_as(&self, next: &Self) -> bool {
        let Self {
            index: _,
            name,
            deployment,
            namespace,
            labels,
            service_account,
            address: _,
            app_address: _,
            ports,
            admin_address: _,
            env: _,
            declared_env,
            outbound: _,
            run,
            readiness,
            liveness,
            grace_period,
            depends_on: _,
            directory,
            host_ports,
            gateway,
        } = self;
        // A gateway is told of its ports while it runs.
        let same_ports = gateway.is_some() || *ports == next.ports;
        (name, deployment, namespace) == (&next.name, &next.deployment, &next.namespace)
            && (labels, service_account) == (&next.labels, &next.service_account)
            && same_ports
            && (declared_env, run, gateway.is_some())
                == (&next.declared_env, &next.run, next.gateway.is_some())
            && (readiness, liveness, grace_period) == (&next.readiness, &next.liveness, &next.grace_period)
            && (directory, host_ports) == (&next.directory, &next.host_ports)
    }

    /// The services that `next` has ports for and this one has not, as `name.namespace:port` (explicit mode).
    pub fn lacks(&self, next: &Self) -> Vec<String> {
        let has = |port: &&OutboundPort| {
            !self
                .outbound
                .iter()
                .any(|own| own.host == port.host && own.port == port.port)
        };
        next.outbound
            .iter()
            .filter(has)
            .map(|port| format!("{}.{}:{}", port.service, port.namespace, port.port))
            .collect()
    }

    /// Where the application is reached by its sidecar and its probes.
    pub fn app_socket(&self, mode: CaptureMode, container_port: u16) -> Option<SocketAddr> {
        let port = self.port(container_port)?;
        Some(match mode {
            CaptureMode::Netns => SocketAddr::from((self.app_address, container_port)),
            CaptureMode::Explicit => SocketAddr::from((Ipv4Addr::LOCALHOST, port.app)),
        })
    }

    fn port(&self, container_port: u16) -> Option<&InstancePort> {
        self.ports.iter().find(|port| port.container == container_port)
    }

    /// Where the others reach `container_port`.
    pub fn inbound_socket(&self, container_port: u16) -> SocketAddr {
        let reached = self.port(container_port).map(|port| port.reached);
        SocketAddr::from((self.address, reached.unwrap_or(container_port)))
    }

    /// The sidecar's admin address.
    pub const fn admin(&self) -> SocketAddr {
        self.admin_address
    }

    /// Container port → where the others reach it, for those where that is another port.
    pub fn reached_ports(&self) -> BTreeMap<u16, u16> {
        self.ports
            .iter()
            .filter(|port| port.reached != port.container)
            .map(|port| (port.container, port.reached))
            .collect()
    }

    /// `name → number` of its named ports.
    pub fn named_ports(&self) -> BTreeMap<Text, u16> {
        self.ports
            .iter()
            .filter(|port| !port.name.is_empty())
            .map(|port| (port.name.clone(), port.container))
            .collect()
    }
}

/// A port of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstancePort {
    /// May be empty.
    pub name: Text,
    /// What the manifest says.
    pub container: u16,
    /// Where the others reach it on the instance's address: the same, unless all instances share one address.
    pub reached: u16,
    /// What the application listens on: the same in a namespace, one of its own in explicit mode.
    pub app: u16,
}

/// One outbound listener of a sidecar in explicit mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundPort {
    /// Fully qualified.
    pub host: Hostname,
    /// Short name.
    pub service: Text,
    /// Its namespace.
    pub namespace: Text,
    /// The service's port.
    pub port: u16,
    /// Of the port.
    pub protocol: Protocol,
    /// Where the sidecar listens.
    pub listen: SocketAddr,
}

/// A deployment that has nothing to run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotStarted {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What to add on the command line.
    pub add: String,
}

/// Everything that is to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Sorted by namespace and name.
    pub instances: Vec<Instance>,
    /// Sorted by namespace and name.
    pub not_started: Vec<NotStarted>,
}

/// Why no plan could be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// More than the machine's address block holds.
    #[error("{found} workload instances are asked for, at most {WORKLOADS_MAX} run on one machine")]
    TooMany {
        /// How many were asked for.
        found: usize,
    },
    /// `--run` for a name that no manifest has.
    #[error("--run {name}: there is no such workload{}", suggestion(.known))]
    UnknownRun {
        /// The name.
        name: String,
        /// Names that exist.
        known: Vec<String>,
    },
    /// `--run` without a command for a workload whose documents say none either.
    #[error("--run {name}: no document says what `{name}` runs; write {add}")]
    NoCommand {
        /// The name.
        name: String,
        /// What to write.
        add: String,
    },
    /// The operating system gave no port.
    #[error("no free local port for {workload}")]
    Port {
        /// For whom.
        workload: String,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

fn suggestion(known: &[String]) -> String {
    if known.is_empty() {
        String::new()
    } else {
        format!("; there are {}", known.join(", "))
    }
}

/// What a plan is made from.
#[derive(Debug)]
pub struct PlanInput<'a> {
    /// What is deployed.
    pub deployments: &'a [Deployment],
    /// What can be called.
    pub services: &'a [Service],
    /// `--run NAME=COMMAND`, or `--run NAME` for what its documents say that it runs; a name may have `.NAMESPACE` behind.
    pub runs: &'a [(String, Option<String>)],
    /// How traffic is captured.
    pub mode: CaptureMode,
    /// Where addresses come from.
    pub block: &'a AddressBlock,
    /// What runs already: it keeps its addresses, ports and folder. Empty at the start.
    pub previous: &'a [Instance],
}

impl PlanInput<'_> {
    fn known(&self, namespace: &str, name: &str) -> Option<&Instance> {
        self.previous
            .iter()
            .find(|known| *known.name == *name && *known.namespace == *namespace)
    }

    /// An instance of the deployment that runs.
    fn sibling(&self, deployment: &Deployment) -> Option<&Instance> {
        self.previous
            .iter()
            .find(|known| known.deployment == deployment.name && known.namespace == deployment.namespace)
    }
}

/// Makes the plan; `free_port` gives ports for applications in explicit mode.
pub fn plan(
    input: &PlanInput<'_>,
    mut free_port: impl FnMut() -> io::Result<u16>,
) -> Result<Plan, PlanError> {
    if input.previous.is_empty() {
        check_runs(input)?;
    }
    let mut deployments: Vec<&Deployment> = input.deployments.iter().collect();
    deployments.sort_by_key(|deployment| (deployment.namespace.clone(), deployment.name.clone()));
    let mut result = Plan {
        instances: Vec::new(),
        not_started: Vec::new(),
    };
    let mut taken: BTreeSet<usize> = input.previous.iter().map(|known| known.index).collect();
    for deployment in deployments {
        let (given, here) = given_run(deployment, input.runs);
        let directory = (!here).then(|| directory(deployment, input.sibling(deployment)));
        let run = given.or_else(|| deployment.run.clone());
        let is_gateway = deployment.gateway && run.is_none();
        let run = run.or_else(|| is_gateway.then(|| RunCommand::Exec(Vec::new())));
        let Some(run) = run else {
            result.not_started.push(NotStarted {
                name: deployment.name.to_string(),
                namespace: deployment.namespace.to_string(),
                add: deployment.run_option(&deployment.name),
            });
            continue;
        };
        for replica in 0..deployment.replicas {
            let name: Text = format!("{}-{replica}", deployment.name).into();
            let index = match input.known(&deployment.namespace, &name) {
                Some(known) => known.index,
                None => (0..WORKLOADS_MAX)
                    .find(|index| !taken.contains(index))
                    .unwrap_or(WORKLOADS_MAX),
            };
            taken.insert(index);
            if index >= WORKLOADS_MAX {
                let found = input.deployments.iter().map(|one| one.replicas as usize).sum();
                return Err(PlanError::TooMany { found });
            }
            let place = (replica, name, index);
            let mut instance = instance(input, deployment, run.clone(), place, &mut free_port)?;
            instance.directory.clone_from(&directory);
            if is_gateway {
                instance.gateway = Some(BTreeMap::new());
                instance.outbound = Vec::new();
            }
            result.instances.push(instance);
        }
    }
    Ok(result)
}

fn names(key: &str, deployment: &Deployment) -> bool {
    match key.strip_prefix(&*deployment.name) {
        Some("") => true,
        Some(rest) => rest.strip_prefix('.') == Some(&deployment.namespace),
        None => false,
    }
}

fn check_runs(input: &PlanInput<'_>) -> Result<(), PlanError> {
    for (name, command) in input.runs {
        let mut named = input.deployments.iter().filter(|one| names(name, one)).peekable();
        if named.peek().is_none() {
            return Err(PlanError::UnknownRun {
                name: name.clone(),
                known: input.deployments.iter().map(|one| one.name.to_string()).collect(),
            });
        }
        if command.is_none()
            && let Some(mute) = named.find(|one| one.run.is_none() && one.own_command().is_none())
        {
            return Err(PlanError::NoCommand {
                name: name.clone(),
                add: mute.run_option(name),
            });
        }
    }
    Ok(())
}

/// What the command line says, and whether it runs where `up` was called: a document's own command runs where its
/// document is.
fn given_run(deployment: &Deployment, runs: &[(String, Option<String>)]) -> (Option<RunCommand>, bool) {
    match runs.iter().rev().find(|(name, _)| names(name, deployment)) {
        Some((_, Some(command))) => (Some(RunCommand::Shell(command.as_str().into())), true),
        Some((_, None)) if deployment.run.is_none() => (deployment.own_command(), false),
        _ => (None, false),
    }
}

fn instance(
    input: &PlanInput<'_>,
    deployment: &Deployment,
    run: RunCommand,
    (replica, name, index): (u32, Text, usize),
    free_port: &mut impl FnMut() -> io::Result<u16>,
) -> Result<Instance, PlanError> {
    let known = input.known(&deployment.namespace, &name);
    let no_port = |source| PlanError::Port {
        workload: name.to_string(),
        source,
    };
    let address = input.block.workload(index);
    let mut ports = Vec::new();
    for ContainerPort {
        name: port_name,
        number,
    } in container_ports(deployment, input.services)
    {
        let kept = known.and_then(|known| known.port(number));
        let app = match (input.mode, kept) {
            (CaptureMode::Netns, _) => number,
            (CaptureMode::Explicit, Some(port)) => port.app,
            (CaptureMode::Explicit, None) => free_port().map_err(no_port)?,
        };
        let reached = match kept {
            Some(port) => port.reached,
            None => input.block.socket(address, number).map_err(no_port)?.port(),
        };
        ports.push(InstancePort {
            name: port_name,
            container: number,
            reached,
            app,
        });
    }
    let admin_address = match known {
        Some(known) => known.admin_address,
        None => input.block.socket(address, ADMIN_PORT).map_err(no_port)?,
    };
    let outbound = match input.mode {
        CaptureMode::Netns => Vec::new(),
        CaptureMode::Explicit => {
            let kept = known.map_or(&[][..], |known| &known.outbound);
            outbound(input, &deployment.namespace, address, &ports, kept).map_err(no_port)?
        }
    };
    let mut instance = Instance {
        index,
        name,
        deployment: deployment.name.clone(),
        namespace: deployment.namespace.clone(),
        labels: deployment.labels.clone(),
        service_account: deployment.service_account.clone(),
        address,
        app_address: address::inside(index),
        ports,
        admin_address,
        env: Vec::new(),
        declared_env: deployment.env.clone(),
        outbound,
        run,
        readiness: deployment.readiness.clone(),
        liveness: deployment.liveness.clone(),
        grace_period: deployment.grace_period,
        depends_on: deployment.depends_on.clone(),
        directory: None,
        // One machine port goes to one instance: the first.
        host_ports: if replica == 0 {
            deployment.host_ports.clone()
        } else {
            Vec::new()
        },
        gateway: None,
    };
    instance.env = environment(&instance, deployment, input.mode);
    Ok(instance)
}

/// Commands in files run in the folder of the file, or in the `workingDir` below it. Standard input has no folder: there
/// it is where `up` was called, as for commands on the command line. What was applied to a running workload leaves it
/// where it is.
fn directory(deployment: &Deployment, sibling: Option<&Instance>) -> PathBuf {
    if deployment.origin.source.starts_with('<')
        && let Some(directory) = sibling.and_then(|sibling| sibling.directory.clone())
    {
        return directory;
    }
    let folder = Path::new(&*deployment.origin.source)
        .parent()
        .unwrap_or(Path::new(""));
    let directory = match &deployment.working_directory {
        Some(below) => folder.join(&**below),
        None => folder.to_owned(),
    };
    if directory.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        directory
    }
}

/// Declared ports, and those that a service which selects the deployment sends to.
fn container_ports(deployment: &Deployment, services: &[Service]) -> Vec<ContainerPort> {
    let mut ports: BTreeMap<u16, Text> = deployment
        .ports
        .iter()
        .map(|port| (port.number, port.name.clone()))
        .collect();
    for service in services.iter().filter(|service| selects(service, deployment)) {
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            if let TargetPort::Number(number) = port.target {
                ports.entry(number).or_insert_with(|| "".into());
            }
        }
    }
    ports
        .into_iter()
        .map(|(number, name)| ContainerPort { name, number })
        .collect()
}

fn selects(service: &Service, deployment: &Deployment) -> bool {
    service.namespace == deployment.namespace
        && service
            .selector
            .as_ref()
            .is_some_and(|selector| !selector.is_empty() && deployment.labels.matches(selector))
}

/// One listener for each port of each service that its namespace sees, on the instance's own address; where all share an
/// address, those that it had stay where they are.
fn outbound(
    input: &PlanInput<'_>,
    namespace: &str,
    address: Ipv4Addr,
    ports: &[InstancePort],
    kept: &[OutboundPort],
) -> io::Result<Vec<OutboundPort>> {
    let taken: BTreeSet<u16> = ports.iter().map(|port| port.container).collect();
    let mut numbers = (OUTBOUND_PORT_FIRST..u16::MAX).filter(|number| !taken.contains(number));
    service_ports(input.services, namespace)
        .take(OUTBOUND_MAX)
        .zip(&mut numbers)
        .map(|((service, port), number)| {
            let before = kept
                .iter()
                .find(|before| before.host == service.host && before.port == port.number);
            let listen = match before {
                Some(before) if input.block.is_shared() => before.listen,
                _ => input.block.socket(address, number)?,
            };
            Ok(OutboundPort {
                host: service.host.clone(),
                service: service.name.clone(),
                namespace: service.namespace.clone(),
                port: port.number,
                protocol: port.protocol,
                listen,
            })
        })
        .collect()
}

/// The ports of services (names without a wildcard) that `namespace` sees, in the order of namespace and name.
pub fn service_ports<'a>(
    services: &'a [Service],
    namespace: &str,
) -> impl Iterator<Item = (&'a Service, &'a rajut_config::model::ServicePort)> {
    let mut visible: Vec<&Service> = services
        .iter()
        .filter(|service| !service.host.is_wildcard() && service.export_to.includes(namespace))
        .collect();
    visible.sort_by_key(|service| (service.namespace.clone(), service.name.clone()));
    visible.into_iter().flat_map(|service| {
        service
            .ports
            .iter()
            .filter(|port| port.protocol != Protocol::Udp)
            .map(move |port| (service, port))
    })
}

fn environment(instance: &Instance, deployment: &Deployment, mode: CaptureMode) -> Vec<(String, String)> {
    let mut variables = vec![
        ("RAJUT_WORKLOAD".to_owned(), instance.name.to_string()),
        ("RAJUT_NAMESPACE".to_owned(), instance.namespace.to_string()),
        ("SERVICE_NAME".to_owned(), instance.deployment.to_string()),
    ];
    match (mode, instance.ports.first()) {
        (CaptureMode::Explicit, _) => {
            variables.extend(env::outbound_variables(&instance.namespace, &instance.outbound));
        }
        // A convenience for commands that serve in both modes; the manifest's own PORT wins.
        (CaptureMode::Netns, Some(first)) => variables.push(("PORT".to_owned(), first.container.to_string())),
        (CaptureMode::Netns, None) => {}
    }
    let own = |field: InstanceField| match (field, mode) {
        (InstanceField::Name, _) => instance.name.to_string(),
        (InstanceField::Address, CaptureMode::Netns) => instance.app_address.to_string(),
        (InstanceField::Address, CaptureMode::Explicit) => instance.address.to_string(),
        (InstanceField::Node, _) => rajut_platform::host::hostname(),
    };
    for (name, value) in &deployment.env {
        let value = value.for_instance(own);
        let value = match mode {
            CaptureMode::Netns => value,
            CaptureMode::Explicit => env::rewrite_addresses(&value, &instance.namespace, &instance.outbound),
        };
        variables.push((name.to_string(), value));
    }
    // Behind the manifest's own: in explicit mode its PORT is that of the container, which the sidecar holds.
    for port in &instance.ports {
        variables.push((format!("RAJUT_APP_PORT_{}", port.container), port.app.to_string()));
    }
    if let (CaptureMode::Explicit, Some(first)) = (mode, instance.ports.first()) {
        variables.push(("PORT".to_owned(), first.app.to_string()));
    }
    variables
}

#[cfg(test)]
mod tests;
