//! The socket below TLS: it reads ahead while much arrives.
//!
//! `rustls` asks for 4 KiB at a time, so that each record of a bulk transfer would be five system calls. Once a read
//! has filled what was asked for, the next ones take up to [`AHEAD`] bytes and hand them out from memory; a read that
//! brings little ends that. Small messages never come here.
//!
//! Bounds: at most [`AHEAD`] bytes per connection, and only while its reader does not take them; a worker keeps
//! [`STOCK_MAX`] empty buffers for all. What waits here is invisible to a look at the socket: [`Ahead::has_unread`].

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use rajut_platform::socket::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of one read: four records and their frames.
const AHEAD: usize = 64 * 1024 + 512;
/// A read that brings less ends reading ahead.
const LITTLE: usize = 8 * 1024;
/// The least that must be asked for before a full read counts as much.
const FULL: usize = 1024;
/// Empty buffers that a worker keeps.
const STOCK_MAX: usize = 4;

thread_local! {
    static STOCK: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A TCP connection for TLS.
#[derive(Debug)]
pub struct Ahead {
    tcp: TcpStream,
    /// `held[at..end]` was read and not asked for yet; empty otherwise.
    held: Box<[u8]>,
    at: usize,
    end: usize,
    /// The last read brought all that was asked for.
    much: bool,
}

impl Ahead {
    /// Nothing was read yet.
    pub fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            held: Box::default(),
            at: 0,
            end: 0,
            much: false,
        }
    }

    /// The socket.
    pub const fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// Whether bytes were taken from the socket that TLS has not seen.
    pub const fn has_unread(&self) -> bool {
        self.at < self.end
    }

    /// Hands out what is held.
    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let count = buf.remaining().min(self.end - self.at);
        buf.put_slice(&self.held[self.at..self.at + count]);
        self.at += count;
        if self.at == self.end {
            (self.at, self.end) = (0, 0);
            put_back(std::mem::take(&mut self.held));
        }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut held = STOCK
            .with_borrow_mut(Vec::pop)
            .unwrap_or_else(|| vec![0; AHEAD].into_boxed_slice());
        let mut space = ReadBuf::new(&mut held);
        let read = Pin::new(&mut self.tcp).poll_read(cx, &mut space);
        let count = space.filled().len();
        if count == 0 {
            put_back(held);
            return read;
        }
        self.much = count >= LITTLE;
        self.held = held;
        self.end = count;
        self.give(buf);
        Poll::Ready(Ok(()))
    }
}

fn put_back(buffer: Box<[u8]>) {
    STOCK.with_borrow_mut(|stock| {
        if stock.len() < STOCK_MAX {
            stock.push(buffer);
        }
    });
}

impl AsyncRead for Ahead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.has_unread() {
            self.give(buf);
            return Poll::Ready(Ok(()));
        }
        if self.much {
            return self.poll_ahead(cx, buf);
        }
        let asked = buf.remaining();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        if read.is_ready() {
            self.much = asked >= FULL && buf.remaining() == 0;
        }
        read
    }
}

impl AsyncWrite for Ahead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use rajut_platform::socket::TcpListener;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn pair() -> (Ahead, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (near, _) = listener.accept().await.unwrap();
        (Ahead::new(near), far)
    }

    #[tokio::test]
    async fn every_byte_comes_once_and_in_order_whatever_is_asked_for() {
        let (mut near, mut far) = pair().await;
        let sent: Vec<u8> = (0..1_000_000_u32)
            .map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1])
            .collect();
        let copy = sent.clone();
        let writing = tokio::spawn(async move {
            far.write_all(&copy).await.unwrap();
            far.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        let mut reached_ahead = false;
        loop {
            let mut piece = [0; 4096];
            let count = near.read(&mut piece).await.unwrap();
            if count == 0 {
                break;
            }
            reached_ahead |= near.has_unread();
            received.extend_from_slice(&piece[..count]);
        }
        writing.await.unwrap();
        assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
        assert!(reached_ahead);
        assert!(!near.has_unread() && near.held.is_empty());
    }

    #[tokio::test]
    async fn small_messages_are_read_as_they_are_asked_for() {
        let (mut near, mut far) = pair().await;
        for _ in 0..3 {
            far.write_all(&[b'm'; 64]).await.unwrap();
            let mut piece = [0; 4096];
            assert_eq!(near.read(&mut piece).await.unwrap(), 64);
            assert!(near.held.is_empty() && !near.much);
        }
    }
}
