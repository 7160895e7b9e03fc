//! Who exists: sources of configuration (files, what `apply` added) and what runs (workloads told by a supervisor), joined
//! into one immutable [`rajut_config::Snapshot`] after another.
//!
//! Walk two of `ARCHITECTURE.md`, its first step; this crate owns the I/O of the sources.
//!
//! | module | what |
//! | --- | --- |
//! | [`store`] | [`Registry`]: the sources joined, `apply` and `delete`, workloads, the snapshots' channel |
//! | [`files`] | paths and folders read within bounds |
//! | [`document`] | one document of a YAML text: what it is called, its text |
//! | [`watch`] | reload when files change, debounced |
//!
//! Fail static: a file that can't be read keeps its last contents; a file whose new text has errors keeps serving its last
//! good text, while the findings are about the new one. Bounds: `files` and [`store`] name them.

pub mod document;
pub mod files;
mod overlay;
pub mod store;
mod vips;
pub mod watch;

pub use document::Document;
pub use overlay::OverlayError;
pub use store::{Applied, ApplyError, Registry, RegistryError, RegistryOptions};
