//! Labels of workloads and the exact-match selectors over them.

use serde::{Serialize, Serializer};

use crate::Text;

/// A sorted set of label keys and values.
///
/// Size: a handful per workload; Kubernetes bounds each key to 317 and each value to 63 bytes. Two labels take 64 bytes beside
/// their texts, where a tree's node takes 368: a mesh has two such sets for each of its endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Box<[(Text, Text)]>);

impl Labels {
    /// The value of `key`.
    pub fn find(&self, key: &str) -> Option<&str> {
        let place = self.place(key).ok()?;
        self.0.get(place).map(|(_, value)| &**value)
    }

    /// Where the key stands, or where it would.
    fn place(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(key))
    }

    /// Sets `key` to `value`, replacing what was there.
    pub fn insert(&mut self, key: impl Into<Text>, value: impl Into<Text>) {
        let (key, value) = (key.into(), value.into());
        let mut all = std::mem::take(&mut self.0).into_vec();
        match all.binary_search_by(|(known, _)| known.cmp(&key)) {
            Ok(place) => all[place].1 = value,
            Err(place) => all.insert(place, (key, value)),
        }
        self.0 = all.into_boxed_slice();
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether every label of `selector` stands here with the same value. An empty selector selects everything.
    pub fn matches(&self, selector: &Self) -> bool {
        selector
            .0
            .iter()
            .all(|(key, value)| self.find(key) == Some(value))
    }

    /// The canonical service of a workload with these labels (Istio: `service.istio.io/canonical-name`, else
    /// `app.kubernetes.io/name`, else `app`, else the deployment's name).
    pub fn canonical_service<'a>(&'a self, deployment: &'a str) -> &'a str {
        ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]
            .into_iter()
            .find_map(|key| self.find(key))
            .unwrap_or(deployment)
    }

    /// The canonical revision of a workload with these labels (`service.istio.io/canonical-revision`, else
    /// `app.kubernetes.io/version`, else `version`, else `latest`).
    pub fn canonical_revision(&self) -> &str {
        [
            "service.istio.io/canonical-revision",
            "app.kubernetes.io/version",
            "version",
        ]
        .into_iter()
        .find_map(|key| self.find(key))
        .unwrap_or("latest")
    }

    /// The labels in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl<K: Into<Text>, V: Into<Text>> FromIterator<(K, V)> for Labels {
    /// Of a key that comes twice the last value stays.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut all: Vec<(Text, Text)> = pairs
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        Self(all.into_boxed_slice())
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::Labels;

    #[test]
    fn labels_are_sorted_and_the_last_value_of_a_key_stays() {
        let mut labels: Labels = [("b", "1"), ("a", "2"), ("b", "3"), ("b", "4")]
            .into_iter()
            .collect();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "2"), ("b", "4")]);
        labels.insert("c", "5");
        labels.insert("a", "6");
        labels.insert("aa", "7");
        let all: Vec<_> = labels.iter().collect();
        assert_eq!(all, [("a", "6"), ("aa", "7"), ("b", "4"), ("c", "5")]);
        assert_eq!(
            (labels.find("b"), labels.find("d"), labels.len()),
            (Some("4"), None, 4)
        );
    }

    #[test]
    fn a_selector_matches_what_has_all_its_labels() {
        let labels: Labels = [("app", "web"), ("version", "v1")].into_iter().collect();
        let selector = |pairs: &[(&str, &str)]| -> Labels { pairs.iter().copied().collect() };
        assert!(labels.matches(&selector(&[])));
        assert!(labels.matches(&selector(&[("version", "v1")])));
        assert!(!labels.matches(&selector(&[("version", "v2")])));
        assert!(!labels.matches(&selector(&[("app", "web"), ("tier", "x")])));
    }
}
