//! stub
use crate::listener::*;
use rajut_types::Text;
use std::net::SocketAddr;
#[derive(Debug)]
pub struct ChainMatcher;
pub struct ConnectionView<'a> {
    pub destination: SocketAddr,
    pub source: SocketAddr,
    pub server_name: Option<&'a str>,
    pub transport: TransportProtocol,
    pub application_protocols: &'a [Text],
}
impl ChainMatcher {
    pub fn compile<'a>(_: impl IntoIterator<Item = &'a FilterChainMatch>) -> Self {
        Self
    }
    pub fn select(&self, _: &ConnectionView<'_>) -> Option<usize> {
        None
    }
}
