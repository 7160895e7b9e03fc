//! The bound sockets of the listeners: opened when a listener arrives, one per worker, closed when it leaves.
//!
//! Sockets in a workload's network namespace are made by a thread that enters it; the workers that accept on them stay
//! outside.

use std::{collections::HashMap, io, net::TcpListener, path::Path};

use rajut_ir::listener::ListenerAddress;
use rajut_platform::{
    netns::{NetNs, in_namespace},
    socket::{ListenOptions, listen_shared},
};
use rajut_types::Text;
use tokio::sync::watch;

use crate::{
    epoch::Config,
    workers::{WorkerGone, Workers},
};

/// name → the open sockets of that listener; as many as there are bound listeners.
#[derive(Debug, Default)]
pub struct Sockets {
    open: HashMap<Text, Open>,
}

#[derive(Debug)]
struct Open {
    address: ListenerAddress,
    stop: watch::Sender<bool>,
}

/// A listener whose socket could not be opened; everything else goes on.
#[derive(Debug)]
pub struct NotBound {
    /// The listener.
    pub name: Text,
    /// Its address.
    pub address: std::net::SocketAddr,
    /// What the system said.
    pub error: io::Error,
}

impl std::fmt::Display for NotBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let in_use = if self.error.kind() == io::ErrorKind::AddrInUse {
            " (another process listens there)"
        } else {
            ""
        };
        write!(
            f,
            "listener {} can't listen on {}: {}{in_use}",
            self.name, self.address, self.error
        )
    }
}

impl Sockets {
    /// Opens what `config` has and is not open, closes what it has no more. Workers must have adopted it already.
    pub async fn apply(&mut self, config: &Config, workers: &Workers) -> Result<Vec<NotBound>, WorkerGone> {
        self.open.retain(|name, open| {
            let stays = config.listeners.get(name).is_some_and(|listener| {
                listener.bound_address().is_some() && listener.ir.address == open.address
            });
            if !stays {
                open.stop.send_replace(true);
            }
            stays
        });
        let mut not_bound = Vec::new();
        let mut names: Vec<_> = config
            .listeners
            .keys()
            .filter(|name| !self.open.contains_key(*name))
            .collect();
        names.sort();
        for name in names {
            let listener = &config.listeners[name];
            let Some(address) = listener.bound_address() else {
                continue;
            };
            match open(&listener.ir.address, workers.count()) {
                Ok(sockets) => {
                    let (stop, stopped) = watch::channel(false);
                    workers.listen(name, sockets, &stopped).await?;
                    tracing::debug!(listener = %name, %address, "listening");
                    self.open.insert(
                        name.clone(),
                        Open {
                            address: listener.ir.address.clone(),
                            stop,
                        },
                    );
                }
                Err(error) => not_bound.push(NotBound {
                    name: name.clone(),
                    address,
                    error,
                }),
            }
        }
        Ok(not_bound)
    }

    /// Stops accepting everywhere.
    pub fn close_all(&mut self) {
        for (_, open) in self.open.drain() {
            open.stop.send_replace(true);
        }
    }
}

/// One socket per worker. A lone worker gets an exclusive socket, so that a port in use is an error and not a silent
/// sharing with another process of the same user.
fn open(address: &ListenerAddress, workers: usize) -> io::Result<Vec<TcpListener>> {
    let make = || listen_shared(address.socket, &ListenOptions::default(), workers);
    match &address.netns {
        None => make(),
        Some(path) => in_namespace(&NetNs::open(Path::new(&**path))?, make)?,
    }
}
