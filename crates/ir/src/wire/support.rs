//! The three lists: for each message which fields are supported, which are ignorable, and what to do instead of the
//! most wanted refused ones (every field that stands in no list is refused).
//!
//! The table is data: the gate ([`judge`]) walks the wire tags with it before anything is decoded, the reference page
//! ([`support_table`]) is generated from it, and tests hold it against the descriptors (each name exists, each
//! supported message has lists of its own). A field is *supported* only if a decoder of this folder reads it.

mod lists;

use rajut_proto::schema::{FieldSchema, MessageSchema, Visit};

use super::Fault;
use lists::LISTS;

/// The lists of one message.
#[derive(Debug)]
pub(super) struct Lists {
    /// Its full name.
    pub(super) message: &'static str,
    /// Fields that are read.
    pub(super) supported: &'static [&'static str],
    /// Fields that are left out, counted.
    pub(super) ignorable: &'static [&'static str],
    /// What to do instead of a refused field.
    pub(super) instead: &'static [(&'static str, &'static str)],
}

/// What the gate says of a field that is set.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is read; what is in it is judged too.
    Supported,
    /// The message has no lists (it is an extension's): whoever reads the extension decides.
    Opaque,
    /// It is left out.
    Ignored,
    /// The resource is refused.
    Refused(Fault),
}

/// What there is to do where nothing better is known.
const LEAVE_OUT: &str = "leave the field out";

pub(super) fn judge(visit: &Visit<'_>) -> Verdict {
    let Some(lists) = lists_of(visit.message.name) else {
        return Verdict::Opaque;
    };
    let Some(field) = visit.field else {
        return Verdict::Refused(Fault::UnknownField(visit.number));
    };
    if lists.supported.contains(&field.name) {
        return Verdict::Supported;
    }
    if lists.ignorable.contains(&field.name) {
        return Verdict::Ignored;
    }
    if is_default(visit, field) {
        return Verdict::Opaque;
    }
    let instead = lists.instead.iter().find(|(name, _)| *name == field.name);
    Verdict::Refused(Fault::Refused {
        field: format!("{}.{}", visit.message.name, field.name),
        instead: instead.map_or(LEAVE_OUT, |(_, text)| text),
    })
}

/// A field that is written out with what it means when it is left out: a number or boolean of zero, an explicit `false`.
fn is_default(visit: &Visit<'_>, field: &FieldSchema) -> bool {
    if field.repeated {
        return false;
    }
    match field.message() {
        Some(message) => message.name == "google.protobuf.BoolValue" && !bool_value(visit.value),
        None => visit.value.is_empty() && visit.varint == 0,
    }
}

/// An encoded `BoolValue`; anything odd counts as true.
fn bool_value(bytes: &[u8]) -> bool {
    !matches!(bytes, [] | [0x08, 0x00])
}

#[cfg(test)]
pub(super) fn all() -> &'static [Lists] {
    LISTS
}

fn lists_of(message: &str) -> Option<&'static Lists> {
    LISTS.iter().find(|lists| lists.message == message)
}

/// Which of the three lists a field stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Support {
    /// Does what Envoy does with it.
    Supported,
    /// Left out and counted.
    Ignorable,
    /// The resource is refused.
    Refused,
}

/// A row of the reference page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupportRow {
    /// The message's full name.
    pub message: &'static str,
    /// The field's name.
    pub field: &'static str,
    /// The field's type for people.
    pub type_name: &'static str,
    /// In which list it stands.
    pub support: Support,
    /// Envoy itself deprecates it.
    pub deprecated: bool,
    /// What to do instead, of a refused field.
    pub instead: &'static str,
}

/// Every field of every message that the decoders look at, by message and field number.
pub fn support_table() -> Vec<SupportRow> {
    let mut rows = Vec::new();
    for lists in LISTS {
        let fields = MessageSchema::named(lists.message).map_or(&[][..], |it| it.fields);
        for field in fields {
            let support = if lists.supported.contains(&field.name) {
                Support::Supported
            } else if lists.ignorable.contains(&field.name) {
                Support::Ignorable
            } else {
                Support::Refused
            };
            let instead = lists.instead.iter().find(|(name, _)| *name == field.name);
            rows.push(SupportRow {
                message: lists.message,
                field: field.name,
                type_name: field.type_name(),
                support,
                deprecated: field.deprecated,
                instead: match support {
                    Support::Refused => instead.map_or(LEAVE_OUT, |(_, text)| text),
                    Support::Supported | Support::Ignorable => "",
                },
            });
        }
    }
    rows
}
