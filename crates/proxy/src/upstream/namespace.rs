//! Sockets made inside a workload's network namespace, for clusters that connect from there.
//!
//! A socket belongs to the namespace of the thread that made it; each worker keeps one connector (a thread inside and
//! a small stash of sockets) per namespace and set of options.
//!
//! Bounds: [`CONNECTORS_MAX`] per worker; the oldest makes room.

use std::{cell::RefCell, io, net::SocketAddr, path::Path, rc::Rc};

use rajut_platform::{
    netns::{NamespaceConnector, NamespaceThread, NetNs},
    socket::{ConnectOptions, TcpStream},
};
use rajut_types::Text;

/// Connectors of one worker.
pub const CONNECTORS_MAX: usize = 64;
/// Jobs that wait for a namespace's thread.
const QUEUE: usize = 64;

#[derive(Debug)]
struct Entry {
    path: Text,
    options: ConnectOptions,
    connector: Rc<NamespaceConnector>,
}

/// The connectors of one worker.
#[derive(Debug, Default)]
pub struct Namespaces(RefCell<Vec<Entry>>);

impl Namespaces {
    /// Connects from inside the namespace at `path`.
    pub async fn connect(
        &self,
        path: &Text,
        options: ConnectOptions,
        to: SocketAddr,
    ) -> io::Result<TcpStream> {
        self.connector(path, options)?.connect(to).await
    }

    fn connector(&self, path: &Text, options: ConnectOptions) -> io::Result<Rc<NamespaceConnector>> {
        let mut entries = self.0.borrow_mut();
        let known = entries
            .iter()
            .find(|entry| entry.path == *path && entry.options == options);
        if let Some(entry) = known {
            return Ok(entry.connector.clone());
        }
        let sibling = entries.iter().find(|entry| entry.path == *path);
        let thread = match sibling {
            Some(entry) => entry.connector.thread().clone(),
            None => NamespaceThread::start(&NetNs::open(Path::new(&**path))?, QUEUE)?,
        };
        if entries.len() >= CONNECTORS_MAX {
            entries.remove(0);
        }
        let connector = Rc::new(NamespaceConnector::new(thread, options.clone()));
        entries.push(Entry {
            path: path.clone(),
            options,
            connector: connector.clone(),
        });
        Ok(connector)
    }
}
