//! Proxyless gRPC.

use rajut_config::snapshot::{ClientView, WorkloadView};
use rajut_ir::Resources;

use crate::{
    outbound::{Outbound, Pieces},
    proxy::Proxy,
};

pub(crate) fn add_clients(_out: &mut Outbound, _pieces: &mut Pieces, _client: &ClientView) {}

pub(crate) fn add_servers(_resources: &mut Resources, _workload: &WorkloadView, _proxy: &Proxy) {}
