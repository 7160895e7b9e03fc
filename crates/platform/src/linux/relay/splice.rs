//! Plain TCP to plain TCP.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;

use rustix::pipe::SpliceFlags;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWriteExt, Interest, ReadBuf};

use super::pipe::{PIPE_SIZE, Pipe};
use crate::relay::{Activity, Broken, RelayOptions, RelayOutcome, RelayProgress, Side, count, outcome};
use crate::socket::TcpStream;
use crate::socket::tcp::{ReadHalf, WriteHalf};

/// The buffer that a worker's connections share. A read that fills it starts splicing.
const SHARED_BUFFER: usize = 16 * 1024;
/// A spliced piece smaller than this ends splicing: copying a little costs less than two trips through a pipe.
const SMALL: usize = 4 * 1024;
/// Bytes after which a direction lets the worker's other tasks run.
const TURN: usize = 1024 * 1024;

thread_local! {
    static SHARED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Moves bytes both ways until both sides have finished, one breaks, or nothing moves for the idle timeout.
///
/// Unread bytes that were only peeked at are moved as well. The streams stay open: the caller decides how
/// they are closed. SIGPIPE must be ignored, as it is in Rust programs.
pub async fn relay(
    a: &mut TcpStream,
    b: &mut TcpStream,
    options: RelayOptions,
    progress: &RelayProgress,
) -> RelayOutcome {
    let activity = Activity::new(options);
    let ((a_read, a_write), (b_read, b_write)) = (a.split(), b.split());
    let forward = Direction {
        from: a_read,
        to: b_write,
        source: Side::A,
        moved: &progress.a_to_b,
        activity: &activity,
    };
    let backward = Direction {
        from: b_read,
        to: a_write,
        source: Side::B,
        moved: &progress.b_to_a,
        activity: &activity,
    };
    let moved = async { tokio::try_join!(forward.run(), backward.run()) };
    let moved = tokio::select! {
        moved = moved => Some(moved.map(|_| ())),
        () = activity.idle() => None,
    };
    outcome(progress, moved)
}

struct Direction<'a> {
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    source: Side,
    moved: &'a Cell<u64>,
    activity: &'a Activity,
}

/// What one attempt to move bytes came to.
enum Step {
    /// That many were moved.
    Moved(usize),
    /// There is nothing to read at the moment.
    Nothing,
    /// There will be no more.
    End,
}

impl Direction<'_> {
    async fn run(mut self) -> Result<(), Broken> {
        let (mut bulk, mut splice_works) = (false, true);
        let mut turn = 0;
        loop {
            let step = if bulk {
                self.splice().await
            } else {
                self.copy().await
            };
            match step {
                Ok(Step::Moved(bytes)) => {
                    bulk = splice_works && bytes >= if bulk { SMALL } else { SHARED_BUFFER };
                    turn += bytes;
                }
                Ok(Step::Nothing) => {}
                Ok(Step::End) => break,
                // A socket type that can't be spliced: nothing has been read.
                Err(Broken {
                    reading: true, error, ..
                }) if bulk && error.raw_os_error() == Some(libc::EINVAL) => {
                    (bulk, splice_works) = (false, false);
                }
                Err(broken) => return Err(broken),
            }
            if turn >= TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
        match SockRef::from(self.to.as_ref()).shutdown(Shutdown::Write) {
            // The peer has reset it, or never connected: the other direction finds out, if it matters.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other.map_err(Broken::writing(self.source.other())),
        }
    }

    fn wrote(&self, bytes: usize) {
        count(self.moved, bytes);
        self.activity.note();
    }

    /// Waits for input and moves one bufferful.
    async fn copy(&mut self) -> Result<Step, Broken> {
        // Polled rather than tried: a short read tells tokio that the socket is empty, which saves asking again.
        let from = &mut self.from;
        let (buffer, length) = poll_fn(|context| {
            let mut buffer = SHARED.take();
            buffer.resize(SHARED_BUFFER, 0);
            let mut space = ReadBuf::new(&mut buffer);
            let read = Pin::new(&mut *from).poll_read(context, &mut space);
            let length = space.filled().len();
            if length == 0 {
                SHARED.set(std::mem::take(&mut buffer));
            }
            read.map_ok(|()| (buffer, length))
        })
        .await
        .map_err(Broken::reading(self.source))?;
        if length == 0 {
            return Ok(Step::End);
        }
        // While this connection waits for its writer it keeps the buffer; the others get a new one.
        let mut written = 0;
        while written < length {
            let rest = buffer.get(written..length).unwrap_or_default();
            let bytes = self
                .to
                .write(rest)
                .await
                .map_err(Broken::writing(self.source.other()))?;
            if bytes == 0 {
                return Err(Broken::writing(self.source.other())(
                    io::ErrorKind::WriteZero.into(),
                ));
            }
            written += bytes;
            self.wrote(bytes);
        }
        SHARED.set(buffer);
        Ok(Step::Moved(length))
    }

    /// Waits for input and moves one pipeful.
    async fn splice(&mut self) -> Result<Step, Broken> {
        let (from, to) = (self.from.as_ref(), self.to.as_ref());
        from.readable().await.map_err(Broken::reading(self.source))?;
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let pipe = Pipe::take().map_err(Broken::reading(self.source))?;
        // The pipe is empty, so that "would block" can only mean the socket.
        let read = from.try_io(Interest::READABLE, || {
            Ok(rustix::pipe::splice(
                from,
                None,
                &pipe.write,
                None,
                PIPE_SIZE,
                flags,
            )?)
        });
        let length = match read {
            Ok(0) => {
                pipe.put_back();
                return Ok(Step::End);
            }
            Ok(length) => length,
            Err(error) => {
                pipe.put_back();
                return if is_transient(&error) {
                    Ok(Step::Nothing)
                } else {
                    Err(Broken::reading(self.source)(error))
                };
            }
        };
        let mut left = length;
        while left > 0 {
            let written = to.try_io(Interest::WRITABLE, || {
                Ok(rustix::pipe::splice(&pipe.read, None, to, None, left, flags)?)
            });
            match written {
                Ok(0) => {
                    return Err(Broken::writing(self.source.other())(
                        io::ErrorKind::WriteZero.into(),
                    ));
                }
                Ok(bytes) => {
                    left = left.saturating_sub(bytes);
                    self.wrote(bytes);
                }
                Err(error) if is_transient(&error) => {
                    self.to
                        .writable()
                        .await
                        .map_err(Broken::writing(self.source.other()))?;
                }
                Err(error) => return Err(Broken::writing(self.source.other())(error)),
            }
        }
        // Only an empty pipe may go back: on all other ways out it is dropped with what it holds.
        pipe.put_back();
        Ok(Step::Moved(length))
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
