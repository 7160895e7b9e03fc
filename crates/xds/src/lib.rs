//! The discovery protocol (xDS v3, aggregated), both ends. It knows type URLs, names, versions and bytes; it never looks
//! into a resource.
//!
//! Walk two of `ARCHITECTURE.md`: between `ir/wire encode` and `ir/wire decode`. The machines ([`server::ServerStream`],
//! [`client::ClientMachine`]) are pure: requests, responses and snapshots in, responses and requests out, time as an
//! argument; the glue around them ([`server::AdsServer`], [`client::spawn`]) owns tonic and tokio. Connectors are passed in.
//!
//! | module | what |
//! | --- | --- |
//! | [`resource`] | resources, sets of them, type URLs and the push order |
//! | [`message`] | requests and responses of both protocol variants, as plain structs |
//! | [`server`] | one stream's machine, the tonic service, waiting for acknowledgements |
//! | [`client`] | the machine, and the task that keeps it connected |
//! | [`load`] | load reports, both ends |
//! | [`recording`] | recorded requests, both ends |
//! | [`limits`] | every cap |
//!
//! ```
//! use rajut_xds::{message::{Protocol, Request}, resource::{ResourceSet, type_url}, server::ServerStream};
//! use std::{sync::Arc, time::Duration};
//!
//! let mut stream = ServerStream::new(Protocol::Delta);
//! stream.snapshot(Arc::new(ResourceSet { generation: 1, ..ResourceSet::default() }));
//! stream.request(Request::subscribe(type_url::CLUSTER, &["*"]), Duration::ZERO).unwrap();
//! let response = stream.next_response(Duration::ZERO).expect("a first wildcard subscription is always answered");
//! assert!(response.resources.is_empty());
//! ```

pub mod client;
pub mod limits;
pub mod load;
pub mod message;
pub mod recording;
pub mod resource;
pub mod server;
mod wire;

pub use message::{Node, Protocol};
pub use resource::{Payload, Resource, ResourceSet, TypeSet, type_url};
