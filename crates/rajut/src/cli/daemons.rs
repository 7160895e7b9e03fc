//! The daemons as commands: `rajut control`, `rajut proxy`, `rajut agent`. The supervisor starts them with the arguments
//! of `rajut_local::commands`, which the test below holds against this command line.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use rajut_control::{ControlOptions, notify::Alertmanager};
use rajut_local::commands::{AlertmanagerCommand, CONTROL_SERVER_NAME};
use rajut_platform::{memory, signals::ShutdownSignals};
use rajut_proxy::{
    agent::{AgentOptions, grpc::GrpcOptions},
    dns::{DnsOptions, resolvers_of},
    enrol::Enrolment,
    run::ProxyOptions,
};
use rajut_runtime::logging::{self, Format};

use super::{WrongUsage, mesh::Place};

/// `rajut control`
#[derive(Debug, clap::Args)]
pub(crate) struct ControlArgs {
    /// Where proxies find discovery and the certificate service
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15012")]
    pub(crate) listen: SocketAddr,
    /// Where a scraper reads the control plane's own metrics, at `/metrics` and nothing else; without it nowhere
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) alertmanager: AlertmanagerArgs,
    /// The namespace of documents without one
    #[arg(short = 'n', long, default_value = "default")]
    pub(crate) namespace: String,
    /// Tell proxies nothing until a supervisor has told which workloads run
    #[arg(long)]
    pub(crate) await_workloads: bool,
    /// Files and folders, read again when they change
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
}

/// Who is told of alarms.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AlertmanagerArgs {
    /// An Alertmanager that is told of alarms; its URL without /api/v2/alerts
    #[arg(long, value_name = "URL")]
    pub(crate) alertmanager: Option<String>,
    /// The roots (PEM) that vouch for an Alertmanager at https, instead of this machine's own
    #[arg(long, value_name = "FILE", requires = "alertmanager")]
    pub(crate) alertmanager_ca: Option<PathBuf>,
    /// A file with the value of the header `authorization` for it, such as `Bearer …`; read for each request
    #[arg(long, value_name = "FILE", requires = "alertmanager")]
    pub(crate) alertmanager_authorization: Option<PathBuf>,
}

impl AlertmanagerArgs {
    /// `None`: nobody is told.
    pub(crate) fn parsed(&self) -> anyhow::Result<Option<Alertmanager>> {
        let Some(url) = &self.alertmanager else {
            return Ok(None);
        };
        for path in [&self.alertmanager_ca, &self.alertmanager_authorization]
            .into_iter()
            .flatten()
        {
            if !path.is_file() {
                return Err(WrongUsage(format!("there is no file `{}`", path.display())).into());
            }
        }
        let (roots, header) = (
            self.alertmanager_ca.clone(),
            self.alertmanager_authorization.clone(),
        );
        // The URL itself is not repeated: it may hold what is wrong with it.
        Alertmanager::new(url, roots, header)
            .map(Some)
            .map_err(|error| WrongUsage(format!("--alertmanager: {error}")).into())
    }

    /// The same for a control plane that is started.
    pub(crate) fn command(&self) -> anyhow::Result<Option<AlertmanagerCommand>> {
        self.parsed()?;
        let whole = |path: Option<&PathBuf>| path.map(std::path::absolute).transpose();
        let Some(url) = self.alertmanager.clone() else {
            return Ok(None);
        };
        Ok(Some(AlertmanagerCommand {
            url,
            roots: whole(self.alertmanager_ca.as_ref())?,
            authorization: whole(self.alertmanager_authorization.as_ref())?,
        }))
    }
}

/// What `proxy` and `agent` share: how the workload's identity is obtained, and its names.
#[derive(Debug, clap::Args)]
pub(crate) struct IdentityArgs {
    /// Who signs the workload's certificate
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ca_address: Option<String>,
    /// By which roots the signer is judged (PEM)
    #[arg(long, value_name = "FILE", requires = "ca_address")]
    pub(crate) ca_roots: Option<PathBuf>,
    /// The token with which the workload proves who it is
    #[arg(long, value_name = "FILE", requires = "ca_address")]
    pub(crate) token_file: Option<PathBuf>,
    /// Where names are answered
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns_listen: Option<SocketAddr>,
    /// The network namespace in which they are
    #[arg(long, value_name = "PATH", requires = "dns_listen")]
    pub(crate) netns: Option<PathBuf>,
}

/// `rajut proxy`
#[derive(Debug, clap::Args)]
pub(crate) struct ProxyArgs {
    /// An Envoy bootstrap, YAML or JSON
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Fetch a service's cluster and endpoints when a request first needs them (our control plane, incremental protocol)
    #[arg(long)]
    pub(crate) on_demand: bool,
    /// Keep the last configuration that the control plane gave there, and start from it when there is no control plane
    #[arg(long, value_name = "FILE")]
    pub(crate) last_known: Option<PathBuf>,
    /// Worker threads
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(crate) concurrency: usize,
    #[command(flatten)]
    pub(crate) identity: IdentityArgs,
}

/// `rajut agent`
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("served").required(true).multiple(true).args(["socket", "grpc_bootstrap"]))]
pub(crate) struct AgentArgs {
    /// The Unix socket on which that Envoy finds discovery
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Write grpc-bootstrap.json (for `GRPC_XDS_BOOTSTRAP`) and the certificate files of a proxyless gRPC process there
    #[arg(long, value_name = "DIR", requires = "workload", requires = "ca_address")]
    pub(crate) grpc_bootstrap: Option<PathBuf>,
    /// Name of the workload instance that the gRPC process is
    #[arg(long, value_name = "NAME", requires = "grpc_bootstrap")]
    pub(crate) workload: Option<String>,
    /// A label of that workload; again for each
    #[arg(long = "label", value_name = "KEY=VALUE", requires = "grpc_bootstrap", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// The workload's address
    #[arg(
        long,
        value_name = "IP",
        requires = "grpc_bootstrap",
        default_value = "127.0.0.1"
    )]
    pub(crate) address: IpAddr,
    #[command(flatten)]
    pub(crate) identity: IdentityArgs,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE is expected, as in --label app=web".to_owned()),
    }
}

/// Life that is asked for unless the environment says less (Istio's `SECRET_TTL`); the authority grants no more.
pub(super) const CERTIFICATE_LIFE: Duration = Duration::from_hours(24);
/// The least that can be asked for.
const CERTIFICATE_LIFE_MIN: Duration = Duration::from_secs(10);
/// Disuse after which a sidecar forgets a service.
const FORGET_AFTER: Duration = Duration::from_mins(10);
/// Istio's `terminationDrainDuration`.
const DRAIN_TIME: Duration = Duration::from_secs(5);

impl IdentityArgs {
    fn enrolment(&self, place: &Place) -> anyhow::Result<Option<Enrolment>> {
        let Some(address) = &self.ca_address else {
            return Ok(None);
        };
        let (Some(roots), Some(token)) = (&self.ca_roots, &self.token_file) else {
            return Err(WrongUsage("--ca-address needs --ca-roots and --token-file".to_owned()).into());
        };
        Ok(Some(Enrolment {
            address: address.clone(),
            server_name: CONTROL_SERVER_NAME.to_owned(),
            roots: roots.clone(),
            token: token.clone(),
            ttl: certificate_life(place)?,
        }))
    }

    fn dns(&self) -> Option<DnsOptions> {
        let listen = self.dns_listen?;
        // Without the file the machine's own resolver is asked, as the C library does.
        let machine = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        Some(DnsOptions {
            listen,
            netns: self.netns.as_ref().map(|path| path.display().to_string()),
            domain: "cluster.local".to_owned(),
            resolvers: resolvers_of(&machine),
        })
    }
}

/// What certificates are asked to live.
fn certificate_life(place: &Place) -> anyhow::Result<Duration> {
    let wished = place.env.duration("RAJUT_CERTIFICATE_TTL");
    let life = wished.unwrap_or(CERTIFICATE_LIFE);
    if (CERTIFICATE_LIFE_MIN..=CERTIFICATE_LIFE).contains(&life) {
        return Ok(life);
    }
    let said = format!("RAJUT_CERTIFICATE_TTL={life:?} is not from 10s to 24h");
    Err(WrongUsage(said).into())
}

/// After how long a disuse what was fetched on demand is forgotten; `None` where everything is told at once.
fn on_demand(place: &Place, args: &ProxyArgs) -> Option<Duration> {
    let after = place.env.duration("RAJUT_FORGET_AFTER").unwrap_or(FORGET_AFTER);
    (args.on_demand && !place.env.flag("RAJUT_FULL_PUSH")).then(|| after.max(Duration::from_secs(1)))
}

/// Logging as the environment has it; daemons say what they do.
fn start_logging(place: &Place) -> anyhow::Result<()> {
    let filter = place.env.text("RAJUT_LOG").unwrap_or("info");
    let format = match place.env.text("RAJUT_LOG_FORMAT") {
        Some("json") => Format::Json,
        None | Some("text") => Format::Text,
        Some(other) => {
            return Err(WrongUsage(format!("RAJUT_LOG_FORMAT={other} is neither text nor json")).into());
        }
    };
    Ok(logging::init(filter, format)?)
}

pub(crate) fn control(place: &Place, args: &ControlArgs) -> anyhow::Result<ExitCode> {
    start_logging(place)?;
    memory::give_back_in_background();
    let options = ControlOptions {
        paths: args.paths.clone(),
        default_namespace: args.namespace.as_str().into(),
        listen: args.listen,
        metrics: args.metrics,
        alertmanager: args.alertmanager.parsed()?,
        awaits_workloads: args.await_workloads,
        ..ControlOptions::new(place.state.path())
    };
    let options = match place.env.duration("RAJUT_LEARN_FOR") {
        Some(learning) => ControlOptions { learning, ..options },
        None => options,
    };
    super::block_on(async {
        let mut shutdown = ShutdownSignals::listen()?;
        let control = rajut_control::start(options).await?;
        shutdown.next().await;
        control.stop();
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn proxy(place: &Place, args: &ProxyArgs) -> anyhow::Result<ExitCode> {
    start_logging(place)?;
    memory::give_back_in_background();
    rajut_proxy::run::run(ProxyOptions {
        bootstrap: args.config.clone(),
        concurrency: args.concurrency,
        enrolment: args.identity.enrolment(place)?,
        dns: args.identity.dns(),
        drain_time: DRAIN_TIME,
        last_known: args.last_known.clone(),
        on_demand: on_demand(place, args),
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn agent(place: &Place, args: &AgentArgs) -> anyhow::Result<ExitCode> {
    start_logging(place)?;
    let Some(enrolment) = args.identity.enrolment(place)? else {
        return Err(WrongUsage("an agent needs --ca-address".to_owned()).into());
    };
    let grpc = match (&args.grpc_bootstrap, &args.workload) {
        (Some(folder), Some(workload)) => Some(GrpcOptions {
            folder: std::path::absolute(folder)?,
            control: enrolment.address.clone(),
            workload: workload.clone(),
            labels: args.labels.clone(),
            address: args.address,
        }),
        _ => None,
    };
    let options = AgentOptions {
        xds_socket: args.socket.clone(),
        grpc,
        enrolment,
        dns: args.identity.dns(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(rajut_proxy::agent::run(options))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rajut_local::{
        commands::{self, AlertmanagerCommand, ControlCommand, SidecarCommand},
        state::StateDir,
    };

    use crate::cli::{Cli, Command};

    fn parse(arguments: Vec<String>) -> Command {
        let words = std::iter::once("rajut".to_owned()).chain(arguments);
        Cli::try_parse_from(words).unwrap().command
    }

    #[test]
    fn the_daemons_understand_what_the_supervisor_says() {
        let state = StateDir::locate(Some("/s".as_ref()), None, None).unwrap();
        let control = ControlCommand {
            listen: "127.10.255.1:15012".parse().unwrap(),
            sources: vec!["/a".into(), "-odd".into()],
            namespace: "clinic".into(),
            alertmanager: Some(AlertmanagerCommand {
                url: "https://a.example".into(),
                roots: Some("/roots.pem".into()),
                authorization: Some("/header".into()),
            }),
        };
        let Command::Control(parsed) = parse(commands::control(&control, &state)) else {
            panic!()
        };
        assert_eq!((parsed.listen, &parsed.paths), (control.listen, &control.sources));
        assert_eq!(parsed.metrics, Some(control.metrics()));
        let told = &parsed.alertmanager;
        assert_eq!(told.alertmanager.as_deref(), Some("https://a.example"));
        assert_eq!(told.alertmanager_ca, Some("/roots.pem".into()));
        assert_eq!(told.alertmanager_authorization, Some("/header".into()));
        let sidecar = SidecarCommand {
            folder: "/s/sidecars/a.b".into(),
            control: control.listen,
            namespace: Some("/proc/1/ns/net".into()),
        };
        let Command::Proxy(parsed) = parse(commands::proxy(&sidecar, &state)) else {
            panic!()
        };
        assert_eq!(parsed.config, sidecar.bootstrap());
        assert_eq!(parsed.identity.netns, sidecar.namespace);
        let Command::Agent(parsed) = parse(commands::agent(&sidecar, &state)) else {
            panic!()
        };
        assert_eq!(parsed.socket, Some(sidecar.agent_socket()));
    }
}
