//! What Envoy has not, beside it: enrolment and rotation of the workload's certificate, the mesh's DNS, and a local end
//! of the discovery stream.
//!
//! ```text
//!   Envoy ══ ADS over a Unix socket ══► agent ══ ADS over mTLS ══► control plane
//!              secrets are answered here: the key never leaves this process but for Envoy's memory
//!              the name table is asked for here, and feeds the DNS
//! ```
//!
//! State of the world only: that is what our bootstrap for Envoy asks for; a delta stream is answered UNIMPLEMENTED by
//! name. One upstream stream per downstream stream; when either ends, so does the other, and Envoy connects again.

mod relay;

use std::{path::PathBuf, sync::Arc};

use rajut_identity::enrol::control_plane_connector;
use rajut_ir::NameTable;
use rajut_platform::{
    signals::ShutdownSignals,
    socket::{UnixListener, listen_unix},
};
use rajut_runtime::Clock;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;

use crate::{
    dns::{self, DnsOptions},
    enrol::{self, Enrolment},
};

/// How an agent is set up.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// Where Envoy's discovery stream is taken; made with mode 0600.
    pub xds_socket: PathBuf,
    /// How the workload's identity is obtained.
    pub enrolment: Enrolment,
    /// The workload's DNS; `None` where names are not captured.
    pub dns: Option<DnsOptions>,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(options: AgentOptions) -> anyhow::Result<()> {
    let (store, first) = enrol::obtain(&options.enrolment, &Clock::system()).await?;
    let (names, named) = watch::channel(Arc::new(NameTable::default()));
    let connector = control_plane_connector(options.enrolment.issuer()?, store.clone());
    let service = relay::Relay::new(connector, store, first, names);
    let listener = UnixListener::from_std(listen_unix(&options.xds_socket, 0o600)?)?;
    let serving = service.serve(UnixListenerStream::new(listener));
    let resolving = async {
        match options.dns {
            Some(dns) => dns::serve(dns, named).await,
            None => std::future::pending().await,
        }
    };
    let mut shutdown = ShutdownSignals::listen()?;
    tracing::info!(socket = %options.xds_socket.display(), "agent ready");
    tokio::select! {
        served = serving => served?,
        resolved = resolving => resolved?,
        signal = shutdown.next() => tracing::info!(?signal, "agent ends"),
    }
    // A socket that is already gone needs no removal.
    drop(std::fs::remove_file(&options.xds_socket));
    Ok(())
}
