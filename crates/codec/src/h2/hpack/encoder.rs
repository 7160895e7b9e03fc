//! From fields to a header block.
//!
//! Only what repeats is put into the dynamic table: a field is sent as a literal the first time, and enters the table when
//! it comes again before [`SEEN`] others of its kind have passed. So request ids, times and the paths of single objects
//! never push out what is worth keeping, without a list of their names. Values that must not be guessed
//! (RFC 7541 §7.1) and those that the other side received as never indexed are never put into it.
//!
//! Strings are written as they are, not Huffman coded, unless the encoder is told to: between two proxies the bytes are cheaper
//! than the two passes over them.
//!
//! Bounds: the table of 4,096 bytes or what the peer allows if that is less, and 1.3 KiB of index from the first field on. The
//! index has one place for a hash: a collision costs compression, never time.

use super::{
    DEFAULT_TABLE, huffman,
    tables::{Class, ENTRY_OVERHEAD, Entry, FIXED, LINE_OVERHEAD, Pseudo, Table},
    write_integer,
};
use crate::fields::{Fields, Known, KnownSet};

/// Places in the index, a power of two; the table has at most 128 entries of 32 bytes.
const SLOTS: usize = 128;
/// Hashes of fields that were seen once, a power of two.
const SEEN: usize = 64;
/// An entry may take this part of the table.
const LARGEST_PART: usize = 4;

/// Fields that never enter the table: who can choose other fields of the same connection could guess them.
const SENSITIVE: KnownSet = KnownSet::of(&[
    Known::Authorization,
    Known::Cookie,
    Known::ProxyAuthorization,
    Known::SetCookie,
]);

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u32,
    /// The how-manieth entry it was, from 1; 0 is none.
    number: u32,
}

#[derive(Debug)]
struct Index {
    slots: [Slot; SLOTS],
    seen: [u32; SEEN],
}

/// One direction's compression.
#[derive(Debug)]
pub(crate) struct Encoder {
    table: Table,
    /// Entries put in so far, modulo 2^32.
    inserted: u32,
    /// Those of them that are still in.
    index: Option<Box<Index>>,
    /// The smallest and the last size that the peer has allowed since the last block.
    resized: Option<(usize, usize)>,
    use_huffman: bool,
    scratch: Vec<u8>,
}

/// What is to be written of one field.
#[derive(Clone, Copy)]
struct Item<'a> {
    name: &'a [u8],
    class: Class,
    value: &'a [u8],
    /// The fixed entry that has the name; 0 for none.
    fixed_name: usize,
}

impl Encoder {
    pub(crate) fn new(use_huffman: bool) -> Self {
        Self {
            table: Table::new(DEFAULT_TABLE),
            inserted: 0,
            index: None,
            resized: None,
            use_huffman,
            scratch: Vec::new(),
        }
    }

    /// The peer's setting of the table's size; told to it by the next block.
    pub(crate) fn resize(&mut self, allowed: usize) {
        let size = allowed.min(DEFAULT_TABLE);
        if size == self.table.max() && self.resized.is_none() {
            return;
        }
        let smallest = self.resized.map_or(size, |(smallest, _)| smallest.min(size));
        self.resized = Some((smallest, size));
        self.table.resize(smallest);
        self.table.resize(size);
    }

    /// Bytes that it holds.
    pub(crate) fn capacity(&self) -> usize {
        let index = self.index.as_ref().map_or(0, |index| size_of_val(&**index));
        self.table.capacity() + index + self.scratch.capacity()
    }

    /// To be called before the first field of each block.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some((smallest, last)) = self.resized.take() {
            if smallest < last {
                write_integer(smallest, 5, 0x20, out);
            }
            write_integer(last, 5, 0x20, out);
        }
    }

    /// A pseudo header field.
    pub(crate) fn pseudo(&mut self, pseudo: Pseudo, value: &[u8], out: &mut Vec<u8>) {
        let (name, first, fixed): (&[u8], usize, usize) = match pseudo {
            Pseudo::Authority => (b":authority", 1, 0),
            Pseudo::Method => (b":method", 2, 2),
            Pseudo::Path => (b":path", 4, 2),
            Pseudo::Scheme => (b":scheme", 6, 2),
            Pseudo::Status => (b":status", 8, 7),
            Pseudo::Protocol => (b":protocol", 0, 0),
        };
        for at in first..first + fixed {
            if FIXED[at - 1].value.as_bytes() == value {
                write_integer(at, 7, 0x80, out);
                return;
            }
        }
        let item = Item {
            name,
            class: Class::Pseudo(pseudo),
            value,
            fixed_name: first,
        };
        self.adaptive(item, out);
    }

    /// All fields but those in `skip`.
    pub(crate) fn fields(&mut self, fields: &Fields, skip: KnownSet, out: &mut Vec<u8>) {
        for (field, never_indexed) in fields.iter_marked() {
            if field.known.is_some_and(|known| skip.contains(known)) {
                continue;
            }
            let sensitive = never_indexed || field.known.is_some_and(|known| SENSITIVE.contains(known));
            self.field(field.name, field.known, field.value, sensitive, out);
        }
    }

    /// One field; its name in any case.
    pub(crate) fn field(
        &mut self,
        name: &[u8],
        known: Option<Known>,
        value: &[u8],
        sensitive: bool,
        out: &mut Vec<u8>,
    ) {
        let mut lowered = Vec::new();
        let name = match known {
            Some(known) => known.as_str().as_bytes(),
            None if name.iter().any(u8::is_ascii_uppercase) => {
                lowered.extend(name.iter().map(u8::to_ascii_lowercase));
                &lowered
            }
            None => name,
        };
        let item = Item {
            name,
            class: Class::Field(known),
            value,
            fixed_name: known.map_or(0, |known| usize::from(FIXED_NAMES[known as usize])),
        };
        if sensitive {
            self.literal(item, 4, 0x10, out);
        } else {
            self.adaptive(item, out);
        }
    }

    fn adaptive(&mut self, item: Item<'_>, out: &mut Vec<u8>) {
        let size = item.name.len() + item.value.len() + ENTRY_OVERHEAD;
        if size > self.table.max() / LARGEST_PART {
            self.literal(item, 4, 0x00, out);
            return;
        }
        let hash = hash(&item);
        if let Some(index) = self.find(hash, item) {
            write_integer(index, 7, 0x80, out);
            return;
        }
        let index = self.index.get_or_insert_with(|| {
            Box::new(Index {
                slots: [Slot::default(); SLOTS],
                seen: [0; SEEN],
            })
        });
        let seen = &mut index.seen[(hash >> 16) as usize % SEEN];
        if *seen != hash {
            *seen = hash;
            self.literal(item, 4, 0x00, out);
            return;
        }
        self.inserted = self.inserted.wrapping_add(1).max(1);
        index.slots[hash as usize % SLOTS] = Slot {
            hash,
            number: self.inserted,
        };
        self.literal(item, 6, 0x40, out);
        self.scratch.clear();
        self.scratch
            .reserve(item.name.len() + item.value.len() + LINE_OVERHEAD);
        for part in [item.name, b": ", item.value, b"\r\n"] {
            self.scratch.extend_from_slice(part);
        }
        self.table.insert(Entry {
            line: &self.scratch,
            name_len: item.name.len(),
            class: item.class,
            is_valid: true,
        });
    }

    /// Where the field stands in the dynamic table.
    fn find(&self, hash: u32, item: Item<'_>) -> Option<usize> {
        let slot = self.index.as_ref()?.slots[hash as usize % SLOTS];
        if slot.hash != hash || slot.number == 0 {
            return None;
        }
        let newest_first = self.inserted.wrapping_sub(slot.number) as usize;
        // An entry that has been evicted is behind the last one.
        let at = FIXED.len() + 1 + newest_first;
        let entry = self.table.get(at)?;
        let (name, value) = (
            entry.name(),
            &entry.line[entry.name_len + 2..entry.line.len() - 2],
        );
        let is_it = entry.class == item.class && value == item.value && name == item.name;
        is_it.then_some(at)
    }

    fn literal(&self, item: Item<'_>, prefix: u32, first: u8, out: &mut Vec<u8>) {
        out.reserve(item.name.len() + item.value.len() + 16);
        write_integer(item.fixed_name, prefix, first, out);
        if item.fixed_name == 0 {
            self.string(item.name, out);
        }
        self.string(item.value, out);
    }

    fn string(&self, string: &[u8], out: &mut Vec<u8>) {
        if self.use_huffman {
            let length = huffman::encoded_len(string);
            if length < string.len() {
                write_integer(length, 7, 0x80, out);
                huffman::encode(string, out);
                return;
            }
        }
        write_integer(string.len(), 7, 0, out);
        out.extend_from_slice(string);
    }
}

/// For each known name the index of its first entry in the fixed table, or 0.
#[expect(clippy::cast_possible_truncation, reason = "at most 61")]
static FIXED_NAMES: [u8; Known::all().len()] = {
    let mut indexes = [0; Known::all().len()];
    let mut at = FIXED_LEN;
    while at > 0 {
        at -= 1;
        if let Class::Field(Some(known)) = super::tables::FIXED_CLASSES[at] {
            indexes[known as usize] = at as u8 + 1;
        }
    }
    indexes
};
const FIXED_LEN: usize = super::tables::FIXED_CLASSES.len();

/// Eight bytes at a time; no defence is needed, as the index has one place for a hash.
fn hash(item: &Item<'_>) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64, word: u64| (state.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    let text = |mut state: u64, text: &[u8]| {
        let (words, rest) = text.as_chunks::<8>();
        for word in words {
            state = mix(state, u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        mix(state, u64::from_le_bytes(last) ^ (text.len() as u64) << 56)
    };
    let start = match item.class {
        Class::Field(Some(known)) => mix(1, known as u64),
        Class::Pseudo(pseudo) => mix(2, pseudo as u64),
        Class::Field(None) | Class::Invalid => text(3, item.name),
    };
    let state = text(start, item.value);
    // The upper half has taken part in all of it; 0 stands for nothing seen.
    ((state >> 32) as u32).max(1)
}
