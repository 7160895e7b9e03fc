//! The floor: a hop that moves bytes and looks at none of them. What a userspace hop costs at least.
//!
//! One connection to the target per accepted connection. Copies through one shared buffer, or with `--splice` moves
//! the bytes through a pipe inside the kernel. What the other side does not take is kept (at most one buffer) and
//! nothing more is read until it has gone.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use anyhow::{Result, bail};
use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::args::Args;
use crate::poll::{Poll, Ready};

/// One read, or one splice, takes at most so much.
const CHUNK_BYTES: usize = 256 * 1024;

#[derive(Debug)]
struct Side {
    socket: TcpStream,
    /// On its way to this side.
    held: Held,
    /// As last told to the poll: (readable, writable).
    wanted: (bool, bool),
    /// It sent its end, which the other side has been told.
    ended: bool,
}

#[derive(Debug)]
enum Held {
    Bytes(Vec<u8>),
    Pipe {
        read: OwnedFd,
        write: OwnedFd,
        bytes: usize,
    },
}

impl Held {
    fn is_empty(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Pipe { bytes, .. } => *bytes == 0,
        }
    }
}

/// Serves until the process is ended.
pub(crate) fn serve(args: &Args) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", args.number::<u16>("listen", 0)?))?;
    listener.set_nonblocking(true)?;
    let to: u16 = args.number("to", 0)?;
    let mut poll = Poll::new()?;
    poll.add(&listener, 0)?;
    let mut pairs: HashMap<u64, [Side; 2]> = HashMap::new();
    let mut next = 1;
    let (mut ready, mut buffer) = (Vec::new(), vec![0; CHUNK_BYTES]);
    loop {
        poll.wait(None, &mut ready)?;
        for event in &ready {
            if event.token == 0 {
                while let Ok((downstream, _)) = listener.accept() {
                    let pair = [
                        Side::new(downstream, args.flag("splice"))?,
                        Side::new(TcpStream::connect(("127.0.0.1", to))?, args.flag("splice"))?,
                    ];
                    for (side, token) in pair.iter().zip(next * 2..) {
                        poll.add(&side.socket, token)?;
                    }
                    pairs.insert(next, pair);
                    next += 1;
                }
            } else if let Some(pair) = pairs.get_mut(&(event.token / 2))
                && (step(pair, *event, &mut buffer).is_err() || want(pair, event.token / 2, &poll).is_err())
            {
                pairs.remove(&(event.token / 2));
            }
        }
    }
}

impl Side {
    fn new(socket: TcpStream, splice: bool) -> Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let held = if splice {
            let (read, write) = rustix::pipe::pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
            rustix::pipe::fcntl_setpipe_size(&write, CHUNK_BYTES)?;
            Held::Pipe {
                read,
                write,
                bytes: 0,
            }
        } else {
            Held::Bytes(Vec::new())
        };
        Ok(Self {
            socket,
            held,
            wanted: (true, false),
            ended: false,
        })
    }
}

/// Moves what is ready; an error, or the end of both sides, ends the pair.
fn step(pair: &mut [Side; 2], event: Ready, buffer: &mut [u8]) -> Result<()> {
    let me = (event.token % 2) as usize;
    if event.writable {
        push(&mut pair[me])?;
    }
    let [a, b] = pair;
    let (from, to) = if me == 0 { (a, b) } else { (b, a) };
    if event.readable && !from.ended && to.held.is_empty() {
        if pull(from, to, buffer)? {
            push(to)?;
        } else {
            from.ended = true;
            to.socket.shutdown(std::net::Shutdown::Write)?;
        }
    }
    if from.ended && to.ended {
        bail!("over");
    }
    Ok(())
}

/// One read from `from` into what is held for `to`; false at the end.
fn pull(from: &mut Side, to: &mut Side, buffer: &mut [u8]) -> Result<bool> {
    let got = match &mut to.held {
        Held::Bytes(bytes) => match from.socket.read(buffer) {
            Ok(n) => {
                // Straight on where the other side takes it.
                let sent = to
                    .socket
                    .write(&buffer[..n])
                    .or_else(|error| match error.kind() {
                        ErrorKind::WouldBlock => Ok(0),
                        _ => Err(error),
                    })?;
                bytes.extend_from_slice(&buffer[sent..n]);
                n
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error.into()),
        },
        Held::Pipe { write, bytes, .. } => {
            match rustix::pipe::splice(&from.socket, None, write, None, CHUNK_BYTES, flags()) {
                Ok(n) => {
                    *bytes += n;
                    n
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    };
    Ok(got > 0)
}

/// Gives the side what is held for it, as far as it takes it.
fn push(side: &mut Side) -> Result<()> {
    while !side.held.is_empty() {
        match &mut side.held {
            Held::Bytes(bytes) => match side.socket.write(bytes) {
                Ok(n) => drop(bytes.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            },
            Held::Pipe { read, bytes, .. } => {
                match rustix::pipe::splice(&*read, None, &side.socket, None, *bytes, flags()) {
                    Ok(n) => *bytes -= n,
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(())
}

fn flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}

/// Reads only from a side whose bytes the other one takes; waits for room only where something is held.
fn want(pair: &mut [Side; 2], id: u64, poll: &Poll) -> Result<()> {
    for me in 0..2 {
        let wanted = (
            !pair[me].ended && pair[1 - me].held.is_empty(),
            !pair[me].held.is_empty(),
        );
        if wanted != pair[me].wanted {
            pair[me].wanted = wanted;
            poll.want(&pair[me].socket, id * 2 + me as u64, wanted.0, wanted.1)?;
        }
    }
    Ok(())
}
