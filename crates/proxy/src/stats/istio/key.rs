//! What tells one series from another: numbers only.

use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::TextId;
use crate::failure::Flags;

/// The protocol of a call, as metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// HTTP.
    Http,
    /// gRPC.
    Grpc,
    /// Bytes.
    Tcp,
}

/// Who the two ends have proven to be: their certificates' identities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    /// The other end's.
    pub(crate) peer: TextId,
    /// The own.
    pub(crate) own: TextId,
}

/// See the module. 48 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    context: u32,
    pub(super) protocol: Protocol,
    /// `None` where it is no gRPC call, or one without a status.
    pub(crate) grpc: Option<u8>,
    /// 0: there was no answer.
    pub(crate) code: u16,
    pub(crate) flags: Flags,
    /// `host;name;namespace` of the service.
    pub(crate) service: TextId,
    /// The cluster that was called. No label: it tells the control plane which edge this is.
    pub(crate) cluster: TextId,
    /// The host that was asked for, where no service is known.
    pub(crate) host: TextId,
    /// The workload at the other end ([`rajut_telemetry::workload::Workload::to_text`]).
    pub(crate) peer: TextId,
    pub(crate) ends: Ends,
    /// The context's attributes, in their order, each ended by [`SEPARATOR`].
    pub(crate) extra: TextId,
}

/// Ends an attribute's value; no header may hold it.
pub(crate) const SEPARATOR: char = '\u{1f}';

impl Key {
    pub(super) const fn new(context: u32, protocol: Protocol) -> Self {
        Self {
            context,
            protocol,
            grpc: None,
            code: 0,
            flags: Flags::NONE,
            service: TextId::UNKNOWN,
            cluster: TextId::UNKNOWN,
            host: TextId::UNKNOWN,
            peer: TextId::UNKNOWN,
            ends: Ends {
                peer: TextId::UNKNOWN,
                own: TextId::UNKNOWN,
            },
            extra: TextId::UNKNOWN,
        }
    }

    /// What stands for it where there is no room: the class of its answer, and nothing of who called whom.
    pub(super) fn folded(self) -> Self {
        Self {
            code: self.code / 100 * 100,
            service: TextId::OTHER,
            cluster: TextId::OTHER,
            peer: TextId::OTHER,
            ..Self::new(self.context, self.protocol)
        }
    }

    /// Whether something of it found no room.
    pub(super) fn has_other(&self) -> bool {
        let Ends { peer, own } = self.ends;
        [self.service, self.host, self.peer, peer, own, self.extra]
            .iter()
            .any(|id| id.is_other())
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let pair = |high: TextId, low: TextId| u64::from(high.number()) << 32 | u64::from(low.number());
        let outcome = u64::from(self.code) << 16
            | u64::from(self.grpc.map_or(0, |status| u16::from(status) + 1)) << 4
            | self.protocol as u64;
        state.write_u64(u64::from(self.context) << 32 ^ u64::from(self.flags.bits()) << 33 ^ outcome);
        state.write_u64(pair(self.service, self.host));
        state.write_u64(pair(self.peer, self.ends.peer));
        state.write_u64(pair(self.ends.own, self.extra));
        state.write_u64(u64::from(self.cluster.number()));
    }
}

/// The table's hashing. The numbers are given by this process: nobody outside chooses them, so mixing is enough.
pub(super) type Hashing = BuildHasherDefault<Mixer>;

/// Multiplies and rotates.
#[derive(Debug, Default)]
pub(super) struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        // The table looks at the lowest and the highest bits; the highest are mixed best.
        self.0.rotate_left(26)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0xf135_7aea_2e62_a9c5);
    }
}
