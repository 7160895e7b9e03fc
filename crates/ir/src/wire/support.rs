//! The three lists: for each message which fields are supported, which are ignorable, and what to do instead of the
//! most wanted refused ones (every field that stands in no list is refused).
//!
//! The table is data: the gate ([`judge`]) walks the wire tags with it before anything is decoded, the reference page
//! ([`support_table`]) is generated from it, and tests hold it against the descriptors (each name exists, each
//! supported message has lists of its own). A field is *supported* only if a decoder of this folder reads it.

mod lists;

use std::sync::OnceLock;

use rajut_proto::schema::{self, FieldSchema, MessageSchema, Visit};

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
    let Some(field) = visit.field else {
        return match lists_of(visit.message.name) {
            Some(_) => Verdict::Refused(Fault::UnknownField(visit.number)),
            None => Verdict::Opaque,
        };
    };
    match listed().get(usize::from(field.id)).copied().flatten() {
        None => Verdict::Opaque,
        Some(Support::Supported) => Verdict::Supported,
        Some(Support::Ignorable) => Verdict::Ignored,
        Some(Support::Refused) if is_default(visit, field) => Verdict::Opaque,
        Some(Support::Refused) => Verdict::Refused(Fault::Refused {
            field: format!("{}.{}", visit.message.name, field.name),
            instead: lists_of(visit.message.name).map_or(LEAVE_OUT, |lists| lists.instead_of(field.name)),
        }),
    }
}

/// Field's id → its list; `None` where the message has no lists. Some thousand bytes, made on first use, so that each
/// field of a large resource is judged by one look.
fn listed() -> &'static [Option<Support>] {
    static LISTED: OnceLock<Vec<Option<Support>>> = OnceLock::new();
    LISTED.get_or_init(|| {
        let mut listed = vec![None; schema::field_count()];
        for lists in LISTS {
            for field in MessageSchema::named(lists.message).map_or(&[][..], |it| it.fields) {
                if let Some(slot) = listed.get_mut(usize::from(field.id)) {
                    *slot = Some(lists.support(field.name));
                }
            }
        }
        listed
    })
}

impl Lists {
    fn support(&self, field: &str) -> Support {
        if self.supported.contains(&field) {
            Support::Supported
        } else if self.ignorable.contains(&field) {
            Support::Ignorable
        } else {
            Support::Refused
        }
    }

    fn instead_of(&self, field: &str) -> &'static str {
        let instead = self.instead.iter().find(|(name, _)| *name == field);
        instead.map_or(LEAVE_OUT, |(_, text)| text)
    }
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
            let support = lists.support(field.name);
            rows.push(SupportRow {
                message: lists.message,
                field: field.name,
                type_name: field.type_name(),
                support,
                deprecated: field.deprecated,
                instead: match support {
                    Support::Refused => lists.instead_of(field.name),
                    Support::Supported | Support::Ignorable => "",
                },
            });
        }
    }
    rows
}
