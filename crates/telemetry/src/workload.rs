//! Who stands at an end of a call, as Istio's metrics name it, and how two proxies tell each other.
//!
//! A [`Workload`] travels in two forms. An endpoint's metadata has [`Workload::to_text`]: the control plane tells a client
//! whom it reaches. A client tells a server in the header [`HEADER`], which is a `Struct` of Istio's names in base64; only
//! the first requests of a connection carry it, since a connection has one client.
//!
//! Rejected: headers of more than [`HEADER_MAX`] bytes, and what is no such `Struct`. Values are cut at [`VALUE_MAX`] bytes.

use base64::{Engine as _, engine::general_purpose};
use prost::Message as _;
use rajut_proto::google::protobuf::{Struct, Value, value::Kind};
use rajut_types::{Labels, Text};

/// The header in which a client says who it is. Source: Istio peer metadata.
pub const HEADER: &str = "x-envoy-peer-metadata";
/// Largest header that is read.
pub const HEADER_MAX: usize = 4096;
/// Largest value; Kubernetes has none that is longer.
pub const VALUE_MAX: usize = 253;

/// What metrics say of one end of a call. What is not known is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Workload {
    /// The deployment.
    pub name: Text,
    /// Its namespace.
    pub namespace: Text,
    /// Istio's canonical service.
    pub canonical_service: Text,
    /// Istio's canonical revision.
    pub canonical_revision: Text,
    /// Its cluster of Kubernetes.
    pub cluster: Text,
    /// The label `app`.
    pub app: Text,
    /// The label `version`.
    pub version: Text,
}

impl Workload {
    /// A workload of a name and labels.
    pub fn new(name: &str, namespace: &str, cluster: &str, labels: &Labels) -> Self {
        let label = |key| Text::from(labels.find(key).map(cut).unwrap_or_default());
        Self {
            name: cut(name).into(),
            namespace: cut(namespace).into(),
            canonical_service: cut(labels.canonical_service(name)).into(),
            canonical_revision: cut(labels.canonical_revision()).into(),
            cluster: cut(cluster).into(),
            app: label("app"),
            version: label("version"),
        }
    }

    /// The fields in the order of the text.
    fn fields(&self) -> [&Text; 7] {
        [
            &self.name,
            &self.namespace,
            &self.canonical_service,
            &self.canonical_revision,
            &self.cluster,
            &self.app,
            &self.version,
        ]
    }

    /// `name;namespace;canonical-service;canonical-revision;cluster`, as Istio writes it to endpoints; `;app;version` follows
    /// where there is one of them.
    pub fn to_text(&self) -> String {
        let all = if self.app.is_empty() && self.version.is_empty() {
            &self.fields()[..5]
        } else {
            &self.fields()[..]
        };
        // A separator inside a value would move what follows.
        let clean: Vec<_> = all.iter().map(|field| field.replace(';', "_")).collect();
        clean.join(";")
    }

    /// The workload of such a text. What is missing is empty.
    pub fn from_text(text: &str) -> Self {
        let mut fields = text.split(';');
        let mut next = || Text::from(fields.next().map(cut).unwrap_or_default());
        Self {
            name: next(),
            namespace: next(),
            canonical_service: next(),
            canonical_revision: next(),
            cluster: next(),
            app: next(),
            version: next(),
        }
    }

    /// The value of [`HEADER`].
    pub fn to_header(&self) -> String {
        let text = |value: &str| Value {
            kind: Some(Kind::StringValue(value.to_owned())),
        };
        let of = |pairs: &[(&str, &str)]| Struct {
            fields: pairs
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| ((*key).to_owned(), text(value)))
                .collect(),
        };
        let labels = of(&[
            ("app", &self.app),
            ("version", &self.version),
            ("service.istio.io/canonical-name", &self.canonical_service),
            ("service.istio.io/canonical-revision", &self.canonical_revision),
        ]);
        let mut own = of(&[
            ("WORKLOAD_NAME", &self.name),
            ("NAMESPACE", &self.namespace),
            ("CLUSTER_ID", &self.cluster),
        ]);
        let labels = Value {
            kind: Some(Kind::StructValue(labels)),
        };
        own.fields.insert("LABELS".to_owned(), labels);
        general_purpose::STANDARD.encode(own.encode_to_vec())
    }

    /// The workload that a [`HEADER`] tells.
    pub fn from_header(value: &[u8]) -> Option<Self> {
        if value.len() > HEADER_MAX {
            return None;
        }
        let bytes = general_purpose::STANDARD.decode(value).ok()?;
        let told = Struct::decode(&*bytes).ok()?;
        let labels: Labels = match told.fields.get("LABELS")?.kind.as_ref()? {
            Kind::StructValue(labels) => labels
                .fields
                .iter()
                .filter_map(|(key, value)| Some((key.as_str(), text_of(value)?)))
                .collect(),
            _ => return None,
        };
        let text = |key| told.fields.get(key).and_then(text_of).unwrap_or_default();
        Some(Self::new(
            text("WORKLOAD_NAME"),
            text("NAMESPACE"),
            text("CLUSTER_ID"),
            &labels,
        ))
    }
}

fn text_of(value: &Value) -> Option<&str> {
    match value.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

/// The value, as far as it is kept.
fn cut(value: &str) -> &str {
    let mut end = value.len().min(VALUE_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    value.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Workload {
        let labels = [("app", "web"), ("version", "v2"), ("tier", "front")]
            .into_iter()
            .collect();
        Workload::new("web-v2", "clinic", "", &labels)
    }

    #[test]
    fn both_forms_say_the_same() {
        let web = web();
        assert_eq!(web.to_text(), "web-v2;clinic;web;v2;;web;v2");
        assert_eq!(Workload::from_text(&web.to_text()), web);
        assert_eq!(Workload::from_header(web.to_header().as_bytes()), Some(web));
    }

    #[test]
    fn an_endpoint_of_istio_has_five_fields() {
        let told = Workload::from_text("db;data;db;latest;Kubernetes");
        assert_eq!(told.to_text(), "db;data;db;latest;Kubernetes");
        assert_eq!(&*told.cluster, "Kubernetes");
        assert!(told.app.is_empty() && told.version.is_empty());
    }

    #[test]
    fn what_is_no_metadata_tells_nothing_and_what_is_long_is_cut() {
        for value in [&b"%%%"[..], b"aGVsbG8=", &[b'A'; HEADER_MAX + 4]] {
            assert_eq!(Workload::from_header(value), None);
        }
        let long = "\u{e9}".repeat(VALUE_MAX);
        let cut = Workload::new(&long, "a;b", "", &Labels::default());
        assert_eq!(cut.name.len(), VALUE_MAX - 1);
        assert_eq!(Workload::from_text(&cut.to_text()).namespace, "a_b".into());
    }
}
