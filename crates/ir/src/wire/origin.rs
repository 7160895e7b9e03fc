//! [`Origin`] as filter metadata under [`Origin::METADATA_KEY`], with `source`, `line`, `kind`, `namespace`, `name`, `path`.
//!
//! A resource without it (of a foreign control plane) gets the source `xds` and its own name.

use rajut_proto::{
    core::Metadata,
    google::protobuf::{Struct, value},
};
use rajut_types::{ObjectRef, Origin};

use super::{read, write};

/// What a foreign resource's origin names as its source.
const FOREIGN: &str = "xds";

pub(super) fn encode(origin: &Origin) -> (&'static str, Struct) {
    let line = origin.line.to_string();
    let object = &origin.object;
    let pairs = [
        ("source", &*origin.source),
        ("line", if origin.line == 0 { "" } else { &line }),
        ("kind", &object.kind),
        ("namespace", &object.namespace),
        ("name", &object.name),
        ("path", &origin.field_path),
    ];
    let fields = write::texts(pairs.into_iter().filter(|(_, value)| !value.is_empty()));
    (Origin::METADATA_KEY, fields)
}

/// The origin in `metadata`, or one that says that `kind` of that `name` came over xDS.
pub(super) fn decode(metadata: Option<&Metadata>, kind: &'static str, name: &str) -> Origin {
    let Some(fields) = read::metadata(metadata, Origin::METADATA_KEY) else {
        return Origin::new(FOREIGN, ObjectRef::new(kind, "", name));
    };
    let text = |key| read::text_in(fields, key);
    let line = match fields.fields.get("line").and_then(|it| it.kind.as_ref()) {
        Some(value::Kind::StringValue(line)) => line.parse().unwrap_or(0),
        _ => 0,
    };
    Origin {
        source: text("source").into(),
        line,
        object: ObjectRef::new(text("kind"), text("namespace"), text("name")),
        field_path: text("path").into(),
    }
}
