//! Which streams subscribe to what: the index by which a change finds the streams that it concerns, without a walk over all.
//!
//! Bounds: one number per stream and name that it subscribes to (`limits::NAMES_MAX` a type); a stream's entries go when it
//! is forgotten.

use std::collections::{BTreeSet, HashMap};

use rajut_types::Text;

use super::Interest;

/// A stream's number; the caller gives them out.
pub type StreamId = u32;

/// See the module.
#[derive(Debug, Default)]
pub struct Interests {
    /// type URL → who subscribes.
    types: HashMap<Text, Subscribers>,
}

#[derive(Debug, Default)]
struct Subscribers {
    /// To everything.
    all: BTreeSet<StreamId>,
    /// By name; sorted.
    named: HashMap<Text, Vec<StreamId>>,
}

impl Interests {
    /// Takes what a stream's machine tells.
    pub fn change(&mut self, stream: StreamId, change: Interest) {
        match change {
            Interest::All(url, true) => {
                self.types.entry(url).or_default().all.insert(stream);
            }
            Interest::All(url, false) => {
                self.types.entry(url).or_default().all.remove(&stream);
            }
            Interest::More(url, names) => {
                let subscribers = self.types.entry(url).or_default();
                for name in names {
                    let streams = subscribers.named.entry(name).or_default();
                    if let Err(position) = streams.binary_search(&stream) {
                        streams.insert(position, stream);
                    }
                }
            }
            Interest::Less(url, names) => {
                let subscribers = self.types.entry(url).or_default();
                for name in names {
                    let gone = subscribers.named.get_mut(&name).is_some_and(|streams| {
                        remove(streams, stream);
                        streams.is_empty()
                    });
                    if gone {
                        subscribers.named.remove(&name);
                    }
                }
            }
        }
    }

    /// The stream has ended.
    pub fn forget(&mut self, stream: StreamId) {
        for subscribers in self.types.values_mut() {
            subscribers.all.remove(&stream);
            subscribers.named.retain(|_, streams| {
                remove(streams, stream);
                !streams.is_empty()
            });
        }
    }

    /// Who subscribes to a resource, by name or to everything; a stream that does both comes twice.
    pub fn of(&self, type_url: &str, name: &str) -> impl Iterator<Item = StreamId> {
        let subscribers = self.types.get(type_url);
        let all = subscribers.into_iter().flat_map(|subscribers| &subscribers.all);
        let named = subscribers.and_then(|subscribers| subscribers.named.get(name));
        all.chain(named.into_iter().flatten()).copied()
    }
}

fn remove(streams: &mut Vec<StreamId>, stream: StreamId) {
    if let Ok(position) = streams.binary_search(&stream) {
        streams.remove(position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_found_by_what_they_want_until_they_end() {
        let mut interests = Interests::default();
        let names = |names: &[&str]| names.iter().map(|name| Text::from(*name)).collect::<Vec<_>>();
        interests.change(1, Interest::All("t".into(), true));
        interests.change(2, Interest::More("t".into(), names(&["a", "b"])));
        interests.change(3, Interest::More("t".into(), names(&["b"])));
        let of = |interests: &Interests, name| interests.of("t", name).collect::<Vec<StreamId>>();
        assert_eq!(of(&interests, "a"), [1, 2]);
        assert_eq!(of(&interests, "b"), [1, 2, 3]);
        assert_eq!(interests.of("other", "a").count(), 0);
        interests.change(2, Interest::Less("t".into(), names(&["b", "never"])));
        interests.change(1, Interest::All("t".into(), false));
        assert_eq!(of(&interests, "b"), [3]);
        interests.forget(2);
        interests.forget(3);
        assert!(of(&interests, "a").is_empty());
        assert!(interests.types["t"].named.is_empty());
    }
}
