//! `rajut dashboard`: the console in a browser. Serves until it is told to stop; see [`crate::dashboard`].

use std::{net::SocketAddr, process::ExitCode, sync::Mutex};

use anyhow::Context;
use rajut_platform::{
    signals::ShutdownSignals,
    socket::{ListenOptions, TcpListener, listen},
};
use rajut_runtime::Clock;

use super::{block_on, mesh::Place};
use crate::{
    dashboard::{
        auth::Door,
        serve::{Console, serve},
        source::Source,
    },
    output,
};

/// Where it listens unless told otherwise, so that links keep their meaning.
const PORT: u16 = 7470;

/// `rajut dashboard`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It only reads. The viewer's token shows what passes, what is protected, alarms and findings; the auditor's shows \
                  also who can reach what, and the configuration as it is written."
)]
pub(crate) struct DashboardArgs {
    /// Where to listen [default: 127.0.0.1:7470, or any free port of 127.0.0.1]. Other addresses than this machine's own loopback
    /// are served in plain text: put TLS before them
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Another name by which browsers call it, as `NAME` or `NAME:PORT` (repeatable)
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
}

pub(crate) fn dashboard(place: &Place, args: &DashboardArgs) -> anyhow::Result<ExitCode> {
    place.running()?;
    block_on(run(place, args))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(place: &Place, args: &DashboardArgs) -> anyhow::Result<()> {
    let mut shutdown = ShutdownSignals::listen()?;
    let listener = TcpListener::from_std(bind(args.listen)?)?;
    let address = listener.local_addr()?;
    let mut hosts = args.hosts.clone();
    if !address.ip().is_loopback() {
        output::warn(
            "rajut: this address is reached from other machines, and tokens pass in plain text: put TLS before it",
        );
        if !address.ip().is_unspecified() {
            hosts.push(address.to_string());
        }
    }
    let door = Door::new(address.port(), &hosts)?;
    let base = if address.ip().is_unspecified() {
        format!("http://localhost:{}", address.port())
    } else {
        format!("http://{address}")
    };
    output::print(&format!(
        "viewer:  {base}/#token={}\nauditor: {base}/#token={}\nCtrl-C ends it\n",
        door.viewer.reveal(),
        door.auditor.reveal()
    ))?;
    let console = Console {
        door: Mutex::new(door),
        source: Source::new(place.state.clone()),
        clock: Clock::system(),
    };
    tokio::select! {
        () = serve(listener, console) => {}
        _ = shutdown.next() => {}
    }
    Ok(())
}

fn bind(asked: Option<SocketAddr>) -> anyhow::Result<std::net::TcpListener> {
    let at = |address: SocketAddr| listen(address, &ListenOptions::default());
    if let Some(address) = asked {
        return at(address).with_context(|| format!("can't listen on {address}"));
    }
    // Another mesh's console may have it.
    let any = || at(SocketAddr::from(([127, 0, 0, 1], 0)));
    at(SocketAddr::from(([127, 0, 0, 1], PORT)))
        .or_else(|_| any())
        .context("can't listen on 127.0.0.1")
}
