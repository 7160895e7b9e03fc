//! Pipes for splicing, and a small stock of them per worker: making one costs three system calls and two
//! descriptors.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::PipeFlags;

/// Bytes that a pipe holds, if the user's limit (`fs.pipe-user-pages-soft`) allows; otherwise the system's default.
pub const PIPE_SIZE: usize = 256 * 1024;

/// Empty pipes that a worker keeps.
pub const CACHED_PIPES: usize = 16;

thread_local! {
    static STOCK: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe; empty whenever it is in stock.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
}

impl Pipe {
    /// One from stock, or a new one.
    pub(super) fn take() -> io::Result<Self> {
        if let Some(pipe) = STOCK.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Packets from a network card take a slot of the pipe each, however small: more slots, fewer calls.
        let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE_SIZE);
        Ok(Self { read, write })
    }

    /// Puts an *empty* pipe back.
    pub(super) fn put_back(self) {
        STOCK.with_borrow_mut(|stock| {
            if stock.len() < CACHED_PIPES {
                stock.push(self);
            }
        });
    }

    /// Pipes in this thread's stock.
    #[cfg(test)]
    pub(crate) fn in_stock() -> usize {
        STOCK.with_borrow(Vec::len)
    }
}
