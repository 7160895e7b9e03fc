//! Peer authentication.

use std::collections::BTreeMap;

use rajut_types::{Labels, Origin, Text};

/// How a workload's sidecar takes connections. Source: Istio `PeerAuthentication`.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerAuthentication {
    /// Its name.
    pub name: Text,
    /// Its namespace; the root namespace makes it mesh-wide.
    pub namespace: Text,
    /// `None`: the whole namespace (or mesh).
    pub selector: Option<Labels>,
    /// `None` inherits.
    pub mode: Option<MtlsMode>,
    /// By the workload's port; `None` inherits the mode of this policy.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
    /// Where.
    pub origin: Origin,
    /// Smaller is older.
    pub age: u64,
}

/// Whether mTLS is asked of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MtlsMode {
    /// Plaintext only.
    Disable,
    /// Both.
    Permissive,
    /// mTLS only.
    Strict,
}
