//! Names that a client subscribes to: sorted, and where possible the very text that the resource carries, so that a thousand
//! clients with a thousand names each keep pointers only. Bound: `limits::NAMES_MAX`, checked by the machine.

use rajut_types::Text;

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names(Vec<Text>);

impl Names {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.binary_search_by(|known| (**known).cmp(name)).is_ok()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Text> {
        self.0.iter()
    }

    /// Adds those that are not here yet; gives them back, each once.
    pub(super) fn extend(&mut self, names: impl IntoIterator<Item = Text>) -> Vec<Text> {
        let mut fresh: Vec<Text> = names.into_iter().filter(|name| !self.contains(name)).collect();
        fresh.sort_unstable();
        fresh.dedup();
        if !fresh.is_empty() {
            self.0.reserve_exact(fresh.len());
            self.0.extend(fresh.iter().cloned());
            // Two sorted runs: merged in linear time.
            self.0.sort();
        }
        fresh
    }

    pub(super) fn remove(&mut self, name: &str) -> bool {
        let Ok(position) = self.0.binary_search_by(|known| (**known).cmp(name)) else {
            return false;
        };
        self.0.remove(position);
        true
    }

    /// Points to the texts of `known` where it has equal ones.
    pub(super) fn share<'k>(&mut self, known: impl Fn(&str) -> Option<&'k Text>) {
        for name in &mut self.0 {
            if let Some(same) = known(name) {
                debug_assert_eq!(same, name, "the order of the names stays");
                *name = Text::clone(same);
            }
        }
    }

    /// Keeps those of `wanted` (sorted); gives what was dropped.
    pub(super) fn keep(&mut self, wanted: &[Text]) -> Vec<Text> {
        let mut dropped = Vec::new();
        self.0.retain(|name| {
            let kept = wanted.binary_search(name).is_ok();
            if !kept {
                dropped.push(name.clone());
            }
            kept
        });
        dropped
    }
}
