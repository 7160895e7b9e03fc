//! A whole mesh on one machine: every workload an operating-system process with a sidecar process of its own.
//!
//! The supervisor starts the control plane, the sidecars and the applications as processes (through `/proc/self/exe`),
//! never as libraries, and keeps them running. Nothing here is on a request path.
//!
//! ```text
//!  rajut up ─ supervisor ─┬─ rajut control                 serves discovery, identities and control.sock
//!                         ├─ rajut proxy (host gateway)    127.0.0.1:18080 … for browsers and curl
//!                         ├─ rajut proxy (gateways)        workloads without an application
//!                         └─ per workload ─┬─ namespace    held by a process of its own (netns mode)
//!                                          ├─ rajut proxy  its sidecar, outside the namespace
//!                                          └─ the application, inside
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`plan`] | what is to run, with which addresses and environment (pure) |
//! | [`supervisor`] | starting, probing, restarting, stopping |
//! | [`state`] | the state directory and what is recorded there |
//! | [`process`], [`logs`], [`probe`], [`client`] | one process, its log, its probes, HTTP questions |
//! | [`targets`] | what a Prometheus scrapes |
//! | [`certificate`] | what a sidecar says of its certificate |
//! | [`bootstrap`], [`env`], [`address`] | what a sidecar and an application are told |

pub mod address;
pub mod bootstrap;
pub mod certificate;
pub mod client;
pub mod commands;
pub mod env;
mod grpc_health;
pub mod logs;
pub mod plan;
pub mod probe;
pub mod process;
pub mod state;
pub mod supervisor;
pub mod targets;
