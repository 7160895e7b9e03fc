//! Where a workload runs.

use std::fmt;

use crate::{Labels, Text};

/// Labels of nodes (and here of pods) that say where. Source: Kubernetes and Istio.
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUB_ZONE: &str = "topology.istio.io/subzone";
/// Labels of pods that say it in one text, `region.zone.subzone`, before those.
const WHOLE: [&str; 2] = ["istio-locality", "topology.istio.io/locality"];

/// Region, zone and sub-zone, each possibly empty. Source: Envoy `core.v3.Locality`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Locality {
    /// The largest unit, e.g. `ap-southeast-3`.
    pub region: Text,
    /// Inside the region.
    pub zone: Text,
    /// Inside the zone.
    pub sub_zone: Text,
}

impl Locality {
    /// Parses Istio's `region/zone/subzone` form; missing parts are empty.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(Text::from);
        let mut next = || parts.next().unwrap_or_default();
        Self {
            region: next(),
            zone: next(),
            sub_zone: next(),
        }
    }

    /// What a workload's labels say: `istio-locality` (dots or slashes between the parts), else the topology labels.
    pub fn of_labels(labels: &Labels) -> Self {
        if let Some(text) = WHOLE.into_iter().find_map(|key| labels.find(key)) {
            // A label's value can't hold a slash in Kubernetes.
            return if text.contains('/') {
                Self::parse(text)
            } else {
                Self::parse(&text.replace('.', "/"))
            };
        }
        let part = |key| labels.find(key).map(Text::from).unwrap_or_default();
        Self {
            region: part(REGION),
            zone: part(ZONE),
            sub_zone: part(SUB_ZONE),
        }
    }

    /// The value of a label of something with `labels` that stands here: the topology labels are what the place says,
    /// where no label does (Istio adds them to endpoints).
    pub fn label<'a>(&'a self, labels: &'a Labels, key: &str) -> Option<&'a str> {
        labels.find(key).or_else(|| {
            let part = match key {
                REGION => &self.region,
                ZONE => &self.zone,
                SUB_ZONE => &self.sub_zone,
                _ => return None,
            };
            (!part.is_empty()).then_some(&**part)
        })
    }

    /// Whether a pattern of Istio (`region/zone/subzone`; `*` or a missing part is anything) takes it.
    pub fn is_in(&self, pattern: &str) -> bool {
        let wanted = Self::parse(pattern);
        let takes = |wanted: &str, own: &str| wanted == "*" || wanted == own;
        takes(&wanted.region, &self.region)
            && (wanted.zone.is_empty() || takes(&wanted.zone, &self.zone))
            && (wanted.sub_zone.is_empty() || takes(&wanted.sub_zone, &self.sub_zone))
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.sub_zone.is_empty()
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.region, self.zone, self.sub_zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_say_where_and_the_whole_text_comes_first() {
        let mut labels: Labels = [
            ("topology.kubernetes.io/region", "west"),
            ("topology.kubernetes.io/zone", "w1"),
            ("topology.istio.io/subzone", "rack-3"),
        ]
        .into_iter()
        .collect();
        assert_eq!(Locality::of_labels(&labels), Locality::parse("west/w1/rack-3"));
        labels.insert("istio-locality", "east.e1");
        assert_eq!(Locality::of_labels(&labels), Locality::parse("east/e1"));
        assert_eq!(Locality::of_labels(&Labels::default()), Locality::default());
    }

    #[test]
    fn a_place_stands_for_its_labels_where_there_are_none() {
        let place = Locality::parse("west/w1");
        let none = Labels::default();
        assert_eq!(place.label(&none, "topology.kubernetes.io/zone"), Some("w1"));
        assert_eq!(place.label(&none, "topology.istio.io/subzone"), None);
        let own: Labels = [("topology.kubernetes.io/zone", "other")].into_iter().collect();
        assert_eq!(place.label(&own, "topology.kubernetes.io/zone"), Some("other"));
    }

    #[test]
    fn patterns_take_what_they_name() {
        let place = Locality::parse("west/w1/a");
        for (pattern, taken) in [
            ("*", true),
            ("west", true),
            ("west/*", true),
            ("west/w1/*", true),
            ("west/w1/a", true),
            ("west/w1/b", false),
            ("west/w2", false),
            ("east/*", false),
        ] {
            assert_eq!(place.is_in(pattern), taken, "{pattern}");
        }
    }
}
