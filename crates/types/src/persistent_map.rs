//! [`PersistentMap`]: a sorted map whose copies share what is equal, so that the next version of a large one costs what
//! differs, and so does telling two versions apart.
//!
//! A spine of counted chunks of at most [`CHUNK_MAX`] entries. A copy counts one reference; a change to a copy copies the
//! spine (one pointer a chunk) and one chunk. [`PersistentMap::differences`] skips the chunks that both versions share. Bound: as many entries as
//! the caller puts in.

use std::{borrow::Borrow, fmt, sync::Arc};

/// Entries of one chunk: what a change copies. 64 entries of 24 bytes are 1.5 KiB.
const CHUNK_MAX: usize = 64;
/// Entries of a chunk of a new map, so that a first insertion need not split.
const CHUNK_FILL: usize = 48;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// See the module.
pub struct PersistentMap<K, V> {
    /// Never an empty chunk; keys rise strictly over all of them.
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

impl<K, V> PersistentMap<K, V> {
    /// How many entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether both are the same version: equal, and found so at once.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks) || (self.is_empty() && other.is_empty())
    }

    /// The entries in the order of their keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter {
            chunks: &self.chunks,
            chunk: 0,
            entry: 0,
        }
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> PersistentMap<K, V> {
    /// The chunk that holds `key` or would, and where in it.
    fn place<Q: Ord + ?Sized>(&self, key: &Q) -> (usize, Result<usize, usize>)
    where
        K: Borrow<Q>,
    {
        let after = self
            .chunks
            .partition_point(|chunk| chunk.first().is_some_and(|(first, _)| first.borrow() <= key));
        let chunk = after.saturating_sub(1);
        let entry = self.chunks.get(chunk).map_or(Err(0), |entries| {
            entries.binary_search_by(|(known, _)| known.borrow().cmp(key))
        });
        (chunk, entry)
    }

    /// The key as it stands here, and its value.
    pub fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        let (chunk, entry) = self.place(key);
        let (key, value) = self.chunks.get(chunk)?.get(entry.ok()?)?;
        Some((key, value))
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// Whether the key has a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The entries from `key` on, in order.
    pub fn range_from<Q: Ord + ?Sized>(&self, key: &Q) -> Iter<'_, K, V>
    where
        K: Borrow<Q>,
    {
        let (chunk, entry) = self.place(key);
        Iter {
            chunks: &self.chunks,
            chunk,
            entry: entry.unwrap_or_else(|entry| entry),
        }
    }

    /// Calls `visit` with every key whose entry may differ, in order: its value in `older`, and here. Entries of chunks
    /// that are not shared are visited even where they are equal; the caller compares values.
    pub fn differences<'a>(
        &'a self,
        older: &'a Self,
        mut visit: impl FnMut(&'a K, Option<&'a V>, Option<&'a V>),
    ) {
        if self.is_same(older) {
            return;
        }
        let (mut new, mut old) = (self.iter(), older.iter());
        loop {
            if let (Some(a), Some(b)) = (new.whole_chunk(), old.whole_chunk())
                && Arc::ptr_eq(a, b)
            {
                new.skip_chunk();
                old.skip_chunk();
                continue;
            }
            match (new.peek(), old.peek()) {
                (None, None) => return,
                (Some((key, value)), None) => {
                    visit(key, None, Some(value));
                    new.next();
                }
                (None, Some((key, value))) => {
                    visit(key, Some(value), None);
                    old.next();
                }
                (Some((key, value)), Some((known, previous))) => match key.cmp(known) {
                    std::cmp::Ordering::Less => {
                        visit(key, None, Some(value));
                        new.next();
                    }
                    std::cmp::Ordering::Greater => {
                        visit(known, Some(previous), None);
                        old.next();
                    }
                    std::cmp::Ordering::Equal => {
                        visit(key, Some(previous), Some(value));
                        new.next();
                        old.next();
                    }
                },
            }
        }
    }
}

impl<K: Ord + Clone, V: Clone> PersistentMap<K, V> {
    /// Sets a key's value; gives the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (at, entry) = self.place(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(at) else {
            chunks.push(Arc::new(vec![(key, value)]));
            self.len += 1;
            return None;
        };
        let entries = Arc::make_mut(chunk);
        match entry {
            Ok(entry) => entries
                .get_mut(entry)
                .map(|(_, known)| std::mem::replace(known, value)),
            Err(entry) => {
                entries.insert(entry, (key, value));
                self.len += 1;
                if entries.len() > CHUNK_MAX {
                    let rest = entries.split_off(CHUNK_MAX / 2);
                    chunks.insert(at + 1, Arc::new(rest));
                }
                None
            }
        }
    }

    /// Takes a key out; gives its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (at, entry) = self.place(key);
        let entry = entry.ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let entries = Arc::make_mut(chunks.get_mut(at)?);
        let (_, value) = entries.remove(entry);
        self.len -= 1;
        if entries.is_empty() {
            chunks.remove(at);
        }
        Some(value)
    }
}

impl<K, V> Clone for PersistentMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            chunks: Arc::clone(&self.chunks),
            len: self.len,
        }
    }
}

impl<K, V> Default for PersistentMap<K, V> {
    fn default() -> Self {
        Self {
            chunks: Arc::default(),
            len: 0,
        }
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for PersistentMap<K, V> {
    /// In any order; of two values for one key the last counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let sorted: std::collections::BTreeMap<K, V> = entries.into_iter().collect();
        let len = sorted.len();
        let mut rest = sorted.into_iter();
        let chunks = std::iter::from_fn(|| {
            let chunk: Vec<(K, V)> = rest.by_ref().take(CHUNK_FILL).collect();
            (!chunk.is_empty()).then(|| Arc::new(chunk))
        });
        Self {
            chunks: Arc::new(chunks.collect()),
            len,
        }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for PersistentMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || (self.len == other.len && self.iter().eq(other.iter()))
    }
}

impl<K: Eq, V: Eq> Eq for PersistentMap<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for PersistentMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a, K, V> IntoIterator for &'a PersistentMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

/// The entries of a map, in order.
pub struct Iter<'a, K, V> {
    chunks: &'a [Chunk<K, V>],
    chunk: usize,
    entry: usize,
}

impl<'a, K, V> Iter<'a, K, V> {
    fn peek(&mut self) -> Option<(&'a K, &'a V)> {
        loop {
            let entries = self.chunks.get(self.chunk)?;
            if let Some((key, value)) = entries.get(self.entry) {
                return Some((key, value));
            }
            self.skip_chunk();
        }
    }

    /// The chunk that comes next, where none of it is passed.
    fn whole_chunk(&mut self) -> Option<&'a Chunk<K, V>> {
        self.peek()?;
        self.chunks.get(self.chunk).filter(|_| self.entry == 0)
    }

    fn skip_chunk(&mut self) {
        self.chunk += 1;
        self.entry = 0;
    }
}

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<K, V> fmt::Debug for Iter<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Iter({}, {})", self.chunk, self.entry)
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.peek();
        self.entry += 1;
        entry
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A small generator, the same on every machine.
    fn numbers(mut seed: u64) -> impl Iterator<Item = u64> {
        std::iter::from_fn(move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            Some(seed)
        })
    }

    #[test]
    fn it_agrees_with_the_standard_map_under_any_changes() {
        let mut model = BTreeMap::new();
        let mut map = PersistentMap::default();
        let mut versions = Vec::new();
        for number in numbers(7).take(6_000) {
            let (key, value) = (number % 900, number >> 40);
            if (number >> 20).trailing_zeros() >= 2 {
                assert_eq!(map.remove(&key), model.remove(&key));
            } else {
                assert_eq!(map.insert(key, value), model.insert(key, value));
            }
            assert_eq!((map.len(), map.get(&key)), (model.len(), model.get(&key)));
            if (number >> 30).trailing_zeros() >= 8 {
                assert!(map.iter().eq(&model));
                assert!(map.range_from(&key).eq(model.range(key..)));
                versions.push((map.clone(), model.clone()));
            }
        }
        assert!(versions.len() > 10);
        for (map, model) in &versions {
            assert!(map.iter().eq(model), "an older version is untouched");
        }
        for pair in versions.windows(2) {
            let [(old, _), (new, _)] = pair else { continue };
            let mut rebuilt: BTreeMap<u64, u64> = old.iter().map(|(key, value)| (*key, *value)).collect();
            new.differences(old, |key, before, now| {
                assert_eq!(before, old.get(key));
                match now {
                    Some(value) => rebuilt.insert(*key, *value),
                    None => rebuilt.remove(key),
                };
            });
            assert!(new.iter().eq(&rebuilt));
        }
    }

    #[test]
    fn one_change_is_found_without_looking_at_the_rest() {
        let old: PersistentMap<u32, u32> = (0..10_000).map(|n| (n, n)).collect();
        let mut new = old.clone();
        new.insert(5_000, 1);
        let mut visited = 0;
        new.differences(&old, |_, _, _| visited += 1);
        assert!(visited <= CHUNK_MAX, "{visited}");
        assert!(new != old && !new.is_same(&old) && old.is_same(&old.clone()));
    }
}
