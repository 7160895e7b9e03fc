//! Ports of this machine that are forwarded straight into a workload (`LocalWorkload.hostPorts`), past its sidecar: for
//! a debugger or a health page, as `kubectl port-forward` does. Everything that the mesh should see goes through the
//! host gateway instead.
//!
//! Bounds: [`CONNECTIONS_MAX`] connections per port.

use std::{
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
};

use rajut_platform::{
    relay::{RelayOptions, RelayProgress, relay_streams},
    socket::{ListenOptions, TcpListener, TcpStream, listen},
};
use tokio::{sync::Semaphore, task::AbortHandle};

use crate::{
    client::{Target, connect},
    plan::Instance,
    probe::Place,
};

/// A few tools of one developer.
const CONNECTIONS_MAX: usize = 64;

/// The forwards of one workload; they end when this is dropped.
pub(super) struct Forwards(Vec<AbortHandle>);

impl Drop for Forwards {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// Listens on the machine ports of an instance. One that is taken is said in the supervisor's log; the others go on.
pub(super) fn spawn(instance: &Instance, place: &Place) -> Forwards {
    let mut tasks = Vec::new();
    for (container, host) in &instance.host_ports {
        let Some(socket) = place.socket(*container) else {
            continue;
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *host));
        match listen(address, &ListenOptions::default()).and_then(TcpListener::from_std) {
            Ok(listener) => {
                let task = tokio::task::spawn_local(serve(listener, place.target(socket)));
                tasks.push(task.abort_handle());
            }
            Err(error) => {
                tracing::warn!(workload = instance.key(), %address, %error, "the host port is not forwarded");
            }
        }
    }
    Forwards(tasks)
}

async fn serve(listener: TcpListener, target: Target) {
    let room = Rc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let (target, room) = (target.clone(), Rc::clone(&room));
        connections.spawn_local(async move {
            if let Ok(_permit) = room.try_acquire() {
                forward(stream, &target).await;
            }
        });
    }
}

async fn forward(mut outside: TcpStream, target: &Target) {
    match connect(target).await {
        Ok(mut inside) => {
            relay_streams(
                &mut outside,
                &mut inside,
                RelayOptions::default(),
                &RelayProgress::default(),
            )
            .await;
        }
        Err(error) => tracing::debug!(%error, "the application does not accept connections"),
    }
}
