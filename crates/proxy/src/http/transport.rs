//! A connection's bytes: one read buffer, one queue of output, one read per readiness event, vectored writes.
//!
//! Bounds: a read asks for [`READ_MIN`] to [`READ_MAX`] bytes, growing while reads come back full; output is not filled
//! beyond [`OUTPUT_HIGH`] (whoever fills it looks at [`Transport::has_room`]), which is the backpressure. An idle
//! connection gives its read buffer back.

use std::{
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

/// A connection and its buffers.
#[derive(Debug)]
pub(crate) struct Transport {
    stream: Stream,
    /// What has been read and not decoded.
    pub(crate) read: BytesMut,
    /// What has been encoded and not written.
    pub(crate) output: Output,
    read_size: usize,
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
        self.read.reserve(self.read_size);
        let asked = self.read.capacity() - self.read.len();
        // The future holds no state between polls: it is made anew for each.
        let read = pin!(self.stream.read_buf(&mut self.read)).poll(cx);
        let Poll::Ready(read) = read else {
            if self.read.is_empty() {
                // Nothing under way: an idle connection stays small.
                self.read = BytesMut::new();
            }
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

    /// Writes until nothing waits.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.output.has_remaining() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = self.output.chunks_vectored(&mut slices);
            let stream = Pin::new(&mut self.stream);
            let written = ready!(stream.poll_write_vectored(cx, &slices[..count]))?;
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
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
        self.read_size = READ_MIN;
    }

    /// Shuts the writing half down once everything is written.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
