//! A connection's bytes: one read buffer, one queue of output, one read per readiness event, vectored writes.
//!
//! Bounds: a read asks for [`READ_MIN`] bytes, or for [`READ_MAX`] where the one before came back full; output is not
//! filled beyond [`OUTPUT_HIGH`] (whoever fills it looks at [`Transport::has_room`]), which is the backpressure. An idle
//! connection gives its read buffer back: the thread keeps at most [`SPARES_MAX`] of the smaller size and
//! [`LARGE_SPARES_MAX`] of the larger for the next connection that has something to read, so that a message costs no
//! allocation for its bytes.

use std::{
    cell::RefCell,
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    thread::LocalKey,
};

use bytes::{Buf, BytesMut};
use rajut_codec::Output;
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::stream::Stream;

/// First read of a message.
const READ_MIN: usize = 4 * 1024;
/// Largest read, for bodies that stream: one of 64 KiB with its head.
const READ_MAX: usize = 64 * 1024 + READ_MIN;
/// Output beyond which no more body is pulled.
pub(crate) const OUTPUT_HIGH: usize = 64 * 1024;
/// Slices of one vectored write.
const SLICES: usize = 16;
/// Read buffers that a thread keeps for its connections: 64 of 4 KiB.
const SPARES_MAX: usize = 64;
/// Of the larger ones it keeps a quarter of a mebibyte.
const LARGE_SPARES_MAX: usize = 4;

thread_local! {
    // Buffers of READ_MIN bytes without content; what was read into one before may still be referred to.
    static SPARES: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    // Buffers of READ_MAX bytes that nobody refers to.
    static LARGE_SPARES: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// What the read buffer is when nothing is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// [`READ_MIN`] bytes.
    Small,
    /// [`READ_MAX`] bytes.
    Large,
    /// It grew behind what was left in it, and is not kept.
    Odd,
}

/// A connection and its buffers.
#[derive(Debug)]
pub(crate) struct Transport {
    stream: Stream,
    /// What has been read and not decoded.
    pub(crate) read: BytesMut,
    /// What has been encoded and not written.
    pub(crate) output: Output,
    read_size: usize,
    buffer: Size,
    finished: bool,
    /// Bytes written in all.
    pub(crate) written: u64,
    /// Output of a TLS stream that was handed over and may not have left.
    unflushed: bool,
}

impl Transport {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            read: BytesMut::new(),
            output: Output::new(),
            read_size: READ_MIN,
            buffer: Size::Small,
            finished: false,
            written: 0,
            unflushed: false,
        }
    }

    pub(crate) const fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Whether the peer has finished sending.
    pub(crate) const fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether more may be put into the output.
    pub(crate) fn has_room(&self) -> bool {
        self.output.remaining() < OUTPUT_HIGH
    }

    /// Reads once. `Ok(0)`: the peer has finished sending.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.finished {
            return Poll::Ready(Ok(0));
        }
        // Where the reactor has seen nothing arrive there is no need of a buffer, nor of a system call.
        if let Stream::Tcp(tcp) = &self.stream
            && tcp.poll_read_ready(cx)?.is_pending()
        {
            self.pause();
            return Poll::Pending;
        }
        self.make_room();
        let asked = self.read.capacity() - self.read.len();
        // The future holds no state between polls: it is made anew for each.
        let read = pin!(self.stream.read_buf(&mut self.read)).poll(cx);
        let Poll::Ready(read) = read else {
            self.pause();
            return Poll::Pending;
        };
        let count = read?;
        if count == 0 {
            self.finished = true;
        }
        if count == asked {
            self.read_size = READ_MAX;
        } else if count < READ_MIN {
            self.read_size = READ_MIN;
        }
        Poll::Ready(Ok(count))
    }

    /// Room for the next read: behind what the last one brought, in its buffer where nobody refers to that any more, else
    /// in a spare.
    fn make_room(&mut self) {
        if self.read.capacity() - self.read.len() >= READ_MIN {
            return;
        }
        let size = match (self.read.is_empty(), self.read_size) {
            (false, _) => Size::Odd,
            (true, READ_MIN) => Size::Small,
            (true, _) => Size::Large,
        };
        let other = match size {
            Size::Odd => false,
            size if size != self.buffer => true,
            Size::Small => self.read.capacity() == 0,
            Size::Large => !self.read.try_reclaim(READ_MAX),
        };
        if other {
            let spares = if size == Size::Large {
                &LARGE_SPARES
            } else {
                &SPARES
            };
            self.read = spares.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        self.buffer = size;
        self.read.reserve(self.read_size);
    }

    /// Nothing has arrived: gives the buffer back, unless what was read into it before is still in use (then keeping
    /// the rest of it costs nothing).
    fn pause(&mut self) {
        let whole = match self.buffer {
            Size::Small if self.read.capacity() == 0 => return,
            Size::Small | Size::Odd => READ_MIN,
            Size::Large => READ_MAX,
        };
        if self.read.is_empty() && self.read.try_reclaim(whole) {
            self.give_back();
        }
    }

    /// Gives the read buffer back, where it holds nothing that was not decoded. Whoever refers to what was decoded
    /// must be about to let it go.
    pub(crate) fn give_back(&mut self) {
        if !self.read.is_empty() {
            return;
        }
        let mut buffer = std::mem::take(&mut self.read);
        match std::mem::replace(&mut self.buffer, Size::Small) {
            Size::Small if buffer.capacity() > 0 => keep(buffer, &SPARES, SPARES_MAX),
            Size::Large if buffer.try_reclaim(READ_MAX) => keep(buffer, &LARGE_SPARES, LARGE_SPARES_MAX),
            Size::Small | Size::Large | Size::Odd => {}
        }
    }

    /// Writes until nothing waits.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.output.has_remaining() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = self.output.chunks_vectored(&mut slices);
            let stream = Pin::new(&mut self.stream);
            // One slice, the common case, goes by the cheaper system call.
            let written = match &slices[..count] {
                [slice] => ready!(stream.poll_write(cx, slice))?,
                slices => ready!(stream.poll_write_vectored(cx, slices))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(written);
            self.written += written as u64;
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Gives back the buffers that hold nothing: the connection is about to wait for long.
    pub(crate) fn rest(&mut self) {
        if !self.output.has_remaining() {
            self.output = Output::new();
        }
        self.give_back();
        self.read_size = READ_MIN;
    }

    /// Reads and throws away; `Ready` when the peer has finished or broken, or `most` bytes have been read.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>, most: &mut usize) -> Poll<()> {
        loop {
            self.read = BytesMut::new();
            match ready!(self.poll_read(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(count) => match most.checked_sub(count) {
                    Some(left) => *most = left,
                    None => return Poll::Ready(()),
                },
            }
        }
    }

    /// Shuts the writing half down once everything is written.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Keeps a buffer for the thread's next connection, where there are fewer than `most`.
fn keep(buffer: BytesMut, spares: &'static LocalKey<RefCell<Vec<BytesMut>>>, most: usize) {
    spares.with_borrow_mut(|spares| {
        if spares.len() < most {
            spares.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use rajut_platform::socket::{TcpListener, TcpStream};
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn poll_once(transport: &mut Transport) -> Poll<io::Result<usize>> {
        poll_fn(|cx| Poll::Ready(transport.poll_read(cx))).await
    }

    #[tokio::test]
    async fn a_connection_that_rests_lends_its_buffer_to_the_next_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut first = Transport::new(Stream::Tcp(listener.accept().await.unwrap().0));
        assert!(poll_once(&mut first).await.is_pending());
        assert_eq!(first.read.capacity(), 0, "nothing to read needs no buffer");

        peer.write_all(b"head").await.unwrap();
        assert_eq!(poll_fn(|cx| first.poll_read(cx)).await.unwrap(), 4);
        let head = first.read.split().freeze();
        let place = head.as_ptr();
        assert!(poll_once(&mut first).await.is_pending());
        assert_eq!(
            SPARES.with_borrow(Vec::len),
            0,
            "what was read is still referred to"
        );
        drop(head);
        assert!(poll_once(&mut first).await.is_pending());
        assert_eq!(first.read.capacity(), 0, "a resting connection holds none");
        assert_eq!(SPARES.with_borrow(Vec::len), 1);

        peer.write_all(b"next").await.unwrap();
        poll_fn(|cx| first.poll_read(cx)).await.unwrap();
        assert_eq!(
            first.read.as_ptr(),
            place,
            "the same memory again, from its start"
        );
    }

    #[tokio::test]
    async fn a_large_body_is_read_in_large_pieces_into_a_buffer_that_serves_again() {
        let (mut peer, end) = tokio::io::duplex(2 * READ_MAX);
        let mut transport = Transport::new(Stream::Memory(end));
        peer.write_all(&[0; READ_MIN]).await.unwrap();
        poll_fn(|cx| transport.poll_read(cx)).await.unwrap();
        // The first read came back full, so the next ones ask for more.
        let mut pieces = vec![transport.read.split().freeze()];
        peer.write_all(&vec![0; READ_MAX + 10]).await.unwrap();
        for expected in [READ_MAX, 10] {
            assert_eq!(poll_fn(|cx| transport.poll_read(cx)).await.unwrap(), expected);
            pieces.push(transport.read.split().freeze());
        }
        assert!(poll_once(&mut transport).await.is_pending());
        assert_eq!(
            LARGE_SPARES.with_borrow(Vec::len),
            0,
            "what was read is still referred to"
        );
        drop(pieces);
        assert!(poll_once(&mut transport).await.is_pending());
        assert_eq!(transport.read.capacity(), 0, "a resting connection holds none");
        assert_eq!(LARGE_SPARES.with_borrow(Vec::len), 1);
        // Little came last: the next message begins with a small buffer.
        peer.write_all(&[0; 20]).await.unwrap();
        poll_fn(|cx| transport.poll_read(cx)).await.unwrap();
        assert!(transport.read.capacity() <= READ_MIN);
        assert_eq!(LARGE_SPARES.with_borrow(Vec::len), 1);
    }

    #[tokio::test]
    async fn a_message_behind_another_makes_no_spare_of_an_odd_size() {
        let (mut peer, end) = tokio::io::duplex(READ_MAX);
        let mut transport = Transport::new(Stream::Memory(end));
        for _ in 0..2 {
            // Half a message stays and the buffer grows behind it.
            peer.write_all(&[0; READ_MIN - 100]).await.unwrap();
            poll_fn(|cx| transport.poll_read(cx)).await.unwrap();
        }
        transport.read.clear();
        assert!(poll_once(&mut transport).await.is_pending());
        assert_eq!(transport.read.capacity(), 0);
        assert_eq!(SPARES.with_borrow(Vec::len), 0);
        assert_eq!(LARGE_SPARES.with_borrow(Vec::len), 0);
    }
}
