//! stub
use crate::Resources;
use rajut_types::Text;
use std::net::SocketAddr;
#[derive(Debug, Clone)]
pub struct Bootstrap {
    pub node: Node,
    pub admin: Option<SocketAddr>,
    pub resources: Resources,
    pub ads: Option<Ads>,
}
#[derive(Debug, Clone)]
pub struct Node {
    pub id: Text,
    pub cluster: Text,
    pub metadata: serde_json::Value,
}
#[derive(Debug, Clone)]
pub struct Ads {
    pub cluster: Text,
    pub delta: bool,
}
pub fn parse_bootstrap(_: &str) -> Result<Bootstrap, super::DecodeErrors> {
    Err(super::DecodeErrors {
        resource: "".into(),
        errors: vec![],
    })
}
