//! What HTTP/2 reads from and writes to: a connection that collects the frames of one turn.
//!
//! `h2` flushes after every DATA frame of 256 bytes or more, so that ten answers would be ten system calls (and on TLS ten
//! records). Here they wait until the connection's task has polled `h2` to its end, and leave in one write:
//!
//! ```text
//!  h2 ──poll_write──► Batched ─► waiting bytes ─┐        the task: poll h2 until it is pending,
//!     ──poll_flush──► (nothing)                 └─► Batch::poll_flush ─► socket or TLS
//! ```
//!
//! A write of [`DIRECT`] bytes or more goes out at once together with what waits, without a copy. Bounds: at most
//! [`BATCH_MAX`] bytes wait per connection, and only while its socket does not take them; then `h2` waits too. An idle
//! connection holds no buffer: a worker keeps [`STOCK_MAX`] empty ones for all. Bytes that were read before (the
//! preface, when the protocol was looked for) are read again first. Not here: deadlines; they are the connection's.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

/// Bytes that may wait to be written.
pub(crate) const BATCH_MAX: usize = 32 * 1024;
/// Bytes of one write that are not copied.
const DIRECT: usize = 8 * 1024;
/// Slices that `h2` writes at once, and our own before them.
const SLICES: usize = 8;
/// Empty buffers that a worker keeps.
const STOCK_MAX: usize = 4;

thread_local! {
    static STOCK: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct Shared {
    stream: Stream,
    /// Read before, and read again first.
    first: Bytes,
    /// What `h2` wrote; `out[sent..]` waits.
    out: Vec<u8>,
    sent: usize,
    /// Bytes were handed over to TLS, which may hold them.
    unflushed: bool,
    /// Writes are collected.
    collects: bool,
    /// Writing failed: `h2` is told when it reads or writes next.
    failed: Option<io::ErrorKind>,
}

/// The connection as `h2` has it.
#[derive(Debug)]
pub(crate) struct Batched(Rc<RefCell<Shared>>);

/// The connection as its task has it.
#[derive(Debug)]
pub(crate) struct Batch(Rc<RefCell<Shared>>);

/// A connection that is read after `first`. Nothing is collected before [`Batch::collect`]: during the handshake nobody
/// flushes but `h2`.
pub(crate) fn batched(stream: Stream, first: Bytes) -> (Batched, Batch) {
    let shared = Rc::new(RefCell::new(Shared {
        stream,
        first,
        out: Vec::new(),
        sent: 0,
        unflushed: false,
        collects: false,
        failed: None,
    }));
    (Batched(shared.clone()), Batch(shared))
}

impl Batch {
    /// From now on writes wait for [`Batch::poll_flush`].
    pub(crate) fn collect(&self) {
        self.0.borrow_mut().collects = true;
    }

    /// Writes what waits; `Ready(true)` where that failed: `h2` is to be polled again, and will learn it.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut shared = self.0.borrow_mut();
        let shared = &mut *shared;
        if shared.failed.is_some() {
            return Poll::Ready(false);
        }
        match ready!(shared.poll_flush(cx)) {
            Ok(()) => Poll::Ready(false),
            Err(error) => {
                shared.failed = Some(error.kind());
                shared.put_back();
                Poll::Ready(true)
            }
        }
    }
}

impl Shared {
    fn check(&self) -> io::Result<()> {
        match self.failed {
            Some(kind) => Err(kind.into()),
            None => Ok(()),
        }
    }

    fn waiting(&self) -> usize {
        self.out.len() - self.sent
    }

    /// The buffer is empty: it goes back to the worker.
    fn put_back(&mut self) {
        self.sent = 0;
        let mut out = std::mem::take(&mut self.out);
        if out.capacity() == 0 || out.capacity() > 2 * BATCH_MAX {
            return;
        }
        out.clear();
        STOCK.with_borrow_mut(|stock| {
            if stock.len() < STOCK_MAX {
                stock.push(out);
            }
        });
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.waiting() > 0 {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out[self.sent..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
            self.unflushed = true;
        }
        self.put_back();
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.check()?;
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if length == 0 {
            return Poll::Ready(Ok(0));
        }
        loop {
            let has_room = self.waiting() + length <= BATCH_MAX;
            if self.collects && has_room && length < DIRECT {
                self.copy(slices);
                return Poll::Ready(Ok(length));
            }
            // What waits goes first; the slices follow in the same call.
            let mut all = [IoSlice::new(&[]); SLICES + 1];
            all[0] = IoSlice::new(&self.out[self.sent..]);
            let count = slices.len().min(SLICES);
            all[1..=count].copy_from_slice(&slices[..count]);
            let from = usize::from(self.waiting() == 0);
            let stream = Pin::new(&mut self.stream);
            let written = match stream.poll_write_vectored(cx, &all[from..=count]) {
                Poll::Ready(written) => written?,
                // Taken while there is room, so that the task's own flush is what waits.
                Poll::Pending if self.collects && has_room => {
                    self.copy(slices);
                    return Poll::Ready(Ok(length));
                }
                Poll::Pending => return Poll::Pending,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            let own = written.min(self.waiting());
            self.sent += own;
            if self.waiting() == 0 {
                self.put_back();
            }
            if written > own {
                return Poll::Ready(Ok(written - own));
            }
        }
    }

    fn copy(&mut self, slices: &[IoSlice<'_>]) {
        if self.out.capacity() == 0
            && let Some(stocked) = STOCK.with_borrow_mut(Vec::pop)
        {
            self.out = stocked;
        }
        if self.sent > 0 && self.sent >= self.waiting() {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        for slice in slices {
            self.out.extend_from_slice(slice);
        }
    }
}

impl AsyncRead for Batched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let shared = &mut *self.0.borrow_mut();
        shared.check()?;
        if shared.first.is_empty() {
            return Pin::new(&mut shared.stream).poll_read(cx, buf);
        }
        let count = shared.first.len().min(buf.remaining());
        buf.put_slice(&shared.first[..count]);
        shared.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Batched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = &mut *self.0.borrow_mut();
        shared.check()?;
        if shared.collects {
            // The task does it when `h2` has nothing more to write.
            return Poll::Ready(Ok(()));
        }
        shared.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = &mut *self.0.borrow_mut();
        shared.check()?;
        ready!(shared.poll_flush(cx))?;
        Pin::new(&mut shared.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn pair(size: usize) -> (Batched, Batch, DuplexStream) {
        let (near, far) = duplex(size);
        let (io, batch) = batched(Stream::Memory(near), Bytes::from_static(b"first"));
        (io, batch, far)
    }

    #[tokio::test]
    async fn what_was_read_before_is_read_first() {
        let (mut io, _batch, mut far) = pair(64);
        far.write_all(b" then").await.unwrap();
        let mut read = [0; 10];
        io.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"first then");
    }

    #[tokio::test]
    async fn writes_wait_for_the_task_and_leave_in_order() {
        let (mut io, batch, mut far) = pair(1024 * 1024);
        io.write_all(b"at once,").await.unwrap();
        batch.collect();
        io.write_all(b" later,").await.unwrap();
        io.flush().await.unwrap();
        let mut read = vec![0; 64];
        assert_eq!(far.read(&mut read).await.unwrap(), 8);
        assert!(!poll_fn(|cx| batch.poll_flush(cx)).await);
        assert_eq!(far.read(&mut read).await.unwrap(), 7);
        assert_eq!(
            batch.0.borrow().out.capacity(),
            0,
            "an idle connection holds no buffer"
        );
        // A large write takes what waits along.
        io.write_all(b"small").await.unwrap();
        io.write_all(&[b'x'; DIRECT]).await.unwrap();
        let mut read = vec![0; DIRECT + 5];
        far.read_exact(&mut read).await.unwrap();
        assert!(read.starts_with(b"smallxxx"));
    }

    #[tokio::test]
    async fn a_socket_that_takes_nothing_bounds_what_waits() {
        let (mut io, batch, mut far) = pair(16);
        batch.collect();
        let mut accepted = 0_u8;
        let blocked = poll_fn(|cx| {
            loop {
                let piece = [accepted; 1024];
                match Pin::new(&mut io).poll_write(cx, &piece) {
                    Poll::Ready(Ok(count)) => {
                        assert_eq!(count, 1024);
                        accepted += 1;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Ready(Ok(())),
                }
            }
        });
        blocked.await.unwrap();
        let accepted = usize::from(accepted);
        assert!(
            (BATCH_MAX / 1024..=BATCH_MAX / 1024 + 1).contains(&accepted),
            "{accepted}"
        );
        let reading = tokio::spawn(async move {
            let mut read = vec![0; accepted * 1024];
            far.read_exact(&mut read).await.unwrap();
            read
        });
        assert!(!poll_fn(|cx| batch.poll_flush(cx)).await);
        let read = reading.await.unwrap();
        for (at, piece) in read.chunks(1024).enumerate() {
            assert!(piece.iter().all(|byte| usize::from(*byte) == at), "piece {at}");
        }
    }

    #[tokio::test]
    async fn h2_learns_of_a_write_that_failed_later() {
        let (mut io, batch, far) = pair(16);
        batch.collect();
        io.write_all(b"lost").await.unwrap();
        drop(far);
        assert!(poll_fn(|cx| batch.poll_flush(cx)).await, "said once");
        assert!(!poll_fn(|cx| batch.poll_flush(cx)).await, "and not again");
        assert!(io.read(&mut [0; 8]).await.is_err());
    }
}
