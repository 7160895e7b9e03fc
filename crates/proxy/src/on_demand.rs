//! Which clusters were asked for on demand, and for how long nobody has used them.
//!
//! A name is forgotten when no request has used it for two looks in a row; the looks are half of the configured time apart,
//! so that a cluster lives between once and one and a half times that long after its last request. Bounds:
//! [`FETCHED_MAX`] names.

use std::collections::{BTreeMap, HashSet};

use rajut_types::Text;

use crate::cluster::demand::{Demand, is_on_demand};

/// Names that are fetched on demand at the same time; what is beyond is not asked for until some are forgotten.
pub const FETCHED_MAX: usize = 10_000;

/// Looks in a row at which nobody had used it, then a name is forgotten.
const IDLE_LOOKS: u8 = 2;

/// See the module.
#[derive(Debug)]
pub struct OnDemand {
    /// Where workers ask.
    pub demand: Demand,
    /// What was asked for and does not exist.
    pub absent: HashSet<Text>,
    /// name → looks in a row at which nobody had used it.
    fetched: BTreeMap<Text, u8>,
}

impl OnDemand {
    /// Nothing is fetched yet.
    pub fn new(demand: Demand) -> Self {
        Self {
            demand,
            absent: HashSet::new(),
            fetched: BTreeMap::new(),
        }
    }

    /// Wants a cluster; `false` where it is wanted already, never comes this way, or there is no room.
    pub fn fetch(&mut self, name: Text) -> bool {
        if !is_on_demand(&name) || self.fetched.contains_key(&name) || self.fetched.len() >= FETCHED_MAX {
            return false;
        }
        self.fetched.insert(name, 0);
        true
    }

    /// What is wanted.
    pub fn names(&self) -> impl Iterator<Item = &Text> {
        self.fetched.keys()
    }

    /// A look: gives the names that are forgotten now. `is_used` tells whether a request has used one since the last look.
    pub fn sweep(&mut self, is_used: impl Fn(&Text) -> bool) -> Vec<Text> {
        let mut forgotten = Vec::new();
        self.fetched.retain(|name, idle| {
            *idle = if is_used(name) { 0 } else { *idle + 1 };
            let stays = *idle < IDLE_LOOKS;
            if !stays {
                forgotten.push(name.clone());
            }
            stays
        });
        for name in &forgotten {
            self.absent.remove(name);
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_uses_is_forgotten_at_the_second_look() {
        let (demand, _asked) = Demand::channel();
        let mut fetched = OnDemand::new(demand);
        let (used, unused): (Text, Text) = ("outbound|80||a".into(), "outbound|80||b".into());
        assert!(fetched.fetch(used.clone()));
        assert!(!fetched.fetch(used.clone()), "wanted already");
        assert!(fetched.fetch(unused.clone()));
        assert!(!fetched.fetch("inbound|80||".into()), "never on demand");
        fetched.absent.insert(unused.clone());
        assert_eq!(fetched.sweep(|name| *name == used), Vec::<Text>::new());
        assert_eq!(fetched.sweep(|name| *name == used), std::slice::from_ref(&unused));
        assert!(fetched.absent.is_empty());
        assert_eq!(fetched.names().collect::<Vec<_>>(), [&used]);
        assert!(fetched.fetch(unused), "it may come again");
    }

    #[test]
    fn there_is_room_for_so_many() {
        let (demand, _asked) = Demand::channel();
        let mut fetched = OnDemand::new(demand);
        for at in 0..FETCHED_MAX {
            assert!(fetched.fetch(format!("outbound|80||{at}").into()));
        }
        assert!(!fetched.fetch("outbound|80||one-more".into()));
    }
}
