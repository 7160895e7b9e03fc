//! [`Memo`]: results by their views, as long as somebody uses them.
//!
//! A result is in use while another owner than the table counts a reference to it. Bound: twice what is in use and
//! [`ENTRIES_MIN`], checked once a snapshot.

use std::{collections::HashMap, hash::Hash, sync::Arc};

/// Below so many entries nothing is dropped.
const ENTRIES_MIN: usize = 1_024;

/// A result that tells whether somebody uses it.
pub(crate) trait Counted: Clone {
    /// Whether there is another owner.
    fn in_use(&self) -> bool;
}

impl<T: ?Sized> Counted for Arc<T> {
    fn in_use(&self) -> bool {
        Self::strong_count(self) > 1
    }
}

impl<T: Counted> Counted for Option<T> {
    /// Nothing is cheaply made again.
    fn in_use(&self) -> bool {
        self.as_ref().is_some_and(Counted::in_use)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Memo<K, V> {
    known: HashMap<K, V>,
    /// At so many entries the unused ones are dropped.
    limit: usize,
    /// Results that were not known.
    made: u64,
}

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            limit: ENTRIES_MIN,
            made: 0,
        }
    }
}

impl<K: Eq + Hash, V: Counted> Memo<K, V> {
    /// The result for `key`, made where it is not known.
    pub(crate) fn find_or_make(&mut self, key: K, make: impl FnOnce(&K) -> V) -> V {
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let value = make(&key);
        self.made += 1;
        self.known.insert(key, value.clone());
        value
    }

    /// Drops what nobody uses where there are more than `most`.
    pub(crate) fn trim(&mut self, most: usize) {
        if self.known.len() > most {
            self.known.retain(|_, value| value.in_use());
            self.known.shrink_to(most);
        }
    }

    /// A new snapshot begins.
    pub(crate) fn turn(&mut self) {
        if self.known.len() > self.limit {
            self.trim(self.limit);
            self.limit = ENTRIES_MIN.max(2 * self.known.len());
        }
    }

    /// How often a result was made so far.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes_when_there_is_too_much() {
        let mut memo: Memo<usize, Arc<usize>> = Memo::default();
        let used: Vec<_> = (0..10)
            .map(|key| memo.find_or_make(key, |key| Arc::new(*key)))
            .collect();
        for key in 0..=ENTRIES_MIN {
            memo.find_or_make(key, |key| Arc::new(*key));
        }
        memo.trim(2 * ENTRIES_MIN);
        assert_eq!(memo.known.len(), ENTRIES_MIN + 1, "there is room");
        memo.turn();
        assert_eq!((memo.known.len(), memo.made()), (10, 1_025));
        for (key, known) in used.iter().enumerate() {
            assert!(Arc::ptr_eq(known, &memo.find_or_make(key, |_| Arc::new(0))));
        }
    }
}
