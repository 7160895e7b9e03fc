//! [`Memo`]: results by their views, kept as long as the last two snapshots use them.
//!
//! Bound: what the views of two generations need, and never more than [`ENTRIES_MAX`] entries each.

use std::{collections::HashMap, hash::Hash};

/// The largest number of results of one kind and generation; beyond it the table starts anew.
const ENTRIES_MAX: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Memo<K, V> {
    current: HashMap<K, V>,
    previous: HashMap<K, V>,
}

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self {
            current: HashMap::new(),
            previous: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash, V: Clone> Memo<K, V> {
    /// The result for `key`, made where no generation has it.
    pub(crate) fn find_or_make(&mut self, key: K, make: impl FnOnce(&K) -> V) -> V {
        if let Some(known) = self.current.get(&key) {
            return known.clone();
        }
        let value = match self.previous.remove(&key) {
            Some(known) => known,
            None => make(&key),
        };
        if self.current.len() >= ENTRIES_MAX {
            self.current.clear();
        }
        self.current.insert(key, value.clone());
        value
    }

    /// Takes out what is known for `key`, whatever the generation; the caller puts it back or something newer.
    pub(crate) fn take(&mut self, key: &K) -> Option<V> {
        self.current.remove(key).or_else(|| self.previous.remove(key))
    }

    /// Remembers `value` for this generation and the next.
    pub(crate) fn put(&mut self, key: K, value: V) {
        if self.current.len() >= ENTRIES_MAX {
            self.current.clear();
        }
        self.current.insert(key, value);
    }

    /// A new generation begins: what the one before last did not use is dropped.
    pub(crate) fn turn(&mut self) {
        self.previous = std::mem::take(&mut self.current);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_lives_while_each_generation_asks_for_it() {
        let mut memo = Memo::default();
        let mut made = 0;
        let mut ask = |memo: &mut Memo<u32, u32>| {
            memo.find_or_make(1, |key| {
                made += 1;
                *key
            })
        };
        ask(&mut memo);
        memo.turn();
        ask(&mut memo);
        memo.turn();
        memo.turn();
        ask(&mut memo);
        assert_eq!(made, 2);
    }
}
