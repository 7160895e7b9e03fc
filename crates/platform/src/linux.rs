//! The Linux half of the crate: namespaces, netlink, `nf_tables`, pidfds, `/proc`, `splice`. [`crate::portable`] is its
//! counterpart with the same items; the public modules choose through `crate::system`.

pub(crate) mod cpu;
mod fork;
pub(crate) mod host;
pub(crate) mod memory;
mod netlink;
pub(crate) mod netns;
pub(crate) mod network;
pub(crate) mod nftables;
pub(crate) mod process;
pub(crate) mod relay;
pub(crate) mod socket;
mod sys;
