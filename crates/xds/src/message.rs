//! Requests and responses of both variants of the protocol as plain structs, so that the machines name no protobuf.

use std::collections::BTreeMap;

use rajut_types::{Locality, Text};

use crate::Resource;

/// The variant that a stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `StreamAggregatedResources`: each request repeats all names, a response of a complete type is complete.
    StateOfTheWorld,
    /// `DeltaAggregatedResources`: changes only.
    Delta,
}

/// Who asks. Source: Envoy `core.v3.Node`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// Unique in the mesh.
    pub id: Text,
    /// The local cluster's name.
    pub cluster: Text,
    /// Free-form; an object or null.
    pub metadata: serde_json::Value,
    /// Where it runs.
    pub locality: Locality,
    /// E.g. `envoy`, `rajut`, `gRPC Go`.
    pub user_agent: Text,
}

/// A client's message. In state-of-the-world form `subscribe` holds all names and the other lists are empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// On a stream's first request.
    pub node: Option<Node>,
    /// Which type.
    pub type_url: Text,
    /// Names to add (delta) or all names (state of the world).
    pub subscribe: Vec<Text>,
    /// Names to drop (delta).
    pub unsubscribe: Vec<Text>,
    /// What the client still holds from an earlier stream (delta, first request of a type).
    pub initial_versions: BTreeMap<Text, Text>,
    /// The last accepted version (state of the world).
    pub version: Text,
    /// The response that this answers; empty answers none.
    pub nonce: Text,
    /// Why that response was refused, in whole or in part.
    pub error: Option<String>,
}

impl Request {
    /// A first request for some names.
    pub fn subscribe(type_url: &str, names: &[&str]) -> Self {
        Self {
            type_url: type_url.into(),
            subscribe: names.iter().map(|name| Text::from(*name)).collect(),
            ..Self::default()
        }
    }
}

/// A server's message. The server's end shares its resources with other streams: `Response<Arc<Resource>>`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Response<R = Resource> {
    /// Which type.
    pub type_url: Text,
    /// The version of the whole response.
    pub version: Text,
    /// To be repeated in the answer.
    pub nonce: Text,
    /// New or changed resources (delta), or the subscribed ones (state of the world).
    pub resources: Vec<R>,
    /// Names that are gone or never were (delta).
    pub removed: Vec<Text>,
}
