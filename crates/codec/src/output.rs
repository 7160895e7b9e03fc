//! Bytes on their way out: heads and small pieces in one buffer, large body pieces by reference, written together
//! with one vectored write.
//!
//! Bounds: the queue holds what its writer put in; whoever fills it looks at [`Output::remaining`] and stops pulling
//! the body while too much is waiting (that is the backpressure). An empty queue gives back more than
//! [`KEEP_CAPACITY`] of buffer, so that an idle connection stays small.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};

/// Pieces up to this many bytes are copied behind the head instead of being queued by reference: a copy of this
/// size costs less than another entry of a vectored write, and lets go of the buffer that the piece came from.
pub(crate) const COPY_UP_TO: usize = 1024;
/// Buffer that an empty queue keeps.
const KEEP_CAPACITY: usize = 4096;

/// Entries that an empty queue keeps room for.
const KEEP_SEGMENTS: usize = 16;

#[derive(Debug)]
enum Segment {
    /// That many of the next bytes of `copied`.
    Copied(usize),
    Shared(Bytes),
}

/// A queue of bytes to be written. Implements [`Buf`] (with `chunks_vectored`), so it goes into any vectored write.
#[derive(Debug, Default)]
pub struct Output {
    /// Heads, framing and small pieces; the part before `written` has gone out.
    copied: Vec<u8>,
    written: usize,
    /// Empty while everything is in `copied`, the common case.
    segments: VecDeque<Segment>,
    /// How many bytes at the end of `copied` the last segment does not count yet.
    uncounted: usize,
    shared: usize,
}

impl Output {
    /// An empty queue without any allocation.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece of a body, by reference if it is large.
    pub fn push(&mut self, piece: Bytes) {
        if piece.len() <= COPY_UP_TO {
            self.append(|out| out.extend_from_slice(&piece));
            return;
        }
        if self.uncounted > 0 {
            self.segments.push_back(Segment::Copied(self.uncounted));
            self.uncounted = 0;
        }
        self.shared += piece.len();
        self.segments.push_back(Segment::Shared(piece));
    }

    /// Adds bytes by copying.
    pub fn push_slice(&mut self, bytes: &[u8]) {
        self.append(|out| out.extend_from_slice(bytes));
    }

    /// Lets `write` append to the buffer of copied bytes.
    pub(crate) fn append<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let before = self.copied.len();
        let result = write(&mut self.copied);
        self.uncounted += self.copied.len().saturating_sub(before);
        result
    }

    /// As `append`, but takes back what was written if `write` fails.
    pub(crate) fn try_append<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = self.copied.len();
        let result = self.append(write);
        if result.is_err() {
            self.uncounted -= self.copied.len().saturating_sub(before);
            self.copied.truncate(before);
        }
        result
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// Bytes that are kept by the queue for later use.
    pub fn capacity(&self) -> usize {
        self.copied.capacity() + self.segments.capacity() * size_of::<Segment>()
    }

    /// Drops everything that waits.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.shared = 0;
        self.uncounted = 0;
        self.reset_copied();
    }

    fn reset_copied(&mut self) {
        self.written = 0;
        if self.segments.is_empty() && self.segments.capacity() > KEEP_SEGMENTS {
            self.segments = VecDeque::new();
        }
        if self.copied.capacity() > KEEP_CAPACITY {
            self.copied = Vec::new();
        } else {
            self.copied.clear();
        }
    }

    /// Checks what every operation keeps.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn check_invariants(&self) -> Result<(), &'static str> {
        let (mut copied, mut shared) = (self.uncounted, 0);
        for segment in &self.segments {
            match segment {
                Segment::Copied(0) => return Err("an empty segment"),
                Segment::Copied(n) => copied += n,
                Segment::Shared(piece) if piece.is_empty() => return Err("an empty piece"),
                Segment::Shared(piece) => shared += piece.len(),
            }
        }
        if self.written + copied != self.copied.len() || shared != self.shared {
            return Err("the segments do not add up");
        }
        Ok(())
    }
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.copied.len() - self.written + self.shared
    }

    fn chunk(&self) -> &[u8] {
        match self.segments.front() {
            None => &self.copied[self.written..],
            Some(Segment::Copied(n)) => &self.copied[self.written..self.written + n],
            Some(Segment::Shared(piece)) => piece,
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut count, mut at) = (0, self.written);
        for segment in &self.segments {
            if count == slices.len() {
                return count;
            }
            slices[count] = match segment {
                Segment::Copied(n) => {
                    at += n;
                    IoSlice::new(&self.copied[at - n..at])
                }
                Segment::Shared(piece) => IoSlice::new(piece),
            };
            count += 1;
        }
        if self.uncounted > 0 && count < slices.len() {
            slices[count] = IoSlice::new(&self.copied[at..]);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut n: usize) {
        debug_assert!(n <= self.remaining());
        while n > 0 {
            match self.segments.front_mut() {
                None => {
                    let step = n.min(self.uncounted);
                    self.written += step;
                    self.uncounted -= step;
                    n = 0;
                }
                Some(Segment::Copied(left)) => {
                    let step = n.min(*left);
                    *left -= step;
                    self.written += step;
                    n -= step;
                    if *left == 0 {
                        self.segments.pop_front();
                    }
                }
                Some(Segment::Shared(piece)) => {
                    let step = n.min(piece.len());
                    piece.advance(step);
                    self.shared -= step;
                    n -= step;
                    if piece.is_empty() {
                        self.segments.pop_front();
                    }
                }
            }
        }
        if self.written == self.copied.len() {
            self.reset_copied();
        }
        debug_assert_eq!(self.check_invariants(), Ok(()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(out: &Output) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let count = out.chunks_vectored(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn a_head_and_a_large_piece_leave_in_one_vectored_write_and_the_piece_is_not_copied() {
        let mut out = Output::new();
        let piece = Bytes::from(vec![7; 5000]);
        out.push_slice(b"head");
        out.push(piece.clone());
        out.push_slice(b"tail");
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(out.chunks_vectored(&mut slices), 3);
        assert_eq!(slices[1].as_ptr(), piece.as_ptr());
        assert_eq!(&*slices[2], b"tail");
    }

    #[test]
    fn every_split_of_writes_yields_the_same_bytes() {
        for step in 1..40 {
            let mut out = Output::new();
            let mut expected = Vec::new();
            let mut read = Vec::new();
            for round in 0..12_usize {
                let piece = vec![u8::try_from(round).unwrap(); if round % 3 == 0 { 1500 } else { round * 7 }];
                expected.extend_from_slice(&piece);
                out.push(Bytes::from(piece));
                assert_eq!(out.check_invariants(), Ok(()));
                for _ in 0..20 {
                    let seen = contents(&out);
                    let n = (step * 17).min(seen.len());
                    read.extend_from_slice(&seen[..n]);
                    assert_eq!(&seen[..out.chunk().len()], out.chunk());
                    out.advance(n);
                }
            }
            read.extend_from_slice(&contents(&out));
            assert_eq!(read, expected, "step {step}");
        }
    }

    #[test]
    fn an_empty_queue_gives_large_buffers_back() {
        let mut out = Output::new();
        (0..100).for_each(|_| out.push_slice(&[0; 1000]));
        assert!(out.capacity() > KEEP_CAPACITY);
        out.advance(out.remaining());
        assert!(out.capacity() <= KEEP_CAPACITY);
        assert!(out.is_empty());
    }
}
