//! A connection's bytes: one read buffer, one queue of output, one read per readiness event, vectored writes.
//!
//! Bounds: a read asks for [`READ_MIN`] to [`READ_MAX`] bytes, growing while reads come back full; output is not filled
//! beyond [`OUTPUT_HIGH`] (whoever fills it looks at [`Transport::has_room`]), which is the backpressure. An idle
//! connection gives its read buffer back: the thread keeps at most [`SPARES_MAX`] of the smallest size for the next
//! connection that has something to read, so that a message costs no allocation for its bytes.

use std::{
    cell::RefCell,
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use rajut_codec::Output;
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::stream::Stream;

/// First read of a message.
const READ_MIN: usize = 4 * 1024;
/// Largest read, for bodies that stream.
const READ_MAX: usize = 64 * 1024;
/// Output beyond which no more body is pulled.
pub(crate) const OUTPUT_HIGH: usize = 64 * 1024;
/// Slices of one vectored write.
const SLICES: usize = 16;
/// Read buffers that a thread keeps for its connections: 64 of 4 KiB.
const SPARES_MAX: usize = 64;

thread_local! {
    // Buffers of READ_MIN bytes without content; what was read into one before may still be referred to.
    static SPARES: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
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
    /// The read buffer is larger than [`READ_MIN`].
    grown: bool,
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
            grown: false,
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
            self.read_size = (self.read_size * 2).min(READ_MAX);
        } else if count < READ_MIN {
            self.read_size = READ_MIN;
        }
        Poll::Ready(Ok(count))
    }

    /// Room for the next read: in the buffer of the last one where nobody refers to that any more, else in a spare.
    fn make_room(&mut self) {
        if self.read.capacity() == 0
            && let Some(spare) = SPARES.with_borrow_mut(Vec::pop)
        {
            self.read = spare;
        }
        // What is kept from before makes the buffer larger, too.
        self.grown |= self.read_size > READ_MIN || !self.read.is_empty();
        self.read.reserve(self.read_size);
    }

    /// Nothing has arrived: gives the buffer back, unless what was read into it before is still in use (then keeping
    /// the rest of it costs nothing).
    fn pause(&mut self) {
        if self.read.is_empty() && self.read.capacity() > 0 && self.read.try_reclaim(READ_MIN) {
            self.give_back();
        }
    }

    /// Gives the read buffer back, where it holds nothing that was not decoded. Whoever refers to what was decoded
    /// must be about to let it go.
    pub(crate) fn give_back(&mut self) {
        if self.read.is_empty() && self.read.capacity() > 0 {
            let buffer = std::mem::take(&mut self.read);
            if !std::mem::take(&mut self.grown) {
                SPARES.with_borrow_mut(|spares| {
                    if spares.len() < SPARES_MAX {
                        spares.push(buffer);
                    }
                });
            }
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

    /// Shuts the writing half down once everything is written.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
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
    async fn large_buffers_are_not_kept() {
        let (mut peer, end) = tokio::io::duplex(READ_MAX);
        let mut transport = Transport::new(Stream::Memory(end));
        peer.write_all(&[0; READ_MIN]).await.unwrap();
        poll_fn(|cx| transport.poll_read(cx)).await.unwrap();
        // The first read came back full, so the second asks for more, behind what is there.
        peer.write_all(&[0; 10]).await.unwrap();
        poll_fn(|cx| transport.poll_read(cx)).await.unwrap();
        transport.read.clear();
        assert!(poll_once(&mut transport).await.is_pending());
        assert_eq!(transport.read.capacity(), 0);
        assert_eq!(SPARES.with_borrow(Vec::len), 0);
    }
}
