//! Labels of workloads and the exact-match selectors over them.

use std::collections::BTreeMap;

use crate::Text;

/// A sorted set of label keys and values.
///
/// Size: a handful per workload; Kubernetes bounds each key to 317 and each value to 63 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<Text, Text>);

impl Labels {
    /// The value of `key`.
    pub fn find(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| &**value)
    }

    /// Sets `key` to `value`, replacing what was there.
    pub fn insert(&mut self, key: impl Into<Text>, value: impl Into<Text>) {
        self.0.insert(key.into(), value.into());
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
            .all(|(key, value)| self.0.get(key) == Some(value))
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
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        )
    }
}
