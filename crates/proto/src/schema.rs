//! Constant tables of the messages and fields that the package `envoy-types` describes, and walks over wire bytes.
//!
//! prost drops what it does not know, so a decoded message can't tell whether its sender set a field that this build
//! has never heard of, or one of the hundreds that the mesh does not implement. These walks read the tags themselves:
//! [`scan`] visits every field that is set, at any depth and inside `Any` values of known types; [`in_order`] sorts map
//! entries, which prost encodes in random order. The tables are constants of the program: no heap, no start-up time.
//!
//! Bounds: nesting is followed to [`DEPTH_MAX`]; deeper is malformed. Nothing here panics on foreign bytes.

use crate::type_url::message_name;

include!(concat!(env!("OUT_DIR"), "/schema.rs"));

/// Deepest nesting of messages that is followed (prost itself refuses more than 100).
pub const DEPTH_MAX: usize = 100;

/// A message by its full name.
#[derive(Debug)]
pub struct MessageSchema {
    /// Full name, e.g. `envoy.config.listener.v3.Listener`.
    pub name: &'static str,
    /// It is the entry of a map: field 1 is the key, field 2 the value.
    pub map_entry: bool,
    /// A map may stand inside it, at any depth.
    holds_maps: bool,
    /// Ascending by number.
    pub fields: &'static [FieldSchema],
}

/// A field of a message.
#[derive(Debug)]
pub struct FieldSchema {
    /// Its place among all fields of all messages, below [`field_count`]: the key of what others keep per field.
    pub id: u16,
    /// Its number.
    pub number: u32,
    /// Its name as in the `.proto` file.
    pub name: &'static str,
    /// It may stand several times (maps too).
    pub repeated: bool,
    /// It is deprecated.
    pub deprecated: bool,
    kind: FieldKind,
}

#[derive(Debug, Clone, Copy)]
enum FieldKind {
    Number,
    Bool,
    Enum,
    Text,
    Bytes,
    /// Index in `MESSAGES`.
    Message(u16),
}

impl FieldSchema {
    /// The message that it holds, if it is one (the entry, for a map).
    pub fn message(&self) -> Option<&'static MessageSchema> {
        match self.kind {
            FieldKind::Message(at) => MESSAGES.get(usize::from(at)),
            _ => None,
        }
    }

    /// Its type for people: `bool`, `number`, `enum`, `string`, `bytes` or the message's full name.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            FieldKind::Number => "number",
            FieldKind::Bool => "bool",
            FieldKind::Enum => "enum",
            FieldKind::Text => "string",
            FieldKind::Bytes => "bytes",
            FieldKind::Message(_) => self.message().map_or("message", |it| it.name),
        }
    }
}

impl MessageSchema {
    /// The message of that full name.
    pub fn named(name: &str) -> Option<&'static Self> {
        MESSAGES
            .binary_search_by(|it| it.name.cmp(name))
            .ok()
            .and_then(|at| MESSAGES.get(at))
    }

    /// The field of that number.
    pub fn field(&self, number: u32) -> Option<&'static FieldSchema> {
        self.fields
            .binary_search_by_key(&number, |field| field.number)
            .ok()
            .and_then(|at| self.fields.get(at))
    }

    /// The field of that name.
    pub fn field_named(&self, name: &str) -> Option<&'static FieldSchema> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// All messages, ascending by name.
pub fn messages() -> &'static [MessageSchema] {
    &MESSAGES
}

/// How many fields all messages have together.
pub fn field_count() -> usize {
    FIELD_COUNT
}

/// The bytes are not a message of that type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// The type is not in the tables.
    #[error("the message type `{0}` is not known to this build")]
    UnknownType(String),
    /// A tag, a length or a number is cut off or out of range.
    #[error("the bytes are not a protobuf message ({what} at `{path}`)")]
    Malformed {
        /// Where in the message.
        path: String,
        /// What is wrong there.
        what: &'static str,
    },
}

/// A field that a walk has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundField {
    /// From the root, e.g. `filter_chains[0].filters[1].typed_config.stat_prefix`.
    pub path: String,
    /// `<message>.<field>` by full name, or `<message>.#<number>` where the number is unknown.
    pub field: String,
    /// Its number in the innermost message.
    pub number: u32,
}

/// What [`scan`] tells its visitor about a field that is set.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// The message that it stands in.
    pub message: &'static MessageSchema,
    /// The field, or `None` where its number is unknown.
    pub field: Option<&'static FieldSchema>,
    /// Its number.
    pub number: u32,
    /// The bytes of a length-delimited field, empty otherwise.
    pub value: &'a [u8],
    /// The number, of a varint field.
    pub varint: u64,
}

/// Whether [`scan`] goes into a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descend {
    /// Its fields are visited next (where it is a message).
    Into,
    /// It is left alone.
    Over,
}

/// Visits every field that is set in `bytes`, depth first, in their order. `visit` also gets the path, which is only
/// rendered when asked for.
pub fn scan<'a>(
    type_name: &str,
    bytes: &'a [u8],
    visit: &mut dyn FnMut(Visit<'a>, &Path<'_>) -> Descend,
) -> Result<(), ScanError> {
    let message =
        MessageSchema::named(type_name).ok_or_else(|| ScanError::UnknownType(type_name.to_owned()))?;
    scan_message(message, bytes, &Path::Root, 0, visit)
}

/// The paths of all fields whose numbers the tables do not hold.
pub fn unknown_fields(type_name: &str, bytes: &[u8]) -> Result<Vec<FoundField>, ScanError> {
    let mut found = Vec::new();
    scan(type_name, bytes, &mut |visit, path| {
        if visit.field.is_none() {
            found.push(FoundField::new(visit, path));
        }
        Descend::Into
    })?;
    Ok(found)
}

/// The paths of all fields that are set, messages before what is in them; unknown ones included.
pub fn set_fields(type_name: &str, bytes: &[u8]) -> Result<Vec<FoundField>, ScanError> {
    let mut found = Vec::new();
    scan(type_name, bytes, &mut |visit, path| {
        found.push(FoundField::new(visit, path));
        Descend::Into
    })?;
    Ok(found)
}

impl FoundField {
    fn new(visit: Visit<'_>, path: &Path<'_>) -> Self {
        Self {
            path: path.to_string(),
            field: match visit.field {
                Some(field) => format!("{}.{}", visit.message.name, field.name),
                None => format!("{}.#{}", visit.message.name, visit.number),
            },
            number: visit.number,
        }
    }
}

/// Where a walk stands; a chain of stack frames that is only rendered when asked for.
#[derive(Debug)]
pub enum Path<'a> {
    /// The message itself.
    Root,
    /// A field of a known number.
    Field(&'a Self, &'static FieldSchema, usize),
    /// A field of an unknown number.
    Unknown(&'a Self, u32),
    /// An entry of a map, by its key.
    Key(&'a Self, &'a str),
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dot = |f: &mut std::fmt::Formatter<'_>, parent: &Self| match parent {
            Self::Root => Ok(()),
            _ => write!(f, "{parent}."),
        };
        match self {
            Self::Root => Ok(()),
            Self::Field(parent, field, index) => {
                dot(f, parent)?;
                f.write_str(field.name)?;
                let is_map = field.message().is_some_and(|it| it.map_entry);
                if field.repeated && !is_map {
                    write!(f, "[{index}]")?;
                }
                Ok(())
            }
            Self::Unknown(parent, number) => {
                dot(f, parent)?;
                write!(f, "#{number}")
            }
            Self::Key(parent, key) => write!(f, "{parent}[{key:?}]"),
        }
    }
}

fn scan_message<'a>(
    message: &'static MessageSchema,
    bytes: &'a [u8],
    path: &Path<'_>,
    depth: usize,
    visit: &mut dyn FnMut(Visit<'a>, &Path<'_>) -> Descend,
) -> Result<(), ScanError> {
    let malformed = |what| ScanError::Malformed {
        path: path.to_string(),
        what,
    };
    if depth > DEPTH_MAX {
        return Err(malformed("too deep a nesting"));
    }
    // field number → times seen; few fields repeat, so a small list does.
    let mut seen: Vec<(u32, usize)> = Vec::new();
    for raw in RawFields::new(bytes) {
        let raw = raw.map_err(malformed)?;
        let field = message.field(raw.number);
        let seen_visit = Visit {
            message,
            field,
            number: raw.number,
            value: raw.value,
            varint: raw.varint,
        };
        let Some(field) = field else {
            visit(seen_visit, &Path::Unknown(path, raw.number));
            continue;
        };
        let mut index = 0;
        if field.repeated {
            if let Some((_, times)) = seen.iter_mut().find(|(number, _)| *number == raw.number) {
                index = *times;
                *times += 1;
            } else {
                seen.push((raw.number, 1));
            }
        }
        let here = Path::Field(path, field, index);
        if visit(seen_visit, &here) == Descend::Over {
            continue;
        }
        let Some(inner) = field.message() else { continue };
        if raw.wire != WIRE_LENGTH {
            return Err(ScanError::Malformed {
                path: here.to_string(),
                what: "a message that is not length-delimited",
            });
        }
        scan_value(inner, raw.value, &here, depth + 1, visit)?;
    }
    Ok(())
}

/// A message inside another: an entry of a map, an `Any`, or any other.
fn scan_value<'a>(
    inner: &'static MessageSchema,
    bytes: &'a [u8],
    path: &Path<'_>,
    depth: usize,
    visit: &mut dyn FnMut(Visit<'a>, &Path<'_>) -> Descend,
) -> Result<(), ScanError> {
    if inner.map_entry {
        let (mut key, mut value) = ("", None);
        for raw in RawFields::new(bytes).flatten() {
            match raw.number {
                1 => key = std::str::from_utf8(raw.value).unwrap_or_default(),
                2 if raw.wire == WIRE_LENGTH => value = Some(raw.value),
                _ => {}
            }
        }
        let Some(target) = inner.field(2).and_then(FieldSchema::message) else {
            return Ok(());
        };
        return scan_value(
            target,
            value.unwrap_or_default(),
            &Path::Key(path, key),
            depth + 1,
            visit,
        );
    }
    if inner.name == ANY {
        let (url, value) = any_parts(bytes);
        return match MessageSchema::named(message_name(url)) {
            Some(held) => scan_message(held, value, path, depth + 1, visit),
            None => Ok(()),
        };
    }
    scan_message(inner, bytes, path, depth, visit)
}

const ANY: &str = "google.protobuf.Any";

/// Type URL and value of an encoded `Any`.
fn any_parts(bytes: &[u8]) -> (&str, &[u8]) {
    let (mut url, mut value) = ("", &[][..]);
    for raw in RawFields::new(bytes).flatten() {
        match raw.number {
            1 => url = std::str::from_utf8(raw.value).unwrap_or_default(),
            2 => value = raw.value,
            _ => {}
        }
    }
    (url, value)
}

/// The same message with map entries sorted by key, at every depth and inside `Any` values of known types; other
/// fields keep their order. Bytes that are not a message of that type come back unchanged.
pub fn in_order(type_name: &str, bytes: Vec<u8>) -> Vec<u8> {
    match MessageSchema::named(type_name) {
        Some(message) if message.holds_maps => {
            let mut out = Vec::with_capacity(bytes.len());
            match order_message(message, &bytes, 0, &mut out) {
                Some(()) => out,
                None => bytes,
            }
        }
        _ => bytes,
    }
}

fn order_message(
    message: &'static MessageSchema,
    bytes: &[u8],
    depth: usize,
    out: &mut Vec<u8>,
) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    let url = if message.name == ANY {
        any_parts(bytes).0
    } else {
        ""
    };
    let mut entries: Vec<(u32, Vec<u8>)> = Vec::new();
    for raw in RawFields::new(bytes) {
        let raw = raw.ok()?;
        // Map entries that stand together are sorted together; encoders write a map's entries in a row.
        if entries.first().is_some_and(|(number, _)| *number != raw.number) {
            flush_entries(&mut entries, out);
        }
        let inner = match message.field(raw.number) {
            Some(field) if message.name != ANY => field.message(),
            Some(field) if field.number == 2 => MessageSchema::named(message_name(url)),
            _ => None,
        };
        match inner {
            Some(inner) if raw.wire == WIRE_LENGTH && (inner.holds_maps || inner.map_entry) => {
                let mut ordered = Vec::with_capacity(raw.value.len());
                order_message(inner, raw.value, depth + 1, &mut ordered)?;
                if inner.map_entry {
                    entries.push((raw.number, ordered));
                } else {
                    put_length_delimited(raw.number, &ordered, out);
                }
            }
            _ => out.extend_from_slice(raw.whole),
        }
    }
    flush_entries(&mut entries, out);
    Some(())
}

/// Writes collected entries of one map, ascending (the key is the entry's first field).
fn flush_entries(entries: &mut Vec<(u32, Vec<u8>)>, out: &mut Vec<u8>) {
    entries.sort_by(|(_, a), (_, b)| map_key(a).cmp(map_key(b)));
    for (number, entry) in entries.drain(..) {
        put_length_delimited(number, &entry, out);
    }
}

fn map_key(entry: &[u8]) -> &[u8] {
    RawFields::new(entry)
        .flatten()
        .find(|raw| raw.number == 1)
        .map_or(&[], |raw| raw.whole)
}

fn put_length_delimited(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, out);
    prost::encoding::encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

const WIRE_VARINT: u8 = 0;
const WIRE_64: u8 = 1;
const WIRE_LENGTH: u8 = 2;
const WIRE_32: u8 = 5;

struct RawField<'a> {
    number: u32,
    wire: u8,
    value: &'a [u8],
    varint: u64,
    /// Tag and value.
    whole: &'a [u8],
}

/// The fields of one message, undecoded; ends after the first malformed one.
struct RawFields<'a> {
    rest: &'a [u8],
}

impl<'a> RawFields<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for (at, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return (at < 9 || *byte <= 1).then_some(value);
            }
        }
        None
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = tail;
        Some(head)
    }

    fn read(&mut self) -> Result<RawField<'a>, &'static str> {
        let start = self.rest;
        let tag = self.varint().ok_or("a cut-off tag")?;
        let number = u32::try_from(tag >> 3).map_err(|_| "a field number out of range")?;
        if number == 0 {
            return Err("a field number of zero");
        }
        let mut varint = 0;
        let mut value: &[u8] = &[];
        let wire = u8::try_from(tag & 7).unwrap_or(u8::MAX);
        match wire {
            WIRE_VARINT => varint = self.varint().ok_or("a cut-off number")?,
            WIRE_64 => value = self.take(8).ok_or("a cut-off number")?,
            WIRE_LENGTH => {
                let length = self.varint().ok_or("a cut-off length")?;
                value = self.take(length).ok_or("a length beyond the end")?;
            }
            WIRE_32 => value = self.take(4).ok_or("a cut-off number")?,
            _ => return Err("a wire type that proto3 does not have"),
        }
        Ok(RawField {
            number,
            wire,
            value,
            varint,
            whole: &start[..start.len() - self.rest.len()],
        })
    }
}

impl<'a> Iterator for RawFields<'a> {
    type Item = Result<RawField<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests;
