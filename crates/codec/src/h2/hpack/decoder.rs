//! From a header block to the fields of a [`Section`].

use super::{
    DEFAULT_TABLE, huffman, read_integer,
    tables::{Class, Entry, Table},
};
use crate::{
    fields::is_value,
    h2::section::{Mark, Section},
};

/// The block breaks the compression's format, so that the table is lost and with it the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// One direction's decompression.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: Table,
    /// What our acknowledged settings allow the table.
    allowed: usize,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self {
            table: Table::new(DEFAULT_TABLE),
            allowed: DEFAULT_TABLE,
        }
    }

    #[cfg(test)]
    pub(super) fn with_table(size: usize) -> Self {
        Self {
            table: Table::new(size),
            allowed: size,
        }
    }

    #[cfg(test)]
    pub(super) fn table_size(&self) -> usize {
        self.table.size()
    }

    /// The peer has acknowledged this table size. A smaller one must be announced by its next block (RFC 7541 §4.2).
    pub(crate) fn allow(&mut self, size: usize) {
        self.allowed = size;
    }

    /// Bytes that the table holds.
    pub(crate) fn capacity(&self) -> usize {
        self.table.capacity()
    }

    /// Decodes a whole block. Whatever rule of the message it breaks is noted in the section; the table is kept right.
    pub(crate) fn decode(&mut self, mut block: &[u8], section: &mut Section) -> Result<(), Malformed> {
        while let Some(0x20..=0x3f) = block.first() {
            let size = read_integer(&mut block, 5).ok_or(Malformed)?;
            if size > self.allowed {
                return Err(Malformed);
            }
            self.table.resize(size);
        }
        if self.table.max() > self.allowed {
            return Err(Malformed);
        }
        while let Some(first) = block.first() {
            match first {
                0x80.. => {
                    let index = read_integer(&mut block, 7).ok_or(Malformed)?;
                    section.copy(self.table.get(index).ok_or(Malformed)?);
                }
                0x40.. => self.literal(&mut block, 6, section)?,
                // A change of the table's size stands before the fields (RFC 7541 §4.2).
                0x20.. => return Err(Malformed),
                _ => self.literal(&mut block, 4, section)?,
            }
        }
        Ok(())
    }

    /// A field that stands as a literal, at least its value (RFC 7541 §6.2). `prefix`: 6 where it goes into the table.
    fn literal(&mut self, block: &mut &[u8], prefix: u32, section: &mut Section) -> Result<(), Malformed> {
        let never_indexed = block.first().is_some_and(|first| first & 0xf0 == 0x10);
        let out = section.block_mut();
        let start = out.len();
        let class = match read_integer(block, prefix).ok_or(Malformed)? {
            0 => {
                read_string(block, out)?;
                Class::of(&out[start..])
            }
            index => {
                let entry = self.table.get(index).ok_or(Malformed)?;
                out.extend_from_slice(entry.name());
                entry.class
            }
        };
        let name_len = out.len() - start;
        out.extend_from_slice(b": ");
        let value_start = out.len();
        read_string(block, out)?;
        let value = &out[value_start..];
        // RFC 9113 §8.2.1: no white space around it either.
        let is_valid = is_value(value) && !matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']);
        out.extend_from_slice(b"\r\n");
        let entry = Entry {
            line: &out[start..],
            name_len,
            class,
            is_valid,
        };
        if prefix == 6 {
            self.table.insert(entry);
        }
        let mark = if never_indexed {
            Mark::NeverIndexed
        } else {
            Mark::None
        };
        section.take(start, name_len, class, is_valid, mark);
        Ok(())
    }
}

fn read_string(block: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let is_huffman = *block.first().ok_or(Malformed)? & 0x80 != 0;
    let length = read_integer(block, 7).ok_or(Malformed)?;
    let (string, rest) = block.split_at_checked(length).ok_or(Malformed)?;
    *block = rest;
    if is_huffman {
        return huffman::decode(string, out).map_err(|_| Malformed);
    }
    out.extend_from_slice(string);
    Ok(())
}
