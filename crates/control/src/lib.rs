//! The control plane: reads what people wrote, issues identities, tells every proxy what it needs and knows who has taken it.
//!
//! Walk two of `ARCHITECTURE.md`, its server half.
//!
//! | module | what |
//! | --- | --- |
//! | [`run`] | [`ControlOptions`], [`start`], [`run()`]: everything put together |
//! | [`accept`] | the TLS port: mesh certificates only, optional at enrolment |
//! | [`ca`] | the issuer |
//! | [`discovery`] | who is connected; snapshots pushed; acknowledgements |
//! | [`observe`] | what the mesh does, as the callers' proxies report it |
//! | [`node`] | from an xDS node to the proxy that is translated for |
//! | [`judge`] | what becomes of a call at the workload that is called, and who may call what |
//! | `keys` | the public keys of token issuers, fetched for everybody |
//! | [`notify`] | alarms to an Alertmanager |
//! | `outside` | HTTP to others than the mesh |
//! | [`orders`] | what the supervisor of a local mesh is to do |
//! | [`admin`] | the operator's door: HTTP and JSON on a Unix socket |
//! | [`recorder`] | what proxies tell of requests, kept on disk |
//! | [`reach`] | who can reach what, by which rule, and whether it is encrypted |
//! | `trust` | whom the mesh believes, told to everybody; the change to another root |
//! | [`why`] | what a request meets, for people |
//! | [`wire`] | encoding, the gRPC services |
//!
//! It holds no Kubernetes client here and decides nothing about traffic: that is `translate`'s and `ir`'s.

pub mod accept;
pub mod admin;
pub mod ca;
pub mod discovery;
pub mod judge;
mod keys;
pub mod node;
pub mod notify;
pub mod observe;
pub mod orders;
mod outside;
pub mod reach;
pub mod recorder;
pub mod run;
mod time;
mod trust;
pub mod why;
pub mod wire;

pub use run::{Control, ControlError, ControlOptions, run, start};
