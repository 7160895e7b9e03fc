//! Records on disk: append-only segment files of frames, the oldest deleted where there are too many or they are too old.
//!
//! ```text
//!  00000001760000000000.seg   ← oldest; its name is the time at which it was begun, milliseconds since 1970
//!  00000001760003600000.seg   ← the one that grows
//!      "RJREC001"  [length u32][CRC32C u32][record]  [length][CRC32C][record] …
//! ```
//!
//! **A damaged file is never trusted beyond the damage.** Opening cuts the newest segment behind its last whole frame (what a process
//! that was killed wrote half); reading another one ends at the first frame that is none, and says how many bytes were not read.
//! A segment is never written again once another has begun. Files have mode 0600.
//!
//! **A full disk stops recording, and nothing else.** What was written half is cut off again; whoever appends is told, and may try again.
//!
//! Nothing is synced: a machine that loses its power loses the last seconds. Bounds: [`Limits`], checked before each append, by the
//! size of a segment at most exceeded. No I/O but here; time is an argument.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What a file begins with.
const MAGIC: &[u8; 8] = b"RJREC001";
/// Bytes before a record.
const PREFIX: usize = 8;
/// Longest record.
pub(crate) const RECORD_BYTES_MAX: usize = 64 << 10;
/// Of a segment; smaller where little is kept, so that what is deleted at once is a small part of all.
const SEGMENT_BYTES: u64 = 4 << 20;
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// A segment is at most this part of the age that is kept.
const AGE_PARTS: u32 = 16;
const ENDING: &str = ".seg";

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// All segments together.
    pub(crate) bytes: u64,
    /// What is older goes.
    pub(crate) age: Duration,
}

impl Limits {
    fn segment_bytes(self) -> u64 {
        (self.bytes / 16).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    /// When it was begun, milliseconds since 1970; rising.
    begun: u64,
    bytes: u64,
}

/// The files of one folder. See the module.
#[derive(Debug)]
pub(crate) struct Segments {
    folder: PathBuf,
    limits: Limits,
    /// Oldest first; the last one grows where there is `newest`.
    all: Vec<Segment>,
    newest: Option<File>,
    /// Bytes that were cut off at the opening.
    cut: u64,
    /// Stands for a disk that is full: so many bytes may still be written.
    #[cfg(test)]
    pub(super) room: Option<u64>,
}

/// A segment's records, as far as they could be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// In the order in which they were written.
    pub(crate) records: Vec<Vec<u8>>,
    /// Bytes behind a damage, which nobody read.
    pub(crate) damaged: u64,
}

impl Segments {
    /// Opens a folder, which is made where there is none.
    pub(crate) fn open(folder: &Path, limits: Limits) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut all = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(ENDING));
            // Somebody else's files stay as they are.
            if let Some(begun) = stem.and_then(|stem| stem.parse().ok()) {
                let bytes = entry.metadata()?.len();
                all.push(Segment { begun, bytes });
            }
        }
        all.sort_unstable_by_key(|segment| segment.begun);
        let mut segments = Self {
            folder: folder.to_owned(),
            limits,
            all,
            newest: None,
            cut: 0,
            #[cfg(test)]
            room: None,
        };
        segments.open_newest()?;
        Ok(segments)
    }

    /// Goes on in the newest segment, behind its last whole frame.
    fn open_newest(&mut self) -> io::Result<()> {
        let Some(last) = self.all.last().copied() else {
            return Ok(());
        };
        let path = self.path(last.begun);
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        let whole = whole_bytes(&mut file, last.bytes)?;
        if whole == 0 {
            // Not even its beginning is there.
            self.cut = last.bytes;
            self.all.pop();
            return fs::remove_file(path);
        }
        if whole < last.bytes {
            self.cut = last.bytes - whole;
            file.set_len(whole)?;
        }
        file.seek(SeekFrom::Start(whole))?;
        if let Some(last) = self.all.last_mut() {
            last.bytes = whole;
        }
        self.newest = Some(file);
        Ok(())
    }

    fn path(&self, begun: u64) -> PathBuf {
        self.folder.join(format!("{begun:020}{ENDING}"))
    }

    /// From now on so much is kept.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Bytes that were cut off at the opening.
    pub(crate) const fn cut(&self) -> u64 {
        self.cut
    }

    /// (files, bytes in them).
    pub(crate) fn size(&self) -> (usize, u64) {
        (self.all.len(), self.all.iter().map(|segment| segment.bytes).sum())
    }

    /// When the oldest was begun.
    pub(crate) fn oldest(&self) -> Option<SystemTime> {
        let first = self.all.first()?;
        Some(UNIX_EPOCH + Duration::from_millis(first.begun))
    }

    /// Appends records, all or, where an error comes back, none of them.
    pub(crate) fn append(&mut self, records: &[Vec<u8>], now: SystemTime) -> io::Result<()> {
        let fits = |record: &&Vec<u8>| (1..=RECORD_BYTES_MAX).contains(&record.len());
        let sizes = records.iter().map(|record| PREFIX + record.len());
        let mut frames = Vec::with_capacity(sizes.sum());
        for record in records.iter().filter(fits) {
            // At most 64 KiB, as was seen.
            let length = u32::try_from(record.len()).unwrap_or_default();
            frames.extend_from_slice(&length.to_le_bytes());
            frames.extend_from_slice(&crc32c(record).to_le_bytes());
            frames.extend_from_slice(record);
        }
        let now = millis(now);
        self.forget_old(now, u64::try_from(frames.len()).unwrap_or(u64::MAX));
        if frames.is_empty() {
            return Ok(());
        }
        self.turn(now)?;
        self.write(&frames)
    }

    /// Deletes what is too old, and the oldest of what is too much.
    pub(crate) fn expire(&mut self, now: SystemTime) {
        self.forget_old(millis(now), 0);
    }

    fn forget_old(&mut self, now: u64, coming: u64) {
        let age = u64::try_from(self.limits.age.as_millis()).unwrap_or(u64::MAX);
        let since = now.saturating_sub(age);
        let mut sum = self.size().1.saturating_add(coming);
        let mut gone = 0;
        while let Some(oldest) = self.all.get(gone) {
            // What was written into it was written before the next one was begun; the newest grows no longer than a part of the age.
            let ended = self.all.get(gone + 1).map_or_else(
                || oldest.begun.saturating_add(age / u64::from(AGE_PARTS)),
                |next| next.begun,
            );
            let is_newest = gone + 1 == self.all.len();
            let too_much = sum > self.limits.bytes && !is_newest;
            if ended >= since && !too_much {
                break;
            }
            if is_newest {
                self.newest = None;
            }
            sum = sum.saturating_sub(oldest.bytes);
            let path = self.path(oldest.begun);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "old records can't be deleted");
                    break;
                }
                _ => gone += 1,
            }
        }
        self.all.drain(..gone);
    }

    /// Begins another segment where the newest is full or old, or there is none.
    fn turn(&mut self, now: u64) -> io::Result<()> {
        let age = u64::try_from(self.limits.age.as_millis()).unwrap_or(u64::MAX);
        let last = self.all.last().filter(|_| self.newest.is_some());
        let goes_on = last.is_some_and(|last| {
            last.bytes < self.limits.segment_bytes()
                && now.saturating_sub(last.begun) < age / u64::from(AGE_PARTS)
        });
        if goes_on {
            return Ok(());
        }
        // A clock that was set back does not mix up the order.
        let begun = self.all.last().map_or(now, |last| now.max(last.begun + 1));
        let path = self.path(begun);
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        if let Err(error) = self.put(&mut file, MAGIC) {
            drop(fs::remove_file(&path));
            return Err(error);
        }
        self.all.push(Segment {
            begun,
            bytes: MAGIC.len() as u64,
        });
        self.newest = Some(file);
        Ok(())
    }

    fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        let (Some(mut file), Some(length)) = (self.newest.take(), self.all.last().map(|last| last.bytes))
        else {
            return Err(io::Error::other("there is no segment"));
        };
        let written = self.put(&mut file, frames);
        if written.is_err() {
            // What is there of it would end every later reading.
            file.set_len(length)?;
            file.seek(SeekFrom::Start(length))?;
        } else if let Some(last) = self.all.last_mut() {
            last.bytes += u64::try_from(frames.len()).unwrap_or_default();
        }
        self.newest = Some(file);
        written
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests have a disk that is full")]
    fn put(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    #[cfg(test)]
    fn put(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let Some(room) = &mut self.room else {
            return file.write_all(bytes);
        };
        let fits = bytes.len().min(usize::try_from(*room).unwrap_or(usize::MAX));
        file.write_all(&bytes[..fits])?;
        *room -= fits as u64;
        if fits < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// The first segment that was begun after `after` and may hold something of `since` or later; `None`: there is none.
    pub(crate) fn next(&self, after: u64, since: SystemTime) -> Option<u64> {
        let since = millis(since);
        let may_hold = |at: usize| self.all.get(at + 1).is_none_or(|next| next.begun >= since);
        let mut all = self.all.iter().enumerate();
        all.find(|(at, segment)| segment.begun > after && may_hold(*at))
            .map(|(_, segment)| segment.begun)
    }

    /// Where the segment of that beginning is.
    pub(crate) fn place(&self, begun: u64) -> PathBuf {
        self.path(begun)
    }
}

/// Reads a segment, which may be growing. One that has been deleted meanwhile is empty.
pub(crate) fn read(path: &Path) -> io::Result<Page> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Page::default()),
        Err(error) => return Err(error),
    };
    // Nobody has made a longer one.
    let mut bytes = Vec::new();
    file.take(SEGMENT_BYTES * 4).read_to_end(&mut bytes)?;
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return Ok(Page {
            records: Vec::new(),
            damaged: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        });
    };
    let mut page = Page::default();
    while let Some((record, behind)) = frame(rest) {
        page.records.push(record.to_vec());
        rest = behind;
    }
    page.damaged = u64::try_from(rest.len()).unwrap_or(u64::MAX);
    Ok(page)
}

/// The record of the first frame, and what follows it. Zeroes, which a file system may leave behind its end, are no frames.
fn frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (record, rest) = rest
        .split_at_checked(length)
        .filter(|_| (1..=RECORD_BYTES_MAX).contains(&length))?;
    (crc32c(record) == u32::from_le_bytes(*sum)).then_some((record, rest))
}

/// How many bytes from its beginning are whole frames.
fn whole_bytes(file: &mut File, length: u64) -> io::Result<u64> {
    let mut bytes = Vec::new();
    file.take(length.min(SEGMENT_BYTES * 4)).read_to_end(&mut bytes)?;
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return Ok(0);
    };
    while let Some((_, behind)) = frame(rest) {
        rest = behind;
    }
    Ok(u64::try_from(bytes.len() - rest.len()).unwrap_or_default())
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// CRC32C (Castagnoli), as RFC 3720 has it.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        let at = usize::from(sum.to_le_bytes()[0] ^ byte);
        TABLE[at] ^ (sum >> 8)
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// The remainders of all bytes.
static TABLE: [u32; 256] = {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let (mut at, mut value) = (0, 0_u32);
    while at < 256 {
        let (mut sum, mut bit) = (value, 0);
        while bit < 8 {
            sum = if sum & 1 == 1 {
                (sum >> 1) ^ POLYNOMIAL
            } else {
                sum >> 1
            };
            bit += 1;
        }
        table[at] = sum;
        at += 1;
        value += 1;
    }
    table
};

#[cfg(test)]
mod tests;
