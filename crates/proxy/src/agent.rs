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
//!
//! Beside a proxyless gRPC process it does less: see [`grpc`].

pub mod grpc;
mod relay;

use std::{fs, future::pending, path::PathBuf, sync::Arc};

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
    agent::grpc::GrpcOptions,
    dns::{self, DnsOptions},
    enrol::{self, Enrolment},
};

/// How an agent is set up.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// Where Envoy's discovery stream is taken; made with mode 0600. `None` without an Envoy.
    pub xds_socket: Option<PathBuf>,
    /// The proxyless gRPC process beside it; `None` without one.
    pub grpc: Option<GrpcOptions>,
    /// How the workload's identity is obtained.
    pub enrolment: Enrolment,
    /// The workload's DNS; `None` where names are not captured.
    pub dns: Option<DnsOptions>,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(options: AgentOptions) -> anyhow::Result<()> {
    let mut shutdown = ShutdownSignals::listen()?;
    tokio::select! {
        served = serve(&options, || ()) => served?,
        signal = shutdown.next() => tracing::info!(?signal, "agent ends"),
    }
    if let Some(socket) = &options.xds_socket {
        // A socket that is already gone needs no removal.
        drop(fs::remove_file(socket));
    }
    Ok(())
}

/// Serves for ever; `ready` is called when the workload has its certificate and everything listens.
pub async fn serve(options: &AgentOptions, ready: impl FnOnce()) -> anyhow::Result<()> {
    let store = enrol::start(&options.enrolment, &Clock::system())?;
    let first = enrol::first(&store).await?;
    let (names, named) = watch::channel(Arc::new(NameTable::default()));
    if let Some(grpc) = &options.grpc {
        grpc::write(grpc, &first)?;
    }
    let listener = match &options.xds_socket {
        Some(socket) => Some(UnixListener::from_std(listen_unix(socket, 0o600)?)?),
        None => None,
    };
    let connector = control_plane_connector(options.enrolment.issuer()?, store.clone());
    let service = relay::Relay::new(connector.clone(), store.clone(), Arc::clone(&first), names);
    let relaying = async {
        match listener {
            Some(listener) => service.serve(UnixListenerStream::new(listener)).await,
            None => pending().await,
        }
    };
    let resolving = async {
        match &options.dns {
            Some(dns) => dns::serve(dns.clone(), named).await,
            None => pending().await,
        }
    };
    let renewing = async {
        if let Some(grpc) = &options.grpc {
            tokio::join!(
                grpc::keep_fresh(grpc, &store, &first),
                grpc::follow_trust(grpc, connector, &store, &first)
            );
        }
        pending::<()>().await;
    };
    tracing::info!(socket = ?options.xds_socket, "agent ready");
    ready();
    tokio::select! {
        served = relaying => served?,
        resolved = resolving => resolved?,
        () = renewing => {}
    }
    Ok(())
}
