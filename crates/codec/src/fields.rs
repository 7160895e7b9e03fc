//! Header fields of one message: what was received stays one block of bytes, edits go beside it.
//!
//! A message that passes through the proxy is looked at in a few places and changed in fewer. So the lines of a
//! received section stay where they arrived (one shared [`Bytes`]), each described by sixteen bytes of offsets;
//! an edit writes a complete new line to a second, owned buffer and points the entry there. Writing the section
//! out again copies neighbouring untouched lines in one go. Order and the case of names are kept.
//!
//! This module knows no syntax of any HTTP version: it neither parses nor frames. HTTP/1 hands it a block with
//! offsets (`FieldsBuilder`), HTTP/2 writes it line by line (`Received`). The only form it knows is the
//! line `name: value CRLF` in which it keeps its own bytes, so that they are ready to be copied out.
//!
//! - Bounds: at most [`MAX_LINES`] entries (removed ones included) and [`MAX_EDIT_BYTES`] of edits per section.
//!   The received block is bounded by the decoder's limits.
//! - Invariants: names are tokens (RFC 9110 §5.6.2), values hold no control character but tab, so that no
//!   content can break out of its line; see [`Fields::check_invariants`].
//! - It does not know which fields are hop-by-hop; that is `forward.rs`.

mod known;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use thiserror::Error;

pub use known::{Known, KnownSet};

/// Entries one section can hold, removed ones included.
pub const MAX_LINES: usize = 4096;
/// Bytes of inserted and replaced lines that one section can hold.
pub const MAX_EDIT_BYTES: usize = 1 << 20;

/// Room for edits that the first one makes.
const FIRST_EDITS: usize = 256;

/// Why an edit was refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FieldError {
    /// The name is empty, longer than 65,535 bytes or not a token (RFC 9110 §5.6.2).
    #[error("invalid field name")]
    InvalidName,
    /// The value holds CR, LF, NUL or another control character (RFC 9110 §5.5), which would inject a line.
    #[error("invalid character in a field value")]
    InvalidValue,
    /// [`MAX_LINES`] or [`MAX_EDIT_BYTES`] is reached.
    #[error("too many header fields or edits")]
    TooLarge,
}

/// A field's name as a caller gives it: one of the known ones (no comparison needed) or any other bytes, which are
/// compared without regard to case. Made from a [`Known`], a string or bytes.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    /// In the case in which it will be written if it is new.
    bytes: &'a [u8],
    known: Option<Known>,
}

impl From<Known> for Name<'_> {
    fn from(known: Known) -> Self {
        Self {
            bytes: known.as_str().as_bytes(),
            known: Some(known),
        }
    }
}

impl<'a> From<&'a [u8]> for Name<'a> {
    fn from(name: &'a [u8]) -> Self {
        Self {
            bytes: name,
            known: Known::classify(name),
        }
    }
}

impl<'a> From<&'a str> for Name<'a> {
    fn from(name: &'a str) -> Self {
        Self::from(name.as_bytes())
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Name<'a> {
    fn from(name: &'a [u8; N]) -> Self {
        Self::from(name.as_slice())
    }
}

/// One field as the iterators yield it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name in the case in which it was received or inserted.
    pub name: &'a [u8],
    /// The value without surrounding white space.
    pub value: &'a [u8],
    /// Which known name it is, if any.
    pub known: Option<Known>,
}

impl Field<'_> {
    /// Whether the field has this name, without regard to case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// `flags` of a line: it lives in `edits` instead of the received block.
const EDITED: u8 = 1;
/// `flags` of a line: it is no longer part of the message.
const REMOVED: u8 = 2;
/// `flags` of a line: its value is followed by CRLF at once, so its bytes can be copied out as they are.
const EXACT: u8 = 4;

/// `flags` of a line: HTTP/2 brought it as one that no compression table may hold (RFC 7541 §6.2.3).
const NEVER_INDEXED: u8 = 8;

/// Where one line is. Sixteen bytes, so four fit a cache line.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: u32,
    value: u32,
    value_len: u32,
    name_len: u16,
    /// `Known` as a number, 0 for every other name.
    known: u8,
    flags: u8,
}

impl Line {
    fn is(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The end of the line with its CRLF, if it is exact.
    fn end(self) -> usize {
        (self.value + self.value_len) as usize + 2
    }
}

/// The header or trailer section of one message.
#[derive(Clone)]
pub struct Fields {
    block: Bytes,
    edits: Vec<u8>,
    lines: Vec<Line>,
    /// Per known name: 0 = absent, 1..=254 = one plus the index of its first line, 255 = search.
    first: [u8; Known::COUNT],
    removed: u16,
    /// Known names that may stand on more than one line; the others need no search for a second one.
    multiple: KnownSet,
}

/// `first` when the index does not fit the slot.
const SEARCH: u8 = u8::MAX;

impl Fields {
    /// An empty section without any allocation.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty section with room for `lines` fields of `bytes` bytes in all (names, values and four bytes each).
    pub fn with_capacity(lines: usize, bytes: usize) -> Self {
        Self {
            edits: Vec::with_capacity(bytes.min(MAX_EDIT_BYTES)),
            lines: Vec::with_capacity(lines.min(MAX_LINES)),
            ..Self::default()
        }
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.lines.len() - usize::from(self.removed)
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that the section would take on the wire of HTTP/1 at most.
    pub fn wire_len(&self) -> usize {
        self.live()
            .map(|line| usize::from(line.name_len) + line.value_len as usize + 4)
            .sum()
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> + Clone {
        self.live().map(|line| self.field(line))
    }

    /// All fields in order, and whether no compression table on the way may hold them.
    pub(crate) fn iter_marked(&self) -> impl Iterator<Item = (Field<'_>, bool)> {
        self.live().map(|line| (self.field(line), line.is(NEVER_INDEXED)))
    }

    /// The first field of this name, as its value.
    pub fn get<'n>(&self, name: impl Into<Name<'n>>) -> Option<&[u8]> {
        let index = self.find(name.into())?;
        Some(self.value(self.lines[index]))
    }

    /// The first field of this name as text; `None` too when the value is not UTF-8.
    pub fn get_str<'n>(&self, name: impl Into<Name<'n>>) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The values of all fields of this name, in order.
    pub fn get_all<'a, 'n: 'a>(
        &'a self,
        name: impl Into<Name<'n>>,
    ) -> impl Iterator<Item = &'a [u8]> + Clone {
        let name = name.into();
        let start = self.find(name).unwrap_or(self.lines.len());
        let end = if self.is_single(name) {
            self.lines.len().min(start + 1)
        } else {
            self.lines.len()
        };
        self.lines[start..end]
            .iter()
            .filter(move |line| self.matches(**line, name))
            .map(|line| self.value(*line))
    }

    /// The first value of this name as a buffer of its own: a slice of the received block where it is unedited
    /// (no copy), a copy where it was edited.
    pub fn get_shared<'n>(&self, name: impl Into<Name<'n>>) -> Option<Bytes> {
        let line = self.lines[self.find(name.into())?];
        Some(self.shared(line))
    }

    /// A part of the received block that belongs to no field (a pseudo header field's value), not copied. The block must
    /// have it.
    pub(crate) fn part(&self, place: std::ops::Range<usize>) -> Bytes {
        self.block.slice(place)
    }

    /// Whether a field of this name is there.
    pub fn contains<'n>(&self, name: impl Into<Name<'n>>) -> bool {
        self.find(name.into()).is_some()
    }

    /// The number of fields of this name.
    pub fn count<'n>(&self, name: impl Into<Name<'n>>) -> usize {
        self.get_all(name.into()).count()
    }

    /// Replaces the value of the first field of this name (keeping its place and the case of its name) and
    /// removes the others; appends the field if there is none.
    pub fn set<'n>(&mut self, name: impl Into<Name<'n>>, value: impl AsRef<[u8]>) -> Result<(), FieldError> {
        let name = name.into();
        let value = trim(value.as_ref());
        let Some(index) = self.find(name) else {
            return self.append(name, value);
        };
        self.replace_at(index, &[value])?;
        if !self.is_single(name) {
            self.remove_after(name, index + 1);
        }
        Ok(())
    }

    /// Adds a field at the end, whether or not there are others of this name.
    pub fn append<'n>(
        &mut self,
        name: impl Into<Name<'n>>,
        value: impl AsRef<[u8]>,
    ) -> Result<(), FieldError> {
        let name = name.into();
        let value = trim(value.as_ref());
        if name.known.is_none() {
            check_name(name.bytes)?;
        }
        check_value(value)?;
        let line = self.write_line(&NameSource::Given(name), &[value])?;
        self.push_line(line)
    }

    /// Sets the field only if there is none of this name; tells whether it did.
    pub fn set_default<'n>(
        &mut self,
        name: impl Into<Name<'n>>,
        value: impl AsRef<[u8]>,
    ) -> Result<bool, FieldError> {
        let name = name.into();
        if self.find(name).is_some() {
            return Ok(false);
        }
        self.append(name, value).map(|()| true)
    }

    /// Adds `value` to the list in the last field of this name (`old, value`), or appends the field. For
    /// `x-forwarded-for`, `via` and other comma-separated lists. An empty value adds nothing to a list.
    pub fn join<'n>(&mut self, name: impl Into<Name<'n>>, value: impl AsRef<[u8]>) -> Result<(), FieldError> {
        let name = name.into();
        let value = trim(value.as_ref());
        let Some(index) = self.lines.iter().rposition(|line| self.matches(*line, name)) else {
            return self.append(name, value);
        };
        if value.is_empty() {
            return Ok(());
        }
        if self.lines[index].value_len == 0 {
            return self.replace_at(index, &[value]);
        }
        check_value(value)?;
        let old = self.lines[index];
        let name_bytes = Self::name_range(old);
        let line = self.write_line(&NameSource::Joined(old, name_bytes), &[b", ", value])?;
        self.lines[index] = line;
        self.debug_check();
        Ok(())
    }

    /// Sets a field to a decimal number.
    pub fn set_number<'n>(&mut self, name: impl Into<Name<'n>>, number: u64) -> Result<(), FieldError> {
        let mut digits = [0; 20];
        self.set(name, decimal(number, &mut digits))
    }

    /// Removes every field of this name and tells how many there were.
    pub fn remove<'n>(&mut self, name: impl Into<Name<'n>>) -> usize {
        let name = name.into();
        match self.find(name) {
            Some(index) => self.remove_after(name, index),
            None => 0,
        }
    }

    /// Keeps the fields for which `keep` answers true.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        for index in 0..self.lines.len() {
            let line = self.lines[index];
            if !line.is(REMOVED) && !keep(self.field(line)) {
                self.lines[index].flags |= REMOVED;
                self.removed += 1;
                self.refresh_slot(line.known);
            }
        }
        self.debug_check();
    }

    /// Removes every field and gives the memory of the block back; keeps the capacity of the lists.
    pub fn clear(&mut self) {
        self.block = Bytes::new();
        self.edits.clear();
        self.lines.clear();
        self.first = [0; Known::COUNT];
        self.removed = 0;
        self.multiple = KnownSet::EMPTY;
    }

    /// Writes all fields but those in `skip` as lines `name: value CRLF`, neighbouring untouched ones in one copy.
    pub fn write_lines(&self, out: &mut Vec<u8>, skip: KnownSet) {
        let mut run: Option<(u8, usize, usize)> = None;
        for line in &self.lines {
            if line.is(REMOVED) || skip.contains_number(line.known) {
                continue;
            }
            if !line.is(EXACT) {
                self.flush(run.take(), out);
                let field = self.field(*line);
                out.extend_from_slice(field.name);
                out.extend_from_slice(b": ");
                out.extend_from_slice(field.value);
                out.extend_from_slice(b"\r\n");
                continue;
            }
            let (source, start, end) = (line.flags & EDITED, line.start as usize, line.end());
            match &mut run {
                Some((run_source, _, run_end)) if *run_source == source && *run_end == start => {
                    *run_end = end;
                }
                _ => {
                    self.flush(run.take(), out);
                    run = Some((source, start, end));
                }
            }
        }
        self.flush(run, out);
    }

    /// Checks what every operation keeps; for debug assertions, property tests and the fuzz targets.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn check_invariants(&self) -> Result<(), &'static str> {
        if self.lines.len() > MAX_LINES || self.edits.len() > MAX_EDIT_BYTES {
            return Err("bounds exceeded");
        }
        let mut seen = [0_u8; Known::COUNT];
        let mut removed = 0_u16;
        for (index, line) in self.lines.iter().enumerate() {
            let store = self.store(*line);
            if (line.value + line.value_len) as usize > store.len() || line.start >= line.value {
                return Err("a line lies outside its store");
            }
            if line.is(EXACT) && store.get(line.end() - 2..line.end()) != Some(b"\r\n".as_slice()) {
                return Err("an exact line does not end in CRLF");
            }
            let field = self.field(*line);
            if check_name(field.name).is_err() || check_value(field.value).is_err() {
                return Err("a name or value has a forbidden character");
            }
            if Known::classify(field.name).map_or(0, Known::number) != line.known {
                return Err("a line is classified wrongly");
            }
            if line.is(REMOVED) {
                removed += 1;
            } else if line.known != 0 && seen[usize::from(line.known)] == 0 {
                seen[usize::from(line.known)] = slot_of(index);
            } else if field.known.is_some_and(|known| !self.multiple.contains(known)) {
                return Err("a second line of a name that counts as single");
            }
        }
        if seen != self.first {
            return Err("a slot does not name the first line");
        }
        if removed != self.removed {
            return Err("the count of removed lines is wrong");
        }
        Ok(())
    }

    fn debug_check(&self) {
        debug_assert_eq!(self.check_invariants(), Ok(()));
    }

    fn live(&self) -> impl Iterator<Item = Line> + Clone + '_ {
        self.lines.iter().copied().filter(|line| !line.is(REMOVED))
    }

    fn store(&self, line: Line) -> &[u8] {
        if line.is(EDITED) { &self.edits } else { &self.block }
    }

    fn name_range(line: Line) -> std::ops::Range<usize> {
        let start = line.start as usize;
        start..start + usize::from(line.name_len)
    }

    fn name(&self, line: Line) -> &[u8] {
        &self.store(line)[Self::name_range(line)]
    }

    fn value(&self, line: Line) -> &[u8] {
        let start = line.value as usize;
        &self.store(line)[start..start + line.value_len as usize]
    }

    fn field(&self, line: Line) -> Field<'_> {
        Field {
            name: self.name(line),
            value: self.value(line),
            known: Known::from_number(line.known),
        }
    }

    fn shared(&self, line: Line) -> Bytes {
        let start = line.value as usize;
        if line.is(EDITED) {
            Bytes::copy_from_slice(self.value(line))
        } else {
            self.block.slice(start..start + line.value_len as usize)
        }
    }

    fn flush(&self, run: Option<(u8, usize, usize)>, out: &mut Vec<u8>) {
        if let Some((source, start, end)) = run {
            let store: &[u8] = if source == EDITED {
                &self.edits
            } else {
                &self.block
            };
            out.extend_from_slice(&store[start..end]);
        }
    }

    fn matches(&self, line: Line, name: Name<'_>) -> bool {
        if line.is(REMOVED) {
            return false;
        }
        match name.known {
            Some(known) => line.known == known.number(),
            None => {
                line.known == 0
                    && usize::from(line.name_len) == name.bytes.len()
                    && self.name(line).eq_ignore_ascii_case(name.bytes)
            }
        }
    }

    /// Whether there is at most one line of this name, known without searching.
    fn is_single(&self, name: Name<'_>) -> bool {
        name.known.is_some_and(|known| !self.multiple.contains(known))
    }

    /// The index of the first line of this name.
    fn find(&self, name: Name<'_>) -> Option<usize> {
        if let Some(known) = name.known {
            match self.first[usize::from(known.number())] {
                0 => return None,
                SEARCH => {}
                slot => return Some(usize::from(slot) - 1),
            }
        }
        self.lines.iter().position(|line| self.matches(*line, name))
    }

    fn replace_at(&mut self, index: usize, value: &[&[u8]]) -> Result<(), FieldError> {
        value.iter().try_for_each(|part| check_value(part))?;
        let old = self.lines[index];
        let name = Self::name_range(old);
        let mut line = self.write_line(&NameSource::Line(old, name), value)?;
        line.flags |= old.flags & NEVER_INDEXED;
        self.lines[index] = line;
        self.debug_check();
        Ok(())
    }

    fn remove_after(&mut self, name: Name<'_>, from: usize) -> usize {
        let (mut count, mut number) = (0, 0);
        let single = self.is_single(name);
        for index in from..self.lines.len() {
            if self.matches(self.lines[index], name) {
                self.lines[index].flags |= REMOVED;
                number = self.lines[index].known;
                count += 1;
                if single {
                    break;
                }
            }
        }
        if count > 0 {
            // At most `MAX_LINES`, which fits.
            self.removed += u16::try_from(count).unwrap_or(u16::MAX);
            if single {
                self.first[usize::from(number)] = 0;
            } else {
                self.refresh_slot(number);
            }
        }
        self.debug_check();
        count
    }

    fn refresh_slot(&mut self, number: u8) {
        if number != 0 {
            let first = self
                .lines
                .iter()
                .position(|line| line.known == number && !line.is(REMOVED));
            self.first[usize::from(number)] = first.map_or(0, slot_of);
        }
    }

    fn push_line(&mut self, line: Line) -> Result<(), FieldError> {
        if self.lines.len() >= MAX_LINES {
            return Err(FieldError::TooLarge);
        }
        if let Some(known) = Known::from_number(line.known) {
            let slot = &mut self.first[usize::from(line.known)];
            if *slot == 0 {
                *slot = slot_of(self.lines.len());
            } else {
                self.multiple = self.multiple.with(known);
            }
        }
        self.lines.push(line);
        self.debug_check();
        Ok(())
    }

    /// Writes a complete line to the edits and returns the entry that describes it.
    fn write_line(&mut self, name: &NameSource<'_>, value: &[&[u8]]) -> Result<Line, FieldError> {
        let value_size: usize = value.iter().map(|part| part.len()).sum();
        let (name_len, old_value_len, known) = match name {
            NameSource::Given(name) => {
                let number = if let Some(known) = name.known {
                    known.number()
                } else {
                    0
                };
                (name.bytes.len(), 0, number)
            }
            NameSource::Line(old, range) => (range.len(), 0, old.known),
            NameSource::Joined(old, range) => (range.len(), old.value_len as usize, old.known),
        };
        let start = self.edits.len();
        if start + name_len + old_value_len + value_size + 4 > MAX_EDIT_BYTES {
            return Err(FieldError::TooLarge);
        }
        let size = name_len + old_value_len + value_size + 4;
        // The first edit of a message is seldom the only one.
        self.edits.reserve(if self.edits.is_empty() {
            size.max(FIRST_EDITS)
        } else {
            size
        });
        match name {
            NameSource::Given(name) => self.edits.extend_from_slice(name.bytes),
            NameSource::Line(old, range) | NameSource::Joined(old, range) => {
                self.copy_to_edits(*old, range.clone());
            }
        }
        self.edits.extend_from_slice(b": ");
        let value_start = self.edits.len();
        if let NameSource::Joined(old, _) = name {
            let from = old.value as usize;
            self.copy_to_edits(*old, from..from + old.value_len as usize);
        }
        for part in value {
            self.edits.extend_from_slice(part);
        }
        let value_len = self.edits.len() - value_start;
        self.edits.extend_from_slice(b"\r\n");
        Ok(Line {
            start: offset(start),
            value: offset(value_start),
            value_len: offset(value_len),
            name_len: u16::try_from(name_len).map_err(|_| FieldError::InvalidName)?,
            known,
            flags: EDITED | EXACT,
        })
    }

    fn copy_to_edits(&mut self, line: Line, range: std::ops::Range<usize>) {
        if line.is(EDITED) {
            self.edits.extend_from_within(range);
        } else {
            self.edits.extend_from_slice(&self.block[range]);
        }
    }
}

/// Where a new line takes its name from (and, when joined, the start of its value).
enum NameSource<'a> {
    Given(Name<'a>),
    Line(Line, std::ops::Range<usize>),
    Joined(Line, std::ops::Range<usize>),
}

impl Default for Fields {
    fn default() -> Self {
        let block = Bytes::new();
        Self {
            block,
            edits: Vec::new(),
            lines: Vec::new(),
            first: [0; Known::COUNT],
            removed: 0,
            multiple: KnownSet::EMPTY,
        }
    }
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        f.debug_map()
            .entries(self.iter().map(|field| (text(field.name), text(field.value))))
            .finish()
    }
}

/// Two sections are equal when they hold the same names (case counts) and values in the same order.
impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// Collects the lines of a received section while the block is still borrowed by the lexer.
#[derive(Debug)]
pub(crate) struct FieldsBuilder {
    lines: Vec<Line>,
    first: [u8; Known::COUNT],
    repeated: KnownSet,
}

impl FieldsBuilder {
    pub(crate) fn with_capacity(lines: usize) -> Self {
        let lines = Vec::with_capacity(lines.min(MAX_LINES));
        Self {
            lines,
            first: [0; Known::COUNT],
            repeated: KnownSet::EMPTY,
        }
    }

    /// The known names that stand on more than one line so far.
    pub(crate) fn repeated(&self) -> KnownSet {
        self.repeated
    }

    /// Notes one line by its offsets in the block; `line_end` is behind its CRLF. The lexer has checked the
    /// characters. False when a bound is exceeded.
    pub(crate) fn push(
        &mut self,
        name: &[u8],
        start: usize,
        value: usize,
        value_len: usize,
        line_end: usize,
    ) -> bool {
        self.push_known(
            Known::classify(name),
            name.len(),
            start,
            value,
            value_len,
            line_end,
        )
    }

    #[inline]
    fn push_known(
        &mut self,
        known: Option<Known>,
        name_len: usize,
        start: usize,
        value: usize,
        value_len: usize,
        line_end: usize,
    ) -> bool {
        let Ok(name_len) = u16::try_from(name_len) else {
            return false;
        };
        if self.lines.len() >= MAX_LINES || u32::try_from(line_end).is_err() {
            return false;
        }
        if let Some(known) = known {
            let slot = &mut self.first[usize::from(known.number())];
            if *slot == 0 {
                *slot = slot_of(self.lines.len());
            } else {
                self.repeated = self.repeated.with(known);
            }
        }
        let known = known.map_or(0, Known::number);
        // An empty value may be reported anywhere behind the colon; written out anew it is as good.
        let flags = if value + value_len + 2 == line_end {
            EXACT
        } else {
            0
        };
        self.lines.push(Line {
            start: offset(start),
            value: offset(value),
            value_len: offset(value_len),
            name_len,
            known,
            flags,
        });
        true
    }

    pub(crate) fn finish(self, block: Bytes) -> Fields {
        let fields = Fields {
            block,
            edits: Vec::new(),
            lines: self.lines,
            first: self.first,
            removed: 0,
            multiple: self.repeated,
        };
        fields.debug_check();
        fields
    }
}

/// A section that a decoder writes: the block is made here, once, and is shared like one that arrived as lines. Bounds:
/// [`MAX_LINES`]; bytes are the caller's to bound.
#[derive(Debug)]
pub(crate) struct Received {
    block: Vec<u8>,
    lines: FieldsBuilder,
}

impl Received {
    /// With room for `lines` fields of `bytes` bytes in all (names, values and four bytes each).
    pub(crate) fn with_capacity(lines: usize, bytes: usize) -> Self {
        Self {
            block: Vec::with_capacity(bytes),
            lines: FieldsBuilder::with_capacity(lines),
        }
    }

    /// The block, for a decoder that writes lines to its end; each is then noted by [`Received::note_line`].
    pub(crate) fn block_mut(&mut self) -> &mut Vec<u8> {
        &mut self.block
    }

    /// Notes the line `name: value CRLF` that the block ends with and whose characters have been checked. False when a
    /// bound is exceeded.
    pub(crate) fn note_line(
        &mut self,
        start: usize,
        name_len: usize,
        known: Option<Known>,
        never_indexed: bool,
    ) -> bool {
        let (value, end) = (start + name_len + 2, self.block.len());
        let value_len = end - value - 2;
        let noted = self
            .lines
            .push_known(known, name_len, start, value, value_len, end);
        if let Some(line) = self.lines.lines.last_mut()
            && noted
            && never_indexed
        {
            line.flags |= NEVER_INDEXED;
        }
        noted
    }

    /// The known names that stand on more than one line so far.
    pub(crate) fn repeated(&self) -> KnownSet {
        self.lines.repeated()
    }

    /// The section.
    pub(crate) fn finish(self) -> Fields {
        self.lines.finish(self.block.into())
    }
}

/// The slot's content for a line's index.
fn slot_of(index: usize) -> u8 {
    u8::try_from(index + 1).unwrap_or(SEARCH)
}

/// Blocks and edits are bounded far below 4 GiB (the lexer and `MAX_EDIT_BYTES` see to it).
fn offset(n: usize) -> u32 {
    debug_assert!(u32::try_from(n).is_ok());
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Whether a byte may stand in a token (RFC 9110 §5.6.2).
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|'
        | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')
}

/// Whether a byte may stand in a field value (RFC 9110 §5.5: VCHAR, obs-text, space and tab).
pub(crate) const fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

fn check_name(name: &[u8]) -> Result<(), FieldError> {
    let valid =
        !name.is_empty() && u16::try_from(name.len()).is_ok() && name.iter().all(|b| is_token_byte(*b));
    if valid {
        Ok(())
    } else {
        Err(FieldError::InvalidName)
    }
}

fn check_value(value: &[u8]) -> Result<(), FieldError> {
    if is_value(value) {
        Ok(())
    } else {
        Err(FieldError::InvalidValue)
    }
}

/// Whether every byte may stand in a field value. Eight at a time; a group that holds a control character (which a tab
/// is, too) is looked at byte by byte.
pub(crate) fn is_value(value: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let (groups, rest) = value.as_chunks::<8>();
    let each = |bytes: &[u8]| bytes.iter().all(|byte| is_value_byte(*byte));
    groups.iter().all(|group| {
        let word = u64::from_le_bytes(*group);
        let control = word.wrapping_sub(0x20 * ONES) & !word;
        let delete = word ^ (0x7f * ONES);
        let deleted = delete.wrapping_sub(ONES) & !delete;
        (control | deleted) & HIGH == 0 || each(group)
    }) && each(rest)
}

/// Without optional white space around it (RFC 9110 §5.6.3).
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The decimal digits of a number, written to the end of `buffer`.
pub(crate) fn decimal(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        // A remainder of ten fits a byte.
        buffer[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}
