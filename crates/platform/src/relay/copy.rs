//! Anything that reads and writes, through a buffer.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Activity, Broken, RelayOptions, RelayOutcome, RelayProgress, Side, count, outcome};

/// Bytes that a direction reads at once at first.
pub const START_BUFFER: usize = 16 * 1024;
/// Bytes that it reads at once at most; it doubles each time that a read fills what there is.
pub const MAX_BUFFER: usize = 256 * 1024;
/// Reads go on until so many bytes are there, where they come at once: TLS gives a record at a time, and records that
/// are written together cost one system call.
const GATHER: usize = 64 * 1024;
/// A read that brings less is not followed by another.
const RECORD: usize = 8 * 1024;
/// Reads in a row that need a quarter of the buffer at most, after which it is halved.
const SMALL_READS: u8 = 16;
/// Reads after which a direction lets the worker's other tasks run.
const TURN: u32 = 32;

thread_local! {
    /// The buffer of whoever is reading; taken away by a direction whose writer is blocked.
    static SHARED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Moves bytes both ways until both sides have finished, one breaks, or nothing moves for the idle timeout.
///
/// Writers are flushed whenever there is nothing to read. The end of one side's input is passed on with
/// `poll_shutdown` (for TLS that sends `close_notify`).
pub async fn relay_streams<A, B>(
    a: &mut A,
    b: &mut B,
    options: RelayOptions,
    progress: &RelayProgress,
) -> RelayOutcome
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let activity = Activity::new(options);
    let mut forward = Direction::new(Side::A);
    let mut backward = Direction::new(Side::B);
    let moved = poll_fn(|context| {
        // Both are polled each time: each has its own reasons to wake.
        let first = forward.poll(context, &mut *a, &mut *b, &progress.a_to_b, &activity)?;
        let second = backward.poll(context, &mut *b, &mut *a, &progress.b_to_a, &activity)?;
        if first.is_ready() && second.is_ready() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    });
    let moved = tokio::select! {
        moved = moved => Some(moved),
        () = activity.idle() => None,
    };
    outcome(progress, moved)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Moving,
    /// The input has ended; what is buffered is written, then the writer is shut down.
    Draining,
    Finished,
}

struct Direction {
    source: Side,
    state: State,
    /// What was read and not written yet: `written..filled` of the buffer, which is empty otherwise.
    buffer: Vec<u8>,
    written: usize,
    filled: usize,
    /// How much to read at once.
    size: usize,
    small_reads: u8,
    unflushed: bool,
    /// A later read of several failed; said once what came before is written.
    failed: Option<std::io::Error>,
}

impl Direction {
    const fn new(source: Side) -> Self {
        Self {
            source,
            state: State::Moving,
            buffer: Vec::new(),
            written: 0,
            filled: 0,
            size: START_BUFFER,
            small_reads: 0,
            unflushed: false,
            failed: None,
        }
    }

    fn poll<R, W>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        moved: &Cell<u64>,
        activity: &Activity,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..TURN {
            debug_assert!(self.written <= self.filled && self.filled <= self.buffer.len());
            ready!(self.poll_write(context, to, moved, activity))?;
            match self.state {
                State::Finished => return Poll::Ready(Ok(())),
                State::Draining => {
                    ready!(Pin::new(&mut *to).poll_shutdown(context))
                        .or_else(|error| match error.kind() {
                            std::io::ErrorKind::NotConnected => Ok(()),
                            _ => Err(error),
                        })
                        .map_err(Broken::writing(self.source.other()))?;
                    self.state = State::Finished;
                }
                State::Moving => {
                    if self.poll_read(context, from)?.is_pending() {
                        if self.unflushed {
                            ready!(Pin::new(&mut *to).poll_flush(context))
                                .map_err(Broken::writing(self.source.other()))?;
                            self.unflushed = false;
                        }
                        return Poll::Pending;
                    }
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        to: &mut W,
        moved: &Cell<u64>,
        activity: &Activity,
    ) -> Poll<Result<(), Broken>> {
        while self.written < self.filled {
            let rest = self.buffer.get(self.written..self.filled).unwrap_or_default();
            let bytes = ready!(Pin::new(&mut *to).poll_write(context, rest))
                .and_then(|bytes| {
                    if bytes == 0 {
                        Err(std::io::ErrorKind::WriteZero.into())
                    } else {
                        Ok(bytes)
                    }
                })
                .map_err(Broken::writing(self.source.other()))?;
            self.written += bytes;
            self.unflushed = true;
            count(moved, bytes);
            activity.note();
        }
        if self.filled > 0 {
            (self.written, self.filled) = (0, 0);
            SHARED.set(std::mem::take(&mut self.buffer));
        }
        Poll::Ready(Ok(()))
    }

    /// Reads into the shared buffer and keeps it if something came. What comes at once is gathered.
    fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut R,
    ) -> Poll<Result<(), Broken>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(Broken::reading(self.source)(error)));
        }
        let mut buffer = SHARED.take();
        if buffer.len() < self.size {
            buffer.resize(self.size, 0);
        }
        let mut space = ReadBuf::new(buffer.get_mut(..self.size).unwrap_or_default());
        let mut read = Pin::new(&mut *from).poll_read(context, &mut space);
        let mut last = space.filled().len();
        while last >= RECORD && space.remaining() >= RECORD && space.filled().len() < GATHER {
            let before = space.filled().len();
            let more = Pin::new(&mut *from).poll_read(context, &mut space);
            last = space.filled().len() - before;
            match more {
                Poll::Ready(Ok(())) if last == 0 => self.state = State::Draining,
                Poll::Ready(Err(error)) => self.failed = Some(error),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            read = Poll::Ready(Ok(()));
        }
        let filled = space.filled().len();
        if filled == 0 {
            SHARED.set(buffer);
        } else {
            (self.buffer, self.filled) = (buffer, filled);
        }
        ready!(read).map_err(Broken::reading(self.source))?;
        if filled == 0 {
            self.state = State::Draining;
        } else {
            self.adapt(filled);
        }
        Poll::Ready(Ok(()))
    }

    /// Chooses how much to read next time.
    fn adapt(&mut self, filled: usize) {
        if filled == self.size {
            self.size = (self.size * 2).min(MAX_BUFFER);
            self.small_reads = 0;
        } else if filled * 4 <= self.size && self.size > START_BUFFER {
            self.small_reads += 1;
            if self.small_reads >= SMALL_READS {
                self.size /= 2;
                self.small_reads = 0;
            }
        } else {
            self.small_reads = 0;
        }
    }
}
