//! The two tables of RFC 7541 §2.3: the fixed one, and the dynamic one as its decoder keeps it.
//!
//! An entry is kept as the line `name: value CRLF` in which [`Fields`](crate::Fields) keeps a field, with what was found out
//! about it when it came, so that a reference to it is one copy. Bounds: the dynamic table's size as HPACK counts it is at
//! most what our settings allow, its buffer little more than twice what it holds.

use std::collections::VecDeque;

use crate::fields::Known;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// A field's name, valid in HTTP/2.
    Field(Option<Known>),
    /// A pseudo header field.
    Pseudo(Pseudo),
    /// A name that no valid message has.
    Invalid,
}

/// The pseudo header fields (RFC 9113 §8.3, RFC 8441 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Pseudo {
    Authority,
    Method,
    Path,
    Scheme,
    Status,
    Protocol,
}

impl Class {
    /// The class of a name that stands as a literal.
    pub(crate) fn of(name: &[u8]) -> Self {
        if name.first() == Some(&b':') {
            return match name {
                b":authority" => Self::Pseudo(Pseudo::Authority),
                b":method" => Self::Pseudo(Pseudo::Method),
                b":path" => Self::Pseudo(Pseudo::Path),
                b":scheme" => Self::Pseudo(Pseudo::Scheme),
                b":status" => Self::Pseudo(Pseudo::Status),
                b":protocol" => Self::Pseudo(Pseudo::Protocol),
                _ => Self::Invalid,
            };
        }
        let valid = !name.is_empty()
            && u16::try_from(name.len()).is_ok()
            && name
                .iter()
                .fold(true, |valid, byte| valid & NAME_BYTES[usize::from(*byte)]);
        if valid {
            Self::Field(Known::classify(name))
        } else {
            Self::Invalid
        }
    }
}

/// Bytes of a name in HTTP/2 (RFC 9113 §8.2.1): a token without upper-case letters.
#[expect(clippy::cast_possible_truncation, reason = "below 256")]
static NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let one = byte as u8;
        table[byte] = crate::fields::is_token_byte(one) && !one.is_ascii_uppercase();
        byte += 1;
    }
    table
};

/// A field as both tables give it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    /// `name: value CRLF`.
    pub(crate) line: &'a [u8],
    pub(crate) name_len: usize,
    pub(crate) class: Class,
    /// Whether the value holds only what a value may hold.
    pub(crate) is_valid: bool,
}

impl<'a> Entry<'a> {
    pub(crate) fn name(&self) -> &'a [u8] {
        &self.line[..self.name_len]
    }

    /// The size as HPACK counts it (RFC 7541 §4.1).
    pub(crate) fn size(&self) -> usize {
        // The line has four bytes beside name and value.
        self.line.len() - LINE_OVERHEAD + ENTRY_OVERHEAD
    }

    #[cfg(test)]
    pub(crate) fn value(&self) -> &'a [u8] {
        &self.line[self.name_len + 2..self.line.len() - 2]
    }
}

/// `: ` and CRLF.
pub(crate) const LINE_OVERHEAD: usize = 4;
/// What an entry counts beside its name and value (RFC 7541 §4.1).
pub(crate) const ENTRY_OVERHEAD: usize = 32;

/// An entry of the fixed table.
#[derive(Debug)]
pub(crate) struct Fixed {
    pub(crate) name: &'static str,
    pub(crate) value: &'static str,
    line: &'static str,
    class: Class,
}

macro_rules! fixed {
    (@class $known:ident) => { Class::Field(Some(Known::$known)) };
    (@class) => { Class::Field(None) };
    (pseudo { $($pseudo:ident $pseudo_name:literal $pseudo_value:literal;)* }
     fields { $($name:literal $value:literal $($known:ident)?;)* }) => {
        /// RFC 7541, appendix A; the first entry has the index 1.
        pub(crate) static FIXED: [Fixed; 61] = [
            $(Fixed {
                name: $pseudo_name,
                value: $pseudo_value,
                line: concat!($pseudo_name, ": ", $pseudo_value, "\r\n"),
                class: Class::Pseudo(Pseudo::$pseudo),
            },)*
            $(Fixed {
                name: $name,
                value: $value,
                line: concat!($name, ": ", $value, "\r\n"),
                class: fixed!(@class $($known)?),
            },)*
        ];

        /// The classes of the fixed entries, for tables computed from them.
        pub(crate) const FIXED_CLASSES: [Class; 61] = [
            $(Class::Pseudo(Pseudo::$pseudo),)*
            $(fixed!(@class $($known)?),)*
        ];
    };
}

fixed! {
    pseudo {
    Authority ":authority" "";
    Method ":method" "GET";
    Method ":method" "POST";
    Path ":path" "/";
    Path ":path" "/index.html";
    Scheme ":scheme" "http";
    Scheme ":scheme" "https";
    Status ":status" "200";
    Status ":status" "204";
    Status ":status" "206";
    Status ":status" "304";
    Status ":status" "400";
    Status ":status" "404";
    Status ":status" "500";
    }
    fields {
    "accept-charset" "";
    "accept-encoding" "gzip, deflate" AcceptEncoding;
    "accept-language" "";
    "accept-ranges" "";
    "accept" "" Accept;
    "access-control-allow-origin" "";
    "age" "";
    "allow" "";
    "authorization" "" Authorization;
    "cache-control" "" CacheControl;
    "content-disposition" "";
    "content-encoding" "" ContentEncoding;
    "content-language" "";
    "content-length" "" ContentLength;
    "content-location" "";
    "content-range" "";
    "content-type" "" ContentType;
    "cookie" "" Cookie;
    "date" "" Date;
    "etag" "";
    "expect" "" Expect;
    "expires" "";
    "from" "";
    "host" "" Host;
    "if-match" "";
    "if-modified-since" "";
    "if-none-match" "";
    "if-range" "";
    "if-unmodified-since" "";
    "last-modified" "";
    "link" "";
    "location" "" Location;
    "max-forwards" "";
    "proxy-authenticate" "" ProxyAuthenticate;
    "proxy-authorization" "" ProxyAuthorization;
    "range" "";
    "referer" "";
    "refresh" "";
    "retry-after" "" RetryAfter;
    "server" "" Server;
    "set-cookie" "" SetCookie;
    "strict-transport-security" "";
    "transfer-encoding" "" TransferEncoding;
    "user-agent" "" UserAgent;
    "vary" "";
    "via" "" Via;
    "www-authenticate" "";
    }
}

impl Fixed {
    fn entry(&'static self) -> Entry<'static> {
        Entry {
            line: self.line.as_bytes(),
            name_len: self.name.len(),
            class: self.class,
            is_valid: true,
        }
    }
}

/// Where an entry's line is in the buffer. A table of 64 KiB, the largest, has no longer lines.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Counted from the first byte that was ever in it, modulo 2^32.
    start: u32,
    len: u16,
    name_len: u16,
    class: Class,
    is_valid: bool,
}

/// Bytes of entries that have gone from which it is worth moving the others.
const MOVE_FROM: usize = 256;

/// Lengths and offsets are bounded by the table's size, at most 64 KiB.
fn to_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn to_u16(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// The decoder's tables.
#[derive(Debug)]
pub(crate) struct Table {
    /// The lines of the live entries, the oldest first, behind those that have gone.
    bytes: Vec<u8>,
    /// How many bytes were taken out of `bytes` so far, modulo 2^32.
    base: u32,
    /// The oldest first.
    places: VecDeque<Place>,
    size: usize,
    max: usize,
}

impl Table {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            base: 0,
            places: VecDeque::new(),
            size: 0,
            max,
        }
    }

    /// The entry of an index as it stands on the wire.
    pub(crate) fn get(&self, index: usize) -> Option<Entry<'_>> {
        let index = index.checked_sub(1)?;
        if let Some(fixed) = FIXED.get(index) {
            return Some(fixed.entry());
        }
        let newest_first = index - FIXED.len();
        let place = *self
            .places
            .get(self.places.len().checked_sub(newest_first + 1)?)?;
        let start = self.offset(place);
        Some(Entry {
            line: &self.bytes[start..start + usize::from(place.len)],
            name_len: place.name_len.into(),
            class: place.class,
            is_valid: place.is_valid,
        })
    }

    /// Adds an entry; one that is larger than the table empties it (RFC 7541 §4.4).
    pub(crate) fn insert(&mut self, entry: Entry<'_>) {
        let size = entry.size();
        self.evict(self.max.saturating_sub(size));
        if size > self.max {
            return;
        }
        let dead = self
            .places
            .front()
            .map_or(self.bytes.len(), |oldest| self.offset(*oldest));
        // The live part is moved once for as many bytes as it has.
        if dead >= (self.bytes.len() - dead).max(MOVE_FROM) {
            self.bytes.drain(..dead);
            self.base = self.base.wrapping_add(to_u32(dead));
        }
        self.places.push_back(Place {
            start: self.base.wrapping_add(to_u32(self.bytes.len())),
            len: to_u16(entry.line.len()),
            name_len: to_u16(entry.name_len),
            class: entry.class,
            is_valid: entry.is_valid,
        });
        self.bytes.extend_from_slice(entry.line);
        self.size += size;
    }

    /// Changes the size that the table may have (RFC 7541 §4.3).
    pub(crate) fn resize(&mut self, max: usize) {
        self.max = max;
        self.evict(max);
        if self.places.is_empty() {
            self.base = self.base.wrapping_add(to_u32(self.bytes.len()));
            self.bytes = Vec::new();
        }
    }

    pub(crate) const fn max(&self) -> usize {
        self.max
    }

    fn evict(&mut self, until: usize) {
        while self.size > until {
            let Some(oldest) = self.places.pop_front() else {
                return;
            };
            self.size -= usize::from(oldest.len) - LINE_OVERHEAD + ENTRY_OVERHEAD;
        }
    }

    fn offset(&self, place: Place) -> usize {
        place.start.wrapping_sub(self.base) as usize
    }

    /// Bytes that the table holds.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity() + self.places.capacity() * size_of::<Place>()
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_table_is_classified_as_its_names_are() {
        for (index, fixed) in FIXED.iter().enumerate() {
            assert_eq!(Class::of(fixed.name.as_bytes()), fixed.class, "{}", fixed.name);
            let entry = Table::new(0).get(index + 1).map(|entry| entry.value().to_vec());
            assert_eq!(entry.as_deref(), Some(fixed.value.as_bytes()));
        }
        assert_eq!(FIXED[60].name, "www-authenticate");
        assert_eq!(FIXED[31].name, "cookie");
    }

    #[test]
    fn names() {
        for wrong in ["", ":", ":foo", "A", "a b", "a\r", "\u{e4}", "a:"] {
            assert_eq!(Class::of(wrong.as_bytes()), Class::Invalid, "{wrong:?}");
        }
        assert_eq!(Class::of(b"x-any"), Class::Field(None));
        assert_eq!(Class::of(b"te"), Class::Field(Some(Known::Te)));
    }

    #[test]
    fn entries_leave_in_the_order_in_which_they_came_and_the_buffer_stays_small() {
        let mut table = Table::new(200);
        for number in 0..1000_usize {
            let line = format!("name{}: value-{number}\r\n", number % 7);
            table.insert(Entry {
                line: line.as_bytes(),
                name_len: 5,
                class: Class::Field(None),
                is_valid: true,
            });
            assert!(table.size() <= 200 && table.bytes.len() <= 600);
            assert_eq!(table.get(62).unwrap().line, line.as_bytes());
            let held = table.places.len();
            assert!(table.get(61 + held).is_some() && table.get(62 + held).is_none());
            for back in 0..held {
                let wanted = format!("value-{}", number - back);
                assert_eq!(table.get(62 + back).unwrap().value(), wanted.as_bytes());
            }
        }
        table.insert(Entry {
            line: &[b'a'; 300],
            name_len: 1,
            class: Class::Field(None),
            is_valid: true,
        });
        assert!(table.get(62).is_none());
        assert!(table.get(0).is_none() && table.get(usize::MAX).is_none());
    }
}
