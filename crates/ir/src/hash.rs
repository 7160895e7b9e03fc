//! Hashes for tables whose keys the configuration makes: short, without a seed. Whoever chooses what is looked up gains
//! nothing by a collision, since what is found is compared, or evaluated, in full.

use std::hash::{BuildHasherDefault, Hasher};

/// FNV-1a over bytes, which can go on.
#[derive(Debug, Clone, Copy)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::default();
        hash.update(bytes);
        hash.value()
    }

    /// Goes on.
    pub fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Of all so far.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// For tables whose keys are hashes already.
pub type ByHash = BuildHasherDefault<Hashed>;

/// Passes a hash on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= Fnv::of(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        // The table takes its place from the low bits and its tag from the high ones.
        self.0 = hash ^ (hash >> 29);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
