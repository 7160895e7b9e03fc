//! The command line: what can be said, and which module answers it.

pub(crate) mod admin;
mod alarms;
mod analyze;
mod daemons;
mod dashboard;
mod exec;
mod identity;
mod lifecycle;
mod logs;
mod mesh;
mod policy;
mod proxies;
mod resources;
mod restart;
mod scan;
mod sources;
pub(crate) mod status;
mod time;
mod top;
mod verify;
mod why;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::output::{self, Format};

#[cfg(test)]
pub(crate) use mesh::VARIABLES;

/// A service mesh that guards people's data.
///
/// `rajut up` starts a whole mesh on this machine from the manifests that you have: every workload is a process with a
/// sidecar process of its own, an identity, and mTLS on every hop. Without a path it starts the built-in clinic
/// example.
#[derive(Debug, Parser)]
#[command(name = "rajut", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Where the mesh keeps its state [default: the user's XDG state folder]
    #[arg(
        long,
        env = "RAJUT_STATE_DIR",
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub(crate) state_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What `-o` may be, in every reading command.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct OutputFormat {
    /// How the answer is written
    #[arg(short = 'o', long = "output", value_enum, default_value = "text")]
    pub(crate) format: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a whole mesh on this machine; without PATH the built-in clinic example
    Up(Box<lifecycle::UpArgs>),
    /// Stop the mesh and everything that belongs to it
    Down,
    /// What runs, and whether it is healthy
    Status(OutputFormat),
    /// Who calls whom, how much, how well and how fast, live
    Top(top::TopArgs),
    /// What is out of the ordinary, without a rule: first calls, fan-out, refusals, rate, errors, latency, bytes
    Alarms(alarms::AlarmsArgs),
    /// The console in a browser: the live service graph, services, coverage, findings, alarms, and a page for auditors
    Dashboard(dashboard::DashboardArgs),
    /// What a workload, its sidecar or the control plane wrote
    Logs(logs::LogsArgs),
    /// Start a workload's application anew, replica after replica, without failing a request
    Restart(restart::RestartArgs),
    /// Run a command inside a workload's network, with its environment
    Exec(exec::ExecArgs),
    /// Create or change resources and wait until every affected proxy has them
    Apply(resources::ApplyArgs),
    /// Remove resources and wait until every affected proxy knows
    Delete(resources::ApplyArgs),
    /// Read resources of the running mesh
    Get(resources::GetArgs),
    /// Check files and their relations before anything runs
    Analyze(analyze::AnalyzeArgs),
    /// What a code such as RJ0101 means
    Explain(analyze::ExplainArgs),
    /// Which listener, route, cluster and policies a request meets, and what comes of it
    Why(why::WhyArgs),
    /// Judge requests by policies before they are in force, and see who may call whom
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// What is weak: plain text, workloads that everybody may call, shared identities
    Scan(scan::ScanArgs),
    /// What each proxy has acknowledged
    ProxyStatus(OutputFormat),
    /// What a workload's proxy runs on
    ProxyConfig(proxies::ProxyConfigArgs),
    /// Show for the eye what is protected
    #[command(subcommand)]
    Verify(verify::VerifyCommand),
    /// Whom the mesh believes: its roots, the change to another one, certificates for tests
    #[command(subcommand)]
    Identity(identity::IdentityCommand),
    /// The control plane, as a process
    Control(Box<daemons::ControlArgs>),
    /// The proxy, as a process
    Proxy(Box<daemons::ProxyArgs>),
    /// Certificates, discovery and names beside an Envoy proxy, as a process
    Agent(Box<daemons::AgentArgs>),
    /// The sample server of the built-in example
    #[command(hide = true)]
    Sample,
}

/// Reads the command line and does what it says.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too and are no mistake.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()) * 2);
        }
    };
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            output::warn(&format!("rajut: {error:#}"));
            ExitCode::from(if error.is::<WrongUsage>() { 2 } else { 1 })
        }
    }
}

/// The user asked for something that can't be meant; exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongUsage(pub(crate) String);

/// 0 or 1: whether the answer is yes.
pub(crate) fn answer(yes: bool) -> ExitCode {
    ExitCode::from(u8::from(!yes))
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { state_dir, command } = cli;
    let place = mesh::Place::new(state_dir.as_deref());
    match command {
        Command::Up(args) => lifecycle::up(&place?, &args),
        Command::Down => lifecycle::down(&place?),
        Command::Status(args) => status::status(&place?, args.format),
        Command::Top(args) => top::top(&place?, &args),
        Command::Alarms(args) => alarms::alarms(&place?, &args),
        Command::Dashboard(args) => dashboard::dashboard(&place?, &args),
        Command::Logs(args) => logs::logs(&place?, &args),
        Command::Restart(args) => restart::restart(&place?, &args),
        Command::Exec(args) => exec::exec(&place?, &args),
        Command::Apply(args) => resources::apply(&place?, &args, resources::Change::Apply),
        Command::Delete(args) => resources::apply(&place?, &args, resources::Change::Delete),
        Command::Get(args) => resources::read(&place?, &args),
        Command::Analyze(args) => analyze::analyze(&args),
        Command::Explain(args) => analyze::explain(&args),
        Command::Why(args) => why::why(&place?, &args),
        Command::Policy(command) => policy::policy(&place?, &command),
        Command::Scan(args) => scan::scan(&place?, &args),
        Command::ProxyStatus(args) => proxies::status(&place?, args.format),
        Command::ProxyConfig(args) => proxies::config(&place?, &args),
        Command::Verify(args) => verify::verify(&place?, &args),
        Command::Identity(command) => identity::identity(&place?, &command),
        Command::Control(args) => daemons::control(&place?, &args),
        Command::Proxy(args) => daemons::proxy(&place?, &args),
        Command::Agent(args) => daemons::agent(&place?, &args),
        Command::Sample => {
            #[expect(
                clippy::disallowed_methods,
                reason = "the sample is an application: its whole environment is handed to it"
            )]
            crate::sample::run(&std::env::vars().collect())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A runtime for commands that ask somebody something.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_reading_command_has_json() {
        for command in [
            "status",
            "get",
            "analyze",
            "explain",
            "why",
            "proxy-status",
            "proxy-config",
            "top",
            "alarms",
            "scan",
        ] {
            let cli = Cli::command();
            let command = cli.find_subcommand(command).expect("it exists");
            assert!(
                command
                    .get_arguments()
                    .any(|argument| argument.get_id() == "format"),
                "{command} has no -o"
            );
        }
    }
}
