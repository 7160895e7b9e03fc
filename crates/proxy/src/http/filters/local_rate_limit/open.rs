//! The buckets of a descriptor with open values: one for each value that comes, made when it first does.
//!
//! Bounds: the filter's `max_dynamic_descriptors`, spread over [`SHARDS`] parts with a lock each. When a part is full, buckets
//! that are full go (a new one would be just like them); where there are none, the fullest one does, which gives away least.
//! (Envoy forgets the one that was not used for the longest time: whoever can make up values is let through by that.)

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use rajut_ir::{
    hash::{ByHash, Fnv},
    rate_limit::TokenBucket,
};

use super::Bucket;

/// Parts of the buckets; a request locks one of them.
const SHARDS: usize = 16;
/// Bytes of values that buckets are told apart by; longer ones share the bucket of their hash.
const VALUES_MAX: usize = 256;

/// Values → their bucket, by the values' hash.
type Shard = HashMap<u64, Vec<(Box<[u8]>, Arc<Bucket>)>, ByHash>;

#[derive(Debug)]
pub(super) struct Open {
    ir: TokenBucket,
    shards: Box<[Mutex<(usize, Shard)>]>,
    /// Buckets that a part may have.
    max: usize,
}

impl Open {
    pub(super) fn new(ir: TokenBucket, max: u32) -> Self {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let shards = if max < 4 * SHARDS { 1 } else { SHARDS };
        Self {
            ir,
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            max: (max / shards).max(1),
        }
    }

    /// The bucket of these values.
    pub(super) fn bucket(&self, values: &[u8], now: f64) -> Arc<Bucket> {
        let mut hash = Fnv::default();
        hash.update(values);
        let hash = hash.value();
        let short = hash.to_le_bytes();
        let values = if values.len() > VALUES_MAX { &short } else { values };
        // The low bits choose within the part's table.
        let place = usize::try_from(hash >> 32).unwrap_or(0) % self.shards.len();
        let mut shard = self.shards[place].lock().unwrap_or_else(PoisonError::into_inner);
        let (count, buckets) = &mut *shard;
        if let Some(known) = buckets.get(&hash)
            && let Some((_, bucket)) = known.iter().find(|(known, _)| **known == *values)
        {
            return bucket.clone();
        }
        if *count >= self.max {
            make_room(buckets, now);
            *count = buckets.values().map(Vec::len).sum();
        }
        let bucket = Arc::new(Bucket::new(self.ir));
        let entry = (values.into(), bucket.clone());
        buckets.entry(hash).or_default().push(entry);
        *count += 1;
        bucket
    }
}

/// Takes away the buckets that are full, or else the fullest.
fn make_room(buckets: &mut Shard, now: f64) {
    let fullest = buckets
        .values()
        .flatten()
        .map(|(_, bucket)| bucket.tokens(now))
        .fold(f64::MIN, f64::max);
    buckets.retain(|_, of_hash| {
        of_hash.retain(|(_, bucket)| bucket.tokens(now) < fullest);
        !of_hash.is_empty()
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn open(max_tokens: u32, max: u32) -> Open {
        let ir = TokenBucket {
            max_tokens,
            tokens_per_fill: 1,
            fill_interval: Duration::from_secs(1),
        };
        Open::new(ir, max)
    }

    fn count(open: &Open) -> usize {
        let of = |shard: &Mutex<(usize, Shard)>| {
            let shard = shard.lock().unwrap();
            let there: usize = shard.1.values().map(Vec::len).sum();
            assert_eq!(there, shard.0);
            there
        };
        open.shards.iter().map(of).sum()
    }

    #[test]
    fn each_value_has_a_bucket_of_its_own_which_stays() {
        let open = open(2, 100);
        for value in [&b"a"[..], b"b", &[7; 1000], &[8; 1000]] {
            let take = || open.bucket(value, 0.0).take(0.0);
            assert_eq!([take(), take(), take()], [true, true, false]);
        }
        assert_eq!(count(&open), 4);
    }

    #[test]
    fn what_is_full_goes_first_and_what_is_empty_last() {
        let open = open(4, 2);
        let take = |value: &[u8], times: usize, now: f64| {
            (0..times).filter(|_| open.bucket(value, now).take(now)).count()
        };
        assert_eq!(take(b"greedy", 9, 0.0), 4);
        assert_eq!(take(b"modest", 1, 0.0), 1);
        // No room: `modest` had three left, `greedy` none.
        assert_eq!(take(b"new", 1, 0.0), 1);
        assert_eq!(take(b"greedy", 1, 0.0), 0, "it was not forgotten");
        assert_eq!(count(&open), 2);
        // After a while all are full again, and nothing is lost with them.
        assert_eq!(take(b"another", 4, 100.0), 4);
        assert_eq!(count(&open), 1);
    }

    #[test]
    fn made_up_values_take_no_more_room_than_there_is() {
        let open = open(1, 320);
        for number in 0..50_000_u32 {
            open.bucket(&number.to_le_bytes(), 0.0).take(0.0);
        }
        assert!(count(&open) <= 320, "{}", count(&open));
    }
}
